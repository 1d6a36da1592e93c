# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A demo that can be stopped, with a stub of Airflow or with the real one."""

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


def stop(demo, moment, number):
    """Send a signal to the demo at a moment, which its output tells, and check that it ends all its processes."""
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
