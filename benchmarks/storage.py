# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Compare what pictures cost in object storage with an earlier commit.

``python -m benchmarks.storage 92180a6`` saves a batch of 1,000 pictures, runs it again and saves a single picture:
alternately with both commits, in emulators of three clouds that are 30 ms away. The emulator, the simulator and
the task run in separate processes. The task's CPU is measured while it executes, after a batch of one picture.

``python -m benchmarks.storage --rows 100000`` begins a batch of that many rows of a CSV file, or of an Excel or
Parquet file with ``--table``, and kills its process after 200 purchases. It measures the time until the first one,
and by how much the process has grown.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import pyarrow as pa
import requests
import xlsxwriter
from pyarrow import parquet

from benchmarks.batch import simulator
from benchmarks.large import ONE_PICTURE
from benchmarks.suites import ROOT, clone

if TYPE_CHECKING:
    from collections.abc import Iterator

CLOUDS = {"s3": "S3", "gs": "Google Cloud Storage", "abfs": "Azure Blob Storage"}
PER_SECOND = 100
"""Submissions and polls of the connection."""
PURCHASES = 200
"""After which a large batch is killed."""


class Cost(NamedTuple):
    """What the pictures of one process cost.

    :param fresh: storage requests of a picture of a batch into an empty folder.
    :param again: storage requests of the same batch in another run.
    :param single: storage requests of a task that saves one picture.
    :param wall: seconds of the first batch.
    :param cpu: CPU seconds of a picture of the first batch.
    """

    fresh: float
    again: float
    single: float
    wall: float
    cpu: float


ROWS = {
    "fresh": ("requests a picture, fresh batch", "{:.2f}", 1),
    "again": ("requests of a re-run", "{:,.0f}", 1),
    "single": ("requests of a single task", "{:.0f}", 1),
    "wall": ("fresh batch, s", "{:.0f}", 1),
    "cpu": ("CPU a picture, ms", "{:.1f}", 1_000),
}
"""The label, the format and the unit of each figure of a :class:`Cost`."""


class Process:
    """A program in a separate process, which prints a line at its start and one for each line that it gets."""

    def __init__(self, *arguments: str, env: dict[str, str] | None = None, cwd: Path = ROOT) -> None:
        command = [sys.executable, "-m", *arguments]
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed at the end of the block
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=env,
            cwd=cwd,
        )
        self.pid = self._process.pid

    @cached_property
    def first(self) -> str:
        """The line that it prints once it is ready."""
        return self._line()

    def send(self, line: str) -> None:
        """Send a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def ask(self, line: str) -> str:
        """Send a line, and return the answer."""
        self.send(line)
        return self._line()

    def check(self) -> None:
        """Raise if it has ended."""
        if self._process.poll() is not None:
            raise self._error()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._error()
        return line.strip()

    def _error(self) -> RuntimeError:
        self._log.seek(0)
        return RuntimeError(self._log.read()[-10_000:])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        self._log.close()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()


@contextmanager
def task_process(tree: Path, cloud: str, url: str, connection: str) -> Iterator[Process]:
    """Run :mod:`benchmarks.storage_task` with the provider of a tree.

    :param connection: to the simulator.
    """
    fields = json.loads(connection)
    unwanted = ("AIRFLOW", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PYTHON")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "pictory_provider").symlink_to(tree / "pictory_provider")
        env = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)} | {
            "PYTHONPATH": f"{home}:{ROOT}",
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "NO_PROXY": "127.0.0.1",
            "AIRFLOW_CONN_PICTORY_DEFAULT": json.dumps({**fields, "extra": {"requests_per_second": PER_SECOND}}),
        }
        with Process("benchmarks.storage_task", cloud, url, env=env, cwd=home) as process:
            assert process.first == "{}"
            yield process


def measure(tree: Path, cloud: str, pictures: int) -> Cost:
    """Return the cost of the pictures of a tree's provider.

    :param cloud: ``s3``, ``gs`` or ``abfs``.
    """
    with (
        Process("benchmarks.storage_server", cloud) as server,
        simulator("-c", ONE_PICTURE, "--seconds", "0", "--credits", "1000000") as connection,
        task_process(tree, cloud, server.first, connection) as task,
    ):

        def run(kind: str, **arguments: Any) -> tuple[int, dict[str, Any]]:
            server.ask("")
            order = {"kind": kind, "run_id": "first", "poll_interval": 1.0, **arguments}
            done = json.loads(task.ask(json.dumps(order)))
            return int(server.ask("")), done

        folder = f"{cloud}://media@pictures"
        batch = {"path": f"{folder}/lamps", "requests": [f"A lamp, number {n}" for n in range(pictures)]}
        run("batch", path=f"{folder}/first", requests=["A lamp"])  # imports, connects
        single, _ = run("single", path=f"{folder}/lamp.png", prompt="A lamp")
        fresh, done = run("batch", **batch)
        again, done_again = run("batch", **batch | {"run_id": "the next night"})
        assert done["result"]["saved"] == done_again["result"]["reused"] == pictures
        assert fresh > pictures, "the storage was written to elsewhere"
    return Cost(fresh / pictures, again, single, done["wall"], done["cpu"] / pictures)


def write_table(path: Path, rows: int) -> None:
    """Write a table of three columns in the format of the path's suffix."""
    columns = ("sku", "prompt", "colour")
    cells = ((f"{number:06d}", f"A mug, hand-made, number {number}", "blue") for number in range(rows))
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows((columns, *cells))
    elif path.suffix == ".parquet":
        parquet.write_table(pa.table([pa.array(c) for c in zip(*cells, strict=True)], columns), path)
    else:
        with xlsxwriter.Workbook(path, {"constant_memory": True}) as book:
            sheet = book.add_worksheet()
            for number, row in enumerate((columns, *cells)):
                sheet.write_row(number, 0, row)


