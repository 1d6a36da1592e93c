# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The ledger as tables: an entry, a day or a kind a line. What an entry does not say stays empty."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from pictory_provider.api.models import MODELS


def rows(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a line for each entry, as Pictory wrote it."""
    return [
        {
            "when": entry.get("transactionDate"),
            "type": entry.get("type"),
            "credits": entry.get("amount"),
            "source": entry.get("source"),
            "description": entry.get("description"),
        }
        for entry in entries
    ]


def by_day(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a line for each day (UTC, as Pictory writes it), newest first."""
    return _summed(entries, "day", lambda entry: str(entry.get("transactionDate"))[:10])


def by_model(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a line for each model that an entry's description names, the largest first; one for the rest."""
    # The longest name that fits: nanobanana-pro is no nanobanana.
    names = sorted(MODELS, key=len, reverse=True)

    def model(entry: dict[str, Any]) -> str:
        said = str(entry.get("description")).lower()
        return next((name for name in names if name in said), "(no model named)")

    found = _summed(entries, "model", model)
    return sorted(found, key=lambda row: -row["spent"])


def by_kind(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a line for each description, which names the model, the largest first."""
    found = _summed(entries, "kind", lambda entry: str(entry.get("description") or entry.get("source")))
    return sorted(found, key=lambda row: -row["spent"])


def _summed(entries: list[dict[str, Any]], name: str, kind: Any) -> list[dict[str, Any]]:
    sums: dict[str, dict[str, float]] = defaultdict(lambda: {"spent": 0.0, "came in": 0.0, "entries": 0})
    for entry in entries:
        line = sums[kind(entry)]
        column = "came in" if entry.get("type") == "credit" else "spent"
        line[column] = round(line[column] + _number(entry.get("amount")), 2)
        line["entries"] += 1
    return [{name: key, **line} for key, line in sorted(sums.items(), reverse=True)]


def _number(value: Any) -> float:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else 0.0
