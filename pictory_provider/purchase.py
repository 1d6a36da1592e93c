# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Buy one picture and have it on record, whoever asks.

What a try does first is decided in :mod:`pictory_provider.jobs.submission`, whether a request may be sent again in
:mod:`pictory_provider.api.retry`, and where the record lies in :mod:`pictory_provider.durable`. Here these are put
in order: look at the record, intend, send, keep; and whatever fails after the purchase is retried only where the
retry will find it.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowTaskTimeout

from pictory_provider.api import endpoints, responses, retry
from pictory_provider.api.errors import JobError, PictoryError, RequestInvalid, SubmitOutcomeUnknown
from pictory_provider.api.retry import Fate
from pictory_provider.client.asking import ask_all, get_job, repeat
from pictory_provider.exceptions import airflow_errors, failure
from pictory_provider.jobs.evidence import Evidence, matching, report
from pictory_provider.jobs.submission import (
    PAID_AND_LOST,
    Adopt,
    LookFirst,
    Submit,
    after_look,
    asked_for,
    fingerprint,
    first_step,
    paid_and_then,
    request_of,
    runs_on,
)
from pictory_provider.telemetry import count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pictory_provider.api.models import ImageRequest, Job
    from pictory_provider.client.asking import Log
    from pictory_provider.client.sync import SyncClient
    from pictory_provider.durable import SubmissionRecord
    from pictory_provider.jobs.submission import Recorder

EVIDENCE_TIME = 10.0
"""Seconds that all the evidence about an unknown outcome may take."""
CREDITS_TIME = 5.0
"""Seconds that the credits used may take to ask for, before each submission."""
UNKNOWN_SUBMIT_POLICIES = ("fail", "resubmit")


def check_policy(on_unknown_submit: object) -> None:
    """Refuse an ``on_unknown_submit`` that nobody knows.

    :raises RequestInvalid: names those that there are.
    """
    if on_unknown_submit not in UNKNOWN_SUBMIT_POLICIES:
        raise RequestInvalid(
            f"on_unknown_submit is {on_unknown_submit!r}; it takes one of {', '.join(UNKNOWN_SUBMIT_POLICIES)}. "
            "Nothing was sent and nothing was spent.",
            fields=["on_unknown_submit"],
        )


def submit(
    client: SyncClient,
    request: ImageRequest,
    *,
    recorder: Recorder | None = None,
    ends_at: float | None = None,
    log: Log,
) -> str:
    """Buy one picture and return its jobId. Calls from several threads are no business of each other.

    The request is sent again only where the one before provably never left, or was plainly refused before any
    work (:mod:`pictory_provider.api.retry`), for at most a minute.

    :param recorder: told right before each paid request, and right after it what became of it.
    :param ends_at: on the monotonic clock; nothing is bought from then on.
    :raises SubmitOutcomeUnknown: where it cannot be known whether Pictory accepted it.
    :raises RateLimited: where Pictory refused for longer than a minute.
    """

    def once() -> str:
        return _send(client, request, recorder, ends_at, log)

    try:
        job_id = repeat(once, retry.after_submit, log=log)
    except SubmitOutcomeUnknown:
        count("pictory.submit_outcome_unknown")
        raise
    count("pictory.submitted", tags={"model": request.model})
    return job_id


