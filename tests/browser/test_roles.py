# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests of permissions with FAB's auth manager, which is common in production: what each role sees, and who is refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from urllib.parse import quote

import pytest

from tests.browser.conftest import DAGS, sign_in
from tests.browser.stacks import AirflowWithFab, env_of_gallery

SHOWN, HIDDEN = "browser_shown", "browser_hidden"
PROMPTS = {SHOWN: "for all to see", HIDDEN: "kept from some eyes"}


@dataclass(frozen=True)
class Sees:
    """What a user should see.

    :param tabs: whether Airflow shows the tabs, and the page in the navigation.
    :param dags: the DAGs whose pictures he sees.
    :param usage: whether he sees the account's usage.
    """

    tabs: bool = False
    dags: tuple[str, ...] = ()
    usage: bool = False


BOTH = (SHOWN, HIDDEN)
USERS = {
    "boss": Sees(tabs=True, dags=BOTH, usage=True),  # Admin
    "operator": Sees(tabs=True, dags=BOTH, usage=True),  # Op
    "writer": Sees(dags=BOTH),  # User
    "reader": Sees(dags=BOTH),  # Viewer
    "curator": Sees(tabs=True, dags=BOTH),  # Viewer, and `can read` on Plugins
    "painter": Sees(tabs=True, dags=(SHOWN,)),  # one DAG, and `can read` on Plugins
    "clerk": Sees(tabs=True),  # no XComs
    "outsider": Sees(),  # Public
}


@pytest.fixture(scope="module")
def airflow(simulator, tmp_path_factory):
    pytest.importorskip("airflow.providers.fab")
    pictures, dags = tmp_path_factory.mktemp("of_roles"), tmp_path_factory.mktemp("dags")
    (dags / "browser_roles.py").symlink_to(DAGS / "browser_roles.py")
    env = env_of_gallery(simulator, pictures)
    with AirflowWithFab(tmp_path_factory.mktemp("roles") / "home", dags, env=env) as stack:
        yield stack


@pytest.fixture(scope="module")
def runs(airflow):
    """Return the id of each DAG's run, quoted for a URL."""
    found = {dag: airflow.call("GET", f"/dags/{dag}/dagRuns")["dag_runs"] for dag in BOTH}
    return {dag: quote(run["dag_run_id"], safe="") for dag, (run,) in found.items()}


@pytest.fixture
def seen_by(airflow, open_page):
    """Return a function that opens a page for a user, or without a login."""

    def page(name=None, token=None):
        return open_page(airflow, airflow.token(name) if name else token)

    return page


def loaded_text(frame):
    """Wait until the page has loaded, and return its text."""
    frame.locator("#main:not([aria-busy])").wait_for()
    return frame.locator("#main").inner_text()


def dags_in(text):
    return tuple(dag for dag in BOTH if PROMPTS[dag] in text)


# What each role sees
@pytest.mark.parametrize("name", USERS)
def test_each_role_gets_only_the_files_and_the_usage_that_it_may_read(airflow, runs, name):
    for dag in BOTH:
        sha256 = airflow.xcom(dag, runs[dag], "drawn", key="image")["sha256"]
        path = f"file/{dag}/{runs[dag]}/drawn/-1/image/{sha256}"
        for each in (path, path.replace("file/", "thumbnail/", 1)):
            assert airflow.ask(each).status_code == 401
            assert airflow.ask(each, name).status_code == (200 if dag in USERS[name].dags else 403), dag
    assert airflow.ask("account/pictory_default").status_code == 401
    assert airflow.ask("account/pictory_default", name).ok == USERS[name].usage


@pytest.mark.parametrize("name", USERS)
def test_each_role_sees_only_its_tabs_and_the_pictures_of_its_dags(airflow, seen_by, runs, name):
    sees, page = USERS[name], seen_by(name)
    with page.expect_response(re.compile("/api/v2/plugins")) as listed:
        page.goto(airflow.url)
    assert listed.value.ok == sees.tabs
    if sees.tabs:
        page.get_by_role("link", name="Pictures").first.click()
        frame = page.frame_locator("iframe[title=Pictures]")
    else:
        page.get_by_role("link", name="Home").first.wait_for()
        assert page.get_by_role("link", name="Pictures").count() == 0
        page.goto(f"{airflow.url}/pictory/newest")
        frame = page
    assert dags_in(loaded_text(frame)) == sees.dags
    assert frame.locator(".account").count() == (1 if sees.usage else 0)
    for dag in BOTH:
        page.goto(f"{airflow.url}/pictory/run/{dag}/{runs[dag]}")
        assert dags_in(loaded_text(page)) == ((dag,) if dag in sees.dags else ())
        if dag not in sees.dags:
            assert "You may not see these pictures" in page.locator("#main").inner_text()
            assert page.locator(".card:not(.skeleton), img").count() == 0


