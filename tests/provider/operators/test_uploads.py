# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""``reference_upload``: a local picture is uploaded right before the request that needs it, and once for each content."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import shutil

import fsspec
import pytest
from airflow.sdk.io import attach
from PIL import Image

from pictory_provider.api.checks import upload_name
from pictory_provider.client.sync import SyncClient
from pictory_provider.client.throttle import ThreadRateLimiter
from pictory_provider.core import submission
from pictory_provider.decorators.pictory import pictory_image
from pictory_provider.exceptions import (
    PictoryBudgetExceeded,
    PictoryProtocolError,
    PictoryRequestInvalid,
    PictoryUnavailable,
)
from pictory_provider.hooks.pictory import PictoryHook
from pictory_provider.operators.pictory import GenerateImageOperator
from pictory_provider.services.uploads import KEY
from pictory_provider.storage import references
from tests.driver import Attempts
from tests.provider.batches import Tries, entries, lines
from tests.stand_ins import says

PROMPT = "The lamp of the referenced image on a desk"


def picture(kind="PNG", colour="red", size=(8, 8)):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, kind)
    return buffer.getvalue()


def digest(content):
    return hashlib.sha256(content).hexdigest()


def told(error):
    return " ".join(str(error.value).split())


@pytest.fixture(autouse=True)
def _impatient(impatient, timing):
    timing(read_budget=0.1)


@pytest.fixture
def lamp(tmp_path):
    file = tmp_path / "refs" / "lamp.png"
    file.parent.mkdir()
    file.write_bytes(picture())
    return file


@pytest.fixture
def one(fast, folder, lamp):
    """Return a function that makes the attempts of a single task."""

    def make(*, has_store=True, run_id="first", **kwargs):
        def task(**changes):
            fields = {
                "prompt": PROMPT,
                "reference_image_url": str(lamp),
                "reference_upload": True,
                "path": str(folder / "lamp.png"),
                "deferrable": False,
                "poll_interval": 0.02,
            }
            return GenerateImageOperator(task_id="one", **(fields | kwargs | changes))

        return Attempts(task, run_id=run_id, has_store=has_store)

    return make


def sent(pictory):
    """Return the reference images of the jobs, as Pictory got them."""
    return [post.body.get("referenceImageUrl") for post in pictory.submissions]


def steps(pictory):
    names = {
        ("POST", "/v1/media/generateurl"): "ask",
        ("POST", "/v1/aistudio/images"): "buy",
    }
    found = []
    for each in pictory.requests:
        if each.path.startswith("/public/") and each.headers.get("User-Agent", "").startswith("airflow"):
            found.append(each.method)
        elif (each.method, each.path) in names:
            found.append(names[each.method, each.path])
    return found


def kept(folder):
    """Return what is kept of each uploaded picture, by its digest."""
    found = (folder / ".pictory" / "uploads").glob("*.json")
    return {file.stem: json.loads(file.read_text()) for file in found if file.stem != "names"}


def test_a_local_file_is_uploaded_and_its_public_url_is_sent(fast, folder, lamp, one):
    one()()
    assert steps(fast) == ["ask", "PUT", "buy"]
    (job,) = fast.account.jobs.values()
    assert job.reference is not None
    (put,) = fast.uploads
    assert put.headers["Content-Type"] == "image/png"
    assert "Authorization" not in put.headers
    ((sha256, value),) = kept(folder).items()
    assert sha256 == digest(lamp.read_bytes())
    assert [value["url"]] == sent(fast)


def test_records_name_an_upload_by_its_content_and_its_url_is_in_no_other_file(fast, folder, lamp, one):
    attempts = one()
    attempts()
    (url,) = sent(fast)
    sidecar = json.loads((folder / "lamp.png.json").read_text())
    assert sidecar["request"]["referenceImageUrl"] == upload_name("lamp.png", digest(lamp.read_bytes()))
    having = [file.name for file in folder.rglob("*") if file.is_file() and url.encode() in file.read_bytes()]
    assert having == [f"{digest(lamp.read_bytes())}.json"]
    assert url not in json.dumps([attempts.store.rows, attempts.ti.xcoms])


def test_the_content_type_is_that_of_the_bytes_whatever_the_name_says(fast, lamp, one):
    lamp.write_bytes(picture("JPEG"))
    one()()
    assert fast.uploads[0].headers["Content-Type"] == "image/jpeg"
    assert fast.uploads[0].path.endswith("/lamp.jpg")


