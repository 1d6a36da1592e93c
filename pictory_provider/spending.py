# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Is there room for a purchase? What the account says is compared with the limits before money is spent.

The decision is in :mod:`pictory_provider.jobs.budget`. Here Pictory is asked, which is free, and only for what a
limit needs; and what a task is told about its limits is checked.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from airflow.providers.common.compat.sdk import AirflowSkipException

from pictory_provider.api import endpoints, responses, retry
from pictory_provider.api.errors import (
    AuthenticationError,
    BudgetExceeded,
    EdgeBlocked,
    PictoryError,
    RequestInvalid,
    Unavailable,
)
from pictory_provider.client.asking import repeat
from pictory_provider.jobs.ledger import is_number, months_of
from pictory_provider.telemetry import count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pictory_provider.api.endpoints import Request
    from pictory_provider.api.responses import Response
    from pictory_provider.client.asking import Log
    from pictory_provider.client.sync import SyncClient
    from pictory_provider.jobs.budget import Budget, Lot
    from pictory_provider.jobs.ledger import Purchase

T = TypeVar("T")

BUDGET_POLICIES = ("fail", "skip")
_OF_LEDGER = "credits_per_day or credits_per_month"


def check_limits(max_credits: object, on_budget: object) -> float | None:
    """Check what a task says about its limits.

    :return: ``max_credits`` in AI credits; ``None`` for no limit.
    :raises RequestInvalid: names what is supported.
    """
    if on_budget not in BUDGET_POLICIES:
        raise _refused("on_budget", on_budget, f"one of {', '.join(BUDGET_POLICIES)}")
    if max_credits is None:
        return None
    if not is_number(max_credits) or max_credits < 0:
        raise _refused("max_credits", max_credits, "a number of AI credits, or None for no limit")
    return float(max_credits)


def reserve(
    client: SyncClient, budget: Budget, lot: Lot, *, log: Log, tags: Mapping[str, str] | None = None
) -> list[Purchase]:
    """Count a purchase where there is room for it, having asked the account. :meth:`Budget.give_back` undoes it.

    :param budget: of the buyer; takes in what the account says.
    :param tags: for the metric.
    :return: as they were counted, in the order of the lot's requests.
    :raises BudgetExceeded: where a limit leaves too little.
    :raises RequestInvalid: where a limit is set and a model has no listed price.
    :raises Unavailable: where it cannot be known; nothing is bought on a guess.
    """
    with budget.lock:
        check(client, budget, lot, log=log, tags=tags)
        return [budget.spend(request.credits, time.time()) for request in lot.requests]


def check(
    client: SyncClient, budget: Budget, lot: Lot, *, log: Log, tags: Mapping[str, str] | None = None
) -> None:
    """Return where there is room for a purchase, and count nothing. Else as :func:`reserve`."""
    if lot.price is not None:
        look(client, budget, log=log)
    if (refusal := budget.refusal(lot, time.time())) is not None:
        if lot.price is not None:
            count("pictory.credits_refused", count=lot.price, tags={**(tags or {}), "model": lot.model})
        raise refusal


def look(client: SyncClient, budget: Budget, *, log: Log) -> None:
    """Let a budget take in what the account says, as far as its limits need it.

    :raises Unavailable: where Pictory does not say it, or says what this release does not understand.
    """
    quota, ledgers = None, []
    if budget.limits.need_quota:
        quota = _read(client, endpoints.get_quota(), responses.parse_quota, "credits_reserve", log)
    if budget.limits.need_ledger:
        for month in months_of(time.time()):
            request = endpoints.get_credit_usage(*month)
            ledgers.append(_read(client, request, responses.parse_credit_usage, _OF_LEDGER, log))
    try:
        budget.note(quota=quota, ledgers=ledgers, now=time.time())
    except PictoryError as error:
        raise _not_known(error, _OF_LEDGER) from error


@contextmanager
def skipped(on_budget: str) -> Iterator[None]:
    """Skip the task, where it is to be skipped, in place of failing it for a limit."""
    try:
        yield
    except BudgetExceeded as error:
        if on_budget == "skip":
            raise AirflowSkipException(error.message) from None
        raise


def _read(client: SyncClient, request: Request, parse: Callable[[Response], T], limit: str, log: Log) -> T:
    try:
        return repeat(lambda: parse(client.send(request)), retry.after_read, log=log)
    except (AuthenticationError, EdgeBlocked):
        raise  # they say themselves what is to be mended
    except PictoryError as error:
        raise _not_known(error, limit) from error


def _not_known(error: PictoryError, limit: str) -> Unavailable:
    return Unavailable(
        f"It cannot be known whether {limit} of the connection leaves enough, so nothing was bought. "
        f"{error.message}"
    )


def _refused(name: str, value: object, takes: str) -> RequestInvalid:
    return RequestInvalid(
        f"{name} is {value!r}; it takes {takes}. Nothing was sent and nothing was spent.", fields=[name]
    )
