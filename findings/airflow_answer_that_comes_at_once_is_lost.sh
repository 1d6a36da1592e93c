#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
#
# apache-airflow 3.3.2 with apache-airflow-providers-standard 1.21.0, LocalExecutor: is an answer to a human-in-the-loop
# operator safe that comes as soon as Airflow shows that it waits for one?
#
# Guess:  yes: the REST API has accepted it.
# Seen:   no. Each answer was accepted (200) in the state "awaiting_input", and several of 12 tasks without retries failed:
#         "finished with state success, but the task instance's state attribute is queued". With retries, the question
#         is asked again. With 3.4.0b2, none of 12 failed.
set -euo pipefail
work=$(mktemp -d)
trap 'kill -- -"$server" 2>/dev/null || true; rm -rf "$work"' EXIT
server=0
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check uv==0.9.11
"$work/venv/bin/uv" pip install --quiet --compile-bytecode --python "$work/venv/bin/python" --exclude-newer 2026-11-28 \
    apache-airflow==3.3.2 apache-airflow-providers-standard==1.21.0
mkdir "$work/dags"
cat >"$work/dags/answered_at_once.py" <<'DAG'
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG

with DAG("answered_at_once", schedule=None, max_active_tasks=200, default_args={"retries": 0}):
    for number in range(12):
        ApprovalOperator(task_id=f"approve_{number:02d}", subject="May it be bought?")
DAG
port=$("$work/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export AIRFLOW_HOME="$work/home" AIRFLOW__CORE__LOAD_EXAMPLES=False AIRFLOW__CORE__PARALLELISM=24
export AIRFLOW__CORE__DAGS_FOLDER="$work/dags" AIRFLOW__API__HOST=127.0.0.1 AIRFLOW__API__PORT="$port"
export AIRFLOW__API__BASE_URL="http://127.0.0.1:$port" PYTHONPATH="$work/dags"
export AIRFLOW__CORE__EXECUTION_API_SERVER_URL="http://127.0.0.1:$port/execution/"
export AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS=True no_proxy=127.0.0.1 NO_PROXY=127.0.0.1
"$work/venv/bin/airflow" db migrate >>"$work/log" 2>&1
set -m
(
    for component in api-server "scheduler --skip-serve-logs" dag-processor; do
        # shellcheck disable=SC2086
        "$work/venv/bin/airflow" $component >>"$work/log" 2>&1 &
    done
    wait
) &
server=$!
set +m
"$work/venv/bin/python" - "$port" <<'DRIVER'
import collections, json, sys, time, urllib.error, urllib.request

token = None


def call(method, path, body=None):
    url = f"http://127.0.0.1:{sys.argv[1]}{path}"
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method), timeout=30) as reply:
        return json.load(reply)


def until(what, times=240):
    for _ in range(times):
        try:
            if found := what():
                return found
        except (urllib.error.URLError, ConnectionError):
            pass
        time.sleep(0.5)
    raise SystemExit("it did not come to that")


token = until(lambda: call("GET", "/auth/token")["access_token"])
RUN = "/api/v2/dags/answered_at_once/dagRuns"
until(lambda: call("PATCH", "/api/v2/dags/answered_at_once", {"is_paused": False}))
call("POST", RUN, {"dag_run_id": "r", "logical_date": None})
accepted = set()


def answer_and_look():
    for task in call("GET", f"{RUN}/r/taskInstances?limit=100")["task_instances"]:
        if task["state"] == "awaiting_input" and task["task_id"] not in accepted:
            answer = {"chosen_options": ["Approve"]}
            call("PATCH", f"{RUN}/r/taskInstances/{task['task_id']}/-1/hitlDetails", answer)
            accepted.add(task["task_id"])
    return call("GET", f"{RUN}/r")["state"] in ("success", "failed")


until(answer_and_look)
tasks = call("GET", f"{RUN}/r/taskInstances?limit=100")["task_instances"]
seen = collections.Counter(task["state"] for task in tasks)
print(f"{len(accepted)} answers accepted: {dict(seen)}")
as_seen = len(accepted) == 12 and seen["failed"] > 0
sys.exit(0 if as_seen else "that has changed: an answer was refused, or none that was accepted was lost")
DRIVER
