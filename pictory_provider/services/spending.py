# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Compare the account's spending with the limits before anything is bought.

:mod:`pictory_provider.core.budget` decides. This module reads from Pictory what the limits need, which is free,
and checks the arguments of a task that set its limits.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn, TypeVar

from airflow.providers.common.compat.sdk import AirflowSkipException

from pictory_provider.api.checks import check_choice
from pictory_provider.api.decoding import is_number
from pictory_provider.api.errors import (
    AuthenticationError,
    BudgetExceeded,
    EdgeBlocked,
    PictoryError,
    ReplyTooLarge,
    RequestInvalid,
    Unavailable,
)
from pictory_provider.api.text import counted
from pictory_provider.client import calls
from pictory_provider.client.retrying import read
from pictory_provider.core.budget import CostEstimate, next_month
from pictory_provider.core.ledger import months_of
from pictory_provider.telemetry import count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from airflow.providers.common.compat.sdk import Context

    from pictory_provider.client.calls import Call
    from pictory_provider.client.retrying import Log
    from pictory_provider.client.sync import SyncClient
    from pictory_provider.core.budget import Budget, PurchasePlan
    from pictory_provider.core.ledger import Charge

T = TypeVar("T")

BUDGET_POLICIES = ("fail", "skip")
PLAN_KEY = "plan"
"""The XCom of a plan (:class:`~pictory_provider.core.budget.PurchasePlan`)."""
PARTIAL = "partial"
"""The policy of a batch that buys as much as the limits allow, and ends well."""
_OF_LEDGER = "credits_per_day or credits_per_month"


def check_limits(
    max_credits: object, on_budget: object, policies: Sequence[str] = BUDGET_POLICIES
) -> float | None:
    """Check a task's arguments ``max_credits`` and ``on_budget``.

    :param policies: what ``on_budget`` may be.
    :return: ``max_credits`` in AI credits; ``None`` for no limit.
    :raises RequestInvalid: says what is supported.
    """
    check_choice("on_budget", on_budget, policies)
    if max_credits is None:
        return None
    if not is_number(max_credits) or max_credits < 0:
        raise _refused("max_credits", max_credits, "a number of AI credits, or None for no limit")
    return float(max_credits)


def reserve(
    client: SyncClient, budget: Budget, estimate: CostEstimate, *, log: Log, tags: Mapping[str, str] | None = None
) -> list[Charge]:
    """Check the limits, and charge an estimate to the budget; ``Budget.refund`` undoes a charge.

    :param budget: is updated from the account.
    :param tags: of the metric.
    :return: the charges, in the order of the estimate's requests.
    :raises BudgetExceeded: if a limit leaves too little.
    :raises RequestInvalid: if a limit is set and a model has no listed price.
    :raises Unavailable: if the limits cannot be checked; nothing is bought then.
    """
    with budget.lock:
        check(client, budget, estimate, log=log, tags=tags)
        return [budget.spend(request.credits, time.time()) for request in estimate.requests]


def check(
    client: SyncClient, budget: Budget, estimate: CostEstimate, *, log: Log, tags: Mapping[str, str] | None = None
) -> None:
    """Check the limits as :func:`reserve` does, and charge nothing."""
    refusal = _refusal(client, budget, estimate, log=log)
    if refusal is not None:
        _count_refused(estimate, tags)
        raise refusal


def reserve_partly(
    client: SyncClient,
    budget: Budget,
    estimate: CostEstimate,
    *,
    cut: Callable[[int], int],
    log: Log,
    tags: Mapping[str, str] | None = None,
) -> tuple[list[Charge], BudgetExceeded | None]:
    """Charge as many pictures of an estimate as the limits allow, from its beginning.

    :param cut: returns how many to charge if so many are allowed.
    :return: their charges, and why no more are allowed.
    :raises RequestInvalid: as :func:`reserve`.
    :raises Unavailable: as :func:`reserve`.
    """
    with budget.lock:
        number, refusal = affordable(client, budget, estimate, log=log, tags=tags)
        now = time.time()
        return [budget.spend(request.credits, now) for request in estimate.requests[: cut(number)]], refusal


def affordable(
    client: SyncClient, budget: Budget, estimate: CostEstimate, *, log: Log, tags: Mapping[str, str] | None = None
) -> tuple[int, BudgetExceeded | None]:
    """Return how many pictures of an estimate the limits allow, from its beginning, and why no more.

    Nothing is charged.

    :raises RequestInvalid: as :func:`reserve`.
    :raises Unavailable: as :func:`reserve`.
    """
    refusal = _refusal(client, budget, estimate, is_partial=True, log=log)
    if refusal is None:
        return len(estimate.requests), None
    if not isinstance(refusal, BudgetExceeded):
        raise refusal
    number = budget.affordable(estimate, time.time())
    _count_refused(CostEstimate(estimate.requests[number:]), tags)
    return number, refusal


