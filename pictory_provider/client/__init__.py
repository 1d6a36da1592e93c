# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Carry a request to Pictory and its reply back: ``sync`` with requests, ``aio`` with aiohttp.

Errors of the HTTP libraries become faults here and nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pictory_provider.api.errors import Fault, TransportError

if TYPE_CHECKING:
    from pictory_provider.api.connection import ConnectionSettings

MAX_REPLY_BYTES = 16 * 1024 * 1024
"""A reply of the API larger than this is given up: the largest documented ones are lists of 100 items."""
PIECE_BYTES = 64 * 1024
_HOW_FAR = {
    Fault.NEVER_SENT: "was never sent",
    Fault.MAYBE_ACCEPTED: "got no reply",
    Fault.UNREADABLE: "got a broken reply",
}
SHORTEST_KEY = 8
"""Characters. A shorter one is no key of Pictory's, and may be a part of any word."""


def headers_for_api(settings: ConnectionSettings) -> dict[str, str]:
    """Return the headers of a request to the API, the raw key among them."""
    return {
        "Authorization": settings.api_key,
        "User-Agent": settings.user_agent,
        "Accept": "application/json",
    }


def without_key(content: bytes, settings: ConnectionSettings) -> bytes:
    """Return a reply's body without the API key, should it repeat that: errors quote replies, and XComs errors."""
    key = settings.api_key.encode()
    return content if len(key) < SHORTEST_KEY else content.replace(key, b"***")


def connection_failed(what: str, fault: Fault, error: BaseException) -> TransportError:
    """Return the fault of a failed connection.

    The cause is named by its innermost class and text alone: library texts quote whole URLs, and a URL's
    query string may hold a token.
    """
    inner = error
    while (deeper := _cause(inner)) is not None:
        inner = deeper
    reason = type(inner).__name__
    if isinstance(inner, OSError) and inner.strerror:
        reason += f" ({inner.strerror})"
    return TransportError(f"{what} {_HOW_FAR[fault]}: {reason}.", fault=fault)


def _cause(error: BaseException) -> BaseException | None:
    for candidate in (getattr(error, "reason", None), *error.args, error.__cause__, error.__context__):
        if isinstance(candidate, BaseException) and candidate is not error:
            return candidate
    return None
