# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""``failed.jsonl`` is about the last attempt, however that ended."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout, TaskDeferred
from airflow.sdk import ObjectStoragePath

from pictory_provider.exceptions import (
    PictoryJobFailed,
    PictoryRequestInvalid,
    PictoryStorageFailed,
    PictorySubmitOutcomeUnknown,
)
from pictory_provider.storage.pictures import PictureTarget
from tests.provider.batches import Tries, lamps, lines

LISTED = {"index", "line", "job_id", "model", "state", "code", "message", "what_to_do"}


@pytest.fixture(autouse=True)
def _impatient(impatient):
    """Nothing here waits as long as a user would."""


def fail_a_row(fast, one_try, folder):
    """Leave a ``failed.jsonl`` behind, as last night's run does."""
    fast.plan("failed")
    with pytest.raises(PictoryJobFailed):
        one_try(lamps(1))
    assert [line["state"] for line in lines(folder / "failed.jsonl")] == ["failed"]


def test_an_attempt_whose_table_is_refused_says_so_in_place_of_what_the_last_run_said(fast, one_try, folder):
    fail_a_row(fast, one_try, folder)
    with pytest.raises(PictoryRequestInvalid) as refused:
        one_try.of_another_run("tonight")(["No", "A lamp", "No", {"prompt": "A desk", "model": "dall-e"}])
    failed_rows = lines(folder / "failed.jsonl")
    assert [(line["index"], line["state"], line["code"]) for line in failed_rows] == [
        (index, "refused", "RequestInvalid") for index in (0, 2, 3)
    ]
    assert failed_rows[0]["message"].startswith("prompt has 2 characters")
    assert failed_rows[2]["message"].startswith("model 'dall-e'")
    assert all(line["what_to_do"].startswith("This attempt bought nothing.") for line in failed_rows)
    assert "3 of 4 rows" in str(refused.value)


@pytest.mark.parametrize("argument", [{"max_in_flight": 0}, {"file_name": "{sku!r}.png"}, {"on_budget": "pay"}])
def test_an_attempt_whose_arguments_are_refused_says_so_too(fast, one_try, folder, argument):
    fail_a_row(fast, one_try, folder)
    with pytest.raises(PictoryRequestInvalid):
        one_try.of_another_run("tonight")(lamps(1), **argument)
    (line,) = lines(folder / "failed.jsonl")
    assert (line["state"], line["index"]) == ("refused", None)
    assert next(iter(argument)) in line["message"]


def test_an_attempt_whose_record_cannot_be_read_says_so_too(fast, one_try, folder):
    fail_a_row(fast, one_try, folder)
    (folder / ".pictory/batch.json").write_text("no JSON")
    with pytest.raises(PictorySubmitOutcomeUnknown):
        one_try(lamps(1))
    (line,) = lines(folder / "failed.jsonl")
    assert (line["state"], line["code"]) == ("refused", "SubmitOutcomeUnknown")


def test_an_attempt_that_is_refused_writes_nothing_into_the_folder_of_a_running_batch(fast, one_try, folder):
    one_try.begin(lamps(1), deferrable=True, poll_interval=5)
    with pytest.raises(TaskDeferred):
        one_try.task.execute(one_try.context)
    other = one_try.of_another_run("tonight")
    for requests, error in ((lamps(1), PictoryStorageFailed), (["No"], PictoryRequestInvalid)):
        with pytest.raises(error):
            other(requests)
        assert not (folder / "failed.jsonl").exists()


def test_an_attempt_whose_time_is_over_reports_each_row_without_a_picture(fast, one_try, folder):
    fail_a_row(fast, one_try, folder)
    one_try.clear()
    with pytest.raises(AirflowTaskTimeout):
        one_try(lamps(3), execution_timeout=timedelta(0))
    failed_rows = lines(folder / "failed.jsonl")
    assert [(line["index"], line["state"], line["code"]) for line in failed_rows] == [
        (number, "to_do", "AirflowTaskTimeout") for number in range(3)
    ]
    assert all("execution_timeout" in line["message"] for line in failed_rows)
    assert all(line["what_to_do"].startswith("Nothing was spent on it.") for line in failed_rows)


def test_an_aborted_attempt_reports_which_rows_are_paid_for(fast, one_try, folder, mocker):
    fast.account.seconds = 60
    one_try.begin(lamps(3), deferrable=True, poll_interval=5, max_in_flight=2)
    with pytest.raises(TaskDeferred):
        one_try.task.execute(one_try.context)
    mocker.patch.object(type(one_try.ti), "xcom_push", side_effect=OSError("the API server is away"))
    with pytest.raises(OSError, match="is away"):
        one_try.task.execute_complete(one_try.context, {})
    failed_rows = {line["index"]: line for line in lines(folder / "failed.jsonl")}
    assert [failed_rows[index]["state"] for index in (0, 1, 2)] == ["waiting", "waiting", "to_do"]
    assert failed_rows[0]["job_id"] is not None
    assert failed_rows[0]["what_to_do"].startswith("It is paid for.")
    assert failed_rows[2]["message"] == "the API server is away"


def test_while_an_attempt_runs_there_is_no_file_of_an_earlier_one(fast, one_try, folder):
    fail_a_row(fast, one_try, folder)
    one_try.clear()
    one_try.begin(lamps(2), deferrable=True, poll_interval=5)
    with pytest.raises(TaskDeferred):
        one_try.task.execute(one_try.context)
    assert not (folder / "failed.jsonl").exists()


@pytest.mark.parametrize("number", [3, 1])
def test_an_attempt_that_was_replaced_leaves_the_file_of_the_attempt_after_it(
    fast, one_try, folder, monkeypatch, number
):
    save, header = PictureTarget.save, folder / ".pictory/batch.json"

    def saved_while_another_attempt_begins_and_ends(*args, **kwargs):
        header.write_text(json.dumps({**json.loads(header.read_text()), "tries": 2}))
        (folder / "failed.jsonl").write_text("of the second attempt")
        return save(*args, **kwargs)

    monkeypatch.setattr(PictureTarget, "save", saved_while_another_attempt_begins_and_ends)
    with pytest.raises(PictoryStorageFailed, match="Another attempt has taken over the batch"):
        one_try(lamps(number), max_in_flight=1)
    assert (folder / "failed.jsonl").read_text() == "of the second attempt"
    assert not (folder / "metadata.jsonl").exists()


@pytest.mark.usefixtures("memory")
def test_it_is_fresh_in_object_storage_too(fast):
    folder = "memory://failures/tonight"
    one_try = Tries(folder)
    fast.plan("failed")
    with pytest.raises(PictoryJobFailed):
        one_try(lamps(1))
    listed = ObjectStoragePath(folder) / "failed.jsonl"
    assert json.loads(listed.read_text())["state"] == "failed"
    with pytest.raises(PictoryRequestInvalid):
        one_try.of_another_run("later")(["No"])
    failed_rows = json.loads(listed.read_text())
    assert set(failed_rows) == {"file_name", "text", *LISTED}
    assert failed_rows["state"] == "refused"


def test_a_storage_that_refuses_it_hides_no_error(fast, one_try, folder, logged):
    folder.mkdir()
    (folder / "failed.jsonl").mkdir()
    with pytest.raises(PictoryRequestInvalid, match="row 0: prompt"):
        one_try(["No"])
    assert "is not about this attempt" in logged()
