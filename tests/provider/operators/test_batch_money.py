# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A batch with errors: no row is paid for twice, no paid row is lost, and unknown outcomes are reported."""

from __future__ import annotations

import itertools
import json
import shutil
import threading
import time
from datetime import timedelta

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowTaskTimeout, TaskDeferred

from pictory_provider.api.errors import StorageFailed
from pictory_provider.client.sync import SyncClient
from pictory_provider.core.attempt import MadeBy
from pictory_provider.core.sidecar import Sidecar
from pictory_provider.core.submission import Submission
from pictory_provider.exceptions import (
    PictoryAuthenticationError,
    PictoryBudgetExceeded,
    PictoryJobFailed,
    PictoryRateLimited,
    PictoryRequestInvalid,
    PictoryStorageFailed,
    PictorySubmitOutcomeUnknown,
    PictoryUnavailable,
    PictoryWaitTimeout,
)
from pictory_provider.services.batch import runner, state, wave
from pictory_provider.services.batch.state import BatchRecord
from pictory_provider.storage.pictures import PictureTarget
from pictory_provider.storage.target import Target
from tests.provider.batches import Tries, billed, entries, lamps, lines
from tests.stand_ins import says

WAYS = [pytest.param(False, id="on the worker"), pytest.param(True, id="deferring")]


@pytest.fixture
def at_post(monkeypatch):
    """Return a function that calls another right before a paid request, with the number of earlier ones."""
    send, sent, lock = SyncClient.send, [], threading.Lock()

    def install(happens):
        def watched(self, request):
            if request.method == "POST":
                with lock:
                    happens(len(sent))
                    sent.append(request)
            return send(self, request)

        monkeypatch.setattr(SyncClient, "send", watched)
        return sent

    return install


# The record ----------------------------------------------------------------------------------------------


def test_intents_are_on_record_before_the_first_request_of_a_wave_and_job_ids_before_the_next(
    fast, one_try, folder, at_post
):
    seen = []
    at_post(lambda number: seen.append({name: row["state"] for name, row in entries(folder).items()}))
    one_try(lamps(10))
    assert len(seen) == 10
    assert set(seen[0].values()) == {"intent"}
    assert len(seen[0]) == 8
    assert [seen[8][f"{n:05d}.png"] for n in range(8)] == ["bought"] * 8
    assert seen[8]["00008.png"] == "intent"


def test_answers_are_on_record_though_another_of_the_wave_takes_its_time(fast, one_try, folder, monkeypatch):
    send, numbers, is_seen = SyncClient.send, itertools.count(), threading.Event()

    def held(self, request):
        answer = send(self, request)
        if request.method == "POST" and next(numbers) == 0:
            is_seen.wait(60)
        return answer

    monkeypatch.setattr(SyncClient, "send", held)
    thread = threading.Thread(target=one_try, args=(lamps(3),))
    thread.start()
    states = []
    while states.count("bought") < 2 and thread.is_alive():
        states = [row["state"] for row in entries(folder).values()]
        time.sleep(0.02)
    is_seen.set()
    thread.join()
    assert sorted(states) == ["bought", "bought", "intent"]


def test_nothing_is_sent_if_the_record_cannot_be_written(fast, one_try, folder):
    folder.mkdir()
    (folder / ".pictory").write_text("in the way")
    with pytest.raises(PictoryStorageFailed):
        one_try(lamps(2))
    assert fast.submissions == []


def test_if_the_intents_cannot_be_written_nothing_is_sent_and_nothing_is_unknown(fast, one_try, folder, mocker):
    write = Target.write

    def failing(self, data, **more):
        if self.path.endswith("-00000.json") and not fails:
            fails.append(self.path)
            write(self, data, **more)
            raise StorageFailed("the disk is gone")
        return write(self, data, **more)

    fails = []
    mocker.patch.object(Target, "write", failing)
    with pytest.raises(PictoryStorageFailed, match="the disk is gone"):
        one_try(lamps(2))
    assert (fast.submissions, entries(folder)) == ([], {})
    assert one_try(lamps(2))["saved"] == 2


