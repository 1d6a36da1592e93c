# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Wait or finish: one decision, with time and chance as arguments."""

from __future__ import annotations

import pytest

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
from pictory_provider.jobs.news import News
from pictory_provider.jobs.polling import (
    DEFAULT_POLL_INTERVAL,
    DEFAULT_TIMEOUT,
    Finished,
    JobPoller,
    Wait,
    deferral_timeout,
    impolite,
)

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


def test_airflow_may_give_a_deferral_up_three_minutes_after_the_last_look():
    assert deferral_timeout(600, 15) == 600 + 15 + 180


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


def test_a_wait_looks_every_15_seconds_for_20_minutes_unless_told_otherwise():
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
def test_what_cannot_be_mended_by_looking_again_ends_at_once(answer, error):
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


def test_the_first_look_past_the_deadline_is_the_last():
    p = poller(timeout=20)
    assert p.after(job(), START + 19.9).seconds == 15
    result = p.after(job(), START + 20).result
    assert isinstance(result, WaitTimeout)
    assert "'in-progress' after 20 s" in result.message
    assert "runs on at Pictory" in result.message


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


def test_a_timeout_tells_the_last_fault():
    result = poller(timeout=10).after(Unavailable("the house is on fire"), START + 10).result
    assert isinstance(result, WaitTimeout)
    assert "the house is on fire" in result.message


def test_a_timeout_does_not_tell_a_fault_that_was_followed_by_an_answer():
    p = poller(timeout=10)
    p.after(Unavailable("the house is on fire"), START)
    assert "fire" not in p.after(job(), START + 10).result.message


def test_a_block_that_lasts_to_the_deadline_is_told_as_a_block():
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


def test_looks_are_never_closer_than_the_interval():
    answers = [job(), Unavailable("x"), RateLimited("x", retry_after="0"), JobNotFound("x"), job("completed")]
    for second in range(0, 60, 7):
        p = poller(timeout=60)
        for answer in answers:
            decision = p.after(answer, START + second)
            assert isinstance(decision, Finished) or decision.seconds >= 15


def told_at(news, times, status="in-progress"):
    made = poller()
    return [at for at in times if news.is_worth_a_line(made.after(job(status), START + at), START + at)]


def test_a_job_that_goes_on_running_is_told_again_after_twice_the_time():
    assert told_at(News(START), range(15, 1_000, 15)) == [15, 30, 60, 120, 240, 480, 960]


def test_whoever_carries_a_wait_on_says_nothing_of_a_running_job_in_its_first_minute():
    assert told_at(News(START, is_carried_on=True), range(15, 1_000, 15)) == [60, 120, 240, 480, 960]


def test_a_status_that_changes_is_told_at_once():
    news = News(START, is_carried_on=True)
    assert told_at(news, [15]) == []
    assert told_at(news, [30, 45], status="hibernating") == [30]
    assert told_at(news, [46]) == [46]


def test_what_keeps_pictory_from_answering_is_told_each_time():
    made, news = poller(), News(START)
    assert all(
        news.is_worth_a_line(made.after(Unavailable("away"), START + at), START + at) for at in range(15, 90, 15)
    )


@pytest.mark.parametrize("interval", [0, 0.02, 0.99])
def test_no_two_looks_are_closer_than_a_second_whatever_is_asked_for(interval):
    made = poller(interval=interval)
    assert made.after(job(), START).seconds == 1
    assert made.after(Unavailable("away"), START + 1).seconds >= 1
    assert poller(interval=interval, exponential_backoff=True).after(job(), START).seconds == 1


@pytest.mark.parametrize(("interval", "told"), [(0.5, True), (1, False), (9.9, False)])
def test_an_interval_below_the_floor_is_told(interval, told):
    assert ("every 1 s at most often" in impolite("poke_interval", interval)) is told


def test_an_interval_that_pictory_recommends_is_not_told():
    assert impolite("poke_interval", 10) is None


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
