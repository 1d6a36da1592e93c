# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The rate limiter of polls: its rate on any network, pauses for all jobs, and its warnings."""

from __future__ import annotations

import heapq
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pictory_provider.api.connection import MAX_CONNECTIONS
from pictory_provider.api.timing import TIMING
from pictory_provider.core.polling import DEFERRAL_SLACK
from pictory_provider.core.rate_limit import BEAT, PollDemand, RateLimiter


def play(limiter, latencies, arrive=lambda latency: latency, until=math.inf):
    """Send polls as fast as the limiter allows; return when they were sent and when they arrived."""
    now, went, arrived, flying = 0.0, [], [], []
    for latency in latencies:
        while (at := limiter.next_at(now)) > now:
            answer = flying[0] if flying else math.inf
            now = min(at, answer)
            if now == answer:
                limiter.answered(heapq.heappop(flying))
        if now > until:
            break
        limiter.go(now)
        went.append(now)
        arrived.append(now + arrive(latency))
        heapq.heappush(flying, now + latency)
    return went, sorted(arrived)


def most_in_any_second(times):
    return max(sum(1 for later in times[i:] if later < at + 1 - 1e-9) for i, at in enumerate(times))


@given(
    rate=st.floats(0.2, 40),
    polls=st.lists(st.tuples(st.floats(0, 5), st.floats(0, 1)), min_size=30, max_size=120),
)
def test_no_second_sees_more_than_the_rate_however_the_network_delays_looks_and_answers(rate, polls):
    shares = iter([share for _, share in polls])
    _, arrived = play(
        RateLimiter(rate), [latency for latency, _ in polls], arrive=lambda latency: latency * next(shares)
    )
    assert most_in_any_second(arrived) <= math.ceil(rate)


def test_a_fraction_of_a_poll_in_a_second_is_a_poll_in_some_seconds():
    went, _ = play(RateLimiter(0.25), [0.0] * 5)
    assert went == [0, 4, 8, 12, 16]


def test_quick_answers_let_nearly_the_whole_rate_go():
    went, _ = play(RateLimiter(10), [0.02] * 1000, until=20)
    assert 9.5 <= len(went) / 20 <= 10


def test_polls_go_evenly_and_a_group_makes_up_for_one_beat_at_most():
    went, _ = play(RateLimiter(100), [0.01] * 200)
    assert sum(1 for at in went if at == 0) == pytest.approx(100 * BEAT, abs=1)
    assert went[40] - went[39] == pytest.approx(0.01)


def test_a_slow_pictory_is_asked_less():
    went, _ = play(RateLimiter(10), [4.0] * 300, until=100)
    assert len(went) / 100 == pytest.approx(10 / (4 + 1), rel=0.1)


def test_no_more_polls_are_under_way_than_there_are_connections():
    limiter = RateLimiter(1_000)
    for _ in range(MAX_CONNECTIONS):
        limiter.go(0.0)
    assert limiter.next_at(100.0) == math.inf
    limiter.answered(100.0)
    assert limiter.next_at(100.0) <= 100.0


def test_one_pause_stops_all_polls_and_the_longest_of_several_counts():
    limiter = RateLimiter(10)
    limiter.pause(100.0, 30)
    limiter.pause(101.0, 5)
    assert limiter.next_at(102.0) == 130.0
    assert limiter.next_at(131.0) <= 131.0


def test_no_pause_outlasts_the_time_that_airflow_leaves_for_the_last_poll():
    limiter = RateLimiter(10)
    limiter.pause(0.0, 86_400)
    assert limiter.next_at(0.0) == TIMING.poll_pause_max < DEFERRAL_SLACK


def test_a_lowered_rate_holds_at_once():
    limiter = RateLimiter(10)
    for _ in range(10):
        limiter.go(0.0)
        limiter.answered(0.0)
    limiter.requests_per_second = 2
    assert limiter.next_at(0.5) == 1.0
    limiter.go(1.0)
    limiter.answered(1.0)
    limiter.go(1.5)
    limiter.answered(1.5)
    assert limiter.next_at(1.6) >= 2.0


def join(demand, number, poll_interval=15.0, timeout=1_200.0):
    return [line for _ in range(number) for line in demand.join(poll_interval, timeout)]


def test_a_demand_that_the_rate_can_serve_gives_no_warning():
    demand = PollDemand(RateLimiter(10))
    assert join(demand, 150) == []


@pytest.mark.parametrize("poll_interval", [0.5, 1.0, 2.0])
def test_a_demand_that_just_fills_the_rate_gives_no_warning(poll_interval):
    rate = 4 / poll_interval
    demand = PollDemand(RateLimiter(rate))
    assert join(demand, 4, poll_interval, timeout=0.1) == []
    assert len(join(demand, 1, poll_interval, timeout=0.1)) >= 1