@pytest.mark.parametrize("name", ["Lämpchen & Söhne (1).png", "?.png", "#", "%2F.png", "a" * 200 + ".png"])
def test_any_file_name_can_be_uploaded(fast, lamp, one, name):
    file = lamp.rename(lamp.with_name(name))
    one(reference_image_url=str(file))()
    assert fast.account.jobs.popitem()[1].reference is not None


# What is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["{}", "file://{}"])
@pytest.mark.parametrize("choice", [False, "False"])
def test_without_the_argument_a_local_file_is_refused_and_the_error_names_it(fast, lamp, one, form, choice):
    with pytest.raises(PictoryRequestInvalid) as refused:
        one(reference_image_url=form.format(lamp), reference_upload=choice)()
    assert "is a local file, and Pictory reads only public http(s) URLs" in told(refused)
    assert "set reference_upload=True. Everyone who has the URL of an uploaded picture can see it" in told(refused)
    assert fast.requests == []


def test_an_argument_that_is_neither_true_nor_false_is_refused(fast, one):
    with pytest.raises(PictoryRequestInvalid, match="reference_upload is 'perhaps'"):
        one(reference_upload="perhaps")()
    assert fast.requests == []


BAD = {
    "is empty": b"",
    "is not a complete picture.": picture()[:-20],
    "is not a complete picture. This is": b"GIF89a" + bytes(100),
    "is not a complete picture. The": picture("JPEG", size=(64, 64))[:-50],
    "is a WebP file": picture("WEBP"),
    "has more than 20,971,520 bytes": picture() + bytes(20 * 1024 * 1024),
}


@pytest.mark.parametrize("problem", BAD)
@pytest.mark.parametrize("plan_only", [False, True])
def test_what_cannot_be_uploaded_is_refused_before_anything_is_sent(fast, folder, lamp, one, problem, plan_only):
    lamp.write_bytes(BAD[problem])
    with pytest.raises(PictoryRequestInvalid) as refused:
        one(plan_only=plan_only)()
    assert f"reference_image_url '{lamp}' {problem}" in told(refused)
    assert "Nothing was sent and nothing was spent" in told(refused)
    assert steps(fast) == []
    assert not folder.exists()


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("{folder}/none.png", "does not exist"),
        ("{folder}", "is a folder"),
        ("{folder}/", "is a folder"),
        ("{folder}/link.png", "is a broken symbolic link"),
        ("{folder}/a\0.png", "contains a NUL character"),
        ("refs/lamp.png", "is relative"),
        ("file://host/lamp.png", "is a file URL with a host"),
        ("upload:lamp.png?sha256=" + "0" * 64, "is relative"),
        ("", "is missing"),
        ("None", "is missing"),
        ("/" + "a" * 300, "does not exist"),
    ],
)
def test_a_path_that_is_not_a_file_is_refused(fast, lamp, one, url, problem):
    (lamp.parent / "link.png").symlink_to("nowhere")
    with pytest.raises(PictoryRequestInvalid, match=says(problem)):
        one(reference_image_url=url.format(folder=lamp.parent))()
    assert steps(fast) == []


def test_the_name_of_an_upload_is_not_a_reference_image(fast, one):
    url = upload_name("lamp.png", "0" * 64)
    with pytest.raises(PictoryRequestInvalid, match="is the name of an upload in records, and not a file"):
        one(reference_image_url=url, reference_upload=False)()
    assert steps(fast) == []


def test_a_limit_is_checked_before_the_picture_is_made_public(fast, monkeypatch, one):
    monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", fast.connection_json(credits_reserve=22_000))
    with pytest.raises(PictoryBudgetExceeded):
        one()()
    assert steps(fast) == []


def test_a_file_that_changes_before_its_upload_is_not_uploaded(fast, lamp, folder):
    @pictory_image(reference_image_url=str(lamp), reference_upload=True, path=str(folder / "a.png"))
    def changes_it():
        lamp.write_bytes(picture(colour="blue"))
        return PROMPT

    with pytest.raises(PictoryRequestInvalid, match=says("has changed while the task was running")):
        Attempts(lambda: changes_it().operator)()
    assert steps(fast) == []


# Once for each content -----------------------------------------------------------------------------------


def test_a_picture_that_is_reused_uploads_nothing(fast, lamp, one):
    one()()
    one(run_id="another", reference_image_url=f"file://{lamp}")()
    assert steps(fast) == ["ask", "PUT", "buy"]


