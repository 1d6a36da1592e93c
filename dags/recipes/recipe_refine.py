# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A picture is drawn again until a judge is content, at most four times (Airflow 3.4 and later has loops)."""

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
                max_credits=0.6,  # four times that, at most
                path=f"{FOLDER}/{{{{ loop.index }}}}.png",
            )
            def draw(*, loop: Any) -> str:
                advice = loop.previous["advice"] if loop.previous else "wide shot"
                return f"A lighthouse in a storm, dramatic light, {advice}"

            @task
            def judge(image: dict[str, Any]) -> dict[str, Any]:
                # Ask a vision model here, with the picture at image["path"].
                is_content = "close-up" in image["prompt"]
                return {"is_content": is_content, "advice": "close-up of the lantern", "path": image["path"]}

            judge(draw()["image"])

        refine.loop(max_iterations=4, until=lambda loop: loop.result["is_content"])
    # [END recipe]
