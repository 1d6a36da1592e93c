# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Take the pictures of Airflow that the docs show, from a running ``make ui``: ``make screenshots``."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import requests
from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
DAG = "pictory_text_to_image"
SHOWN = "pictures_of_every_kind"
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]


def main() -> None:
    """Start ``make ui``, run a DAG in it, and look at it with a browser."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("No Chromium on this machine: apt-get install chromium")
    shutil.rmtree(ROOT / ".demo", ignore_errors=True)  # pictures of an earlier run would be reused
    command = [sys.executable, "-u", "-m", "demo", "ui"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as ui:
        try:
            url = address(ui)
            run_id = finished_run(url)
            with sync_playwright() as playwright:
                chromium = playwright.chromium.launch(executable_path=browser, args=QUIET)
                page = chromium.new_page(viewport={"width": 1280, "height": 800}, color_scheme="light")
                take(page, url, run_id)
                chromium.close()
        finally:
            ui.terminate()
            print(ui.stdout.read() if ui.stdout else "")


def address(ui: subprocess.Popen[str]) -> str:
    """Return where ``make ui`` says that its Airflow is."""
    assert ui.stdout
    for line in ui.stdout:
        print(line, end="")
        if found := re.search(r"ready: (http://\S+)/dags", line):
            return found[1]
    raise SystemExit("make ui ended before it was ready")


def finished_run(url: str) -> str:
    """Run the DAG a few times, so that the newest runs have something to show, and return the last run's id."""
    token = requests.get(f"{url}/auth/token", timeout=10).json()["access_token"]

    def call(method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {token}"}
        reply = requests.request(method, f"{url}/api/v2/dags/{DAG}{path}", json=body, headers=headers, timeout=30)
        return dict(reply.json())

    while call("PATCH", "", {"is_paused": False}).get("is_paused") is not False:
        time.sleep(1)
    run_id = ""
    for prompt in ("A lighthouse at dawn, wide shot", "A quiet harbour", "A paper boat on calm water"):
        run_id = call("POST", "/dagRuns", {"logical_date": None, "conf": {"prompt": prompt}})["dag_run_id"]
        while call("GET", f"/dagRuns/{run_id}")["state"] not in ("success", "failed"):
            time.sleep(1)
    return run_id


def take(page: Page, url: str, run_id: str) -> None:
    """Take every picture."""
    page.goto(f"{url}/connections")
    page.get_by_role("button", name=re.compile("add connection", re.IGNORECASE)).first.click()
    page.get_by_role("combobox").first.click()
    page.keyboard.type("Pictory")
    page.get_by_role("option", name="pictory").first.click()
    page.get_by_role("textbox").first.fill("pictory_default")
    page.wait_for_timeout(1000)
    page.screenshot(path=IMAGES / "connection.png")
    page.set_viewport_size({"width": 1280, "height": 1420})
    page.get_by_role("button", name="Extra Fields", exact=True).click()
    page.wait_for_timeout(1000)
    page.screenshot(path=IMAGES / "connection-extra.png")
    page.set_viewport_size({"width": 1280, "height": 800})

    take_pictures(page, url)

    page.goto(f"{url}/dags/{DAG}/runs/{run_id}/tasks/wait/details")
    page.wait_for_timeout(3000)
    page.screenshot(path=IMAGES / "link.png")


def take_pictures(page: Page, url: str) -> None:
    """Take the tab *Pictures* of the run that ``make ui`` begins with, once all but one picture are there."""
    token = requests.get(f"{url}/auth/token", timeout=10).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    runs = f"{url}/api/v2/dags/{SHOWN}/dagRuns"
    run_id = requests.get(runs, headers=headers, timeout=30).json()["dag_runs"][0]["dag_run_id"]
    tasks = f"{runs}/{quote(run_id, safe='')}/taskInstances"
    while True:
        found = requests.get(tasks, headers=headers, timeout=30).json()["task_instances"]
        if sum(task["state"] not in ("success", "failed") for task in found) == 1:
            break
        time.sleep(1)
    page.set_viewport_size({"width": 1440, "height": 1080})
    page.goto(f"{url}/dags/{SHOWN}/runs/{quote(run_id, safe='')}/plugin/pictory-run")
    frame = page.frame_locator("iframe[title=Pictures]")
    frame.locator(".shot.seen").first.wait_for()
    page.wait_for_timeout(3000)
    page.screenshot(path=IMAGES / "gallery.png")
    page.goto(f"{url}/plugin/pictory")
    frame.locator(".shot.seen").first.wait_for()
    page.wait_for_timeout(3000)
    page.screenshot(path=IMAGES / "gallery-newest.png")
    page.set_viewport_size({"width": 1280, "height": 800})


if __name__ == "__main__":
    main()
