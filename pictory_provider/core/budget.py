# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Enforce the limits on spending, from what the account and the task are known to have spent.

====================== ============================================ ============================= =================
limit                  what counts                                  whose spending                begins anew
====================== ============================================ ============================= =================
``credits_per_day``    the ledger's entries since midnight, UTC     the whole account             at midnight, UTC
``credits_per_month``  those since the first of the month, UTC      the whole account             on the first, UTC
``credits_reserve``    the quota's remaining credits, above it      the whole account             when credits come
``max_credits``        the task's charges, over its retries         that task                     with a clear
====================== ============================================ ============================= =================

:mod:`pictory_provider.core.ledger` says what an entry of the ledger counts for, and which charges it does not
show.

Ledger and quota may be up to an hour late. So a task remembers its own charges, each with what the account showed
right before it, and counts

- for the ledger: what it shows, plus the task's own recent charges that it does not show;
- for the quota: what it says now, or what it said before an own charge plus that charge and all own ones since,
  whichever is more.

A charge is forgotten when the task has bought nothing for an hour and a quarter after it: by then the account
shows all of it, and nothing that is forgotten can be mistaken for something later. The quarter is for the request
itself: a charge is dated when the account is checked, and Pictory makes it later. So it does not matter over how
many deferrals, retries and workers a task's charges are spread (:func:`remembered`).

If the clocks of this machine and Pictory differ by more than a minute, a charge is dated by Pictory's, as on all
other machines. A day, a month and the time of a charge end when they have ended by both clocks; a day and a month
end a minute later, for smaller differences, which are not corrected.
"""

from __future__ import annotations

import math
import threading
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from pictory_provider.api.errors import BudgetExceeded, PictoryError, RequestInvalid, Unavailable
from pictory_provider.api.text import counted
from pictory_provider.core.ledger import (
    CLOCKS_DIFFER,
    Charge,
    LedgerEntry,
    beginning,
    count_shown,
    parse_ledger,
    spent_since,
    total,
    unseen,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pictory_provider.api.connection import ConnectionSettings
    from pictory_provider.api.models import ImageRequest, Quota

LATE_AT_MOST = 3_600.0
"""Seconds after which the ledger and the quota are expected to include a charge, from when Pictory made it."""
SENT_WITHIN = 900.0
"""Seconds from the check of the account until Pictory has charged for a request. A wave is sent within a minute,
a request is sent again for a minute, and the rest is for the connection's ``timeout``."""
COUNTED_FOR = LATE_AT_MOST + SENT_WITHIN
CLOCKS_DIFFER_AT_MOST = 86_400.0
"""Seconds by which a charge may be dated in the future, and by which two clocks may move apart meanwhile."""
_LEAST = 1e-6
"""AI credits that are ignored: sums of fractions are not exact, and the ledger's is rounded to as many digits."""


class Limits(NamedTuple):
    """The limits on spending, in AI credits; ``None`` for no limit."""

    per_day: float | None = None
    per_month: float | None = None
    reserve: float | None = None
    per_task: float | None = None

    @classmethod
    def from_settings(cls, settings: ConnectionSettings, *, per_task: float | None = None) -> Limits:
        """Return the limits of a connection and of a task."""
        return cls(settings.credits_per_day, settings.credits_per_month, settings.credits_reserve, per_task)

    @property
    def need_ledger(self) -> bool:
        """Whether the ledger has to be read."""
        return self.per_day is not None or self.per_month is not None

    @property
    def need_quota(self) -> bool:
        """Whether the quota has to be read."""
        return self.reserve is not None

    @property
    def are_set(self) -> bool:
        """Whether any limit is set."""
        return any(limit is not None for limit in self)


class CostEstimate(NamedTuple):
    """The price of pictures that are about to be bought."""

    requests: tuple[ImageRequest, ...]

    @property
    def unlisted(self) -> list[str]:
        """The models that have no listed price."""
        return sorted({request.model for request in self.requests if request.credits is None})

    @property
    def price(self) -> float | None:
        """The listed price of all together, in AI credits; ``None`` if a model has no listed price."""
        prices = [request.credits for request in self.requests if request.credits is not None]
        return round(math.fsum(prices), 2) if len(prices) == len(self.requests) else None

    @property
    def model(self) -> str:
        """The model, or ``several``."""
        models = {request.model for request in self.requests}
        return models.pop() if len(models) == 1 else "several"

    def __str__(self) -> str:
        """Return the number of pictures and their price as a clause."""
        what = "The picture costs" if len(self.requests) == 1 else f"The {len(self.requests):,} pictures cost"
        return f"{what} {format_credits(self.price)} AI credits as listed"


