# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests that kill a worker at every point of a task, in a real Airflow, and check the bills and the outcome."""

from __future__ import annotations

import psutil
import pytest

from tests.faults.conftest import billed, load

kills = load("faults_kills")
UNKNOWABLE = {
    # point: how many jobs Pictory may have billed
    "between_intent_and_post": {0},
    "while_the_post_is_in_flight": {0, 1},
    "between_reply_and_record": {1},
}
KILLS = [case for case in kills.CASES if case[0] != "frozen"]


@pytest.fixture(scope="module")
def run(airflow):
    run = "faults_kills", airflow.trigger("faults_kills")
    airflow.finish(*run, timeout=600)
    return run


@pytest.fixture(scope="module")
def tasks(airflow, run):
    return {task["task_id"]: task for task in airflow.tasks(*run)}


@pytest.mark.parametrize(("victim", "kind", "point"), KILLS)
def test_a_killed_task_is_billed_once_or_reports_an_unknown_outcome(
    airflow, simulator, run, tasks, victim, kind, point
):
    task_id = f"{victim}__{kind}__{point}"
    assert (airflow.markers / task_id).exists(), "the process was not killed"
    jobs = billed(simulator, kills.prompt(victim, kind, point))
    assert tasks[task_id]["try_number"] == 2
    if point in UNKNOWABLE:
        assert len(jobs) in UNKNOWABLE[point]
        assert tasks[task_id]["state"] == "failed"
        assert "PictorySubmitOutcomeUnknown" in airflow.task_log(*run, task_id, try_number=2)
    else:
        assert len(jobs) == 1
        assert tasks[task_id]["state"] == "success"
        assert airflow.xcom(*run, task_id) == airflow.xcom(*run, task_id, "jobId") == jobs[0]
        if kind != "submit":
            assert airflow.xcom(*run, task_id, "image")["job_id"] == jobs[0]


def test_the_log_of_the_killed_attempt_names_the_job_that_could_not_be_recorded(airflow, simulator, run, tasks):
    task_id = "process__submit__between_reply_and_record"
    (job_id,) = billed(simulator, kills.prompt("process", "submit", "between_reply_and_record"))
    assert f"Pictory accepted job {job_id}" in airflow.task_log(*run, task_id, try_number=1)


@pytest.fixture(scope="module")
def thawed(airflow, run):
    """Resume the frozen workers, whose tasks Airflow has meanwhile retried."""
    frozen = [process for process in airflow.processes() if process.status() == psutil.STATUS_STOPPED]
    assert len(frozen) == 2 * len(kills.FROZEN), "the worker and the process of each task"
    for process in frozen:
        process.resume()
    tasks = [process for process in frozen if "LocalExecutor" not in " ".join(process.cmdline())]
    psutil.wait_procs(tasks, timeout=60)
    assert not any(process.is_running() for process in tasks)


@pytest.mark.usefixtures("thawed")
def test_a_resumed_worker_whose_task_was_retried_cannot_buy_the_picture_again(airflow, simulator, run, tasks):
    task_id = "frozen__submit__before_the_intent"
    jobs = billed(simulator, kills.prompt(*task_id.split("__")))
    assert (tasks[task_id]["state"], tasks[task_id]["try_number"]) == ("success", 2)
    assert jobs == [airflow.xcom(*run, task_id)]


@pytest.mark.usefixtures("thawed")
def test_a_resumed_worker_whose_intent_was_reported_buys_at_most_that_picture(airflow, simulator, run, tasks):
    task_id = "frozen__submit__between_intent_and_post"
    assert (tasks[task_id]["state"], tasks[task_id]["try_number"]) == ("failed", 2)
    assert "PictorySubmitOutcomeUnknown" in airflow.task_log(*run, task_id, try_number=2)
    assert len(billed(simulator, kills.prompt(*task_id.split("__")))) <= 1
