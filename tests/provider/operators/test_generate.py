# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""GenerateImageOperator: check, submit, push the jobId, and wait if the task does."""

from __future__ import annotations

import inspect
import time
from datetime import timedelta

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, TaskDeferred
from airflow.sdk import Asset
from airflow.sdk.execution_time.context import OutletEventAccessors

from pictory_provider.api.errors import WaitTimeout
from pictory_provider.api.models import ImageRequest, Job
from pictory_provider.core import events
from pictory_provider.exceptions import (
    PictoryAuthenticationError,
    PictoryJobFailed,
    PictoryProtocolError,
    PictoryRateLimited,
    PictoryRequestInvalid,
    PictorySubmitOutcomeUnknown,
    PictoryWaitTimeout,
)
from pictory_provider.operators.pictory import GenerateImageOperator
from pictory_provider.sensors.pictory import PictoryJobSensor
from pictory_provider.version_compat import TaskDeferralError
from tests.stand_ins import says

PROMPT = "A lighthouse at dawn"


def operator(**more):
    return GenerateImageOperator(**{"task_id": "generate", "prompt": PROMPT, **more})


def deferral_of(task, context) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as caught:
        task.execute(context)
    return caught.value


def test_the_job_id_is_returned_and_pushed_under_both_keys(pictory, context, ti):
    job_id = operator().execute(context)
    assert list(pictory.account.jobs) == [job_id]
    del ti.xcoms["pictory_request"]
    assert ti.xcoms == {"jobId": job_id, "return_value": job_id}
    assert pictory.polls == []


def test_do_xcom_push_off_keeps_the_job_id_out_of_the_return_value_only(pictory, context, ti):
    job_id = operator(do_xcom_push=False).execute(context)
    del ti.xcoms["pictory_request"]
    assert ti.xcoms == {"jobId": job_id}


def test_every_field_of_the_request_is_templated_and_reaches_pictory(pictory, context):
    fields = {name for name in ImageRequest.__dataclass_fields__ if name != "allow_unlisted"}
    assert {*fields, "path", "pictory_conn_id", "plan_only", "reference_upload"} == set(
        GenerateImageOperator.template_fields
    )
    operator(
        model="nanobanana",
        aspect_ratio="16:9",
        style="vintage",
        reference_image_url=pictory.reference_image_url,
        webhook="http://127.0.0.1:9/hook",
    ).execute(context)
    assert pictory.submissions[0].body == {
        "prompt": PROMPT,
        "model": "nanobanana",
        "aspectRatio": "16:9",
        "style": "vintage",
        "referenceImageUrl": pictory.reference_image_url,
        "webhook": "http://127.0.0.1:9/hook",
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"prompt": "four"},
        {"model": "dall-e-9"},
        {"reference_image_url": "None"},
        {"poll_interval": -1},
        {"poll_interval": "15"},
        {"timeout": None},
        {"timeout": timedelta(seconds=-1)},
        {"on_unknown_submit": "retry"},
    ],
)
@pytest.mark.parametrize("wait_for_completion", [False, True])
def test_every_mistake_is_reported_before_anything_is_sent(pictory, context, wrong, wait_for_completion):
    with pytest.raises(PictoryRequestInvalid):
        operator(wait_for_completion=wait_for_completion, **wrong).execute(context)
    assert pictory.requests == []


def test_waiting_on_the_worker_ends_with_the_image_record(pictory, context, ti):
    task = operator(wait_for_completion=True, deferrable=False, poll_interval=timedelta(seconds=0.01))
    pictory.plan(seconds=0.05)
    job_id = task.execute(context)
    assert ti.xcoms["return_value"] == ti.xcoms["jobId"] == job_id == ti.xcoms["image"]["job_id"]
    assert ti.xcoms["image"]["status"] == "completed"
    assert ti.order.index("jobId") < ti.order.index("image")


def test_a_job_that_is_done_at_the_first_poll_is_not_deferred(pictory, context, ti):
    operator(wait_for_completion=True).execute(context)
    assert ti.xcoms["image"]["status"] == "completed"


def test_the_job_id_is_published_before_the_task_defers(pictory, context, ti):
    pictory.plan("stuck")
    deferral_of(operator(wait_for_completion=True), context)
    assert ti.xcoms["jobId"] == ti.xcoms["return_value"] == next(iter(pictory.account.jobs))


