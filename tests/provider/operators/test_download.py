# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Saving a picture: whole, checked, in one step, or not at all."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import fsspec
import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath
from airflow.sdk import Asset
from airflow.sdk.execution_time.context import OutletEventAccessors

from pictory_provider.exceptions import (
    PictoryImageInvalid,
    PictoryJobCleaned,
    PictoryJobFailed,
    PictoryJobNotFound,
    PictoryProtocolError,
    PictoryRequestInvalid,
    PictoryStorageFailed,
    PictoryUnavailable,
)
from pictory_provider.hooks.pictory import PictoryHook
from pictory_provider.operators.pictory import DownloadImageOperator
from pictory_provider.simulator import Simulator
from pictory_provider.storage import files as store
from tests.stand_ins import says


def url_of(job_id):
    with PictoryHook() as hook:
        return hook.get_job(job_id).url


@pytest.fixture
def job_id(hook, pictory):
    return hook.generate_image("A lighthouse at dawn", model="flux-schnell", aspect_ratio="16:9")


def save(context, path, **more):
    return DownloadImageOperator(task_id="save", path=str(path), **more).execute(context)


def test_a_picture_is_saved_and_described(context, hook, job_id, tmp_path):
    path = tmp_path / "made" / "on the way" / "cover.png"
    saved = save(context, path, job_id=job_id)
    content = path.read_bytes()
    assert saved == {
        **hook.get_job(job_id).record(),
        "path": str(path),
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    assert os.listdir(path.parent) == ["cover.png"]


def test_the_file_has_the_permissions_of_any_other_new_file(context, job_id, tmp_path):
    (tmp_path / "plain").touch()
    save(context, tmp_path / "a.png", job_id=job_id)
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "a.png")}
    assert len(modes) == 1


def test_the_key_is_not_sent_to_the_pictures_host(context, pictory, job_id, tmp_path):
    save(context, tmp_path / "a.png", job_id=job_id)
    (download,) = [request for request in pictory.requests if request.host == "images"]
    assert download.status == 200
    assert pictory.api_key not in str(download.headers)


def test_the_key_does_not_follow_a_redirect_to_another_host(context, pictory, job_id, tmp_path):
    with Simulator(seconds=0) as elsewhere:
        pictory.script("picture", "redirect", to=elsewhere.reference_image_url)
        assert save(context, tmp_path / "a.png", job_id=job_id)["width"] == 1024
        (followed,) = elsewhere.requests
    assert pictory.api_key not in str(followed.headers)


def test_a_url_is_saved_without_asking_for_the_job(context, pictory, job_id, tmp_path):
    url = url_of(job_id)
    pictory.requests.clear()
    saved = save(context, tmp_path / "a.png", url=url)
    assert (saved["job_id"], saved["status"], saved["ai_credits_used"]) == (None, None, None)
    assert (saved["width"], saved["height"], saved["url"]) == (1280, 720, url)
    assert [request.host for request in pictory.requests] == ["images"]


