# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Records on a local disk survive a loss of power: a file and its name are synced before the task continues."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from pictory_provider.api.errors import StorageFailed
from pictory_provider.client.sync import SyncClient
from pictory_provider.operators.pictory import GenerateImageOperator
from pictory_provider.storage.target import Target
from tests.driver import Attempts
from tests.provider.batches import lamps


@pytest.fixture
def disk(monkeypatch):
    """Return the folders whose names have changed, in any way, since they were synced last."""
    changed, replace, unlink, mkdir, fsync = set(), Path.replace, Path.unlink, Path.mkdir, os.fsync

    def replaced(self, to):
        changed.add(Path(to).parent)
        return replace(self, to)

    def unlinked(self, missing_ok=False):
        if not self.name.endswith(".part") and self.name != "spare" and self.exists():
            changed.add(self.parent)
        return unlink(self, missing_ok=missing_ok)

    def made(self, *more, **options):
        if not self.exists():
            changed.add(self.parent)
        return mkdir(self, *more, **options)

    def synced(number):
        if stat.S_ISDIR(os.fstat(number).st_mode):
            changed.discard(Path(os.readlink(f"/proc/self/fd/{number}")))
        return fsync(number)

    for name, function in {"replace": replaced, "unlink": unlinked, "mkdir": made}.items():
        monkeypatch.setattr(Path, name, function)
    monkeypatch.setattr(os, "fsync", synced)
    return changed


@pytest.mark.parametrize("kind", ["a single task", "a batch"])
def test_when_a_paid_request_leaves_every_name_on_record_is_on_the_disk(
    fast, one_try, tmp_path, disk, monkeypatch, kind
):
    send, seen = SyncClient.send, []

    def watched(self, request):
        if request.method == "POST":
            seen.append({*disk})
        return send(self, request)

    monkeypatch.setattr(SyncClient, "send", watched)
    if kind == "a batch":
        one_try(lamps(3))
    else:
        path = str(tmp_path / "new" / "folder" / "a.png")
        Attempts(lambda: GenerateImageOperator(task_id="cover", prompt="A lamp", path=path, deferrable=False))()
    assert seen == [set()] * (3 if kind == "a batch" else 1)
    assert disk == set(), "and so is all that was bought, in the end"


def test_an_intent_that_is_withdrawn_is_gone_from_the_disk(tmp_path, disk):
    target = Target(str(tmp_path / "a" / "b" / "x.json"))
    written = target.swap(None, b"{}")
    assert disk == set()
    target.swap(written, None)
    assert disk == set()


def refusing(monkeypatch, code):
    fsync = os.fsync

    def synced(number):
        if stat.S_ISDIR(os.fstat(number).st_mode):
            raise OSError(code, os.strerror(code))
        return fsync(number)

    monkeypatch.setattr(os, "fsync", synced)


def test_a_disk_that_syncs_no_folders_does_not_fail(tmp_path, monkeypatch):
    refusing(monkeypatch, errno.EINVAL)
    Target(str(tmp_path / "x.json")).write(b"{}")
    assert (tmp_path / "x.json").read_bytes() == b"{}"


def test_a_disk_that_fails_to_sync_a_folder_has_not_kept_the_record(tmp_path, monkeypatch):
    refusing(monkeypatch, errno.EIO)
    with pytest.raises(StorageFailed, match="Input/output error"):
        Target(str(tmp_path / "x.json")).write(b"{}")
