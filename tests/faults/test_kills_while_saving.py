# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests that kill a task that saves its picture at every point, in a real Airflow; then a clear, then another run."""

from __future__ import annotations

import hashlib
import json

import pytest
from PIL import Image

from tests.faults.conftest import billed
from tests.faults.test_clears import clear
from tests.faults.test_kills import UNKNOWABLE, kills

DAG_ID = "faults_kills_saving"
KNOWABLE = [case for case in kills.SAVING if case[2] not in UNKNOWABLE]


@pytest.fixture(scope="module")
def run(airflow):
    run = DAG_ID, airflow.trigger(DAG_ID)
    airflow.finish(*run, timeout=600)
    return run


@pytest.fixture(scope="module")
def states(airflow, run):
    return {task["task_id"]: task["state"] for task in airflow.tasks(*run)}


def whole(airflow, job_id, point):
    """Whether picture and sidecar match, and belong to a job."""
    picture = airflow.markers / "pictures" / f"{point}.png"
    sidecar = json.loads(picture.with_name(f"{point}.png.json").read_text())
    with Image.open(picture) as image:
        image.load()
    assert sidecar["sha256"] == hashlib.sha256(picture.read_bytes()).hexdigest()
    return (sidecar["state"], sidecar["job_id"]) == ("saved", job_id)


@pytest.mark.parametrize("case", kills.SAVING, ids=lambda case: case[2])
def test_a_killed_task_is_billed_once_and_saves_once_or_reports_an_unknown_outcome(
    airflow, simulator, run, states, case
):
    point, task_id = case[2], "__".join(case)
    assert (airflow.markers / task_id).exists(), "the process was not killed"
    jobs = billed(simulator, kills.prompt(*case))
    if point in UNKNOWABLE:
        assert len(jobs) in UNKNOWABLE[point]
        assert states[task_id] == "failed"
        return
    assert (len(jobs), states[task_id]) == (1, "success")
    assert whole(airflow, jobs[0], point)
    assert airflow.xcom(*run, task_id, "image")["job_id"] == jobs[0]


@pytest.fixture(scope="module")
def bills(simulator, run):
    return {case: billed(simulator, kills.prompt(*case)) for case in KNOWABLE}


def test_a_clear_buys_no_picture_that_exists(airflow, simulator, run, bills):
    for case in KNOWABLE:
        clear(airflow, run, "__".join(case))
    ended = airflow.finish(*run, timeout=600)
    assert {ended["__".join(case)] for case in KNOWABLE} == {"success"}
    assert {case: billed(simulator, kills.prompt(*case)) for case in KNOWABLE} == bills


def test_another_run_buys_no_picture_that_exists(airflow, simulator, run, bills):
    another = DAG_ID, airflow.trigger(DAG_ID)
    ended = airflow.finish(*another, timeout=600)
    assert {ended["__".join(case)] for case in KNOWABLE} == {"success"}
    assert {case: billed(simulator, kills.prompt(*case)) for case in KNOWABLE} == bills
    for case in KNOWABLE:
        image = airflow.xcom(*another, "__".join(case), "image")
        assert (image["reused"], image["job_id"]) == (True, bills[case][0])
        assert whole(airflow, bills[case][0], case[2])
