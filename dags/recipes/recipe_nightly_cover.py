# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Buy a new cover every night, saved under its date, and keep a copy of the newest as ``today.png``."""

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
    max_active_runs=1,  # a second run on the same day reuses the cover, and buys nothing
    tags=["pictory", "recipe"],
) as dag:
    cover = GenerateImageOperator(
        task_id="cover",
        prompt="A magazine cover for {{ dag_run.run_after | ds }}: one paper boat on calm water, aerial view",
        aspect_ratio="9:16",
        style="minimalist",
        path=FOLDER + "{{ dag_run.run_after | ds }}.png",
        retries=3,  # a retry adopts the recorded job, and buys nothing
        retry_delay=pendulum.duration(minutes=5),
    )
    # Readers of today.png always see a complete cover, the old one or the new one.
    today = DownloadImageOperator(task_id="today", job_id=cover.output, path=FOLDER + "today.png", overwrite=True)
    cover >> today
# [END recipe]
