# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The errors that tasks raise: those of :mod:`pictory_provider.api.errors` as exceptions of Airflow.

The class says whether a retry can help. For an ``AirflowFailException`` Airflow fails the task without a retry,
whatever its ``retries`` are, and does not ask a retry policy. The text has one sentence per line: what happened,
what became of the money, what a retry does, and the connection.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from pictory_provider.api import errors as api
from pictory_provider.api.text import urls, wrap_sentences

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pictory_provider.api.models import Job
    from pictory_provider.client.retrying import Log


class PictoryRequestInvalid(api.RequestInvalid, AirflowFailException):
    """The request is wrong; nothing was spent. ``fields`` names the wrong fields."""

    retry_note = "Airflow does not retry this task: the same request would be refused again."


class PictoryAuthenticationError(api.AuthenticationError, AirflowFailException):
    """The connection has no usable API key, or Pictory refused it (401, or 403 with JSON)."""

    retry_note = "Airflow does not retry this task: fix the connection first."


class PictoryEdgeBlocked(api.EdgeBlocked, AirflowException):
    """The firewall in front of Pictory refused the client (403 with a page); the key is not the cause."""

    retry_note = "If retries are left, Airflow tries again: the block may be temporary."


class PictoryUnavailable(api.Unavailable, AirflowException):
    """Pictory could not be reached or could not answer. Nothing was bought."""

    retry_note = "If retries are left, Airflow tries again, and nothing is bought twice."


class PictoryRateLimited(api.RateLimited, PictoryUnavailable):
    """Pictory refused the request for now (429), for longer than a worker waits."""


class PictoryProtocolError(api.ProtocolError, AirflowFailException):
    """Pictory sent a reply that this release does not understand."""

    retry_note = "Airflow does not retry this task: a person has to check the reply above first."


class PictoryBudgetExceeded(api.BudgetExceeded, AirflowFailException):
    """A purchase would exceed a limit on spending; ``limits`` names it. Nothing was bought."""

    retry_note = "Airflow does not retry this task: the limit would be the same."


class PictorySubmitOutcomeUnknown(api.SubmitOutcomeUnknown, AirflowFailException):
    """A paid request may or may not have been accepted. It is not retried, since that could pay twice."""

    retry_note = "Airflow does not retry this task: a retry could buy the picture a second time."


class PictoryJobFailed(api.JobFailed, AirflowFailException):
    """The job ran and failed. ``job`` carries Pictory's ``error_code`` and ``error_message``."""

    job: Job | None
    retry_note = "Airflow does not retry this task: the job has ended."


class PictoryJobCleaned(api.JobCleaned, AirflowFailException):
    """The job's output was removed from Pictory."""

    job: Job | None
    retry_note = "Airflow does not retry this task: the picture is gone."


class PictoryJobNotFound(api.JobNotFound, AirflowFailException):
    """Pictory does not know the job."""

    retry_note = "Airflow does not retry this task: the id or the account is wrong."


class PictoryWaitTimeout(api.WaitTimeout, AirflowException):
    """The job was still running at the deadline. It continues at Pictory."""

    job: Job | None
    retry_note = "If retries are left, Airflow tries again: the retry polls the job once, and buys nothing."


class PictoryImageInvalid(api.ImageInvalid, AirflowException):
    """The download is not a whole, valid picture."""

    retry_note = "If retries are left, Airflow tries again: downloading is free."


class PictoryStorageFailed(api.StorageFailed, AirflowException):
    """The storage of a picture, of its sidecar or of a batch could not be read or written."""

    retry_note = PictoryUnavailable.retry_note


_AIRFLOW_CLASSES: dict[type, type[api.PictoryError]] = {
    cls.__bases__[0]: cls for name, cls in list(globals().items()) if name.startswith("Pictory")
}


def as_airflow_error(error: api.PictoryError, conn_id: str | None = None) -> api.PictoryError:
    """Return the error as its class of this module, with one sentence per line.

    An error that is already an exception of Airflow, or that has no class here, is returned unchanged.

    :param conn_id: the id of the Airflow connection that was used, for the text.
    """
    known = [_AIRFLOW_CLASSES[each] for each in type(error).__mro__ if each in _AIRFLOW_CLASSES]
    if isinstance(error, AirflowException) or not known:
        return error
    cls = known[0]
    lines = [error.message, error.retry_note or cls.retry_note]
    is_local = isinstance(error, api.RequestInvalid) and error.status is None
    if conn_id and not is_local and repr(conn_id) not in error.message:
        lines.append(f"The connection is {conn_id!r}.")
    converted = cls(wrap_sentences("\n".join(lines), after=f"{cls.__name__}: "))
    converted.__dict__.update(error.__dict__)
    return converted


def is_final(error: BaseException) -> bool:
    """Whether Airflow does not retry after an error."""
    return isinstance(
        as_airflow_error(error) if isinstance(error, api.PictoryError) else error, AirflowFailException
    )


def failure(text: str) -> AirflowFailException:
    """Return an exception that fails a task without retries, with one sentence per line."""
    return AirflowFailException(wrap_sentences(text, after="AirflowFailException: "))


@contextmanager
def airflow_errors(conn_id: str | None = None, *, log: Log | None = None) -> Iterator[None]:
    """Raise every error of the block as its class of this module.

    Cause and frames are dropped: the error's text already includes the innermost one, and in Airflow's log the
    frames would push it out of sight.

    :param log: gets the URLs of the error's text, since Airflow's pages make them links in a log line only.
    """
    try:
        yield
    except api.PictoryError as error:
        if log is not None:
            for url in urls(error.message):
                log.warning("See %s", url)
            log.debug("The traceback of the error:", exc_info=error)
        shown = as_airflow_error(error, conn_id)
    else:
        return
    raise shown.with_traceback(None) from None
