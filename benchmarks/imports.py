# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Measure the import times of modules that DAG files need: ``python -m benchmarks.imports``."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

RUNS = 9
PROGRAM = """
import sys, time
import airflow.sdk
from airflow.sdk import BaseOperator, BaseSensorOperator
from airflow.providers.common.compat.sdk import AirflowPlugin, BaseOperatorLink, conf
before = len(sys.modules)
begun = time.perf_counter()
import {module}
print(time.perf_counter() - begun, len(sys.modules) - before)
"""
MODULES = (
    "pictory_provider.operators.pictory",
    "pictory_provider.sensors.pictory",
    "pictory_provider.plugins.plugin",
    "airflow.providers.http.operators.http",
    "airflow.providers.http.sensors.http",
    "airflow.providers.openai.operators.openai",
)


def main() -> None:
    """Print a table. The first run of each module only fills the bytecode cache."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    print(f"\nImporting after airflow.sdk, the median of {RUNS} fresh processes")
    for module in MODULES:
        command = [sys.executable, "-c", PROGRAM.format(module=module)]
        times, modules = [], "?"
        for _ in range(RUNS + 1):
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            seconds, modules = done.stdout.split()[-2:]
            times.append(float(seconds))
        print(f"  {module:<44} {statistics.median(times[1:]) * 1000:6.1f} ms, {modules:>4} modules", flush=True)


if __name__ == "__main__":
    main()
