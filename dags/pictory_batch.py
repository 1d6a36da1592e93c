# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A batch: one job for each prompt of a list. A prompt that fails takes no other along.

The summary at the end says what was saved, what it cost, and what failed and why.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Param, task

from pictory_provider.hooks.pictory import PictoryHook
from pictory_provider.operators.pictory import DownloadImageOperator, GenerateImageOperator
from pictory_provider.sensors.pictory import PictoryJobSensor

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

    generate = GenerateImageOperator.partial(
        task_id="generate", model="flux-schnell", aspect_ratio="1:1", style="photorealistic"
    ).expand(prompt=prompts())
    # Whatever became of the others: wait for every job that was submitted, save every picture that is there.
    wait = PictoryJobSensor.partial(task_id="wait", trigger_rule="all_done").expand(job_id=generate.output)
    save = DownloadImageOperator.partial(
        task_id="save",
        trigger_rule="all_done",
        path="{{ var.value.get('pictory_pictures', '/tmp/pictory') }}/batch/{{ run_id }}/{{ ti.map_index }}.png",
    ).expand(job_id=wait.output.map(lambda image: image["job_id"]))

    @task(trigger_rule="all_done")
    def summary(params: dict[str, Any], ti: Any) -> dict[str, Any]:
        credits, failed = 0.0, []
        with PictoryHook() as hook:
            for index, prompt in enumerate(params["prompts"]):
                job_id = ti.xcom_pull(task_ids="generate", key="jobId", map_indexes=index)
                if job_id is None:
                    failed.append({"prompt": prompt, "why": "not submitted; see the log of its generate task"})
                    continue
                job = hook.get_job(job_id)
                credits += job.ai_credits_used or 0
                if job.url is None:
                    why = f"{job.status}: {job.error_code or ''} {job.error_message or ''}".strip()
                    failed.append({"prompt": prompt, "job_id": job_id, "why": why})
        saved = [picture["path"] for picture in ti.xcom_pull(task_ids="save") or []]
        print(f"{len(saved)} pictures saved for {credits:g} AI credits, {len(failed)} failed.")
        for failure in failed:
            print(f"Failed: {failure}")
        return {"saved": saved, "ai_credits_used": round(credits, 2), "failed": failed}

    save >> summary()
    # [END batch]
