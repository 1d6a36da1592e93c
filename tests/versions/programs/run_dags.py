# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Run some DAGs of a folder with ``dag.test()``, and write the states of their runs to a file, as JSON."""

import json
import sys
from pathlib import Path

try:
    from airflow.dag_processing.dagbag import DagBag
except ImportError:  # Airflow 3.1
    from airflow.models.dagbag import DagBag

answer, folder, *dag_ids = sys.argv[1:]
bag = DagBag(folder)
assert not bag.import_errors, bag.import_errors
states: dict[str, list[str]] = {}
for dag_id in dag_ids:
    conf = {"prompts": ["A red bicycle", "A blue bicycle"]} if dag_id == "pictory_batch" else None
    states.setdefault(dag_id, []).append(str(bag.dags[dag_id].test(run_conf=conf).state.value))
Path(answer).write_text(json.dumps(states))
