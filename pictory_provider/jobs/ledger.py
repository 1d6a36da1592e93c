# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What is spent, by what the ledger says, and which purchases it does not show yet?

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

The ledger names no job, and may be late. So a purchase of one's own is shown by it where it has an entry of the
same amount that is not older than the purchase; each entry shows one.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from pictory_provider.api.errors import Unavailable
from pictory_provider.api.models import MODELS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, TypeGuard

CLOCKS_DIFFER = 60.0
"""Seconds by which an entry may be older than the purchase that it is of."""
_SAME = 0.005
_FIRST_YEAR = 2020
"""No ledger is older: what says so is no time that this release understands."""


class Purchase(NamedTuple):
    """A paid request that was accepted, as far as anybody knows.

    :param at: epoch seconds, right before it was sent.
    :param price: AI credits, as listed.
    """

    at: float
    price: float


def read_purchases(kept: Any) -> tuple[Purchase, ...] | None:
    """Read purchases that are kept as JSON, each a list of two; ``None`` where they cannot be read."""
    if kept is None:
        return ()
    if not isinstance(kept, list):
        return None
    pairs = [each for each in kept if isinstance(each, list) and len(each) == 2 and all(map(is_number, each))]
    return tuple(Purchase(*pair) for pair in pairs) if len(pairs) == len(kept) else None


def total(purchases: Iterable[Purchase]) -> float:
    """Return the AI credits that purchases cost together."""
    return math.fsum(each.price for each in purchases)


def price_of(asked: Mapping[str, Any] | None) -> float:
    """Return the listed price of what was asked for; 0 where it has none.

    :param asked: of :func:`pictory_provider.jobs.submission.asked_for`.
    """
    known = MODELS.get(str((asked or {}).get("model")))
    return known.credits if known else 0.0


class Line(NamedTuple):
    """An entry of the ledger that is understood.

    :param at: epoch seconds.
    :param amount: AI credits.
    :param is_credit: whether it came in.
    """

    at: float
    amount: float
    is_credit: bool
    source: str


def months_of(now: float) -> list[tuple[int, int]]:
    """Return the years and months, UTC, whose ledgers tell what is spent.

    On the first of a month that is the one before, too: where its months are not those of UTC, an entry of today
    may lie there.

    :param now: epoch seconds.
    """
    at = datetime.fromtimestamp(now, UTC)
    months = [(at.year, at.month)]
    if at.day == 1:
        months.append((at.year, at.month - 1) if at.month > 1 else (at.year - 1, 12))
    return months


def lines_of(*ledgers: Iterable[Mapping[str, Any]]) -> list[Line]:
    """Read the entries of ledgers; one that is in several is taken once.

    :raises Unavailable: for an entry that cannot be understood.
    """
    lines: list[Line] = []
    known: set[str] = set()
    for ledger in ledgers:
        entries = list(ledger)
        said = [json.dumps(entry, sort_keys=True, default=str) for entry in entries]
        lines += [_line(entry) for entry, text in zip(entries, said, strict=True) if text not in known]
        known.update(said)
    return lines


def spent_since(lines: Iterable[Line], since: float) -> float:
    """Return the AI credits spent since a time. The table is at the top of this module.

    :param since: epoch seconds.
    """
    debits: defaultdict[str, list[float]] = defaultdict(list)
    credits: defaultdict[str, list[float]] = defaultdict(list)
    for line in lines:
        if line.at >= since:
            (credits if line.is_credit else debits)[line.source].append(line.amount)
    total = 0.0
    for source, amounts in debits.items():
        given_back = math.fsum(credits.get(source, ())) if source else 0.0
        total += max(0.0, math.fsum(amounts) - given_back)
    return round(total, 6)


def unseen(purchases: Iterable[Purchase], lines: Iterable[Line]) -> list[Purchase]:
    """Return the purchases that the ledger does not show."""
    left: defaultdict[float, list[Line]] = defaultdict(list)
    for line in sorted(lines):
        if not line.is_credit:
            left[round(line.amount, 2)].append(line)
    # The latest has the fewest entries to be shown by.
    return [
        purchase
        for purchase in sorted(purchases, reverse=True)
        if not _take(left[round(purchase.price, 2)], purchase.at - CLOCKS_DIFFER)
    ]


def beginning(now: float, *, of_month: bool = False) -> datetime:
    """Return the midnight, UTC, with which a day or its month began.

    :param now: epoch seconds.
    """
    at = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return at.replace(day=1) if of_month else at


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value of JSON is a finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an int with hundreds of digits
        return False


def _take(lines: list[Line], since: float) -> bool:
    """Take away the latest line, if it is not older than a time."""
    if lines and lines[-1].at >= since:
        lines.pop()
        return True
    return False


def _line(entry: Mapping[str, Any]) -> Line:
    at, amount = _time(entry.get("transactionDate")), entry.get("amount")
    if at is None or not is_number(amount) or amount < 0:
        raise Unavailable(
            "Pictory's ledger has an entry that this release does not understand: "
            f"{_shown(entry)}. It needs a time as transactionDate, and a number from 0 on as amount."
        )
    return Line(at, amount, _word(entry.get("type")) == "credit", _word(entry.get("source")))


def _time(value: object) -> float | None:
    if not isinstance(value, str):
        return None
    try:
        at = datetime.fromisoformat(value.strip())
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        return at.timestamp() if at.year >= _FIRST_YEAR else None
    except (ValueError, OverflowError):
        return None


def _word(value: object) -> str:
    return value.strip().lower() if isinstance(value, str) else ""


def _shown(entry: Mapping[str, Any]) -> str:
    known = {name: entry.get(name) for name in ("type", "amount", "source", "transactionDate")}
    return ", ".join(f"{name} {str(value)[:40]!r}" for name, value in known.items())
