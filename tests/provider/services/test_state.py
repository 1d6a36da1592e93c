# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""GenerateImageOperator with its record: what an attempt records, and what the next one does with it."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowTaskTimeout, TaskDeferred

from pictory_provider.api.models import Job
from pictory_provider.core import events
from pictory_provider.core.submission import KEY
from pictory_provider.exceptions import (
    PictoryAuthenticationError,
    PictoryJobFailed,
    PictoryRateLimited,
    PictoryRequestInvalid,
    PictorySubmitOutcomeUnknown,
    PictoryUnavailable,
    PictoryWaitTimeout,
)
from pictory_provider.operators.pictory import GenerateImageOperator
from tests.stand_ins import says

PROMPT = "A lighthouse at dawn"
KINDS = {
    "fire and forget": {},
    "waiting": {"wait_for_completion": True, "deferrable": False, "poll_interval": 0.01},
    "deferring": {"wait_for_completion": True},
}


def operator(**more):
    return GenerateImageOperator(**{"task_id": "generate", "prompt": PROMPT, **more})


def run(context, **more):
    """Run one attempt, up to its deferral."""
    context["ti"].xcoms.clear()  # as Airflow does at the start of each attempt
    try:
        return operator(**more).execute(context)
    except TaskDeferred as deferral:
        return deferral.trigger.job_id


def jobs(pictory):
    return list(pictory.account.jobs)


def completed(pictory, job_id):
    """Return the event of a trigger that saw a job completed."""
    job = Job(job_id=job_id, status="completed", url=f"{pictory.images_url}/a.png")
    return events.build(events.Ended(job_id, job, time.time()))


# What is on record, and when -----------------------------------------------------------------------------


def test_the_intent_is_on_record_before_the_request_and_the_job_id_before_it_is_pushed(
    pictory, context, ti, store, mocker
):
    seen = []
    mocker.patch.object(
        store, "set", side_effect=lambda key, value: seen.append(("record", value, len(jobs(pictory))))
    )
    mocker.patch.object(ti, "xcom_push", side_effect=lambda key, value: seen.append((key, value, None)))
    (job_id,) = [run(context)]
    (_, intent, before), (_, done, after), *later = seen
    assert (before, after) == (0, 1)
    names = ["credits_before", "fingerprint", "intended_at", "max_tries", "request", "retries", "version"]
    assert sorted(intent) == names
    assert done == {**intent, "jobId": job_id, "submitted_at": done["submitted_at"]}
    assert intent["intended_at"] <= done["submitted_at"] <= time.time()
    assert [key for key, _, _ in later] == ["jobId", "return_value", "pictory_request"]


def test_the_record_has_the_request_and_neither_the_key_nor_a_token(pictory, context, store):
    run(
        context,
        webhook="http://127.0.0.1:9/hook?token=secret",
        reference_image_url=f"{pictory.reference_image_url}?sig=secret",
    )
    assert pictory.api_key not in store.rows[KEY]
    assert "secret" not in store.rows[KEY]
    assert store.get(KEY)["request"] == {
        "prompt": PROMPT,
        "model": "seedream3.0",
        "referenceImageUrl": pictory.reference_image_url,
    }


@pytest.mark.parametrize(
    ("fault", "options"),
    [("rate-limited", {"retry_after": "3600"}), ("unauthorized", {}), ("server-error", {"status": 422})],
)
def test_a_refusal_takes_the_intent_away(pictory, context, store, fault, options):
    pictory.script("submit", fault, times=-1, **options)
    with pytest.raises((PictoryRateLimited, PictoryAuthenticationError, PictoryRequestInvalid)):
        run(context)
    assert store.rows == {}


def test_a_request_that_never_left_takes_the_intent_away(pictory, context, store, monkeypatch, timing):
    timing(resend_budget=0.0)
    monkeypatch.setenv(
        "AIRFLOW_CONN_PICTORY_DEFAULT", '{"conn_type": "pictory", "host": "http://127.0.0.1:1", "password": "k"}'
    )
    with pytest.raises(PictoryUnavailable):
        run(context)
    assert store.rows == {}


