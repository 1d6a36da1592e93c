# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What a DAG file pays for its imports: ``make bench``."""

from __future__ import annotations

import statistics
import subprocess
import sys

RUNS = 7
PROGRAM = """
import sys, time
import airflow.sdk
from airflow.sdk import BaseOperator, BaseSensorOperator
before = len(sys.modules)
begun = time.perf_counter()
import {module}
print(time.perf_counter() - begun, len(sys.modules) - before)
"""
MODULES = (
    "pictory_provider.operators.pictory",
    "pictory_provider.sensors.pictory",
    "pictory_provider.triggers.pictory",
)

print(f"Importing after airflow.sdk, the median of {RUNS} fresh processes:")
for module in MODULES:
    command = [sys.executable, "-c", PROGRAM.format(module=module)]
    times, modules = [], "?"
    for _ in range(RUNS):
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
        seconds, modules = done.stdout.split()[-2:]
        times.append(float(seconds))
    print(f"  {module:<36} {statistics.median(times) * 1000:5.1f} ms, {modules} modules")
