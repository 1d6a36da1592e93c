# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Every example DAG, run by a real Airflow against a local Pictory over real sockets."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from tests.system.conftest import BATCH


def size_of(path: str) -> tuple[int, int]:
    with Image.open(path) as picture:
        picture.load()
        assert picture.format == "PNG"
        return picture.size


def test_every_dag_file_can_be_read(airflow, runs):
    assert airflow.import_errors() == []


def test_text_to_image_ends_with_a_picture_on_disk(airflow, runs, simulator):
    states = airflow.finish(*runs["text to image"])
    assert states == {"generate": "success", "wait": "success", "save": "success"}

    saved = airflow.xcom(*runs["text to image"], "save")
    assert size_of(saved["path"]) == (1280, 720) == (saved["width"], saved["height"])
    (submission,) = [r for r in simulator.submissions if r.body.get("style") == "vintage"]
    assert submission.body == {
        "prompt": "A quiet harbour, wide shot",
        "model": "flux-schnell",
        "aspectRatio": "16:9",
        "style": "vintage",
    }
    assert submission.headers["Authorization"] == simulator.api_key


def test_the_job_id_is_in_xcom_under_both_keys_and_the_link_leads_to_the_picture(airflow, runs):
    airflow.finish(*runs["text to image"])

    job_id = airflow.xcom(*runs["text to image"], "generate")
    record = airflow.xcom(*runs["text to image"], "wait")
    assert airflow.xcom(*runs["text to image"], "generate", "jobId") == job_id == record["job_id"]
    assert airflow.xcom(*runs["text to image"], "wait", "_link_PictoryJobLink") == record["url"]
    assert airflow.xcom(*runs["text to image"], "save", "_link_PictoryJobLink") == record["url"]


@pytest.mark.parametrize("use", ["variation", "subject replacement", "style transfer"])
def test_a_reference_image_guides_a_picture(airflow, runs, simulator, use):
    assert set(airflow.finish(*runs[use]).values()) == {"success"}

    saved = airflow.xcom(*runs[use], "generate", "image")
    assert size_of(saved["path"]) == (1024, 1024)
    job = simulator.account.jobs[saved["job_id"]]
    assert job.body["referenceImageUrl"] == simulator.reference_image_url
    assert airflow.xcom(*runs[use], "generate", "_link_PictoryJobLink") == saved["url"]
    beside = json.loads(Path(saved["path"] + ".json").read_text())
    assert (beside["state"], beside["request"]["prompt"]) == ("saved", job.body["prompt"])
    assert Image.open(io.BytesIO(job.reference)).size == (1024, 1024)


def test_a_job_is_submitted_in_one_task_group_and_waited_for_in_another(airflow, runs):
    assert set(airflow.finish(*runs["hand-over"]).values()) == {"success"}

    assert size_of(airflow.xcom(*runs["hand-over"], "collect.save")["path"]) == (1024, 1024)


def test_a_batch_saves_what_did_not_fail_and_says_why_the_rest_did(airflow, runs):
    assert airflow.finish(*runs["batch"]) == {"pictures": "failed"}

    progress = airflow.xcom(*runs["batch"], "pictures", key="progress")
    assert (progress["of"], progress["saved"], progress["failed"]) == (len(BATCH), len(BATCH) - 1, 1)
    assert progress["ai_credits_used"] == 1.8
    images = airflow.xcom(*runs["batch"], "pictures", key="pictures_0")
    assert [size_of(image["path"]) for image in images] == [(1024, 1024)] * 3
    folder = Path(images[0]["path"]).parent
    failed = [json.loads(line) for line in (folder / "failed.jsonl").read_text().splitlines()]
    assert [(row["index"], row["code"]) for row in failed] == [(1, "IMAGE_GENERATION_FAILED")]
    texts = [json.loads(line)["text"] for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert texts == [prompt for prompt in BATCH if "simulate" not in prompt]
    assert "00001.png: IMAGE_GENERATION_FAILED" in airflow.task_log(*runs["batch"], "pictures")


def values(airflow, dag_id: str, task_id: str, key: str = "return_value") -> list:
    """Return an XCom of a task of every successful run of a DAG."""
    done = airflow.call("GET", f"/dags/{dag_id}/dagRuns?state=success")["dag_runs"]
    return [airflow.xcom(dag_id, run["dag_run_id"], task_id, key) for run in done]


def test_a_published_picture_starts_the_dag_that_waits_for_it(airflow, runs):
    assert set(airflow.finish(*runs["publish"]).values()) == {"success"}

    used: list[str] = []
    for _ in airflow.until(60):
        if used := values(airflow, "pictory_use_cover", "use"):
            break
    saved = [picture["path"] for picture in values(airflow, "pictory_publish_cover", "generate", "image")]
    assert used
    assert set(used) <= set(saved)
    assert size_of(used[0]) == (720, 1280)
