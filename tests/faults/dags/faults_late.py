# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A task whose deadline passes before its job ends, and whose retry comes after the end."""

from __future__ import annotations

import pendulum
from airflow.sdk import DAG

from pictory_provider.operators.pictory import GenerateImageOperator

PROMPT = "Done after the deadline, {} simulate:seconds=25"

with DAG(
    dag_id="faults_late", schedule=None, default_args={"retries": 1, "retry_delay": pendulum.duration(seconds=20)}
):
    for kind, deferrable in {"wait": False, "defer": True}.items():
        GenerateImageOperator(
            task_id=kind,
            prompt=PROMPT.format(kind),
            wait_for_completion=True,
            deferrable=deferrable,
            poll_interval=2,
            timeout=6,
        )
