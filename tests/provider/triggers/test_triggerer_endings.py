# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Sensors that end, or begin and end, in the triggerer; and how each falls back to a worker."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred, XCom
from airflow.sdk import DAG, Asset, task_group
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.triggers.base import TaskSuccessEvent

from pictory_provider.core.polling import deferral_timeout
from pictory_provider.exceptions import PictoryJobFailed, PictoryProtocolError, PictoryRequestInvalid
from pictory_provider.hooks.pictory import PictoryHook
from pictory_provider.operators.pictory import GenerateImageOperator
from pictory_provider.sensors.pictory import PictoryJobSensor
from pictory_provider.triggers.pictory import PictoryJobTrigger
from tests.driver import events_of
from tests.provider.backends import stores_elsewhere
from tests.provider.waits import buy, trigger
from tests.stand_ins import TaskInstance, says


def sensor(job_id="j", **more):
    return PictoryJobSensor(task_id="wait", job_id=job_id, **{"poke_interval": 5, "timeout": 60, **more})


def record_of(job_id):
    with PictoryHook() as hook:
        return hook.get_job(job_id).record()


@pytest.fixture
def pushed(mocker):
    """Return the XComs that the triggerer pushes; Airflow's own part of it runs in the system tests."""
    xcoms = {}

    def push(key, value, **place):
        xcoms[key] = json.loads(json.dumps(value)), place

    mocker.patch.object(XCom, "set", push)
    mocker.patch.object(XCom, "_set_xcom_in_db", push)
    stands(mocker, "deferred")
    return xcoms


def stands(mocker, state):
    """Let Airflow say in which state the task is."""
    mocker.patch.object(
        RuntimeTaskInstance, "get_task_states", return_value={TaskInstance.run_id: {TaskInstance.task_id: state}}
    )


def in_triggerer(job_id, **more):
    made = trigger(job_id, end_from_trigger=True, **more)
    made.task_instance = TaskInstance()
    return made


PLACE = {"dag_id": "covers", "task_id": "generate", "run_id": TaskInstance.run_id, "map_index": -1}


def test_a_completed_job_ends_the_task_with_the_record_that_every_mode_returns(pictory, pushed):
    job_id = buy(pictory)
    (event,) = events_of(in_triggerer(job_id))
    assert isinstance(event, TaskSuccessEvent)
    assert event.xcoms is None, "Airflow would hand a string to the tasks that pull them"
    record = record_of(job_id)
    assert pushed == {"return_value": (record, PLACE), "_link_PictoryJobLink": (record["url"], PLACE)}


def test_the_link_bypasses_an_xcom_backend_as_airflows_own_worker_sends_it(pictory, mocker, tmp_path):
    """The API server reads a link without any backend, and would show the backend's reference."""
    sent = []
    supervisor = mocker.Mock(send=lambda msg, **_: sent.append(msg))
    mocker.patch("airflow.sdk.execution_time.task_runner.SUPERVISOR_COMMS", supervisor, create=True)
    base = stores_elsewhere(mocker, tmp_path, threshold=0)
    stands(mocker, "deferred")
    (event,) = events_of(in_triggerer(job_id := buy(pictory)))
    assert isinstance(event, TaskSuccessEvent)
    pushed_xcoms = {msg.key: msg.value for msg in sent if type(msg).__name__ == "SetXCom"}
    assert pushed_xcoms["return_value"].startswith(base)
    assert pushed_xcoms["_link_PictoryJobLink"] == record_of(job_id)["url"]


def test_a_result_that_cannot_be_pushed_from_the_triggerer_is_left_to_a_worker(pictory, context, mocker):
    mocker.patch.object(XCom, "set", side_effect=RuntimeError("the XCom backend is away"))
    job_id = buy(pictory)
    (event,) = events_of(in_triggerer(job_id))
    assert not isinstance(event, TaskSuccessEvent)
    assert sensor(job_id).execute_complete(context, event.payload) == record_of(job_id)


