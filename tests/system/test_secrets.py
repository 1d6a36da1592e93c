# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The key is a canary: after every DAG has run it is nowhere but in the connection, and no port is open to others."""

from __future__ import annotations

from contextlib import suppress

import psutil


def test_neither_key_nor_the_query_of_a_result_url_is_in_any_log_or_the_key_in_the_database(
    airflow, runs, agreed, triggerer_run, simulator
):
    for run in runs.values():
        airflow.finish(*run)
    files = [file for file in airflow.home.rglob("*") if file.is_file()]
    logs = [file for file in files if file.suffix == ".log" or ".log." in file.name]
    assert any("trigger" in file.name for file in logs)
    assert any(b"Saved /" in file.read_bytes() for file in logs)

    assert [file for file in files if simulator.api_key.encode() in file.read_bytes()] == []
    assert [file for file in logs if b"Signature=simulated" in file.read_bytes()] == []
    assert all(
        request.host == "api" for request in simulator.requests if simulator.api_key in str(request.headers)
    )


def test_nothing_of_the_private_airflow_listens_on_anything_but_loopback(airflow):
    listening = []
    for process in airflow.processes():
        with suppress(psutil.NoSuchProcess):
            listening += [c.laddr.ip for c in process.net_connections() if c.status == psutil.CONN_LISTEN]
    assert listening
    assert set(listening) == {"127.0.0.1"}
