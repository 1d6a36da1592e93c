# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests of pictures in S3-compatible storage: replaced atomically, with the credentials of an Airflow connection."""

from __future__ import annotations

import hashlib
import threading

import pytest

from pictory_provider.exceptions import PictoryImageInvalid, PictoryRequestInvalid, PictoryStorageFailed
from pictory_provider.hooks.pictory import PictoryHook
from tests.distributed.conftest import ACCESS_KEY
from tests.stand_ins import says

PATH = "s3://media@pictures/covers/today.png"
KEY = "covers/today.png"


@pytest.fixture
def hook(pictory, storage, monkeypatch):
    pictory.reset()
    pictory.account.seconds = 0
    monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", pictory.connection_json())
    monkeypatch.setenv("AIRFLOW_CONN_MEDIA", storage.connection_json(ACCESS_KEY))
    with PictoryHook() as hook:
        yield hook


def test_saving_the_same_picture_again_succeeds(hook, storage):
    job_id = hook.generate_image("A lighthouse at dawn")
    saved = hook.download_image(PATH, job_id=job_id, overwrite=True)

    assert hashlib.sha256(storage.objects[KEY]).hexdigest() == saved["sha256"]
    assert hook.download_image(PATH, job_id=job_id)["sha256"] == saved["sha256"]
    assert ACCESS_KEY in storage.access_keys


def test_another_picture_is_refused_unless_overwrite_is_set(hook, storage):
    first = hook.download_image(PATH, job_id=hook.generate_image("The first cover"), overwrite=True)
    second = hook.generate_image("The second cover")

    with pytest.raises(PictoryRequestInvalid, match=says("already exists and is another file")):
        hook.download_image(PATH, job_id=second)
    assert hashlib.sha256(storage.objects[KEY]).hexdigest() == first["sha256"]
    replaced = hook.download_image(PATH, job_id=second, overwrite=True)
    assert hashlib.sha256(storage.objects[KEY]).hexdigest() == replaced["sha256"] != first["sha256"]


def test_a_truncated_picture_does_not_replace_the_old_one(hook, pictory, storage):
    old = hook.download_image(PATH, job_id=hook.generate_image("The old cover"), overwrite=True)
    pictory.script("picture", "truncated", times=-1)

    with pytest.raises(PictoryImageInvalid):
        hook.download_image(PATH, job_id=hook.generate_image("The new cover"), overwrite=True)
    assert hashlib.sha256(storage.objects[KEY]).hexdigest() == old["sha256"]


def test_a_reader_sees_either_the_old_or_the_new_picture(hook, storage):
    import boto3

    jobs = [hook.generate_image(f"The cover of {when}") for when in ("yesterday", "today")]
    whole = {hook.download_image(PATH, job_id=job, overwrite=True)["sha256"] for job in jobs}
    reader = boto3.client(
        "s3",
        endpoint_url=storage.url,
        region_name="us-east-1",
        aws_access_key_id="the-maker",
        aws_secret_access_key="reads too",
    )
    seen, done = [], threading.Event()

    def read():
        while not done.is_set():
            body = reader.get_object(Bucket=storage.bucket, Key=KEY)["Body"].read()
            seen.append(hashlib.sha256(body).hexdigest())

    thread = threading.Thread(target=read)
    thread.start()
    for turn in range(20):
        hook.download_image(PATH, job_id=jobs[turn % 2], overwrite=True)
    done.set()
    thread.join()
    assert len(seen) > 10
    assert set(seen) == whole


def test_a_bucket_that_does_not_exist_is_reported_and_not_created(hook):
    with pytest.raises(PictoryStorageFailed, match=says("could not be written")):
        hook.download_image("s3://media@elsewhere/a.png", job_id=hook.generate_image("A lighthouse at dawn"))
    with pytest.raises(PictoryStorageFailed):
        hook.download_image("s3://media@elsewhere/b.png", job_id=hook.generate_image("A lighthouse at dusk"))


def test_a_storage_without_credentials_that_cannot_be_reached_is_reported(hook, monkeypatch, caplog):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(PictoryStorageFailed, match=says(r"127.0.0.1:9.* saving it again is free")):
        hook.download_image("s3://pictures/a.png", job_id=hook.generate_image("A lighthouse at dawn"))
    assert "No credentials found, using anonymous access" in caplog.text  # Airflow's own words
