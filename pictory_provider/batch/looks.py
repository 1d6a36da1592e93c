# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Which job does a worker look at next, and when is looking worth a worker?

A job is looked at an interval after it was submitted, and an interval after each look. A look and a purchase cost
a request each, of which a second has so many. So a worker looks while it finds jobs that have ended: that makes
room for purchases, and no time is lost. Where :data:`IN_VAIN` looks in a row find jobs that still run, looking is
left to the triggerer for an interval.
"""

from __future__ import annotations

import heapq
import math

IN_VAIN = 8
"""Looks in a row at jobs that still run, after which a worker stops looking for a while."""
WORTH_STAYING = 8.0
"""Seconds that a worker waits for the next first look rather than to defer, where looks have found ended jobs: a
deferral takes as long on most Airflows, and costs the start of a worker."""


class Looks:
    """The looks of one leg of a batch. All times are epoch seconds.

    :param poll_interval: seconds.
    :param can_defer: whether the triggerer looks where this worker does not.
    """

    def __init__(self, poll_interval: float, *, can_defer: bool) -> None:
        self._poll_interval = poll_interval
        self._can_defer = can_defer
        self._heap: list[tuple[float, bool, str]] = []
        self._due: dict[str, float] = {}
        self._in_vain = 0
        self._has_found = False
        self._not_before = -math.inf

    def __contains__(self, key: str) -> bool:
        """Whether a job is waited for."""
        return key in self._due

    def add(self, key: str, at: float, *, is_first: bool = True) -> None:
        """Let a job be looked at.

        :param at: when, at the soonest.
        :param is_first: whether nobody has looked at it yet.
        """
        self._due[key] = at
        heapq.heappush(self._heap, (at, is_first, key))

    def take(self, now: float) -> str | None:
        """Return a job that is to be looked at now, and that was due for longest; ``None`` for none."""
        if self.next_at > now:
            return None
        _, _, key = heapq.heappop(self._heap)
        self._due[key] = math.inf
        return key

    def ended(self, key: str) -> None:
        """Note that a job has ended."""
        del self._due[key]
        self._in_vain, self._has_found = 0, True

    def still_running(self, key: str, now: float, seconds: float) -> None:
        """Note that a job has not ended.

        :param seconds: to the next look at it.
        """
        self.add(key, now + seconds, is_first=False)
        self._in_vain += 1
        if self._can_defer and self._in_vain >= IN_VAIN:
            self._in_vain, self._has_found = 0, False
            self._not_before = now + self._poll_interval

    @property
    def next_at(self) -> float:
        """When the next look may go; infinity for never."""
        first = self._first()
        return math.inf if first is None else max(first[0], self._not_before)

    def is_worth_staying(self, now: float) -> bool:
        """Whether the next look is worth waiting for on a worker."""
        first = self._first()
        return first is not None and first[1] and self._has_found and self.next_at - now <= WORTH_STAYING

    def _first(self) -> tuple[float, bool, str] | None:
        heap = self._heap
        while heap and self._due.get(heap[0][2]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0] if heap else None