def test_nothing_is_on_record_between_two_attempts(pictory, context, store, mocker):
    pictory.script("submit", "rate-limited", times=2)
    between = []
    mocker.patch("time.sleep", side_effect=lambda _: between.append(dict(store.rows)))
    run(context)
    assert between == [{}, {}]
    assert len(jobs(pictory)) == 1


def test_an_intent_that_cannot_be_taken_away_does_not_hide_the_refusal(pictory, context, store, mocker):
    pictory.script("submit", "unauthorized")
    mocker.patch.object(store, "delete", side_effect=RuntimeError("the API server is away"))
    with pytest.raises(PictoryAuthenticationError):
        run(context)
    with pytest.raises(PictorySubmitOutcomeUnknown):
        run(context)
    assert jobs(pictory) == []


def test_nothing_is_sent_if_the_intent_cannot_be_recorded(pictory, context, store, mocker):
    mocker.patch.object(store, "set", side_effect=RuntimeError("the API server is away"))
    with pytest.raises(RuntimeError):
        run(context)
    assert pictory.submissions == []


def test_a_job_that_cannot_be_put_on_record_is_named_and_is_not_retried(pictory, context, store, mocker):
    away = RuntimeError("the API server is away")
    mocker.patch.object(store, "set", side_effect=[None, away, away])
    with pytest.raises(AirflowFailException, match=r"the\s+API\s+server\s+is\s+away") as caught:
        run(context)
    (job_id,) = jobs(pictory)
    assert job_id in str(caught.value)


# A retry -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("map_index", [-1, 0, 7])
def test_a_retry_adopts_the_job_and_publishes_its_id_again(pictory, context, ti, kind, map_index):
    ti.map_index = map_index
    pictory.plan(seconds=0)
    job_id = run(context, **KINDS[kind])
    assert run(context, **KINDS[kind]) == job_id
    assert jobs(pictory) == [job_id]
    assert ti.xcoms["jobId"] == ti.xcoms["return_value"] == job_id


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "fault", ["rate-limited", "unavailable", "server-error", "drop-before", "garbage", "edge-block"]
)
def test_a_retry_adopts_the_job_though_pictory_cannot_be_reached_now(pictory, context, kind, fault):
    pictory.plan(seconds=0)
    job_id = run(context)
    pictory.script("job", fault)
    assert run(context, **KINDS[kind]) == job_id
    assert jobs(pictory) == [job_id]


def test_a_retry_adopts_a_job_that_pictory_does_not_know_in_its_first_seconds(pictory, context):
    pictory.plan(missing_seconds=30)
    assert run(context) == run(context)
    assert len(jobs(pictory)) == 1


def test_a_retry_polls_the_job_once_before_it_defers(pictory, context):
    pictory.plan("stuck")
    run(context)
    run(context, **KINDS["deferring"])
    assert len(pictory.polls) == 1


def test_a_retry_keeps_the_deadline_of_the_first_attempt(pictory, context, store):
    pictory.plan("stuck")
    before = time.time()
    with pytest.raises(TaskDeferred):
        operator(wait_for_completion=True, timeout=300).execute(context)
    time.sleep(0.05)
    with pytest.raises(TaskDeferred) as caught:
        operator(wait_for_completion=True, timeout=300).execute(context)
    assert before + 300 <= caught.value.trigger.end_time <= before + 300.05 + 1
    assert caught.value.trigger.started_at == store.get(KEY)["submitted_at"]


def test_a_retry_after_the_deadline_polls_once(pictory, context):
    pictory.plan("stuck")
    waiting = {**KINDS["waiting"], "timeout": 0.02}
    for looks in (2, 1):
        pictory.requests.clear()
        with pytest.raises(PictoryWaitTimeout):
            run(context, **waiting)
        assert len(pictory.polls) <= looks + 1
    assert len(pictory.polls) == 1
    pictory.account.jobs[jobs(pictory)[0]].fate = "completed"
    assert run(context, **waiting) == jobs(pictory)[0]


@pytest.mark.parametrize("fate", ["failed", "cleaned"])
def test_a_retry_buys_again_what_failed_or_was_cleaned(pictory, context, fate):
    pictory.plan(fate)
    first = run(context)
    second = run(context)
    assert jobs(pictory) == [first, second]


