# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What of a wait is worth a line in a log? The same status is told again after twice the time."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
