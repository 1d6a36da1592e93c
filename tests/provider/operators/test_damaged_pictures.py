# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""An existing picture that is damaged or unreadable is reported, downloaded again for free, or left."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from pictory_provider.api import responses
from pictory_provider.exceptions import (
    PictoryImageInvalid,
    PictoryJobFailed,
    PictoryRequestInvalid,
    PictoryStorageFailed,
)
from pictory_provider.media.formats import PictureChecker
from pictory_provider.operators.pictory import GenerateImageOperator
from tests.driver import Attempts
from tests.provider.batches import files, lamps, lines
from tests.stand_ins import says


@pytest.fixture(autouse=True)
def _impatient(impatient, timing):
    timing(read_budget=0.05)


@pytest.fixture
def draw(fast, folder):
    """Return a function that runs one attempt of a single task, in a new run."""

    def run(run_id="first", has_store=True, **kwargs):
        def make(**more):
            arguments = {"prompt": "A lamp", "path": str(folder / "a.png"), "deferrable": False, **more}
            return GenerateImageOperator(task_id="cover", **arguments)

        attempts = Attempts(make, run_id=run_id, has_store=has_store)
        attempts(**kwargs)
        return attempts.ti.xcoms["image"]

    return run


def damage(path):
    """Change one byte of the pixels: the size stays, and a checksum is wrong."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    return bytes(content)


def is_whole(path):
    checker = PictureChecker()
    checker.feed(path.read_bytes())
    return checker.finish().marks == ("xmp",)


def beside(path):
    return json.loads(Path(f"{path}.json").read_text())


def cannot_be_read(monkeypatch, name, code=errno.EACCES):
    """Let one file be of another account, as for a worker that is not root."""
    path_open, os_open = Path.open, os.open

    def opened(self, mode="r", *more, **options):
        if self.name == name and "r" in mode:
            raise OSError(code, os.strerror(code), str(self))
        return path_open(self, mode, *more, **options)

    def opened_by_name(path, flags, *more, **options):
        if os.path.basename(path) == name and not flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(code, os.strerror(code), str(path))
        return os_open(path, flags, *more, **options)

    monkeypatch.setattr(Path, "open", opened)
    monkeypatch.setattr(os, "open", opened_by_name)


def bought(fast):
    return len(fast.submissions)


# One picture ---------------------------------------------------------------------------------------------


def test_a_damaged_picture_that_is_to_be_marked_is_fetched_again_for_nothing(fast, draw, folder, logged):
    whole = draw()
    damage(folder / "a.png")
    image = draw("second", mark_ai_generated=True)
    assert (bought(fast), image["ai_mark"], image["job_id"]) == (1, True, whole["job_id"])
    assert is_whole(folder / "a.png")
    on_record = beside(folder / "a.png")
    assert (on_record["state"], on_record["sha256"]) == ("saved", image["sha256"])
    assert image["sha256"] == hashlib.sha256((folder / "a.png").read_bytes()).hexdigest()
    assert str(folder / "a.png") in logged()
    assert files(folder) == ["a.png", "a.png.json"]


@pytest.mark.parametrize("has_store", [True, False])
def test_a_damaged_picture_that_pictory_has_no_longer_is_named_and_left(fast, draw, folder, has_store):
    draw(has_store=has_store)
    fast.account.jobs.clear()
    damaged, sidecar = damage(folder / "a.png"), (folder / "a.png.json").read_bytes()
    with pytest.raises(
        PictoryRequestInvalid,
        match=says("The picture at '.*a.png' is damaged.* delete it and .*a.png.json, and clear the task"),
    ):
        draw("second", has_store=has_store, mark_ai_generated=True)
    assert ((folder / "a.png").read_bytes(), (folder / "a.png.json").read_bytes()) == (damaged, sidecar)
    (folder / "a.png").unlink()
    (folder / "a.png.json").unlink()
    assert draw("second", has_store=has_store, mark_ai_generated=True)["ai_mark"] is True
    assert bought(fast) == 2


def test_a_damaged_picture_that_cannot_be_downloaded_now_is_left_and_a_retry_downloads_it(fast, draw, folder):
    draw()
    damaged = damage(folder / "a.png")
    fast.script("picture", "server-error", times=-1)
    with pytest.raises(PictoryImageInvalid, match=says("is damaged, and could not be .* A retry downloads it")):
        draw("second", mark_ai_generated=True)
    assert (folder / "a.png").read_bytes() == damaged
    fast.clear_faults()
    assert draw("second", mark_ai_generated=True)["ai_mark"] is True
    assert (is_whole(folder / "a.png"), bought(fast)) == (True, 1)


def test_a_picture_that_this_account_may_not_read_is_named(fast, draw, folder, monkeypatch):
    draw()
    with monkeypatch.context() as forbidden:
        cannot_be_read(forbidden, "a.png")
        with pytest.raises(PictoryStorageFailed, match=says("a.png': Permission denied")):
            draw("second", mark_ai_generated=True)
    assert draw("second", mark_ai_generated=True)["ai_mark"] is True
    assert bought(fast) == 1


def test_a_sidecar_that_this_account_may_not_read_is_named_and_nothing_is_bought(fast, draw, folder, monkeypatch):
    draw()
    cannot_be_read(monkeypatch, "a.png.json")
    with pytest.raises(
        PictoryRequestInvalid, match=says("a.png.json cannot be read: this account may not read it")
    ):
        draw("second")
    assert bought(fast) == 1


# Many ----------------------------------------------------------------------------------------------------


def test_a_damaged_picture_of_a_batch_is_fetched_again_and_all_are_marked(fast, one_try, folder):
    one_try(lamps(4))
    damage(folder / "00002.png")
    result = one_try.of_another_run("marked")(lamps(5), mark_ai_generated=True)
    assert (result["reused"], result["saved"], result["failed"], bought(fast)) == (4, 1, 0, 5)
    assert all(is_whole(folder / f"0000{number}.png") for number in range(5))
    digests = {line["file_name"]: line["sha256"] for line in lines(folder / "metadata.jsonl")}
    for name, sha256 in digests.items():
        assert (
            hashlib.sha256((folder / name).read_bytes()).hexdigest() == sha256 == beside(folder / name)["sha256"]
        )


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_damaged_picture_that_pictory_no_longer_has_fails_its_row_and_no_other(
    fast, one_try, folder, logged, deferrable
):
    one_try(lamps(4))
    del fast.account.jobs[beside(folder / "00002.png")["job_id"]]
    damaged = damage(folder / "00002.png")
    again = one_try.of_another_run("marked")
    with pytest.raises(PictoryJobFailed, match=says("1 of 6 rows .* row 2, 00002.png: .* is damaged")):
        again(lamps(6), mark_ai_generated=True, deferrable=deferrable)
    assert (folder / "00002.png").read_bytes() == damaged
    assert all(is_whole(folder / f"0000{number}.png") for number in (0, 1, 3, 4, 5))
    assert bought(fast) == 6
    (failed,) = lines(folder / "failed.jsonl")
    assert (failed["file_name"], failed["code"]) == ("00002.png", "RequestInvalid")
    assert "clear the task" in failed["message"]
    assert [line["file_name"] for line in lines(folder / "metadata.jsonl")] == [
        f"0000{number}.png" for number in (0, 1, 3, 4, 5)
    ]
    (folder / "00002.png").unlink()
    (folder / "00002.png.json").unlink()
    again.clear()
    result = again(lamps(6), mark_ai_generated=True, deferrable=deferrable)
    assert (result["saved"] + result["reused"], bought(fast)) == (6, 7)


def test_a_row_whose_picture_may_not_be_read_is_retried_and_no_other_is_affected(
    fast, one_try, folder, monkeypatch
):
    one_try(lamps(3))
    again = one_try.of_another_run("marked")
    with monkeypatch.context() as forbidden:
        cannot_be_read(forbidden, "00001.png")
        with pytest.raises(
            PictoryStorageFailed, match=says("1 of 4 rows .* row 1, 00001.png: .*Permission denied")
        ):
            again(lamps(4), mark_ai_generated=True)
    assert (is_whole(folder / "00003.png"), bought(fast)) == (True, 4)
    assert again(lamps(4), mark_ai_generated=True)["failed"] == 0
    assert bought(fast) == 4
    assert all(is_whole(folder / f"0000{number}.png") for number in range(4))


def test_a_damaged_picture_can_be_let_go(fast, one_try, folder):
    one_try(lamps(2))
    fast.account.jobs.clear()
    damage(folder / "00000.png")
    result = one_try.of_another_run("marked")(lamps(2), mark_ai_generated=True, fail_on_partial_error=False)
    assert (result["failed"], result["reused"]) == (1, 1)


def test_a_sidecar_that_may_not_be_read_is_reported_for_its_row_alone(fast, one_try, folder, monkeypatch):
    one_try(lamps(2))
    cannot_be_read(monkeypatch, "00001.png.json")
    with pytest.raises(PictoryRequestInvalid, match=says("row 1, 00001.png: .* this account may not read it")):
        one_try.of_another_run("second")(lamps(3))
    assert bought(fast) == 2


@pytest.mark.parametrize("what", ["cut short", "a folder"])
def test_a_file_that_is_plainly_not_the_picture_is_named_and_left(fast, one_try, folder, what):
    one_try(lamps(2))
    path = folder / "00001.png"
    if what == "a folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(PictoryRequestInvalid, match=says("row 1, 00001.png")):
        one_try.of_another_run("marked")(lamps(2), mark_ai_generated=True)
    assert bought(fast) == 2
    assert is_whole(folder / "00000.png")


def test_a_picture_of_a_batch_that_is_downloaded_again_keeps_its_cost(fast, one_try, folder, mocker):
    one_try(lamps(1))
    damage(folder / "00000.png")
    real = responses.parse_job

    def without_cost(*arguments):
        return replace(real(*arguments), ai_credits_used=None)

    mocker.patch.object(responses, "parse_job", without_cost)
    one_try.of_another_run("marked")(lamps(1), mark_ai_generated=True)
    (picture,) = lines(folder / "metadata.jsonl")
    assert (picture["ai_credits_used"], bought(fast)) == (2.0, 1)
