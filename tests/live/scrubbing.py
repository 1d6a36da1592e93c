# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Remove all secrets from Pictory's replies, so that they can be published.

Only harmless values remain: documented words, numbers and dates of documented fields, and texts of Pictory in which
everything that resembles a key, an id, an address or a host is replaced. Every other value is replaced by one of the
same type. The same secret has the same replacement everywhere.
"""

from __future__ import annotations

import re
import uuid
from typing import Any
from urllib.parse import quote, urlsplit

from pictory_provider.api.models import MODELS, STYLES
from tests.samples import JOB_ID

WORDS = {
    *MODELS,
    *STYLES,
    *(ratio for model in MODELS.values() for ratio in model.aspect_ratios),
    *("prompt", "model", "aspectRatio", "style", "referenceImageUrl", "webhook"),
    *("in-progress", "completed", "failed", "cleaned", "debit", "credit", "Text-to-Image", "Monthly Reset", ""),
    *("INVALID_REQUEST_BODY", "INVALID_REQUEST", "INSUFFICIENT_CREDITS", "JOB_NOT_FOUND", "5000", "Unauthorized"),
}
"""Documented values."""
TEXTS = {
    *("message", "Message", "error", "errors", "error_message", "errorMessage", "error_code", "errorCode", "code"),
    *("fields", "prompt", "status", "type", "model", "style", "aspectRatio", "source", "description"),
}
"""Fields whose texts are shown. Names of fields are shown only in ``fields``, where they name the wrong ones."""
NUMBERS = {"width", "height", "aiCreditsUsed", "used", "limit", "amount", "error_code", "errorCode", "status"}
HEADERS = {
    *("content-type", "content-length", "retry-after", "server", "cache-control", "expires", "last-modified"),
    *("age", "accept-ranges", "access-control-allow-origin", "x-cache", "www-authenticate", "x-amzn-errortype"),
    *("location", "allow"),
}
"""Headers whose values are shown, as are those of rate limiting; of other headers only the names are shown."""
LIMITS = re.compile(r"rate-?limit|^retry-after$|quota", re.IGNORECASE)
PATH_WORDS = {"images", "image", "user", "users", "v1", "aistudio", "jobs", "media", "generated", "pictoryapis"}
QUERY_NAMES = re.compile(
    r"^(Expires|Signature|Key-Pair-Id|Policy|X-Amz-[A-Za-z-]+|X-Goog-[A-Za-z-]+|s[a-z]{1,2})$"
)

_URL = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s\"'<>\\]+", re.IGNORECASE)
_UUID = re.compile(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", re.IGNORECASE)
_DATE = re.compile(r"^\d{4}-\d\d-\d\d(T[\d:.]+(Z|[+-]\d\d:?\d\d)?)?$")
_SUFFIX = re.compile(
    r"\.((?:s3[.-][a-z0-9.-]*?)?amazonaws\.com|cloudfront\.net|storage\.googleapis\.com|\w+\.core\.windows\.net)$"
)
_HOST = re.compile(r"\b[\w.-]+\.(?:amazonaws\.com|cloudfront\.net|googleapis\.com|windows\.net)\b", re.IGNORECASE)
_SECRET_PATTERNS = [
    (re.compile(r"pictai_[\w-]+", re.IGNORECASE), "pictai_..."),
    (re.compile(r"\barn:[^\s\"',]+"), "arn:..."),
    (re.compile(r"[\w.+-]+(?:@|%40)[\w-]+(?:\.[\w-]+)+"), "someone@example.com"),
    (re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b"), "192.0.2.1"),
    (re.compile(r"\b(?=[\w+=-]*\d)(?=[\w+=-]*[A-Za-z])[\w+=-]{16,}"), "token"),
    (re.compile(r"(?<![\w-])\d{6,}(?![\w-])"), "0"),
]
_FIELD = re.compile(r"^[A-Za-z_][A-Za-z_]{0,39}$")


class Scrubber:
    """Replaces secrets.

    :param api_key: is never shown in any form.
    :param job_id: is replaced by the jobId of the samples.
    :param public: our own texts that are not replaced, such as a prompt.
    """

    def __init__(self, api_key: str, job_id: str | None = None, public: tuple[str, ...] = ()) -> None:
        self._replacements: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._public = public
        self._replacements[api_key] = self._replacements[quote(api_key, safe="")] = "pictai_..."
        self._hard: set[str] = {api_key, quote(api_key, safe="")}
        if job_id:
            self._learn(job_id, JOB_ID)

    def value(self, value: Any, name: str = "") -> Any:
        """Return a JSON value without secrets; every field keeps its type."""
        if isinstance(value, dict):
            has_names = name == "fields"
            return {self._field(k): self.value(v, "fields" if has_names else k) for k, v in value.items()}
        if isinstance(value, list):
            return [self.value(inner, name) for inner in value]
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, (int, float)):
            if name in NUMBERS:
                return value
            self._learn_number(value)
            return type(value)(0)
        return self._string(str(value), name)

    def text(self, text: str) -> str:
        """Return a text without secrets."""
        if text in self._public or text in WORDS:
            return text
        marks = {f"\0{number}\0": public for number, public in enumerate(self._public)}
        for mark, public in marks.items():
            text = text.replace(public, mark)
        text = _URL.sub(lambda found: self.url(found[0]), text)
        for secret in sorted(self._replacements, key=len, reverse=True):
            text = _as_word(secret).sub(lambda _, secret=secret: self._replacements[secret], text)
        text = _UUID.sub(lambda found: self._uuid(found[0]), text)
        text = _HOST.sub(lambda found: self._host(found[0]), text)
        for pattern, instead in _SECRET_PATTERNS:
            text = pattern.sub(lambda found, instead=instead: self._known_or(found[0], instead), text)
        for mark, public in marks.items():
            text = text.replace(mark, public)
        return text

    def url(self, url: str) -> str:
        """Return a URL with a replaced host and path, and with only the names of its query parameters."""
        try:
            parts = urlsplit(url)
        except ValueError:
            return "url"
        path = "/".join(self._segment(segment) for segment in parts.path.split("/"))
        parameters = [self._parameter(part) for part in parts.query.split("&") if part]
        query = f"?{'&'.join(parameters)}" if parameters else ""
        return f"{parts.scheme.lower()}://{self._host(parts.hostname or '')}{path}{query}"

    def headers(self, headers: dict[str, str]) -> tuple[dict[str, str], list[str]]:
        """Return the headers to show, and the names of the others."""
        shown = {n: self.text(v) for n, v in headers.items() if n in HEADERS or LIMITS.search(n)}
        return shown, sorted(name for name in headers if name not in shown)

    def learn(self, value: Any) -> None:
        """Collect the secrets of a reply, so that they are replaced in all texts."""
        self.value(value)

    def final_check(self, text: str) -> str:
        """Return a whole page without any remaining keys, ids, hosts and query values."""
        for secret in sorted(self._hard, key=len, reverse=True):
            text = _as_word(secret).sub(lambda _, secret=secret: self._replacements[secret], text)
        return text

    def _string(self, text: str, name: str) -> str:
        if text in WORDS or text in self._public or text in self._replacements.values() or _DATE.match(text):
            return text
        if text in self._replacements:
            return self._replacements[text]
        if _UUID.fullmatch(text):
            return self._uuid(text)
        if _URL.fullmatch(text):
            return self.url(text)
        if name in TEXTS:
            return self.text(text)
        return self._learn(text, self._next("text"))

    def _field(self, name: str) -> str:
        return (
            name
            if _FIELD.match(name) and name not in self._replacements
            else self._learn(name, self._next("field"))
        )

    def _uuid(self, found: str) -> str:
        known = self._replacements.get(found) or self._replacements.get(found.lower())
        if known or found in self._replacements.values():
            return known or found
        number = self._counts["uuid"] = self._counts.get("uuid", 0) + 1
        return self._learn(found.lower(), str(uuid.UUID(int=number, version=4)))

    def _host(self, host: str) -> str:
        host = host.lower()
        if not host or host in self._replacements.values() or host == "api.pictory.ai":
            return host
        if host in self._replacements:
            return self._replacements[host]
        suffix = _SUFFIX.search(host)
        if suffix:
            return self._learn(host, f"{self._next('host')}.{suffix[1]}")
        return self._learn(host, f"{self._next('host')}.example")

    def _segment(self, segment: str) -> str:
        stem, dot, kind = segment.rpartition(".")
        if not dot or not re.fullmatch(r"[a-z]{3,4}", kind):
            stem, dot, kind = segment, "", ""
        if _UUID.fullmatch(stem):
            return f"{self._uuid(stem)}{dot}{kind}"
        if not stem or stem in PATH_WORDS:
            return segment
        return f"{self._learn(stem, self._replacements.get(stem) or self._next('path'))}{dot}{kind}"

    def _parameter(self, part: str) -> str:
        name, _, value = part.partition("=")
        for secret in filter(None, (value, "" if QUERY_NAMES.match(name) else name)):
            if len(secret) >= 6:
                self._learn(secret, "...")
        return f"{name if QUERY_NAMES.match(name) else 'other'}=..."

    def _learn(self, secret: str, instead: str) -> str:
        """Replace a secret everywhere from now on."""
        if len(secret.strip()) < 3:
            return instead
        if secret not in self._replacements.values() and secret not in self._public:
            self._replacements.setdefault(secret, instead)
            if len(secret) >= 6 and any(c.isdigit() for c in secret):
                self._hard.add(secret)
        return self._replacements.get(secret, instead)

    def _learn_number(self, number: float) -> None:
        if isinstance(number, int) and number >= 10_000:
            self._learn(str(number), "0")

    def _known_or(self, found: str, instead: str) -> str:
        return found if found in self._replacements.values() or found in WORDS else instead

    def _next(self, kind: str) -> str:
        self._counts[kind] = self._counts.get(kind, 0) + 1
        return f"{kind}-{self._counts[kind]}"


def _as_word(secret: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![A-Za-z0-9]){re.escape(secret)}(?![A-Za-z0-9])", re.IGNORECASE)
