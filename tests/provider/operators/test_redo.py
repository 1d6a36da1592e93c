# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""``airflow pictory redo``: a saved picture is moved aside, and another one is bought in its place, exactly once."""

from __future__ import annotations

import json
import shutil
import sys
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException

import pictory_provider
from pictory_provider.api.errors import PictoryError, RequestInvalid, Unavailable
from pictory_provider.exceptions import (
    PictoryBudgetExceeded,
    PictoryJobFailed,
    PictoryRequestInvalid,
    PictorySubmitOutcomeUnknown,
    PictoryUnavailable,
)
from pictory_provider.operators.pictory import DownloadImageOperator, GenerateImageOperator
from pictory_provider.sensors.pictory import PictoryJobSensor
from pictory_provider.services.redo import redo
from pictory_provider.storage.pictures import PictureTarget
from tests.driver import Runs, to_its_end
from tests.provider.batches import billed
from tests.stand_ins import TaskInstance, says

PROMPT, OTHER = "A lighthouse at dawn", "A lighthouse at dusk"
PACKAGE = str(Path(pictory_provider.__file__).parent)
PAIR, VERSION = ["a.png", "a.png.json"], ["a.v1.png", "a.v1.png.json"]
WAYS = {"a retry": ("first", 0), "a clear": ("first", 1), "another run": ("second", 0)}


@pytest.fixture(autouse=True)
def _impatient(impatient):
    pass


@pytest.fixture
def path(tmp_path):
    return tmp_path / "covers" / "a.png"


def runs_of(path, *, has_store=True):
    def make(**kwargs):
        arguments = {"task_id": "cover", "prompt": PROMPT, "path": str(path), "deferrable": False, **kwargs}
        return GenerateImageOperator(**arguments)

    return Runs(make, has_store=has_store)


@pytest.fixture(params=["with a store", "without"])
def try_of(request, pictory, path):
    return runs_of(path, has_store=request.param == "with a store")


def sidecar(path):
    return json.loads(Path(f"{path}.json").read_text())


def everything(folder):
    """Return the content of each file of a folder, without a batch's record."""
    found = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    return {name: content for name, content in found.items() if not name.startswith(".pictory")}


def jobs_of(folder):
    """Return the jobs whose whole pictures are in a folder, next to a sidecar that says so."""
    found = {}
    for file in folder.glob("*.json"):
        if file.with_suffix("").exists() and (value := json.loads(file.read_text()))["state"] == "saved":
            assert value["size"] == file.with_suffix("").stat().st_size, file
            found[file.name.removesuffix(".json")] = value["job_id"]
    return found


# One picture --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_an_old_version_that_a_user_moves_back_is_reused_although_its_successor_is_on_record(
    pictory, try_of, path, way
):
    old = try_of("first")
    redo(str(path))
    try_of("first", clears=1)
    redo(str(path))
    for end in ("", ".json"):
        Path(f"{path.with_name('a.v1.png')}{end}").replace(f"{path}{end}")
    run, clears = WAYS[way]
    again = try_of(run, clears=clears + 1)
    assert (again["job_id"], again["path"], len(pictory.account.jobs)) == (old["job_id"], str(path), 2)
    assert sorted(jobs_of(path.parent)) == ["a.png", "a.v2.png"]


@pytest.mark.parametrize("overwrite", [True, "changed"])
def test_a_version_is_never_replaced(pictory, try_of, path, overwrite):
    try_of("first")
    redo(str(path))
    kept = path.with_name("a.v1.png").read_bytes()
    with pytest.raises(PictoryRequestInvalid, match=says("an earlier version of another picture is there")):
        try_of("second", path=str(path.with_name("a.v1.png")), overwrite=overwrite, prompt=OTHER)
    assert (path.with_name("a.v1.png").read_bytes(), len(pictory.account.jobs)) == (kept, 1)


