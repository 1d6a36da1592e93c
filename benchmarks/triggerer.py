# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Compare the ways of waiting, with many sensors in a real Airflow on PostgreSQL.

``python -m benchmarks.triggerer [SENSORS [WAY...]]``: 100 sensors in all five ways by default.

One task submits the jobs of 50 sensors, so that only the wait is measured: from the last submission to the last
sensor's end. A picture that a ``GenerateImageOperator`` submits takes one more worker start.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import psutil
import psycopg2

from benchmarks.pictory import HOST, running
from demo.postgres import postgres
from demo.stack import COMPONENTS, AirflowStack

DAGS = Path(__file__).parent / "dags"
WAYS = ("poke", "deferred", "end", "start", "http")
TASKS = 50
STARTS_PER_SECOND = 1.3
"""Rough number of worker starts on two cores. Jobs run so long that all sensors wait at the same time."""
SETTINGS = {
    "AIRFLOW__CORE__PARALLELISM": "8",
    "AIRFLOW__SCHEDULER__MAX_TIS_PER_QUERY": "64",
    "BENCH_TASKS": str(TASKS),
}


def cpu_used(airflow: AirflowStack) -> dict[str, float]:
    """Return the CPU seconds of each component so far, including those of ended child processes."""
    found = {}
    for component in COMPONENTS:
        found[component] = 0.0
        for process in airflow.processes(component):
            try:
                found[component] += sum(process.cpu_times()[:4])
            except psutil.NoSuchProcess:
                continue
    return found


def measure(way: str, sensors: int) -> None:
    """Run one way, and print a line of the table."""
    seconds = 30.0 if way == "start" else 20 + sensors / STARTS_PER_SECOND
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder), seconds) as pictory,
        postgres() as database,
    ):
        port = pictory.url.rpartition(":")[2]
        http = f'{{"conn_type": "http", "host": "{HOST}", "schema": "https", "port": {port}}}'
        env = {
            **SETTINGS,
            "AIRFLOW_CONN_PICTORY_DEFAULT": pictory.connection(requests_per_second=100),
            "AIRFLOW_CONN_HTTP_PICTORY": http,
            "REQUESTS_CA_BUNDLE": pictory.ca,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database.replace("postgresql:", "postgresql+psycopg2:"),
        }
        with AirflowStack(Path(folder) / "home", DAGS, env=env) as airflow, psycopg2.connect(database) as session:
            session.autocommit = True
            with session.cursor() as cursor:

                def left() -> int:
                    cursor.execute(
                        "SELECT count(*) FROM task_instance WHERE state IS NULL OR state NOT IN "
                        "('success', 'failed', 'skipped', 'upstream_failed')"
                    )
                    return int(cursor.fetchone()[0])

                for _ in range(sensors // TASKS):
                    airflow.trigger(f"bench_{way}")
                while not left():
                    time.sleep(1)
                submits = sensors // TASKS
                done = 0
                while done < submits:
                    time.sleep(0.5)
                    cursor.execute(
                        "SELECT count(*) FROM task_instance WHERE task_id = 'submit' AND state = 'success'"
                    )
                    done = cursor.fetchone()[0]
                before, polls = cpu_used(airflow), pictory.get("/stats")["polls"]
                while left():
                    time.sleep(2)
                after, stats = cpu_used(airflow), pictory.get("/stats")
                cursor.execute(
                    "SELECT extract(epoch FROM max(end_date)), count(*) FILTER (WHERE state = 'success') "
                    "FROM task_instance WHERE task_id LIKE 'wait%%'"
                )
                ended, succeeded = cursor.fetchone()
            log = (airflow.home / "scheduler.log").read_text()
        starts = log.count("TaskInstance Finished:") - submits
        cpu = {component: after[component] - before[component] for component in COMPONENTS}
        print(
            f"{way:<10}{succeeded:>6}/{sensors:<6}{float(ended) - stats['last submission']:>8.0f} s"
            f"{seconds:>8.0f} s{starts / sensors:>10.2f}{(stats['polls'] - polls) / sensors:>9.2f}"
            f"{cpu['scheduler']:>12.1f} s{cpu['api-server']:>10.1f} s{cpu['triggerer']:>10.1f} s"
            f"{sum(cpu.values()) / sensors:>12.2f} s",
            flush=True,
        )


def main(sensors: int = 100, *ways: str) -> None:
    """Print a table."""
    print(f"\n{sensors} sensors on PostgreSQL, 8 worker slots")
    print(
        f"{'way':<10}{'succeeded':>13}{'in all':>10}{'a job':>10}{'starts':>10}{'polls':>9}"
        f"{'scheduler+workers':>14}{'API':>10}{'triggerer':>12}{'a picture':>14}"
    )
    for way in ways or WAYS:
        measure(way, sensors)


if __name__ == "__main__":
    main(*[int(argument) for argument in sys.argv[1:2]], *sys.argv[2:])
