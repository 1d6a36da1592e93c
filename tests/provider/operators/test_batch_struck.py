# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A worker that is interrupted or frozen between its intents and its requests: rows that it did not send are not
unknown, and it does not send what another attempt may be buying by now."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from pictory_provider.api.timing import TIMING
from pictory_provider.core.batch.plan import Plan
from pictory_provider.services.batch.state import BatchRecord
from pictory_provider.services.batch.wave import Wave
from tests.provider.batches import Tries, billed, entries, lamps
from tests.provider.operators.test_batch_money import taken_up_by_another_try
from tests.stand_ins import says

ROOT = Path(__file__).parents[3]


class Strike:
    """Let Airflow's timeout strike once: in the line of a function that is reached as so many others were before."""

    def __init__(self, function, after):
        self.code, self.after, self.lines, self.has_struck = function.__code__, after, [], False

    def __enter__(self):
        sys.settrace(lambda frame, *_: self.in_frame if frame.f_code is self.code else None)
        return self

    def __exit__(self, *_):
        sys.settrace(None)

    def in_frame(self, frame, happening, _):
        if happening == "line" and frame.f_lineno not in self.lines:
            if len(self.lines) == self.after and not self.has_struck:
                self.has_struck = True
                raise AirflowTaskTimeout("Timeout")
            self.lines.append(frame.f_lineno)
        return self.in_frame


@pytest.mark.parametrize("function", [Plan.intend, Wave.submit, Wave._send])
def test_a_timeout_in_any_line_leaves_no_row_unknown_that_was_never_sent_or_was_answered(
    fast, tmp_path, function, timing
):
    timing(wave_grace=0.3)
    struck = 0
    while True:
        fast.reset()
        folder = tmp_path / str(struck)
        one_try = Tries(folder)
        with Strike(function, struck) as strike, suppress(AirflowTaskTimeout):
            one_try(lamps(2))
        if not strike.has_struck:
            break
        struck += 1
        assert {row["state"] for row in entries(folder).values()} <= {"bought", "saved"}
        assert len(entries(folder)) == len(fast.account.jobs)
        assert one_try(lamps(2))["saved"] == 2
        assert billed(fast) == dict.fromkeys(lamps(2), 1)
    assert struck > 5


WORKER = """
import sys
from pictory_provider.api.timing import TIMING
from tests.provider.batches import Tries, lamps
TIMING.record_retries = ()
Tries(sys.argv[1])(lamps(8))
"""


def test_a_worker_that_was_frozen_and_replaced_sends_nothing_more_when_it_thaws(fast, folder):
    env = {**os.environ, "AIRFLOW_CONN_PICTORY_DEFAULT": fast.connection_json(requests_per_second=1)}
    command = [sys.executable, "-c", WORKER, str(folder)]
    with subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as worker:
        try:
            while not fast.submissions:
                assert worker.poll() is None
                time.sleep(0.01)
            worker.send_signal(signal.SIGSTOP)
            assert {row["state"] for row in entries(folder).values()} == {"intent"}
            taken_up_by_another_try(folder)
            sent = len(fast.submissions)
            time.sleep(TIMING.ownership + 0.1)  # a worker that is frozen for less cannot have been replaced
            worker.send_signal(signal.SIGCONT)
            told, _ = worker.communicate(timeout=60)
        finally:
            worker.kill()
    assert b"Another attempt has taken over the batch" in told
    assert (sent, len(fast.submissions)) == (1, 1)


def test_the_pause_that_pictory_asks_for_is_a_time_in_which_a_batch_may_be_taken_up(
    fast, one_try, folder, monkeypatch, timing
):
    """The clock alone says that a worker was away."""
    timing(ownership=-1.0, record_retries=())
    checks, check = [], BatchRecord.check_ownership

    def taken_up(self, header):
        if threading.current_thread() is not threading.main_thread():
            checks.append(header)
            if len(checks) == 4:
                taken_up_by_another_try(folder)
        check(self, header)

    monkeypatch.setattr(BatchRecord, "check_ownership", taken_up)
    with pytest.raises(Exception, match=says("Another attempt has taken over the batch .* jobId")):
        one_try(lamps(8))
    assert len(fast.submissions) <= 3  # those that were seen to be free to go, as far as their turns had come
    recorded = json.loads((folder / ".pictory/1-00000.json").read_text())["rows"]
    assert {row["state"] for row in recorded.values()} <= {"intent", "bought"}
