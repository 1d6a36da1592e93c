# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""HTTP replies, and the log of requests."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

from pictory_provider.simulator.account import page

if TYPE_CHECKING:
    from pictory_provider.simulator import shapes


@dataclass
class LoggedRequest:
    """One request that the simulator received.

    :param at: epoch seconds.
    :param port: the client's port, which is the same for all requests over one connection.
    :param host: ``api`` or ``images``.
    :param body: the JSON of the body; ``None`` without a body.
    :param ignored: undocumented fields of the body, which were dropped.
    :param status: of the reply; 0 if the connection was dropped instead.
    :param fault: the scripted fault that affected it.
    """

    at: float
    port: int
    host: str
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str] = field(repr=False)
    body: Any = None
    ignored: tuple[str, ...] = ()
    status: int = 0
    fault: str | None = None


def logged(request: web.Request, host: str, path: str, raw: bytes) -> LoggedRequest:
    """Return the log entry of a request."""
    body: Any = None
    if raw:
        try:
            body = json.loads(raw)
        except ValueError:
            body = raw.decode("utf-8", "replace")
    peer = request.transport and request.transport.get_extra_info("peername")
    return LoggedRequest(
        at=time.time(),
        port=int(peer[1]) if peer else 0,
        host=host,
        method=request.method,
        path=path,
        query=dict(request.query),
        headers=dict(request.headers),
        body=body,
    )


def refused(status: int, message: str) -> shapes.Reply:
    """Return a refusal of an undocumented request."""
    return status, {"code": "REFUSED_BY_THE_SIMULATOR", "message": message}


def paged(items: list[Any], request: web.Request, *, always: bool) -> shapes.Reply:
    """Return one page of a list.

    :param always: whether ``nextPageKey`` is present on the last page too.
    """
    try:
        found, following = page(items, request.query.get("nextPageKey"))
    except ValueError:
        return refused(400, "no such nextPageKey")
    return 200, {"items": found} | ({"nextPageKey": following} if following or always else {})


def encode(body: Any) -> bytes:
    """Return a body as bytes: bytes unchanged, text encoded, everything else as JSON."""
    if isinstance(body, bytes):
        return body
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()


def content_type(body: Any) -> str:
    """Return the content type that fits a body."""
    if isinstance(body, bytes):
        return "image/jpeg" if body.startswith(b"\xff\xd8") else "image/png"
    if isinstance(body, str):
        return "application/xml" if body.startswith("<?xml") else "text/html"
    return "application/json"


def reply(
    entry: LoggedRequest,
    answer: shapes.Reply,
    *,
    headers: dict[str, str] | None = None,
    retry_after: object = None,
) -> web.Response:
    """Return the response to a request, and log its status."""
    status, body = answer
    entry.status = status
    sent = dict(headers or {})
    if retry_after is not None:
        sent["Retry-After"] = str(retry_after)
    return web.Response(status=status, body=encode(body), content_type=content_type(body), headers=sent)
