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

The ledger names no job, and may be late. So the ledger shows a purchase if it has an entry of the same amount that

- was absent when the purchase was made (:attr:`Purchase.shown_before` counts those that were not),
- is dated no more than a minute before the purchase, since clocks differ, and
- shows no older purchase: each entry shows one.

If nobody read the ledger right before the purchase, only an entry dated a minute after it, or later, was certainly
absent.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from pictory_provider.api.errors import Unavailable
from pictory_provider.api.models import MODELS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any, TypeGuard

CLOCKS_DIFFER = 60.0
"""Seconds by which the clocks of Pictory and of a worker may differ."""
_FIRST_YEAR = 2020
"""No ledger is older: what says so is no time that this release understands."""


class Purchase(NamedTuple):
    """A paid request that was accepted, as far as anybody knows.

    :param at: epoch seconds, right before it was sent.
    :param price: AI credits, as listed.
    :param shown_before: how many entries the ledger showed right before it that could be taken for it: of the same
        amount, and dated no more than a minute earlier. ``None`` if the ledger was not read.
    :param used_before: AI credits that the account had used right before it, as far as the buyer could know.
        ``None`` if the quota was not read.
    """

    at: float
    price: float
    shown_before: int | None = None
    used_before: float | None = None


def purchases_to_dict(name: str, purchases: Sequence[Purchase]) -> dict[str, Any]:
    """Return purchases as the JSON fields that are kept; no field if there are none.

    Version 0.1.0 wrote the first field alone, and reads it alone.

    :param name: of the field with time and price; ``<name>_before`` says what the account showed before each.
    """
    if not purchases:
        return {}
    before = [[each.shown_before, each.used_before] for each in purchases]
    fields: dict[str, Any] = {name: [[each.at, each.price] for each in purchases]}
    return fields if before == [[None, None]] * len(before) else {**fields, f"{name}_before": before}


def purchases_from_dict(name: str, kept: Mapping[str, Any]) -> tuple[Purchase, ...] | None:
    """Read what :func:`purchases_to_dict` returned; ``None`` if it cannot be read.

    What was known before each purchase is unknown if its field cannot be read, which holds a limit all the more.
    """
    pairs = kept.get(name)
    if pairs is None:
        return ()
    if not isinstance(pairs, list) or not all(_is_pair(each) and all(map(is_number, each)) for each in pairs):
        return None
    before = kept.get(f"{name}_before")
    if not isinstance(before, list) or len(before) != len(pairs) or not all(map(_is_pair, before)):
        before = [[None, None]] * len(pairs)
    return tuple(
        Purchase(at, price, count_or_none(shown), number_or_none(used))
        for (at, price), (shown, used) in zip(pairs, before, strict=True)
    )


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
    if len(ledgers) == 1:
        return [_line(entry) for entry in ledgers[0]]
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


def count_shown(lines: Iterable[Line], price: float, at: float) -> int:
    """Return how many entries could be taken for a purchase by their amounts and dates.

    :param price: AI credits.
    :param at: epoch seconds of the purchase.
    """
    since, amount = at - CLOCKS_DIFFER, round(price, 2)
    return sum(not line.is_credit and line.at >= since and round(line.amount, 2) == amount for line in lines)


def unseen(purchases: Iterable[Purchase], lines: Iterable[Line]) -> list[Purchase]:
    """Return the purchases that the ledger does not show yet, the oldest first.

    The oldest purchase takes the oldest entry that can show it: an entry that shows an old purchase is not left
    for a new one.
    """
    dates: defaultdict[float, list[float]] = defaultdict(list)
    for line in lines:
        if not line.is_credit:
            dates[round(line.amount, 2)].append(line.at)
    for listed in dates.values():
        listed.sort()
    taken: defaultdict[float, int] = defaultdict(int)
    missing = []
    for purchase in sorted(purchases, key=lambda each: each.at):
        price, shown = round(purchase.price, 2), purchase.shown_before
        listed = dates[price]
        if shown is None:
            first = bisect_left(listed, purchase.at + CLOCKS_DIFFER)
        else:
            first = bisect_left(listed, purchase.at - CLOCKS_DIFFER) + shown
        position = max(taken[price], first)
        if position < len(listed):
            taken[price] = position + 1
        else:
            missing.append(purchase)
    return missing


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


def number_or_none(value: Any) -> float | None:
    """Return a finite number of JSON; ``None`` for anything else."""
    return float(value) if is_number(value) else None


def count_or_none(value: Any) -> int | None:
    """Return a whole number from 0 on; ``None`` for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2


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
