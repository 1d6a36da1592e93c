# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A picture that cannot be saved is not bought: names are tested first, and storage errors stop submissions."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pictory_provider.api.errors import StorageFailed
from pictory_provider.exceptions import (
    PictoryBudgetExceeded,
    PictoryImageInvalid,
    PictoryJobCleaned,
    PictoryJobFailed,
    PictoryRequestInvalid,
    PictoryStorageFailed,
    PictorySubmitOutcomeUnknown,
    PictoryUnavailable,
    PictoryWaitTimeout,
)
from pictory_provider.hooks.pictory import PictoryHook
from pictory_provider.operators.pictory import GenerateImageOperator
from pictory_provider.services.batch import collector
from pictory_provider.storage import preflight
from pictory_provider.storage.folder import Folder
from pictory_provider.storage.target import Target
from tests.provider.batches import Tries, billed, entries, files, lamps, lines
from tests.stand_ins import says

if TYPE_CHECKING:
    from pictory_provider.storage.target import Received

PROMPT = "A lighthouse at dawn"


@pytest.fixture(autouse=True)
def _impatient(impatient, timing):
    timing(read_budget=0.05)


def named(*names):
    return [{"prompt": f"A mug, number {number}", "file_name": name} for number, name in enumerate(names)]


# Names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["{index}.json", "mugs/{index}.JSON", "{index}.png.json"])
def test_a_batch_whose_pictures_would_be_called_as_sidecars_is_refused(fast, one_try, folder, name):
    with pytest.raises(PictoryRequestInvalid, match=says("3 of 3 rows .* ends in .json, as sidecars do")):
        one_try(lamps(3), file_name=name)
    assert fast.requests == []
    assert files(folder) == ["failed.jsonl"]


def test_one_error_names_every_bad_file_name_and_all_other_mistakes(fast, one_try, folder):
    folder.mkdir()
    (folder / "taken").write_text("a file")
    table = [*named("a.png", "b.json", "taken/c.png", "d.png"), {"prompt": "No", "file_name": "e.png"}]
    with pytest.raises(PictoryRequestInvalid) as refused:
        one_try(table)
    text = " ".join(str(refused.value).split())
    assert "3 of 5 rows" in text
    assert "row 1: file_name 'b.json' ends in .json" in text
    assert "row 2: file_name 'taken/c.png' needs a folder, but this is not one" in text
    assert "row 4: prompt" in text
    assert fast.submissions == []


@pytest.mark.parametrize("name", ["metadata.jsonl", "failed.jsonl"])
def test_a_folder_in_the_place_of_the_manifest_is_refused(fast, one_try, folder, name):
    (folder / name).mkdir(parents=True)
    with pytest.raises(PictoryRequestInvalid, match=says(f"{name}' is a folder, and the batch writes a file")):
        one_try(lamps(2))
    assert fast.requests == []


def test_two_rows_whose_files_are_one_through_a_link_are_refused(fast, one_try, folder):
    (folder / "x").mkdir(parents=True)
    (folder / "y").symlink_to("x")
    with pytest.raises(
        PictoryRequestInvalid, match=says("row 1: .* is the same file as .*x/a.png.*symbolic link")
    ):
        one_try(named("x/a.png", "y/a.png", "y/b.png"))
    assert fast.submissions == []


@pytest.mark.parametrize("taken", ["taken", "x/taken", "x/y/taken"])
@pytest.mark.usefixtures("memory")
def test_a_place_below_an_object_is_refused_in_a_storage_with_folders(fast, taken):
    ObjectStoragePath(f"memory://bucket/out/{taken}").write_bytes(b"a file")
    with pytest.raises(PictoryRequestInvalid, match=says("1 of 2 rows .* needs a folder, but this is an object")):
        Tries("memory://bucket/out")(named("a.png", f"{taken}/deep/b.png"))
    assert fast.submissions == []


@pytest.mark.usefixtures("memory")
def test_an_object_with_the_name_of_a_folder_is_not_taken_for_a_picture_in_it(fast, monkeypatch):
    monkeypatch.setattr(preflight, "_FLAT", {"memory"})
    ObjectStoragePath("memory://bucket/out/taken").write_bytes(b"a file")
    assert Folder("memory://bucket/out").existing(["taken/taken"]) == {}


