# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""PictoryJobSensor: one verdict in every mode."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pendulum
import pytest
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferred,
)

from pictory_provider.api import responses
from pictory_provider.exceptions import (
    PictoryAuthenticationError,
    PictoryEdgeBlocked,
    PictoryJobCleaned,
    PictoryJobFailed,
    PictoryJobNotFound,
    PictoryProtocolError,
    PictoryRequestInvalid,
)
from pictory_provider.sensors.pictory import PictoryJobSensor
from pictory_provider.version_compat import AirflowRescheduleException, TaskDeferralError
from tests.driver import to_its_end
from tests.provider.waits import SENSOR_WAYS, buy
from tests.stand_ins import says

WAYS = SENSOR_WAYS


@pytest.fixture(autouse=True)
def _bearing_early_returns(timing):
    """Let tasks be rescheduled immediately, so that no test has to wait."""
    timing(min_deferral=0)


def sensor(job_id, way="poke", **more):
    return PictoryJobSensor(
        task_id="wait", job_id=job_id, **{"poke_interval": 0.02, "timeout": 0.05, **WAYS[way], **more}
    )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("job_id", ["", "None", None])
def test_a_missing_job_id_is_reported_without_a_request(pictory, context, way, job_id):
    with pytest.raises(PictoryRequestInvalid, match=says("job_id is missing")):
        to_its_end(sensor(job_id, way), context)
    assert pictory.requests == []


def test_durations_may_be_pendulums_and_none_of_them_crosses_to_airflow(pictory, context):
    """Airflow 3.3.2 cannot send one from a task to its supervisor."""
    made = sensor(buy(pictory, "stuck"), "deferrable", poke_interval=pendulum.duration(seconds=20),
                  timeout=pendulum.duration(hours=1))  # fmt: skip
    with pytest.raises(TaskDeferred) as deferred:
        made.execute(context)
    assert type(deferred.value.timeout) is timedelta
    assert deferred.value.trigger.poll_interval == 20
    assert deferred.value.trigger.end_time - deferred.value.trigger.started_at == 3_600
    assert all(
        type(value) in (str, float, int, bool, type(None))
        for value in deferred.value.trigger.serialize()[1].values()
    )


@pytest.mark.parametrize("way", WAYS)
def test_a_list_of_job_ids_is_reported_with_expand(pictory, context, way):
    with pytest.raises(
        PictoryRequestInvalid, match=says(r"(?s)a list of 2; it takes one jobId.*\.expand\(job_id=")
    ):
        to_its_end(sensor(["a", "b"], way), context)
    assert pictory.requests == []


def test_a_poke_polls_once_and_says_whether_the_job_is_done(pictory, context):
    made = sensor(buy(pictory, "stuck"), timeout=60)
    assert not made.poke(context)
    assert len(pictory.polls) == 1
    done = sensor(buy(pictory)).poke(context)
    assert (bool(done), done.xcom_value["status"]) == (True, "completed")


def test_a_poke_raises_what_the_wait_would(pictory, context):
    with pytest.raises(PictoryJobFailed):
        sensor(buy(pictory, "failed")).poke(context)


@pytest.mark.parametrize("way", WAYS)
def test_a_job_id_that_is_no_uuid_is_for_pictory_to_decide(pictory, context, way, timing):
    timing(unknown_job=0)
    with pytest.raises(PictoryJobNotFound):
        to_its_end(sensor("job-17", way), context)
    assert pictory.polls[0].path == "/v1/jobs/job-17"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "fault", ["drop-before", "server-error", "rate-limited", "unavailable", "garbage", "edge-block"]
)
def test_faults_that_pass_do_not_end_the_wait(pictory, context, way, fault):
    job_id = buy(pictory)
    pictory.script("job", fault, times=3)
    assert to_its_end(sensor(job_id, way, timeout=30), context)["status"] == "completed"


@pytest.mark.parametrize("way", WAYS)
def test_a_job_that_pictory_does_not_know_in_its_first_seconds_is_waited_for(pictory, context, way):
    job_id = buy(pictory, missing_seconds=0.1)
    assert to_its_end(sensor(job_id, way, timeout=30), context)["status"] == "completed"


@pytest.mark.parametrize("way", WAYS)
def test_a_url_that_comes_late_is_waited_for_in_this_process(pictory, context, way):
    job_id = buy(pictory, "no-url")
    job = pictory.account.jobs[job_id]
    there_after = threading.Timer(0.06, setattr, (job, "fate", "completed"))
    there_after.start()
    assert to_its_end(sensor(job_id, way, timeout=30), context)["url"]
    there_after.join()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("silent_fail", [False, True])
