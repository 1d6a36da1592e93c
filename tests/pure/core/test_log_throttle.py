# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Which warnings of many jobs are logged."""

from __future__ import annotations

from pictory_provider.core.log_throttle import SampledLog


class Log:
    def __init__(self):
        self.reported = {"debug": [], "warning": [], "error": [], "exception": []}

    def debug(self, event, *args):
        self.reported["debug"].append(event % args)

    def warning(self, event, *args):
        self.reported["warning"].append(event % args)

    def error(self, event, *args):
        self.reported["error"].append(event % args)

    def exception(self, event, *args):
        self.reported["exception"].append(event % args)


def test_each_kind_of_warning_is_reported_a_few_times_and_the_rest_is_counted():
    log = Log()
    sparing = SampledLog(log, times=2)
    for number in range(5):
        sparing.info("Job %s is there.", number)
        sparing.warning("Job %s is late.", number)
    sparing.error("Job %s is lost.", 7)
    assert log.reported["warning"] == ["Job 0 is late.", "Job 1 is late."]
    assert log.reported["error"] == ["Job 7 is lost."]
    assert len(log.reported["debug"]) == 8
    sparing.sum_up()
    assert log.reported["warning"][-1] == "3 more warnings of these kinds were logged at DEBUG."
    sparing.sum_up()
    assert len(log.reported["warning"]) == 3


def test_each_kind_of_warning_is_reported_five_times_by_default():
    log = Log()
    sparing = SampledLog(log)
    for number in range(7):
        sparing.warning("Job %s is late.", number)
    assert len(log.reported["warning"]) == 5
    assert log.reported["debug"] == ["Job 5 is late.", "Job 6 is late."]


def test_nothing_is_summed_up_where_nothing_was_left_out():
    log = Log()
    sparing = SampledLog(log, times=2)
    sparing.warning("Job %s is late.", 0)
    sparing.warning("Job %s is late.", 1)
    sparing.warning("Job %s is lost.", 1)
    sparing.debug("Job %s runs.", 2)
    sparing.sum_up()
    assert (len(log.reported["warning"]), log.reported["debug"]) == (3, ["Job 2 runs."])


def test_what_was_left_out_of_several_kinds_is_counted_together_and_then_reported_anew():
    log = Log()
    sparing = SampledLog(log, times=1)
    for number in range(1_001):
        sparing.warning("Job %s is late.", number)
        sparing.exception("Job %s has raised.", number)
    sparing.sum_up()
    assert log.reported["warning"][-1] == "2,000 more warnings of these kinds were logged at DEBUG."
    sparing.exception("Job %s has raised.", 7)
    assert log.reported["exception"] == ["Job 0 has raised.", "Job 7 has raised."]
