# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Many short jobs at once, waited for by deferral."""

from __future__ import annotations

from airflow.sdk import DAG

from pictory_provider.operators.pictory import GenerateImageOperator

PROMPTS = [f"Picture {n} of a job that takes simulate:seconds={s}" for s in (0, 3, 6) for n in range(20)]

with DAG(dag_id="system_race", schedule=None, default_args={"retries": 0}):
    GenerateImageOperator.partial(
        task_id="generate", wait_for_completion=True, poll_interval=1, timeout=120
    ).expand(prompt=PROMPTS)
