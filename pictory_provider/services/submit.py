# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Submit one picture, with a record of each step.

The order is: sign or upload the reference image, reserve the credits, record the intent, send the paid request,
record the jobId. So the record always shows how far the request got. :mod:`pictory_provider.api.retry` decides
whether it may be sent again.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from pictory_provider.api import endpoints, responses, retry
from pictory_provider.api.checks import is_upload
from pictory_provider.api.errors import BudgetExceeded, PictoryError, SubmitOutcomeUnknown
from pictory_provider.api.retry import SubmitOutcome
from pictory_provider.client.retrying import retry_call
from pictory_provider.core.budget import Budget, CostEstimate, Limits, format_credits
from pictory_provider.core.evidence import failed_after_submission
from pictory_provider.exceptions import failure
from pictory_provider.services.spending import affordable, check, reserve
from pictory_provider.services.uploads import Uploads, hidden
from pictory_provider.telemetry import count

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pictory_provider.api.models import ImageRequest
    from pictory_provider.client.retrying import Log
    from pictory_provider.client.sync import SyncClient
    from pictory_provider.core.ledger import Charge


class Recorder(Protocol):
    """Records the steps of a submission."""

    def intend(self, purchase: Charge) -> None:
        """Record that the paid request is about to be sent, and the charge that was reserved for it."""

    def withdraw(self) -> None:
        """Record that it certainly bought nothing, and restore the record from before the intent."""

    def keep(self, job_id: str) -> None:
        """Record the jobId that it bought."""


class _NothingSent(Exception):
    """A limit leaves too little, or the intent could not be recorded, so the paid request was not sent."""

    def __init__(self, why: PictoryError) -> None:
        super().__init__(why.message)
        self.why = why


def check_time(ends_at: float | None) -> None:
    """Raise if the task's time is over, right before something is sent.

    Airflow's own exception is raised once, in any line, and is lost if that line is a library's clean-up.

    :param ends_at: seconds of the monotonic clock.
    """
    if ends_at is not None and time.monotonic() >= ends_at:
        raise AirflowTaskTimeout("The task's execution_timeout is over, so nothing more is submitted")


def submit(
    client: SyncClient,
    request: ImageRequest,
    *,
    uploads: Uploads | None = None,
    budget: Budget | None = None,
    recorder: Recorder | None = None,
    ends_at: float | None = None,
    tags: Mapping[str, str] | None = None,
    log: Log,
) -> str:
    """Buy one picture and return its jobId. Several threads may call this at the same time.

    The request is sent again, for at most a minute, only if the one before certainly was not sent, or was refused
    before Pictory did any work (:mod:`pictory_provider.api.retry`).

    :param uploads: has the reference image, if it is to be uploaded.
    :param budget: is charged before each paid request; ``None`` for the limits of the connection alone.
    :param recorder: is called right before each paid request, and right after it.
    :param ends_at: seconds of the monotonic clock; nothing is submitted after that.
    :param tags: of the metrics, in addition to the model.
    :raises BudgetExceeded: if a limit leaves too little; nothing was sent.
    :raises Unavailable: if the limits cannot be checked, and nothing was sent; or if Pictory cannot be reached.
    :raises SubmitOutcomeUnknown: if Pictory may or may not have accepted the job.
    :raises RequestInvalid: if a private reference image cannot be signed or uploaded, or Pictory refused the
        request.
    :raises RateLimited: if Pictory refused it for longer than a minute.
    """
    charged = Budget(Limits.from_settings(client.settings)) if budget is None else budget
    if is_upload(request.reference_image_url):  # an upload is public, so the limits are checked before it, too
        check_time(ends_at)
        check(client, charged, CostEstimate((request,)), log=log, tags=tags)
    sent = (uploads or Uploads()).readable(client, request, log=log)
    metric_tags = {**(tags or {}), "model": request.model}
    price = format_credits(request.credits)

    def once() -> str:
        with hidden(sent, request):
            try:
                (purchase,) = reserve(client, charged, CostEstimate((request,)), log=log, tags=metric_tags)
            except PictoryError as error:
                raise _NothingSent(error) from error
            log.info("Submitting a picture of model %s, %s AI credits as listed.", request.model, price)
            try:
                return _send(client, sent, purchase, recorder, ends_at, log)
            except (_NothingSent, PictoryError) as error:
                if isinstance(error, _NothingSent) or _is_refused(error):
                    charged.refund(purchase)
                raise

    try:
        job_id = retry_call(once, retry.after_submit, log=log)
    except _NothingSent as error:
        raise error.why from error.why.__cause__
    except SubmitOutcomeUnknown:
        count("pictory.submit_outcome_unknown")
        raise
    count("pictory.submitted", tags=metric_tags)
    if request.credits is not None:
        count("pictory.credits_bought", count=request.credits, tags=metric_tags)
    return job_id


