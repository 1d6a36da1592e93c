# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""One task that submits, waits and saves, and reuses a picture that exists."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred
from airflow.sdk import Asset, ObjectStoragePath

from pictory_provider.api.models import Job
from pictory_provider.client.sync import SyncClient
from pictory_provider.core import events
from pictory_provider.core.attempt import MadeBy
from pictory_provider.core.sidecar import Sidecar
from pictory_provider.core.submission import KEY, Submission
from pictory_provider.exceptions import (
    PictoryJobFailed,
    PictoryRateLimited,
    PictoryRequestInvalid,
    PictoryStorageFailed,
    PictorySubmitOutcomeUnknown,
    PictoryUnavailable,
)
from pictory_provider.hooks.pictory import PictoryHook
from pictory_provider.media.mark import mark
from pictory_provider.operators.pictory import GenerateImageOperator
from pictory_provider.services.state import SubmissionState
from pictory_provider.storage.pictures import PictureTarget
from pictory_provider.storage.target import Target
from tests.driver import Runs
from tests.driver import event_of as event_of_trigger
from tests.stand_ins import StateStore, TaskInstance, says

PROMPT = "A lighthouse at dawn"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "covers" / "a.png"


@pytest.fixture(params=["with a store", "without"])
def try_of(request, pictory, path):
    """Return a function that runs one whole attempt of a task, with or without a task state store."""

    def make(**kwargs):
        arguments = {"task_id": "cover", "prompt": PROMPT, "path": str(path), "deferrable": False, **kwargs}
        return GenerateImageOperator(**arguments)

    return Runs(make, has_store=request.param == "with a store")


def jobs(pictory):
    return list(pictory.account.jobs)


def beside(path):
    return json.loads(Path(f"{path}.json").read_text())


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


# Prompt in, picture out ----------------------------------------------------------------------------------


def test_the_picture_is_bought_waited_for_and_saved(pictory, try_of, path):
    image = try_of(model="flux-schnell")
    (job_id,) = jobs(pictory)
    assert {**image, "url": None} == {
        "job_id": job_id,
        "status": "completed",
        "url": None,
        "width": 1024,
        "height": 1024,
        "ai_credits_used": 0.6,
        "path": str(path),
        "size": path.stat().st_size,
        "sha256": digest(path),
        "reused": False,
        "prompt": PROMPT,
        "model": "flux-schnell",
    }
    assert try_of.last.ti.order == ["jobId", "return_value", "pictory_request", "image"]
    assert try_of.last.ti.xcoms["return_value"] == job_id
    assert sorted(file.name for file in path.parent.iterdir()) == ["a.png", "a.png.json"]


def test_the_sidecar_has_the_request_and_the_task(pictory, try_of, path):
    image = try_of(style="vintage", aspect_ratio="16:9", webhook="http://127.0.0.1:9/?token=secret")
    said = beside(path)
    assert (said["state"], said["job_id"], said["file"]) == ("saved", image["job_id"], "a.png")
    assert said["request"] == {
        "prompt": PROMPT,
        "model": "seedream3.0",
        "aspectRatio": "16:9",
        "style": "vintage",
    }
    assert said["made_by"] == {"dag_id": "covers", "run_id": "first", "task_id": "generate", "map_index": -1}
    assert (said["size"], said["sha256"]) == (image["size"], image["sha256"])
    assert "secret" not in json.dumps(said)


def test_the_intent_is_in_the_sidecar_before_anything_is_sent_and_the_job_id_before_the_wait(
    pictory, try_of, path, monkeypatch
):
    seen, send = [], SyncClient.send

    def watched(self, request):
        seen.append((request.method, beside(path)["state"] if path.parent.exists() else None))
        return send(self, request)

    monkeypatch.setattr(SyncClient, "send", watched)
    try_of()
    assert ("POST", "intent") in seen
    assert seen[-1] == ("GET", "bought")