def test_a_failed_job_is_not_retried_by_itself(pictory, context):
    pictory.plan("failed")
    with pytest.raises(PictoryJobFailed) as caught:
        run(context, **KINDS["waiting"])
    assert isinstance(caught.value, AirflowFailException)


def test_a_job_on_record_that_pictory_does_not_know_is_an_unknown_outcome(pictory, context, store):
    run(context)
    pictory.account.jobs.clear()
    store.set(KEY, {**store.get(KEY), "submitted_at": time.time() - 61})
    with pytest.raises(
        PictorySubmitOutcomeUnknown, match=r"is\s+on\s+record,\s+but\s+Pictory\s+does\s+not\s+know\s+it"
    ):
        run(context)
    assert len(pictory.submissions) == 1


def test_a_bad_key_is_reported_and_nothing_is_bought(pictory, context, monkeypatch, mocker):
    """Nobody should have to clear the task, and pay again, for a job that is paid for."""
    job_id = run(context)
    warning = mocker.patch("pictory_provider.operators.pictory.GenerateImageOperator.log").warning
    monkeypatch.setattr(pictory, "api_key", "another")
    with pytest.raises(PictoryAuthenticationError):
        run(context)
    assert f'PictoryJobSensor(job_id="{job_id}") waits for it' in str(warning.call_args)
    assert len(pictory.submissions) == 1


def test_a_template_that_renders_differently_adopts_the_job(pictory, context, store):
    first = run(context, prompt="Written at one o'clock")
    assert run(context, prompt="Written at two o'clock") == first
    assert store.get(KEY)["request"]["prompt"] == "Written at one o'clock"


def test_a_mapped_retry_that_renders_differently_is_refused_and_a_clear_buys(pictory, context, ti):
    ti.map_index = 3
    first = run(context, prompt="Written at one o'clock")
    for _ in range(2):
        with pytest.raises(PictoryRequestInvalid, match=says("Written at one o'clock")) as caught:
            run(context, prompt="Written at two o'clock")
        assert "Written at two o'clock" in caught.value.message
    assert jobs(pictory) == [first]
    context["ti"].clear()
    assert run(context, prompt="Written at two o'clock") == jobs(pictory)[1]


def test_a_blip_while_the_job_is_put_on_record_costs_nothing(pictory, context, store, mocker):
    keep = store.set
    answers = iter([None, RuntimeError("a blip"), None])

    def flaky(key, value):
        if error := next(answers, None):
            raise error
        keep(key, value)

    mocker.patch.object(store, "set", side_effect=flaky)
    job_id = run(context)
    assert store.get(KEY)["jobId"] == job_id
    assert run(context) == job_id
    assert len(jobs(pictory)) == 1


# A clear that looks like a retry -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_clear_after_retries_were_lowered_buys_again_though_max_tries_stays(pictory, context, ti, kind):
    """One attempt of two was made; a clear with retries=0 sets max_tries to the attempts made, one again."""
    pictory.plan(seconds=0)
    ti.max_tries = 1
    first = run(context, retries=1, **KINDS[kind])
    if kind == "deferring":
        operator(retries=1).execute_complete(context, completed(pictory, first))
    ti.try_number = 2
    assert run(context, retries=0, **KINDS[kind]) == jobs(pictory)[1] != first


def test_a_clear_of_an_unknown_outcome_after_retries_were_lowered_buys_again(pictory, context, ti):
    ti.max_tries = 1
    pictory.script("submit", "drop-after")
    with pytest.raises(PictorySubmitOutcomeUnknown):
        run(context, retries=1)
    with pytest.raises(PictorySubmitOutcomeUnknown):
        run(context, retries=1)
    assert run(context, retries=0) == jobs(pictory)[1]


def test_an_attempt_that_ended_before_airflow_heard_of_it_is_adopted_by_its_retry(pictory, context, ti):
    ti.max_tries = 1
    first = run(context, retries=1)
    ti.try_number = 2
    assert run(context, retries=1) == first


