# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The triggerer's HTTP client, with aiohttp. It only sends GET requests."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

import aiohttp
import certifi

from pictory_provider.api.connection import CONNECT_TIMEOUT, MAX_CONNECTIONS, ConnectionSettings
from pictory_provider.api.errors import Fault
from pictory_provider.api.responses import Response
from pictory_provider.client.faults import PIECE_BYTES, TooLarge, connection_failed, headers_for_api, mask_of

if TYPE_CHECKING:
    from pictory_provider.api.endpoints import Request

_KEEP_ALIVE = 50.0
"""Seconds that an idle connection is kept: longer than the longest recommended poll interval, so that the next
poll reuses it, and shorter than the 60 s after which load balancers commonly close it."""


class AsyncClient:
    """Send GET requests over kept-alive connections of one event loop. Close it when done.

    Create it with :meth:`open`, which reads the trusted certificates in a thread: that takes long enough to delay
    every other trigger of the event loop.
    """

    def __init__(self, settings: ConnectionSettings, session: aiohttp.ClientSession) -> None:
        self.settings = settings
        self._session = session
        self._proxy = settings.proxy_for(settings.base_url)
        # Headers of the session would also go to a proxy, in clear text and with the API key.
        self._headers = headers_for_api(settings)
        self._mask = mask_of(settings)

    @classmethod
    async def open(cls, settings: ConnectionSettings) -> AsyncClient:
        """Return a client for the running event loop."""
        trusted = settings.trusted_certificates() or certifi.where()
        context = await asyncio.to_thread(ssl.create_default_context, cafile=trusted)
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=MAX_CONNECTIONS, keepalive_timeout=_KEEP_ALIVE),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=settings.timeout, sock_connect=min(CONNECT_TIMEOUT, settings.timeout)
            ),
            trust_env=False,
        )
        # aiohttp would repeat a request that a reused connection dropped without asking the rate limiter. There is
        # no public switch; a test of the rate limiter fails if this attribute disappears.
        session._retry_connection = False  # noqa: SLF001
        return cls(settings, session)

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def send(self, request: Request) -> Response:
        """Send one GET request to the API and read the whole reply.

        :raises ValueError: for any other method. Two triggerers may run one trigger, so it must not buy anything.
        :raises TransportError: with the fault that says how far the request had got.
        """
        if request.method != "GET":
            raise ValueError(f"The asynchronous client only sends GET: {request.method} {request.path}")
        reply_begun = False
        url, query = self.settings.url(request.path), request.query or None
        try:
            async with self._session.get(
                url, params=query, headers=self._headers, allow_redirects=False, proxy=self._proxy
            ) as reply:
                reply_begun = True
                content = bytearray()
                while piece := await reply.content.read(PIECE_BYTES):
                    content += piece
                    if len(content) > request.max_bytes:
                        raise TooLarge(request.max_bytes)
                headers = {name.lower(): value for name, value in reply.headers.items()}
                return Response(reply.status, headers, self._mask.hide(bytes(content)))
        except Exception as error:
            what = f"{request.method} {request.path}"
            fault = _fault(error, reply_begun=reply_begun)
            raise connection_failed(what, fault, error, settings=self.settings, url=url) from None


def _fault(error: BaseException, *, reply_begun: bool) -> Fault:
    if reply_begun:
        return Fault.UNREADABLE
    if isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL)):
        return Fault.NEVER_SENT
    return Fault.MAYBE_ACCEPTED
