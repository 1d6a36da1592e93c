# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Report the failed rows of a batch, by a callback and by a task, and keep the run marked as failed."""

# [START recipe]
import json
import logging
from typing import Any

from airflow.sdk import DAG, ObjectStoragePath, Param, task

from pictory_provider.operators.batch import GenerateImageBatchOperator

FOLDER = "{{ var.value.get('pictory_pictures', '/tmp/pictory') }}/reported"
log = logging.getLogger(__name__)


def rows_without_a_picture(folder: str) -> list[str]:
    """Return a line for each failed row. An attempt whose worker was killed leaves no ``failed.jsonl``."""
    file = ObjectStoragePath(folder) / "failed.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [f"{row.get('file_name') or 'the table'}: {row['state']}, {row['message']}" for row in rows]


def log_failed_rows(context: dict[str, Any]) -> None:
    """Log the failed rows. Airflow calls this after the last attempt, on its worker, with the rendered task."""
    for line in rows_without_a_picture(context["task"].path):
        log.error("No picture: %s", line)


with DAG(
    dag_id="recipe_which_rows_failed",
    schedule=None,
    max_active_runs=1,
    tags=["pictory", "recipe"],
    params={"products": Param([{"sku": "cup-01", "product": "a blue cup"}], type="array")},
    render_template_as_native_obj=True,
):
    pictures = GenerateImageBatchOperator(
        task_id="pictures",
        requests="{{ params.products }}",
        prompt="{product} on a wooden table",
        file_name="{sku}.png",
        path=FOLDER,
        model="flux-schnell",
        on_failure_callback=log_failed_rows,
    )

    @task(trigger_rule="one_failed")
    def open_a_ticket(folder: str) -> list[str]:
        return rows_without_a_picture(folder)  # send them to the people who maintain the table

    @task
    def publish() -> None:
        """Publish a complete catalogue. If the batch fails, this leaf cannot run, so the run fails too."""

    pictures >> open_a_ticket(FOLDER)
    pictures >> publish()
# [END recipe]
