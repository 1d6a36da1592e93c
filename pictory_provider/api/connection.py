# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Check the fields of an Airflow connection of type ``pictory``."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pictory_provider import __version__
from pictory_provider.api import network
from pictory_provider.api.errors import NO_REQUEST, AuthenticationError, RequestInvalid
from pictory_provider.api.extra import LIMITS, fields_of, notes_on
from pictory_provider.api.text import type_of

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_BASE_URL = "https://api.pictory.ai/pictoryapis"
DEFAULT_TIMEOUT = 60.0
"""Seconds for one request, from connecting to the last byte of the reply."""
CONNECT_TIMEOUT = 10.0
"""Seconds for connecting alone."""
DEFAULT_REQUESTS_PER_SECOND = 10.0
"""Polls of one triggerer per second. Pictory documents no limit, only that polling too often may be refused."""
MAX_REQUESTS_PER_SECOND = 1_000.0
MAX_CONNECTIONS = 50
"""The most connections that one triggerer keeps to Pictory, and so the most polls in flight."""
DEFAULT_USER_AGENT = f"airflow-provider-pictory/{__version__}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSettings:
    """A checked connection of type ``pictory``.

    :param api_key: sent raw in ``Authorization``, and only to the host of :attr:`base_url`. No ``repr``
        shows it.
    :param base_url: without a trailing slash.
    :param timeout: seconds for one request.
    :param proxy: URL of an HTTP proxy; ``None`` uses the environment's.
    :param ca_bundle: path of a PEM file to trust; ``None`` uses the environment's.
    :param requests_per_second: the most polls that one triggerer sends per second.
    :param credits_per_day: the most AI credits that the account may spend since midnight, UTC. Above that,
        nothing is bought through this connection. ``None`` for no limit.
    :param credits_per_month: the same since the first of the month, UTC.
    :param credits_reserve: AI credits that are never spent through this connection.
    :param notes: warnings about the connection for the log.
    """

    api_key: str = field(repr=False)
    base_url: str = DEFAULT_BASE_URL
    timeout: float = DEFAULT_TIMEOUT
    user_agent: str = DEFAULT_USER_AGENT
    proxy: str | None = field(default=None, repr=False)
    ca_bundle: str | None = None
    requests_per_second: float = DEFAULT_REQUESTS_PER_SECOND
    credits_per_day: float | None = None
    credits_per_month: float | None = None
    credits_reserve: float | None = None
    notes: tuple[str, ...] = field(default=(), repr=False, compare=False)

    @classmethod
    def from_fields(
        cls,
        conn_id: str,
        *,
        password: str | None,
        host: str | None,
        extra: Mapping[str, Any],
        environment: Mapping[str, str] = os.environ,
    ) -> ConnectionSettings:
        """Check the fields of an Airflow connection, and the variables of the environment that add to them.

        Workers and triggerers use different HTTP libraries. A setting that only one of them supports is refused
        here for both.

        :param password: the API key from https://app.pictory.ai/api-access, without ``Bearer``.
        :param host: base URL; empty means :data:`DEFAULT_BASE_URL`.
        :param extra: ``timeout``, ``user_agent``, ``proxy``, ``ca_bundle``, ``requests_per_second``,
            ``credits_per_day``, ``credits_per_month``, ``credits_reserve``.
        :raises AuthenticationError: without a usable key.
        :raises RequestInvalid: for any other field, and for a variable of the environment.
        """
        who = f"Connection {conn_id!r}"
        notes = notes_on(conn_id, extra)
        extra = fields_of(conn_id, extra)
        proxy = _text(who, "proxy", extra.get("proxy"))
        settings = cls(
            api_key=_api_key(who, password),
            base_url=_base_url(who, host),
            timeout=_number(who, extra, "timeout", DEFAULT_TIMEOUT, 3_600, "seconds for one request"),
            user_agent=_header_text(who, "user_agent", extra.get("user_agent")) or DEFAULT_USER_AGENT,
            proxy=network.check_proxy(who, proxy) if proxy else None,
            ca_bundle=_text(who, "ca_bundle", extra.get("ca_bundle")),
            requests_per_second=_number(who, extra, "requests_per_second", DEFAULT_REQUESTS_PER_SECOND,
                                        MAX_REQUESTS_PER_SECOND, "polls per second"),
            notes=notes,
            **{name: _credits(who, extra, name) for name in LIMITS},
        )  # fmt: skip
        settings.proxy_for(settings.base_url, environment)
        variable, path = network.certificates_of(environment)
        if settings.ca_bundle:
            network.check_certificates(who, "ca_bundle", settings.ca_bundle)
        elif path:
            network.check_certificates("The environment", variable, path)
        return settings

    def url(self, path: str) -> str:
        """Return the full URL of a path such as ``/v1/quota``."""
        return self.base_url + path

    def proxy_for(self, url: str, environment: Mapping[str, str] = os.environ) -> str | None:
        """Return the proxy for a URL: the connection's, else the environment's unless ``no_proxy`` excludes it.

        Both HTTP libraries use this answer and do not read the environment, so a worker and a triggerer use the
        same proxy.

        :raises RequestInvalid: for a proxy of the environment that one of the libraries does not support.
        """
        return self.proxy or network.proxy_of(url, environment)

    def trusted_certificates(self, environment: Mapping[str, str] = os.environ) -> str | None:
        """Return the PEM file to trust: the connection's, else the environment's, else ``None``."""
        return self.ca_bundle or network.certificates_of(environment)[1]


