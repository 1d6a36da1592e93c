# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests of one task that submits, waits and saves to S3-compatible storage, with a private reference image."""

from __future__ import annotations

import hashlib
import json
import logging
from io import BytesIO

import pytest
import requests
from PIL import Image

from pictory_provider.core.sidecar import Sidecar
from pictory_provider.exceptions import PictoryRequestInvalid, PictoryStorageFailed, PictoryUnavailable
from pictory_provider.hooks.pictory import PictoryHook
from pictory_provider.operators.pictory import GenerateImageOperator
from tests.distributed.conftest import ACCESS_KEY
from tests.driver import Runs
from tests.stand_ins import says

PROMPT = "A lighthouse at dawn"
REFERENCE = "s3://media@pictures/catalogue/private.png"


@pytest.fixture(autouse=True)
def _connections(pictory, storage, monkeypatch):
    pictory.reset()
    pictory.account.seconds = 0
    monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", pictory.connection_json())
    monkeypatch.setenv("AIRFLOW_CONN_MEDIA", storage.connection_json(ACCESS_KEY))


@pytest.fixture
def key(request):
    return f"{abs(hash(request.node.nodeid))}/a.png"


@pytest.fixture(params=["with a store", "without"])
def attempt(request, key):
    """Return a function that runs one attempt of a task, with or without a task state store."""

    def make(**kwargs):
        path = f"s3://media@pictures/{key}"
        arguments = {"task_id": "cover", "prompt": PROMPT, "path": path, "deferrable": False, **kwargs}
        return GenerateImageOperator(**arguments)

    return Runs(make, has_store=request.param == "with a store")


@pytest.fixture
def private(storage):
    """Upload a picture that only the connection may read, and return its bytes."""
    import boto3

    picture = BytesIO()
    Image.new("RGB", (64, 64), "teal").save(picture, "PNG")
    boto3.client(
        "s3",
        endpoint_url=storage.url,
        region_name="us-east-1",
        aws_access_key_id="the-maker",
        aws_secret_access_key="of the picture",
    ).put_object(Bucket=storage.bucket, Key="catalogue/private.png", Body=picture.getvalue())
    return picture.getvalue()


def test_picture_and_sidecar_are_in_the_bucket_and_are_bought_once(pictory, storage, attempt, key):
    image = attempt()
    assert hashlib.sha256(storage.objects[key]).hexdigest() == image["sha256"]
    sidecar = Sidecar.from_json(storage.objects[f"{key}.json"])
    assert (sidecar.state, sidecar.saved.sha256, sidecar.submission.job_id) == (
        "saved",
        image["sha256"],
        image["job_id"],
    )
    assert [attempt(run)["reused"] for run in ("first", "second", "third")] == [False, True, True]
    assert len(pictory.submissions) == 1


def test_another_prompt_is_refused_and_overwrite_replaces(pictory, storage, attempt, key):
    old = attempt()
    with pytest.raises(PictoryRequestInvalid, match=says("taken by another request")):
        attempt("second", prompt="A lighthouse at dusk")
    assert hashlib.sha256(storage.objects[key]).hexdigest() == old["sha256"]
    new = attempt("second", prompt="A lighthouse at dusk", overwrite=True)
    assert hashlib.sha256(storage.objects[key]).hexdigest() == new["sha256"] != old["sha256"]
    assert Sidecar.from_json(storage.objects[f"{key}.json"]).submission.job_id == new["job_id"]


def test_a_mark_is_added_to_an_existing_object(pictory, storage, attempt, key):
    attempt()
    marked = attempt("second", mark_ai_generated=True)
    assert hashlib.sha256(storage.objects[key]).hexdigest() == marked["sha256"]
    assert b"trainedAlgorithmicMedia" in storage.objects[key]
    assert len(pictory.submissions) == 1


def test_a_bucket_that_does_not_exist_is_found_before_anything_is_spent(pictory, attempt):
    with pytest.raises(PictoryStorageFailed, match=says("could not be written.*Nothing was sent")):
        attempt(path="s3://media@elsewhere/a.png")
    assert pictory.submissions == []


