# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Work off a long table with a limit for each night."""

# [START recipe]
from airflow.sdk import DAG, task

from pictory_provider.operators.batch import GenerateImageBatchOperator

with DAG(dag_id="recipe_a_few_each_night", schedule=None, max_active_runs=1, tags=["pictory", "recipe"]):
    pictures = GenerateImageBatchOperator(
        task_id="pictures",
        requests=[{"product": f"a lamp, number {number}", "sku": f"{number:05d}"} for number in range(8)],
        prompt="{product}, studio light",
        file_name="{sku}.png",
        path="{{ var.value.get('pictory_pictures', '/tmp/pictory') }}/a_few_each_night",
        model="flux-schnell",
        max_credits=3,  # each run
        on_budget="partial",
    )

    @task
    def report(result: dict) -> str:
        has = result["saved"] + result["reused"]
        return f"{has} of {result['of']} have a picture, {result['not_bought']} are left"

    report(pictures.output)
# [END recipe]
