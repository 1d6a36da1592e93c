#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
#
# apache-airflow 3.3.2 with XComObjectStorageBackend (common.io 1.11.0): what does the REST API give for an XCom?
#
# Guess:  with deserialize=true the value, read by the backend; without it the path of the file.
# Seen:   the path of the file both times. A task that pulls the XCom gets the value.
set -euo pipefail
work=$(mktemp -d)
server=0
trap '[ "$server" = 0 ] || kill -- -"$server" 2>/dev/null || true; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check uv==0.9.11
"$work/venv/bin/uv" pip install --quiet --compile-bytecode --python "$work/venv/bin/python" \
    --exclude-newer 2026-11-28 apache-airflow==3.3.2 apache-airflow-providers-common-io==1.11.0
mkdir "$work/dags"
port=$("$work/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export AIRFLOW_HOME="$work/home" AIRFLOW__CORE__LOAD_EXAMPLES=False AIRFLOW__CORE__DAGS_FOLDER="$work/dags"
export AIRFLOW__CORE__XCOM_BACKEND=airflow.providers.common.io.xcom.backend.XComObjectStorageBackend
export AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH="file://$work/xcoms" AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_THRESHOLD=0
export AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS=True AIRFLOW__API__HOST=127.0.0.1 AIRFLOW__API__PORT="$port"
export AIRFLOW__API__WORKERS=1 no_proxy=127.0.0.1 NO_PROXY=127.0.0.1
cat >"$work/dags/shop.py" <<'DAG'
from airflow.sdk import DAG, task

with DAG("shop", schedule=None) as dag:

    @task
    def count():
        return {"mugs": 12}

    @task
    def tell(counted):
        print("PULLED", counted)

    tell(count())

if __name__ == "__main__":
    dag.test()
DAG
"$work/venv/bin/airflow" db migrate >"$work/log" 2>&1
"$work/venv/bin/airflow" dags reserialize >>"$work/log" 2>&1
pulled=$("$work/venv/bin/python" "$work/dags/shop.py" 2>&1 | grep -o 'PULLED .*' | head -1 || true)
echo "a task: $pulled"
set -m
"$work/venv/bin/airflow" api-server >>"$work/log" 2>&1 &
server=$!
set +m
"$work/venv/bin/python" - "$port" "$pulled" <<'DRIVER'
import json, sys, time, urllib.error, urllib.request

headers = {}


def get(path):
    request = urllib.request.Request(f"http://127.0.0.1:{sys.argv[1]}{path}", headers=headers)
    with urllib.request.urlopen(request, timeout=30) as reply:
        return json.load(reply)


for _ in range(240):
    try:
        headers["Authorization"] = "Bearer " + get("/auth/token")["access_token"]
        break
    except (urllib.error.URLError, ConnectionError):
        time.sleep(0.5)
(run,) = get("/api/v2/dags/shop/dagRuns")["dag_runs"]
entry = f"/api/v2/dags/shop/dagRuns/{urllib.request.quote(run['dag_run_id'])}/taskInstances/count/xcomEntries/return_value"
values = {flag: get(f"{entry}?deserialize={flag}")["value"] for flag in ("false", "true")}
for flag, value in values.items():
    print(f"deserialize={flag}:", str(value).replace(str(value).partition("/xcoms/")[0], "file://..."))
as_seen = "mugs" in sys.argv[2] and all(str(value).strip('"').startswith("file://") for value in values.values())
sys.exit(0 if as_seen else "that has changed")
DRIVER
