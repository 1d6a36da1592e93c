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

What an entry of the ledger counts for is said in :mod:`pictory_provider.jobs.ledger`.

The ledger may be late. So a buyer counts what it buys itself, and believes whichever is more: what the ledger
says now, or what it said before and what was bought since.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from pictory_provider.api.errors import BudgetExceeded, PictoryError, RequestInvalid, Unavailable
from pictory_provider.jobs.ledger import beginning, is_number, spent_of

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
    """Some pictures that are to be bought.

    :param price: all together in AI credits, as listed; ``None`` where a model has no listed price.
    :param unlisted: the models that have none.
    """

    pictures: int
    price: float | None
    unlisted: tuple[str, ...] = ()

    @classmethod
    def of(cls, requests: Iterable[ImageRequest]) -> Lot:
        """Return what some requests ask for."""
        requests = tuple(requests)
        unlisted = {request.model for request in requests if request.credits is None}
        price = math.fsum(request.credits or 0.0 for request in requests)
        return cls(len(requests), None if unlisted else round(price, 2), tuple(sorted(unlisted)))

    def __str__(self) -> str:
        """Say what it is and what it costs."""
        what = "The picture costs" if self.pictures == 1 else f"The {self.pictures:,} pictures cost"
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


@dataclass(slots=True)
class Budget:
    """What one buyer may spend, and what is spent of it as far as it knows. Not for several threads at once.

    :param limits: that hold for it.
    :ivar day: for which :attr:`today` counts, as ``YYYY-MM-DD``, UTC.
    :ivar today: AI credits spent on that day.
    :ivar this_month: AI credits spent in that day's month.
    :ivar left: AI credits left of the account; ``None`` where nobody has looked.
    :ivar told: AI credits left of the account as the quota said last.
    :ivar this_task: AI credits that this buyer has spent since its task was last cleared.
    :ivar bought_at: epoch seconds of its last purchase.
    """

    limits: Limits
    day: str = ""
    today: float = 0.0
    this_month: float = 0.0
    left: float | None = None
    told: float | None = None
    this_task: float = 0.0
    bought_at: float = 0.0

    def plain(self) -> dict[str, Any]:
        """Return as JSON what a later leg or try of the same buyer has to know."""
        kept = asdict(self)
        del kept["limits"]
        return kept

    @classmethod
    def read(cls, limits: Limits, kept: Mapping[str, Any] | None, *, now: float, is_cleared: bool) -> Budget:
        """Go on with what is kept. What may not be in the ledger yet counts for a later try, too.

        :param is_cleared: whether a user has cleared the task since, or it is another task.
        :raises Unavailable: where it is not what :meth:`plain` gives: what was bought is not forgotten.
        """
        if kept is None:
            return cls(limits)
        names = ("day", "today", "this_month", "left", "told", "this_task", "bought_at")
        values = {name: kept.get(name) for name in names}
        may_be_none = ("left", "told")
        is_known = isinstance(values["day"], str) and all(
            (value is None and name in may_be_none) or is_number(value)
            for name, value in values.items()
            if name != "day"
        )
        if not is_known:
            raise Unavailable(
                "What this batch has spent cannot be read from its record, so nothing is bought by this try. Was "
                f"it changed by hand? It reads {dict(kept)!r}, under `spending` in batch.json."
            )
        found = cls(limits, **values)  # type: ignore[arg-type]
        if is_cleared:
            found.this_task = 0.0
        if now - found.bought_at > LATE_AT_MOST:
            return cls(limits, this_task=found.this_task)
        return found

    def note(self, *, quota: Quota | None, ledger: Sequence[Mapping[str, Any]] | None, now: float) -> None:
        """Take in what the account says.

        :param quota: where the limits need it.
        :param ledger: of this month, UTC; where the limits need it.
        :param now: epoch seconds.
        :raises Unavailable: for an entry that cannot be understood.
        """
        self._turn(now)
        if ledger is not None:
            spent = spent_of(ledger, now)
            self.today = max(self.today, spent.today)
            self.this_month = max(self.this_month, spent.this_month)
        if quota is not None:
            now_left = quota.ai_credits_limit - quota.ai_credits_used
            if self.left is not None and self.told is not None:
                came_in = max(0.0, now_left - self.told)  # it only grows by that
                self.left = min(self.left + came_in, now_left)
            else:
                self.left = now_left
            self.told = now_left

    def spend(self, price: float | None, now: float) -> None:
        """Count a purchase, right before it is sent. One whose outcome is unknown stays counted."""
        self._turn(now)
        self._add(price or 0.0)
        self.bought_at = now

    def give_back(self, price: float | None) -> None:
        """Count a purchase no more: it was refused, or never sent."""
        self._add(-(price or 0.0))

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
        nothing = "it was not bought" if lot.pictures == 1 else "none of them was bought"
        return BudgetExceeded(
            f"{lot}, which is over a limit, so {nothing}. {' '.join(left)} Clear the task when there is room.",
            limits=[room.limit for room in over],
            asked=lot.price,
            left=max(0.0, round(min(room.left for room in over), 2)),
        )

    def rooms(self, now: float) -> Iterator[Room]:
        """Give what each limit leaves, as far as it is known.

        :param now: epoch seconds.
        """
        self._turn(now)
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

    def _turn(self, now: float) -> None:
        """Begin a new day, or a new month."""
        day = f"{datetime.fromtimestamp(now, UTC):%Y-%m-%d}"
        if day <= self.day:
            return  # a clock that is put back opens no budget
        self.today = 0.0
        if day[:7] != self.day[:7]:
            self.this_month = 0.0
        self.day = day


def plain(number: float | None) -> str:
    """Return a number of AI credits as it is read."""
    return "an unknown number of" if number is None else f"{round(number, 2):,.10g}"


def next_day(now: float) -> datetime:
    """Return the next midnight, UTC."""
    return beginning(now) + timedelta(days=1)


def next_month(now: float) -> datetime:
    """Return the midnight, UTC, with which the next month begins."""
    return (beginning(now, of_month=True) + timedelta(days=32)).replace(day=1)
