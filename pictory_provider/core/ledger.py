# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Read Pictory's ledger: what was spent, and which charges it does not show yet.

What an entry of the ledger counts for (https://docs.pictory.ai/api-reference/aicredits/usage):

=================  ============================================================================================
type               counts as
=================  ============================================================================================
``debit``          spent
``credit``         given back, if its source is that of a debit, and up to what that source has spent in the
                   same period. The documented monthly reset is a credit too, and does not add to a budget
any other          spent, because its meaning is not documented
=================  ============================================================================================

An entry without a readable time, or whose amount is not a number from 0 on, makes the whole ledger unreadable:
then nothing is bought, because what was spent is unknown.

Days and months are those of UTC. An entry without a time zone is taken to be in UTC.

The ledger names no jobs and may be late. So it shows a charge if it has an entry of the same amount that

- was absent when the charge was made (:attr:`Charge.shown_before` counts those that were present),
- is dated no more than a minute before the charge, since clocks differ, and
- does not show an older charge: each entry shows one.

If the ledger was not read right before the charge, only an entry dated a minute or more after it was certainly
absent.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from pictory_provider.api.decoding import count_or_none, is_number, number_or_none
from pictory_provider.api.errors import Unavailable
from pictory_provider.api.models import MODELS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

CLOCKS_DIFFER = 60.0
"""Seconds by which the clocks of Pictory and of a worker may differ."""
_FIRST_YEAR = 2020
"""No ledger entry is older. An earlier date is in a format that this release does not understand."""


class Charge(NamedTuple):
    """A paid request that was accepted, or may have been.

    :param at: epoch seconds, right before it was sent.
    :param price: AI credits, as listed.
    :param shown_before: how many entries that could be this charge the ledger showed right before it: of the same
        amount, and dated no more than a minute earlier. ``None`` if the ledger was not read.
    :param used_before: AI credits that the account had used right before it, as far as this process could know.
        ``None`` if the quota was not read.
    """

    at: float
    price: float
    shown_before: int | None = None
    used_before: float | None = None


def purchases_to_dict(name: str, purchases: Sequence[Charge]) -> dict[str, Any]:
    """Return charges as the JSON fields of a record; no fields if there are none.

    Version 0.1.0 reads and writes the first field only.

    :param name: of the field with time and price; ``<name>_before`` has what the account showed before each.
    """
    if not purchases:
        return {}
    before = [[each.shown_before, each.used_before] for each in purchases]
    fields: dict[str, Any] = {name: [[each.at, each.price] for each in purchases]}
    return fields if before == [[None, None]] * len(before) else {**fields, f"{name}_before": before}


def purchases_from_dict(name: str, record: Mapping[str, Any]) -> tuple[Charge, ...] | None:
    """Read the fields of :func:`purchases_to_dict`; ``None`` if they cannot be read.

    If ``<name>_before`` cannot be read, what was known before each charge counts as unknown, which makes limits
    stricter.
    """
    pairs = record.get(name)
    if pairs is None:
        return ()
    if not isinstance(pairs, list) or not all(_is_pair(each) and all(map(is_number, each)) for each in pairs):
        return None
    before = record.get(f"{name}_before")
    if not isinstance(before, list) or len(before) != len(pairs) or not all(map(_is_pair, before)):
        before = [[None, None]] * len(pairs)
    return tuple(
        Charge(at, price, count_or_none(shown), number_or_none(used))
        for (at, price), (shown, used) in zip(pairs, before, strict=True)
    )


def total(purchases: Iterable[Charge]) -> float:
    """Return the sum of the prices of charges, in AI credits."""
    return math.fsum(each.price for each in purchases)


def price_of(request: Mapping[str, Any] | None) -> float:
    """Return the listed price of a request in AI credits; 0 if its model has none.

    :param request: of :func:`pictory_provider.core.submission.canonical_request`.
    """
    known = MODELS.get(str((request or {}).get("model")))
    return known.credits if known else 0.0


class LedgerEntry(NamedTuple):
    """A parsed entry of the ledger.

    :param at: epoch seconds.
    :param amount: AI credits.
    :param is_credit: whether it is a credit, not a debit.
    """

    at: float
    amount: float
    is_credit: bool
    source: str


def months_of(now: float) -> list[tuple[int, int]]:
    """Return the years and months, UTC, whose ledgers have to be read.

    On the first of a month that includes the month before: if Pictory's months are not those of UTC, an entry of
    today may be listed there.

    :param now: epoch seconds.
    """
    at = datetime.fromtimestamp(now, UTC)
    months = [(at.year, at.month)]
    if at.day == 1:
        months.append((at.year, at.month - 1) if at.month > 1 else (at.year - 1, 12))
    return months


def parse_ledger(*ledgers: Iterable[Mapping[str, Any]]) -> list[LedgerEntry]:
    """Parse the entries of ledgers; an entry that is in several ledgers counts once.

    :raises Unavailable: for an entry that cannot be understood.
    """
    if len(ledgers) == 1:
        return [_parse(entry) for entry in ledgers[0]]
    parsed: list[LedgerEntry] = []
    known: set[str] = set()
    for ledger in ledgers:
        texts = [(json.dumps(entry, sort_keys=True, default=str), entry) for entry in ledger]
        parsed += [_parse(entry) for text, entry in texts if text not in known]
        known.update(text for text, _ in texts)
    return parsed


def spent_since(entries: Iterable[LedgerEntry], since: float) -> float:
    """Return the AI credits spent since a time. The table is at the top of this module.

    :param since: epoch seconds.
    """
    debits: defaultdict[str, list[float]] = defaultdict(list)
    credits: defaultdict[str, list[float]] = defaultdict(list)
    for entry in entries:
        if entry.at >= since:
            (credits if entry.is_credit else debits)[entry.source].append(entry.amount)
    total = 0.0
    for source, amounts in debits.items():
        given_back = math.fsum(credits.get(source, ())) if source else 0.0
        total += max(0.0, math.fsum(amounts) - given_back)
    return round(total, 6)


def count_shown(entries: Iterable[LedgerEntry], price: float, at: float) -> int:
    """Return how many entries could be a charge, by their amounts and dates.

    :param price: AI credits.
    :param at: epoch seconds of the charge.
    """
    since, amount = at - CLOCKS_DIFFER, round(price, 2)
    return sum(not entry.is_credit and entry.at >= since and round(entry.amount, 2) == amount for entry in entries)


def unseen(purchases: Iterable[Charge], entries: Iterable[LedgerEntry]) -> list[Charge]:
    """Return the charges that the ledger does not show yet, the oldest first.

    Each charge, from the oldest on, is matched with the oldest entry that can show it. So an entry that shows an
    old charge is not matched with a new one.
    """
    dates: defaultdict[float, list[float]] = defaultdict(list)
    for entry in sorted(entries, key=lambda each: each.at):
        if not entry.is_credit:
            dates[round(entry.amount, 2)].append(entry.at)
    matched: defaultdict[float, int] = defaultdict(int)
    missing = []
    for charge in sorted(purchases, key=lambda each: each.at):
        price, shown = round(charge.price, 2), charge.shown_before
        slack = CLOCKS_DIFFER if shown is None else -CLOCKS_DIFFER
        position = max(matched[price], bisect_left(dates[price], charge.at + slack) + (shown or 0))
        if position < len(dates[price]):
            matched[price] = position + 1
        else:
            missing.append(charge)
    return missing


def beginning(now: float, *, of_month: bool = False) -> datetime:
    """Return the midnight, UTC, at which a day or its month began.

    :param now: epoch seconds.
    """
    at = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return at.replace(day=1) if of_month else at


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2


def _parse(entry: Mapping[str, Any]) -> LedgerEntry:
    at, amount = _time(entry.get("transactionDate")), entry.get("amount")
    if at is None or not is_number(amount) or amount < 0:
        known = {name: entry.get(name) for name in ("type", "amount", "source", "transactionDate")}
        shown = ", ".join(f"{name} {str(value)[:40]!r}" for name, value in known.items())
        raise Unavailable(
            f"Pictory's ledger has an entry that this release does not understand: {shown}. It needs a time as "
            "transactionDate, and a number from 0 on as amount."
        )
    return LedgerEntry(at, amount, _lower(entry.get("type")) == "credit", _lower(entry.get("source")))


def _time(value: object) -> float | None:
    if not isinstance(value, str):
        return None
    try:
        at = datetime.fromisoformat(value.strip())
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        return at.timestamp() if at.year >= _FIRST_YEAR else None
    except (ValueError, OverflowError):
        return None


def _lower(value: object) -> str:
    return value.strip().lower() if isinstance(value, str) else ""
