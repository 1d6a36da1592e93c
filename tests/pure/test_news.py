# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What of many jobs is worth a line in a log."""

from __future__ import annotations

from pictory_provider.jobs.news import Sparing


class Log:
    def __init__(self):
        self.told = {"debug": [], "warning": [], "error": []}

    def debug(self, event, *args):
        self.told["debug"].append(event % args)

    def warning(self, event, *args):
        self.told["warning"].append(event % args)

    def error(self, event, *args):
        self.told["error"].append(event % args)


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
