# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""One reference image gives a whole series its look. A scene that fails takes no other along."""

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
            # At a public URL, or private in a storage that signs: s3://catalogue/look.png
            reference_image_url="{{ var.value.pictory_reference_image }}",
            path=f"{{{{ var.value.get('pictory_pictures', '/tmp/pictory') }}}}/series/{name}.png",
        )
# [END recipe]
