# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Compare the tab *Pictures* with that of an earlier commit: bytes and seconds of a page, CPU and memory.

``python -m benchmarks.gallery 6e2db77`` shows 50 saved PNG files of 1.2 MB and more in a real Airflow, in a
Chromium whose network has 20 Mbit/s, and scrolls to the end: with an empty cache of the browser and of the server,
and a second time. It also requests one file of 40 MiB 120 times at once.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import requests
from playwright.sync_api import sync_playwright

from benchmarks.copies import SIZE, photograph
from benchmarks.suites import ROOT, clone
from demo.stack import AirflowStack

if TYPE_CHECKING:
    import psutil
    from playwright.sync_api import BrowserContext, CDPSession, Page

PICTURES = 50
SMALLEST = 1_200_000
LARGE = 40 * 1024 * 1024
AT_ONCE = 120
BYTES_PER_SECOND = 20_000_000 / 8
LATENCY = 20
"""Milliseconds until the first byte of a reply."""
DAG_ID = "benchmark_gallery"
DAG = f"""
import json
from pathlib import Path
from airflow.sdk import DAG, BaseOperator

class GenerateImageBatchOperator(BaseOperator):  # the pages go by this name
    def execute(self, context):
        records = json.loads(Path("{{records}}").read_text())
        push = context["ti"].xcom_push
        push(key="pictures_0", value=records[:{PICTURES}])
        push(key="pictures_1", value=records[{PICTURES}:])
        push(key="progress", value={{{{"of": {PICTURES}, "saved": {PICTURES}, "ai_credits_used": 100}}}})

with DAG("{DAG_ID}", schedule=None):
    GenerateImageBatchOperator(task_id="batch")
"""
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]


class Visit(NamedTuple):
    """What one visit of the page has cost.

    :param size: bytes of the replies with pictures, with their headers.
    :param all_size: bytes of all replies.
    :param seconds: until all pictures were shown.
    """

    size: int
    all_size: int
    seconds: float


class Load(NamedTuple):
    """What many requests at once have cost.

    :param cpu: seconds of the API server.
    :param memory: bytes that it used more than before, at most.
    """

    cpu: float
    memory: int


def main() -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gallery", description=__doc__)
    parser.add_argument("commit", help="the earlier commit")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        folder = Path(home)
        records = make_pictures(folder / "pictures")
        sizes = [record["size"] for record in records[:PICTURES]]
        print(f"{PICTURES} files of {min(sizes):,} to {max(sizes):,} bytes, {sum(sizes) / 1e6:.1f} MB", flush=True)
        print("| commit | visit | bytes of pictures | bytes in all | seconds |\n|---|---|---|---|---|", flush=True)
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        loads = {}
        for name, tree in ((options.commit, clone(options.commit, folder / "then")), ("this one", ROOT)):
            own = folder / name.replace(" ", "_")
            with playwright.chromium.launch_persistent_context(  # with a cache on disk, as a user's browser has
                own / "browser", executable_path=chromium, args=QUIET, viewport={"width": 1280, "height": 900}
            ) as browser:
                loads[name] = measure(name, tree, own, folder / "pictures", records, browser)
        print(f"| commit | {AT_ONCE} requests for {LARGE / 2**20:.0f} MiB | CPU | memory |\n|---|---|---|---|")
        for name, each in loads.items():
            for which, load in each.items():
                print(f"| {name} | {which} | {load.cpu:.1f} s | {load.memory / 2**20:.0f} MiB |", flush=True)
    return 0


def make_pictures(folder: Path) -> list[dict[str, Any]]:
    """Save pictures that compress as photographs do, and one large file; return their records."""
    folder.mkdir()
    records = []
    for number in range(PICTURES):
        data = photograph(number)
        assert len(data) >= SMALLEST, len(data)
        records.append(record(folder / f"{number}.png", data))
    head = b"\x89PNG\r\n\x1a\n"
    records.append(record(folder / "large.png", head + random.Random(0).randbytes(LARGE - len(head))))
    return records


