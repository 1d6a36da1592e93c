# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Attempts at one batch in object storage that begin at the same moment, and folders that somebody has changed."""

from __future__ import annotations

from itertools import count

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from pictory_provider.exceptions import PictoryRequestInvalid, PictoryStorageFailed
from pictory_provider.operators.pictory import GenerateImageOperator
from pictory_provider.services.batch.state import BatchRecord
from pictory_provider.storage.files import Changed
from pictory_provider.storage.objects import ObjectFiles
from pictory_provider.storage.target import Target
from tests.driver import event_of
from tests.provider.batches import Tries, billed, lamps
from tests.stand_ins import StateStore, TaskInstance, says

pytestmark = pytest.mark.usefixtures("connected")
FOLDERS = count()


@pytest.fixture
def key():
    return f"two/{next(FOLDERS)}"


def attempts(key, run_id="first"):
    tries = Tries(f"s3://media@pictures/{key}")
    tries.run_id = run_id
    return tries


def single(path, prompt):
    arguments = {"task_id": "cover", "path": path, "prompt": prompt, "deferrable": False, "poll_interval": 0.02}
    return GenerateImageOperator(**arguments).execute({"ti": TaskInstance(), "task_state_store": StateStore()})


@pytest.mark.parametrize("who", ["a zombie of the same task", "another run"])
def test_who_loses_the_header_has_changed_no_page(pictory, key, monkeypatch, who):
    single(f"s3://media@pictures/{key}/00000.png", lamps(1)[0])  # its row enters the record when a batch begins
    pictory.account.seconds = 2
    first, other = attempts(key), attempts(key, "first" if who.startswith("a zombie") else "second")
    if who.startswith("a zombie"):
        other.store, other.try_number = first.store, 1
    arguments = {"deferrable": True, "poll_interval": 30}
    write, deferrals = BatchRecord.write, []

    def frozen(self, *args, **kwargs):
        if not deferrals:
            deferrals.append(None)
            other.begin(lamps(3), **arguments)
            with pytest.raises(TaskDeferred) as deferred:
                other.task.execute(other.context)
            deferrals.append(deferred.value)
        return write(self, *args, **kwargs)

    monkeypatch.setattr(BatchRecord, "write", frozen)
    with pytest.raises(PictoryStorageFailed, match=says("has just taken over the batch")):
        first(lamps(3), **arguments)
    event = {"event": event_of(deferrals[1])}
    result = other.task_of(lamps(3), **arguments).resume_execution("execute_complete", event, other.context)
    assert (result["saved"], result["reused"]) == (2, 1)
    assert set(billed(pictory).values()) == {1}


def test_who_is_frozen_after_its_header_does_not_take_the_batch_back(pictory, key, monkeypatch):
    first, other = attempts(key), attempts(key)
    other.store, other.try_number = first.store, 1
    create, called = ObjectFiles.create, []

    def frozen(self, name, *args, **kwargs):
        created = create(self, name, *args, **kwargs)
        if name.endswith("batch.json") and not called:
            called.append(name)
            assert other(lamps(3))["saved"] == 3
        return created

    monkeypatch.setattr(ObjectFiles, "create", frozen)
    with pytest.raises(PictoryStorageFailed, match=says("has just taken over the batch")):
        first(lamps(3))
    assert called
    assert set(billed(pictory).values()) == {1}


@pytest.mark.parametrize("kind", ["another run", "a clear"])
@pytest.mark.parametrize(("what", "more"), [("is deleted", {}), ("is another file", {"overwrite": True})])
def test_a_picture_that_somebody_has_changed_is_bought_again_and_blocks_nothing(
    pictory, storage, key, what, more, kind
):
    tries = attempts(key)
    assert tries(lamps(3))["saved"] == 3
    client = storage.client()
    if what == "is deleted":
        client.delete_object(Bucket="pictures", Key=f"{key}/00001.png")
    else:
        client.put_object(Bucket="pictures", Key=f"{key}/00001.png", Body=b"a thumbnail")
    if kind == "a clear":
        tries.clear()
    else:
        tries = attempts(key, "second")
    result = tries(lamps(3), **more)
    assert result["saved"] + result["reused"] == 3
    assert billed(pictory)[lamps(3)[1]] == 2


def test_a_storage_that_keeps_objects_as_they_are_is_found_before_anything_is_bought(pictory, key, monkeypatch):
    def kept(self, name, *_, **__):
        raise Changed(name)

    monkeypatch.setattr(ObjectFiles, "replace", kept)
    monkeypatch.setattr(ObjectFiles, "delete", kept)
    with pytest.raises(PictoryRequestInvalid, match=says("may not be read or replaced .*keeps the object")):
        single(f"s3://media@pictures/{key}/a.png", lamps(1)[0])
    with pytest.raises(PictoryRequestInvalid, match=says("may not be read or replaced")):
        attempts(f"{key}/batch")(lamps(2))
    assert pictory.submissions == []


def test_the_picture_of_another_task_with_the_same_bytes_is_not_removed(pictory, key, monkeypatch):
    theirs = f"s3://media@pictures/{key}/00000.png"
    job_id = single(theirs, lamps(1)[0])
    batch = attempts(key, "second")
    monkeypatch.setattr(BatchRecord, "existing", lambda *_, **__: {})
    monkeypatch.setattr(BatchRecord, "check_unchanged", lambda *_: None)
    jobs = pictory.account.jobs
    pictory.account.seconds = 0
    picture = Target(theirs).digest()
    paint(monkeypatch, Target(theirs))
    assert batch(["Another lamp"])["saved"] == 1
    assert len(jobs) == 2
    assert Target(theirs).digest() == picture
    assert job_id.encode() in b"".join(Target(f"{theirs}.json").pieces())


def paint(monkeypatch, target):
    """Let Pictory paint the picture of a file, whatever is requested."""
    from pictory_provider.simulator import painting

    data = b"".join(target.pieces())
    monkeypatch.setattr(painting, "paint", lambda *_: data)
