# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests of how many requests object storage gets, with which headers and conditions, counted by the storage."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import pytest

from pictory_provider.exceptions import PictoryRequestInvalid
from pictory_provider.operators.pictory import DownloadImageOperator, GenerateImageOperator
from pictory_provider.services.batch.wave import Wave
from pictory_provider.storage import objects
from pictory_provider.storage.files import AlreadyExists, Changed, Content
from pictory_provider.storage.target import JSON, locate
from tests.provider.batches import Tries, billed, lamps
from tests.stand_ins import StateStore, TaskInstance, says

pytestmark = pytest.mark.usefixtures("connected")
ROWS = 200
COPIES = [{"format": "webp", "width": 64}]


@pytest.fixture
def counted(storage):
    """Return a function that returns the requests since it was last called."""

    def since():
        found, storage.requests = storage.requests, []
        return found

    since()
    return since


def batch(name):
    tries = Tries(f"s3://media@pictures/requests/{name}")
    tries.run_id = name
    return tries


def test_a_batch_makes_three_requests_a_picture_and_a_rerun_almost_none(counted, pictory):
    assert batch("many")(lamps(ROWS))["saved"] == ROWS
    first = counted()
    assert len(first) <= 3 * ROWS, first
    again = batch("many")
    again.run_id = "the next night"
    assert again(lamps(ROWS))["reused"] == ROWS
    assert len(counted()) <= 20 + math.ceil(ROWS / 48)
    assert len(pictory.submissions) == ROWS


def test_copies_add_no_request_to_a_rerun(counted, pictory):
    batch("copied")(lamps(50), copies=COPIES)
    counted()
    again = batch("copied")
    again.run_id = "the next night"
    assert again(lamps(50), copies=COPIES)["reused"] == 50
    found = counted()
    assert [each for each in found if ".png" in each or ".webp" in each] == []
    assert len(found) <= 20 + math.ceil(50 / 48)
    assert len(pictory.submissions) == 50


def test_a_copys_key_that_is_too_long_is_refused_before_anything_is_bought(pictory):
    path = "s3://media@pictures/" + "/".join(["d" * 100] * 10)
    path += "x" * (1_019 - len(path.partition("pictures/")[2]) - 4) + ".png"
    with pytest.raises(PictoryRequestInvalid, match=says("is too long")):
        single(path, copies=[{"format": "webp", "width": 16_383}])
    assert pictory.submissions == []


def test_a_folder_of_single_pictures_is_read_once_and_is_then_on_record(counted):
    for number in range(3):
        single(f"s3://media@pictures/requests/singles/{number:05d}.png", prompt=lamps(3)[number])
    assert batch("singles")(lamps(3))["reused"] == 3
    counted()
    again = batch("singles")
    again.run_id = "the next night"
    assert again(lamps(3))["reused"] == 3
    assert [each for each in counted() if ".png.json" in each] == []


def single(path, **kwargs):
    arguments = {"task_id": "cover", "prompt": "A lighthouse", "path": path, "deferrable": False, **kwargs}
    return GenerateImageOperator(**arguments).execute({"ti": TaskInstance(), "task_state_store": StateStore()})


def test_a_single_task_makes_eight_requests(counted):
    single("s3://media@pictures/requests/single/first.png")  # this process finds out about conditions with it
    counted()
    single("s3://media@pictures/requests/single/cover.png")
    found = counted()
    assert len(found) <= 8, found


def test_a_storage_that_ignores_conditions_without_an_error_is_found_out_with_the_first_object(
    storage, counted, monkeypatch, caplog
):
    monkeypatch.setattr(objects, "_kept", {})
    monkeypatch.setattr(objects, "_logged", set())
    monkeypatch.setattr(objects._S3, "_known", lambda *_: {})
    files, name, _ = locate("s3://media@pictures/requests/ignored.json")
    one = files.create(name, b"{1}", JSON, most=1)
    assert ["does not support conditional writes" in record.message for record in caplog.records].count(True) == 1
    for call in (
        lambda: files.create(name, b"{2}", JSON, most=1),
        lambda: files.replace(name, b"{2}", Content(b"{0}", one.version), JSON, most=1),
        lambda: files.delete(name, Content(b"{0}", one.version), most=1),
    ):
        with pytest.raises((AlreadyExists, Changed)):
            call()
    assert files.read(name).data == b"{1}"


