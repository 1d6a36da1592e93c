# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The recipe that tests a DAG without an account. pytest runs it with Airflow's database and the recipes."""

# [START recipe]
import pytest
from recipe_nightly_cover import dag  # your DAG file

from pictory_provider.simulator import Simulator


@pytest.fixture
def pictory(monkeypatch, tmp_path):
    monkeypatch.setenv("AIRFLOW_VAR_PICTORY_PICTURES", str(tmp_path))
    with Simulator(seconds=0) as pictory:  # its jobs complete immediately
        monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", pictory.connection_json())
        yield pictory


def test_a_cover_is_generated_saved_and_paid_for_once(pictory, tmp_path):
    assert dag.test().state == "success"
    assert (tmp_path / "covers" / "today.png").exists()
    (submission,) = pictory.submissions
    assert submission.body["aspectRatio"] == "9:16"
    assert pictory.account.credits_used == 2


def test_a_failed_job_saves_no_picture(pictory, tmp_path):
    pictory.plan("failed")
    assert dag.test().state == "failed"
    assert not list(tmp_path.rglob("*.png"))


# [END recipe]
