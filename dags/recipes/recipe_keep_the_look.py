# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Generate a series in the look of one reference image. One failed scene does not stop the others."""

# [START recipe]
from airflow.sdk import DAG

from pictory_provider.operators.pictory import GenerateImageOperator

SCENES = {
    "harbour": "A harbour at dawn",
    "street": "A narrow street after rain",
    "market": "A market in the afternoon",
}

with DAG(dag_id="recipe_keep_the_look", schedule=None, tags=["pictory", "recipe"]):
    for name, scene in SCENES.items():
        GenerateImageOperator(
            task_id=name,
            prompt=f"{scene}, in the style of the provided image: its colours and its light",
            # A public URL, or a private object in a storage that can sign URLs: s3://catalogue/look.png
            reference_image_url="{{ var.value.pictory_reference_image }}",
            path=f"{{{{ var.value.get('pictory_pictures', '/tmp/pictory') }}}}/series/{name}.png",
        )
# [END recipe]
