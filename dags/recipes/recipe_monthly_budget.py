# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Pictures as long as the month's AI credits last; then the task is skipped, and so is what follows it."""

# [START recipe]
from airflow.sdk import DAG, Param

from pictory_provider.operators.pictory import GenerateImageOperator

with DAG(
    dag_id="recipe_monthly_budget",
    schedule=None,
    tags=["pictory", "recipe"],
    # The limit belongs to the connection: "credits_per_month": 500 in its extra holds for all that use it.
    params={"connection": Param("pictory_default", type="string")},
):
    GenerateImageOperator(
        task_id="picture",
        prompt="A cup of tea beside an open book",
        model="seedream3.0",
        pictory_conn_id="{{ params.connection }}",
        max_credits=2,  # whatever the connection leaves
        on_budget="skip",
        path="{{ var.value.get('pictory_pictures', '/tmp/pictory') }}/budget/{{ run_id }}.png",
    )
# [END recipe]
