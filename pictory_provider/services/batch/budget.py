# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Check the limits of a batch: for all that is missing before the first submission, and for each wave.

The record of the batch has what it has bought (:mod:`pictory_provider.core.batch.journal`). So it also counts in a
resumed run or a later attempt if Pictory's ledger does not show it yet.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Self, TypeVar

from pictory_provider.api.errors import BudgetExceeded, PictoryError
from pictory_provider.api.text import counted
from pictory_provider.core.batch.decision import RowState
from pictory_provider.core.batch.journal import budget_of
from pictory_provider.core.batch.plan import whole_rows, with_rest
from pictory_provider.core.budget import CostEstimate, Limits
from pictory_provider.services.spending import affordable, ask_account, check, reserve, reserve_partly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pictory_provider.client.retrying import Log
    from pictory_provider.client.throttle import PacedClient
    from pictory_provider.core.batch.plan import Plan
    from pictory_provider.core.batch.rows import Row
    from pictory_provider.core.budget import Budget, Headroom
    from pictory_provider.core.ledger import Charge
    from pictory_provider.services.batch.spec import BatchSpec

T = TypeVar("T")


class BatchBudget:
    """The budget of a batch on this worker.

    :param max_credits: the most AI credits that the task may spend; ``None`` for no limit.
    :param is_partial: buy as many rows as the limits allow, from the top of the table, and none of the others.
    :param dag_id: tag of the metric.
    """

    def __init__(
        self, plan: Plan, max_credits: float | None, *, is_partial: bool = False, dag_id: str | None, log: Log
    ) -> None:
        self._plan = plan
        self._is_partial = is_partial
        self._max_credits = max_credits
        self._tags = {"dag_id": str(dag_id)}
        self._log = log
        self._budget: Budget | None = None

    @classmethod
    def from_spec(cls, spec: BatchSpec, plan: Plan, *, dag_id: str | None, log: Log) -> Self:
        """Return the budget of a batch."""
        return cls(plan, spec.max_credits, is_partial=spec.is_partial, dag_id=dag_id, log=log)

    def check(self, client: PacedClient) -> None:
        """Stop submissions if all that is missing costs too much, or set aside what costs too much."""
        if not self._plan.counts[RowState.TO_DO]:
            return
        if not self._is_partial:
            self._within_limits(check, client, self._plan.missing)
        elif found := self._within_limits(affordable, client, self._plan.missing):
            number, refusal = found
            self._set_aside(whole_rows(self._plan, number), refusal)

    def headroom(self, client: PacedClient) -> tuple[Headroom, ...]:
        """Return what each limit leaves."""
        budget = self._budget_of(client)
        if budget.limits.are_set:
            ask_account(client, budget, log=self._log)
        return tuple(budget.headroom(time.time()))

    def reserve(self, client: PacedClient, wave: Sequence[Row]) -> list[Charge] | None:
        """Charge a wave to the budget, or as many rows from its beginning as may be sent; ``None`` for none.

        Each wave is checked, because other tasks may have spent credits meanwhile, and because more may be
        missing: an adopted job may fail, and a row whose reply was lost may be submitted again.

        :return: the charges of its rows, for :meth:`settle` and the record.
        """
        if not self._is_partial:
            return self._within_limits(reserve, client, wave)
        plan = self._plan
        reserve_rows = partial(reserve_partly, cut=lambda number: min(whole_rows(plan, number), len(wave)))
        found = self._within_limits(reserve_rows, client, with_rest(plan, wave))
        if found is None:
            return None
        purchases, refusal = found
        self._set_aside(len(purchases), refusal)
        return purchases or None

    def settle(self, wave: Iterable[Row], purchases: Iterable[Charge]) -> None:
        """Refund the charges of rows that were not bought."""
        for row, purchase in zip(wave, purchases, strict=True):
            entry = self._plan.journal.get(row.key)
            if self._budget and not (entry and entry.purchases[-1:] == (purchase,)):
                self._budget.refund(purchase)

    def _set_aside(self, after: int, refusal: BudgetExceeded | None) -> None:
        if refusal is None:
            return
        left = len(self._plan.missing) - after
        self._log.warning(
            "%s not bought in this attempt, because a limit leaves too little: %s",
            counted(left, "picture is", "pictures are"),
            refusal.message,
        )
        self._plan.set_aside(after, refusal)

    def _within_limits(self, check: Callable[..., T], client: PacedClient, rows: Iterable[Row]) -> T | None:
        try:
            estimate = CostEstimate(tuple(row.request for row in rows))
            return check(client, self._budget_of(client), estimate, log=self._log, tags=self._tags)
        except BudgetExceeded as error:
            what_else = 'To buy as many rows as the limits allow, set on_budget="partial".'
            self._plan.stop(error.with_message(f"{error.message} {what_else}"))
        except PictoryError as error:
            self._plan.stop(error)
        return None

    def _budget_of(self, client: PacedClient) -> Budget:
        """Return the budget, with the connection's current limits."""
        limits = Limits.from_settings(client.settings, per_task=self._max_credits)
        if self._budget is None:
            self._budget = budget_of(self._plan.journal, limits)
        self._budget.limits = limits
        return self._budget
