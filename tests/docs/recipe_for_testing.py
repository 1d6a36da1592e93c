# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The recipe that tests a DAG without an account; pytest runs it beside Airflow's database."""

# [START recipe]
import pytest
from airflow.sdk import DAG

from pictory_provider.operators.pictory import DownloadImageOperator, GenerateImageOperator
from pictory_provider.simulator import Simulator


@pytest.fixture
def pictory(monkeypatch):
    with Simulator(seconds=0) as pictory:  # its jobs are done at once
        monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", pictory.connection_json())
        yield pictory


def cover(folder):  # yours would be imported from your DAG file
    with DAG(dag_id="cover", schedule=None) as dag:
        generate = GenerateImageOperator(
            task_id="generate",
            prompt="One paper boat on calm water",
            model="flux-schnell",
            wait_for_completion=True,
        )
        DownloadImageOperator(task_id="save", job_id=generate.output, path=f"{folder}/cover.png")
    return dag


def test_a_cover_is_drawn_saved_and_paid_for_once(pictory, tmp_path):
    assert cover(tmp_path).test().state == "success"
    assert (tmp_path / "cover.png").exists()
    assert [request.body["prompt"] for request in pictory.submissions] == ["One paper boat on calm water"]
    assert pictory.account.credits_used == 0.6


def test_a_job_that_fails_fails_the_run(pictory, tmp_path):
    pictory.plan("failed")
    assert cover(tmp_path).test().state == "failed"


# [END recipe]
