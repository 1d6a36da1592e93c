# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""One failing task for each of the most frequent errors."""

from __future__ import annotations

from airflow.sdk import DAG, task

from pictory_provider.operators.pictory import GenerateImageOperator
from pictory_provider.sensors.pictory import PictoryJobSensor

PROMPT = "A lighthouse at dawn, wide shot, soft light"

with DAG(dag_id="browser_errors", schedule=None):

    @task
    def nothing() -> str | None:
        return None

    GenerateImageOperator(task_id="lost_reply", prompt=PROMPT, pictory_conn_id="pictory_lost")
    GenerateImageOperator(task_id="over_budget", prompt=PROMPT, pictory_conn_id="pictory_limited")
    GenerateImageOperator(task_id="wrong_key", prompt=PROMPT, pictory_conn_id="pictory_wrong_key")
    GenerateImageOperator(
        task_id="failed_job",
        prompt=f"{PROMPT} simulate:failed",
        wait_for_completion=True,
        deferrable=False,
        poll_interval=1,
    )
    GenerateImageOperator(
        task_id="stuck_job",
        prompt=f"{PROMPT} simulate:stuck",
        wait_for_completion=True,
        deferrable=False,
        poll_interval=1,
        timeout=4,
    )
    PictoryJobSensor(task_id="empty_xcom", job_id=nothing())
    GenerateImageOperator(task_id="no_connection", prompt=PROMPT, pictory_conn_id="pictory_nowhere")
