# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Generate pictures for the rows of a query, and write their paths back into the table."""

# [START recipe]
import json

from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
from airflow.sdk import DAG, BaseHook, ObjectStoragePath, task

from pictory_provider.operators.batch import GenerateImageBatchOperator

with DAG(dag_id="recipe_from_a_query", schedule=None, max_active_runs=1, tags=["pictory", "recipe"]):
    # [START query]
    query = SQLExecuteQueryOperator(
        task_id="query",
        conn_id="shop",
        sql="SELECT sku, title, price FROM products WHERE picture IS NULL ORDER BY sku",
    )
    pictures = GenerateImageBatchOperator(
        task_id="pictures",
        requests=query.output,
        column_names=["sku", "title", "price"],
        prompt="{title} on a wooden table, studio light",
        file_name="{sku}.png",
        path="{{ var.value.get('pictory_pictures', '/tmp/pictory') }}/query",
        model="flux-schnell",
        max_credits=50,
    )
    # [END query]

    @task
    def write_back(result: dict) -> int:
        shop = BaseHook.get_hook("shop")
        sql = "UPDATE products SET picture = ? WHERE sku = ?"  # PostgreSQL and MySQL: %s in place of ?
        manifest = ObjectStoragePath(result["manifest"])
        rows = [json.loads(line) for line in manifest.read_text().splitlines()]
        for row in rows:
            shop.run(sql, parameters=(str(manifest.parent / row["file_name"]), row["sku"]))
        return len(rows)

    write_back(pictures.output)
# [END recipe]
