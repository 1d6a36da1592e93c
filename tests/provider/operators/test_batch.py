# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Many pictures in one task: a table in, a folder of pictures and a manifest out."""

from __future__ import annotations

import hashlib
import inspect
import json
from pathlib import Path

import fsspec
import pytest
from airflow.providers.common.compat.sdk import TaskDeferred
from airflow.sdk import DAG, Asset, ObjectStoragePath

from pictory_provider.exceptions import (
    PictoryBudgetExceeded,
    PictoryImageInvalid,
    PictoryJobFailed,
    PictoryRequestInvalid,
    PictoryStorageFailed,
    PictoryWaitTimeout,
)
from pictory_provider.media.mark import mark
from pictory_provider.operators.batch import GenerateImageBatchOperator
from pictory_provider.operators.pictory import GenerateImageOperator
from tests.provider.batches import Tries, billed, entries, files, lamps, lines
from tests.stand_ins import TaskInstance, says

WAYS = [pytest.param(False, id="on the worker"), pytest.param(True, id="deferring")]


# A table in, pictures and a manifest out -----------------------------------------------------------------


@pytest.mark.parametrize("deferrable", WAYS)
def test_a_csv_becomes_a_folder_of_pictures_and_a_manifest(fast, one_try, folder, tmp_path, deferrable):
    table = tmp_path / "products.csv"
    table.write_text(
        'sku,product,note\r\n00120,"A ""Grüße"" mug, blue","says ""hi"", twice"\r\n00121,Käsebrett,\r\n',
        encoding="utf-8-sig",
    )
    result = one_try(
        str(table),
        prompt="{product} on a table",
        file_name="{sku}.png",
        model="flux-schnell",
        deferrable=deferrable,
    )
    assert result == {
        "of": 2,
        "to_do": 0,
        "waiting": 0,
        "saved": 2,
        "reused": 0,
        "owed": 0,
        "failed": 0,
        "unknown": 0,
        "not_bought": 0,
        "skipped": 0,
        "ai_credits_used": 1.2,
        "manifest": str(folder / "metadata.jsonl"),
    }
    assert files(folder) == [
        "00120.png",
        "00120.png.json",
        "00121.png",
        "00121.png.json",
        "failed.jsonl",
        "metadata.jsonl",
    ]
    first, second = lines(folder / "metadata.jsonl")
    picture = (folder / "00120.png").read_bytes()
    assert {**first, "job_id": None} == {
        "file_name": "00120.png",
        "text": 'A "Grüße" mug, blue on a table',
        "sku": "00120",
        "product": 'A "Grüße" mug, blue',
        "note": 'says "hi", twice',
        "job_id": None,
        "model": "flux-schnell",
        "ai_credits_used": 0.6,
        "width": 1024,
        "height": 1024,
        "size": len(picture),
        "sha256": hashlib.sha256(picture).hexdigest(),
    }
    assert second["file_name"] == "00121.png"
    assert first["job_id"] in fast.account.jobs
    assert (folder / "failed.jsonl").read_bytes() == b""
    assert one_try.ti.xcoms["progress"] == {name: result[name] for name in result if name != "manifest"}


@pytest.mark.parametrize("kind", ["a list of prompts", "a list of dicts", "jsonl"])
def test_a_table_may_be_a_list_or_a_file_of_json_lines(fast, one_try, folder, tmp_path, kind):
    rows = [{"prompt": "A blue lamp", "file_name": "b/blue.png", "style": "vintage"}, {"prompt": "A red lamp"}]
    requests = rows
    if kind == "a list of prompts":
        requests = [row["prompt"] for row in rows]
    elif kind == "jsonl":
        requests = str(tmp_path / "rows.jsonl")
        Path(requests).write_text("\n".join(map(json.dumps, rows)))
    assert one_try(requests)["saved"] == 2
    names = ["00000.png", "00001.png"] if kind == "a list of prompts" else ["b/blue.png", "00001.png"]
    assert [line["file_name"] for line in lines(folder / "metadata.jsonl")] == names
    assert all((folder / name).exists() for name in names)
    styles = [job.body.get("style") for job in fast.account.jobs.values()]
    assert sorted(map(str, styles)) == (["None", "None"] if kind == "a list of prompts" else ["None", "vintage"])


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize("deferrable", WAYS)
def test_table_and_folder_may_be_in_object_storage(fast, deferrable):
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/bucket/in/rows.csv", b"sku\nlamp-1\nlamp-2\n")
    one_try = Tries(f"memory://bucket/out-{deferrable}")
    arguments = {"prompt": "A photo of {sku}", "file_name": "{sku}.png", "deferrable": deferrable}
    result = one_try("memory://bucket/in/rows.csv", **arguments)
    assert (result["saved"], result["manifest"]) == (2, f"memory://bucket/out-{deferrable}/metadata.jsonl")
    assert ObjectStoragePath(f"memory://bucket/out-{deferrable}/lamp-1.png").exists()
    other = one_try.of_another_run("second")("memory://bucket/in/rows.csv", **arguments)
    assert (other["reused"], len(fast.submissions)) == (2, 2)