def test_an_end_of_an_attempt_that_cannot_be_recorded_hides_nothing(pictory, context, store, mocker):
    get = store.get
    reads = iter([get, None])

    def away(key):
        if reader := next(reads):
            return reader(key)
        raise RuntimeError("the API server is away")

    mocker.patch.object(store, "get", side_effect=away)
    assert [run(context)] == jobs(pictory)


@pytest.mark.parametrize("kind", KINDS)
def test_a_users_clear_buys_again(pictory, context, kind):
    first = run(context, **KINDS[kind])
    context["ti"].clear()
    second = run(context, **KINDS[kind])
    assert jobs(pictory) == [first, second]
    assert run(context, **KINDS[kind]) == second


# An unknown outcome --------------------------------------------------------------------------------------

UNKNOWN = [
    *[(fault, {}) for fault in ("drop-after", "drop-during", "garbage", "empty")],
    *[("server-error", {"status": status}) for status in (300, 304, 408, 409, 410, 425, 499, 500, 502, 504, 520)],
    *[("unavailable", more) for more in ({}, {"retry_after": "0"}, {"retry_after": "3600"})],
    ("redirect", {}),
    ("redirect", {"status": 307}),
]


@pytest.mark.parametrize("accepted", ["no", "yes"])
@pytest.mark.parametrize(("fault", "options"), UNKNOWN)
def test_an_unknown_outcome_leaves_the_intent_and_every_retry_reports_it_and_buys_nothing(
    pictory, context, store, fault, options, accepted
):
    pictory.script("submit", fault, **options, accepted=accepted)
    with pytest.raises(PictorySubmitOutcomeUnknown):
        run(context)
    assert "jobId" not in store.get(KEY)
    for _ in range(2):
        with pytest.raises(
            PictorySubmitOutcomeUnknown, match=r"after\s+it\s+recorded\s+its\s+intent\s+to\s+submit"
        ):
            run(context)
    assert len(pictory.submissions) == 1


def test_an_unknown_outcome_reports_the_credits_and_the_pictures_that_match(pictory, context):
    run(context, prompt="Another picture of the account")
    pictory.script("submit", "drop-after")
    with pytest.raises(PictorySubmitOutcomeUnknown) as caught:
        run({**context, "task_state_store": type(context["task_state_store"])()})
    error = caught.value
    assert (error.evidence.credits_before, error.evidence.credits_now) == (2, 4)
    assert [match.prompt for match in error.evidence.matches] == [PROMPT]
    assert "2 more AI credits (2 before, 4 now): exactly the price of this picture" in error.message
    assert "python -m pictory_provider adopt" in error.message


def test_an_unexpected_error_after_the_request_is_an_unknown_outcome(pictory, context, mocker):
    mocker.patch("pictory_provider.api.responses.parse_submission", side_effect=ZeroDivisionError)
    with pytest.raises(PictorySubmitOutcomeUnknown, match=says(r"unexpected error\s+\(ZeroDivisionError\)")):
        run(context)
    assert len(jobs(pictory)) == 1


def test_the_evidence_of_a_later_attempt_is_that_of_the_intent(pictory, context, store):
    pictory.script("submit", "drop-after")
    with pytest.raises(PictorySubmitOutcomeUnknown):
        run(context)
    with pytest.raises(PictorySubmitOutcomeUnknown) as caught:
        run(context)
    assert caught.value.evidence.since == store.get(KEY)["intended_at"]
    assert (caught.value.evidence.credits_before, caught.value.evidence.credits_now) == (0, 2)


@pytest.mark.parametrize("fault", ["drop-before", "server-error", "unauthorized", "edge-block", "garbage"])
def test_evidence_that_cannot_be_gathered_hides_nothing(pictory, context, fault):
    pictory.script("submit", "drop-after")
    pictory.script("quota", fault, times=-1)
    pictory.script("images", fault, times=-1)
    with pytest.raises(PictorySubmitOutcomeUnknown, match=says("The gallery could not be searched")) as caught:
        run(context)
    assert "unknown before the request, unknown now" in caught.value.message


def test_the_evidence_does_not_wait_for_slow_replies(pictory, context, timing):
    timing(evidence=0.2, credits=0.2)
    pictory.script("submit", "drop-after")
    pictory.script("quota", "slow", times=-1, seconds=3)
    with pytest.raises(
        PictorySubmitOutcomeUnknown, match=says("unknown before the request, unknown now")
    ) as caught:
        run(context)
    assert len(caught.value.evidence.matches) == 1, "what was answered in time is told"


