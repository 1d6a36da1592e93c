# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Pictures of every kind: single, mapped, from three tasks, in a group, reused, from a batch, failed, and hostile."""

from __future__ import annotations

from pathlib import Path

from airflow.sdk import DAG, TaskGroup, task

from pictory_provider.operators.batch import GenerateImageBatchOperator
from pictory_provider.operators.pictory import DownloadImageOperator, GenerateImageOperator
from pictory_provider.sensors.pictory import PictoryJobSensor

HOSTILE = (
    "<script>parent.hacked = window.hacked = 1</script><img src=x onerror='parent.hacked = window.hacked = 1'>"
)
FOLDER = "{{ var.value.pictory_pictures }}/seen"
QUICK = {"model": "flux-schnell", "poll_interval": 1, "deferrable": False}
TEAS = ["green", "black", "white", "oolong", "mint"]

with DAG(dag_id="browser.pictures-1", schedule=None, params={"hostile": HOSTILE}, tags=["pictory"]):
    with TaskGroup("covers"):
        first = GenerateImageOperator(
            task_id="first",
            prompt="A magazine cover: one paper boat on calm water, aerial view",
            path=f"{FOLDER}/{{{{ run_id }}}}/cover.png",
            aspect_ratio="9:16",
            **QUICK,
        )
        again = GenerateImageOperator(
            task_id="again",
            prompt="A magazine cover: one paper boat on calm water, aerial view",
            path=f"{FOLDER}/{{{{ run_id }}}}/cover.png",
            aspect_ratio="9:16",
            **QUICK,
        )
        first >> again

    GenerateImageOperator.partial(
        task_id="mapped",
        path=f"{FOLDER}/{{{{ run_id }}}}/tea-{{{{ ti.map_index }}}}.png",
        aspect_ratio="16:9",
        **QUICK,
    ).expand(prompt=[f"A cup of {tea} tea on a wooden table, morning light" for tea in TEAS])

    generate = GenerateImageOperator(
        task_id="generate",
        prompt="A lighthouse at dawn, wide shot, soft light",
        model="seedream3.0",
        aspect_ratio="16:9",
    )
    wait = PictoryJobSensor(task_id="wait", job_id=generate.output, deferrable=False, poke_interval=1)
    save = DownloadImageOperator(
        task_id="save", job_id=generate.output, path=f"{FOLDER}/{{{{ run_id }}}}/lighthouse.png"
    )
    generate >> wait >> save

    GenerateImageOperator(
        task_id="hostile",
        prompt=f"A quiet harbour {HOSTILE}",
        path=f"{FOLDER}/{{{{ run_id }}}}/hostile.png",
        **QUICK,
    )
    GenerateImageOperator(
        task_id="failing", prompt="A red bicycle simulate:failed", wait_for_completion=True, **QUICK
    )
    GenerateImageOperator(task_id="refused", prompt=f"A teapot {HOSTILE}", model=HOSTILE)
    GenerateImageOperator(
        task_id="wrong_key", prompt="A paper boat on calm water", pictory_conn_id="pictory_wrong_key"
    )
    GenerateImageBatchOperator(
        task_id="batch",
        requests=[f"A bicycle number {number} against a white wall, studio light" for number in range(40)]
        + ["A bicycle that cannot be drawn simulate:failed"],
        path=f"{FOLDER}/{{{{ run_id }}}}/batch",
        model="flux-schnell",
        aspect_ratio="1:1",
        poll_interval=1,
    )

with DAG(dag_id="browser_in_progress", schedule=None):
    GenerateImageOperator(
        task_id="drawn",
        prompt="A lighthouse that takes its time simulate:stuck",
        model="seedream3.0",
        aspect_ratio="16:9",
        wait_for_completion=True,
        timeout=3600,
    )

with DAG(dag_id="browser_batch_in_progress", schedule=None):
    GenerateImageBatchOperator(
        task_id="drawn",
        requests=["A kite that takes its time simulate:stuck", "A quick kite"],
        path=f"{FOLDER}/{{{{ run_id }}}}/kites",
        model="flux-schnell",
        poll_interval=1,
        timeout=3600,
    )

with DAG(dag_id="browser_nothing", schedule=None):
    PictoryJobSensor(task_id="wait", job_id="None")

with DAG(dag_id="browser_plan", schedule=None):
    GenerateImageOperator(task_id="one", prompt="A planned picture", path=f"{FOLDER}/planned.png", plan_only=True)
    GenerateImageBatchOperator(
        task_id="many",
        requests=[{"prompt": "A planned bicycle"}, {"prompt": "A planned kite"}, {"prompt": ""}],
        path=f"{FOLDER}/planned",
        skip_blank="prompt",
        plan_only=True,
    )

with DAG(dag_id="browser_candidates", schedule=None):
    GenerateImageOperator(task_id="poster", prompt="A poster of a fair", path=f"{FOLDER}/poster.png", candidates=3)

with DAG(dag_id="browser_copies", schedule=None):
    GenerateImageOperator(
        task_id="cover",
        prompt="A cover with copies",
        path=f"{FOLDER}/copied/cover.png",
        copies=[{"format": "webp", "width": width} for width in (100, 400, 600)],
        **QUICK,
    )

with DAG(dag_id="browser_lost_copy", schedule=None):

    @task
    def a_file_in_the_way(pictures):
        Path(pictures, "seen", "lost", "cover.400.webp").write_bytes(b"mine")

    lost = {"prompt": "A cover without a copy", "path": f"{FOLDER}/lost/cover.png", **QUICK}
    first = GenerateImageOperator(task_id="first", **lost)
    again = GenerateImageOperator(task_id="again", copies=[{"format": "webp", "width": 400}], **lost)
    first >> a_file_in_the_way("{{ var.value.pictory_pictures }}") >> again