def test_the_image_records_are_in_xcoms_of_fifty_rows_each(fast, one_try, folder):
    one_try(lamps(52))
    first, second = (one_try.ti.xcoms[f"pictures_{page}"] for page in (0, 1))
    assert (len(first), len(second)) == (50, 2)
    record = second[1]
    assert record.pop("url").startswith("http://127.0.0.1")
    job_id = record.pop("job_id")
    assert fast.account.jobs[job_id].body["prompt"] == "A lamp, number 51"
    path = folder / "00051.png"
    assert record == {
        "status": "completed",
        "width": 1024,
        "height": 1024,
        "ai_credits_used": 2,
        "path": str(path),
        "size": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "reused": False,
        "prompt": "A lamp, number 51",
        "model": "seedream3.0",
    }


def test_an_asset_in_outlets_gets_the_path_of_the_manifest(one_try, folder):
    lamps_asset = Asset("lamps")
    one_try(lamps(1), outlets=[lamps_asset])
    extra = one_try.context["outlet_events"][lamps_asset].extra
    assert (extra["saved"], extra["manifest"]) == (1, str(folder / "metadata.jsonl"))


def test_a_private_reference_image_of_a_row_is_signed_for_pictory_and_unsigned_everywhere_else(
    fast, one_try, folder, memory, monkeypatch, logged
):
    storage = type(fsspec.filesystem("memory"))
    signed = f"{fast.reference_image_url}?X-Amz-Signature=secret"
    monkeypatch.setattr(storage, "sign", lambda self, path, expiration=None, **_: signed, raising=False)
    fsspec.filesystem("memory").pipe_file("/catalogue/lamp.png", b"png")
    one_try([{"sku": "lamp"}], prompt="The {sku}, again", reference_image_url="memory://catalogue/{sku}.png")
    assert fast.submissions[0].body["referenceImageUrl"] == signed
    assert "A new batch" in logged()
    everything = logged() + json.dumps(one_try.ti.xcoms) + one_try.store.rows["pictory_batch"]
    for file in [*folder.rglob("*.json"), *folder.rglob("*.jsonl")]:
        everything += file.read_text()
    assert "secret" not in everything
    assert '"referenceImageUrl":"memory://catalogue/lamp.png"' in everything


def test_the_key_is_in_no_file_no_xcom_and_no_log(fast, one_try, folder, logged, monkeypatch):
    monkeypatch.setattr(fast, "api_key", "pictai_canary")
    monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", fast.connection_json(requests_per_second=500))
    fast.shape("url", "signed")
    fast.script("submit", "rate-limited", retry_after="0")
    one_try([*lamps(2), "simulate:failed lamp"], deferrable=True, fail_on_partial_error=False)
    written = "".join(file.read_text() for file in folder.rglob("*.json*"))
    assert "A new batch" in logged()
    everything = written + logged() + json.dumps(one_try.ti.xcoms) + json.dumps(one_try.store.rows)
    assert "canary" not in everything
    assert "Signature" not in written + logged()


# Existing pictures -----------------------------------------------------------------------------------------