def test_an_asset_in_outlets_gets_the_path_of_the_picture(pictory, try_of, path):
    covers = Asset("covers")
    image = try_of(outlets=[covers])
    extra = try_of.last.context["outlet_events"][covers].extra
    assert (extra["path"], extra["sha256"], extra["prompt"]) == (str(path), image["sha256"], PROMPT)


def test_a_picture_in_object_storage_has_its_sidecar_there(pictory, try_of, memory, tmp_path):
    where = f"memory://{tmp_path.name}/covers/a.png"
    image = try_of(path=where)
    with ObjectStoragePath(where).open("rb") as file:
        assert hashlib.sha256(file.read()).hexdigest() == image["sha256"]
    with ObjectStoragePath(f"{where}.json").open("rb") as file:
        assert Sidecar.from_json(file.read()).saved.sha256 == image["sha256"]
    assert try_of("second", path=where)["reused"] is True
    assert len(jobs(pictory)) == 1


# After a deferral ----------------------------------------------------------------------------------------


@pytest.fixture
def deferred(pictory, context, path):
    """Return the jobId and the deferral of a task whose job has ended since."""
    pictory.account.seconds = 60
    with pytest.raises(TaskDeferred) as deferral:
        saving(path).execute(context)
    assert beside(path)["state"] == "bought"
    (job,) = pictory.account.jobs.values()
    job.seconds = 0
    return job.job_id, deferral.value


def saving(path, **more):
    return GenerateImageOperator(task_id="cover", prompt=PROMPT, path=str(path), **more)


def event_of(job_id):
    return events.build(
        events.Ended(job_id, Job(job_id=job_id, status="completed", url="https://h/gone.png"), 0.0)
    )


def test_a_resumed_task_saves_at_its_rendered_path_with_a_valid_url(context, ti, path, deferred):
    job_id, deferral = deferred
    resumed = saving(path.with_name("rendered anew.png"))
    resumed.execute_complete(context, event_of(job_id), **deferral.kwargs)
    assert (beside(path)["state"], ti.xcoms["image"]["path"]) == ("saved", str(path))
    assert (ti.xcoms["image"]["prompt"], ti.xcoms["image"]["job_id"]) == (PROMPT, job_id)


def test_a_resumed_task_downloads_what_the_trigger_has_just_reported_without_a_poll(
    pictory, context, path, deferred
):
    _, deferral = deferred
    event = event_of_trigger(deferral)
    pictory.requests.clear()
    saving(path).execute_complete(context, event, **deferral.kwargs)
    assert {request.host for request in pictory.requests} == {"images"}
    assert beside(path)["state"] == "saved"


def test_a_resumed_task_whose_url_is_refused_asks_for_another(pictory, context, path, deferred):
    _, deferral = deferred
    event = event_of_trigger(deferral)
    pictory.requests.clear()
    pictory.script("picture", "server-error", status=403)
    saving(path).execute_complete(context, event, **deferral.kwargs)
    assert (len(pictory.polls), beside(path)["state"]) == (1, "saved")


@pytest.mark.parametrize("seconds", [-60, 301])
def test_a_resumed_task_polls_again_if_the_event_is_old_or_of_another_clock(
    pictory, context, path, deferred, seconds
):
    _, deferral = deferred
    event = event_of_trigger(deferral)
    event["at"] -= seconds
    pictory.requests.clear()
    saving(path).execute_complete(context, event, **deferral.kwargs)
    assert (len(pictory.polls), beside(path)["state"]) == (1, "saved")


def test_a_resumed_task_that_is_given_the_event_alone_saves_all_the_same(context, ti, path, deferred):
    """``dag.test()`` hands over nothing else."""
    job_id, _ = deferred
    saving(path).execute_complete(context, event_of(job_id))
    assert (beside(path)["state"], ti.xcoms["image"]["path"]) == ("saved", str(path))


@pytest.mark.parametrize("where", ["the store", "the sidecar", "the XCom"])
def test_a_deferral_that_airflow_ended_finds_its_job_in(where, pictory, context, store, ti, path, deferred):
    if where != "the store":
        store.rows.clear()
    if where == "the XCom":
        Path(f"{path}.json").unlink()
    saving(path).resume_execution("__fail__", {"error": "Trigger timeout"}, context)
    assert (beside(path)["state"], beside(path)["job_id"]) == ("saved", deferred[0])


