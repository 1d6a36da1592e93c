#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
#
# apache-airflow 3.4.0b2, LocalExecutor: is a task safe that comes back at once, rescheduled or deferred?
#
# Guess:  both, since 3.4 has mended the race of an executor's late word with a task that is queued again (#72716).
# Seen:   the deferred ones are; of 40 sensors with mode="reschedule" and poke_interval=0 some are marked failed without
#         a retry, "finished with state success, but the task instance's state attribute is scheduled".
set -euo pipefail
work=$(mktemp -d)
trap 'kill -- -"$server" 2>/dev/null || true; rm -rf "$work"' EXIT
server=0
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check uv==0.9.11
"$work/venv/bin/uv" pip install --quiet --compile-bytecode --python "$work/venv/bin/python" --exclude-newer 2026-11-28 \
    apache-airflow==3.4.0b2 apache-airflow-core==3.4.0b2 apache-airflow-task-sdk==1.4.0b2
mkdir "$work/dags"
cat >"$work/dags/comes_back_at_once.py" <<'DAG'
from airflow.sdk import DAG, BaseOperator, BaseSensorOperator
from airflow.triggers.base import BaseTrigger, TriggerEvent


class AtOnce(BaseTrigger):
    def serialize(self):
        return "comes_back_at_once.AtOnce", {}

    async def run(self):
        yield TriggerEvent("here")


class Deferred(BaseOperator):
    def __init__(self, number=0, **kwargs):
        super().__init__(**kwargs)

    def execute(self, context):
        self.defer(trigger=AtOnce(), method_name="resume")

    def resume(self, context, event):
        return event


class Rescheduled(BaseSensorOperator):
    def __init__(self, number=0, **kwargs):
        super().__init__(mode="reschedule", poke_interval=0, **kwargs)

    def poke(self, context):
        return context["ti"].get_first_reschedule_date(context) is not None


with DAG("at_once", schedule=None, max_active_tasks=200, default_args={"retries": 0}):
    Rescheduled.partial(task_id="rescheduled").expand(number=list(range(40)))
    Deferred.partial(task_id="deferred").expand(number=list(range(40)))
DAG
port=$("$work/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export AIRFLOW_HOME="$work/home" AIRFLOW__CORE__LOAD_EXAMPLES=False AIRFLOW__CORE__PARALLELISM=12
export AIRFLOW__CORE__DAGS_FOLDER="$work/dags" AIRFLOW__API__HOST=127.0.0.1 AIRFLOW__API__PORT="$port"
export AIRFLOW__API__BASE_URL="http://127.0.0.1:$port" PYTHONPATH="$work/dags"
export AIRFLOW__CORE__EXECUTION_API_SERVER_URL="http://127.0.0.1:$port/execution/"
export AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS=True no_proxy=127.0.0.1 NO_PROXY=127.0.0.1
"$work/venv/bin/airflow" db migrate >>"$work/log" 2>&1
set -m
(
    for component in api-server "scheduler --skip-serve-logs" dag-processor "triggerer --skip-serve-logs"; do
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
until(lambda: call("PATCH", "/api/v2/dags/at_once", {"is_paused": False}))
call("POST", "/api/v2/dags/at_once/dagRuns", {"dag_run_id": "r", "logical_date": None})
until(lambda: call("GET", "/api/v2/dags/at_once/dagRuns/r")["state"] in ("success", "failed"))
tasks = call("GET", "/api/v2/dags/at_once/dagRuns/r/taskInstances?limit=100")["task_instances"]
seen = collections.Counter((task["task_id"], task["state"]) for task in tasks)
for (task_id, state), number in sorted(seen.items()):
    print(f"{task_id}: {number} {state}")
as_seen = seen["deferred", "success"] == 40 and seen["rescheduled", "failed"] > 0
sys.exit(0 if as_seen else "that has changed: no rescheduled sensor was lost, or a deferred task was")
DRIVER
