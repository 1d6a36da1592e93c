# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The decision to wait or finish, with time and chance as arguments."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pictory_provider.api.errors import (
    AuthenticationError,
    EdgeBlocked,
    JobCleaned,
    JobFailed,
    JobNotFound,
    ProtocolError,
    RateLimited,
    RequestInvalid,
    TransportError,
    Unavailable,
    WaitTimeout,
)
from pictory_provider.api.models import Job
from pictory_provider.api.timing import TIMING
from pictory_provider.core.log_throttle import QUIET, LogThrottle
from pictory_provider.core.polling import (
    Finished,
    JobPoller,
    Wait,
    deferral_timeout,
    short_interval_warning,
)
from pictory_provider.provider_info import DEFAULT_POLL_INTERVAL, DEFAULT_TIMEOUT

START = 1_000.0
URL = "https://h/a.png"


def poller(*, timeout=1200.0, interval=15.0, chance=0.0, **more):
    return JobPoller(
        job_id="j",
        started_at=START,
        end_time=START + timeout,
        poll_interval=interval,
        chance=lambda: chance,
        **more,
    )


def job(status="in-progress", **more):
    return Job(job_id="j", status=status, **more)


def test_the_timeout_is_the_time_from_start_to_deadline():
    assert poller(timeout=600).timeout == 600


def test_airflow_may_give_a_deferral_up_three_minutes_after_the_last_poll():
    assert deferral_timeout(600, 15) == 600 + 15 + 180


def polls(count, *, network=0.05, **more):
    """Return when the first polls of a running job come, in seconds after the start."""
    waiting, now, at = poller(**more), START, []
    for _ in range(count):
        now += waiting.after(job(), now).seconds
        at.append(round(now - START))
        now += network
    return at


@pytest.mark.parametrize(
    ("interval", "first_poll", "at"),
    [
        (15, None, [15, 30, 45, 60]),
        (15, 5, [5, 15, 30, 45]),
        (15, 8, [8, 18, 30, 45]),
        (15, 10, [10, 20, 30, 45]),
        (30, 10, [10, 20, 30, 60]),
        (12, 8, [8, 18, 30, 42]),
        (10, 5, [5, 15, 25, 35]),
        (6, 5, [5, 11, 17, 23]),
        (5, 5, [5, 10, 15, 20]),
        (1, 10, [1, 2, 3, 4]),
    ],
)
def test_a_quick_picture_is_polled_early_and_a_slow_one_at_whole_intervals(interval, first_poll, at):
    assert polls(4, interval=interval, first_poll=first_poll) == at


@given(
    interval=st.floats(1, 120), first_poll=st.floats(0, 60), network=st.floats(0, 40), deadline=st.floats(1, 600)
)
def test_after_the_first_poll_none_comes_sooner_than_pictory_recommends_or_later_than_an_interval(
    interval, first_poll, network, deadline
):
    waiting = poller(interval=interval, first_poll=first_poll, timeout=deadline)
    first = waiting.after(job(), START).seconds
    assert first <= interval
    now = START + first
    while isinstance(decision := waiting.after(job(), now), Wait):
        assert min(interval, TIMING.poll_interval_recommended) - 1e-6 <= decision.seconds <= interval
        now += decision.seconds + network


def test_after_a_failure_a_poll_waits_a_whole_interval():
    assert poller(first_poll=5).after(Unavailable("x"), START).seconds == 15


def test_what_is_not_as_usual_is_a_warning():
    usual = poller().after(job(), START)
    for answer in (
        job("hibernating"),
        job("completed"),
        JobNotFound("x"),
        Unavailable("x"),
        AuthenticationError("x"),
    ):
        assert (usual.is_normal, poller().after(answer, START).is_normal) == (True, False), answer


def test_a_wait_polls_every_15_seconds_for_20_minutes_by_default():
    assert (DEFAULT_POLL_INTERVAL, DEFAULT_TIMEOUT) == (15, 1_200)


