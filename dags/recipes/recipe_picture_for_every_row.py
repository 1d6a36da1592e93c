# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A picture for every row of a table, saved under the row's own name."""

# [START recipe]
from airflow.sdk import DAG, task

from pictory_provider.operators.pictory import DownloadImageOperator, GenerateImageOperator

with DAG(dag_id="recipe_picture_for_every_row", schedule=None, tags=["pictory", "recipe"]):

    @task
    def rows() -> list[dict[str, str]]:
        # Your query goes here. What a row brings decides what is drawn, and where the picture lies.
        return [
            {"sku": "mug-01", "product": "a blue enamel mug"},
            {"sku": "mug-02", "product": "a white porcelain mug"},
        ]

    table = rows()
    generate = GenerateImageOperator.partial(
        task_id="generate",
        model="flux-schnell",
        aspect_ratio="1:1",
        wait_for_completion=True,
        max_active_tis_per_dag=8,
        map_index_template="{{ task.prompt }}",
    ).expand(prompt=table.map(lambda row: f"{row['product']} on a wooden table, studio light"))
    DownloadImageOperator.partial(task_id="save", overwrite=True).expand_kwargs(
        generate.output.zip(table).map(
            lambda pair: {
                "job_id": pair[0],
                "path": "{{ var.value.get('pictory_pictures', '/tmp/pictory') }}/rows/" + pair[1]["sku"] + ".png",
            }
        )
    )
# [END recipe]
