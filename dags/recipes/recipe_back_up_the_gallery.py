# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Every picture of the gallery is copied to object storage; what is there already is not fetched twice."""

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

    @task(show_return_value_in_logs=False)  # with such a URL anyone can read the picture
    def missing() -> list[dict[str, str]]:
        # A bucket is s3://<connection>@<bucket>/<folder>: the credentials are those of the Airflow connection.
        folder = ObjectStoragePath(Variable.get("pictory_backup", "file:///tmp/pictory/gallery"))
        there = {path.name for path in folder.iterdir()} if folder.exists() else set()
        with PictoryHook() as hook:
            gallery = [image for image in hook.list_images() if image.id and image.url]
        return [
            {"url": image.url, "path": str(folder / f"{image.id}.png")}
            for image in gallery
            if f"{image.id}.png" not in there
        ][:1000]  # Airflow maps at most 1024 tasks; the next run takes the rest

    DownloadImageOperator.partial(task_id="save", max_active_tis_per_dag=4).expand_kwargs(missing())
# [END recipe]
