# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tasks that share a path and run at the same time: what is bought, and what becomes of sidecars and pictures."""

# ruff: noqa: F811  pytest finds a fixture that is imported, and its name is then that of an argument

from __future__ import annotations

import fcntl
import json
import os
import threading
from functools import partial
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred
from airflow.sdk import ObjectStoragePath

from pictory_provider.api.errors import StorageFailed
from pictory_provider.client.sync import SyncClient
from pictory_provider.exceptions import (
    PictoryImageInvalid,
    PictoryJobFailed,
    PictoryRequestInvalid,
    PictoryStorageFailed,
    PictorySubmitOutcomeUnknown,
    PictoryUnavailable,
    PictoryWaitTimeout,
)
from pictory_provider.hooks.pictory import PictoryHook
from pictory_provider.operators.pictory import GenerateImageOperator
from pictory_provider.services.state import SubmissionState
from pictory_provider.storage import files
from pictory_provider.storage.pictures import PictureTarget
from pictory_provider.storage.target import Target
from tests.provider.operators.test_saving import PROMPT, beside, digest, jobs, path, saving, try_of  # noqa: F401
from tests.stand_ins import StateStore, TaskInstance, says

OTHER = "Another lighthouse"


@pytest.fixture
def failed(pictory, try_of):
    """Let the task of the first run have a job that failed."""
    pictory.plan("failed")
    with pytest.raises(PictoryJobFailed):
        try_of()


class TestAfterAJobThatFailed:
    def test_the_picture_that_another_run_has_saved_meanwhile_is_reused(self, pictory, failed, try_of, path):
        theirs = try_of("second")
        assert try_of(clears=1)["job_id"] == theirs["job_id"]
        assert (len(jobs(pictory)), beside(path)["sha256"]) == (2, digest(path))

    def test_the_picture_of_another_request_is_left_alone_with_its_sidecar(self, pictory, failed, try_of, path):
        theirs = try_of("second", prompt=OTHER)
        with pytest.raises(PictoryRequestInvalid, match=says("taken by another request")):
            try_of(clears=1)
        assert (len(jobs(pictory)), beside(path)["job_id"], digest(path)) == (
            2,
            theirs["job_id"],
            theirs["sha256"],
        )

    def test_of_many_that_start_at_the_same_time_one_buys(self, pictory, failed, path, monkeypatch):
        together, look = threading.Barrier(8), SubmissionState.prepare_intent

        def at_once(self, fingerprint, request, **kwargs):
            look(self, fingerprint, request, **kwargs)
            if fingerprint:
                together.wait(20)

        monkeypatch.setattr(SubmissionState, "prepare_intent", at_once)
        ended = []

        def run(number):
            ti = TaskInstance()
            ti.run_id = f"run {number}"
            try:
                saving(path, deferrable=False).execute({"ti": ti, "task_state_store": StateStore()})
            except PictoryUnavailable:
                ended.append("may be retried")

        threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(jobs(pictory)), ended) == (2, ["may be retried"] * 7)
        assert beside(path)["sha256"] == digest(path)


def test_a_retry_whose_job_has_failed_since_reuses_the_existing_picture(pictory, try_of, path):
    pictory.plan("stuck")
    with pytest.raises(PictoryWaitTimeout):
        try_of(timeout=0, poll_interval=0)
    (job,) = pictory.account.jobs.values()
    Path(f"{path}.json").unlink()
    theirs = try_of("second")
    job.fate = "failed"
    if try_of.has_store:
        assert try_of()["job_id"] == theirs["job_id"]
    assert (len(jobs(pictory)), beside(path)["job_id"]) == (2, theirs["job_id"])


def test_a_picture_that_is_saved_between_the_looks_at_it_and_at_its_sidecar_is_reused(
    pictory, try_of, path, monkeypatch
):
    size, theirs = Target.size, []

    def then_saved_by_another(self):
        before = size(self)
        if not theirs:
            theirs.append(None)
            theirs[0] = try_of("second")
        return before

    monkeypatch.setattr(Target, "size", then_saved_by_another)
    assert try_of()["sha256"] == theirs[0]["sha256"] == digest(path)
    assert len(jobs(pictory)) == 1


def test_an_intent_is_written_only_over_what_was_read(pictory, try_of, path, monkeypatch):
    """A worker is frozen between its check of the path and its intent; its retry buys; it thaws."""
    try_of(prompt="The old cover")
    note, is_first = PictureTarget.write_sidecar, iter([True])

    def frozen(self, sidecar):
        if next(is_first, False):
            try_of(overwrite=True, clears=1)
        return note(self, sidecar)

    with monkeypatch.context() as freezing:
        freezing.setattr(PictureTarget, "write_sidecar", frozen)
        with pytest.raises(PictoryUnavailable, match=says("has just begun")):
            try_of(overwrite=True, clears=1)
    assert len(jobs(pictory)) == 2
    assert (beside(path)["request"]["prompt"], beside(path)["sha256"]) == (PROMPT, digest(path))


