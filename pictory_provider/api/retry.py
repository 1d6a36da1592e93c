# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Decide whether a request may be sent again, and when.

A paid request is sent again only if it provably never left this machine, or was clearly refused before any work.
Every other ending is an unknown outcome, including any that is not classified here. The last column names the
external fact behind each decision:

========================================  ================  ====================================================
how the request ended                     outcome of a      reason
                                          POST
========================================  ================  ====================================================
name resolution, connect, TLS, proxy      never sent        no byte of its body was taken for sending (RFC 9112,
tunnel                                                      3: without its body there is no request)
the same, for a certificate that cannot   never sent        as above. It is not sent again: the certificates that
be verified                                                 this machine trusts do not change within a minute
429                                       refused for now   RFC 6585, 4; API gateways throttle before they call
                                                            the backend (API Gateway, *Throttle requests*)
400, 401 and 403 in JSON                  refused           Pictory's page (generate-image): invalid, or no key
403 with a page                           refused           the firewall is in front of Pictory (Cloudflare, 1010)
402, 404, 405, 406, 411, 413, 414, 415,   refused           RFC 9110, 15.5, and RFC 6585, 5: with each of them the
422, 431                                                    request is not carried out. None is sent again, and
                                                            the task is not retried: only a user's clear can buy
any other 4xx, including 408, 409, 425    unknown           they depend on the moment, not on the request
every 5xx, including 503                  unknown           a gateway answers 502, 503 or 504 when the backend
                                                            exceeds its time limit, and the backend continues
timeout or drop after sending began       unknown           RFC 9110, 9.2.2: a POST must not be repeated
a redirect, any other status              unknown           RFC 9110, 15.4.4: 303 answers a POST that was done
a success that cannot be read             unknown           it is a success
========================================  ================  ====================================================

The refusals are small, accepted risks: only a 429 is sent again, and of the other refusals only a blocked client's
task is retried.