def test_jobs_that_cannot_be_put_on_record_are_named_and_the_task_is_not_retried(
    fast, one_try, folder, mocker, timing
):
    timing(record_retries=(0.01,))
    write = Target.write

    def failing(self, data, **more):
        if fast.submissions and ".pictory" in self.path:
            raise StorageFailed("the disk is gone")
        return write(self, data, **more)

    patch = mocker.patch.object(Target, "write", failing)
    with pytest.raises(
        AirflowFailException, match=says("Pictures were bought, .* could not be written")
    ) as caught:
        one_try(lamps(2))
    assert all(f"jobId {job_id}" in str(caught.value) for job_id in fast.account.jobs)
    mocker.stop(patch)
    with pytest.raises(PictorySubmitOutcomeUnknown):
        one_try(lamps(2))
    assert len(fast.submissions) == 2


# Whoever dies --------------------------------------------------------------------------------------------


class DiedError(BaseException):
    """The process is no more."""


@pytest.mark.parametrize("deferrable", WAYS)
@pytest.mark.parametrize("at", range(1, 8))
def test_whenever_a_worker_dies_a_retry_buys_no_row_twice_and_saves_all_that_can_be_known(
    fast, one_try, folder, monkeypatch, at, deferrable
):
    write, written = BatchRecord.write, []

    def dying(self, journal, **more):
        written.append(journal)
        if len(written) == at:
            raise DiedError
        write(self, journal, **more)

    with monkeypatch.context() as patch:
        patch.setattr(BatchRecord, "write", dying)
        # The dead write nothing.
        patch.setattr(wave.Wave, "_record_unsent", lambda self: None)
        patch.setattr(runner.Batch, "_after_failure", lambda *_: None)
        try:
            one_try(lamps(12), deferrable=deferrable)
        except DiedError:
            assert len(written) >= at
    try:
        result = one_try(lamps(12), deferrable=deferrable)
        unknown = 0
        assert result["saved"] == 12
    except PictorySubmitOutcomeUnknown:
        unknown = one_try.ti.xcoms["progress"]["unknown"]
        assert one_try.ti.xcoms["progress"]["saved"] == 12 - unknown
    assert unknown <= 8
    assert set(billed(fast).values()) <= {1}
    one_try.clear()
    result = one_try(lamps(12), deferrable=deferrable)
    assert result["saved"] + result["reused"] == 12
    assert sum(billed(fast).values()) <= 12 + unknown


def test_two_workers_that_do_not_share_the_folder_say_so_and_the_second_buys_nothing(fast, one_try, folder):
    fast.account.seconds = 60
    one_try.begin(lamps(2), deferrable=True, poll_interval=5)
    with pytest.raises(TaskDeferred):
        one_try.task.execute(one_try.context)
    shutil.move(folder, folder.parent / "on another machine")
    for call in (lambda: one_try(lamps(2)), lambda: one_try.task.execute_complete(one_try.context, {})):
        with pytest.raises(PictoryStorageFailed, match=says("the workers do not share the storage")):
            call()
    assert len(fast.submissions) == 2


def test_without_a_state_store_a_deferral_still_knows_that_there_was_a_record(fast, folder):
    fast.account.seconds = 60
    one_try = Tries(folder, has_store=False)
    one_try.begin(lamps(2), deferrable=True, poll_interval=5)
    with pytest.raises(TaskDeferred):
        one_try.task.execute(one_try.context)
    shutil.rmtree(folder)
    with pytest.raises(PictorySubmitOutcomeUnknown, match=says("workers do not share the storage")):
        one_try.task.execute_complete(one_try.context, {})
    assert len(fast.submissions) == 2


def taken_up_by_another_try(folder):
    header = json.loads((folder / ".pictory/batch.json").read_text())
    (folder / ".pictory/batch.json").write_text(json.dumps({**header, "tries": 2}))


