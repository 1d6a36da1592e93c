# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Sensors that end, or begin and end, in the triggerer, under a real scheduler and triggerer."""

from __future__ import annotations

import pytest

from tests.system.conftest import COMPLETED

WITHOUT_A_START = ("start", "start_template")


@pytest.fixture(scope="module")
def run(triggerer_run):
    return triggerer_run


def legs(airflow, run, task_id):
    """Return how often a worker was started for a task."""
    log = (airflow.home / "scheduler.log").read_text()
    return sum(
        f"task_id={task_id}, run_id={run[1]}" in line
        for line in log.splitlines()
        if "TaskInstance Finished:" in line
    )


def test_a_wait_without_a_worker_comes_to_the_same_end(airflow, run):
    records = [airflow.xcom(*run, task_id) for task_id in COMPLETED]
    assert records[0]["status"] == "completed"
    assert records == [records[0]] * len(COMPLETED)
    for task_id in COMPLETED:
        assert airflow.xcom(*run, task_id, "_link_PictoryJobLink") == records[0]["url"], task_id


def test_the_tasks_that_pull_the_result_get_the_record_itself(airflow, run):
    record = airflow.xcom(*run, "end")
    assert airflow.xcom(*run, "pulled") == [record, record, record["job_id"], record["job_id"]]


def test_a_worker_is_started_once_less_or_not_at_all(airflow, run):
    assert [legs(airflow, run, task_id) for task_id in WITHOUT_A_START] == [0, 0]
    assert legs(airflow, run, "end") == 1
    for _ in airflow.until(30):  # the scheduler notices a moment later that a worker has ended
        if legs(airflow, run, "worker_outlet") == 2:
            break
    assert legs(airflow, run, "worker_outlet") == 2


def test_what_cannot_start_in_the_triggerer_starts_on_a_worker(airflow, run):
    states = airflow.finish(*run)
    for task_id in ("worker_slice", "worker_execution_timeout", "worker_mapped", "each.worker_in_group"):
        assert legs(airflow, run, task_id) >= 1, task_id
        assert {state for name, state in states.items() if name.startswith(task_id)} == {"success"}, task_id


def test_a_task_that_needs_a_workers_push_ends_on_a_worker(airflow, run):
    record = airflow.xcom(*run, "end")
    assert {name: airflow.xcom(*run, "worker_multiple", name) for name in ("job_id", "width")} == {
        name: record[name] for name in ("job_id", "width")
    }
    states = airflow.finish(*run)
    mapped = {name: state for name, state in states.items() if name.startswith("each_field")}
    assert mapped
    assert set(mapped.values()) == {"success"}


def test_jobs_that_do_not_complete_end_as_in_every_other_mode(airflow, run):
    states = airflow.finish(*run)
    for fate in ("failed", "stuck"):
        assert states[f"start_{fate}"] == "failed", fate
        assert states[f"start_{fate}_soft"] == "skipped", fate
    for task_id in ("no_job", "no_param"):
        assert states[task_id] == "failed"
        assert "job_id is missing" in airflow.task_log(*run, task_id)
        assert legs(airflow, run, task_id) == 1, "a worker was started for the error alone"
    assert "failed at Pictory: IMAGE_GENERATION_FAILED" in airflow.task_log(*run, "start_failed")
    assert "AirflowSensorTimeout" in airflow.task_log(*run, "start_stuck")
    assert "job_id is missing" in airflow.task_log(*run, "no_job")


def test_an_outlet_has_its_event_although_the_sensor_was_to_do_without_a_worker(airflow, run):
    events = airflow.call("GET", "/assets/events")["asset_events"]
    assert [event["source_task_id"] for event in events if event["source_run_id"] == run[1]] == ["worker_outlet"]
