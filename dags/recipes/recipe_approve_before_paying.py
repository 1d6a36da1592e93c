# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Ask a person to approve the prompt and its price before the picture is bought."""

# [START recipe]
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG, Param

from pictory_provider.api.models import MODELS
from pictory_provider.operators.pictory import GenerateImageOperator

PRICES = {name: f"{name}: {model.credits:g} AI credits" for name, model in MODELS.items()}

with DAG(
    dag_id="recipe_approve_before_paying",
    schedule=None,
    tags=["pictory", "recipe"],
    params={
        "prompt": Param("A lighthouse in a storm, dramatic light, wide shot", type="string", minLength=5),
        "model": Param("nanobanana-pro", enum=list(MODELS), values_display=PRICES),
    },
    user_defined_macros={"credits": {name: model.credits for name, model in MODELS.items()}},
):
    approve = ApprovalOperator(
        task_id="approve",
        subject="Buy a picture for {{ credits[params.model] }} AI credits?",
        body="{{ params.model }}: {{ params.prompt }}",
    )
    picture = GenerateImageOperator(
        task_id="picture",
        prompt="{{ params.prompt }}",
        model="{{ params.model }}",
        path="{{ var.value.get('pictory_pictures', '/tmp/pictory') }}/approved/{{ run_id }}.png",
    )
    approve >> picture
# [END recipe]
