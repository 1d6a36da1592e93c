# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What a batch does next, its progress, and its manifest."""

from __future__ import annotations

import json
import math

import pytest

from pictory_provider.api.errors import (
    TOP_UP,
    AuthenticationError,
    EdgeBlocked,
    ImageInvalid,
    PictoryError,
    ProtocolError,
    RateLimited,
    RequestInvalid,
    StorageFailed,
    SubmitOutcomeUnknown,
    Unavailable,
    lacks_credits,
)
from pictory_provider.api.timing import TIMING
from pictory_provider.core.batch import breaker
from pictory_provider.core.batch.decision import RowState
from pictory_provider.core.batch.journal import Header
from pictory_provider.core.batch.manifest import column_names, failed_lines, metadata_lines
from pictory_provider.core.batch.plan import (
    MAX_IN_FLIGHT,
    MOST_UNKNOWN,
    MOST_WAITED_FOR,
    WAVE,
    Plan,
    SubmitWave,
    Wait,
    line,
    pictures_of,
    progress,
    should_report,
)
from pictory_provider.core.batch.resume import open_batch
from pictory_provider.core.batch.schedule import WAKE_FOR, event_due_at
from pictory_provider.core.budget import CostEstimate
from pictory_provider.core.ledger import Charge
from tests.pure.core.batch.existing import SIZE, existing, row_image
from tests.pure.core.batch.tables import checked, rows_of


def planned(size=20, found=(), requests=None, **more):
    requests = requests or [{"prompt": f"A lamp {n}", "n": n} for n in range(size)]
    rows = rows_of(requests, allow_unlisted=True)
    resumed = open_batch(None, {}, checked(rows), folder="/f", made_by={}, max_tries=2, retries=2)
    plan = Plan(resumed, {rows[n].file_name: existing for n, existing in dict(found).items()}, **more)
    plan.journal.writes()
    return plan


def bought_at(at, wave):
    return [Charge(at, row.request.credits or 0.0) for row in wave.rows]


def buy(plan, answers=()):
    """Send a wave; return its rows."""
    wave = plan.next()
    assert isinstance(wave, SubmitWave), wave
    plan.intend(wave, bought_at(1.0, wave))
    plan.journal.writes()
    answers = dict(answers)
    for row in wave.rows:
        plan.answered(row, answers.get(row.index, f"job-{row.index}"), 2.0)
    plan.journal.writes()
    return [row.index for row in wave.rows]


def buy_all(plan, answers=()):
    while isinstance(plan.next(), SubmitWave):
        buy(plan, answers)


def save_all(plan):
    for row, job_id, _ in list(plan.pending_jobs.values()):
        plan.saved(row, row_image(job_id, 2.0, size=100))


# What is next --------------------------------------------------------------------------------------------


def test_waves_are_of_eight_in_the_order_of_the_table_and_end_with_a_page():
    plan = planned(60, found={0: reusable(0), 47: reusable(47)})
    assert [len(wave) for wave in iter_waves(plan)] == [8, 8, 8, 8, 8, 6, 8, 4]


def reusable(n, prompt=None):
    requested = {"prompt": prompt or f"A lamp {n}", "model": "seedream3.0"}
    return existing(state="saved", request=requested, job_id="old", size=SIZE, ai_credits_used=2.0)


