# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Ask a person to accept each picture or to say what to change (loops need Airflow 3.4 or later)."""

from airflow import __version__

if tuple(int(part) for part in __version__.split(".")[:2]) >= (3, 4):
    # [START recipe]
    from typing import Any

    from airflow.providers.standard.operators.hitl import HITLOperator
    from airflow.sdk import DAG, Param, task, task_group

    FOLDER = "{{ var.value.get('pictory_pictures', '/tmp/pictory') }}/chosen/{{ run_id }}"

    with DAG(dag_id="recipe_show_me_others", schedule=None, tags=["pictory", "recipe"]):

        @task_group
        def refine() -> None:
            @task.pictory_image(
                model="flux-schnell",
                aspect_ratio="16:9",
                max_credits=0.6,  # for each iteration: at most four times that
                path=f"{FOLDER}/{{{{ loop.index }}}}.png",
            )
            def draw(*, loop: Any) -> str:
                change = loop.previous["params_input"]["change"] if loop.previous else "wide shot"
                return f"A lighthouse in a storm, dramatic light, {change}"

            draw() >> HITLOperator(
                task_id="ask",
                subject="Is this the picture?",
                body="![the picture]({{ ti.xcom_pull(task_ids='refine.draw', key='image')['url'] }})",
                options=["Take it", "Draw another"],
                params={"change": Param("close-up of the lantern", type="string")},
            )

        refine.loop(max_iterations=4, until=lambda loop: loop.result["chosen_options"] == ["Take it"])
    # [END recipe]