def test_the_same_bytes_by_the_same_name_are_one_request_on_any_machine(fast, tmp_path, lamp, one):
    one()()
    other = tmp_path / "another machine" / "lamp.png"
    other.parent.mkdir()
    lamp.rename(other)
    attempts = one(run_id="another", reference_image_url=str(other))
    attempts()
    assert attempts.ti.xcoms["image"]["reused"] is True


def test_other_bytes_by_the_same_name_are_another_request(fast, lamp, one):
    one()()
    lamp.write_bytes(picture(colour="blue"))
    with pytest.raises(PictoryRequestInvalid, match=says("is taken by another request")):
        one(run_id="another")()
    one(run_id="another", overwrite="changed")()
    assert steps(fast) == ["ask", "PUT", "buy"] * 2


def test_an_upload_is_used_again_once_its_host_has_confirmed_it(fast, folder, one):
    one()()
    one(path=str(folder / "second.png"))()
    assert steps(fast) == ["ask", "PUT", "buy", "HEAD", "buy"]
    assert len(set(sent(fast))) == 1


@pytest.mark.parametrize(
    ("fault", "options"),
    [
        ("server-error", {"status": 403}),
        ("server-error", {"status": 404}),
        ("unavailable", {}),
        ("drop-before", {}),
        ("redirect", {}),
    ],
)
def test_an_upload_that_its_host_does_not_confirm_is_made_again(fast, folder, one, fault, options):
    one()()
    fast.script("uploaded", fault, **options)
    one(path=str(folder / "second.png"))()
    assert steps(fast) == ["ask", "PUT", "buy", "HEAD", "ask", "PUT", "buy"]
    one(path=str(folder / "third.png"))()
    assert sent(fast)[2] == sent(fast)[1] != sent(fast)[0]


@pytest.mark.parametrize(
    "changes",
    [
        None,
        {"version": 2},
        {"url": None},
        {"url": "file:///etc/passwd"},
        {"url": "http://169.254.169.254/latest"},
        {"size": 1},
    ],
)
def test_an_upload_on_record_that_cannot_be_trusted_is_made_again(fast, folder, one, changes):
    one()()
    (file,) = (folder / ".pictory" / "uploads").iterdir()
    file.write_text("{" if changes is None else json.dumps(json.loads(file.read_text()) | changes))
    one(path=str(folder / "second.png"))()
    assert [step for step in steps(fast) if step != "HEAD"] == ["ask", "PUT", "buy"] * 2


def test_a_folder_that_cannot_keep_the_url_costs_only_another_upload(fast, folder, one, logged):
    (folder / ".pictory").mkdir(parents=True)
    (folder / ".pictory" / "uploads").write_text("a file")
    one()()
    assert "so a later attempt uploads it again" in logged()
    one(path=str(folder / "second.png"))()
    assert steps(fast) == ["ask", "PUT", "buy"] * 2


def test_without_a_path_the_url_is_kept_in_the_state_store(fast, lamp, one):
    attempts = one(path=None)
    attempts()
    assert attempts.store.get(KEY)["sha256"] == digest(lamp.read_bytes())
    attempts.clear()
    attempts()
    assert steps(fast) == ["ask", "PUT", "buy", "HEAD", "buy"]


def test_without_a_path_and_a_store_it_is_uploaded_again(fast, one):
    attempts = one(path=None, has_store=False)
    attempts()
    attempts.clear()
    attempts()
    assert steps(fast) == ["ask", "PUT", "buy"] * 2


def test_candidates_are_made_of_one_upload(fast, one):
    attempts = one(candidates=3)
    attempts()
    assert steps(fast) == ["ask", "PUT", "buy", "buy", "buy"]
    assert len(set(sent(fast))) == 1
    attempts()
    assert len(fast.submissions) == 3


# Faults --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["upload-url", "upload"])
@pytest.mark.parametrize("fault", ["unavailable", "drop-before", "drop-after", "rate-limited", "drop-during"])
def test_an_outage_of_a_moment_during_an_upload_is_overcome(fast, timing, one, place, fault):
    timing(read_budget=5)
    fast.script(place, fault)
    one()()
    assert fast.account.credits_billed == 2
    assert fast.account.jobs.popitem()[1].reference is not None


