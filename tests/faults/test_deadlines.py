# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Test of a deadline that passes and of the retry after it, in a real Airflow."""

from __future__ import annotations

import pytest

from tests.faults.conftest import billed, load

late = load("faults_late")


@pytest.fixture(scope="module")
def run(airflow):
    run = "faults_late", airflow.trigger("faults_late")
    airflow.finish(*run)
    return run


@pytest.mark.parametrize("kind", ["wait", "defer"])
def test_a_retry_after_the_deadline_adopts_the_job_polls_once_and_succeeds(airflow, simulator, run, kind):
    (job_id,) = billed(simulator, late.PROMPT.format(kind))
    (task,) = [task for task in airflow.tasks(*run) if task["task_id"] == kind]
    assert (task["state"], task["try_number"]) == ("success", 2)
    assert airflow.xcom(*run, kind) == airflow.xcom(*run, kind, "jobId") == job_id
    assert airflow.xcom(*run, kind, "image")["status"] == "completed"
    first, second = (airflow.task_log(*run, kind, try_number=number) for number in (1, 2))
    assert "PictoryWaitTimeout" in first
    assert f"Job {job_id} is on record: a retry of this task adopts it and buys nothing" in first
    assert "Next look in" not in second
