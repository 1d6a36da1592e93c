# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Parse JSON from outside this package: replies, records, tables, settings.

All JSON is parsed here. :func:`json.loads` raises ``RecursionError`` for JSON that is nested too deeply, and a
slightly less deep value raises it later, when it is walked, compared or written.
"""

from __future__ import annotations

import json
import math
from typing import Any, TypeGuard

DEEPEST = 100
"""The deepest nesting of lists and objects that is accepted. The deepest documented reply has 4 levels."""
_NESTING = (dict, list)


class TooDeep(ValueError):
    """The JSON is nested more deeply than :data:`DEEPEST` levels."""

    def __init__(self) -> None:
        super().__init__(f"it is nested too deeply, in more than {DEEPEST} levels")


def parse_json(content: str | bytes | bytearray, **hooks: Any) -> Any:
    """Return the value of a JSON text.

    :param hooks: passed to :func:`json.loads`.
    :raises ValueError: if it is not JSON, not text, or nested more deeply than :data:`DEEPEST`.
    """
    try:
        value = json.loads(content, **hooks)
    except RecursionError:
        raise TooDeep from None
    level = [value] if isinstance(value, _NESTING) else []
    depth = 0
    while level:
        if depth == DEEPEST:
            raise TooDeep
        depth += 1
        inner = (each.values() if isinstance(each, dict) else each for each in level)
        level = [item for items in inner for item in items if isinstance(item, _NESTING)]
    return value


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a JSON value is a finite number."""
    number = any_number_or_none(value)
    return number is not None and math.isfinite(number)


def number_or_none(value: Any) -> float | None:
    """Return a JSON value if it is a finite number, else ``None``."""
    return float(value) if is_number(value) else None


def any_number_or_none(value: Any) -> float | None:
    """Return a JSON value if it is a number, also an infinite one, else ``None``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:  # an int with hundreds of digits
        return None


def int_or_none(value: Any) -> int | None:
    """Return a JSON value if it is a whole number, also a negative one, else ``None``."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def is_count(value: Any) -> TypeGuard[int]:
    """Whether a JSON value is a whole number from 0 on."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def count_or_none(value: Any) -> int | None:
    """Return a JSON value if it is a whole number from 0 on, else ``None``."""
    return value if is_count(value) else None