@pytest.mark.parametrize("place", ["upload-url", "upload"])
def test_an_outage_during_an_upload_buys_nothing_and_a_retry_buys_once(fast, folder, one, place):
    fast.script(place, "unavailable", times=-1)
    attempts = one()
    with pytest.raises(PictoryUnavailable) as away:
        attempts()
    assert "could not be uploaded" in told(away)
    assert "X-Amz" not in told(away)
    assert "Nothing was bought" in told(away)
    assert fast.submissions == []
    assert not (folder / "lamp.png.json").exists()
    assert attempts.store.rows == {}
    fast.clear_faults()
    attempts()
    assert fast.account.credits_billed == 2


def test_a_signed_url_that_has_expired_is_renewed(fast, timing, one):
    timing(read_budget=5)
    fast.script("upload", "server-error", status=403, body="<?xml version='1.0'?><Code>AccessDenied</Code>")
    one()()
    assert steps(fast) == ["ask", "PUT", "ask", "PUT", "buy"]


@pytest.mark.parametrize(
    ("setting", "error", "code"),
    [
        ({"upload_seconds": 1e-9}, PictoryUnavailable, "403 AccessDenied"),
        ({"upload_bytes": 10}, PictoryRequestInvalid, "400 EntityTooLarge"),
    ],
)
def test_a_refused_upload_is_reported_by_its_code_and_without_its_signature(
    fast, one, logged, setting, error, code
):
    fast.set(**setting)
    with pytest.raises(error) as refused:
        one()()
    assert f"127.0.0.1 refused the upload ({code})" in told(refused)
    assert fast.submissions == []
    assert "X-Amz" not in str(refused.value) + logged()


URL = "https://d1.example.com/lamp.png"


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        {"signedUrl": URL},
        {"url": URL},
        {"signedUrl": "ftp://d1.example.com/secret", "url": URL},
        {"signedUrl": "http://d1.example.com/secret", "url": URL},
        {"signedUrl": "file:///secret", "url": URL},
        {"signedUrl": "//d1.example.com/secret", "url": URL},
        {"signedUrl": "https:///secret", "url": URL},
        {"signedUrl": ["secret"], "url": URL},
        {"signedUrl": URL, "url": "s3://secret/lamp.png"},
        {"signedUrl": URL, "url": "https://d1.example.com/se cret"},
        {"signedUrl": URL, "url": 7},
    ],
)
def test_a_reply_without_usable_urls_sends_nothing(fast, one, data):
    fast.script("upload-url", "server-error", status=200, body={"success": True, "data": data}, times=-1)
    with pytest.raises(PictoryProtocolError) as unusable:
        one()()
    assert "without a usable" in told(unusable)
    assert "secret" not in told(unusable)
    assert (fast.uploads, fast.submissions) == ([], [])


def test_a_redirected_upload_is_not_followed(fast, one):
    fast.script("upload", "redirect", times=-1, status=307, to=fast.reference_image_url)
    with pytest.raises(PictoryUnavailable, match=says("refused the upload .307.")):
        one()()
    assert [each.path for each in fast.requests if each.path.startswith("/samples")] == []
    assert fast.submissions == []


def test_an_error_of_pictory_that_quotes_the_url_names_the_upload(fast, folder, lamp, one):
    one()()
    fast.script("submit", "server-error", status=400, body={"message": f"cannot read {sent(fast)[0]}"})
    with pytest.raises(PictoryRequestInvalid) as refused:
        one(path=str(folder / "second.png"))()
    assert f"cannot read upload:lamp.png?sha256={digest(lamp.read_bytes())}" in told(refused)


def test_neither_the_key_nor_a_signature_is_in_any_log(fast, one, caplog, logged):
    caplog.set_level(logging.DEBUG)
    attempts = one()
    attempts()
    attempts.clear()
    attempts(path=None)
    text = caplog.text + logged()
    assert "PUT /public/teams/" in text
    assert "X-Amz-Signature" not in text
    assert fast.api_key not in text


# A job that is paid for ----------------------------------------------------------------------------------


@pytest.mark.parametrize("has_store", [True, False])
@pytest.mark.parametrize("map_index", [-1, 3])
def test_a_retry_adopts_the_job_although_the_file_is_gone(fast, lamp, one, has_store, map_index):
    attempts = one(has_store=has_store)
    attempts.map_index = map_index
    fast.script("picture", "unavailable", times=-1)
    with pytest.raises(PictoryUnavailable):
        attempts()
    fast.clear_faults()
    lamp.unlink()
    attempts()
    assert steps(fast) == ["ask", "PUT", "buy"]
    attempts()
    assert fast.account.credits_billed == 2


