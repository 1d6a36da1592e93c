# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests of the tab *Pictures* with XComs in object storage, and for runs that failed before any picture."""

from __future__ import annotations

import re
import shutil
from urllib.parse import quote

import pytest

from tests.browser.conftest import DAGS
from tests.browser.stacks import AirflowOfMany, env_of_gallery
from tests.browser.test_gallery import pictures_of
from tests.provider.backends import OBJECT_STORAGE

DAG = "browser.pictures-backend"


@pytest.fixture(scope="module")
def gallery(simulator, tmp_path_factory):
    """Return an Airflow that stores XComs of 100 bytes and more in a folder."""
    pictures, dags = tmp_path_factory.mktemp("pictures"), tmp_path_factory.mktemp("dags")
    xcoms = tmp_path_factory.mktemp("xcoms")
    (dags / "browser_backend.py").symlink_to(DAGS / "browser_backend.py")
    env = env_of_gallery(simulator, pictures) | {
        "AIRFLOW__CORE__XCOM_BACKEND": OBJECT_STORAGE,
        "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH": f"file://{xcoms}",
        "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_THRESHOLD": "100",
    }
    with AirflowOfMany(tmp_path_factory.mktemp("backend") / "home", dags, env=env) as stack:
        stack.xcoms = xcoms
        yield stack


@pytest.fixture(scope="module")
def run(gallery):
    run_id = gallery.trigger(DAG)
    assert set(gallery.finish(DAG, run_id).values()) == {"success"}
    return run_id


@pytest.fixture
def open_tab(gallery, open_page):
    """Return a function that opens the tab of a run or of a task, and returns its frame and the URLs requested."""

    def open_(dag, run_id, task=""):
        page = open_page(gallery, gallery.token("boss"))
        urls = []
        page.on("request", lambda request: urls.append(request.url))
        path = f"/tasks/{task}/plugin/pictory-task" if task else "/plugin/pictory-run"
        page.goto(f"{gallery.url}/dags/{dag}/runs/{quote(run_id, safe='')}{path}")
        frame = pictures_of(page)
        frame.locator(".figures, .message").first.wait_for()
        return frame, urls

    return open_


def figures(frame):
    return re.sub(r"\s+", " ", frame.locator(".figures").inner_text())


def test_pictures_and_credits_from_object_storage_are_shown_with_few_requests(gallery, open_tab, run):
    frame, urls = open_tab(DAG, run)
    assert figures(frame).startswith("71 pictures 42.6 AI credits used 1 failed")
    assert "69 of 70 · 1 failed · 41.4 credits" in frame.locator(".batch").inner_text()
    frame.locator(".shot.seen img").first.wait_for()
    assert frame.locator(".card").count() == 50
    assert [url for url in urls if "xcomEntries" in url] == []
    keys = [url.rpartition("/")[2] for url in urls if "/pictory/xcom/" in url]
    assert len(keys) == len(set(keys)) + keys.count("pictory_request") - 1 <= 10


def test_a_row_without_a_picture_comes_first_and_each_card_names_its_file(gallery, open_tab, run):
    frame, _ = open_tab(DAG, run, "batch")
    names = frame.locator(".card .name").all_inner_texts()
    assert names == [f"bicycle-{number}.png" for number in (69, *range(49))]
    assert frame.locator(".card").first.locator(".none.failed").count() == 1
    frame.get_by_role("button", name="Next").click()
    frame.get_by_text("A bicycle number 49", exact=True).wait_for()
    assert frame.locator(".card .name").all_inner_texts() == [f"bicycle-{number}.png" for number in range(49, 69)]


def test_a_saved_picture_is_loaded_from_its_folder(gallery, open_tab, run):
    frame, urls = open_tab(DAG, run, "single")
    frame.locator(".shot.seen img").wait_for()
    assert [url for url in urls if "/pictory/thumbnail/" in url]
    assert [url for url in urls if "/images/user/" in url] == []


