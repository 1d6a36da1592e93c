# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What is next in a batch, how far it is, and what lies there in the end."""

from __future__ import annotations

import json
import math

import pytest

from pictory_provider.api.errors import (
    AuthenticationError,
    EdgeBlocked,
    PictoryError,
    ProtocolError,
    RateLimited,
    RequestInvalid,
    SubmitOutcomeUnknown,
    Unavailable,
)
from pictory_provider.api.timing import TIMING
from pictory_provider.batch import stopping
from pictory_provider.batch.decision import Found, Picture, Place
from pictory_provider.batch.entries import Header
from pictory_provider.batch.manifest import column_names, failed_lines, metadata_lines
from pictory_provider.batch.opening import open_batch
from pictory_provider.batch.plan import Buy, Plan, Wait
from pictory_provider.batch.progress import is_worth_telling, line, progress
from pictory_provider.batch.rows import RowMaker
from pictory_provider.batch.tables import records_of
from pictory_provider.batch.waking import wake_at
from pictory_provider.jobs.budget import Lot
from pictory_provider.jobs.ledger import Purchase


def planned(size=20, found=(), requests=None, **more):
    records = records_of(requests or [{"prompt": f"A lamp {n}", "n": n} for n in range(size)])
    rows = RowMaker(conn_id="c", allow_unlisted=True).rows(records)
    opening = open_batch(None, {}, rows, folder="/f", made_by={}, max_tries=2, retries=2)
    plan = Plan(opening, {rows[n].file_name: there for n, there in dict(found).items()}, **more)
    plan.journal.writes()
    return plan


def bought_at(at, wave):
    return [Purchase(at, row.request.credits or 0.0) for row in wave.rows]


def buy(plan, answers=()):
    """Send a wave; return its rows."""
    wave = plan.next()
    assert isinstance(wave, Buy), wave
    plan.intend(wave, bought_at(1.0, wave))
    plan.journal.writes()
    answers = dict(answers)
    for row in wave.rows:
        plan.answered(row, answers.get(row.index, f"job-{row.index}"), 2.0)
    plan.journal.writes()
    return [row.index for row in wave.rows]


def buy_all(plan, answers=()):
    while isinstance(plan.next(), Buy):
        buy(plan, answers)


def save_all(plan):
    for row, job_id, _ in list(plan.tickets.values()):
        plan.saved(row, Picture(job_id, 2.0, 8, 8, 100, "abc"))


# What is next --------------------------------------------------------------------------------------------


def test_waves_are_of_eight_in_the_order_of_the_table_and_end_with_a_page():
    plan = planned(60, found={0: reusable(0), 47: reusable(47)})
    assert [len(wave) for wave in iter_waves(plan)] == [8, 8, 8, 8, 8, 6, 8, 4]


def reusable(n, prompt=None):
    asked = {"prompt": prompt or f"A lamp {n}", "model": "seedream3.0"}
    return Found(state="saved", asked=asked, job_id="old", has_file=True, picture=Picture("old", 2.0, size=7))


