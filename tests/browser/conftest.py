# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A real Airflow, and a real browser that looks at it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import ClassVar

import pytest
import requests

from demo.stack import HOST, AirflowStack
from pictory_provider.simulator import Simulator

ROOT = Path(__file__).resolve().parents[2]
DAGS = Path(__file__).parent / "dags"
EXAMPLE = Path(__file__).resolve().parents[2] / "dags" / "pictory_text_to_image.py"
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
        "AIRFLOW_VAR_PICTORY_PICTURES": str(tmp_path_factory.mktemp("pictures")),
        "AIRFLOW_CONN_PICTORY_LOST": losing.connection_json(),
        "AIRFLOW_CONN_PICTORY_LIMITED": simulator.connection_json(credits_per_day=1),
        "AIRFLOW_CONN_PICTORY_WRONG_KEY": simulator.connection_json().replace(simulator.api_key, "pictai_wrong"),
    }
    dags = tmp_path_factory.mktemp("dags")
    for file in (DAGS / "browser_errors.py", EXAMPLE):
        (dags / file.name).symlink_to(file)
    with AirflowStack(tmp_path_factory.mktemp("browser") / "home", dags, env=env) as stack:
        yield stack


class AirflowOfMany(AirflowStack):
    """An Airflow with a prefix in its ``base_url``, and with users of different rights. It speaks as the admin."""

    USERS: ClassVar = {"boss": "admin", "reader": "viewer", "stranger": "viewer"}

    def __init__(self, home, dags, *, env):
        super().__init__(home, dags, env=env)
        self.url = f"http://{HOST}:{self.port}/airflow"
        self.passwords = {name: f"{name}-secret" for name in self.USERS}
        file = home.parent / "passwords.json"
        file.write_text(json.dumps(self.passwords))
        self.env |= {
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{n}:{role}" for n, role in self.USERS.items()),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(file),
            "AIRFLOW__CORE__AUTH_MANAGER": "tests.browser.managers.PerDag",
            "AIRFLOW__SCHEDULER__ALLOWED_RUN_ID_PATTERN": ".*",
            "PYTHONPATH": str(ROOT),
        } | dict(env)

    def log_in(self):
        self._session.headers["Authorization"] = f"Bearer {self.token('boss')}"

    def token(self, name):
        login = {"username": name, "password": self.passwords[name]}
        reply = requests.post(f"{self.url}/auth/token", json=login, timeout=30)
        assert reply.status_code == 201, reply.text
        return reply.json()["access_token"]

    def ask(self, path, name=None, **options):
        """Ask the pages' own application, as somebody or as nobody."""
        headers = {"Authorization": f"Bearer {self.token(name)}"} if name else {}
        return requests.get(f"{self.url}/pictory/{path}", headers=headers, timeout=60, **options)


@pytest.fixture(scope="session")
def gallery(simulator, losing, tmp_path_factory):
    """Return an Airflow that shows the pictures of one folder."""
    pictures = tmp_path_factory.mktemp("shown")
    env = {
        "AIRFLOW_CONN_PICTORY_DEFAULT": simulator.connection_json(),
        "AIRFLOW_CONN_PICTORY_LOST": losing.connection_json(),
        "AIRFLOW_CONN_PICTORY_WRONG_KEY": simulator.connection_json().replace(simulator.api_key, "pictai_wrong"),
        "AIRFLOW_VAR_PICTORY_PICTURES": str(pictures),
        "AIRFLOW__PICTORY__GALLERY_PATHS": str(pictures),
    }
    dags = tmp_path_factory.mktemp("dags")
    (dags / "browser_pictures.py").symlink_to(DAGS / "browser_pictures.py")
    with AirflowOfMany(tmp_path_factory.mktemp("gallery") / "home", dags, env=env) as stack:
        stack.pictures = pictures
        yield stack


@pytest.fixture(scope="session")
def chromium():
    """Return a headless Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=QUIET)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def page(chromium):
    """Return a page as large as a common laptop's."""
    return chromium.new_page(viewport={"width": 1440, "height": 900}, color_scheme="light")
