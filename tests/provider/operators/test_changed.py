# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""``overwrite="changed"``: the picture of another request is bought anew and replaced, once; nothing else is."""

from __future__ import annotations

import hashlib
import json
import random
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

import fsspec
import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from pictory_provider.exceptions import (
    PictoryJobFailed,
    PictoryRequestInvalid,
    PictoryStorageFailed,
    PictorySubmitOutcomeUnknown,
    PictoryUnavailable,
    PictoryWaitTimeout,
)
from pictory_provider.operators.pictory import DownloadImageOperator, GenerateImageOperator
from pictory_provider.services.batch.saving import PictureSaver
from pictory_provider.storage import download, pictures
from pictory_provider.storage.pictures import PictureTarget
from tests.driver import Runs
from tests.provider.batches import Tries, billed, files, lines
from tests.provider.operators.test_batch_struck import Strike
from tests.stand_ins import TaskInstance, says

OLD, NEW = "A lighthouse at dawn", "A lighthouse at dusk"


@pytest.fixture(autouse=True)
def _impatient(impatient, timing):
    timing(read_budget=0.05)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "covers" / "a.png"


@pytest.fixture(params=["with a store", "without"])
def try_of(request, pictory, path):
    def make(**kwargs):
        arguments = {"task_id": "cover", "prompt": OLD, "path": str(path), "overwrite": "changed", **kwargs}
        return GenerateImageOperator(**arguments)

    return Runs(make, has_store=request.param == "with a store")


def sidecar(path):
    return json.loads(Path(f"{path}.json").read_text())


# One picture --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_corrected_prompt_is_bought_once_and_replaces_the_picture(pictory, try_of, path, deferrable):
    old = try_of("first", deferrable=deferrable)
    new = try_of("second", prompt=NEW, deferrable=deferrable)
    assert (new["reused"], new["path"]) == (False, str(path))
    assert new["sha256"] != old["sha256"]
    assert sidecar(path)["request"]["prompt"] == NEW
    assert "replaces" not in sidecar(path)
    for run in ("second", "third"):  # a clear, and another run
        again = try_of(run, clears=1, prompt=NEW, deferrable=deferrable)
        assert (again["reused"], again["job_id"]) == (True, new["job_id"])
    assert billed(pictory) == {OLD: 1, NEW: 1}
    assert files(path.parent) == ["a.png", "a.png.json"]


def test_without_it_the_error_names_it(pictory, try_of):
    try_of("first")
    with pytest.raises(PictoryRequestInvalid, match=says('set overwrite="changed", which buys and replaces')):
        try_of("second", prompt=NEW, overwrite=False)
    assert billed(pictory) == {OLD: 1}


@pytest.mark.parametrize("what", ["no sidecar", "another size", "an unreadable sidecar"])
def test_anything_but_a_saved_picture_of_another_request_is_refused_as_without_it(pictory, try_of, path, what):
    try_of("first")
    if what == "no sidecar":
        Path(f"{path}.json").unlink()
    elif what == "another size":
        path.write_bytes(path.read_bytes() + b"\0")
    else:
        Path(f"{path}.json").write_text("mine")
    before = path.read_bytes()
    with pytest.raises(PictoryRequestInvalid, match=says("cannot be used")):
        try_of("second", prompt=NEW)
    assert path.read_bytes() == before
    assert billed(pictory) == {OLD: 1}


def test_a_job_that_fails_leaves_the_old_picture_and_the_next_run_buys_the_new_one(pictory, try_of, path):
    old = try_of("first")
    pictory.plan("failed")
    with pytest.raises(PictoryJobFailed):
        try_of("second", prompt=NEW)
    assert path.stat().st_size == old["size"]
    for run, prompt in (("third", NEW), ("fourth", "A lighthouse at night")):
        assert try_of(run, prompt=prompt)["path"] == str(path)
    assert billed(pictory) == {OLD: 1, NEW: 2, "A lighthouse at night": 1}
    assert files(path.parent) == ["a.png", "a.png.json"]