def test_a_bad_row_stops_all_before_anything_is_sent_and_every_one_is_named(fast, one_try, folder):
    rows = [{"prompt": "A lamp"}, {"prompt": "A"}, {"prompt": "A desk", "model": "dall-e"}]
    with pytest.raises(
        PictoryRequestInvalid, match=says(r"2 of 3 rows .* row 1: prompt .* row 2: model 'dall-e'")
    ):
        one_try(rows)
    assert fast.requests == []
    assert [file.name for file in folder.iterdir()] == ["failed.jsonl"]


@pytest.mark.parametrize("has_store", [True, False])
def test_a_re_run_and_a_backfill_buy_nothing(fast, folder, has_store):
    one_try = Tries(folder, has_store=has_store)
    one_try(lamps(3))
    manifest = (folder / "metadata.jsonl").read_bytes()
    one_try.clear()
    assert one_try(lamps(3))["reused"] == 3
    again = one_try.of_another_run("backfill")(lamps(3))
    assert (again["reused"], again["ai_credits_used"]) == (3, 0)
    assert len(fast.submissions) == 3
    assert (folder / "metadata.jsonl").read_bytes() == manifest


def test_only_what_is_missing_is_bought_and_its_listed_price_is_logged(fast, one_try, folder, logged):
    one_try(lamps(3))
    (folder / "00001.png").unlink()
    result = one_try.of_another_run("second")(lamps(4))
    assert (result["reused"], result["saved"]) == (2, 2)
    assert len(fast.submissions) == 5
    assert (folder / "00001.png").exists()
    assert "2 pictures to submit, for 4 AI credits as listed; 2 exist already" in logged()
    assert len(files(folder)) == 4 * 2 + 2


def test_single_tasks_and_batches_reuse_each_others_pictures(fast, one_try, folder, context):
    single = GenerateImageOperator(
        task_id="one", prompt="A lamp, number 1", path=str(folder / "00001.png"), deferrable=False
    )
    single.execute(context)
    assert one_try(lamps(2))["reused"] == 1
    other = GenerateImageOperator(
        task_id="one", prompt="A lamp, number 0", path=str(folder / "00000.png"), deferrable=False
    )
    context["task_state_store"].rows.clear()
    other.execute(context)
    assert context["ti"].xcoms["image"]["reused"]
    assert len(fast.submissions) == 2


def test_another_file_in_a_rows_place_is_not_replaced_without_overwrite(fast, one_try, folder):
    folder.mkdir()
    (folder / "00001.png").write_bytes(b"mine")
    with pytest.raises(
        PictoryRequestInvalid, match=says("The file name of 1 of 3 rows is taken by something else.*00001.png")
    ):
        one_try(lamps(3))
    assert fast.submissions == []
    assert (folder / "00001.png").read_bytes() == b"mine"


@pytest.mark.parametrize("deferrable", WAYS)
def test_overwrite_buys_and_replaces_once_per_clear_and_not_once_per_attempt(fast, one_try, folder, deferrable):
    more = {"overwrite": True, "deferrable": deferrable}
    one_try(lamps(3), **more)
    before = [line["job_id"] for line in lines(folder / "metadata.jsonl")]
    one_try(lamps(3), **more)
    assert len(fast.submissions) == 3
    one_try.clear()
    assert one_try(lamps(3), **more)["saved"] == 3
    one_try(lamps(3), **more)
    assert len(fast.submissions) == 6
    after = lines(folder / "metadata.jsonl")
    assert not {line["job_id"] for line in after} & set(before)
    assert [line["file_name"] for line in after] == ["00000.png", "00001.png", "00002.png"]
    assert json.loads((folder / "00000.png.json").read_text())["job_id"] == after[0]["job_id"]
    assert len(files(folder)) == 3 * 2 + 2


def test_marks_are_written_when_saved_and_into_existing_pictures_without_buying_them(fast, one_try, folder):
    one_try(lamps(2))
    plain = (folder / "00000.png").read_bytes()
    again = one_try.of_another_run("marked")
    result = again(lamps(3), mark_ai_generated=True)
    assert (result["reused"], result["saved"]) == (2, 1)
    for name in ("00000.png", "00002.png"):
        assert mark() in (folder / name).read_bytes()
    first = lines(folder / "metadata.jsonl")[0]
    assert first["size"] == len(plain) + len(mark()) == (folder / "00000.png").stat().st_size
    assert first["sha256"] == hashlib.sha256((folder / "00000.png").read_bytes()).hexdigest()
    assert len(fast.submissions) == 3


