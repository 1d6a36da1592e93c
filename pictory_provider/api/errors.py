# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The errors of this package.

::

    PictoryError
    ├── RequestInvalid        the request is wrong; refused here or by Pictory, nothing was spent
    ├── AuthenticationError   no usable API key: none in the connection, or Pictory refused it
    ├── EdgeBlocked           the firewall in front of Pictory refused the client, not the key
    ├── Unavailable           no answer this time; the same request may succeed later
    │   ├── RateLimited       refused before any work, with or without a Retry-After
    │   └── TransportError    the connection failed; its Fault says how far the request had got
    │       ├── CertificateUntrusted  the server's certificate cannot be verified; nothing was sent
    │       └── ReplyTooLarge         the reply is larger than what is read
    ├── ProtocolError         a reply that this release does not understand
    ├── BudgetExceeded        a limit on spending would be exceeded; nothing was bought
    ├── SubmitOutcomeUnknown  a paid request that may or may not have been accepted
    ├── JobNotFound           Pictory does not know the job
    ├── JobFailed             the job ran and failed; the job is attached
    ├── JobCleaned            the job's output was removed; the job is attached
    ├── WaitTimeout           the job was still running at the deadline
    ├── ImageInvalid          the download is not a whole, valid picture
    └── StorageFailed         the storage of a picture could not be read or written

Airflow sees them as the classes of :mod:`pictory_provider.exceptions`, which also say whether a retry can help.
"""

from __future__ import annotations

import copy
from enum import Enum
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

NO_REQUEST = "No request was made."
"""For errors that can also occur after a purchase, such as those of a connection that is read again."""
NOTHING_SPENT = "Nothing was sent and nothing was spent."
_CHECK_FIRST = (
    "Check https://app.pictory.ai and `PictoryHook().list_images()` for a picture of this prompt before you buy "
    "it again."
)


class Fault(Enum):
    """How far a request had got when its connection failed."""

    NEVER_SENT = "never sent"
    """No byte of the request's body left this machine: name resolution, connect, TLS or proxy tunnel failed."""
    MAYBE_ACCEPTED = "maybe accepted"
    """Sending had begun, and no complete reply came back: dropped, reset or timed out."""
    UNREADABLE = "unreadable"
    """A reply began and broke off, or could not be decoded."""


