# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A task is killed at every line that it runs in this package, and then tried again.

Each try is a process of its own, and each kill a SIGKILL: no handler runs, and nothing in memory survives. What
does survive is what Airflow keeps, here in files: the state store, and the arguments of a trigger.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

import pictory_provider
from pictory_provider.exceptions import PictorySubmitOutcomeUnknown
from pictory_provider.jobs.submission import KEY
from pictory_provider.operators.pictory import GenerateImageOperator
from pictory_provider.triggers.pictory import PictoryJobTrigger

PACKAGE = str(Path(pictory_provider.__file__).parent)
KINDS = {
    "submit": {},
    "wait": {"wait_for_completion": True, "deferrable": False, "poll_interval": 0.01},
    "defer": {"wait_for_completion": True, "poll_interval": 0.01},
}
KILLED = -signal.SIGKILL


class Files:
    """Airflow's state store and XComs, as far as a task uses them, in a folder: each write whole or not at all."""

    dag_id, run_id, task_id, map_index, max_tries = "d", "r", "generate", -1, 2

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str, default: Any = None) -> Any:
        file = self.folder / key
        return json.loads(file.read_text()) if file.exists() else default

    def set(self, key: str, value: Any) -> None:
        part = self.folder / f"{key}.part"
        part.write_text(json.dumps(value))
        part.replace(self.folder / key)

    def delete(self, key: str) -> None:
        (self.folder / key).unlink(missing_ok=True)

    def xcom_push(self, key: str, value: Any) -> None:
        self.set(f"xcom_{key}", value)

    def xcom_pull(self, *, task_ids: str, key: str, map_indexes: int) -> Any:
        return self.get(f"xcom_{key}")


@pytest.fixture(scope="module")
def pictory():
    """Start a local Pictory as a program: this process must have one thread only, to be forked."""
    command = [sys.executable, "-m", "pictory_provider.simulator", "--seconds", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        address = process.stdout.readline().split(" listens at ")[1].split(";")[0]
        process.stdout.readline()
        os.environ["AIRFLOW_CONN_PICTORY_DEFAULT"] = process.stdout.readline().split("=", 1)[1].strip().strip("'")
        yield address.removesuffix("/pictoryapis")
        process.terminate()
    del os.environ["AIRFLOW_CONN_PICTORY_DEFAULT"]


def in_a_child(work: Any) -> int:
    """Run something in a process of its own, and return how that ended."""
    child = os.fork()
    if child == 0:
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 1)
        os.dup2(devnull, 2)
        try:
            work()
        except PictorySubmitOutcomeUnknown:
            os._exit(3)
        except AirflowFailException:
            os._exit(4)
        except BaseException:
            os._exit(5)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def kill_at(line: int, seen: Path) -> None:
    """Kill this process right before it runs its so-manieth line of this package."""
    count = 0

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal count
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            count += 1
            if count == line:
                os.kill(os.getpid(), signal.SIGKILL)
            if line == 0:
                with seen.open("a") as file:
                    file.write(f"{frame.f_code.co_filename}:{frame.f_lineno}\n")
        return trace

    sys.settrace(trace)


def one_try(files: Files, kind: str) -> None:
    """Do what Airflow does with a task: run it, and where it defers, run its trigger and resume it."""
    context = {"ti": files, "task_state_store": files}
    task = GenerateImageOperator(task_id="generate", prompt="A lighthouse at dawn", **KINDS[kind])
    try:
        files.set("returned", task.execute(context))
    except TaskDeferred as deferral:
        _, arguments = deferral.trigger.serialize()
        arguments["first_poll_at"] = 0

        async def event() -> Any:
            return [event async for event in PictoryJobTrigger(**arguments).run()]

        (found,) = asyncio.run(event())
        resumed = GenerateImageOperator(task_id="generate", prompt="A lighthouse at dawn", **KINDS[kind])
        files.set("returned", resumed.execute_complete(context, found.payload))


def lines_of(kind: str, folder: Path) -> list[str]:
    folder.mkdir()
    seen = folder / "seen"

    def work() -> None:
        kill_at(0, seen)
        one_try(Files(folder), kind)

    assert in_a_child(work) == 0
    return seen.read_text().splitlines()


def published(lines: list[str]) -> int:
    """Return how many lines are run before the jobId is published."""
    source, first = inspect.getsourcelines(GenerateImageOperator._publish)
    own = {f"{inspect.getsourcefile(GenerateImageOperator)}:{first + n}" for n in range(len(source))}
    return next(number for number, line in enumerate(lines) if line in own)


def billed(pictory: str) -> list[str]:
    return [job["jobId"] for job in requests.get(f"{pictory}/_simulator/state", timeout=10).json()["jobs"]]


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_any_line_a_task_is_billed_once_or_says_that_nobody_can_know(pictory, tmp_path, kind):
    """All kinds run the same lines until the jobId is published; only the first kind is killed there."""
    lines = lines_of(kind, tmp_path / "counting")
    common = 0 if kind == "submit" else published(lines)
    assert len(lines) - common > 100
    reported = []
    for number, line in enumerate(lines[common:], start=common + 1):
        requests.post(f"{pictory}/_simulator/reset", timeout=10)
        folder = tmp_path / str(number)
        folder.mkdir()

        def work(folder: Path = folder, number: int = number) -> None:
            kill_at(number, folder)
            one_try(Files(folder), kind)

        assert in_a_child(work) == KILLED, line
        before = Files(folder).get(KEY)
        ended = in_a_child(lambda folder=folder: one_try(Files(folder), kind))
        jobs = billed(pictory)
        assert len(jobs) <= 1, line
        if ended == 0:
            assert [Files(folder).get("returned")] == jobs == [Files(folder).get("xcom_jobId")], line
        else:
            assert ended == 3, line
            assert before is not None, line
            assert "jobId" not in before, line
            reported.append(line)
    rooms = {line.removeprefix(PACKAGE).split(":")[0] for line in reported}
    assert rooms == (WINDOW if kind == "submit" else set())


WINDOW = {
    # What runs between the intent and the record: send, read the answer, keep it.
    "/api/connection.py",
    "/api/endpoints.py",
    "/api/models.py",
    "/api/responses.py",
    "/client/__init__.py",
    "/client/sync.py",
    "/durable.py",
    "/jobs/submission.py",
    "/purchase.py",
}
