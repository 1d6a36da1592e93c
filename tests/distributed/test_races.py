# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tasks of two processes that begin at the same moment on a new path buy one picture, in each storage.

In half of the rounds the storage's reply to the first write is lost.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from uuid import uuid4

import pytest

from tests.distributed import servers
from tests.distributed.clouds import behind_a_proxy
from tests.provider.batches import billed

ROUNDS = int(os.environ.get("PICTORY_ROUNDS", "4"))
PAIRS = (("single", "single"), ("batch", "batch"), ("batch", "single"))
MAY_END = {"saved", "PictoryStorageFailed", "PictorySubmitOutcomeUnknown", "PictoryUnavailable"}


@pytest.fixture(scope="module", params=["disk", "s3", "gs", "abfs"])
def racers(request, pictory, tmp_path_factory):
    """Return the folder of all rounds, two processes that run tasks there, and the proxy before the storage."""
    with ExitStack() as stack:
        folder, url, proxy = str(tmp_path_factory.mktemp("races")), "", None
        if request.param != "disk":
            url, proxy = stack.enter_context(behind_a_proxy(request.param))
            folder = f"{request.param}://{servers.BUCKET}/races"
        command = [sys.executable, "-m", "tests.distributed.racer", request.param, url]
        env = os.environ | {"AIRFLOW_CONN_PICTORY_DEFAULT": pictory.connection_json(requests_per_second=200)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        processes = [subprocess.Popen(command, env=env, text=True, **pipes) for _ in range(2)]
        for process in processes:
            stack.callback(process.communicate)
            stack.callback(process.kill)
        assert [process.stdout.readline() for process in processes] == ["ready\n"] * 2
        yield folder, processes, proxy


def lose_first():
    """Return a function that loses the reply to the first write, which creates the sidecar or the header."""
    lost = []

    def loses(method, path):
        if method not in ("PUT", "POST") or lost:
            return False
        lost.append(path)
        return True

    return loses


@pytest.mark.parametrize("kinds", PAIRS, ids=" and ".join)
def test_two_processes_that_begin_at_the_same_moment_buy_one_picture(pictory, racers, kinds):
    folder, processes, proxy = racers
    pictory.reset()
    pictory.account.seconds = 0
    ends = []
    for number in range(ROUNDS):
        task = {"prompt": f"A lamp, number {number}", "folder": f"{folder}/{uuid4().hex}"}
        if proxy is not None:
            proxy.loses = lose_first() if number % 2 else lambda *_: False
        for process, kind in zip(processes, kinds, strict=True):
            process.stdin.write(json.dumps(task | {"kind": kind}) + "\n")
        for process in processes:
            process.stdin.flush()
        ends.append([json.loads(process.stdout.readline()) for process in processes])
    assert {name for both in ends for name, _ in both} <= MAY_END, ends
    assert set(billed(pictory).values()) <= {1}, (billed(pictory), ends)
    assert len(billed(pictory)) >= ROUNDS / 4, ends  # sometimes each sees the other, and neither buys
