# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""When is the first look worth its while? What the last hour's jobs tell.

Looks at a job that never ends sooner than a minute are wasted in that minute. So the first look waits until a
tenth of the known jobs had ended. Simulated over narrow, wide and two-humped spreads, one by one and 500 at once,
that takes up to half of the looks, for less than a second of delay (``python -m benchmarks.schedule``). The looks
after it keep the interval. It can be wrong once: when jobs suddenly become much quicker.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque

SHARE = 10
"""The first look comes when one in so many jobs has ended."""
ENOUGH = 5
"""Jobs that must be known."""
MEMORY = 3_600.0
"""Seconds after which a job is forgotten."""
MOST_JOBS = 10_000


class Foresight:
    """Remember how long jobs ran, and say when to look at the next one first."""

    def __init__(self) -> None:
        self._known: deque[tuple[float, float]] = deque()
        self._sorted: list[float] = []

    def note(self, now: float, *, ran_for: float, ended_within: float) -> None:
        """Take note of a job that has ended between two looks.

        :param now: epoch seconds.
        :param ran_for: seconds from the start of the wait to the last look that saw it running.
        :param ended_within: seconds from the start of the wait to the look that saw its end.
        """
        self._forget(now)
        seconds = ran_for + (ended_within - ran_for) / SHARE
        self._known.append((now, seconds))
        insort(self._sorted, seconds)

    def note_end(
        self,
        now: float,
        *,
        started_at: float,
        first_look_at: float,
        ran_until: float | None,
        poll_interval: float,
    ) -> None:
        """Take note of a job whose end has just been seen. All times are epoch seconds.

        A first look may come hours late, after a restart. Then all that is known is when it was due.

        :param first_look_at: when the first look was due.
        :param ran_until: the last look that saw the job running; ``None`` where the first one saw its end.
        """
        ended_by = now if ran_until else min(now, first_look_at)
        ran_until = ran_until or max(started_at, ended_by - poll_interval)
        self.note(now, ran_for=ran_until - started_at, ended_within=ended_by - started_at)

    def first_look(self, now: float) -> float:
        """Return the seconds from the start of a wait before which a look would most likely be wasted."""
        self._forget(now)
        return self._sorted[len(self._sorted) // SHARE] if len(self._sorted) >= ENOUGH else 0.0

    def _forget(self, now: float) -> None:
        known = self._known
        while known and (known[0][0] <= now - MEMORY or len(known) >= MOST_JOBS):
            _, seconds = known.popleft()
            del self._sorted[bisect_left(self._sorted, seconds)]
