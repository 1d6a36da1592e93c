# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Ten batches of one table, on any worker, saved to object storage."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pendulum
from airflow.sdk import DAG, task

from pictory_provider.operators.batch import GenerateImageBatchOperator

BATCHES = 10
ROWS = max(10, int(os.environ.get("PICTORY_PICTURES", "200")) // 2)
"""The number of rows of each batch."""

with DAG(
    dag_id="distributed_batches",
    schedule=None,
    default_args={"retries": 4, "retry_delay": pendulum.duration(seconds=5)},
):

    @task
    def tables(params: dict) -> list[list[dict[str, str]]]:
        with Path(params["table"]).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return [rows[first : first + ROWS] for first in range(0, len(rows), ROWS)]

    GenerateImageBatchOperator.partial(
        task_id="pictures",
        prompt="{product}, number {sku}, on a wooden table",
        file_name="{sku}.png",
        path="s3://media@pictures/batches/{{ ti.map_index }}",
        model="flux-schnell",
        poll_interval=5,
    ).expand(requests=tables())
