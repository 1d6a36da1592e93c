# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests that kill a worker in a batch of sixty rows, in a real Airflow, and check the bills and the saved pictures."""

from __future__ import annotations

import json

import pytest

from pictory_provider.core.batch.plan import WAVE
from tests.faults.conftest import load

batch = load("faults_batch")
UNKNOWABLE = ("before_the_first_request", "in_mid_wave")
"""Points after which it is unknown for some rows whether they were bought."""
MAY_BE_UNKNOWABLE = ("while_saving",)
"""Points at which a wave may be in progress, because pictures are saved while others are bought."""


def bills(simulator, point):
    """Return how often each row was billed."""
    prompts = [job.body["prompt"] for job in simulator.account.jobs.values()]
    return [prompts.count(batch.prompt(point, number)) for number in range(batch.ROWS)]


def pictures(airflow, point):
    folder = airflow.markers / "pictures" / point
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert all((folder / line["file_name"]).stat().st_size == line["size"] for line in lines)
    return len(lines)


@pytest.fixture(scope="module")
def run(airflow):
    run = "faults_batch", airflow.trigger("faults_batch")
    airflow.finish(*run, timeout=900)
    return run


@pytest.fixture(scope="module")
def tasks(airflow, run):
    return {task["task_id"]: task for task in airflow.tasks(*run)}


@pytest.mark.parametrize("point", batch.POINTS)
def test_a_batch_whose_worker_is_killed_is_billed_once_a_row_and_at_most_a_wave_is_unknown(
    airflow, simulator, run, tasks, point
):
    assert (airflow.markers / f"batch_{point}").exists(), "the process was not killed"
    assert tasks[point]["try_number"] == 2
    billed, progress = bills(simulator, point), airflow.xcom(*run, point, "progress")
    assert max(billed) == 1
    if point in UNKNOWABLE or (point in MAY_BE_UNKNOWABLE and progress["unknown"]):
        assert tasks[point]["state"] == "failed"
        assert "PictorySubmitOutcomeUnknown" in airflow.task_log(*run, point, try_number=2)
        assert 0 < progress["unknown"] <= WAVE
        assert progress["saved"] + progress["unknown"] == batch.ROWS
    else:
        assert tasks[point]["state"] == "success"
        assert progress["saved"] + progress["reused"] == batch.ROWS
        assert billed == [1] * batch.ROWS
    assert pictures(airflow, point) == batch.ROWS - progress["unknown"]


def test_a_clear_buys_only_the_rows_with_an_unknown_outcome(airflow, simulator, run, tasks):
    before = {point: sum(bills(simulator, point)) for point in batch.POINTS}
    points = (*UNKNOWABLE, *MAY_BE_UNKNOWABLE)
    # Some of these may have been billed before; they are billed twice now.
    unknown = {point: airflow.xcom(*run, point, "progress")["unknown"] for point in points}
    airflow.call(
        "POST",
        f"/dags/{run[0]}/clearTaskInstances",
        dry_run=False,
        dag_run_id=run[1],
        task_ids=list(batch.POINTS),
        only_failed=False,
        reset_dag_runs=True,
    )
    assert set(airflow.finish(*run, timeout=900).values()) == {"success"}
    for point in batch.POINTS:
        assert sum(bills(simulator, point)) == before[point] + unknown.get(point, 0)
        assert pictures(airflow, point) == batch.ROWS
