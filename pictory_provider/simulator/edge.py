# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The edge before the API: a firewall, a gateway that can refuse headers, and one that counts requests."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pictory_provider.simulator.replies import LoggedRequest
    from pictory_provider.simulator.shapes import Reply

PAGE = "<!DOCTYPE html><title>Attention Required!</title><p>Error 1010: Access denied.</p>"
"""The error page of a firewall."""
PER_MINUTE = 60
_BLOCKED = {
    "no-urllib": re.compile(r"python-urllib", re.IGNORECASE),
    "no-libraries": re.compile(r"\b(python|aiohttp|httpx|curl)\b", re.IGNORECASE),
    "browsers-only": re.compile(r"^(?!mozilla/)", re.IGNORECASE),
}
_KNOWN_HEADERS = {
    *("accept", "accept-encoding", "authorization", "connection", "content-length", "content-type", "host"),
    *("transfer-encoding", "user-agent"),
}
_LIMIT_HEADERS = {
    "x-ratelimit": ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"),
    "ratelimit": ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"),
}


def refusal(headers: Mapping[str, str], chosen: Mapping[str, str]) -> Reply | None:
    """Return the reply to a request that the edge refuses; ``None`` if it reaches the API.

    :param chosen: the shapes, by their names.
    """
    blocked = _BLOCKED.get(chosen["firewall"])
    if blocked and blocked.search(headers.get("User-Agent", "")):
        return 403, PAGE
    unknown = sorted(name for name in headers if name.lower() not in _KNOWN_HEADERS)
    if unknown and chosen["unknown-header"] == "refused":
        return 400, {"message": f"Unsupported header: {', '.join(unknown)}"}
    return None


def limit_headers(requests: list[LoggedRequest], chosen: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that say how many requests are left in this minute."""
    names = _LIMIT_HEADERS.get(chosen["limit-headers"])
    if names is None:
        return {}
    now = time.time()
    recent = sum(request.host == "api" and request.at > now - 60 for request in requests)
    values = (PER_MINUTE, max(0, PER_MINUTE - recent), 60)
    return {name: str(value) for name, value in zip(names, values, strict=True)}
