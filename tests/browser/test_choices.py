# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests that a person sees the candidates of a task in Airflow, and that the one they click is published."""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.parse import quote

import pytest

DAG = "recipe_choose_in_airflow"


@pytest.fixture
def question(gallery, open_page):
    """Return a function that waits for the question of a run, and opens it as a user."""
    page = open_page(gallery, gallery.token("boss"))

    def open_(run_id):
        of_run = f"/dags/{DAG}/runs/{quote(run_id, safe='')}"
        for _ in gallery.until(120):
            states = {task["task_id"]: task["state"] for task in gallery.tasks(DAG, run_id)}
            if states["choose"] in ("awaiting_input", "deferred"):
                break
        else:
            raise AssertionError(f"nobody is asked: {states}")
        page.goto(f"{gallery.url}{of_run}/tasks/choose/required_actions")
        page.locator("img[alt='picture 2']").wait_for()
        return page

    return open_


def widths(page):
    """Return the widths of the pictures that the page shows, once all are loaded."""
    pictures = page.locator("img[alt^='picture ']")
    for picture in pictures.all():
        picture.evaluate("image => image.decode()")  # raises if the picture cannot be loaded
    return pictures.evaluate_all("images => images.map((image) => image.naturalWidth)")


def choose(page, option):
    page.get_by_role("button", name=option, exact=True).click()


def clear(gallery, run_id, *task_ids):
    gallery.call(
        "POST",
        f"/dags/{DAG}/clearTaskInstances",
        dag_run_id=run_id,
        task_ids=list(task_ids),
        only_failed=False,
        dry_run=False,
    )


def events(gallery, run_id):
    """Return the extras of the asset events of a run, the oldest first."""
    found = gallery.call("GET", f"/assets/events?source_dag_id={DAG}&source_run_id={quote(run_id, safe='')}")
    return [event["extra"] for event in sorted(found["asset_events"], key=lambda event: event["id"])]


def test_the_clicked_candidate_is_published_with_who_chose_it(gallery, simulator, question):
    run_id = gallery.trigger(DAG)
    page = question(run_id)
    images = gallery.xcom(DAG, run_id, "candidates", "images")
    assert widths(page) == [1280] * len(images)
    bought = len(simulator.submissions)
    choose(page, "2")
    assert set(gallery.finish(DAG, run_id).values()) == {"success"}
    image = images[1]
    (event,) = events(gallery, run_id)
    details = gallery.call("GET", f"/dags/{DAG}/dagRuns/{run_id}/taskInstances/choose/-1/hitlDetails")
    assert {name: event[name] for name in ("path", "sha256", "job_id", "candidate", "chosen_by")} == {
        "path": str(gallery.pictures / "choice" / f"{run_id}.2.png"),
        "sha256": hashlib.sha256(Path(image["path"]).read_bytes()).hexdigest(),
        "job_id": image["job_id"],
        "candidate": 2,
        "chosen_by": {"id": "boss", "name": "boss"},
    }
    assert event["chosen_at"][:19] == details["responded_at"][:19]

    clear(gallery, run_id, "publish")
    gallery.finish(DAG, run_id)
    assert events(gallery, run_id) == [event] * 2

    Path(image["path"]).write_bytes(b"another picture")
    clear(gallery, run_id, "publish")
    assert gallery.finish(DAG, run_id)["publish"] == "failed"
    assert "is not the picture that was shown" in gallery.task_log(DAG, run_id, "publish", try_number=3)
    assert events(gallery, run_id) == [event] * 2
    assert len(simulator.submissions) == bought


def test_reused_candidates_are_shown_too_and_without_a_choice_none_is_published(gallery, simulator, question):
    run_id = gallery.trigger(DAG)
    question(run_id)
    bought = len(simulator.submissions)
    clear(gallery, run_id, "candidates", "show", "choose", "publish")
    page = question(run_id)
    images = gallery.xcom(DAG, run_id, "candidates", "images")
    assert {image["url"] for image in images} == {None}
    assert widths(page) == [1280] * len(images)
    choose(page, "None of these")
    assert gallery.finish(DAG, run_id)["publish"] == "skipped"
    assert gallery.run_state(DAG, run_id) == "success"
    assert events(gallery, run_id) == []
    assert len(simulator.submissions) == bought
