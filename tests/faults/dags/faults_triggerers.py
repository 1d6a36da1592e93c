# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Deferred operators and sensors that wait longer than their triggerer lives."""

from __future__ import annotations

import pendulum
from airflow.sdk import DAG

from pictory_provider.operators.pictory import GenerateImageOperator
from pictory_provider.sensors.pictory import PictoryJobSensor

OPERATORS, SENSORS = 8, 4
PROMPT = "Deferred, number {} simulate:seconds=3600"

with DAG(
    dag_id="faults_triggerers",
    schedule=None,
    max_active_tasks=16,
    default_args={"retries": 2, "retry_delay": pendulum.duration(seconds=1)},
):
    GenerateImageOperator.partial(task_id="generate", wait_for_completion=True, poll_interval=2).expand(
        prompt=[PROMPT.format(n) for n in range(OPERATORS)]
    )
    submit = GenerateImageOperator.partial(task_id="submit").expand(
        prompt=[PROMPT.format(OPERATORS + n) for n in range(SENSORS)]
    )
    PictoryJobSensor.partial(task_id="wait", poke_interval=2).expand(job_id=submit.output)
