# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""When may the next look go? One pace for all jobs that a process waits for.

A look takes one of ``requests_per_second`` places, and its place is free again a second after its *answer*.
Between the two it has arrived at Pictory. So however long the network, a handshake or a slow Pictory held
it, Pictory never sees more than ``requests_per_second`` looks in any second, and it is asked less while it
is slow. For the same reason a Pictory that was away is not run over when it is back.

Within that, looks go evenly. They go in small groups, one :data:`BEAT` after the other: what waking up costs
is shared by the group, and a quiet process has quiet gaps.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from pictory_provider.api.connection import MOST_CONNECTIONS
from pictory_provider.api.timing import TIMING

if TYPE_CHECKING:
    from collections.abc import Iterator

BEAT = 0.2
"""Seconds between two groups of looks, at least."""
_WORTH_A_WORD = 1.2
"""How far intervals have stretched when that is logged."""


class Pace:
    """Tell when the next look may go. All times are seconds of one clock that never runs backwards.

    :param requests_per_second: above 0.
    """

    def __init__(self, requests_per_second: float) -> None:
        self._in_flight = 0
        self._free_again: deque[float] = deque()
        self._next = -math.inf
        self._paused_until = -math.inf
        self.requests_per_second = requests_per_second

    @property
    def requests_per_second(self) -> float:
        """The rate. A new one holds for looks that go from now on."""
        return self._rate

    @requests_per_second.setter
    def requests_per_second(self, rate: float) -> None:
        self._rate = rate
        self._places = math.ceil(rate)
        self._rest = self._places / rate

    def next_at(self, now: float) -> float:
        """Return when the next look may go; infinity where an answer has to come first."""
        free = self._free_again
        while free and free[0] <= now:
            free.popleft()
        if self._in_flight >= MOST_CONNECTIONS:
            return math.inf
        at = max(self._next, self._paused_until)
        taken = self._in_flight + len(free)
        if taken >= self._places:
            # A rate that was lowered may leave more places taken than there are.
            over = taken - self._places
            at = max(at, free[over]) if over < len(free) else math.inf
        return at

    def go(self, now: float) -> None:
        """Note that a look goes now."""
        self._in_flight += 1
        self._next = max(self._next, now - BEAT) + 1 / self._rate

    def answered(self, now: float) -> None:
        """Note that a look was answered, or has failed."""
        self._in_flight -= 1
        self._free_again.append(now + self._rest)

    def pause(self, now: float, seconds: float) -> None:
        """Let no look go for so many seconds."""
        self._paused_until = max(self._paused_until, now + min(seconds, TIMING.poll_pause_most))


class Crowd:
    """How many jobs wait at one pace, and whether it can serve them."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._jobs = 0
        self._demand = 0.0
        self._said_stretched = self._said_starving = False

    @property
    def interval(self) -> float:
        """Seconds between two looks at one job, where looks go as fast as they may."""
        return self._jobs / self._pace.requests_per_second

    def join(self, poll_interval: float, timeout: float) -> Iterator[str]:
        """Count a job, and yield what is to be logged about the crowd now. Each thing is said once.

        :param poll_interval: seconds between two looks that the job asks for.
        :param timeout: seconds that the job waits in all.
        """
        self._jobs += 1
        self._demand += _demand(poll_interval)
        if self._demand <= self._pace.requests_per_second:
            return
        if self.interval > _WORTH_A_WORD * poll_interval and not self._said_stretched:
            self._said_stretched = True
            yield f"{self._situation()} instead of every {poll_interval:g} s."
        if self.interval > timeout and not self._said_starving:
            self._said_starving = True
            yield (
                f"{self._situation()}, and one of them waits for {timeout:,.0f} s in all. It may be looked at "
                "only once, after its deadline. Raise requests_per_second in the connection, or the timeouts, "
                "or start fewer jobs at once."
            )

    def leave(self, poll_interval: float) -> None:
        """Count a job no longer."""
        self._jobs -= 1
        self._demand -= _demand(poll_interval)

    def _situation(self) -> str:
        return (
            f"{self._jobs:,} jobs wait, and requests_per_second is {self._pace.requests_per_second:g}: each is "
            f"looked at about every {self.interval:,.0f} s"
        )


def _demand(poll_interval: float) -> float:
    return 1 / poll_interval if poll_interval > 0 else 0.0