def test_a_place_below_a_link_that_leads_nowhere_is_refused(fast, one_try, folder):
    folder.mkdir()
    (folder / "away").symlink_to("nowhere")
    with pytest.raises(PictoryRequestInvalid, match=says("row 0: .* needs a folder, but this is not one")):
        one_try(named("away/a.png"))
    assert fast.submissions == []


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("place", ["a.png", "a.png.json"])
def test_a_folder_in_the_place_of_a_picture_or_its_sidecar_is_refused_and_no_other_row_is_bought(
    fast, one_try, folder, place, overwrite
):
    (folder / place).mkdir(parents=True)
    with pytest.raises(PictoryRequestInvalid, match=says(f"a.png: .*{place} is a folder")):
        one_try(named("a.png", "b.png"), overwrite=overwrite)
    assert fast.submissions == []


@pytest.fixture
def picky_disk(monkeypatch):
    """Let the disk refuse some names, as SMB and exFAT do with characters and eCryptfs with lengths."""

    def install(refuses, code=errno.EINVAL):
        def refusing(call):
            def checked(path, *more, **options):
                name = os.path.basename(path) if isinstance(path, (str, Path)) else ""
                if refuses(name):
                    raise OSError(code, os.strerror(code), str(path))
                return call(path, *more, **options)

            return checked

        real = Path.open
        monkeypatch.setattr(
            Path, "open", lambda self, *more, **options: refusing(lambda *_: real(self, *more, **options))(self)
        )
        monkeypatch.setattr(os, "link", lambda one, other: refusing(lambda *_: _link(one, other))(other))
        monkeypatch.setattr(Path, "replace", lambda self, to: refusing(lambda *_: _replace(self, to))(to))

    _link, _replace = os.link, Path.replace
    return install


LONG = "m" * 130 + ".png"


@pytest.mark.parametrize(
    ("refuses", "code", "names"),
    [
        pytest.param(lambda name: ":" in name, errno.EINVAL, ("a:b.png", "c.png", "d/e:f.png"), id="a character"),
        pytest.param(lambda name: len(name) > 143, errno.ENAMETOOLONG, ("c.png", "m" * 150), id="a length"),
        pytest.param(lambda name: len(name) > 143, errno.ENAMETOOLONG, ("m" * 140,), id="the sidecar's length"),
        pytest.param(lambda name: not name.isascii(), errno.EILSEQ, ("caf\u00e9.png", "c.png"), id="an encoding"),
        pytest.param(lambda name: name.startswith("CON"), errno.ENOENT, ("CON.png", "c.png"), id="a device"),
    ],
)
def test_a_name_that_this_disk_refuses_is_found_before_anything_is_bought(
    fast, one_try, folder, picky_disk, refuses, code, names
):
    picky_disk(refuses, code)
    with pytest.raises(PictoryRequestInvalid, match=says("has a name that the disk at .* refuses")) as refused:
        one_try(named(*names))
    for number, name in enumerate(names):
        assert (f"row {number}: " in str(refused.value)) == (refuses(name) or len(name) > 138)
    assert fast.submissions == []
    assert [path.name for path in folder.rglob("*") if ".part" in path.name] == []


def test_a_name_that_only_just_fits_is_bought_and_saved_and_so_is_its_spare_picture(
    fast, one_try, folder, picky_disk
):
    picky_disk(lambda name: len(name) > 143, errno.ENAMETOOLONG)
    (row,) = named("m" * 134 + ".png")
    place = Target.place

    def taken_meanwhile(self, received, *, overwrite):
        if self.path.endswith(row["file_name"]) and not (folder / row["file_name"]).exists():
            (folder / row["file_name"]).write_bytes(b"of somebody else")
        return place(self, received, overwrite=overwrite)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Target, "place", taken_meanwhile)
        assert one_try([row])["saved"] == 1
    (job_id,) = fast.account.jobs
    assert sorted(len(name) for name in files(folder) if job_id in name) == [138, 143]


def test_a_single_task_finds_a_name_that_its_disk_refuses_before_it_buys(pictory, context, tmp_path, picky_disk):
    picky_disk(lambda name: ":" in name)
    with pytest.raises(PictoryRequestInvalid, match=says("has a name that the disk at .* refuses")):
        GenerateImageOperator(task_id="draw", prompt=PROMPT, path=f"{tmp_path}/a:b.png").execute(context)
    assert pictory.submissions == []
    assert list(tmp_path.iterdir()) == []
    assert context["task_state_store"].rows == {}