def test_map_indexes_have_a_folder_each_and_refuse_to_share_one(fast, folder):
    one, other = (Tries(folder / str(index)) for index in range(2))
    one.map_index, other.map_index = 0, 1
    assert one(lamps(1))["saved"] == other(lamps(1))["saved"] == 1
    assert json.loads((folder / "1/.pictory/batch.json").read_text())["made_by"]["map_index"] == 1
    busy = json.loads((folder / "0/.pictory/batch.json").read_text())
    (folder / "0/.pictory/batch.json").write_text(json.dumps({**busy, "has_ended": False}))
    third = Tries(folder / "0")
    third.map_index = 2
    with pytest.raises(PictoryStorageFailed, match=says("in use by another batch: .* map_index 0")):
        third(lamps(1))


# What it may cost ----------------------------------------------------------------------------------------


def test_max_credits_is_compared_with_the_listed_price_of_what_is_missing_before_anything_is_sent(fast, one_try):
    with pytest.raises(PictoryBudgetExceeded, match=says("The 3 pictures cost 6 AI .* max_credits leaves 5 of 5")):
        one_try(lamps(3), max_credits=5)
    assert fast.submissions == []
    one_try.clear()
    assert one_try(lamps(2), max_credits=4)["saved"] == 2
    one_try.clear()
    assert one_try(lamps(3), max_credits=2)["saved"] == 1


def test_a_model_without_a_listed_price_is_not_bought_under_a_limit(fast, one_try):
    with pytest.raises(PictoryRequestInvalid, match=says("The price of 'newer' is not known")):
        one_try([{"prompt": "A lamp", "model": "newer"}], allow_unlisted=True, max_credits=100)
    assert fast.submissions == []


# Rows that fail ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deferrable", WAYS)
def test_a_failed_row_fails_the_task_without_a_retry_after_all_else_is_saved(fast, one_try, folder, deferrable):
    with pytest.raises(PictoryJobFailed, match=says("1 of 3 rows has no picture")) as caught:
        one_try([*lamps(2), {"prompt": "simulate:failed lamp", "sku": "x"}], deferrable=deferrable)
    assert "    row 2, 00002.png: IMAGE_GENERATION_FAILED" in str(caught.value)
    assert len(lines(folder / "metadata.jsonl")) == 2
    (failed,) = lines(folder / "failed.jsonl")
    assert (failed["index"], failed["sku"], failed["code"]) == (2, "x", "IMAGE_GENERATION_FAILED")
    assert one_try.ti.xcoms["progress"]["failed"] == 1


def test_rows_without_a_picture_are_in_xcoms_without_gaps_with_their_number(fast, one_try):
    """Airflow's pages show them first, and need not search thousands of rows."""
    rows = [f"{'simulate:failed ' * (n % 2)}A lamp, number {n}" for n in range(110)]
    one_try(rows, fail_on_partial_error=False)
    xcoms = one_try.ti.xcoms
    assert xcoms["pictory_pages"] == {"failures": 55, "pictures": [25, 25, 5]}
    assert [len(xcoms[f"pictures_{page}"]) for page in range(3)] == [25, 25, 5]
    lost = [*xcoms["failures_0"], *xcoms["failures_1"]]
    assert (len(xcoms["failures_0"]), "failures_2" in xcoms) == (50, False)
    assert [row["file_name"] for row in lost] == [f"{n:05}.png" for n in range(1, 110, 2)]


def test_it_may_succeed_with_failed_rows_and_says_so(fast, one_try, folder):
    fast.script("submit", "server-error", status=422)
    result = one_try(lamps(3), fail_on_partial_error=False)
    assert (result["saved"], result["failed"]) == (2, 1)
    assert len(lines(folder / "failed.jsonl")) == 1


def test_a_clear_fills_the_gaps_and_a_retry_does_not_buy_a_failed_row_again(fast, one_try, folder):
    fast.plan("failed")
    for _ in range(2):
        with pytest.raises(PictoryJobFailed):
            one_try(lamps(3))
    assert len(fast.submissions) == 3
    one_try.clear()
    result = one_try(lamps(3))
    assert (result["saved"], result["reused"]) == (1, 2)
    assert len(fast.submissions) == 4
    assert (folder / "failed.jsonl").read_bytes() == b""