def test_a_job_that_a_user_has_recorded_is_adopted_although_the_file_is_gone(fast, lamp, one):
    with PictoryHook() as hook:
        job_id = hook.generate_image(PROMPT)
    attempts = one(path=None)
    attempts.store.set(submission.KEY, {"jobId": job_id})
    lamp.unlink()
    assert attempts() == job_id
    assert steps(fast) == ["buy"]


def test_a_decorated_task_adopts_its_job_although_the_file_is_gone(fast, lamp, folder):
    calls = []

    @pictory_image(
        reference_image_url=str(lamp), reference_upload=True, path=str(folder / "a.png"), deferrable=False
    )
    def draws(_):
        calls.append(1)
        return PROMPT

    attempts = Attempts(lambda: draws("x").operator)
    attempts.map_index = 2
    fast.script("picture", "unavailable", times=-1)
    with pytest.raises(PictoryUnavailable):
        attempts()
    fast.clear_faults()
    lamp.unlink()
    attempts()
    assert (steps(fast), calls) == (["ask", "PUT", "buy"], [1])


def test_a_file_that_is_gone_buys_nothing_after_a_clear(fast, lamp, one):
    attempts = one(path=None)
    attempts()
    lamp.unlink()
    attempts.clear()
    with pytest.raises(PictoryRequestInvalid, match=says("does not exist")):
        attempts()
    assert fast.account.credits_billed == 2


def test_a_plan_uploads_and_writes_nothing(fast, folder, one):
    attempts = one(plan_only=True)
    with pytest.raises(Exception, match="plan_only"):
        attempts()
    assert attempts.ti.xcoms["plan"]["to_buy"] == 1
    assert steps(fast) == []
    assert not folder.exists()


# Objects, decorator, hook --------------------------------------------------------------------------------


@pytest.fixture
def stored():
    storage = fsspec.filesystem("memory")
    attach("memory", fs=storage)
    storage.pipe_file("/catalogue/lamp.png", picture())
    return storage


def test_an_object_whose_storage_cannot_sign_is_uploaded(fast, stored, one):
    one(reference_image_url="memory://catalogue/lamp.png")()
    assert steps(fast) == ["ask", "PUT", "buy"]


def test_such_an_object_is_refused_without_the_argument(fast, stored, one):
    with pytest.raises(
        PictoryRequestInvalid, match=says("cannot be signed by its storage.*reference_upload=True")
    ):
        one(reference_image_url="memory://catalogue/lamp.png", reference_upload=False)()
    assert steps(fast) == []


def test_an_object_that_can_be_signed_is_signed_with_the_argument_too(fast, stored, one, folder, monkeypatch):
    signed = f"{fast.reference_image_url}?X-Amz-Signature=secret"
    monkeypatch.setattr(type(stored), "sign", lambda self, path, expiration=None, **_: signed, raising=False)
    one(reference_image_url="memory://catalogue/lamp.png")()
    assert (steps(fast), sent(fast)) == (["buy"], [signed])
    sidecar = json.loads((folder / "lamp.png.json").read_text())
    assert sidecar["request"]["referenceImageUrl"] == "memory://catalogue/lamp.png"


def test_a_public_url_is_sent_as_it_is(fast, one):
    one(reference_image_url=fast.reference_image_url)()
    assert (steps(fast), sent(fast)) == (["buy"], [fast.reference_image_url])


def test_a_decorated_function_may_return_a_local_file(fast, lamp, folder):
    @pictory_image(reference_upload=True)
    def draws():
        return {"prompt": PROMPT, "reference_image_url": str(lamp)}

    Attempts(lambda: draws().operator)()
    assert steps(fast) == ["ask", "PUT", "buy"]


def test_a_decorated_function_cannot_allow_its_upload(fast, lamp, folder):
    @pictory_image(path=str(folder / "a.png"), deferrable=False)
    def draws():
        return {"prompt": PROMPT, "reference_image_url": str(lamp), "reference_upload": True}

    with pytest.raises(PictoryRequestInvalid, match=says("reference_upload, which is not a field")):
        Attempts(lambda: draws().operator)()
    assert fast.submissions == []


