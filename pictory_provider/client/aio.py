# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The triggerer's way to Pictory, with aiohttp. It only ever reads."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

import aiohttp
import certifi

from pictory_provider.api.connection import CONNECT_TIMEOUT, MOST_CONNECTIONS, ConnectionSettings
from pictory_provider.api.errors import Fault
from pictory_provider.api.responses import Response
from pictory_provider.client import MAX_REPLY_BYTES, connection_failed, headers_for_api, without_key

if TYPE_CHECKING:
    from pictory_provider.api.endpoints import Request


_KEEP_ALIVE = 50.0
"""Seconds that an idle connection is kept: longer than the longest polite interval, so that the next look finds
it open, and shorter than the 60 s after which load balancers commonly close it."""


class AsyncClient:
    """Send reading requests over kept-alive connections of one event loop; close it when done.

    Make it with :meth:`open`: reading the certificates to trust takes long enough to be felt by every
    other trigger of the loop, so it is done in a thread.
    """

    def __init__(self, settings: ConnectionSettings, session: aiohttp.ClientSession) -> None:
        self.settings = settings
        self._session = session
        self._proxy = settings.proxy_for(settings.base_url)
        # Headers of the session would go to a proxy too, the key among them, and in clear text.
        self._headers = headers_for_api(settings)

    @classmethod
    async def open(cls, settings: ConnectionSettings) -> AsyncClient:
        """Return a client for the running event loop."""
        trusted = settings.trusted_certificates() or certifi.where()
        context = await asyncio.to_thread(ssl.create_default_context, cafile=trusted)
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=MOST_CONNECTIONS, keepalive_timeout=_KEEP_ALIVE),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=settings.timeout, sock_connect=min(CONNECT_TIMEOUT, settings.timeout)
            ),
            trust_env=False,
        )
        # A request that a reused connection dropped would be sent again at once, past the pace that all requests
        # keep. There is no public switch; a test of the pace tells when this one is gone.
        session._retry_connection = False  # noqa: SLF001
        return cls(settings, session)

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def send(self, request: Request) -> Response:
        """Send one reading request to the API and read the whole reply.

        :raises ValueError: for a POST. A trigger may run twice at once, so it must never buy anything.
        :raises TransportError: with the fault that tells how far the request had got.
        """
        if request.method != "GET":
            raise ValueError(f"The asynchronous client only reads: {request.method} {request.path}")
        reply_begun = False
        try:
            url = self.settings.url(request.path)
            async with self._session.get(
                url,
                params=request.query or None,
                headers=self._headers,
                allow_redirects=False,
                proxy=self._proxy,
            ) as reply:
                reply_begun = True
                content = await reply.content.read(MAX_REPLY_BYTES)
                while piece := await reply.content.read(MAX_REPLY_BYTES):
                    content += piece
                    if len(content) > MAX_REPLY_BYTES:
                        raise OSError(None, "the reply is too large")
                headers = {name.lower(): value for name, value in reply.headers.items()}
                return Response(reply.status, headers, without_key(content, self.settings))
        except Exception as error:
            what = f"{request.method} {request.path}"
            raise connection_failed(what, _fault(error, reply_begun=reply_begun), error) from None


def _fault(error: BaseException, *, reply_begun: bool) -> Fault:
    if reply_begun:
        return Fault.UNREADABLE
    if isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL)):
        return Fault.NEVER_SENT
    return Fault.MAYBE_ACCEPTED