def test_after_a_failed_write_the_picture_is_not_bought_again(pictory, storage, attempt, key, monkeypatch):
    from pictory_provider.storage.target import Target

    place = Target.place

    def full(self, received, *, overwrite):
        with self._errors():
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Target, "place", full)
    with pytest.raises(PictoryStorageFailed):
        attempt()
    assert Sidecar.from_json(storage.objects[f"{key}.json"]).state == "bought"
    monkeypatch.setattr(Target, "place", place)
    assert attempt()["sha256"] == hashlib.sha256(storage.objects[key]).hexdigest()
    assert len(pictory.submissions) == 1


# Private reference images --------------------------------------------------------------------------------


def test_a_private_reference_image_reaches_pictory_as_a_url_that_it_can_read(pictory, attempt, private):
    attempt(reference_image_url=REFERENCE)
    (submission,) = pictory.submissions
    signed = submission.body["referenceImageUrl"]
    assert requests.get(signed, timeout=10).content == private
    assert "X-Amz-Expires=3600" in signed or "Expires=" in signed


def test_the_signed_url_is_stored_nowhere(pictory, storage, attempt, key, private, caplog, tmp_path):
    caplog.set_level(logging.DEBUG)
    logging.getLogger("botocore").setLevel(logging.DEBUG)
    image = attempt(reference_image_url=REFERENCE)
    (submission,) = pictory.submissions
    query = submission.body["referenceImageUrl"].partition("?")[2]
    secrets = [
        value for name, _, value in (pair.partition("=") for pair in query.split("&")) if "ignature" in name
    ]
    assert secrets
    texts = {
        # Without the access log of the storage itself.
        "log": "\n".join(line.getMessage() for line in caplog.records if line.name != "werkzeug"),
        "XComs": json.dumps(attempt.last.ti.xcoms),
        "record": json.dumps(attempt.last.store.rows if attempt.has_store else None),
        "sidecar": storage.objects[f"{key}.json"].decode(),
        "image": json.dumps(image),
    }
    for name, text in texts.items():
        assert not [secret for secret in secrets if secret in text], name
    assert json.loads(texts["sidecar"])["request"]["referenceImageUrl"] == "s3://pictures/catalogue/private.png"


def test_a_url_that_is_signed_anew_is_the_same_request(pictory, attempt, private):
    attempt(reference_image_url=REFERENCE)
    assert attempt("second", reference_image_url=REFERENCE)["reused"] is True
    assert len(pictory.submissions) == 1


@pytest.mark.parametrize("fault", [("server-error", {"status": 422}), ("server-error", {"status": 500})])
def test_a_reply_that_repeats_the_signed_url_does_not_leak_it(pictory, attempt, private, fault, monkeypatch):
    from pictory_provider.api import responses

    name, options = fault
    parse, urls = responses.parse_submission, []

    def repeating(reply):
        urls.append(pictory.submissions[-1].body["referenceImageUrl"])
        body = json.dumps({"message": f"cannot read {urls[-1]}", "code": "X"}).encode()
        return parse(reply._replace(body=body))

    monkeypatch.setattr(responses, "parse_submission", repeating)
    pictory.script("submit", name, **options)
    with pytest.raises(Exception) as caught:  # noqa: PT011  of any type
        attempt(reference_image_url=REFERENCE)
    assert urls
    assert urls[0].partition("?")[2] not in "".join(str(caught.value).split())


def test_a_reference_image_that_does_not_exist_is_refused_before_anything_is_sent(pictory, attempt, private):
    with pytest.raises(PictoryRequestInvalid, match=says("does not exist")):
        attempt(reference_image_url="s3://media@pictures/catalogue/nothing.png")
    assert pictory.submissions == []


def test_a_storage_that_does_not_answer_is_a_retryable_error(pictory, attempt, monkeypatch):
    monkeypatch.setenv(
        "AIRFLOW_CONN_AWAY",
        json.dumps(
            {
                "conn_type": "aws",
                "login": "x",
                "password": "y",
                "extra": {
                    "endpoint_url": "http://127.0.0.1:9",
                    "region_name": "us-east-1",
                    "config_kwargs": {"retries": {"max_attempts": 0}},
                },
            }
        ),
    )
    with pytest.raises(PictoryUnavailable, match=says("could not be signed")):
        attempt(reference_image_url="s3://away@pictures/a.png")
    assert pictory.submissions == []


def test_the_hook_signs_too(pictory, private):
    with PictoryHook() as hook:
        hook.generate_image(PROMPT, reference_image_url=REFERENCE)
    assert requests.get(pictory.submissions[0].body["referenceImageUrl"], timeout=10).content == private