@pytest.mark.parametrize("name", [name for name, sees in USERS.items() if sees.dags])
def test_the_link_of_a_failed_task_leads_each_role_to_the_reason(airflow, seen_by, runs, name):
    page = seen_by(name)
    task = f"{airflow.url}/dags/{SHOWN}/runs/{runs[SHOWN]}/tasks/failing"
    page.goto(f"{task}/details")
    link = page.get_by_role("link", name="Pictory image")
    link.wait_for()
    page.goto(link.evaluate("a => a.href"))
    if USERS[name].tabs:
        assert page.url == f"{task}/plugin/pictory-task"
        frame = page.frame_locator("iframe[title=Pictures]")
    else:
        assert page.url == f"{airflow.url}/pictory/task/{SHOWN}/{runs[SHOWN]}/failing/-1"
        frame = page
    assert "aspect_ratio" in loaded_text(frame)


# Users who are signed out


def test_a_user_who_is_not_signed_in_can_sign_in_and_returns_to_the_page(airflow, seen_by, runs):
    page = seen_by()
    page.goto(f"{airflow.url}/pictory/open/{SHOWN}/{runs[SHOWN]}/failing/-1")
    assert "You are signed out" in loaded_text(page)
    page.get_by_role("link", name="Sign in").click()
    page.get_by_label("Username").fill("reader")
    page.get_by_label("Password").fill(airflow.passwords["reader"])
    page.get_by_role("button", name="Sign In").click()
    assert "aspect_ratio" in loaded_text(page)
    assert "/pictory/task/" in page.url


def test_inside_airflows_ui_the_page_says_that_the_user_has_been_signed_out(airflow, seen_by):
    page = seen_by("boss")
    page.goto(f"{airflow.url}/plugin/pictory")
    frame = page.frame_locator("iframe[title=Pictures]")
    loaded_text(frame)
    sign_in(page.context, airflow, airflow.expired_token("boss"))
    frame.locator(".run h2 a").first.click()
    frame.get_by_text("You are signed out").wait_for()
    assert "Airflow says: 401" in loaded_text(frame)
    frame.get_by_role("button", name="Reload Airflow's page").click()
    page.get_by_label("Username").wait_for()  # the first navigation is aborted by the one to the form
    assert "/auth/login" in page.url


def test_the_page_of_a_finished_run_checks_the_login_when_it_becomes_visible_again(airflow, seen_by, runs):
    page = seen_by("reader")
    page.goto(f"{airflow.url}/pictory/run/{SHOWN}/{runs[SHOWN]}")
    assert dags_in(loaded_text(page)) == (SHOWN,)
    sign_in(page.context, airflow, airflow.expired_token("reader"))
    page.evaluate("() => document.dispatchEvent(new Event('visibilitychange'))")
    page.get_by_text("You are signed out").wait_for()
    assert dags_in(page.locator("#main").inner_text()) == ()


def test_a_token_that_airflow_does_not_accept_is_not_reported_as_missing_permissions(airflow, seen_by, runs):
    page = seen_by(token="nonsense")
    page.goto(f"{airflow.url}/pictory/newest")
    text = loaded_text(page)
    assert "You are signed out" in text
    assert "Invalid JWT token" in text
    assert "role" not in text
    page = seen_by("reader")
    page.goto(f"{airflow.url}/pictory/run/{SHOWN}/{runs[SHOWN]}")
    loaded_text(page)
    sign_in(page.context, airflow, "nonsense")
    page.evaluate("() => document.dispatchEvent(new Event('visibilitychange'))")
    page.get_by_text("You are signed out").wait_for()
    assert "role" not in page.locator("#main").inner_text()


def test_a_picture_that_fails_to_load_makes_the_page_check_the_login(airflow, seen_by, runs):
    page = seen_by("reader")
    page.goto(f"{airflow.url}/pictory/run/{SHOWN}/{runs[SHOWN]}")
    page.locator(".shot.seen img").wait_for()
    sign_in(page.context, airflow, airflow.expired_token("reader"))
    page.locator(".shot.seen img").evaluate("image => { image.src = `${image.src}?`; }")
    page.get_by_text("You are signed out").wait_for()


# The command `check`


def test_the_check_names_the_roles_that_see_no_tabs(airflow):
    program = [sys.executable, "-m", "pictory_provider", "check", "--output", "json"]
    done = subprocess.run(program, env=airflow.env, capture_output=True, text=True, check=False)
    (pages,) = [row for row in json.loads(done.stdout) if row["check"] == "pages"]
    assert pages["is"] == "?"
    assert "no tabs to the roles User, Viewer:" in pages["found"]