def test_the_first_way_on_is_a_clear_which_buys_again(pictory, context):
    pictory.script("submit", "drop-after")
    with pytest.raises(PictorySubmitOutcomeUnknown):
        run(context)
    context["ti"].clear()
    assert run(context) == jobs(pictory)[1]


@pytest.mark.parametrize("kind", KINDS)
def test_the_second_way_on_is_the_job_id_in_the_store_which_is_adopted(pictory, context, store, kind):
    pictory.plan(seconds=0)
    pictory.script("submit", "drop-after")
    with pytest.raises(PictorySubmitOutcomeUnknown):
        run(context, **KINDS[kind])
    (job_id,) = jobs(pictory)
    store.set(KEY, {"jobId": job_id})
    context["ti"].clear()
    assert run(context, **KINDS[kind]) == job_id
    assert run(context, **KINDS[kind]) == job_id
    assert len(pictory.submissions) == 1
    context["ti"].clear()
    assert run(context, **KINDS[kind]) != job_id, "what was adopted is on record as any other job is"


def test_a_wrong_job_id_in_the_store_is_reported_and_buys_nothing(pictory, context, store):
    store.set(KEY, {"jobId": "4d82d040"})
    with pytest.raises(PictorySubmitOutcomeUnknown, match=says("job 4d82d040 is on record")):
        run(context)
    assert pictory.submissions == []


def test_resubmit_submits_again_once_in_each_attempt_and_then_gives_up(pictory, context):
    pictory.script("submit", "drop-after")
    job_id = run(context, on_unknown_submit="resubmit")
    assert jobs(pictory)[1] == job_id

    pictory.script("submit", "drop-after", times=-1)
    context["ti"].clear()
    with pytest.raises(PictorySubmitOutcomeUnknown):
        run(context, on_unknown_submit="resubmit")
    assert len(jobs(pictory)) == 4
    with pytest.raises(PictorySubmitOutcomeUnknown):
        run(context, on_unknown_submit="resubmit")
    assert len(jobs(pictory)) == 5


def test_a_resubmission_that_was_refused_leaves_the_first_unknown_outcome_on_record(
    pictory, context, store, timing
):
    timing(resend_budget=0.0)
    pictory.script("submit", "drop-after")
    pictory.script("submit", "rate-limited", times=-1)
    with pytest.raises(PictoryRateLimited):
        run(context, on_unknown_submit="resubmit")
    assert "jobId" not in store.get(KEY)
    first = store.get(KEY)["intended_at"]
    pictory.clear_faults()
    with pytest.raises(PictorySubmitOutcomeUnknown) as caught:
        run(context)
    assert caught.value.evidence.since == first
    assert len(jobs(pictory)) == 1


# execution_timeout ---------------------------------------------------------------------------------------


def test_an_execution_timeout_while_the_answer_is_awaited_is_an_unknown_outcome(pictory, context, timeout_when):
    pictory.script("submit", "slow-reply", seconds=2)
    timeout_when(lambda: pictory.submissions)
    with pytest.raises(
        PictorySubmitOutcomeUnknown, match=says(r"execution_timeout ran out before an answer\s+came")
    ):
        run(context)
    assert len(jobs(pictory)) == 1


def test_nothing_is_bought_after_the_time_is_over_though_it_should_be_resubmitted(pictory, context, timeout_when):
    pictory.script("submit", "slow-reply", seconds=1)
    timeout_when(lambda: pictory.submissions)
    with pytest.raises(AirflowTaskTimeout, match=says("this attempt's time is over: a retry submits again")):
        run(context, on_unknown_submit="resubmit")
    assert len(pictory.submissions) == 1


def test_nothing_is_bought_after_the_time_is_up_though_airflows_exception_was_lost(pictory, context, store):
    """A signal that strikes in a destructor is printed, and forgotten."""
    with pytest.raises(AirflowTaskTimeout, match=says("nothing more is submitted")):
        run(context, execution_timeout=timedelta(0))
    assert (pictory.submissions, store.rows) == ([], {})


