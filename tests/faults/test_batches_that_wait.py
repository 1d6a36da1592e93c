# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests of a batch that waits for two hundred jobs in a real Airflow: a killed triggerer, and a clear."""

from __future__ import annotations

from collections import Counter

import pytest

from demo.stack import AirflowStack
from pictory_provider.simulator import Simulator
from tests.faults.conftest import CANARY, DAGS, load
from tests.faults.test_clears import clear

ROWS = load("faults_batch_waits").ROWS
DAG_ID = "faults_batch_waits"


@pytest.fixture(scope="module")
def crowd():
    with Simulator(seconds=3600, api_key=CANARY) as pictory:
        yield pictory


@pytest.fixture(scope="module")
def stack(crowd, tmp_path_factory):
    """Return a separate Airflow, whose triggerer may be killed."""
    markers = tmp_path_factory.mktemp("markers")
    env = {
        "AIRFLOW_CONN_PICTORY_DEFAULT": crowd.connection_json(),
        "AIRFLOW_CONN_PICTORY_CROWD": crowd.connection_json(requests_per_second=50),
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
        "FAULTS_MARKERS": str(markers),
    }
    with AirflowStack(tmp_path_factory.mktemp("waits") / "home", DAGS, env=env) as stack:
        yield stack


@pytest.fixture
def waiting(stack, crowd):
    """Return a run whose batch is deferred and waits for all its jobs."""
    crowd.reset()
    crowd.account.seconds = 3600
    run = DAG_ID, stack.trigger(DAG_ID)
    for _ in stack.until(240):
        if stack.tasks(*run)[0]["state"] == "deferred" and len(crowd.account.jobs) == ROWS:
            return run
    raise AssertionError(f"{stack.tasks(*run)[0]['state']}, {len(crowd.account.jobs)} jobs")


def end(crowd):
    for job in crowd.account.jobs.values():
        job.seconds = 0


def bills(crowd):
    return Counter(Counter(job.body["prompt"] for job in crowd.account.jobs.values()).values())


def test_a_killed_triggerer_loses_none_of_two_hundred_jobs(stack, crowd, waiting):
    stack.kill_component("triggerer")
    end(crowd)
    stack.start_component("triggerer", "triggerer-2")
    assert stack.finish(*waiting, timeout=300) == {"pictures": "success"}
    assert stack.xcom(*waiting, "pictures")["saved"] == ROWS
    assert bills(crowd) == {1: ROWS}


def test_a_batch_that_is_cleared_while_it_waits_adopts_every_job(stack, crowd, waiting):
    clear(stack, waiting, "pictures")
    end(crowd)
    assert stack.finish(*waiting, timeout=300) == {"pictures": "success"}
    assert stack.xcom(*waiting, "pictures")["saved"] == ROWS
    assert bills(crowd) == {1: ROWS}
