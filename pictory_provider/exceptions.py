# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The errors that users catch: those of :mod:`pictory_provider.api.errors`, joined to Airflow's.

The class says whether a retry can help. Airflow fails a task at once, whatever its ``retries``, for an
``AirflowFailException``, and never asks a retry policy about one.

====================================  =======  ==============================================================
class                                 retried  because
====================================  =======  ==============================================================
:class:`PictoryRequestInvalid`        no       the same request is refused again
:class:`PictoryAuthenticationError`   no       someone must mend the connection first
:class:`PictoryEdgeBlocked`           yes      nothing was bought, and a block may pass
:class:`PictoryUnavailable`           yes      nothing was bought, and it may pass
:class:`PictoryRateLimited`           yes      nothing was bought, and it passes
:class:`PictoryProtocolError`         no       the answer has to be understood first
:class:`PictorySubmitOutcomeUnknown`  no       a retry could pay twice
:class:`PictoryJobFailed`             no       looking again changes nothing, and submitting again costs
:class:`PictoryJobCleaned`            no       the picture is gone
:class:`PictoryJobNotFound`           no       the id or the account is wrong
:class:`PictoryWaitTimeout`           yes      a retry adopts the job on record, and looks once
:class:`PictoryImageInvalid`          yes      the download may arrive whole next time
:class:`PictoryStorageFailed`         yes      the disk or the store may have room next time
====================================  =======  ==============================================================
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from pictory_provider.api import errors as api

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pictory_provider.api.models import Job


class PictoryRequestInvalid(api.RequestInvalid, AirflowFailException):
    """The request is wrong; nothing was spent. ``fields`` names what is at fault."""


class PictoryAuthenticationError(api.AuthenticationError, AirflowFailException):
    """The connection has no usable API key, or Pictory refused it (401, or a 403 of its own)."""


class PictoryEdgeBlocked(api.EdgeBlocked, AirflowException):
    """The firewall in front of Pictory refused the client (403 with a page); the key is not the cause."""


class PictoryUnavailable(api.Unavailable, AirflowException):
    """Pictory could not be reached or could not answer. Nothing was bought."""


class PictoryRateLimited(api.RateLimited, PictoryUnavailable):
    """Pictory refused the request for now (429), for longer than was worth waiting on a worker."""


class PictoryProtocolError(api.ProtocolError, AirflowFailException):
    """Pictory answered with something that this release does not understand."""


class PictorySubmitOutcomeUnknown(api.SubmitOutcomeUnknown, AirflowFailException):
    """A paid request may or may not have been accepted. Not retried, since that could pay twice."""


class PictoryJobFailed(api.JobFailed, AirflowFailException):
    """The job ran and failed. ``job`` carries Pictory's ``error_code`` and ``error_message``."""

    job: Job | None


class PictoryJobCleaned(api.JobCleaned, AirflowFailException):
    """The job's output was removed from Pictory."""

    job: Job | None


class PictoryJobNotFound(api.JobNotFound, AirflowFailException):
    """Pictory knows no such job."""


class PictoryWaitTimeout(api.WaitTimeout, AirflowException):
    """The job was still running at the deadline. It runs on at Pictory."""

    job: Job | None


class PictoryImageInvalid(api.ImageInvalid, AirflowException):
    """What was downloaded is not the picture that was promised."""


class PictoryStorageFailed(api.StorageFailed, AirflowException):
    """The picture could not be written where it should go."""


_TWINS: dict[type[api.PictoryError], type[api.PictoryError]] = {
    api.RequestInvalid: PictoryRequestInvalid,
    api.AuthenticationError: PictoryAuthenticationError,
    api.EdgeBlocked: PictoryEdgeBlocked,
    api.Unavailable: PictoryUnavailable,
    api.RateLimited: PictoryRateLimited,
    api.TransportError: PictoryUnavailable,
    api.ProtocolError: PictoryProtocolError,
    api.SubmitOutcomeUnknown: PictorySubmitOutcomeUnknown,
    api.JobNotFound: PictoryJobNotFound,
    api.JobFailed: PictoryJobFailed,
    api.JobCleaned: PictoryJobCleaned,
    api.WaitTimeout: PictoryWaitTimeout,
    api.ImageInvalid: PictoryImageInvalid,
    api.StorageFailed: PictoryStorageFailed,
}


def as_airflow_error(error: api.PictoryError) -> api.PictoryError:
    """Return the same error as the class that Airflow understands."""
    cls = _TWINS.get(type(error))
    if cls is None:
        return error
    twin = cls(error.message)
    twin.__dict__.update(error.__dict__)
    return twin.with_traceback(error.__traceback__)


@contextmanager
def airflow_errors() -> Iterator[None]:
    """Let every error of the tree leave the block as the class that Airflow understands."""
    try:
        yield
    except api.PictoryError as error:
        raise as_airflow_error(error) from error.__cause__
