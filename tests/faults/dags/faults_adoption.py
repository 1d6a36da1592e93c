# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tasks that lose a reply and adopt its job: plain, with a path, mapped, and in a loop if Airflow has loops."""

from __future__ import annotations

import os

from airflow.sdk import DAG, task_group
from airflow.sdk.definitions.decorators.task_group import _TaskGroupFactory

from pictory_provider.operators.pictory import GenerateImageOperator

FOLDER = f"{os.environ.get('FAULTS_MARKERS', '/nowhere')}/adoption/{{{{ run_id }}}}"
OPTIONS = {"pictory_conn_id": "pictory_quiet", "retries": 1}
PROMPTS = [f"Vase number {number}" for number in range(3)]
HAS_LOOPS = hasattr(_TaskGroupFactory, "loop")

with DAG("faults_adoption", schedule=None):
    plain = GenerateImageOperator(task_id="plain", prompt="A plain vase", **OPTIONS)
    saved = GenerateImageOperator(
        task_id="saved", prompt="A saved vase", path=f"{FOLDER}/saved.png", poll_interval=1, **OPTIONS
    )
    GenerateImageOperator.partial(task_id="mapped", **OPTIONS).expand(
        prompt=[f"{text}, mapped" for text in PROMPTS]
    )
    GenerateImageOperator.partial(
        task_id="mapped_saved", path=f"{FOLDER}/{{{{ ti.map_index }}}}.png", poll_interval=1, **OPTIONS
    ).expand(prompt=[f"{text}, mapped and saved" for text in PROMPTS])
    GenerateImageOperator(task_id="below", prompt="The vase below", **OPTIONS) << plain

if HAS_LOOPS:
    for kind, more in {
        "plain": {},
        "saved": {"path": f"{FOLDER}/loop_{{{{ loop.index }}}}.png", "poll_interval": 1},
        "same": {"path": f"{FOLDER}/same.png", "poll_interval": 1, "overwrite": True},
    }.items():
        with DAG(f"faults_loop_{kind}", schedule=None):

            @task_group
            def again(kind=kind, more=more):
                prompt = f"Vase number {{{{ loop.index }}}} of a loop, {kind}"
                GenerateImageOperator(task_id="draw", prompt=prompt, **OPTIONS, **more)

            again.loop(max_iterations=3, until=lambda loop: loop.index == 2)