def check_submission(
    client: SyncClient, request: ImageRequest, budget: Budget, uploads: Uploads, *, number: int = 1, log: Log
) -> BudgetExceeded | None:
    """Check a request and its limits as :func:`submit` does, and submit and upload nothing.

    :param number: how many pictures of it are to be bought.
    :return: the error if a limit leaves too little.
    :raises PictoryError: as :func:`submit`.
    """
    uploads.check(request)
    return affordable(client, budget, CostEstimate((request,) * number), log=log)[1]


class Submitter:
    """Submits within the limits of a connection, and counts what it spent, which the ledger may show only later.

    :ivar budget: counts what was spent.
    :ivar uploads: has what was uploaded.
    """

    def __init__(self) -> None:
        self.budget = Budget(Limits())
        self.uploads = Uploads()

    def submit(self, client: SyncClient, request: ImageRequest, *, log: Log) -> str:
        """Do as the function :func:`submit`."""
        self.budget.limits = Limits.from_settings(client.settings)
        return submit(client, request, uploads=self.uploads, budget=self.budget, log=log)


def _send(
    client: SyncClient,
    request: ImageRequest,
    purchase: Charge,
    recorder: Recorder | None,
    ends_at: float | None,
    log: Log,
) -> str:
    """Send the paid request once, and record each step."""
    check_time(ends_at)
    price = format_credits(
        request.credits
    )  # computed here: nothing unnecessary runs between the intent and the record
    if recorder:
        try:
            recorder.intend(purchase)
        except PictoryError as error:
            raise _NothingSent(error) from error
    job_id: str | None = None
    try:
        job_id = responses.parse_submission(client.send(endpoints.generate_image(request)))
        # The log comes first: it is faster than the record, and a user who has lost the record can read it.
        log.info("Pictory accepted job %s (model %s, %s AI credits).", job_id, request.model, price)
        if recorder:
            recorder.keep(job_id)
    except BaseException as error:
        if job_id is None:
            _after_no_job_id(error, recorder, log)
            raise
        if recorder:
            _keep_once_more(recorder, job_id, error)
        if not isinstance(error, Exception):
            raise
    return job_id


def _after_no_job_id(error: BaseException, recorder: Recorder | None, log: Log) -> None:
    """Handle the error of a paid request that returned no jobId: withdraw the intent, or raise what is unknown."""
    if isinstance(error, PictoryError):
        if recorder and _is_refused(error):
            _withdraw(recorder, log)
    elif isinstance(error, AirflowTaskTimeout):
        unknown = SubmitOutcomeUnknown.because("execution_timeout ran out before an answer came")
        unknown.is_out_of_time = True
        raise unknown from error
    elif isinstance(error, Exception):
        log.error("Unexpected error while the paid request was sent:", exc_info=error)
        raise SubmitOutcomeUnknown.because(f"an unexpected error ({type(error).__name__})") from error


def _is_refused(error: PictoryError) -> bool:
    """Whether a paid request that ended with this error certainly bought nothing."""
    return retry.classify_submit_error(error) is not SubmitOutcome.UNKNOWN


def _keep_once_more(recorder: Recorder, job_id: str, error: BaseException) -> None:
    """Try again to record a jobId: the error may have been transient, or the end of the task's time."""
    try:
        recorder.keep(job_id)
    except Exception:
        raise failure(failed_after_submission(job_id, error)) from error


def _withdraw(recorder: Recorder, log: Log) -> None:
    try:
        recorder.withdraw()
    except Exception:
        log.exception(
            "The request bought nothing, but its intent could not be removed from the record. So a retry stops "
            "and reports that the outcome is unknown."
        )
