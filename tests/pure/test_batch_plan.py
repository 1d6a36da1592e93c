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
    ImageInvalid,
    PictoryError,
    ProtocolError,
    RateLimited,
    RequestInvalid,
    StorageFailed,
    SubmitOutcomeUnknown,
    Unavailable,
)
from pictory_provider.api.timing import TIMING
from pictory_provider.batch import stopping
from pictory_provider.batch.decision import Found, Picture, Place
from pictory_provider.batch.entries import Header
from pictory_provider.batch.manifest import column_names, failed_lines, metadata_lines
from pictory_provider.batch.opening import open_batch
from pictory_provider.batch.plan import MAX_IN_FLIGHT, MOST_UNKNOWN, MOST_WAITED_FOR, WAVE, Buy, Plan, Wait
from pictory_provider.batch.progress import is_worth_telling, line, progress
from pictory_provider.batch.rows import RowMaker
from pictory_provider.batch.tables import records_of
from pictory_provider.batch.waking import WAKE_FOR, wake_at
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


def later(plan, **more):
    """Take up, in another try, what a plan has left on record, and write what that changes."""
    after = taken_up(plan, **more)
    after.journal.writes()
    return after


def taken_up(plan, *, found=None, rows=None, max_tries=2, is_leg=False, **more):
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
    return Plan(opening, found or {}, **more)


def test_a_clear_buys_a_row_whose_job_of_before_it_proves_to_have_failed():
    plan = planned(2)
    buy_all(plan)
    cleared, retried = later(plan, max_tries=3), later(plan)
    for after, place in ((cleared, Place.TO_DO), (retried, Place.FAILED)):
        after.next()
        after.failed(after.rows[0], "BAD", "it failed")
        assert after.end_of(after.rows[0]).place is place
        assert [row.index for row in after.missing] == ([0] if place is Place.TO_DO else [])
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
    assert "The last: the disk is full of 7" in plan.error.message
    assert (plan.counts[Place.FAILED], plan.counts[Place.NOT_BOUGHT], plan.next()) == (8, 32, None)


def test_a_picture_that_is_saved_ends_the_count():
    plan = planned(40)
    buy_all(plan)
    lose(plan, range(7))
    plan.saved(plan.rows[7], Picture("job-7"))
    assert plan.journal.header.unsaved == 0
    lose(plan, range(8, 15))
    assert (plan.error, plan.journal.header.unsaved) == (None, 7)


def test_a_picture_that_is_saved_after_all_is_owed_no_longer():
    plan = planned(1)
    buy_all(plan)
    lose(plan, [0])
    assert plan.journal.get(plan.rows[0].key).is_owed
    plan.saved(plan.rows[0], Picture("job-0"))
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
    for more in ({"is_leg": True}, {}):
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
    assert (len(waited.tickets), len(plan.missing), plan.error) == (8, 32, None)
    lose(plan, range(7))
    assert isinstance(plan.next(), Wait), "the last of them may be saved yet"
    plan.saved(plan.rows[7], Picture("job-7"))
    assert plan.journal.header.unsaved == 0
    assert buy(plan) == list(range(8, 16))


def test_a_retry_that_can_save_none_of_them_either_buys_nothing_and_names_the_last():
    plan = later(lost_eight())
    lose(plan, range(7))
    lose(plan, [7], "ImageInvalid")
    assert plan.next() is None
    assert isinstance(plan.error, ImageInvalid)
    assert "The last: the disk is full of 7" in plan.error.message
    assert (plan.counts[Place.NOT_BOUGHT], plan.journal.header.unsaved) == (32, 8)
    assert isinstance(stopping.read(plan.journal.header.stopped), ImageInvalid)


def test_where_none_is_left_that_could_be_saved_one_picture_is_bought_alone_and_waited_for():
    plan = later(lost_eight())
    lose(plan, range(8), "JobCleaned", adoptable=False)
    assert plan.error is None
    assert buy(plan) == [8]
    assert [ticket.job_id for ticket in plan.next().tickets] == ["job-8"]
    lose(plan, [8])
    assert isinstance(plan.error, StorageFailed)
    assert (plan.counts[Place.NOT_BOUGHT], plan.next()) == (31, None)


def test_a_picture_that_was_bought_alone_and_is_saved_lets_all_others_be_bought():
    plan = later(lost_eight())
    lose(plan, range(8), "JobCleaned", adoptable=False)
    buy(plan)
    plan.saved(plan.rows[8], Picture("job-8"))
    plan.journal.writes()
    assert buy(plan) == list(range(9, 17))


