# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""One pace for all requests of a worker's batch, submissions and looks alike, from whichever thread they come.

It is that of the triggerer (:mod:`pictory_provider.jobs.pacing`): ``requests_per_second`` of the connection, and
one ``Retry-After`` pauses them all.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from pictory_provider.api.errors import Unavailable
from pictory_provider.api.retry import parse_retry_after
from pictory_provider.client.sync import SyncClient
from pictory_provider.jobs.pacing import Pace

if TYPE_CHECKING:
    from collections.abc import Callable

    from pictory_provider.api.connection import ConnectionSettings
    from pictory_provider.api.endpoints import Request
    from pictory_provider.api.responses import Response

_GLANCE = 0.25
"""Seconds after which a thread that waits looks whether it still should."""


class Turns:
    """Let requests go in turn.

    :param requests_per_second: of the connection.
    """

    def __init__(self, requests_per_second: float) -> None:
        self._pace = Pace(requests_per_second)
        self._changed = threading.Condition()
        self._next = threading.Lock()

    def take(self, may_go_on: Callable[[], object] = lambda: None) -> None:
        """Wait for one's turn. :meth:`answered` has to follow.

        :param may_go_on: asked again and again while it waits, and right before it goes; what it raises ends that.
        """
        # One thread watches the clock, and all others sleep: sixteen would wake each other all the time.
        with self._next, self._changed:
            while True:
                may_go_on()
                now = time.monotonic()
                wait = self._pace.next_at(now) - now
                if wait <= 0:
                    self._pace.go(now)
                    return
                self._changed.wait(min(wait, _GLANCE))

    def answered(self) -> None:
        """Note that a request is over."""
        with self._changed:
            self._pace.answered(time.monotonic())
            self._changed.notify_all()

    def pause(self, seconds: float) -> None:
        """Let no request go for so many seconds."""
        with self._changed:
            self._pace.pause(time.monotonic(), seconds)


class PacedClient(SyncClient):
    """A client whose requests go in turn, from whichever thread they come.

    The turn of a paid request is taken by whoever sends it, before it is on record as sent. A download is another
    host's, and takes none.
    """

    def __init__(self, settings: ConnectionSettings, turns: Turns) -> None:
        super().__init__(settings)
        self._turns = turns
        self._is_closed = False

    def close(self) -> None:
        """Close every connection. Whoever still waits for a turn waits in vain."""
        self._is_closed = True
        super().close()

    def send(self, request: Request) -> Response:
        """Send one request to the API when its turn has come."""
        if request.method != "POST":
            self._turns.take(self._check_open)
        try:
            response = super().send(request)
        finally:
            self._turns.answered()
        if response.status >= 400 and (asked := response.headers.get("retry-after")):
            seconds = parse_retry_after(asked, now=time.time())
            if seconds is not None:
                self._turns.pause(seconds)
        return response

    def _check_open(self) -> None:
        if self._is_closed:
            raise Unavailable("The request was not sent: its task has ended.")
