# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests that the demo leaves no process behind, and that it buys nothing without consent."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
STUB = Path(__file__).parent / "stub" / "airflow"
STARTING = "starting its scheduler"


def offspring(marker: str) -> list[psutil.Process]:
    """Return the living processes whose environment has the marker."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("DEMO_TEST") == marker and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


@pytest.fixture
def demo(request, tmp_path):
    """Start the demo in a copy of the checkout, apart from any other demo on this machine.

    ``request.param``: seconds that a stub takes for Airflow's database; ``None`` for the real Airflow.
    """
    for name in ("dags", "pictory_provider"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "demo", tmp_path / "demo")
    if request.param is not None:
        (tmp_path / "airflow").symlink_to(STUB)
    marker = f"{request.node.name}-{os.getpid()}"
    env = {**os.environ, "DEMO_TEST": marker, "PYTHONUNBUFFERED": "1", "STUB_MIGRATES": str(request.param)}
    with subprocess.Popen(
        [sys.executable, "-m", "demo", "pictures"],
        cwd=tmp_path,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        yield process, marker
        process.kill()
    for left in offspring(marker):
        left.kill()


@pytest.mark.parametrize(
    ("demo", "moment", "number"),
    [
        (600, "making the database", signal.SIGINT),
        (0, STARTING, signal.SIGINT),
        (0, "healthy", signal.SIGTERM),
        (None, "deferred", signal.SIGINT),
    ],
    indirect=["demo"],
)
def test_a_demo_that_is_stopped_leaves_no_process(demo, moment, number):
    process, marker = demo
    lines = []
    for line in process.stdout:
        lines.append(line)
        if moment in line:
            break
    else:
        pytest.fail("".join(lines))
    while moment == STARTING and len(offspring(marker)) < 5:
        time.sleep(0.1)

    process.send_signal(number)

    assert process.wait(20) == (130 if number == signal.SIGINT else 143)
    assert offspring(marker) == []
    assert "Stopped. Nothing is left running." in process.stdout.read()


def test_the_demo_buys_nothing_from_the_real_pictory_without_consent(tmp_path):
    env = {name: value for name, value in os.environ.items() if name != "YES"}
    done = subprocess.run(
        [sys.executable, "-m", "demo", "pictures"],
        cwd=ROOT,
        env=env | {"PICTORY_API_KEY": "pictai_canary"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "1.2 AI credits" in done.stdout
    assert "Nothing was sent and nothing was spent." in done.stdout
    assert "pictai_canary" not in done.stdout + done.stderr
