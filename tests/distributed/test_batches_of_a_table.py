# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests with a table of a thousand rows in ten batches on Celery workers, while a worker is killed."""

from __future__ import annotations

import csv
import io
import json
import time
from collections import Counter
from urllib.parse import quote

import boto3
import pytest
import requests
from PIL import Image

from tests.distributed.conftest import load
from tests.distributed.test_a_picture_for_every_row import wait_until

DAG_ID = "distributed_batches"


BATCHES, ROWS = (getattr(load(DAG_ID), name) for name in ("BATCHES", "ROWS"))
SKUS = [f"{number:05d}" for number in range(BATCHES * ROWS)]


def prompt(sku: str) -> str:
    return f'A "cup", größer, number {sku}, on a wooden table'


def adopt_unknown(airflow, pictory, storage, run, states) -> int:
    """Adopt the job of each row with an unknown outcome as its error says, and return how many there were.

    A worker that is killed in the middle of a wave leaves such rows.
    """
    bought = {job.body["prompt"]: job.job_id for job in pictory.account.jobs.values()}
    s3 = boto3.client(
        "s3",
        endpoint_url=storage.url,
        region_name="us-east-1",
        aws_access_key_id="the-maker",
        aws_secret_access_key="edits a record",
    )
    adopted = 0
    for key, content in storage.objects.items():
        if "/.pictory/" not in key or key.endswith("/batch.json"):
            continue
        page = json.loads(content)
        for entry in _entries(page):
            job_id = bought.get(entry["request"]["prompt"])
            if entry["state"] in ("intent", "unknown") and job_id:
                entry["jobId"] = job_id
                adopted += 1
        s3.put_object(Bucket=storage.bucket, Key=key, Body=json.dumps(page).encode())
    failed = [name for name, state in states.items() if state == "failed"]
    dag_id, run_id = run
    airflow.call(
        "POST",
        f"/dags/{dag_id}/clearTaskInstances",
        dry_run=False,
        dag_run_id=run_id,
        task_ids=[["pictures", int(name.partition("[")[2].rstrip("]"))] for name in failed],
        only_failed=True,
        reset_dag_runs=True,
    )
    return adopted


def _entries(value):
    if isinstance(value, dict):
        if "file_name" in value and "state" in value:
            yield value
        else:
            for inner in value.values():
                yield from _entries(inner)


@pytest.fixture(scope="module")
def run(airflow, pictory, storage, request, tmp_path_factory):
    """Run the DAG, kill a worker while it buys, and follow the errors."""
    pictory.reset()
    pictory.account.seconds = 5
    table = tmp_path_factory.mktemp("table") / "products.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["sku", "product"], *([sku, 'A "cup", größer'] for sku in SKUS)])
    airflow.start_component(
        "celery worker",
        "worker-3",
        "--pid",
        str(airflow.home / "worker-3.pid"),
        "--celery-hostname",
        "worker-3@%h",
    )
    run = DAG_ID, airflow.trigger(DAG_ID, table=str(table))
    begun = time.monotonic()
    captured = request.config.pluginmanager.getplugin("capturemanager")

    def report(text: str) -> None:
        with captured.global_and_fixture_disabled():
            print(f"\n  {time.monotonic() - begun:4.0f} s  {text}", end="", flush=True)

    wait_until(airflow, lambda: len(pictory.account.jobs) >= len(SKUS) / 3)
    airflow.kill_component("worker-3")
    report(f"{len(pictory.account.jobs)} pictures are bought; a worker is killed")
    states = airflow.finish(*run, timeout=1800)
    report(f"{len(pictory.account.jobs)} pictures are bought; {Counter(states.values())}")
    if "failed" in states.values():
        adopted = adopt_unknown(airflow, pictory, storage, run, states)
        report(f"{adopted} rows have an unknown outcome; their jobs are recorded, and the tasks cleared")
        airflow.finish(*run, timeout=900)
    report(f"{len(pictory.account.jobs)} pictures are bought")
    return run


def test_every_batch_succeeds(airflow, run):
    states = Counter(task["state"] for task in airflow.tasks(*run) if task["task_id"] == "pictures")
    assert states == {"success": BATCHES}


def test_every_row_is_billed_once(pictory, run):
    billed = Counter(job.body["prompt"] for job in pictory.account.jobs.values())
    assert billed == {prompt(sku): 1 for sku in SKUS}


def test_every_row_has_its_picture_and_its_line_in_a_manifest(storage, run):
    rows = {}
    for batch in range(BATCHES):
        folder = f"batches/{batch}"
        for line in storage.objects[f"{folder}/metadata.jsonl"].decode().splitlines():
            row = json.loads(line)
            rows[row["sku"]] = row
            with Image.open(io.BytesIO(storage.objects[f"{folder}/{row['file_name']}"])) as picture:
                picture.load()
        assert storage.objects[f"{folder}/failed.jsonl"] == b""
    assert sorted(rows) == SKUS
    assert {row["product"] for row in rows.values()} == {'A "cup", größer'}


def test_the_api_server_shows_a_picture_of_the_bucket(airflow, storage, run):
    dag_id, run_id = run
    record = airflow.xcom(*run, "pictures", key="pictures_0", map_index=3)[0]
    token = requests.get(f"{airflow.url}/auth/token", timeout=30).json()["access_token"]
    reply = requests.get(
        f"{airflow.url}/pictory/file/{dag_id}/{quote(run_id, safe='')}/pictures/3/pictures_0/{record['sha256']}",
        headers={"Authorization": f"Bearer {token}"},
        timeout=30,
    )
    assert (reply.status_code, reply.headers.get("Content-Type")) == (200, "image/png")
    assert reply.content == storage.objects[record["path"].removeprefix("s3://media@pictures/")]
