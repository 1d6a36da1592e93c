# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What both clients share: the request headers, the mask for secrets in replies, and the errors of connections.

Only this module turns errors of the HTTP libraries into :class:`~pictory_provider.api.errors.TransportError`.
"""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from pictory_provider.api.errors import CertificateUntrusted, Fault, ReplyTooLarge, TransportError
from pictory_provider.api.network import CA_VARIABLES, without_credentials
from pictory_provider.client.masking import Mask

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pictory_provider.api.connection import ConnectionSettings

PIECE_BYTES = 64 * 1024
_HOW_FAR = {
    Fault.NEVER_SENT: "was never sent",
    Fault.MAYBE_ACCEPTED: "got no reply",
    Fault.UNREADABLE: "got a broken reply",
}


def headers_for_api(settings: ConnectionSettings) -> dict[str, str]:
    """Return the headers of a request to the API, including the raw key."""
    return {"Authorization": settings.api_key, "User-Agent": settings.user_agent, "Accept": "application/json"}


def mask_of(settings: ConnectionSettings) -> Mask:
    """Return the mask that hides the secrets of a connection in replies."""
    proxy = settings.proxy_for(settings.base_url)
    return Mask(settings.api_key, unquote(urlsplit(proxy).password or "") if proxy else None)


class TooLarge(OSError):
    """The reply is larger than what is read."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(None, f"the reply is too large, above {max_bytes // 1024:,} KiB")


def connection_failed(
    what: str, fault: Fault, error: BaseException, *, settings: ConnectionSettings, url: str, is_sent: bool = False
) -> TransportError:
    """Return the error of a failed connection.

    Of the cause, the text shows only the innermost class and reason: library texts quote full URLs, and a query
    string may contain a token.

    :param what: the request as the subject of a sentence, such as ``GET /v1/quota``.
    :param url: the requested URL. The text names its host and its proxy.
    :param is_sent: whether any of a paid request's body has left: then no handshake can have failed.
    """
    causes = list(_causes(error))
    proxy = settings.proxy_for(url)
    source = "the connection" if settings.proxy else "the environment"
    via = f"the proxy {without_credentials(proxy)}" if proxy else ""
    untrusted = next((each for each in causes[::-1] if isinstance(each, ssl.SSLCertVerificationError)), None)
    if untrusted is not None and not is_sent:
        return _untrusted(what, untrusted, f", or of {via} (set in {source})," if via else "", settings, url)
    note = f" The request goes through {via}, set in {source}." if via and fault is not Fault.UNREADABLE else ""
    kind = ReplyTooLarge if isinstance(error, TooLarge) else TransportError
    return kind(f"{what} {_HOW_FAR[fault]}: {_reason(causes)}.{note}", fault=fault)


def _untrusted(
    what: str, error: ssl.SSLCertVerificationError, via: str, settings: ConnectionSettings, url: str
) -> CertificateUntrusted:
    trusted = settings.trusted_certificates()
    why = str(getattr(error, "verify_message", "") or "no reason given").rstrip(".")
    return CertificateUntrusted(
        f"The certificate of {urlsplit(url).hostname}{via} cannot be verified on this machine ({why}), so "
        f"{what.replace('The ', 'the ', 1)} was never sent. It bought nothing, and is not repeated at once. "
        "If a proxy or a firewall inspects TLS here, or you use a private certificate authority, put the path of "
        "a PEM file with that authority's certificate into `ca_bundle` of the connection's extra, or into "
        f"{CA_VARIABLES[0]} or {CA_VARIABLES[-1]}, on every worker and triggerer. Trusted now: "
        + (f"only the certificates in {trusted}." if trusted else "the default authorities.")
    )


def _reason(causes: list[BaseException]) -> str:
    inner = causes[-1]
    if isinstance(inner, TooLarge):
        return f"{inner.strerror}"
    reason = type(inner).__name__
    if isinstance(inner, OSError) and inner.strerror:
        return f"{reason} ({inner.strerror})"
    refused = [getattr(each, "status", None) for each in causes if type(each).__name__ == "ClientHttpProxyError"]
    refused += [
        found[1] for each in causes if (found := re.match(r"Tunnel connection failed: (\d{3})\b", str(each)))
    ]
    return f"the proxy answered {refused[0]}" if refused else reason


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its chain of causes, the innermost last."""
    cause: BaseException | None = error
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = _cause(cause)


def _cause(error: BaseException) -> BaseException | None:
    for candidate in (getattr(error, "reason", None), *error.args, error.__cause__, error.__context__):
        if isinstance(candidate, BaseException) and candidate is not error:
            return candidate
    return None
