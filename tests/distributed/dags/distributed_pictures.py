# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A picture for every row, with a sensor and a download to object storage."""

from __future__ import annotations

import os

import pendulum
from airflow.sdk import DAG

from pictory_provider.operators.pictory import DownloadImageOperator, GenerateImageOperator
from pictory_provider.sensors.pictory import PictoryJobSensor

PICTURES = int(os.environ.get("PICTORY_PICTURES", "200"))
ROWS = [f"Row {number}: a cup on a table" for number in range(PICTURES)]

with DAG(
    dag_id="distributed_pictures",
    schedule=None,
    max_active_tasks=PICTURES,
    default_args={"retries": 4, "retry_delay": pendulum.duration(seconds=5)},
):
    generate = GenerateImageOperator.partial(
        task_id="generate", model="flux-schnell", map_index_template="{{ task.prompt }}"
    ).expand(prompt=ROWS)
    wait = PictoryJobSensor.partial(task_id="wait", poke_interval=10, timeout=1200, end_from_trigger=True).expand(
        job_id=generate.output
    )
    DownloadImageOperator.partial(task_id="save", path="s3://media@pictures/rows/{{ ti.map_index }}.png").expand(
        job_id=wait.output.map(lambda image: image["job_id"])
    )