def iter_waves(plan):
    while isinstance(plan.next(), Buy):
        wave = buy(plan)
        assert len({index // 48 for index in wave}) == 1
        yield wave


def test_no_more_jobs_are_at_pictory_than_may_be():
    plan = planned(20, max_in_flight=10)
    assert [len(wave) for wave in iter_waves(plan)] == [8, 2]
    wait = plan.next()
    assert isinstance(wait, Wait)
    assert len(wait.tickets) == 10
    for row, job_id, _ in wait.tickets[:3]:
        plan.saved(row, Picture(job_id))
    for row, _, _ in wait.tickets[3:]:
        plan.still_running(row)
    assert buy(plan) == [10, 11, 12]
    assert isinstance(plan.next(), Wait)


@pytest.mark.parametrize(("most", "enough"), [(1, 1), (4, 1), (12, 3), (200, 8)])
def test_a_wave_waits_for_some_room_as_it_costs_as_much_as_a_single_row(most, enough):
    plan = planned(300, max_in_flight=most)
    buy_all(plan)
    for ended, (row, job_id, _) in enumerate(list(plan.tickets.values()), 1):
        plan.saved(row, Picture(job_id))
        assert isinstance(plan.next(), Buy) == (ended >= enough)
        if ended == enough:
            break


def test_the_last_rows_wait_for_no_more_room_than_they_need():
    plan = planned(201, max_in_flight=200)
    buy_all(plan)
    plan.saved(plan.rows[0], Picture("job-0"))
    assert buy(plan) == [200]


def test_one_wait_is_for_a_thousand_jobs_at_most_and_for_the_oldest():
    plan = planned(1_100, max_in_flight=2_000)
    buy_all(plan)
    newest = plan.rows[0]
    plan.answered(newest, "job-0", 3.0)
    tickets = plan.next().tickets
    assert len(tickets) == 1_000
    assert newest not in [row for row, _, _ in tickets]


def test_a_batch_without_rows_or_with_nothing_missing_is_done_at_once():
    assert planned(1, found={0: reusable(0)}).next() is None


def test_a_wave_is_not_announced_while_what_went_before_is_not_on_record():
    plan = planned()
    plan.intend(wave := plan.next(), bought_at(1.0, wave))
    with pytest.raises(RuntimeError):
        plan.intend(Buy(()), [])


def test_what_can_be_found_out_again_is_written_with_the_next_wave():
    plan = planned()
    buy(plan)
    plan.saved(plan.rows[0], Picture("job-0"))
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

    def struck(self, entry, **more):
        if len(done) == rows_before:
            raise StruckError
        done.append(entry)
        put(self, entry, **more)

    wave = plan.next()
    with monkeypatch.context() as patch:
        patch.setattr(type(plan.journal), "put", struck)
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
    assert Lot(tuple(row.request for row in plan.missing)).price == 3.8
    unlisted = planned(requests=["A lamp", {"prompt": "A lamp", "model": "new"}]).missing
    assert Lot(tuple(row.request for row in unlisted)).price is None


def test_the_sidecar_of_a_purchase_by_another_task_is_adopted_and_goes_on_record():
    there = Found(
        state="bought", asked={"prompt": "A lamp 1", "model": "seedream3.0"}, job_id="k", submitted_at=5.0
    )
    plan = planned(3, found={1: there})
    assert [(row.index, job_id, at) for row, job_id, at in plan.tickets.values()] == [(1, "k", 5.0)]
    assert plan.journal.get(plan.rows[1].key).job_id == "k"


def test_a_place_that_is_taken_stops_the_whole_batch_before_anything_is_sent():
    plan = planned(30, found={n: Found(has_file=True) for n in range(3, 15)})
    assert plan.next() is None
    assert isinstance(plan.error, RequestInvalid)
    assert "In the places of 12 rows lies something else" in plan.error.message
    assert "row 3, 00003.png: a file lies there" in plan.error.message
    assert "and 2 more" in plan.error.message
    assert planned(3, found={1: Found(has_file=True)}, overwrite=True).error is None


# What an answer means ------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refusal_of_one_row_fails_that_row_alone(status):
    plan = planned(10)
    buy_all(plan, {3: RequestInvalid("bad words", status=status, code="BAD")})
    assert (plan.counts[Place.FAILED], plan.counts[Place.WAITING], plan.error) == (1, 9, None)
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
    assert (plan.counts[Place.WAITING], plan.counts[Place.NOT_BOUGHT]) == (7, 13)
    assert plan.journal.get(plan.rows[3].key) is None
    assert isinstance(plan.next(), Wait)
    kept = Header.read(json.loads(json.dumps(plan.journal.header.plain()))).stopped
    assert (type(stopping.read(kept)), stopping.read(kept).message) == (type(error), error.message)


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
    assert (plan.counts[Place.UNKNOWN], plan.counts[Place.WAITING]) == (1, 9)
    assert plan.end_of(plan.rows[3]).message == "cut"


def test_waves_shrink_so_that_no_try_leaves_more_than_eight_rows_unknown():
    plan = planned(40)
    unknown = SubmitOutcomeUnknown.because("cut")
    sizes = []
    while isinstance(plan.next(), Buy):
        sizes.append(len(buy(plan, dict.fromkeys((0, 1, 2, 3, 4, 8, 9, 11), unknown))))
    assert sizes == [8, 3, 1]
    assert progress(plan)["unknown"] == 8
    assert "of 8 rows nobody can know" in plan.error.message


def test_a_job_that_fails_for_want_of_credits_stops_purchases_and_is_failed_itself():
    plan = planned(20, max_in_flight=8)
    buy(plan)
    plan.failed(plan.rows[0], "INSUFFICIENT_CREDITS", "no credits")
    assert (plan.counts[Place.FAILED], plan.counts[Place.NOT_BOUGHT]) == (1, 12)
    assert "too few AI credits" in plan.error.message


def test_a_job_that_pictory_does_not_know_is_unknown():
    plan = planned(1)
    buy(plan)
    plan.unknown(plan.rows[0], "Pictory knows no job-0")
    assert plan.next() is None
    assert plan.end_of(plan.rows[0]).message == "Pictory knows no job-0"


# What a later try finds ----------------------------------------------------------------------------------


def later(plan, *, found=None, rows=None, max_tries=2, is_leg=False, **more):
    """Take up, in another try, what a plan has left on record."""
    journal = plan.journal
    opening = open_batch(
        json.loads(json.dumps(journal.header.plain())),
        {page: json.loads(json.dumps(journal.page(page))) for page in journal.header.begun},
        plan.rows if rows is None else rows,
        folder="/f",
        made_by={},
        max_tries=max_tries,
        retries=2,
        is_leg=is_leg,
    )
    after = Plan(opening, found or {}, **more)
    after.journal.writes()
    return after


def test_a_clear_buys_a_row_whose_job_of_before_it_proves_to_have_failed():
    plan = planned(2)
    buy_all(plan)
    cleared, retried = later(plan, max_tries=3), later(plan)
    for after, place in ((cleared, Place.TO_DO), (retried, Place.FAILED)):
        after.next()
        after.failed(after.rows[0], "BAD", "it failed")
        assert after.end_of(after.rows[0]).place is place
    assert later(cleared, max_tries=3).end_of(plan.rows[0]).place is Place.TO_DO


def test_a_job_past_its_time_is_left_alone_for_this_try_and_adopted_by_the_next():
    plan = planned(1)
    buy_all(plan)
    plan = later(plan)
    plan.failed(plan.rows[0], "WaitTimeout", "still running", adoptable=True)
    assert plan.next() is None
    assert later(plan, is_leg=True).next() is None
    for max_tries in (2, 3):
        assert [ticket.job_id for ticket in later(plan, max_tries=max_tries).next().tickets] == ["job-0"]


def test_what_a_clear_has_adopted_and_saved_is_not_bought_again_by_its_retry_with_overwrite():
    plan = planned(1)
    buy_all(plan)
    plan = later(plan, max_tries=3, overwrite=True)
    plan.saved(plan.rows[0], Picture("job-0"))
    there = Found(state="saved", asked=plan.rows[0].asked, job_id="job-0", has_file=True, picture=Picture("job-0"))
    places = [
        later(plan, found={"00000.png": there}, overwrite=True, max_tries=max_tries).end_of(plan.rows[0]).place
        for max_tries in (3, 4)
    ]
    assert places == [Place.SAVED, Place.TO_DO]


def test_a_picture_whose_saver_died_before_it_was_on_record_counts_as_saved_once():
    plan = planned(1)
    buy_all(plan)
    there = Found(state="saved", asked=plan.rows[0].asked, job_id="job-0", has_file=True, picture=Picture("job-0"))
    for max_tries, place in ((2, Place.SAVED), (2, Place.SAVED), (3, Place.REUSED)):
        plan = later(plan, found={"00000.png": there}, max_tries=max_tries)
        assert plan.end_of(plan.rows[0]).place is place


def test_a_lost_job_of_before_a_clear_is_unknown_to_the_retry_too():
    plan = planned(1)
    buy_all(plan)
    plan = later(plan, max_tries=3)
    plan.unknown(plan.rows[0], "Pictory knows no job-0")
    assert later(plan, max_tries=3).end_of(plan.rows[0]).place is Place.UNKNOWN
    assert later(plan, max_tries=4).end_of(plan.rows[0]).place is Place.TO_DO


def test_a_paid_picture_of_an_old_table_is_saved_beside_the_new_one_of_that_name():
    plan = planned(2)
    buy_all(plan)
    new = RowMaker(conn_id="c").rows(records_of(["Another lamp"]))
    after = later(plan, rows=new, max_tries=3)
    tickets = list(after.tickets.values())
    assert [ticket.row.file_name for ticket in tickets] == ["00000.job-0.png", "00001.png"]
    for row, job_id, _ in tickets:
        after.saved(row, Picture(job_id))
    assert progress(after)["saved"] == 0
    after.journal.writes()
    buy_all(after)
    save_all(after)
    assert (after.next(), progress(after)["of"], progress(after)["saved"]) == (None, 1, 1)


def test_what_stopped_a_try_holds_after_a_deferral_and_not_for_a_retry():
    plan = planned(20)
    buy(plan, {3: AuthenticationError("no key")})
    leg, retry = later(plan, is_leg=True), later(plan)
    assert (type(leg.error), progress(leg)["not_bought"]) == (AuthenticationError, 13)
    assert (retry.error, progress(retry)["to_do"]) == (None, 13)


# When a worker wakes -------------------------------------------------------------------------------------


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
def test_a_worker_wakes_when_all_or_many_have_ended_or_a_minute_after_the_first_and_never_too_soon(
    of, ended, first, at
):
    first_at = None if first is None else 1000.0 + first
    assert wake_at(not_before=1008.0, of=of, ended=ended, first_ended_at=first_at) == 1000.0 + at


# How far -------------------------------------------------------------------------------------------------


def test_progress_counts_every_row_once_and_only_what_this_batch_has_bought_costs():
    plan = planned(20, found={0: reusable(0)}, max_in_flight=8)
    buy(plan, {1: RequestInvalid("bad", status=400), 2: SubmitOutcomeUnknown.because("cut")})
    save_all(plan)
    plan.journal.writes()
    buy(plan)
    assert progress(plan) == {
        "of": 20,
        "to_do": 4,
        "waiting": 7,
        "saved": 6,
        "reused": 1,
        "failed": 1,
        "unknown": 1,
        "not_bought": 0,
        "ai_credits_used": 12.0,
    }
    assert line(progress(plan)) == (
        "20 pictures: 4 to do, 7 waiting, 6 saved, 1 reused, 1 failed, 1 unknown; 12 AI credits used"
    )


def test_credits_of_a_tenth_add_up_without_dust():
    plan = planned(requests=[{"prompt": "A lamp"}] * 3)
    buy_all(plan)
    for row, job_id, _ in plan.next().tickets:
        plan.saved(row, Picture(job_id, 0.1))
    assert progress(plan)["ai_credits_used"] == 0.3


def test_progress_is_told_on_change_and_not_too_often():
    one, other = {"saved": 1}, {"saved": 2}
    assert is_worth_telling(None, one, seconds=0)
    assert not is_worth_telling(one, other, seconds=TIMING.progress_interval - 0.1)
    assert is_worth_telling(one, other, seconds=TIMING.progress_interval)
    assert not is_worth_telling(one, one, seconds=100)


# What lies there -----------------------------------------------------------------------------------------


def test_the_manifest_has_a_line_for_each_picture_in_the_order_of_the_table_and_the_rest_is_told_apart():
    plan = planned(4, found={2: reusable(2)})
    buy_all(plan, {1: RequestInvalid("bad words", status=400, code="BAD")})
    save_all(plan)
    told = [json.loads(text) for text in metadata_lines(plan)]
    assert [one["file_name"] for one in told] == ["00000.png", "00002.png", "00003.png"]
    assert told[0] == {
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


# What a worker has learnt --------------------------------------------------------------------------------


def test_an_error_that_certainly_bought_nothing_is_no_unknown_outcome_whatever_its_class():
    plan = planned(3)
    wave = plan.next()
    plan.intend(wave, bought_at(1.0, wave))
    plan.journal.writes()
    plan.refused(wave.rows[0], RequestInvalid("the reference image does not exist"))
    plan.refused(wave.rows[1], Unavailable("it was never sent"))
    plan.withdraw(wave.rows[2])
    assert [plan.end_of(row).place for row in wave.rows] == [Place.FAILED, Place.NOT_BOUGHT, Place.NOT_BOUGHT]
    assert isinstance(plan.error, Unavailable)
    assert [entry.state for entry in plan.journal] == ["failed"]


def test_the_time_of_a_job_of_which_nobody_knows_when_it_was_submitted_begins_once():
    there = Found(state="bought", asked={"prompt": "A lamp 0", "model": "seedream3.0"}, job_id="k")
    plan = planned(1, found={0: there})
    (ticket,) = plan.next().tickets
    assert ticket.submitted_at is None
    for now in (50.0, 60.0):
        plan.still_running(ticket.row, since=now)
        assert plan.next().tickets[0].submitted_at == 50.0
    assert plan.journal.get(ticket.row.key).submitted_at == 50.0


def test_the_manifest_says_where_a_picture_lies_that_had_to_go_elsewhere_and_what_was_marked():
    plan = planned(2)
    buy_all(plan)
    save_all(plan)
    one, other = plan.rows
    plan.saved(one, Picture("job-0", 2.0, size=100, file_name="00000.job-0.png"))
    plan.changed(other, plan.end_of(other).picture._replace(size=150))
    first, second = (json.loads(text) for text in metadata_lines(plan))
    assert (first["file_name"], second["size"]) == ("00000.job-0.png", 150)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_sidecar_that_cannot_be_read_is_not_bought_over(overwrite):
    plan = planned(1, found={0: Found(has_file=True, problem="it is no JSON")}, overwrite=overwrite)
    assert plan.next() is None
    assert isinstance(plan.error, RequestInvalid)
    assert "its sidecar cannot be read: it is no JSON" in plan.error.message
