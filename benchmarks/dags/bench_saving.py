# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The same pictures from prompt to file, with one task each and with three."""

from __future__ import annotations

import os

from airflow.sdk import DAG

from pictory_provider.operators.pictory import DownloadImageOperator, GenerateImageOperator
from pictory_provider.sensors.pictory import PictoryJobSensor

PICTURES = int(os.environ.get("BENCH_PICTURES", "40"))
FOLDER = os.environ.get("BENCH_FOLDER", "/nowhere")
PROMPT = "A picture for a benchmark, number {}"

with DAG(dag_id="bench_saving_one", schedule=None, max_active_tasks=10_000):
    for number in range(PICTURES):
        GenerateImageOperator(
            task_id=f"picture_{number}", prompt=PROMPT.format(number), path=f"{FOLDER}/one/{number}.png"
        )

with DAG(dag_id="bench_saving_three", schedule=None, max_active_tasks=10_000):
    for number in range(PICTURES):
        generate = GenerateImageOperator(task_id=f"generate_{number}", prompt=PROMPT.format(number))
        wait = PictoryJobSensor(task_id=f"wait_{number}", job_id=generate.output)
        save = DownloadImageOperator(
            task_id=f"save_{number}", job_id=generate.output, path=f"{FOLDER}/three/{number}.png"
        )
        generate >> wait >> save
