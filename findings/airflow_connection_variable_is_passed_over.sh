#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
#
# apache-airflow 3.3.2: what does a task see of AIRFLOW_CONN_SHOP if one field of its JSON is odd?
#
# Guess:  an error that names the field, at least for a port that is no number.
# Seen:   "The conn_id `shop` isn't defined", as if the variable were not set: for a port `84a`, for a password that is
#         a number, and for a key that Airflow does not know. With the field put right the connection is there.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check uv==0.9.11
"$work/venv/bin/uv" pip install --quiet --python "$work/venv/bin/python" --exclude-newer 2026-11-28 apache-airflow==3.3.2
mkdir "$work/dags"
export AIRFLOW_HOME="$work/home" AIRFLOW__CORE__LOAD_EXAMPLES=False AIRFLOW__CORE__DAGS_FOLDER="$work/dags"
cat >"$work/dags/shop.py" <<'DAG'
from airflow.sdk import DAG, BaseHook, task

with DAG("shop", schedule=None) as dag:

    @task
    def look():
        try:
            print("SEEN", BaseHook.get_connection("shop").host)
        except Exception as error:
            print("SEEN", type(error).__name__, error)

    look()

if __name__ == "__main__":
    dag.test()
DAG
"$work/venv/bin/airflow" db migrate >"$work/log" 2>&1
"$work/venv/bin/airflow" dags reserialize >>"$work/log" 2>&1
seen=0
look() { # name, JSON, what is expected of the line that is seen
    line=$(AIRFLOW_CONN_SHOP="$2" "$work/venv/bin/python" "$work/dags/shop.py" 2>&1 | grep -o 'SEEN .*' | head -1 || true)
    echo "$1: $line"
    grep -q "$3" <<<"$line" || seen=1
}
look "in order" '{"conn_type": "http", "host": "shop.example", "port": 84, "password": "12"}' 'shop.example'
look "port 84a" '{"conn_type": "http", "host": "shop.example", "port": "84a"}' "isn't defined"
look "a number as password" '{"conn_type": "http", "host": "shop.example", "password": 12}' "isn't defined"
look "an unknown key" '{"conn_type": "http", "host": "shop.example", "colour": "red"}' "isn't defined"
[ "$seen" = 0 ] || { echo "that has changed"; exit 1; }
