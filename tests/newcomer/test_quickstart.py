# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Run the quickstart as written, in an empty environment: from ``pip install`` to a picture on disk.

Differences from a newcomer's machine: pip installs the wheel of this checkout with the tests' pins; there is no
account, so the page's way without one is used; ports are free ones; log servers, which listen on every address,
are not started.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from demo.stack import free_port

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "quickstart.md").read_text()
UV = Path(sys.executable).parent / "uv"


def blocks(kind):
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("newcomer")


@pytest.fixture(scope="module")
def env(folder, installing):
    """Return the environment of a newcomer: an empty Python environment, and wrappers for pip and airflow."""
    subprocess.run(
        [UV, "build", "--quiet", "--wheel", "--out-dir", folder / "dist", ROOT], env=installing, check=True
    )
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, folder / "venv"], check=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    programs = folder / "bin"
    programs.mkdir()
    shims = {
        "pip": f'words=$(echo "$*" | sed "s#airflow-provider-pictory#{wheel}[simulator]#")\n'
        f'exec {UV} pip $words --quiet --python "{folder}/venv/bin/python" --constraint "{ROOT}/constraints.txt"',
        "airflow": f'case "$1" in scheduler|triggerer) set -- "$@" --skip-serve-logs;; esac\n'
        f'exec "{folder}/venv/bin/airflow" "$@"',
    }
    for name, program in shims.items():
        (programs / name).write_text(f"#!/bin/sh\n{program}\n")
        (programs / name).chmod(0o755)
    own = {name: value for name, value in installing.items() if not name.startswith(("AIRFLOW", "PYTHON"))}
    url = f"http://127.0.0.1:{(port := free_port())}"
    return own | {
        "PATH": os.pathsep.join([str(programs), str(folder / "venv" / "bin"), os.environ["PATH"]]),
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "NO_PROXY": "127.0.0.1,localhost",
    }


@pytest.fixture(scope="module")
def shell(env, folder):
    def run(command):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            env=env,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


@pytest.fixture(scope="module")
def background(env, folder):
    """Return a function that starts a command in the background, in its own process group."""
    started = []

    def start(command):
        log = (folder / f"log-{len(started)}").open("w+")
        process = subprocess.Popen(
            command, shell=True, env=env, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
        started.append((process, log))
        return process, Path(log.name)

    yield start
    for process, log in reversed(started):
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, sign)
                process.wait(20)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
        log.close()


def until(seconds, what):
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(1)
    return found


def credits_left(text):
    return float(re.search(r"([\d,.]+) AI credits left", text)[1].replace(",", ""))


def test_the_quickstart_saves_a_picture(env, shell, background):
    install, _, check, run, again, run_tea, examples = blocks("bash")
    cover, tea = blocks("python")
    picture = Path(re.search(r'path="(/[^"]+)"', cover)[1])
    for file in (picture, Path(f"{picture}.json")):
        file.unlink(missing_ok=True)

    shell(install)
    simulate = "python -u -m pictory_provider.simulator --seconds 2"
    assert simulate.split(" --", maxsplit=1)[0].replace(" -u", "") in PAGE
    _, log = background(simulate)
    export = until(
        60, lambda: re.search(r"^export (AIRFLOW_CONN_PICTORY_DEFAULT)='(.+)'$", log.read_text(), re.MULTILINE)
    )
    env[export[1]] = export[2]
    assert "AI credits left" in shell(check)

    dags = Path(shell("airflow config get-value core dags_folder 2>/dev/null").strip())
    dags.mkdir(parents=True)
    assert "`cover.py`" in PAGE
    (dags / "cover.py").write_text(cover)

    background("airflow standalone")
    known = "airflow dags details cover >/dev/null 2>&1 && echo found || true"
    until(180, lambda: "found" in shell(known))
    shell(run)
    until(180, picture.exists)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert Path(f"{picture}.json").exists()

    def succeeded(dag_id):
        return len(re.findall("success", shell(f"airflow dags list-runs {dag_id} -o plain 2>/dev/null")))

    until(60, lambda: succeeded("cover") == 1)
    left = credits_left(shell(check))
    shell(again)
    until(120, lambda: succeeded("cover") == 2)
    assert credits_left(shell(check)) == left, "the second run buys nothing"

    assert "`tea.py`" in PAGE
    (dags / "tea.py").write_text(tea)
    shell(run_tea)
    until(180, lambda: succeeded("tea") == 1)
    assert credits_left(shell(check)) < left
    assert re.search(r"triggerer +\| ok", shell(check))

    shell(f"{examples}\npython -c 'import os; os.stat(os.environ[\"AIRFLOW__CORE__DAGS_FOLDER\"])'")
    listed = shell(f"{examples}\nairflow dags list -l -o plain 2>/dev/null")
    assert {"pictory_text_to_image", "recipe_nightly_cover"} <= set(re.findall(r"^\w+", listed, re.MULTILINE)), (
        listed
    )
