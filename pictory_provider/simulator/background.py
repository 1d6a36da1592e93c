# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Background work: fetching reference images and calling webhooks, on loopback only."""

from __future__ import annotations

import asyncio
import ipaddress
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp

from pictory_provider.simulator import painting

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from pictory_provider.simulator.account import SimulatedJob

MAX_REFERENCE_BYTES = 20 * 1024 * 1024
_NO_REFERENCE = ("REFERENCE_IMAGE_ERROR", "The reference image could not be fetched or is not an image.")


class Background:
    """Tasks of one event loop that continue after their request has been answered."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Start a task."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def settle(self) -> None:
        """Give the tasks half a second to end, and cancel the rest, such as webhooks of unfinished jobs."""
        if self._tasks:
            _, waiting = await asyncio.wait(self._tasks, timeout=0.5)
            for task in waiting:
                task.cancel()

    def cancel(self) -> None:
        """Cancel all tasks."""
        for task in self._tasks:
            task.cancel()

    async def fetch_reference(self, job: SimulatedJob) -> None:
        """Fetch a job's reference image; if that fails, the job fails."""
        try:
            content = await _fetch_from_loopback(job.body["referenceImageUrl"])
            job.reference = await asyncio.to_thread(painting.read_image, content) if content else None
            if job.reference is None and job.fate == "completed":
                job.fate = "failed"
                job.error_code, job.error_message = _NO_REFERENCE
        finally:
            job.waits_for_reference = False

    async def call_webhook(self, job: SimulatedJob, body: Callable[[], Any]) -> None:
        """Call a job's webhook once the job has ended.

        :param body: returns the JSON to send.
        """
        while job.status(self._clock()) == "in-progress":
            await asyncio.sleep(0.05)
        if not _is_loopback(job.body["webhook"]):
            return
        with suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
                await session.post(job.body["webhook"], json=body())


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _fetch_from_loopback(url: str) -> bytes | None:
    """Return the content of a loopback URL; the simulator requests no other address."""
    if not _is_loopback(url):
        return None
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session,
            session.get(url, allow_redirects=False, ssl=False) as reply,
        ):
            if reply.status != 200:
                return None
            content = bytearray()
            async for chunk in reply.content.iter_chunked(65_536):
                content += chunk
                if len(content) > MAX_REFERENCE_BYTES:
                    return None
            return bytes(content)
    except (aiohttp.ClientError, OSError, TimeoutError):
        return None
