# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What DAGs, users and other releases rely on is still there: the promise of the page on versions.

``releases/<version>/interface.json`` is never changed (``interface.py`` says how it is written).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.provider import interface

NEEDED = ("positional_only", "positional_or_keyword", "keyword_only")
"""The kinds of arguments without a default."""
FILES = sorted(Path(__file__).parent.glob("releases/*/interface.json"))


@pytest.fixture(params=FILES, ids=lambda file: file.parent.name)
def release(request):
    return json.loads(request.param.read_text())


def lost(old, new, at=""):
    """Yield what a release had that is missing or another now. Both are values of :mod:`tests.provider.interface`."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name, each in old.items():
            yield from lost(each, new[name], f"{at}/{name}") if name in new else [f"{at}/{name}"]
        if at.endswith("/arguments"):
            yield from broken_calls(old, new, at)
    elif isinstance(old, list) and isinstance(new, list):
        if old and isinstance(old[0], str) and not at.startswith("/stored"):
            yield from (f"{at}/{name}" for name in old if name not in new)
        elif old:
            yield from lost(old[0], new[0] if new else None, f"{at}/0")
    elif old not in ("null", None, new) and old.replace("keyword_only", "positional_or_keyword") != new:
        yield f"{at}: {old}, now {new}"


def broken_calls(old, new, at):
    """Yield the arguments of which an old call would not say what they are."""
    yield from (f"{at}/{name} is needed" for name, kind in new.items() if name not in old and kind in NEEDED)
    positional = [[name for name, kind in each.items() if kind.startswith("pos")] for each in (old, new)]
    if positional[0] != positional[1][: len(positional[0])]:
        yield f"{at}: positional {positional[0]}, now {positional[1]}"


def test_every_name_of_a_release_has_its_arguments_with_their_defaults(release):
    now = {name: interface.described(interface.resolve(name)) for name in release["names"]}
    assert list(lost(release["names"], now)) == []


def test_every_option_field_and_command_of_a_release_is_there(release):
    now = interface.settings()
    assert list(lost({name: release[name] for name in now}, now)) == []


def test_every_xcom_and_every_stored_field_of_a_release_is_written(release, monkeypatch, timing):
    timing(poll_interval_min=0.0)
    monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", "")
    assert list(lost(release["stored"], interface.stored(), "/stored")) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"f": {"arguments": {"a": "keyword_only = 1"}}}, {"f": {"arguments": {}}}, ["/f/arguments/a"]),
        (
            {"arguments": {"a": "keyword_only = 1"}},
            {"arguments": {"a": "keyword_only = 2"}},
            ["/arguments/a: keyword_only = 1, now keyword_only = 2"],
        ),
        ({"arguments": {}}, {"arguments": {"b": "keyword_only"}}, ["/arguments/b is needed"]),
        (
            {"arguments": {"a": "positional_or_keyword"}},
            {"arguments": {"b": "positional_or_keyword = 1", "a": "positional_or_keyword"}},
            ["/arguments: positional ['a'], now ['b', 'a']"],
        ),
        ({"arguments": {"a": "keyword_only"}}, {"arguments": {"a": "positional_or_keyword"}}, []),
        ({"Kind": ["ONE", "TWO"]}, {"Kind": ["TWO", "THREE"]}, ["/Kind/ONE"]),
        (
            {"xcoms": {"image": [{"url": "string"}]}},
            {"xcoms": {"image": [{"url": "null"}]}},
            ["/xcoms/image/0/url: string, now null"],
        ),
        ({"xcoms": {"image": [{"url": "null"}]}}, {"xcoms": {"image": [{"url": "string", "more": "number"}]}}, []),
    ],
)
def test_what_would_break_a_dag_or_a_reader_is_found(old, new, expected):
    assert list(lost(old, new)) == expected
