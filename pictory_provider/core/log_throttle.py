# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Thin out the log: repeat a job's status only after twice the time, and each kind of warning a few times only."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from pictory_provider.api.models import JobState
from pictory_provider.api.text import counted

if TYPE_CHECKING:
    from pictory_provider.core.polling import Wait

QUIET = 60.0
"""Seconds in which a process that continues a wait does not log that the job is running."""


class LogThrottle:
    """Decide which polls of one job to log.

    :param started_at: epoch seconds at which the wait began.
    :param is_carried_on: whether another process began the wait, and logged that.
    """

    def __init__(self, started_at: float, *, is_carried_on: bool = False) -> None:
        self._started_at = started_at
        self._status = JobState.IN_PROGRESS.value if is_carried_on else None
        self._age = QUIET / 2 if is_carried_on else 0.0

    def should_log(self, wait: Wait, now: float) -> bool:
        """Whether to log a decision to wait now; if so, it counts as logged.

        :param now: epoch seconds.
        """
        if wait.status is None:
            return True
        age = now - self._started_at
        if wait.status == self._status and age < 2 * self._age:
            return False
        self._status, self._age = wait.status, age
        return True


class SampledLog:
    """A log for many similar jobs: each kind of warning is logged a few times, and then at DEBUG.

    What is usually logged at INFO goes to DEBUG.

    :param log: the logger to write to.
    :param times: how often each kind is logged at its own level.
    """

    def __init__(self, log: Any, times: int = 5) -> None:
        self._log = log
        self._times = times
        self._counts: Counter[str] = Counter()

    def debug(self, event: Any, /, *args: Any, **kwargs: Any) -> None:  # noqa: D102
        self._log.debug(event, *args, **kwargs)

    info = debug

    def warning(self, event: Any, /, *args: Any, **kwargs: Any) -> None:  # noqa: D102
        self._sample(self._log.warning, event, *args, **kwargs)

    def error(self, event: Any, /, *args: Any, **kwargs: Any) -> None:  # noqa: D102
        self._sample(self._log.error, event, *args, **kwargs)

    def exception(self, event: Any, /, *args: Any, **kwargs: Any) -> None:  # noqa: D102
        self._sample(self._log.exception, event, *args, **kwargs)

    def sum_up(self) -> None:
        """Log how many warnings went to DEBUG."""
        more = sum(max(0, times - self._times) for times in self._counts.values())
        if more:
            what = counted(more, "more warning of these kinds was", "more warnings of these kinds were")
            self._log.warning("%s logged at DEBUG.", what)
        self._counts.clear()

    def _sample(self, method: Any, event: Any, *args: Any, **kwargs: Any) -> None:
        self._counts[str(event)] += 1
        (method if self._counts[str(event)] <= self._times else self._log.debug)(event, *args, **kwargs)
