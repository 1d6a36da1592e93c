# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Sensors that meet something else than a completed job."""

from __future__ import annotations

from airflow.sdk import DAG

from pictory_provider.operators.pictory import GenerateImageOperator
from pictory_provider.sensors.pictory import PictoryJobSensor

FATES = ("failed", "cleaned", "stuck")
WAYS = {
    "poke": {"deferrable": False, "mode": "poke"},
    "reschedule": {"deferrable": False, "mode": "reschedule"},
    "deferrable": {"deferrable": True},
}

with DAG(dag_id="system_outcomes", schedule=None, default_args={"retries": 1, "retry_delay": 0}):
    for fate in FATES:
        generate = GenerateImageOperator(
            task_id=f"generate_{fate}",
            prompt=f"A job that ends simulate:{fate} after simulate:seconds=8",
            model="flux-schnell",
        )
        for way, how in WAYS.items():
            for soft_fail in (False, True):
                generate >> PictoryJobSensor(
                    task_id=f"{fate}_{way}{'_soft' if soft_fail else ''}",
                    job_id=generate.output,
                    poke_interval=3,
                    timeout=4 if fate == "stuck" else 60,
                    soft_fail=soft_fail,
                    **how,
                )
