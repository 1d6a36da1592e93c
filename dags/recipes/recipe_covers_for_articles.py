# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A cover for every article, whose prompt a function writes."""

# [START recipe]
from airflow.sdk import DAG, task, task_group

from pictory_provider.operators.pictory import DownloadImageOperator

ARTICLES = [
    {"slug": "tea", "title": "how to take the time for tea"},
    {"slug": "rain", "title": "what to do when it rains"},
]
ARTICLE = "{% set article = ti.xcom_pull(task_ids='articles')[ti.map_index] %}"

with DAG(dag_id="recipe_covers_for_articles", schedule=None, tags=["pictory", "recipe"]):

    @task
    def articles() -> list[dict[str, str]]:
        # Your query goes here.
        return ARTICLES

    @task.pictory_image(model="flux-schnell", aspect_ratio="9:16", wait_for_completion=True)
    def cover(article: dict[str, str]) -> str:
        # A language model may write it: this is called once for each purchase, and not again by a retry.
        return f"A magazine cover about {article['title']}, paper cut, two colours"

    @task_group
    def picture(article: dict[str, str]) -> None:
        DownloadImageOperator(
            task_id="save",
            job_id="{{ ti.xcom_pull(task_ids='picture.cover', map_indexes=ti.map_index) }}",
            path=ARTICLE
            + "{{ var.value.get('pictory_pictures', '/tmp/pictory') }}/articles/{{ article.slug }}.png",
            overwrite=True,
        ).set_upstream(cover(article))

    picture.expand(article=articles())
# [END recipe]