def test_a_job_is_unknown_for_good_at_the_end_of_its_first_minute():
    assert isinstance(poller().after(JobNotFound("x"), START + 59.9), Wait)
    assert isinstance(poller().after(JobNotFound("x"), START + 60).result, JobNotFound)


def test_a_job_in_progress_waits_for_the_interval():
    decision = poller().after(job(), START)
    assert (decision.seconds, decision.is_normal, decision.stay_in_process) == (15, True, False)


def test_a_completed_job_with_a_url_is_done():
    done = job("completed", url=URL)
    assert poller().after(done, START) == Finished(done)


def test_a_job_completed_long_after_the_deadline_is_a_success():
    done = job("completed", url=URL)
    assert poller().after(done, START + 90_000) == Finished(done)


def test_a_completed_job_without_a_url_has_a_minute_and_is_then_an_error_that_names_the_gallery():
    p = poller()
    assert p.after(job("completed"), START + 100).stay_in_process
    assert isinstance(p.after(job("completed"), START + 145), Wait)
    result = p.after(job("completed"), START + 160).result
    assert isinstance(result, ProtocolError)
    assert "list_images" in result.message


def test_a_url_that_comes_within_its_minute_is_taken():
    p = poller()
    p.after(job("completed"), START)
    assert p.after(job("completed", url=URL), START + 30).job().url == URL


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (job("failed", error_code="POLICY", error_message="not that"), JobFailed),
        (job("completed", url=URL, success=False), JobFailed),
        (job("in-progress", success=False), JobFailed),
        (job("cleaned"), JobCleaned),
        (RequestInvalid("x", status=400), RequestInvalid),
    ],
)
def test_what_cannot_be_fixed_by_polling_again_ends_at_once(answer, error):
    with pytest.raises(error):
        poller().after(answer, START).job()


def test_a_failed_job_carries_what_pictory_said():
    failed = job("failed", error_code="POLICY", error_message="not that.")
    error = poller().after(failed, START).result
    assert error.job is failed
    assert "POLICY: not that. " in error.message


def test_an_unknown_status_waits_with_a_warning_and_never_succeeds():
    p = poller()
    decision = p.after(job("hibernating", url=URL), START)
    assert isinstance(decision, Wait)
    assert not decision.is_normal
    assert isinstance(p.after(job("hibernating", url=URL), START + 1200).result, WaitTimeout)


def test_the_first_poll_past_the_deadline_is_the_last():
    p = poller(timeout=20)
    assert p.after(job(), START + 19.9).seconds == 15
    result = p.after(job(), START + 20).result
    assert isinstance(result, WaitTimeout)
    assert "'in-progress' after 20 s" in result.message
    assert "keeps running at Pictory" in result.message


PASSING = [
    Unavailable("x", status=500),
    RateLimited("x", status=429),
    TransportError("x"),
    ProtocolError("x"),
    EdgeBlocked("x"),
]


@pytest.mark.parametrize("error", PASSING)
def test_nothing_that_may_pass_ends_the_wait_before_the_deadline(error):
    p = poller(timeout=10_000)
    for second in range(0, 9_999, 200):
        assert isinstance(p.after(error, START + second), Wait)


def test_waits_after_faults_grow_and_start_afresh_after_an_answer():
    p = poller()
    assert [p.after(Unavailable("x"), START).seconds for _ in range(4)] == [15, 30, 60, 120]
    p.after(job(), START)
    assert p.after(Unavailable("x"), START).seconds == 15


def test_retry_after_is_heeded_capped_by_the_time_left_and_never_closer_than_the_interval():
    asked = RateLimited("x", retry_after="100")
    assert poller().after(asked, START).seconds == 100
    assert poller(chance=1.0).after(asked, START).seconds == 125
    assert poller(timeout=60).after(asked, START).seconds == 60
    assert poller(timeout=60).after(asked, START + 55).seconds == 15
    assert poller().after(RateLimited("x", retry_after="1"), START).seconds == 15
    assert poller().after(RateLimited("x", retry_after="rubbish"), START).seconds == 15


