#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
#
# Airflow 3.3.2, universal-pathlib 0.3.10: which filesystem do the methods of an ObjectStoragePath use?
#
# Guess:  all of them use the one that Airflow attaches for the scheme (`path.fs`), whether or not the URL names a
#         connection.
# Seen:   only if the URL names one. Without it, `open`, `stat` and `fs` use Airflow's; `exists`, `read_bytes` and
#         `iterdir` use one that universal-pathlib makes by itself, which knows nothing of Airflow's default
#         connection, of the provider's settings or of `attach(..., fs=...)`. So one path says of one object that
#         it has 5 bytes and that it does not exist.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check uv==0.9.11
export AIRFLOW_HOME="$work/home"
"$work/venv/bin/uv" pip install --quiet --python "$work/venv/bin/python" apache-airflow==3.3.2 \
    apache-airflow-core==3.3.2 apache-airflow-task-sdk==1.3.2 universal-pathlib==0.3.10 fsspec==2026.9.0
seen=$("$work/venv/bin/python" 2>/dev/null <<'PROBE'
import contextlib
import io
from importlib.metadata import version

with contextlib.redirect_stdout(io.StringIO()):  # Airflow's log
    from airflow.sdk import ObjectStoragePath
    from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem


class Attached(MemoryFileSystem):
    """A storage with objects of its own, as another account would see them."""

    store, pseudo_dirs, cachable = {}, [""], False


def result(call):
    try:
        return call()
    except Exception as error:
        return type(error).__name__


print("airflow", version("apache-airflow"), "universal-pathlib", version("universal-pathlib"))
for conn_id, url in ((None, "memory://bucket/a.txt"), ("team", "memory://team@bucket/a.txt")):
    attach("memory", conn_id=conn_id, fs=Attached())
    path = ObjectStoragePath(url)
    path.fs.pipe_file(path.path, b"hello")
    calls = {
        "fs.exists": lambda: path.fs.exists(path.path),
        "stat": lambda: path.stat().st_size,
        "open": lambda: path.open("rb").read(),
        "exists": path.exists,
        "read_bytes": path.read_bytes,
        "iterdir": lambda: [each.name for each in path.parent.iterdir()],
    }
    print(url, *(f"{name}={result(call)}" for name, call in calls.items()))
PROBE
)
echo "$seen"
expected="airflow 3.3.2 universal-pathlib 0.3.10
memory://bucket/a.txt fs.exists=True stat=5 open=b'hello' exists=False read_bytes=FileNotFoundError iterdir=NotADirectoryError
memory://team@bucket/a.txt fs.exists=True stat=5 open=b'hello' exists=True read_bytes=b'hello' iterdir=['a.txt']"
[ "$seen" = "$expected" ] || { echo "that has changed: it was"; echo "$expected"; exit 1; }