@pytest.mark.parametrize("prompt", [NEW, OLD])
def test_after_a_failed_correction_the_old_picture_is_what_exists(pictory, try_of, path, prompt):
    old = try_of("first")
    pictory.plan("failed")
    with pytest.raises(PictoryJobFailed):
        try_of("second", prompt=NEW)
    if prompt == OLD:
        again = try_of("third", prompt=OLD)
        assert (again["reused"], again["job_id"]) == (True, old["job_id"])
        assert sidecar(path)["job_id"] == old["job_id"]
    else:
        with pytest.raises(PictoryRequestInvalid, match=says("it is taken by another request")):
            try_of("third", prompt=NEW, overwrite=False)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == old["sha256"]
    assert billed(pictory) == {OLD: 1, NEW: 1}


def test_a_file_that_took_the_old_pictures_place_after_a_failed_correction_is_not_replaced(pictory, try_of, path):
    try_of("first")
    pictory.plan("failed")
    with pytest.raises(PictoryJobFailed):
        try_of("second", prompt=NEW)
    path.write_bytes(b"mine")
    for run in ("third", "fourth"):
        with pytest.raises(PictoryRequestInvalid, match=says("another file is there")):
            try_of(run, prompt=NEW)
    assert path.read_bytes() == b"mine"
    assert billed(pictory) == {OLD: 1, NEW: 1}


def test_an_unknown_correction_of_another_task_can_be_dropped_as_the_error_says(pictory, try_of, path):
    try_of("first")
    pictory.script("submit", "drop-after")
    with pytest.raises(PictorySubmitOutcomeUnknown):
        try_of("second", prompt=NEW)
    beside = Path(f"{path}.json")
    with pytest.raises(PictoryUnavailable, match=says(f"replace the content of {beside} by its field `replaces`")):
        try_of("third", prompt=NEW)
    beside.write_text(json.dumps(sidecar(path)["replaces"]))
    assert try_of("third", clears=1, prompt=NEW)["path"] == str(path)
    assert billed(pictory) == {OLD: 1, NEW: 2}
    assert files(path.parent) == ["a.png", "a.png.json"]


@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize("run", ["second", "third"])
def test_a_picture_that_could_not_be_fetched_is_adopted_and_replaces_the_old_one(
    pictory, try_of, path, deferrable, run
):
    try_of("first")
    pictory.script("picture", "server-error", times=-1)
    with pytest.raises(PictoryUnavailable):
        try_of("second", prompt=NEW, deferrable=deferrable)
    pictory.clear_faults()
    new = try_of(run, prompt=NEW, deferrable=deferrable)
    assert new["path"] == str(path)
    assert sidecar(path)["request"]["prompt"] == NEW
    assert billed(pictory) == {OLD: 1, NEW: 1}
    assert files(path.parent) == ["a.png", "a.png.json"]


def test_a_file_that_came_into_its_place_meanwhile_is_not_replaced(pictory, try_of, path, monkeypatch):
    try_of("first")
    save = PictureTarget.save

    def late(self, *args, **kwargs):
        path.write_bytes(b"mine")
        return save(self, *args, **kwargs)

    monkeypatch.setattr(PictureTarget, "save", late)
    image = try_of("second", prompt=NEW)
    assert path.read_bytes() == b"mine"
    assert image["path"] != str(path)
    assert Path(image["path"]).stat().st_size == image["size"]
    assert billed(pictory) == {OLD: 1, NEW: 1}


@pytest.mark.parametrize("function", [PictureTarget.save, download.save_picture, download._is_placed])
def test_a_timeout_in_any_line_of_saving_loses_no_picture(pictory, tmp_path, function):
    struck = 0
    while True:
        pictory.reset()
        path = tmp_path / str(struck) / "a.png"

        def make(path=path, **kwargs):
            return GenerateImageOperator(
                task_id="cover", path=str(path), overwrite="changed", deferrable=False, **kwargs
            )

        runs = Runs(make)
        runs("first", prompt=OLD)
        with Strike(function, struck) as strike, suppress(AirflowTaskTimeout):
            runs("second", prompt=NEW)
        if not strike.has_struck:
            break
        struck += 1
        image = runs("second", prompt=NEW)
        assert (image["path"], sidecar(path)["request"]["prompt"]) == (str(path), NEW)
        assert sidecar(path)["sha256"] == image["sha256"]
        assert billed(pictory) == {OLD: 1, NEW: 1}
        assert files(path.parent) == ["a.png", "a.png.json"]
    assert struck > 3


