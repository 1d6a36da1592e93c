#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
#
# apache-airflow-providers-celery 3.26.0, its newest release: with which Celery does the CeleryExecutor run?
#
# Guess:  with every Celery that the metadata allows, `celery>=5.5.0,<6`.
# Seen:   with Celery 5.7.0, the newest, the executor cannot be imported: it imports a name that is no longer there.
#         Airflow then says only that the value of [core] executor could not be loaded. With Celery 5.6.3 it can.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check uv==0.9.11
export AIRFLOW_HOME="$work/home"
seen=""
for release in 5.7.0 5.6.3; do
    "$work/venv/bin/uv" pip install --quiet --python "$work/venv/bin/python" apache-airflow==3.3.2 \
        apache-airflow-core==3.3.2 apache-airflow-task-sdk==1.3.2 apache-airflow-providers-celery==3.26.0 \
        "celery==$release"
    one=$("$work/venv/bin/python" 2>/dev/null <<'IMPORT'
import contextlib
import io
from importlib.metadata import requires, version

allowed = next(each for each in requires("apache-airflow-providers-celery") if each.startswith("celery"))
found = "the executor can be imported"
with contextlib.redirect_stdout(io.StringIO()):  # Airflow's log
    try:
        import airflow.providers.celery.executors.celery_executor
    except ImportError as error:
        found = str(error).partition(" (")[0]
print(f"celery {version('celery')}, allowed is {allowed}: {found}")
IMPORT
    )
    echo "$one"
    seen+="$one"$'\n'
done
expected="celery 5.7.0, allowed is celery[redis]>=5.5.0,<6: cannot import name 'retry' from 'celery.backends.database'
celery 5.6.3, allowed is celery[redis]>=5.5.0,<6: the executor can be imported
"
[ "$seen" = "$expected" ] || { echo "that has changed: it was"; echo "$expected"; exit 1; }