def test_the_hook_uploads_a_content_once_and_returns_its_url(fast, lamp, tmp_path):
    copy = shutil.copy(lamp, tmp_path / "copy.png")
    with PictoryHook() as hook:
        url = hook.upload_reference(str(lamp))
        assert hook.upload_reference(str(copy)) == url
        job = hook.wait_for_job(hook.generate_image(PROMPT, reference_image_url=url), poll_interval=0)
        hook.generate_image(PROMPT, reference_image_url=str(lamp), reference_upload=True)
        with pytest.raises(PictoryRequestInvalid, match="reference_upload=True"):
            hook.generate_image(PROMPT, reference_image_url=str(lamp))
    assert job.url
    assert steps(fast) == ["ask", "PUT", "buy", "buy"]
    assert sent(fast) == [url, url]


def test_a_hook_reads_a_file_each_time(fast, lamp):
    with PictoryHook() as hook:
        for colour in ("red", "blue"):
            lamp.write_bytes(picture(colour=colour))
            hook.generate_image(PROMPT, reference_image_url=str(lamp), reference_upload=True)
        hook.upload_reference(str(lamp))
    assert steps(fast) == ["ask", "PUT", "buy"] * 2
    assert len(set(sent(fast))) == 2


def test_openlineage_names_the_file_and_not_its_upload(fast, folder, lamp, one, monkeypatch):
    monkeypatch.setattr("pictory_provider.telemetry.openlineage_of", lambda inputs, outputs: (inputs, outputs))
    attempts = one(reference_image_url=f"file://{lamp}")
    attempts()
    lineage = attempts.task.get_openlineage_facets_on_complete(None)
    assert lineage == ([str(lamp)], [str(folder / "lamp.png")])


# Batches -------------------------------------------------------------------------------------------------


SKUS = [f"sku-{number}" for number in range(12)]
PATTERNS = {"prompt": "The {sku}, again", "file_name": "{sku}.png", "reference_upload": True}


@pytest.fixture
def refs(tmp_path):
    """Return a folder with a picture for each row."""
    folder = tmp_path / "catalogue"
    folder.mkdir()
    for number, sku in enumerate(SKUS):
        (folder / f"{sku}.png").write_bytes(picture(colour=(number, 0, 0)))
    return folder


def run(tries, refs, skus=SKUS, **kwargs):
    pattern = kwargs.pop("reference_image_url", f"{refs}/{{sku}}.png")
    return tries([{"sku": sku} for sku in skus], reference_image_url=pattern, **PATTERNS, **kwargs)


def test_rows_upload_their_own_files(fast, folder, refs, one_try):
    assert run(one_try, refs)["saved"] == len(SKUS)
    assert all(job.reference is not None for job in fast.account.jobs.values())
    assert len(set(sent(fast))) == len(fast.uploads) == len(SKUS)
    assert {value["name"] for value in kept(folder).values()} == {
        row["request"]["referenceImageUrl"] for row in entries(folder).values()
    }


def test_a_file_of_many_rows_is_read_and_uploaded_once(fast, folder, refs, one_try, monkeypatch):
    read, reads = references.read_reference, []
    monkeypatch.setattr(references, "read_reference", lambda path: reads.append(path) or read(path))
    run(one_try, refs, reference_image_url=f"{refs}/sku-0.png")
    assert (len(fast.uploads), len(set(sent(fast))), len(reads)) == (1, 1, 2)
    run(Tries(folder, run_id="another"), refs, [*SKUS, "new"], reference_image_url=f"{refs}/sku-0.png")
    assert [step for step in steps(fast) if step != "buy"] == ["ask", "PUT", "HEAD"]


def test_a_retry_takes_the_uploads_of_the_attempt_before(fast, refs, one_try):
    fast.script("submit", "unavailable", times=-1)
    with pytest.raises(Exception, match="unknown"):
        run(one_try, refs)
    uploaded = len(fast.uploads)
    assert uploaded == 8
    fast.clear_faults()
    one_try.clear()
    run(one_try, refs)
    assert len(fast.uploads) == len(SKUS)
    assert steps(fast).count("HEAD") == uploaded


@pytest.mark.parametrize("on_bad_row", ["fail", "skip"])
def test_files_that_cannot_be_uploaded_are_bad_rows(fast, folder, refs, one_try, on_bad_row):
    (refs / "sku-3.png").unlink()
    (refs / "sku-4.png").write_bytes(picture("WEBP"))
    with pytest.raises(Exception, match=says("sku-3.png' does not exist")):
        run(one_try, refs, on_bad_row=on_bad_row)
    assert len(fast.submissions) == len(fast.uploads) == (len(SKUS) - 2 if on_bad_row == "skip" else 0)
    assert [line["file_name"] for line in lines(folder / "failed.jsonl")][:2] == ["sku-3.png", "sku-4.png"]


