# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Airflow imported without a database, and Pictory simulated over real sockets."""

from __future__ import annotations

import signal
import threading

import fsspec
import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout
from airflow.sdk.io import attach

from pictory_provider import version_compat
from pictory_provider.hooks.pictory import PictoryHook
from pictory_provider.simulator import painting
from tests.certificates import self_signed
from tests.provider import batches
from tests.stand_ins import StateStore, TaskInstance


@pytest.fixture(autouse=True)
def _often(timing):
    """Let a wait poll as often as a test wants."""
    timing(poll_interval_min=0.0)


@pytest.fixture
def pictory(fresh_simulator, monkeypatch):
    """Return a new account at a local Pictory, which ``pictory_default`` uses. Jobs complete immediately."""
    simulator = fresh_simulator()
    monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", simulator.connection_json())
    return simulator


@pytest.fixture
def on_airflow(monkeypatch):
    """Return a function that pretends another Airflow version: ``on_airflow((3, 2))``."""
    return lambda version: monkeypatch.setattr(version_compat, "AIRFLOW_VERSION", version)


@pytest.fixture
def hook(pictory):
    hook = PictoryHook()
    yield hook
    hook.close()


@pytest.fixture
def impatient(timing):
    """Let repeated requests follow each other without pauses."""
    timing(backoff_first=0.01)


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


@pytest.fixture
def fast(pictory, monkeypatch):
    """Return the local Pictory, over a connection that may ask often, with pictures that are painted once."""
    monkeypatch.setattr(painting, "paint", lambda body, size, *_: batches.painted(size))
    monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", pictory.connection_json(requests_per_second=500))
    return pictory


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "lamps"


@pytest.fixture
def one_try(fast, folder):
    """Return a function that runs attempts of one batch."""
    return batches.Tries(folder)


@pytest.fixture
def logged(capfd):
    """Return a function that returns the task's log so far; Airflow's logger writes to the standard output."""
    parts = []

    def everything():
        parts.extend(capfd.readouterr())
        return "".join(parts)

    return everything


@pytest.fixture
def timeout_when():
    """Return a function that raises Airflow's timeout once a condition holds, by a signal, as Airflow does."""

    def strike(*_):
        raise AirflowTaskTimeout("Timeout")

    before, is_over = signal.signal(signal.SIGALRM, strike), threading.Event()

    def watch(is_so):
        while not is_over.wait(0.01):
            if is_so():
                signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)
                return

    yield lambda is_so: threading.Thread(target=watch, args=(is_so,), daemon=True).start()
    is_over.set()
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """Return a PEM file with a key and an untrusted certificate for 127.0.0.1."""
    return self_signed(tmp_path_factory.mktemp("tls") / "both.pem")
