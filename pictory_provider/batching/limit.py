# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""May a batch buy this? ``max_credits``, compared with listed prices before anything is sent."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pictory_provider.api.errors import RequestInvalid
from pictory_provider.batch.decision import Place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pictory_provider.batch.plan import Plan
    from pictory_provider.batch.rows import Row

_LEAST = 0.005
"""AI credits that do not count: prices are in tenths, and sums of fractions are not exact."""


class Limit:
    """What one leg of a batch may spend.

    :param most: AI credits; ``None`` for no limit.
    """

    def __init__(self, most: float | None) -> None:
        self._most = most
        self._spent = 0.0

    def check(self, plan: Plan) -> None:
        """Stop purchases where what is missing costs more."""
        if plan.counts[Place.TO_DO]:
            self._stop_above(plan, plan.price, "is missing", plan.rows)

    def take(self, plan: Plan, wave: Sequence[Row]) -> bool:
        """Count a wave as spent, and say whether it may be sent.

        What is missing grows while a batch runs: a job that was adopted fails, a lost reply is bought once more.
        """
        prices = [row.request.credits for row in wave]
        price = None if None in prices else self._spent + math.fsum(each for each in prices if each is not None)
        if self._stop_above(plan, price, "was bought by this try and is missing", wave):
            return False
        self._spent = price or 0.0
        return True

    def _stop_above(self, plan: Plan, price: float | None, what: str, rows: Sequence[Row]) -> bool:
        most = self._most
        if most is None or (price is not None and price <= most + _LEAST):
            return False
        if price is None:
            unlisted = sorted({row.request.model for row in rows if row.request.credits is None})
            why = f"the price of {', '.join(map(repr, unlisted))} is not known to this release"
        else:
            why = f"what {what} costs {round(price, 2):,.10g} AI credits as listed"
        plan.stop(
            RequestInvalid(
                f"{plan.counts[Place.TO_DO]:,} pictures are missing, max_credits is {most:,.10g}, and {why}. None "
                "of them was bought. Raise max_credits, or shorten the table, and clear the task.",
                fields=["max_credits"],
            )
        )
        return True
