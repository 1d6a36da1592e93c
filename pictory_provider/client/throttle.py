# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""One rate limiter for all requests of a batch on a worker, submissions and polls, from all threads.

It works as the triggerer's (:mod:`pictory_provider.core.rate_limit`): it allows ``requests_per_second`` of the
connection, and one ``Retry-After`` pauses all requests.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from pictory_provider.api.errors import Unavailable
from pictory_provider.api.retry import requested_pause
from pictory_provider.client.sync import SyncClient
from pictory_provider.core.rate_limit import RateLimiter

if TYPE_CHECKING:
    from collections.abc import Callable

    from pictory_provider.api.connection import ConnectionSettings
    from pictory_provider.api.endpoints import Request
    from pictory_provider.api.responses import Response

_CHECK_INTERVAL = 0.25
"""Seconds after which a waiting thread checks whether it may go on."""


class ThreadRateLimiter:
    """A rate limiter for threads.

    :param requests_per_second: of the connection.
    """

    def __init__(self, requests_per_second: float) -> None:
        self._limiter = RateLimiter(requests_per_second)
        self._changed = threading.Condition()
        self._next = threading.Lock()

    def acquire(self, check: Callable[[], object] = lambda: None) -> None:
        """Wait until a request may start. The caller must then call :meth:`answered`.

        :param check: called repeatedly while waiting and right before the return. An error that it raises ends the
            wait.
        """
        # One thread watches the clock while all others sleep: sixteen threads would keep waking each other.
        with self._next, self._changed:
            while True:
                check()
                now = time.monotonic()
                wait = self._limiter.next_at(now) - now
                if wait <= 0:
                    self._limiter.go(now)
                    return
                self._changed.wait(min(wait, _CHECK_INTERVAL))

    def answered(self) -> None:
        """Report that a started request has ended."""
        with self._changed:
            self._limiter.answered(time.monotonic())
            self._changed.notify_all()

    def pause(self, seconds: float) -> None:
        """Start no request for some seconds."""
        with self._changed:
            self._limiter.pause(time.monotonic(), seconds)


class PacedClient(SyncClient):
    """A client whose requests wait for the rate limiter, in any thread.

    The caller acquires the limiter for a paid request itself, before it records the request as sent. Downloads are
    served by another host and are not limited.
    """

    def __init__(self, settings: ConnectionSettings, rate_limiter: ThreadRateLimiter) -> None:
        super().__init__(settings)
        self._rate_limiter = rate_limiter
        self._is_closed = False

    def close(self) -> None:
        """Close every connection. A request that still waits raises an error."""
        self._is_closed = True
        super().close()

    def send(self, request: Request) -> Response:
        """Send one request to the API when the rate limiter allows it."""
        if not request.is_paid:
            self._rate_limiter.acquire(self._check_open)
        try:
            response = super().send(request)
        finally:
            self._rate_limiter.answered()
        if (seconds := requested_pause(response, now=time.time())) is not None:
            self._rate_limiter.pause(seconds)
        return response

    def _check_open(self) -> None:
        if self._is_closed:
            raise Unavailable("The request was not sent: its task has ended.")
