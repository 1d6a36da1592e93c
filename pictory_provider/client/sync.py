# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The worker's way to Pictory, with requests.

What ``requests`` does by itself is switched off: it follows redirects, reads ``.netrc`` for credentials and
reuses connections that the server may just be closing. A paid request gets a fresh connection of its own.
"""

from __future__ import annotations

import json
import logging
import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import requests

from pictory_provider.api.connection import CONNECT_TIMEOUT, ConnectionSettings
from pictory_provider.api.errors import Fault
from pictory_provider.api.responses import Response
from pictory_provider.api.timing import TIMING
from pictory_provider.client import (
    MAX_REPLY_BYTES,
    PIECE_BYTES,
    connection_failed,
    headers_for_api,
    without_key,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pictory_provider.api.endpoints import Request


class SyncClient:
    """Send requests over kept-alive connections; close it when done.

    :param settings: a checked connection.
    """

    def __init__(self, settings: ConnectionSettings) -> None:
        self.settings = settings
        self._session = _new_session()

    def close(self) -> None:
        """Close every connection."""
        self._session.close()

    def send(self, request: Request) -> Response:
        """Send one request to the API and read the whole reply.

        :raises TransportError: with the fault that tells how far the request had got.
        """
        if request.method != "POST":
            return self._exchange(self._session, request)
        with _new_session() as fresh:
            return self._exchange(fresh, request)

    @contextmanager
    def stream(self, url: str) -> Iterator[tuple[Response, Iterator[bytes]]]:
        """Open a download from any host: no key goes there, redirects are followed.

        :return: the reply with an empty body, and its bytes in pieces.
        :raises TransportError: when it cannot be opened, or breaks off.
        """
        what = "The download"
        headers = {"User-Agent": self.settings.user_agent}
        with _new_session() as fresh:
            try:
                reply = self._request(fresh, "GET", url, headers=headers, allow_redirects=True)
            except OSError as error:  # as all errors of requests are
                raise connection_failed(what, Fault.MAYBE_ACCEPTED, error) from None
            with reply:
                yield _head(reply), _pieces(reply, what, time.monotonic() + TIMING.download)

    def _exchange(self, session: requests.Session, request: Request) -> Response:
        headers = headers_for_api(self.settings)
        body = None
        if request.json is not None:
            headers["Content-Type"] = "application/json"
            body = _WatchedBody(json.dumps(request.json).encode())
        what = f"{request.method} {request.path}"
        deadline = time.monotonic() + self.settings.timeout
        try:
            reply = self._request(session, request.method, self.settings.url(request.path),
                                  params=dict(request.query), headers=headers, data=body,
                                  allow_redirects=False)  # fmt: skip
        except Exception as error:
            left = body is None or body.has_left
            fault = Fault.MAYBE_ACCEPTED if left else Fault.NEVER_SENT
            raise connection_failed(what, fault, error) from None  # its text quotes URLs
        content = bytearray()
        for piece in _pieces(reply, what, deadline):
            content += piece
            if len(content) > MAX_REPLY_BYTES:
                raise connection_failed(what, Fault.UNREADABLE, OSError(None, "the reply is too large"))
        head = _head(reply)
        return Response(head.status, head.headers, without_key(bytes(content), self.settings))

    def _request(self, session: requests.Session, method: str, url: str, **arguments: Any) -> requests.Response:
        settings = self.settings
        proxy = settings.proxy_for(url)
        with _quiet_queries():
            return session.request(
                method,
                url,
                timeout=(min(CONNECT_TIMEOUT, settings.timeout), settings.timeout),
                verify=settings.trusted_certificates() or True,
                proxies={"http": proxy, "https": proxy} if proxy else None,
                stream=True,
                **arguments,
            )


class _WatchedBody:
    """A request's body that knows whether any of it was taken for sending.

    The HTTP library connects, shakes hands and sends the headers before it takes the first piece of the
    body. A request that failed before that was never whole at the other side, so it cannot have been
    accepted. That proves more than the class of the error, which is the same for a refused and for a
    dropped connection.

    For the same reason it can still be held back: whoever was frozen while connecting may have been given up.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._made_at = time.time()
        self.has_left = False

    def __len__(self) -> int:
        return len(self._content)

    def __iter__(self) -> Iterator[bytes]:
        if not 0 <= time.time() - self._made_at <= TIMING.send_delay:
            raise TimeoutError(None, "it was held up for too long before it left")
        self.has_left = True
        yield self._content


_is_ours: ContextVar[bool] = ContextVar("pictory_request", default=False)


@contextmanager
def _quiet_queries() -> Iterator[None]:
    """Keep query strings out of what urllib3 logs at DEBUG: the one of a result's URL is a key to the picture."""
    token = _is_ours.set(True)
    try:
        yield
    finally:
        _is_ours.reset(token)


def _without_queries(record: logging.LogRecord) -> bool:
    if _is_ours.get() and isinstance(record.args, tuple):
        record.args = tuple(each.split("?")[0] if isinstance(each, str) else each for each in record.args)
    return True


for _name in ("urllib3.connectionpool", "urllib3.util.retry"):
    logging.getLogger(_name).addFilter(_without_queries)


def _new_session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    return session


def _head(reply: requests.Response) -> Response:
    return Response(reply.status_code, {name.lower(): value for name, value in reply.headers.items()}, b"")


def _pieces(reply: requests.Response, what: str, deadline: float) -> Iterator[bytes]:
    """Yield the reply's body as it arrives.

    :param deadline: on the monotonic clock. The library's own read timeout counts from byte to byte, and
        would let a reply drip for ever.
    """
    try:
        while piece := reply.raw.read1(PIECE_BYTES, decode_content=True):
            yield piece
            if time.monotonic() > deadline:
                raise TimeoutError(None, "the reply is too slow")
    except Exception as error:
        raise connection_failed(what, Fault.UNREADABLE, error) from None
    finally:
        reply.close()
