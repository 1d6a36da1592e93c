# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""All kinds of pictures for the tab *Pictures* of a run: single, mapped, reused, failed, from a batch."""

from __future__ import annotations

from airflow.sdk import DAG

from pictory_provider.operators.batch import GenerateImageBatchOperator
from pictory_provider.operators.pictory import DownloadImageOperator, GenerateImageOperator
from pictory_provider.sensors.pictory import PictoryJobSensor

FOLDER = "{{ var.value.get('pictory_pictures', '/tmp/pictory') }}/every_kind"
COVER = "A magazine cover: one paper boat on calm water, aerial view"
TEAS = ("green tea in a glass", "black tea in a blue cup", "mint tea on a windowsill")
BICYCLES = ("red", "green", "blue", "yellow", "white", "black", "copper", "silver")

with DAG(dag_id="pictures_of_every_kind", doc_md=__doc__, schedule=None, catchup=False, tags=["pictory"]):
    cover = GenerateImageOperator(
        task_id="cover", prompt=COVER, model="flux-schnell", aspect_ratio="9:16", path=f"{FOLDER}/cover.png"
    )
    same_cover = GenerateImageOperator(
        task_id="same_cover", prompt=COVER, model="flux-schnell", aspect_ratio="9:16", path=f"{FOLDER}/cover.png"
    )
    cover >> same_cover

    submit = GenerateImageOperator(
        task_id="submit", prompt="A lighthouse at dawn, wide shot, soft light", aspect_ratio="16:9"
    )
    wait = PictoryJobSensor(task_id="wait", job_id=submit.output)
    save = DownloadImageOperator(
        task_id="save", job_id=submit.output, path=f"{FOLDER}/{{{{ ti.xcom_pull(task_ids='submit') }}}}.png"
    )
    submit >> wait >> save

    GenerateImageOperator.partial(
        task_id="teas",
        model="flux-schnell",
        aspect_ratio="16:9",
        path=f"{FOLDER}/{{{{ run_id }}}}/tea-{{{{ ti.map_index }}}}.png",
    ).expand(prompt=[f"A wooden table with {tea}, morning light" for tea in TEAS])

    GenerateImageOperator(
        task_id="fails",
        prompt="A harbour that cannot be generated simulate:failed",
        model="flux-schnell",
        wait_for_completion=True,
    )
    GenerateImageOperator(
        task_id="takes_long",
        prompt="A quiet harbour in the fog simulate:stuck",
        wait_for_completion=True,
        timeout=3600,
    )
    GenerateImageBatchOperator(
        task_id="bicycles",
        requests=[f"A {colour} bicycle against a white wall, studio light" for colour in BICYCLES],
        path=f"{FOLDER}/{{{{ run_id }}}}/bicycles",
        model="flux-schnell",
        aspect_ratio="1:1",
    )