def iter_waves(plan):
    while isinstance(plan.next(), SubmitWave):
        wave = buy(plan)
        assert len({index // 48 for index in wave}) == 1
        yield wave


def test_no_more_jobs_are_at_pictory_than_may_be():
    plan = planned(20, max_in_flight=10)
    assert [len(wave) for wave in iter_waves(plan)] == [8, 2]
    wait = plan.next()
    assert isinstance(wait, Wait)
    assert len(wait.pending_jobs) == 10
    for row, job_id, _ in wait.pending_jobs[:3]:
        plan.saved(row, row_image(job_id))
    for row, _, _ in wait.pending_jobs[3:]:
        plan.still_running(row)
    assert buy(plan) == [10, 11, 12]
    assert isinstance(plan.next(), Wait)


@pytest.mark.parametrize(("most", "enough"), [(1, 1), (4, 1), (12, 3), (200, 8)])
def test_a_wave_waits_for_some_space_as_it_costs_as_much_as_a_single_row(most, enough):
    plan = planned(300, max_in_flight=most)
    buy_all(plan)
    for ended, (row, job_id, _) in enumerate(list(plan.pending_jobs.values()), 1):
        plan.saved(row, row_image(job_id))
        assert isinstance(plan.next(), SubmitWave) == (ended >= enough)
        if ended == enough:
            break


def test_the_last_rows_wait_for_no_more_space_than_they_need():
    plan = planned(201, max_in_flight=200)
    buy_all(plan)
    plan.saved(plan.rows[0], row_image("job-0"))
    assert buy(plan) == [200]


def test_one_wait_is_for_a_thousand_jobs_at_most_and_for_the_oldest():
    plan = planned(1_100, max_in_flight=2_000)
    buy_all(plan)
    newest = plan.rows[0]
    plan.answered(newest, "job-0", 3.0)
    pending_jobs = plan.next().pending_jobs
    assert len(pending_jobs) == 1_000
    assert newest not in [row for row, _, _ in pending_jobs]


def test_a_batch_without_rows_or_with_nothing_missing_is_done_at_once():
    assert planned(1, found={0: reusable(0)}).next() is None


def test_a_wave_is_not_announced_while_what_went_before_is_not_on_record():
    plan = planned()
    plan.intend(wave := plan.next(), bought_at(1.0, wave))
    with pytest.raises(RuntimeError):
        plan.intend(SubmitWave(()), [])


def test_what_can_be_found_out_again_is_written_with_the_next_wave():
    plan = planned()
    buy(plan)
    plan.saved(plan.rows[0], row_image("job-0"))
    plan.failed(plan.rows[1], "BAD", "it failed")
    plan.unknown(plan.rows[2], "Pictory knows no such job")
    assert plan.journal.is_changed
    assert buy(plan) == list(range(8, 15))


@pytest.mark.parametrize("rows_before", range(9))
@pytest.mark.parametrize("is_known", [False, True], ids=["new rows", "rows of before a clear"])
def test_a_wave_that_was_struck_before_anything_was_sent_leaves_the_record_as_it_was(
    monkeypatch, rows_before, is_known
):
    """Airflow's timeout strikes in any line."""

    class StruckError(BaseException):
        pass

    plan = planned(20)
    if is_known:
        buy_all(plan, dict.fromkeys(range(20), RequestInvalid("bad", status=400)))
        plan = later(plan, max_tries=3)
    before = (
        json.dumps(plan.journal.page(0)) if is_known else "",
        dict(plan.counts),
        [row.index for row in plan.missing],
    )
    put, done = type(plan.journal).put, []

    def interrupted(self, entry, **more):
        if len(done) == rows_before:
            raise StruckError
        done.append(entry)
        put(self, entry, **more)

    wave = plan.next()
    with monkeypatch.context() as patch:
        patch.setattr(type(plan.journal), "put", interrupted)
        try:
            plan.intend(wave, bought_at(1.0, wave))
        except StruckError:
            assert rows_before < 8
    assert plan.unsent(wave.rows)
    after = (
        json.dumps(plan.journal.page(0)) if is_known else "",
        dict(plan.counts),
        [row.index for row in plan.missing],
    )
    assert after == before
    assert len([*plan.journal]) == (20 if is_known else 0)
    plan.journal.writes()
    assert sum(len(rows) for rows in iter_waves(plan)) == 20
    assert not plan.unsent(wave.rows)


def test_the_price_is_that_of_what_is_missing():
    requests = [{"prompt": "A lamp", "model": "flux-schnell"}] * 3 + ["A desk 1", "A desk 2"]
    plan = planned(requests=requests, found={4: reusable(4, "A desk 2")})
    assert CostEstimate(tuple(row.request for row in plan.missing)).price == 3.8
    unlisted = planned(requests=["A lamp", {"prompt": "A lamp", "model": "new"}]).missing
    assert CostEstimate(tuple(row.request for row in unlisted)).price is None


def test_the_sidecar_of_a_purchase_by_another_task_is_adopted_and_goes_on_record():
    found = existing(
        state="bought", request={"prompt": "A lamp 1", "model": "seedream3.0"}, job_id="k", submitted_at=5.0
    )
    plan = planned(3, found={1: found})
    assert [(row.index, job_id, at) for row, job_id, at in plan.pending_jobs.values()] == [(1, "k", 5.0)]
    assert plan.journal.get(plan.rows[1].key).job_id == "k"


def test_a_file_name_that_is_taken_stops_the_whole_batch_before_anything_is_sent():
    plan = planned(30, found={n: existing(size=1) for n in range(3, 15)})
    assert plan.next() is None
    assert isinstance(plan.error, RequestInvalid)
    assert "The file names of 12 of 30 rows are taken by something else" in plan.error.message
    assert "row 3, 00003.png: a file exists there" in plan.error.message
    assert "and 2 more" in plan.error.message
    assert planned(3, found={1: existing(size=1)}, overwrite=True).error is None


# What an answer means ------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refusal_of_one_row_fails_that_row_alone(status):
    plan = planned(10)
    buy_all(plan, {3: RequestInvalid("bad words", status=status, code="BAD")})
    assert (plan.counts[RowState.FAILED], plan.counts[RowState.WAITING], plan.error) == (1, 9, None)
    assert plan.end_of(plan.rows[3])[4:6] == ("BAD", "bad words")


STOPS = [
    AuthenticationError("x", status=401),
    EdgeBlocked("x"),
    RateLimited("x"),
    RequestInvalid("x", status=402),
    RequestInvalid("x", status=404),
    RequestInvalid("x", status=400, code="INSUFFICIENT_CREDITS"),
]


@pytest.mark.parametrize("error", STOPS, ids=repr)
def test_what_says_nothing_of_its_row_stops_purchases_and_leaves_the_row_unbought(error):
    plan = planned(20)
    buy(plan, {3: error})
    assert plan.error is error
    assert (plan.counts[RowState.WAITING], plan.counts[RowState.NOT_BOUGHT]) == (7, 13)
    assert plan.journal.get(plan.rows[3].key) is None
    assert isinstance(plan.next(), Wait)
    kept = Header.from_dict(json.loads(json.dumps(plan.journal.header.to_dict()))).stopped
    assert (type(breaker.from_dict(kept)), breaker.from_dict(kept).message) == (type(error), error.message)


def test_a_budget_that_is_used_up_stops_purchases_and_the_first_reason_stays():
    plan = planned(20)
    plan.stop(PictoryError("the budget is used up"))
    plan.stop(PictoryError("later"))
    assert plan.error.message == "the budget is used up"
    assert plan.next() is None
    assert progress(plan)["not_bought"] == 20


@pytest.mark.parametrize(
    "error", [SubmitOutcomeUnknown.because("cut"), Unavailable("cut", status=503), ProtocolError("cut")]
)
def test_what_may_have_been_accepted_is_unknown_and_is_not_sent_again(error):
    plan = planned(10)
    buy_all(plan, {3: error})
    assert (plan.counts[RowState.UNKNOWN], plan.counts[RowState.WAITING]) == (1, 9)
    assert plan.end_of(plan.rows[3]).message == "cut"


def test_waves_shrink_so_that_no_attempt_leaves_more_than_eight_rows_unknown():
    plan = planned(40)
    unknown = SubmitOutcomeUnknown.because("cut")
    sizes = []
    while isinstance(plan.next(), SubmitWave):
        sizes.append(len(buy(plan, dict.fromkeys((0, 1, 2, 3, 4, 8, 9, 11), unknown))))
    assert sizes == [8, 3, 1]
    assert progress(plan)["unknown"] == 8
    assert "for 8 rows it is unknown" in plan.error.message


def test_a_job_that_fails_for_want_of_credits_stops_purchases_and_is_failed_itself():
    plan = planned(20, max_in_flight=8)
    buy(plan)
    plan.failed(plan.rows[0], "INSUFFICIENT_CREDITS", "no credits")
    assert (plan.counts[RowState.FAILED], plan.counts[RowState.NOT_BOUGHT]) == (1, 12)
    assert "too few AI credits" in plan.error.message


def test_a_job_that_pictory_does_not_know_is_unknown():
    plan = planned(1)
    buy(plan)
    plan.unknown(plan.rows[0], "Pictory does not know job-0")
    assert plan.next() is None
    assert plan.end_of(plan.rows[0]).message == "Pictory does not know job-0"


# What a later attempt finds -------------------------------------------------------------------------------


def later(plan, **more):
    """Continue, in another attempt, from the record of a plan, and write the changes."""
    after = taken_up(plan, **more)
    after.journal.writes()
    return after


def taken_up(plan, *, found=None, rows=None, max_tries=2, is_resumed=False, **more):
    journal = plan.journal
    resumed = open_batch(
        json.loads(json.dumps(journal.header.to_dict())),
        {page: json.loads(json.dumps(journal.page(page))) for page in journal.header.begun},
        checked(plan.rows if rows is None else rows),
        folder="/f",
        made_by={},
        max_tries=max_tries,
        retries=2,
        is_resumed=is_resumed,
    )
    return Plan(resumed, found or {}, **more)


def test_a_clear_buys_a_row_whose_job_from_before_it_proves_to_have_failed():
    plan = planned(2)
    buy_all(plan)
    cleared, retried = later(plan, max_tries=3), later(plan)
    for after, place in ((cleared, RowState.TO_DO), (retried, RowState.FAILED)):
        after.next()
        after.failed(after.rows[0], "BAD", "it failed")
        assert after.end_of(after.rows[0]).state is place
        assert [row.index for row in after.missing] == ([0] if place is RowState.TO_DO else [])
    assert later(cleared, max_tries=3).end_of(plan.rows[0]).state is RowState.TO_DO


def test_a_job_past_its_time_is_left_alone_for_this_attempt_and_adopted_by_the_next():
    plan = planned(1)
    buy_all(plan)
    plan = later(plan)
    plan.failed(plan.rows[0], "WaitTimeout", "still running", adoptable=True)
    assert plan.next() is None
    assert later(plan, is_resumed=True).next() is None
    for max_tries in (2, 3):
        assert [pending.job_id for pending in later(plan, max_tries=max_tries).next().pending_jobs] == ["job-0"]


def test_what_a_clear_has_adopted_and_saved_is_not_bought_again_by_its_retry_with_overwrite():
    plan = planned(1)
    buy_all(plan)
    plan = later(plan, max_tries=3, overwrite=True)
    plan.saved(plan.rows[0], row_image("job-0"))
    found = existing(
        state="saved",
        request=plan.rows[0].canonical_request,
        job_id="job-0",
        size=SIZE,
    )
    places = [
        later(plan, found={"00000.png": found}, overwrite=True, max_tries=max_tries).end_of(plan.rows[0]).state
        for max_tries in (3, 4)
    ]
    assert places == [RowState.SAVED, RowState.TO_DO]


def test_a_picture_whose_saver_died_before_it_was_on_record_counts_as_saved_once():
    plan = planned(1)
    buy_all(plan)
    found = existing(
        state="saved",
        request=plan.rows[0].canonical_request,
        job_id="job-0",
        size=SIZE,
    )
    for max_tries, place in ((2, RowState.SAVED), (2, RowState.SAVED), (3, RowState.REUSED)):
        plan = later(plan, found={"00000.png": found}, max_tries=max_tries)
        assert plan.end_of(plan.rows[0]).state is place


def test_a_lost_job_from_before_a_clear_is_unknown_to_the_retry_too():
    plan = planned(1)
    buy_all(plan)
    plan = later(plan, max_tries=3)
    plan.unknown(plan.rows[0], "Pictory does not know job-0")
    assert later(plan, max_tries=3).end_of(plan.rows[0]).state is RowState.UNKNOWN
    assert later(plan, max_tries=4).end_of(plan.rows[0]).state is RowState.TO_DO


def test_a_paid_picture_of_an_old_table_is_saved_next_to_the_new_one_of_that_name():
    plan = planned(2)
    buy_all(plan)
    new = rows_of(["Another lamp"])
    after = later(plan, rows=new, max_tries=3)
    pending_jobs = list(after.pending_jobs.values())
    assert [pending.row.file_name for pending in pending_jobs] == ["00000.job-0.png", "00001.png"]
    for row, job_id, _ in pending_jobs:
        after.saved(row, row_image(job_id))
    assert progress(after)["saved"] == 0
    after.journal.writes()
    buy_all(after)
    save_all(after)
    assert (after.next(), progress(after)["of"], progress(after)["saved"]) == (None, 1, 1)


def test_what_stopped_an_attempt_holds_after_a_deferral_and_not_for_a_retry():
    plan = planned(20)
    buy(plan, {3: AuthenticationError("no key")})
    run, retry = later(plan, is_resumed=True), later(plan)
    assert (type(run.error), progress(run)["not_bought"]) == (AuthenticationError, 13)
    assert (retry.error, progress(retry)["to_do"]) == (None, 13)


# When a worker is resumed --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("of", "ended", "first", "at"),
    [
        (200, 0, None, math.inf),
        (200, 1, 30, 90),
        (200, 99, 30, 90),
        (200, 100, 30, 30),
        (200, 100, 3, 8),
        (5, 5, 30, 30),
        (5, 5, 1, 8),
        (5, 4, 1, 61),
        (0, 0, None, 8),
    ],
)
def test_a_worker_is_resumed_when_all_or_many_have_ended_or_a_minute_after_the_first_and_never_too_soon(
    of, ended, first, at
):
    first_at = None if first is None else 1000.0 + first
    assert event_due_at(not_before=1008.0, of=of, ended=ended, first_ended_at=first_at) == 1000.0 + at


# Progress ------------------------------------------------------------------------------------------------


def test_progress_counts_every_row_once_and_only_what_this_batch_has_bought_costs():
    plan = planned(20, found={0: reusable(0)}, max_in_flight=8)
    buy(plan, {1: RequestInvalid("bad", status=400), 2: SubmitOutcomeUnknown.because("cut")})
    lose(plan, [3], "StorageFailed")
    save_all(plan)
    plan.journal.writes()
    buy(plan)
    assert progress(plan) == {
        "of": 20,
        "to_do": 4,
        "waiting": 7,
        "saved": 5,
        "reused": 1,
        "owed": 1,
        "failed": 1,
        "unknown": 1,
        "not_bought": 0,
        "skipped": 0,
        "ai_credits_used": 10.0,
    }
    assert line(progress(plan)) == (
        "20 pictures: 4 to do, 7 waiting, 5 saved, 1 reused, 1 paid for and not saved, 1 failed, 1 unknown; "
        "10 AI credits used for what is saved"
    )


def test_credits_of_a_tenth_add_up_without_dust():
    plan = planned(requests=[{"prompt": "A lamp"}] * 3)
    buy_all(plan)
    for row, job_id, _ in plan.next().pending_jobs:
        plan.saved(row, row_image(job_id, 0.1))
    assert progress(plan)["ai_credits_used"] == 0.3


def test_progress_is_reported_on_change_and_not_too_often():
    one, other = {"saved": 1}, {"saved": 2}
    assert should_report(None, one, seconds=0)
    assert not should_report(one, other, seconds=TIMING.progress_interval - 0.1)
    assert should_report(one, other, seconds=TIMING.progress_interval)
    assert not should_report(one, one, seconds=100)


# The manifest ---------------------------------------------------------------------------------------------


def test_the_manifest_has_a_line_for_each_picture_in_the_order_of_the_table_and_the_rest_is_distinguished():
    plan = planned(4, found={2: reusable(2)})
    buy_all(plan, {1: RequestInvalid("bad words", status=400, code="BAD")})
    save_all(plan)
    reported = [json.loads(text) for text in metadata_lines(plan)]
    assert [one["file_name"] for one in reported] == ["00000.png", "00002.png", "00003.png"]
    assert reported[0] == {
        "file_name": "00000.png",
        "text": "A lamp 0",
        "n": 0,
        "job_id": "job-0",
        "model": "seedream3.0",
        "ai_credits_used": 2.0,
        "width": 8,
        "height": 8,
        "size": 100,
        "sha256": "abc",
    }
    (failed,) = [json.loads(text) for text in failed_lines(plan)]
    assert {name: failed[name] for name in ("file_name", "index", "line", "state", "code", "message", "n")} == {
        "file_name": "00001.png",
        "index": 1,
        "line": None,
        "state": "failed",
        "code": "BAD",
        "message": "bad words",
        "n": 1,
    }
    assert "clear" in failed["what_to_do"]
    assert list(metadata_lines(plan)) == list(metadata_lines(plan))


def test_a_rows_column_never_replaces_a_field_of_ours():
    columns = {"size": "XL", "Size": "M", "row_size": "S", "text": "t", "SHA256": "x", "code": 7, "a": "ü\u2028"}
    plan = planned(requests=[{"prompt": "A lamp", **columns}, {"prompt": "A lamp", "b": 1, "style": "vintage"}])
    names = column_names(plan)
    assert list(names) == [*columns, "b"]
    assert len({name.casefold() for name in names.values()}) == len(names)
    buy_all(plan)
    save_all(plan)
    lines = list(metadata_lines(plan))
    assert all(text.isprintable() for text in (text.rstrip("\n") for text in lines))
    assert "ü" in lines[0]
    first, second = (json.loads(text) for text in lines)
    assert (first["size"], first["text"], first["sha256"], first["a"]) == (100, "A lamp", "abc", "ü\u2028")
    assert {first[names[column]] for column in columns} == set(columns.values())
    assert list(first) == list(second)
    assert (second["b"], second["a"]) == (1, None)


@pytest.mark.parametrize(
    ("reported", "written"),
    [
        (1, "1.0"),
        (2.0, "2.0"),
        (0.6, "0.6"),
        (0, "0.0"),
        (None, "null"),
        ("0.6", "null"),
        (True, "null"),
        (math.nan, "null"),
        pytest.param(10**400, "null", id="too large for a float"),
    ],
)
def test_credits_are_written_as_a_float_or_null(reported, written):
    """Readers take a column of whole numbers for whole numbers. Anybody may have written a sidecar."""
    found = existing(
        state="saved",
        request={"prompt": "A lamp 0", "model": "seedream3.0"},
        job_id="old",
        size=SIZE,
        ai_credits_used=reported,
    )
    (reused,) = metadata_lines(planned(1, found={0: found}))
    assert f'"ai_credits_used": {written},' in reused
    bought = planned(1)
    buy(bought)
    bought.saved(bought.rows[0], row_image("job-0", reported))
    (saved,) = metadata_lines(bought)
    assert f'"ai_credits_used": {written},' in saved


def columns_of(requests):
    """Return the columns of both files of a batch whose second row failed; all lines have the same."""
    plan = planned(requests=requests)
    buy_all(plan, {1: RequestInvalid("bad words", status=400, code="BAD")})
    save_all(plan)
    (saved,) = {tuple(json.loads(text)) for text in metadata_lines(plan)}
    (failed,) = {tuple(json.loads(text)) for text in failed_lines(plan)}
    return list(saved), list(failed)


def test_columns_are_in_the_order_of_their_first_appearance_between_ours():
    others = ({"b": 1, "a": 1}, {"c": 2, "a": 2}, {"d": None})
    requests = [{"prompt": f"A lamp {n}", **columns} for n, columns in enumerate(others)]
    picture = ["job_id", "model", "ai_credits_used", "width", "height", "size", "sha256"]
    failure = ["index", "line", "job_id", "model", "state", "code", "message", "what_to_do"]
    for table, order in ((requests, "bacd"), (requests[::-1], "dcab")):
        saved, failed = columns_of(table)
        assert saved == ["file_name", "text", *order, *picture]
        assert failed == ["file_name", "text", *order, *failure]


@pytest.mark.parametrize("columns", [["Size", "size"], ["size", "row_size"], ["a", "TEXT", "text", "row_text"]])
def test_the_names_of_columns_do_not_depend_on_the_order_of_the_rows(columns):
    requests = [{"prompt": f"A lamp {n}", column: n} for n, column in enumerate(columns)]
    names = column_names(planned(requests=requests))
    turned = column_names(planned(requests=requests[::-1]))
    assert (names, list(names)) == (turned, list(turned)[::-1])


# What a worker has learnt --------------------------------------------------------------------------------


def test_an_error_that_certainly_bought_nothing_is_not_an_unknown_outcome_whatever_its_class():
    plan = planned(3)
    wave = plan.next()
    plan.intend(wave, bought_at(1.0, wave))
    plan.journal.writes()
    plan.refused(wave.rows[0], RequestInvalid("the reference image does not exist"))
    plan.refused(wave.rows[1], Unavailable("it was never sent"))
    plan.withdraw(wave.rows[2])
    assert [plan.end_of(row).state for row in wave.rows] == [
        RowState.FAILED,
        RowState.NOT_BOUGHT,
        RowState.NOT_BOUGHT,
    ]
    assert isinstance(plan.error, Unavailable)
    assert [entry.state for entry in plan.journal] == ["failed"]


def test_the_time_of_a_job_whose_submission_time_is_unknown_begins_once():
    found = existing(state="bought", request={"prompt": "A lamp 0", "model": "seedream3.0"}, job_id="k")
    plan = planned(1, found={0: found})
    (pending,) = plan.next().pending_jobs
    assert pending.submitted_at is None
    for now in (50.0, 60.0):
        plan.still_running(pending.row, since=now)
        assert plan.next().pending_jobs[0].submitted_at == 50.0
    assert plan.journal.get(pending.row.key).submitted_at == 50.0


def test_the_manifest_says_where_a_picture_is_that_had_to_go_elsewhere_and_what_was_marked():
    plan = planned(2)
    buy_all(plan)
    save_all(plan)
    one, other = plan.rows
    plan.saved(one, row_image("job-0", 2.0, size=100, file_name="00000.job-0.png"))
    plan.changed(
        other, plan.end_of(other).picture._replace(file=plan.end_of(other).picture.file._replace(size=150))
    )
    first, second = (json.loads(text) for text in metadata_lines(plan))
    assert (first["file_name"], second["size"]) == ("00000.job-0.png", 150)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_sidecar_that_cannot_be_read_is_not_bought_over(overwrite):
    plan = planned(1, found={0: existing(size=1, problem="it is not JSON")}, overwrite=overwrite)
    assert plan.next() is None
    assert isinstance(plan.error, RequestInvalid)
    assert "its sidecar cannot be read: it is not JSON" in plan.error.message


# Pictures that cannot be fetched or saved ----------------------------------------------------------------


def lose(plan, numbers, code="StorageFailed", *, adoptable=True):
    for number in numbers:
        plan.failed(plan.rows[number], code, f"the disk is full of {number}", adoptable=adoptable)


@pytest.mark.parametrize(
    ("code", "adoptable", "kind"),
    [
        ("StorageFailed", True, StorageFailed),
        ("ImageInvalid", True, ImageInvalid),
        ("EdgeBlocked", True, EdgeBlocked),
        ("WaitTimeout", True, Unavailable),
        ("Unavailable", True, Unavailable),
        ("JobCleaned", False, Unavailable),
        ("no class of ours", True, Unavailable),
    ],
)
def test_after_eight_paid_pictures_in_a_row_that_could_not_be_saved_no_more_are_bought(code, adoptable, kind):
    plan = planned(40)
    buy(plan)
    lose(plan, range(7), code, adoptable=adoptable)
    assert (plan.error, plan.journal.header.unsaved, len(plan.missing)) == (None, 7, 32)
    lose(plan, [7], code, adoptable=adoptable)
    assert (type(plan.error), plan.journal.header.unsaved) == (kind, 8)
    assert "8 pictures in a row" in plan.error.message
    assert "The last error: the disk is full of 7" in plan.error.message
    place = RowState.OWED if adoptable else RowState.FAILED
    assert (plan.counts[place], plan.counts[RowState.NOT_BOUGHT], plan.next()) == (8, 32, None)


def test_a_picture_that_is_saved_ends_the_count():
    plan = planned(40)
    buy_all(plan)
    lose(plan, range(7))
    plan.saved(plan.rows[7], row_image("job-7"))
    assert plan.journal.header.unsaved == 0
    lose(plan, range(8, 15))
    assert (plan.error, plan.journal.header.unsaved) == (None, 7)


def test_a_picture_that_is_saved_after_all_is_owed_no_longer():
    plan = planned(1)
    buy_all(plan)
    lose(plan, [0])
    assert plan.journal.get(plan.rows[0].key).is_owed
    plan.saved(plan.rows[0], row_image("job-0"))
    entry = plan.journal.get(plan.rows[0].key)
    assert (entry.state, entry.adoptable, entry.is_owed, entry.code) == ("saved", False, False, None)


def test_a_job_that_pictory_says_has_failed_neither_counts_nor_ends_the_count():
    plan = planned(40)
    buy_all(plan)
    lose(plan, range(7))
    lose(plan, range(7, 30), "BAD", adoptable=False)
    assert (plan.error, plan.journal.header.unsaved) == (None, 7)


def test_fewer_than_eight_stop_nothing_where_no_other_job_is_waited_for_either():
    plan = planned(40, max_in_flight=3)
    buy(plan)
    lose(plan, range(3))
    plan.journal.writes()
    assert (plan.error, buy(plan)) == (None, [3, 4, 5])


def test_where_nothing_is_left_to_be_bought_pictures_that_could_not_be_saved_stop_nothing():
    plan = planned(20)
    buy_all(plan)
    lose(plan, range(20))
    assert (plan.error, plan.journal.header.unsaved, plan.next()) == (None, 20, None)


def test_the_count_of_pictures_that_could_not_be_saved_goes_on_over_deferrals_and_retries():
    for more in ({"is_resumed": True}, {}):
        plan = planned(40, max_in_flight=8)
        buy(plan)
        lose(plan, range(4))
        plan.journal.writes()
        plan = later(plan, max_in_flight=4, **more)
        assert plan.journal.header.unsaved == 4
        lose(plan, range(4, 8))
        assert isinstance(plan.error, StorageFailed)


def lost_eight():
    plan = planned(40)
    buy(plan)
    lose(plan, range(8))
    plan.journal.writes()
    return plan


def test_a_retry_waits_for_the_pictures_that_are_paid_for_and_buys_on_when_one_is_saved():
    plan = later(lost_eight())
    waited = plan.next()
    assert isinstance(waited, Wait)
    assert (len(waited.pending_jobs), len(plan.missing), plan.error) == (8, 32, None)
    lose(plan, range(7))
    assert isinstance(plan.next(), Wait), "the last of them may be saved yet"
    plan.saved(plan.rows[7], row_image("job-7"))
    assert plan.journal.header.unsaved == 0
    assert buy(plan) == list(range(8, 16))


def test_a_retry_that_can_save_none_of_them_either_buys_nothing_and_names_the_last():
    plan = later(lost_eight())
    lose(plan, range(7))
    lose(plan, [7], "ImageInvalid")
    assert plan.next() is None
    assert isinstance(plan.error, ImageInvalid)
    assert "The last error: the disk is full of 7" in plan.error.message
    assert (plan.counts[RowState.NOT_BOUGHT], plan.journal.header.unsaved) == (32, 8)
    assert isinstance(breaker.from_dict(plan.journal.header.stopped), ImageInvalid)


def test_where_none_is_left_that_could_be_saved_one_picture_is_bought_alone_and_waited_for():
    plan = later(lost_eight())
    lose(plan, range(8), "JobCleaned", adoptable=False)
    assert plan.error is None
    assert buy(plan) == [8]
    assert [pending.job_id for pending in plan.next().pending_jobs] == ["job-8"]
    lose(plan, [8])
    assert isinstance(plan.error, StorageFailed)
    assert (plan.counts[RowState.NOT_BOUGHT], plan.next()) == (31, None)


def test_a_picture_that_was_bought_alone_and_is_saved_lets_all_others_be_bought():
    plan = later(lost_eight())
    lose(plan, range(8), "JobCleaned", adoptable=False)
    buy(plan)
    plan.saved(plan.rows[8], row_image("job-8"))
    plan.journal.writes()
    assert buy(plan) == list(range(9, 17))


def test_a_job_that_only_runs_on_shows_nothing_so_one_more_picture_is_tried_as_well():
    plan = planned(40)
    buy(plan)
    lose(plan, range(8), "WaitTimeout")
    plan.journal.writes()
    plan = later(plan)
    assert len(plan.pending_jobs) == 8
    assert buy(plan) == [8]
    assert isinstance(plan.next(), Wait)
    lose(plan, range(8), "WaitTimeout")
    assert plan.error is None, "it is still waited for"
    lose(plan, [8])
    assert isinstance(plan.error, StorageFailed)


def test_jobs_that_run_on_for_another_attempt_let_one_picture_be_bought():
    plan = planned(40)
    buy(plan)
    lose(plan, range(8), "WaitTimeout")
    plan.journal.writes()
    plan = later(plan)
    lose(plan, range(8), "WaitTimeout")
    assert buy(plan) == [8]


def test_a_clear_begins_to_count_anew():
    plan = later(lost_eight(), max_tries=3)
    assert (plan.journal.header.unsaved, len(plan.pending_jobs)) == (0, 8)
    assert buy(plan) == list(range(8, 16))


# What is left unknown ------------------------------------------------------------------------------------


def test_the_sizes_of_waves_and_waits_are_those_that_the_docs_give():
    assert (WAVE, MOST_UNKNOWN, MAX_IN_FLIGHT, MOST_WAITED_FOR) == (8, 8, 200, 1_000)


def test_what_earlier_attempts_have_left_unknown_does_not_keep_a_retry_from_buying():
    plan = planned(40)
    unknown = SubmitOutcomeUnknown.because("cut")
    buy(plan, dict.fromkeys(range(8), unknown))
    assert plan.next() is None
    plan = later(plan)
    assert (plan.counts[RowState.UNKNOWN], plan.error) == (8, None)
    assert len(buy(plan, {8: unknown})) == 8
    assert len(buy(plan)) == 7


def test_a_row_that_is_sent_again_although_its_outcome_is_unknown_is_marked_and_sent_once():
    unknown = SubmitOutcomeUnknown.because("cut")
    plan = planned(1, resubmit=True)
    assert buy(plan, {0: unknown}) == [0]
    assert plan.journal.get(plan.rows[0].key).again is False
    assert (plan.counts[RowState.TO_DO], plan.counts[RowState.UNKNOWN]) == (1, 0)
    assert buy(plan, {0: unknown}) == [0]
    assert plan.journal.get(plan.rows[0].key).again is True
    assert (plan.next(), plan.counts[RowState.UNKNOWN]) == (None, 1)
    assert buy(later(plan, resubmit=True)) == [0]


def test_after_a_clear_too_a_row_of_unknown_outcome_is_sent_again_once():
    unknown = SubmitOutcomeUnknown.because("cut")
    plan = planned(1)
    buy(plan, {0: unknown})
    plan = later(plan, max_tries=3, resubmit=True)
    again = []
    while plan.next():
        buy(plan, {0: unknown})
        again.append(plan.journal.get(plan.rows[0].key).again)
    assert again == [False, True]


def test_without_resubmit_a_row_of_unknown_outcome_is_sent_once():
    plan = planned(2)
    buy(plan, {0: SubmitOutcomeUnknown.because("cut")})
    assert (plan.counts[RowState.UNKNOWN], len(plan.missing)) == (1, 0)


def test_a_row_of_unknown_outcome_stays_unknown_where_purchases_are_stopped():
    plan = planned(20)
    buy(plan, {0: SubmitOutcomeUnknown.because("cut")})
    plan = later(plan, resubmit=True)
    assert [row.index for row in plan.missing] == [0, *range(8, 20)]
    plan.stop(PictoryError("enough"))
    assert plan.end_of(plan.rows[0])[:1] + plan.end_of(plan.rows[0])[4:6] == (
        RowState.UNKNOWN,
        "SUBMIT_OUTCOME_UNKNOWN",
        "cut",
    )
    assert plan.end_of(plan.rows[9])[:1] + plan.end_of(plan.rows[9])[4:6] == (
        RowState.NOT_BOUGHT,
        "PictoryError",
        "enough",
    )


# A wave that was not sent --------------------------------------------------------------------------------


def announced(plan):
    wave = plan.next()
    plan.intend(wave, bought_at(1.0, wave))
    return wave


def test_each_row_of_a_wave_has_its_purchase_on_record():
    plan = planned(3)
    wave = plan.next()
    plan.intend(wave, [Charge(5.0 + row.index, 2.0, row.index, 7.0) for row in wave.rows])
    assert [
        (entry.state, entry.tried, entry.intended_at, entry.shown_before, entry.used_before, entry.again)
        for entry in plan.journal
    ] == [("intent", 1, 5.0 + n, n, 7.0, False) for n in range(3)]
    assert plan.missing == []
    with pytest.raises(ValueError, match="zip"):
        planned(3).intend(wave, bought_at(1.0, wave)[:2])


def test_a_row_that_was_withdrawn_is_bought_with_the_next_wave():
    plan = planned(3)
    wave = announced(plan)
    plan.withdraw(wave.rows[1])
    assert ([row.index for row in plan.missing], plan.error) == ([1], None)
    assert plan.journal.get(wave.rows[1].key) is None


def test_rows_that_were_never_sent_are_not_bought_where_purchases_are_stopped():
    plan = planned(20)
    wave = announced(plan)
    plan.stop(PictoryError("enough"))
    assert plan.unsent(wave.rows)
    assert (plan.missing, plan.counts[RowState.NOT_BOUGHT]) == ([], 20)
    assert plan.end_of(wave.rows[0]).message == "enough"


@pytest.mark.parametrize(
    "answer", ["job", RequestInvalid("bad", status=400), SubmitOutcomeUnknown.because("cut"), RateLimited("x")]
)
def test_what_was_answered_was_sent(answer):
    plan = planned(1)
    wave = announced(plan)
    plan.journal.writes()
    plan.answered(wave.rows[0], answer, 2.0)
    assert not plan.unsent(wave.rows)


def test_what_certainly_bought_nothing_is_settled():
    plan = planned(2)
    wave = announced(plan)
    plan.journal.writes()
    plan.refused(wave.rows[0], RequestInvalid("bad", status=400))
    assert not plan.unsent(wave.rows[:1])
    assert plan.end_of(wave.rows[0]).state is RowState.FAILED


# What has to be written before anything else -------------------------------------------------------------


def test_only_what_nobody_could_find_out_again_is_urgent():
    plan = planned(9)
    wave = announced(plan)
    assert plan.journal.is_urgent
    plan.journal.writes()
    plan.answered(wave.rows[0], "job-0", 2.0)
    assert plan.journal.is_urgent
    for row in wave.rows[1:6]:
        plan.answered(row, f"job-{row.index}", 2.0)
    plan.journal.writes()
    for change in (
        lambda: plan.saved(wave.rows[0], row_image("job-0")),
        lambda: plan.failed(wave.rows[1], "BAD", "it failed"),
        lambda: plan.unknown(wave.rows[2], "Pictory knows no such job"),
    ):
        change()
        assert (plan.journal.is_changed, plan.journal.is_urgent) == (True, False)
        plan.journal.writes()
    plan.unknown(wave.rows[6], "cut")
    assert plan.journal.is_urgent
    plan.journal.writes()
    plan.failed(wave.rows[7], "BAD", "it was refused")
    assert plan.journal.is_urgent


def test_what_is_in_the_folder_can_be_found_out_again_and_is_not_urgent():
    plan = planned(1)
    buy_all(plan)
    found = existing(
        state="saved",
        request=plan.rows[0].canonical_request,
        job_id="job-0",
        size=SIZE,
    )
    plan = taken_up(plan, found={"00000.png": found})
    assert (plan.journal.get(plan.rows[0].key).state, plan.journal.is_urgent) == ("saved", False)


def test_when_the_time_of_a_job_begins_is_not_urgent():
    found = existing(state="bought", request={"prompt": "A lamp 0", "model": "seedream3.0"}, job_id="k")
    plan = planned(1, found={0: found})
    plan.still_running(plan.rows[0], since=50.0)
    assert (plan.journal.is_changed, plan.journal.is_urgent) == (True, False)


def test_a_picture_that_is_saved_changes_its_page_alone():
    plan = planned(2)
    buy(plan)
    plan.saved(plan.rows[0], row_image("job-0"))
    assert [write.name for write in plan.journal.writes()] == [".pictory/1-00000.json"]


def test_what_is_on_record_of_a_row_follows_what_became_of_it():
    plan = planned(4)
    buy(plan, {3: RequestInvalid("bad words", status=400, code="BAD")})
    one, two, three, four = plan.rows
    plan.saved(one, row_image("job-0"))
    plan.failed(two, "WaitTimeout", "still running", adoptable=True)
    plan.unknown(three, "Pictory does not know job-2")
    reported = [
        (entry.state, entry.job_id, entry.code, entry.message, entry.adoptable, entry.submitted_at)
        for entry in map(plan.journal.get, (one.key, two.key, three.key, four.key))
    ]
    assert reported == [
        ("saved", "job-0", None, None, False, 2.0),
        ("failed", "job-1", "WaitTimeout", "still running", True, 2.0),
        ("unknown", None, None, "Pictory does not know job-2", False, 2.0),
        ("failed", None, "BAD", "bad words", False, None),
    ]
    assert plan.end_of(two) == (RowState.OWED, "job-1", None, None, "WaitTimeout", "still running", False, False)
    assert pictures_of(plan) == [row_image("job-0")]


def test_the_first_reason_to_stop_stays_on_record():
    plan = planned(20)
    plan.stop(PictoryError("the budget is used up"))
    plan.stop(PictoryError("later"))
    assert breaker.from_dict(plan.journal.header.stopped).message == "the budget is used up"


def test_a_row_from_before_a_clear_whose_job_has_failed_is_not_bought_where_purchases_are_stopped():
    plan = planned(2)
    buy_all(plan)
    plan = later(plan, max_tries=3)
    plan.stop(PictoryError("enough"))
    plan.failed(plan.rows[0], "BAD", "it failed")
    assert (plan.end_of(plan.rows[0]).state, plan.missing) == (RowState.FAILED, [])


def test_a_wait_is_for_the_oldest_jobs_and_those_of_unknown_time_come_first():
    found = existing(state="bought", request={"prompt": "A lamp 1", "model": "seedream3.0"}, job_id="k")
    plan = planned(3, found={1: found})
    wave = announced(plan)
    plan.journal.writes()
    plan.answered(wave.rows[0], "late", 9.0)
    plan.answered(wave.rows[1], "early", 3.0)
    assert [pending.job_id for pending in plan.next().pending_jobs] == ["k", "early", "late"]


def test_a_left_over_job_that_this_attempt_could_not_save_is_left_for_the_next():
    plan = planned(2)
    buy_all(plan)
    new = rows_of(["Another lamp"])
    plan = later(plan, rows=new, max_tries=3)
    (row, *_) = (pending.row for pending in plan.pending_jobs.values())
    plan.failed(row, "StorageFailed", "the disk is full", adoptable=True)
    assert (progress(plan)["failed"], len(plan.pending_jobs)) == (0, 1)
    plan.journal.writes()
    assert len(later(plan, max_tries=3, is_resumed=True).pending_jobs) == 1
    assert len(later(plan, max_tries=3).pending_jobs) == 2


# What stops purchases ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "stops"),
    [
        *((RequestInvalid("x", status=status), False) for status in (None, 400, 413, 414, 422, 431)),
        *((RequestInvalid("x", status=status), True) for status in (402, 404, 405, 406, 411, 415)),
        (RequestInvalid("x", status=400, code="INVALID"), False),
        (RequestInvalid("x", status=400, code="INSUFFICIENT_CREDITS"), True),
        (RequestInvalid("x", code="no_credits_left"), True),
        (AuthenticationError("x"), True),
        (RateLimited("x"), True),
        (PictoryError("x"), True),
    ],
)
def test_what_says_something_of_its_row_alone_does_not_stop_purchases(error, stops):
    assert breaker.trips_breaker(error) is stops