@pytest.mark.parametrize("deferrable", WAYS)
def test_a_job_that_outlasts_its_time_is_adopted_by_a_retry_which_buys_nothing(fast, one_try, deferrable):
    fast.plan("stuck")
    with pytest.raises(PictoryWaitTimeout, match=says("1 of 2 rows has no picture .* 1 is paid for")):
        one_try(lamps(2), timeout=0.3, deferrable=deferrable)
    (job,) = [job for job in fast.account.jobs.values() if job.fate == "stuck"]
    job.fate = "completed"
    assert one_try(lamps(2), timeout=0.3, deferrable=deferrable)["saved"] == 2
    assert len(fast.submissions) == 2


@pytest.mark.parametrize("is_strict", [True, False])
def test_a_picture_that_could_not_be_saved_is_saved_by_a_retry(fast, one_try, folder, is_strict):
    fast.script("picture", "truncated", times=1)
    with pytest.raises(PictoryImageInvalid, match=says("1 of 2 rows has no picture .* 1 is paid for")):
        one_try(lamps(2), fail_on_partial_error=is_strict)
    progress = one_try.ti.xcoms["progress"]
    assert (progress["saved"], progress["owed"], progress["failed"]) == (1, 1, 0)
    (owed,) = lines(folder / "failed.jsonl")
    assert (owed["state"], owed["code"]) == ("owed", "ImageInvalid")
    assert owed["what_to_do"].startswith("It is paid for.")
    assert one_try(lamps(2), fail_on_partial_error=is_strict)["saved"] == 2
    assert len(fast.submissions) == 2


def test_in_its_last_attempt_it_may_succeed_without_paid_pictures_and_says_how_to_get_them(
    fast, one_try, folder, logged
):
    fast.script("picture", "truncated", times=3)
    for _ in range(2):
        with pytest.raises(PictoryImageInvalid):
            one_try(lamps(1), fail_on_partial_error=False)
    result = one_try(lamps(1), fail_on_partial_error=False)
    assert (result["owed"], result["failed"]) == (1, 0)
    assert "1 is paid for: clearing the task saves what is ready, for free" in logged()
    one_try.clear()
    assert one_try(lamps(1))["saved"] == 1
    assert len(fast.submissions) == 1


def test_an_empty_table_is_a_batch_of_nothing(fast, one_try, folder):
    assert one_try([])["of"] == 0
    assert (folder / "metadata.jsonl").read_bytes() == b""


def test_a_picture_gets_a_spare_name_if_another_task_has_taken_its_path_meanwhile(fast, one_try, folder):
    one_try.begin(lamps(2), deferrable=True, poll_interval=5)
    with pytest.raises(TaskDeferred):
        one_try.task.execute(one_try.context)
    (folder / "00001.png").write_bytes(b"another's")
    assert one_try(lamps(2))["saved"] == 2
    assert (folder / "00001.png").read_bytes() == b"another's"
    line = lines(folder / "metadata.jsonl")[1]
    assert line["file_name"] == f"00001.{line['job_id']}.png"
    assert (folder / line["file_name"]).stat().st_size == line["size"]
    assert len(fast.submissions) == 2


def test_arguments_that_airflow_refuses_cost_no_picture(fast, one_try, folder, mocker):
    push, refused = TaskInstance.xcom_push, []

    def failing(self, key, value):
        if not refused:
            refused.append(key)
            raise RuntimeError("the API server is away")
        push(self, key, value)

    mocker.patch.object(TaskInstance, "xcom_push", failing)
    assert one_try(lamps(2))["saved"] == 2
    assert refused == ["progress"]
    assert one_try.ti.xcoms["progress"]["saved"] == 2


def test_it_is_mapped_over_lists_with_a_folder_each():
    with DAG("mapped", schedule=None):
        mapped = GenerateImageBatchOperator.partial(task_id="draw", prompt="A {sku}").expand_kwargs(
            [{"requests": [{"sku": "lamp"}], "path": "/pictures/0"}]
        )
    assert mapped.is_mapped


