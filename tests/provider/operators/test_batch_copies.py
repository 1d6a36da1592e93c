# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""``copies`` of a batch: of each row's picture, in the folder, the manifest and the XComs, and made once."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import fsspec
import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException
from PIL import Image

from pictory_provider.api.errors import ImageInvalid, StorageFailed
from pictory_provider.exceptions import PictoryRequestInvalid, PictoryStorageFailed
from pictory_provider.services.redo import redo
from pictory_provider.simulator import painting
from pictory_provider.storage import copies as making
from pictory_provider.storage.pictures import PictureTarget
from tests.provider.batches import Tries, billed, files, lamps, lines
from tests.stand_ins import says

COPIES = [{"format": "webp", "width": 64}, {"format": "jpg"}]
NAMES = [f"L-{row}.{end}" for row in range(3) for end in ("64.webp", "jpg", "png", "png.json")]


@pytest.fixture
def rows():
    return [{"prompt": prompt, "sku": f"L-{number}"} for number, prompt in enumerate(lamps(3))]


@pytest.fixture
def tries(folder, fast):
    return Copying(folder)


class Copying(Tries):
    def task_of(self, requests, **kwargs):
        return super().task_of(requests, **{"file_name": "{sku}.png", "copies": COPIES, **kwargs})


def pictures(folder):
    return [name for name in files(folder) if name not in ("failed.jsonl", "metadata.jsonl")]


def state_of(folder):
    """Return what shows that a file was written again: its inode and times change."""
    found = {name: (folder / name).stat() for name in pictures(folder)}
    return {name: (status.st_ino, status.st_mtime_ns) for name, status in found.items()}


@pytest.mark.parametrize("deferrable", [False, True])
def test_each_picture_has_its_copies_and_the_manifest_and_the_xcoms_name_them(
    fast, tries, folder, rows, deferrable
):
    fast.account.seconds = 0.2 if deferrable else 0
    result = tries(rows, deferrable=deferrable)
    assert (result["saved"], pictures(folder)) == (3, NAMES)
    assert [line["copies"] for line in lines(folder / "metadata.jsonl")] == [
        [
            {"name": f"L-{row}.64.webp", "width": 64, "height": 64},
            {"name": f"L-{row}.jpg", "width": 1024, "height": 1024},
        ]
        for row in range(3)
    ]
    for row, record in enumerate(tries.ti.xcoms["pictures_0"]):
        small, full = record["copies"]
        assert (small["path"], small["width"]) == (str(folder / f"L-{row}.64.webp"), 64)
        assert (full["width"], full["height"]) == (record["width"], record["height"])
        assert small["size"] == (folder / f"L-{row}.64.webp").stat().st_size
    assert set(billed(fast).values()) == {1}


@pytest.mark.parametrize("way", ["a retry", "a clear", "another run"])
def test_an_unchanged_table_writes_no_picture_and_no_copy_again(fast, tries, folder, rows, way):
    tries(rows)
    before, manifest = state_of(folder), (folder / "metadata.jsonl").read_bytes()
    first = tries.ti.xcoms["pictures_0"]
    again = tries.of_another_run("second") if way == "another run" else tries
    if way == "a clear":
        tries.clear()
    again(rows)
    assert (state_of(folder), (folder / "metadata.jsonl").read_bytes()) == (before, manifest)
    copies = [record["copies"] for record in again.ti.xcoms["pictures_0"]]
    assert copies == [record["copies"] for record in first]
    assert set(billed(fast).values()) == {1}


@pytest.mark.usefixtures("memory")
def test_in_object_storage_an_unchanged_table_writes_no_copy_again(fast, rows, monkeypatch):
    folder, fs = "memory://bucket/copied", fsspec.filesystem("memory")
    tries = Copying(folder)
    tries(rows)
    made = {name: fs.modified(name) for name in fs.ls("/bucket/copied", detail=False) if ".pictory" not in name}
    assert {name.rpartition("/")[2] for name in made} >= {*NAMES}
    tries.of_another_run("second")(rows)
    assert {name: fs.modified(name) for name in made if not name.endswith(".jsonl")} == {
        name: at for name, at in made.items() if not name.endswith(".jsonl")
    }
    assert set(billed(fast).values()) == {1}
    fs.rm(folder, recursive=True)


