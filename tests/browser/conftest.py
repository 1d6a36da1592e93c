# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A real Airflow, and a real browser that looks at it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from demo.stack import AirflowStack
from pictory_provider.simulator import Simulator

DAGS = Path(__file__).parent / "dags"
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]


@pytest.fixture(scope="session")
def simulator():
    with Simulator(seconds=1) as pictory:
        yield pictory


@pytest.fixture(scope="session")
def losing():
    """Return an account whose replies to submissions are lost: all is carried out, and the connection closes."""
    with Simulator(seconds=0) as pictory:
        pictory.script("submit", "drop-after", times=-1)
        yield pictory


@pytest.fixture(scope="session")
def airflow(simulator, losing, tmp_path_factory):
    env = {
        "AIRFLOW_CONN_PICTORY_DEFAULT": simulator.connection_json(),
        "AIRFLOW_CONN_PICTORY_LOST": losing.connection_json(),
        "AIRFLOW_CONN_PICTORY_WRONG_KEY": simulator.connection_json().replace(simulator.api_key, "pictai_wrong"),
    }
    with AirflowStack(tmp_path_factory.mktemp("browser") / "home", DAGS, env=env) as stack:
        yield stack


@pytest.fixture(scope="session")
def page():
    """Return a page of a headless Chromium, as large as a common laptop's."""
    sync_api = pytest.importorskip("playwright.sync_api")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=QUIET)
        yield chromium.new_page(viewport={"width": 1440, "height": 900}, color_scheme="light")
        chromium.close()