def test_the_link_of_a_sensor_that_ended_in_the_triggerer_leads_to_the_picture(gallery, run):
    links = gallery.call("GET", f"/dags/{DAG}/dagRuns/{quote(run, safe='')}/taskInstances/wait/links")
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/images/.*\.png", links["extra_links"]["Pictory image"])


def test_xcoms_are_returned_only_to_users_who_may_read_them(gallery, run):
    path = f"xcom/{DAG}/{quote(run, safe='')}/batch/-1"
    assert gallery.ask(f"{path}/progress").status_code == 401
    assert gallery.ask(f"{path}/progress", "stranger").status_code == 403
    assert gallery.ask(f"{path}/progress", "reader").json()["value"]["saved"] == 69
    assert gallery.ask(f"{path}/pictures_1", "reader").json()["value"][18]["path"].endswith("bicycle-68.png")
    assert gallery.ask(f"{path}/pictures_2", "reader").status_code == 404
    assert gallery.ask(f"{path.replace('batch', 'generate')}/return_value", "reader").status_code == 410


def test_an_unavailable_storage_is_reported_and_the_page_polls_until_it_is_back(gallery, open_tab, run):
    folder = gallery.xcoms / DAG
    folder.rename(gallery.xcoms / "away")
    folder.write_text("not a folder")
    try:
        frame, _ = open_tab(DAG, run)
        assert figures(frame).startswith("? pictures ? AI credits used 4 tasks not read")
        assert "is not known here" in frame.locator(".batch").inner_text()
        assert "does not answer" in frame.locator(".batch").inner_text()
        assert frame.locator(".card .none.unread").count() == 3
    finally:
        folder.unlink()
        (gallery.xcoms / "away").rename(folder)
    frame.get_by_text("69 of 70").wait_for()
    frame.locator(".unread").first.wait_for(state="detached")
    assert figures(frame).startswith("71 pictures 42.6 AI credits used")


def test_a_record_that_is_gone_is_reported_and_counted_as_not_read(gallery, open_tab, run):
    (of_single,) = gallery.xcoms.glob(f"{DAG}/*/single")
    shutil.copytree(of_single, gallery.xcoms / "copy")
    shutil.rmtree(of_single)
    try:
        frame, _ = open_tab(DAG, run)
        assert figures(frame).startswith("≥ 70 pictures ≥ 42 AI credits used 1 task not read")
        card = frame.locator(".card", has=frame.locator(".name:text-is('single')"))
        assert "the XCom backend no longer has it" in card.inner_text()
        assert "credits unknown" in card.inner_text()
    finally:
        (gallery.xcoms / "copy").rename(of_single)


def test_a_run_that_failed_before_any_picture_says_so_and_which_task_failed(gallery, open_tab):
    run_id = gallery.trigger("browser_failed_before")
    gallery.finish("browser_failed_before", run_id)
    for task in ("", "generate"):
        frame, _ = open_tab("browser_failed_before", run_id, task)
        text = frame.locator(".message").inner_text()
        assert "The run failed before any picture" in text
        assert "Failed: load." in text


def test_a_batch_that_failed_before_any_picture_says_so_and_why(gallery, open_tab):
    run_id = gallery.trigger("browser_bad_table")
    gallery.finish("browser_bad_table", run_id)
    frame, _ = open_tab("browser_bad_table", run_id)
    text = frame.locator(".batch").inner_text()
    assert "It failed before any picture." in text
    assert "1 of 1 row cannot be bought as it is." in text
    assert "Nothing was begun" not in text


def test_a_plan_is_read_from_the_backend(gallery, open_tab):
    run_id = gallery.trigger("browser_planned")
    gallery.finish("browser_planned", run_id)
    frame, _ = open_tab("browser_planned", run_id)
    assert "Plan: 1 of 1 to buy for 2 credits listed" in frame.locator(".batch").inner_text()
