# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Fixtures of the long tests: a simulator whose key is a canary, and a real Airflow."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from demo.stack import AirflowStack
from pictory_provider.simulator import Simulator

DAGS = Path(__file__).parent / "dags"
CANARY = "pictai_canary_0f2a9c"


def pytest_collection_modifyitems(items):
    """Run the search for the key last."""
    items.sort(key=lambda item: "the_key_is_a_canary" in item.nodeid)


@pytest.fixture(scope="session")
def searched():
    """Return the list of folders that are searched for the key at the end."""
    return []


@pytest.fixture(scope="session")
def simulator():
    with Simulator(seconds=2, api_key=CANARY) as pictory:
        pictory.shape("url", "signed")
        yield pictory


@pytest.fixture(scope="session")
def quiet():
    """Return another account, so that a scripted fault affects no other run."""
    with Simulator(seconds=2, api_key=CANARY) as pictory:
        yield pictory


@pytest.fixture(scope="session")
def airflow(simulator, quiet, searched, tmp_path_factory):
    """Return a healthy Airflow on SQLite that detects a dead worker within seconds."""
    markers = tmp_path_factory.mktemp("markers")
    env = {
        "AIRFLOW_CONN_PICTORY_DEFAULT": simulator.connection_json(timeout=5),
        "AIRFLOW_CONN_PICTORY_QUIET": quiet.connection_json(timeout=5),
        "AIRFLOW__CORE__PARALLELISM": "24",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "20",  # faults_edited.py depends on a marker file
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "12",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
        "FAULTS_MARKERS": str(markers),
    }
    home = tmp_path_factory.mktemp("faults") / "home"
    searched.append(home)
    with AirflowStack(home, DAGS, env=env) as stack:
        stack.markers = markers
        yield stack


def billed(simulator, prompt: str) -> list[str]:
    """Return the jobIds that were billed for a prompt."""
    return [job.job_id for job in simulator.account.jobs.values() if job.body["prompt"] == prompt]


def load(name: str) -> Any:
    """Return a DAG file as a module, for its constants."""
    spec = importlib.util.spec_from_file_location(name, DAGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
