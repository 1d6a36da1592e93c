# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Compare the time from the submission to the saved file of a single picture with that of an earlier commit.

``python -m benchmarks.latency 92180a6 --rounds 5`` runs one task with a ``path`` in a real, idle Airflow, with the
defaults of Airflow and of the provider, for jobs of 3 s and of 30 s. It also counts the requests to the API.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from contextlib import chdir
from pathlib import Path

from benchmarks.suites import ROOT, clone
from demo.stack import AirflowStack
from pictory_provider.simulator import Simulator

DAG_ID = "benchmark_latency"
DAG = f"""
from airflow.sdk import DAG
from pictory_provider.operators.pictory import GenerateImageOperator

with DAG("{DAG_ID}", schedule=None):
    GenerateImageOperator(
        task_id="generate",
        prompt="A lighthouse at dawn",
        model="flux-schnell",
        path="{{{{ dag_run.conf['path'] }}}}",
    )
"""


def main() -> int:
    """Print a table of medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__)
    parser.add_argument("commit", help="the earlier commit")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, nargs="+", default=[3.0, 30.0], help="how long a job takes")
    options = parser.parse_args()
    print("| commit | a job takes | from the submission to the file: median | each | requests to the API |")
    print("|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        then = clone(options.commit, Path(folder) / "then")
        for name, tree in ((options.commit, then), ("this one", ROOT)):
            measure(name, tree, Path(folder) / name.replace(" ", "_"), options.rounds, options.seconds)
    return 0


def measure(name: str, tree: Path, folder: Path, rounds: int, lengths: list[float]) -> None:
    """Run the task with one commit, and print a line for each job length in seconds."""
    dags = folder / "dags"
    dags.mkdir(parents=True)
    (dags / "latency.py").write_text(DAG)
    with Simulator() as pictory:
        env = {
            "AIRFLOW_CONN_PICTORY_DEFAULT": pictory.connection_json(),
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "5",  # Airflow's default
        }
        # `python -m airflow` imports the package from its working directory.
        with chdir(tree), AirflowStack(folder / "home", dags, env=env) as airflow:
            for seconds in lengths:
                pictory.account.seconds = seconds
                taken, counts = [], set()
                for number in range(rounds):
                    path = folder / f"{seconds:g}-{number}.png"
                    pictory.requests.clear()
                    airflow.finish(DAG_ID, airflow.trigger(DAG_ID, path=str(path)))
                    (submission,) = pictory.submissions
                    taken.append(path.stat().st_mtime - submission.at)
                    counts.add(sum(request.host == "api" for request in pictory.requests))
                each = ", ".join(f"{one:.1f}" for one in sorted(taken))
                requests = " or ".join(map(str, sorted(counts)))
                print(
                    f"| {name} | {seconds:g} s | {statistics.median(taken):.1f} s | {each} | {requests} |",
                    flush=True,
                )


if __name__ == "__main__":
    sys.exit(main())
