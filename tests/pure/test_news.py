# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What of many jobs is worth a line in a log."""

from __future__ import annotations

from pictory_provider.jobs.news import Sparing


class Log:
    def __init__(self):
        self.told = {"debug": [], "warning": [], "error": [], "exception": []}

    def debug(self, event, *args):
        self.told["debug"].append(event % args)

    def warning(self, event, *args):
        self.told["warning"].append(event % args)

    def error(self, event, *args):
        self.told["error"].append(event % args)

    def exception(self, event, *args):
        self.told["exception"].append(event % args)


def test_each_kind_of_warning_is_told_a_few_times_and_the_rest_is_counted():
    log = Log()
    sparing = Sparing(log, times=2)
    for number in range(5):
        sparing.info("Job %s is there.", number)
        sparing.warning("Job %s is late.", number)
    sparing.error("Job %s is lost.", 7)
    assert log.told["warning"] == ["Job 0 is late.", "Job 1 is late."]
    assert log.told["error"] == ["Job 7 is lost."]
    assert len(log.told["debug"]) == 8
    sparing.sum_up()
    assert log.told["warning"][-1] == "3 more warnings of these kinds were logged at DEBUG."
    sparing.sum_up()
    assert len(log.told["warning"]) == 3


def test_each_kind_of_warning_is_told_five_times_unless_told_otherwise():
    log = Log()
    sparing = Sparing(log)
    for number in range(7):
        sparing.warning("Job %s is late.", number)
    assert len(log.told["warning"]) == 5
    assert log.told["debug"] == ["Job 5 is late.", "Job 6 is late."]


def test_nothing_is_summed_up_where_nothing_was_left_out():
    log = Log()
    sparing = Sparing(log, times=2)
    sparing.warning("Job %s is late.", 0)
    sparing.warning("Job %s is late.", 1)
    sparing.warning("Job %s is lost.", 1)
    sparing.debug("Job %s runs.", 2)
    sparing.sum_up()
    assert (len(log.told["warning"]), log.told["debug"]) == (3, ["Job 2 runs."])


def test_what_was_left_out_of_several_kinds_is_counted_together_and_then_told_anew():
    log = Log()
    sparing = Sparing(log, times=1)
    for number in range(1_001):
        sparing.warning("Job %s is late.", number)
        sparing.exception("Job %s has raised.", number)
    sparing.sum_up()
    assert log.told["warning"][-1] == "2,000 more warnings of these kinds were logged at DEBUG."
    sparing.exception("Job %s has raised.", 7)
    assert log.told["exception"] == ["Job 0 has raised.", "Job 7 has raised."]