def _text(who: str, name: str, value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise RequestInvalid.unsent(
            f"{who} has a value {type_of(value)} as its {name}",
            "The extra field takes a string.",
            fields=[name],
            money=NO_REQUEST,
        )
    return (value or "").strip() or None


def _api_key(who: str, password: str | None) -> str:
    key = (password or "").strip()
    if not key:
        raise AuthenticationError.unsent(
            f"{who} has no API key",
            "Put the key from https://app.pictory.ai/api-access into the connection's password.",
            money=NO_REQUEST,
        )
    if key.lower().startswith("bearer"):
        raise AuthenticationError.unsent(
            f"{who} has `Bearer` before its API key",
            "Pictory takes the raw key (`pictai_...`): remove the word and the blank after it from the password.",
            money=NO_REQUEST,
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise AuthenticationError.unsent(
            f"{who} has blanks, line breaks or other invalid characters in its API key",
            "Copy the key from https://app.pictory.ai/api-access again.",
            money=NO_REQUEST,
        )
    return key


def _base_url(who: str, host: str | None) -> str:
    base_url = (host or "").strip().rstrip("/")
    if not base_url:
        return DEFAULT_BASE_URL
    try:
        parts = urlsplit(base_url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
    if "@" in base_url:
        raise RequestInvalid.unsent(
            f"{who} has a user name or a password in its base URL",
            "Pictory uses neither: the API key goes into the connection's password. Leave the host field empty "
            f"for {DEFAULT_BASE_URL}",
            fields=["host"],
            money=NO_REQUEST,
        )
    if not fits or parts.query or parts.fragment or any(c.isspace() for c in base_url):
        raise RequestInvalid.unsent(
            f"{who} has {host!r} as its base URL",
            f"The host field takes a full URL with its scheme. Leave it empty for {DEFAULT_BASE_URL}",
            fields=["host"],
            money=NO_REQUEST,
        )
    return base_url


def _number(who: str, extra: Mapping[str, Any], name: str, default: float, most: float, unit: str) -> float:
    value = extra.get(name)
    if value is None or value == "":
        return default
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = 0.0
    if not 0 < number <= most:
        raise RequestInvalid.unsent(
            f"{who} has {value!r} as its {name}",
            f"The extra field takes {unit}, above 0 and up to {most:.0f}; the default is {default:.0f}.",
            fields=[name],
            money=NO_REQUEST,
        )
    return number


def _credits(who: str, extra: Mapping[str, Any], name: str) -> float | None:
    """Return a limit on spending. A value that is not a number is refused, not read as no limit."""
    value = extra.get(name)
    if value is None or value == "":
        return None
    try:
        number = float("nan" if isinstance(value, bool) else value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise RequestInvalid.unsent(
            f"{who} has {value!r} as its {name}",
            "The extra field takes a number of AI credits, 0 or more; leave it empty for no limit.",
            fields=[name],
            money=NO_REQUEST,
        )
    return number


def _header_text(who: str, name: str, value: object) -> str | None:
    text = _text(who, name, value)
    if text and not (text.isascii() and text.isprintable()):
        raise RequestInvalid.unsent(
            f"{who} has characters in its {name} that an HTTP header cannot carry",
            "Use printable ASCII.",
            fields=[name],
            money=NO_REQUEST,
        )
    return text
