# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Run tries of one batch as Airflow would, without its pauses."""

from __future__ import annotations

import json
import os
import time
from functools import cache
from pathlib import Path

from airflow.providers.common.compat.sdk import TaskDeferred
from airflow.sdk.execution_time.context import OutletEventAccessors

from pictory_provider.operators.batch import GenerateImageBatchOperator
from pictory_provider.simulator import painting
from pictory_provider.triggers.batch import PictoryJobsTrigger
from tests.provider.waits import events_of
from tests.stand_ins import StateStore, TaskInstance


@cache
def painted(size):
    return _paint({"prompt": "One of many", "model": "m", "aspectRatio": "1:1"}, size, None)


_paint = painting.paint


class Tries:
    """The tries of one batch task: its folder, its store, and what the last try has left in Airflow.

    :param has_store: whether this Airflow has a task state store.
    """

    def __init__(self, folder, *, has_store=True):
        self.folder = folder
        self.store = StateStore() if has_store else None
        self.run_id = "first"
        self.map_index = -1
        self.max_tries, self.try_number = 2, 0
        self.legs = self.deferrals = 0
        self.ti = self.context = self.task = None

    def of_another_run(self, run_id):
        other = Tries(self.folder, has_store=self.store is not None)
        other.run_id = run_id
        return other

    def clear(self):
        self.max_tries += 1
        self.try_number = 0

    def task_of(self, requests, **more):
        arguments = {"path": str(self.folder), "deferrable": False, "poll_interval": 0.02, **more}
        return GenerateImageBatchOperator(task_id="draw", requests=requests, **arguments)

    def __call__(self, requests, **more):
        """Run one try to its end; return its result."""
        self.begin(requests, **more)
        call = self.task.execute
        arguments = (self.context,)
        for self.legs in range(1, 50):
            try:
                return call(*arguments)
            except TaskDeferred as deferral:
                event = self.event_of(deferral)
                carried = deferral.kwargs
                self.task = self.task_of(requests, **more)  # another process
                call, arguments = (
                    self.task.resume_execution,
                    ("execute_complete", {"event": event, **carried}, self.context),
                )
        raise AssertionError("the task does not end")

    def begin(self, requests, **more):
        self.try_number += 1
        self.task = self.task_of(requests, **more)
        self.ti = TaskInstance()
        self.ti.run_id, self.ti.map_index = self.run_id, self.map_index
        self.ti.max_tries, self.ti.try_number = self.max_tries, self.try_number
        self.context = {"ti": self.ti, "outlet_events": OutletEventAccessors()}
        if self.store:
            self.context["task_state_store"] = self.store

    @staticmethod
    def event_of(deferral):
        classpath, arguments = deferral.trigger.serialize()
        assert classpath == "pictory_provider.triggers.batch.PictoryJobsTrigger"
        arguments = json.loads(json.dumps(arguments))
        arguments["first_poll_at"], arguments["first_event_at"] = time.time(), None
        (event,) = events_of(PictoryJobsTrigger(**arguments))
        return json.loads(json.dumps(event.payload))


def lines(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def files(folder):
    """Return what lies in a folder, without its record."""
    found = []
    for at, _, names in os.walk(folder):
        found += [str((Path(at) / name).relative_to(folder)) for name in names]
    return sorted(name for name in found if not name.startswith(".pictory"))


def entries(folder):
    """Return what is on record of each row, by file name."""
    pages = sorted(Path(folder, ".pictory").glob("*-*.json"))
    rows = [row for page in pages for row in json.loads(page.read_text())["rows"].values()]
    return {row["file_name"]: row for row in rows}


def billed(pictory):
    """Return how often each prompt was billed."""
    prompts = [job.body["prompt"] for job in pictory.account.jobs.values()]
    return {prompt: prompts.count(prompt) for prompt in prompts}


def lamps(number):
    return [f"A lamp, number {n}" for n in range(number)]
