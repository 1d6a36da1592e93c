# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A batch: one job for each prompt of a list. A prompt that fails takes no other along.

Each is saved under its own number. The summary at the end says what was saved and what it cost; where something
failed it says which and why, and fails.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import DAG, Param, task

from pictory_provider.hooks.pictory import PictoryHook
from pictory_provider.operators.pictory import GenerateImageOperator

with DAG(
    dag_id="pictory_batch",
    doc_md=__doc__,
    schedule=None,
    catchup=False,
    tags=["pictory"],
    params={
        "prompts": Param(
            [
                "A red bicycle against a white wall, studio light",
                "A green bicycle in a park, wide shot, late afternoon",
                "A blue bicycle on a bridge, aerial view, morning fog",
            ],
            type="array",
            items={"type": "string"},
        )
    },
):
    # [START batch]
    @task
    def prompts(params: dict[str, Any]) -> list[str]:
        return params["prompts"]

    picture = GenerateImageOperator.partial(
        task_id="picture",
        model="flux-schnell",
        aspect_ratio="1:1",
        style="photorealistic",
        path="{{ var.value.get('pictory_pictures', '/tmp/pictory') }}/batch/{{ run_id }}/{{ ti.map_index }}.png",
    ).expand(prompt=prompts())

    @task(trigger_rule="all_done")
    def summary(params: dict[str, Any], ti: Any) -> None:
        saved, failed, credits = [], [], 0.0
        with PictoryHook() as hook:
            for index, prompt in enumerate(params["prompts"]):
                job_id = ti.xcom_pull(task_ids="picture", key="jobId", map_indexes=index)
                job = hook.get_job(job_id) if job_id else None
                credits += job.ai_credits_used or 0 if job else 0
                image = ti.xcom_pull(task_ids="picture", key="image", map_indexes=index)
                if image:
                    saved.append(image["path"])
                elif job is None:
                    failed.append(f"{index}, {prompt!r}: not submitted; the log of its task says why")
                elif job.error_code:
                    failed.append(f"{index}, {prompt!r}: {job.status} {job.error_code} {job.error_message}")
                else:
                    failed.append(f"{index}, {prompt!r}: {job.status}, not saved; the log of its task says why")
        ti.xcom_push("summary", {"saved": saved, "ai_credits_used": round(credits, 2), "failed": failed})
        print(f"{len(saved)} pictures saved for {credits:g} AI credits, {len(failed)} failed.")
        if failed:
            raise AirflowFailException("\n".join(["These failed, and the others are saved:", *failed]))

    picture >> summary()
    # [END batch]
