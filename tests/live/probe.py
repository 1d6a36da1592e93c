# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Send requests as a worker does, with the provider's client, and store every exchange."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pictory_provider.api.errors import ImageInvalid, TransportError
from pictory_provider.client.aio import AsyncClient
from pictory_provider.client.sync import SyncClient
from pictory_provider.media.formats import Picture, PictureChecker
from pictory_provider.media.png import SIGNATURE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pictory_provider.api.connection import ConnectionSettings
    from pictory_provider.api.endpoints import Request
    from pictory_provider.api.responses import Response


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its result.

    :param at: when it was sent, in epoch seconds.
    :param response: ``None`` if there was no reply; then ``problem`` says why.
    """

    request: Request
    at: float
    seconds: float = 0.0
    response: Response | None = None
    problem: str = ""

    @property
    def answered_at(self) -> float:
        return self.at + self.seconds

    @property
    def status(self) -> int | None:
        return self.response.status if self.response else None

    @property
    def body(self) -> Any:
        """The JSON of the reply, or its text."""
        raw = self.response.body if self.response else b""
        try:
            return json.loads(raw)
        except ValueError:
            return raw.decode("utf-8", "replace")

    def headers(self) -> dict[str, str]:
        return dict(self.response.headers) if self.response else {}


class Probe(SyncClient):
    """The worker's client, which stores all exchanges.

    :param exchanges: the list for them, which variants share.
    :param headers: additional headers.
    """

    def __init__(
        self,
        settings: ConnectionSettings,
        exchanges: list[Exchange] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(settings)
        self.exchanges = [] if exchanges is None else exchanges
        self._headers = headers or {}

    def send(self, request: Request) -> Response:
        at = time.time()
        try:
            response = super().send(request)
        except TransportError as error:
            self.exchanges.append(Exchange(request, at, time.time() - at, problem=error.message))
            raise
        self.exchanges.append(Exchange(request, at, time.time() - at, response))
        return response

    def ask(self, request: Request) -> Exchange:
        """Send a request once, and return the exchange, also without a reply."""
        with suppress(TransportError):
            self.send(request)
        return self.exchanges[-1]

    @contextmanager
    def as_other(self, headers: dict[str, str] | None = None, **settings: Any) -> Iterator[Probe]:
        """Yield a probe with other settings or additional headers."""
        other = Probe(replace(self.settings, **settings), self.exchanges, headers)
        try:
            yield other
        finally:
            other.close()

    def ask_as_triggerer(self, request: Request) -> Exchange:
        """Send a request with the triggerer's client, which uses another HTTP library."""

        async def once() -> Response:
            client = await AsyncClient.open(self.settings)
            try:
                return await client.send(request)
            finally:
                await client.close()

        at = time.time()
        try:
            exchange = Exchange(request, at, response=asyncio.run(once()))
        except TransportError as error:
            exchange = Exchange(request, at, problem=error.message)
        self.exchanges.append(exchange)
        return exchange

    def _request(self, session: Any, method: str, url: str, **arguments: Any) -> Any:
        arguments["headers"] = arguments["headers"] | self._headers
        return super()._request(session, method, url, **arguments)


@dataclass(slots=True)
class Fetched:
    """The reply of a picture's host to a request without a key."""

    at: float
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    size: int = 0
    sha256: str = ""
    picture: Picture | None = None
    chunks: tuple[str, ...] = ()
    content: bytes = b""
    problem: str = ""


def fetch(client: SyncClient, url: str) -> Fetched:
    """Download a picture, without the key and once."""
    fetched = Fetched(time.time())
    try:
        with client.stream(url) as (reply, parts):
            fetched.status, fetched.headers = reply.status, dict(reply.headers)
            fetched.content = b"".join(parts)
    except TransportError as error:
        fetched.problem = error.message
        return fetched
    fetched.size, fetched.sha256 = len(fetched.content), hashlib.sha256(fetched.content).hexdigest()
    if fetched.status == 200:
        checker = PictureChecker()
        try:
            checker.feed(fetched.content)
            fetched.picture = checker.finish()
        except ImageInvalid as error:
            fetched.problem = error.message
        fetched.chunks = chunks(fetched.content)
    return fetched


def chunks(content: bytes) -> tuple[str, ...]:
    """Return the chunks of a PNG in order, text chunks with their keyword, and the many ``IDAT`` as one."""
    found: list[str] = []
    at = len(SIGNATURE)
    while content.startswith(SIGNATURE) and at + 8 <= len(content):
        length, kind = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8].decode("latin-1")
        name = kind
        if kind in ("iTXt", "tEXt", "zTXt"):
            keyword = content[at + 8 : at + 8 + min(length, 80)].partition(b"\0")[0]
            name = f"{kind} ({keyword.decode('latin-1')})"
        if not (found and found[-1] == name == "IDAT"):
            found.append(name)
        at += length + 12
        if kind == "IEND":
            break
    return tuple(found)
