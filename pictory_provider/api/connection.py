# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What an Airflow connection must hold to reach Pictory, and how to reach it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

from pictory_provider import __version__
from pictory_provider.api.errors import AuthenticationError, RequestInvalid

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_BASE_URL = "https://api.pictory.ai/pictoryapis"
DEFAULT_TIMEOUT = 60.0
"""Seconds for one request, from connecting to the last byte of the reply."""
CONNECT_TIMEOUT = 10.0
"""Seconds for connecting alone."""
DEFAULT_REQUESTS_PER_SECOND = 10.0
"""Looks of one triggerer in any second. Pictory documents no limit, only that polling too often may be refused."""
MOST_REQUESTS_PER_SECOND = 1_000.0
MOST_CONNECTIONS = 50
"""Connections that one triggerer keeps to Pictory at most, and so looks that are under way at once."""
DEFAULT_USER_AGENT = f"airflow-provider-pictory/{__version__}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSettings:
    """A connection of type ``pictory``, checked.

    :param api_key: sent raw in ``Authorization``, and only to the host of :attr:`base_url`. It is in no
        ``repr``.
    :param base_url: without a trailing slash.
    :param timeout: seconds for one request.
    :param proxy: URL of a proxy; ``None`` looks into the environment.
    :param ca_bundle: path of a PEM file to trust; ``None`` looks into the environment.
    :param requests_per_second: how many looks one triggerer sends in any second, at most.
    """

    api_key: str = field(repr=False)
    base_url: str = DEFAULT_BASE_URL
    timeout: float = DEFAULT_TIMEOUT
    user_agent: str = DEFAULT_USER_AGENT
    proxy: str | None = field(default=None, repr=False)
    ca_bundle: str | None = None
    requests_per_second: float = DEFAULT_REQUESTS_PER_SECOND

    @classmethod
    def from_fields(
        cls, conn_id: str, *, password: str | None, host: str | None, extra: Mapping[str, Any]
    ) -> ConnectionSettings:
        """Check the fields of an Airflow connection.

        :param password: the API key from https://app.pictory.ai/api-access, without ``Bearer``.
        :param host: base URL; empty means :data:`DEFAULT_BASE_URL`.
        :param extra: ``timeout``, ``user_agent``, ``proxy``, ``ca_bundle``, ``requests_per_second``.
        :raises AuthenticationError: without a usable key.
        :raises RequestInvalid: for any other field.
        """
        return cls(
            api_key=_api_key(conn_id, password),
            base_url=_base_url(conn_id, host),
            timeout=_number(conn_id, extra, "timeout", DEFAULT_TIMEOUT, 3_600, "seconds for one request"),
            user_agent=_header_text(conn_id, "user_agent", extra.get("user_agent")) or DEFAULT_USER_AGENT,
            proxy=_text(extra.get("proxy")),
            ca_bundle=_file(conn_id, extra.get("ca_bundle")),
            requests_per_second=_number(
                conn_id,
                extra,
                "requests_per_second",
                DEFAULT_REQUESTS_PER_SECOND,
                MOST_REQUESTS_PER_SECOND,
                "looks in a second",
            ),
        )

    def url(self, path: str) -> str:
        """Return the whole URL of a path such as ``/v1/quota``."""
        return self.base_url + path

    def proxy_for(self, url: str, environment: Mapping[str, str] = os.environ) -> str | None:
        """Return the proxy for a URL: the connection's own, else the environment's, ``no_proxy`` heeded.

        Both HTTP libraries are told the answer and look no further, so that a worker and a triggerer
        take the same way.
        """
        if self.proxy:
            return self.proxy
        parts = urlsplit(url)
        known = getproxies_environment() if environment is os.environ else _proxies(environment)
        if proxy_bypass_environment(parts.hostname or "", known):
            return None
        return known.get(parts.scheme) or known.get("all")

    def trusted_certificates(self, environment: Mapping[str, str] = os.environ) -> str | None:
        """Return the PEM file to trust: the connection's own, else the environment's, else ``None``."""
        return self.ca_bundle or environment.get("REQUESTS_CA_BUNDLE") or environment.get("CURL_CA_BUNDLE")


def _proxies(environment: Mapping[str, str]) -> dict[str, str]:
    lower = {name.lower(): value for name, value in environment.items() if value}
    return {name[:-6]: value for name, value in lower.items() if name.endswith("_proxy")}


def _text(value: object) -> str | None:
    return value.strip() or None if isinstance(value, str) else None


def _api_key(conn_id: str, password: str | None) -> str:
    key = (password or "").strip()
    if not key:
        raise AuthenticationError(
            f"Connection {conn_id!r} has no API key. No request was made. Put the key from "
            "https://app.pictory.ai/api-access into the connection's password."
        )
    if key.lower().startswith("bearer"):
        raise AuthenticationError(
            f"Connection {conn_id!r} has `Bearer` before its API key. No request was made. Pictory takes "
            "the raw key (`pictai_...`): remove the word and the blank after it from the password."
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise AuthenticationError(
            f"Connection {conn_id!r} has blanks, line breaks or other characters in its API key that no "
            "key has. No request was made. Copy the key again from https://app.pictory.ai/api-access."
        )
    return key


def _base_url(conn_id: str, host: str | None) -> str:
    base_url = (host or "").strip().rstrip("/")
    if not base_url:
        return DEFAULT_BASE_URL
    try:
        parts = urlsplit(base_url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
    if not fits or parts.query or parts.fragment or any(c.isspace() for c in base_url):
        raise RequestInvalid(
            f"Connection {conn_id!r} has {host!r} as its base URL. No request was made. The host field "
            f"takes a whole URL with its scheme, such as {DEFAULT_BASE_URL}; leave it empty for that one.",
            fields=["host"],
        )
    return base_url


def _number(conn_id: str, extra: Mapping[str, Any], name: str, default: float, most: float, what: str) -> float:
    value = extra.get(name)
    if value is None or value == "":
        return default
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = 0.0
    if not 0 < number <= most:
        raise RequestInvalid(
            f"Connection {conn_id!r} has {value!r} as its {name}. No request was made. The extra field "
            f"takes {what}, above 0 and up to {most:.0f}; the default is {default:.0f}.",
            fields=[name],
        )
    return number


def _header_text(conn_id: str, name: str, value: object) -> str | None:
    text = _text(value)
    if text and not (text.isascii() and text.isprintable()):
        raise RequestInvalid(
            f"Connection {conn_id!r} has characters in its {name} that an HTTP header cannot carry. "
            "No request was made. Use printable ASCII.",
            fields=[name],
        )
    return text


def _file(conn_id: str, value: object) -> str | None:
    path = _text(value)
    if path and not os.path.exists(path):
        raise RequestInvalid(
            f"Connection {conn_id!r} names {path!r} as its ca_bundle, and there is no such file on this "
            "machine. No request was made. Workers and triggerers both need it.",
            fields=["ca_bundle"],
        )
    return path
