# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests that batches and single tasks buy nothing that an object storage would not accept."""

from __future__ import annotations

import json

import pytest

from pictory_provider.exceptions import PictoryRequestInvalid, PictoryStorageFailed
from pictory_provider.hooks.pictory import PictoryHook
from pictory_provider.operators.pictory import DownloadImageOperator, GenerateImageOperator
from tests.distributed.conftest import ACCESS_KEY
from tests.provider.batches import Tries
from tests.stand_ins import StateStore, TaskInstance, says

PROMPT = "An enamel mug on a table"


@pytest.fixture(autouse=True)
def _connections(pictory, storage, monkeypatch):
    pictory.reset()
    pictory.account.seconds = 0
    monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", pictory.connection_json(requests_per_second=200))
    monkeypatch.setenv("AIRFLOW_CONN_MEDIA", storage.connection_json(ACCESS_KEY))
    yield
    storage.forbids = lambda *_: False


@pytest.fixture
def prefix(request):
    return f"paid/{abs(hash(request.node.nodeid))}"


@pytest.fixture
def attempt(prefix):
    tries = Tries(f"s3://media@pictures/{prefix}")
    tries.run_id = prefix
    return tries


def single(path, *, store=None, **kwargs):
    context = {"ti": TaskInstance(), **({"task_state_store": store} if store else {})}
    arguments = {"task_id": "generate", "prompt": PROMPT, "path": path, "deferrable": False, **kwargs}
    return GenerateImageOperator(**arguments).execute(context)


def keys_below(storage, prefix):
    return {key for key in storage.objects if key.startswith(prefix)}


NAMES = ["mug::red.png", "mug?versionId=1", "mug\tred.png", "mug.png\n", "mug.png?"]


@pytest.mark.parametrize("name", NAMES)
def test_a_single_task_whose_key_would_be_another_one_buys_nothing(pictory, storage, prefix, name):
    with pytest.raises(PictoryRequestInvalid, match=says("would be read as another object")):
        single(f"s3://media@pictures/{prefix}/{name}")
    assert pictory.requests == []
    assert keys_below(storage, prefix) == set()


@pytest.mark.parametrize("name", ["mug::{sku}.png", "{sku}?versionId=1", "cat/{sku}::x/a.png"])
def test_a_batch_whose_keys_would_be_other_ones_buys_nothing(pictory, storage, prefix, attempt, name):
    table = [{"prompt": PROMPT, "sku": sku} for sku in ("red", "blue")]
    with pytest.raises(PictoryRequestInvalid, match=says("2 of 2 rows .* would be read as another object")):
        attempt(table, file_name=name)
    assert pictory.requests == []
    assert keys_below(storage, prefix) == {f"{prefix}/failed.jsonl"}


@pytest.mark.parametrize("folder", ["a::b", "a?versionId=1"])
def test_a_batch_whose_folder_would_be_another_one_buys_nothing(pictory, storage, prefix, folder):
    with pytest.raises(PictoryRequestInvalid, match=says("would be read as another object")):
        Tries(f"s3://media@pictures/{prefix}/{folder}")([PROMPT])
    assert pictory.requests == []
    assert keys_below(storage, prefix) == set()


def test_a_key_that_would_be_another_one_is_neither_read_nor_signed_nor_written(pictory, storage, prefix, attempt):
    with pytest.raises(PictoryRequestInvalid, match=says("requests .* would be read as another object")):
        attempt(f"s3://media@pictures/{prefix}/a::b.csv")
    with pytest.raises(
        PictoryRequestInvalid, match=says("reference_image_url .* would be read as another object")
    ):
        single("/tmp/a.png", reference_image_url=f"s3://media@pictures/{prefix}/a::b.png")
    assert pictory.submissions == []
    with PictoryHook() as hook:
        job_id = hook.generate_image(PROMPT)
    with pytest.raises(PictoryRequestInvalid, match=says("would be read as another object")):
        DownloadImageOperator(
            task_id="save", job_id=job_id, path=f"s3://media@pictures/{prefix}/a::b.png"
        ).execute({"ti": TaskInstance()})


def test_ordinary_names_with_special_characters_are_bought_and_saved(pictory, storage, prefix, attempt):
    names = [
        "a#b.png",
        "a b.png",
        "a%20b.png",
        "a&b=c.png",
        "a;b.png",
        "a@b.png",
        "\u00e9.png",
        "x:y.png",
        "a[1].png",
        "d*e.png",
    ]
    assert attempt([{"prompt": PROMPT, "file_name": name} for name in names])["saved"] == len(names)
    assert {f"{prefix}/{name}" for name in names} <= keys_below(storage, prefix)
    assert {line["file_name"] for line in manifest(storage, prefix)} == set(names)


def manifest(storage, prefix):
    return [json.loads(line) for line in storage.objects[f"{prefix}/metadata.jsonl"].splitlines()]


