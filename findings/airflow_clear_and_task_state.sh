#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
#
# apache-airflow 3.4.0b2: does a clear keep what a task has put into its task state store?
#
# Guess:  yes, whoever clears, as on 3.3; the store is there to survive.
# Seen:   it depends on who clears. POST clearTaskInstances, which the page's Clear sends, throws it away, unless it is
#         sent `keep_task_state`; `airflow tasks clear` and POST dagRuns/{id}/clear keep it.
set -euo pipefail
work=$(mktemp -d)
trap 'kill -- -"$server" 2>/dev/null || true; rm -rf "$work"' EXIT
server=0
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check uv==0.9.11
"$work/venv/bin/uv" pip install --quiet --python "$work/venv/bin/python" --exclude-newer 2026-11-28 \
    apache-airflow==3.4.0b2 apache-airflow-core==3.4.0b2 apache-airflow-task-sdk==1.4.0b2
mkdir "$work/dags"
cat >"$work/dags/keeps.py" <<'DAG'
from airflow.sdk import DAG, task

with DAG("keeps", schedule=None):

    @task
    def remember(*, task_state_store=None):
        before = task_state_store.get("tries") or 0
        task_state_store.set("tries", before + 1)
        return before

    remember()
DAG
port=$("$work/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export AIRFLOW_HOME="$work/home" AIRFLOW__CORE__LOAD_EXAMPLES=False AIRFLOW__CORE__PARALLELISM=4
export AIRFLOW__CORE__DAGS_FOLDER="$work/dags" AIRFLOW__API__HOST=127.0.0.1 AIRFLOW__API__PORT="$port"
export AIRFLOW__API__BASE_URL="http://127.0.0.1:$port" AIRFLOW__LOGGING__WORKER_LOG_SERVER_HOST=127.0.0.1
export AIRFLOW__CORE__EXECUTION_API_SERVER_URL="http://127.0.0.1:$port/execution/"
export AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS=True AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL=1
export AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL=5 no_proxy=127.0.0.1 NO_PROXY=127.0.0.1
airflow() { "$work/venv/bin/airflow" "$@" >>"$work/log" 2>&1; }
airflow db migrate
for component in api-server "scheduler --skip-serve-logs" dag-processor; do
    # shellcheck disable=SC2086
    echo "exec '$work/venv/bin/airflow' $component" >>"$work/start"
done
set -m
(while read -r line; do bash -c "$line" >>"$work/log" 2>&1 & done <"$work/start"; wait) &
server=$!
set +m
"$work/venv/bin/python" - "$port" "$work/venv/bin/airflow" <<'DRIVER'
import json, subprocess, sys, time, urllib.error, urllib.request

port, airflow = sys.argv[1:]
token = None


def call(method, path, body=None):
    url = f"http://127.0.0.1:{port}{path}"
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method), timeout=30) as reply:
        return json.load(reply)


def until(what):
    for _ in range(150):
        try:
            if (found := what()) is not None:
                return found
        except (urllib.error.URLError, ConnectionError):
            pass
        time.sleep(0.5)
    raise SystemExit("it did not come to that")


token = until(lambda: call("GET", "/auth/token")["access_token"])
until(lambda: call("PATCH", "/api/v2/dags/keeps", {"is_paused": False}))
call("POST", "/api/v2/dags/keeps/dagRuns", {"dag_run_id": "r", "logical_date": None})
place = "/api/v2/dags/keeps/dagRuns/r/taskInstances/remember"


def returned(at_try):
    def look():
        ti = call("GET", place)
        return ti if ti["state"] == "success" and ti["try_number"] >= at_try else None

    until(look)
    return int(call("GET", f"{place}/xcomEntries/return_value")["value"])


one = {"dry_run": False, "dag_run_id": "r", "task_ids": ["remember"], "only_failed": False}
ways = {
    "POST clearTaskInstances": lambda: call("POST", "/api/v2/dags/keeps/clearTaskInstances", one),
    "the same with keep_task_state": lambda: call(
        "POST", "/api/v2/dags/keeps/clearTaskInstances", one | {"keep_task_state": True}
    ),
    "POST dagRuns/r/clear": lambda: call(
        "POST", "/api/v2/dags/keeps/dagRuns/r/clear", {"dry_run": False, "only_failed": False}
    ),
    "airflow tasks clear": lambda: subprocess.run(
        [airflow, "tasks", "clear", "keeps", "--yes"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ),
}
seen = {"the first try": returned(1)}
for number, (way, clear) in enumerate(ways.items(), start=2):
    clear()
    seen[f"after {way}"] = returned(number)
for when, before in seen.items():
    print(f"{when}: the store had {before or 'nothing'}")
expected = [0, 0, 1, 2, 3]
sys.exit(0 if list(seen.values()) == expected else f"that has changed: it was {expected}")
DRIVER