@pytest.mark.parametrize("moment", ["before the write", "after the write"])
def test_an_execution_timeout_while_the_job_is_put_on_record_loses_no_job(pictory, context, store, mocker, moment):
    keep = store.set

    def struck(key, value):
        is_first = "jobId" in value and "jobId" not in store.get(KEY)
        if is_first and moment == "before the write":
            mocker.patch.object(store, "set", side_effect=keep)
            raise AirflowTaskTimeout("Timeout")
        keep(key, value)
        if is_first:
            raise AirflowTaskTimeout("Timeout")

    mocker.patch.object(store, "set", side_effect=struck)
    with pytest.raises(AirflowTaskTimeout):
        run(context)
    assert store.get(KEY)["jobId"] == jobs(pictory)[0]
    assert [run(context)] == jobs(pictory)


def test_an_execution_timeout_while_the_evidence_is_gathered_hides_nothing(
    pictory, context_without_store, timeout_when
):
    pictory.script("submit", "drop-after")
    pictory.script("images", "slow", seconds=2)
    timeout_when(lambda: any("images" in each.path and each.method == "GET" for each in pictory.requests))
    with pytest.raises(PictorySubmitOutcomeUnknown, match=says("The gallery could not be searched")):
        run(context_without_store)


def test_an_execution_timeout_between_two_attempts_bought_nothing_and_may_be_retried(
    pictory, context, store, timeout_when
):
    pictory.script("submit", "rate-limited", retry_after="30")
    timeout_when(lambda: pictory.submissions and not store.rows)
    with pytest.raises(AirflowTaskTimeout):
        run(context)
    assert store.rows == {}
    run(context)
    assert len(jobs(pictory)) == 1


def test_an_execution_timeout_while_waiting_is_followed_by_an_adoption(pictory, context, timeout_when):
    pictory.plan("stuck")
    timeout_when(lambda: pictory.polls)
    with pytest.raises(AirflowTaskTimeout):
        run(context, wait_for_completion=True, deferrable=False)
    assert [run(context)] == jobs(pictory)


# Without a record ----------------------------------------------------------------------------------------


@pytest.fixture(params=["Airflow before 3.3", "durable=False"])
def without_record(request, context, context_without_store):
    """Return the arguments of :func:`run` for a task that keeps no record."""
    if request.param == "durable=False":
        return context, {"durable": False}
    return context_without_store, {}


def test_without_a_record_each_attempt_buys_and_nothing_is_recorded(pictory, without_record, store):
    context, more = without_record
    assert run(context, **more) != run(context, **more)
    assert store.rows == {}


@pytest.mark.parametrize("kind", ["waiting", "deferring"])
def test_without_a_record_an_error_after_the_submission_is_not_retried(pictory, without_record, ti, mocker, kind):
    context, more = without_record
    mocker.patch.object(ti, "xcom_push", side_effect=RuntimeError("the API server is away"))
    with pytest.raises(AirflowFailException, match=r"the\s+API\s+server\s+is\s+away") as caught:
        run(context, **more, **KINDS[kind])
    assert jobs(pictory)[0] in str(caught.value)


def test_without_a_record_a_timeout_is_not_retried(pictory, without_record, timeout_when):
    context, more = without_record
    pictory.plan("stuck")
    with pytest.raises(AirflowFailException, match="PictoryWaitTimeout"):
        run(context, **more, **KINDS["waiting"], timeout=0.02)
    pictory.plan("stuck")
    pictory.requests.clear()
    timeout_when(lambda: pictory.polls)
    with pytest.raises(AirflowFailException, match="AirflowTaskTimeout"):
        run(context, **more, wait_for_completion=True, deferrable=False)


def test_without_a_record_an_execution_timeout_right_after_the_answer_is_not_retried(
    pictory, without_record, mocker
):
    context, more = without_record
    mocker.patch("pictory_provider.operators.tasks.publish", side_effect=AirflowTaskTimeout("Timeout"))
    with pytest.raises(AirflowFailException, match=says("was submitted and is paid for")):
        run(context, **more)


