# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""DAGs whose ``retries`` are edited while they run: the number is read from a file at each parse."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pendulum
from airflow.sdk import DAG

from pictory_provider.operators.pictory import GenerateImageOperator

MARKERS = Path(os.environ.get("FAULTS_MARKERS", "."))
BEFORE = {"lowered": 2, "raised": 1}
AFTER = {"lowered": 1, "raised": 2}
KINDS = {
    "submit": {},
    "wait": {"wait_for_completion": True, "deferrable": False, "poll_interval": 1},
    "defer": {"wait_for_completion": True, "poll_interval": 1},
}


def prompt(way: str, kind: str) -> str:
    return f"Retries were {way} under the task that should {kind}{' simulate:stuck' * (kind != 'submit')}"


def leave_a_trace(context: Any) -> None:
    """Write the process id of the task to a file."""
    (MARKERS / f"{context['dag'].dag_id}.{context['ti'].task_id}.pid").write_text(str(os.getpid()))


for way, retries in (AFTER if (MARKERS / "retries_are_edited").exists() else BEFORE).items():
    with DAG(
        dag_id=f"faults_{way}",
        schedule=None,
        default_args={"retries": retries, "retry_delay": pendulum.duration(seconds=1)},
    ):
        for kind, options in KINDS.items():
            GenerateImageOperator(
                task_id=kind,
                prompt=prompt(way, kind),
                pictory_conn_id="pictory_quiet",
                pre_execute=leave_a_trace,
                **options,
            )
