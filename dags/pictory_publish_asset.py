# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Publish a daily cover as an asset, and run a second DAG for each new cover. Each day buys one picture."""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.sdk import DAG, Asset, task

from pictory_provider.operators.pictory import GenerateImageOperator

# [START asset]
cover = Asset("pictory_cover")

with DAG(
    dag_id="pictory_publish_cover",
    doc_md=__doc__,
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    tags=["pictory"],
):
    GenerateImageOperator(
        task_id="generate",
        prompt="A magazine cover for {{ dag_run.run_after | ds }}: one paper boat on calm water, aerial view",
        aspect_ratio="9:16",
        style="minimalist",
        path="{{ var.value.get('pictory_pictures', '/tmp/pictory') }}/published/{{ run_id }}.png",
        outlets=[cover],  # its event has the path of the picture
    )

with DAG(dag_id="pictory_use_cover", doc_md=__doc__, schedule=[cover], catchup=False, tags=["pictory"]):

    @task
    def use(triggering_asset_events: Any) -> str:
        newest = max(triggering_asset_events[cover], key=lambda event: event.timestamp)
        print(f"The new cover is at {newest.extra['path']}.")
        return str(newest.extra["path"])

    use()
# [END asset]
