# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests of the installed wheel, which ``make matrix`` runs with every supported Airflow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import pictory_provider
from pictory_provider.provider_info import CONNECTION_FIELDS, UI_FIELD_BEHAVIOUR
from pictory_provider.simulator import Simulator

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(__file__).parent / "programs"


def run_program(program: str, *arguments: object, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, PROGRAMS / program, *map(str, arguments)],
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.mark.skipif("PICTORY_MATRIX" not in os.environ, reason="only `make matrix` installs the wheel")
def test_the_tests_import_the_installed_wheel():
    assert Path(pictory_provider.__file__).is_relative_to(sys.prefix)
    assert not list(ROOT.glob("pictory_provider"))


def test_no_module_uses_anything_deprecated():
    imported = run_program("import_everything.py").split()
    assert "pictory_provider.operators.pictory" in imported
    assert "pictory_provider.simulator.server" in imported


def test_the_connection_form_has_exactly_our_fields():
    form = json.loads(run_program("connection_form.py").splitlines()[-1])

    assert (form["connection_type"], form["hook_name"]) == ("pictory", "Pictory")
    assert set(form["extra_fields"]) == set(CONNECTION_FIELDS)
    for name, field in CONNECTION_FIELDS.items():
        assert field["description"] in (
            form["extra_fields"][name]["description"],
            form["extra_fields"][name]["schema"].get("description"),
        )
    standard = form["standard_fields"]
    assert standard["password"]["title"] == UI_FIELD_BEHAVIOUR["relabeling"]["password"]
    assert standard["host"]["placeholder"] == UI_FIELD_BEHAVIOUR["placeholders"]["host"]
    assert all(standard[name]["hidden"] for name in ("login", "url_schema", "port"))


@pytest.fixture(scope="module")
def airflow_home(tmp_path_factory):
    home = tmp_path_factory.mktemp("airflow")
    made = subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"],
        env=os.environ | {"AIRFLOW_HOME": str(home), "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    return home


def test_example_dags_run_and_wait_in_dag_test_and_what_exists_is_not_bought_again(airflow_home, tmp_path):
    covers = "recipe_covers_for_articles"
    examples = (
        "pictory_batch",
        "pictory_reference_image",
        "pictory_submit_here_wait_there",
        "pictory_text_to_image",
        "pictory_publish_cover",
    )
    with Simulator(seconds=2) as pictory:
        run_program(
            "run_dags.py",
            tmp_path / "states.json",
            ROOT / "dags",
            *examples,
            covers,
            covers,
            AIRFLOW_HOME=str(airflow_home),
            AIRFLOW__CORE__DAGS_FOLDER=str(ROOT / "dags"),
            AIRFLOW_CONN_PICTORY_DEFAULT=pictory.connection_json(),
            AIRFLOW_VAR_PICTORY_PICTURES=str(tmp_path),
            AIRFLOW_VAR_PICTORY_REFERENCE_IMAGE=pictory.reference_image_url,
        )
        jobs, polled = list(pictory.account.jobs), Counter(poll.path.rpartition("/")[2] for poll in pictory.polls)

    states = json.loads((tmp_path / "states.json").read_text())
    assert states == {example: ["success"] for example in examples} | {covers: ["success", "success"]}
    pictures = [path.name for path in tmp_path.rglob("*.png")]
    assert len(jobs) == len(pictures) == 2 + 1 + 1 + 1 + 1 + 2 + 0
    assert {"rain.png", "tea.png"} < set(pictures)
    assert sum(polled[cover] for cover in jobs[-3:]) >= 2 * 3  # before deferring, and by the trigger
