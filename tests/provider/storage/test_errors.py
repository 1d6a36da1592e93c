# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The texts for errors of object storages' clients."""

from __future__ import annotations

import errno

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pictory_provider.api.errors import StorageFailed
from pictory_provider.storage.errors import READING, storage_failed
from pictory_provider.storage.target import Target

GONE = 'The remote file corresponding to filename media/a.json and Etag "f97c" no longer exists.'


@pytest.fixture
def replaced(monkeypatch, memory):
    """Return a list; each item that it is given lets one more opening find an object that was just replaced."""
    fs, opened, times = fsspec.filesystem("memory"), MemoryFileSystem._open, []
    fs.pipe_file("/media/a.json", b"written by another task")

    def _open(self, path, mode="rb", **more):
        if "r" in mode and times:
            times.pop()
            raise OSError(errno.EBUSY, GONE)
        return opened(self, path, mode=mode, **more)

    monkeypatch.setattr(MemoryFileSystem, "_open", _open)
    return times


def test_an_object_that_is_replaced_while_it_is_read_is_read_once_more(replaced):
    replaced.append(1)
    assert b"".join(Target("memory://media/a.json").pieces()) == b"written by another task"
    replaced.append(1)
    seen = Target("memory://media/a.json").read()
    assert Target("memory://media/a.json").swap(seen, b"by this one")


def test_an_object_that_is_replaced_again_and_again_has_its_own_error(replaced):
    replaced += [1, 1]
    with pytest.raises(StorageFailed) as caught:
        b"".join(Target("memory://media/a.json").pieces())
    assert caught.value.message == (
        "Could not read 'memory://media/a.json': another task has just written there "
        f"({GONE.rstrip('.')}). A retry reads it again."
    )


class HttpError(Exception):
    """The error of gcsfs."""

    code = 403


class AzureError(Exception):
    """The error of adlfs."""

    status_code = 403


@pytest.mark.parametrize(
    ("path", "error", "needs"),
    [
        ("s3://media/a.png", PermissionError("Forbidden"), "s3:ListBucket on the bucket, and s3:GetObject"),
        ("s3a://media/a.png", PermissionError("Forbidden"), "the same answer for a missing object"),
        ("gs://media/a.png", HttpError("denied."), "storage.objects.list, get, create and delete"),
        ("abfss://c/a.png", AzureError("denied"), "Storage Blob Data Contributor"),
    ],
)
def test_a_forbidden_access_names_the_permissions_that_are_needed(path, error, needs):
    told = storage_failed(path, error, *READING).message
    assert needs in told
    assert ".." not in told


@pytest.mark.parametrize("path", ["/srv/a.png", "file:///srv/a.png"])
def test_a_disk_has_no_permissions_of_a_bucket(path):
    denied = PermissionError(errno.EACCES, "Permission denied")
    assert storage_failed(path, denied, *READING).message == (
        f"Could not read {path!r}: Permission denied. Check the folder and its permissions."
    )


def test_an_error_without_a_text_is_shown_by_its_class():
    assert ": TimeoutError. Check" in storage_failed("s3://media/a.png", TimeoutError(), *READING).message
