# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A value of a cell has a form for the manifest, and a text for patterns."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pictory_provider.core.tables.values import number_text, problem_of, to_json, typed


class NAType:
    """The missing value of pandas, which raises if it is compared."""

    def __eq__(self, other):
        raise TypeError("boolean value of NA is ambiguous")

    __hash__ = None


class NaT(datetime):
    """The missing time of pandas: a datetime that is not equal to itself."""

    def __ne__(self, other):
        return True

    __hash__ = None


@pytest.mark.parametrize(
    ("value", "as_json", "text"),
    [
        ("00120", "00120", None),
        (120, 120, None),
        (True, True, None),
        (None, None, None),
        (float("nan"), None, None),
        (Decimal("19.90"), 19.9, "19.90"),
        (Decimal(120), 120, "120"),
        (Decimal("1E+3"), 1000, "1000"),
        (Decimal("120.00"), 120.0, "120.00"),
        (Decimal("0.1234567890123456"), "0.1234567890123456", "0.1234567890123456"),
        (Decimal("NaN"), None, None),
        (date(2026, 11, 29), "2026-11-29", "2026-11-29"),
        (datetime(2026, 11, 29, 13, 5, tzinfo=UTC), "2026-11-29T13:05:00+00:00", "2026-11-29T13:05:00+00:00"),
        (time(13, 5), "13:05:00", "13:05:00"),
        (timedelta(hours=36), "1 day, 12:00:00", "1 day, 12:00:00"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000001"),
        (NAType(), None, None),
        (NaT(1, 1, 1), None, None),
        ({"a": [date(2026, 1, 2), {"b": Decimal("1.5")}]}, {"a": ["2026-01-02", {"b": 1.5}]}, None),
    ],
)
def test_a_value_becomes_json_and_text(value, as_json, text):
    assert to_json(value) == (as_json, text)
    json.dumps(as_json, allow_nan=False)


@pytest.mark.parametrize(
    "value", [b"bytes", {1, 2}, object(), float("inf"), Decimal("Infinity"), Decimal("1E+9999999")]
)
def test_what_json_cannot_represent_stays_and_is_a_problem(value):
    assert to_json(value)[0] is value
    assert "which JSON cannot represent: make it a string" in problem_of(value)


def test_a_value_that_contains_itself_is_a_problem():
    value: list = []
    value.append(value)
    assert problem_of(to_json(value)[0])


@pytest.mark.parametrize(
    ("number", "text"),
    [(120.0, "120"), (19.99, "19.99"), (1e-7, "0.0000001"), (1e20, "100000000000000000000"), (-0.5, "-0.5")],
)
def test_a_number_is_written_as_people_write_it(number, text):
    assert number_text(number) == text
    assert typed(number) == (number, text)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_the_text_of_a_number_is_the_number(number):
    assert float(number_text(number)) == number
    assert "e" not in number_text(number).lower()


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4))
def test_a_decimal_loses_no_digit(number):
    as_json, text = to_json(number)
    assert Decimal(text) == number
    assert Decimal(str(as_json)) == number
