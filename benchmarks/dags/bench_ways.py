# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""One DAG for each way of waiting, with many sensors for the same jobs."""

from __future__ import annotations

import os
from typing import Any

from airflow.sdk import DAG, task

from pictory_provider.hooks.pictory import PictoryHook
from pictory_provider.sensors.pictory import PictoryJobSensor

TASKS = int(os.environ.get("BENCH_TASKS", "50"))
INTERVAL = 15
JOB_ID = "{{{{ ti.xcom_pull(task_ids='submit', map_indexes=-1)[{}] }}}}"
WAYS: dict[str, dict[str, Any]] = {
    "poke": {"deferrable": False},
    "deferred": {},
    "end": {"end_from_trigger": True},
    "start": {"start_from_trigger": True},
    "http": {},
}


@task(task_id="submit")
def submit() -> list[str]:
    """Submit a job for each sensor."""
    with PictoryHook() as hook:
        return [hook.generate_image("A picture for a benchmark") for _ in range(TASKS)]


def sensor(way: str, number: int) -> Any:
    """Return the sensor of one job."""
    job_id, task_id = JOB_ID.format(number), f"wait_{number}"
    if way != "http":
        return PictoryJobSensor(task_id=task_id, job_id=job_id, poke_interval=INTERVAL, timeout=3_600, **WAYS[way])
    from airflow.providers.http.sensors.http import HttpSensor

    return HttpSensor(
        task_id=task_id,
        http_conn_id="http_pictory",
        endpoint=f"v1/jobs/{job_id}",
        response_check=lambda response: response.json()["data"]["status"] == "completed",
        mode="reschedule",
        poke_interval=INTERVAL,
        timeout=3_600,
    )


for each in WAYS:
    with DAG(dag_id=f"bench_{each}", schedule=None, max_active_runs=100, max_active_tasks=10_000):
        submit() >> [sensor(each, number) for number in range(TASKS)]