class Headroom(NamedTuple):
    """How much a limit leaves.

    :param left: AI credits; below 0 if the limit is exceeded.
    :param why: the limit and what was spent, as a clause that follows the number.
    :param remedy: when it begins anew, and where to change it.
    """

    limit: str
    left: float
    why: str
    remedy: str

    def __str__(self) -> str:
        """Return the clause of an error text."""
        return f"{format_credits(max(0.0, self.left))} {self.why}"


class PurchasePlan(NamedTuple):
    """What a task would do. The counts but ``skipped`` add up to ``of``.

    :param to_buy: pictures that it would buy.
    :param reused: that exist.
    :param adopted: whose jobs are on record.
    :param refused: whose places are taken by something else.
    :param failed: of rows that are bad, or have failed in this attempt's table.
    :param owed: that are paid for and could not be saved.
    :param unknown: of which it is unknown whether they were bought.
    :param not_bought: that a limit or another error prevents.
    :param skipped: rows that are left out.
    :param price: of those to buy, in AI credits; ``None`` if a model has no listed price.
    :param limits: what each limit leaves.
    """

    of: int
    to_buy: int = 0
    reused: int = 0
    adopted: int = 0
    refused: int = 0
    failed: int = 0
    owed: int = 0
    unknown: int = 0
    not_bought: int = 0
    skipped: int = 0
    price: float | None = 0.0
    limits: tuple[Headroom, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON. Writing is not tried for a plan."""
        limits = [{"limit": each.limit, "left": round(max(0.0, each.left), 6)} for each in self.limits]
        return {**self._asdict(), "limits": limits, "is_writing_tried": False}

    def __str__(self) -> str:
        """Return a line for the log. Counts of 0 are left out."""
        names = ("reused", "adopted", "refused", "failed", "owed", "unknown", "not_bought", "skipped")
        counts = [f"{count:,} {name.replace('_', ' ')}" for name in names if (count := getattr(self, name))]
        to_buy = f"{self.to_buy:,} to buy for {format_credits(self.price)} AI credits as listed"
        return f"The plan for {counted(self.of, 'picture')}: {', '.join([to_buy, *counts])}"


class Budget:
    """The spending limits of one task, and what counts against them.

    Threads that share a budget hold :attr:`lock` from checking it until the charge is counted.

    :param limits: that apply.
    :param own: the task's charges so far.
    :param this_task: AI credits that the task has spent since it was last cleared.
    :ivar today: AI credits that the account has spent today.
    :ivar this_month: AI credits that it has spent this month.
    :ivar left: AI credits that it has left; ``None`` if the quota was not read.
    :ivar skew: seconds by which Pictory's clock is ahead of this machine's; 0 for up to a minute.
    """

    def __init__(self, limits: Limits, *, own: Iterable[Charge] = (), this_task: float = 0.0) -> None:
        self.limits = limits
        self.own = list(own)
        self.this_task = this_task
        self.today = self.this_month = 0.0
        self.left: float | None = None
        self.skew = 0.0
        self.lock = threading.Lock()
        self._entries: list[LedgerEntry] | None = None
        self._used: float | None = None
        self._spent_here: set[Charge] = set()
        self._is_updated = False

    def update(
        self,
        *,
        quota: Quota | None,
        ledgers: Sequence[Iterable[Mapping[str, Any]]],
        now: float,
        skew: float = 0.0,
    ) -> None:
        """Update the spending from the account's quota and ledgers.

        :param quota: if the limits need it.
        :param ledgers: of :func:`~pictory_provider.core.ledger.months_of`; empty if no limit needs them.
        :param now: epoch seconds.
        :param skew: seconds by which Pictory's clock is ahead of the one that gives ``now``.
        :raises Unavailable: for an entry that cannot be understood, and for clocks that have moved apart by days.
        """
        if self._is_updated and abs(skew - self.skew) > CLOCKS_DIFFER_AT_MOST:
            raise Unavailable(
                "Between two requests this machine's clock and the Date header of Pictory's replies moved apart "
                f"by {abs(skew - self.skew) / 86_400:,.0f} days, so it is unknown what counts for today. A proxy "
                "may return old replies, or this machine's clock was set."
            )
        self._is_updated = True
        if abs(skew - self.skew) > CLOCKS_DIFFER:
            self._set_skew(skew if abs(skew) > CLOCKS_DIFFER else 0.0, now)
        now, latest = self._earliest(now), now + max(0.0, self.skew)
        self.own = remembered(self.own, now, latest)
        self._entries = parse_ledger(*ledgers) if ledgers else None
        self._used = None
        if self._entries is not None:
            # An entry may be dated when the picture is ready, so a charge not shown yet may count for today.
            hidden = total(each for each in unseen(self.own, self._entries) if now - each.at <= COUNTED_FOR)
            begun = now - CLOCKS_DIFFER  # so a clock that is a minute ahead does not begin the day before Pictory
            self.today, self.this_month = (
                spent_since(self._entries, beginning(begun, of_month=of_month).timestamp()) + hidden
                for of_month in (False, True)
            )
        if quota is not None:
            self._used = _used_at_least(self.own, quota.ai_credits_used, now)
            self.left = quota.ai_credits_limit - self._used

    def spend(self, price: float | None, now: float) -> Charge:
        """Count a charge, right before its request is sent. It stays counted if the outcome is unknown."""
        price, at = price or 0.0, now + self.skew
        shown = None if self._entries is None else count_shown(self._entries, price, at)
        charge = Charge(at, price, shown, self._used)
        self.own.append(charge)
        self._spent_here.add(charge)
        self._add(price)
        return charge

    def refund(self, purchase: Charge) -> None:
        """Stop counting a charge: its request was refused, or never sent."""
        if purchase in self.own:
            self.own.remove(purchase)
        self._add(-purchase.price)

    def refusal(self, estimate: CostEstimate, now: float, *, is_partial: bool = False) -> PictoryError | None:
        """Return the error if a purchase would exceed a limit; ``None`` if it is allowed.

        :param is_partial: whether a part of it may be bought, or it is only planned.
        :return: :class:`BudgetExceeded`; :class:`RequestInvalid` if a model has no listed price.
        """
        if not self.limits.are_set:
            return None
        if estimate.price is None:
            return self._unlisted(estimate)
        over = [each for each in self.headroom(now) if estimate.price > each.left + _LEAST]
        if not over:
            return None
        left = " ".join(f"The limit {each.limit} leaves {each}. {each.remedy}" for each in over)
        is_one = len(estimate.requests) == 1
        outcome = f", so {'it was not' if is_one else 'none of these was'} bought"
        if is_partial:
            outcome = "" if is_one else f": it is enough for {self.affordable(estimate, now)}"
        return BudgetExceeded(
            f"{estimate}, which is over a limit{outcome}. {left} Then clear the task.",
            limits=[each.limit for each in over],
            asked=estimate.price,
            left=max(0.0, round(min(each.left for each in over), 6)),
        )

    def affordable(self, estimate: CostEstimate, now: float) -> int:
        """Return how many pictures of an estimate all limits allow, from its beginning.

        :param estimate: each model has a listed price.
        """
        left = min((each.left for each in self.headroom(now)), default=math.inf) + _LEAST
        spent = 0.0
        for number, request in enumerate(estimate.requests):
            spent += request.credits or 0.0
            if spent > left:
                return number
        return len(estimate.requests)

    def until_anew(self, limits: Iterable[str], now: float) -> float:
        """Return the seconds until exceeded limits begin anew, if the day or month has just begun.

        A limit begins anew a minute after midnight (:data:`CLOCKS_DIFFER`). Before, :meth:`update` still counts
        the day or month before.

        :param limits: the names of the exceeded limits.
        :param now: epoch seconds.
        :return: 0 if one of them begins anew later, or never.
        """
        now = self._earliest(now)
        waits = [0.0]
        for name in limits:
            begun = beginning(now, of_month=name == "credits_per_month").timestamp()
            left = begun + CLOCKS_DIFFER - now
            if name not in ("credits_per_day", "credits_per_month") or left <= 0:
                return 0.0
            waits.append(left)
        return max(waits)

    def headroom(self, now: float) -> Iterator[Headroom]:
        """Yield what each limit leaves, as far as it is known.

        :param now: epoch seconds.
        """
        now = self._earliest(now)
        day, month, reserve, most = self.limits
        if most is not None:
            why = f"of {format_credits(most)}, since this task has spent {format_credits(self.this_task)}"
            remedy = "Raise or remove max_credits of the task."
            yield Headroom("max_credits", most - self.this_task, why, remedy)
        for name, limit, spent, when, anew in (
            ("credits_per_day", day, self.today, "today", next_day(now)),
            ("credits_per_month", month, self.this_month, "this month", next_month(now)),
        ):
            if limit is not None:
                why = f"of {format_credits(limit)}, since the account has spent {format_credits(spent)} {when}"
                remedy = f"It begins anew at {anew:%Y-%m-%d %H:%M} UTC. It is set in the connection."
                yield Headroom(name, limit - spent, why, remedy)
        if reserve is not None:
            left = self.left or 0.0  # if the quota was not read, nothing is left
            reserved = f"of which {format_credits(reserve)} are reserved"
            why = f"above it: the account has {format_credits(left)} left, {reserved}"
            remedy = "There is more when the account gets credits. It is set in the connection."
            yield Headroom("credits_reserve", left - reserve, why, remedy)

    def _set_skew(self, skew: float, now: float) -> None:
        """Change the skew. A charge that was dated by the one before gets the later of both dates.

        Either clock may have been wrong before, and a later date makes a charge count for longer.
        """
        later, latest = max(0.0, skew - self.skew), now + max(0.0, skew)
        moved = {each: each._replace(at=max(each.at, min(each.at + later, latest))) for each in self._spent_here}
        self.own = [moved.get(charge, charge) for charge in self.own]
        self._spent_here = set(moved.values())
        self.skew = skew

    def _earliest(self, now: float) -> float:
        """Return the time by the clock that is behind: this machine's or Pictory's."""
        return now + min(0.0, self.skew)

    def _unlisted(self, estimate: CostEstimate) -> RequestInvalid:
        names = ("credits_per_day", "credits_per_month", "credits_reserve", "max_credits")
        are_set = [name for name, limit in zip(names, self.limits, strict=True) if limit is not None]
        models = ", ".join(map(repr, estimate.unlisted))
        return RequestInvalid.unsent(
            f"The price of {models} is not known to this release, and {' and '.join(are_set)} "
            f"{'is' if len(are_set) == 1 else 'are'} set: a limit cannot be applied without a price",
            "Use a listed model, or a connection without limits.",
            fields=["model"],
        )

    def _add(self, amount: float) -> None:
        self.today += amount
        self.this_month += amount
        self.this_task += amount
        if self.left is not None:
            self.left -= amount


def remembered(own: Iterable[Charge], now: float, latest: float | None = None) -> list[Charge]:
    """Return a task's charges that may still matter, the oldest first.

    They reach back to the last time without a charge that is long enough for the account to show all of them: an
    hour and a quarter. A charge that a wrong clock has dated in the future counts too, for up to a day.

    :param now: epoch seconds; of two clocks that differ, the one that is behind.
    :param latest: the time by the other clock.
    """
    latest = now if latest is None else latest
    recent: list[Charge] = []
    later = now
    in_order = sorted(own, key=lambda each: each.at)  # sorting in reverse would swap charges of the same time
    for charge in in_order[::-1]:
        if charge.at > latest + CLOCKS_DIFFER_AT_MOST:
            continue
        if later - charge.at > COUNTED_FOR:
            break
        recent.append(charge)
        later = min(later, charge.at)
    return recent[::-1]


def _used_at_least(own: Sequence[Charge], used: float, now: float) -> float:
    """Return the AI credits that the account has used, by the quota or by own charges, whichever is more.

    :param own: of :func:`remembered`.
    :param used: by the quota.
    """
    since, most, is_known = 0.0, used, False
    for purchase in reversed(own):
        since += purchase.price
        if purchase.used_before is not None:
            most, is_known = max(most, purchase.used_before + since), True
    # If the quota was not read before any of them, it may not count them yet.
    return most if is_known else used + total(each for each in own if now - each.at <= COUNTED_FOR)


def format_credits(number: float | None) -> str:
    """Return a number of AI credits as texts show it."""
    return "an unknown number of" if number is None else f"{round(number, 6) + 0.0:,.10g}"  # never -0


def next_day(now: float) -> datetime:
    """Return the next midnight, UTC."""
    return beginning(now) + timedelta(days=1)


def next_month(now: float) -> datetime:
    """Return the midnight, UTC, at which the next month begins."""
    return (beginning(now, of_month=True) + timedelta(days=32)).replace(day=1)
