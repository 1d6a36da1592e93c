# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests that the command in the error text adopts a job whose reply was lost, so that it is billed once.

The task is cleared with ``--clear`` or, if it has a path, with *Clear* on its page, which deletes the task's state on
Airflow 3.4 and later.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.conftest import billed, load

adoption = load("faults_adoption")
loops = pytest.mark.skipif(not adoption.HAS_LOOPS, reason="this Airflow has no loops")


def log_of(airflow, ti) -> str:
    """Return the log of a task instance's last attempt as one line."""
    path = f"/dags/{ti['dag_id']}/dagRuns/{ti['dag_run_id']}/taskInstances/{ti['task_id']}/logs/{ti['try_number']}"
    region = f"region_id={ti.get('region_id')}&region_index={ti.get('region_index')}"
    which = region if ti.get("region_id") else f"map_index={ti['map_index']}"
    return " ".join(str(airflow.call("GET", f"{path}?{which}")["content"]).replace("\\n", " ").split())


def command_of(airflow, ti, job_id) -> list[str]:
    """Return the command line from the error of a task, with the jobId filled in."""
    line = log_of(airflow, ti).partition("python -m pictory_provider adopt ")[2]
    words = shlex.split(line.partition(" or set ")[0].replace("JOBID", job_id))
    assert words[:4] == [ti["dag_id"], ti["dag_run_id"], ti["task_id"], job_id]
    assert words[-1] == "--clear"
    return ["-m", "pictory_provider", "adopt", *words]


def adopt(airflow, ti, job_id, *, by_page: bool) -> None:
    """Run the command from the error, and clear the task on its page or with the command."""
    command = command_of(airflow, ti, job_id)
    if not by_page:
        return run(airflow, command)
    run(airflow, command[:-1])
    which = [ti["task_id"], ti["map_index"]] if ti["map_index"] >= 0 else ti["task_id"]
    chosen = {"task_instance_ids": [ti["id"]]} if ti.get("region_id") else {"task_ids": [which]}
    airflow.call(
        "POST",
        f"/dags/{ti['dag_id']}/clearTaskInstances",
        dry_run=False,
        dag_run_id=ti["dag_run_id"],
        include_downstream=True,
        only_failed=False,
        **chosen,
    )
    return None


def run(airflow, command):
    done = subprocess.run([sys.executable, *command], env=airflow.env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def instance(airflow, dag_id, run_id, task_id, map_index=-1, iteration=None):
    for ti in airflow.tasks(dag_id, run_id):
        if (ti["task_id"], ti["map_index"]) == (task_id, map_index) and iteration in (
            None,
            ti.get("region_index"),
        ):
            return ti
    raise AssertionError(f"no {task_id} {map_index} {iteration}")


@pytest.fixture
def lost(quiet):
    """Lose the reply to every submission, until the test clears the faults."""
    quiet.reset()
    quiet.script("submit", "drop-after", times=-1)
    yield quiet
    quiet.clear_faults()


def test_plain_and_mapped_tasks_adopt_the_job_of_a_lost_reply(airflow, lost):
    run = ("faults_adoption", airflow.trigger("faults_adoption"))
    states = airflow.finish(*run)
    assert {state for name, state in states.items() if name != "below"} == {"failed"}
    lost.clear_faults()

    wanted = [
        ("plain", -1, "A plain vase", False),
        ("saved", -1, "A saved vase", True),
        ("mapped", 1, "Vase number 1, mapped", False),
        ("mapped_saved", 2, "Vase number 2, mapped and saved", True),
    ]
    for task_id, map_index, prompt, by_page in wanted if airflow_keeps_state() else wanted[1::2]:
        (job_id,) = billed(lost, prompt)
        adopt(airflow, instance(airflow, *run, task_id, map_index), job_id, by_page=by_page)
    airflow.finish(*run)

    for task_id, map_index, prompt, _ in wanted if airflow_keeps_state() else wanted[1::2]:
        ti = instance(airflow, *run, task_id, map_index)
        assert (task_id, map_index, ti["state"]) == (task_id, map_index, "success")
        assert billed(lost, prompt) == [airflow.xcom(*run, task_id, map_index=map_index)]
    if airflow_keeps_state():
        assert instance(airflow, *run, "below")["state"] == "success"
        assert len(billed(lost, "The vase below")) == 1
    assert len(lost.account.jobs) == 8 + airflow_keeps_state()
    folder = airflow.markers / "adoption" / run[1]
    assert sorted(path.name for path in folder.glob("*.png")) == ["2.png", "saved.png"]


def airflow_keeps_state() -> bool:
    from pictory_provider.version_compat import has_task_state_store

    return has_task_state_store()


def test_the_command_lists_the_instances_if_none_or_several_match(airflow, lost):
    run_id = airflow.trigger("faults_adoption")
    airflow.finish("faults_adoption", run_id)
    (job_id,) = billed(lost, "Vase number 1, mapped")

    def error_of(*words) -> str:
        command = [sys.executable, "-m", "pictory_provider", "adopt", "faults_adoption", run_id, *words]
        command += ["--conn-id", "pictory_quiet"]
        done = subprocess.run(command, env=airflow.env, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "Nothing was recorded." in done.stderr
        return " ".join(done.stderr.split())

    assert "has more than one such task" in error_of("mapped", job_id)
    assert "--map-index 0 (failed) --map-index 1 (failed) --map-index 2 (failed)" in error_of(
        "mapped", job_id, "--map-index", "7"
    )
    assert "has no task 'maped'" in error_of("maped", job_id)


@loops
@pytest.mark.parametrize(
    ("kind", "by_page"), [("plain", False), ("saved", True), ("saved", False), ("same", True)]
)
def test_an_iteration_adopts_the_job_of_its_own_lost_reply_and_the_next_ones_buy_their_own(
    airflow, quiet, kind, by_page
):
    quiet.reset()
    quiet.script("submit", "drop-after", every=2)  # the submission of the second iteration
    run = (f"faults_loop_{kind}", airflow.trigger(f"faults_loop_{kind}"))
    airflow.finish(*run)
    prompts = [f"Vase number {number} of a loop, {kind}" for number in range(3)]
    assert [len(billed(quiet, prompt)) for prompt in prompts] == [1, 1, 0]

    ti = instance(airflow, *run, "again.draw", iteration=1)
    assert ti["state"] == "failed"
    assert "--loop-index 1" in " ".join(command_of(airflow, ti, billed(quiet, prompts[1])[0]))
    adopt(airflow, ti, billed(quiet, prompts[1])[0], by_page=by_page)
    airflow.finish(*run)

    assert [len(billed(quiet, prompt)) for prompt in prompts] == [1, 1, 1]
    iterations = [ti for ti in airflow.tasks(*run) if ti["task_id"] == "again.draw"]
    assert {ti["state"] for ti in iterations} == {"success"}
    path = f"/dags/{run[0]}/dagRuns/{run[1]}/taskInstances/again.draw/xcomEntries/return_value"
    jobs = {
        airflow.call("GET", f"{path}?region_id={ti['region_id']}&region_index={ti['region_index']}")[
            "value"
        ].strip('"')
        for ti in iterations
    }
    assert jobs == {job_id for prompt in prompts for job_id in billed(quiet, prompt)}
    saved = {"plain": [], "saved": ["loop_0.png", "loop_1.png", "loop_2.png"], "same": ["same.png"]}[kind]
    assert sorted(path.name for path in Path(airflow.markers, "adoption", run[1]).glob("*.png")) == saved
