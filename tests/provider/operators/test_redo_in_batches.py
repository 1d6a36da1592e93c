# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""``airflow pictory redo`` for rows of a batch: the next run buys those rows again, each once, and no other."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import fsspec
import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pictory_provider.api.errors import Unavailable
from pictory_provider.exceptions import PictoryJobFailed, PictoryRequestInvalid
from pictory_provider.operators.pictory import GenerateImageOperator
from pictory_provider.services.batch import runner
from pictory_provider.services.redo import redo
from pictory_provider.storage.pictures import PictureTarget
from tests.driver import Attempts
from tests.provider.batches import Tries, billed
from tests.stand_ins import says

ROWS = [{"sku": sku, "prompt": f"A mug, number {sku}"} for sku in ("a", "b", "c")]
A, B, C = (row["prompt"] for row in ROWS)
WAYS = ("a retry", "a clear", "another run")


@pytest.fixture(autouse=True)
def _impatient(impatient, timing):
    timing(read_budget=0.05)


@pytest.fixture(params=["a disk", "object storage"])
def where(request, tmp_path):
    if request.param == "a disk":
        return str(tmp_path / "mugs")
    request.getfixturevalue("memory")
    return f"memory://{tmp_path.name}/mugs"


def then(tries, way):
    """Return the attempts of the next try."""
    if way == "another run":
        return tries.of_another_run("second")
    if way == "a clear":
        tries.clear()
    return tries


def run(tries, rows=None, **kwargs):
    return tries(rows or ROWS, file_name="{sku}.png", **kwargs)


def read(path):
    with fsspec.open(str(path), "rb") as file:
        return file.read()


def sidecar(path):
    return json.loads(read(f"{path}.json"))


def manifest(where):
    lines = read(f"{where}/metadata.jsonl").decode().splitlines()
    return {line["sku"]: line for line in map(json.loads, lines)}


def saved(result):
    return result["saved"], result["reused"]


@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_the_next_run_buys_that_row_once_and_the_manifest_follows(pictory, where, way, deferrable):
    tries = Tries(where)
    run(tries, deferrable=deferrable)
    before, picture = manifest(where), read(f"{where}/b.png")
    moved = redo(f"{where}/b.png")
    assert moved.version == f"{where}/b.v1.png"
    tries = then(tries, way)
    assert sum(saved(run(tries, deferrable=deferrable))) == 3
    after = manifest(where)
    assert {sku for sku in after if after[sku]["job_id"] != before[sku]["job_id"]} == {"b"}
    assert after["b"]["file_name"] == "b.png"
    assert (sidecar(f"{where}/b.png")["state"], sidecar(f"{where}/b.png")["job_id"]) == (
        "saved",
        after["b"]["job_id"],
    )
    assert (read(moved.version), sidecar(moved.version)["job_id"]) == (picture, before["b"]["job_id"])
    for again in WAYS:
        tries = then(tries, again)
        assert sum(saved(run(tries, deferrable=deferrable))) == 3
    assert manifest(where) == after
    assert billed(pictory) == {A: 1, B: 2, C: 1}


def test_a_run_that_has_bought_a_row_before_reuses_what_another_run_bought_after_a_redo(pictory, where):
    first, second = Tries(where), Tries(where).of_another_run("second")
    run(first)
    redo(f"{where}/b.png")
    run(second)
    first.clear()
    assert saved(run(first)) == (0, 3)
    assert billed(pictory) == {A: 1, B: 2, C: 1}


def test_a_plan_shows_the_row_as_to_buy_and_writes_nothing(pictory, folder):
    tries = Tries(folder)
    run(tries, model="flux-schnell")
    redo(str(folder / "b.png"))
    names = sorted(folder.rglob("*"))
    tries.clear()
    with pytest.raises(AirflowSkipException):
        run(tries, model="flux-schnell", plan_only=True)
    plan = tries.ti.xcoms["plan"]
    assert (plan["to_buy"], plan["reused"], plan["price"]) == (1, 2, 0.6)
    assert sorted(folder.rglob("*")) == names


