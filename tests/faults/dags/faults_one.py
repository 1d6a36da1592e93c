# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""One task of each kind, for tests that clear, kill or disturb it while it runs."""

from __future__ import annotations

import pendulum
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

from pictory_provider.operators.pictory import GenerateImageOperator

KINDS = {
    "submit": {},
    "wait": {"wait_for_completion": True, "deferrable": False, "poll_interval": 1},
    "defer": {"wait_for_completion": True, "poll_interval": 1},
}

for kind, options in KINDS.items():
    with DAG(
        dag_id=f"faults_{kind}",
        schedule=None,
        params={"prompt": "A lighthouse at dawn"},
        default_args={"retries": 2, "retry_delay": pendulum.duration(seconds=1)},
    ):
        GenerateImageOperator(
            task_id="generate", prompt="{{ params.prompt }}", pictory_conn_id="pictory_quiet", **options
        )
        EmptyOperator(task_id="bystander")