def test_a_timeout_names_the_last_fault():
    result = poller(timeout=10).after(Unavailable("the house is on fire"), START + 10).result
    assert isinstance(result, WaitTimeout)
    assert "the house is on fire" in result.message


def test_a_timeout_does_not_name_a_fault_that_was_followed_by_an_answer():
    p = poller(timeout=10)
    p.after(Unavailable("the house is on fire"), START)
    assert "fire" not in p.after(job(), START + 10).result.message


def test_a_block_that_lasts_to_the_deadline_is_reported_as_a_block():
    blocked = EdgeBlocked("user_agent")
    assert poller(timeout=10).after(blocked, START + 10).result is blocked


def test_a_refused_key_is_read_again_once_and_ends_the_second_time():
    p = poller()
    refused = AuthenticationError("401", status=401)
    first = p.after(refused, START)
    assert first.renew_connection
    assert first.seconds == 0
    assert p.after(refused, START).result is refused


def test_a_key_that_worked_in_between_may_be_renewed_again():
    p = poller()
    refused = AuthenticationError("401", status=401)
    p.after(refused, START)
    p.after(job(), START)
    assert p.after(refused, START).renew_connection


def test_an_unknown_job_is_borne_in_its_first_minute_only():
    p = poller()
    missing = JobNotFound("x")
    assert isinstance(p.after(missing, START + 59), Wait)
    assert p.after(missing, START + 60).result is missing


def test_exponential_backoff_follows_from_the_clock_alone_and_heeds_max_wait():
    def wait(elapsed, **more):
        return (
            poller(timeout=10_000, interval=10, exponential_backoff=True, **more)
            .after(job(), START + elapsed)
            .seconds
        )

    assert [wait(elapsed) for elapsed in (0, 10, 30, 70, 150)] == [10, 20, 40, 80, 160]
    assert wait(150, max_wait=60) == 60
    assert wait(150, max_wait=1) == 10


def test_a_growing_wait_does_not_pass_the_deadline_by_more_than_an_interval():
    p = poller(timeout=100, interval=10, exponential_backoff=True)
    assert p.after(job(), START + 70).seconds == 30
    assert p.after(job(), START + 99).seconds == 10


def test_polls_are_never_closer_than_the_interval():
    answers = [job(), Unavailable("x"), RateLimited("x", retry_after="0"), JobNotFound("x"), job("completed")]
    for second in range(0, 60, 7):
        p = poller(timeout=60)
        for answer in answers:
            decision = p.after(answer, START + second)
            assert isinstance(decision, Finished) or decision.seconds >= 15


def reported_at(news, times, status="in-progress"):
    made = poller()
    return [at for at in times if news.should_log(made.after(job(status), START + at), START + at)]


def test_a_job_that_goes_on_running_is_reported_again_after_twice_the_time():
    assert reported_at(LogThrottle(START), range(15, 1_000, 15)) == [15, 30, 60, 120, 240, 480, 960]


def test_any_process_that_carries_a_wait_on_says_nothing_of_a_running_job_in_its_first_minute():
    assert reported_at(LogThrottle(START, is_carried_on=True), range(15, 1_000, 15)) == [60, 120, 240, 480, 960]


def test_a_status_that_changes_is_reported_at_once():
    news = LogThrottle(START, is_carried_on=True)
    assert reported_at(news, [15]) == []
    assert reported_at(news, [30, 45], status="hibernating") == [30]
    assert reported_at(news, [46]) == [46]


def test_what_keeps_pictory_from_answering_is_reported_each_time():
    made, news = poller(), LogThrottle(START)
    assert all(
        news.should_log(made.after(Unavailable("away"), START + at), START + at) for at in range(15, 90, 15)
    )


@pytest.mark.parametrize("interval", [0, 0.02, 0.99])
def test_no_two_polls_are_closer_than_a_second_whatever_is_requested(interval):
    made = poller(interval=interval)
    assert made.after(job(), START).seconds == 1
    assert made.after(Unavailable("away"), START + 1).seconds >= 1
    assert poller(interval=interval, exponential_backoff=True).after(job(), START).seconds == 1


