# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The triggerer's shared clients: one for each event loop and Airflow connection.

All triggers of a triggerer run in one event loop. The first that waits through a connection opens its client,
the last one closes it. In between they share its connections, its pace (:mod:`pictory_provider.jobs.pacing`)
and its queue: who has been due for longest goes next, so no job starves.
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
from pictory_provider.api.retry import parse_retry_after
from pictory_provider.client.aio import AsyncClient
from pictory_provider.jobs.pacing import BEAT, Crowd, Pace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pictory_provider.api.connection import ConnectionSettings
    from pictory_provider.api.endpoints import Request
    from pictory_provider.api.responses import Response
    from pictory_provider.jobs.polling import JobPoller

    FindSettings = Callable[[], Awaitable[ConnectionSettings]]

log = logging.getLogger(__name__)

GROUP = 16
"""Looks that go at once. More would be felt as a pause by everything else in the event loop."""

_shared: dict[asyncio.AbstractEventLoop, dict[str, _SharedClient]] = {}


class Lease:
    """One trigger's part in the client that all triggers of its event loop and connection share.

    Make it with :func:`lease`, ask through a :class:`Waiter` for each job, and :meth:`leave` in a ``finally``.
    """

    def __init__(self, shared: _SharedClient, find_settings: FindSettings) -> None:
        self._shared = shared
        self._find_settings = find_settings
        self._waiters: set[Waiter] = set()

    def waiter(self, poller: JobPoller | None = None) -> Waiter:
        """Return what asks for one job.

        :param poller: of its wait, if it is one.
        """
        waiter = Waiter(self._shared, self._find_settings, poller)
        self._waiters.add(waiter)
        return waiter

    async def leave(self) -> None:
        """Give the part back; the last one closes the client."""
        for waiter in self._waiters:
            waiter.close()
        await self._shared.leave()


class Waiter:
    """One job's place in the queue; made by :meth:`Lease.waiter`."""

    def __init__(self, shared: _SharedClient, find_settings: FindSettings, poller: JobPoller | None) -> None:
        self._shared = shared
        self._find_settings = find_settings
        self._poller = poller
        self._is_counted = False
        self._reading = 0
        self._is_refused = False

    async def send(self, request: Request, *, not_before: float = 0.0) -> Response:
        """Send one reading request when its turn has come.

        :param not_before: epoch seconds before which it does not go.
        :raises TransportError: and what looking up the Airflow connection raises.
        """
        shared = self._shared
        if shared.opened is None or self._is_refused:
            await shared.read(self._find_settings, instead_of=self._reading if self._is_refused else None)
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
        if response.status >= 400 and (asked := response.headers.get("retry-after")):
            seconds = parse_retry_after(asked, now=time.time())
            if seconds is not None:
                shared.queue.pause(seconds)
        return response

    def renew(self) -> None:
        """Read the Airflow connection again before the next request, unless another trigger just has."""
        self._is_refused = True

    @property
    def stretched_interval(self) -> float:
        """Seconds between two looks at one job, where all that wait leave the pace no choice."""
        return self._shared.crowd.interval

    def close(self) -> None:
        """Wait no more."""
        if self._poller is not None and self._is_counted:
            self._is_counted = False
            self._shared.crowd.leave(self._poller.poll_interval)


def lease(conn_id: str, find_settings: FindSettings) -> Lease:
    """Join those that ask through a connection on the running event loop.

    :param find_settings: looks the Airflow connection up: before the first request, and again after a 401.
    """
    for loop in [loop for loop in _shared if loop.is_closed()]:
        del _shared[loop]
    clients = _shared.setdefault(asyncio.get_running_loop(), {})
    if conn_id not in clients:
        clients[conn_id] = _SharedClient(conn_id)
    shared = clients[conn_id]
    shared.members += 1
    return Lease(shared, find_settings)


class _SharedClient:
    """What the triggers of one event loop and one connection share.

    Its client lives from the first member to the last. Its pace outlives them: the next member may come within a
    second, or within a pause that Pictory has asked for.

    :ivar reading: how often the Airflow connection has been read; the client speaks for the last reading.
    """

    def __init__(self, conn_id: str) -> None:
        self._conn_id = conn_id
        self._is_being_read = asyncio.Lock()
        self.opened: _Opened | None = None
        self.pace = Pace(DEFAULT_REQUESTS_PER_SECOND)
        self.crowd = Crowd(self.pace)
        self.queue = _Queue(self.pace)
        self.members = 0
        self.reading = 0

    async def read(self, find_settings: FindSettings, instead_of: int | None = None) -> None:
        """Read the connection, and speak for what it holds now, unless another trigger just has.

        :param instead_of: the reading that is no longer good enough, if there is one.
        """
        async with self._is_being_read:
            before = self.opened
            if before is not None and self.reading != instead_of:
                return
            settings = await find_settings()
            if before is None or before.settings != settings:
                self.opened = _Opened(await AsyncClient.open(settings))
                self.pace.requests_per_second = settings.requests_per_second
                if before is not None:
                    await before.retire()
            self.reading += 1

    def count(self, poller: JobPoller) -> None:
        """Count a job that waits. What is to be said of the crowd goes to the triggerer's own log."""
        for line in self.crowd.join(poller.poll_interval, poller.timeout):
            Context().run(log.warning, "Connection %s: %s", self._conn_id, line)

    async def leave(self) -> None:
        """Let one member go, and close the client after the last one."""
        self.members -= 1
        if not self.members:
            self.crowd = Crowd(self.pace)
            self.queue.forget()
            opened, self.opened = self.opened, None
            if opened is not None:
                await opened.retire()


class _Opened:
    """A client that is closed when it is retired and its last request has been answered."""

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
    """Let looks go when they are due and the pace allows it, those that have been due for longest first."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = count()
        self._timer: asyncio.TimerHandle | None = None
        self._next_beat = -math.inf

    async def turn(self, delay: float) -> None:
        """Wait for one's turn, ``delay`` seconds from now at the soonest. :meth:`answered` has to follow."""
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
        """Note that the look whose turn it was is over."""
        self._pace.answered(asyncio.get_running_loop().time())
        if self._timer is None:
            self._plan()

    def pause(self, seconds: float) -> None:
        """Let no look go for so many seconds."""
        self._pace.pause(asyncio.get_running_loop().time(), seconds)

    def forget(self) -> None:
        """Forget those that were cancelled; nobody waits any more."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _plan(self) -> None:
        """Set the timer for the next beat; none where an answer has to come first."""
        if not self._waiting:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        at = max(self._waiting[0][0], self._pace.next_at(now), self._next_beat)
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()
            self._timer = None
        if at < math.inf:
            self._timer = loop.call_at(at, self._beat, at)

    def _beat(self, at: float) -> None:
        """Let a group of looks go. Where more are due, the next group follows once the loop has drawn breath."""
        self._timer = None
        now = max(at, asyncio.get_running_loop().time())  # a timer may come a tick of the clock early
        group = 0
        while group < GROUP and self._waiting and self._waiting[0][0] <= now and self._pace.next_at(now) <= now:
            _, _, turn = heapq.heappop(self._waiting)
            if not turn.done():
                self._pace.go(now)
                turn.set_result(None)
                group += 1
        is_cut_short = group == GROUP or self._pace.next_at(now) == math.inf
        self._next_beat = now if is_cut_short else now + BEAT
        self._plan()