def test_an_intent_that_is_sent_again_does_not_replace_anothers(pictory, try_of, path, monkeypatch):
    withdraw = SubmissionState.withdraw

    def withdrawn(self):
        withdraw(self)
        monkeypatch.setattr(SubmissionState, "withdraw", withdraw)
        pictory.script("submit", "drop-after")
        with pytest.raises(PictorySubmitOutcomeUnknown):
            try_of("second", overwrite=True, prompt=OTHER)

    monkeypatch.setattr(SubmissionState, "withdraw", withdrawn)
    pictory.script("submit", "rate-limited", retry_after="0")
    with pytest.raises(PictoryUnavailable, match=says("has just begun")):
        try_of("first", overwrite=True)
    assert (len(jobs(pictory)), beside(path)["made_by"]["run_id"]) == (1, "second")


def test_resubmit_reuses_an_existing_picture_instead_of_buying_again(pictory, try_of, path):
    pictory.script("submit", "drop-after")
    with pytest.raises(PictorySubmitOutcomeUnknown):
        try_of()
    Path(f"{path}.json").unlink()
    theirs = try_of("second")
    if try_of.has_store:
        assert try_of(on_unknown_submit="resubmit")["job_id"] == theirs["job_id"]
    assert (len(jobs(pictory)), beside(path)["sha256"]) == (2, digest(path))


def test_a_job_that_pictory_does_not_show_yet_is_adopted_by_any_task_that_finds_it(pictory, context, ti, path):
    pictory.plan("completed", missing_seconds=30)
    with pytest.raises(TaskDeferred):
        saving(path).execute(context)
    for run_id, clears in (("second", 0), (ti.run_id, 1)):
        again = TaskInstance()
        again.run_id, again.max_tries = run_id, 2 + clears
        store = context["task_state_store"] if clears else StateStore()
        with pytest.raises(TaskDeferred) as deferral:
            saving(path).execute({"ti": again, "task_state_store": store})
        assert deferral.value.trigger.job_id == jobs(pictory)[0]
    assert len(jobs(pictory)) == 1


def test_another_connection_to_the_same_picture_is_the_same_picture_after_a_clear(
    pictory,
    try_of,
    path,
    monkeypatch,
):
    first = try_of()
    monkeypatch.setenv("AIRFLOW_CONN_RENAMED", pictory.connection_json())
    assert try_of(clears=1, pictory_conn_id="renamed")["job_id"] == first["job_id"]
    assert len(jobs(pictory)) == 1


# Places --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["file://{}/covers%2F", "{}/nowhere.png", "{}/a.png.json"])
def test_a_path_at_which_no_picture_can_be_saved_is_refused_before_anything_is_spent(
    pictory, try_of, tmp_path, place
):
    (tmp_path / "nowhere.png").symlink_to(tmp_path / "missing" / "a.png")
    with pytest.raises(PictoryRequestInvalid, match=says("is a folder|broken symbolic link|as sidecars do")):
        try_of(path=place.format(tmp_path), overwrite=True)
    assert pictory.submissions == []


def test_a_downloaded_picture_that_replaces_one_removes_its_sidecar(pictory, try_of, path):
    try_of()
    with PictoryHook() as hook:
        other = hook.generate_image(OTHER)
        hook.download_image(str(path), job_id=other, overwrite=True)
    assert not Path(f"{path}.json").exists()
    with pytest.raises(PictoryRequestInvalid, match=says("without a sidecar")):
        try_of("second")


def test_the_same_picture_downloaded_again_keeps_its_sidecar(pictory, try_of, path):
    image = try_of()
    with PictoryHook() as hook:
        hook.download_image(str(path), job_id=image["job_id"], overwrite=True)
    assert beside(path)["sha256"] == digest(path)


def test_the_picture_of_a_job_that_a_user_adopted_is_saved_next_to_the_existing_one(
    pictory, context, store, ti, path
):
    mine = saving(path, deferrable=False).execute(context)
    with PictoryHook() as hook:
        found = hook.generate_image(PROMPT)
    store.rows["pictory_submission"] = json.dumps({"jobId": found})
    saving(path, deferrable=False).execute(context)
    assert (beside(path)["job_id"], beside(path)["sha256"]) == (mine, digest(path))
    assert ti.xcoms["image"]["path"] == str(path.with_name(f"a.{found}.png"))


# After a deferral without a store ------------------------------------------------------------------------


def test_the_request_is_known_after_a_deferral_without_a_store_though_another_task_took_the_path(
    pictory, context_without_store, ti, tmp_path, memory
):
    where = f"memory://{tmp_path.name}/a.png"
    pictory.account.seconds = 60
    task = GenerateImageOperator(task_id="cover", prompt=PROMPT, path=where)
    with pytest.raises(TaskDeferred) as deferral:
        task.execute(context_without_store)
    (job,) = pictory.account.jobs.values()
    job.seconds = 0
    ObjectStoragePath(f"{where}.json").unlink()
    event = {"job_id": job.job_id}
    kwargs = json.loads(json.dumps(deferral.value.kwargs))
    resumed = GenerateImageOperator(task_id="cover", prompt=PROMPT, path=where)
    resumed.resume_execution(
        "execute_complete",
        {"event": _completed(deferral.value.trigger), **kwargs},
        {**context_without_store, **event},
    )
    assert (ti.xcoms["image"]["prompt"], ti.xcoms["image"]["model"]) == (PROMPT, "seedream3.0")


