# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Iterations of a loop (Airflow 3.4 and later) have all in common but their region: each makes its own picture."""

from __future__ import annotations

import pytest

from pictory_provider.exceptions import (
    PictoryRequestInvalid,
    PictorySubmitOutcomeUnknown,
    PictoryUnavailable,
)
from pictory_provider.operators.pictory import GenerateImageOperator
from tests.driver import Attempts
from tests.provider.batches import Tries, billed, lines
from tests.stand_ins import says


@pytest.fixture(params=["with a store", "without a store"])
def task(request, pictory, tmp_path):
    """Return the attempts of a task that saves its picture, of which a loop makes iterations."""

    def make(prompt="A vase", **kwargs):
        path = str(tmp_path / kwargs.pop("name", "vase.png"))
        return GenerateImageOperator(task_id="draw", prompt=prompt, path=path, deferrable=False, **kwargs)

    return Attempts(make, has_store=request.param == "with a store")


def test_each_iteration_buys_its_own_picture(pictory, task):
    for index in range(3):
        task.of_iteration(index)(f"A vase, take {index}", name=f"{index}.png")
    assert billed(pictory) == {f"A vase, take {index}": 1 for index in range(3)}


def test_an_iteration_with_the_same_request_reuses_the_existing_picture(pictory, task):
    task.of_iteration(0)()
    second = task.of_iteration(1)
    second()
    assert second.ti.xcoms["image"]["reused"] is True
    assert billed(pictory) == {"A vase": 1}


def test_an_iteration_that_asks_for_another_picture_at_the_same_path_is_refused(pictory, task):
    task.of_iteration(0)()
    with pytest.raises(PictoryRequestInvalid, match=says("taken by another request")) as caught:
        task.of_iteration(1)("A vase in blue")
    assert "of task generate of DAG covers, run first, iteration 0" in " ".join(str(caught.value).split())
    assert billed(pictory) == {"A vase": 1}


def test_with_overwrite_each_iteration_buys_once_and_once_more_after_a_clear(pictory, task):
    for index in range(3):
        each = task.of_iteration(index)
        each(f"Take {index}", overwrite=True)
        each(f"Take {index}", overwrite=True)  # a retry
    assert billed(pictory) == {f"Take {index}": 1 for index in range(3)}
    each.clear()
    each("Take 2", overwrite=True)
    assert billed(pictory) == {"Take 0": 1, "Take 1": 1, "Take 2": 2}


def test_an_intent_of_another_iteration_is_another_tasks_purchase(pictory, task):
    pictory.script("submit", "drop-after")
    first = task.of_iteration(0)
    with pytest.raises(PictorySubmitOutcomeUnknown):
        first()
    with pytest.raises(PictoryUnavailable, match=says("has recorded its intent in the sidecar")):
        task.of_iteration(1)()
    with pytest.raises(PictorySubmitOutcomeUnknown):
        first()
    assert billed(pictory) == {"A vase": 1}


def test_an_intent_of_the_iteration_that_was_replaced_is_reported_as_such(pictory, task):
    pictory.script("submit", "drop-after")
    with pytest.raises(PictorySubmitOutcomeUnknown):
        task.of_iteration(1)()
    with pytest.raises(PictoryUnavailable, match=says("iteration 1 .the loop iteration that a clear replaced")):
        task.of_iteration(1, region=2)()
    assert billed(pictory) == {"A vase": 1}


def test_an_iteration_that_replaces_one_after_a_clear_takes_the_picture_of_the_same_request(pictory, task):
    task.of_iteration(1)()
    replaced = task.of_iteration(1, region=2)
    replaced()
    assert replaced.ti.xcoms["image"]["reused"] is True
    assert billed(pictory) == {"A vase": 1}


def test_the_line_of_an_unknown_outcome_names_the_iteration(pictory, task):
    pictory.script("submit", "drop-after")
    second = task.of_iteration(1)
    second.begin()
    second.context["loop"] = type("Loop", (), {"index": 1})()
    with pytest.raises(PictorySubmitOutcomeUnknown) as caught:
        second.task.execute(second.context)
    assert "JOBID --loop-index 1 --clear\n" in str(caught.value)


def test_each_iteration_of_a_batch_is_its_own_batch(pictory, tmp_path):
    tries = Tries(tmp_path / "vases")
    rows = [{"prompt": "A vase", "sku": "a"}, {"prompt": "A jug", "sku": "b"}]
    first = Tries(tmp_path / "vases").of_iteration(0)
    first.make = tries.task_of
    first(rows, file_name="{sku}.png")
    second = first.of_iteration(1)
    done = second([*rows, {"prompt": "A bowl", "sku": "c"}], file_name="{sku}.png")
    assert (done["reused"], done["saved"]) == (2, 1)
    assert billed(pictory) == {"A vase": 1, "A jug": 1, "A bowl": 1}
    assert len(lines(tmp_path / "vases" / "metadata.jsonl")) == 3


def test_a_row_that_is_unknown_of_another_iteration_is_not_bought(pictory, tmp_path):
    pictory.script("submit", "drop-after")
    first = Tries(tmp_path / "vases").of_iteration(0)
    first.make = Tries(tmp_path / "vases").task_of
    with pytest.raises(PictorySubmitOutcomeUnknown):
        first(["A vase"])
    with pytest.raises(PictorySubmitOutcomeUnknown):
        first.of_iteration(1)(["A vase"])
    assert billed(pictory) == {"A vase": 1}
