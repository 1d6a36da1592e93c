# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The worker's HTTP client, with requests.

By default ``requests`` follows redirects, reads credentials from ``.netrc`` and reuses connections that the server
may be closing. All of that is switched off: a paid request gets a new connection.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import requests

from pictory_provider.api.connection import CONNECT_TIMEOUT, ConnectionSettings
from pictory_provider.api.errors import Fault, TransportError
from pictory_provider.api.responses import Response
from pictory_provider.api.timing import TIMING
from pictory_provider.client.clocks import skew_of
from pictory_provider.client.faults import PIECE_BYTES, TooLarge, connection_failed, headers_for_api, mask_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pictory_provider.api.endpoints import Request
    from pictory_provider.client.calls import Call

R = TypeVar("R")


class SyncClient:
    """Send requests over kept-alive connections. Close it when done.

    :param settings: a checked connection.
    :ivar skew: seconds by which Pictory's clock is ahead of this machine's, as far as its last reply proves it.
    """

    def __init__(self, settings: ConnectionSettings) -> None:
        self.settings = settings
        self._session = _new_session()
        self._mask = mask_of(settings)
        self._proxies: dict[tuple[str, str], str | None] = {}
        self.skew = 0.0

    def close(self) -> None:
        """Close every connection."""
        self._session.close()

    def send(self, request: Request) -> Response:
        """Send one request to the API and read the whole reply.

        :raises TransportError: with the fault that says how far the request had got.
        """
        if not request.is_paid:
            return self._exchange(self._session, request)
        with _new_session() as fresh:
            return self._exchange(fresh, request)

    def call(self, call: Call[R]) -> R:
        """Make one free call, and return what the reply says.

        :raises PictoryError: if Pictory does not answer or refuses, or the reply cannot be understood.
        """
        return call.parse(self.send(call.request))

    @contextmanager
    def stream(self, url: str) -> Iterator[tuple[Response, Iterator[bytes]]]:
        """Open a download from any host, without the API key. Redirects are followed.

        :return: the reply with an empty body, and its bytes in pieces.
        :raises TransportError: if it cannot be opened, or breaks off.
        """
        what = "The download"
        headers = {"User-Agent": self.settings.user_agent}
        with _new_session() as fresh:
            try:
                reply = self._request(fresh, "GET", url, headers=headers, allow_redirects=True)
            except OSError as error:  # all errors of requests are OSErrors
                raise self._failed(what, Fault.MAYBE_ACCEPTED, error, url) from None
            with reply:
                yield _head(reply), self._pieces(reply, what, time.monotonic() + TIMING.download)

    def put(self, url: str, content: bytes, content_type: str) -> Response:
        """Upload a file to any host, without the API key. Redirects are not followed.

        :return: the reply, with the beginning of its body.
        :raises TransportError: if it does not answer.
        """
        return self._ask_other_host(
            "PUT", "The upload to", url, data=content, headers={"Content-Type": content_type}
        )

    def head(self, url: str) -> Response:
        """Ask any host whether a file is there, without the API key. Redirects are not followed.

        :raises TransportError: if it does not answer.
        """
        return self._ask_other_host("HEAD", "The request for a file at", url, headers={})

    def _ask_other_host(
        self, method: str, what: str, url: str, *, headers: dict[str, str], data: bytes | None = None
    ) -> Response:
        sent = {"User-Agent": self.settings.user_agent, **headers}
        what = f"{what} {urlsplit(url).hostname}"
        with _new_session() as fresh:
            try:
                reply = self._request(fresh, method, url, headers=sent, data=data, allow_redirects=False)
            except Exception as error:
                raise self._failed(what, Fault.MAYBE_ACCEPTED, error, url) from None
            pieces = self._pieces(reply, what, time.monotonic() + self.settings.timeout)
            return dataclasses.replace(_head(reply), body=next(pieces, b""))

    def _exchange(self, session: requests.Session, request: Request) -> Response:
        headers = headers_for_api(self.settings)
        body = None
        if request.json is not None:
            headers["Content-Type"] = "application/json"
            body = _WatchedBody(json.dumps(request.json).encode())
        what = f"{request.method} {request.path}"
        deadline = time.monotonic() + self.settings.timeout
        url = self.settings.url(request.path)
        sent = time.time()
        try:
            reply = self._request(session, request.method, url, params=dict(request.query),
                                  headers=headers, data=body, allow_redirects=False)  # fmt: skip
        except Exception as error:
            left = body is None or body.has_left
            fault = Fault.MAYBE_ACCEPTED if left else Fault.NEVER_SENT
            is_sent = body is not None and body.has_left
            raise self._failed(what, fault, error, url, is_sent=is_sent) from None  # the cause's text quotes URLs
        content = bytearray()
        for piece in self._pieces(reply, what, deadline):
            content += piece
            if len(content) > request.max_bytes:
                raise self._failed(what, Fault.UNREADABLE, TooLarge(request.max_bytes), url)
        head = _head(reply)
        skew = skew_of(head.headers, sent=sent, received=time.time())
        self.skew = self.skew if skew is None else skew
        return Response(head.status, head.headers, self._mask.hide(bytes(content)))

    def _failed(
        self, what: str, fault: Fault, error: BaseException, url: str, *, is_sent: bool = False
    ) -> TransportError:
        return connection_failed(what, fault, error, settings=self.settings, url=url, is_sent=is_sent)

    def _pieces(self, reply: requests.Response, what: str, deadline: float) -> Iterator[bytes]:
        """Yield the reply's body as it arrives.

        :param deadline: on the monotonic clock. The read timeout of ``requests`` restarts with each byte, so a
            slow reply could take forever.
        """
        try:
            while piece := reply.raw.read1(PIECE_BYTES, decode_content=True):
                yield piece
                if time.monotonic() > deadline:
                    raise TimeoutError(None, "the reply is too slow")
        except Exception as error:
            raise self._failed(what, Fault.UNREADABLE, error, reply.url) from None
        finally:
            reply.close()

    def _request(self, session: requests.Session, method: str, url: str, **arguments: Any) -> requests.Response:
        settings = self.settings
        host = urlsplit(url)[:2]
        if host not in self._proxies:  # finding it reads the whole environment
            self._proxies[host] = settings.proxy_for(url)
        proxy = self._proxies[host]
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
    """A request's body that records whether any of it was taken for sending.

    The HTTP library connects, does the TLS handshake and sends the headers before it takes the first piece of the
    body. A request that failed before that never arrived whole, so it cannot have been accepted. The class of the
    error would not prove it: it is the same for a refused and for a dropped connection.

    For the same reason the request can still be held back: if this process was frozen while connecting, another
    attempt of the task may have taken over.
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
    """Keep query strings out of urllib3's DEBUG logs: the query of a result's URL is a key to the picture."""
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
