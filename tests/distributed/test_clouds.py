# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests of the object storages of three clouds, each an emulator: moto, fake-gcs-server and Azurite."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

import pytest
from airflow.sdk.io import attach, store

from pictory_provider.exceptions import PictoryRequestInvalid
from pictory_provider.services.redo import redo
from pictory_provider.storage import objects
from pictory_provider.storage.files import AlreadyExists, Changed, Content, Headers, is_same_version
from pictory_provider.storage.objects import ObjectFiles
from pictory_provider.storage.target import JSON
from tests.distributed import servers
from tests.distributed.clouds import behind_a_proxy, filesystem
from tests.provider.batches import Tries, billed
from tests.stand_ins import says

if TYPE_CHECKING:
    from tests.distributed.proxy import Proxy

ROUNDS = 20
SLOW_RETRY = {"s3": 10, "gs": 3, "abfs": 1}
"""Rounds in which the first reply is lost: Azure's client waits for 15 s before it sends a request again."""


class Cloud(NamedTuple):
    name: str
    url: str
    proxy: Proxy

    @property
    def fs(self):
        return filesystem(self.name, self.url)

    def name_of(self, key):
        return f"{servers.BUCKET}/{key}"


@pytest.fixture(scope="module", params=["s3", "gs", "abfs"])
def cloud(request):
    with behind_a_proxy(request.param) as (url, proxy):
        yield Cloud(request.param, url, proxy)


@pytest.fixture
def files(cloud):
    return ObjectFiles(cloud.fs)


@pytest.fixture
def name(cloud):
    return cloud.name_of(f"{uuid4().hex}/a b+é.json")


def test_each_call_is_one_request_and_what_it_says_holds(cloud, files, name):
    files.create(f"{name}.first", b"{}", JSON, most=1)  # this process finds out about conditions with it
    assert files.read(name) is None

    def counted(call, *arguments, **more):
        cloud.proxy.requests.clear()
        result = call(*arguments, **more)
        assert len(cloud.proxy.requests) == 1, cloud.proxy.requests
        return result

    one = counted(files.create, name, b"{1}", JSON, most=1)
    assert counted(files.read, name) == one
    assert files.stat(name).size == 3
    assert is_same_version(files.stats([name])[name].version, one.version)
    two = counted(files.replace, name, b"{2}", one, JSON, most=1)
    assert not is_same_version(one.version, two.version)
    with pytest.raises(Changed):
        files.replace(name, b"{3}", one, JSON, most=1)
    with pytest.raises(AlreadyExists):
        files.create(name, b"{3}", JSON, most=1)
    if cloud.name != "gs":  # its emulator ignores the condition of a DELETE
        with pytest.raises(Changed):
            files.delete(name, one, most=1)
    assert files.read(name) == two
    counted(files.delete, name, two, most=1)
    assert files.stat(name) is None
    files.delete(name, two, most=1)
    with pytest.raises(Changed):
        files.replace(name, b"{3}", two, JSON, most=1)
    assert files.read(name) is None


def test_an_object_that_another_client_has_written_after_a_listing_is_read_in_pieces(cloud, files, name):
    files.put(f"{name}.first", b"{}", JSON)
    files._fs.ls(name.rpartition("/")[0])  # which this client remembers
    other = type(files._fs)(**files._fs.storage_options, skip_instance_cache=True)
    other.pipe_file(name, b"{1}")
    assert b"".join(files.pieces(name)) == b"{1}"