# Arguments -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"requests": "a lamp"}, "requests is the string 'a lamp'"),
        ({"requests": "/nowhere/rows.csv"}, "requests '/nowhere/rows.csv' does not exist"),
        ({"requests": "rows.csv"}, "requests 'rows.csv' is relative"),
        ({"path": "pictures"}, "path 'pictures' is relative"),
        ({"path": ""}, "path is missing"),
        ({"path": "None"}, "path is missing"),
        ({"max_in_flight": 0}, "max_in_flight is 0"),
        ({"max_credits": "7"}, "max_credits is '7'"),
        ({"on_unknown_submit": "ask"}, "on_unknown_submit is 'ask'"),
        ({"timeout": -1}, "timeout is -1"),
        ({"prompt": "{a.b} lamp"}, "not a valid pattern"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_sent(fast, one_try, arguments, text):
    more = {"requests": lamps(1), **arguments}
    with pytest.raises(PictoryRequestInvalid, match=says(text)):
        one_try(more.pop("requests"), **more)
    assert fast.requests == []


def test_every_argument_is_kept_as_it_is_given_and_the_paths_patterns_and_rows_are_templated():
    names = set(inspect.signature(GenerateImageBatchOperator.__init__).parameters) - {"self", "kwargs"}
    values = {name: object() for name in names}
    task = GenerateImageBatchOperator(task_id="draw", **values)
    assert {name: getattr(task, name) for name in names} == values
    templated = {"requests", "path", "prompt", "file_name", "reference_image_url", "pictory_conn_id"}
    templated |= {"column_names", "request_columns", "skip_blank", "sheet", "plan_only", "reference_upload"}
    assert set(task.template_fields) == templated


def test_no_more_jobs_than_max_in_flight_are_at_pictory(fast, one_try):
    fast.account.seconds = 0.2
    one_try(lamps(9), max_in_flight=4)
    jobs = list(fast.account.jobs.values())
    for job in jobs:
        running = [other for other in jobs if other.created <= job.created < other.created + other.seconds]
        assert len(running) <= 4


def test_a_deferral_is_for_the_jobs_in_flight_and_the_record_says_what_they_are(fast, one_try, folder):
    fast.account.seconds = 60
    one_try.begin(lamps(3), deferrable=True, timeout=600)
    with pytest.raises(TaskDeferred) as deferral:
        one_try.task.execute(one_try.context)
    arguments = deferral.value.trigger.serialize()[1]
    assert sorted(arguments["job_ids"]) == sorted(fast.account.jobs)
    assert arguments["progress"] == one_try.ti.xcoms["progress"]
    assert one_try.ti.xcoms["progress"]["waiting"] == 3
    assert {row["state"] for row in entries(folder).values()} == {"bought"}
    assert billed(fast) == dict.fromkeys(lamps(3), 1)


def test_the_log_of_a_batch_is_a_page_and_its_last_lines_name_the_rows_that_failed(fast, one_try, logged):
    for _ in range(3):
        fast.plan("failed")
    with pytest.raises(PictoryJobFailed) as caught:
        one_try(lamps(60))
    logged_lines = [line for line in logged().splitlines() if "[debug" not in line]
    assert 5 < len(logged_lines) < 16
    failures = [
        line for line in logged_lines if "IMAGE_GENERATION_FAILED: The image could not be generated (job " in line
    ]
    assert len(failures) == 3
    assert "60 pictures: 57 saved, 3 failed; 114 AI credits used" in logged_lines[-1]
    *_, one, other, third, retry, connection = str(caught.value).splitlines()
    assert all(": IMAGE_GENERATION_FAILED: " in line for line in (one, other, third))
    assert retry.startswith("Airflow does not retry")
    assert connection.startswith("The connection is")


def test_a_batch_that_is_resumed_without_an_event_says_so_and_polls_every_job(fast, one_try, logged):
    fast.account.seconds = 0.5
    one_try.begin(lamps(2), deferrable=True)
    with pytest.raises(TaskDeferred):
        one_try.task.execute(one_try.context)
    fast.account.seconds = 0
    for job in fast.account.jobs.values():
        job.seconds = 0
    assert one_try.task.execute_complete(one_try.context)["saved"] == 2
    assert "does not understand the trigger's event" in logged()
