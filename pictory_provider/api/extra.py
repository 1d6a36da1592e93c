# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Parse the extra of a connection.

============================================  ===============================================================
a key                                         is
============================================  ===============================================================
one of :data:`FIELDS`                         read
``extra__pictory__`` and one of these         read: the name that Airflow's form wrote before version 2.3
both, with different values                   refused
any other that looks like a limit             refused: a limit under a wrong name would have no effect. A key
                                              within the value of another key is refused too
any other that looks like a field             ignored, with a warning in the log
any other                                     ignored: an extra may contain notes
============================================  ===============================================================
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from pictory_provider.api.decoding import parse_json
from pictory_provider.api.errors import NO_REQUEST, RequestInvalid

if TYPE_CHECKING:
    from collections.abc import Mapping

LIMITS = ("credits_per_day", "credits_per_month", "credits_reserve")
"""The keys that limit spending."""
FIELDS = ("timeout", "user_agent", "proxy", "ca_bundle", "requests_per_second", *LIMITS)
"""All keys that are read."""
OLD_PREFIX = "extra__pictory__"
_LIMIT_WORDS = re.compile(
    r"credit|budget|limit|quota|cost|spend|spent|price|reserve|perday|permonth|perweek|daily|weekly|monthly"
)
_SIMILARITY = 0.8
"""From this similarity on, from 0 to 1, a name is taken for a misspelt one."""


def extra_of(conn_id: str, extra: str | None) -> dict[str, Any]:
    """Parse the extra of a connection.

    Airflow treats an extra that is not JSON as an empty one, and any limits in it would be ignored.

    :raises RequestInvalid: if it is not a JSON object.
    """
    try:
        value = parse_json(extra) if extra and extra.strip() else {}
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise RequestInvalid.unsent(
            f"Connection {conn_id!r} has an extra that is not a JSON object, so a limit on spending in it would "
            "be ignored",
            'Fix it in Airflow\'s form, or write JSON such as {"credits_per_day": 50}.',
            fields=["extra"],
            money=NO_REQUEST,
        )
    return value


def fields_of(conn_id: str, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the fields that are set, by the names of :data:`FIELDS`.

    :raises RequestInvalid: for a field that is set twice, and for a limit under an unknown name.
    """
    found: dict[str, Any] = {}
    for name in FIELDS:
        values = [extra[key] for key in (name, OLD_PREFIX + name) if extra.get(key) not in (None, "")]
        if len(values) == 2 and str(values[0]).strip() != str(values[1]).strip():
            raise RequestInvalid.unsent(
                f"Connection {conn_id!r} has both {name!r} and {OLD_PREFIX + name!r} in its extra, with different "
                "values",
                "The second is the name that old releases of Airflow wrote: keep the right value as "
                f"{name!r}, and remove the other.",
                fields=[name],
                money=NO_REQUEST,
            )
        if values:
            found[name] = values[0]
    for name in _unknown_names(extra):
        if _looks_like_limit(name, extra[name]):
            raise RequestInvalid.unsent(
                f"Connection {conn_id!r} has {name!r} in its extra, which is none of {', '.join(LIMITS)}, so a "
                "limit under that name would have no effect",
                "If it is a limit, give it one of these names; if not, remove it from the extra.",
                fields=[name],
                money=NO_REQUEST,
            )
    return found


def notes_on(conn_id: str, extra: Mapping[str, Any]) -> tuple[str, ...]:
    """Return warnings for the log about unknown keys that resemble a field's name."""
    fields = {_normalized(field): field for field in FIELDS}
    return tuple(
        f"Connection {conn_id!r} has {name!r} in its extra, which is not read. Did you mean {fields[match]!r}?"
        for name in _unknown_names(extra)
        for match in _similar(name, FIELDS)
    )


def _unknown_names(extra: Mapping[str, Any]) -> list[str]:
    return [name for name in extra if name.removeprefix(OLD_PREFIX) not in FIELDS]


def _normalized(name: str) -> str:
    """Return a name without case, dashes, blanks and the old prefix."""
    return re.sub(r"[^a-z0-9]", "", name.strip().lower().removeprefix(OLD_PREFIX))


def _similar(name: str, names: tuple[str, ...]) -> list[str]:
    return get_close_matches(_normalized(name), map(_normalized, names), n=1, cutoff=_SIMILARITY)


def _looks_like_limit(name: str, value: Any) -> bool:
    """Return whether a name, or any name within its value, looks like a limit."""
    if isinstance(value, dict) and any(_looks_like_limit(inner, each) for inner, each in value.items()):
        return True
    return bool(_LIMIT_WORDS.search(_normalized(name)) or _similar(name, LIMITS))
