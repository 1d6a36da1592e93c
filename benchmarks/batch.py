# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Compare many pictures in one task with a mapped pair of tasks and with a bare script.

``python -m benchmarks.batch [PICTURES...] [--without-mapped]``: 200 and 1,000 pictures of 5 s by default, in a
real Airflow on PostgreSQL, with the simulator in a separate process. The CPU use of an idle Airflow is subtracted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psutil
import psycopg2

from benchmarks.triggerer import DAGS, SETTINGS, cpu_used
from demo.postgres import postgres
from demo.stack import COMPONENTS, AirflowStack

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 5.0
IDLE = 60.0
"""Seconds for which the idle Airflow is measured first: it parses its DAG files every 30 s."""
PER_SECOND = 10
"""The default rate limit of a connection."""


@contextmanager
def simulator(*arguments: str) -> Iterator[str]:
    """Run a simulator in a separate process, and yield an Airflow connection to it.

    :param arguments: Python's command line; by default that of the simulator.
    """
    default = ("-m", "pictory_provider.simulator", "--seconds", str(SECONDS))
    command = [sys.executable, *(arguments or default)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            lines = [process.stdout.readline() for _ in range(3)]
            yield lines[2].split("=", 1)[1].strip().strip("'")
        finally:
            process.kill()


class Peaks:
    """The largest growth of memory of a component's processes, in bytes."""

    def __init__(self, airflow: AirflowStack) -> None:
        self.worker = self.triggerer = 0
        self._airflow, self._first = airflow, {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.25):
            self.worker = max(self.worker, self._grown("scheduler"))
            self.triggerer = max(self.triggerer, self._grown("triggerer"))

    def _grown(self, component: str) -> int:
        most = 0
        for process in self._airflow.processes(component):
            with suppress(psutil.NoSuchProcess):
                now = process.memory_info().rss
                most = max(most, now - self._first.setdefault(process.pid, now))
        return most


def count_requests(connection: str) -> tuple[int, int]:
    """Return the number of submissions and polls, and the most of them in any second."""
    import requests

    host = json.loads(connection)["host"].removesuffix("/pictoryapis")
    log = requests.get(f"{host}/_simulator/requests", timeout=60).json()
    rows = log["requests"] if isinstance(log, dict) else log
    times = sorted(
        row["at"]
        for row in rows
        if (row["method"], row["path"]) == ("POST", "/v1/aistudio/images")
        or (row["method"] == "GET" and row["path"].startswith("/v1/jobs/"))
    )
    most = first = 0
    for last, at in enumerate(times):
        while at - times[first] >= 1:
            first += 1
        most = max(most, last - first + 1)
    return len(times), most


def end_of_run(database: str) -> str:
    """Wait until the only run ends, and return its state, from the database: calls of the API would use CPU."""
    session = psycopg2.connect(database)
    session.autocommit = True
    with closing(session), session.cursor() as cursor:
        while True:
            cursor.execute("SELECT state FROM dag_run WHERE state IN ('success', 'failed')")
            if found := cursor.fetchone():
                return str(found[0])
            time.sleep(1)


def in_airflow(way: str, pictures: int) -> dict[str, Any]:
    """Run one of the DAGs."""
    with tempfile.TemporaryDirectory() as folder, simulator() as connection, postgres() as database:
        env = {
            **SETTINGS,
            "AIRFLOW_CONN_PICTORY_DEFAULT": connection,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database.replace("postgresql:", "postgresql+psycopg2:"),
            "BENCH_PICTURES": str(pictures),
            "BENCH_FOLDER": folder,
        }
        with AirflowStack(Path(folder) / "home", DAGS, env=env) as airflow:
            before = cpu_used(airflow)
            time.sleep(IDLE)
            idle = {name: (cpu - before[name]) / IDLE for name, cpu in cpu_used(airflow).items()}
            before, begun = cpu_used(airflow), time.monotonic()
            with Peaks(airflow) as peaks:
                airflow.trigger(f"bench_batch_{way}")
                state = end_of_run(database)
            took, after = time.monotonic() - begun, cpu_used(airflow)
            starts = (airflow.home / "scheduler.log").read_text().count("TaskInstance Finished:")
        assert state == "success", state
        cpu = {name: after[name] - before[name] - idle[name] * took for name in COMPONENTS}
        requests, most = count_requests(connection)
        return {
            "saved": len(list((Path(folder) / way).glob("*.png"))),
            "took": took,
            "cpu": sum(cpu.values()),
            "requests": requests,
            "starts": starts,
            "worker": peaks.worker,
            "triggerer": peaks.triggerer,
            "most": most,
            "more": ", ".join(f"{name} {seconds:.1f} s" for name, seconds in cpu.items()),
        }


def bare(pictures: int) -> dict[str, Any]:
    """Run the bare script."""
    with tempfile.TemporaryDirectory() as folder, simulator() as connection:
        env = os.environ | {"AIRFLOW_CONN_PICTORY_DEFAULT": connection, "NO_PROXY": "127.0.0.1"}
        command = [sys.executable, "-m", "benchmarks.bare", str(pictures), f"{folder}/bare"]
        begun = time.monotonic()
        with subprocess.Popen(command, env=env) as process:
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        requests, most = count_requests(connection)
        return {
            "saved": len(list((Path(folder) / "bare").glob("*.png"))),
            "took": time.monotonic() - begun,
            "cpu": used.ru_utime + used.ru_stime,
            "requests": requests,
            "starts": 1,
            "worker": used.ru_maxrss * 1024,
            "triggerer": 0,
            "most": most,
            "more": "",
        }


def main(*arguments: str) -> None:
    """Print a table for each number of pictures."""
    numbers = [int(argument) for argument in arguments if argument.isdigit()] or [200, 1_000]
    for pictures in numbers:
        print(f"\n{pictures:,} pictures of {SECONDS:.0f} s, {PER_SECOND} requests a second, on PostgreSQL")
        print(
            f"{'way':<8}{'saved':>8}{'in all':>10}{'CPU a picture':>16}{'requests':>10}{'starts':>8}"
            f"{'worker grew':>14}{'triggerer grew':>16}{'busiest second':>16}"
        )
        for way in ("bare", "batch", "mapped"):
            if way == "mapped" and "--without-mapped" in arguments:
                continue
            row = bare(pictures) if way == "bare" else in_airflow(way, pictures)
            print(
                f"{way:<8}{row['saved']:>8}{row['took']:>8.0f} s{row['cpu'] / pictures:>14.3f} s"
                f"{row['requests']:>10}{row['starts']:>8}{row['worker'] / 2**20:>10.0f} MiB"
                f"{row['triggerer'] / 2**20:>12.0f} MiB{row['most']:>16}   {row['more']}",
                flush=True,
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
