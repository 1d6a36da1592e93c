# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Batches whose process is killed once, at a point that their task_id names.

Processes and code are real: the functions of the package are only wrapped to find the moment.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pendulum
from airflow.sdk import DAG

from pictory_provider.client.sync import SyncClient
from pictory_provider.operators.batch import GenerateImageBatchOperator
from pictory_provider.services.batch.state import BatchRecord
from pictory_provider.storage.pictures import PictureTarget

ROWS = 60
POINTS = {
    # point: (method, before or after it, number of the call)
    "before_the_first_request": (SyncClient, "send", "before", 1),
    "in_mid_wave": (SyncClient, "send", "after", 20),
    "between_two_waves": (BatchRecord, "write", "before", 6),
    "before_deferring": (GenerateImageBatchOperator, "defer", "before", 1),
    "while_saving": (PictureTarget, "save", "after", 7),
    "before_the_manifest": (BatchRecord, "end", "before", 1),
}


def prompt(point: str, number: int) -> str:
    # With short jobs a worker never defers.
    slow = " simulate:seconds=15" if point == "before_deferring" else ""
    return f"Struck down {point}, row {number}{slow}"


class Killer:
    """Kill this process at a point of the first attempt, when the call with this number reaches it."""

    def __init__(self) -> None:
        self.point, self.marker, self.times = "", Path(), 0
        self.lock = threading.Lock()

    def aim(self, context: Any) -> None:
        self.point = context["ti"].task_id
        self.marker = Path(os.environ["FAULTS_MARKERS"]) / f"batch_{self.point}"

    def reach(self, point: str) -> None:
        if point != self.point:
            return
        with self.lock:
            self.times += 1
            if self.times != POINTS[point][3]:
                return
            try:
                self.marker.touch(exist_ok=False)
            except FileExistsError:
                return
            os.kill(os.getpid(), signal.SIGKILL)


killer = Killer()


def watch(point: str, holder: Any, name: str, moment: str) -> None:
    original = getattr(holder, name)

    def watched(*args: Any, **kwargs: Any) -> Any:
        concerned = name != "send" or args[-1].method == "POST"
        if concerned and moment == "before":
            killer.reach(point)
        result = original(*args, **kwargs)
        if concerned and moment == "after":
            killer.reach(point)
        return result

    setattr(holder, name, watched)


if os.environ.get("FAULTS_MARKERS"):
    for point, place in POINTS.items():
        watch(point, *place[:3])

with DAG(
    dag_id="faults_batch",
    schedule=None,
    max_active_tasks=3,
    default_args={"retries": 2, "retry_delay": pendulum.duration(seconds=1)},
):
    for point in POINTS:
        GenerateImageBatchOperator(
            task_id=point,
            requests=[{"prompt": prompt(point, number)} for number in range(ROWS)],
            path=f"{os.environ.get('FAULTS_MARKERS', '/nowhere')}/pictures/{point}",
            model="flux-schnell",
            poll_interval=2,
            pre_execute=killer.aim,
        )
