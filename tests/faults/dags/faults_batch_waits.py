# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A batch that waits for two hundred jobs."""

from __future__ import annotations

import os

import pendulum
from airflow.sdk import DAG

from pictory_provider.operators.batch import GenerateImageBatchOperator

ROWS = 200
FOLDER = os.environ.get("FAULTS_MARKERS", "/nowhere") + "/batches"

with DAG(
    dag_id="faults_batch_waits",
    schedule=None,
    default_args={"retries": 2, "retry_delay": pendulum.duration(seconds=1)},
) as dag:
    GenerateImageBatchOperator(
        task_id="pictures",
        requests=[f"Waited for by many, {number}" for number in range(ROWS)],
        path=FOLDER + "/{{ run_id }}",
        model="flux-schnell",
        pictory_conn_id="pictory_crowd",
        poll_interval=5,
    )
