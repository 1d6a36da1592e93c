# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""``make release`` says what stops a release. CI rehearses the rest of it."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / ".ci" / "release.py"


@pytest.fixture(scope="module")
def problems():
    spec = spec_from_file_location("release", PROGRAM)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.problems


def urls(**urls):
    return {"urls": urls}


ADDRESS = urls(Source="https://github.com/apache/airflow")
CHANGELOG = "# Changelog\n\n## 0.2.0\n\nText.\n\n## 0.1.0\n"


def test_a_release_with_an_address_and_a_new_version_may_go_on(problems):
    readme = "[one](https://github.com/), [two](#two)"
    project = ADDRESS | {"readme": "README.md"}
    assert problems(project, "0.2.0", readme=readme, changelog=CHANGELOG, tags=["v0.1.0"]) == []


@pytest.mark.parametrize(
    "project",
    [
        {},
        urls(),
        urls(Source="http://github.com/apache/airflow"),
        urls(Source="https://example.com/pictory"),
        urls(Source="https://docs.example.org/pictory"),
        urls(Source="https://localhost/pictory"),
        urls(Source="https://github.com/<owner>/pictory"),
        urls(Source="https://github.com/OWNER/pictory"),
        urls(Source="https://github.com/your-name/pictory"),
        urls(Source="https://github.com"),
        urls(Source="https://github.com/apache/airflow", Documentation="https://example.org/docs"),
    ],
)
def test_a_release_without_a_real_address_is_stopped(problems, project):
    (problem,) = problems(project, "0.2.0", readme="", changelog=CHANGELOG, tags=[])
    assert "[project.urls]" in problem


@pytest.mark.parametrize(
    ("version", "changelog", "tags", "text"),
    [
        ("0.1.0", "## Unreleased\n", [], "begins with 'Unreleased' and the version is 0.1.0"),
        ("0.3.0", CHANGELOG, [], "begins with '0.2.0' and the version is 0.3.0"),
        ("0.2.0", CHANGELOG, ["v0.2.0"], "The tag v0.2.0 exists"),
    ],
)
def test_a_release_of_another_version_than_the_change_logs_is_stopped(problems, version, changelog, tags, text):
    (problem,) = problems(ADDRESS, version, readme="", changelog=changelog, tags=tags)
    assert text in problem


def test_a_page_of_the_package_index_with_dead_links_is_stopped(problems):
    readme = "[a page](docs/index.md)"
    (problem,) = problems(ADDRESS | {"readme": "README.md"}, "0.2.0", readme=readme, changelog=CHANGELOG, tags=[])
    assert "relative links" in problem
    project = ADDRESS | {"dynamic": ["readme"]}
    assert problems(project, "0.2.0", readme=readme, changelog=CHANGELOG, tags=[]) == []


def test_the_project_has_no_address_yet_so_the_program_stops_before_it_builds_anything():
    done = subprocess.run([sys.executable, PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("This cannot be released:\n- pyproject.toml has no [project.urls]: ")
