# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""When the first look is worth its while."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pictory_provider.jobs.foresight import ENOUGH, MEMORY, MOST_JOBS, Foresight


def known(*brackets, at=0.0):
    foresight = Foresight()
    for ran_for, ended_within in brackets:
        foresight.note(at, ran_for=ran_for, ended_within=ended_within)
    return foresight


def test_a_few_jobs_tell_nothing():
    assert known(*[(60, 75)] * (ENOUGH - 1)).first_look(0) == 0
    assert known(*[(60, 75)] * ENOUGH).first_look(0) == 61.5


def test_one_job_in_ten_may_have_ended_before_the_first_look():
    jobs = [(ran_for, ran_for + 15) for ran_for in range(100)]
    assert known(*jobs).first_look(0) == pytest.approx(11.5)


def test_one_quick_job_among_many_changes_nothing():
    assert known((0, 5), *[(60, 75)] * 20).first_look(0) == 61.5


def test_quicker_jobs_draw_the_first_look_nearer():
    foresight = known(*[(60, 75)] * 20)
    for _ in range(3):
        seen_at = foresight.first_look(1)
        foresight.note(1, ran_for=seen_at - 15, ended_within=seen_at)
    assert foresight.first_look(1) < 50


@pytest.mark.parametrize(
    ("ran_until", "seconds"),
    [(1_045.0, 46.5), (None, 16.5)],
    ids=["between the last look that saw it running and this one", "before a first look that came hours late"],
)
def test_the_end_of_a_job_is_placed_by_what_was_seen(ran_until, seconds):
    foresight, now = Foresight(), 1_060.0 if ran_until else 9_000.0
    for _ in range(ENOUGH):
        foresight.note_end(now, started_at=1_000.0, first_look_at=1_030.0, ran_until=ran_until, poll_interval=15.0)
    assert foresight.first_look(now) == pytest.approx(seconds)


def test_what_is_an_hour_old_is_forgotten():
    foresight = known(*[(60, 75)] * 20, at=100)
    assert foresight.first_look(99 + MEMORY) == 61.5
    assert foresight.first_look(100 + MEMORY) == 0


def test_memory_has_an_end():
    foresight = known(*[(60, 75)] * MOST_JOBS, (10, 25))
    assert len(foresight._known) == len(foresight._sorted) == MOST_JOBS


@given(st.lists(st.tuples(st.floats(0, 1_000), st.floats(0, 100), st.floats(0, 600)), min_size=ENOUGH))
def test_the_first_look_is_never_later_than_what_nine_in_ten_jobs_took(jobs):
    foresight, now, ends = Foresight(), 0.0, []
    for ran_for, more, later in jobs:
        now += later
        foresight.note(now, ran_for=ran_for, ended_within=ran_for + more)
        ends.append((now, ran_for + more))
    living = [end for at, end in ends if at > now - MEMORY]
    first = foresight.first_look(now)
    assert sum(1 for end in living if end < first) <= len(living) / 10
