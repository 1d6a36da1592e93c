# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Wait for many jobs in one process, in one style. Reads its task as JSON from the first line, and prints its
cost.

``{"style": ..., "url": ..., "ca": ..., "jobs": [[begin, end], ...], "interval": ..., "window": ..., ...}``
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import statistics
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psutil

from benchmarks.pictory import job_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

TICK = 0.01
"""Seconds between two measurements of the loop's lag."""


async def wait_by(poll: Callable[[str], Awaitable[Any]], job: str, begin: float, interval: float) -> None:
    """Poll a job at a fixed interval in seconds, as all styles except ours do."""
    await asyncio.sleep(begin - time.time())
    while (await poll(job))["data"]["status"] == "in-progress":
        await asyncio.sleep(interval)


async def bare(task: dict[str, Any], jobs: list[tuple[str, float]]) -> list[Coroutine[Any, Any, Any]]:
    """A bare loop over one aiohttp session, which is the lower bound."""
    import aiohttp

    context = ssl.create_default_context(cafile=task["ca"])
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=context), headers={"Authorization": "pictai_benchmark"}
    )

    async def poll(job: str) -> Any:
        async with session.get(f"{task['url']}/v1/jobs/{job}") as reply:
            return await reply.json()

    return [wait_by(poll, job, begin, task["interval"]) for job, begin in jobs]


async def session_for_each_poll(
    task: dict[str, Any], jobs: list[tuple[str, float]]
) -> list[Coroutine[Any, Any, Any]]:
    """Like the trigger of ``apache-airflow-providers-http``; with one SSL context, as aiohttp has one."""
    import aiohttp

    context = ssl.create_default_context(cafile=task["ca"])

    async def poll(job: str) -> Any:
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session,
            session.get(f"{task['url']}/v1/jobs/{job}", headers={"Authorization": "k"}) as reply,
        ):
            return await reply.json()

    return [wait_by(poll, job, begin, task["interval"]) for job, begin in jobs]


async def blocking_call_in_a_thread(
    task: dict[str, Any], jobs: list[tuple[str, float]]
) -> list[Coroutine[Any, Any, Any]]:
    """Like the agent trigger of ``apache-airflow-providers-openai``, with its library's HTTP client."""
    import httpx

    client = httpx.Client(verify=ssl.create_default_context(cafile=task["ca"]), headers={"Authorization": "k"})

    async def poll(job: str) -> Any:
        reply = await asyncio.to_thread(client.get, f"{task['url']}/v1/jobs/{job}")
        return reply.json()

    return [wait_by(poll, job, begin, task["interval"]) for job, begin in jobs]


async def pictory(task: dict[str, Any], jobs: list[tuple[str, float]]) -> list[Coroutine[Any, Any, Any]]:
    """The trigger of this provider, created as by a sensor that has polled once and then deferred."""
    import pictory_provider.client.shared  # noqa: F401  imported once for any number of waits
    from pictory_provider.api.timing import TIMING
    from pictory_provider.hooks.pictory import PictoryHook
    from pictory_provider.triggers.pictory import PictoryJobTrigger

    TIMING.poll_interval_min = 0.0
    extra = {"ca_bundle": task["ca"], "requests_per_second": task["rate"]}
    connection = {"conn_type": "pictory", "host": task["url"], "password": "pictai_benchmark", "extra": extra}
    os.environ["AIRFLOW_CONN_PICTORY_DEFAULT"] = json.dumps(connection)
    await PictoryHook()._afind_settings()  # noqa: SLF001  Airflow loads its secrets backends once

    async def wait(job: str, begin: float) -> None:
        trigger = PictoryJobTrigger(
            job_id=job,
            pictory_conn_id="pictory_default",
            poll_interval=task["interval"],
            started_at=begin,
            first_poll_at=begin + task["first"],
            end_time=begin + 100_000,
        )
        async for _ in trigger.run():
            pass

    return [wait(job, begin) for job, begin in jobs]


STYLES = {
    "this provider": pictory,
    "a bare loop, one session": bare,
    "a session for each poll": session_for_each_poll,
    "a blocking call in a thread": blocking_call_in_a_thread,
}


async def main(task: dict[str, Any]) -> dict[str, Any]:
    """Start the waits, let them settle, and measure for a window; without a window, until all jobs have ended."""
    process = psutil.Process()
    lags: list[float] = []

    async def measure_lag() -> None:
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(TICK)
            lags.append(time.perf_counter() - begun - TICK)

    def cpu() -> float:
        return sum(process.cpu_times()[:2])

    now = time.time() + 1
    jobs = [(job_id(now + end, number), now + begin) for number, (begin, end) in enumerate(task["jobs"])]
    style = STYLES[task["style"]]
    empty = await style(task, [])  # imports and opens once what is not a cost of a wait
    assert not empty
    before, resident = cpu(), process.memory_info().rss
    waits = [asyncio.create_task(wait) for wait in await style(task, jobs)]
    if task["window"] is None:
        await asyncio.gather(*waits)
        return {"cpu": cpu() - before}
    await asyncio.sleep(now + task["settle"] - time.time())
    await report("begin")
    begun = cpu()
    await asyncio.sleep(task["window"])
    used = cpu() - begun
    await report("end")
    # The lag is measured separately: reading the clock a hundred times a second costs more than 10 polls.
    lag = asyncio.create_task(measure_lag())
    await asyncio.sleep(task["window"])
    lag.cancel()
    grown = process.memory_info().rss - resident
    for wait in waits:
        wait.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*waits, return_exceptions=True)
    cuts = statistics.quantiles(lags, n=100)
    return {
        "cpu": used,
        "memory": grown,
        "lag": [1000 * seconds for seconds in (statistics.median(lags), cuts[98], max(lags))],
    }


async def report(word: str) -> None:
    """Print a word for the measuring process, and wait until it has read the server's counters."""
    print(word, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(json.loads(sys.stdin.readline())))), flush=True)
