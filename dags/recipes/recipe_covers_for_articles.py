# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Generate a cover for every article. A function writes each prompt."""

# [START recipe]
from airflow.sdk import DAG, task

ARTICLES = [
    {"slug": "tea", "title": "how to take the time for tea"},
    {"slug": "rain", "title": "what to do when it rains"},
]
SLUG = "{{ task.op_kwargs.article.slug }}"  # of the article of each mapped task

with DAG(dag_id="recipe_covers_for_articles", schedule=None, tags=["pictory", "recipe"]):

    @task
    def articles() -> list[dict[str, str]]:
        # Put your query here.
        return ARTICLES

    @task.pictory_image(
        model="flux-schnell",
        aspect_ratio="9:16",
        path="{{ var.value.get('pictory_pictures', '/tmp/pictory') }}/articles/" + SLUG + ".png",
        map_index_template=SLUG,
    )
    def cover(article: dict[str, str]) -> str:
        # A language model may write the prompt: a retry adopts the job and does not call this again.
        return f"A magazine cover about {article['title']}, paper cut, two colours"

    cover.expand(article=articles())
# [END recipe]
