# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Many short jobs at the same time, with deferred waits."""

from __future__ import annotations

import os

from airflow.sdk import DAG

from pictory_provider.operators.pictory import GenerateImageOperator

OF_EACH = int(os.environ.get("SYSTEM_RACE", "2"))
PROMPTS = [f"Picture {n} of a job that takes simulate:seconds={s}" for s in (0, 3, 6) for n in range(OF_EACH)]

with DAG(dag_id="system_race", schedule=None, default_args={"retries": 0}):
    GenerateImageOperator.partial(
        task_id="generate", pictory_conn_id="pictory_crowd", wait_for_completion=True, poll_interval=1, timeout=120
    ).expand(prompt=PROMPTS)
