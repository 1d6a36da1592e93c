# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Parsing JSON: the only error is ``ValueError``, and a number has a float."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pictory_provider.api.decoding import (
    DEEPEST,
    any_number_or_none,
    count_or_none,
    is_number,
    number_or_none,
    parse_json,
)
from pictory_provider.core.sidecar import Sidecar, Unreadable

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=20,
)


@given(VALUES)
def test_json_of_pythons_writer_is_parsed(value):
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize(("begin", "end"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
def test_a_hundred_levels_are_read_and_no_more(begin, end):
    levels = DEEPEST // len([each for each in begin if each in "[{"])
    for inner in ("[]", "7"):
        text = begin * levels + inner + end * levels
        if inner == "7":
            assert json.dumps(parse_json(text))
        else:
            with pytest.raises(ValueError, match="nested too deeply, in more than 100 levels"):
                parse_json(text)
    for many in (1_000, 5_000, 100_000):
        with pytest.raises(ValueError, match="nested too deeply"):
            parse_json(begin * many + "7" + end * many)


@pytest.mark.parametrize("text", ["", "{", b"\xff", b"\x00", "nul", '{"a": 1}x', "[" * 100_000, '"' + "\\" * 3])
def test_invalid_json_is_a_value_error(text):
    with pytest.raises(ValueError):  # noqa: PT011  its text differs
        parse_json(text)


def test_a_sidecar_that_is_nested_too_deeply_is_unreadable():
    with pytest.raises(Unreadable, match="nested too deeply"):
        Sidecar.from_json('{"version": 1, "request": ' + "[" * 100_000)


@pytest.mark.parametrize(
    ("value", "number", "count"),
    [
        (0, 0.0, 0),
        (3, 3.0, 3),
        (-3, -3.0, None),
        (2.5, 2.5, None),
        (True, None, None),
        (False, None, None),
        ("3", None, None),
        (None, None, None),
        ([3], None, None),
        (float("nan"), None, None),
        (float("inf"), None, None),
        (10**400, None, 10**400),
    ],
)
def test_a_number_of_json_is_finite_and_a_count_is_whole_and_from_0_on(value, number, count):
    assert is_number(value) is (number is not None)
    assert (number_or_none(value), count_or_none(value)) == (number, count)


def test_an_infinite_number_is_read_where_it_means_something_and_one_without_a_float_never_is():
    assert any_number_or_none(float("-inf")) == float("-inf")
    assert [any_number_or_none(value) for value in (3, True, "3", 10**400)] == [3.0, None, None, None]