def test_missing_copies_of_existing_pictures_are_made_for_nothing(fast, tries, folder, rows):
    tries(rows, copies=None)
    assert all("copies" not in line for line in lines(folder / "metadata.jsonl"))
    tries.clear()
    result = tries(rows)
    assert (result["reused"], pictures(folder)) == (3, NAMES)
    (folder / "L-1.jpg").unlink()
    (folder / "L-2.64.webp").write_bytes(b"RIFF")
    before = state_of(folder)
    tries.clear()
    tries(rows)
    assert pictures(folder) == NAMES
    after = state_of(folder)
    assert {name for name in NAMES if before.get(name) != after[name]} == {"L-1.jpg", "L-2.64.webp"}
    assert set(billed(fast).values()) == {1}


def test_marking_existing_pictures_makes_their_copies_anew_with_the_mark(fast, tries, folder, rows):
    tries(rows)
    tries.clear()
    tries(rows, mark_ai_generated=True)
    for name in (name for name in NAMES if not name.endswith(".json")):
        assert b"trainedAlgorithmicMedia" in (folder / name).read_bytes(), name
    assert set(billed(fast).values()) == {1}


@pytest.mark.parametrize("overwrite", [False, "changed"])
def test_another_file_with_the_name_of_a_copy_is_refused_before_any_row_is_bought(
    fast, tries, folder, rows, overwrite
):
    folder.mkdir()
    (folder / "L-1.64.webp").write_bytes(b"mine")
    with pytest.raises(PictoryRequestInvalid, match=says("L-1.64.webp, the name of a copy, exists")):
        tries(rows, overwrite=overwrite)
    assert fast.account.jobs == {}
    tries.clear()
    tries(rows, overwrite=True)
    assert (folder / "L-1.64.webp").read_bytes()[:4] == b"RIFF"


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (
            ["a.png", "a.64.webp"],
            "'a.png' would have a copy with the name 'a.64.webp', and that is the file name of row 1",
        ),
        (["a.png", "A.jpg"], "and that is the file name of row 1"),
        (
            ["a.png", "a.jpeg"],
            "would have a copy with the name 'a.64.webp', and that is the name of a copy of row 0",
        ),
        (["a.png", "A.JPG/b.png"], "needs the folder 'a.jpg', but row 0 saves a file of that name"),
        (["a.webp", "b.png"], ""),
        (["a.jpg", "b.png"], "'a.jpg' would have a copy with the name 'a.jpg', and that is its own file name"),
    ],
)
def test_copies_with_the_names_of_other_files_are_refused_before_any_row_is_bought(fast, tries, names, why):
    rows = [{"prompt": prompt, "sku": name} for prompt, name in zip(lamps(2), names, strict=True)]
    if not why:
        assert tries(rows, file_name="{sku}")["saved"] == 2
        return
    with pytest.raises(PictoryRequestInvalid) as error:
        tries(rows, file_name="{sku}")
    assert why in " ".join(str(error.value).split())
    assert fast.account.jobs == {}


@pytest.mark.parametrize("overwrite", [False, "changed", True])
def test_a_folder_with_the_name_of_a_copy_is_refused_before_any_row_is_bought(
    fast, tries, folder, rows, overwrite
):
    (folder / "L-1.64.webp").mkdir(parents=True)
    with pytest.raises(
        PictoryRequestInvalid, match=says("L-1.64.webp, the name of a copy, is a folder or a broken link")
    ):
        tries(rows, overwrite=overwrite)
    assert fast.account.jobs == {}


