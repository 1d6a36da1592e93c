# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Read the proxy and the trusted certificates from the environment.

Workers and triggerers use different HTTP libraries, which read the environment in different ways. So it is read
here, and both libraries get the result:

======================  ===========================================================================================
variable                is
======================  ===========================================================================================
``https_proxy``         the proxy of the URL's scheme, else that of ``all_proxy``; in lower case first
``no_proxy``            hosts without a proxy: names and their subdomains, addresses, networks such as
                        ``10.0.0.0/8``. A network applies only to a host that is an address; no name is resolved
``REQUESTS_CA_BUNDLE``  the certificates to trust, else those of ``CURL_CA_BUNDLE``, else of ``SSL_CERT_FILE``
======================  ===========================================================================================
"""

from __future__ import annotations

import os
import ssl
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

from pictory_provider.api.errors import NO_REQUEST, RequestInvalid

if TYPE_CHECKING:
    from collections.abc import Mapping

CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
"""The variables that name the certificates to trust, in this order."""


def proxy_of(url: str, environment: Mapping[str, str]) -> str | None:
    """Return the environment's proxy for a URL.

    :raises RequestInvalid: for a proxy that one of the HTTP libraries does not support.
    """
    parts = urlsplit(url)
    known = getproxies_environment() if environment is os.environ else _proxies(environment)
    if _is_bypassed(parts.hostname or "", known):
        return None
    for name in (parts.scheme, "all"):
        if found := known.get(name):
            return check_proxy("The environment", found.strip(), f"{name}_proxy")
    return None


def certificates_of(environment: Mapping[str, str]) -> tuple[str, str | None]:
    """Return the variable that names the certificates to trust, and their path; ``None`` for the defaults."""
    found = ((name, environment.get(name)) for name in CA_VARIABLES)
    return next(((name, path) for name, path in found if path), ("", None))


def without_credentials(proxy: str) -> str:
    """Return host and port of a proxy, without its user and password."""
    parts = urlsplit(proxy)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{host}:{parts.port or {'http': 80, 'https': 443}.get(parts.scheme, '?')}"


def _proxies(environment: Mapping[str, str]) -> dict[str, str]:
    lower = {name.lower(): value for name, value in environment.items() if value}
    return {name[:-6]: value for name, value in lower.items() if name.endswith("_proxy")}


def _is_bypassed(host: str, known: Mapping[str, str]) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return bool(proxy_bypass_environment(host, known))
    excluded = known.get("no", "")
    return excluded.strip() == "*" or any(
        address in network for network in map(_network, excluded.split(",")) if network
    )


def _network(text: str) -> Any:
    """Return the network or the address of an entry; ``None`` if it is a name."""
    try:
        return ip_network(text.strip().strip("[]"), strict=False)
    except ValueError:
        return None


def check_proxy(who: str, value: str, variable: str | None = None) -> str:
    """Return the URL of a proxy that both HTTP libraries support.

    Without a scheme it is an HTTP proxy, as for curl. No message shows the value: it may contain a password.
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
        raise RequestInvalid.unsent(
            f"{who} has a {variable or 'proxy'} that cannot be used",
            "It takes the URL of an HTTP proxy, not SOCKS, such as http://proxy.example:3128 or "
            "http://user:password@proxy.example:3128 with a password. In the password, write characters such as "
            "/ @ # ? : as %2F %40 %23 %3F %3A."
            + (" A proxy in the connection takes precedence over the environment's." if variable else ""),
            fields=["proxy"],
            money=NO_REQUEST,
        )
    return url


def check_certificates(who: str, name: str, path: str) -> None:
    """Check that a path is a file of certificates. Workers could also read a folder, triggerers could not.

    :raises RequestInvalid: if it is not.
    """
    try:
        state = os.stat(path)
        _read_certificates(path, state.st_mtime_ns, state.st_size)
    except OSError as error:  # ssl.SSLError is one
        why = "it contains no certificate in PEM format" if isinstance(error, ssl.SSLError) else error.strerror
        raise RequestInvalid.unsent(
            f"{who} names {path!r} as its {name}, and that cannot be used on this machine: {why}",
            "It takes the path of a PEM file with the certificates to trust, such as "
            "/etc/ssl/certs/ca-certificates.crt; workers and triggerers both need it.",
            fields=["ca_bundle"],
            money=NO_REQUEST,
        ) from None


@lru_cache(maxsize=16)
def _read_certificates(path: str, *_: int) -> None:
    """Read a file of certificates, once per modification: an operating system's file takes 20 ms."""
    with open(path, "rb"):
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
