# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Text to image: submit a prompt, wait without holding a worker, save the picture.

The folder for the pictures is the Airflow variable ``pictory_pictures``.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param

from pictory_provider.api.models import MODELS, STYLES
from pictory_provider.operators.pictory import DownloadImageOperator, GenerateImageOperator
from pictory_provider.sensors.pictory import PictoryJobSensor

with DAG(
    dag_id="pictory_text_to_image",
    doc_md=__doc__,
    schedule=None,
    catchup=False,
    tags=["pictory"],
    params={
        "prompt": Param("A lighthouse at dawn, wide shot, soft light", type="string", minLength=5),
        "model": Param("flux-schnell", enum=list(MODELS)),
        "aspect_ratio": Param("16:9", enum=["1:1", "16:9", "9:16"]),
        "style": Param("photorealistic", enum=list(STYLES)),
    },
):
    # [START text_to_image]
    generate = GenerateImageOperator(
        task_id="generate",
        prompt="{{ params.prompt }}",
        model="{{ params.model }}",
        aspect_ratio="{{ params.aspect_ratio }}",
        style="{{ params.style }}",
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