def test_a_broken_link_with_the_name_of_a_copy_is_refused_before_any_row_is_bought(fast, tries, folder, rows):
    folder.mkdir()
    (folder / "L-1.64.webp").symlink_to(folder / "of a mount that is missing")
    with pytest.raises(
        PictoryRequestInvalid, match=says("L-1.64.webp, the name of a copy, is a folder or a broken link")
    ):
        tries(rows)
    assert fast.account.jobs == {}


def test_a_file_that_took_the_place_of_a_copy_is_left_alone(fast, tries, folder, rows):
    tries(rows)
    (folder / "L-1.jpg").write_bytes(b"retouched by hand")
    with pytest.raises(PictoryRequestInvalid, match=says("Another file exists at")):
        tries.of_another_run("second")(rows)
    assert (folder / "L-1.jpg").read_bytes() == b"retouched by hand"


@pytest.mark.parametrize("overwrite", [True, "changed"])
def test_an_attempt_that_fails_right_after_it_replaced_pictures_is_continued_by_the_retry(
    fast, tries, folder, rows, monkeypatch, overwrite
):
    monkeypatch.setattr(painting, "paint", lambda body, *_: painted(body["prompt"]))
    tries(rows)
    others = [{**row, "prompt": f"{row['prompt']} in another shade"} for row in rows]
    again = tries.of_another_run("second")
    with monkeypatch.context() as patch:
        patch.setattr(PictureTarget, "write_sidecar", fails_when_saved(PictureTarget.write_sidecar))
        with pytest.raises(PictoryStorageFailed, match=says("its sidecar does not say so yet")):
            again(others, overwrite=overwrite)
    again(others, overwrite=overwrite)
    for sidecar in folder.glob("*.png.json"):
        said = json.loads(sidecar.read_text())
        assert {each["of"] for each in said["copies"]} == {said["sha256"]}
    assert set(billed(fast).values()) == {1}


def fails_when_saved(write_sidecar):
    def write(self, sidecar):
        if sidecar.saved:
            raise StorageFailed("The disk is away.")
        return write_sidecar(self, sidecar)

    return write


def test_a_storage_that_fails_when_copies_are_made_says_that_the_picture_is_saved(
    fast, tries, folder, rows, monkeypatch
):
    tries(rows, copies=None)
    inspect = PictureTarget.inspect

    def fails(self, **kwargs):
        if self.name == "L-1.png":
            raise StorageFailed("The disk is away.")
        return inspect(self, **kwargs)

    monkeypatch.setattr(PictureTarget, "inspect", fails)
    with pytest.raises(PictoryStorageFailed, match=says("Copies of 1 picture could not be made")):
        tries.of_another_run("second")(rows)
    (failed,) = lines(folder / "failed.jsonl")
    assert (failed["state"], failed["message"]) == ("reused", "The disk is away.")
    assert failed["what_to_do"].startswith("The picture is saved.")


def test_a_worker_without_enough_memory_says_that_the_picture_is_saved_and_a_retry_makes_the_copies(
    fast, tries, folder, rows, monkeypatch
):
    def is_full(*_):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(making, "_decode", is_full)
        with pytest.raises(PictoryStorageFailed, match=says("The pictures themselves are saved")):
            tries(rows)
    assert "does not have enough memory" in lines(folder / "failed.jsonl")[0]["message"]
    tries(rows)
    assert pictures(folder) == NAMES
    assert set(billed(fast).values()) == {1}