# A retry, a clear, another run ---------------------------------------------------------------------------


def test_the_same_picture_is_bought_once_over_retries_clears_and_runs(pictory, try_of, path):
    first = try_of()
    requests_before = len(pictory.requests)
    again = [try_of(), try_of(clears=3), try_of("second"), try_of("third", clears=1)]
    assert [image["reused"] for image in again] == [False, True, True, True]
    assert {image["sha256"] for image in (first, *again)} == {digest(path)}
    assert [image["url"] for image in again] == [None] * 4
    assert len(pictory.requests) == requests_before, "and Pictory is not asked for anything"
    assert try_of.last.ti.xcoms["jobId"] == first["job_id"]


@pytest.mark.parametrize(
    "other",
    [
        {"prompt": "A lighthouse at dusk"},
        {"model": "nanobanana"},
        {"aspect_ratio": "16:9"},
        {"style": "vintage"},
        {"reference_image_url": "https://h/a.png"},
    ],
)
def test_another_request_at_the_same_path_is_refused_and_both_are_shown(pictory, try_of, path, other):
    try_of()
    before = digest(path)
    ((name, value),) = other.items()
    with pytest.raises(PictoryRequestInvalid, match=says(f"{value}.*{PROMPT}")):
        try_of("second", **other)
    with pytest.raises(PictoryRequestInvalid):
        try_of(clears=1, **other)
    assert (len(jobs(pictory)), digest(path)) == (1, before), name


def test_overwrite_buys_once_and_once_more_after_each_clear(pictory, try_of, path):
    def bought(**more):
        try_of(overwrite=True, **more)
        return len(jobs(pictory))

    assert [bought(), bought(), bought(clears=1), bought(clears=1), bought(run_id="second")] == [1, 1, 2, 2, 3]
    assert beside(path)["made_by"]["run_id"] == "second"


def test_a_picture_that_is_replaced_is_there_until_the_new_one_is(pictory, try_of, path):
    old = try_of(prompt="The old cover")["sha256"]
    pictory.plan("failed")
    with pytest.raises(PictoryJobFailed):
        try_of("second", overwrite=True, prompt="The new cover")
    assert digest(path) == old
    assert beside(path)["state"] == "bought", "which does not say that this is its picture"
    new = try_of("second", clears=1, overwrite=True, prompt="The new cover")["sha256"]
    assert digest(path) == new != old


def test_a_refused_purchase_leaves_the_old_picture_with_its_sidecar(pictory, try_of, path):
    try_of(prompt="The old cover")
    before = Path(f"{path}.json").read_bytes()
    pictory.script("submit", "rate-limited", retry_after="3600", times=-1)
    with pytest.raises(PictoryRateLimited):
        try_of("second", overwrite=True, prompt="The new cover")
    assert Path(f"{path}.json").read_bytes() == before


def test_a_refused_purchase_leaves_no_file_if_there_was_none(pictory, try_of, path):
    pictory.script("submit", "server-error", status=422)
    with pytest.raises(PictoryRequestInvalid):
        try_of()
    assert list(path.parent.iterdir()) == []


def test_a_picture_without_a_sidecar_is_left_alone(pictory, try_of, path):
    path.parent.mkdir()
    path.write_bytes(b"of somebody")
    with pytest.raises(PictoryRequestInvalid, match=says("a file of 11 bytes")):
        try_of()
    assert (jobs(pictory), path.read_bytes()) == ([], b"of somebody")
    try_of(overwrite=True)
    assert beside(path)["sha256"] == digest(path)