def _refusal(
    client: SyncClient, budget: Budget, estimate: CostEstimate, *, is_partial: bool = False, log: Log
) -> PictoryError | None:
    """Ask the account, and return the error if a limit leaves too little.

    If a day or a month is about to begin, this waits for it.

    :param is_partial: as in :meth:`Budget.refusal`.
    """

    def refused() -> PictoryError | None:
        if estimate.price is not None:
            ask_account(client, budget, log=log)
        return budget.refusal(estimate, time.time(), is_partial=is_partial)

    refusal = refused()
    if isinstance(refusal, BudgetExceeded) and (wait := budget.until_anew(refusal.limits, time.time())):
        log.info(
            "%s: a new period begins a minute after midnight UTC, since clocks may differ. This task waits %.0f s "
            "for it.",
            " and ".join(refusal.limits),
            wait,
        )
        time.sleep(wait)
        refusal = refused()
    return refusal


def _count_refused(estimate: CostEstimate, tags: Mapping[str, str] | None) -> None:
    if estimate.price is not None:
        count("pictory.credits_refused", count=estimate.price, tags={**(tags or {}), "model": estimate.model})


def conclude_plan(context: Context, plan: PurchasePlan, error: PictoryError | None, *, log: Log) -> NoReturn:
    """Push a plan to XCom, log it, and end the task.

    :param error: that the task would fail with; ``None`` if it would succeed.
    :raises AirflowSkipException: without an error, so that no task runs on pictures that do not exist.
    """
    context["ti"].xcom_push(key=PLAN_KEY, value=plan.to_dict())
    log.info("%s. Nothing was bought or written, and it was not tried whether files can be written.", plan)
    for each in plan.limits:
        log.info("The limit %s leaves %s.", each.limit, each)
    if error is not None:
        raise error
    raise AirflowSkipException(f"{plan}. Nothing was bought, because plan_only is on.")


def ask_account(client: SyncClient, budget: Budget, *, log: Log) -> None:
    """Update a budget from the account, with only the requests that its limits need.

    :raises Unavailable: if Pictory does not answer, or this release does not understand the answer.
    """
    quota, ledgers = None, []
    if budget.limits.need_quota:
        quota = _read(client, calls.get_quota(), "credits_reserve", log)
    if budget.limits.need_ledger:
        months = months_of(time.time())
        for month in months:  # the list may grow: the first reply shows Pictory's time
            ledgers.append(_read(client, calls.get_credit_usage(*month), _OF_LEDGER, log))
            months += [each for each in months_of(time.time() + client.skew) if each not in months]
    before = budget.skew
    try:
        budget.update(quota=quota, ledgers=ledgers, now=time.time(), skew=client.skew)
    except PictoryError as error:
        raise _cannot_check(error, _OF_LEDGER) from error
    if budget.skew != before:
        _log_skew(budget.skew, log)


def _log_skew(skew: float, log: Log) -> None:
    if not skew:
        log.info("This machine's clock and Pictory's agree again.")
        return
    log.warning(
        "This machine's clock is %s Pictory's, according to the Date header of its replies. A daily or monthly "
        "spending limit resets only when the period has ended by both clocks. Set this machine's clock (NTP).",
        describe_skew(skew),
    )


def describe_skew(skew: float) -> str:
    """Return by how much this machine's clock is ahead of another or behind it, such as ``3 minutes behind``.

    :param skew: seconds by which the other clock is ahead.
    """
    minutes = counted(max(1, round(abs(skew) / 60)), "minute")
    return f"{minutes} {'behind' if skew > 0 else 'ahead of'}"


@contextmanager
def skipped(on_budget: str) -> Iterator[None]:
    """Skip the task instead of failing it for a limit, if ``on_budget`` is ``"skip"``."""
    try:
        yield
    except BudgetExceeded as error:
        if on_budget == "skip":
            raise AirflowSkipException(error.message) from None
        raise


def _read(client: SyncClient, call: Call[T], limit: str, log: Log) -> T:
    try:
        return read(client, call, log=log)
    except (AuthenticationError, EdgeBlocked):
        raise  # their texts say what to fix
    except PictoryError as error:
        raise _cannot_check(error, limit) from error


def _cannot_check(error: PictoryError, limit: str) -> Unavailable:
    what_now = ""
    if isinstance(error, ReplyTooLarge) and limit == _OF_LEDGER:
        # On the first day of a month the ledger of the month before is read as well.
        smaller_from = next_month(time.time()) + timedelta(days=1)
        what_now = (
            " Pictory returns the ledger by the month and not in pages, so it stays too large until "
            f"{smaller_from:%Y-%m-%d} UTC. Until then remove both limits from the connection, and limit spending "
            "with credits_reserve, which needs only the quota, or with max_credits of each task."
        )
    return Unavailable(
        f"Could not check whether {limit} of the connection leaves enough, so nothing was bought. "
        f"{error.message}{what_now}"
    )


def _refused(name: str, value: object, takes: str) -> RequestInvalid:
    return RequestInvalid.unsent(f"{name} is {value!r}; it takes {takes}", fields=[name])
