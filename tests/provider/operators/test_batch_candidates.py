# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""``candidates`` of a batch: each row of the table has several pictures, which count like rows."""

from __future__ import annotations

import pytest

from pictory_provider.client.sync import SyncClient
from pictory_provider.exceptions import (
    PictoryBudgetExceeded,
    PictoryJobFailed,
    PictoryRequestInvalid,
    PictoryUnavailable,
)
from pictory_provider.services.redo import redo
from tests.provider.batches import Tries, billed, entries, files, lamps, lines
from tests.stand_ins import says


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "pictures"


@pytest.fixture
def tries(folder, pictory):
    return Tries(folder)


@pytest.fixture
def rows():
    return [{"prompt": prompt, "sku": f"L-{number}"} for number, prompt in enumerate(lamps(3))]


BY_SKU = {"file_name": "{sku}.png", "candidates": 2}
NAMES = [f"L-{row}.{number}.png" for row in range(3) for number in (1, 2)]


def pictures(folder):
    return [name for name in files(folder) if name.endswith(".png")]


def test_each_row_has_its_candidates_in_the_folder_the_manifest_and_the_xcoms(pictory, tries, folder, rows):
    result = tries(rows, **BY_SKU)
    assert (result["of"], result["saved"], pictures(folder)) == (6, 6, NAMES)
    assert set(billed(pictory).values()) == {2}
    manifest = lines(folder / "metadata.jsonl")
    assert [(line["file_name"], line["sku"], line["candidate"]) for line in manifest] == [
        (f"L-{row}.{number}.png", f"L-{row}", number) for row in range(3) for number in (1, 2)
    ]
    assert [record["candidate"] for record in tries.ti.xcoms["pictures_0"]] == [1, 2] * 3


def test_without_candidates_a_manifest_does_not_name_them(tries, folder, rows):
    tries([{**row, "candidate": "Ada"} for row in rows], file_name="{sku}.png")
    assert [line["candidate"] for line in lines(folder / "metadata.jsonl")] == ["Ada"] * 3
    tries.clear()
    tries([{**row, "candidate": "Ada"} for row in rows], **BY_SKU)
    line, *_ = lines(folder / "metadata.jsonl")
    assert (line["candidate"], line["row_candidate"]) == (1, "Ada")


def test_raising_the_number_buys_what_is_missing_and_lowering_it_removes_nothing(pictory, tries, folder, rows):
    tries(rows, **BY_SKU)
    tries.clear()
    result = tries(rows, **{**BY_SKU, "candidates": 3})
    assert (result["of"], result["saved"], result["reused"]) == (9, 3, 6)
    tries.clear()
    result = tries(rows, **{**BY_SKU, "candidates": 2})
    assert (result["of"], result["reused"], len(pictures(folder)), len(pictory.account.jobs)) == (6, 6, 9, 9)


def test_a_candidate_that_is_moved_aside_is_bought_alone(pictory, tries, folder, rows):
    tries(rows, **BY_SKU)
    redo(str(folder / "L-1.2.png"))
    result = tries.of_another_run("second")(rows, **BY_SKU)
    assert (result["saved"], result["reused"], len(pictory.account.jobs)) == (1, 5, 7)
    assert (folder / "L-1.2.v1.png").exists()


def test_a_retry_with_another_number_is_refused(pictory, tries, rows):
    pictory.plan("failed")
    with pytest.raises(PictoryJobFailed):
        tries(rows, **BY_SKU)
    with pytest.raises(PictoryRequestInvalid, match=says("candidates was 2 and is 3")):
        tries(rows, **{**BY_SKU, "candidates": 3})
    assert len(pictory.account.jobs) == 6


def test_a_candidate_that_failed_is_named_and_a_clear_buys_it_alone(pictory, tries, folder, rows):
    for fate in ("completed", "failed"):
        pictory.plan(fate)
    with pytest.raises(PictoryJobFailed, match=says("1 of 6 candidates has no picture")) as failed:
        tries(rows, **BY_SKU)
    assert "candidate" in str(failed.value)
    (line,) = lines(folder / "failed.jsonl")
    assert line["file_name"] in NAMES
    assert line["candidate"] in (1, 2)
    tries.clear()
    result = tries(rows, **BY_SKU)
    assert (result["saved"], result["reused"], len(pictory.account.jobs)) == (1, 5, 7)


