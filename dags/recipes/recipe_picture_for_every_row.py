# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Generate a picture for every row of a table, named after the row. One failed row does not stop the others."""

# [START recipe]
from typing import Any

from airflow.sdk import DAG, Param, task

from pictory_provider.operators.pictory import GenerateImageOperator

ROWS = [
    {"sku": "mug-01", "product": "a blue enamel mug"},
    {"sku": "mug-02", "product": "a white porcelain mug"},
]

with DAG(
    dag_id="recipe_picture_for_every_row",
    schedule=None,
    tags=["pictory", "recipe"],
    params={"rows": Param(ROWS, type="array")},
):

    @task
    def rows(params: dict[str, Any]) -> list[dict[str, str]]:
        # Put your query here. The columns of a row set its prompt and its path.
        return params["rows"]

    GenerateImageOperator.partial(
        task_id="picture",
        prompt="{{ params.product }} on a wooden table, studio light",
        path="{{ var.value.get('pictory_pictures', '/tmp/pictory') }}/rows/{{ params.sku }}.png",
        model="flux-schnell",
        aspect_ratio="1:1",
        map_index_template="{{ params.sku }}",
        max_active_tis_per_dag=8,
    ).expand(params=rows())
# [END recipe]
