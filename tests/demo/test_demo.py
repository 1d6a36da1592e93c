# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests that the demo leaves no process behind, with a stub of Airflow, and that it buys nothing without consent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.demo.conftest import ROOT, STARTING, stop


@pytest.mark.parametrize(
    ("demo", "moment", "number"),
    [
        (600, "making the database", signal.SIGINT),
        (0, STARTING, signal.SIGINT),
        (0, "healthy", signal.SIGTERM),
    ],
    indirect=["demo"],
)
def test_a_demo_that_is_stopped_leaves_no_process(demo, moment, number):
    stop(demo, moment, number)


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