def test_a_disk_that_takes_nothing_is_no_fault_of_a_name_and_may_be_tried_again(fast, one_try, picky_disk):
    picky_disk(lambda name: name == "part", errno.ENOSPC)
    with pytest.raises(PictoryStorageFailed, match=says("No space left on device. Nothing was sent")):
        one_try(named("a.png"))
    assert fast.submissions == []


def test_ten_thousand_plain_names_cost_one_trial(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(preflight, "_make", made.append)
    assert preflight.refused_pictures(f"{tmp_path}/mug-{number}.png" for number in range(10_000)) == {}
    assert len(made) == 1


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("place", ["a.png", "a.png.json"])
def test_a_link_that_leads_nowhere_in_the_place_of_a_picture_or_its_sidecar_is_refused(
    fast, one_try, context, folder, place, overwrite
):
    folder.mkdir()
    (folder / place).symlink_to("nowhere")
    with pytest.raises(PictoryRequestInvalid, match=says("row 0: .* is a broken symbolic link")):
        one_try(named("a.png", "b.png"), overwrite=overwrite)
    with pytest.raises(PictoryRequestInvalid, match=says("broken symbolic link")):
        GenerateImageOperator(task_id="draw", prompt=PROMPT, path=f"{folder}/a.png", overwrite=overwrite).execute(
            context
        )
    assert fast.submissions == []


def test_another_users_file_in_a_sticky_folder_is_refused_before_a_purchase(fast, one_try, folder, monkeypatch):
    assert one_try(named("a.png", "b.png"))["saved"] == 2
    folder.chmod(0o1777)
    monkeypatch.setattr(os, "geteuid", lambda: 65_534)
    one_try.clear()
    with pytest.raises(
        PictoryRequestInvalid, match=says("2 of 3 rows .* may not be replaced: another user owns it")
    ):
        one_try(named("a.png", "b.png", "c.png"), overwrite=True)
    assert len(fast.submissions) == 2
    one_try.clear()
    assert one_try(named("a.png", "b.png", "c.png"))["reused"] == 2


def test_a_trial_of_a_path_that_goes_up_leaves_nothing_behind(pictory, context, tmp_path):
    path = f"{tmp_path}/x/../../{tmp_path.name}/a b.png"
    GenerateImageOperator(task_id="draw", prompt=PROMPT, path=path, deferrable=False).execute(context)
    assert {each.name for each in tmp_path.iterdir()} <= {"a b.png", "a b.png.json", "x"}


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("file://{}/a.jso%6E", "ends in .json"),
        ("{}/a\0.png", "contains a NUL character"),
        ("{}/" + "m" * 90 + ("/" + "m" * 99) * 40 + "/a.png", "is too long"),
        ("{}/new/.", "names a folder"),
        ("{}/new/sub/../..", "names a folder"),
        ("file://{}/new/%2E", "names a folder"),
    ],
)
def test_other_paths_that_no_picture_can_have_are_refused_too(pictory, context, tmp_path, path, problem):
    with pytest.raises(PictoryRequestInvalid, match=says(problem)):
        GenerateImageOperator(task_id="draw", prompt=PROMPT, path=path.format(tmp_path)).execute(context)
    assert pictory.requests == []


@pytest.fixture
def mounts(monkeypatch):
    """Let the kernel report mounts besides the real ones."""

    def install(*paths):
        monkeypatch.setattr(preflight._Check, "_mounts", {str(path) for path in paths})

    return install


@pytest.mark.parametrize("why", ["immutable", "append-only", "a mount"])
@pytest.mark.parametrize("place", ["a.png", "a.png.json", "a.jpg"])
@pytest.mark.parametrize("overwrite", [True, "changed"])
def test_a_file_that_cannot_be_replaced_is_found_before_its_new_picture_is_bought(
    fast, context, one_try, folder, monkeypatch, mounts, why, place, overwrite
):
    copies = [{"format": "jpg"}]
    one_try(named("a.png", "b.png"), copies=copies)
    attributes = {"immutable": 0x10, "append-only": 0x20}.get(why, 0)
    monkeypatch.setattr(preflight, "_attributes", lambda file: attributes if file.name == place else 0x80000)
    mounts(*([folder / place] if why == "a mount" else []))
    says_why = says(f"may not be replaced: it is .*{why}.*: '.*{place}'")
    others = [{**row, "prompt": f"Another {number}"} for number, row in enumerate(named("a.png", "b.png"))]
    with pytest.raises(PictoryRequestInvalid, match=says_why):
        one_try.of_another_run("next")(others, overwrite=overwrite, copies=copies)
    task = GenerateImageOperator(
        task_id="draw", prompt=PROMPT, path=str(folder / "a.png"), overwrite=overwrite, copies=copies
    )
    with pytest.raises(PictoryRequestInvalid, match=says_why):
        task.execute(context)
    assert len(fast.submissions) == 2