@pytest.mark.parametrize("moved_to", ["a.png", "x/a.png", "../covers/a.png", "a.v1.png/../a.png", "b.v1.png", ""])
def test_a_sidecar_that_names_no_version_removes_nothing(pictory, try_of, path, moved_to):
    try_of("first")
    said = sidecar(path)
    Path(f"{path}.json").write_text(json.dumps(said | {"state": "redo", "may_be": [said], "moved_to": moved_to}))
    with pytest.raises(RequestInvalid, match=says("its sidecar cannot be read")):
        redo(str(path))
    with pytest.raises(PictoryRequestInvalid):
        try_of("second")
    assert path.exists()
    assert len(pictory.account.jobs) == 1


@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_the_next_run_buys_exactly_one_new_picture_and_the_old_one_is_kept(pictory, try_of, path, way, deferrable):
    old = try_of("first", deferrable=deferrable)
    before = everything(path.parent)
    moved = redo(str(path))
    assert (moved.version, moved.is_repeated) == (str(path.with_name("a.v1.png")), False)
    assert sorted(everything(path.parent)) == ["a.png.json", *VERSION]
    assert (sidecar(path)["state"], sidecar(path)["job_id"]) == ("redo", old["job_id"])
    run, clears = WAYS[way]
    new = try_of(run, clears=clears, deferrable=deferrable)
    assert (new["reused"], new["path"]) == (False, str(path))
    assert new["job_id"] != old["job_id"]
    after = everything(path.parent)
    assert sorted(after) == [*PAIR, *VERSION]
    assert [after[name] for name in VERSION] == [before[name] for name in PAIR]
    for again, (run, clears) in enumerate(WAYS.values()):
        image = try_of(run, clears=1 + clears + again, deferrable=deferrable)
        assert image["job_id"] == new["job_id"]
    assert billed(pictory) == {PROMPT: 2}
    assert jobs_of(path.parent) == {"a.png": new["job_id"], "a.v1.png": old["job_id"]}


def test_each_redo_takes_the_next_free_version_and_replaces_nothing(pictory, try_of, path):
    jobs = [try_of("first")["job_id"]]
    path.with_name("a.v2.png").write_bytes(b"mine")
    path.with_name("a.v3.png.json").write_bytes(b"mine too")
    for run in range(3):
        redo(str(path))
        jobs.append(try_of(f"run {run}")["job_id"])
    found = everything(path.parent)
    assert (found["a.v2.png"], found["a.v3.png.json"]) == (b"mine", b"mine too")
    names = ["a.v1.png", "a.v4.png", "a.v5.png", "a.png"]
    assert jobs_of(path.parent) == dict(zip(names, jobs, strict=True))
    assert billed(pictory) == {PROMPT: 4}


def test_a_second_redo_before_the_purchase_changes_nothing_and_says_so(pictory, try_of, path):
    try_of("first")
    redo(str(path))
    before = everything(path.parent)
    assert redo(str(path)).is_repeated
    assert everything(path.parent) == before


@pytest.mark.parametrize("way", WAYS)
def test_who_moves_the_old_version_back_reuses_it_and_buys_nothing(pictory, try_of, path, way):
    old = try_of("first")
    before = everything(path.parent)
    redo(str(path))
    for end in ("", ".json"):  # the commands of the documentation, in their order
        shutil.move(f"{path.with_name('a.v1.png')}{end}", f"{path}{end}")
        if not end:
            with pytest.raises(PictoryRequestInvalid, match=says("is missing or another file")):
                try_of("between")
    assert everything(path.parent) == before
    run, clears = WAYS[way]
    assert try_of(run, clears=clears)["job_id"] == old["job_id"]
    assert billed(pictory) == {PROMPT: 1}


@pytest.mark.parametrize("overwrite", [False, True, "changed"])
@pytest.mark.parametrize("prompt", [PROMPT, OTHER])
def test_a_picture_of_any_request_may_take_the_place_whatever_overwrite_is(
    pictory, try_of, path, overwrite, prompt
):
    old = try_of("first")
    redo(str(path))
    new = try_of("second", prompt=prompt, overwrite=overwrite)
    assert try_of("second", prompt=prompt, overwrite=overwrite)["job_id"] == new["job_id"]
    assert len(pictory.account.jobs) == 2
    assert jobs_of(path.parent) == {"a.png": new["job_id"], "a.v1.png": old["job_id"]}


