# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Generate pictures until the month's AI credits are spent; then skip the task and the tasks after it."""

# [START recipe]
from airflow.sdk import DAG, Param

from pictory_provider.operators.pictory import GenerateImageOperator

with DAG(
    dag_id="recipe_monthly_budget",
    schedule=None,
    tags=["pictory", "recipe"],
    # Set the limit in the extra of the connection: "credits_per_month": 500 applies to every task that uses it.
    params={"connection": Param("pictory_default", type="string")},
):
    GenerateImageOperator(
        task_id="picture",
        prompt="A cup of tea beside an open book",
        model="seedream3.0",
        pictory_conn_id="{{ params.connection }}",
        max_credits=2,  # for this task alone, in addition to the limit of the connection
        on_budget="skip",
        path="{{ var.value.get('pictory_pictures', '/tmp/pictory') }}/budget/{{ run_id }}.png",
    )
# [END recipe]