@pytest.mark.parametrize("overwrite", [True, "changed"])
def test_with_overwrite_the_row_is_bought_once_too(pictory, folder, overwrite):
    run(Tries(folder))
    redo(str(folder / "b.png"))
    second = Tries(folder).of_another_run("second")
    for _ in range(2):
        run(second, overwrite=overwrite)
    assert billed(pictory) == ({A: 2, B: 2, C: 2} if overwrite is True else {A: 1, B: 2, C: 1})


def test_a_corrected_prompt_may_take_the_place(pictory, where):
    run(Tries(where))
    redo(f"{where}/b.png")
    rows = [ROWS[0], {"sku": "b", "prompt": "A cup"}, ROWS[2]]
    assert saved(run(Tries(where).of_another_run("second"), rows)) == (1, 2)
    assert sidecar(f"{where}/b.png")["request"]["prompt"] == "A cup"
    assert billed(pictory) == {A: 1, B: 1, C: 1, "A cup": 1}


@pytest.mark.parametrize("way", WAYS)
def test_a_new_job_that_is_not_saved_yet_is_adopted_and_not_bought_again(pictory, where, way):
    tries = Tries(where)
    run(tries)
    redo(f"{where}/b.png")
    second = tries.of_another_run("other")
    second.try_number = 2  # the last one
    pictory.script("picture", "server-error", times=-1)
    with pytest.raises(Exception, match=says("paid for")):
        run(second)
    pictory.clear_faults()
    assert sum(saved(run(then(second, way)))) == 3
    assert sidecar(f"{where}/b.png")["state"] == "saved"
    assert billed(pictory) == {A: 1, B: 2, C: 1}


@pytest.mark.parametrize("way", WAYS)
def test_a_picture_that_was_not_removed_yet_is_removed_before_the_purchase(pictory, where, way, monkeypatch):
    tries = Tries(where)
    run(tries)
    with monkeypatch.context() as patch:
        patch.setattr(PictureTarget, "finish_redo", lambda *_: None)
        redo(f"{where}/b.png")
    old = sidecar(f"{where}/b.png")["job_id"]
    run(then(tries, way))
    assert sidecar(f"{where}/b.png")["job_id"] != old
    assert sidecar(f"{where}/b.v1.png")["job_id"] == old
    assert billed(pictory) == {A: 1, B: 2, C: 1}


def test_another_file_in_its_place_is_refused_and_nothing_is_bought(pictory, folder):
    run(Tries(folder))
    redo(str(folder / "b.png"))
    (folder / "b.png").write_bytes(b"mine")
    with pytest.raises(PictoryRequestInvalid, match=says("another file exists there, in place of the picture")):
        run(Tries(folder).of_another_run("second"))
    assert (folder / "b.png").read_bytes() == b"mine"
    assert billed(pictory) == {A: 1, B: 1, C: 1}


@pytest.mark.parametrize("overwrite", [True, "changed"])
def test_a_row_with_the_name_of_a_version_does_not_replace_it(pictory, folder, overwrite):
    run(Tries(folder))
    redo(str(folder / "b.png"))
    version = (folder / "b.v1.png").read_bytes()
    rows = [*ROWS, {"sku": "b.v1", "prompt": "A cup"}]
    with pytest.raises(PictoryRequestInvalid, match=says("an earlier version of another picture exists there")):
        run(Tries(folder).of_another_run("second"), rows, overwrite=overwrite)
    assert (folder / "b.v1.png").read_bytes() == version
    assert billed(pictory) == {A: 1, B: 1, C: 1}


def test_a_single_task_may_take_the_place(pictory, folder):
    run(Tries(folder))
    redo(str(folder / "b.png"))
    single = Attempts(
        lambda: GenerateImageOperator(task_id="one", prompt=B, path=str(folder / "b.png"), deferrable=False)
    )
    single()
    assert saved(run(Tries(folder).of_another_run("second"))) == (0, 3)
    assert billed(pictory) == {A: 1, B: 2, C: 1}


@pytest.mark.parametrize("name", ["b.png", "below/b.png"])
def test_while_a_batch_runs_in_the_folder_nothing_is_moved(pictory, where, name, monkeypatch):
    run(Tries(where))
    run(Tries(f"{where}/below"))
    before = sidecar(f"{where}/{name}")
    refused, finish = [], runner.Batch._finish

    def during(*args):
        with pytest.raises(Unavailable) as error:
            redo(f"{where}/{name}")
        refused.append(error.value.message)
        return finish(*args)

    monkeypatch.setattr(runner.Batch, "_finish", during)
    run(Tries(where).of_another_run("second"))
    assert "is in use by a batch, dag_id covers" in refused[0]
    assert sidecar(f"{where}/{name}") == before
    assert not redo(f"{where}/{name}").is_repeated