def test_the_picture_of_a_replacement_is_moved_as_any_other(pictory, try_of, path):
    try_of("first")
    changed = try_of("second", prompt=OTHER, overwrite="changed")
    redo(str(path))
    new = try_of("third", prompt=OTHER, overwrite="changed")
    assert jobs_of(path.parent) == {"a.png": new["job_id"], "a.v1.png": changed["job_id"]}
    assert billed(pictory) == {PROMPT: 1, OTHER: 2}


def test_a_plan_shows_the_picture_as_to_buy_and_changes_nothing(pictory, try_of, path):
    try_of("first")
    redo(str(path))
    before = everything(path.parent)
    with pytest.raises(AirflowSkipException):
        try_of("first", clears=1, plan_only=True)
    plan = try_of.last.ti.xcoms["plan"]
    assert (plan["to_buy"], plan["reused"], plan["adopted"]) == (1, 0, 0)
    assert everything(path.parent) == before
    assert billed(pictory) == {PROMPT: 1}


def test_a_new_purchase_counts_for_the_limits_and_one_that_is_refused_leaves_the_wish(pictory, try_of, path):
    try_of("first", model="flux-schnell")
    redo(str(path))
    before = sidecar(path)
    with pytest.raises(PictoryBudgetExceeded):
        try_of("second", model="flux-schnell", max_credits=0.5)
    pictory.script("submit", "forbidden")
    with pytest.raises(PictoryError):
        try_of("second", model="flux-schnell")
    assert sidecar(path) == before
    assert try_of("third", model="flux-schnell")["reused"] is False
    assert billed(pictory) == {PROMPT: 2}


def test_a_new_job_that_fails_is_bought_again_as_any_other(pictory, try_of, path):
    old = try_of("first")
    redo(str(path))
    pictory.plan("failed")
    with pytest.raises(PictoryJobFailed):
        try_of("second")
    new = try_of("third")
    assert jobs_of(path.parent) == {"a.png": new["job_id"], "a.v1.png": old["job_id"]}
    assert billed(pictory) == {PROMPT: 3}


def test_an_unknown_outcome_of_the_new_purchase_is_not_bought_again(pictory, try_of, path):
    try_of("first")
    redo(str(path))
    pictory.script("submit", "drop-after")
    for _ in range(2):
        with pytest.raises(PictorySubmitOutcomeUnknown):
            try_of("first")
    with pytest.raises(RequestInvalid, match=says("has not finished with it")):
        redo(str(path))
    assert billed(pictory) == {PROMPT: 2}


# What it refuses ----------------------------------------------------------------------------------------


def edited(path, **fields):
    Path(f"{path}.json").write_text(json.dumps(sidecar(path) | fields))


