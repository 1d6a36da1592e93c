# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""When is a worker woken to save what is finished? Seldom, as each waking costs, and soon."""

from __future__ import annotations

import math

from pictory_provider.api.timing import TIMING

WAKE_FOR = 100
"""Ended jobs for which a worker is woken at once."""


def wake_at(*, not_before: float, of: int, ended: int, first_ended_at: float | None) -> float:
    """Return when a worker is to be woken, in epoch seconds; infinity while there is nothing for it to do.

    :param not_before: when Airflow can bear the event of this deferral; epoch seconds.
    :param of: how many jobs are waited for.
    :param ended: how many of them have ended, or are past their time.
    :param first_ended_at: when the first of them did; epoch seconds.
    """
    if first_ended_at is None:
        return not_before if ended >= of else math.inf
    is_enough = ended >= min(of, WAKE_FOR)
    return max(not_before, first_ended_at if is_enough else first_ended_at + TIMING.resume_after)
