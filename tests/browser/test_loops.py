# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests that the tabs show the picture of every iteration of a loop (Airflow 3.4 and later)."""

from __future__ import annotations

import re

import pytest
from airflow.sdk.definitions.decorators.task_group import _TaskGroupFactory

from demo.stack import AirflowStack
from tests.browser.conftest import DAGS
from tests.browser.stacks import env_of_gallery
from tests.browser.test_gallery import pictures_of

pytestmark = pytest.mark.skipif(not hasattr(_TaskGroupFactory, "loop"), reason="this Airflow has no loops")
DAG = "browser_loop"


@pytest.fixture(scope="module")
def airflow(simulator, tmp_path_factory):
    pictures, dags = tmp_path_factory.mktemp("looped"), tmp_path_factory.mktemp("dags")
    (dags / "browser_loop.py").symlink_to(DAGS / "browser_loop.py")
    env = env_of_gallery(simulator, pictures)
    with AirflowStack(tmp_path_factory.mktemp("loops") / "home", dags, env=env) as stack:
        yield stack


@pytest.fixture(scope="module")
def run(airflow):
    run_id = airflow.trigger(DAG)
    assert set(airflow.finish(DAG, run_id).values()) == {"success"}
    return run_id


@pytest.fixture
def frame_of(airflow, open_page):
    """Return a function that opens a page of Airflow, and returns the frame of its tab *Pictures*."""
    page = open_page(airflow, airflow._session.headers["Authorization"].removeprefix("Bearer "))

    def open_tab(path):
        page.goto(f"{airflow.url}/dags/{DAG}/runs/{path}")
        return pictures_of(page)

    return open_tab


def test_the_tab_of_the_run_shows_the_picture_and_the_file_of_every_iteration(frame_of, run):
    frame = frame_of(f"{run}/plugin/pictory-run")
    frame.locator(".shot.seen img").nth(17).wait_for()
    names = frame.locator(".card .name").all_inner_texts()
    expected = {f"draw, iteration {number}" for number in range(3)}
    expected |= {f"jugs [{index}], iteration {number}" for number in range(3) for index in range(2)}
    assert expected <= {name.removeprefix("again.") for name in names}
    prompts = frame.locator(".card .prompt").all_inner_texts()
    assert sorted(prompts) == sorted(
        f"{vessel}, take {number}"
        for number in range(3)
        for vessel in ("A vase", "A tall jug", "A low jug", "A bowl", "A wide bowl", "A cup")
    )
    sources = frame.locator(".card img").evaluate_all("images => images.map((image) => image.src)")
    of_files = [source for source in sources if "/pictory/thumbnail/" in source]
    assert len(of_files) == len(set(of_files)) == 15
    assert re.search(r"10\.8\s+AI credits used", frame.locator(".figures").inner_text())


@pytest.mark.parametrize(("task", "cards"), [("again.draw", 3), ("again.jugs", 6), ("again.bowls", 6)])
def test_the_tab_of_a_task_shows_all_its_iterations(frame_of, run, task, cards):
    frame = frame_of(f"{run}/tasks/{task}/plugin/pictory-task")
    frame.locator(".shot.seen img").nth(cards - 1).wait_for()
    assert frame.locator(".card").count() == cards
