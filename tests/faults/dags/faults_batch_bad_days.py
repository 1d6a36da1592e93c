# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Batches of two hundred rows for tests with faults: failed rows, refusals, a folder that is missing or full."""

from __future__ import annotations

import os

import pendulum
from airflow.sdk import DAG

from pictory_provider.operators.batch import GenerateImageBatchOperator

ROWS = 200
FOLDER = os.environ.get("FAULTS_MARKERS", "/nowhere") + "/bad_days"
DAYS = ("every_tenth_fails", "refused", "gone", "full")


def prompt(day: str, number: int) -> str:
    fate = " simulate:failed" if day == "every_tenth_fails" and number % 10 == 3 else ""
    return f"On a bad day, {day}, {number}{fate}"


for day in DAYS:
    with DAG(
        dag_id=f"faults_{day}",
        schedule=None,
        default_args={"retries": 30, "retry_delay": pendulum.duration(seconds=2)},
    ):
        GenerateImageBatchOperator(
            task_id="pictures",
            requests=[prompt(day, number) for number in range(ROWS)],
            path=f"{FOLDER}/{day}",
            model="flux-schnell",
            pictory_conn_id="pictory_crowd",
            poll_interval=2,
        )