@pytest.mark.parametrize(
    ("status", "code", "lacks"),
    [
        (None, None, False),
        (None, "", False),
        (400, "CREDITS", True),
        (None, "low_credit", True),
        (400, "CRED", False),
        (402, None, True),
        (400, None, False),
    ],
)
def test_a_lack_of_credits_is_recognised_by_402_or_by_the_code(status, code, lacks):
    assert lacks_credits(status, code) is lacks
    assert ("too few credits" in RequestInvalid("x", status=status, code=code).retry_note) is lacks


def test_a_lack_of_credits_is_named_with_what_pictory_said():
    error = breaker.no_credits("NO_CREDITS", "buy more")
    assert (error.message, error.code, error.status) == (
        f"The account has too few AI credits left for this picture: buy more. {TOP_UP}",
        "NO_CREDITS",
        None,
    )


@pytest.mark.parametrize(
    ("error", "kept", "code"),
    [
        (RequestInvalid("m", code="C"), {"kind": "RequestInvalid", "message": "m", "code": "C"}, "C"),
        (RequestInvalid("m"), {"kind": "RequestInvalid", "message": "m", "code": None}, "RequestInvalid"),
        (RateLimited("m"), {"kind": "RateLimited", "message": "m", "code": None}, "RateLimited"),
    ],
)
def test_a_reason_to_stop_is_read_as_it_is_kept(error, kept, code):
    assert breaker.to_dict(error) == kept
    found = breaker.from_dict(json.loads(json.dumps(kept)))
    assert (type(found), found.message, getattr(found, "code", None)) == (type(error), "m", kept["code"])
    assert breaker.code_of(found) == code


