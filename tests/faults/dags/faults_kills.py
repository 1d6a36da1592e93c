# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tasks whose process, or whole worker, is killed or frozen once, at a point that their task_id names.

Processes and code are real: the functions of the package are only wrapped to find the moment.
"""

from __future__ import annotations

import http.client
import os
import signal
import time
from pathlib import Path
from typing import Any

import pendulum
from airflow.sdk import DAG
from airflow.sdk.execution_time import task_runner

from pictory_provider.client import sync
from pictory_provider.operators.pictory import GenerateImageOperator
from pictory_provider.services import state
from pictory_provider.storage import pictures, target
from pictory_provider.triggers import deferral

POINTS = {
    # point: (method, before or after it)
    "before_the_intent": (state.SubmissionState, "intend", "before"),
    "between_intent_and_post": (sync.SyncClient, "send", "before"),
    "while_the_post_is_in_flight": (http.client.HTTPConnection, "getresponse", "before"),
    "between_reply_and_record": (state.SubmissionState, "keep", "before"),
    "between_record_and_xcom": (state.SubmissionState, "keep", "after"),
    "while_waiting": (time, "sleep", "before"),
    "before_deferring": (deferral.JobWait, "defer", "before"),
    "while_deferring": (task_runner, "_defer_task", "after"),
    "while_resuming": (GenerateImageOperator, "execute_complete", "before"),
    "at_the_end_of_resuming": (GenerateImageOperator, "execute_complete", "after"),
    "while_saving": (target.Target, "place", "before"),
    "between_picture_and_sidecar": (target.Target, "place", "after"),
    "between_sidecar_and_xcom": (pictures.PictureTarget, "save", "after"),
}
KINDS = {
    "submit": ({}, tuple(POINTS)[:5]),
    "wait": (
        {"wait_for_completion": True, "deferrable": False, "poll_interval": 1},
        (*tuple(POINTS)[:5], "while_waiting"),
    ),
    "defer": ({"wait_for_completion": True, "poll_interval": 1}, (*tuple(POINTS)[:5], *tuple(POINTS)[6:10])),
}
SAVING = [("process", "save", point) for point in POINTS if point != "while_waiting"]
VICTIMS = {"process": tuple(KINDS), "worker": ("defer",)}
FROZEN = tuple(POINTS)[:2]
CASES = [
    *((victim, kind, point) for victim, kinds in VICTIMS.items() for kind in kinds for point in KINDS[kind][1]),
    *(("frozen", "submit", point) for point in FROZEN),
]


def prompt(victim: str, kind: str, point: str) -> str:
    return f"Struck down: {victim} {kind} {point} simulate:seconds=3"


class Killer:
    """Kill this process, or also its worker, or freeze both, when a point is reached for the first time."""

    def __init__(self) -> None:
        self.point, self.victim, self.marker = "", "", Path()

    def aim(self, context: Any) -> None:
        task_id = context["ti"].task_id
        self.victim, _, self.point = task_id.split("__")
        self.marker = Path(os.environ["FAULTS_MARKERS"]) / task_id

    def reach(self, point: str) -> None:
        if point != self.point:
            return
        try:
            self.marker.touch(exist_ok=False)
        except FileExistsError:
            return
        number = signal.SIGSTOP if self.victim == "frozen" else signal.SIGKILL
        if self.victim != "process":
            os.kill(os.getppid(), number)
        os.kill(os.getpid(), number)


killer = Killer()


def watch(point: str, holder: Any, name: str, moment: str) -> None:
    original = getattr(holder, name)

    def watched(*args: Any, **kwargs: Any) -> Any:
        concerned = name not in ("send", "getresponse") or _is_paid(args)
        if concerned and moment == "before":
            killer.reach(point)
        result = original(*args, **kwargs)
        if concerned and moment == "after":
            killer.reach(point)
        return result

    setattr(holder, name, watched)


def _is_paid(args: Any) -> bool:
    method = getattr(args[0], "_method", None) or getattr(args[-1], "method", None)
    return method == "POST"


if os.environ.get("FAULTS_MARKERS"):
    for point, place in POINTS.items():
        watch(point, *place)

RETRIED = {"retries": 2, "retry_delay": pendulum.duration(seconds=1)}

with DAG(dag_id="faults_kills_saving", schedule=None, max_active_tasks=4, default_args=RETRIED):
    for victim, kind, point in SAVING:
        GenerateImageOperator(
            task_id=f"{victim}__{kind}__{point}",
            prompt=prompt(victim, kind, point),
            path=os.environ.get("FAULTS_MARKERS", "") + f"/pictures/{point}.png",
            poll_interval=1,
            pre_execute=killer.aim,
        )

with DAG(dag_id="faults_kills", schedule=None, max_active_tasks=4, default_args=RETRIED):
    for victim, kind, point in CASES:
        GenerateImageOperator(
            task_id=f"{victim}__{kind}__{point}",
            prompt=prompt(victim, kind, point),
            pre_execute=killer.aim,
            **KINDS[kind][0],
        )
