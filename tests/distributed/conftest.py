# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Fixtures: Airflow with Celery, Redis, PostgreSQL, two schedulers, triggerers and workers, and S3 storage."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from demo.postgres import postgres
from demo.stack import AirflowStack
from pictory_provider.simulator import Simulator
from tests.distributed.servers import redis, s3

DAGS = Path(__file__).parent / "dags"
ACCESS_KEY = "AKIDOFTHECONNECTION"


def load(name: str) -> Any:
    """Return a DAG file as a module, for its constants."""
    spec = importlib.util.spec_from_file_location(name, DAGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def pictory():
    with Simulator() as pictory:
        yield pictory


@pytest.fixture(scope="session")
def storage():
    with s3() as storage:
        yield storage


@pytest.fixture
def connected(pictory, storage, monkeypatch):
    """Connect this process to a Pictory whose jobs end at once, and to the S3 as ``media``."""
    pictory.reset()
    pictory.account.seconds = 0
    monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", pictory.connection_json(requests_per_second=500))
    monkeypatch.setenv("AIRFLOW_CONN_MEDIA", storage.connection_json(ACCESS_KEY))


@pytest.fixture(scope="session")
def airflow(pictory, storage, tmp_path_factory):
    """Return a healthy Airflow with two schedulers, two triggerers, and two workers of four slots each."""
    with postgres() as server, redis() as broker:
        database = server.replace("postgresql:", "postgresql+psycopg2:")
        env = {
            "AIRFLOW_CONN_PICTORY_DEFAULT": pictory.connection_json(),
            "AIRFLOW_CONN_MEDIA": storage.connection_json(ACCESS_KEY),
            "AIRFLOW__PICTORY__GALLERY_PATHS": "s3://media@pictures/batches",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__CORE__PARALLELISM": "16",
            "AIRFLOW__CELERY__BROKER_URL": broker,
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{database}",
            "AIRFLOW__CELERY__WORKER_CONCURRENCY": "4",
            # Dead workers and triggerers are detected within seconds instead of minutes.
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
            # A task that is queued for longer is queued again twice, and then fails without a retry.
            "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "60",
            "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "10",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
        }
        home = tmp_path_factory.mktemp("distributed") / "home"
        with AirflowStack(home, DAGS, env=env) as stack:
            for number in ("1", "2"):
                pid, hostname = str(home / f"worker-{number}.pid"), f"worker-{number}@%h"
                stack.start_component(
                    "celery worker", f"worker-{number}", "--pid", pid, "--celery-hostname", hostname
                )
            stack.start_component("scheduler", "scheduler-2")
            stack.start_component("triggerer", "triggerer-2")
            stack.database = server
            yield stack
