# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Submit in one task group and wait in another. Only the jobId goes from one to the other.

Other tasks run between the two while Pictory generates the picture.
"""

from __future__ import annotations

from airflow.sdk import DAG, TaskGroup, task

from pictory_provider.operators.pictory import DownloadImageOperator, GenerateImageOperator
from pictory_provider.sensors.pictory import PictoryJobSensor

with DAG(
    dag_id="pictory_submit_here_wait_there",
    doc_md=__doc__,
    schedule=None,
    catchup=False,
    tags=["pictory"],
):
    # [START hand_over]
    with TaskGroup("order"):
        generate = GenerateImageOperator(
            task_id="generate",
            prompt="A ceramic teapot on a wooden table, close-up, morning light from the left",
            model="flux-schnell",
            style="photorealistic",
        )

    @task
    def write_article() -> str:
        return "Tea, and how to take the time for it"

    with TaskGroup("collect"):
        wait = PictoryJobSensor(task_id="wait", job_id=generate.output)
        save = DownloadImageOperator(
            task_id="save",
            job_id=generate.output,
            path="{{ var.value.get('pictory_pictures', '/tmp/pictory') }}"
            "/hand_over/{{ ti.xcom_pull(task_ids='order.generate') }}.png",
        )
        wait >> save

    generate >> write_article() >> wait
    # [END hand_over]