@pytest.mark.parametrize("wrong", ["Changed", "yes", 1, None])
def test_any_other_value_is_refused(pictory, try_of, folder, wrong):
    with pytest.raises(PictoryRequestInvalid, match=says("overwrite is .*; it takes True, False or 'changed'")):
        try_of("first", overwrite=wrong)
    with pytest.raises(PictoryRequestInvalid, match=says("overwrite is")):
        Tries(folder)([OLD], overwrite=wrong)
    assert pictory.submissions == []


def test_a_download_refuses_it(pictory, path):
    task = DownloadImageOperator(task_id="d", job_id="j", path=str(path), overwrite="changed")
    with pytest.raises(PictoryRequestInvalid, match=says("to download, it takes True or False")):
        task.execute({"ti": TaskInstance()})


# A batch ------------------------------------------------------------------------------------------------


def catalogue(**prompts):
    return [{"sku": sku, "prompt": prompt} for sku, prompt in prompts.items()]


@pytest.fixture(params=["a disk", "object storage"])
def where(request, tmp_path):
    if request.param == "a disk":
        return str(tmp_path / "catalogue")
    request.getfixturevalue("memory")
    return f"memory://{tmp_path.name}/catalogue"


def manifest(where):
    with fsspec.open(f"{where}/metadata.jsonl", "rt", encoding="utf-8") as file:
        return {line["sku"]: line for line in map(json.loads, file)}


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_catalogue_that_changes_ten_times_costs_what_has_changed(pictory, where, deferrable):
    chance = random.Random(7)
    prompts = {f"{number:03d}": f"A lamp, number {number}, first" for number in range(12)}
    last, numbers = {}, iter(range(100, 200))
    for night in range(11):
        rows = catalogue(**prompts)
        changed = {sku for sku, prompt in prompts.items() if last.get(sku) != prompt}
        pictory.reset()
        result = Tries(where).of_another_run(f"night {night}")(
            rows, file_name="{sku}.png", overwrite="changed", model="flux-schnell", deferrable=deferrable
        )
        assert (result["saved"], result["reused"]) == (len(changed), len(rows) - len(changed))
        assert billed(pictory) == {prompts[sku]: 1 for sku in changed}
        found = manifest(where)
        assert {sku: line["text"] for sku, line in found.items()} == prompts
        assert {line["file_name"] for line in found.values()} == {f"{sku}.png" for sku in prompts}
        last |= prompts
        for sku in chance.sample(sorted(prompts), 3):  # corrected prompts
            prompts[sku] = f"A lamp, number {sku}, of night {night}"
        del prompts[chance.choice(sorted(prompts))]  # a row that is taken out; its picture stays
        prompts[f"{next(numbers)}"] = f"A new lamp of night {night}"


def test_each_picture_is_the_one_of_its_request_after_a_change(pictory, where):
    Tries(where)(catalogue(a=OLD, b="A mug"), file_name="{sku}.png")
    before = manifest(where)
    Tries(where).of_another_run("second")(catalogue(a=NEW, b="A mug"), file_name="{sku}.png", overwrite="changed")
    after = manifest(where)
    assert after["a"]["sha256"] != before["a"]["sha256"]
    assert after["b"] == before["b"]
    with fsspec.open(f"{where}/a.png.json", "rt") as file:
        found = json.load(file)
    assert (found["request"]["prompt"], found["sha256"]) == (NEW, after["a"]["sha256"])


