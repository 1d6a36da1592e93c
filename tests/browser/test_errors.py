# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests that the log of a failed task shows the important texts at 1440 x 900, without scrolling.

With ``PICTORY_SCREENSHOTS=1`` they also retake the screenshots in the docs.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api")
ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs" / "images" / "errors"
TEXTS = {
    "lost_reply": (
        "It is unknown whether Pictory accepted this request",
        "exactly the price of this picture",
        "To buy the picture again, clear the task.",
        "DownloadImageOperator(url=",
        "Airflow does not retry this task: a retry could buy the picture a second time.",
        "The connection is 'pictory_lost'.",
    ),
    "wrong_key": (
        "Pictory refused the API key (401).",
        "This request cost nothing.",
        "https://app.pictory.ai/api-access",
        "Airflow does not retry this task: fix the connection first.",
        "The connection is 'pictory_wrong_key'.",
    ),
    "over_budget": (
        "The picture costs 2 AI credits as listed, which is over a limit",
        "credits_per_day leaves",
        "It begins anew at",
        "Airflow does not retry this task: the limit would be the same.",
        "The connection is 'pictory_limited'.",
    ),
    "failed_job": (
        "failed at Pictory",
        "get_credit_usage()",
        "change the prompt",
        "Airflow does not retry this task: the job has ended.",
    ),
    "stuck_job": (
        "the deadline was 4 s",
        "It keeps running at Pictory",
        "PictoryJobSensor(job_id=",
        "the retry polls the job once",
    ),
    "empty_xcom": ("job_id is missing", "No request was made.", "check that task's state"),
    "no_connection": (
        "Airflow has no connection 'pictory_nowhere'",
        "No request was made.",
        "AIRFLOW_CONN_PICTORY_NOWHERE",
    ),
}


@pytest.fixture(scope="module")
def run(airflow):
    """Return a run in which every task of ``TEXTS`` has failed."""
    run_id = airflow.trigger("browser_errors")
    states = airflow.finish("browser_errors", run_id)
    assert {states[task_id] for task_id in TEXTS} == {"failed"}
    return run_id


@pytest.mark.parametrize("task_id", TEXTS)
def test_the_texts_of_an_error_are_visible_without_scrolling(airflow, page, run, task_id):
    page.goto(f"{airflow.url}/dags/browser_errors/runs/{run}/tasks/{task_id}?try_number=1")
    page.get_by_text(TEXTS[task_id][0], exact=False).first.wait_for()
    with suppress(playwright.Error):  # the page scrolls first; what cannot be seen after all is named below
        page.wait_for_function(f"texts => texts.every({IN_VIEW})", arg=TEXTS[task_id])
    if os.environ.get("PICTORY_SCREENSHOTS"):
        for path, neutral in ((str(ROOT), "/opt/airflow"), (sys.base_prefix, "/usr")):
            page.evaluate(REPLACE_TEXT, [path, neutral])
        IMAGES.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=IMAGES / f"{task_id.replace('_', '-')}.png")
    assert [text for text in TEXTS[task_id] if not is_in_view(page, text)] == []


REPLACE_TEXT = """([path, neutral]) => {
    const nodes = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node; (node = nodes.nextNode());) {
        if (node.data.includes(path)) node.data = node.data.replaceAll(path, neutral);
    }
}"""
IN_VIEW = """text => {
    const nodes = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node; (node = nodes.nextNode());) {
        const at = node.data.indexOf(text);
        if (at < 0) continue;
        const range = document.createRange();
        range.setStart(node, at);
        range.setEnd(node, at + text.length);
        const isSeen = rect => [rect.left + 1, rect.right - 1].every(x => {
            const seen = document.elementFromPoint(x, rect.top + rect.height / 2);
            return seen !== null && node.parentElement.contains(seen);
        });
        if ([...range.getClientRects()].every(isSeen)) return true;
    }
    return false;
}"""


def is_in_view(page, text):
    """Whether a text is fully visible: no other element covers it, and it is not cut off."""
    return page.evaluate(IN_VIEW, text)
