# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What of a wait is worth a line in a log? The same status is told again after twice the time."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from pictory_provider.api.models import JobState

if TYPE_CHECKING:
    from pictory_provider.jobs.polling import Wait

QUIET = 60.0
"""Seconds in which a job that runs is no news for whoever carries a wait on."""


class News:
    """What was told of one wait, and when.

    :param started_at: epoch seconds at which the wait began.
    :param is_carried_on: whether another process has begun it, and said so.
    """

    def __init__(self, started_at: float, *, is_carried_on: bool = False) -> None:
        self._started_at = started_at
        self._status = JobState.IN_PROGRESS.value if is_carried_on else None
        self._age = QUIET / 2 if is_carried_on else 0.0

    def is_worth_a_line(self, wait: Wait, now: float) -> bool:
        """Whether to tell of a wait now; then it counts as told.

        :param now: epoch seconds.
        """
        if wait.status is None:
            return True
        age = now - self._started_at
        if wait.status == self._status and age < 2 * self._age:
            return False
        self._status, self._age = wait.status, age
        return True


class Sparing:
    """A log for what many jobs would say a thousand times: the same kind of warning a few times, the rest at
    DEBUG.

    What one job has to say in the normal course of things goes to DEBUG, too.

    :param log: takes what is left.
    :param times: how often one kind is told.
    """

    def __init__(self, log: Any, times: int = 5) -> None:
        self._log = log
        self._times = times
        self._told: Counter[str] = Counter()

    def debug(self, event: Any, /, *args: Any, **more: Any) -> None:  # noqa: D102
        self._log.debug(event, *args, **more)

    info = debug

    def warning(self, event: Any, /, *args: Any, **more: Any) -> None:  # noqa: D102
        self._say(self._log.warning, event, *args, **more)

    def error(self, event: Any, /, *args: Any, **more: Any) -> None:  # noqa: D102
        self._say(self._log.error, event, *args, **more)

    def exception(self, event: Any, /, *args: Any, **more: Any) -> None:  # noqa: D102
        self._say(self._log.exception, event, *args, **more)

    def sum_up(self) -> None:
        """Say how much was left out."""
        more = sum(max(0, times - self._times) for times in self._told.values())
        if more:
            self._log.warning("%s more warnings of these kinds were logged at DEBUG.", f"{more:,}")
        self._told.clear()

    def _say(self, say: Any, event: Any, *args: Any, **more: Any) -> None:
        self._told[str(event)] += 1
        (say if self._told[str(event)] <= self._times else self._log.debug)(event, *args, **more)