@pytest.mark.parametrize("state", ["running", "queued", "success", "failed", None])
def test_a_trigger_that_wakes_after_its_task_has_gone_on_pushes_nothing(pictory, pushed, mocker, state):
    stands(mocker, state)
    (event,) = events_of(in_triggerer(buy(pictory)))
    assert not isinstance(event, TaskSuccessEvent)
    assert pushed == {}


def test_a_task_whose_state_is_unknown_ends_on_a_worker(pictory, pushed, mocker):
    mocker.patch.object(RuntimeTaskInstance, "get_task_states", side_effect=RuntimeError("the API server is away"))
    (event,) = events_of(in_triggerer(buy(pictory)))
    assert not isinstance(event, TaskSuccessEvent)
    assert pushed == {}


def test_a_result_over_which_tasks_are_mapped_is_pushed_by_a_worker(pictory, context, pushed, able):
    with dag():
        wait = sensor(buy(pictory), start_from_trigger=True)
        PictoryJobSensor.partial(task_id="each").expand(job_id=wait.output)
    assert wait.start_from_trigger is True, "when the sensor is made nobody knows yet"
    made = in_triggerer(wait.job_id)
    made.task_instance.task = wait
    (event,) = events_of(made)
    assert not isinstance(event, TaskSuccessEvent)
    assert pushed == {}
    pictory.account.jobs[wait.job_id].fate = "stuck"
    assert deferral_of(wait, context)["end_from_trigger"] is False


def test_without_a_task_instance_a_worker_takes_the_result(pictory, pushed):
    (event,) = events_of(trigger(buy(pictory), end_from_trigger=True))
    assert not isinstance(event, TaskSuccessEvent)
    assert pushed == {}


@pytest.mark.parametrize("fate", ["failed", "cleaned", "stuck"])
def test_every_other_ending_is_for_a_worker_to_judge(pictory, fate):
    job_id = buy(pictory, fate)
    (event,) = events_of(trigger(job_id, end_from_trigger=True, end_time=time.time()))
    assert not isinstance(event, TaskSuccessEvent)
    assert event.payload["outcome"] == "error"


def deferral_of(task, context):
    with pytest.raises(TaskDeferred) as caught:
        task.execute(context)
    return caught.value.trigger.serialize()[1]


def test_the_sensor_lets_its_trigger_end_the_task(pictory, context):
    job_id = buy(pictory, "stuck")
    assert deferral_of(sensor(job_id, end_from_trigger=True), context)["end_from_trigger"] is True
    assert deferral_of(sensor(job_id), context)["end_from_trigger"] is False


LOST_WITHOUT_A_WORKER = {
    "an outlet": {"outlets": [Asset("picture")]},
    "a success callback": {"on_success_callback": print},
    "no XComs": {"do_xcom_push": False},
    "an XCom for each field": {"multiple_outputs": True},
}


@pytest.mark.parametrize("what", LOST_WITHOUT_A_WORKER)
def test_a_task_that_needs_a_worker_at_its_end_gets_one(pictory, context, what):
    job_id = buy(pictory, "stuck")
    task = sensor(job_id, start_from_trigger=True, **LOST_WITHOUT_A_WORKER[what])
    assert task.start_from_trigger is False
    assert deferral_of(task, context)["end_from_trigger"] is False


def test_a_dag_test_passes_success_to_the_worker_which_polls_itself(pictory, context):
    job_id = buy(pictory)
    assert sensor(job_id, end_from_trigger=True).execute_complete(context, "success") == record_of(job_id)
    with pytest.raises(PictoryProtocolError):
        sensor(job_id).execute_complete(context, "success")


def test_a_dag_test_that_cannot_ask_again_is_no_success(pictory, context):
    job_id = buy(pictory, "failed")
    with pytest.raises(PictoryJobFailed):
        sensor(job_id, end_from_trigger=True).execute_complete(context, "success")