@pytest.mark.parametrize("name", ["{index}.json", "x/{index}.png.json"])
def test_a_batch_whose_pictures_would_have_names_of_sidecars_buys_nothing(pictory, storage, prefix, attempt, name):
    with pytest.raises(PictoryRequestInvalid, match=says("ends in .json")):
        attempt([PROMPT] * 2, file_name=name)
    assert pictory.requests == []
    assert keys_below(storage, prefix) == {f"{prefix}/failed.jsonl"}


def test_a_key_that_is_too_long_with_its_folder_buys_nothing(pictory, storage, prefix):
    folder = f"{prefix}/{'/'.join(['f' * 190] * 4)}"
    with pytest.raises(PictoryRequestInvalid, match=says("1 of 2 rows .* is too long")):
        Tries(f"s3://media@pictures/{folder}")(
            [{"prompt": PROMPT, "file_name": f"{'n' * 190}/{'m' * 100}"}, {"prompt": PROMPT, "file_name": "m.png"}]
        )
    assert pictory.requests == []


def test_the_longest_valid_key_is_saved(pictory, storage, prefix):
    folder = f"{prefix}/{'/'.join(['f' * 190] * 4)}"
    left = 1_024 - len(folder) - 1 - len(".json")
    assert (
        Tries(f"s3://media@pictures/{folder}")([{"prompt": PROMPT, "file_name": "m" * min(200, left)}])["saved"]
        == 1
    )


@pytest.mark.parametrize("name", ["mug", "mug.json"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_at_the_path_of_a_picture_prevents_the_purchase(
    pictory, storage, prefix, attempt, name, overwrite
):
    single(f"s3://media@pictures/{prefix}/{name}/x.png")
    with pytest.raises(PictoryRequestInvalid, match=says(f"{name} is a folder")):
        attempt(
            [{"prompt": PROMPT, "file_name": "mug"}, {"prompt": PROMPT, "file_name": "b"}], overwrite=overwrite
        )
    assert len(pictory.submissions) == 1


# An account with limited permissions --------------------------------------------------------------------


def create_only(method, key, exists):
    return method == "PUT" and exists


def create_and_not_delete(method, key, exists):
    return (method == "PUT" and exists) or method == "DELETE"


POLICIES = [create_only, create_and_not_delete]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("has_store", [True, False])
def test_a_single_task_that_may_create_but_not_replace_objects_buys_nothing_and_says_so(
    pictory, storage, prefix, policy, has_store
):
    storage.forbids = policy
    path, store = f"s3://media@pictures/{prefix}/a.png", StateStore() if has_store else None
    with pytest.raises(PictoryRequestInvalid, match=says("may not be read or replaced .* replace and delete")):
        single(path, store=store)
    assert pictory.submissions == []
    storage.forbids = lambda *_: False
    context = {"ti": TaskInstance(), **({"task_state_store": store} if store else {})}
    context["ti"].clear()  # the task is cleared, as the error says
    GenerateImageOperator(task_id="generate", prompt=PROMPT, path=path, deferrable=False).execute(context)
    assert len(pictory.submissions) == 1
    assert f"{prefix}/a.png" in storage.objects


@pytest.mark.parametrize("policy", POLICIES)
def test_a_batch_that_may_create_but_not_replace_objects_buys_nothing(pictory, storage, prefix, attempt, policy):
    storage.forbids = policy
    with pytest.raises(
        PictoryRequestInvalid, match=says("batch.json was created, but may not be read or replaced")
    ):
        attempt([PROMPT] * 3)
    assert pictory.submissions == []
    storage.forbids = lambda *_: False
    assert attempt([PROMPT] * 3)["saved"] == 3


def test_a_sidecar_that_cannot_be_updated_after_the_picture_was_saved_is_reported_with_the_job(
    pictory, storage, prefix
):
    key = f"{prefix}/a.png"
    storage.forbids = lambda method, requested, exists: (
        method == "PUT" and requested == f"{key}.json" and key in storage.objects
    )
    store = StateStore()
    for _ in range(2):
        with pytest.raises(PictoryStorageFailed, match=says("The picture of job .* is saved at .*a.png")) as error:
            single(f"s3://media@pictures/{key}", store=store)
        (job_id,) = pictory.account.jobs
        assert job_id in "".join(str(error.value).split())
    storage.forbids = lambda *_: False
    single(f"s3://media@pictures/{key}", store=store)
    assert len(pictory.submissions) == 1


def test_a_storage_that_refuses_pictures_stops_a_batch_after_eight(pictory, storage, prefix, attempt):
    storage.forbids = lambda method, key, exists: method == "PUT" and key.endswith(".png")
    with pytest.raises(PictoryStorageFailed, match=says("8 pictures in a row could not be fetched or saved")):
        attempt([f"{PROMPT}, number {number}" for number in range(60)], max_in_flight=16)
    bought = len(pictory.submissions)
    assert bought <= 32
    with pytest.raises(PictoryStorageFailed):
        attempt([f"{PROMPT}, number {number}" for number in range(60)], max_in_flight=16)
    assert len(pictory.submissions) == bought
    storage.forbids = lambda *_: False
    assert attempt([f"{PROMPT}, number {number}" for number in range(60)])["saved"] == 60
    assert len(pictory.submissions) == 60
