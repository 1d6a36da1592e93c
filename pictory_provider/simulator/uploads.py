# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Uploads of reference images: signed URLs, what is sent to them, and the public URLs. The clock is an argument.

https://docs.pictory.ai/api-reference/media-management/generate-signed-url. The signed URLs are like Amazon S3's,
and so are the refusals (https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html).
"""

from __future__ import annotations

import re
import secrets
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pictory_provider.simulator.background import MAX_REFERENCE_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pictory_provider.simulator.shapes import Reply

FIELDS = ("fileName", "contentType")
LIFETIME = 86_400
"""Seconds for which a signed URL works."""


@dataclass
class Upload:
    """A file that may be uploaded, or was."""

    content_type: str
    expires: float
    signature: str
    content: bytes | None = None


class Uploads:
    """The uploaded files of an account, by the paths of their public URLs.

    :param settings: of the account: ``upload_seconds`` and ``upload_bytes``.
    """

    def __init__(self, settings: Mapping[str, float]) -> None:
        self.files: dict[str, Upload] = {}
        self._settings = settings

    def prepare(self, body: dict[str, Any], origin: str, now: float) -> dict[str, Any]:
        """Return the data of the reply to a valid request for a signed URL.

        :param origin: of the host that takes and serves the files.
        """
        path = f"/public/teams/{uuid.uuid4()}/{uuid.uuid4()}/{quote(body['fileName'], safe='')}"
        expires = now + (self._settings["upload_seconds"] or LIFETIME)
        self.files[path] = upload = Upload(body["contentType"], expires, secrets.token_hex(16))
        kind = quote(upload.content_type, safe="")
        query = f"Content-Type={kind}&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature={upload.signature}"
        return {"signedUrl": f"{origin}{path}?{query}", "url": f"{origin}{path}", "key": path[1:]}

    def receive(
        self, path: str, query: Mapping[str, str], headers: Mapping[str, str], content: bytes, now: float
    ) -> Reply:
        """Take a file, or refuse it as Amazon S3 does."""
        upload = self.files.get(path)
        if "Authorization" in headers:
            return _refused(400, "InvalidArgument", "Only one auth mechanism allowed")
        if upload is None or "X-Amz-Signature" not in query:
            return _refused(403, "AccessDenied", "Access Denied")
        if now >= upload.expires:
            return _refused(403, "AccessDenied", "Request has expired")
        if query["X-Amz-Signature"] != upload.signature or headers.get("Content-Type") != upload.content_type:
            told = f"<SignatureProvided>{query['X-Amz-Signature']}</SignatureProvided>"
            return _refused(403, "SignatureDoesNotMatch", "The request signature does not match", told)
        if len(content) > (self._settings["upload_bytes"] or MAX_REFERENCE_BYTES):
            return _refused(400, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size")
        upload.content = content
        return 200, b""

    def serve(self, path: str) -> Reply:
        """Answer a request for a public URL."""
        upload = self.files.get(path)
        if upload is None or upload.content is None:
            return _refused(403, "AccessDenied", "Access Denied")
        return 200, upload.content


def problems(body: dict[str, Any]) -> dict[str, str]:
    """Return the problems of a request for a signed URL, by field."""
    found: dict[str, str] = {}
    name = body.get("fileName")
    if not isinstance(name, str) or not name.strip():
        found["fileName"] = "fileName is required and must be a string"
    if not re.fullmatch(r"[a-z]+/[\w.+-]+", str(body.get("contentType"))):
        found["contentType"] = "contentType is required and must be a MIME type"
    return found


def _refused(status: int, code: str, message: str, more: str = "") -> Reply:
    head = '<?xml version="1.0" encoding="UTF-8"?>\n'
    return status, f"{head}<Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>"
