# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests that the benchmarks wait until their jobs have ended, and that their counters work."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks import copies
from benchmarks.pictory import running
from benchmarks.storage import measure
from benchmarks.styles import STYLES
from benchmarks.suites import ROOT
from benchmarks.waiting import run


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.mark.parametrize("style", STYLES)
def test_every_style_waits_until_its_jobs_have_ended(server, style):
    jobs = [(0.1, 0.7)] * 10
    cost = run(server, style, jobs=jobs, interval=0.5, first=0, rate=20, window=None)
    assert 10 <= cost["polls"] <= 40
    assert cost["cpu"] > 0
    if style == "this provider":
        assert cost["most polls in any second"] <= 20


def test_a_window_counts_polls_and_lag(server):
    jobs = [(0.1, 100)] * 10
    cost = run(server, "this provider", jobs=jobs, interval=0.2, first=0, rate=100, window=0.5, settle=0.5)
    assert cost["polls"] > 0
    assert len(cost["lag"]) == 3


def test_the_requests_of_a_batch_to_object_storage_are_counted():
    pytest.importorskip("moto")  # make test-distributed installs it, and s3fs
    pytest.importorskip("s3fs")
    cost = measure(ROOT, "s3", 8)
    assert 1 < cost.fresh <= 8
    assert 0 < cost.again < 8 * cost.fresh
    assert cost.single > 1
    assert cost.wall > cost.cpu > 0


def test_the_picture_of_copies_is_as_large_as_a_photograph_and_a_copy_has_a_cost(tmp_path):
    picture = tmp_path / "picture.png"
    picture.write_bytes(copies.photograph())
    assert 1_400_000 < picture.stat().st_size < 1_600_000
    command = [sys.executable, "-m", "benchmarks.copies", "webp 320", picture, ""]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    cost = json.loads(done.stdout)
    assert cost["cpu"] > 0
    assert cost["memory"] > 0
    assert 0 < cost["bytes"] < picture.stat().st_size / 50
