# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Faults on demand: which requests they affect, and how often."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

PLACES = {
    "submit": "POST /v1/aistudio/images",
    "job": "GET /v1/jobs/{jobid}",
    "images": "GET /v1/aistudio/images",
    "jobs": "GET /v1/jobs",
    "quota": "GET /v1/quota",
    "usage": "GET /v1/aicredits/usage",
    "clean": "DELETE /v1/jobs/{jobid}/clean",
    "picture": "GET of a picture from the images' host",
    "upload-url": "POST /v1/media/generateurl",
    "upload": "PUT of a file to a signed URL",
    "uploaded": "GET or HEAD of an uploaded file",
    "any": "every request to the API",
}

_OF_IMAGES = ("picture", "upload", "uploaded")
"""Places at the images' host."""

FAULTS = {
    "drop-before": "the connection closes, and the request is not carried out (reset=yes: with a TCP reset)",
    "drop-after": "the request is carried out, and the connection closes without a reply (reset=yes)",
    "drop-during": "the request is carried out, and the connection closes in the middle of the reply",
    "rate-limited": "429 (retry_after=2, 1.5, an HTTP date, rubbish); accepted=yes as below",
    "unavailable": "503 (retry_after=...); accepted=yes as below",
    "server-error": "status=500 or any other; body=another text; accepted=yes carries the request out before, "
    "which happens with gateways",
    "edge-block": "403 with an HTML page, like a firewall",
    "unauthorized": "401",
    "forbidden": "403 with JSON",
    "garbage": "the request is carried out, and the reply is 200 without JSON",
    "empty": "the request is carried out, and the reply is 200 with an empty JSON object",
    "redirect": "302 (to=URL); status=307 or another; accepted=yes",
    "slow": "the request is carried out after seconds=5",
    "slow-reply": "the request is carried out, and the reply comes after seconds=5",
    "drip": "the reply comes byte by byte, every seconds=0.1",
    "truncated": "a picture ends early, with a matching Content-Length; drop-during closes the connection",
    "not-a-png": "a picture is an HTML page",
    "wrong-size": "a picture has other dimensions than promised",
    "jpeg": "a picture is a JPEG file",
    "webp": "a picture is a WebP file",
    "trailing": "a line break follows the end of a picture",
    "damaged": "a picture has one wrong byte in its middle",
}

OPTIONS = ("reset", "retry_after", "status", "body", "accepted", "to", "seconds", "every")
"""Options of faults. All faults take ``every``: with ``every=3`` a fault affects only every third request."""


@dataclass
class ScriptedFault:
    """One fault, and how many more requests it affects."""

    place: str
    name: str
    times: int = 1
    options: dict[str, Any] = field(default_factory=dict)
    seen: int = 0

    def __post_init__(self) -> None:
        if self.place not in PLACES:
            raise ValueError(f"no such place: {self.place!r}; one of {', '.join(PLACES)}")
        if self.name not in FAULTS:
            raise ValueError(f"no such fault: {self.name!r}; one of {', '.join(FAULTS)}")
        if unknown := set(self.options) - set(OPTIONS):
            raise ValueError(f"no such option: {', '.join(sorted(unknown))}; there are {', '.join(OPTIONS)}")
        if int(self.options.get("every", 1)) < 1:
            raise ValueError("no such option: every takes a whole number from 1 on")

    def option(self, name: str, default: Any = None) -> Any:
        """Return one of the fault's options."""
        return self.options.get(name, default)

    def strikes(self, place: str) -> bool:
        """Whether this request is affected; all requests to the place count for ``every``."""
        if self.place != place and (self.place != "any" or place in _OF_IMAGES):
            return False
        self.seen += 1
        return self.seen % int(self.options.get("every", 1)) == 0

    def is_on(self, name: str) -> bool:
        """Whether a yes-or-no option is on."""
        return str(self.options.get(name, "no")).lower() in ("yes", "true", "1")


class FaultScript:
    """The scripted faults, in their order."""

    def __init__(self) -> None:
        self.waiting: list[ScriptedFault] = []

    def add(self, fault: ScriptedFault) -> None:
        """Add a fault."""
        self.waiting.append(fault)

    def take(self, place: str) -> ScriptedFault | None:
        """Return the fault that affects this request, and count the request."""
        for fault in self.waiting:
            if fault.strikes(place):
                fault.times -= 1
                if fault.times == 0:
                    self.waiting.remove(fault)
                return fault
        return None


def parse(text: str) -> ScriptedFault:
    """Parse ``place:fault[:times][:option=value...]`` from the command line.

    :raises ValueError: with a text that names the problem.
    """
    place, _, rest = text.partition(":")
    name, *parts = rest.split(":")
    times, options = 1, {}
    for part in parts:
        option, equals, value = part.partition("=")
        if equals:
            options[option] = value
        else:
            times = int(part)
    return ScriptedFault(place, name, times, options)
