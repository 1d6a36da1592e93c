# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Pictures whose records are in an XCom backend, and runs that fail before any picture."""

from __future__ import annotations

from airflow.sdk import DAG, task

from pictory_provider.operators.batch import GenerateImageBatchOperator
from pictory_provider.operators.pictory import GenerateImageOperator
from pictory_provider.sensors.pictory import PictoryJobSensor

FOLDER = "{{ var.value.pictory_pictures }}/{{ run_id }}"
QUICK = {"model": "flux-schnell", "poll_interval": 1, "deferrable": False}

with DAG(dag_id="browser.pictures-backend", schedule=None):
    GenerateImageBatchOperator(
        task_id="batch",
        requests=[f"A bicycle number {number}" for number in range(69)] + ["A bicycle simulate:failed"],
        file_name="bicycle-{index}.png",
        path=f"{FOLDER}/batch",
        fail_on_partial_error=False,
        **QUICK,
    )
    GenerateImageOperator(task_id="single", prompt="A paper boat", path=f"{FOLDER}/boat.png", **QUICK)
    generate = GenerateImageOperator(task_id="generate", prompt="A lighthouse at dawn", model="flux-schnell")
    generate >> PictoryJobSensor(
        task_id="wait", job_id=generate.output, start_from_trigger=True, end_from_trigger=True
    )

with DAG(dag_id="browser_failed_before", schedule=None):

    @task
    def load():
        raise ValueError("the shop is closed")

    load() >> GenerateImageOperator(task_id="generate", prompt="A paper boat")

with DAG(dag_id="browser_bad_table", schedule=None):
    GenerateImageBatchOperator(task_id="batch", requests=["no"], path=f"{FOLDER}/bad")

with DAG(dag_id="browser_planned", schedule=None):
    GenerateImageBatchOperator(task_id="batch", requests=["A bicycle"], path=f"{FOLDER}/planned", plan_only=True)
