# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Generate pictures for a spreadsheet in a bucket, whose columns have names of their own."""

# [START recipe]
from airflow.sdk import DAG

from pictory_provider.operators.batch import GenerateImageBatchOperator

with DAG(dag_id="recipe_spreadsheet", schedule=None, max_active_runs=1, tags=["pictory", "recipe"]):
    GenerateImageBatchOperator(
        task_id="pictures",
        requests="{{ var.value.get('pictory_spreadsheet', 's3://catalogue/Artikel.xlsx') }}",
        sheet="Artikel",
        request_columns={"style": "Stil", "model": None},  # "model" is that of the product
        prompt="{Bezeichnung}, {model}, in {Farbe}, studio light",
        file_name="{row[Art.-Nr.]}.png",
        path="{{ var.value.get('pictory_pictures', '/tmp/pictory') }}/spreadsheet",
        model="flux-schnell",
        on_bad_row="skip",  # buy the good rows, then fail and list the others
        max_credits=50,
    )
# [END recipe]
