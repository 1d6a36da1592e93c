# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""One reference image gives a whole series its look."""

# [START recipe]
from airflow.sdk import DAG

from pictory_provider.operators.pictory import DownloadImageOperator, GenerateImageOperator

SCENES = ["A harbour at dawn", "A narrow street after rain", "A market in the afternoon"]

with DAG(dag_id="recipe_keep_the_look", schedule=None, tags=["pictory", "recipe"]):
    generate = GenerateImageOperator.partial(
        task_id="generate",
        # At a URL that Pictory can reach; a private one fails.
        reference_image_url="{{ var.value.pictory_reference_image }}",
        wait_for_completion=True,
        map_index_template="{{ task.prompt }}",
    ).expand(
        prompt=[f"{scene}, in the style of the provided image: its colours and its light" for scene in SCENES]
    )
    DownloadImageOperator.partial(
        task_id="save",
        path="{{ var.value.get('pictory_pictures', '/tmp/pictory') }}/series/{{ ti.map_index }}.png",
        overwrite=True,
    ).expand(job_id=generate.output)
# [END recipe]
