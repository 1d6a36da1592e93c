# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Test of the OpenLineage events that a real Airflow writes to a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from demo.stack import AirflowStack
from tests.distributed.conftest import ACCESS_KEY
from tests.distributed.test_saving_to_object_storage import private  # noqa: F401  a fixture

DAGS = Path(__file__).parent / "dags_of_lineage"


@pytest.fixture
def datasets(pictory, storage, private, tmp_path):  # noqa: F811
    """Run the DAG, and return inputs and outputs of each task that succeeded."""
    pictory.reset()
    pictory.account.seconds = 0
    events = tmp_path / "events.json"
    env = {
        "AIRFLOW_CONN_PICTORY_DEFAULT": pictory.connection_json(),
        "AIRFLOW_CONN_MEDIA": storage.connection_json(ACCESS_KEY),
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(
            {"type": "file", "log_file_path": str(events), "append": True}
        ),
        "LINEAGE_PICTURES": str(tmp_path),
        "LINEAGE_REFERENCE": pictory.reference_image_url,
    }
    with AirflowStack(tmp_path / "home", DAGS, env=env) as stack:
        run = "lineage", stack.trigger("lineage")
        assert set(stack.finish(*run).values()) == {"success"}
        for _ in stack.until(60):
            completed = [event for line in events.read_text().splitlines() if (event := json.loads(line))]
            completed = [
                event for event in completed if event["eventType"] == "COMPLETE" and "." in event["job"]["name"]
            ]
            if len(completed) == 7:  # one is mapped over the two jobs of the candidates
                break
    return {
        event["job"]["name"].partition(".")[2]: tuple(
            [(dataset["namespace"], dataset["name"]) for dataset in event[side]] for side in ("inputs", "outputs")
        )
        for event in completed
    }


def test_input_and_output_have_their_real_names(datasets, pictory, tmp_path):
    host = pictory.images_url
    assert datasets["saved"] == ([(host, "/samples/reference.png")], [("file", f"{tmp_path}/a b+c%20.png")])
    assert datasets["from_a_bucket"] == (
        [("s3://pictures", "catalogue/private.png")],
        [("s3://pictures", "lineage/a b+c.png")],
    )
    inputs, outputs = datasets["downloaded"]
    assert outputs == [("file", f"{tmp_path}/downloaded.png")]
    assert [namespace for namespace, _ in inputs] == [host]
    assert datasets["submitted"] == ([], [])
    assert datasets["candidates"] == ([], [("file", f"{tmp_path}/fog.{number}.png") for number in (1, 2)])
