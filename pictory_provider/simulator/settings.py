# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What can be set by a number; what can be chosen by a word is in :mod:`pictory_provider.simulator.shapes`."""

from __future__ import annotations

SETTINGS = {
    "ledger_lag": "seconds until a charge stands in the ledger",
    "quota_lag": "seconds until the quota counts a charge",
    "ledger_every": "seconds between two updates of the ledger, each of which catches up (0: it always does)",
    "quota_every": "the same of the quota",
    "others_every": "seconds between two purchases by somebody else on the account (0: nobody else buys)",
    "others_amount": "AI credits of each of these",
    "images_away": "1: the pictures' host refuses connections, as if a firewall let only the API through",
    "url_seconds": "seconds for which a picture's URL serves (0: for ever); a signed one is then made anew",
}
"""What can be set, by name. Everything begins with 0."""


def fresh() -> dict[str, float]:
    """Return all settings as they begin."""
    return dict.fromkeys(SETTINGS, 0.0)


def checked(name: str, value: object) -> float:
    """Return the value of a setting.

    :raises ValueError: for an unknown name, and for what is no number from 0 on.
    """
    if name not in SETTINGS:
        raise ValueError(f"no such setting: {name!r}; one of {', '.join(SETTINGS)}")
    number = float(str(value))
    if not number >= 0:
        raise ValueError(f"no such value of {name}: {value!r}; it takes a number from 0 on")
    return number