def test_a_worker_that_was_replaced_buys_and_writes_nothing_more_when_it_returns(
    fast, one_try, folder, monkeypatch
):
    write, written = BatchRecord.write, []

    def watched(self, journal, **more):
        written.append(journal)
        if len(written) == 4:
            taken_up_by_another_try(folder)
        write(self, journal, **more)

    monkeypatch.setattr(BatchRecord, "write", watched)
    with pytest.raises(PictoryStorageFailed, match=says("Another attempt has taken over the batch")):
        one_try(lamps(20))
    assert len(fast.submissions) == 8
    assert len(entries(folder)) == 8


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("is_the_first", [False, True])
@pytest.mark.parametrize("is_another_run", [False, True])
def test_of_two_that_open_a_batch_at_the_same_time_one_takes_it_over_and_the_other_buys_nothing(
    fast, one_try, folder, monkeypatch, overwrite, is_the_first, is_another_run
):
    """The slower one is frozen, or lists a large folder, between its read of the record and its first write."""
    if not is_the_first:
        one_try(lamps(4))
        if not is_another_run:
            one_try.clear()
    make, frozen = runner.BatchBudget.__init__, iter([True])

    def slowly(self, *args, **more):
        make(self, *args, **more)
        if next(frozen, False):
            (one_try.of_another_run("another") if is_another_run else one_try)(lamps(12), overwrite=overwrite)

    monkeypatch.setattr(runner.BatchBudget, "__init__", slowly)
    before = len(fast.submissions)
    with pytest.raises(PictoryStorageFailed, match=says("has just taken over the batch")):
        one_try(lamps(12), overwrite=overwrite)
    assert len(fast.submissions) - before == (12 if overwrite or is_the_first else 8)
    assert len(lines(folder / "metadata.jsonl")) == 12


def test_what_a_worker_bought_while_it_was_replaced_is_named_and_overwrites_nothing(
    fast, one_try, folder, at_post
):
    at_post(lambda number: number == 7 and taken_up_by_another_try(folder))
    with pytest.raises(AirflowFailException, match=says("Another attempt has taken over the batch")) as caught:
        one_try(lamps(20))
    assert all(f"jobId {job_id}" in str(caught.value) for job_id in fast.account.jobs)
    assert len(fast.submissions) == 8
    assert {row["state"] for row in entries(folder).values()} == {"intent"}


# Unknown outcomes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("deferrable", WAYS)
def test_a_lost_reply_is_reported_as_unknown_with_evidence_and_is_bought_again_only_by_a_clear(
    fast, one_try, folder, deferrable
):
    fast.script("submit", "drop-after")
    with pytest.raises(PictorySubmitOutcomeUnknown, match=says("1 of 3 rows")) as caught:
        one_try(lamps(3), deferrable=deferrable)
    assert "Pictures of this request in the gallery" in str(caught.value)
    assert "DownloadImageOperator(url=" in str(caught.value)
    assert one_try.ti.xcoms["progress"]["saved"] == 2
    (row,) = lines(folder / "failed.jsonl")
    assert (row["state"], row["code"]) == ("unknown", "SUBMIT_OUTCOME_UNKNOWN")
    with pytest.raises(PictorySubmitOutcomeUnknown):
        one_try(lamps(3), deferrable=deferrable)
    assert set(billed(fast).values()) == {1}
    one_try.clear()
    assert one_try(lamps(3), deferrable=deferrable)["saved"] == 1
    assert sorted(billed(fast).values()) == [1, 1, 2]


def test_a_job_id_that_was_found_is_put_into_the_record_and_adopted(fast, one_try, folder):
    fast.script("submit", "drop-after")
    with pytest.raises(PictorySubmitOutcomeUnknown) as caught:
        one_try(lamps(1))
    (job_id,) = fast.account.jobs
    page = folder / ".pictory" / "1-00000.json"
    assert str(page) in str(caught.value)
    recorded = json.loads(page.read_text())
    (key,) = recorded["rows"]
    assert f'    "{key}": {{..., "jobId": "<its jobId>"}}' in str(caught.value)
    recorded["rows"][key]["jobId"] = job_id
    page.write_text(json.dumps(recorded))
    one_try.clear()
    assert one_try(lamps(1))["saved"] == 1
    assert len(fast.submissions) == 1
    assert lines(folder / "metadata.jsonl")[0]["job_id"] == job_id


