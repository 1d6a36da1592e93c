# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A process that runs a single task or a batch when it is told to, beside another process."""

from __future__ import annotations

import json
import os
import sys


def main() -> None:
    """Run the tasks that are read from the standard input, and print how each ended.

    Arguments: the cloud and its URL; ``disk`` and nothing for a local folder.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # logs go elsewhere
    from airflow.sdk.io import attach

    from pictory_provider.operators.batch import GenerateImageBatchOperator
    from pictory_provider.operators.pictory import GenerateImageOperator
    from tests.distributed.clouds import filesystem
    from tests.stand_ins import StateStore, TaskInstance

    if sys.argv[1] != "disk":
        attach(sys.argv[1], fs=filesystem(*sys.argv[1:3]))
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        common = {"task_id": "race", "deferrable": False, "poll_interval": 0.02}
        if task["kind"] == "batch":
            operator = GenerateImageBatchOperator(
                requests=[task["prompt"]], path=task["folder"], file_name="a.png", **common
            )
        else:
            operator = GenerateImageOperator(prompt=task["prompt"], path=f"{task['folder']}/a.png", **common)
        ti = TaskInstance()
        ti.run_id = f"{task['kind']} of {os.getpid()}"
        try:
            operator.execute({"ti": ti, "task_state_store": StateStore()})
        except Exception as error:
            end = type(error).__name__, str(error)
        else:
            end = "saved", ""
        print(json.dumps(end), file=answers, flush=True)


if __name__ == "__main__":
    main()
