# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The triggerer's shared clients: one for each event loop and Airflow connection.

All triggers of a triggerer run in one event loop. The first trigger that uses a connection opens its client, and
the last one closes it. They share its HTTP connections, its rate limiter (:mod:`pictory_provider.core.rate_limit`)
and its queue: the request that has been due for longest goes next, so no job starves.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
import time
from contextvars import Context
from itertools import count
from typing import TYPE_CHECKING

from pictory_provider.api.connection import DEFAULT_REQUESTS_PER_SECOND
from pictory_provider.api.retry import requested_pause
from pictory_provider.client.aio import AsyncClient
from pictory_provider.core.rate_limit import BEAT, PollDemand, RateLimiter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pictory_provider.api.connection import ConnectionSettings
    from pictory_provider.api.endpoints import Request
    from pictory_provider.api.responses import Response
    from pictory_provider.core.polling import JobPoller

    FindSettings = Callable[[], Awaitable[ConnectionSettings]]

log = logging.getLogger(__name__)

GROUP = 16
"""Polls that start together. More would delay everything else in the event loop."""

_shared: dict[asyncio.AbstractEventLoop, dict[str, _SharedClient]] = {}


class Lease:
    """One trigger's share of the client for its event loop and connection.

    Create it with :func:`lease`, use one :class:`QueuedClient` per job, and call :meth:`leave` in a ``finally``.
    """

    def __init__(self, shared: _SharedClient, find_settings: FindSettings) -> None:
        self._shared = shared
        self._find_settings = find_settings
        self._waiters: set[QueuedClient] = set()

    def waiter(self, poller: JobPoller | None = None) -> QueuedClient:
        """Return a client for one job.

        :param poller: of the job's wait, if there is one.
        """
        waiter = QueuedClient(self._shared, self._find_settings, poller)
        self._waiters.add(waiter)
        return waiter

    async def leave(self) -> None:
        """Return the share. The last one closes the client."""
        for waiter in self._waiters:
            waiter.close()
        await self._shared.leave()


class QueuedClient:
    """One job's access to the shared client; created by :meth:`Lease.waiter`."""

    def __init__(self, shared: _SharedClient, find_settings: FindSettings, poller: JobPoller | None) -> None:
        self._shared = shared
        self._find_settings = find_settings
        self._poller = poller
        self._is_counted = False
        self._reading = 0
        self._is_refused = False

    async def send(self, request: Request, *, not_before: float = 0.0) -> Response:
        """Send one GET request when the queue and the rate limiter allow it.

        :param not_before: epoch seconds of the earliest time to send it.
        :raises TransportError: also any error of reading the Airflow connection.
        """
        shared = self._shared
        if shared.opened is None or self._is_refused:
            await shared.read(self._find_settings, stale_reading=self._reading if self._is_refused else None)
            self._is_refused = False
        if self._poller is not None and not self._is_counted:
            self._is_counted = True
            shared.count(self._poller)
        await shared.queue.turn(not_before - time.time())
        assert shared.opened is not None
        self._reading = shared.reading
        try:
            response = await shared.opened.send(request)
        finally:
            shared.queue.answered()
        if (seconds := requested_pause(response, now=time.time())) is not None:
            shared.queue.pause(seconds)
        return response

    def renew(self) -> None:
        """Read the Airflow connection again before the next request, unless another trigger has done so."""
        self._is_refused = True

    @property
    def stretched_interval(self) -> float:
        """Seconds between two polls of one job that the rate limit and the number of waiting jobs allow."""
        return self._shared.demand.interval

    def close(self) -> None:
        """Stop counting the job as waiting."""
        if self._poller is not None and self._is_counted:
            self._is_counted = False
            self._shared.demand.leave(self._poller.poll_interval)


def lease(conn_id: str, find_settings: FindSettings) -> Lease:
    """Return a lease of the connection's client on the running event loop.

    :param find_settings: reads the Airflow connection: before the first request, and again after a 401.
    """
    for loop in [loop for loop in _shared if loop.is_closed()]:
        del _shared[loop]
    clients = _shared.setdefault(asyncio.get_running_loop(), {})
    shared = clients.get(conn_id) or clients.setdefault(conn_id, _SharedClient(conn_id))
    shared.leases += 1
    return Lease(shared, find_settings)


