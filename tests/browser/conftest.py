# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Fixtures: a real Airflow and a real browser."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from demo.stack import AirflowStack
from pictory_provider.simulator import Simulator
from tests.browser.stacks import AirflowOfMany, env_of_gallery

DAGS = Path(__file__).parent / "dags"
OF_USERS = Path(__file__).resolve().parents[2] / "dags"
EXAMPLE = OF_USERS / "pictory_text_to_image.py"
CHOICE = OF_USERS / "recipes" / "recipe_choose_in_airflow.py"
PATIENCE = 120_000
"""How long a browser waits for what it is asked to wait for, in ms: the machine may be busy."""
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]


@pytest.fixture(scope="session")
def simulator():
    with Simulator(seconds=1) as pictory:
        yield pictory


@pytest.fixture(scope="session")
def losing():
    """Return an account that carries out every submission and closes the connection without a reply."""
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


@pytest.fixture(scope="session")
def gallery(simulator, losing, tmp_path_factory):
    """Return an Airflow whose pages show the pictures of one folder."""
    pictures = tmp_path_factory.mktemp("pictures")
    env = env_of_gallery(simulator, pictures) | {
        "AIRFLOW_CONN_PICTORY_LOST": losing.connection_json(),
        "AIRFLOW_CONN_PICTORY_WRONG_KEY": simulator.connection_json().replace(simulator.api_key, "pictai_wrong"),
    }
    dags = tmp_path_factory.mktemp("dags")
    for file in (DAGS / "browser_pictures.py", CHOICE):
        (dags / file.name).symlink_to(file)
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
    """Return a page of the size of a common laptop screen."""
    page = chromium.new_page(viewport={"width": 1440, "height": 900}, color_scheme="light")
    page.set_default_timeout(PATIENCE)
    return page


@pytest.fixture
def open_page(chromium):
    """Return a function that opens a page in a context of its own, signed in to an Airflow with a token if given."""
    contexts = []

    def open_(airflow=None, token=None, *, width=1280, height=900, scheme="light"):
        context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        if token:
            sign_in(context, airflow, token)
        return context.new_page()

    yield open_
    for context in contexts:
        context.close()


def sign_in(context, airflow, token):
    context.clear_cookies()
    context.add_cookies([{"name": "_token", "value": token, "url": airflow.url + "/"}])


@pytest.fixture(scope="session")
def npm_install(tmp_path_factory):
    """Return a function that installs a package with npm, and returns the folder that has its ``node_modules``."""
    npm = shutil.which("npm")

    def install(package):
        if npm is None:
            pytest.skip(f"no npm on this machine, which installs {package}")
        folder = tmp_path_factory.mktemp("npm")
        command = [npm, "install", "--prefix", folder, "--no-audit", "--no-fund", "--silent", package]
        subprocess.run(command, check=True, cwd=folder)
        return folder

    return install
