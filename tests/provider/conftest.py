# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Airflow imported without a database, and Pictory simulated over real sockets."""

from __future__ import annotations

import fsspec
import pytest
from airflow.sdk.io import attach

from pictory_provider.api import retry
from pictory_provider.hooks.pictory import PictoryHook
from pictory_provider.jobs import polling
from tests.stand_ins import StateStore, TaskInstance


@pytest.fixture(autouse=True)
def _often(monkeypatch):
    """Let a wait look as often as a test asks for."""
    monkeypatch.setattr(polling, "SHORTEST_INTERVAL", 0.0)


@pytest.fixture
def pictory(fresh_simulator, monkeypatch):
    """Return a fresh account at a local Pictory, to which ``pictory_default`` leads. Jobs are done at once."""
    simulator = fresh_simulator()
    monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", simulator.connection_json())
    return simulator


@pytest.fixture
def hook(pictory):
    hook = PictoryHook()
    yield hook
    hook.close()


@pytest.fixture
def impatient(monkeypatch):
    """Let repeated requests follow each other at once."""
    monkeypatch.setattr(retry, "BACKOFF_FIRST", 0.01)


@pytest.fixture
def ti():
    return TaskInstance()


@pytest.fixture
def store():
    return StateStore()


@pytest.fixture
def context(ti, store):
    """Return the context of a task on Airflow 3.3 and later."""
    return {"ti": ti, "task_state_store": store}


@pytest.fixture
def context_without_store(ti):
    """Return the context of a task on Airflow 3.1 and 3.2."""
    return {"ti": ti}


@pytest.fixture
def memory():
    """Let Airflow know fsspec's own storage in memory, as a provider would make s3 known."""
    attach("memory", fs=fsspec.filesystem("memory"))
