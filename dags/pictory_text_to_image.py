# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Generate an image from text in three tasks: submit a prompt, wait without holding a worker, save the picture.

The Airflow variable ``pictory_pictures`` sets the folder for the pictures.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param

from pictory_provider.api.models import MODELS, STYLES
from pictory_provider.operators.pictory import DownloadImageOperator, GenerateImageOperator
from pictory_provider.sensors.pictory import PictoryJobSensor

PRICES = {name: f"{name}: {model.credits:g} AI credits" for name, model in MODELS.items()}

with DAG(
    dag_id="pictory_text_to_image",
    doc_md=__doc__,
    schedule=None,
    catchup=False,
    tags=["pictory"],
    params={
        "prompt": Param(
            "A lighthouse at dawn, wide shot, soft light",
            type="string",
            format="multiline",
            minLength=5,
            maxLength=5000,
            description="What the picture shows, in 5 to 5,000 characters.",
        ),
        "model": Param(
            "flux-schnell",
            enum=list(MODELS),
            values_display=PRICES,
            description="The price of a picture is shown next to its model.",
        ),
        "aspect_ratio": Param("16:9", enum=["1:1", "16:9", "9:16"], title="Aspect ratio"),
        "style": Param(
            "photorealistic",
            type=["null", "string"],
            enum=[None, *STYLES],
            values_display={"null": "no style"},
        ),
    },
) as dag:
    # [START text_to_image]
    generate = GenerateImageOperator(
        task_id="generate",
        prompt="{{ params.prompt }}",
        model="{{ params.model }}",
        aspect_ratio="{{ params.aspect_ratio }}",
        # dag.param keeps None for "no style"; a template would turn it into the text "None".
        style=dag.param("style", default="photorealistic"),
    )
    wait = PictoryJobSensor(task_id="wait", job_id=generate.output)
    save = DownloadImageOperator(
        task_id="save",
        job_id=generate.output,
        path="{{ var.value.get('pictory_pictures', '/tmp/pictory') }}"
        "/text_to_image/{{ ti.xcom_pull(task_ids='generate') }}.png",
    )
    generate >> wait >> save
    # [END text_to_image]
