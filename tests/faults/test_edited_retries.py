# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests that retries and clears are distinguished if ``retries`` is edited while a DAG runs, in a real Airflow."""

from __future__ import annotations

import os
import signal

import pytest

from tests.faults.conftest import billed, load

edited = load("faults_edited")
WAYS = tuple(edited.BEFORE)


def states(airflow, run):
    return {task["task_id"]: task["state"] for task in airflow.tasks(*run)}


def max_tries(airflow, run, task_id):
    return next(task["max_tries"] for task in airflow.tasks(*run) if task["task_id"] == task_id)


def wait_for(airflow, what, timeout=120):
    for _ in airflow.until(timeout):
        if what():
            return
    raise AssertionError("not within the timeout")


@pytest.fixture(scope="module")
def runs(airflow, quiet):
    """Submit with one number of retries, and continue with another: by a clear, after a kill, after a deferral.

    :return: the run of each DAG, and Airflow's ``max_tries`` of a cleared task.
    """
    runs = {way: (f"faults_{way}", airflow.trigger(f"faults_{way}")) for way in WAYS}
    for way, run in runs.items():
        wait_for(airflow, lambda run=run: states(airflow, run)["submit"] == "success")
        wait_for(airflow, lambda run=run: states(airflow, run)["defer"] == "deferred")
        wait_for(airflow, lambda way=way: billed(quiet, edited.prompt(way, "wait")))
        assert [max_tries(airflow, run, kind) for kind in edited.KINDS] == [edited.BEFORE[way]] * 3
    (airflow.markers / "retries_are_edited").touch()
    for way in WAYS:
        wait_for(
            airflow,
            lambda way=way: (
                airflow.call("GET", f"/dags/faults_{way}/tasks/submit")["retries"] == edited.AFTER[way]
            ),
        )
    tries = {}
    for way, run in runs.items():
        os.kill(int((airflow.markers / f"faults_{way}.wait.pid").read_text()), signal.SIGKILL)
        airflow.call(
            "POST",
            f"/dags/{run[0]}/clearTaskInstances",
            dry_run=False,
            dag_run_id=run[1],
            task_ids=["submit"],
            only_failed=False,
            reset_dag_runs=True,
        )
        tries[way] = max_tries(airflow, run, "submit")
    for way, run in runs.items():
        wait_for(airflow, lambda run=run: states(airflow, run)["wait"] in ("up_for_retry", "queued", "running"))
        for kind in ("wait", "defer"):
            for job_id in billed(quiet, edited.prompt(way, kind)):
                quiet.account.jobs[job_id].fate = "completed"
        airflow.finish(*run)
    return runs, tries


def test_a_clear_after_retries_were_lowered_looks_like_a_retry_to_airflow_itself(runs):
    """``max_tries`` does not change, which is why the provider records that an attempt has ended."""
    _, tries = runs
    assert tries == {"lowered": edited.BEFORE["lowered"], "raised": 3}


@pytest.mark.parametrize("way", WAYS)
def test_a_clear_buys_again_although_retries_were_edited(airflow, quiet, runs, way):
    run = runs[0][way]
    jobs = billed(quiet, edited.prompt(way, "submit"))
    assert len(jobs) == 2
    assert airflow.xcom(*run, "submit") == jobs[1]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["wait", "defer"])
def test_a_killed_or_deferred_task_buys_nothing_again_although_retries_were_edited(
    airflow, quiet, runs, way, kind
):
    run = runs[0][way]
    assert states(airflow, run)[kind] == "success"
    (job_id,) = billed(quiet, edited.prompt(way, kind))
    assert airflow.xcom(*run, kind) == job_id
