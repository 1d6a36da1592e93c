# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""May this be bought? The limits on spending, and what is spent of them as far as anybody can know.

====================== ============================================ ============================= =================
limit                  what is spent of it                          who spends it                 begins anew
====================== ============================================ ============================= =================
``credits_per_day``    the ledger's entries since midnight, UTC     the whole account             at midnight, UTC
``credits_per_month``  those since the first of the month, UTC      the whole account             on the first, UTC
``credits_reserve``    what the quota says is left, above it        the whole account             when credits come
``max_credits``        what a task has bought, over its retries     that task                     with a clear
====================== ============================================ ============================= =================

What an entry of the ledger counts for, and which purchases it does not show, is said in
:mod:`pictory_provider.jobs.ledger`.

Ledger and quota may be up to an hour late. So a buyer remembers its own purchases, each with what the account
showed right before it, and counts

- for the ledger: what that shows, and its own purchases of the last hour that it does not show;
- for the quota: what that says now, or what it said before an own purchase, with that purchase and all own ones
  since, whichever is more.

A purchase is forgotten when the buyer has bought nothing for an hour after it: by then all of it is shown, and
nothing that is forgotten can be mistaken for something later. So it does not matter over how many deferrals,
retries and workers a buyer's purchases are spread (:func:`remembered`).
"""

from __future__ import annotations

import math
import threading
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from pictory_provider.api.errors import BudgetExceeded, PictoryError, RequestInvalid
from pictory_provider.jobs.ledger import (
    Line,
    Purchase,
    beginning,
    count_shown,
    lines_of,
    spent_since,
    total,
    unseen,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pictory_provider.api.connection import ConnectionSettings
    from pictory_provider.api.models import ImageRequest, Quota

LATE_AT_MOST = 3_600.0
"""Seconds after which a purchase is taken to be in the ledger and the quota."""
_LEAST = 0.005
"""AI credits that do not count: prices are in tenths, and sums of fractions are not exact."""


class Limits(NamedTuple):
    """What may be spent, in AI credits; ``None`` for no limit."""

    per_day: float | None = None
    per_month: float | None = None
    reserve: float | None = None
    per_task: float | None = None

    @classmethod
    def of(cls, settings: ConnectionSettings, *, per_task: float | None = None) -> Limits:
        """Return those of a connection, and of a task."""
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
        """Whether there is any."""
        return any(limit is not None for limit in self)


class Lot(NamedTuple):
    """Some pictures that are to be bought."""

    requests: tuple[ImageRequest, ...]

    @property
    def unlisted(self) -> list[str]:
        """The models that have no listed price."""
        return sorted({request.model for request in self.requests if request.credits is None})

    @property
    def price(self) -> float | None:
        """All together in AI credits, as listed; ``None`` where a model has no listed price."""
        prices = [request.credits for request in self.requests if request.credits is not None]
        return round(math.fsum(prices), 2) if len(prices) == len(self.requests) else None

    @property
    def model(self) -> str:
        """The model, or the word for several."""
        models = {request.model for request in self.requests}
        return models.pop() if len(models) == 1 else "several"

    def __str__(self) -> str:
        """Say what it is and what it costs."""
        what = "The picture costs" if len(self.requests) == 1 else f"The {len(self.requests):,} pictures cost"
        return f"{what} {plain(self.price)} AI credits as listed"


class Room(NamedTuple):
    """What a limit leaves.

    :param left: AI credits; below 0 where it is exceeded.
    :param why: what it is a part of.
    :param remedy: when or where there will be more.
    """

    limit: str
    left: float
    why: str
    remedy: str

    def __str__(self) -> str:
        """Say what is left."""
        return f"{plain(max(0.0, self.left))} {self.why}"


class Budget:
    """What one buyer may spend, and what is spent of it as far as it knows.

    Whoever shares one among threads holds :attr:`lock` from asking until the purchase is counted.

    :param limits: that hold for it.
    :param own: what this buyer has bought before.
    :param this_task: AI credits that it has spent since its task was last cleared.
    :ivar today: AI credits that the account has spent today.
    :ivar this_month: AI credits that it has spent this month.
    :ivar left: AI credits that it has left; ``None`` if the quota was not read.
    """

    def __init__(self, limits: Limits, *, own: Iterable[Purchase] = (), this_task: float = 0.0) -> None:
        self.limits = limits
        self.own = list(own)
        self.this_task = this_task
        self.today = self.this_month = 0.0
        self.left: float | None = None
        self.lock = threading.Lock()
        self._lines: list[Line] | None = None
        self._used: float | None = None

    def note(self, *, quota: Quota | None, ledgers: Sequence[Iterable[Mapping[str, Any]]], now: float) -> None:
        """Take in what the account says.

        :param quota: if the limits need it.
        :param ledgers: of :func:`~pictory_provider.jobs.ledger.months_of`; empty if no limit needs them.
        :param now: epoch seconds.
        :raises Unavailable: for an entry that cannot be understood.
        """
        self.own = remembered(self.own, now)
        self._lines = lines_of(*ledgers) if ledgers else None
        self._used = None
        if self._lines is not None:
            # An entry may be dated when the picture is ready, so what is not shown yet may be of today.
            hidden = total(each for each in unseen(self.own, self._lines) if now - each.at <= LATE_AT_MOST)
            self.today, self.this_month = (
                spent_since(self._lines, since) + hidden
                for since in (beginning(now).timestamp(), beginning(now, of_month=True).timestamp())
            )
        if quota is not None:
            self._used = _used_at_least(self.own, quota.ai_credits_used, now)
            self.left = quota.ai_credits_limit - self._used

    def spend(self, price: float | None, now: float) -> Purchase:
        """Count a purchase, right before it is sent. One whose outcome is unknown stays counted."""
        price = price or 0.0
        shown = None if self._lines is None else count_shown(self._lines, price, now)
        purchase = Purchase(now, price, shown, self._used)
        self.own.append(purchase)
        self._add(price)
        return purchase

    def give_back(self, purchase: Purchase) -> None:
        """Count a purchase no more: it was refused, or never sent."""
        if purchase in self.own:
            self.own.remove(purchase)
        self._add(-purchase.price)

    def refusal(self, lot: Lot, now: float) -> PictoryError | None:
        """Say why something may not be bought; ``None`` where it may.

        :return: :class:`BudgetExceeded`; :class:`RequestInvalid` where a model has no listed price.
        """
        limits = self.limits
        if not limits.are_set:
            return None
        if lot.price is None:
            return self._unlisted(lot)
        over = [room for room in self.rooms(now) if lot.price > room.left + _LEAST]
        if not over:
            return None
        left = [f"The limit {room.limit} leaves {room}. {room.remedy}" for room in over]
        nothing = "it was not bought" if len(lot.requests) == 1 else "none of these was bought"
        return BudgetExceeded(
            f"{lot}, which is over a limit, so {nothing}. {' '.join(left)} Then clear the task.",
            limits=[room.limit for room in over],
            asked=lot.price,
            left=max(0.0, round(min(room.left for room in over), 2)),
        )

    def rooms(self, now: float) -> Iterator[Room]:
        """Give what each limit leaves, as far as it is known.

        :param now: epoch seconds.
        """
        most, day, month, reserve = self.limits.per_task, *self.limits[:3]
        if most is not None:
            why = f"of {plain(most)}, since this task has spent {plain(self.this_task)}"
            yield Room(
                "max_credits", most - self.this_task, why, "Raise max_credits of the task, or take it away."
            )
        for name, limit, spent, when, anew in (
            ("credits_per_day", day, self.today, "today", next_day(now)),
            ("credits_per_month", month, self.this_month, "this month", next_month(now)),
        ):
            if limit is not None:
                why = f"of {plain(limit)}, since the account has spent {plain(spent)} {when}"
                remedy = f"It begins anew at {anew:%Y-%m-%d %H:%M} UTC. It is set in the connection."
                yield Room(name, limit - spent, why, remedy)
        if reserve is not None:
            left = self.left or 0.0  # without a look nothing is left
            why = f"above it: the account has {plain(left)} left, and {plain(reserve)} of them are kept"
            remedy = "There is more when credits come in. It is set in the connection."
            yield Room("credits_reserve", left - reserve, why, remedy)

    def _unlisted(self, lot: Lot) -> RequestInvalid:
        names = ("credits_per_day", "credits_per_month", "credits_reserve", "max_credits")
        are_set = [name for name, limit in zip(names, self.limits, strict=True) if limit is not None]
        models = ", ".join(map(repr, lot.unlisted))
        return RequestInvalid(
            f"The price of {models} is not known to this release, and {' and '.join(are_set)} "
            f"{'is' if len(are_set) == 1 else 'are'} set: what has no price cannot be held to a limit. Nothing "
            "was sent and nothing was spent. Take a listed model, or a connection without limits.",
            fields=["model"],
        )

    def _add(self, amount: float) -> None:
        self.today += amount
        self.this_month += amount
        self.this_task += amount
        if self.left is not None:
            self.left -= amount


def remembered(own: Iterable[Purchase], now: float) -> list[Purchase]:
    """Return the purchases of a buyer that may still matter, the oldest first.

    They reach back to the last time at which the buyer bought nothing for an hour. A purchase that a clock noted
    more than an hour ahead is left out.

    :param now: epoch seconds.
    """
    kept: list[Purchase] = []
    later = now
    in_order = sorted(own, key=lambda each: each.at)  # a second sort in reverse would turn equal ones around
    for purchase in in_order[::-1]:
        if purchase.at > now + LATE_AT_MOST:
            continue
        if later - purchase.at > LATE_AT_MOST:
            break
        kept.append(purchase)
        later = min(later, purchase.at)
    return kept[::-1]


def _used_at_least(own: Sequence[Purchase], used: float, now: float) -> float:
    """Return the AI credits that the account has used, as far as a buyer can know.

    :param own: of :func:`remembered`.
    :param used: by the quota.
    """
    since, most, is_known = 0.0, used, False
    for purchase in reversed(own):
        since += purchase.price
        if purchase.used_before is not None:
            most, is_known = max(most, purchase.used_before + since), True
    # If the quota was read before none of them, it may not count them yet.
    return most if is_known else used + total(each for each in own if now - each.at <= LATE_AT_MOST)


def plain(number: float | None) -> str:
    """Return a number of AI credits as it is read."""
    return "an unknown number of" if number is None else f"{round(number, 2):,.10g}"


def next_day(now: float) -> datetime:
    """Return the next midnight, UTC."""
    return beginning(now) + timedelta(days=1)


def next_month(now: float) -> datetime:
    """Return the midnight, UTC, with which the next month begins."""
    return (beginning(now, of_month=True) + timedelta(days=32)).replace(day=1)
