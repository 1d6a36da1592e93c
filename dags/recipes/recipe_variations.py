# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Generate variations of one product shot: the same product in different places."""

# [START recipe]
from airflow.sdk import DAG

from pictory_provider.operators.pictory import GenerateImageOperator

PLACES = {
    "kitchen": "on a kitchen counter, morning light",
    "garden": "on a stone wall in a garden, late afternoon",
    "studio": "on a plain grey background, studio light",
}

with DAG(dag_id="recipe_variations", schedule=None, tags=["pictory", "recipe"]):
    for name, place in PLACES.items():
        GenerateImageOperator(
            task_id=name,
            prompt=f"The product of the referenced image {place}. Keep the product and its proportions unchanged.",
            reference_image_url="{{ var.value.pictory_reference_image }}",
            path=f"{{{{ var.value.get('pictory_pictures', '/tmp/pictory') }}}}/variations/{name}.png",
        )
# [END recipe]
