# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A picture for every row of a table, saved under the row's own name. A row that fails takes no other along."""

# [START recipe]
from typing import Any

from airflow.sdk import DAG, Param, task, task_group

from pictory_provider.operators.pictory import DownloadImageOperator, GenerateImageOperator

ROWS = [
    {"sku": "mug-01", "product": "a blue enamel mug"},
    {"sku": "mug-02", "product": "a white porcelain mug"},
]
ROW = "{% set row = ti.xcom_pull(task_ids='rows')[ti.map_index] %}"

with DAG(
    dag_id="recipe_picture_for_every_row",
    schedule=None,
    tags=["pictory", "recipe"],
    params={"rows": Param(ROWS, type="array")},
):

    @task
    def rows(params: dict[str, Any]) -> list[dict[str, str]]:
        # Your query goes here. What a row brings decides what is drawn, and where the picture lies.
        return params["rows"]

    @task_group
    def picture(row: dict[str, str]) -> None:  # mapped over the rows: each has a generate and a save of its own
        generate = GenerateImageOperator(
            task_id="generate",
            prompt=ROW + "{{ row.product }} on a wooden table, studio light",
            model="flux-schnell",
            aspect_ratio="1:1",
            wait_for_completion=True,
            max_active_tis_per_dag=8,
            map_index_template=ROW + "{{ row.sku }}",
        )
        DownloadImageOperator(
            task_id="save",
            job_id="{{ ti.xcom_pull(task_ids='picture.generate', map_indexes=ti.map_index) }}",
            path=ROW + "{{ var.value.get('pictory_pictures', '/tmp/pictory') }}/rows/{{ row.sku }}.png",
            overwrite=True,
            map_index_template=ROW + "{{ row.sku }}",
        ).set_upstream(generate)

    picture.expand(row=rows())
# [END recipe]