def test_in_a_storage_that_ignores_conditions_a_file_that_somebody_puts_there_meanwhile_is_kept(
    storage, pictory, monkeypatch
):
    monkeypatch.setattr(objects, "_kept", {})
    monkeypatch.setattr(objects._S3, "_known", lambda *_: {})
    theirs = locate("s3://media@pictures/requests/ignoring/00001.png")
    saved = Wave.submit

    def submit(self, *arguments):
        theirs.files.put(theirs.name, b"theirs", JSON)
        return saved(self, *arguments)

    monkeypatch.setattr(Wave, "submit", submit)
    batch("ignoring")(lamps(3))
    assert theirs.files.read(theirs.name).data == b"theirs"
    assert set(billed(pictory).values()) == {1}


def head(storage, key):
    return storage.client().head_object(Bucket=storage.bucket, Key=key)


COPIES = [{"format": "webp", "width": 64}, {"format": "jpg"}]


def test_copies_cost_three_requests_a_picture_and_one_more_for_each_copy_and_a_rerun_none(counted):
    batch("copies")(lamps(20), copies=COPIES)
    first = counted()
    assert len(first) <= (3 + 3 + 2 * len(COPIES)) * 20, first
    again = batch("copies")
    again.run_id = "the next night"
    assert again(lamps(20), copies=COPIES)["reused"] == 20
    assert [each for each in counted() if ".png" in each or ".webp" in each or ".jpg" in each] == []


def test_every_object_has_the_type_of_its_content(storage):
    batch("types")(lamps(2), copies=COPIES)
    types = {
        key.removeprefix("requests/types/"): head(storage, key)["ContentType"]
        for key in storage.objects
        if "/types/" in key
    }
    assert types == {
        "00000.png": "image/png",
        "00001.png": "image/png",
        "00000.64.webp": "image/webp",
        "00001.64.webp": "image/webp",
        "00000.jpg": "image/jpeg",
        "00001.jpg": "image/jpeg",
        "00000.png.json": "application/json",
        "00001.png.json": "application/json",
        ".pictory/batch.json": "application/json",
        ".pictory/1-00000.json": "application/json",
        "metadata.jsonl": "application/x-ndjson",
        "failed.jsonl": "application/x-ndjson",
    }


def test_pictures_are_served_with_the_cache_control_that_was_asked_for_and_nothing_else_is(storage):
    cache = "public, max-age=31536000, immutable"
    folder = "s3://media@pictures/requests/cache"
    job = single(f"{folder}/single.png", cache_control=cache, copies=COPIES)
    Tries(f"{folder}/batch")(lamps(1), cache_control=cache)
    for cached in (cache, None):
        path = f"{folder}/download-{bool(cached)}.png"
        DownloadImageOperator(task_id="save", job_id=job, path=path, cache_control=cached).execute(
            {"ti": TaskInstance()}
        )
    found = {key.removeprefix("requests/cache/") for key in storage.objects if "/cache/" in key}
    cached = {name for name in found if head(storage, f"requests/cache/{name}").get("CacheControl") == cache}
    assert cached == {"single.png", "single.64.webp", "single.jpg", "batch/00000.png", "download-True.png"}


@pytest.mark.parametrize("value", ["", " public", "no\nstore", "ä", 60])
def test_a_cache_control_that_is_no_header_is_refused_before_anything_is_sent(pictory, value):
    folder = "s3://media@pictures/requests/refused"
    with pytest.raises(
        PictoryRequestInvalid, match=says("cache_control is .*it takes the value of an HTTP header")
    ):
        single(f"{folder}/single.png", cache_control=value)
    with pytest.raises(PictoryRequestInvalid, match=says("cache_control is")):
        Tries(folder)(lamps(1), cache_control=value)
    with pytest.raises(PictoryRequestInvalid, match=says("cache_control is")):
        DownloadImageOperator(task_id="save", job_id="x", path=f"{folder}/a.png", cache_control=value).execute({})
    assert pictory.requests == []


def test_of_many_writers_of_one_new_key_exactly_one_is_told_that_it_was_first(storage):
    files, name, _ = locate("s3://media@pictures/requests/race.json")

    def create(number):
        try:
            return bool(files.create(name, b"%d" % number, JSON, most=1))
        except AlreadyExists:
            return False

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(create, range(64))) == 1


def test_an_object_is_replaced_only_by_who_has_read_it(storage):
    files, name, _ = locate("s3://media@pictures/requests/replaced.json")
    one = files.create(name, b"{1}", JSON, most=1)
    two = files.replace(name, b"{2}", one, JSON, most=1)
    with pytest.raises(Changed):
        files.replace(name, b"{3}", one, JSON, most=1)
    assert files.read(name) == two
    assert files.replace(name, b"{2}", one, JSON, most=1) == two, "its own write, whose reply was lost"
