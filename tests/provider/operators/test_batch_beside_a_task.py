# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A batch and a single task that begin to buy the same picture at the same moment buy one, on disks and elsewhere."""

from __future__ import annotations

from itertools import count

import pytest

from pictory_provider.exceptions import PictoryStorageFailed, PictorySubmitOutcomeUnknown, PictoryUnavailable
from pictory_provider.operators.pictory import GenerateImageOperator
from pictory_provider.services.batch.state import BatchRecord
from pictory_provider.services.state import SubmissionState
from pictory_provider.storage.pictures import PictureTarget
from pictory_provider.storage.target import Target
from tests.driver import Attempts
from tests.provider.batches import Tries, billed
from tests.stand_ins import says

PROMPT = "A lamp, number 0"
FOLDERS = count()


@pytest.fixture(params=["a disk", "object storage"])
def folder(request, tmp_path, memory):
    return str(tmp_path / "out") if request.param == "a disk" else f"memory://beside-{next(FOLDERS)}/out"


@pytest.fixture
def batch(folder):
    tries = Tries(folder)
    return lambda: tries([PROMPT], file_name="lamp.png")


@pytest.fixture
def single(folder):
    arguments = {"prompt": PROMPT, "path": f"{folder}/lamp.png", "deferrable": False, "poll_interval": 0.02}
    return Attempts(lambda: GenerateImageOperator(task_id="lamp", **arguments), run_id="another")


@pytest.fixture(autouse=True)
def _impatient(timing):
    timing(second_looks=(0.0,))


STEPS = {
    "the batch has listed the folder": (BatchRecord, "existing", "after"),
    "the batch is about to write its header": (BatchRecord, "write", "before"),
    "the batch has written its header": (BatchRecord, "write", "after"),
    "the batch has looked once more": (BatchRecord, "check_unchanged", "after"),
    "the task has looked at the picture and not at its sidecar": (Target, "size", "after"),
    "the task has looked": (SubmissionState, "existing_image", "after"),
    "the task is about to write its intent": (PictureTarget, "announce", "before"),
    "the task has written its intent": (PictureTarget, "announce", "after"),
    "the task has looked for a batch": (SubmissionState, "intend", "after"),
}


@pytest.mark.parametrize("step", STEPS)
def test_whatever_one_has_done_when_the_other_runs_one_picture_is_bought(fast, batch, single, step, monkeypatch):
    owner, name, when = STEPS[step]
    first, other = (batch, single) if step.startswith("the batch") else (single, batch)
    called, ended = [], []

    def run(task):
        try:
            ended.append(task())
        except (PictoryStorageFailed, PictorySubmitOutcomeUnknown, PictoryUnavailable) as error:
            ended.append(error)

    original = getattr(owner, name)

    def interrupted(*args, **kwargs):
        is_first = not called
        called.append(name)
        if is_first and when == "before":
            run(other)
        result = original(*args, **kwargs)
        if is_first and when == "after":
            run(other)
        return result

    monkeypatch.setattr(owner, name, interrupted)
    run(first)
    assert len(ended) == 2, "the other has run, too"
    for task in (first, other, first):
        run(task)
    assert billed(fast) == {PROMPT: 1}
    assert not isinstance(ended[-1], Exception)


def test_a_task_buys_nothing_in_the_folder_of_a_batch_that_has_not_ended(fast, batch, single, monkeypatch):
    errors = []

    def beside(*_, **__):
        with pytest.raises(PictoryUnavailable, match=says("is in use by a batch, dag_id .*batch.json")) as caught:
            single()
        errors.append(caught.value)

    monkeypatch.setattr(BatchRecord, "check_unchanged", beside)
    assert batch()["saved"] == 1
    assert len(errors) == 1
    assert single() is not None
    assert billed(fast) == {PROMPT: 1}


def test_a_record_of_a_batch_that_cannot_be_read_is_taken_for_one_in_use(fast, folder, single):
    PictureTarget(f"{folder}/lamp.png").beside(".pictory/batch.json").write(b"{}")
    with pytest.raises(PictoryUnavailable, match=says("a batch whose record cannot be read")):
        single()
    assert billed(fast) == {}
