# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Buy one picture and have it on record, whoever asks.

Ask for the budget, intend, send, keep: at every moment the record says how far the paid request has got. Whether
it may be sent again is decided in :mod:`pictory_provider.api.retry`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from pictory_provider.api import endpoints, responses, retry
from pictory_provider.api.errors import PictoryError, SubmitOutcomeUnknown
from pictory_provider.api.retry import Fate
from pictory_provider.client.asking import repeat
from pictory_provider.exceptions import failure
from pictory_provider.jobs.budget import Budget, Limits, Lot, plain
from pictory_provider.jobs.evidence import paid_and_then
from pictory_provider.spending import reserve
from pictory_provider.telemetry import count

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pictory_provider.api.models import ImageRequest
    from pictory_provider.client.asking import Log
    from pictory_provider.client.sync import SyncClient
    from pictory_provider.jobs.ledger import Purchase


class Recorder(Protocol):
    """Where a submission is put on record while it happens."""

    def intend(self, purchase: Purchase) -> None:
        """Note that the paid request is about to be sent, and what it was counted as."""

    def withdraw(self) -> None:
        """Note that it certainly bought nothing, and leave what was there before."""

    def keep(self, job_id: str) -> None:
        """Note what it bought."""


class _NothingSent(Exception):
    """There is no room in the budget, or no place on record for the intent: no answer to a paid request."""

    def __init__(self, why: PictoryError) -> None:
        super().__init__(why.message)
        self.why = why


def submit(
    client: SyncClient,
    request: ImageRequest,
    *,
    budget: Budget | None = None,
    recorder: Recorder | None = None,
    ends_at: float | None = None,
    tags: Mapping[str, str] | None = None,
    log: Log,
) -> str:
    """Buy one picture and return its jobId. Calls from several threads are no business of each other.

    The request is sent again only where the one before provably never left, or was plainly refused before any
    work (:mod:`pictory_provider.api.retry`), for at most a minute.

    :param budget: of the buyer, asked before each paid request; the limits of the connection alone where it is
        ``None``.
    :param recorder: told right before each paid request, and right after it what became of it.
    :param ends_at: on the monotonic clock; nothing is bought from then on.
    :param tags: for the metrics, beside the model.
    :raises BudgetExceeded: where a limit leaves too little; nothing was sent.
    :raises Unavailable: where that cannot be known; nothing was sent. Or where Pictory could not be reached.
    :raises SubmitOutcomeUnknown: where it cannot be known whether Pictory accepted it.
    :raises RequestInvalid: where a private reference image cannot be signed, or Pictory refused the request.
    :raises RateLimited: where Pictory refused for longer than a minute.
    """
    from pictory_provider.images.reference import readable, unsigned

    sent = readable(request)
    known = Budget(Limits.of(client.settings)) if budget is None else budget
    told = {**(tags or {}), "model": request.model}
    price = plain(request.credits)

    def once() -> str:
        with unsigned(sent, request):
            try:
                (purchase,) = reserve(client, known, Lot((request,)), log=log, tags=told)
            except PictoryError as error:
                raise _NothingSent(error) from error
            log.info("Buying a picture of model %s, for %s AI credits as listed.", request.model, price)
            try:
                return _send(client, sent, purchase, recorder, ends_at, log)
            except (_NothingSent, PictoryError) as error:
                if isinstance(error, _NothingSent) or _is_refused(error):
                    known.give_back(purchase)
                raise

    try:
        job_id = repeat(once, retry.after_submit, log=log)
    except _NothingSent as error:
        raise error.why from error.why.__cause__
    except SubmitOutcomeUnknown:
        count("pictory.submit_outcome_unknown")
        raise
    count("pictory.submitted", tags=told)
    if request.credits is not None:
        count("pictory.credits_bought", count=request.credits, tags=told)
    return job_id


def _send(
    client: SyncClient,
    request: ImageRequest,
    purchase: Purchase,
    recorder: Recorder | None,
    ends_at: float | None,
    log: Log,
) -> str:
    """Send the paid request once, and have it on record at every moment how far that has got."""
    if ends_at is not None and time.monotonic() >= ends_at:
        # Airflow's exception strikes once, in any line, and where that is a library's clean-up it is lost.
        raise AirflowTaskTimeout("The task's execution_timeout is over: nothing is bought any more")
    price = plain(request.credits)  # now: between the intent and the record nothing runs that need not
    if recorder:
        try:
            recorder.intend(purchase)
        except PictoryError as error:
            raise _NothingSent(error) from error
    job_id: str | None = None
    try:
        job_id = responses.parse_submission(client.send(endpoints.generate_image(request)))
        # The log comes first: it is quicker than the record, and whoever has lost the record can read it.
        log.info("Pictory accepted job %s (model %s, %s AI credits).", job_id, request.model, price)
        if recorder:
            recorder.keep(job_id)
    except BaseException as error:
        if job_id is None:
            _after_no_answer(error, recorder, log)
            raise
        if recorder:
            _keep_once_more(recorder, job_id, error)
        if not isinstance(error, Exception):
            raise
    return job_id


def _after_no_answer(error: BaseException, recorder: Recorder | None, log: Log) -> None:
    """Say what became of a paid request to which no jobId came back."""
    if isinstance(error, PictoryError):
        if recorder and _is_refused(error):
            _withdraw(recorder, log)
    elif isinstance(error, AirflowTaskTimeout):
        unknown = SubmitOutcomeUnknown.because("execution_timeout ran out before an answer came")
        unknown.is_out_of_time = True
        raise unknown from error
    elif isinstance(error, Exception):
        log.error("An error that nobody foresaw, after the request began to leave:", exc_info=error)
        raise SubmitOutcomeUnknown.because(f"an error that nobody foresaw ({type(error).__name__})") from error


def _is_refused(error: PictoryError) -> bool:
    """Whether a paid request that ended with this error certainly bought nothing."""
    return retry.fate_of_submit(error) is not Fate.UNKNOWN


def _keep_once_more(recorder: Recorder, job_id: str, error: BaseException) -> None:
    """Put a jobId on record after all: what struck may have been a blip, or the end of the task's time."""
    try:
        recorder.keep(job_id)
    except Exception:
        raise failure(paid_and_then(job_id, error)) from error


def _withdraw(recorder: Recorder, log: Log) -> None:
    try:
        recorder.withdraw()
    except Exception:
        log.exception(
            "The request bought nothing, and the record of it could not be taken away. So a retry will ask "
            "what became of it."
        )