def test_a_job_without_an_interval_asks_for_nothing():
    demand = PollDemand(RateLimiter(1))
    assert join(demand, 100, poll_interval=0) == []
    assert join(demand, 1, poll_interval=1) == []


def test_intervals_that_stretch_are_reported_once():
    demand = PollDemand(RateLimiter(10))
    (line,) = join(demand, 1_000)
    assert "181 jobs wait, and requests_per_second is 10" in line
    assert "about every 18 s instead of every 15 s" in line
    assert demand.interval == 100


def test_timeouts_that_are_shorter_than_a_round_of_polls_are_reported_once():
    demand = PollDemand(RateLimiter(10))
    lines = join(demand, 13_000)
    assert len(lines) == 2
    assert "12,001 jobs wait" in lines[1]
    assert "waits for 1,200 s in all" in lines[1]
    assert "Raise requests_per_second" in lines[1]


def test_jobs_that_have_ended_count_no_longer():
    demand = PollDemand(RateLimiter(10))
    for _ in range(1_000):
        join(demand, 1)
        demand.leave(15.0)
    assert join(demand, 1) == []


def test_jobs_that_ask_rarely_fill_no_rate():
    demand = PollDemand(RateLimiter(10))
    assert join(demand, 300, poll_interval=60) == []


def test_intervals_are_reported_when_they_have_stretched_by_more_than_a_fifth():
    demand = PollDemand(RateLimiter(10))
    assert join(demand, 120, poll_interval=10) == []
    assert demand.interval == 12
    (line,) = join(demand, 1, poll_interval=10)
    assert line == (
        "121 jobs wait, and requests_per_second is 10: each is polled about every 12 s instead of every 10 s."
    )


def test_a_timeout_that_just_holds_a_round_of_polls_gives_no_warning():
    demand = PollDemand(RateLimiter(10))
    assert len(join(demand, 1_000, poll_interval=10, timeout=100)) == 1
    (line,) = join(demand, 1, poll_interval=10, timeout=100)
    assert "1,001 jobs wait" in line
    assert "one of them waits for 100 s in all" in line
    assert join(demand, 100, poll_interval=10, timeout=1) == []


def test_a_job_that_has_ended_leaves_its_place_and_what_it_requested():
    demand = PollDemand(RateLimiter(1))
    join(demand, 2, poll_interval=2)
    assert demand.interval == 2
    demand.leave(2)
    assert demand.interval == 1
    demand.leave(2)
    assert (demand.interval, join(demand, 2, poll_interval=2)) == (0, [])


def test_the_next_poll_goes_at_the_rate_and_a_late_one_makes_up_for_one_beat():
    limiter = RateLimiter(2)
    assert limiter.next_at(10.0) <= 10
    limiter.go(10.0)
    assert limiter.next_at(10.0) == pytest.approx(10.0 - BEAT + 0.5)
    limiter.answered(10.1)
    limiter.go(10.4)
    assert limiter.next_at(10.5) == 11.1, "a second after the first answer"
    limiter.answered(10.5)
    assert limiter.next_at(10.6) == 11.1


def test_a_place_is_free_again_a_second_after_its_answer_and_not_before():
    limiter = RateLimiter(1)
    limiter.go(0.0)
    assert limiter.next_at(50.0) == math.inf
    limiter.answered(50.0)
    assert limiter.next_at(50.5) == 51
    assert limiter.next_at(51.0) <= 51
    limiter.go(51.0)
    limiter.answered(51.0)
    assert limiter.next_at(51.5) == 52


def test_a_rate_between_two_whole_numbers_has_the_places_of_the_next():
    limiter = RateLimiter(1.5)
    limiter.go(0.0)
    limiter.go(0.0)
    assert limiter.next_at(0.0) == math.inf
    limiter.answered(0.0)
    assert limiter.next_at(1.0) == pytest.approx(2 / 1.5)
    assert limiter.requests_per_second == 1.5


def test_a_rate_that_was_lowered_waits_until_no_more_places_are_taken_than_there_are():
    limiter = RateLimiter(3)
    for at in (1.0, 2.0, 3.0):
        limiter.go(0.0)
        limiter.answered(at)
    limiter.requests_per_second = 1
    assert limiter.next_at(1.5) == 4, "only the last of the three leaves a place"
    limiter.go(1.5)
    assert limiter.next_at(1.5) == math.inf


def test_a_pause_ends_and_is_no_longer_than_two_minutes():
    limiter = RateLimiter(10)
    limiter.pause(100.0, 7)
    assert limiter.next_at(100.0) == 107
    limiter.pause(100.0, 121)
    assert limiter.next_at(100.0) == 220
    assert TIMING.poll_pause_max == 120


def test_groups_of_polls_go_five_times_a_second_at_most():
    assert BEAT == 0.2