def test_an_object_whose_version_is_unknown_is_replaced_if_its_content_was_seen(files, name):
    files.put(name, b"{1}", JSON)
    assert files.replace(name, b"{2}", Content(b"{1}"), JSON, most=1).data == b"{2}"
    with pytest.raises(Changed):
        files.replace(name, b"{3}", Content(b"{1}"), JSON, most=1)


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # Azure's client does
def test_a_picture_is_uploaded_once_with_its_headers_whatever_its_bytes_are(cloud, files, tmp_path):
    content = b"\x89PNG\r\n--==0==\r\n--==0==--" * 70_000
    file, name = tmp_path / "a.part", cloud.name_of(f"{uuid4().hex}/a.png")
    file.write_bytes(content)
    headers = Headers("image/png", "public, max-age=60")
    assert files.place(file, name, headers, overwrite=False)
    assert not files.place(file, name, headers, overwrite=False)
    assert b"".join(files.pieces(name)) == content
    assert headers_of(cloud, name) == headers
    file.write_bytes(b"another")
    assert files.place(file, name, Headers("image/webp"), overwrite=True)
    assert files.read(name).data == b"another"
    assert headers_of(cloud, name).content_type == "image/webp"


def headers_of(cloud, name):
    import requests

    key = name.partition("/")[2]
    if cloud.name == "s3":
        found = servers.Storage(cloud.url).client().head_object(Bucket=servers.BUCKET, Key=key)
        return Headers(found["ContentType"], found.get("CacheControl"))
    if cloud.name == "gs":
        found = requests.get(f"{cloud.url}/storage/v1/b/{servers.BUCKET}/o/{key.replace('/', '%2F')}", timeout=30)
        return Headers(found.json()["contentType"], found.json().get("cacheControl"))
    from azure.storage.blob import BlobServiceClient

    with BlobServiceClient.from_connection_string(cloud.url) as client:
        found = client.get_blob_client(servers.BUCKET, key).get_blob_properties().content_settings
        return Headers(found.content_type, found.cache_control)


def test_of_two_processes_that_create_one_object_one_is_told_so_even_if_the_reply_is_lost(cloud):
    command = [sys.executable, "-m", "tests.distributed.clouds", cloud.name, cloud.url]
    writers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    lost: set[str] = set()

    def loses(method, path):
        """Lose the first reply about each of some objects."""
        if method not in ("PUT", "POST"):
            return False
        key = current[0]
        is_lost = key not in lost and key in to_lose
        lost.add(key)
        return is_lost

    keys = [uuid4().hex for _ in range(ROUNDS)]
    to_lose, current = set(keys[: SLOW_RETRY[cloud.name]]), [""]
    try:
        assert [writer.stdout.readline() for writer in writers] == ["ready\n"] * 2
        cloud.proxy.loses = loses
        for key in keys:
            current[0] = key
            for writer in writers:
                writer.stdin.write(f"{key}\n")
                writer.stdin.flush()
            assert sorted(writer.stdout.readline() for writer in writers) == ["created\n", "exists\n"]
    finally:
        cloud.proxy.loses = lambda *_: False
        for writer in writers:
            writer.kill()
            writer.communicate()


def test_a_storage_without_conditions_is_read_before_it_is_written_and_that_is_logged_once(
    files, name, monkeypatch, caplog
):
    def refuse(*_, **__):
        raise objects._UnsupportedError

    monkeypatch.setattr(objects, "_logged", set())
    write = type(files._client).write

    def unconditional(client, *arguments):
        return refuse() if len(arguments) > 3 else write(client, *arguments)

    monkeypatch.setattr(type(files._client), "write", unconditional)
    monkeypatch.setattr(type(files._client), "delete", refuse)
    one = files.create(name, b"{1}", JSON, most=1)
    with pytest.raises(AlreadyExists):
        files.create(name, b"{2}", JSON, most=1)
    two = files.replace(name, b"{2}", one, JSON, most=1)
    with pytest.raises(Changed):
        files.replace(name, b"{3}", one, JSON, most=1)
    with pytest.raises(Changed):
        files.delete(name, one, most=1)
    files.delete(name, two, most=1)
    assert files.read(name) is None
    logged = [record.message for record in caplog.records]
    assert [message for message in logged if "does not support conditional writes" in message] == logged[:1]