def test_a_reason_to_stop_of_a_later_release_is_one_too():
    found = breaker.from_dict({"kind": "JobExploded", "message": "m"})
    assert (type(found), found.message) == (PictoryError, "m")
    assert breaker.from_dict({"kind": "RequestInvalid", "message": "m", "code": 7}).code is None


@pytest.mark.parametrize(
    ("number", "more"), [(10, ""), (11, "\n    and 1 more."), (1_011, "\n    and 1,001 more.")]
)
def test_the_first_ten_places_that_are_taken_are_named(number, more):
    error = planned(number, found={n: existing(size=1) for n in range(number)}).error
    assert error.fields == ("path", "file_name")
    assert f"The file names of {number:,} of {number:,} rows are taken by something else, such as" in error.message
    reported = "    row 9, 00009.png: a file exists there, without a sidecar that says what it is."
    assert error.message.endswith(reported + more)
    assert "row 10," not in error.message


# Texts --------------------------------------------------------------------------------------------------


def test_a_progress_of_nothing_is_a_line_too_and_large_numbers_have_commas():
    nothing = progress(planned(1)) | {"to_do": 0, "of": 0}
    assert line(nothing) == "0 pictures: none; 0 AI credits used"
    reported = {**nothing, "of": 12_000, "waiting": 10_500, "not_bought": 1_500, "ai_credits_used": 0.6}
    assert line(reported) == "12,000 pictures: 10,500 waiting, 1,500 not bought; 0.6 AI credits used"


