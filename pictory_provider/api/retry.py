# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""May this request be sent again, and when?

A paid request is sent again only when it provably never left, or was plainly refused before any work. Everything
else is an unknown outcome, and so is whatever nobody has classified. Beside each verdict stands the fact outside
this project that makes it true:

========================================  ================  ====================================================
how the request ended                     what became of    because
                                          it, if a POST
========================================  ================  ====================================================
name resolution, connect, TLS, proxy      never sent        no byte of its body was taken for sending (RFC 9112,
tunnel                                                      3: without its body there is no request)
429                                       refused for now   RFC 6585, 4; API gateways throttle before they call
                                                            what is behind them (API Gateway, *Throttle requests*)
400, 401 and 403 in JSON                  refused           Pictory's page (generate-image): invalid, or no key
403 with a page                           refused           the firewall stands before Pictory (Cloudflare, 1010)
402, 404, 405, 406, 411, 413, 414, 415,   refused           RFC 9110, 15.5, and RFC 6585, 5, say of each that the
422, 431                                                    request is not carried out; none is sent again, nor
                                                            is the task retried: only a user's clear can buy
any other 4xx, 408, 409, 425 among them   unknown           they speak of the moment and not of the request
every 5xx, 503 among them                 unknown           a gateway answers 502, 503 or 504 when what is behind
                                                            it has overrun its time, and that carries on
timeout or drop after sending began       unknown           RFC 9110, 9.2.2: a POST must not be repeated
a redirect, any other status              unknown           RFC 9110, 15.4.4: 303 answers a POST that was done
a success that cannot be read             unknown           it is a success
========================================  ================  ====================================================

The refusals are accepted risks, and small ones: 429 alone is sent again, and of the others only the task of a
blocked client is retried.

Pictory's pages advise to repeat a request after a 500. That advice is not followed for the POST: there
is no idempotency key, and a 500 can come after the job was accepted.
A request that only reads is free. It is sent again after every row but the refusals.
"""

from __future__ import annotations

import math
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import NamedTuple

from pictory_provider.api.errors import (
    AuthenticationError,
    EdgeBlocked,
    Fault,
    PictoryError,
    ProtocolError,
    RateLimited,
    RequestInvalid,
    SubmitOutcomeUnknown,
    TransportError,
    Unavailable,
)
from pictory_provider.api.timing import TIMING

JITTER = 0.25
"""Waits grow by up to this share of themselves, by chance: upward only, never earlier than asked."""

_OF_THE_MOMENT_4XX = (408, 409, 425)
"""Refusals that say nothing of the request: it came too slowly, too early, or met another."""
DEFINITE_4XX = (400, 402, 404, 405, 406, 411, 413, 414, 415, 422, 431)
"""Refusals, beside 401, 403 and 429, after which a paid request certainly bought nothing."""


class Fate(Enum):
    """What became of a paid request."""

    NEVER_SENT = "never sent"
    REFUSED_FOR_NOW = "refused for now"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class SendAgain(NamedTuple):
    """Send the same request again after so many seconds."""

    seconds: float


def fate_of_submit(error: PictoryError) -> Fate:
    """Tell what became of a POST that ended with this error. The table is at the top of this module."""
    if isinstance(error, TransportError):
        return Fate.NEVER_SENT if error.fault is Fault.NEVER_SENT else Fate.UNKNOWN
    if isinstance(error, RateLimited):
        return Fate.REFUSED_FOR_NOW
    if isinstance(error, (AuthenticationError, EdgeBlocked)):
        return Fate.REFUSED
    if isinstance(error, RequestInvalid) and (error.status is None or error.status in DEFINITE_4XX):
        return Fate.REFUSED
    return Fate.UNKNOWN


def after_submit(
    error: PictoryError, *, attempt: int, spent: float, now: float, chance: float
) -> SendAgain | PictoryError:
    """Decide what follows a POST that ended with an error.

    :param attempt: 1 for the first.
    :param spent: seconds since the first attempt began.
    :param now: epoch seconds.
    :param chance: a random number from 0 to 1.
    :return: send it again, or the error to raise.
    """
    if isinstance(error, SubmitOutcomeUnknown):
        return error
    fate = fate_of_submit(error)
    if fate is Fate.UNKNOWN:
        return SubmitOutcomeUnknown.because(error.message.rstrip("."))
    if fate is Fate.REFUSED:
        return error
    again = _send_again(error, attempt=attempt, spent=spent, budget=TIMING.resend_budget, now=now, chance=chance)
    if again:
        return again
    assert isinstance(error, Unavailable)
    last = " It certainly did not buy anything, so a retry of the task is safe."
    given_up = RateLimited if isinstance(error, RateLimited) else Unavailable
    return given_up(
        f"{error.message} Gave up after {attempt} attempts in {spent:.0f} s.{last}",
        status=error.status,
        retry_after=error.retry_after,
    )


def after_read(
    error: PictoryError, *, attempt: int, spent: float, now: float, chance: float
) -> SendAgain | PictoryError:
    """Decide what follows a GET or a clean-up that ended with an error. Arguments as in :func:`after_submit`."""
    if not is_passing(error):
        return error
    again = _send_again(error, attempt=attempt, spent=spent, budget=TIMING.read_budget, now=now, chance=chance)
    return again or error


def is_passing(error: PictoryError) -> bool:
    """Whether the same reading request may well succeed later."""
    if isinstance(error, RequestInvalid):
        return error.status in _OF_THE_MOMENT_4XX
    return isinstance(error, (Unavailable, ProtocolError, EdgeBlocked))


def pause_after(error: PictoryError, *, failures: int, now: float, chance: float, first: float) -> float:
    """Return the seconds to wait after a fault: what ``Retry-After`` asks for, else longer each time.

    Never less than ``first``, and jittered upward only. The caller caps the answer.

    :param failures: how many in a row, this one among them.
    """
    asked = parse_retry_after(getattr(error, "retry_after", None), now=now)
    if asked is None:
        return backoff(failures, chance=chance, first=first)
    return max(first, asked * (1 + JITTER * chance))


def backoff(failures: int, *, chance: float, first: float) -> float:
    """Return seconds to wait after failures in a row: doubling from ``first``, bounded, jittered upward."""
    doubled = first * float(2 ** min(failures - 1, 30))
    return min(doubled, max(TIMING.backoff_most, first)) * (1 + JITTER * chance)


def parse_retry_after(value: str | None, *, now: float) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for; ``None`` where it says nothing usable.

    Seconds, decimals and HTTP dates are read (RFC 9110, 10.2.3); a date that has passed is 0. The caller
    caps the answer.

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
    error: PictoryError, *, attempt: int, spent: float, budget: float, now: float, chance: float
) -> SendAgain | None:
    pause = pause_after(error, failures=attempt, now=now, chance=chance, first=TIMING.backoff_first)
    return SendAgain(pause) if spent + pause <= budget else None
