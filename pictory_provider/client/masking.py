# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
r"""Hide the API key in replies, in every common encoding.

Errors quote replies, logs and XComs quote errors, and a reply's job data is stored in Airflow's database. So both
clients pass each complete reply through :meth:`Mask.hide` before any other code reads it. The key and a proxy's
password are hidden

- as they are, in UTF-8 or UTF-16;
- with the escapes of JSON (``\/``, ``\u002b``), of URLs (``%2B``) and of HTML (``&#43;``), also nested;
- in base64, alone or inside a longer text (``Basic`` credentials), in both alphabets and with the same escapes.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode, urlsafe_b64encode
from html.entities import html5
from typing import Any

from pictory_provider.api.decoding import parse_json

SHORTEST = 8
"""The shortest secret that is hidden, in characters. A shorter one is not a key, and may be part of any word."""
_ROUNDS = 6
"""The number of nested escapes that are decoded."""
_ESCAPE = re.compile(
    rb"\\[uU]00([0-9a-fA-F]{2})|\\[xX]([0-9a-fA-F]{2})|%([0-9a-fA-F]{2})|&#[xX]0*([0-9a-fA-F]{2});?"
    rb"|&#0*([0-9]{2,3});?|&([a-zA-Z]{2,8});|\\(.)",
    re.DOTALL,
)


class Mask:
    """Hides secrets in replies.

    :param secrets: the key and a proxy's password; those shorter than :data:`SHORTEST` are ignored.
    """

    def __init__(self, *secrets: str | None) -> None:
        long = [secret for secret in secrets if secret and len(secret) >= SHORTEST]
        self._forms = list(dict.fromkeys(form.encode() for each in long for form in (each, *_in_base64(each))))

    def hide(self, content: bytes) -> bytes:
        """Return a reply's body with ``***`` in place of every secret.

        A JSON body stays JSON. If a secret is escaped in a way that can be decoded but not replaced, the body is
        returned without its escapes.
        """
        if not self._shows(content):
            return content
        for form in self._forms:
            escaped = re.compile(b"".join(map(_character, form)))  # re caches it
            content = escaped.sub(b"***", content.replace(form, b"***"))
        if self._shows(content):
            content = self._hide_in_values(content)
        if self._shows(content):
            content = _without_escapes(content)
            for form in self._forms:
                content = content.replace(form, b"***")
        return content

    def _shows(self, content: bytes) -> bool:
        """Return whether a text contains a secret, before or after decoding its escapes."""
        return any(form in text for text in (content, _without_escapes(content)) for form in self._forms)

    def _hide_in_values(self, content: bytes) -> bytes:
        try:
            return json.dumps(self._hidden(parse_json(content))).encode()
        except ValueError:
            return content

    def _hidden(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {self._hidden(name): self._hidden(each) for name, each in value.items()}
        if isinstance(value, list):
            return [self._hidden(each) for each in value]
        if not isinstance(value, str):
            return value
        return self.hide(value.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")


def _in_base64(secret: str) -> list[str]:
    """Return the base64 digits that depend only on the secret, for each of its three possible positions."""
    raw = secret.encode()
    return [
        encode(b"\0" * before + raw)[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6].decode()
        for before in range(3)
        for encode in (b64encode, urlsafe_b64encode)
    ]


def _without_escapes(content: bytes) -> bytes:
    text = content.replace(b"\0", b"")
    for _ in range(_ROUNDS):
        before, text = text, _ESCAPE.sub(_unescaped, text)
        if text == before:
            break
    return text


def _unescaped(found: re.Match[bytes]) -> bytes:
    *hexadecimal, decimal, name, literal = found.groups()
    if literal is not None:
        return literal
    if name is not None:
        return html5.get(f"{name.decode()};", "").encode() or found[0]
    code = int(decimal) if decimal is not None else int(next(filter(None, hexadecimal)), 16)
    return bytes([code]) if code < 0x80 else found[0]


def _character(code: int) -> bytes:
    """Return a pattern for the common encodings of an ASCII character."""
    digits = b"(?i:%02x)" % code
    return (
        rb"(?:\\{0,8}" + re.escape(bytes([code])) + rb"|\\{1,8}(?:[uU]00|[xX])" + digits
        + rb"|%(?:25){0,4}" + digits
        + rb"|&#0{0,4}" + b"%d" % code + b";?|&#[xX]0{0,4}" + digits + rb";?)\0{0,3}"
    )  # fmt: skip