@pytest.fixture
def folder(cloud, pictory, monkeypatch):
    """Return the URL of a new folder in the cloud, for batches of a new account."""
    monkeypatch.setattr(store, "_STORE_CACHE", {})
    attach(cloud.name, fs=cloud.fs)
    pictory.reset()
    pictory.account.seconds = 0
    monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", pictory.connection_json(requests_per_second=200))
    return f"{cloud.name}://{servers.BUCKET}/{uuid4().hex}"


def test_a_batch_is_saved_continued_and_reused(cloud, pictory, folder):
    table = [f"A lamp, number {n}" for n in range(12)]
    tries = Tries(folder)
    assert tries(table)["saved"] == 12
    cloud.proxy.requests.clear()
    again = Tries(folder)
    again.run_id = "the next night"
    assert again(table)["reused"] == 12
    assert [each for each in cloud.proxy.requests if ".png" in each] == []
    assert set(billed(pictory).values()) == {1}
    manifest = cloud.fs.cat_file(f"{folder.partition('://')[2]}/metadata.jsonl")
    assert [json.loads(line)["ai_credits_used"] for line in manifest.splitlines()] == [2.0] * 12


def test_a_candidate_is_moved_aside_and_bought_anew(cloud, pictory, folder):
    tries, inside = Tries(folder), folder.partition("://")[2]
    tries(["A lamp"], candidates=2)
    old = cloud.fs.cat_file(f"{inside}/00000.2.png")
    moved = redo(f"{folder}/00000.2.png")
    assert moved.version == f"{folder}/00000.2.v1.png"
    assert not cloud.fs.exists(f"{inside}/00000.2.png")
    assert redo(f"{folder}/00000.2.png").is_repeated
    for saved in (1, 0):
        tries.clear()
        result = tries(["A lamp"], candidates=2)
        assert (result["saved"], result["reused"]) == (saved, 2 - saved)
    names = sorted(name.rpartition("/")[2] for name in cloud.fs.ls(inside, detail=False) if name.endswith(".png"))
    assert names == ["00000.1.png", "00000.2.png", "00000.2.v1.png"]
    assert cloud.fs.cat_file(f"{inside}/00000.2.v1.png") == old
    assert len(pictory.account.jobs) == 3


def test_copies_are_made_once_and_moved_with_their_picture(cloud, pictory, folder):
    tries, inside = Tries(folder), folder.partition("://")[2]
    arguments = {"requests": ["A lamp", "A chair"], "copies": [{"format": "webp", "width": 64}]}

    def names():
        return sorted(name.rpartition("/")[2] for name in cloud.fs.ls(inside, detail=False) if ".webp" in name)

    tries(**arguments)
    assert names() == ["00000.64.webp", "00001.64.webp"]
    cloud.proxy.requests.clear()
    again = Tries(folder)
    again.run_id = "the next night"
    again(**arguments)
    assert [each for each in cloud.proxy.requests if ".png" in each or ".webp" in each] == []
    copy = cloud.fs.cat_file(f"{inside}/00001.64.webp")
    cloud.fs.rm_file(f"{inside}/00001.64.webp")
    again.clear()
    assert again(**arguments)["reused"] == 2
    assert cloud.fs.cat_file(f"{inside}/00001.64.webp") == copy
    cloud.fs.pipe_file(f"{inside}/00000.64.webp", b"mine")
    again.clear()
    with pytest.raises(PictoryRequestInvalid, match=says("Another file exists at")):
        again(**arguments)
    assert cloud.fs.cat_file(f"{inside}/00000.64.webp") == b"mine"
    cloud.fs.rm_file(f"{inside}/00000.64.webp")
    again.clear()
    again(**arguments)
    redo(f"{folder}/00000.png")
    assert names() == ["00000.v1.64.webp", "00001.64.webp"]
    again.clear()
    again(**arguments)
    assert names() == ["00000.64.webp", "00000.v1.64.webp", "00001.64.webp"]
    assert len(pictory.account.jobs) == 3