class PictoryError(Exception):
    """The base class.

    :param message: what happened, what became of the money, and what to do now.
    :param status: the HTTP status, ``None`` without a reply.
    """

    status: int | None = None
    parts: tuple[str, str] | None = None
    """What happened, and what to do now; set by :meth:`unsent`."""
    retry_note: str = ""
    """What Airflow does next: set for each class of :mod:`pictory_provider.exceptions`, or by the error itself."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        if status is not None:
            self.status = status

    @classmethod
    def unsent(cls, what: str, what_now: str = "", *, money: str = NOTHING_SPENT, **kwargs: Any) -> Self:
        """Return an error that was found before anything was sent.

        :param what: what happened, without a full stop.
        :param what_now: what to do, in full sentences.
        :param money: what became of the money; :data:`NO_REQUEST` if something may have been bought before.
        :param kwargs: further arguments of the class.
        """
        error = cls(_joined(what, money, what_now), **kwargs)
        error.parts = what, what_now
        return error

    def with_money(self, sentence: str) -> Self:
        """Return a copy with another sentence about what became of the money; ``""`` for none."""
        what, what_now = self.parts or (self.message.rstrip("."), "")
        error = self.with_message(_joined(what, sentence, what_now))
        error.parts = what, what_now
        return error

    def with_message(self, message: str) -> Self:
        """Return a copy with another text."""
        error = copy.copy(self)
        error.message, error.args, error.parts = message, (message,), None
        return error


def _joined(what: str, money: str, what_now: str) -> str:
    return " ".join(part for part in (f"{what}.", money, what_now) if part)


class RequestInvalid(PictoryError):
    """The request is wrong, and nothing was spent: refused here, or by Pictory with a 4xx status.

    :param fields: the names of the wrong fields, as Pictory or this package calls them.
    :param status: the HTTP status, ``None`` if the request was not sent.
    :param code: Pictory's error code, such as ``INVALID_REQUEST_BODY``.
    """

    bad_rows: Sequence[Any] = ()
    """For a table: its bad rows (:class:`pictory_provider.core.batch.rows.BadRow`)."""

    def __init__(
        self, message: str, *, fields: Sequence[str] = (), status: int | None = None, code: str | None = None
    ) -> None:
        super().__init__(message, status=status)
        self.fields = tuple(fields)
        self.code = code
        if lacks_credits(status, code):
            self.retry_note = "Airflow does not retry this task: the account would still have too few credits."


def lacks_credits(status: int | None, code: str | None) -> bool:
    """Return whether a refusal or a failed job means that the account has too few credits."""
    return status == 402 or (code is not None and "CREDIT" in code.upper())


TOP_UP = (
    "Top up the account at https://app.pictory.ai and clear the task: it buys what is missing, and does not buy "
    "again what is on record."
)
"""What to do if the account has too few credits."""


class AuthenticationError(PictoryError):
    """There is no usable API key, or Pictory refused it (401, or 403 with JSON)."""


class EdgeBlocked(PictoryError):
    """The firewall in front of Pictory refused the client (403 with a page instead of JSON)."""

    status = 403


class Unavailable(PictoryError):
    """No answer this time: 5xx, or the connection failed. The same request may succeed later.

    :param status: the HTTP status, ``None`` without a reply.
    :param retry_after: the raw ``Retry-After`` header, ``None`` without one.
    """

    def __init__(self, message: str, *, status: int | None = None, retry_after: str | None = None) -> None:
        super().__init__(message, status=status)
        self.retry_after = retry_after


class RateLimited(Unavailable):
    """Pictory refused the request before any work was done: only status 429."""


class TransportError(Unavailable):
    """The connection failed. :attr:`fault` says how far the request had got."""

    fault = Fault.MAYBE_ACCEPTED

    def __init__(self, message: str, *, fault: Fault | None = None) -> None:
        super().__init__(message)
        self.fault = fault or self.fault


class CertificateUntrusted(TransportError):
    """The server's certificate cannot be verified on this machine.

    Nothing was sent, and an immediate retry would fail in the same way.
    """

    fault = Fault.NEVER_SENT


class ReplyTooLarge(TransportError):
    """The reply is larger than what is read. An immediate retry would fail in the same way."""

    fault = Fault.UNREADABLE


class ProtocolError(PictoryError):
    """A reply that this release does not understand."""


class BudgetExceeded(PictoryError):
    """A purchase would exceed a limit on spending. Nothing was bought.

    :param limits: the names of the limits: ``max_credits`` of the task; ``credits_per_day``,
        ``credits_per_month`` and ``credits_reserve`` of the connection.
    :param asked: AI credits that the purchase would cost, at list prices.
    :param left: AI credits that the tightest of the limits leaves.
    """

    def __init__(
        self, message: str, *, limits: Sequence[str] = (), asked: float | None = None, left: float | None = None
    ) -> None:
        super().__init__(message)
        self.limits = tuple(limits)
        self.asked = asked
        self.left = left


class SubmitOutcomeUnknown(PictoryError):
    """A paid request that may or may not have been accepted: no jobId came back.

    :attr:`why` says what happened. :attr:`evidence` is a :class:`pictory_provider.core.evidence.Evidence`, or
    ``None`` if no evidence was gathered.
    """

    why: str = ""
    evidence: Any = None
    is_out_of_time: bool = False
    """Whether the task's time was up. Then nothing more may be bought, also with ``resubmit``."""

    @classmethod
    def because(cls, why: str, *, evidence: Any = None, what_now: str | None = None) -> SubmitOutcomeUnknown:
        """Return the error with its full text.

        :param why: what happened, without a full stop.
        :param what_now: the evidence and what to do. The default says where to check for the picture.
        """
        error = cls(
            f"It is unknown whether Pictory accepted this request: {why}. If it did, a picture was or will be "
            f"paid for. {what_now or _CHECK_FIRST}"
        )
        error.why, error.evidence = why, evidence
        return error


class JobError(PictoryError):
    """An error about one job; :attr:`job` is its last known state.

    :param job: a :class:`pictory_provider.api.models.Job`, or ``None``.
    """

    def __init__(self, message: str, *, job: Any = None) -> None:
        super().__init__(message)
        self.job = job


class JobNotFound(JobError):
    """Pictory does not know the job (404, or ``JOB_NOT_FOUND`` in any shape)."""


class JobFailed(JobError):
    """The job ran and failed. :attr:`job` carries Pictory's ``error_code`` and ``error_message``."""


class JobCleaned(JobError):
    """The job's output was removed from Pictory (status ``cleaned``)."""


class WaitTimeout(JobError):
    """The job was still running at the deadline. It continues at Pictory."""


class ImageInvalid(PictoryError):
    """The download is not a whole, valid picture."""


class StorageFailed(PictoryError):
    """The storage of a picture could not be read or written."""


KINDS: dict[str, type[PictoryError]] = {
    name: kind
    for name, kind in list(globals().items())
    if isinstance(kind, type) and issubclass(kind, PictoryError)
}
"""Every class of this module by its name. Records and trigger events store the name."""