def record(path: Path, data: bytes) -> dict[str, Any]:
    """Write a file, and return the image record of it."""
    path.write_bytes(data)
    return {
        "job_id": path.stem,
        "status": "completed",
        "url": None,
        "width": SIZE[0],
        "height": SIZE[1],
        "ai_credits_used": 2.0,
        "prompt": f"A bicycle number {path.stem} against a white wall, studio light",
        "model": "seedream3.0",
        "path": str(path),
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def measure(
    name: str, tree: Path, folder: Path, pictures: Path, records: list[dict[str, Any]], browser: BrowserContext
) -> dict[str, Load]:
    """Print what two visits cost with one commit, and return what many requests cost."""
    dags = folder / "dags"
    dags.mkdir(parents=True)
    (folder / "records.json").write_text(json.dumps(records))
    (dags / "gallery.py").write_text(DAG.format(records=folder / "records.json"))
    env = {"AIRFLOW__PICTORY__GALLERY_PATHS": str(pictures), "PYTHONPATH": str(tree)}
    # `python -m airflow` imports the package from its working directory.
    with chdir(tree), AirflowStack(folder / "home", dags, env=env) as airflow:
        run_id = airflow.trigger(DAG_ID)
        airflow.finish(DAG_ID, run_id)
        path = f"{airflow.url}/pictory/run/{DAG_ID}/{quote(run_id, safe='')}"
        token = airflow._session.headers["Authorization"].removeprefix("Bearer ")  # noqa: SLF001
        requests.get(path, headers={"Authorization": f"Bearer {token}"}, timeout=60).raise_for_status()
        browser.add_cookies([{"name": "_token", "value": token, "url": airflow.url + "/"}])
        for visit in ("first", "second"):
            cost = look(browser, path)
            print(f"| {name} | {visit} | {cost.size:,} | {cost.all_size:,} | {cost.seconds:.1f} |", flush=True)
        large = records[-1]["sha256"]
        address = f"{airflow.url}/pictory/file/{DAG_ID}/{quote(run_id, safe='')}/batch/-1/pictures_1/{large}"
        server = airflow.processes("api-server")
        first = flood(address, token, server)
        return {"at first": first, "again": flood(address, token, server)}


def look(context: BrowserContext, address: str) -> Visit:
    """Open the page in a new tab, and scroll to its end."""
    page = context.new_page()
    session = context.new_cdp_session(page)
    sizes = count_bytes(session)
    begun = time.monotonic()
    page.goto(address)
    page.locator(".card img").nth(PICTURES - 1).wait_for(state="attached")
    while not scroll(page):
        page.wait_for_timeout(100)
    page.wait_for_function(
        "() => [...document.querySelectorAll('.card img')].every((one) => one.complete && one.naturalWidth)",
        timeout=300_000,
    )
    seconds = time.monotonic() - begun
    page.wait_for_timeout(500)  # for the events of the last replies
    page.close()
    return Visit(sum(sizes["pictures"]), sum(sizes["pictures"]) + sum(sizes["others"]), seconds)


def count_bytes(session: CDPSession) -> dict[str, list[int]]:
    """Limit the bandwidth of a tab, and return the sizes of all replies, which grow as they arrive."""
    sizes: dict[str, list[int]] = {"pictures": [], "others": []}
    kinds: dict[str, str] = {}

    def sent(event: dict[str, Any]) -> None:
        address = event["request"]["url"]
        is_picture = "/pictory/file/" in address or "/pictory/thumbnail/" in address
        kinds[event["requestId"]] = "pictures" if is_picture else "others"

    session.on("Network.requestWillBeSent", sent)
    session.on(
        "Network.loadingFinished",
        lambda event: sizes[kinds[event["requestId"]]].append(int(event["encodedDataLength"])),
    )
    session.send("Network.enable")
    conditions = {"offline": False, "latency": LATENCY, "uploadThroughput": BYTES_PER_SECOND}
    session.send("Network.emulateNetworkConditions", conditions | {"downloadThroughput": BYTES_PER_SECOND})
    return sizes


def scroll(page: Page) -> bool:
    """Scroll by a screen, and return whether that was the end."""
    return bool(
        page.evaluate(
            "() => { scrollBy(0, innerHeight); return scrollY + innerHeight >= document.body.scrollHeight - 1; }"
        )
    )


def flood(address: str, token: str, server: list[psutil.Process]) -> Load:
    """Request a file many times at once, and return what that has cost the processes of the API server."""
    for process in server:
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # the peak of the memory begins anew
    memory, cpu = sum(process.memory_info().rss for process in server), cpu_of(server)

    def read(_: int) -> int:
        headers = {"Authorization": f"Bearer {token}"}
        with requests.get(address, headers=headers, stream=True, timeout=600) as reply:
            reply.raise_for_status()
            return sum(map(len, reply.iter_content(2**20)))

    with ThreadPoolExecutor(AT_ONCE) as many:
        assert set(many.map(read, range(AT_ONCE))) == {LARGE}
    return Load(cpu_of(server) - cpu, sum(map(peak_of, server)) - memory)


def cpu_of(server: list[psutil.Process]) -> float:
    """Return the seconds of CPU that processes have used."""
    return float(sum(sum(process.cpu_times()[:2]) for process in server))


def peak_of(process: psutil.Process) -> int:
    """Return the most memory that a process has used, in bytes."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]


if __name__ == "__main__":
    sys.exit(main())