def dag():
    return DAG(dag_id="d", schedule=None)


@pytest.fixture
def able(on_airflow):
    """Stand on an Airflow whose tasks can begin in the triggerer."""
    on_airflow((3, 3))


@pytest.mark.usefixtures("able")
def test_a_job_of_another_task_is_pulled_in_the_one_form_that_works():
    with dag():
        generate = GenerateImageOperator(task_id="generate", prompt="A lighthouse")
        task = sensor(generate.output, start_from_trigger=True)
    arguments = task.start_trigger_args.trigger_kwargs
    assert task.start_from_trigger is True
    assert arguments["job_id"] == ("{{ ti.xcom_pull(task_ids='generate', key='return_value', map_indexes=-1) }}")
    assert task.upstream_task_ids == {"generate"}
    assert task.start_trigger_args.next_method == "execute_complete"
    assert task.start_trigger_args.timeout == timedelta(seconds=deferral_timeout(60, 5))


@pytest.mark.usefixtures("able")
def test_every_argument_that_airflow_starts_the_trigger_with_is_one_of_the_trigger():
    task = sensor("j", start_from_trigger=True, exponential_backoff=True, max_wait=30, silent_fail=True)
    made = PictoryJobTrigger(**json.loads(json.dumps(task.start_trigger_args.trigger_kwargs)))
    assert (made.exponential_backoff, made.max_wait, made.silent_fail, made.end_from_trigger) == (
        True,
        30,
        True,
        True,
    )


@pytest.mark.usefixtures("able")
def test_nothing_in_the_arguments_changes_from_parse_to_parse():
    first, second = (sensor("j", start_from_trigger=True).start_trigger_args for _ in range(2))
    assert first == second


@pytest.mark.usefixtures("able")
@pytest.mark.parametrize(
    "more",
    [
        {"job_id": "{{ ti.xcom_pull(task_ids='generate') }}"},
        {"job_id": None},
        {"pictory_conn_id": "{{ ti.xcom_pull(task_ids='choose') }}"},
        {"job_id": "{{ ti.xcom_pull('generate', map_indexes=-1) }}"},
        {"job_id": "{{ ti.xcom_pull(task_ids='a', map_indexes=-1) }}{{ ti.xcom_pull(task_ids='b') }}"},
        {"job_id": "{{ ti.xcom_pull(task_ids='a', map_indexes=[-1, 2]) }}"},
        {"job_id": "{{ ti.xcom_pull(task_ids=['a'], map_indexes=-1) }}"},
        {"job_id": "{{ ti['xcom_pull'](task_ids='a') }}"},
        {"job_id": "{% set pull = ti.xcom_pull %}{{ pull(task_ids='a') }}"},
        {"job_id": "{{ macros.my.find(ti) }}"},
        {"job_id": "{# a remark #}j"},
        {"execution_timeout": timedelta(minutes=1)},
        {"on_execute_callback": print},
        {"deferrable": False},
    ],
)
def test_what_the_triggerer_cannot_start_starts_on_a_worker(more):
    task = sensor(**{"job_id": "j", "start_from_trigger": True, **more})
    assert task.start_from_trigger is False
    assert task.start_trigger_args is None


@pytest.mark.usefixtures("able")
@pytest.mark.parametrize(
    "job_id",
    [
        "j",
        "{{ ti.xcom_pull(task_ids='generate', map_indexes=-1) }}",
        "{{ task_instance.xcom_pull(map_indexes=-1, key='jobId', task_ids=\"generate\") }}",
        "{{ dag_run.conf.get('job') }}",
        "{{ dag_run.conf['job'] }}",
        "{{ params.job }}",
    ],
)
def test_what_is_known_to_render_in_the_triggerer_starts_there(job_id):
    assert sensor(job_id, start_from_trigger=True).start_trigger_args.trigger_kwargs["job_id"] == job_id


