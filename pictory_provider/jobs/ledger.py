# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What is spent, by what the ledger says?

What an entry of the ledger counts for (https://docs.pictory.ai/api-reference/aicredits/usage):

=================  ============================================================================================
type               counts as
=================  ============================================================================================
``debit``          spent
``credit``         given back, where its source is that of a debit, and up to what that source has spent in the
                   same time. The documented monthly reset is a credit too, and opens no budget
any other          spent: nobody has said what it is
=================  ============================================================================================

An entry without a readable time, or whose amount is no number from 0 on, makes the whole ledger unreadable: what
cannot be known is not bought.

Days and months are those of UTC. An entry that says no time zone is taken to be of UTC.
"""

from __future__ import annotations

import math
from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from pictory_provider.api.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, TypeGuard


class Spent(NamedTuple):
    """What the ledger says is spent, in AI credits."""

    today: float
    this_month: float


def month_of(now: float) -> tuple[int, int]:
    """Return the year and the month, UTC, whose ledger tells what is spent.

    :param now: epoch seconds.
    """
    at = datetime.fromtimestamp(now, UTC)
    return at.year, at.month


def spent_of(ledger: Iterable[Mapping[str, Any]], now: float) -> Spent:
    """Return what the ledger says is spent today and this month. The table is at the top of this module.

    :param now: epoch seconds.
    :raises Unavailable: for an entry that cannot be understood.
    """
    midnight, month = beginning(now), beginning(now, of_month=True)
    today, this_month = _Sum(), _Sum()
    for entry in ledger:
        at, amount = _time(entry), entry.get("amount")
        if at is None or not is_number(amount) or amount < 0:
            raise Unavailable(
                "Pictory's ledger has an entry that this release does not understand: "
                f"{_shown(entry)}. It needs a time as transactionDate, and a number from 0 on as amount."
            )
        for begins, total in ((midnight, today), (month, this_month)):
            if at >= begins:
                total.take(entry, amount)
    return Spent(today.spent, this_month.spent)


class _Sum:
    """Entries added up by their source."""

    def __init__(self) -> None:
        self._debits: defaultdict[str, list[float]] = defaultdict(list)
        self._credits: defaultdict[str, list[float]] = defaultdict(list)

    def take(self, entry: Mapping[str, Any], amount: float) -> None:
        is_credit = _word(entry.get("type")) == "credit"
        (self._credits if is_credit else self._debits)[_word(entry.get("source"))].append(amount)

    @property
    def spent(self) -> float:
        total = 0.0
        for source, amounts in self._debits.items():
            given_back = math.fsum(self._credits.get(source, ())) if source else 0.0
            total += max(0.0, math.fsum(amounts) - given_back)
        return round(total, 6)


def beginning(now: float, *, of_month: bool = False) -> datetime:
    """Return the midnight, UTC, with which a day or its month began.

    :param now: epoch seconds.
    """
    at = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return at.replace(day=1) if of_month else at


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value of JSON is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _time(entry: Mapping[str, Any]) -> datetime | None:
    try:
        at = datetime.fromisoformat(str(entry.get("transactionDate")).strip())
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _word(value: object) -> str:
    return value.strip().lower() if isinstance(value, str) else ""


def _shown(entry: Mapping[str, Any]) -> str:
    known = {name: entry.get(name) for name in ("type", "amount", "source", "transactionDate")}
    return ", ".join(f"{name} {str(value)[:40]!r}" for name, value in known.items())