def test_resubmit_submits_again_in_the_same_attempt(fast, one_try):
    fast.script("submit", "drop-after")
    assert one_try(lamps(2), on_unknown_submit="resubmit")["saved"] == 2
    assert len(fast.submissions) == 3


def test_resubmit_does_not_exceed_the_limit_of_the_attempt(fast, one_try):
    fast.script("submit", "drop-after", times=2)
    with pytest.raises(PictorySubmitOutcomeUnknown):
        one_try(lamps(2), on_unknown_submit="resubmit", max_credits=4)
    assert len(fast.submissions) == 2


def test_jobs_of_before_a_clear_that_turn_out_failed_are_not_bought_above_the_limit(fast, one_try):
    fast.account.seconds = 60
    with pytest.raises(PictoryWaitTimeout):
        one_try(lamps(3), timeout=0)
    for job in fast.account.jobs.values():
        job.fate, job.seconds = "failed", 0
    fast.account.seconds = 0
    one_try.clear()
    # A row whose failure is found after submissions have stopped is reported as failed.
    with pytest.raises((PictoryBudgetExceeded, PictoryJobFailed), match=says("max_credits leaves [13] of 3")):
        one_try(lamps(3), max_credits=3)
    # The first failed row may be bought again before the next one is polled.
    assert len(fast.submissions) <= 4


def test_solutions_for_an_intent_of_another_task_and_for_an_unreadable_page_are_reported(fast, one_try, folder):
    one_try(lamps(1))
    page = next(path for path in (folder / ".pictory").iterdir() if path.name != "batch.json")
    page.write_text("{")
    one_try.clear()
    with pytest.raises(PictorySubmitOutcomeUnknown, match=says("correct or delete the pages")):
        one_try(lamps(1))
    shutil.rmtree(folder)
    one_try.store.rows.clear()
    name = "00000.png"
    folder.mkdir()
    (folder / f"{name}.json").write_bytes(
        Sidecar(
            file=name, submission=Submission(max_tries=0, request={}), made_by=MadeBy("d", "another", "t", -1)
        ).to_json()
    )
    with pytest.raises(
        PictorySubmitOutcomeUnknown, match=says("check the tasks that the sidecars with `intent` name")
    ):
        one_try(lamps(1))
    assert len(fast.submissions) == 1


@pytest.mark.parametrize("brackets", [101, 100_000])
@pytest.mark.parametrize("place", ["batch.json", "1-00000.json"])
def test_a_record_that_is_nested_too_deeply_is_one_that_cannot_be_read_and_nothing_is_bought(
    fast, one_try, folder, place, brackets
):
    one_try(lamps(2))
    (folder / ".pictory" / place).write_text('{"rows": ' + "[" * brackets + "]" * brackets + "}")
    (folder / "00000.png").unlink()
    one_try.clear()
    with pytest.raises((PictorySubmitOutcomeUnknown, PictoryRequestInvalid), match=says("can(not)? be read")):
        one_try(lamps(2))
    assert len(fast.submissions) == 2


def test_a_day_on_which_every_reply_gets_lost_ends_after_eight_rows(fast, one_try):
    fast.script("submit", "server-error", times=-1, status=503, accepted="yes")
    with pytest.raises(PictorySubmitOutcomeUnknown, match=says("8 of 30 rows")):
        one_try(lamps(30))
    assert len(fast.submissions) == 8
    assert one_try.ti.xcoms["progress"] | {"unknown": 8, "not_bought": 22} == one_try.ti.xcoms["progress"]


def test_a_job_that_pictory_does_not_know_any_more_is_unknown_and_not_bought_again(fast, one_try):
    fast.account.seconds = 60
    one_try.begin(lamps(1), deferrable=True, poll_interval=5)
    with pytest.raises(TaskDeferred):
        one_try.task.execute(one_try.context)
    fast.account.jobs.clear()
    for row in entries(one_try.folder).values():
        assert row["state"] == "bought"
    page = one_try.folder / ".pictory/1-00000.json"
    recorded = json.loads(page.read_text())
    for row in recorded["rows"].values():
        row["submitted_at"] -= 61
    page.write_text(json.dumps(recorded))
    with pytest.raises(PictorySubmitOutcomeUnknown, match=says("is on record, but Pictory does not know it")):
        one_try(lamps(1))
    assert len(fast.submissions) == 1


