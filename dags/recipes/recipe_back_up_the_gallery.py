# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Copy every picture of the gallery to object storage, except those that were copied before."""

# [START recipe]
import pendulum
from airflow.sdk import DAG, ObjectStoragePath, Variable, task

from pictory_provider.hooks.pictory import PictoryHook
from pictory_provider.operators.pictory import DownloadImageOperator

with DAG(
    dag_id="recipe_back_up_the_gallery",
    schedule="@weekly",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    tags=["pictory", "recipe"],
):

    @task(show_return_value_in_logs=False)  # anyone who has such a URL can read the picture
    def missing() -> list[dict[str, str]]:
        # For a bucket: s3://<connection>@<bucket>/<folder>. The Airflow connection holds the credentials.
        folder = ObjectStoragePath(Variable.get("pictory_backup", "file:///tmp/pictory/gallery"))
        existing = {path.name for path in folder.iterdir()} if folder.exists() else set()
        with PictoryHook() as hook:
            gallery = [image for image in hook.list_images() if image.id and image.url]
        return [
            {"url": image.url, "path": str(folder / f"{image.id}.png")}
            for image in gallery
            if f"{image.id}.png" not in existing
        ][:1000]  # Airflow maps at most 1024 tasks; the next run copies the rest

    DownloadImageOperator.partial(task_id="save", max_active_tis_per_dag=4).expand_kwargs(missing())
# [END recipe]