def test_a_picture_whose_credits_are_not_known_costs_nothing_in_a_progress():
    plan = planned(2)
    buy(plan)
    plan.saved(plan.rows[0], row_image("job-0"))
    plan.saved(plan.rows[1], row_image("job-1", 1.005))
    assert progress(plan)["ai_credits_used"] == 1.0
    assert TIMING.progress_interval == 5


@pytest.mark.parametrize(
    ("of", "ended", "at"),
    [(100, 99, 90), (100, 100, 30), (101, 100, 30), (2, 1, 90), (1, 1, 30), (99, 98, 90), (99, 99, 30)],
)
def test_a_hundred_or_all_are_enough_to_wake_a_worker_at_once(of, ended, at):
    assert WAKE_FOR == 100
    assert event_due_at(not_before=0.0, of=of, ended=ended, first_ended_at=30.0) == at


@pytest.mark.parametrize(("of", "ended", "at"), [(2, 1, math.inf), (2, 2, 8), (2, 3, 8)])
def test_if_it_is_unknown_when_the_first_has_ended_a_worker_is_resumed_for_all(of, ended, at):
    assert event_due_at(not_before=8.0, of=of, ended=ended, first_ended_at=None) == at


def test_each_row_without_a_picture_is_reported_with_what_to_do():
    plan = planned(4)
    buy(plan, {1: RequestInvalid("bad", status=400, code="BAD"), 2: SubmitOutcomeUnknown.because("cut")})
    plan.failed(plan.rows[0], "WaitTimeout", "still running", adoptable=True)
    reported = [json.loads(text) for text in failed_lines(plan)]
    assert [list(one) for one in reported] == [
        ["file_name", "text", "n", "index", "line", "job_id", "model", "state", "code", "message", "what_to_do"]
    ] * 4
    assert [(one["index"], one["job_id"], one["model"], one["state"], one["code"]) for one in reported] == [
        (0, "job-0", "seedream3.0", "owed", "WaitTimeout"),
        (1, None, "seedream3.0", "failed", "BAD"),
        (2, None, "seedream3.0", "unknown", "SUBMIT_OUTCOME_UNKNOWN"),
        (3, "job-3", "seedream3.0", "waiting", None),
    ]
    assert [one["what_to_do"].partition(".")[0] for one in reported] == [
        "It is paid for",
        "Correct the row if it is at fault, and clear the task: that buys failed rows again",
        "Look at https://app",
        "It is paid for",
    ]
    stopped = planned(1)
    stopped.stop(PictoryError("enough"))
    (one,) = map(json.loads, failed_lines(stopped))
    assert one["what_to_do"] == "Nothing was spent on it. Fix the problem in the message, and clear the task."
    assert (one["state"], one["message"]) == ("not_bought", "enough")


