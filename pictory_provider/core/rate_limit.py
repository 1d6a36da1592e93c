# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Limit the rate of polls: one limiter for all jobs that a process waits for.

Each poll takes one of ``requests_per_second`` slots, and its slot is free again a second after its *answer*.
The request reaches Pictory between the two. So however long the network, a handshake or a slow Pictory delays it,
Pictory never sees more than ``requests_per_second`` polls in any second, and fewer while it is slow. For the same
reason a Pictory that comes back after an outage is not flooded.

Within that limit, polls are spread evenly. They go in small groups, one every :data:`BEAT`: each group needs one
wake-up only, and the process sleeps in between.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from pictory_provider.api.connection import MAX_CONNECTIONS
from pictory_provider.api.text import counted
from pictory_provider.api.timing import TIMING

if TYPE_CHECKING:
    from collections.abc import Iterator

BEAT = 0.2
"""Least seconds between two groups of polls."""
_WARN_AT = 1.2
"""How many times longer than requested intervals have to be for a warning."""


class RateLimiter:
    """Say when the next poll may go. All times are seconds of one monotonic clock.

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
        """The rate. A new rate applies to polls from now on."""
        return self._rate

    @requests_per_second.setter
    def requests_per_second(self, rate: float) -> None:
        self._rate = rate
        self._slots = math.ceil(rate)
        self._rest = self._slots / rate

    def next_at(self, now: float) -> float:
        """Return when the next poll may go; infinity if an answer has to come first."""
        free = self._free_again
        while free and free[0] <= now:
            free.popleft()
        if self._in_flight >= MAX_CONNECTIONS:
            return math.inf
        at = max(self._next, self._paused_until)
        # After the rate was lowered, more slots may be taken than there are.
        over = self._in_flight + len(free) - self._slots
        if over >= 0:
            at = max(at, free[over]) if over < len(free) else math.inf
        return at

    def go(self, now: float) -> None:
        """Note that a poll is sent now."""
        self._in_flight += 1
        self._next = max(self._next, now - BEAT) + 1 / self._rate

    def answered(self, now: float) -> None:
        """Note that a poll was answered, or has failed."""
        self._in_flight -= 1
        self._free_again.append(now + self._rest)

    def pause(self, now: float, seconds: float) -> None:
        """Send no polls for some seconds."""
        self._paused_until = max(self._paused_until, now + min(seconds, TIMING.poll_pause_max))


class PollDemand:
    """The demand of the jobs that share a rate limiter, and warnings if the limiter cannot serve it."""

    def __init__(self, limiter: RateLimiter) -> None:
        self._limiter = limiter
        self._jobs = 0
        self._demand = 0.0
        self._has_warned_of_interval = self._has_warned_of_timeout = False

    @property
    def interval(self) -> float:
        """Seconds between two polls of one job if polls go at the full rate."""
        return self._jobs / self._limiter.requests_per_second

    def join(self, poll_interval: float, timeout: float) -> Iterator[str]:
        """Count a job, and yield the warnings to log. Each is given once.

        :param poll_interval: seconds between two polls that the job requests.
        :param timeout: seconds that the job waits in all.
        """
        self._jobs += 1
        self._demand += _demand(poll_interval)
        if self._demand <= self._limiter.requests_per_second:
            return
        situation = (
            f"{counted(self._jobs, 'job waits', 'jobs wait')}, and requests_per_second is "
            f"{self._limiter.requests_per_second:g}: each is polled about every {self.interval:,.0f} s"
        )
        if self.interval > _WARN_AT * poll_interval and not self._has_warned_of_interval:
            self._has_warned_of_interval = True
            yield f"{situation} instead of every {poll_interval:g} s."
        if self.interval > timeout and not self._has_warned_of_timeout:
            self._has_warned_of_timeout = True
            yield (
                f"{situation}, and one of them waits for {timeout:,.0f} s in all. It may be polled only once, "
                "after its deadline. Raise requests_per_second in the connection, or the timeouts, or start "
                "fewer jobs at the same time."
            )

    def leave(self, poll_interval: float) -> None:
        """Stop counting a job."""
        self._jobs -= 1
        self._demand -= _demand(poll_interval)


def _demand(poll_interval: float) -> float:
    return 1 / poll_interval if poll_interval > 0 else 0.0
