# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Replies with faults."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from aiohttp import web

from pictory_provider.simulator import edge, shapes
from pictory_provider.simulator.replies import content_type, encode, reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from pictory_provider.simulator.faults import ScriptedFault
    from pictory_provider.simulator.replies import LoggedRequest

_REFUSALS: dict[str, shapes.Reply] = {
    "rate-limited": (429, {"message": "Too Many Requests"}),
    "unavailable": (503, {"message": "Service Unavailable"}),
    "edge-block": (403, edge.PAGE),
    "unauthorized": shapes.unauthorized(),
    "forbidden": (403, {"message": "Forbidden"}),
}

_STATUSES = {"server-error": 500, "redirect": 302}

_SPOILED: dict[str, Callable[[bytes], Any]] = {
    "garbage": lambda _: "<html>this is not JSON</html>",
    "empty": lambda _: {},
    "truncated": lambda content: content[: len(content) // 2],
    "not-a-png": lambda _: "<html>this is not a picture</html>",
    "trailing": lambda content: content + b"\n",
    "damaged": lambda content: content[:200] + bytes([content[200] ^ 0xFF]) + content[201:],
}


async def misbehave(
    request: web.Request,
    entry: LoggedRequest,
    fault: ScriptedFault,
    carry_out: Callable[[], shapes.Reply],
    elsewhere: str,
) -> web.StreamResponse:
    """Answer a request with its fault.

    :param carry_out: carries the request out, and returns the reply without the fault.
    :param elsewhere: default target of a redirect.
    """
    name = fault.name
    if name in ("drop-before", "drop-after"):
        if name == "drop-after":
            carry_out()
        return _drop(request, reset=fault.is_on("reset"))
    if (name in _REFUSALS or name in _STATUSES) and fault.is_on("accepted"):
        carry_out()
    if name in _REFUSALS:
        return reply(entry, _REFUSALS[name], retry_after=fault.option("retry_after"))
    if name in _STATUSES:
        status = int(fault.option("status", _STATUSES[name]))
        location = {"Location": str(fault.option("to", elsewhere))} if name == "redirect" else {}
        return reply(entry, (status, fault.option("body", {"message": name})), headers=location)
    pause = float(fault.option("seconds", 0.1 if name == "drip" else 5))
    if name == "slow":
        await asyncio.sleep(pause)
    answer = carry_out()
    if name == "slow-reply":
        await asyncio.sleep(pause)
    if name in ("slow", "slow-reply"):
        return reply(entry, answer)
    if name in _SPOILED:
        return reply(entry, (200, _SPOILED[name](encode(answer[1]))))
    return await _broken_stream(request, entry, fault, answer, pause)


def _drop(request: web.Request, *, reset: bool) -> web.Response:
    transport = request.transport
    if transport is not None:
        if reset:
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response()


async def _broken_stream(
    request: web.Request, entry: LoggedRequest, fault: ScriptedFault, answer: shapes.Reply, pause: float
) -> web.StreamResponse:
    """Send a reply that is slow or ends early: drop-during and drip."""
    status, body = answer
    content = encode(body)
    response = web.StreamResponse(status=status, headers={"Content-Type": content_type(body)})
    response.content_length = len(content)
    entry.status = status
    await response.prepare(request)
    if fault.name == "drip":
        with suppress(ConnectionError):
            for position in range(len(content)):
                await response.write(content[position : position + 1])
                await asyncio.sleep(pause)
        return response
    await response.write(content[: len(content) // 2])
    if request.transport is not None:
        request.transport.close()
    return response
