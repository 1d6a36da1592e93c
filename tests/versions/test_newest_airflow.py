# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests of the recipes that need Airflow 3.4 or later, for loops and rescheduling by a policy, in a real Airflow."""

from __future__ import annotations

from pathlib import Path

import pytest
from airflow.sdk.definitions.decorators.task_group import _TaskGroupFactory

from demo.stack import AirflowStack
from pictory_provider.simulator import Simulator

pytestmark = pytest.mark.skipif(not hasattr(_TaskGroupFactory, "loop"), reason="this Airflow has no loops")
RECIPES = Path(__file__).resolve().parents[2] / "dags" / "recipes"
NAMES = ("recipe_refine", "recipe_show_me_others", "recipe_rate_limited")
FIRST, SECOND = (
    f"A lighthouse in a storm, dramatic light, {what}" for what in ("wide shot", "close-up of the lantern")
)


@pytest.fixture(scope="module")
def pictory():
    with Simulator(seconds=0) as pictory:
        yield pictory


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def airflow(pictory, pictures, tmp_path_factory):
    dags = tmp_path_factory.mktemp("dags")
    for name in NAMES:
        (dags / f"{name}.py").symlink_to(RECIPES / f"{name}.py")
    env = {
        "AIRFLOW_CONN_PICTORY_DEFAULT": pictory.connection_json(),
        "AIRFLOW_VAR_PICTORY_PICTURES": str(pictures),
    }
    with AirflowStack(tmp_path_factory.mktemp("loops") / "home", dags, env=env) as stack:
        yield stack


@pytest.fixture
def fresh(pictory):
    pictory.reset()
    pictory.account.seconds = 0
    return pictory


def prompts_of(pictory):
    return [request.body["prompt"] for request in pictory.submissions]


def test_a_picture_is_generated_again_until_the_judge_accepts_it(airflow, fresh, pictures):
    run_id = airflow.trigger("recipe_refine")
    assert set(airflow.finish("recipe_refine", run_id).values()) == {"success"}
    assert prompts_of(fresh) == [FIRST, SECOND]
    assert fresh.account.credits_billed == pytest.approx(1.2)
    assert sorted(path.name for path in (pictures / "refined" / run_id).glob("*.png")) == ["0.png", "1.png"]


def test_a_person_accepts_a_picture_or_requests_another_one(airflow, fresh, pictures):
    dag_id = "recipe_show_me_others"
    run_id = airflow.trigger(dag_id)
    answered = []
    for option in ("Draw another", "Take it"):
        question = new_question(airflow, dag_id, run_id, answered)
        answered.append(question["task_instance"]["id"])
        assert question["body"].startswith("![the picture](http")
        region = "region_id={region_id}&region_index={region_index}".format(**question["task_instance"])
        airflow.call(
            "PATCH",
            f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/refine.ask/-1/hitlDetails?{region}",
            chosen_options=[option],
            params_input={"change": "in blue"},
        )
    assert set(airflow.finish(dag_id, run_id).values()) == {"success"}
    assert prompts_of(fresh) == [FIRST, "A lighthouse in a storm, dramatic light, in blue"]
    assert sorted(path.name for path in (pictures / "chosen" / run_id).glob("*.png")) == ["0.png", "1.png"]


def new_question(airflow, dag_id, run_id, answered):
    for _ in airflow.until(120):
        for found in airflow.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}/hitlDetails")["hitl_details"]:
            if found["task_instance"]["id"] not in answered:
                return found
    raise AssertionError("there is no question")


def test_a_rate_limited_task_is_rescheduled_without_using_up_a_try(airflow, fresh, pictures):
    fresh.script("submit", "rate-limited", retry_after="3600", times=2)
    run = "recipe_rate_limited", airflow.trigger("recipe_rate_limited")
    airflow.finish(*run)
    (task,) = airflow.tasks(*run)
    assert (task["state"], task["try_number"]) == ("success", 1)
    assert len(fresh.submissions) == 3
    assert len(fresh.account.jobs) == 1
    assert (pictures / "patient" / f"{run[1]}.png").exists()
