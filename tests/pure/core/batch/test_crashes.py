# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A batch that may die at any step, and the attempts that follow it: no row is bought twice, and none is forgotten.

The executor here is a toy: a folder and a Pictory that are dictionaries. What it does is what a worker has to do
with a plan, in that order, and it dies between any two steps that leave a trace.
"""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pictory_provider.api.errors import (
    AuthenticationError,
    RateLimited,
    RequestInvalid,
    SubmitOutcomeUnknown,
    Unavailable,
)
from pictory_provider.core.batch.decision import RowState
from pictory_provider.core.batch.journal import HEADER, Header, Journal, page_name
from pictory_provider.core.batch.manifest import failed_lines, metadata_lines
from pictory_provider.core.batch.plan import MOST_UNKNOWN, WAVE, Plan, SubmitWave, progress
from pictory_provider.core.batch.resume import open_batch
from pictory_provider.core.ledger import Charge
from tests.pure.core.batch.existing import SIZE, existing, row_image
from tests.pure.core.batch.tables import built, checked, rows_of

MADE_BY = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": None}
REFUSALS = {
    "refused": RequestInvalid("no", status=400),
    "no key": AuthenticationError("no", status=401),
    "no credits": RequestInvalid("no", status=402),
    "too fast": RateLimited("no"),
}
ANSWERS = ("accepted", "accepted", "accepted", "accepted", "lost", "away", *REFUSALS)
ENDS = ("completed", "completed", "completed", "running", "failed", "late", "not saved")


def table(size, first=0, width=5):
    named = [{"sku": f"{number:0{width}d}"} for number in range(first, first + size)]
    return rows_of(named, prompt="A lamp {sku}", file_name="{sku}.png")


def table_with_gaps(size, gaps):
    """Return the table of :func:`table` with rows between that are left out.

    :param gaps: of each row, what stands before it: ``blank`` and ``bad`` rows.
    """
    listed = []
    for number in range(size):
        before = gaps[number] if number < len(gaps) else []
        listed += [{"sku": "" if kind == "blank" else "a/../b"} for kind in before]
        listed.append({"sku": f"{number:05d}"})
    return built(listed, prompt="A lamp {sku}", file_name="{sku}.png", skip_blank="sku", on_bad_row="skip")


class DiedError(BaseException):
    pass


class World:
    """A folder, and a Pictory. Both outlive the workers."""

    def __init__(self, answers=(), ends=()):
        self.record = {}
        self.sidecars = {}
        self.files = {}
        self.jobs = {}
        self.accepted = []
        self.settled = set()
        self.finished = set()
        self.answers = iter(answers)
        self.ends = iter(ends)
        self.steps = None
        self.max_tries = 2

    def step(self):
        if self.steps is not None:
            self.steps -= 1
            if self.steps < 0:
                raise DiedError

    def write(self, plan):
        for name, value in plan.journal.writes():
            self.step()
            self.record[name] = json.dumps(value)

    def header(self):
        kept = self.record.get(HEADER)
        return None if kept is None else json.loads(kept)

    def pages(self):
        header = Header.from_dict(self.header())
        if header is None:
            return {}
        names = {page_name(header.generation, page): page for page in range(100)}
        return {names[name]: json.loads(value) for name, value in self.record.items() if name in names}

    def found(self, rows):
        found = {}
        for row in rows:
            sidecar, file = self.sidecars.get(row.file_name), self.files.get(row.file_name)
            if sidecar or file:
                job_id = sidecar and sidecar["job_id"]
                found[row.file_name] = existing(
                    state="saved" if sidecar else None,
                    request=sidecar and sidecar["request"],
                    job_id=job_id,
                    size=None if file is None else SIZE if file == job_id else SIZE + 1,
                    ai_credits_used=2.0,
                )
        return found

    def open(self, rows, *, is_resumed=False, made_by=MADE_BY, **flags):
        resumed = open_batch(
            self.header(),
            self.pages(),
            checked(rows) if isinstance(rows, list) else rows,
            folder="/f",
            made_by=made_by,
            max_tries=self.max_tries,
            retries=2,
            is_resumed=is_resumed,
        )
        plan = Plan(resumed, self.found(resumed.rows), **flags)
        return resumed, plan

    def post(self, row):
        self.step()
        answer = next(self.answers, "accepted")
        if answer in ("accepted", "lost"):
            job_id = f"job-{len(self.jobs)}"
            self.jobs[job_id] = row.key
            self.accepted.append((row.key, job_id, answer))
        self.step()
        if answer == "accepted":
            return job_id
        if answer in ("lost", "away"):
            return SubmitOutcomeUnknown.because("the line went dead") if answer == "lost" else Unavailable("503")
        return REFUSALS[answer]

    def try_once(self, rows, *, dies_after=None, runs=True, **flags):
        """Work until the end, or until a crash; return the plan as it was then."""
        self.steps, plan = dies_after, None
        try:
            _, plan = self.open(rows, **flags)
            self.check(plan)
            self.write(plan)
            self.work(plan, rows, runs=runs, flags=flags)
        except DiedError:
            return plan, False
        finally:
            self.steps = None
        return plan, True

    def work(self, plan, rows, *, runs, flags):
        polls = 0
        while (step := plan.next()) is not None:
            if isinstance(step, SubmitWave):
                self.buy(plan, step)
            else:
                polls += 1
                self.poll(plan, step, is_last=polls > 3)
                if runs and plan.pending_jobs:
                    self.write(plan)
                    self.step()
                    _, plan = self.open(rows, is_resumed=True, **flags)
                    self.write(plan)
            self.check(plan)
        lines = [*metadata_lines(plan), *failed_lines(plan)]
        assert len(lines) == len(plan.rows) + len(plan.bad)
        self.step()
        plan.journal.set_header(has_ended=True)
        self.write(plan)
        self.last = plan

    def buy(self, plan, wave):
        assert 0 < len(wave.rows) <= WAVE
        plan.intend(wave, [Charge(1.0, row.request.credits) for row in wave.rows])
        self.write(plan)
        for row in wave.rows:
            if plan.error:
                plan.withdraw(row)
            else:
                plan.answered(row, self.post(row), now=2.0)
        self.check(plan)
        self.write(plan)

    def poll(self, plan, poll, *, is_last):
        for row, job_id, _ in poll.pending_jobs:
            end = "completed" if is_last else next(self.ends, "completed")
            if end == "failed" and job_id in self.finished:
                end = "completed"  # what Pictory has finished stays finished
            self.step()
            if end == "running":
                plan.still_running(row)
            elif end == "failed":
                self.settled.add(job_id)
                plan.failed(row, "BAD", "it failed")
            elif end in ("late", "not saved"):
                plan.failed(row, end, "it takes its time", adoptable=True)
            else:
                self.finished.add(job_id)
                self.files[row.file_name] = job_id
                self.step()
                self.sidecars[row.file_name] = {"job_id": job_id, "request": row.canonical_request}
                self.step()
                plan.saved(row, row_image(job_id, 2.0))
            self.check(plan)

    @staticmethod
    def check(plan):
        now = progress(plan)
        assert sum(now[place.value] for place in RowState) == now["of"] == plan.of
        assert Counter(plan.end_of(row).state for row in plan.rows) + Counter(
            {RowState.NOT_BOUGHT: plan.of - len(plan.rows) - len(plan.bad), RowState.FAILED: len(plan.bad)}
        ) == Counter(dict(plan.counts))
        assert all(count >= 0 for count in plan.counts.values())

    def unknown_keys(self):
        journal = Journal.from_pages(Header.from_dict(self.header()), self.pages()) if self.header() else []
        return {entry.key for entry in journal if entry.state in ("intent", "unknown")}

    def bought(self):
        return Counter(key for key, _, _ in self.accepted)

    def owed(self):
        """The paid jobs whose ids were returned, that can give a picture, and whose picture is not saved."""
        delivered = set(self.files.values())
        return {job for _, job, answer in self.accepted if job not in delivered | self.settled}


sizes = st.integers(1, 120)
answers = st.lists(st.sampled_from(ANSWERS), max_size=60)
ends = st.lists(st.sampled_from(ENDS), max_size=60)
deaths = st.lists(st.integers(0, 260), min_size=1, max_size=4)
slow = settings(max_examples=settings.default.max_examples // 3, suppress_health_check=[HealthCheck.too_slow])


@slow
@given(size=sizes, answers=answers, ends=ends, deaths=deaths, runs=st.booleans())
def test_whatever_dies_retries_buy_no_row_twice_and_forget_none(size, answers, ends, deaths, runs):
    world, rows = World(answers, ends), table(size)
    for steps in deaths:
        before = world.unknown_keys()
        world.try_once(rows, dies_after=steps, runs=runs)
        assert len(world.unknown_keys() - before) <= MOST_UNKNOWN
    world.answers = world.ends = iter(())
    _, is_done = world.try_once(rows)
    assert is_done
    assert max(world.bought().values(), default=0) <= 1
    unknown = world.unknown_keys()
    assert {world.jobs[job] for job in world.owed()} <= unknown
    for row in rows:
        place = world.last.end_of(row).state
        assert place in (RowState.SAVED, RowState.OWED, RowState.FAILED, RowState.UNKNOWN)
        assert (place is RowState.UNKNOWN) == (row.key in unknown)
        assert (place is RowState.SAVED) == (row.file_name in world.files)


@slow
@given(
    size=sizes,
    answers=answers,
    ends=ends,
    tries=st.lists(st.tuples(st.integers(0, 260), st.sampled_from(["retry", "clear"])), min_size=1, max_size=5),
)
def test_a_clear_buys_only_what_has_failed_or_was_unknown_and_in_the_end_every_row_has_its_picture(
    size, answers, ends, tries
):
    world, rows = World(answers, ends), table(size)
    may_be_twice = set()
    for steps, kind in tries:
        if kind == "clear":
            world.max_tries += 1
            may_be_twice |= world.unknown_keys()
        world.try_once(rows, dies_after=steps)
    world.answers = world.ends = iter(())
    may_be_twice |= world.unknown_keys()
    world.max_tries += 1
    _, is_done = world.try_once(rows)
    assert is_done
    assert world.last.counts[RowState.SAVED] + world.last.counts[RowState.REUSED] == size
    assert set(world.files) == {row.file_name for row in rows}
    for key, times in world.bought().items():
        failed = sum(1 for job in world.settled if world.jobs[job] == key)
        assert times <= 1 + failed or key in may_be_twice
    assert {world.jobs[job] for job in world.owed()} <= may_be_twice


@slow
@given(size=sizes, deaths=deaths, answers=answers, clears=st.integers(0, 2))
def test_overwrite_buys_once_a_clear_and_not_once_an_attempt(size, deaths, answers, clears):
    world, rows = World(["accepted" if answer == "lost" else answer for answer in answers]), table(size)
    world.try_once(rows)
    for number in range(clears + 1):
        if number:
            world.max_tries += 1
        for steps in deaths:
            world.try_once(rows, dies_after=steps, overwrite=True)
    unknown = world.unknown_keys()
    assert all(times <= 1 + clears for key, times in world.bought().items() if key not in unknown)


gaps = st.lists(st.lists(st.sampled_from(["blank", "bad"]), max_size=60), max_size=3)


@slow
@given(size=sizes, ends=ends, tries=st.lists(st.tuples(gaps, st.integers(0, 260)), min_size=1, max_size=4))
def test_rows_that_are_left_out_change_nothing_for_the_others_even_if_they_move_them_to_another_page(
    size, ends, tries
):
    world = World(ends=ends)
    in_doubt = set()
    for before, steps in tries:
        world.max_tries += 1
        in_doubt |= world.unknown_keys()
        world.try_once(table_with_gaps(size, before), dies_after=steps)
        world.try_once(table_with_gaps(size, before), dies_after=steps)
    in_doubt |= world.unknown_keys()
    world.ends = iter(())
    world.max_tries += 1
    last = table_with_gaps(size, tries[0][0])
    _, is_done = world.try_once(last)
    assert is_done
    now = progress(world.last)
    assert (now["saved"] + now["reused"], now["failed"], now["skipped"]) == (size, len(last.bad), last.skipped)
    failed = Counter(world.jobs[job] for job in world.settled)
    assert all(times <= 1 + failed[key] for key, times in world.bought().items() if key not in in_doubt)
    assert {world.jobs[job] for job in world.owed()} <= in_doubt


def test_a_row_that_moves_to_an_earlier_page_gets_its_paid_picture_under_its_own_name():
    world = World(ends=["late"] * 8)
    world.try_once(table_with_gaps(1, [["blank"] * 60]))
    assert len(world.owed()) == 1
    world.ends = iter(())
    world.max_tries += 1
    world.try_once(table_with_gaps(1, []))
    assert list(world.files) == ["00000.png"]
    assert len(world.accepted) == 1


def test_overwrite_buys_everything_anew_after_a_clear_and_nothing_at_a_retry():
    world, rows = World(), table(60)
    world.try_once(rows, overwrite=True)
    world.try_once(rows, overwrite=True)
    assert len(world.accepted) == 60
    world.max_tries += 1
    world.try_once(rows, overwrite=True)
    world.try_once(rows, overwrite=True)
    assert len(world.accepted) == 120
    assert world.last.counts[RowState.SAVED] == 60


@slow
@given(old=sizes, new=sizes, first=st.integers(0, 60), steps=st.integers(0, 400), more=deaths, ends=ends)
def test_a_new_table_after_a_clear_still_saves_what_was_paid_for_the_old_one(old, new, first, steps, more, ends):
    world = World(ends=ends)
    world.try_once(table(old), dies_after=steps)
    in_doubt = world.unknown_keys()
    world.max_tries += 1
    for number in more:
        world.try_once(table(new, first), dies_after=number)
        in_doubt |= world.unknown_keys()
    world.ends = iter(())
    _, is_done = world.try_once(table(new, first))
    assert is_done
    assert {world.jobs[job] for job in world.owed()} <= in_doubt
    failed = Counter(world.jobs[job] for job in world.settled)
    assert all(times <= 1 + failed[key] for key, times in world.bought().items() if key not in in_doubt)


@slow
@given(old=sizes, new=sizes, steps=st.integers(0, 400), more=deaths, ends=ends)
def test_a_retry_with_another_table_buys_nothing_and_saves_what_is_on_record(old, new, steps, more, ends):
    world = World(ends=ends)
    world.try_once(table(old), dies_after=steps)
    if world.header() is None:
        return
    paid, in_doubt = len(world.accepted), world.unknown_keys()
    for number in more:
        world.try_once(table(new, 7), dies_after=number)
    world.ends = iter(())
    plan, _ = world.try_once(table(new, 7))
    assert isinstance(plan.error, RequestInvalid)
    assert progress(plan)["of"] == old
    assert len(world.accepted) == paid
    assert {world.jobs[job] for job in world.owed()} <= in_doubt


def test_a_crash_at_every_single_step_leaves_at_most_a_wave_unknown_and_a_clear_mends_it():
    rows = table(12)
    for steps in range(400):
        world = World()
        _, is_done = world.try_once(rows, dies_after=steps)
        if is_done:
            break
        world.try_once(rows)
        assert len(world.unknown_keys()) <= WAVE
        assert max(world.bought().values()) <= 1
        world.max_tries += 1
        world.try_once(rows)
        assert world.unknown_keys() == set()
        assert set(world.files) == {row.file_name for row in rows}
        assert len(world.accepted) <= 12 + WAVE
    else:
        pytest.fail("the batch never ended")


def test_another_run_in_the_same_folder_takes_what_is_there_and_does_not_buy_what_no_user_has_checked():
    world, rows = World(["accepted"] * 3 + ["lost"] + ["accepted"] * 4 + ["refused"]), table(20)
    world.try_once(rows)
    other = {**MADE_BY, "run_id": "tomorrow"}
    world.try_once(rows, made_by=other)
    assert dict(+world.last.counts) == {RowState.REUSED: 18, RowState.SAVED: 1, RowState.UNKNOWN: 1}
    assert max(world.bought().values()) == 1
    world.max_tries += 1
    world.try_once(rows, made_by=other)
    assert dict(+world.last.counts) == {RowState.REUSED: 19, RowState.SAVED: 1}


def test_resubmit_buys_what_is_unknown_once_in_each_attempt():
    world, rows = World(["lost", "away", "lost"]), table(1)
    world.try_once(rows, resubmit=True)
    assert world.last.counts[RowState.UNKNOWN] == 1
    assert len(world.accepted) == 1
    world.try_once(rows, resubmit=True)
    assert world.last.counts[RowState.UNKNOWN] == 1
    assert len(world.accepted) == 2
    world.try_once(rows, resubmit=True)
    assert world.last.counts[RowState.SAVED] == 1


def test_a_day_on_which_every_answer_gets_lost_stops_after_eight_rows():
    world, rows = World(["lost"] * 500), table(100)
    world.try_once(rows)
    assert len(world.accepted) == MOST_UNKNOWN
    assert dict(+world.last.counts) == {RowState.UNKNOWN: MOST_UNKNOWN, RowState.NOT_BOUGHT: 92}
    assert isinstance(world.last.error, SubmitOutcomeUnknown)


@pytest.mark.parametrize("stop", ["no key", "no credits", "too fast"])
def test_what_stops_purchases_lets_what_was_bought_be_saved_and_a_retry_goes_on_there(stop):
    world, rows = World(["accepted"] * 10 + [stop]), table(30)
    world.try_once(rows)
    assert dict(+world.last.counts) == {RowState.SAVED: 10, RowState.NOT_BOUGHT: 20}
    error = world.last.error
    assert (type(error), error.message) == (type(REFUSALS[stop]), "no")
    world.try_once(rows)
    assert dict(+world.last.counts) == {RowState.SAVED: 30}
    assert max(world.bought().values()) == 1
