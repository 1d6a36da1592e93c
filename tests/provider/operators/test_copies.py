# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Copies of a saved picture: made once, next to it, for free, and of the very picture that is there."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from functools import partial
from pathlib import Path

import pytest
from airflow.sdk import Asset
from PIL import Image

from pictory_provider.exceptions import (
    PictoryJobFailed,
    PictoryRequestInvalid,
    PictoryStorageFailed,
    PictoryUnavailable,
)
from pictory_provider.media.xmp import TRAINED
from pictory_provider.operators.pictory import GenerateImageOperator
from pictory_provider.services.redo import redo
from pictory_provider.storage import copies as making
from pictory_provider.storage.files import LocalFiles
from tests.driver import Attempts, Runs
from tests.provider.batches import billed
from tests.stand_ins import says

PROMPT, OTHER = "A lighthouse at dawn", "A lighthouse at dusk"
SMALL, FULL = {"format": "webp", "width": 64, "quality": 80}, {"format": "jpg"}
NAMES = ["a.64.webp", "a.jpg", "a.png", "a.png.json"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "covers" / "a.png"


@pytest.fixture(params=["with a store", "without"])
def try_of(request, pictory, path):
    """Return a function that runs one whole attempt of a task with two copies."""

    def make(**kwargs):
        arguments = {"prompt": PROMPT, "path": str(path), "deferrable": False, "copies": [SMALL, FULL], **kwargs}
        pictory.account.seconds = 0.2 if arguments["deferrable"] else 0  # a job that has ended needs no deferral
        return GenerateImageOperator(task_id="cover", poll_interval=0.05, **arguments)

    return Runs(make, has_store=request.param == "with a store")


@pytest.fixture
def attempts_of_candidates(try_of):
    return Attempts(partial(try_of.make, candidates=2, copies=[SMALL]), has_store=try_of.has_store)


def sidecar(path):
    return json.loads(Path(f"{path}.json").read_text())


def names(path):
    return sorted(file.name for file in path.parent.iterdir())


def state_of(folder):
    """Return what shows that a file was written again: its inode and times change."""
    return {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in folder.iterdir()}


def says_ai(file):
    return TRAINED.encode() in file.read_bytes()


# One picture --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deferrable", [False, True])
def test_copies_are_made_next_to_the_picture_and_are_in_its_record_and_its_sidecar(
    pictory, try_of, path, deferrable
):
    image = try_of(deferrable=deferrable)
    assert names(path) == NAMES
    small, full = image["copies"]
    for copy, name, kind in ((small, "a.64.webp", "WEBP"), (full, "a.jpg", "JPEG")):
        content = path.with_name(name).read_bytes()
        with Image.open(path.with_name(name)) as opened:
            assert (opened.format, opened.size) == (kind, (copy["width"], copy["height"]))
        assert copy["path"] == str(path.with_name(name))
        assert (copy["size"], copy["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert (small["format"], small["width"]) == ("webp", 64)
    assert (full["width"], full["height"]) == (image["width"], image["height"])
    recorded = sidecar(path)["copies"]
    assert [{**each, **SMALL} if each["width"] else each for each in recorded] == recorded
    assert {each["of"] for each in recorded} == {image["sha256"]}
    assert all(each["made_with"].startswith("Pillow") for each in recorded)
    assert len(pictory.account.jobs) == 1


@pytest.mark.parametrize("way", [{"clears": 0}, {"clears": 1}, {"run_id": "second"}])
def test_a_retry_a_clear_and_another_run_write_nothing_again_and_buy_nothing(pictory, try_of, path, way):
    first = try_of("first")
    before = state_of(path.parent)
    again = try_of(**way)
    assert state_of(path.parent) == before
    assert again["copies"] == first["copies"]
    assert billed(pictory) == {PROMPT: 1}


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_bytes(b"RIFF")])
def test_a_copy_that_is_missing_or_cut_short_is_made_again_and_is_the_same(pictory, try_of, path, damage):
    try_of("first")
    before = path.with_name("a.64.webp").read_bytes()
    damage(path.with_name("a.64.webp"))
    try_of("second")
    assert path.with_name("a.64.webp").read_bytes() == before
    assert billed(pictory) == {PROMPT: 1}


def test_copies_that_are_asked_for_later_or_otherwise_are_made_of_the_existing_picture(pictory, try_of, path):
    try_of("first", copies=None)
    assert names(path) == ["a.png", "a.png.json"]
    assert "copies" not in sidecar(path)
    first = try_of("second")
    other = try_of("third", copies=[{**SMALL, "quality": 20}, {"format": "png", "width": 32}])
    assert other["copies"][0]["size"] < first["copies"][0]["size"]
    assert [each["path"].rpartition("/")[2] for each in other["copies"]] == ["a.64.webp", "a.32.png"]
    assert names(path) == ["a.32.png", *NAMES], "one that is not asked for any more stays"
    assert billed(pictory) == {PROMPT: 1}


def test_a_copy_is_never_larger_than_the_picture(try_of, path):
    image = try_of(copies=[{"format": "webp", "width": 9_000}])
    (copy,) = image["copies"]
    assert (copy["width"], copy["height"]) == (image["width"], image["height"])
    assert path.with_name("a.9000.webp").exists()


def test_the_asset_event_and_the_lineage_have_the_copies(try_of, path):
    cover = Asset("cover")
    image = try_of(outlets=[cover])
    extra = try_of.last.context["outlet_events"][cover].extra
    assert [each["path"] for each in extra["copies"]] == [each["path"] for each in image["copies"]]
    assert try_of.last.task._lineage[1] == [str(path), *(each["path"] for each in image["copies"])]


# The mark -----------------------------------------------------------------------------------------------


def test_a_copy_has_the_mark_if_the_task_marks_and_none_otherwise(pictory, try_of, path):
    every = [{"format": kind, "width": 64} for kind in ("webp", "jpeg", "png", "avif")]
    plain = try_of("first", copies=every)
    files = [path.with_name(f"a.64.{each['format']}") for each in every]
    assert [says_ai(file) for file in files] == [False] * 4
    marked = try_of("second", copies=every, mark_ai_generated=True)
    assert [says_ai(file) for file in files] == [True] * 4
    assert says_ai(path)
    assert [each["sha256"] for each in marked["copies"]] != [each["sha256"] for each in plain["copies"]]
    before = state_of(path.parent)
    try_of("third", copies=every, mark_ai_generated=True)
    assert state_of(path.parent) == before
    try_of("fourth", copies=every)
    assert state_of(path.parent) == before, "the picture still says so, and so do its copies"
    assert billed(pictory) == {PROMPT: 1}


@pytest.mark.parametrize("origin", ["c2pa", "aigc"])
@pytest.mark.parametrize("mark_ai_generated", [True, False])
def test_copies_of_a_picture_that_is_never_changed_have_the_mark(pictory, try_of, path, origin, mark_ai_generated):
    pictory.shape("mark", origin)
    try_of(mark_ai_generated=mark_ai_generated)
    assert not says_ai(path)
    assert says_ai(path.with_name("a.64.webp")), "its own statement about its origin is lost in the copy"
    assert sidecar(path)["marks"] == [origin]


def test_a_copy_names_the_source_that_the_picture_names(pictory, try_of, path):
    pictory.shape("mark", "xmp-camera")
    try_of(mark_ai_generated=True)
    assert not says_ai(path.with_name("a.64.webp"))
    assert b"digitalCapture" in path.with_name("a.64.webp").read_bytes()


# Other files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan_only", [False, True])
@pytest.mark.parametrize("overwrite", [False, "changed"])
def test_another_file_with_the_name_of_a_copy_is_refused_before_anything_is_bought(
    pictory, try_of, path, overwrite, plan_only
):
    path.parent.mkdir()
    path.with_name("a.64.webp").write_bytes(b"mine")
    with pytest.raises(PictoryRequestInvalid, match=says("a.64.webp exists")):
        try_of(overwrite=overwrite, plan_only=plan_only)
    assert (names(path), pictory.account.jobs) == (["a.64.webp"], {})
    assert path.with_name("a.64.webp").read_bytes() == b"mine"


def test_with_overwrite_another_file_with_the_name_of_a_copy_is_replaced(pictory, try_of, path):
    path.parent.mkdir()
    path.with_name("a.64.webp").write_bytes(b"mine")
    try_of(overwrite=True)
    assert path.with_name("a.64.webp").read_bytes()[:4] == b"RIFF"


def test_a_retry_with_overwrite_replaces_the_copies_of_the_picture_before(pictory, try_of, path, monkeypatch):
    try_of("first")
    with monkeypatch.context() as patch:
        patch.setattr(making, "MOST_PIXELS", 100)
        with pytest.raises(PictoryRequestInvalid, match=says("could not be copied to")):
            try_of("second", prompt=OTHER, overwrite=True)
    image = try_of("second", prompt=OTHER, overwrite=True)
    assert {each["of"] for each in sidecar(path)["copies"]} == {image["sha256"]}
    assert billed(pictory) == {PROMPT: 1, OTHER: 1}


def test_next_to_a_picture_that_exists_another_file_is_left_alone_and_the_other_copies_are_made(
    pictory, try_of, path
):
    try_of("first", copies=None)
    path.with_name("a.64.webp").write_bytes(b"mine")
    with pytest.raises(PictoryRequestInvalid, match=says("Another file exists at")) as error:
        try_of("second")
    assert "is saved and paid for, and could not be copied to a.64.webp" in says_of(error)
    assert path.with_name("a.64.webp").read_bytes() == b"mine"
    (made,) = try_of.last.ti.xcoms["image"]["copies"]
    assert made["path"] == str(path.with_name("a.jpg"))
    path.with_name("a.64.webp").unlink()
    try_of("second", clears=1)
    assert names(path) == NAMES
    assert billed(pictory) == {PROMPT: 1}


def edited(try_of, path):
    try_of("first")
    path.with_name("a.64.webp").write_bytes(b"retouched by hand")


def put_there_after_the_copy_was_given_up(try_of, path):
    try_of("first")
    path.with_name("a.64.webp").unlink()
    try_of("second", copies=[FULL])
    path.with_name("a.64.webp").write_bytes(b"mine")


def a_picture_of_another_task(try_of, path):
    try_of("first")
    path.with_name("a.64.webp").unlink()
    Runs(try_of.make)(prompt=OTHER, path=str(path.with_name("a.64.webp")), copies=None)


@pytest.mark.parametrize("put", [edited, put_there_after_the_copy_was_given_up, a_picture_of_another_task])
def test_a_file_that_took_the_place_of_a_copy_is_left_alone(try_of, path, put):
    put(try_of, path)
    theirs = path.with_name("a.64.webp").read_bytes()
    with pytest.raises(PictoryRequestInvalid, match=says("Another file exists at")):
        try_of("third")
    assert path.with_name("a.64.webp").read_bytes() == theirs
    with pytest.raises(PictoryRequestInvalid, match=says("a.64.webp exists")):
        try_of("fourth", prompt="A lighthouse at noon", overwrite="changed")
    assert path.with_name("a.64.webp").read_bytes() == theirs


@pytest.mark.parametrize("overwrite", [False, "changed", True])
def test_a_folder_with_the_name_of_a_copy_is_refused_before_anything_is_bought(pictory, try_of, path, overwrite):
    path.with_name("a.jpg").mkdir(parents=True)
    with pytest.raises(PictoryRequestInvalid, match=says("is a folder")):
        try_of(overwrite=overwrite)
    assert pictory.account.jobs == {}


def test_another_file_is_refused_before_anything_is_bought_if_the_path_is_a_file_url(pictory, try_of, tmp_path):
    (tmp_path / "my cover.jpg").write_bytes(b"mine")
    with pytest.raises(PictoryRequestInvalid, match=says("my%20cover.jpg exists")):
        try_of(path=f"file://{tmp_path}/my%20cover.png")
    assert pictory.account.jobs == {}


@pytest.mark.parametrize("suffix", ["", ".png"])
def test_names_of_copies_that_the_disk_refuses_are_refused_before_anything_is_bought(
    pictory, try_of, tmp_path, suffix
):
    name = "x" * (250 - len(suffix)) + suffix
    with pytest.raises(PictoryRequestInvalid, match=says("has a name that the disk at")):
        try_of(path=str(tmp_path / name), copies=[{"format": "webp", "width": 16_383}])
    assert pictory.account.jobs == {}
    try_of(path=str(tmp_path / name), copies=None)


def says_of(error):
    return " ".join(str(error.value).split())


# Another picture at the path ----------------------------------------------------------------------------


@pytest.mark.parametrize("overwrite", [True, "changed"])
def test_copies_are_of_the_picture_that_replaces_another_one(pictory, try_of, path, overwrite):
    old = try_of("first")
    new = try_of("second", prompt=OTHER, overwrite=overwrite)
    assert [each["sha256"] for each in new["copies"]] != [each["sha256"] for each in old["copies"]]
    assert {each["of"] for each in sidecar(path)["copies"]} == {new["sha256"]}
    for each in new["copies"]:
        assert hashlib.sha256(Path(each["path"]).read_bytes()).hexdigest() == each["sha256"]


def test_the_log_names_a_copy_that_shows_an_earlier_picture_since_the_task_no_longer_makes_it(
    try_of, path, logged
):
    try_of("first")
    try_of("second", prompt=OTHER, overwrite="changed", copies=[SMALL])
    text = logged()
    assert f"{path.with_name('a.jpg')} shows an earlier picture" in text
    assert f"Made {path.with_name('a.64.webp')}" in text
    assert f"{path.with_name('a.64.webp')} shows an earlier picture" not in text


def test_a_mark_without_a_path_has_no_effect_and_the_log_says_so(try_of, logged):
    with pytest.raises(KeyError, match="image"):
        try_of(path=None, copies=None, mark_ai_generated=True)
    assert "mark_ai_generated has no effect without a path" in logged()


def test_if_the_job_that_was_to_replace_a_picture_fails_the_old_copies_are_on_record(pictory, try_of, path):
    first = try_of("first")
    pictory.plan("failed")
    with pytest.raises(PictoryJobFailed):
        try_of("second", prompt=OTHER, overwrite="changed")
    before = state_of(path.parent)
    again = try_of("third")
    after = state_of(path.parent)
    assert {name: after[name] for name in NAMES[:3]} == {name: before[name] for name in NAMES[:3]}
    assert again["copies"] == first["copies"]


def test_redo_moves_the_copies_with_their_picture_and_new_ones_are_made(pictory, try_of, path):
    old = try_of("first")
    before = {name: path.with_name(name).read_bytes() for name in NAMES}
    redo(str(path))
    moved = ["a.v1.64.webp", "a.v1.jpg", "a.v1.png", "a.v1.png.json"]
    assert names(path) == ["a.png.json", *moved]
    assert [path.with_name(name).read_bytes() for name in moved] == list(before.values())
    new = try_of("second")
    assert names(path) == sorted([*NAMES, *moved])
    assert [each["path"] for each in new["copies"]] == [each["path"] for each in old["copies"]]
    assert billed(pictory) == {PROMPT: 2}


def test_redo_leaves_a_changed_copy_where_it_is_and_takes_no_version_with_other_files(pictory, try_of, path):
    try_of("first")
    path.with_name("a.64.webp").write_bytes(b"retouched")
    path.with_name("a.v1.jpg").write_bytes(b"mine")
    redo(str(path))
    assert names(path) == ["a.64.webp", "a.png.json", "a.v1.jpg", "a.v2.jpg", "a.v2.png", "a.v2.png.json"]
    assert path.with_name("a.64.webp").read_bytes() == b"retouched"


def test_after_redo_a_changed_copy_is_in_the_way_of_the_next_purchase(pictory, try_of, path):
    try_of("first")
    path.with_name("a.64.webp").write_bytes(b"retouched")
    redo(str(path))
    with pytest.raises(PictoryRequestInvalid, match=says("a.64.webp exists")):
        try_of("second")
    assert billed(pictory) == {PROMPT: 1}
    path.with_name("a.64.webp").unlink()
    assert len(try_of("second")["copies"]) == 2


def test_redo_does_not_wait_for_the_writer_of_a_pipe(try_of, path):
    try_of("first")
    path.with_name("a.jpg").unlink()
    os.mkfifo(path.with_name("a.jpg"))
    redo(str(path))
    assert path.with_name("a.jpg").is_fifo()
    assert path.with_name("a.v1.64.webp").exists()


def test_a_copy_that_another_task_has_made_since_the_path_was_looked_at_is_not_in_the_way(
    pictory, try_of, path, monkeypatch
):
    sizes, theirs = making.CopyFiles.sizes, []

    def after_another(self, specs):
        if not theirs:
            theirs.append(None)
            theirs[0] = try_of("second")
        return sizes(self, specs)

    monkeypatch.setattr(making.CopyFiles, "sizes", after_another)
    with pytest.raises(PictoryUnavailable):
        try_of("first")
    assert try_of("first")["copies"] == theirs[0]["copies"]
    assert billed(pictory) == {PROMPT: 1}


@pytest.mark.parametrize("overwrite", [True, "changed"])
@pytest.mark.parametrize("place", ["convert", "first copy"])
def test_an_attempt_that_ends_while_it_makes_copies_of_a_new_picture_is_continued_by_the_retry(
    pictory, try_of, path, monkeypatch, overwrite, place
):
    try_of("first")

    def end(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if place == "convert":
            patch.setattr(making, "convert", end)
        else:
            convert = making.convert
            patch.setattr(making, "convert", lambda *args, **kwargs: [*convert(*args, **kwargs)][:1])
        with pytest.raises((KeyboardInterrupt, ValueError)):
            try_of("second", prompt=OTHER, overwrite=overwrite)
    image = try_of("second", prompt=OTHER, overwrite=overwrite)
    assert {each["of"] for each in sidecar(path)["copies"]} == {image["sha256"]}
    assert [each["size"] for each in image["copies"]] == [
        path.with_name(name).stat().st_size for name in NAMES[:2]
    ]
    assert billed(pictory) == {PROMPT: 1, OTHER: 1}


def test_copies_that_another_task_records_meanwhile_stay_on_record(try_of, path, monkeypatch):
    try_of("first", copies=None)
    convert = making.convert

    def meanwhile(*args, **kwargs):
        with monkeypatch.context() as patch:
            patch.setattr(making, "convert", convert)
            Runs(try_of.make)("another", copies=[FULL])
        return convert(*args, **kwargs)

    monkeypatch.setattr(making, "convert", meanwhile)
    try_of("second", copies=[SMALL])
    assert {each["format"] for each in sidecar(path)["copies"]} == {"jpg", "webp"}


# What cannot be made ------------------------------------------------------------------------------------


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_picture_that_cannot_be_copied_is_saved_and_the_task_fails_without_a_retry(
    pictory, try_of, path, monkeypatch, deferrable
):
    cover = Asset("cover")
    with monkeypatch.context() as patch:
        patch.setattr(making, "MOST_PIXELS", 100)
        with pytest.raises(PictoryRequestInvalid, match=says("could not be copied to a.64.webp, a.jpg")) as error:
            try_of("first", deferrable=deferrable, outlets=[cover])
    assert "pixels" in says_of(error)
    assert "clear the task, without overwrite=True: that makes them, for free" in says_of(error)
    assert sidecar(path)["state"] == "saved"
    assert try_of.last.ti.xcoms["image"]["copies"] == []
    assert not try_of.last.context["outlet_events"][cover].extra
    image = try_of("first", clears=1, deferrable=deferrable)
    assert len(image["copies"]) == 2
    assert billed(pictory) == {PROMPT: 1}


def test_a_storage_that_fails_while_a_copy_is_written_costs_nothing_and_a_retry_makes_the_copy(
    pictory, try_of, path, monkeypatch
):
    write = LocalFiles.create

    def create(self, name, *args, **kwargs):
        if name.endswith(".webp"):
            raise OSError(28, "No space left on device")
        return write(self, name, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(LocalFiles, "create", create)
        with pytest.raises(PictoryStorageFailed, match=says("A retry makes these copies, for free")):
            try_of("first")
    assert names(path) == ["a.jpg", "a.png", "a.png.json"]
    try_of("first")
    assert names(path) == NAMES
    assert billed(pictory) == {PROMPT: 1}


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"copies": "webp"}, "copies is of type str; it takes a list of dicts"),
        ({"copies": [{"format": "gif"}]}, "copies[0] has the format 'gif'; it takes webp, jpeg, jpg, avif, png"),
        (
            {"copies": [SMALL, {"format": "webp", "size": 3}]},
            "copies[1] has 'size'; it takes format, width, quality",
        ),
        ({"copies": [{"format": "webp", "width": "1200"}]}, "copies[0] has the width '1200'"),
        ({"copies": [{"format": "webp", "width": 8}]}, "it takes whole pixels from 16 to 16,383"),
        ({"copies": [{"format": "webp", "quality": 101}]}, "copies[0] has the quality 101"),
        ({"copies": [{"format": "png", "width": 64, "quality": 80}]}, "png is lossless: leave it out"),
        ({"copies": [SMALL, {**SMALL, "quality": 20}]}, "copies[1] has the same file name as another entry"),
        ({"copies": [{"format": "png"}]}, "would have the picture's own name, 'a.png'"),
        ({"path": None}, "copies are made of the saved picture, and there is no path"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_sent(pictory, try_of, wrong, why):
    with pytest.raises(PictoryRequestInvalid) as error:
        try_of(**wrong)
    assert why in says_of(error)
    assert "nothing was spent" in says_of(error)
    assert pictory.account.jobs == {}


def test_without_pillow_the_task_says_what_to_install_before_anything_is_sent(pictory, try_of, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(PictoryRequestInvalid, match=r"airflow-provider-pictory\[images\]"):
        try_of()
    assert pictory.account.jobs == {}


def test_if_the_worker_that_resumes_has_no_pillow_the_picture_is_saved_all_the_same(
    pictory, try_of, path, monkeypatch
):
    run, resumed = GenerateImageOperator.execute_complete, []

    def resume(self, *args, **kwargs):
        resumed.append(self)
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "PIL", None)
            return run(self, *args, **kwargs)

    monkeypatch.setattr(GenerateImageOperator, "execute_complete", resume)
    with pytest.raises(PictoryRequestInvalid, match=says("could not be copied to")):
        try_of(deferrable=True)
    assert resumed
    assert sidecar(path)["state"] == "saved"


# Candidates ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deferrable", [False, True])
def test_each_candidate_has_its_copies(pictory, attempts_of_candidates, path, monkeypatch, deferrable):
    attempts = attempts_of_candidates
    with monkeypatch.context() as patch:
        patch.setattr(making, "MOST_PIXELS", 100)
        with pytest.raises(PictoryRequestInvalid, match=says("Candidate 1 of 2:")) as error:
            attempts(deferrable=deferrable)
    assert "Candidate 2 of 2:" in says_of(error)
    assert [image["copies"] for image in attempts.ti.xcoms["images"]] == [[], []]
    attempts.clear()
    attempts(deferrable=deferrable)
    assert names(path) == ["a.1.64.webp", "a.1.png", "a.1.png.json", "a.2.64.webp", "a.2.png", "a.2.png.json"]
    assert [[each["path"] for each in image["copies"]] for image in attempts.ti.xcoms["images"]] == [
        [str(path.with_name(name))] for name in ("a.1.64.webp", "a.2.64.webp")
    ]
    assert billed(pictory) == {PROMPT: 2}


def test_candidates_whose_copies_would_have_one_name_are_refused_before_anything_is_bought(pictory, try_of, path):
    attempts = Attempts(partial(try_of.make, candidates=2, path=str(path.with_suffix(""))))
    with pytest.raises(PictoryRequestInvalid, match=says("all candidates would have the same name, 'a.64.webp'")):
        attempts()
    assert pictory.account.jobs == {}
