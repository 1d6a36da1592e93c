# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Generate pictures for a whole catalogue in one task: from a table to a folder of pictures and a manifest."""

# [START recipe]
from airflow.sdk import DAG, task

from pictory_provider.operators.batch import GenerateImageBatchOperator

PRODUCTS = [
    {"sku": "00120", "product": "an enamel mug", "colour": "blue"},
    {"sku": "00121", "product": "an enamel mug", "colour": "white"},
    {"sku": "00122", "product": "a linen apron", "colour": "grey"},
]

with DAG(dag_id="recipe_catalogue", schedule=None, max_active_runs=1, tags=["pictory", "recipe"]):

    @task
    def products() -> list[dict[str, str]]:
        # Put your query here. The path of a CSV file, such as s3://catalogue/products.csv, works as well.
        return PRODUCTS

    GenerateImageBatchOperator(
        task_id="pictures",
        requests=products(),
        prompt="{product} in {colour}, on a wooden table, studio light",
        file_name="{sku}.png",
        path="{{ var.value.get('pictory_pictures', '/tmp/pictory') }}/catalogue",
        model="flux-schnell",
        aspect_ratio="1:1",
        max_credits=50,
    )
# [END recipe]