REFUSED = {
    "no picture": (lambda path: path.unlink(), "the picture is gone"),
    "nothing": (lambda path: [path.unlink(), Path(f"{path}.json").unlink()], "there is no picture"),
    "no sidecar": (lambda path: Path(f"{path}.json").unlink(), "has no sidecar"),
    "another size": (lambda path: path.write_bytes(b"mine"), "4 bytes instead of"),
    "another content": (
        lambda path: path.write_bytes(path.read_bytes()[:-20] + bytes(20)),
        "its content has changed",
    ),
    "an intent": (lambda path: edited(path, state="intent", job_id=None), r"has not finished with it \(job not"),
    "a job": (lambda path: edited(path, state="bought"), r"has not finished with it \(job "),
    "an unreadable sidecar": (lambda path: edited(path, version=2), "cannot be read: its version is 2"),
    "a later state": (lambda path: edited(path, state="later"), "cannot be read: its state is 'later'"),
    "no place that it was moved to": (
        lambda path: edited(path, state="redo"),
        "its moved_to is not the name of a version",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_saved_picture_is_refused_and_left_as_it_is(pictory, path, what):
    runs_of(path)("first")
    change, text = REFUSED[what]
    change(path)
    before = everything(path.parent)
    with pytest.raises(RequestInvalid, match=says(text)) as refused:
        redo(str(path))
    assert "Nothing was" in refused.value.message
    assert everything(path.parent) == before


def test_a_version_is_refused_and_a_picture_of_such_a_name_is_not(pictory, path):
    runs_of(path)("first")
    redo(str(path))
    with pytest.raises(RequestInvalid, match=says("Run the command for .*covers/a.png")):
        redo(str(path.with_name("a.v1.png")))
    runs_of(path.with_name("b.v1.png"))("first")
    assert redo(str(path.with_name("b.v1.png"))).version.endswith("/b.v1.v1.png")


def test_another_file_in_its_place_is_neither_replaced_nor_removed(pictory, try_of, path):
    try_of("first")
    redo(str(path))
    path.write_bytes(b"mine")
    for run, clears in WAYS.values():
        with pytest.raises(PictoryRequestInvalid, match=says("another file is there in place of the picture")):
            try_of(run, clears=clears)
    with pytest.raises(RequestInvalid, match=says("Move that file away")):
        redo(str(path))
    assert path.read_bytes() == b"mine"
    assert billed(pictory) == {PROMPT: 1}


# Beside others ------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The end of a process, as far as one can be ended in a test."""


class EachLine:
    """Call a function before each line of this package, with the number of the line."""

    def __init__(self, before):
        self.before = before
        self.lines = 0

    def __enter__(self):
        sys.settrace(self.trace)
        return self

    def __exit__(self, kind, *_):
        sys.settrace(None)
        return kind is Killed

    def trace(self, frame, event, _):
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            self.lines += 1
            self.before(self.lines)
        return self.trace


def turning_points(path):
    """Return the first and the last line of a redo at which a folder has the same files: others are like these."""
    states = []
    with EachLine(lambda _: states.append(sorted((file.name, file.stat().st_ino) for file in path.iterdir()))):
        redo(str(path / "a.png"))
    alike = [[number for number, _ in group] for _, group in groupby(enumerate(states, 1), key=itemgetter(1))]
    return sorted({line for group in alike for line in (group[0], group[-1])})


def strike(line, at):
    if line == at:
        raise Killed


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("then", ["redo", *WAYS])
def test_a_redo_that_is_killed_at_any_line_loses_no_picture_and_can_be_repeated(fast, tmp_path, then):
    """What follows is another redo and a run, or a run alone, which buys only if the redo was recorded."""
    runs_of(tmp_path / "counting" / "a.png")("first")
    points, bought = turning_points(tmp_path / "counting"), set()
    for line in points:
        fast.reset()
        path = tmp_path / str(line) / "a.png"
        runs = runs_of(path)
        old = runs("first")
        picture = path.read_bytes()
        with EachLine(lambda number, line=line: strike(number, line)):
            redo(str(path))
        if then == "redo":
            redo(str(path))
            assert sorted(everything(path.parent)) == ["a.png.json", *VERSION], line
        run, clears = WAYS.get(then, ("second", 0))
        new = runs(run, clears=clears)
        if then != "redo" and new["job_id"] == old["job_id"]:
            redo(str(path))
            bought.add("nothing")
            new = runs("third")
        assert billed(fast) == {PROMPT: 2}, line
        assert jobs_of(path.parent) == {"a.png": new["job_id"], "a.v1.png": old["job_id"]}, line
        assert path.with_name("a.v1.png").read_bytes() == picture, line
        assert sorted(everything(path.parent)) == [*PAIR, *VERSION], line
    assert len(points) > 10
    assert bought == (set() if then == "redo" else {"nothing"})


def test_of_two_redo_at_once_one_moves_the_picture_and_there_is_one_version(pictory, path, monkeypatch):
    old = runs_of(path)("first")
    write = PictureTarget.write_sidecar

    def late(self, sidecar):
        monkeypatch.setattr(PictureTarget, "write_sidecar", write)
        redo(str(path))
        return write(self, sidecar)

    monkeypatch.setattr(PictureTarget, "write_sidecar", late)
    with pytest.raises(Unavailable, match=says("Another process has just changed .* Run the command again")):
        redo(str(path))
    assert redo(str(path)).is_repeated
    assert jobs_of(path.parent) == {"a.v1.png": old["job_id"]}
    assert sorted(everything(path.parent)) == ["a.png.json", *VERSION]


def test_a_redo_that_hangs_before_it_removes_the_picture_does_not_remove_the_new_one(pictory, path, monkeypatch):
    """The pictures are the same, byte for byte, so only the sidecar shows that another one is there."""
    runs = runs_of(path)
    runs("first")
    finish, new = PictureTarget.finish_redo, {}

    def late(self, sidecar):
        monkeypatch.setattr(PictureTarget, "finish_redo", finish)
        new.update(runs("second"))
        return finish(self, sidecar)

    monkeypatch.setattr(PictureTarget, "finish_redo", late)
    redo(str(path))
    assert jobs_of(path.parent)["a.png"] == new["job_id"]
    assert billed(pictory) == {PROMPT: 2}


def test_a_redo_between_the_look_of_a_task_and_its_intent_lets_it_send_nothing(pictory, path, monkeypatch):
    runs = runs_of(path)
    old = runs("first")
    check = PictureTarget.check

    def late(self, **kwargs):
        monkeypatch.setattr(PictureTarget, "check", check)
        redo(str(path))
        return check(self, **kwargs)

    monkeypatch.setattr(PictureTarget, "check", late)
    with pytest.raises(PictoryUnavailable, match=says("This task sent nothing")):
        runs("second", overwrite=True)
    assert billed(pictory) == {PROMPT: 1}
    new = runs("second", overwrite=True)
    assert billed(pictory) == {PROMPT: 2}
    assert jobs_of(path.parent) == {"a.png": new["job_id"], "a.v1.png": old["job_id"]}


@pytest.mark.parametrize("is_new", [False, True])
def test_a_task_that_saves_the_same_job_after_the_redo_does_not_undo_it(pictory, path, monkeypatch, is_new):
    """Two runs may wait for one job: the second adopts what the first has bought."""
    runs = runs_of(path)
    save, old = PictureTarget.save, {}

    def late(self, *args, **kwargs):
        monkeypatch.setattr(PictureTarget, "save", save)
        old.update(runs("second"))
        redo(str(path))
        return save(self, *args, **kwargs | {"is_new": is_new})

    monkeypatch.setattr(PictureTarget, "save", late)
    assert runs("first")["path"] == str(path.with_name(f"a.{old['job_id']}.png"))
    assert sidecar(path)["state"] == "redo"
    assert not path.exists()
    new = runs("third")
    assert jobs_of(path.parent)["a.png"] == new["job_id"]
    assert billed(pictory) == {PROMPT: 2}


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_download_takes_the_place_only_of_who_allows_it(pictory, path, overwrite):
    """With ``overwrite`` the file is what is there now, as after any download; without it, a run asks first."""
    runs = runs_of(path)
    old = runs("first")
    redo(str(path))
    task = DownloadImageOperator(task_id="d", job_id=old["job_id"], path=str(path), overwrite=overwrite)
    assert task.execute({"ti": TaskInstance()})["sha256"] == old["sha256"]
    assert Path(f"{path}.json").exists() is not overwrite
    if overwrite:  # the task that has bought it knows its job, and reuses it
        assert runs("first")["job_id"] == old["job_id"]
        assert billed(pictory) == {PROMPT: 1}
    else:  # it is the picture that was moved, and there is a version of it
        assert runs("first")["job_id"] != old["job_id"]
        assert billed(pictory) == {PROMPT: 2}


def test_a_sensor_of_the_old_job_is_not_concerned(pictory, path):
    old = runs_of(path)("first")
    redo(str(path))
    before = everything(path.parent)
    sensor = PictoryJobSensor(task_id="wait", job_id=old["job_id"])
    assert to_its_end(sensor, {"ti": TaskInstance()})["job_id"] == old["job_id"]
    assert everything(path.parent) == before