def _send(
    client: SyncClient, request: ImageRequest, recorder: Recorder | None, ends_at: float | None, log: Log
) -> str:
    """Send the paid request once, and have it on record at every moment how far that has got."""
    if ends_at is not None and time.monotonic() >= ends_at:
        # Airflow's exception strikes once, in any line, and where that is a library's clean-up it is lost.
        raise AirflowTaskTimeout("The task's execution_timeout is over: nothing is bought any more")
    if recorder:
        recorder.intend()
    job_id: str | None = None
    try:
        job_id = responses.parse_submission(client.send(endpoints.generate_image(request)))
        # The log comes first: it is quicker than the record, and whoever has lost the record can read it.
        price = "an unknown number of" if request.credits is None else request.credits
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
        if recorder and retry.fate_of_submit(error) is not Fate.UNKNOWN:
            _withdraw(recorder, log)
    elif isinstance(error, AirflowTaskTimeout):
        unknown = SubmitOutcomeUnknown.because("execution_timeout ran out before an answer came")
        unknown.is_out_of_time = True
        raise unknown from error
    elif isinstance(error, Exception):
        log.error("An error that nobody foresaw, after the request began to leave:", exc_info=error)
        raise SubmitOutcomeUnknown.because(f"an error that nobody foresaw ({type(error).__name__})") from error


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


class Order(NamedTuple):
    """What a task wants to have drawn.

    :param identity: what tells it from another; JSON that is the same at every try.
    :param request: called at most once a try, right before the purchase, and not where a job is adopted.
    """

    identity: dict[str, Any]
    request: Callable[[], ImageRequest]

    @classmethod
    def of(cls, request: ImageRequest) -> Order:
        """Return the order of a request that is known."""
        return cls(asked_for(request), lambda: request)