Pictory's pages advise to repeat a request after a 500. For the POST that advice is not followed: there is no
idempotency key, and a 500 can come after the job was accepted.
A request that only reads is free. It is sent again after every ending except the refusals.
"""

from __future__ import annotations

import math
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from pictory_provider.api import errors
from pictory_provider.api.text import counted
from pictory_provider.api.timing import TIMING

if TYPE_CHECKING:
    from pictory_provider.api.responses import Response

JITTER = 0.25
"""Waits are lengthened by a random share of themselves, up to this one. They are never shortened."""
_TEMPORARY_4XX = (408, 409, 425)
"""Refusals that do not depend on the request: it came too slowly, too early, or conflicted with another."""
DEFINITE_4XX = (400, 402, 404, 405, 406, 411, 413, 414, 415, 422, 431)
"""Refusals, besides 401, 403 and 429, after which a paid request certainly bought nothing."""


class SubmitOutcome(Enum):
    """The outcome of a paid request."""

    NEVER_SENT = "never sent"
    REFUSED_FOR_NOW = "refused for now"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class SendAgain(NamedTuple):
    """Send the same request again after so many seconds."""

    seconds: float


def classify_submit_error(error: errors.PictoryError) -> SubmitOutcome:
    """Return the outcome of a POST that ended with this error, by the table at the top of this module."""
    if isinstance(error, errors.TransportError):
        return SubmitOutcome.NEVER_SENT if error.fault is errors.Fault.NEVER_SENT else SubmitOutcome.UNKNOWN
    if isinstance(error, errors.RateLimited):
        return SubmitOutcome.REFUSED_FOR_NOW
    if isinstance(error, (errors.AuthenticationError, errors.EdgeBlocked)):
        return SubmitOutcome.REFUSED
    if isinstance(error, errors.RequestInvalid) and (error.status is None or error.status in DEFINITE_4XX):
        return SubmitOutcome.REFUSED
    return SubmitOutcome.UNKNOWN


def after_submit(
    error: errors.PictoryError, *, attempt: int, spent: float, now: float, chance: float
) -> SendAgain | errors.PictoryError:
    """Decide whether to repeat a POST that ended with an error.

    :param attempt: 1 for the first.
    :param spent: seconds since the first attempt began.
    :param now: epoch seconds.
    :param chance: a random number from 0 to 1, for the jitter.
    :return: when to send it again, or the error to raise.
    """
    if isinstance(error, errors.SubmitOutcomeUnknown):
        return error
    outcome = classify_submit_error(error)
    if outcome is SubmitOutcome.UNKNOWN:
        return errors.SubmitOutcomeUnknown.because(error.message.rstrip("."))
    if outcome is SubmitOutcome.REFUSED or isinstance(error, errors.CertificateUntrusted):
        return error
    again = _send_again(error, attempt=attempt, spent=spent, budget=TIMING.resend_budget, now=now, chance=chance)
    if again:
        return again
    assert isinstance(error, errors.Unavailable)
    kind = errors.RateLimited if isinstance(error, errors.RateLimited) else errors.Unavailable
    return kind(
        f"{error.message} Gave up after {counted(attempt, 'attempt')} in {spent:.0f} s. Nothing was bought, so a "
        "retry of the task is safe.",
        status=error.status,
        retry_after=error.retry_after,
    )


def after_read(
    error: errors.PictoryError, *, attempt: int, spent: float, now: float, chance: float
) -> SendAgain | errors.PictoryError:
    """Decide whether to repeat a GET or a clean-up that ended with an error. See :func:`after_submit`."""
    if not is_transient(error) or isinstance(error, errors.ReplyTooLarge):
        return error
    again = _send_again(error, attempt=attempt, spent=spent, budget=TIMING.read_budget, now=now, chance=chance)
    return again or error


def is_transient(error: errors.PictoryError) -> bool:
    """Return whether the same reading request may succeed later."""
    if isinstance(error, errors.RequestInvalid):
        return error.status in _TEMPORARY_4XX
    if isinstance(error, errors.CertificateUntrusted):
        return False
    return isinstance(error, (errors.Unavailable, errors.ProtocolError, errors.EdgeBlocked))


def pause_after(error: errors.PictoryError, *, failures: int, now: float, chance: float, first: float) -> float:
    """Return the seconds to wait after an error: those of ``Retry-After``, else an exponential backoff.

    Never less than ``first``, and jitter only lengthens it. The caller caps the result.

    :param failures: the number of errors in a row, including this one.
    """
    seconds = parse_retry_after(getattr(error, "retry_after", None), now=now)
    if seconds is None:
        return backoff(failures, chance=chance, first=first)
    return max(first, seconds * (1 + JITTER * chance))


def backoff(failures: int, *, chance: float, first: float) -> float:
    """Return the seconds to wait after failures in a row: doubling from ``first``, capped, with jitter."""
    doubled = first * float(2 ** min(failures - 1, 30))
    return min(doubled, max(TIMING.backoff_max, first)) * (1 + JITTER * chance)


def requested_pause(response: Response, *, now: float) -> float | None:
    """Return the seconds of a refusal's ``Retry-After``; ``None`` for a success, or without a usable one.

    :param now: epoch seconds.
    """
    return parse_retry_after(response.headers.get("retry-after"), now=now) if response.status >= 400 else None


def parse_retry_after(value: str | None, *, now: float) -> float | None:
    """Return the seconds of a ``Retry-After`` header; ``None`` if it is not usable.

    Seconds, decimals and HTTP dates are accepted (RFC 9110, 10.2.3); a date in the past is 0. The caller caps the
    result.

    :param now: epoch seconds.
    """
    if value is None:
        return None
    text = value.strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = max(0.0, parsedate_to_datetime(text).timestamp() - now)
        except (TypeError, ValueError, OverflowError):
            return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _send_again(
    error: errors.PictoryError, *, attempt: int, spent: float, budget: float, now: float, chance: float
) -> SendAgain | None:
    pause = pause_after(error, failures=attempt, now=now, chance=chance, first=TIMING.backoff_first)
    return SendAgain(pause) if spent + pause <= budget else None
