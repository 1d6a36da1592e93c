# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Everything that can come back instead of a picture.

::

    PictoryError
    ├── RequestInvalid        the request is wrong; refused here or by Pictory, nothing was spent
    ├── AuthenticationError   there is no usable key: none in the connection, or Pictory refused it
    ├── EdgeBlocked           the firewall in front of Pictory refused the client, not the key
    ├── Unavailable           no answer this time; the same request may succeed later
    │   ├── RateLimited       refused before any work, with or without a time to come back
    │   └── TransportError    the connection failed; its Fault tells how far the request had got
    ├── ProtocolError         an answer that this release does not understand
    ├── BudgetExceeded        a limit on spending would be exceeded; nothing was bought
    ├── SubmitOutcomeUnknown  a paid request that may or may not have been accepted
    ├── JobNotFound           Pictory knows no such job
    ├── JobFailed             the job ran and failed; the job is attached
    ├── JobCleaned            the job's output was removed; the job is attached
    ├── WaitTimeout           the job was still running at the deadline
    ├── ImageInvalid          what was downloaded is not the picture that was promised
    └── StorageFailed         the picture could not be written where it should go

Airflow sees these through :mod:`pictory_provider.exceptions`, where each class also says whether a
retry can help.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

_WHERE_TO_LOOK = (
    "Look at https://app.pictory.ai and at `PictoryHook().list_images()` for a picture of this prompt before "
    "you buy it again."
)


class Fault(Enum):
    """How far a request had got when its connection failed."""

    NEVER_SENT = "never sent"
    """No byte of the request's body left this machine: name resolution, connect, TLS, proxy tunnel."""
    MAYBE_ACCEPTED = "maybe accepted"
    """Sending had begun, and no complete reply came back: dropped, reset, timed out."""
    UNREADABLE = "unreadable"
    """A reply came back and broke off, or could not be decoded."""


class PictoryError(Exception):
    """The root of the tree.

    :param message: what happened, what became of the money, and what to do now.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class RequestInvalid(PictoryError):
    """The request is wrong, and nothing was spent: refused here, or by Pictory with a 4xx status.

    :param fields: the names of the fields at fault, as the refusing side calls them.
    :param status: the HTTP status, ``None`` where the request never left this machine.
    :param code: Pictory's error code, such as ``INVALID_REQUEST_BODY``.
    """

    def __init__(
        self, message: str, *, fields: Sequence[str] = (), status: int | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.fields = tuple(fields)
        self.status = status
        self.code = code


class AuthenticationError(PictoryError):
    """There is no usable API key, or Pictory refused it (401, or a 403 of its own)."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class EdgeBlocked(PictoryError):
    """The firewall in front of Pictory refused the client (403 with a page instead of JSON)."""

    status = 403


class Unavailable(PictoryError):
    """No answer this time: 5xx, or the connection failed. The same request may succeed later.

    :param status: the HTTP status, ``None`` where there was no reply.
    :param retry_after: the raw ``Retry-After`` header, ``None`` where there was none.
    """

    def __init__(self, message: str, *, status: int | None = None, retry_after: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class RateLimited(Unavailable):
    """Refused before any work was done: 429, and nothing else."""


class TransportError(Unavailable):
    """The connection failed. :attr:`fault` tells how far the request had got."""

    def __init__(self, message: str, *, fault: Fault = Fault.MAYBE_ACCEPTED) -> None:
        super().__init__(message)
        self.fault = fault


class ProtocolError(PictoryError):
    """An answer that this release does not understand."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class BudgetExceeded(PictoryError):
    """A purchase would go over a limit on spending. Nothing was bought.

    :param limits: the names of the limits: ``max_credits`` of the task; ``credits_per_day``,
        ``credits_per_month`` and ``credits_reserve`` of the connection.
    :param asked: AI credits that it would cost, as listed.
    :param left: AI credits that the tightest of the limits leaves.
    """

    def __init__(
        self,
        message: str,
        *,
        limits: Sequence[str] = (),
        asked: float | None = None,
        left: float | None = None,
    ) -> None:
        super().__init__(message)
        self.limits = tuple(limits)
        self.asked = asked
        self.left = left


class SubmitOutcomeUnknown(PictoryError):
    """A paid request that may or may not have been accepted: no jobId came back.

    :attr:`why` says what happened, and :attr:`evidence` what was found out about it: a
    :class:`pictory_provider.jobs.evidence.Evidence`, ``None`` where nobody looked.
    """

    why: str = ""
    evidence: Any = None
    is_out_of_time: bool = False
    """Whether the task's own time was up: then nothing more may be bought, whatever it is told to do."""

    @classmethod
    def because(cls, why: str, *, evidence: Any = None, what_now: str | None = None) -> SubmitOutcomeUnknown:
        """Return the error with its whole text.

        :param why: what happened, without a full stop.
        :param what_now: what was found out, and what to do; where to look, if that is all there is to say.
        """
        error = cls(
            f"It is unknown whether Pictory accepted this request: {why}. If it did, a picture was or will be "
            f"paid for. {what_now or _WHERE_TO_LOOK}"
        )
        error.why, error.evidence = why, evidence
        return error


class JobError(PictoryError):
    """An error that concerns one job; :attr:`job` is what Pictory last said of it.

    :param job: a :class:`pictory_provider.api.models.Job`, or ``None``.
    """

    def __init__(self, message: str, *, job: Any = None) -> None:
        super().__init__(message)
        self.job = job


class JobNotFound(JobError):
    """Pictory knows no such job (404, or ``JOB_NOT_FOUND`` in any shape)."""


class JobFailed(JobError):
    """The job ran and failed. :attr:`job` carries Pictory's ``error_code`` and ``error_message``."""


class JobCleaned(JobError):
    """The job's output was removed from Pictory (status ``cleaned``)."""


class WaitTimeout(JobError):
    """The job was still running at the deadline. It runs on at Pictory."""


class ImageInvalid(PictoryError):
    """What was downloaded is not the picture that was promised."""


class StorageFailed(PictoryError):
    """The picture could not be written where it should go."""


KINDS: dict[str, type[PictoryError]] = {
    kind.__name__: kind
    for kind in (
        PictoryError,
        RequestInvalid,
        AuthenticationError,
        EdgeBlocked,
        Unavailable,
        RateLimited,
        TransportError,
        ProtocolError,
        BudgetExceeded,
        SubmitOutcomeUnknown,
        JobError,
        JobNotFound,
        JobFailed,
        JobCleaned,
        WaitTimeout,
        ImageInvalid,
        StorageFailed,
    )
}
"""Every class of the tree by its name, which is what crosses Airflow's database."""