class Purchase:
    """The picture of one task: bought by this try, or by an earlier one that left it on record.

    :param record: of the task.
    :param conn_id: of the Airflow connection that buys.
    :ivar job_id: as soon as it is known.
    """

    def __init__(self, record: SubmissionRecord, *, conn_id: str, log: Log) -> None:
        self.record = record
        self.conn_id = conn_id
        self.job_id: str | None = None
        self._log = log

    def obtain(
        self,
        client: SyncClient,
        order: Order,
        *,
        on_unknown_submit: str = "fail",
        ends_at: float | None = None,
    ) -> Adopt:
        """Return the job of this task: that of an earlier try, or a new one.

        :param on_unknown_submit: one of :data:`UNKNOWN_SUBMIT_POLICIES`.
        :param ends_at: on the monotonic clock; nothing is bought from then on.
        :raises SubmitOutcomeUnknown: with all that could be found out about it.
        """
        record = self.record
        wanted = fingerprint(self.conn_id, order.identity)
        request: ImageRequest | None = None
        may_resubmit = on_unknown_submit == "resubmit"
        step = self._first_step(client, wanted, order.identity)
        while not isinstance(step, Adopt):
            if isinstance(step, Submit):
                if step.warning:
                    self._log.warning("%s", step.warning)
                request = request or self._requested(order)
                record.prepare_intent(wanted, asked_for(request))
                record.note_credits(self._credits_used(client))
                try:
                    job_id = submit(client, request, recorder=record, ends_at=ends_at, log=self._log)
                    step = Adopt(job_id, time.time())
                except SubmitOutcomeUnknown as error:
                    step = error
            elif not isinstance(step, SubmitOutcomeUnknown):
                raise step
            elif may_resubmit:
                may_resubmit = False
                step = self._once_more(step)
            else:
                raise self._reported(client, order, step) from step.__cause__
        self.job_id = step.job_id
        return step

    @contextmanager
    def guarded(self, *, is_bought: bool = False) -> Iterator[None]:
        """Let what fails after the purchase be retried only where the retry will find it on record.

        :param is_bought: whether it was made before, in an earlier leg of this try.
        """
        try:
            with airflow_errors(self.conn_id, log=self._log):
                yield
        except AirflowFailException as error:
            job_id = self.job_id or self.record.latest.job_id
            if job_id and not isinstance(error, JobError):
                self._log.warning("%s", runs_on(job_id))
            self.record.end()
            raise
        except (Exception, AirflowTaskTimeout) as error:
            job_id = self.job_id or self.record.latest.job_id
            if job_id is None and not is_bought:
                raise
            if job_id is None:
                self._log.error("What failed after the purchase:", exc_info=error)
                raise failure(PAID_AND_LOST) from None
            if self.record.holds(job_id):
                self._log.warning("Job %s is on record: a retry of this task adopts it, and buys nothing.", job_id)
                raise
            self._log.error("What failed after the purchase:", exc_info=error)
            raise failure(paid_and_then(job_id, error)) from None

    def recall(self) -> str:
        """Return the jobId of this try where the arguments of its deferral are gone.

        :raises AirflowFailException: where neither the record nor the XCom says it.
        """
        self.job_id, unread = self.record.recall()
        if self.job_id is None:
            raise failure(PAID_AND_LOST) from unread
        return self.job_id

    def _first_step(self, client: SyncClient, wanted: str, asked: dict[str, str]) -> Submit | Adopt | PictoryError:
        step = first_step(
            self.record.find(),
            wanted=wanted,
            max_tries=self.record.max_tries,
            is_mapped=self.record.is_mapped,
            retries=self.record.retries,
            request=asked,
        )
        result: Submit | Adopt | PictoryError
        result = after_look(step, _ask(client, step.job_id), time.time()) if isinstance(step, LookFirst) else step
        if isinstance(result, SubmitOutcomeUnknown):
            count("pictory.submit_outcome_unknown")
        if isinstance(result, Adopt):
            self._adopt(result, wanted, asked)
        return result

    def _adopt(self, job: Adopt, wanted: str, asked: dict[str, str]) -> None:
        if job.warning:
            self._log.warning("%s", job.warning)
        self._log.info("Adopting job %s, which is on record: nothing is submitted.", job.job_id)
        if job.is_by_hand:
            self.record.prepare_intent(wanted, asked)
            self.record.keep(job.job_id, job.submitted_at)
        count("pictory.adopted")

    def _once_more(self, unknown: SubmitOutcomeUnknown) -> Submit:
        if unknown.is_out_of_time:
            later = "on_unknown_submit is 'resubmit', but this try's time is up: a retry buys it."
            raise AirflowTaskTimeout(f"{unknown.message} {later}") from unknown
        self._log.warning("%s on_unknown_submit is 'resubmit', so it is bought again.", unknown.message)
        return Submit()

    def _requested(self, order: Order) -> ImageRequest:
        """Return the request: it may take a user's function, whose failure is none of an earlier job's."""
        self.record.prepare_intent(None, order.identity)
        return order.request()

    def _credits_used(self, client: SyncClient) -> float | None:
        """Return the AI credits used so far; ``None`` where Pictory does not say within five seconds."""
        (quota,) = ask_all(
            client.settings,
            (endpoints.get_quota(), responses.parse_quota),
            within=CREDITS_TIME,
            log=self._log,
        )
        return quota.ai_credits_used if quota else None

    def _reported(self, client: SyncClient, order: Order, unknown: SubmitOutcomeUnknown) -> SubmitOutcomeUnknown:
        """Return an unknown outcome with all that can be said about it."""
        since, before = self.record.latest.intended_at, self.record.latest.credits_before
        evidence = Evidence(since=since, credits_before=before, credits_now=None, matches=None)
        try:
            request = request_of(self.record.latest.request or order.identity)
            quota, page = ask_all(
                client.settings,
                (endpoints.get_quota(), responses.parse_quota),
                (endpoints.list_images(), responses.parse_images),
                within=EVIDENCE_TIME,
                log=self._log,
            )
            evidence = replace(
                evidence,
                credits_now=quota.ai_credits_used if quota else None,
                price=request.credits if request else None,
                matches=matching(page[0], request, since) if page and request else None,
            )
        except (Exception, AirflowTaskTimeout) as error:
            # Nothing may hide the report: without a record a retry would buy the picture again.
            self._log.warning("No evidence could be gathered: %r", error)
        return report(unknown, evidence, self.record.how_to_adopt())


def _ask(client: SyncClient, job_id: str) -> Job | PictoryError:
    try:
        return get_job(client, job_id)
    except PictoryError as error:
        return error
