# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""An object storage whose listings are late: what is on record as saved is looked for directly."""

from __future__ import annotations

from itertools import count

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tests.provider.batches import Tries, billed, lamps

BUCKETS = count()


@pytest.fixture
def batch(fast, memory):
    return Tries(f"memory://late-{next(BUCKETS)}/out")


@pytest.fixture
def late(monkeypatch):
    """Return the suffixes of the objects that listings do not show yet."""
    ls, suffixes = MemoryFileSystem.ls, []

    def listed(self, path, detail=True, **more):
        found = ls(self, path, detail=True, **more)
        shown = [info for info in found if not info["name"].endswith(tuple(suffixes) or "\0")]
        return shown if detail else [info["name"] for info in shown]

    monkeypatch.setattr(MemoryFileSystem, "ls", listed)
    return suffixes


@pytest.mark.parametrize("suffixes", [(".png", ".json"), (".png.json",), (".png",)])
@pytest.mark.parametrize("what", ["another run", "a clear", "a retry"])
def test_a_listing_that_is_late_buys_nothing_again(fast, batch, late, what, suffixes):
    table = lamps(10)
    assert batch(table)["saved"] == 10
    late += suffixes
    if what == "another run":
        batch.run_id, batch.try_number = "the next night", 0
    elif what == "a clear":
        batch.clear()
    result = batch(table)
    assert result["saved"] + result["reused"] == 10
    assert set(billed(fast).values()) == {1}


@pytest.mark.parametrize("what", ["another run", "a clear", "a retry"])
def test_a_picture_that_a_late_listing_hides_is_found_whatever_has_the_name_of_its_copy(fast, batch, late, what):
    table, copies = lamps(3), [{"format": "webp", "width": 64}]
    assert batch(table)["saved"] == 3
    MemoryFileSystem().pipe_file(f"{batch.folder.partition(':/')[2]}/00001.64.webp/inside", b"a folder")
    late += (".png", ".json")
    if what == "another run":
        batch.run_id, batch.try_number = "the next night", 0
    elif what == "a clear":
        batch.clear()
    before = len(fast.polls)
    result = batch(table, copies=copies)
    assert result["saved"] + result["reused"] == 3
    assert len(fast.polls) == before, "no job is adopted"
    assert set(billed(fast).values()) == {1}


def test_a_picture_that_somebody_has_deleted_is_bought_again_by_the_next_run(fast, batch, memory):
    assert batch(lamps(2))["saved"] == 2
    fs = MemoryFileSystem()
    for suffix in ("", ".json"):
        fs.rm_file(f"{batch.folder.partition(':/')[2]}/00001.png{suffix}")
    batch.run_id, batch.try_number = "the next night", 0
    assert {name: number for name, number in batch(lamps(2)).items() if number} == {
        "of": 2,
        "saved": 1,
        "reused": 1,
        "ai_credits_used": 2.0,
        "manifest": f"{batch.folder}/metadata.jsonl",
    }