def _completed(trigger):
    from pictory_provider.api.models import Job
    from pictory_provider.core import events

    job = Job(job_id=trigger.job_id, status="completed", url="https://h/gone.png")
    return events.build(events.Ended(trigger.job_id, job, 0.0))


# Secrets -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "echo",
    [
        "could not read https://b.s3.amazonaws.com/a.png?X-Amz-Signature=5ecre7",
        "could not read https%3A%2F%2Fb.s3.amazonaws.com%2Fa.png%3FX-Amz-Signature%3D5ecre7",
        "could not read https://b.s3.amazonaws.com/a.png?x=1&amp;X-Amz-Signature=5ecre7&amp;y",
        "could not read 'https://b.s3.amazonaws.com/a.png?X-Amz-Signature=5ecre",
    ],
)
def test_a_failed_job_that_repeats_a_signed_url_does_not_show_it(pictory, context, path, echo):
    pictory.plan("failed", error_message=echo)
    with pytest.raises(PictoryJobFailed) as caught:
        saving(path, deferrable=False).execute(context)
    said = "".join(str(caught.value).split())
    assert "couldnotread" in said
    assert "5ecre" not in said


@pytest.fixture
def locked(path):
    """Lock the picture's folder as another process does, and return a function that releases the lock."""
    folder = Path(path).parent
    folder.mkdir(parents=True, exist_ok=True)
    home = os.open(folder, os.O_RDONLY)
    fcntl.flock(home, fcntl.LOCK_EX)
    yield partial(fcntl.flock, home, fcntl.LOCK_UN)
    os.close(home)


def test_a_folder_that_another_process_keeps_locked_is_reported_and_nothing_is_sent(
    pictory, try_of, path, locked, timing
):
    timing(lock=0.1)
    with pytest.raises(
        PictoryStorageFailed, match=says("has been locked by another process for 0 s, .* Nothing was sent")
    ):
        try_of()
    assert jobs(pictory) == []


def test_the_log_says_that_a_task_waits_for_a_lock_and_it_buys_when_it_gets_it(
    pictory, try_of, path, locked, timing, monkeypatch
):
    timing(lock_warning=0.0)
    messages = []
    monkeypatch.setattr(files.log, "warning", lambda *text: (messages.append(text[0] % text[1:]), locked()))
    try_of()
    (line,) = messages
    assert "is locked by another process. This task waits for it for 60 s at most." in line
    assert len(jobs(pictory)) == 1


def test_a_paid_job_waits_for_the_lock_for_as_long_as_it_takes(
    pictory, context_without_store, path, timing, monkeypatch
):
    timing(lock=0.0, lock_warning=0.0)
    send, homes = SyncClient.send, []

    def send_and_lock(self, request):
        reply = send(self, request)
        if request.method == "POST" and not homes:
            homes.append(os.open(Path(path).parent, os.O_RDONLY))
            fcntl.flock(homes[0], fcntl.LOCK_EX)
        return reply

    messages = []
    monkeypatch.setattr(SyncClient, "send", send_and_lock)
    monkeypatch.setattr(
        files.log, "warning", lambda *text: (messages.append(text[0] % text[1:]), os.close(homes[0]))
    )
    saving(path).execute(context_without_store)
    (line,) = messages
    assert "waits for it without a limit: it has to record a paid job" in line
    assert (len(jobs(pictory)), beside(path)["state"]) == (1, "saved")


def test_a_download_that_fails_leaves_the_existing_picture_and_its_sidecar(pictory, try_of, path):
    try_of()
    before = beside(path)
    pictory.script("picture", "truncated", times=-1)
    with PictoryHook() as hook:
        other = hook.generate_image(OTHER)
        with pytest.raises(PictoryImageInvalid):
            hook.download_image(str(path), job_id=other, overwrite=True)
    assert (beside(path), digest(path)) == (before, before["sha256"])


def test_if_a_paid_job_is_not_on_record_nothing_says_that_a_clear_adopts_it(
    pictory, context_without_store, path, monkeypatch, logged
):
    write = PictureTarget.write_sidecar

    def full_once_it_is_bought(self, sidecar):
        if sidecar.submission.job_id is not None:
            raise StorageFailed("The disk is full.")
        return write(self, sidecar)

    monkeypatch.setattr(PictureTarget, "write_sidecar", full_once_it_is_bought)
    with pytest.raises(AirflowFailException, match=says("a retry or a clear would buy the picture again")):
        saving(path).execute(context_without_store)
    assert "adopts the job too" not in logged()