def test_a_batch_that_was_ended_before_it_ended_its_record_is_named(pictory, folder):
    run(Tries(folder))
    header = folder / ".pictory" / "batch.json"
    header.write_text(json.dumps(json.loads(header.read_text()) | {"has_ended": False}))
    with pytest.raises(Unavailable, match=says("clear its task")):
        redo(str(folder / "b.png"))
    header.write_text("mine")
    with pytest.raises(Unavailable, match=says("a batch whose record cannot be read")):
        redo(str(folder / "b.png"))


def test_a_new_job_that_fails_leaves_the_old_version_and_another_run_buys_again(pictory, folder):
    run(Tries(folder))
    redo(str(folder / "b.png"))
    pictory.plan("failed")
    with pytest.raises(PictoryJobFailed, match=says("1 of 3 rows has no picture")):
        run(Tries(folder).of_another_run("second"))
    run(Tries(folder).of_another_run("third"))
    assert billed(pictory) == {A: 1, B: 3, C: 1}
    assert (folder / "b.v1.png").exists()


# Any order of events ------------------------------------------------------------------------------------

EVENTS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["run", "clear", "another run", "fetched later"])),
        st.tuples(st.sampled_from(["redo", "interrupted redo"]), st.sampled_from("ab")),
    ),
    max_size=12,
)


@pytest.mark.parametrize("kind", ["a batch", "single tasks", "single tasks without a store"])
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=EVENTS)
def test_in_any_order_each_effective_redo_buys_one_picture_and_none_is_lost(fast, kind, events, monkeypatch):
    """Bills are those of the first run, and one for each redo that a run has followed."""
    fast.reset()
    folder = Path(tempfile.mkdtemp())
    rows = ROWS[:2]
    tries = Tries(folder) if kind == "a batch" else Singles(folder, rows, has_store=kind == "single tasks")
    expected, wishes = Counter(), set("ab")  # of pictures that the next run buys
    for number, (what, *which) in enumerate([("run",), *events, ("run",)]):
        if "redo" in what:
            with monkeypatch.context() as patch:
                if what == "interrupted redo":
                    patch.setattr(PictureTarget, "finish_redo", lambda *_: None)
                redo(str(folder / f"{which[0]}.png"))
            wishes.add(which[0])
            continue
        if what == "clear":
            tries.clear()
        elif what == "another run":
            tries = tries.of_another_run(f"run {number}")
        elif what == "fetched later" and wishes:  # what is bought now is saved by a retry
            fast.script("picture", "server-error", times=-1)
            with pytest.raises(Exception, match=says("paid for")):
                run(tries, rows)
            fast.clear_faults()
        tries.try_number = 0
        run(tries, rows)
        expected.update(row["prompt"] for row in rows if row["sku"] in wishes)
        wishes.clear()
    assert Counter(billed(fast)) == expected
    found = Counter()
    for file in folder.glob("*.json*"):
        if file.suffix == ".json" and (value := json.loads(file.read_text()))["state"] == "saved":
            assert file.with_suffix("").stat().st_size == value["size"]
            found[value["job_id"]] += 1
    assert found == Counter(list(fast.account.jobs))
    shutil.rmtree(folder)


class Singles:
    """The attempts of one task for each row."""

    def __init__(self, folder, rows, *, has_store=True, of=None):
        def attempts(row):
            path = str(folder / f"{row['sku']}.png")
            arguments = {"task_id": row["sku"], "prompt": row["prompt"], "path": path, "deferrable": False}
            return Attempts(lambda: GenerateImageOperator(**arguments), has_store=has_store)

        self.of = of or [attempts(row) for row in rows]

    def __call__(self, *_, **__):
        for each in self.of:
            each()

    def clear(self):
        for each in self.of:
            each.clear()

    def of_another_run(self, run_id):
        return Singles(None, [], of=[each.of_another_run(run_id) for each in self.of])
