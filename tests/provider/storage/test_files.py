# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A local disk and an object storage answer alike."""

from __future__ import annotations

import hashlib
from itertools import count

import pytest
from airflow.sdk.io import attach, store
from fsspec.implementations.memory import MemoryFileSystem

from pictory_provider.storage.files import AlreadyExists, Changed, Content, Headers, Stat
from pictory_provider.storage.folder import Folder
from pictory_provider.storage.target import JSON, Target, locate

BUCKETS = count()
PNG = Headers("image/png")


@pytest.fixture(params=["a disk", "object storage"])
def root(request, tmp_path, memory):
    """Return the path of a folder that does not exist yet."""
    return str(tmp_path / "out") if request.param == "a disk" else f"memory://files-{next(BUCKETS)}/out"


@pytest.fixture
def files(root):
    return locate(root).files


@pytest.fixture
def name(root):
    """Return a function that returns the name of a file below the folder."""
    return lambda below: f"{locate(root).name}/{below}"


def test_what_does_not_exist_is_nothing_and_no_error(files, name):
    assert files.stat(name("a.png")) is None
    assert files.read(name("a.png")) is None
    assert files.stats([name("a.png"), name("x/b.png")]) == {}
    assert files.list(name("x")) == []
    files.remove(name("a.png"))
    with pytest.raises(FileNotFoundError):
        list(files.pieces(name("a.png")))


def test_what_is_written_is_found_read_listed_and_removed(files, name):
    files.put(name("x/a.json"), b"{}", JSON)
    files.put(name("x/y/b.json"), b"[1]", JSON)
    assert files.stat(name("x/a.json")) == Stat(2)
    assert files.stat(name("x")) == Stat(None, is_folder=True)
    assert files.read(name("x/a.json")) == Content(b"".join(files.pieces(name("x/a.json")))) == Content(b"{}")
    assert files.list(name("x")) == ["a.json"]
    wanted = [name(each) for each in ("x/a.json", "x/y/b.json", "x/y", "x/none")]
    assert files.stats(wanted) == dict(zip(wanted, [Stat(2), Stat(3), Stat(None, is_folder=True)], strict=False))
    files.put(name("x/a.json"), b"{1}", JSON)
    assert files.read(name("x/a.json")) == Content(b"{1}")
    files.remove(name("x/a.json"))
    assert files.list(name("x")) == []


def test_a_file_is_placed_once_and_replaced_if_that_is_asked_for(files, name, tmp_path):
    def part(content):
        file = tmp_path / f"{hashlib.sha256(content).hexdigest()}.part"
        file.write_bytes(content)
        return file

    files.put(name("another.png"), b"for the folder", PNG)
    assert files.place(part(b"one"), name("a.png"), PNG, overwrite=False)
    assert not files.place(part(b"two"), name("a.png"), PNG, overwrite=False)
    assert files.read(name("a.png")) == Content(b"one")
    assert files.place(part(b"two"), name("a.png"), PNG, overwrite=True)
    assert files.read(name("a.png")) == Content(b"two")


def test_a_file_is_created_once(files, name):
    assert files.create(name("a.json"), b"{1}", JSON, most=1) == Content(b"{1}")
    with pytest.raises(AlreadyExists):
        files.create(name("a.json"), b"{2}", JSON, most=1)
    assert files.read(name("a.json")) == Content(b"{1}")


def test_only_the_file_that_was_read_is_replaced_or_removed(files, name):
    one, two = (Content(data) for data in (b"{1}", b"{2}"))
    with pytest.raises(Changed):
        files.replace(name("a.json"), two.data, one, JSON, most=1)
    files.put(name("a.json"), one.data, JSON)
    assert files.replace(name("a.json"), two.data, one, JSON, most=1) == two
    with pytest.raises(Changed):
        files.replace(name("a.json"), b"{3}", one, JSON, most=1)
    with pytest.raises(Changed):
        files.delete(name("a.json"), one, most=1)
    assert files.read(name("a.json")) == two
    files.delete(name("a.json"), two, most=1)
    files.delete(name("a.json"), two, most=1)
    assert files.stat(name("a.json")) is None


def test_a_swap_replaces_only_what_was_seen(root):
    target = Target(f"{root}/a.json")
    assert target.swap(None, None) is None
    one = target.swap(None, b"{}")
    with pytest.raises(Changed):
        target.swap(None, b"{1}")
    two = target.swap(one, b"{1}")
    for data in (b"{2}", None):
        with pytest.raises(Changed):
            target.swap(one, data)
    assert target.read() == two == Content(b"{1}")
    assert target.swap(two, None) is None
    assert target.size() is None


class Attached(MemoryFileSystem):
    """A storage with objects of its own, as another account would see them."""

    store, pseudo_dirs, cachable = {}, [""], False  # type: ignore[var-annotated]


def test_a_path_without_a_connection_is_read_and_written_in_the_filesystem_that_airflow_attaches(monkeypatch):
    monkeypatch.setattr(store, "_STORE_CACHE", {})
    attach("memory", fs=Attached())
    Target("memory://bucket/a.json").write(b"{}")
    assert list(Attached.store) == ["/bucket/a.json"]
    assert Target("memory://bucket/a.json").size() == 2
    assert Folder("memory://bucket").existing(["a.json"]) != {}
