# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The ledger of an account, and the credits that the quota computes from it. No I/O; the time is an argument."""

from __future__ import annotations

import math
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pictory_provider.simulator.account import SimulatedJob

SIGNS = {"debit": 1, "credit": -1}
"""The effect of a row's type on the credits used. Rows of other types have no effect."""


class _Entry(NamedTuple):
    """A row, its time, and whether it becomes visible only after a lag."""

    at: float
    row: dict[str, Any]
    is_lagging: bool


class Ledger:
    """Rows of debits, credits and other entries.

    :param settings: the account's settings; those of ledger, quota and others are read at every call.
    :ivar by_others: AI credits that other users of the account have spent (``others_every``).
    """

    def __init__(self, settings: Mapping[str, float]) -> None:
        self._settings = settings
        self._entries: list[_Entry] = []
        self._others_at: float | None = None
        self.by_others = 0.0

    def clear(self) -> None:
        """Forget every row."""
        self._entries.clear()
        self._others_at, self.by_others = None, 0.0

    def catch_up(self, now: float) -> None:
        """Enter the purchases of others up to now. The first one is ``others_every`` seconds after the setting."""
        every, amount = self._settings["others_every"], self._settings["others_amount"]
        if not every:
            self._others_at = None
            return
        if self._others_at is None:
            self._others_at = now
        while self._others_at + every <= now:
            self._others_at += every
            self._insert(_Entry(self._others_at, _row(self._others_at, amount), True))
            self.by_others = round(self.by_others + amount, 2)

    def bill(self, job: SimulatedJob) -> None:
        """Enter the price of a job, visible after the lag."""
        self.catch_up(job.created)
        self._insert(
            _Entry(job.created, _row(job.created, job.credits, description=f"{job.body['model']} image"), True)
        )

    def enter(self, now: float, **fields: Any) -> None:
        """Enter a row that is visible immediately, such as a reset, a refund, another user's charge, an invalid
        row.

        :param now: its time, unless it has a valid ``transactionDate``.
        :param fields: replace those of a debit of 0.6; a field that is ``None`` is left out.
        """
        row = {name: value for name, value in (_row(now, 0.6) | fields).items() if value is not None}
        self._insert(_Entry(_epoch(fields.get("transactionDate"), now), row, False))

    def rows(self, now: float, year: int | None = None, month: int | None = None) -> list[dict[str, Any]]:
        """Return the rows visible by now, newest first, of one month (UTC) or all."""
        self.catch_up(now)
        return [
            entry.row
            for entry in self._entries
            if self._is_visible(entry, now, "ledger") and _is_in(entry.at, year, month)
        ]

    def used(self, now: float | None = None) -> float:
        """Return the credits used: debits less credits, from the oldest row on and never below zero.

        :param now: count only the rows that the quota counts at this time; ``None`` counts all.
        """
        used = 0.0
        if now is not None:
            self.catch_up(now)
        for entry in reversed(self._entries):
            amount = entry.row.get("amount")
            if isinstance(amount, (int, float)) and (now is None or self._is_visible(entry, now, "quota")):
                used = max(0.0, used + SIGNS.get(str(entry.row.get("type")), 0) * amount)
        return round(used, 2)

    def _is_visible(self, entry: _Entry, now: float, where: str) -> bool:
        if not entry.is_lagging:
            return True
        every, at = self._settings[f"{where}_every"], entry.at + self._settings[f"{where}_lag"]
        return now >= (math.ceil(at / every) * every if every else at)

    def _insert(self, entry: _Entry) -> None:
        older = (index for index, known in enumerate(self._entries) if known.at <= entry.at)
        self._entries.insert(next(older, len(self._entries)), entry)


def iso(at: float) -> str:
    """Return a time in Pictory's format."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _row(at: float, amount: float, description: str = "flux-schnell image") -> dict[str, Any]:
    return {
        "transactionId": str(uuid.uuid4()),
        "type": "debit",
        "amount": amount,
        "source": "Text-to-Image",
        "description": description,
        "plan": "simulator",
        "transactionDate": iso(at),
    }


def _epoch(date: object, otherwise: float) -> float:
    try:
        return datetime.fromisoformat(str(date)).astimezone(UTC).timestamp()
    except ValueError:
        return otherwise


def _is_in(at: float, year: int | None, month: int | None) -> bool:
    date = datetime.fromtimestamp(at, UTC)
    return (year is None or date.year == year) and (month is None or date.month == month)