@pytest.mark.parametrize(
    ("fault", "options", "why"),
    [
        ("truncated", {}, "cut short"),
        ("drop-during", {"times": -1}, "cut short"),
        ("not-a-png", {}, "not a picture"),
        ("damaged", {}, "damaged"),
    ],
)
def test_an_incomplete_picture_is_not_saved(
    context, pictory, job_id, tmp_path, impatient, fault, options, why, timing
):
    timing(read_budget=0.05)
    pictory.script("picture", fault, **options)
    with pytest.raises(PictoryImageInvalid, match=why):
        save(context, tmp_path / "a.png", job_id=job_id)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("fault", "why", "begins"),
    [
        ("wrong-size", "it has 640x640 pixels, and Pictory promised 1280x720", b"\x89PNG"),
        ("jpeg", "it is a JPEG file and not a PNG", b"\xff\xd8\xff"),
        ("webp", "it is a WebP file and not a PNG", b"RIFF"),
        ("trailing", "1 byte follows its end", b"\x89PNG"),
    ],
)
def test_a_complete_picture_that_is_not_what_was_promised_is_saved_with_a_warning(
    context, pictory, job_id, tmp_path, mocker, fault, why, begins
):
    warning = mocker.patch.object(PictoryHook, "log").warning
    pictory.script("picture", fault)
    saved = save(context, tmp_path / "a.png", job_id=job_id)
    content = (tmp_path / "a.png").read_bytes()
    assert content.startswith(begins)
    assert (saved["size"], saved["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert (saved["width"], saved["height"]) == ((640, 640) if fault == "wrong-size" else (1280, 720))
    assert why in warning.call_args.args[2]


@pytest.mark.parametrize("fault", ["drop-before", "drop-during", "server-error", "rate-limited"])
def test_a_download_is_repeated_after_a_fault_that_may_pass(context, pictory, job_id, tmp_path, impatient, fault):
    pictory.script("picture", fault, times=2)
    assert save(context, tmp_path / "a.png", job_id=job_id)["width"] == 1280
    assert os.listdir(tmp_path) == ["a.png"]


def test_a_picture_that_drips_for_ever_is_given_up(context, pictory, job_id, tmp_path, impatient, timing):
    timing(read_budget=0.0, download=0.2)
    pictory.script("picture", "drip", seconds=0.05)
    with pytest.raises(PictoryImageInvalid, match=says("the reply is too slow")):
        save(context, tmp_path / "a.png", job_id=job_id)
    assert os.listdir(tmp_path) == []


def test_a_picture_larger_than_allowed_is_not_saved(context, job_id, tmp_path, monkeypatch):
    with pytest.raises(PictoryImageInvalid, match=says("max_bytes, 1,000 bytes")):
        save(context, tmp_path / "a.png", job_id=job_id, max_bytes=1_000)
    monkeypatch.setattr("pictory_provider.client.sync._head", headers_without_length)
    with pytest.raises(PictoryImageInvalid, match=says("max_bytes, 1,000 bytes")):
        save(context, tmp_path / "a.png", job_id=job_id, max_bytes=1_000)
    assert os.listdir(tmp_path) == []


def headers_without_length(reply):
    from pictory_provider.api.responses import Response

    return Response(reply.status_code, {}, b"")


def test_the_same_bytes_already_there_are_a_success(context, job_id, tmp_path):
    path = tmp_path / "a.png"
    first = save(context, path, job_id=job_id)
    written = path.stat().st_mtime_ns
    assert save(context, path, job_id=job_id) == first
    assert path.stat().st_mtime_ns == written


def test_something_else_already_there_is_left_alone_unless_overwrite_is_set(context, job_id, tmp_path):
    path = tmp_path / "a.png"
    path.write_text("precious")
    with pytest.raises(PictoryRequestInvalid, match=r"already\s+exists\s+and\s+is\s+another\s+file") as caught:
        save(context, path, job_id=job_id)
    assert caught.value.fields == ("path",)
    assert path.read_text() == "precious"
    save(context, path, job_id=job_id, overwrite=True)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert os.listdir(tmp_path) == ["a.png"]


def test_a_file_system_without_hard_links_is_written_all_the_same(context, job_id, tmp_path, monkeypatch):
    def link(*_):
        raise PermissionError(store.errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(store.os, "link", link)
    path = tmp_path / "a.png"
    save(context, path, job_id=job_id)
    assert path.read_bytes().startswith(b"\x89PNG")
    path.write_text("precious")
    with pytest.raises((PictoryRequestInvalid, PictoryStorageFailed)):
        save(context, path, job_id=job_id)
    assert path.read_text() == "precious"


@pytest.mark.parametrize("path", ["a.png", "./a.png", "", "None", "file://relative.png"])
def test_a_relative_path_is_refused_before_any_request(context, pictory, job_id, path):
    pictory.requests.clear()
    with pytest.raises(PictoryRequestInvalid) as caught:
        save(context, path, job_id=job_id)
    assert caught.value.fields == ("path",)
    assert pictory.requests == []


def test_storage_that_airflow_does_not_know_is_reported_before_any_request(context, pictory, job_id):
    pictory.requests.clear()
    with pytest.raises(PictoryRequestInvalid, match=says("no filesystem for")):
        save(context, "gs://bucket/a.png", job_id=job_id)
    assert pictory.requests == []


def test_a_folder_that_cannot_be_made_is_reported_with_its_cause(context, job_id, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(PictoryStorageFailed, match=says("still at Pictory")):
        save(context, tmp_path / "file" / "a.png", job_id=job_id)


def test_a_folder_that_cannot_be_written_is_reported_with_its_cause(context, job_id):
    with pytest.raises(PictoryStorageFailed, match=says(r"could not be written to '/proc/a.png'")):
        save(context, "/proc/a.png", job_id=job_id)


def test_a_file_url_is_a_local_path(context, job_id, tmp_path):
    save(context, (tmp_path / "a b.png").as_uri(), job_id=job_id)
    assert os.listdir(tmp_path) == ["a b.png"]


def test_object_storage_takes_a_picture_once(context, job_id, memory):
    path = f"memory://bucket/{job_id}/cover.png"
    saved = save(context, path, job_id=job_id)
    stored = ObjectStoragePath(path)
    with stored.open("rb") as file:
        assert hashlib.sha256(file.read()).hexdigest() == saved["sha256"]
    assert save(context, path, job_id=job_id) == saved
    with stored.open("wb") as file:
        file.write(b"precious")
    with pytest.raises(PictoryRequestInvalid, match=r"already\s+exists\s+and\s+is\s+another\s+file"):
        save(context, path, job_id=job_id)
    assert save(context, path, job_id=job_id, overwrite=True) == saved


def test_folders_are_made_in_a_storage_that_has_them(context, job_id, tmp_path):
    save(context, f"local://{tmp_path}/made/on the way/a.png", job_id=job_id)
    assert os.listdir(tmp_path / "made" / "on the way") == ["a.png"]


def test_a_bucket_that_does_not_exist_is_not_made(context, job_id):
    with pytest.raises(PictoryStorageFailed, match=says("could not be written")):
        save(context, "local:///no-such-bucket/a.png", job_id=job_id)
    assert not Path("/no-such-bucket").exists()


@pytest.mark.parametrize("arguments", [{}, {"job_id": "j", "url": "https://h/a.png"}])
def test_either_a_job_or_a_url_is_needed(context, tmp_path, arguments):
    with pytest.raises(PictoryRequestInvalid, match=says("either job_id or url")):
        save(context, tmp_path / "a.png", **arguments)


@pytest.mark.parametrize("url", ["a.png", "ftp://h/a.png", "None"])
def test_a_url_that_is_none_is_refused(context, pictory, tmp_path, url):
    with pytest.raises(PictoryRequestInvalid):
        save(context, tmp_path / "a.png", url=url)


@pytest.mark.parametrize(
    ("fate", "error"),
    [
        ("failed", PictoryJobFailed),
        ("cleaned", PictoryJobCleaned),
        ("no-url", PictoryProtocolError),
        ("stuck", PictoryUnavailable),
        ("unknown-status", PictoryUnavailable),
    ],
)
def test_a_job_without_a_picture_says_why(context, hook, pictory, tmp_path, fate, error, timing):
    timing(missing_url=0.0)
    pictory.plan(fate)
    with pytest.raises(error):
        save(context, tmp_path / "a.png", job_id=hook.generate_image("A lighthouse"))


def test_a_job_that_pictory_does_not_know_yet_is_polled_again(context, hook, pictory, tmp_path, timing):
    timing(poll_interval_recommended=0.05)
    pictory.plan(missing_seconds=0.2)
    save(context, tmp_path / "a.png", job_id=hook.generate_image("A lighthouse"))
    assert os.listdir(tmp_path) == ["a.png"]


def test_a_job_that_pictory_never_knows_is_reported_after_its_grace_period(context, pictory, tmp_path, timing):
    timing(poll_interval_recommended=0.02, unknown_job=0.5)
    with pytest.raises(PictoryJobNotFound):
        save(context, tmp_path / "a.png", job_id="no-such-job")
    assert len(pictory.polls) > 1


def test_a_completed_job_without_a_url_is_polled_again(context, hook, pictory, tmp_path, monkeypatch, timing):
    timing(poll_interval_recommended=0.05)
    pictory.plan("no-url")
    job_id = hook.generate_image("A lighthouse")

    def arrive(_):
        pictory.account.jobs[job_id].fate = "completed"

    monkeypatch.setattr("time.sleep", arrive)
    save(context, tmp_path / "a.png", job_id=job_id)
    assert os.listdir(tmp_path) == ["a.png"]


def test_a_running_job_is_reported_at_the_first_poll(context, hook, pictory, tmp_path):
    pictory.plan("stuck")
    job_id = hook.generate_image("A lighthouse")
    pictory.requests.clear()
    with pytest.raises(PictoryUnavailable, match=says("Put a PictoryJobSensor before the download")):
        save(context, tmp_path / "a.png", job_id=job_id)
    assert len(pictory.polls) == 1


@pytest.mark.parametrize("path", ["file://host/srv/a.png", "file:///srv/a.png?b", "file:///srv/a#b.png"])
def test_a_file_url_that_names_another_file_than_it_seems_to_is_refused(context, pictory, job_id, path):
    pictory.requests.clear()
    with pytest.raises(PictoryRequestInvalid, match=says("is a file URL with a host")) as caught:
        save(context, path, job_id=job_id)
    assert caught.value.fields == ("path",)
    assert pictory.requests == []


@pytest.mark.parametrize("name", ["a#b.png", "a?b.png", "a%20b.png", "über alles.png"])
def test_every_character_of_a_plain_path_and_of_an_object_is_part_of_its_name(
    context, job_id, tmp_path, memory, name
):
    save(context, tmp_path / name, job_id=job_id)
    assert os.listdir(tmp_path) == [name]
    save(context, f"memory://bucket/{job_id}/{name}", job_id=job_id)
    files = fsspec.filesystem("memory").ls(f"/bucket/{job_id}", detail=False)
    assert [file.rsplit("/", 1)[1] for file in files] == [name]


def test_an_expired_url_says_what_to_do_and_hides_its_query(context, pictory, tmp_path):
    url = f"{pictory.images_url}/images/user/a/gone.png?Signature=secret"
    with pytest.raises(PictoryImageInvalid, match=says("for a download, pass job_id instead of url")) as caught:
        save(context, tmp_path / "a.png", url=url)
    assert "secret" not in str(caught.value)


def test_the_query_of_a_url_is_in_no_error_of_a_lost_connection(context, pictory, tmp_path, impatient, timing):
    timing(read_budget=0.02)
    with pytest.raises(PictoryUnavailable) as caught:
        save(context, tmp_path / "a.png", url="http://127.0.0.1:1/a.png?Signature=secret")
    error: BaseException | None = caught.value
    while error:
        assert "secret" not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_the_saved_file_is_reported_to_lineage(context, pictory, job_id, tmp_path, mocker):
    collector = mocker.patch("airflow.providers.common.compat.sdk.get_hook_lineage_collector").return_value
    save(context, tmp_path / "a.png", job_id=job_id)
    assert collector.add_output_asset.call_args.kwargs["uri"] == f"file://{tmp_path}/a.png"


def test_lineage_names_the_file_as_it_is_called_on_disk(context, job_id, tmp_path, mocker):
    collector = mocker.patch("airflow.providers.common.compat.sdk.get_hook_lineage_collector").return_value
    path = tmp_path / "manual__2026-11-21T04:15:34+00:00" / "über 100%.png"
    save(context, path, job_id=job_id)
    assert collector.add_output_asset.call_args.kwargs["uri"] == f"file://{path}"


def test_a_picture_that_cannot_be_reported_to_lineage_is_still_saved(context, job_id, tmp_path, mocker):
    collector = mocker.patch("airflow.providers.common.compat.sdk.get_hook_lineage_collector").return_value
    collector.add_output_asset.side_effect = RuntimeError("the collector is away")
    assert save(context, tmp_path / "a.png", job_id=job_id)["path"] == str(tmp_path / "a.png")


def test_the_event_of_an_asset_has_the_record_without_the_query_of_the_url(context, pictory, hook, tmp_path):
    pictory.shape("url", "signed")
    job_id = hook.generate_image("A lighthouse at dawn")
    cover, other = Asset("cover"), Asset("other")
    events = context["outlet_events"] = OutletEventAccessors()
    saved = save(context, tmp_path / "a.png", job_id=job_id, outlets=[cover])
    assert "?" in saved["url"]
    assert events[cover].extra == {**saved, "url": saved["url"].partition("?")[0]}
    assert events[other].extra == {}


def test_an_outlet_that_is_no_asset_costs_no_picture(context, job_id, tmp_path):
    context["outlet_events"] = OutletEventAccessors()
    save(context, tmp_path / "a.png", job_id=job_id, outlets=["cover"])
    assert (tmp_path / "a.png").exists()


def test_the_credits_of_a_job_are_counted_by_the_wait_and_not_by_its_download_again(
    context, hook, pictory, tmp_path, mocker
):
    counted = mocker.patch("pictory_provider.telemetry.Stats.incr")
    job = hook.wait_for_job(hook.generate_image("A lighthouse"))
    save(context, tmp_path / "a.png", job_id=job.job_id)
    used = [call.kwargs for call in counted.call_args_list if call.args == ("pictory.credits_used",)]
    assert used == [{"count": job.ai_credits_used}]
