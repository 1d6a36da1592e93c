# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Turn the value of a cell into JSON, for the manifest, and into text, for patterns.

===============================  ======================  =====================================
value                            in the manifest         in a pattern
===============================  ======================  =====================================
text                             the text                the text
whole number, also as a float    the number              ``120``, not ``120.0``
other number                     the number              its digits, without an exponent
decimal                          the number; as text,    its digits, such as ``19.90``
                                 if it has more than
                                 15 of them
date, time, both                 ISO 8601                ISO 8601
UUID, duration                   text                    text
missing (null, NaN, NaT, NA)     ``null``                an empty cell
===============================  ======================  =====================================

Lists and objects are kept in the manifest. What JSON cannot represent, such as bytes, is a problem of its row.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from pictory_provider.api.text import shorten, type_of

SHOWN = 80
"""Characters of a value or a row that an error shows."""
_EXACT_DIGITS = 15
"""Digits of a decimal number that a float represents exactly (IEEE 754, binary64)."""
_MOST_DIGITS = 400


def is_empty(value: object) -> bool:
    """Whether a cell is empty: blanks, null, or the NaN that pandas writes for a missing value."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or is_nan(value)


def is_nan(value: object) -> bool:
    """Whether a value is a floating-point NaN, which JSON cannot represent."""
    return isinstance(value, float) and math.isnan(value)


def to_json(value: Any) -> tuple[Any, str | None]:
    """Return a value as JSON, and its text for patterns if that is not simply ``str`` of it.

    A value that cannot be represented is returned as it is; :func:`problem_of` says so.
    """
    if value is None or isinstance(value, (str, bool, int, float)):
        return (None if is_nan(value) else value), None
    if isinstance(value, Decimal):
        return _decimal(value)
    if isinstance(value, (date, time, timedelta)):
        if value != value:  # noqa: PLR0124  NaT of pandas
            return None, None
        text = value.isoformat() if isinstance(value, (date, time)) else str(value)
        return text, text
    if isinstance(value, UUID):
        return str(value), str(value)
    if type(value).__name__ == "NAType":  # the missing value of pandas, which is not equal to itself either
        return None, None
    try:
        return _nested(value), None
    except RecursionError:
        return value, None


def typed(value: Any) -> tuple[Any, str | None]:
    """Return a value of a table with types, such as Parquet, as JSON, and its text for patterns."""
    if isinstance(value, float) and math.isfinite(value):
        return value, number_text(value)
    return to_json(value)


def number_text(number: float) -> str:
    """Return a finite number as people write it: ``120`` for 120.0, and without an exponent."""
    if number == int(number):
        return str(int(number))
    return format(Decimal(repr(number)), "f")


def problem_of(value: object) -> str | None:
    """Return why a value cannot be written to the manifest; ``None`` if it can."""
    if value is None or is_nan(value) or (isinstance(value, str) and value.isascii()):
        return None
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return "contains half a character (a lone surrogate), which cannot be written to a file"
    except (TypeError, ValueError, RecursionError):
        return f"contains {short(value)}, {type_of(value)}, which JSON cannot represent: make it a string"
    return None


def short(value: object) -> str:
    """Return the first characters of a value's representation, for an error."""
    return shorten(" ".join(repr(value).split()), SHOWN)


def _decimal(value: Decimal) -> tuple[Any, str | None]:
    if value.is_nan():
        return None, None
    if value.is_infinite() or abs(value.adjusted()) > _MOST_DIGITS:
        return value, None
    text = format(value, "f")
    if "." not in text:
        return (int(value) if len(text) <= _EXACT_DIGITS else text), text
    return (float(value) if len(value.as_tuple().digits) <= _EXACT_DIGITS else text), text


def _nested(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _nested(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_nested(one) for one in value]
    return to_json(value)[0] if isinstance(value, (Decimal, date, time, timedelta, UUID)) else value