def test_attributes_and_mounts_are_those_of_the_kernel(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    listed = (
        shutil.which("lsattr")
        and subprocess.run(
            ["lsattr", tmp_path / "a.png"], capture_output=True, text=True, check=False
        ).stdout.partition(" ")[0]
    )
    assert preflight._attributes(tmp_path / "a.png") & 0x30 == 0
    if listed:  # e, for extents, is 0x80000
        assert bool(preflight._attributes(tmp_path / "a.png") & 0x80000) == ("e" in listed)
    assert preflight._attributes(tmp_path / "none.png") == 0
    os.mkfifo(tmp_path / "pipe.png")
    assert preflight._attributes(tmp_path / "pipe.png") & 0x30 == 0
    assert {"/", "/proc"} <= preflight._Check(overwrite=True)._mounts


def test_a_folder_in_which_files_cannot_be_renamed_is_found_before_anything_is_bought(
    fast, one_try, folder, monkeypatch
):
    folder.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", lambda self, _: (_ for _ in ()).throw(PermissionError(1, "not permitted")))
        with pytest.raises(PictoryRequestInvalid, match=says("cannot be written: .* not permitted")):
            one_try(lamps(2))
    assert fast.submissions == []


@pytest.mark.parametrize("name", ["part/\u00e9.png", "names/\u00e9.png", "trial.part/\u00e9.png"])
def test_no_name_collides_with_those_of_the_trial(fast, one_try, folder, name):
    assert one_try(named(name))["saved"] == 1
    assert (folder / name).is_file()


@pytest.mark.parametrize("name", ["%2E", "%2e%2E", "..a", "a."])
def test_a_plain_path_that_only_looks_like_a_folder_is_saved(pictory, context, tmp_path, name):
    GenerateImageOperator(task_id="draw", prompt=PROMPT, path=f"{tmp_path}/{name}", deferrable=False).execute(
        context
    )
    assert (tmp_path / name).is_file()


def test_a_retry_whose_table_became_wrong_does_not_say_that_nothing_was_paid_for(fast, one_try, folder):
    away(fast)
    with pytest.raises(PictoryUnavailable):
        one_try(named("x/a.png", "b.png"))
    shutil.rmtree(folder / "x", ignore_errors=True)
    (folder / "x").write_text("in the way")
    mend(fast)
    with pytest.raises(PictoryRequestInvalid) as refused:
        one_try(named("x/a.png", "b.png"))
    text = " ".join(str(refused.value).split())
    assert "Nothing was sent and nothing was spent" not in text
    assert "Nothing more was sent, and what is paid for is saved" in text
    assert (folder / "b.png").is_file()


def test_a_sub_folder_that_may_not_be_written_refuses_its_rows_together_with_all_other_mistakes(
    fast, one_try, folder, monkeypatch
):
    (folder / "x").mkdir(parents=True)
    make = Path.mkdir

    def forbidden(self, *arguments, **more):
        if self.parent == folder / "x":
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return make(self, *arguments, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "mkdir", forbidden)
        with pytest.raises(
            PictoryRequestInvalid, match=says("2 of 3 rows .* cannot be written: .* Permission denied")
        ):
            one_try(named("x/a.png", "b.json", "c.png"))
    assert fast.submissions == []


def test_a_retry_saves_what_is_paid_for_although_the_disk_takes_no_new_names(fast, one_try, folder, picky_disk):
    away(fast)
    with pytest.raises(PictoryUnavailable):
        one_try(named("x/a.png", "b.png"))
    mend(fast)
    picky_disk(lambda name: name == "part", errno.ENOSPC)
    with pytest.raises(PictoryStorageFailed, match=says("Nothing more was sent, and what is paid for is saved")):
        one_try(named("x/a.png", "b.png"))
    assert (folder / "b.png").is_file()
    assert len(fast.submissions) == 2


NAMES = st.text(
    st.one_of(st.sampled_from("ab./:?*.jsonJSON CON"), st.characters(codec="utf-8")), min_size=1, max_size=60
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(NAMES, min_size=1, max_size=6))
@example(names=["a.png", " "])
def test_every_picture_of_a_valid_table_is_saved_at_its_file_name(fast, tmp_path_factory, names):
    fast.reset()
    fast.account.seconds = 0
    folder = tmp_path_factory.mktemp("any")
    try:
        result = Tries(folder)(named(*names))
    except PictoryRequestInvalid:
        assert fast.submissions == []
        assert files(folder) == ["failed.jsonl"]
        return
    assert result["saved"] == len(names) == len(fast.submissions)
    for index, name in enumerate(names):
        asked_for = name if name.strip() else f"{index:05d}.png"  # a blank cell is an empty one
        assert (folder / asked_for).is_file()
        assert (folder / f"{asked_for}.json").is_file()


# A paid picture under a name that is corrected -----------------------------------------------------------


@pytest.fixture
def refused_when_saved(monkeypatch):
    """Let the disk refuse some names only when the picture is saved, as one that was changed meanwhile."""

    def install(refuses):
        place = Target.place

        def placing_it(self, received: Received, *, overwrite):
            if refuses(self.path.rpartition("/")[2]):
                raise StorageFailed(f"The picture could not be written to {self.path!r}: Invalid argument.")
            return place(self, received, overwrite=overwrite)

        monkeypatch.setattr(Target, "place", placing_it)

    return install


def test_a_paid_picture_whose_name_is_corrected_is_adopted_and_not_bought_again(
    fast, one_try, folder, refused_when_saved
):
    refused_when_saved(lambda name: ":" in name)
    with pytest.raises(PictoryStorageFailed):
        one_try(named("a:b.png", "c.png", "d:e.png"))
    assert len(fast.submissions) == 3
    one_try.clear()
    result = one_try(named("a-b.png", "c.png", "d-e.png"))
    assert (result["saved"], result["reused"]) == (2, 1)
    assert len(fast.submissions) == 3
    assert [line["file_name"] for line in lines(folder / "metadata.jsonl")] == ["a-b.png", "c.png", "d-e.png"]
    assert len({line["job_id"] for line in lines(folder / "metadata.jsonl")}) == 3
    assert one_try.of_another_run("next")(named("a-b.png", "c.png", "d-e.png"))["reused"] == 3


def test_a_paid_picture_is_adopted_once_and_by_a_row_that_asks_for_the_same_over_the_same_connection(
    fast, one_try, folder, refused_when_saved, monkeypatch
):
    refused_when_saved(lambda name: ":" in name)
    with pytest.raises(PictoryStorageFailed):
        one_try([{"prompt": "A red mug", "file_name": "a:b.png"}])
    one_try.clear()
    table = [
        {"prompt": prompt, "file_name": f"{n}.png"} for n, prompt in enumerate(["A tea mug", *["A red mug"] * 2])
    ]
    assert one_try(table)["saved"] == 3
    assert billed(fast) == {"A red mug": 2, "A tea mug": 1}

    with pytest.raises(PictoryStorageFailed):
        one_try.of_another_run("second")([{"prompt": "A blue mug", "file_name": "c:d.png"}])
    monkeypatch.setenv("AIRFLOW_CONN_ANOTHER", fast.connection_json(requests_per_second=500))
    third = one_try.of_another_run("second")
    third.clear()
    third([{"prompt": "A blue mug", "file_name": "c.png"}], pictory_conn_id="another", fail_on_partial_error=False)
    assert billed(fast)["A blue mug"] == 2


@pytest.mark.parametrize(("old", "new"), [("Mug.PNG", "mug.png"), ("cafe\u0301.png", "caf\u00e9.png")])
def test_a_name_that_is_corrected_to_one_that_some_disks_take_for_the_same_is_not_bought_again(
    fast, one_try, refused_when_saved, old, new
):
    refused_when_saved(lambda name: name == old)
    with pytest.raises(PictoryStorageFailed):
        one_try(named(old))
    one_try.clear()
    assert one_try(named(new))["saved"] == 1
    assert len(fast.submissions) == 1


def test_a_paid_picture_is_not_adopted_for_a_place_that_is_not_free(fast, one_try, folder, refused_when_saved):
    broken = False
    refused_when_saved(lambda name: broken)
    table = [{"prompt": "A red mug", "file_name": "red.png"}]
    one_try(table)
    broken = True
    second = one_try.of_another_run("second")
    with pytest.raises(PictoryStorageFailed):
        second([{"prompt": "A red mug", "file_name": "x.png"}])
    broken = False
    second.clear()
    assert second(table)["reused"] == 1
    assert [line["file_name"] for line in lines(folder / "metadata.jsonl")] == ["red.png"]


def test_a_paid_picture_whose_name_another_row_has_now_is_saved_under_a_spare_name(
    fast, one_try, folder, refused_when_saved
):
    broken = True
    refused_when_saved(lambda name: broken and name == "a.png")
    with pytest.raises(PictoryStorageFailed):
        one_try([{"prompt": "A red mug", "file_name": "a.png"}])
    broken = False
    one_try.clear()
    one_try([{"prompt": "A blue mug", "file_name": "a.png"}, {"prompt": "A red mug", "file_name": "b.png"}])
    assert billed(fast) == {"A red mug": 2, "A blue mug": 1}
    assert len(list(folder.glob("*.png"))) == 3


# What cannot be fetched or saved -------------------------------------------------------------------------

WAYS = [pytest.param(False, id="on the worker"), pytest.param(True, id="deferring")]


def away(pictory):
    pictory.set(images_away=1)


def a_page(pictory):
    pictory.script("picture", "not-a-png", times=-1)


def forbidden(pictory):
    pictory.script("picture", "edge-block", times=-1)


def missing(pictory):
    pictory.script("picture", "server-error", status=404, times=-1)


def broken_off(pictory):
    pictory.script("picture", "drop-during", times=-1)


CAUSES = [
    pytest.param(away, PictoryUnavailable, id="host away"),
    pytest.param(a_page, PictoryImageInvalid, id="a page"),
    pytest.param(forbidden, Exception, id="forbidden"),
    pytest.param(missing, Exception, id="missing"),
    pytest.param(broken_off, PictoryImageInvalid, id="broken off"),
]


def mend(pictory):
    pictory.set(images_away=0)
    pictory.clear_faults()


@pytest.mark.parametrize("deferrable", WAYS)
@pytest.mark.parametrize(("breaks", "error"), CAUSES)
def test_after_eight_pictures_that_could_not_be_fetched_no_more_are_bought_and_a_retry_buys_nothing_until_one_is_saved(
    fast, one_try, breaks, error, deferrable
):
    breaks(fast)
    with pytest.raises(error, match=says("8 pictures in a row could not be fetched or saved")):
        one_try(lamps(100), max_in_flight=16, deferrable=deferrable)
    paid = len(fast.submissions)
    assert 8 <= paid <= 32
    for _ in range(2):
        with pytest.raises(error, match=says("could not be fetched or saved")):
            one_try(lamps(100), max_in_flight=16, deferrable=deferrable)
        assert len(fast.submissions) == paid
    mend(fast)
    assert one_try(lamps(100), deferrable=deferrable)["saved"] == 100
    assert billed(fast) == dict.fromkeys(lamps(100), 1)


def test_the_count_continues_over_deferrals_that_wait_for_fewer_than_eight_jobs(fast, one_try):
    away(fast)
    with pytest.raises(PictoryUnavailable, match=says("8 pictures in a row")):
        one_try(lamps(40), max_in_flight=2, deferrable=True)
    assert 8 <= len(fast.submissions) <= 10


def test_the_count_continues_over_retries_and_another_run_and_is_reset_by_a_clear(fast, one_try):
    away(fast)
    with pytest.raises(PictoryUnavailable, match=says("8 pictures in a row")):
        one_try(lamps(100), max_in_flight=8)
    paid = len(fast.submissions)
    one_try.try_number = one_try.max_tries
    with pytest.raises(PictoryUnavailable):
        one_try(lamps(100), max_in_flight=8)
    another = one_try.of_another_run("next")
    with pytest.raises(PictoryUnavailable):
        another(lamps(100), max_in_flight=8)
    assert len(fast.submissions) == paid
    another.clear()
    with pytest.raises(PictoryUnavailable, match=says("8 pictures in a row")):
        another(lamps(100), max_in_flight=paid + 8)
    assert paid < len(fast.submissions) <= paid + 48


def test_a_saved_picture_resets_the_count(fast, one_try):
    fast.script("picture", "not-a-png", times=-1, every=2)
    with pytest.raises(PictoryImageInvalid, match=says("20 of 40 rows have no picture")):
        one_try(lamps(40), max_in_flight=1)
    assert len(fast.submissions) == 40


def test_jobs_that_pictory_says_have_failed_do_not_stop_submissions(fast, one_try):
    for _ in range(12):
        fast.plan("failed")
    with pytest.raises(PictoryJobFailed, match=says("12 of 20 rows have no picture")):
        one_try(lamps(20))
    assert len(fast.submissions) == 20


def test_jobs_that_never_end_stop_submissions_and_after_a_clear_the_others_are_bought(fast, one_try):
    for _ in range(8):
        fast.plan("stuck")
    with pytest.raises(PictoryUnavailable, match=says("8 pictures in a row .* nothing is bought twice")):
        one_try(lamps(60), max_in_flight=8, timeout=0)
    assert 8 <= len(fast.submissions) <= 24
    one_try.clear()
    with pytest.raises(PictoryWaitTimeout, match=says("8 of 60 rows have no picture")):
        one_try(lamps(60), max_in_flight=20, timeout=0)
    assert len(fast.submissions) == 60


def night_of(one_try, number):
    """Return a function that runs a nightly task without retries."""
    tries = one_try.of_another_run(f"night {number}")
    tries.max_tries = 0
    return tries


@pytest.mark.parametrize("deferrable", WAYS)
def test_jobs_that_pictory_does_not_know_stop_submissions_and_a_night_then_costs_one_picture(
    fast, one_try, timing, deferrable
):
    timing(unknown_job=0.0)
    fast.script("job", "server-error", status=404, times=-1)
    bills = []
    for night in range(4):
        with pytest.raises(PictorySubmitOutcomeUnknown, match=says("8 pictures in a row could not be fetched")):
            night_of(one_try, night)(lamps(60), max_in_flight=8, deferrable=deferrable)
        bills.append(len(fast.submissions))
    assert 8 <= bills[0] <= 24
    assert [later - earlier for earlier, later in itertools.pairwise(bills)] == [1, 1, 1]
    mend(fast)
    with pytest.raises(PictorySubmitOutcomeUnknown, match=says(f"{60 - bills[-1]} saved, {bills[-1]} unknown")):
        night_of(one_try, "last")(lamps(60), deferrable=deferrable)
    assert billed(fast) == dict.fromkeys(lamps(60), 1)


def test_a_poll_that_ends_in_an_unexpected_error_counts_as_a_picture_that_could_not_be_fetched(
    fast, one_try, monkeypatch
):
    def broken(client, job_id):
        raise ArithmeticError(f"no number in {job_id}")

    with monkeypatch.context() as patch:
        patch.setattr(collector, "get_job", broken)
        with pytest.raises(PictoryUnavailable, match=says("8 pictures in a row .* could not be polled: Arith")):
            one_try(lamps(60), max_in_flight=8)
        paid = len(fast.submissions)
        assert 8 <= paid <= 24
        with pytest.raises(PictoryUnavailable):
            one_try(lamps(60), max_in_flight=8)
        assert len(fast.submissions) == paid
    assert one_try(lamps(60))["saved"] == 60
    assert billed(fast) == dict.fromkeys(lamps(60), 1)


@pytest.mark.parametrize("more_each_night", [7, 60])
def test_a_nightly_table_of_other_rows_buys_nothing_more_while_no_picture_can_be_downloaded(
    fast, one_try, more_each_night
):
    away(fast)
    bills = []
    for night in range(4):
        rows = [f"A lamp of night {night}, number {number}" for number in range(more_each_night)]
        with pytest.raises(PictoryUnavailable):
            night_of(one_try, night)(rows, max_in_flight=8)
        bills.append(len(fast.submissions))
    assert bills[1:] == bills[1:2] * 3 if more_each_night == 7 else bills == bills[:1] * 4
    mend(fast)
    assert night_of(one_try, "last")(lamps(3))["saved"] == 3


def test_if_jobs_are_cleaned_before_they_could_be_fetched_a_night_costs_one_picture_until_one_is_saved(
    fast, one_try
):
    away(fast)
    bills = []
    for night in range(4):
        with pytest.raises((PictoryUnavailable, PictoryJobCleaned)):
            night_of(one_try, night)(lamps(30), max_in_flight=8)
        bills.append(len(fast.submissions))
        for job in fast.account.jobs.values():
            job.is_cleaned = True
    assert [later - earlier for earlier, later in itertools.pairwise(bills)] == [1, 1, 1]
    mend(fast)
    assert night_of(one_try, "last")(lamps(30))["saved"] == 30


def test_jobs_that_are_cleaned_before_they_are_polled_stop_submissions_too(fast, one_try):
    for _ in range(60):
        fast.plan("cleaned")
    with pytest.raises(PictoryUnavailable, match=says("8 pictures in a row could not be fetched")):
        one_try(lamps(60), max_in_flight=8)
    assert len(fast.submissions) <= 24


def test_jobs_that_never_end_fail_nothing_if_nothing_is_left_to_buy_and_keep_no_later_run_from_buying(
    fast, one_try
):
    for _ in range(8):
        fast.plan("stuck")
    one_try.max_tries = 0
    result = one_try(lamps(30), timeout=0.5, fail_on_partial_error=False)
    assert (result["saved"], result["owed"]) == (22, 8)
    next_run = one_try.of_another_run("next")
    next_run.max_tries = 0
    result = next_run(lamps(40), timeout=0.5, fail_on_partial_error=False)
    assert (result["saved"], result["reused"], result["owed"]) == (10, 22, 8)


def test_if_paid_jobs_turn_out_to_have_failed_a_retry_buys_again(fast, one_try):
    away(fast)
    with pytest.raises(PictoryUnavailable):
        one_try(lamps(30), max_in_flight=8)
    mend(fast)
    for job in fast.account.jobs.values():
        job.fate = "failed"
    paid = len(fast.account.jobs)
    with pytest.raises(PictoryJobFailed, match=says(f"{paid} of 30 rows have no picture")):
        one_try(lamps(30))
    assert len(fast.submissions) == 30


# Limits --------------------------------------------------------------------------------------------------


def test_a_daily_limit_holds_with_older_ledger_entries_of_others(pictory, monkeypatch):
    monkeypatch.setenv(
        "AIRFLOW_CONN_PICTORY_DEFAULT", pictory.connection_json(requests_per_second=500, credits_per_day=40)
    )
    for seconds in range(10):
        at = datetime.fromtimestamp(pictory.account.clock() - 20 + seconds, UTC)
        pictory.enter(amount=2, transactionDate=at.isoformat())
    pictory.set(ledger_lag=15)
    with PictoryHook() as hook:
        for _ in range(10):
            hook.generate_image(PROMPT)
        with pytest.raises(PictoryBudgetExceeded, match=says("credits_per_day leaves 0 of 40")):
            hook.generate_image(PROMPT)
    assert pictory.account.credits_used == 40


@pytest.mark.parametrize("limit", ["credits_per_day", "credits_reserve"])
def test_a_task_whose_only_record_is_the_sidecar_is_held_to_limits_over_clears(
    pictory, context_without_store, tmp_path, monkeypatch, limit
):
    amount = {"credits_reserve": pictory.account.credits_limit - 6}.get(limit, 6)
    monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", pictory.connection_json(**{limit: amount}))
    pictory.set(ledger_lag=1_800, quota_lag=1_800)
    for number in range(6):
        context_without_store["ti"].clear()  # each is a clear
        task = GenerateImageOperator(
            task_id="draw", prompt=PROMPT, path=f"{tmp_path}/a.png", overwrite=True, deferrable=False
        )
        if number < 3:
            task.execute(context_without_store)
        else:
            with pytest.raises(PictoryBudgetExceeded):
                task.execute(context_without_store)
    assert pictory.account.credits_billed == 6


def test_a_reserve_holds_over_runs_of_a_batch_that_are_most_of_an_hour_apart(fast, one_try, monkeypatch):
    monkeypatch.setenv(
        "AIRFLOW_CONN_PICTORY_DEFAULT", fast.connection_json(requests_per_second=500, credits_reserve=40)
    )
    fast.account.credits_limit = 100
    clock, minutes = time.time, 0
    for owner, name in ((time, "time"), (fast.account, "clock")):
        monkeypatch.setattr(owner, name, lambda: clock() + 60 * minutes)
    fast.set(quota_lag=30 * 60)
    assert one_try(lamps(15))["saved"] == 15
    minutes = 55
    assert one_try.of_another_run("second")(lamps(30))["saved"] == 15
    minutes = 80
    with pytest.raises(PictoryBudgetExceeded):
        one_try.of_another_run("third")(lamps(45))
    assert fast.account.credits_billed == 60


def test_what_the_account_showed_before_each_purchase_is_on_record(fast, one_try, folder, monkeypatch):
    monkeypatch.setenv(
        "AIRFLOW_CONN_PICTORY_DEFAULT",
        fast.connection_json(requests_per_second=500, credits_reserve=0, credits_per_day=1_000),
    )
    fast.enter(amount=2)
    one_try(lamps(9))
    rows = list(entries(folder).values())
    assert [(row["shown_before"], row["used_before"]) for row in rows] == [(1, 2.0)] * 8 + [(9, 18.0)]
