# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""One job, waited for in every way."""

from __future__ import annotations

from airflow.sdk import DAG

from pictory_provider.operators.pictory import GenerateImageOperator
from pictory_provider.sensors.pictory import PictoryJobSensor

with DAG(dag_id="system_modes", schedule=None, default_args={"retries": 0}):
    generate = GenerateImageOperator(
        task_id="generate", prompt="One job for every way of waiting", model="flux-schnell"
    )
    for name, how in {
        "poke": {"deferrable": False, "mode": "poke"},
        "reschedule": {"deferrable": False, "mode": "reschedule"},
        "deferrable": {"deferrable": True},
    }.items():
        generate >> PictoryJobSensor(task_id=name, job_id=generate.output, poke_interval=3, timeout=60, **how)