# What stops purchases ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("impatient")
def test_one_retry_after_pauses_every_submission_of_the_batch(fast, one_try):
    fast.script("submit", "rate-limited", retry_after="1")
    assert one_try(lamps(12))["saved"] == 12
    refused = next(entry for entry in fast.submissions if entry.status == 429)
    later = [entry.at - refused.at for entry in fast.submissions if entry.at > refused.at + 0.1]
    assert later
    assert min(later) >= 0.99
    assert set(billed(fast).values()) == {1}


@pytest.mark.parametrize("deferrable", WAYS)
def test_if_pictory_refuses_for_longer_than_a_minute_what_was_bought_is_saved_and_a_retry_buys_the_rest(
    fast, one_try, at_post, deferrable, timing
):
    timing(poll_pause_max=0.3)
    at_post(lambda number: number == 10 and fast.script("submit", "rate-limited", times=-1, retry_after="100"))
    with pytest.raises(PictoryRateLimited, match=says(r"The batch: 30 pictures: \d+ saved, \d+ not bought")):
        one_try(lamps(30), deferrable=deferrable)
    fast.clear_faults()
    at_post(lambda number: None)
    assert one_try(lamps(30), deferrable=deferrable)["saved"] == 30
    assert set(billed(fast).values()) == {1}


@pytest.mark.parametrize("deferrable", WAYS)
def test_without_credits_no_more_is_sent_and_what_was_bought_is_saved(fast, one_try, deferrable):
    fast.account.credits_limit = 20
    with pytest.raises(PictoryRequestInvalid, match=says("The batch: 30 pictures: 10 saved, 20 not bought")):
        one_try(lamps(30), deferrable=deferrable)
    assert len(fast.submissions) <= 16
    fast.account.credits_limit = 1_000
    one_try.clear()
    result = one_try(lamps(30), deferrable=deferrable)
    assert (result["saved"], result["reused"]) == (20, 10)


def test_a_key_that_is_revoked_in_the_middle_stops_submissions_and_after_it_is_fixed_all_is_saved(
    fast, one_try, at_post, monkeypatch
):
    at_post(lambda number: number == 9 and monkeypatch.setattr(fast, "api_key", "pictai_new"))
    with pytest.raises(PictoryAuthenticationError):
        one_try(lamps(20))
    assert len(fast.submissions) <= 16
    at_post(lambda number: None)
    paid = len(fast.account.jobs)
    monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", fast.connection_json(requests_per_second=500))
    one_try.clear()
    result = one_try(lamps(20))
    assert result["saved"] + result["reused"] == 20
    assert (len(fast.account.jobs), set(billed(fast).values())) == (20, {1})
    assert paid < 20


def test_a_key_that_is_renewed_while_jobs_run_is_taken_from_the_connection(fast, one_try, monkeypatch):
    fast.account.seconds = 0.6

    def renew():
        while len(fast.account.jobs) < 4:
            time.sleep(0.01)
        fast.api_key = "pictai_new"
        monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", fast.connection_json(requests_per_second=500))

    monkeypatch.setattr(fast, "api_key", fast.api_key)
    thread = threading.Thread(target=renew)
    thread.start()
    assert one_try(lamps(4))["saved"] == 4
    thread.join()


def test_if_pictory_cannot_be_reached_nothing_is_unknown_and_a_retry_buys(fast, one_try, monkeypatch, timing):
    timing(resend_budget=0.1)
    with monkeypatch.context() as patch:
        patch.setenv(
            "AIRFLOW_CONN_PICTORY_DEFAULT", json.dumps({**fast.connection(), "host": "http://127.0.0.1:9"})
        )
        with pytest.raises(PictoryUnavailable, match=says("Nothing was bought, so a retry")):
            one_try(lamps(20))
    assert one_try.ti.xcoms["progress"]["not_bought"] == 20
    assert one_try(lamps(20))["saved"] == 20


