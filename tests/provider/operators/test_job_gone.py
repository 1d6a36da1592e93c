# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""If Pictory no longer has a sidecar's job, the error names the sidecar and a solution that works."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pictory_provider.core.sidecar import Sidecar
from pictory_provider.exceptions import (
    PictoryRequestInvalid,
    PictorySubmitOutcomeUnknown,
)
from pictory_provider.operators.pictory import GenerateImageOperator
from pictory_provider.storage.target import Target
from tests.driver import Attempts
from tests.provider.batches import lamps
from tests.stand_ins import says

STORES = [pytest.param(True, id="with a store"), pytest.param(False, id="without")]


@pytest.fixture(autouse=True)
def _impatient(impatient, timing):
    timing(read_budget=0.05, unknown_job=0.0)


@pytest.fixture
def cover(folder):
    def attempts(**more):
        def make(**kwargs):
            arguments = {"prompt": lamps(1)[0], "path": str(folder / "00000.png"), "deferrable": False, **kwargs}
            return GenerateImageOperator(task_id="cover", **arguments)

        return Attempts(make, **more)

    return attempts


@pytest.fixture
def beside(folder):
    return folder / "00000.png.json"


def only_bought(sidecar):
    """Restore the sidecar from before the picture was saved, and remove the picture."""
    sidecar.write_bytes(replace(Sidecar.from_json(sidecar.read_bytes()), saved=None).to_json())
    sidecar.with_suffix("").unlink()


@pytest.mark.parametrize("has_store", STORES)
@pytest.mark.parametrize("clears", [0, 1])
def test_a_task_whose_own_job_is_gone_names_its_sidecar_and_the_solution(fast, cover, beside, has_store, clears):
    task = cover(has_store=has_store)
    task()
    only_bought(beside)
    fast.account.jobs.clear()
    for _ in range(clears):
        task.clear()
    solution = "set overwrite=True and clear" if has_store else f"delete {beside} and clear"
    with pytest.raises(
        PictorySubmitOutcomeUnknown, match=says(f"To buy the picture again, {solution}")
    ) as unknown:
        task()
    assert str(beside) in str(unknown.value)
    assert len(fast.submissions) == 1
    task.clear()
    if has_store:
        task(overwrite=True)
    else:
        beside.unlink()
        task()
    assert (json.loads(beside.read_text())["state"], len(fast.submissions)) == ("saved", 2)
    task()
    assert len(fast.submissions) == 2


@pytest.mark.parametrize("has_store", STORES)
def test_a_task_that_finds_anothers_job_gone_names_its_sidecar_and_the_solution(fast, cover, beside, has_store):
    cover(has_store=has_store)()
    only_bought(beside)
    fast.account.jobs.clear()
    other = cover(run_id="other", has_store=has_store)
    with pytest.raises(
        PictoryRequestInvalid, match=says(f"The sidecar {beside} names job .* delete {beside} and clear")
    ):
        other()
    beside.unlink()
    other.clear()
    other()
    assert len(fast.submissions) == 2


def test_a_batch_that_finds_a_job_gone_names_its_sidecar_and_the_solution(fast, one_try, cover, beside):
    cover()()
    only_bought(beside)
    fast.account.jobs.clear()
    for _ in range(2):
        with pytest.raises(
            PictorySubmitOutcomeUnknown, match=says(f"1 of 2 rows .*The sidecar {beside} names this job")
        ):
            one_try(lamps(2))
        one_try.clear()
    beside.unlink()
    result = one_try(lamps(2))
    assert (result["saved"] + result["reused"]) == 2
    assert len(fast.submissions) == 3


@pytest.mark.parametrize("has_store", STORES)
@pytest.mark.parametrize("is_placed", [False, True])
@pytest.mark.parametrize("who", ["the same task", "another run", "a batch"])
def test_a_picture_whose_marking_was_interrupted_is_identified_by_its_digest_without_a_request(
    fast, one_try, cover, beside, folder, monkeypatch, has_store, is_placed, who
):
    task, place = cover(has_store=has_store), Target.place
    task()

    def struck(self, received, *, overwrite):
        if is_placed:
            place(self, received, overwrite=overwrite)
        raise KeyboardInterrupt

    with monkeypatch.context() as crash:
        crash.setattr(Target, "place", struck)
        with pytest.raises(KeyboardInterrupt):
            task(mark_ai_generated=True)
    assert json.loads(beside.read_text())["state"] == "bought"
    fast.account.jobs.clear()
    fast.requests.clear()
    if who == "a batch":
        assert one_try(lamps(1), mark_ai_generated=True)["reused"] == 1
    else:
        attempts = task if who == "the same task" else cover(run_id="other", has_store=has_store)
        attempts(mark_ai_generated=True)
        assert attempts.ti.xcoms["image"]["ai_mark"] is True
    on_record = json.loads(beside.read_text())
    assert (on_record["state"], on_record["marks"], on_record["size"]) == (
        "saved",
        ["xmp"],
        (folder / "00000.png").stat().st_size,
    )
    assert fast.requests == []


def test_a_picture_that_is_neither_of_two_is_not_taken_by_its_size(fast, cover, beside, folder, monkeypatch):
    task = cover()
    task()
    path = folder / "00000.png"

    def struck(self, received, *, overwrite):
        raise KeyboardInterrupt

    with monkeypatch.context() as crash:
        crash.setattr(Target, "place", struck)
        with pytest.raises(KeyboardInterrupt):
            task(mark_ai_generated=True)
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(PictoryRequestInvalid, match=says("a sidecar in state `bought` next to a file of")):
        cover(run_id="other")(prompt="Another lamp")
    assert json.loads(Path(beside).read_text())["state"] == "bought"