@pytest.mark.parametrize(("interval", "reported"), [(0.5, True), (1, False), (9.9, False)])
def test_an_interval_below_the_floor_is_reported(interval, reported):
    assert ("once every 1 s" in short_interval_warning("poke_interval", interval)) is reported


def test_an_interval_that_pictory_recommends_is_not_reported():
    assert short_interval_warning("poke_interval", 10) is None


def test_a_download_waits_for_the_graces_of_its_job_and_for_nothing_else():
    made = JobPoller.for_download("j", START)
    early = made.after(JobNotFound("no"), START + 40)
    assert isinstance(early, Wait)
    assert (early.seconds, early.status) == (10, None)
    assert isinstance(made.after(JobNotFound("no"), START + 60), Finished)
    running = made.after(job(), START)
    assert isinstance(running, Wait)
    assert running.status == "in-progress"
    assert made.after(job("completed"), START).status is None


@pytest.mark.parametrize("interval", [9.99, 1, 0.5])
def test_an_interval_that_is_shorter_than_recommended_is_reported_with_its_name_and_the_floor_if_it_is_lower(
    interval,
):
    reported = short_interval_warning("poll_interval", interval)
    assert reported.startswith(f"poll_interval is {interval} s; Pictory recommends 10 to 30 s between two polls")
    assert reported.endswith(
        "Polling is limited to once every 1 s." if interval < 1 else "may refuse more frequent ones."
    )


def test_the_default_of_a_wait_is_without_backoff():
    p = poller(timeout=10_000, interval=10)
    assert [p.after(job(), START + at).seconds for at in (0, 100, 1_000)] == [10, 10, 10]
    assert p.max_wait is None


def test_chance_comes_from_a_generator_unless_a_test_gives_it():
    p = JobPoller(job_id="j", started_at=START, end_time=START + 10_000, poll_interval=15)
    assert 15 <= p.after(Unavailable("x"), START).seconds <= 15 * 1.25


def test_a_last_poll_ends_whatever_the_answer_is():
    for answer, kind in (
        (job(), WaitTimeout),
        (job("hibernating"), WaitTimeout),
        (job("completed"), ProtocolError),
        (JobNotFound("x"), JobNotFound),
        (Unavailable("x"), WaitTimeout),
        (EdgeBlocked("x"), EdgeBlocked),
    ):
        assert isinstance(JobPoller.for_last_poll("j", START).after(answer, START).result, kind), answer
    done = job("completed", url=URL)
    assert JobPoller.for_last_poll("j", START).after(done, START) == Finished(done)
    assert JobPoller.for_last_poll("j", START).timeout == 0


def test_a_download_waits_a_minute_in_all_at_the_recommended_interval():
    made = JobPoller.for_download("j", START)
    assert (made.job_id, made.timeout, made.poll_interval) == ("j", 60, 10)
    assert isinstance(made.after(job(), START + 59.9), Wait)
    assert isinstance(made.after(job(), START + 60).result, WaitTimeout)


def test_at_the_deadline_a_job_without_a_url_and_an_unknown_job_have_no_grace_left():
    assert isinstance(poller(timeout=20).after(job("completed"), START + 19.9), Wait)
    assert isinstance(poller(timeout=20).after(job("completed"), START + 20).result, ProtocolError)
    assert isinstance(poller(timeout=20).after(JobNotFound("x"), START + 19.9), Wait)
    assert isinstance(poller(timeout=20).after(JobNotFound("x"), START + 20).result, JobNotFound)


def test_the_minute_without_a_url_begins_with_the_first_answer_that_lacks_it_and_its_error_says_how_long():
    p = poller()
    for at in (500, 559.9):
        assert isinstance(p.after(job("completed"), START + at), Wait)
    error = p.after(job("completed"), START + 560).result
    assert error.status == 200
    assert "no URL for its picture in 60 s. The picture was paid for." in error.message