@pytest.mark.parametrize(
    "spoilt",
    [b"", b"{", b"[]", b'{"version": 2}', b"\xff\xfe", b'{"state": "saved"}'],
    ids=["empty", "cut short", "a list", "of a later release", "no text", "half"],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_sidecar_that_cannot_be_read_is_not_replaced(pictory, try_of, path, spoilt, overwrite):
    try_of("another")
    Path(f"{path}.json").write_bytes(spoilt)
    with pytest.raises(PictoryRequestInvalid, match=says("cannot be read")):
        try_of(overwrite=overwrite)
    assert (len(jobs(pictory)), Path(f"{path}.json").read_bytes()) == (1, spoilt)


@pytest.mark.parametrize("what", ["gone", "cut short", "longer"])
def test_a_picture_that_is_not_the_one_that_was_saved_is_no_hit(pictory, try_of, path, what):
    try_of("another")
    whole = path.read_bytes()
    path.unlink() if what == "gone" else path.write_bytes(whole[:-1] if what == "cut short" else whole + b" ")
    with pytest.raises(PictoryRequestInvalid, match=says("not the one that its sidecar describes")):
        try_of()
    assert len(jobs(pictory)) == 1


def test_a_picture_of_this_task_that_is_gone_is_saved_again_for_nothing(pictory, try_of, path):
    image = try_of()
    path.unlink()
    assert try_of(clears=1)["sha256"] == image["sha256"] == digest(path)
    assert len(jobs(pictory)) == 1


def test_a_job_that_another_run_has_bought_and_not_saved_is_adopted(pictory, try_of, path):
    first = try_of("first")
    bought = Sidecar.from_json(Path(f"{path}.json").read_bytes())
    path.unlink()
    Path(f"{path}.json").write_bytes(replace(bought, saved=None).to_json())
    assert try_of("second")["job_id"] == first["job_id"]
    assert (len(jobs(pictory)), beside(path)["made_by"]["run_id"]) == (1, "first")


def test_a_picture_that_another_task_is_buying_now_is_not_bought(pictory, try_of, path):
    path.parent.mkdir()
    intent = Sidecar(
        file="a.png",
        submission=Submission(max_tries=0, request={"prompt": PROMPT, "model": "seedream3.0"}),
        made_by=MadeBy("covers", "another", "cover", -1),
    )
    Path(f"{path}.json").write_bytes(intent.to_json())
    for overwrite in (False, True):
        with pytest.raises(PictoryUnavailable, match=says("run another")):
            try_of(overwrite=overwrite)
    assert (pictory.submissions, Path(f"{path}.json").read_bytes()) == ([], intent.to_json())


def test_two_tasks_that_check_at_the_same_moment_buy_one_picture_on_a_disk(pictory, try_of, path, monkeypatch):
    look = PictureTarget.inspect

    def looked(self):
        monkeypatch.setattr(PictureTarget, "inspect", look)
        seen = self.inspect()
        try_of("second")  # from beginning to end, right after the first has seen nothing
        return seen

    monkeypatch.setattr(PictureTarget, "inspect", looked)
    with pytest.raises(PictoryUnavailable, match=says("has just begun")):
        try_of("first")
    assert (len(jobs(pictory)), beside(path)["made_by"]["run_id"]) == (1, "second")
    assert try_of("first")["reused"] is True


def test_if_both_have_bought_both_pictures_are_saved(pictory, try_of, memory, tmp_path, monkeypatch):
    """Object storage cannot write a file only if it does not exist."""
    where, others = f"memory://{tmp_path.name}/a.png", []
    keep, is_first = SubmissionState.keep, iter([True])

    def kept(self, job_id, submitted_at=None):
        keep(self, job_id, submitted_at)
        if next(is_first, False):
            ObjectStoragePath(f"{where}.json").unlink()  # the other task checked before it existed
            others.append(try_of("second", path=where, prompt="Another lighthouse"))

    monkeypatch.setattr(SubmissionState, "keep", kept)
    mine, (other,) = try_of("first", path=where), others
    assert len(jobs(pictory)) == 2
    assert (other["path"], mine["path"]) == (where, where.replace("a.png", f"a.{mine['job_id']}.png"))
    for image in (mine, other):
        with ObjectStoragePath(image["path"]).open("rb") as file:
            assert hashlib.sha256(file.read()).hexdigest() == image["sha256"]
        with ObjectStoragePath(image["path"] + ".json").open("rb") as file:
            assert Sidecar.from_json(file.read()).submission.job_id == image["job_id"]


def test_a_file_that_someone_puts_there_meanwhile_is_left_alone(pictory, try_of, path, monkeypatch):
    keep = SubmissionState.keep

    def kept(self, job_id, submitted_at=None):
        keep(self, job_id, submitted_at)
        path.write_bytes(b"of somebody")

    monkeypatch.setattr(SubmissionState, "keep", kept)
    image = try_of()
    assert path.read_bytes() == b"of somebody"
    assert image["path"] == str(path.with_name(f"a.{image['job_id']}.png"))
    assert digest(image["path"]) == image["sha256"] == beside(image["path"])["sha256"]
    assert not Path(f"{path}.json").exists(), "it would tell of a picture that is not there"


# What fails after the purchase ---------------------------------------------------------------------------


def test_an_unknown_outcome_says_how_to_adopt_and_does_not_buy_again(pictory, try_of, path):
    pictory.script("submit", "drop-after")
    with pytest.raises(PictorySubmitOutcomeUnknown):
        try_of()
    assert beside(path)["state"] == "intent"
    with pytest.raises(PictorySubmitOutcomeUnknown):
        try_of()
    with pytest.raises(PictoryUnavailable, match=says("run first")):
        try_of("second")
    assert len(jobs(pictory)) == 1
    if not try_of.has_store:
        said = beside(path)
        Path(f"{path}.json").write_text(json.dumps({**said, "job_id": jobs(pictory)[0]}))
        assert try_of(clears=1)["sha256"] == digest(path)
        assert len(jobs(pictory)) == 1


def test_a_full_disk_that_is_mended_costs_nothing_more(pictory, try_of, path, monkeypatch):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write_all(self, *arguments):
        with self._errors():
            raise full

    with monkeypatch.context() as disk:
        disk.setattr(Target, "_fill", write_all)
        with pytest.raises(PictoryStorageFailed, match=says("No space left")):
            try_of()
    assert beside(path)["state"] == "bought"
    assert try_of()["sha256"] == digest(path)
    assert len(jobs(pictory)) == 1


def test_a_folder_that_cannot_be_written_is_found_before_anything_is_spent(pictory, try_of, path):
    path.parent.write_bytes(b"a file where the folder should be")
    with pytest.raises(PictoryRequestInvalid, match=says("needs a folder, but this is not one.*Nothing was sent")):
        try_of()
    assert pictory.submissions == []


@pytest.mark.parametrize("wrong", ["a.png", "", "None", "/srv/", "s4://bucket/a.png", "file://host/a.png"])
def test_a_path_that_no_picture_can_have_is_refused_before_anything_is_spent(pictory, try_of, wrong):
    with pytest.raises(PictoryRequestInvalid, match=says("path")):
        try_of(path=wrong)
    assert pictory.submissions == []


def test_a_folder_at_the_path_is_refused(pictory, try_of, path):
    path.mkdir(parents=True)
    with pytest.raises(PictoryRequestInvalid, match=says("is a folder")):
        try_of()
    assert pictory.submissions == []


def test_a_picture_whose_job_failed_is_bought_again_only_after_a_clear(pictory, try_of, path):
    pictory.plan("failed")
    with pytest.raises(PictoryJobFailed):
        try_of()
    assert try_of(clears=1)["sha256"] == digest(path)
    assert len(jobs(pictory)) == 2


def test_after_a_failed_job_the_prompt_can_be_changed(pictory, try_of, path):
    pictory.plan("failed")
    with pytest.raises(PictoryJobFailed):
        try_of(prompt="A prompt that fails")
    assert try_of(clears=1)["prompt"] == PROMPT
    assert (beside(path)["request"]["prompt"], len(jobs(pictory))) == (PROMPT, 2)


def test_a_retry_keeps_the_path_of_the_attempt_that_bought(pictory, context, store, ti, path):
    pictory.account.seconds = 60
    with pytest.raises(TaskDeferred):
        saving(path).execute(context)
    next(iter(pictory.account.jobs.values())).seconds = 0
    saving(path.with_name("b.png"), deferrable=False).execute(context)
    assert (ti.xcoms["image"]["path"], store.get(KEY)["path"]) == (str(path), str(path))
    assert [file.name for file in path.parent.iterdir() if file.suffix == ".png"] == ["a.png"]


def test_after_a_clear_a_paid_picture_goes_to_the_new_path(pictory, context, ti, path):
    pictory.account.seconds = 60
    with pytest.raises(TaskDeferred):
        saving(path).execute(context)
    next(iter(pictory.account.jobs.values())).seconds = 0
    ti.max_tries += 3
    saving(path.with_name("b.png"), deferrable=False).execute(context)
    assert ti.xcoms["image"]["path"].endswith("b.png")
    assert len(jobs(pictory)) == 1


# Marks ---------------------------------------------------------------------------------------------------


def test_a_mark_that_is_requested_later_is_written_into_the_existing_picture(pictory, try_of, path):
    plain = try_of()
    before = path.read_bytes()
    marked = try_of("second", mark_ai_generated=True)
    assert mark() in path.read_bytes()
    assert (marked["size"], marked["sha256"]) == (len(before) + len(mark()), digest(path))
    assert (beside(path)["marks"], beside(path)["sha256"]) == (["xmp"], marked["sha256"])
    assert try_of("third")["sha256"] == marked["sha256"] != plain["sha256"]
    assert len(jobs(pictory)) == 1


@pytest.mark.parametrize("is_placed", [False, True])
def test_a_crash_while_a_picture_is_marked_leaves_a_sidecar_that_is_true_and_is_mended(
    pictory, try_of, path, monkeypatch, is_placed
):
    plain, place = try_of(), Target.place

    def struck(self, received, *, overwrite):
        if is_placed:
            place(self, received, overwrite=overwrite)
        raise KeyboardInterrupt

    with monkeypatch.context() as crash:
        crash.setattr(Target, "place", struck)
        with pytest.raises(KeyboardInterrupt):
            try_of("second", mark_ai_generated=True)
    assert beside(path)["state"] == "bought", "it does not say which of the two lies there"
    marked = try_of("third", mark_ai_generated=True)
    assert marked["sha256"] == digest(path) == beside(path)["sha256"] != plain["sha256"]
    assert (marked["path"], len(jobs(pictory))) == (str(path), 1)


def test_a_picture_that_is_marked_from_the_first_says_so(pictory, try_of, path):
    image = try_of(mark_ai_generated=True)
    assert (beside(path)["marks"], image["sha256"]) == (["xmp"], digest(path))


# What is on record of a request --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "odd",
    [
        {"seed": 7},
        {"loras": [{"name": "a", "weight": 0.5}], "upscale": None},
        {"model": ["newer"], "prompt": {"text": "A lighthouse"}, "referenceImageUrl": 7},
    ],
)
@pytest.mark.parametrize("is_long", [False, True])
def test_a_job_on_record_of_any_request_is_saved_and_its_sidecar_can_be_read_ever_after(
    pictory, context, store, ti, path, odd, is_long
):
    """Its record was written by hand, or by a release that knows more."""
    request = {"prompt": PROMPT, "model": "flux-schnell", **odd, **({"more": list(range(999))} if is_long else {})}
    with PictoryHook() as hook:
        job_id = hook.generate_image(PROMPT, model="flux-schnell")
    store.set(KEY, {"jobId": job_id, "request": request, "max_tries": 2, "submitted_at": 1.0, "fingerprint": "f"})
    cover = saving(path, deferrable=False)
    cover.execute(context)
    assert (beside(path)["state"], beside(path)["request"]) == ("saved", request)
    saving(path, deferrable=False).execute(context)
    other = TaskInstance()
    other.run_id = "another"
    with pytest.raises(PictoryRequestInvalid, match=says("it is taken by another request")):
        saving(path, deferrable=False).execute({"ti": other, "task_state_store": StateStore()})
    assert len(pictory.submissions) == 1
