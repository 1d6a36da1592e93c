# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A large batch: its memory use, and the length of its log.

``python -m benchmarks.large [ROWS]``: 10,000 rows of a CSV file by default, jobs of a second, at most 200 requests
a second, in a real Airflow on PostgreSQL. The simulator draws a single picture for all jobs, to save time.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.batch import Peaks, count_requests, end_of_run, simulator
from benchmarks.triggerer import DAGS, SETTINGS, cpu_used
from demo.postgres import postgres
from demo.stack import AirflowStack

PER_SECOND = 200
ONE_PICTURE = """
from functools import cache
from pictory_provider.simulator import __main__, painting
paint = painting.paint
once = cache(lambda size: paint({"prompt": "One of many", "model": "m", "aspectRatio": "1:1"}, size))
painting.paint = lambda body, size, *_: once(size)
__main__.main()
"""


def main(rows: int = 10_000) -> None:
    """Run the batch, and print its figures."""
    with (
        tempfile.TemporaryDirectory() as folder,
        simulator("-c", ONE_PICTURE, "--seconds", "1", "--credits", str(rows)) as connection,
        postgres() as database,
    ):
        table = Path(folder) / "table.csv"
        lines = (f'{number:05d},"A mug, hand-made, number {number}",blue\n' for number in range(rows))
        table.write_text("sku,product,colour\n" + "".join(lines))
        fields = json.loads(connection)
        env = {
            **SETTINGS,
            "AIRFLOW_CONN_PICTORY_DEFAULT": json.dumps({**fields, "extra": {"requests_per_second": PER_SECOND}}),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database.replace("postgresql:", "postgresql+psycopg2:"),
            "BENCH_FOLDER": folder,
        }
        with AirflowStack(Path(folder) / "home", DAGS, env=env) as airflow:
            before, begun = cpu_used(airflow), time.monotonic()
            with Peaks(airflow) as peaks:
                run = "bench_batch_large", airflow.trigger("bench_batch_large")
                state = end_of_run(database)
            took, after = time.monotonic() - begun, cpu_used(airflow)
            cpu = sum(after.values()) - sum(before.values())
            log = next((Path(folder) / "home").rglob(f"*run_id={run[1]}*/**/attempt=1.log")).read_text()
        requests, most = count_requests(connection)
        manifest = Path(folder) / "large" / "metadata.jsonl"
        print(
            f"{rows:,} rows: {state} in {took:.0f} s, {cpu / rows:.3f} s of CPU a picture, {requests:,} requests, "
            f"at most {most} in a second.\n"
            f"{len(manifest.read_text().splitlines()):,} lines of the manifest. The worker grew by "
            f"{peaks.worker / 2**20:.0f} MiB, the triggerer by {peaks.triggerer / 2**20:.0f} MiB.\n"
            f"The log has {len(log.splitlines())} lines."
        )


if __name__ == "__main__":
    main(*[int(argument) for argument in sys.argv[1:2]])
