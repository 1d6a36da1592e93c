# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tables of the ledger, with one line per entry, day, model or kind. A missing value stays empty."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from pictory_provider.api.models import MODELS

if TYPE_CHECKING:
    from collections.abc import Callable

COLUMNS = {
    "when": "transactionDate",
    "type": "type",
    "credits": "amount",
    "source": "source",
    "description": "description",
}
"""Columns of :func:`rows`, and the fields of Pictory's ledger that they show."""


def rows(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one line per entry, with Pictory's own values."""
    return [{column: entry.get(field) for column, field in COLUMNS.items()} for entry in entries]


def by_day(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one line per day (UTC, as Pictory writes it), newest first."""
    return _summed(entries, "day", lambda entry: str(entry.get("transactionDate"))[:10])


def by_model(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one line per model that a description names, largest spending first; one for all other entries."""
    # Longest names first: "nanobanana" is also a part of "nanobanana-pro".
    names = sorted(MODELS, key=len, reverse=True)

    def model(entry: dict[str, Any]) -> str:
        description = str(entry.get("description")).lower()
        return next((name for name in names if name in description), "(no model named)")

    return sorted(_summed(entries, "model", model), key=lambda row: -row["spent"])


def by_kind(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one line per description, which names the model, largest spending first."""
    kinds = _summed(entries, "kind", lambda entry: str(entry.get("description") or entry.get("source")))
    return sorted(kinds, key=lambda row: -row["spent"])


def _summed(
    entries: list[dict[str, Any]], name: str, key_of: Callable[[dict[str, Any]], str]
) -> list[dict[str, Any]]:
    sums: dict[str, dict[str, float]] = defaultdict(lambda: {"spent": 0.0, "came in": 0.0, "entries": 0})
    for entry in entries:
        line = sums[key_of(entry)]
        column = "came in" if entry.get("type") == "credit" else "spent"
        line[column] = round(line[column] + _number(entry.get("amount")), 2)
        line["entries"] += 1
    return [{name: key, **line} for key, line in sorted(sums.items(), reverse=True)]


def _number(value: Any) -> float:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else 0.0