def test_the_trigger_carries_on_the_same_wait_with_absolute_times(pictory, context):
    pictory.plan("stuck")
    before = time.time()
    deferral = deferral_of(operator(wait_for_completion=True, poll_interval=20, timeout=300), context)
    after = time.time()

    trigger = deferral.trigger
    assert before <= trigger.started_at <= after
    assert trigger.end_time - trigger.started_at == pytest.approx(300)
    assert trigger.poll_interval == 20
    assert deferral.method_name == "execute_complete"
    assert deferral.timeout.total_seconds() > 300 + 20


@pytest.mark.parametrize(
    ("model", "poll_interval", "first"), [("flux-schnell", 15, 5), ("nanobanana", 15, 10), ("flux-schnell", 3, 3)]
)
def test_the_first_poll_comes_when_a_picture_of_the_model_may_be_ready(
    pictory, context, on_airflow, model, poll_interval, first
):
    on_airflow((3, 4))
    pictory.plan("stuck")
    task = operator(wait_for_completion=True, model=model, poll_interval=poll_interval)
    before = time.time()
    trigger = deferral_of(task, context).trigger
    late_by = trigger.first_poll_at - trigger.started_at - first
    assert -0.001 <= late_by <= time.time() - before


@pytest.mark.parametrize(("version", "earliest"), [((3, 1), 8), ((3, 3), 8), ((3, 4), 1)])
def test_the_first_event_comes_no_sooner_than_airflow_can_bear(pictory, context, version, earliest, on_airflow):
    on_airflow(version)
    pictory.plan("stuck")
    before = time.time()
    deferral = deferral_of(operator(wait_for_completion=True, poll_interval=1), context)
    assert before <= deferral.trigger.first_poll_at - earliest <= time.time()


def test_a_resumed_task_publishes_the_image_and_returns_the_job_id(pictory, context, ti):
    job = Job(job_id="j", status="completed", url="https://h/a.png", width=1, height=2, ai_credits_used=2)
    assert operator().execute_complete(context, events.build(events.Ended("j", job, 0.0))) == "j"
    assert ti.xcoms == {"image": job.record()}


@pytest.mark.parametrize("event", [None, "success", {}, {"job_id": "j", "outcome": "completed"}])
def test_an_event_of_another_form_is_never_a_success(pictory, context, event):
    with pytest.raises(PictoryProtocolError):
        operator().execute_complete(context, event)


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_failed_job_fails_the_task_without_a_retry(pictory, context, deferrable):
    pictory.plan("failed", error_code="POLICY", error_message="not that")
    with pytest.raises(PictoryJobFailed, match=says("POLICY: not that")) as caught:
        operator(wait_for_completion=True, deferrable=deferrable).execute(context)
    assert isinstance(caught.value, AirflowFailException)
    assert caught.value.job.error_code == "POLICY"


def test_a_wait_on_the_worker_ends_at_its_deadline_and_may_be_retried(pictory, context):
    pictory.plan("stuck")
    with pytest.raises(PictoryWaitTimeout) as caught:
        operator(wait_for_completion=True, deferrable=False, poll_interval=0.01, timeout=0.03).execute(context)
    assert not isinstance(caught.value, AirflowFailException)


def on_record(context) -> str:
    """Submit as a first attempt does, for a resumed task to find."""
    return operator().execute(context)


def timeout_event(pictory, context, *, ago=60.0, **plan):
    pictory.plan(**plan)
    job_id = on_record(context)
    return job_id, events.build(events.Ended(job_id, WaitTimeout("too late"), time.time() - ago))


def test_a_job_that_completed_after_the_triggers_deadline_is_a_success(pictory, context, ti):
    job_id, event = timeout_event(pictory, context, fate="completed")
    assert operator().execute_complete(context, event) == job_id
    assert ti.xcoms["image"]["status"] == "completed"


def test_a_timeout_just_after_the_triggers_last_poll_is_final(pictory, context):
    _, event = timeout_event(pictory, context, ago=1.0, fate="completed")
    with pytest.raises(PictoryWaitTimeout, match=says("too late")):
        operator().execute_complete(context, event)
    assert pictory.polls == []


