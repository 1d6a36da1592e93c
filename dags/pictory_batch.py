# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Generate a picture for each prompt of a list, in one task. One failed prompt does not stop the others.

The run's folder holds the pictures, ``metadata.jsonl`` with a line for each picture, and ``failed.jsonl`` with a
line for each prompt without one. Each run has its own folder, so each run buys all pictures.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param

from pictory_provider.operators.batch import GenerateImageBatchOperator

PROMPTS = [
    "A red bicycle against a white wall, studio light",
    "A green bicycle in a park, wide shot, late afternoon",
    "A blue bicycle on a bridge, aerial view, morning fog",
]

with DAG(
    dag_id="pictory_batch",
    doc_md=__doc__,
    schedule=None,
    catchup=False,
    tags=["pictory"],
    params={"prompts": Param(PROMPTS, type="array", items={"type": "string"}, description="A picture for each.")},
) as dag:
    # [START batch]
    pictures = GenerateImageBatchOperator(
        task_id="pictures",
        requests=dag.param("prompts", default=PROMPTS),
        path="{{ var.value.get('pictory_pictures', '/tmp/pictory') }}/batch/{{ run_id }}",
        model="flux-schnell",
        aspect_ratio="1:1",
        style="photorealistic",
        max_credits=100,
    )
    # [END batch]
