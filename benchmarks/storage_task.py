# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Run tasks that save to an emulated cloud, as a program, with the provider of any commit.

``python -m benchmarks.storage_task CLOUD URL`` prints ``{}`` once it has imported what it needs. Each line of the
standard input is the JSON of a task: its class, its run and its arguments. When it has ended, the process prints
its result, seconds and CPU seconds, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from airflow.sdk.execution_time.context import OutletEventAccessors
from airflow.sdk.io import attach

from pictory_provider.operators.batch import GenerateImageBatchOperator
from pictory_provider.operators.pictory import GenerateImageOperator
from tests.distributed.clouds import filesystem
from tests.stand_ins import StateStore, TaskInstance

CONNECTION = "media"
"""The id of the Airflow connection in the paths: without one, Airflow 3.3 uses a filesystem of its own for some
requests."""
OPERATORS = {"batch": GenerateImageBatchOperator, "single": GenerateImageOperator}


def main() -> None:
    """Run tasks until the end of the standard input. Only results go to the standard output."""
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    cloud, url = sys.argv[1:3]
    attach(cloud, CONNECTION, fs=filesystem(cloud, url))
    print("{}", file=results, flush=True)
    for line in sys.stdin:
        print(json.dumps(run(**json.loads(line))), file=results, flush=True)


def run(kind: str, run_id: str, **arguments: Any) -> dict[str, Any]:
    """Run one task to its end.

    :param kind: ``batch`` or ``single``.
    :param arguments: of the operator.
    """
    task = OPERATORS[kind](task_id=kind, deferrable=False, **arguments)
    ti = TaskInstance()
    ti.run_id = run_id
    context: Any = {"ti": ti, "task_state_store": StateStore(), "outlet_events": OutletEventAccessors()}
    begun, used = time.monotonic(), time.process_time()
    result = task.execute(context)
    return {"result": result, "wall": time.monotonic() - begun, "cpu": time.process_time() - used}


if __name__ == "__main__":
    main()
