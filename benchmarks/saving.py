# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Compare one task with a path to three tasks, from prompt to file, in a real Airflow on PostgreSQL.

``python -m benchmarks.saving [PICTURES]``: 40 pictures of 20 s by default. The CPU use of an idle Airflow is
subtracted.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from benchmarks.triggerer import DAGS, SETTINGS, cpu_used
from demo.postgres import postgres
from demo.stack import COMPONENTS, AirflowStack
from pictory_provider.simulator import Simulator

SECONDS = 20.0
"""How long a job runs."""
IDLE = 30.0
"""Seconds for which the idle Airflow is measured first."""


def measure(way: str, pictures: int) -> None:
    """Run one way, and print a line of the table."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Simulator(seconds=SECONDS) as pictory,
        postgres() as database,
    ):
        env = {
            **SETTINGS,
            "AIRFLOW_CONN_PICTORY_DEFAULT": pictory.connection_json(requests_per_second=100),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database.replace("postgresql:", "postgresql+psycopg2:"),
            "BENCH_PICTURES": str(pictures),
            "BENCH_FOLDER": folder,
        }
        with AirflowStack(Path(folder) / "home", DAGS, env=env) as airflow:
            before = cpu_used(airflow)
            time.sleep(IDLE)
            idle = {name: (cpu - before[name]) / IDLE for name, cpu in cpu_used(airflow).items()}
            before, begun = cpu_used(airflow), time.monotonic()
            run = f"bench_saving_{way}", airflow.trigger(f"bench_saving_{way}")
            states = list(airflow.finish(*run, timeout=3_600).values())
            took, after = time.monotonic() - begun, cpu_used(airflow)
            starts = (airflow.home / "scheduler.log").read_text().count("TaskInstance Finished:")
        saved = len(list((Path(folder) / way).glob("*.png")))
        cpu = {name: after[name] - before[name] - idle[name] * took for name in COMPONENTS}
        print(
            f"{way:<8}{saved:>8}/{pictures:<6}{states.count('success'):>8}/{len(states):<6}{took:>8.0f} s"
            f"{starts / pictures:>9.2f}{cpu['scheduler']:>14.1f} s{cpu['api-server']:>10.1f} s"
            f"{cpu['triggerer']:>10.1f} s{sum(cpu.values()) / pictures:>12.2f} s",
            flush=True,
        )


def main(pictures: int = 40) -> None:
    """Print a table."""
    print(f"\n{pictures} pictures on PostgreSQL, 8 worker slots, jobs of {SECONDS:.0f} s")
    print(
        f"{'tasks':<8}{'saved':>14}{'succeeded':>15}{'in all':>10}{'starts':>9}"
        f"{'scheduler+workers':>16}{'API':>10}{'triggerer':>12}{'a picture':>14}"
    )
    for way in ("one", "three"):
        measure(way, pictures)


if __name__ == "__main__":
    main(*[int(argument) for argument in sys.argv[1:2]])
