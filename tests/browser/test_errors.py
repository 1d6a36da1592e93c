# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The worst minute: what the log of a failed task shows at 1440 x 900, before anyone has scrolled.

With ``PICTORY_SCREENSHOTS=1`` the pictures in the docs are taken anew.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs" / "images" / "errors"
SHOWN = {
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
        "Airflow does not retry this task: someone must mend the connection first.",
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
        "Airflow does not retry this task: looking again changes nothing.",
    ),
    "stuck_job": ("the deadline was 4 s", "It runs on at Pictory", "PictoryJobSensor(job_id=", "looks once"),
    "empty_xcom": ("job_id is missing", "No request was made.", "look at that task's state"),
    "no_connection": (
        "Airflow has no connection 'pictory_nowhere'",
        "No request was made.",
        "AIRFLOW_CONN_PICTORY_NOWHERE",
    ),
}


@pytest.fixture(scope="module")
def run(airflow):
    """Return the run in which each of the tasks has failed."""
    run_id = airflow.trigger("browser_errors")
    states = airflow.finish("browser_errors", run_id)
    assert {states[task_id] for task_id in SHOWN} == {"failed"}
    return run_id


@pytest.mark.parametrize("task_id", SHOWN)
def test_an_error_is_read_without_scrolling(airflow, page, run, task_id):
    page.goto(f"{airflow.url}/dags/browser_errors/runs/{run}/tasks/{task_id}?try_number=1")
    page.get_by_text(SHOWN[task_id][0], exact=False).first.wait_for(timeout=30_000)
    page.wait_for_timeout(1_500)  # the page scrolls to the end of the log, and then stands still
    if os.environ.get("PICTORY_SCREENSHOTS"):
        for here, anywhere in ((str(ROOT), "/opt/airflow"), (sys.base_prefix, "/usr")):
            page.evaluate(SAY_INSTEAD, [here, anywhere])
        IMAGES.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=IMAGES / f"{task_id.replace('_', '-')}.png")
    unseen = [text for text in SHOWN[task_id] if not is_in_view(page, text)]
    assert unseen == []


SAY_INSTEAD = """([here, anywhere]) => {
    const nodes = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node; (node = nodes.nextNode());) {
        if (node.data.includes(here)) node.data = node.data.replaceAll(here, anywhere);
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
    """Whether all of a text can be seen: nothing lies over it, and no edge cuts it."""
    return page.evaluate(IN_VIEW, text)