def large(rows: int, suffix: str) -> tuple[float, float]:
    """Begin a batch of many rows into an empty folder of S3, and kill it after :data:`PURCHASES`.

    :return: the seconds until the first purchase, and by how many MiB its process grew.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        Process("benchmarks.storage_server", "s3") as server,
        simulator("-c", ONE_PICTURE, "--seconds", "0", "--credits", str(10 * rows)) as connection,
        task_process(ROOT, "s3", server.first, connection) as task,
    ):
        table = Path(folder) / f"table.{suffix}"
        write_table(table, rows)
        host = json.loads(connection)["host"].removesuffix("/pictoryapis")
        before, begun = _memory(task.pid, "VmRSS"), time.time()
        order = {"kind": "batch", "run_id": "first", "path": "s3://media@pictures/mugs", "requests": str(table)}
        task.send(json.dumps(order))
        sent: list[float] = []
        while len(sent) < PURCHASES:
            time.sleep(0.2)
            task.check()
            log = requests.get(f"{host}/_simulator/requests", timeout=60).json()
            sent = [row["at"] for row in log if (row["method"], row["path"]) == ("POST", "/v1/aistudio/images")]
        grown = _memory(task.pid, "VmHWM") - before
        task.kill()
    return min(sent) - begun, grown / 1024


def _memory(pid: int, field: str) -> int:
    """Return the memory of a process in KiB: now (``VmRSS``) or at most (``VmHWM``)."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields[field].split()[0])


def main() -> int:
    """Print a table of medians for each cloud."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.storage", description=__doc__)
    parser.add_argument("commit", nargs="?", default="92180a6", help="the earlier commit (default: %(default)s)")
    parser.add_argument("--alone", action="store_true", help="do not measure the earlier commit")
    parser.add_argument("--pictures", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", action="append", choices=CLOUDS, help="default: all")
    parser.add_argument("--rows", type=int, help="begin a batch of this many rows instead")
    parser.add_argument("--table", choices=("csv", "xlsx", "parquet"), default="csv", help="of these rows")
    options = parser.parse_args()
    if options.rows:
        seconds, grown = large(options.rows, options.table)
        print(
            f"{options.rows:,} rows, {options.table}: the first purchase after {seconds:.1f} s; after {PURCHASES} "
            f"purchases the process had grown by {grown:.0f} MiB."
        )
        return 0
    with tempfile.TemporaryDirectory() as folder:
        trees = {"now": ROOT}
        if not options.alone:
            trees = {options.commit: clone(options.commit, Path(folder) / "then"), **trees}
        for cloud in options.only or CLOUDS:
            costs: dict[str, list[Cost]] = {name: [] for name in trees}
            for _ in range(options.rounds):
                for name, tree in trees.items():
                    costs[name].append(measure(tree, cloud, options.pictures))
                    print(f"{cloud}, {name}: {costs[name][-1]}", file=sys.stderr, flush=True)
            print_table(f"{CLOUDS[cloud]}, {options.pictures:,} pictures", costs)
    return 0


def print_table(title: str, costs: dict[str, list[Cost]]) -> None:
    """Print the medians of each commit, and the ratio of the last one to the first one."""
    print(f"\n| {title} | {' | '.join(costs)} | ratio |\n|---|{'---|' * len(costs)}---|")
    for field, (label, form, unit) in ROWS.items():
        medians = [statistics.median(getattr(cost, field) for cost in each) for each in costs.values()]
        cells = [form.format(median * unit) for median in medians]
        ratio = f"{medians[-1] / medians[0]:.2f}" if len(medians) > 1 else ""
        print(f"| {label} | {' | '.join(cells)} | {ratio} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