def test_a_retry_and_a_clear_after_a_change_buy_nothing_more(pictory, folder):
    Tries(folder)(catalogue(a=OLD), file_name="{sku}.png")
    second = Tries(folder).of_another_run("second")
    for clears in range(3):
        result = second(catalogue(a=NEW), file_name="{sku}.png", overwrite="changed")
        assert result["saved"] + result["reused"] == 1
        if clears:
            second.clear()
    assert billed(pictory) == {OLD: 1, NEW: 1}


def test_a_file_without_a_sidecar_is_not_replaced_and_the_rest_is_not_bought(pictory, folder):
    Tries(folder)(catalogue(a=OLD), file_name="{sku}.png")
    (folder / "b.png").write_bytes(b"mine")
    with pytest.raises(PictoryRequestInvalid, match=says("There are 2 solutions")):
        Tries(folder).of_another_run("second")(
            catalogue(a=NEW, b="A mug"), file_name="{sku}.png", overwrite="changed"
        )
    assert billed(pictory) == {OLD: 1}


@pytest.mark.parametrize("function", [PictureSaver._save, PictureTarget.save, download._is_placed])
def test_a_timeout_in_any_line_of_saving_a_batch_loses_no_picture(pictory, tmp_path, function, monkeypatch):
    """Saving runs in threads, where Airflow's timeout cannot strike; a worker that is killed can be there."""
    struck = 0
    while True:
        pictory.reset()
        folder = tmp_path / str(struck)
        Tries(folder)(catalogue(a=OLD), file_name="{sku}.png")
        second = Tries(folder).of_another_run("second")
        with monkeypatch.context() as patch, Strike(function, struck) as strike, suppress(Exception):
            patch.setattr(
                "pictory_provider.services.batch.saving.ThreadPoolExecutor.submit",
                lambda pool, call, *args, **kwargs: _at_once(call, *args, **kwargs),
            )
            second(catalogue(a=NEW), file_name="{sku}.png", overwrite="changed")
        if not strike.has_struck:
            break
        struck += 1
        result = second(catalogue(a=NEW), file_name="{sku}.png", overwrite="changed")
        assert result["saved"] + result["reused"] == 1
        (line,) = lines(folder / "metadata.jsonl")
        assert (line["file_name"], line["text"]) == ("a.png", NEW)
        assert sidecar(folder / "a.png")["sha256"] == line["sha256"]
        assert billed(pictory) == {OLD: 1, NEW: 1}
        assert files(folder) == ["a.png", "a.png.json", "failed.jsonl", "metadata.jsonl"]
    assert struck > 3


def _at_once(call, *args, **kwargs):
    future = Future()
    try:
        future.set_result(call(*args, **kwargs))
    except BaseException as error:
        future.set_exception(error)
    return future


def test_a_prompt_that_is_corrected_again_before_the_first_correction_was_saved_is_bought_and_saved(
    pictory, folder
):
    arguments = {"file_name": "{sku}.png", "overwrite": "changed"}
    Tries(folder)(catalogue(a=OLD), **arguments)
    second = Tries(folder).of_another_run("second")
    pictory.script("picture", "server-error", times=-1)
    with pytest.raises(PictoryUnavailable):
        second(catalogue(a=NEW), **arguments)
    pictory.clear_faults()
    second.clear()
    result = second(catalogue(a="A lighthouse at night"), **arguments)
    assert result["saved"] == 1
    assert sidecar(folder / "a.png")["request"]["prompt"] == "A lighthouse at night"
    assert billed(pictory) == {OLD: 1, NEW: 1, "A lighthouse at night": 1}
    kept = [name for name in files(folder) if name.endswith(".png") and name != "a.png"]
    assert len(kept) == 1, "the first correction is paid for, and kept beside it"


