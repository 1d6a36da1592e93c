# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A reverse proxy on loopback, which counts requests, delays them as a network does, and can lose replies."""

from __future__ import annotations

import asyncio
import threading
from io import BytesIO
from typing import TYPE_CHECKING, Self, TypeVar

from aiohttp import ClientSession, DummyCookieJar, web

from demo.stack import HOST

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Future

T = TypeVar("T")

_HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "content-length",
    "expect",
}


class Proxy:
    """Forwards all requests to a server.

    :param server: its URL.
    :param delay: seconds for which each request is held.
    :ivar requests: method and path with query of each request.
    :ivar loses: whether the reply to a request is lost, given its method and its path.
    :ivar url: of the proxy.
    """

    def __init__(self, server: str, *, delay: float = 0.0) -> None:
        self.requests: list[str] = []
        self.loses: Callable[[str, str], bool] = lambda *_: False
        self._server = server.rstrip("/")
        self._delay = delay
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.url = self._call(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, coroutine: Coroutine[None, None, T]) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return future.result(30)

    async def _start(self) -> str:
        self._session = ClientSession(cookie_jar=DummyCookieJar(), auto_decompress=False)
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{path:.*}", self._forward)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, HOST, 0)
        await site.start()
        return f"http://{HOST}:{self._runner.addresses[0][1]}"

    async def _stop(self) -> None:
        await self._session.close()
        await self._runner.cleanup()

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.raw_path}")
        body = await request.read()
        await asyncio.sleep(self._delay)
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP]
        headers.append(("Content-Length", str(len(body))))
        async with self._session.request(
            request.method,
            self._server + request.raw_path,
            headers=headers,
            data=BytesIO(body),
            allow_redirects=False,
            skip_auto_headers=("User-Agent", "Accept", "Content-Type"),
        ) as reply:
            content = await reply.read()
            if self.loses(request.method, request.path):
                assert request.transport is not None
                request.transport.close()
            kept = [(name, value) for name, value in reply.headers.items() if name.lower() not in _HOP_BY_HOP]
            answer = web.Response(status=reply.status, body=content)
            answer.headers.clear()
            answer.headers.extend(kept)
            if request.method == "HEAD":
                answer.headers["Content-Length"] = reply.headers.get("Content-Length", "0")
            return answer
