# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Airflow imported without a database, and Pictory simulated over real sockets."""

from __future__ import annotations

from typing import Any

import pytest

from pictory_provider.api import retry
from pictory_provider.hooks.pictory import PictoryHook
from pictory_provider.simulator import Simulator


@pytest.fixture(scope="session")
def running_simulator():
    with Simulator(seconds=0) as pictory:
        yield pictory


@pytest.fixture
def pictory(running_simulator, monkeypatch):
    """Return a fresh account at a local Pictory, to which ``pictory_default`` leads. Jobs are done at once."""
    running_simulator.reset()
    running_simulator.account.seconds = 0
    running_simulator.account.credits_limit = 22_000
    monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", running_simulator.connection_json())
    return running_simulator


@pytest.fixture
def hook(pictory):
    hook = PictoryHook()
    yield hook
    hook.close()


@pytest.fixture
def impatient(monkeypatch):
    """Let repeated requests follow each other at once."""
    monkeypatch.setattr(retry, "BACKOFF_FIRST", 0.01)


class TaskInstance:
    """Airflow's own object, as far as a task uses it: XComs, and when it was first rescheduled."""

    map_index = -1

    def __init__(self) -> None:
        self.xcoms: dict[str, Any] = {}
        self.order: list[str] = []
        self.first_reschedule_date: Any = None

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = value
        self.order.append(key)

    def xcom_pull(self, *, task_ids: str, key: str, map_indexes: int) -> Any:
        return self.xcoms.get(key)

    def get_first_reschedule_date(self, context: Any) -> Any:
        return self.first_reschedule_date


@pytest.fixture
def ti():
    return TaskInstance()


@pytest.fixture
def context(ti):
    return {"ti": ti}
