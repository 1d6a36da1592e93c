# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""May a batch buy this? All that is missing before its first purchase, and each wave before it is sent.

What it has bought itself is on its record (:mod:`pictory_provider.batch.spending`), so a ledger that is late is no
way around a limit: not for another leg, and not for another try.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from pictory_provider.api.errors import PictoryError
from pictory_provider.batch.decision import Place
from pictory_provider.batch.spending import budget_of
from pictory_provider.jobs.budget import Limits, Lot
from pictory_provider.spending import check, reserve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pictory_provider.batch.plan import Plan
    from pictory_provider.batch.rows import Row
    from pictory_provider.batching.turns import PacedClient
    from pictory_provider.client.asking import Log
    from pictory_provider.jobs.budget import Budget
    from pictory_provider.jobs.ledger import Purchase

T = TypeVar("T")


class Limit:
    """The budget of one leg of a batch.

    :param max_credits: the most AI credits that the task may spend; ``None`` for no limit.
    :param dag_id: for the metric.
    """

    def __init__(self, plan: Plan, max_credits: float | None, *, dag_id: str | None, log: Log) -> None:
        self._plan = plan
        self._max_credits = max_credits
        self._tags = {"dag_id": str(dag_id)}
        self._log = log
        self._budget: Budget | None = None

    def check(self, client: PacedClient) -> None:
        """Stop purchases where all that is missing costs too much."""
        if self._plan.counts[Place.TO_DO]:
            self._has_room(check, client, self._plan.missing)

    def take(self, client: PacedClient, wave: Sequence[Row]) -> list[Purchase] | None:
        """Count a wave as spent; ``None`` if it may not be sent.

        Others may have spent meanwhile. And what is missing grows: a job that was adopted fails, a lost reply is
        bought once more.

        :return: the purchases of its rows, for :meth:`settle` and the record.
        """
        return self._has_room(reserve, client, wave)

    def settle(self, wave: Iterable[Row], purchases: Iterable[Purchase]) -> None:
        """Count no more what a wave has not bought."""
        for row, purchase in zip(wave, purchases, strict=True):
            entry = self._plan.journal.get(row.key)
            if self._budget and not (entry and entry.purchases[-1:] == (purchase,)):
                self._budget.give_back(purchase)

    def _has_room(self, ask: Callable[..., T], client: PacedClient, rows: Iterable[Row]) -> T | None:
        try:
            lot = Lot(tuple(row.request for row in rows))
            return ask(client, self._budget_of(client), lot, log=self._log, tags=self._tags)
        except PictoryError as error:
            self._plan.stop(error)
            return None

    def _budget_of(self, client: PacedClient) -> Budget:
        """Return the budget, with the limits that the connection has now."""
        limits = Limits.of(client.settings, per_task=self._max_credits)
        if self._budget is None:
            self._budget = budget_of(self._plan.journal, limits, now=time.time())
        self._budget.limits = limits
        return self._budget
