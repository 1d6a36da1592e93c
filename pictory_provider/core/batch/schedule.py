# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Schedule a batch's polls, and decide when to defer and when to resume.

A job is polled an interval after it was submitted, and an interval after each poll. A poll and a submission each
cost one of the requests allowed per second. So a worker keeps polling while its polls find jobs that have ended:
that frees places for submissions, and no time is lost. After :data:`MAX_FRUITLESS_POLLS` polls in a row that find
jobs still running, the worker leaves polling to the triggerer for an interval.

The triggerer, which polls while no worker runs, resumes a worker to save what has finished: seldom, as each start
costs, but soon enough (:func:`event_due_at`).
"""

from __future__ import annotations

import heapq
import math

from pictory_provider.api.timing import TIMING

WAKE_FOR = 100
"""Ended jobs for which a worker is resumed immediately."""
MAX_FRUITLESS_POLLS = 8
"""Polls in a row that find jobs still running, after which a worker stops polling for an interval."""
WORTH_STAYING = 8.0
"""Seconds that a worker waits for a job's first poll instead of deferring, if its polls have found ended jobs: a
deferral takes as long on most Airflow installations, and costs the start of a worker."""


class PollSchedule:
    """The polls between two deferrals of a batch. All times are epoch seconds.

    :param poll_interval: seconds.
    :param can_defer: whether the triggerer polls when this worker does not.
    """

    def __init__(self, poll_interval: float, *, can_defer: bool) -> None:
        self._poll_interval = poll_interval
        self._can_defer = can_defer
        self._heap: list[tuple[float, bool, str]] = []
        self._due: dict[str, float] = {}
        self._fruitless = 0
        self._found_ended = False
        self._not_before = -math.inf

    def __contains__(self, key: str) -> bool:
        """Whether the batch waits for a job."""
        return key in self._due

    def add(self, key: str, at: float, *, is_first: bool = True) -> None:
        """Schedule a job's next poll.

        :param at: when, at the earliest.
        :param is_first: whether the job has not been polled yet.
        """
        self._due[key] = at
        heapq.heappush(self._heap, (at, is_first, key))

    def next_due(self, now: float) -> str | None:
        """Return the job that has been due for longest; ``None`` if none is due."""
        if self.next_at > now:
            return None
        _, _, key = heapq.heappop(self._heap)
        self._due[key] = math.inf
        return key

    def ended(self, key: str) -> None:
        """Note that a job has ended."""
        del self._due[key]
        self._fruitless, self._found_ended = 0, True

    def still_running(self, key: str, now: float, seconds: float) -> None:
        """Note that a job has not ended.

        :param seconds: until its next poll.
        """
        self.add(key, now + seconds, is_first=False)
        self._fruitless += 1
        if self._can_defer and self._fruitless >= MAX_FRUITLESS_POLLS:
            self._fruitless, self._found_ended = 0, False
            self._not_before = now + self._poll_interval

    @property
    def next_at(self) -> float:
        """When the next poll may go; infinity for never."""
        first = self._first()
        return math.inf if first is None else max(first[0], self._not_before)

    def is_worth_staying(self, now: float) -> bool:
        """Whether to wait for the next poll instead of deferring."""
        first = self._first()
        return first is not None and first[1] and self._found_ended and self.next_at - now <= WORTH_STAYING

    def _first(self) -> tuple[float, bool, str] | None:
        heap = self._heap
        while heap and self._due.get(heap[0][2]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0] if heap else None


def event_due_at(*, not_before: float, of: int, ended: int, first_ended_at: float | None) -> float:
    """Return when to resume a worker, in epoch seconds; infinity while it would have nothing to do.

    :param not_before: the earliest time at which Airflow can handle this deferral's event; epoch seconds.
    :param of: how many jobs the trigger waits for.
    :param ended: how many of them have ended, or are past their deadline.
    :param first_ended_at: when the first of them did; epoch seconds.
    """
    if first_ended_at is None:
        return not_before if ended >= of else math.inf
    is_enough = ended >= min(of, WAKE_FOR)
    return max(not_before, first_ended_at if is_enough else first_ended_at + TIMING.resume_after)