@pytest.mark.usefixtures("memory")
def test_a_private_reference_that_cannot_be_signed_fails_its_row_alone(fast, one_try, folder):
    rows = [{"prompt": "A lamp"}, {"prompt": "A desk", "reference_image_url": "memory://catalogue/none.png"}]
    result = one_try(rows, fail_on_partial_error=False)
    assert (result["saved"], result["failed"], len(fast.submissions)) == (1, 1, 1)
    assert "does not exist" in lines(folder / "failed.jsonl")[0]["message"]


@pytest.mark.parametrize("deferrable", WAYS)
def test_if_the_storage_takes_no_picture_no_more_are_bought_and_a_retry_saves_what_is_paid_for(
    fast, one_try, folder, mocker, deferrable
):
    patch = mocker.patch.object(PictureTarget, "save", side_effect=StorageFailed("No space left on device"))
    with pytest.raises(
        PictoryStorageFailed, match=says("No space left .* The batch: 100 pictures: .* not bought")
    ):
        one_try(lamps(100), max_in_flight=16, deferrable=deferrable)
    paid = len(fast.submissions)
    assert 8 <= paid < 60
    mocker.stop(patch)
    assert one_try(lamps(100), deferrable=deferrable)["saved"] == 100
    assert billed(fast) == dict.fromkeys(lamps(100), 1)


def test_disk_space_is_reserved_for_new_purchases_while_a_batch_runs_and_not_after_it(
    fast, one_try, folder, mocker, timing
):
    write, failed = Target.write, []

    def on_a_full_disk(self, data):
        held = (folder / ".pictory/spare").exists()
        if fast.submissions and held and self.path.endswith("-00000.json"):
            failed.append(self.path)
            raise StorageFailed("No space left on device")
        write(self, data)

    mocker.patch.object(Target, "write", on_a_full_disk)
    timing(record_retries=(0.01,))
    assert one_try(lamps(3))["saved"] == 3
    assert failed
    assert not (folder / ".pictory/spare").exists()


# Another table -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deferrable", WAYS)
def test_a_retry_with_another_table_buys_nothing_saves_what_is_on_record_and_names_the_difference(
    fast, one_try, folder, deferrable
):
    fast.account.seconds = 0.3
    one_try.begin(lamps(3), deferrable=True, poll_interval=5)
    with pytest.raises(TaskDeferred):
        one_try.task.execute(one_try.context)
    with pytest.raises(PictoryRequestInvalid, match=says("the table had 3 rows and has 5")):
        one_try(lamps(5), deferrable=deferrable)
    assert len(fast.submissions) == 3
    assert [line["file_name"] for line in lines(folder / "metadata.jsonl")] == [f"0000{n}.png" for n in range(3)]
    one_try.clear()
    assert one_try(lamps(5), deferrable=deferrable)["saved"] == 2
    assert set(billed(fast).values()) == {1}


@pytest.mark.parametrize("has_store", [True, False])
def test_a_resumed_run_whose_path_renders_differently_uses_the_folder_of_its_record(fast, folder, has_store):
    fast.account.seconds = 0.2
    one_try = Tries(folder, has_store=has_store)
    one_try.begin(lamps(2), deferrable=True, poll_interval=5)
    with pytest.raises(TaskDeferred) as deferral:
        one_try.task.execute(one_try.context)
    task = one_try.task_of(lamps(2), path=str(folder.parent / "elsewhere"))
    time.sleep(0.2)
    with pytest.raises(PictoryRequestInvalid, match=says("the folder was .*lamps and is .*elsewhere")):
        task.execute_complete(one_try.context, {"of": 2, "ended": 2}, **deferral.value.kwargs)
    assert len(fast.submissions) == 2
    assert len(lines(folder / "metadata.jsonl")) == 2
    assert not (folder.parent / "elsewhere").exists()


def test_a_retry_whose_path_renders_differently_buys_nothing_and_saves_what_is_on_record(fast, one_try, folder):
    one_try.begin(lamps(2), deferrable=True, poll_interval=5)
    with pytest.raises(TaskDeferred):
        one_try.task.execute(one_try.context)
    with pytest.raises(PictoryRequestInvalid, match=says("the folder was .*lamps and is .*elsewhere")):
        one_try(lamps(2), path=str(folder.parent / "elsewhere"))
    assert (len(fast.submissions), len(lines(folder / "metadata.jsonl"))) == (2, 2)
    one_try.clear()
    assert one_try(lamps(2), path=str(folder.parent / "elsewhere"))["saved"] == 2


