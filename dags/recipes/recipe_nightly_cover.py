# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A new cover every night, always in the same place, with a dated copy beside it."""

# [START recipe]
import pendulum
from airflow.sdk import DAG

from pictory_provider.operators.pictory import DownloadImageOperator, GenerateImageOperator

FOLDER = "{{ var.value.get('pictory_pictures', '/tmp/pictory') }}/covers/"

with DAG(
    dag_id="recipe_nightly_cover",
    schedule="0 3 * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    tags=["pictory", "recipe"],
) as dag:
    generate = GenerateImageOperator(
        task_id="generate",
        prompt="A magazine cover for {{ dag_run.run_after | ds }}: one paper boat on calm water, aerial view",
        aspect_ratio="9:16",
        style="minimalist",
        wait_for_completion=True,
        retries=3,  # a retry adopts the job that is on record, and buys nothing
        retry_delay=pendulum.duration(minutes=5),
    )
    dated = DownloadImageOperator(
        task_id="dated", job_id=generate.output, path=FOLDER + "{{ dag_run.run_after | ds }}.png", overwrite=True
    )
    today = DownloadImageOperator(
        task_id="today", job_id=generate.output, path=FOLDER + "today.png", overwrite=True
    )
    # Readers of today.png see the old cover or the new one, and never half of one.
    dated >> today
# [END recipe]
