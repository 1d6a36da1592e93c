# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Generate an image from a reference image: a variation, another subject, or another style.

The reference image is a public URL, or a private object such as ``s3://catalogue/mug.png``, which the task signs
for Pictory. Set it in the parameter ``reference_image_url``; if that is empty, the Airflow variable
``pictory_reference_image`` is used. With ``reference_upload`` it may also be a local file, which becomes public.
One task generates the picture and saves it.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param

from pictory_provider.api.models import MODELS, STYLES
from pictory_provider.operators.pictory import GenerateImageOperator

# [START prompts]
PROMPTS = {
    "variation": "A new picture based on the provided image: the same scene an hour later, "
    "with longer shadows. Keep the composition unchanged.",
    "subject replacement": "Replace the main subject in the referenced image with a red bicycle. "
    "Keep the background and lighting unchanged.",
    "style transfer": "The scene in the referenced image as a hand-drawn illustration. "
    "Keep the subject and the layout unchanged.",
}
# [END prompts]

PRICES = {name: f"{name}: {model.credits:g} AI credits" for name, model in MODELS.items()}

with DAG(
    dag_id="pictory_reference_image",
    doc_md=__doc__,
    schedule=None,
    catchup=False,
    tags=["pictory"],
    user_defined_macros={"prompts": PROMPTS},
    params={
        "use": Param("style transfer", enum=list(PROMPTS), description="What to do with the reference image."),
        "reference_image_url": Param(
            None,
            type=["null", "string"],
            title="Reference image",
            description="A public http(s) URL, or a private object such as s3://bucket/key.png. "
            "If it is empty, the variable pictory_reference_image is used.",
        ),
        "reference_upload": Param(
            False,
            type="boolean",
            title="Upload a local file",
            description="Everyone who has the URL of the upload can see the picture, for good.",
        ),
        "model": Param(
            "seedream3.0",
            enum=list(MODELS),
            values_display=PRICES,
            description="The price of a picture is shown next to its model.",
        ),
        "style": Param(
            "artistic",
            type=["null", "string"],
            enum=[None, *STYLES],
            values_display={"null": "no style"},
        ),
    },
) as dag:
    # [START reference_image]
    GenerateImageOperator(
        task_id="generate",
        prompt="{{ prompts[params.use] }}",
        reference_image_url="{{ params.reference_image_url or var.value.pictory_reference_image }}",
        reference_upload="{{ params.reference_upload }}",
        model="{{ params.model }}",
        style=dag.param("style", default="artistic"),
        path="{{ var.value.get('pictory_pictures', '/tmp/pictory') }}/reference_image/{{ run_id }}.png",
    )
    # [END reference_image]