def test_a_bad_row_is_one_in_the_error_and_counts_all_its_candidates(pictory, tries, folder, rows):
    rows[1]["prompt"] = "no"
    with pytest.raises(PictoryRequestInvalid, match=says("1 of 3 rows cannot be bought")):
        tries(rows, **BY_SKU)
    tries.clear()
    result = tries(rows, **BY_SKU, on_bad_row="skip", fail_on_partial_error=False)
    assert (result["of"], result["saved"], result["failed"]) == (6, 4, 2)
    assert [line["file_name"] for line in lines(folder / "failed.jsonl")] == NAMES[2:4]


def test_two_rows_of_one_file_name_are_one_bad_row(tries, folder):
    rows = [{"prompt": prompt, "file_name": "a.png"} for prompt in lamps(2)]
    with pytest.raises(PictoryRequestInvalid, match=says("1 of 2 rows cannot be bought")):
        tries(rows, candidates=8)
    assert len(lines(folder / "failed.jsonl")) == 1


def test_the_paid_candidates_of_a_row_that_is_bad_now_are_saved(pictory, tries, folder, rows, timing):
    timing(read_budget=0)
    pictory.script("picture", "server-error", times=-1)
    with pytest.raises(PictoryUnavailable):
        tries(rows, **BY_SKU)
    pictory.clear_faults()
    tries.clear()
    rows[1]["prompt"] = "no"
    result = tries(rows, **BY_SKU, on_bad_row="skip", fail_on_partial_error=False)
    assert (result["of"], result["saved"], result["failed"], pictures(folder)) == (6, 4, 2, NAMES)
    assert len(pictory.account.jobs) == 6


@pytest.mark.parametrize("names", [["a.png", "a.1.png"], ["a.png", "a"]])
def test_a_row_named_like_a_candidate_of_another_row_is_not_in_its_way(pictory, tries, names):
    rows = [{"prompt": prompt, "file_name": name} for prompt, name in zip(lamps(2), names, strict=True)]
    tries(rows, candidates=2)
    assert len(pictory.account.jobs) == 4


def test_a_candidate_whose_name_is_that_of_a_folder_of_another_row_is_refused(pictory, tries):
    rows = [{"prompt": "A lamp", "file_name": "a.png"}, {"prompt": "Another", "file_name": "a.1.png/b.png"}]
    with pytest.raises(PictoryRequestInvalid, match=says("needs the folder 'a.1.png'")):
        tries(rows, candidates=2)
    assert pictory.requests == []


# Limits ----------------------------------------------------------------------------------------------


def test_the_price_is_that_of_all_candidates(pictory, tries, rows):
    with pytest.raises(PictoryBudgetExceeded, match=says("The 6 pictures cost 12")):
        tries(rows, **BY_SKU, max_credits=11)
    assert len(pictory.account.jobs) == 0


@pytest.mark.parametrize(("limit", "bought"), [(1, 0), (5, 2), (7, 2), (8, 4), (12, 6)])
@pytest.mark.parametrize("deferrable", [True, False])
def test_a_limit_never_buys_a_part_of_a_rows_candidates(pictory, tries, folder, rows, limit, bought, deferrable):
    result = tries(rows, **BY_SKU, max_credits=limit, on_budget="partial", deferrable=deferrable)
    assert (len(pictory.account.jobs), result["not_bought"]) == (bought, 6 - bought)
    assert pictures(folder) == NAMES[:bought]


@pytest.mark.parametrize("max_in_flight", [1, 2, 3])
def test_waves_that_end_within_a_row_do_not_divide_it_when_others_spend(
    pictory, tries, rows, monkeypatch, max_in_flight
):
    monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", pictory.connection_json(credits_per_day=20))
    send = SyncClient.send

    def with_another_spender(self, request):
        if request.method == "POST" and not pictory.account.jobs:
            pictory.enter(amount=3)
        return send(self, request)

    monkeypatch.setattr(SyncClient, "send", with_another_spender)
    arguments = {**BY_SKU, "candidates": 3, "max_in_flight": max_in_flight}
    result = tries([*rows, {"prompt": "A lamp, the last", "sku": "L-9"}], **arguments, on_budget="partial")
    assert (len(pictory.account.jobs), result["saved"], result["not_bought"]) == (6, 6, 6)


def test_a_row_with_a_failed_candidate_comes_last_as_a_whole(pictory, tries, rows):
    for fate in ("failed", *["completed"] * 3):
        pictory.plan(fate)
    with pytest.raises(PictoryJobFailed):
        tries(rows[:2], **BY_SKU)
    failed = next(iter(entry for entry in entries(tries.folder).values() if entry["state"] == "failed"))
    tries.clear()
    result = tries(rows, **BY_SKU, max_credits=5, on_budget="partial")
    assert (result["saved"], result["not_bought"]) == (2, 1)
    assert entries(tries.folder)[failed["file_name"]]["state"] == "failed"
