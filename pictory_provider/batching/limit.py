# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""May a batch buy this? All that is missing before its first purchase, and each wave before it is sent.

What it buys itself is counted in the header of its record, so that a ledger that is late is no way around a limit:
not for another leg, and not for another try.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pictory_provider.api.errors import PictoryError
from pictory_provider.batch.decision import Place
from pictory_provider.batch.entries import BOUGHT, INTENT, UNKNOWN
from pictory_provider.batch.opening import Start
from pictory_provider.jobs.budget import Budget, Limits, Lot
from pictory_provider.spending import ask

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pictory_provider.batch.plan import Plan
    from pictory_provider.batch.rows import Row
    from pictory_provider.batching.turns import PacedClient
    from pictory_provider.client.asking import Log


class Limit:
    """The budget of one leg of a batch.

    :param max_credits: the most AI credits that the task may spend; ``None`` for no limit.
    :param start: the kind of try that it is.
    :param dag_id: for the metric.
    """

    def __init__(
        self, plan: Plan, max_credits: float | None, *, start: Start, dag_id: str | None, log: Log
    ) -> None:
        self._plan = plan
        self._max_credits = max_credits
        self._tags = {"dag_id": str(dag_id)}
        self._is_cleared = start in (Start.CLEAR, Start.OTHER)
        self._log = log
        self._budget: Budget | None = None

    def check(self, client: PacedClient) -> None:
        """Stop purchases where all that is missing costs too much."""
        if self._plan.counts[Place.TO_DO]:
            self._has_room(client, self._plan.missing)

    def take(self, client: PacedClient, wave: Sequence[Row]) -> bool:
        """Count a wave as spent, and say whether it may be sent. The record is to be written before it is.

        Others may have spent meanwhile. And what is missing grows: a job that was adopted fails, a lost reply is
        bought once more.
        """
        if not self._has_room(client, wave):
            return False
        self._budget_of(client).spend(_lot(wave).price, time.time())
        self._keep()
        return True

    def settle(self, wave: Iterable[Row]) -> None:
        """Count no more what a wave has not bought."""
        refused = [row for row in wave if not self._is_spent(row)]
        if refused and self._budget:
            self._budget.give_back(_lot(refused).price)
            self._keep()

    def _is_spent(self, row: Row) -> bool:
        entry = self._plan.journal.get(row.key)
        return entry is not None and entry.state in (BOUGHT, UNKNOWN, INTENT)

    def _has_room(self, client: PacedClient, rows: Iterable[Row]) -> bool:
        try:
            ask(client, self._budget_of(client), _lot(rows), log=self._log, tags=self._tags)
        except PictoryError as error:
            self._plan.stop(error)
            return False
        return True

    def _budget_of(self, client: PacedClient) -> Budget:
        """Return the budget, with the limits that the connection has now."""
        limits = Limits.of(client.settings, per_task=self._max_credits)
        if self._budget is None:
            kept = self._plan.journal.header.spending
            self._budget = Budget.read(limits, kept, now=time.time(), is_cleared=self._is_cleared)
        self._budget.limits = limits
        return self._budget

    def _keep(self) -> None:
        if self._budget and self._budget.limits.are_set:
            self._plan.journal.set_header(spending=self._budget.plain())


def _lot(rows: Iterable[Row]) -> Lot:
    return Lot.of(row.request for row in rows)
