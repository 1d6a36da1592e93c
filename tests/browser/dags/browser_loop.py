# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A loop of three iterations with a picture each, a mapped task in it, and a batch (Airflow 3.4 and later)."""

from __future__ import annotations

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, task_group
from airflow.sdk.definitions.decorators.task_group import _TaskGroupFactory

from pictory_provider.operators.batch import GenerateImageBatchOperator
from pictory_provider.operators.pictory import GenerateImageOperator
from pictory_provider.sensors.pictory import PictoryJobSensor

FOLDER = "{{ var.value.pictory_pictures }}/seen/{{ run_id }}"
QUICK = {"model": "flux-schnell", "poll_interval": 1}

if hasattr(_TaskGroupFactory, "loop"):
    with DAG(dag_id="browser_loop", schedule=None, tags=["pictory"]):

        @task_group
        def again():
            draw = GenerateImageOperator(
                task_id="draw",
                prompt="A vase, take {{ loop.index }}",
                path=f"{FOLDER}/vase-{{{{ loop.index }}}}.png",
                **QUICK,
            )
            jugs = GenerateImageOperator.partial(
                task_id="jugs", path=f"{FOLDER}/jug-{{{{ loop.index }}}}-{{{{ ti.map_index }}}}.png", **QUICK
            ).expand(prompt=["A tall jug, take {{ loop.index }}", "A low jug, take {{ loop.index }}"])
            bowls = GenerateImageBatchOperator(
                task_id="bowls",
                requests=["A bowl, take {{ loop.index }}", "A wide bowl, take {{ loop.index }}"],
                path=f"{FOLDER}/bowls-{{{{ loop.index }}}}",
                **QUICK,
            )
            submit = GenerateImageOperator(
                task_id="submit", prompt="A cup, take {{ loop.index }}", model="flux-schnell"
            )
            wait = PictoryJobSensor(task_id="wait", job_id=submit.output)
            draw >> [jugs, bowls, submit]
            submit >> wait
            [jugs, bowls, wait] >> EmptyOperator(task_id="done")

        again.loop(max_iterations=3, until=lambda loop: loop.index == 2)
