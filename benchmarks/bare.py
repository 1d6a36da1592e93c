# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The cost of a batch without Airflow and the provider: ``requests`` and a thread pool, no records, no checks.

``python -m benchmarks.bare PICTURES FOLDER``, with the connection in ``AIRFLOW_CONN_PICTORY_DEFAULT``.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests

PER_SECOND = 10.0
INTERVAL = 5.0


def main(pictures: int, folder: Path) -> None:
    """Submit, wait and save, at the rate limit of the batch."""
    connection = json.loads(os.environ["AIRFLOW_CONN_PICTORY_DEFAULT"])
    session, lock, sent = requests.Session(), threading.Lock(), [time.monotonic()]
    session.headers["Authorization"] = connection["password"]
    folder.mkdir(parents=True, exist_ok=True)

    def limited(method: str, path: str, **kwargs: object) -> dict:
        with lock:
            sent[0] = max(sent[0] + 1 / PER_SECOND, time.monotonic())
            at = sent[0]
        time.sleep(max(0.0, at - time.monotonic()))
        return session.request(method, connection["host"] + path, timeout=30, **kwargs).json()["data"]

    def submit(number: int) -> str:
        body = {"prompt": f"A picture for a benchmark, number {number}", "model": "flux-schnell"}
        return limited("POST", "/v1/aistudio/images", json=body)["jobId"]

    def poll(job_id: str) -> tuple[str, str | None]:
        return job_id, limited("GET", f"/v1/jobs/{job_id}").get("url")

    def save(found: tuple[str, str | None]) -> None:
        job_id, url = found
        with (
            session.get(str(url), stream=True, timeout=30) as reply,
            (folder / f"{job_id}.png").open("wb") as file,
        ):
            for chunk in reply.iter_content(1 << 20):
                file.write(chunk)

    with ThreadPoolExecutor(8) as pool:
        waiting = set(pool.map(submit, range(pictures)))
        while waiting:
            time.sleep(INTERVAL)
            ended = [found for found in pool.map(poll, sorted(waiting)) if found[1]]
            list(pool.map(save, ended))
            waiting -= {job_id for job_id, _ in ended}


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
