# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The benchmarks measure what they say: another server, over TLS with a private authority, sees whole waits."""

from __future__ import annotations

import itertools

import pytest

from benchmarks import schedule
from benchmarks.pictory import running
from benchmarks.styles import STYLES
from benchmarks.waiting import run


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.mark.parametrize("style", STYLES)
def test_every_style_waits_until_its_jobs_have_ended(server, style):
    jobs = [(0.1, 0.7)] * 10
    cost = run(server, style, jobs=jobs, interval=0.5, first=0, rate=20, window=None)
    assert 10 <= cost["looks"] <= 40
    assert cost["cpu"] > 0
    if style == "this provider":
        assert cost["most looks in any second"] <= 20


def test_the_windows_of_all_styles_count_looks_and_lag(server):
    jobs = [(0.1, 100)] * 10
    cost = run(server, "this provider", jobs=jobs, interval=0.2, first=0, rate=100, window=0.5, settle=0.5)
    assert cost["looks"] > 0
    assert len(cost["lag"]) == 3


def test_no_rule_looks_sooner_or_closer_than_is_polite():
    for make in (schedule.Rule, lambda: schedule.Learned("any", 0.1, 50)):
        looks = make().looks(0.0)
        times = [next(looks) for _ in range(5)]
        assert times[0] >= schedule.SOONEST
        assert all(later - at >= schedule.SOONEST for at, later in itertools.pairwise(times))


def test_the_rule_that_was_built_is_the_one_that_was_simulated():
    from pictory_provider.jobs.foresight import ENOUGH, Foresight

    rule, built = schedule.Learned("a tenth of the last hour", 0.1, 4_000), Foresight()
    for number in range(60):
        looks = [15.0 * n for n in range(1, 3 + number % 7)]
        rule.learn(100.0 * number, looks)
        built.note(100.0 * number, ran_for=looks[-2], ended_within=looks[-1])
        if number >= ENOUGH:
            simulated = next(rule.looks(100.0 * number))
            assert simulated == max(schedule.SOONEST, built.first_look(100.0 * number))
