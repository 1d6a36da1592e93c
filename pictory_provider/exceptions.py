# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The errors that users catch: those of :mod:`pictory_provider.api.errors`, as Airflow understands them.

The class says whether a retry can help. Airflow fails a task at once, whatever its ``retries``, for an
``AirflowFailException``, and never asks a retry policy about one. The text says it too: a sentence a line, what
happened and what became of the money first, then what a retry will do, and the connection.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from pictory_provider.api import errors as api
from pictory_provider.api.wording import laid_out, urls

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pictory_provider.api.models import Job
    from pictory_provider.client.asking import Log


class PictoryRequestInvalid(api.RequestInvalid, AirflowFailException):
    """The request is wrong; nothing was spent. ``fields`` names what is at fault."""

    a_retry: ClassVar[str] = "Airflow does not retry this task: the same request would be refused again."


class PictoryAuthenticationError(api.AuthenticationError, AirflowFailException):
    """The connection has no usable API key, or Pictory refused it (401, or a 403 of its own)."""

    a_retry: ClassVar[str] = "Airflow does not retry this task: someone must mend the connection first."


class PictoryEdgeBlocked(api.EdgeBlocked, AirflowException):
    """The firewall in front of Pictory refused the client (403 with a page); the key is not the cause."""

    a_retry: ClassVar[str] = "If retries are left, Airflow tries again: a block may pass."


class PictoryUnavailable(api.Unavailable, AirflowException):
    """Pictory could not be reached or could not answer. Nothing was bought."""

    a_retry: ClassVar[str] = "If retries are left, Airflow tries again, and buys nothing twice by that."


class PictoryRateLimited(api.RateLimited, PictoryUnavailable):
    """Pictory refused the request for now (429), for longer than was worth waiting on a worker."""


class PictoryProtocolError(api.ProtocolError, AirflowFailException):
    """Pictory answered with something that this release does not understand."""

    a_retry: ClassVar[str] = "Airflow does not retry this task: the answer has to be understood first."


class PictoryBudgetExceeded(api.BudgetExceeded, AirflowFailException):
    """A purchase would go over a limit on spending: ``limits`` names which. Nothing was bought."""

    a_retry: ClassVar[str] = "Airflow does not retry this task: the limit would be the same."


class PictorySubmitOutcomeUnknown(api.SubmitOutcomeUnknown, AirflowFailException):
    """A paid request may or may not have been accepted. Not retried, since that could pay twice."""

    a_retry: ClassVar[str] = "Airflow does not retry this task: a retry could buy the picture a second time."


class PictoryJobFailed(api.JobFailed, AirflowFailException):
    """The job ran and failed. ``job`` carries Pictory's ``error_code`` and ``error_message``."""

    job: Job | None
    a_retry: ClassVar[str] = "Airflow does not retry this task: looking again changes nothing."


class PictoryJobCleaned(api.JobCleaned, AirflowFailException):
    """The job's output was removed from Pictory."""

    job: Job | None
    a_retry: ClassVar[str] = "Airflow does not retry this task: the picture is gone."


class PictoryJobNotFound(api.JobNotFound, AirflowFailException):
    """Pictory knows no such job."""

    a_retry: ClassVar[str] = "Airflow does not retry this task: the id or the account is wrong."


class PictoryWaitTimeout(api.WaitTimeout, AirflowException):
    """The job was still running at the deadline. It runs on at Pictory."""

    job: Job | None
    a_retry: ClassVar[str] = "If retries are left, Airflow tries again: it looks once, and buys nothing."


class PictoryImageInvalid(api.ImageInvalid, AirflowException):
    """What was downloaded is not the picture that was promised."""

    a_retry: ClassVar[str] = "If retries are left, Airflow tries again: downloading is free."


class PictoryStorageFailed(api.StorageFailed, AirflowException):
    """The picture could not be written where it should go."""

    a_retry: ClassVar[str] = "If retries are left, Airflow tries again: saving is free."


_TWINS: dict[type[api.PictoryError], type[api.PictoryError]] = {
    api.RequestInvalid: PictoryRequestInvalid,
    api.AuthenticationError: PictoryAuthenticationError,
    api.EdgeBlocked: PictoryEdgeBlocked,
    api.Unavailable: PictoryUnavailable,
    api.RateLimited: PictoryRateLimited,
    api.TransportError: PictoryUnavailable,
    api.ProtocolError: PictoryProtocolError,
    api.BudgetExceeded: PictoryBudgetExceeded,
    api.SubmitOutcomeUnknown: PictorySubmitOutcomeUnknown,
    api.JobNotFound: PictoryJobNotFound,
    api.JobFailed: PictoryJobFailed,
    api.JobCleaned: PictoryJobCleaned,
    api.WaitTimeout: PictoryWaitTimeout,
    api.ImageInvalid: PictoryImageInvalid,
    api.StorageFailed: PictoryStorageFailed,
}


def as_airflow_error(error: api.PictoryError, conn_id: str | None = None) -> api.PictoryError:
    """Return the same error as the class that Airflow understands, its text laid out.

    :param conn_id: of the Airflow connection that was used, for the text.
    """
    cls = _TWINS.get(type(error))
    if cls is None:
        return error
    lines = [error.message, getattr(cls, "a_retry", "")]
    is_of_this_machine = isinstance(error, api.RequestInvalid) and error.status is None
    if conn_id and not is_of_this_machine and repr(conn_id) not in error.message:
        lines.append(f"The connection is {conn_id!r}.")
    twin = cls(laid_out("\n".join(lines), after=f"{cls.__name__}: "))
    twin.__dict__.update(error.__dict__)
    return twin


def failure(text: str) -> AirflowFailException:
    """Return what fails a task for good, its text laid out."""
    return AirflowFailException(laid_out(text, after="AirflowFailException: "))


@contextmanager
def airflow_errors(conn_id: str | None = None, *, log: Log | None = None) -> Iterator[None]:
    """Let every error of the tree leave the block as the class that Airflow understands.

    Cause and frames stay behind: the innermost text is in the error's, and in Airflow's log frames would push it
    out of sight.

    :param log: told the URLs of the error's text; in a log they can be clicked, in an exception they cannot.
    """
    try:
        yield
    except api.PictoryError as error:
        if log is not None:
            for url in urls(error.message):
                log.warning("See %s", url)
            log.debug("Where it came from:", exc_info=error)
        shown = as_airflow_error(error, conn_id)
    else:
        return
    raise shown.with_traceback(None) from None
