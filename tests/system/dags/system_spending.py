# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tasks that buy over a connection with a limit: parallel mapped tasks, a batch, a hook in a function."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, task

from pictory_provider.hooks.pictory import PictoryHook
from pictory_provider.operators.batch import GenerateImageBatchOperator
from pictory_provider.operators.pictory import GenerateImageOperator

LIMITED = "pictory_limited"

with DAG(dag_id="system_spending", schedule=None, render_template_as_native_obj=True):
    pictures = GenerateImageOperator.partial(
        task_id="pictures",
        pictory_conn_id=LIMITED,
        retries=1,
        retry_delay=timedelta(seconds=1),
        max_active_tis_per_dagrun=4,
    ).expand(prompt=[f"A lamp, number {number}" for number in range(16)])

    @task(trigger_rule="all_done")
    def by_hand() -> None:
        with PictoryHook(LIMITED) as hook:
            hook.generate_image("A lamp by hand", model="nanobanana-pro")

    batch = GenerateImageBatchOperator(
        task_id="batch",
        requests=["A lamp of a batch"] * 2,
        path="{{ var.value.pictory_pictures }}/spending",
        pictory_conn_id=LIMITED,
        on_budget="skip",
        trigger_rule="all_done",
    )
    pictures >> [by_hand(), batch]
