# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Settings with numeric values; :mod:`pictory_provider.simulator.shapes` has those with named choices."""

from __future__ import annotations

SETTINGS = {
    "ledger_lag": "seconds until a charge is in the ledger",
    "quota_lag": "seconds until the quota counts a charge",
    "ledger_every": "seconds between two updates of the ledger, each of which catches up (0: it always does)",
    "quota_every": "the same for the quota",
    "others_every": "seconds between purchases by another user of the account (0: there is none)",
    "others_amount": "AI credits of each such purchase",
    "images_away": "1: the pictures' host refuses connections, as if a firewall allowed only the API",
    "reply_bytes": "minimum size of an API reply in bytes; shorter ones are padded with blanks",
    "upload_seconds": "seconds for which a signed URL takes an upload (0: 24 hours)",
    "upload_bytes": "largest upload in bytes (0: 20 MiB)",
    "url_seconds": "seconds for which a picture's URL works (0: forever); then a signed URL is renewed",
}
"""All settings, by name. The default is 0."""


def fresh() -> dict[str, float]:
    """Return all settings with their defaults."""
    return dict.fromkeys(SETTINGS, 0.0)


def checked(name: str, value: object) -> float:
    """Return the value of a setting.

    :raises ValueError: for an unknown name, and for a value that is not a number from 0 on.
    """
    if name not in SETTINGS:
        raise ValueError(f"no such setting: {name!r}; one of {', '.join(SETTINGS)}")
    number = float(str(value))
    if not number >= 0:
        raise ValueError(f"no such value of {name}: {value!r}; it takes a number from 0 on")
    return number
