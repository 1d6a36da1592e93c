# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests with two triggerers on PostgreSQL: one is frozen and resumed, then the other is killed."""

from __future__ import annotations

import re
import signal
from collections import Counter

import psycopg2
import pytest

from demo.postgres import call, postgres
from demo.stack import AirflowStack
from pictory_provider.simulator import Simulator
from tests.faults.conftest import CANARY, DAGS, load

dag = load("faults_triggerers")
HEALTH_THRESHOLD = 10


@pytest.fixture(scope="module")
def pictory():
    with Simulator(api_key=CANARY) as pictory:
        yield pictory


@pytest.fixture(scope="module")
def database():
    with postgres() as url:
        yield url


@pytest.fixture(scope="module")
def airflow(pictory, database, searched, tmp_path_factory):
    env = {
        "AIRFLOW_CONN_PICTORY_DEFAULT": pictory.connection_json(timeout=5),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database.replace("postgresql:", "postgresql+psycopg2:"),
        "AIRFLOW__CORE__PARALLELISM": "16",
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": str(HEALTH_THRESHOLD),
    }
    home = tmp_path_factory.mktemp("triggerers") / "home"
    searched.append(home)
    with AirflowStack(home, DAGS, env=env) as stack:
        yield stack
        (home / "database.sql").write_text(call("pg_dump", "--inserts", database))


def holders(database) -> Counter:
    """Return the number of triggers of each triggerer."""
    with psycopg2.connect(database) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT triggerer_id FROM trigger")
        return Counter(row[0] for row in cursor.fetchall())


def wait_until(airflow, condition, timeout=90):
    for _ in airflow.until(timeout):
        if condition():
            return
    raise AssertionError("not within the timeout")


def living(database) -> int:
    """Return how many triggerers are running according to the database."""
    with psycopg2.connect(database) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM job WHERE job_type = 'TriggererJob' AND state = 'running'")
        (count,) = cursor.fetchone()
        return count


@pytest.fixture(scope="module")
def run(airflow, database, pictory):
    """Run the DAG, freeze and resume its first triggerer, and kill the second one.

    No job ends before the test ends it. The second triggerer starts when the first one has all triggers, because of
    two that start together one may take them all.
    """
    run = "faults_triggerers", airflow.trigger("faults_triggerers")
    waits = dag.OPERATORS + dag.SENSORS
    wait_until(airflow, lambda: sum(holders(database).values()) == waits and None not in holders(database))
    events = {"at first": holders(database)}
    airflow.start_component("triggerer", "triggerer-2")
    wait_until(airflow, lambda: living(database) == 2)

    frozen = airflow.processes("triggerer")
    for process in frozen:
        process.send_signal(signal.SIGSTOP)
    wait_until(airflow, lambda: set(holders(database)).isdisjoint(events["at first"]))
    events["one is frozen"] = holders(database)
    for process in frozen:
        process.send_signal(signal.SIGCONT)
    # Read now, because a triggerer that takes a trigger again overwrites its log file.
    wait_until(airflow, lambda: jobs_released(airflow))
    events["released"] = jobs_released(airflow)

    airflow.kill_component("triggerer-2")
    wait_until(airflow, lambda: set(holders(database)).isdisjoint(events["one is frozen"]))
    events["the other is killed"] = holders(database)
    for job in pictory.account.jobs.values():
        job.seconds = 0
    airflow.finish(*run, timeout=300)
    return run, events


def jobs_released(airflow) -> set[str]:
    """Return the jobs that triggers have logged when they were cancelled."""
    released = re.compile(
        r"This wait was ended, or continues in another triggerer\. Job (\S+) keeps running at Pictory"
    )
    logs = (airflow.home / "logs").rglob("*.log.trigger.*")
    return {job_id for file in logs for job_id in released.findall(file.read_text(errors="replace"))}


def test_each_triggerer_had_all_triggers_in_turn(run):
    _, events = run
    assert [sorted(events[when].values()) for when in ("at first", "one is frozen", "the other is killed")] == [
        [dag.OPERATORS + dag.SENSORS]
    ] * 3
    (first,), (second,), (third,) = events["at first"], events["one is frozen"], events["the other is killed"]
    assert first == third != second


def test_every_task_succeeds_at_its_first_try(airflow, run):
    tasks = airflow.tasks(*run[0])
    assert len(tasks) == dag.OPERATORS + 2 * dag.SENSORS
    assert {(task["state"], task["try_number"]) for task in tasks} == {("success", 1)}


def test_each_picture_was_bought_once_and_triggers_only_read(pictory, run):
    bought = Counter(request.body["prompt"] for request in pictory.submissions)
    assert bought == {dag.PROMPT.format(n): 1 for n in range(dag.OPERATORS + dag.SENSORS)}
    assert len(pictory.account.jobs) == len(bought)
    others = {request.method for request in pictory.requests if request not in pictory.submissions}
    assert others == {"GET"}


def test_a_trigger_that_was_taken_over_says_what_happens_to_its_job_and_stops_nothing(run, pictory):
    _, events = run
    assert events["released"] <= set(pictory.account.jobs)
    assert not any(job.is_cleaned for job in pictory.account.jobs.values())
