# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Test that no event is lost. Airflow loses one that comes too soon after the deferral, within its heartbeat (5 s)."""

from __future__ import annotations

from pathlib import Path

from demo.stack import AirflowStack
from pictory_provider.simulator import Simulator
from tests.faults.conftest import CANARY

DAGS = Path(__file__).resolve().parents[1] / "system" / "dags"


def test_no_event_of_sixty_short_deferred_jobs_is_lost(tmp_path, searched):
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "system_race.py").symlink_to(DAGS / "system_race.py")
    searched.append(tmp_path / "home")
    with Simulator(seconds=2, api_key=CANARY) as crowd:
        env = {
            "AIRFLOW_CONN_PICTORY_CROWD": crowd.connection_json(),
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "5",
            "SYSTEM_RACE": "20",
        }
        with AirflowStack(tmp_path / "home", tmp_path / "dags", env=env) as airflow:
            states = airflow.finish("system_race", airflow.trigger("system_race"), timeout=600)
        assert len(states) == 60
        assert set(states.values()) == {"success"}
        assert len(crowd.submissions) == 60
