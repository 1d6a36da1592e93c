# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Show some pictures of one request to a person in Airflow, and publish the one that they click."""

# [START recipe]
import hashlib
from typing import Any
from urllib.parse import quote

from airflow import __version__ as airflow_version
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException
from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import DAG, Asset, ObjectStoragePath, task

from pictory_provider.operators.pictory import GenerateImageOperator

# Airflow shows up to four options as buttons. Airflow 3.1 shows up to three, and exactly four cannot be answered.
NUMBER = 2 if airflow_version.startswith("3.1.") else 3
NONE = "None of these"
cover = Asset("cover_chosen_by_a_person")

with DAG(dag_id="recipe_choose_in_airflow", schedule=None, tags=["pictory", "recipe"]):
    candidates = GenerateImageOperator(
        task_id="candidates",
        prompt="A ferry at dawn, wide shot, soft light",
        model="flux-schnell",
        aspect_ratio="16:9",
        candidates=NUMBER,
        path="{{ var.value.get('pictory_pictures', '/tmp/pictory') }}/choice/{{ run_id }}.png",
    )

    @task
    def show(images: list[dict[str, Any]], *, ti: Any) -> str:
        """Return the pictures as a Markdown table of one row. The gallery serves them from their files."""
        url = f"pictory/file/{ti.dag_id}/{quote(ti.run_id, safe='')}/candidates/-1/images"
        numbers = [str(image["candidate"]) for image in images]
        pictures = [f"![picture {image['candidate']}]({url}/{image['sha256']})" for image in images]
        rows = numbers, ["---"] * len(images), pictures
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)

    shown = show(candidates.output["images"])
    choose = HITLOperator(
        task_id="choose",
        subject="Which picture is the cover?",
        body=shown,
        options=[*map(str, range(1, NUMBER + 1)), NONE],
        retries=1,  # asks again after an answer that Airflow cannot use
    )

    @task(outlets=[cover])
    def publish(
        images: list[dict[str, Any]], shown: str, answer: dict[str, Any], *, outlet_events: Any
    ) -> dict[str, Any]:
        """Publish the chosen picture, if its file is still the one that was shown."""
        (choice,) = answer["chosen_options"]
        if choice == NONE:
            raise AirflowSkipException("No picture was chosen, so none is published.")
        image = images[int(choice) - 1]
        sha256 = hashlib.sha256(ObjectStoragePath(image["path"]).read_bytes()).hexdigest()
        if sha256 not in shown:
            raise AirflowFailException(
                f"{image['path']} is not the picture that was shown. Nothing was published. Clear the task "
                "'candidates' and the tasks after it to ask again; pictures that exist are not bought again."
            )
        chosen = {
            "path": image["path"],
            "sha256": sha256,
            "job_id": image["job_id"],
            "candidate": image["candidate"],
            "chosen_by": answer["responded_by_user"],
            "chosen_at": answer["responded_at"].isoformat(),
        }
        outlet_events[cover].extra = chosen
        return chosen

    publish(candidates.output["images"], shown, choose.output)
# [END recipe]
