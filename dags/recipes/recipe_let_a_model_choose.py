# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Let a vision model choose one of three pictures of a request, and publish it with the model's reason."""

# [START recipe]
import base64
import json
from typing import Any

import requests
from airflow.sdk import DAG, Asset, BaseHook, ObjectStoragePath, task

from pictory_provider.operators.pictory import GenerateImageOperator

QUESTION = (
    "These are {number} pictures of: {prompt}\n"
    "Which one is the best magazine cover? Answer in JSON: "
    '{{"number": the number of the picture, from 1, "reason": one sentence}}'
)
cover = Asset("cover_chosen_by_a_model")


def ask_model(question: str, pictures: list[bytes]) -> str:
    """Ask a model with an OpenAI-compatible API, which most services and local servers have."""
    connection = BaseHook.get_connection("vision_model")
    urls = [f"data:image/png;base64,{base64.b64encode(picture).decode()}" for picture in pictures]
    content = [
        {"type": "text", "text": question},
        *({"type": "image_url", "image_url": {"url": url}} for url in urls),
    ]
    reply = requests.post(
        f"{connection.host}/chat/completions",  # the host is https://api.openai.com/v1, for example
        headers={"Authorization": f"Bearer {connection.password}"},
        json={
            "model": connection.extra_dejson["model"],
            "messages": [{"role": "user", "content": content}],
            "response_format": {"type": "json_object"},
        },
        timeout=120,
    )
    reply.raise_for_status()
    return reply.json()["choices"][0]["message"]["content"]


with DAG(dag_id="recipe_let_a_model_choose", schedule=None, tags=["pictory", "recipe"]) as dag:
    candidates = GenerateImageOperator(
        task_id="candidates",
        prompt="A market hall in the rain, people with umbrellas",
        model="flux-schnell",
        aspect_ratio="16:9",
        candidates=3,
        path="{{ var.value.get('pictory_pictures', '/tmp/pictory') }}/judged/{{ run_id }}.png",
    )

    @task(retries=2, outlets=[cover])
    def choose(images: list[dict[str, Any]], *, outlet_events: Any) -> dict[str, Any]:
        """Publish the picture that the model chooses. A retry asks the model again, and buys no picture."""
        question = QUESTION.format(number=len(images), prompt=images[0]["prompt"])
        answer = ask_model(question, [ObjectStoragePath(image["path"]).read_bytes() for image in images])
        try:
            number, reason = (json.loads(answer)[name] for name in ("number", "reason"))
        except (ValueError, TypeError, KeyError):
            number, reason = None, None
        if type(number) is not int or not 1 <= number <= len(images):
            raise ValueError(
                f"The model did not name a picture from 1 to {len(images)}. Nothing was published or bought. "
                f"It answered: {str(answer)[:300]!r}"
            )
        chosen = {name: images[number - 1][name] for name in ("path", "sha256", "job_id", "candidate")}
        chosen["reason"] = str(reason)[:500]
        outlet_events[cover].extra = chosen
        return chosen

    choose(candidates.output["images"])
# [END recipe]
