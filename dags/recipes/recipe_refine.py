# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Regenerate a picture until a model approves it, at most four times (loops need Airflow 3.4 or later)."""

from airflow import __version__

if tuple(int(part) for part in __version__.split(".")[:2]) >= (3, 4):
    # [START recipe]
    from typing import Any

    from airflow.sdk import DAG, task, task_group

    FOLDER = "{{ var.value.get('pictory_pictures', '/tmp/pictory') }}/refined/{{ run_id }}"

    with DAG(dag_id="recipe_refine", schedule=None, tags=["pictory", "recipe"]):

        @task_group
        def refine() -> None:
            @task.pictory_image(
                model="flux-schnell",
                aspect_ratio="16:9",
                max_credits=0.6,  # for each iteration: at most four times that
                path=f"{FOLDER}/{{{{ loop.index }}}}.png",
            )
            def draw(*, loop: Any) -> str:
                advice = loop.previous["advice"] if loop.previous else "wide shot"
                return f"A lighthouse in a storm, dramatic light, {advice}"

            @task
            def judge(image: dict[str, Any]) -> dict[str, Any]:
                # Ask a vision model about the picture at image["path"] here.
                is_content = "close-up" in image["prompt"]
                return {"is_content": is_content, "advice": "close-up of the lantern", "path": image["path"]}

            judge(draw()["image"])

        refine.loop(max_iterations=4, until=lambda loop: loop.result["is_content"])
    # [END recipe]
