# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What an Airflow connection must hold to reach Pictory, and how to reach it."""

from __future__ import annotations

import json
import math
import os
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit
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
LIMITS = ("credits_per_day", "credits_per_month", "credits_reserve")
"""What bounds spending, in the extra of a connection."""
_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSettings:
    """A connection of type ``pictory``, checked.

    :param api_key: sent raw in ``Authorization``, and only to the host of :attr:`base_url`. It is in no
        ``repr``.
    :param base_url: without a trailing slash.
    :param timeout: seconds for one request.
    :param proxy: URL of an HTTP proxy; ``None`` looks into the environment.
    :param ca_bundle: path of a PEM file to trust; ``None`` looks into the environment.
    :param requests_per_second: how many looks one triggerer sends in any second, at most.
    :param credits_per_day: AI credits that the account may have spent since midnight, UTC, for anything to be
        bought over this connection; ``None`` for no limit.
    :param credits_per_month: the same since the first of the month, UTC.
    :param credits_reserve: AI credits that are never spent over this connection.
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
        """Check the fields of an Airflow connection, and what the environment adds to them.

        Workers and triggerers speak through different libraries. What only one of them can do is refused here,
        for both.

        :param password: the API key from https://app.pictory.ai/api-access, without ``Bearer``.
        :param host: base URL; empty means :data:`DEFAULT_BASE_URL`.
        :param extra: ``timeout``, ``user_agent``, ``proxy``, ``ca_bundle``, ``requests_per_second``,
            ``credits_per_day``, ``credits_per_month``, ``credits_reserve``.
        :raises AuthenticationError: without a usable key.
        :raises RequestInvalid: for any other field, and for a variable of the environment.
        """
        who = f"Connection {conn_id!r}"
        _check_names(conn_id, extra)
        proxy = _text(who, "proxy", extra.get("proxy"))
        made = cls(
            api_key=_api_key(conn_id, password),
            base_url=_base_url(conn_id, host),
            timeout=_number(conn_id, extra, "timeout", DEFAULT_TIMEOUT, 3_600, "seconds for one request"),
            user_agent=_header_text(who, "user_agent", extra.get("user_agent")) or DEFAULT_USER_AGENT,
            proxy=_proxy(who, proxy) if proxy else None,
            ca_bundle=_text(who, "ca_bundle", extra.get("ca_bundle")),
            requests_per_second=_number(
                conn_id,
                extra,
                "requests_per_second",
                DEFAULT_REQUESTS_PER_SECOND,
                MOST_REQUESTS_PER_SECOND,
                "looks in a second",
            ),
            credits_per_day=_credits(conn_id, extra, "credits_per_day"),
            credits_per_month=_credits(conn_id, extra, "credits_per_month"),
            credits_reserve=_credits(conn_id, extra, "credits_reserve"),
        )
        made.proxy_for(made.base_url, environment)
        if made.ca_bundle:
            _check_certificates(who, "ca_bundle", made.ca_bundle)
        elif path := made.trusted_certificates(environment):
            _check_certificates("The environment", " or ".join(_CA_VARIABLES), path)
        return made

    def url(self, path: str) -> str:
        """Return the whole URL of a path such as ``/v1/quota``."""
        return self.base_url + path

    def proxy_for(self, url: str, environment: Mapping[str, str] = os.environ) -> str | None:
        """Return the proxy for a URL: the connection's own, else the environment's, ``no_proxy`` heeded.

        Both HTTP libraries are told the answer and look no further, so that a worker and a triggerer
        take the same way.

        :raises RequestInvalid: for a proxy of the environment that one of the libraries cannot use.
        """
        if self.proxy:
            return self.proxy
        parts = urlsplit(url)
        known = getproxies_environment() if environment is os.environ else _proxies(environment)
        if proxy_bypass_environment(parts.hostname or "", known):
            return None
        for name in (parts.scheme, "all"):
            if found := known.get(name):
                return _proxy("The environment", found.strip(), f"{name}_proxy")
        return None

    def trusted_certificates(self, environment: Mapping[str, str] = os.environ) -> str | None:
        """Return the PEM file to trust: the connection's own, else the environment's, else ``None``."""
        found = (environment.get(name) for name in _CA_VARIABLES)
        return self.ca_bundle or next((path for path in found if path), None)


def _proxies(environment: Mapping[str, str]) -> dict[str, str]:
    lower = {name.lower(): value for name, value in environment.items() if value}
    return {name[:-6]: value for name, value in lower.items() if name.endswith("_proxy")}


def _text(who: str, name: str, value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise RequestInvalid(
            f"{who} has a {type(value).__name__} as its {name}. No request was made. The extra field takes a "
            "string.",
            fields=[name],
        )
    return (value or "").strip() or None


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
            "key has. No request was made. Copy the key from https://app.pictory.ai/api-access again."
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
    if "@" in base_url:
        raise RequestInvalid(
            f"Connection {conn_id!r} has a user name or a password in its base URL. No request was made. Pictory "
            "knows none: the API key goes into the connection's password. Leave the host field empty for "
            f"{DEFAULT_BASE_URL}",
            fields=["host"],
        )
    if not fits or parts.query or parts.fragment or any(c.isspace() for c in base_url):
        raise RequestInvalid(
            f"Connection {conn_id!r} has {host!r} as its base URL. No request was made. The host field "
            f"takes a whole URL with its scheme. Leave it empty for {DEFAULT_BASE_URL}",
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


def extra_of(conn_id: str, extra: str | None) -> dict[str, Any]:
    """Read the extra of a connection.

    Airflow takes one that is no JSON for an empty one, and the limits in it would be none.

    :raises RequestInvalid: for what is no JSON object.
    """
    try:
        value = json.loads(extra) if extra and extra.strip() else {}
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise RequestInvalid(
            f"Connection {conn_id!r} has an extra that is no JSON object, so nobody can know what it should say, "
            "a limit on spending for one. No request was made. Mend it: in Airflow's form, or as JSON such as "
            '{"credits_per_day": 50}.',
            fields=["extra"],
        )
    return value


def _check_names(conn_id: str, extra: Mapping[str, Any]) -> None:
    """Refuse a limit under a name that nobody reads."""
    if wrong := [name for name in extra if name.strip().lower().startswith("credit") and name not in LIMITS]:
        raise RequestInvalid(
            f"Connection {conn_id!r} has {wrong[0]!r} in its extra, which is none of {', '.join(LIMITS)}. No "
            "request was made: a limit that nobody reads would hold nothing.",
            fields=[wrong[0]],
        )


def _credits(conn_id: str, extra: Mapping[str, Any], name: str) -> float | None:
    """Return a limit on spending. What is no number is no missing limit: it is refused."""
    value = extra.get(name)
    if value is None or value == "":
        return None
    try:
        number = float("nan" if isinstance(value, bool) else value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise RequestInvalid(
            f"Connection {conn_id!r} has {value!r} as its {name}. No request was made. The extra field takes a "
            "number of AI credits from 0 on; leave it empty for no limit.",
            fields=[name],
        )
    return number


def _header_text(who: str, name: str, value: object) -> str | None:
    text = _text(who, name, value)
    if text and not (text.isascii() and text.isprintable()):
        raise RequestInvalid(
            f"{who} has characters in its {name} that an HTTP header cannot carry. "
            "No request was made. Use printable ASCII.",
            fields=[name],
        )
    return text


def _proxy(who: str, value: str, variable: str | None = None) -> str:
    """Return the URL of a proxy that both HTTP libraries can use.

    Without a scheme it is an HTTP proxy, as for curl. The value may hold a password, and is in no text.
    """
    url = value if "://" in value else f"http://{value}"
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        unquote(parts.username or "").encode("latin-1")
        unquote(parts.password or "").encode("latin-1")
    except ValueError:
        fits = False
    if not fits or parts.path not in ("", "/") or parts.query or parts.fragment or any(c.isspace() for c in url):
        raise RequestInvalid(
            f"{who} has a {variable or 'proxy'} that cannot be used. No request was made. It takes the URL of an "
            "HTTP proxy, such as http://proxy.example:3128 or http://user:password@proxy.example:3128 and no "
            "SOCKS. In the password, write characters such as / @ # ? : as %2F %40 %23 %3F %3A."
            + (" The connection's own proxy wins over the environment's." if variable else ""),
            fields=["proxy"],
        )
    return url


def _check_certificates(who: str, name: str, path: str) -> None:
    """Refuse what is no file of certificates: a folder, for one, is read by a worker and not by a triggerer."""
    try:
        with open(path, "rb"):
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except OSError as error:  # as ssl's own are
        why = "it holds no certificate in PEM format" if isinstance(error, ssl.SSLError) else error.strerror
        raise RequestInvalid(
            f"{who} names {path!r} as its {name}, and that cannot be used on this machine: {why}. No request was "
            "made. It takes the path of a PEM file with the certificates to trust, such as "
            "/etc/ssl/certs/ca-certificates.crt; workers and triggerers both need it.",
            fields=["ca_bundle"],
        ) from None
