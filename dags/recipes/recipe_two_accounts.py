# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Use one Pictory account for tests and another for production, with the same DAG."""

# [START recipe]
from airflow.sdk import DAG, Param

from pictory_provider.operators.pictory import GenerateImageOperator

with DAG(
    dag_id="recipe_two_accounts",
    schedule=None,
    tags=["pictory", "recipe"],
    params={"environment": Param("staging", enum=["staging", "production"])},
):
    GenerateImageOperator(
        task_id="cover",
        prompt="A paper boat on a calm lake, morning light",
        pictory_conn_id="pictory_{{ params.environment }}",
        path="{{ var.value.get('pictory_pictures', '/tmp/pictory') }}/{{ params.environment }}/cover.png",
        model="flux-schnell",
    )
# [END recipe]