def test_what_some_readers_take_for_the_end_of_a_line_is_escaped_and_nothing_else_is():
    plan = planned(requests=[{"prompt": "A lamp", "a": "\x7f\x80\x9f\xa0\u2028\u2029\ufeffü🗼"}])
    buy_all(plan)
    save_all(plan)
    (text,) = metadata_lines(plan)
    assert '"\\u007f\\u0080\\u009f\xa0\\u2028\\u2029\\ufeffü🗼"' in text
    assert text.endswith("}\n")


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        (["a", "b"], ["a", "b"]),
        (["size", "TEXT"], ["row_size", "row_TEXT"]),
        (["size", "row_size"], ["row_row_size", "row_size"]),
        (["row_size", "size"], ["row_size", "row_row_size"]),
        (["Size", "size"], ["row_Size", "row_row_size"]),
        (["index", "line", "state", "what_to_do"], ["row_index", "row_line", "row_state", "row_what_to_do"]),
        (["job_id", "width", "height", "sha256"], ["row_job_id", "row_width", "row_height", "row_sha256"]),
        (["code", "message", "ai_credits_used"], ["row_code", "row_message", "row_ai_credits_used"]),
        (["image", "images", "Image_url"], ["row_image", "images", "Image_url"]),
        (["old_file_name", "file_names"], ["old_file_name_column", "file_names_column"]),
        (["a_file_names", "a_file_names_column"], ["row_a_file_names_column", "a_file_names_column"]),
        (["a_file_name_old", "a_File_Name"], ["a_file_name_old", "a_File_Name"]),
    ],
)
def test_a_column_that_has_the_name_of_a_field_is_called_otherwise(columns, names):
    plan = planned(requests=[{"prompt": "A lamp", **dict.fromkeys(columns, 1)}])
    assert column_names(plan) == dict(zip(columns, names, strict=True))