def test_an_unexpected_error_ends_the_wait_unless_silent_fail_is_on(pictory, context, mocker, way, silent_fail):
    job_id = buy(pictory)
    real, calls = responses.parse_job, []

    def parse_job(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise ZeroDivisionError("a fault in the code")
        return real(*arguments)

    mocker.patch.object(responses, "parse_job", parse_job)
    task = sensor(job_id, way, silent_fail=silent_fail, timeout=30)
    if silent_fail:
        assert to_its_end(task, context)["status"] == "completed"
    else:
        with pytest.raises(ZeroDivisionError):
            to_its_end(task, context)


@pytest.mark.parametrize("option", ["soft_fail", "never_fail"])
def test_an_execution_timeout_is_skipped_as_with_any_other_sensor(pictory, context, mocker, option):
    job_id = buy(pictory, "stuck")
    mocker.patch("pictory_provider.sensors.pictory.time.sleep", side_effect=AirflowTaskTimeout("too slow"))
    with pytest.raises(AirflowSkipException):
        sensor(job_id, timeout=60, **{option: True}).execute(context)
    with pytest.raises(AirflowTaskTimeout):
        sensor(job_id, timeout=60).execute(context)


def test_deferrable_wins_over_mode(pictory, context):
    job_id = buy(pictory, "stuck")
    with pytest.raises(TaskDeferred):
        sensor(job_id, "deferrable", mode="reschedule", timeout=60).execute(context)


def test_every_option_of_the_wait_survives_deferral(pictory, context):
    job_id = buy(pictory, "stuck")
    with pytest.raises(TaskDeferred) as caught:
        sensor(
            job_id,
            "deferrable",
            poke_interval=timedelta(seconds=12),
            timeout=timedelta(minutes=5),
            exponential_backoff=True,
            max_wait=timedelta(seconds=40),
            silent_fail=True,
            pictory_conn_id="pictory_default",
        ).execute(context)
    trigger = caught.value.trigger
    assert trigger.end_time - trigger.started_at == pytest.approx(300)
    assert (trigger.poll_interval, trigger.exponential_backoff, trigger.max_wait) == (12, True, 40)
    assert (trigger.silent_fail, trigger.pictory_conn_id, trigger.job_id) == (True, "pictory_default", job_id)


def test_a_rescheduled_sensor_keeps_the_deadline_of_its_first_poll(pictory, context, ti):
    job_id = buy(pictory, "stuck")
    ti.first_reschedule_date = datetime.now(UTC) - timedelta(seconds=100)
    with pytest.raises(AirflowSensorTimeout, match=says("the deadline was 90 s")):
        sensor(job_id, "reschedule", timeout=90).execute(context)


@pytest.mark.parametrize(
    ("version", "interval", "pause"),
    [((3, 3), 30, 30), ((3, 3), 1, 8), ((3, 1), 1, 8), ((3, 4), 1, 8), ((3, 4), 30, 30)],
)
def test_a_rescheduled_sensor_comes_back_after_the_interval_and_no_sooner_than_airflow_can_bear(
    pictory, context, version, interval, pause, on_airflow, timing
):
    on_airflow(version)
    timing(min_deferral=8)
    job_id = buy(pictory, "stuck")
    before = datetime.now(UTC)
    with pytest.raises(AirflowRescheduleException) as caught:
        sensor(job_id, "reschedule", poke_interval=interval, timeout=90).execute(context)
    assert before <= caught.value.reschedule_date - timedelta(seconds=pause) <= datetime.now(UTC)


@pytest.mark.parametrize("reason", ["Trigger timeout", "Trigger failure"])
def test_a_job_that_completed_while_airflow_gave_the_deferral_up_is_a_success(pictory, context, reason):
    job_id = buy(pictory)
    record = sensor(job_id, "deferrable").resume_execution("__fail__", {"error": reason}, context)
    assert (record["job_id"], record["status"]) == (job_id, "completed")


def test_a_deferral_that_timed_out_is_a_sensor_timeout_and_one_that_broke_may_be_retried(pictory, context):
    job_id = buy(pictory, "stuck")
    with pytest.raises(AirflowSensorTimeout, match=job_id):
        sensor(job_id, "deferrable").resume_execution("__fail__", {"error": "Trigger timeout"}, context)
    with pytest.raises(TaskDeferralError):
        sensor(job_id, "deferrable").resume_execution("__fail__", {"error": "Trigger failure"}, context)


def test_soft_fail_does_not_hide_a_broken_trigger_and_never_fail_does(pictory, context):
    job_id = buy(pictory, "stuck")
    with pytest.raises(TaskDeferralError):
        sensor(job_id, soft_fail=True).resume_execution("__fail__", {"error": "Trigger failure"}, context)
    with pytest.raises(AirflowSkipException):
        sensor(job_id, soft_fail=True).resume_execution("__fail__", {"error": "Trigger timeout"}, context)
    with pytest.raises(AirflowSkipException):
        sensor(job_id, never_fail=True).resume_execution("__fail__", {"error": "Trigger failure"}, context)


def test_a_late_poll_finds_that_the_job_failed(pictory, context):
    job_id = buy(pictory, "failed")
    with pytest.raises(PictoryJobFailed):
        sensor(job_id).resume_execution("__fail__", {"error": "Trigger timeout"}, context)


@pytest.mark.parametrize("event", [None, "success", {"outcome": "completed"}])
def test_an_event_of_another_form_is_never_a_success(pictory, context, event):
    with pytest.raises(PictoryProtocolError):
        sensor("j").execute_complete(context, event)


def test_an_impolite_interval_is_accepted_with_one_warning(pictory, context, ti, mocker):
    job_id = buy(pictory, "stuck")
    task = sensor(job_id, "reschedule", poke_interval=1, timeout=100)
    warning = mocker.patch.object(task.log, "warning")
    for _ in range(2):
        with pytest.raises(AirflowRescheduleException):
            task.execute(context)
        ti.first_reschedule_date = datetime.now(UTC)
    assert sum("Pictory recommends" in call.args[0] for call in warning.call_args_list) == 1


def test_the_defaults_are_those_that_pictory_recommends():
    task = PictoryJobSensor(task_id="wait", job_id="j")
    assert (task.deferrable, task.poke_interval, task.timeout) == (True, 15, 1200)


def test_failures_that_another_poll_cannot_change_are_not_retried(pictory, context):
    for error in (PictoryJobFailed, PictoryJobCleaned, PictoryJobNotFound, PictoryAuthenticationError):
        assert issubclass(error, AirflowFailException)
    assert not issubclass(PictoryEdgeBlocked, AirflowFailException)