def test_a_job_that_runs_on_after_the_triggers_deadline_is_a_timeout(pictory, context):
    _, event = timeout_event(pictory, context, fate="stuck")
    with pytest.raises(PictoryWaitTimeout, match=says("too late")):
        operator().execute_complete(context, event)


@pytest.mark.parametrize("reason", ["Trigger timeout", "Trigger failure"])
def test_a_job_that_completed_while_airflow_gave_the_deferral_up_is_a_success(pictory, context, ti, reason):
    job_id = on_record(context)
    assert operator().resume_execution("__fail__", {"error": reason}, context) == job_id
    assert ti.xcoms["image"]["status"] == "completed"


@pytest.mark.parametrize(
    ("reason", "error"), [("Trigger timeout", PictoryWaitTimeout), ("Trigger failure", TaskDeferralError)]
)
def test_a_deferral_that_airflow_gave_up_may_be_retried_since_the_retry_adopts_the_job(
    pictory, context, reason, error
):
    pictory.plan("stuck")
    on_record(context)
    with pytest.raises(error) as caught:
        operator().resume_execution("__fail__", {"error": reason}, context)
    assert not isinstance(caught.value, AirflowFailException)


@pytest.mark.parametrize("fault", ["drop-after", "server-error", "garbage"])
def test_an_unknown_outcome_is_not_retried(pictory, context, fault):
    pictory.script("submit", fault)
    with pytest.raises(PictorySubmitOutcomeUnknown) as caught:
        operator().execute(context)
    assert isinstance(caught.value, AirflowFailException)


def test_a_refusal_for_now_may_be_retried_by_airflow(pictory, context):
    pictory.script("submit", "rate-limited", retry_after="3600")
    with pytest.raises(PictoryRateLimited) as caught:
        operator().execute(context)
    assert not isinstance(caught.value, AirflowFailException)


def test_a_bad_key_fails_the_task_without_a_retry(pictory, context, monkeypatch):
    monkeypatch.setattr(pictory, "api_key", "another")
    with pytest.raises(PictoryAuthenticationError) as caught:
        operator().execute(context)
    assert isinstance(caught.value, AirflowFailException)


def test_killing_the_task_says_what_happens_to_the_job_and_sends_nothing(pictory, context, mocker):
    task = operator()
    job_id = task.execute(context)
    sent = len(pictory.requests)
    warning = mocker.patch.object(task.log, "warning")
    task.on_kill()
    assert f"Job {job_id} keeps running at Pictory" in warning.call_args.args[1]
    assert len(pictory.requests) == sent
    assert pictory.account.jobs[job_id].is_cleaned is False


def test_init_only_assigns():
    parameters = inspect.signature(GenerateImageOperator.__init__).parameters
    own = [name for name in parameters if name not in ("self", "kwargs")]
    values = {name: object() for name in own}
    task = GenerateImageOperator(task_id="generate", **values)
    assert {name: getattr(task, name) for name in own} == values


# What Airflow would refuse after the purchase ------------------------------------------------------------


def test_multiple_outputs_is_refused_before_anything_is_bought(pictory, context):
    with pytest.raises(PictoryRequestInvalid, match=says("multiple_outputs is on")):
        GenerateImageOperator(task_id="generate", prompt=PROMPT, multiple_outputs=True).execute(context)
    assert pictory.requests == []


def test_a_task_that_expands_over_one_job_id_is_refused_before_anything_is_bought(pictory, context, ti):
    with DAG("covers", schedule=None):
        generate = GenerateImageOperator(task_id="generate", prompt=PROMPT)
        PictoryJobSensor.partial(task_id="wait").expand(job_id=generate.output)
    with pytest.raises(PictoryRequestInvalid, match=says("another task expands over it")):
        generate.execute(context)
    assert pictory.requests == []
    ti.map_index = 0
    assert [generate.execute(context)] == list(pictory.account.jobs)


def test_the_event_of_an_asset_has_the_image_record_of_a_task_that_waited(pictory, context, ti):
    cover = Asset("cover")
    events = context["outlet_events"] = OutletEventAccessors()
    operator(wait_for_completion=True, outlets=[cover]).execute(context)
    assert events[cover].extra == ti.xcoms["image"]