@pytest.mark.parametrize("way", ["out of the table", "a bad row"])
@pytest.mark.parametrize("trouble", ["not fetched", "still running"])
def test_a_correction_whose_row_is_gone_for_a_night_is_saved_in_its_place(pictory, folder, way, trouble):
    arguments = {"file_name": "{sku}.png", "overwrite": "changed"}
    Tries(folder)(catalogue(a=OLD, b="A mug"), **arguments)
    second = Tries(folder).of_another_run("second")
    second.try_number = 2  # the last one
    if trouble == "not fetched":
        pictory.script("picture", "server-error", times=-1)
    else:
        pictory.plan("stuck")
    with pytest.raises((PictoryUnavailable, PictoryWaitTimeout)):
        second(catalogue(a=NEW, b="A mug"), timeout=0.3, **arguments)
    pictory.clear_faults()
    for job in pictory.account.jobs.values():
        job.fate = "completed"
    gone = catalogue(b="A mug") if way == "out of the table" else catalogue(a="x", b="A mug")
    Tries(folder).of_another_run("third")(gone, on_bad_row="skip", fail_on_partial_error=False, **arguments)
    result = Tries(folder).of_another_run("fourth")(catalogue(a=NEW, b="A mug"), **arguments)
    assert result["reused"] == 2
    assert billed(pictory) == {OLD: 1, NEW: 1, "A mug": 1}
    assert files(folder) == ["a.png", "a.png.json", "b.png", "b.png.json", "failed.jsonl", "metadata.jsonl"]


def test_a_correction_whose_job_pictory_no_longer_has_is_bought_again_and_saved_in_its_place(pictory, folder):
    arguments = {"file_name": "{sku}.png", "overwrite": "changed"}
    Tries(folder)(catalogue(a=OLD), **arguments)
    pictory.script("picture", "server-error", times=-1)
    second = Tries(folder).of_another_run("second")
    second.try_number = 2  # the last one
    with pytest.raises(PictoryUnavailable):
        second(catalogue(a=NEW), **arguments)
    pictory.clear_faults()
    for job in pictory.account.jobs.values():
        job.is_cleaned = job.body["prompt"] == NEW
    for run, counted in (("third", "saved"), ("fourth", "reused"), ("fifth", "reused")):
        attempts = Tries(folder).of_another_run(run)
        attempts.try_number = 2  # the last one
        assert attempts(catalogue(a=NEW), **arguments)[counted] == 1
    assert billed(pictory) == {OLD: 1, NEW: 2}
    assert files(folder) == ["a.png", "a.png.json", "failed.jsonl", "metadata.jsonl"]


def test_a_correction_that_was_placed_and_not_recorded_is_replaced_by_the_next_one(pictory, folder, monkeypatch):
    arguments = {"file_name": "{sku}.png", "overwrite": "changed"}
    Tries(folder)(catalogue(a=OLD), **arguments)
    second = Tries(folder).of_another_run("second")

    def killed(*_):
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(pictures, "_write_saved", killed)
        with pytest.raises(PictoryStorageFailed):
            second(catalogue(a=NEW), **arguments)
    second.clear()
    for attempts in (second, Tries(folder).of_another_run("third"), Tries(folder).of_another_run("fourth")):
        attempts(catalogue(a="A lighthouse at night"), **arguments)
    (line,) = lines(folder / "metadata.jsonl")
    assert (line["file_name"], line["text"]) == ("a.png", "A lighthouse at night")
    assert sidecar(folder / "a.png")["sha256"] == line["sha256"]
    assert billed(pictory) == {OLD: 1, NEW: 1, "A lighthouse at night": 1}


def test_a_picture_that_cannot_be_replaced_is_found_before_anything_is_bought(pictory, folder, monkeypatch):
    Tries(folder)(catalogue(a=OLD, b="A mug"), file_name="{sku}.png")
    monkeypatch.setattr(
        "pictory_provider.storage.preflight._Check._why_not_replaceable",
        lambda _, path: "is immutable" if str(path).endswith("a.png") else None,
    )
    second = Tries(folder).of_another_run("second")
    with pytest.raises(PictoryRequestInvalid, match=says("1 picture in .* cannot be replaced: 'a.png' ")):
        second(catalogue(a=NEW, b="A mug", c="A pot"), file_name="{sku}.png", overwrite="changed")
    assert billed(pictory) == {OLD: 1, "A mug": 1}
    (line,) = lines(folder / "failed.jsonl")
    assert line["state"] == "refused"
