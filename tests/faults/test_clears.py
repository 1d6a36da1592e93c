# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests of a user's clears and marks, and of both ways to continue after an unknown outcome, in a real Airflow."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest

from pictory_provider.core.submission import KEY
from tests.faults.conftest import billed


def state(airflow, run, task_id="generate"):
    return next(task["state"] for task in airflow.tasks(*run) if task["task_id"] == task_id)


def wait_for(airflow, run, *states):
    for _ in airflow.until(120):
        if (now := state(airflow, run)) in states:
            return
    raise AssertionError(f"{run} is {now}, and not one of {states}")


def wait_for_job(airflow, quiet, prompt):
    for _ in airflow.until(60):
        if billed(quiet, prompt):
            return
    raise AssertionError(f"nothing was bought for {prompt!r}")


def clear(airflow, run, task_id="generate"):
    dag_id, run_id = run
    airflow.call(
        "POST",
        f"/dags/{dag_id}/clearTaskInstances",
        dry_run=False,
        dag_run_id=run_id,
        task_ids=[task_id],
        only_failed=False,
        reset_dag_runs=True,
    )


def store(airflow, run):
    dag_id, run_id = run
    return f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/generate/state-store/{KEY}"


@pytest.fixture
def start(airflow, quiet):
    """Return a function that starts a run of one kind of task with its own prompt."""

    def started(kind, prompt):
        return f"faults_{kind}", airflow.trigger(f"faults_{kind}", prompt=prompt)

    return started


def assert_bought_again(airflow, quiet, run, prompt):
    """Check that a cleared run succeeds with a second picture, and return both jobs."""
    assert airflow.finish(*run)["generate"] == "success"
    first, second = billed(quiet, prompt)
    assert airflow.xcom(*run, "generate") == second
    return first, second


def test_a_clear_of_a_finished_task_buys_again_and_its_log_names_the_job_left_behind(airflow, quiet, start):
    run = start("submit", prompt := "Cleared when it was done")
    airflow.finish(*run)
    clear(airflow, run)
    first, _ = assert_bought_again(airflow, quiet, run, prompt)
    assert f"({first}) is left behind" in airflow.task_log(*run, "generate", try_number=2)


def test_a_clear_of_a_deferred_task_buys_again(airflow, quiet, start):
    run = start("defer", prompt := "Cleared while it was deferred simulate:seconds=20")
    wait_for(airflow, run, "deferred")
    clear(airflow, run)
    assert_bought_again(airflow, quiet, run, prompt)


def test_a_clear_of_a_running_task_buys_again_once_airflow_has_ended_it(airflow, quiet, start):
    run = start("wait", prompt := "Cleared while it was running simulate:seconds=20")
    wait_for_job(airflow, quiet, prompt)
    clear(airflow, run)
    assert_bought_again(airflow, quiet, run, prompt)


def test_a_clear_of_a_running_task_whose_worker_has_died_is_a_retry_to_airflow_and_adopts_the_job(
    airflow, quiet, start
):
    run = start("wait", prompt := "Cleared when its worker had died simulate:seconds=20")
    wait_for_job(airflow, quiet, prompt)
    ti_id = next(task["id"] for task in airflow.tasks(*run) if task["task_id"] == "generate")
    worker = [process for process in airflow.processes() if ti_id in " ".join(process.cmdline())]
    assert len(worker) == 2, "the worker and the process of the task"
    for process in worker:
        process.kill()
    clear(airflow, run)
    assert state(airflow, run) == "restarting"
    assert airflow.finish(*run)["generate"] == "success"
    assert billed(quiet, prompt) == [airflow.xcom(*run, "generate")]


def test_a_clear_of_another_task_of_the_run_buys_nothing(airflow, quiet, start):
    run = start("defer", prompt := "Another task was cleared simulate:seconds=10")
    wait_for(airflow, run, "deferred")
    clear(airflow, run, "bystander")
    assert airflow.finish(*run)["generate"] == "success"
    assert len(billed(quiet, prompt)) == 1


def test_a_clear_of_the_whole_run_buys_again(airflow, quiet, start):
    run = start("submit", prompt := "The whole run was cleared")
    airflow.finish(*run)
    airflow.call("POST", f"/dags/{run[0]}/dagRuns/{run[1]}/clear", dry_run=False, only_failed=False)
    assert_bought_again(airflow, quiet, run, prompt)


@pytest.mark.parametrize(("kind", "when"), [("wait", "running"), ("defer", "deferred")])
def test_a_task_that_is_marked_failed_says_what_happens_to_its_job_and_stops_nothing(
    airflow, quiet, start, kind, when
):
    run = start(kind, prompt := f"Marked failed while it was {when} simulate:seconds=60")
    wait_for_job(airflow, quiet, prompt)
    wait_for(airflow, run, when)
    (job_id,) = billed(quiet, prompt)
    for _ in airflow.until(60):
        if len([poll for poll in quiet.polls if poll.path.endswith(job_id)]) > 1:
            break  # its trigger has started; before that it would not log anything
    airflow.call("PATCH", f"/dags/{run[0]}/dagRuns/{run[1]}/taskInstances/generate", new_state="failed")
    for _ in airflow.until(60):
        if f"Job {job_id} keeps running at Pictory" in airflow.task_log(*run, "generate"):
            break
    else:
        raise AssertionError(airflow.task_log(*run, "generate"))
    assert not any(request.method == "DELETE" for request in quiet.requests)


def unknown(airflow, quiet, run):
    """Wait until a run ends with an unknown outcome, and return the job that was billed."""
    assert airflow.finish(*run)["generate"] == "failed"
    assert "PictorySubmitOutcomeUnknown" in airflow.task_log(*run, "generate")
    assert len(quiet.account.jobs) == 1
    return next(iter(quiet.account.jobs))


@pytest.fixture
def lost_reply(quiet):
    quiet.reset()
    quiet.script("submit", "drop-after")


@pytest.mark.usefixtures("lost_reply")
def test_after_an_unknown_outcome_a_clear_buys_again(airflow, quiet, start):
    run = start("submit", prompt := "A reply was lost, and the task was cleared")
    unknown(airflow, quiet, run)
    clear(airflow, run)
    assert_bought_again(airflow, quiet, run, prompt)


def record_job(airflow, run, job_id, way):
    """Record the job as the error's text says: on the task's page, or with the command."""
    if way == "page":
        airflow.call("PUT", store(airflow, run), value={"jobId": job_id})
        return
    line = airflow.task_log(*run, "generate").partition("python -m pictory_provider adopt ")[2]
    words = shlex.split(line.partition(" or set ")[0])
    assert words[:4] == [*run, "generate", "JOBID"]
    command = [sys.executable, "-m", "pictory_provider", "adopt", *run, "generate", job_id, *words[4:]]
    subprocess.run(command, env=airflow.env, check=True)


@pytest.mark.usefixtures("lost_reply")
@pytest.mark.parametrize(("kind", "way"), [("submit", "page"), ("defer", "page"), ("submit", "command")])
def test_after_an_unknown_outcome_the_job_id_in_the_store_is_adopted(airflow, quiet, start, kind, way):
    run = start(kind, prompt := f"A reply was lost, and its job was found ({kind}, {way})")
    job_id = unknown(airflow, quiet, run)
    assert "jobId" not in airflow.call("GET", store(airflow, run))["value"]
    record_job(airflow, run, job_id, way)
    if way == "page":  # the command clears the task itself
        clear(airflow, run)
    assert airflow.finish(*run)["generate"] == "success"
    assert airflow.xcom(*run, "generate") == job_id
    assert billed(quiet, prompt) == [job_id]