def test_without_a_record_airflow_has_nothing_to_push_after_the_end(pictory, without_record, ti):
    """Its own push of the result may fail, and the retry would buy again."""
    context, more = without_record
    task = operator(**more)
    job_id = task.execute(context)
    assert not task.do_xcom_push
    assert ti.xcoms["return_value"] == job_id


def test_with_a_record_airflow_pushes_the_result_as_ever(pictory, context):
    task = operator()
    task.execute(context)
    assert task.do_xcom_push


@pytest.mark.parametrize("reason", ["Trigger timeout", "Trigger failure"])
def test_if_neither_record_nor_xcom_can_be_read_a_deferral_ended_by_airflow_is_not_retried(
    pictory, without_record, ti, mocker, reason
):
    context, more = without_record
    pictory.plan("stuck")
    run(context, **more)
    mocker.patch.object(ti, "xcom_pull", side_effect=RuntimeError("the API server is away"))
    with pytest.raises(AirflowFailException, match=says("neither the record nor the XCom")):
        operator(**more).resume_execution("__fail__", {"error": reason}, context)


@pytest.mark.parametrize("reason", ["Trigger timeout", "Trigger failure"])
def test_with_a_record_a_given_up_deferral_needs_no_xcom(pictory, context, ti, mocker, reason):
    pictory.plan(seconds=0)
    job_id = run(context)
    mocker.patch.object(ti, "xcom_pull", side_effect=RuntimeError("the API server is away"))
    assert operator().resume_execution("__fail__", {"error": reason}, context) == job_id


@pytest.mark.parametrize("reason", ["Trigger timeout", "Trigger failure"])
def test_without_a_record_a_deferral_that_airflow_gave_up_is_not_retried(pictory, without_record, reason):
    context, more = without_record
    pictory.plan("stuck")
    run(context, **more)
    with pytest.raises(AirflowFailException, match=says("was submitted and is paid for")):
        operator(**more).resume_execution("__fail__", {"error": reason}, context)


def test_without_a_record_an_unknown_outcome_names_the_sensor_and_no_store(pictory, without_record):
    context, more = without_record
    pictory.script("submit", "drop-after")
    with pytest.raises(PictorySubmitOutcomeUnknown, match="PictoryJobSensor") as caught:
        run(context, **more)
    assert "state store" not in caught.value.message


def test_an_airflow_without_a_store_says_once_that_a_crash_may_buy_again(pictory, context_without_store, mocker):
    task = operator()
    warning = mocker.patch.object(task.log, "warning")
    task.execute(context_without_store)
    assert [call.args[0] for call in warning.call_args_list if "no task state store" in call.args[0]]
    warning.reset_mock()
    quiet = operator(durable=False)
    quiet.execute(context_without_store)
    assert not warning.called


def test_adoptions_are_counted(pictory, context, mocker):
    counted = mocker.patch("pictory_provider.telemetry.Stats.incr")
    run(context)
    run(context)
    names = [call.args[0] for call in counted.call_args_list]
    assert names == ["pictory.submitted", "pictory.credits_bought", "pictory.adopted"]


def test_unknown_outcomes_are_counted_when_they_happen_and_when_they_are_found(pictory, context, mocker):
    counted = mocker.patch("pictory_provider.telemetry.Stats.incr")
    pictory.script("submit", "drop-after")
    for _ in range(2):
        with pytest.raises(PictorySubmitOutcomeUnknown):
            run(context)
    names = [call.args[0] for call in counted.call_args_list]
    assert names == ["pictory.submit_outcome_unknown"] * 2


def test_an_intent_that_arrived_though_its_writing_failed_is_taken_away_again(pictory, context, store, mocker):
    write = store.set

    def arrive_and_fail(key, value):
        write(key, value)
        raise RuntimeError("the answer was lost")

    failing = mocker.patch.object(store, "set", arrive_and_fail)
    with pytest.raises(RuntimeError, match=says("the answer was lost")):
        operator().execute(context)
    assert pictory.submissions == []
    assert store.rows == {}, "nothing was sent, and nothing says that anything was"
    mocker.stop(failing)
    store.set = write
    operator().execute(context)
    assert len(pictory.account.jobs) == 1