def test_without_the_argument_local_files_are_bad_rows(fast, refs, one_try):
    with pytest.raises(PictoryRequestInvalid, match=says("12 of 12 rows .* reference_upload=True")):
        one_try([{"sku": sku} for sku in SKUS], reference_image_url=f"{refs}/{{sku}}.png",
                prompt="The {sku}, again", file_name="{sku}.png")  # fmt: skip
    assert fast.requests == []


def test_an_upload_that_is_refused_fails_its_row_alone(fast, folder, refs, one_try):
    (refs / "sku-5.png").write_bytes(picture(size=(300, 300)))
    fast.set(upload_bytes=200)
    with pytest.raises(Exception, match="sku-5"):
        run(one_try, refs)
    assert len(fast.submissions) == len(SKUS) - 1
    (line,) = lines(folder / "failed.jsonl")
    assert (line["file_name"], line["state"]) == ("sku-5.png", "failed")
    assert "EntityTooLarge" in line["message"]


def test_an_outage_of_uploads_stops_a_batch_and_leaves_no_row_unknown(fast, folder, refs, one_try):
    fast.script("upload", "unavailable", times=-1)
    with pytest.raises(PictoryUnavailable):
        run(one_try, refs)
    assert fast.submissions == []
    assert {line["state"] for line in lines(folder / "failed.jsonl")} == {"not_bought"}
    fast.clear_faults()
    assert run(one_try, refs)["saved"] == len(SKUS)
    assert fast.account.credits_billed == 2 * len(SKUS)


def test_no_row_has_an_intent_on_record_while_its_file_is_uploaded(fast, folder, refs, one_try, monkeypatch):
    """So a worker that dies during an upload leaves no row unknown."""
    put, intents = SyncClient.put, []

    def note(*args):
        intents.extend(name for name, row in entries(folder).items() if row["state"] == "intent")
        return put(*args)

    monkeypatch.setattr(SyncClient, "put", note)
    assert run(one_try, refs)["saved"] == len(SKUS)
    assert intents == []


def test_the_uploads_of_a_batch_do_not_use_up_its_rate_limit(fast, refs, one_try, monkeypatch):
    answered, acquired = ThreadRateLimiter.answered, ThreadRateLimiter.acquire
    counts = {"acquired": 0, "answered": 0}

    def count(name, method):
        def counted(self, *args):
            counts[name] += 1
            return method(self, *args)

        return counted

    monkeypatch.setattr(ThreadRateLimiter, "answered", count("answered", answered))
    monkeypatch.setattr(ThreadRateLimiter, "acquire", count("acquired", acquired))
    run(one_try, refs)
    assert counts["acquired"] == counts["answered"] == sum(each.host == "api" for each in fast.requests)


def test_a_batch_does_not_read_its_files_again_after_a_deferral(fast, folder, refs, monkeypatch):
    read, reads = references.read_reference, []
    monkeypatch.setattr(references, "read_reference", lambda path: reads.append(path) or read(path))
    fast.account.seconds = 1
    result = run(Tries(folder), refs, deferrable=True, max_in_flight=4)
    assert result["saved"] == len(SKUS)
    assert len(reads) == 2 * len(SKUS)


def test_a_plan_of_a_batch_uploads_and_writes_nothing(fast, folder, refs, one_try):
    with pytest.raises(Exception, match="plan_only"):
        run(one_try, refs, plan_only=True)
    assert one_try.ti.xcoms["plan"]["to_buy"] == len(SKUS)
    assert steps(fast) == []
    assert not folder.exists()


def test_a_single_task_takes_the_picture_of_a_batch_and_a_batch_that_of_a_single_task(fast, folder, refs, one_try):
    run(one_try, refs, ["sku-1"])
    arguments = {
        "prompt": "The sku-1, again",
        "reference_image_url": f"{refs}/sku-1.png",
        "reference_upload": True,
    }
    attempts = Attempts(
        lambda: GenerateImageOperator(task_id="one", path=str(folder / "sku-1.png"), **arguments), run_id="single"
    )
    attempts()
    assert attempts.ti.xcoms["image"]["reused"] is True
    assert len(fast.submissions) == 1