def test_a_job_that_only_runs_on_shows_nothing_so_one_more_picture_is_tried_beside_it():
    plan = planned(40)
    buy(plan)
    lose(plan, range(8), "WaitTimeout")
    plan.journal.writes()
    plan = later(plan)
    assert len(plan.tickets) == 8
    assert buy(plan) == [8]
    assert isinstance(plan.next(), Wait)
    lose(plan, range(8), "WaitTimeout")
    assert plan.error is None, "it is still waited for"
    lose(plan, [8])
    assert isinstance(plan.error, StorageFailed)


def test_jobs_that_run_on_for_another_try_let_one_picture_be_bought():
    plan = planned(40)
    buy(plan)
    lose(plan, range(8), "WaitTimeout")
    plan.journal.writes()
    plan = later(plan)
    lose(plan, range(8), "WaitTimeout")
    assert buy(plan) == [8]


def test_a_clear_begins_to_count_anew():
    plan = later(lost_eight(), max_tries=3)
    assert (plan.journal.header.unsaved, len(plan.tickets)) == (0, 8)
    assert buy(plan) == list(range(8, 16))


# What is left unknown ------------------------------------------------------------------------------------


def test_the_sizes_of_waves_and_waits_are_those_that_the_docs_give():
    assert (WAVE, MOST_UNKNOWN, MAX_IN_FLIGHT, MOST_WAITED_FOR) == (8, 8, 200, 1_000)


def test_what_earlier_tries_have_left_unknown_does_not_keep_a_retry_from_buying():
    plan = planned(40)
    unknown = SubmitOutcomeUnknown.because("cut")
    buy(plan, dict.fromkeys(range(8), unknown))
    assert plan.next() is None
    plan = later(plan)
    assert (plan.counts[Place.UNKNOWN], plan.error) == (8, None)
    assert len(buy(plan, {8: unknown})) == 8
    assert len(buy(plan)) == 7


def test_a_row_that_is_sent_again_although_nobody_knows_is_marked_and_sent_once():
    unknown = SubmitOutcomeUnknown.because("cut")
    plan = planned(1, resubmit=True)
    assert buy(plan, {0: unknown}) == [0]
    assert plan.journal.get(plan.rows[0].key).again is False
    assert (plan.counts[Place.TO_DO], plan.counts[Place.UNKNOWN]) == (1, 0)
    assert buy(plan, {0: unknown}) == [0]
    assert plan.journal.get(plan.rows[0].key).again is True
    assert (plan.next(), plan.counts[Place.UNKNOWN]) == (None, 1)
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


def test_without_being_told_to_a_row_of_unknown_outcome_is_sent_once():
    plan = planned(2)
    buy(plan, {0: SubmitOutcomeUnknown.because("cut")})
    assert (plan.counts[Place.UNKNOWN], len(plan.missing)) == (1, 0)


