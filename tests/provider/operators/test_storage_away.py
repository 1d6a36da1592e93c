# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A storage that is away for a moment never counts as an empty record: a retry continues, and buys nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from pictory_provider.exceptions import PictoryStorageFailed, PictoryUnavailable
from pictory_provider.operators.pictory import GenerateImageOperator
from pictory_provider.storage.errors import READING
from pictory_provider.storage.target import Target
from tests.driver import Attempts
from tests.stand_ins import says

STORES = [pytest.param(True, id="with a store"), pytest.param(False, id="without")]


@pytest.fixture(autouse=True)
def _impatient(impatient, timing):
    timing(read_budget=0.05)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "covers" / "a.png"


@pytest.fixture
def tries(fast, path):
    """Return a function that makes attempts of a task that saves a picture."""

    def make(**kwargs):
        arguments = {"prompt": "A lighthouse at dawn", "path": str(path), "deferrable": False, **kwargs}
        return GenerateImageOperator(task_id="cover", **arguments)

    return lambda **more: Attempts(make, **more)


def away(monkeypatch, since):
    """Let the storage answer nothing any more from the moment when a condition holds."""
    size = Target.size

    def gone(self):
        if since():
            with self._errors(READING):
                raise OSError(5, "Input/output error")
        return size(self)

    monkeypatch.setattr(Target, "size", gone)


@pytest.mark.parametrize("has_store", STORES)
def test_a_retry_that_adopts_a_job_while_the_storage_goes_away_is_retried(
    fast, tries, path, monkeypatch, has_store
):
    cover = tries(has_store=has_store)
    fast.script("picture", "server-error", times=-1)
    with pytest.raises(PictoryUnavailable):
        cover()
    fast.clear_faults()
    polls = len(fast.polls)
    with monkeypatch.context() as fault:
        away(fault, lambda: len(fast.polls) > polls)
        with pytest.raises(PictoryStorageFailed, match=says("Could not read .*a.png")):
            cover()
    cover()
    assert (json.loads(Path(f"{path}.json").read_text())["state"], len(fast.submissions)) == ("saved", 1)


@pytest.mark.parametrize("has_store", STORES)
def test_a_task_that_airflow_woke_while_the_storage_is_away_is_retried(fast, tries, path, monkeypatch, has_store):
    cover = tries(has_store=has_store)
    fast.account.seconds = 60
    cover.begin(deferrable=True)
    with pytest.raises(TaskDeferred):
        cover.task.execute(cover.context)
    for job in fast.account.jobs.values():
        job.seconds = 0
    cover.ti.xcoms.clear()
    task = cover.make()
    with monkeypatch.context() as fault:
        away(fault, lambda: True)
        with pytest.raises(PictoryStorageFailed, match=says("Could not read .*a.png")):
            task.resume_execution("__fail__", {"error": "Trigger timeout"}, cover.context)
    cover()
    assert (json.loads(Path(f"{path}.json").read_text())["state"], len(fast.submissions)) == ("saved", 1)


def test_a_state_store_that_is_away_is_none_that_holds_nothing(fast, tries, monkeypatch):
    cover = tries()
    fast.script("picture", "server-error", times=-1)
    cover.begin()

    def unreachable(*_):
        raise ConnectionError("the API server is away")

    def pushed(key, value):
        if key == "pictory_request":
            monkeypatch.setattr(cover.store, "get", unreachable)

    with pytest.raises(PictoryUnavailable):
        cover()
    monkeypatch.setattr(type(cover.ti), "xcom_push", lambda self, key, value: pushed(key, value))
    with pytest.raises(PictoryUnavailable):
        cover()
    assert len(fast.submissions) == 1


def test_a_job_that_is_on_no_record_is_still_not_bought_twice(fast, tries, path):
    cover = tries(has_store=False)
    fast.account.seconds = 60
    cover.begin(deferrable=True)
    with pytest.raises(TaskDeferred):
        cover.task.execute(cover.context)
    Path(f"{path}.json").unlink()
    cover.ti.xcoms.clear()
    with pytest.raises(AirflowFailException, match=says("its jobId is unknown")):
        cover.make().resume_execution("__fail__", {"error": "Trigger timeout"}, cover.context)