def test_each_wait_says_what_it_is_for():
    for answer, at, reason, status in (
        (job(), 30, "Job j is in-progress after 30 s", "in-progress"),
        (job("hibernating"), 30, "Job j is hibernating after 30 s", "hibernating"),
        (job(None), 30, "Job j is no status after 30 s", "no status"),
        (job("completed"), 30, "Job j is completed but has no URL yet", None),
        (JobNotFound("x"), 30, "Pictory does not know job j yet (30 s)", None),
        (Unavailable("x."), 30, "Could not poll job j (1 in a row): x. The job is not affected", None),
        (AuthenticationError("x"), 30, "Pictory refused the API key; reading the connection again", None),
    ):
        wait = poller().after(answer, START + at)
        assert (wait.reason, wait.status) == (reason, status)


def test_only_what_a_new_poller_would_not_know_keeps_a_wait_in_its_process():
    for answer, stays, renews in (
        (job(), False, False),
        (job("completed"), True, False),
        (JobNotFound("x"), False, False),
        (Unavailable("x"), False, False),
        (AuthenticationError("x"), True, True),
    ):
        wait = poller().after(answer, START)
        assert (wait.stay_in_process, wait.renew_connection) == (stays, renews), answer


def test_faults_are_counted_from_the_last_answer_on():
    p = poller()
    p.after(Unavailable("x"), START)
    assert "(2 in a row)" in p.after(Unavailable("x"), START).reason
    p.after(job(), START)
    assert "(1 in a row)" in p.after(Unavailable("x"), START).reason


def test_a_timeout_says_how_the_job_was_how_long_it_was_waited_for_and_how_to_go_on():
    error = poller(timeout=20).after(job(None), START + 25).result
    assert error.message == (
        "Job j was still 'no status' after 25 s; the deadline was 20 s. It keeps running at Pictory, and its cost is "
        'committed. Wait for it again with PictoryJobSensor(job_id="j") and a longer `timeout`.'
    )
    assert error.job == job(None)
    away = poller(timeout=20).after(Unavailable("No route."), START + 25).result
    assert "Job j was out of reach after 25 s" in away.message
    assert "committed. The last answer was: No route. Wait for it" in away.message
    assert away.job == job(None)


def test_a_failed_and_a_cleaned_job_say_what_became_of_the_money():
    for failed, said in (
        (job("failed", error_code="C", error_message="m"), "C: m"),
        (job("failed", error_code="C"), "C"),
        (job("failed", error_message="m."), "m"),
        (job("failed"), "no reason given"),
    ):
        error = poller().after(failed, START).result
        assert error.message.startswith(f"Job j failed at Pictory: {said}. Whether failed jobs are charged")
        assert error.job is failed
    cleaned = poller().after(job("cleaned"), START).result
    assert cleaned.job == job("cleaned")
    assert "generating it again costs again" in cleaned.message


def test_a_backoff_doubles_at_each_power_of_two_of_the_time_waited():
    p = poller(timeout=10_000, interval=10, exponential_backoff=True)
    seconds = [p.after(job(), START + at).seconds for at in (-5, 9.9, 10, 29.9, 30, 69.9)]
    assert seconds == [10, 10, 20, 20, 40, 40]
    far = JobPoller(
        job_id="j", started_at=0, end_time=1e30, poll_interval=1, exponential_backoff=True, chance=lambda: 0.0
    )
    assert far.after(job(), 1e20).seconds == 2**30


def test_what_is_reported_of_a_wait_that_goes_on_is_reported_at_twice_the_time_and_not_before():
    assert reported_at(LogThrottle(START), [15, 29.9, 30, 59.9, 60]) == [15, 30, 60]
    assert reported_at(LogThrottle(START, is_carried_on=True), [59.9, 60, 119.9, 120]) == [60, 120]
    assert QUIET == 60


def test_a_wait_is_as_usual_and_leaves_its_process_unless_it_says_otherwise():
    wait = Wait(1.0, "x")
    assert (wait.is_normal, wait.status, wait.stay_in_process, wait.renew_connection) == (True, None, False, False)