def test_a_row_of_unknown_outcome_stays_unknown_where_purchases_are_stopped():
    plan = planned(20)
    buy(plan, {0: SubmitOutcomeUnknown.because("cut")})
    plan = later(plan, resubmit=True)
    assert [row.index for row in plan.missing] == [0, *range(8, 20)]
    plan.stop(PictoryError("enough"))
    assert plan.end_of(plan.rows[0])[:1] + plan.end_of(plan.rows[0])[4:6] == (
        Place.UNKNOWN,
        "SUBMIT_OUTCOME_UNKNOWN",
        "cut",
    )
    assert plan.end_of(plan.rows[9])[:1] + plan.end_of(plan.rows[9])[4:6] == (
        Place.NOT_BOUGHT,
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
    plan.intend(wave, [Purchase(5.0 + row.index, 2.0, row.index, 7.0) for row in wave.rows])
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
    assert (plan.missing, plan.counts[Place.NOT_BOUGHT]) == ([], 20)
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
    assert plan.end_of(wave.rows[0]).place is Place.FAILED


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
        lambda: plan.saved(wave.rows[0], Picture("job-0")),
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


def test_what_lies_in_the_folder_can_be_found_out_again_and_is_not_urgent():
    plan = planned(1)
    buy_all(plan)
    there = Found(state="saved", asked=plan.rows[0].asked, job_id="job-0", has_file=True, picture=Picture("job-0"))
    plan = taken_up(plan, found={"00000.png": there})
    assert (plan.journal.get(plan.rows[0].key).state, plan.journal.is_urgent) == ("saved", False)


def test_when_the_time_of_a_job_begins_is_not_urgent():
    there = Found(state="bought", asked={"prompt": "A lamp 0", "model": "seedream3.0"}, job_id="k")
    plan = planned(1, found={0: there})
    plan.still_running(plan.rows[0], since=50.0)
    assert (plan.journal.is_changed, plan.journal.is_urgent) == (True, False)


def test_a_picture_that_is_saved_changes_its_page_alone():
    plan = planned(2)
    buy(plan)
    plan.saved(plan.rows[0], Picture("job-0"))
    assert [write.name for write in plan.journal.writes()] == [".pictory/1-00000.json"]


def test_what_is_on_record_of_a_row_follows_what_became_of_it():
    plan = planned(4)
    buy(plan, {3: RequestInvalid("bad words", status=400, code="BAD")})
    one, two, three, four = plan.rows
    plan.saved(one, Picture("job-0"))
    plan.failed(two, "WaitTimeout", "still running", adoptable=True)
    plan.unknown(three, "Pictory knows no job-2")
    told = [
        (entry.state, entry.job_id, entry.code, entry.message, entry.adoptable, entry.submitted_at)
        for entry in map(plan.journal.get, (one.key, two.key, three.key, four.key))
    ]
    assert told == [
        ("saved", "job-0", None, None, False, 2.0),
        ("failed", "job-1", "WaitTimeout", "still running", True, 2.0),
        ("unknown", None, None, "Pictory knows no job-2", False, 2.0),
        ("failed", None, "BAD", "bad words", False, None),
    ]
    assert plan.end_of(two) == (Place.FAILED, "job-1", None, None, "WaitTimeout", "still running", False)
    assert plan.pictures == [Picture("job-0")]


def test_the_first_reason_to_stop_stays_on_record():
    plan = planned(20)
    plan.stop(PictoryError("the budget is used up"))
    plan.stop(PictoryError("later"))
    assert stopping.read(plan.journal.header.stopped).message == "the budget is used up"


def test_a_row_of_before_a_clear_whose_job_has_failed_is_not_bought_where_purchases_are_stopped():
    plan = planned(2)
    buy_all(plan)
    plan = later(plan, max_tries=3)
    plan.stop(PictoryError("enough"))
    plan.failed(plan.rows[0], "BAD", "it failed")
    assert (plan.end_of(plan.rows[0]).place, plan.missing) == (Place.FAILED, [])


def test_a_wait_is_for_the_oldest_jobs_and_those_of_unknown_time_come_first():
    there = Found(state="bought", asked={"prompt": "A lamp 1", "model": "seedream3.0"}, job_id="k")
    plan = planned(3, found={1: there})
    wave = announced(plan)
    plan.journal.writes()
    plan.answered(wave.rows[0], "late", 9.0)
    plan.answered(wave.rows[1], "early", 3.0)
    assert [ticket.job_id for ticket in plan.next().tickets] == ["k", "early", "late"]


def test_a_left_over_job_that_this_try_could_not_save_is_left_for_the_next():
    plan = planned(2)
    buy_all(plan)
    new = RowMaker(conn_id="c").rows(records_of(["Another lamp"]))
    plan = later(plan, rows=new, max_tries=3)
    (row, *_) = (ticket.row for ticket in plan.tickets.values())
    plan.failed(row, "StorageFailed", "the disk is full", adoptable=True)
    assert (progress(plan)["failed"], len(plan.tickets)) == (0, 1)
    plan.journal.writes()
    assert len(later(plan, max_tries=3, is_leg=True).tickets) == 1
    assert len(later(plan, max_tries=3).tickets) == 2


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
    assert stopping.stops_buying(error) is stops


@pytest.mark.parametrize(
    ("code", "lacks"), [(None, False), ("", False), ("CREDITS", True), ("low_credit", True), ("CRED", False)]
)
def test_a_lack_of_credits_is_told_by_the_code(code, lacks):
    assert stopping.lacks_credits(code) is lacks


def test_a_lack_of_credits_is_named_with_what_pictory_said():
    error = stopping.no_credits("NO_CREDITS", "buy more")
    assert (error.message, error.code, error.status) == (
        "Pictory has too few AI credits: buy more",
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
    assert stopping.plain(error) == kept
    found = stopping.read(json.loads(json.dumps(kept)))
    assert (type(found), found.message, getattr(found, "code", None)) == (type(error), "m", kept["code"])
    assert stopping.code_of(found) == code


def test_a_reason_to_stop_of_a_later_release_is_one_too():
    found = stopping.read({"kind": "JobExploded", "message": "m"})
    assert (type(found), found.message) == (PictoryError, "m")
    assert stopping.read({"kind": "RequestInvalid", "message": "m", "code": 7}).code is None


@pytest.mark.parametrize(
    ("number", "more"), [(10, ""), (11, "\n    and 1 more."), (1_011, "\n    and 1,001 more.")]
)
def test_the_first_ten_places_that_are_taken_are_named(number, more):
    error = planned(number, found={n: Found(has_file=True) for n in range(number)}).error
    assert error.fields == ("path", "file_name")
    assert f"In the places of {number:,} rows lies something else." in error.message
    told = "    row 9, 00009.png: a file lies there that has no sidecar to say what it is."
    assert error.message.endswith(told + more)
    assert "row 10," not in error.message


# What is told --------------------------------------------------------------------------------------------


def test_a_progress_of_nothing_is_a_line_too_and_large_numbers_have_commas():
    nothing = progress(planned(1)) | {"to_do": 0, "of": 0}
    assert line(nothing) == "0 pictures: none; 0 AI credits used"
    told = {**nothing, "of": 12_000, "waiting": 10_500, "not_bought": 1_500, "ai_credits_used": 0.6}
    assert line(told) == "12,000 pictures: 10,500 waiting, 1,500 not bought; 0.6 AI credits used"


def test_a_picture_whose_credits_are_not_known_costs_nothing_in_a_progress():
    plan = planned(2)
    buy(plan)
    plan.saved(plan.rows[0], Picture("job-0"))
    plan.saved(plan.rows[1], Picture("job-1", 1.005))
    assert progress(plan)["ai_credits_used"] == 1.0
    assert TIMING.progress_interval == 5


@pytest.mark.parametrize(
    ("of", "ended", "at"),
    [(100, 99, 90), (100, 100, 30), (101, 100, 30), (2, 1, 90), (1, 1, 30), (99, 98, 90), (99, 99, 30)],
)
def test_a_hundred_or_all_are_enough_to_wake_a_worker_at_once(of, ended, at):
    assert WAKE_FOR == 100
    assert wake_at(not_before=0.0, of=of, ended=ended, first_ended_at=30.0) == at


@pytest.mark.parametrize(("of", "ended", "at"), [(2, 1, math.inf), (2, 2, 8), (2, 3, 8)])
def test_where_nobody_knows_when_the_first_has_ended_a_worker_wakes_for_all(of, ended, at):
    assert wake_at(not_before=8.0, of=of, ended=ended, first_ended_at=None) == at


def test_each_row_without_a_picture_is_told_with_what_to_do():
    plan = planned(4)
    buy(plan, {1: RequestInvalid("bad", status=400, code="BAD"), 2: SubmitOutcomeUnknown.because("cut")})
    plan.failed(plan.rows[0], "WaitTimeout", "still running", adoptable=True)
    told = [json.loads(text) for text in failed_lines(plan)]
    assert [list(one) for one in told] == [
        ["file_name", "text", "n", "index", "line", "job_id", "model", "state", "code", "message", "what_to_do"]
    ] * 4
    assert [(one["index"], one["job_id"], one["model"], one["state"], one["code"]) for one in told] == [
        (0, "job-0", "seedream3.0", "failed", "WaitTimeout"),
        (1, None, "seedream3.0", "failed", "BAD"),
        (2, None, "seedream3.0", "unknown", "SUBMIT_OUTCOME_UNKNOWN"),
        (3, "job-3", "seedream3.0", "waiting", None),
    ]
    assert ["" if one["what_to_do"] is None else one["what_to_do"].split()[0] for one in told] == [
        "Correct",
        "Correct",
        "Look",
        "",
    ]
    stopped = planned(1)
    stopped.stop(PictoryError("enough"))
    (one,) = map(json.loads, failed_lines(stopped))
    assert one["what_to_do"] == "Nothing was spent on it. Mend what the message says, and clear the task."
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
    ],
)
def test_a_column_that_has_the_name_of_a_field_is_called_otherwise(columns, names):
    plan = planned(requests=[{"prompt": "A lamp", **dict.fromkeys(columns, 1)}])
    assert column_names(plan) == dict(zip(columns, names, strict=True))