def test_a_table_that_cannot_be_read_any_more_does_not_prevent_saving_what_was_paid_for(
    fast, one_try, folder, tmp_path
):
    table = tmp_path / "rows.jsonl"
    table.write_text("\n".join(json.dumps(prompt) for prompt in lamps(2)))
    one_try.begin(str(table), deferrable=True, poll_interval=5)
    with pytest.raises(TaskDeferred):
        one_try.task.execute(one_try.context)
    table.unlink()
    with pytest.raises(PictoryRequestInvalid, match=says("rows.jsonl' does not exist")):
        one_try(str(table))
    assert (len(fast.submissions), len(lines(folder / "metadata.jsonl"))) == (2, 2)


def test_after_a_clear_with_another_table_what_was_paid_for_the_old_one_is_saved_too(fast, one_try, folder):
    fast.account.seconds = 0.2
    one_try.begin(lamps(2), deferrable=True, poll_interval=5)
    with pytest.raises(TaskDeferred):
        one_try.task.execute(one_try.context)
    one_try.clear()
    others = [f"A desk, number {n}" for n in range(2)]
    assert one_try(others)["saved"] == 2
    assert len(fast.submissions) == 4
    assert len(list(folder.glob("*.png"))) == 4
    assert [line["text"] for line in lines(folder / "metadata.jsonl")] == others


# The task's time -----------------------------------------------------------------------------------------


def test_nothing_is_bought_after_execution_timeout(fast, one_try):
    with pytest.raises(AirflowTaskTimeout):
        one_try(lamps(2), execution_timeout=timedelta(0))
    assert fast.submissions == []


def test_requests_that_are_under_way_when_the_time_is_up_are_put_on_record_and_nothing_more_is_sent(
    fast, one_try, folder, timeout_when
):
    fast.script("submit", "slow-reply", times=8, seconds=1)
    timeout_when(lambda: len(fast.submissions) == 8)
    with pytest.raises(AirflowTaskTimeout):
        one_try(lamps(20))
    assert len(fast.submissions) == 8
    assert [row["state"] for row in entries(folder).values()] == ["bought"] * 8
    assert one_try(lamps(20))["saved"] == 20
    assert set(billed(fast).values()) == {1}


def test_a_task_that_is_killed_sends_nothing_more_and_says_where_its_jobs_are(fast, one_try, logged, at_post):
    at_post(lambda number: number == 3 and one_try.task.on_kill())
    with pytest.raises(Exception, match="ended from outside"):
        one_try(lamps(20))
    assert len(fast.submissions) <= 8
    assert "are on record in" in logged()
    at_post(lambda number: None)
    assert one_try(lamps(20))["saved"] == 20
    assert set(billed(fast).values()) == {1}


# The pace ------------------------------------------------------------------------------------------------


def test_submissions_and_polls_together_keep_the_connections_rate_limit(fast, one_try, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", fast.connection_json(requests_per_second=8))
    one_try(lamps(8), poll_interval=0.1)
    times = sorted(entry.at for entry in fast.requests if entry.host == "api")
    assert len(times) >= 16
    assert all(later - earlier > 0.99 for earlier, later in zip(times, times[8:], strict=False))


def test_the_end_of_an_attempt_is_on_record_if_airflow_does_not_retry(fast, one_try, folder):
    def has_ended():
        return json.loads((folder / state.HEADER).read_text())["has_ended"]

    fast.script("submit", "rate-limited", times=-1, retry_after="100")
    with pytest.raises(PictoryRateLimited):
        one_try(lamps(1))
    assert not has_ended()
    one_try.try_number = one_try.max_tries
    with pytest.raises(PictoryRateLimited):
        one_try(lamps(1))
    assert has_ended()
    fast.clear_faults()
    assert one_try.of_another_run("next")(lamps(1))["saved"] == 1