def test_a_row_whose_copy_cannot_be_made_fails_after_all_pictures_are_saved_and_costs_nothing_more(
    fast, tries, folder, rows, monkeypatch
):
    convert, is_allowed = making.convert, []

    def breaks(data, specs, **kwargs):
        if data == painted(rows[1]["prompt"]) and not is_allowed:
            raise ImageInvalid("It is a test.")
        return convert(data, specs, **kwargs)

    monkeypatch.setattr(painting, "paint", lambda body, *_: painted(body["prompt"]))
    monkeypatch.setattr(making, "convert", breaks)
    with pytest.raises(PictoryRequestInvalid, match=says("Copies of 1 picture could not be made")):
        tries(rows)
    assert (tries.ti.xcoms["progress"]["saved"], len(tries.ti.xcoms["pictures_0"])) == (3, 3)
    assert [len(line["copies"]) for line in lines(folder / "metadata.jsonl")] == [2, 0, 2]
    assert pictures(folder) == [name for name in NAMES if name not in ("L-1.64.webp", "L-1.jpg")]
    (failed,) = lines(folder / "failed.jsonl")
    assert "could not be copied to L-1.64.webp, L-1.jpg" in failed["message"]
    assert failed["state"] == "saved"
    assert failed["what_to_do"].startswith("The picture is saved.")
    tries.clear()
    tries(rows, fail_on_partial_error=False)
    tries.clear()
    is_allowed.append(True)
    tries(rows)
    assert lines(folder / "failed.jsonl") == []
    assert pictures(folder) == NAMES
    assert set(billed(fast).values()) == {1}


def painted(prompt):
    """Return a picture of its own for each prompt."""
    buffer = io.BytesIO()
    Image.new("RGB", (1024, 1024), (len(prompt) % 256, sum(prompt.encode()) % 256, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_corrected_row_has_copies_of_its_new_picture(fast, tries, folder, rows):
    tries(rows)
    rows[1]["prompt"] = "A corrected lamp"
    tries.clear()
    result = tries(rows, overwrite="changed")
    assert (result["saved"], result["reused"]) == (1, 2)
    said = json.loads((folder / "L-1.png.json").read_text())
    assert {each["of"] for each in said["copies"]} == {said["sha256"]}
    assert pictures(folder) == NAMES


def test_a_row_whose_picture_alone_was_removed_is_bought_again_and_its_copies_are_replaced(
    fast, tries, folder, rows
):
    tries(rows)
    (folder / "L-1.png").unlink()
    again = tries.of_another_run("second")
    assert again(rows)["saved"] == 1
    said = json.loads((folder / "L-1.png.json").read_text())
    assert {each["of"] for each in said["copies"]} == {said["sha256"]}
    assert pictures(folder) == NAMES


def test_redo_of_a_row_moves_its_copies_and_the_next_run_makes_new_ones(fast, tries, folder, rows):
    tries(rows)
    redo(str(folder / "L-1.png"))
    tries.of_another_run("second")(rows)
    versions = ["L-1.v1.64.webp", "L-1.v1.jpg", "L-1.v1.png", "L-1.v1.png.json"]
    assert pictures(folder) == sorted([*NAMES, *versions])


def test_candidates_of_rows_have_copies_each(fast, tries, folder, rows):
    tries(rows[:1], candidates=2)
    assert pictures(folder) == [
        f"L-0.{number}.{end}" for number in (1, 2) for end in ("64.webp", "jpg", "png", "png.json")
    ]
    assert [[each["name"] for each in line["copies"]] for line in lines(folder / "metadata.jsonl")] == [
        [f"L-0.{number}.64.webp", f"L-0.{number}.jpg"] for number in (1, 2)
    ]


def test_a_column_called_copies_keeps_its_values_under_another_name(fast, tries, folder, rows):
    tries([{**row, "copies": 3} for row in rows])
    assert [line["row_copies"] for line in lines(folder / "metadata.jsonl")] == [3] * 3


def test_without_pillow_the_batch_says_what_to_install_before_anything_is_sent(fast, tries, rows, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(PictoryRequestInvalid, match=r"airflow-provider-pictory\[images\]"):
        tries(rows)
    assert fast.account.jobs == {}


def test_a_plan_writes_no_copy(fast, tries, folder, rows):
    tries(rows, copies=None)
    before = state_of(folder)
    tries.clear()
    with pytest.raises(AirflowSkipException):
        tries(rows, plan_only=True)
    assert state_of(folder) == before
    assert Path(folder / "L-0.png").exists()