@pytest.mark.usefixtures("able")
def test_mapped_tasks_and_jobs_of_mapped_tasks_begin_on_a_worker():
    with dag():
        mapped = GenerateImageOperator.partial(task_id="mapped").expand(prompt=["A lighthouse", "A harbour"])
        of_mapped = sensor(mapped.output, start_from_trigger=True)
        sensors = PictoryJobSensor.partial(task_id="sensors", start_from_trigger=True).expand(job_id=mapped.output)

        @task_group
        def each(prompt):
            submit = GenerateImageOperator(task_id="submit", prompt=prompt)
            within.append(PictoryJobSensor(task_id="within", job_id=submit.output, start_from_trigger=True))

        within = []
        each.expand(prompt=["A lighthouse"])
    assert [of_mapped.start_trigger_args, sensors.start_trigger_args, within[0].start_trigger_args] == [None] * 3


@pytest.mark.parametrize("version", [(3, 1), (3, 2)])
def test_an_airflow_that_cannot_begin_in_the_triggerer_begins_on_a_worker_and_says_so(
    pictory, context, mocker, version, on_airflow
):
    on_airflow(version)
    task = sensor(buy(pictory), start_from_trigger=True)
    assert task.start_from_trigger is False
    assert task.end_from_trigger is True
    info = mocker.patch.object(task.log, "info")
    task.execute(context)
    pushed_xcoms, line = info.call_args_list[0].args
    assert "cannot start a task in the triggerer" in pushed_xcoms
    assert line == ".".join(map(str, version))


def started(job_id, *, timeout=60.0, ago=0.0, **more):
    """Return a trigger as Airflow starts it, and starts it again after a restart of the triggerer."""
    made = PictoryJobTrigger(
        job_id=job_id,
        pictory_conn_id="pictory_default",
        **{"poll_interval": 0.02, "timeout": timeout, "end_from_trigger": True, **more},
    )
    begun = time.time() - ago
    made.timeout_after = datetime.fromtimestamp(begun + deferral_timeout(timeout, made.poll_interval), UTC)
    return made, begun


def test_a_trigger_that_airflow_started_counts_from_the_moment_that_airflow_fixed():
    made, begun = started("j", timeout=60, ago=40, poll_interval=15)
    started_at, first_poll_at, end_time = made._times()
    assert started_at == pytest.approx(begun, abs=0.01)
    assert first_poll_at == pytest.approx(begun + 10, abs=0.01), "as soon as is polite"
    assert end_time == pytest.approx(begun + 60, abs=0.01)


def test_a_trigger_that_airflow_started_ends_the_task(pictory, pushed):
    made, _ = started(buy(pictory))
    made.task_instance = TaskInstance()
    (event,) = events_of(made)
    assert isinstance(event, TaskSuccessEvent)


def test_if_its_deadline_has_passed_while_the_triggerer_was_away_it_polls_once(pictory):
    job_id = buy(pictory, "stuck")
    pictory.requests.clear()
    made, _ = started(job_id, timeout=60, ago=100)
    (event,) = events_of(made)
    assert event.payload["error"]["kind"] == "WaitTimeout"
    assert len(pictory.polls) == 1


@pytest.mark.parametrize("job_id", ["None", ""])
def test_a_job_id_that_rendered_to_nothing_is_reported_without_a_request(pictory, context, job_id):
    made, _ = started(job_id)
    (event,) = events_of(made)
    assert pictory.requests == []
    with pytest.raises(PictoryRequestInvalid, match=says("job_id is missing")):
        sensor(job_id).execute_complete(context, event.payload)


def test_a_short_interval_is_logged_in_the_triggerer_if_no_worker_can_log_it(pictory, mocker):
    made, _ = started(buy(pictory))
    warning = mocker.patch.object(made.log, "warning")
    events_of(made)
    assert "poke_interval is 0.02 s; Pictory recommends 10 to 30 s" in warning.call_args.args[0]