class _SharedClient:
    """What the triggers of one event loop and one connection share.

    The client lives from the first lease to the last. The rate limiter outlives them: the next lease may begin
    within a second, or within a pause that Pictory requested.

    :ivar reading: how often the Airflow connection has been read; the client uses the last reading.
    """

    def __init__(self, conn_id: str) -> None:
        self._conn_id = conn_id
        self._read_lock = asyncio.Lock()
        self.opened: _Opened | None = None
        self.rate_limiter = RateLimiter(DEFAULT_REQUESTS_PER_SECOND)
        self.demand = PollDemand(self.rate_limiter)
        self.queue = _Queue(self.rate_limiter)
        self.leases = 0
        self.reading = 0

    async def read(self, find_settings: FindSettings, stale_reading: int | None = None) -> None:
        """Read the connection and use its settings, unless another trigger has done so.

        :param stale_reading: the reading that Pictory refused, if there is one.
        """
        async with self._read_lock:
            before = self.opened
            if before is not None and self.reading != stale_reading:
                return
            settings = await find_settings()
            if before is None or before.settings != settings:
                self.opened = _Opened(await AsyncClient.open(settings))
                self.rate_limiter.requests_per_second = settings.requests_per_second
                if before is not None:
                    await before.retire()
            self.reading += 1

    def count(self, poller: JobPoller) -> None:
        """Count a waiting job. Warnings about too many of them go to the triggerer's log, not to a task's."""
        for line in self.demand.join(poller.poll_interval, poller.timeout):
            Context().run(log.warning, "Connection %s: %s", self._conn_id, line)

    async def leave(self) -> None:
        """End one lease, and close the client after the last one."""
        self.leases -= 1
        if not self.leases:
            self.demand = PollDemand(self.rate_limiter)
            self.queue.clear()
            opened, self.opened = self.opened, None
            if opened is not None:
                await opened.retire()


class _Opened:
    """A client that closes itself after :meth:`retire`, once its last request has been answered."""

    def __init__(self, client: AsyncClient) -> None:
        self.settings = client.settings
        self._client = client
        self._in_flight = 0
        self._is_retired = False

    async def send(self, request: Request) -> Response:
        self._in_flight += 1
        try:
            return await self._client.send(request)
        finally:
            self._in_flight -= 1
            await self._close_if_done()

    async def retire(self) -> None:
        self._is_retired = True
        await self._close_if_done()

    async def _close_if_done(self) -> None:
        if self._is_retired and not self._in_flight:
            await self._client.close()


class _Queue:
    """Start requests when they are due and the rate limiter allows it, the longest due first."""

    def __init__(self, rate_limiter: RateLimiter) -> None:
        self._rate_limiter = rate_limiter
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = count()
        self._timer: asyncio.TimerHandle | None = None
        self._next_beat = -math.inf

    async def turn(self, delay: float) -> None:
        """Wait until a request may start, for at least ``delay`` seconds. Then :meth:`answered` must be called."""
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        due = loop.time() + max(0.0, delay)
        heapq.heappush(self._waiting, (due, next(self._numbers), turn))
        self._plan()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.answered()
            raise

    def answered(self) -> None:
        """Report that a started request has ended."""
        self._rate_limiter.answered(asyncio.get_running_loop().time())
        if self._timer is None:
            self._plan()

    def pause(self, seconds: float) -> None:
        """Start no request for some seconds."""
        self._rate_limiter.pause(asyncio.get_running_loop().time(), seconds)

    def clear(self) -> None:
        """Drop the cancelled requests, the only ones left when the last lease has ended."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _plan(self) -> None:
        """Set the timer for the next beat; none if a request has to end first."""
        if not self._waiting:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        at = max(self._waiting[0][0], self._rate_limiter.next_at(now), self._next_beat)
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()
            self._timer = None
        if at < math.inf:
            self._timer = loop.call_at(at, self._beat, at)

    def _beat(self, at: float) -> None:
        """Start a group of requests. If more are due, the next group follows in a later step of the event loop."""
        self._timer = None
        limiter = self._rate_limiter
        now = max(at, asyncio.get_running_loop().time())  # a timer may fire a clock tick early
        group = 0
        while group < GROUP and self._waiting and self._waiting[0][0] <= now and limiter.next_at(now) <= now:
            _, _, turn = heapq.heappop(self._waiting)
            if not turn.done():
                limiter.go(now)
                turn.set_result(None)
                group += 1
        is_cut_short = group == GROUP or limiter.next_at(now) == math.inf
        self._next_beat = now if is_cut_short else now + BEAT
        self._plan()
