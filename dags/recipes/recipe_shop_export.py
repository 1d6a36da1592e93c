# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Generate pictures for the export of a shop, and write the file that imports them."""

# [START recipe]
import csv
import html
import json
import re

from airflow.sdk import DAG, ObjectStoragePath, task

from pictory_provider.operators.batch import GenerateImageBatchOperator

EXPORT = "{{ var.value.get('pictory_shop_export', '/srv/shop/products_export.csv') }}"
PICTURES = "{{ var.value.get('pictory_pictures', '/tmp/pictory') }}/shop"
URL = "https://cdn.example.com/shop"  # where the shop can load the pictures

with DAG(dag_id="recipe_shop_export", schedule=None, max_active_runs=1, tags=["pictory", "recipe"]):

    @task
    def products(export: str) -> list[dict[str, str]]:
        """Return the columns that the pictures need, with the description as plain text."""
        with ObjectStoragePath(export).open(newline="", encoding="utf-8-sig") as file:
            return [
                {
                    "Handle": row["Handle"],
                    "Title": row["Title"],  # blank in the rows of further variants and images
                    "Description": " ".join(re.sub("<[^>]*>", " ", html.unescape(row["Body (HTML)"])).split()),
                    "Colour (product.metafields.custom.colour)": row["Colour (product.metafields.custom.colour)"],
                }
                for row in csv.DictReader(file)
            ]

    pictures = GenerateImageBatchOperator(
        task_id="pictures",
        requests=products(EXPORT),
        skip_blank="Title",
        prompt="{Title}, {row[Colour (product.metafields.custom.colour)]}. {Description}",
        file_name="{Handle}.png",
        path=PICTURES,
        model="flux-schnell",
        aspect_ratio="1:1",
        max_credits=50,
    )

    @task
    def import_file(result: dict) -> str:
        """Write a table that the shop imports: it adds a picture to each product."""
        manifest = ObjectStoragePath(result["manifest"])
        rows = [json.loads(line) for line in manifest.read_text().splitlines()]
        path = manifest.parent / "import.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["Handle", "Image Src", "Image Position", "Image Alt Text"])
            table.writerows([row["Handle"], f"{URL}/{row['file_name']}", 1, row["Title"]] for row in rows)
        return str(path)

    import_file(pictures.output)
# [END recipe]
