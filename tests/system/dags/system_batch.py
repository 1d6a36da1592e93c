# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A batch of 60 pictures in one deferred task."""

from __future__ import annotations

from airflow.sdk import DAG

from pictory_provider.operators.batch import GenerateImageBatchOperator

with DAG(dag_id="system_batch", schedule=None):
    GenerateImageBatchOperator(
        task_id="draw",
        pictory_conn_id="pictory_crowd",
        requests=[{"sku": f"{number:03d}"} for number in range(60)],
        path="{{ var.value.pictory_pictures }}/batch/{{ run_id | replace(':', '_') }}",
        prompt="A lamp, number {sku}, simulate:seconds=15",
        file_name="{sku}.png",
        model="flux-schnell",
        poll_interval=2,
    )
