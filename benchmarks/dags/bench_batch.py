# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The same pictures in one batch task, and in a mapped pair of tasks."""

from __future__ import annotations

import os

from airflow.sdk import DAG

from pictory_provider.operators.batch import GenerateImageBatchOperator
from pictory_provider.operators.pictory import DownloadImageOperator, GenerateImageOperator

PICTURES = int(os.environ.get("BENCH_PICTURES", "200"))
FOLDER = os.environ.get("BENCH_FOLDER", "/nowhere")
PROMPTS = [f"A picture for a benchmark, number {number}" for number in range(PICTURES)]

with DAG(dag_id="bench_batch_batch", schedule=None):
    GenerateImageBatchOperator(
        task_id="pictures", requests=PROMPTS, path=f"{FOLDER}/batch", model="flux-schnell", poll_interval=5
    )

with DAG(dag_id="bench_batch_mapped", schedule=None, max_active_tasks=10_000):
    generate = GenerateImageOperator.partial(
        task_id="generate", model="flux-schnell", wait_for_completion=True, poll_interval=5
    ).expand(prompt=PROMPTS)
    DownloadImageOperator.partial(
        task_id="save", path=FOLDER + "/mapped/{{ ti.map_index }}.png", map_index_template="{{ task.job_id }}"
    ).expand(job_id=generate.output)

with DAG(dag_id="bench_batch_large", schedule=None):
    GenerateImageBatchOperator(
        task_id="pictures",
        requests=f"{FOLDER}/table.csv",
        path=f"{FOLDER}/large",
        prompt="{product}, in {colour}",
        file_name="{sku}.png",
        model="flux-schnell",
        poll_interval=2,
        max_in_flight=1_000,
    )
