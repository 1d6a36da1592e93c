# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Two DAGs with different permissions, each with a saved picture and a failed task."""

from __future__ import annotations

from airflow.sdk import DAG

from pictory_provider.operators.pictory import GenerateImageOperator


def pictures(name: str, prompt: str) -> DAG:
    with DAG(dag_id=f"browser_{name}", schedule=None) as dag:
        GenerateImageOperator(
            task_id="drawn",
            prompt=prompt,
            model="flux-schnell",
            path=f"{{{{ var.value.pictory_pictures }}}}/{name}.png",
            deferrable=False,
            poll_interval=1,
        )
        GenerateImageOperator(task_id="failing", prompt=f"{prompt} in a size that is none", aspect_ratio="0:0")
    return dag


shown = pictures("shown", "A lighthouse at dawn for all to see")
hidden = pictures("hidden", "A harbour that is kept from some eyes")
