# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Saved pictures, with and without reference images, for tests of lineage events."""

from __future__ import annotations

import os

from airflow.sdk import DAG

from pictory_provider.operators.pictory import DownloadImageOperator, GenerateImageOperator
from pictory_provider.sensors.pictory import PictoryJobSensor

PICTURES = os.environ.get("LINEAGE_PICTURES", "/tmp")

with DAG(dag_id="lineage", schedule=None):
    GenerateImageOperator(
        task_id="saved",
        prompt="A lighthouse at dawn",
        reference_image_url=os.environ.get("LINEAGE_REFERENCE"),
        path=f"{PICTURES}/a b+c%20.png",
    )
    GenerateImageOperator(
        task_id="from_a_bucket",
        prompt="A lighthouse at dusk",
        reference_image_url="s3://media@pictures/catalogue/private.png",
        path="s3://media@pictures/lineage/a b+c.png",
    )
    submitted = GenerateImageOperator(task_id="submitted", prompt="A lighthouse at noon")
    downloaded = DownloadImageOperator(
        task_id="downloaded", job_id=submitted.output, path=f"{PICTURES}/downloaded.png", retries=3
    )
    candidates = GenerateImageOperator(
        task_id="candidates", prompt="A lighthouse in the fog", path=f"{PICTURES}/fog.png", candidates=2
    )
    PictoryJobSensor.partial(task_id="wait").expand(job_id=candidates.output)
