# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""How one task comes to its picture: it takes what lies there, adopts a job that was bought before, or buys.

What a try does first is decided in :mod:`pictory_provider.jobs.submission`, and in
:mod:`pictory_provider.images.reuse` where the picture goes to a path. How it is bought is in
:mod:`pictory_provider.purchase`, and where the record lies in :mod:`pictory_provider.durable`. Here these are
put in order; and whatever fails after the purchase is retried only where the retry will find it.
"""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowTaskTimeout

from pictory_provider.api.errors import (
    BudgetExceeded,
    JobError,
    PictoryError,
    RequestInvalid,
    SubmitOutcomeUnknown,
)
from pictory_provider.client.asking import get_job
from pictory_provider.exceptions import airflow_errors, failure
from pictory_provider.images.reuse import Reuse, Step, Wish, first_step_at, next_step_at
from pictory_provider.images.shelf import Shelf
from pictory_provider.jobs.budget import Budget, Limits
from pictory_provider.jobs.evidence import PAID_AND_LOST, paid_and_then, report, runs_on
from pictory_provider.jobs.ledger import total
from pictory_provider.jobs.submission import (
    Adopt,
    LookFirst,
    Submission,
    Submit,
    after_look,
    asked_for,
    fingerprint,
    first_step,
)
from pictory_provider.purchase import submit
from pictory_provider.telemetry import count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pictory_provider.api.models import ImageRequest, Job
    from pictory_provider.client.asking import Log
    from pictory_provider.client.sync import SyncClient
    from pictory_provider.durable import SubmissionRecord

UNKNOWN_SUBMIT_POLICIES = ("fail", "resubmit")
_OF_NO_JOB = (BudgetExceeded, JobError, RequestInvalid, SubmitOutcomeUnknown)
"""Errors after which no job of the task runs on."""


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
    :param shelf: the place that its picture goes to, as this try rendered it; ``None`` where it is not saved.
    :ivar job_id: as soon as it is known.
    :ivar shelf: the place where it really goes: a retry keeps to that of the try that bought it.
    """

    def __init__(self, record: SubmissionRecord, *, conn_id: str, log: Log, shelf: Shelf | None = None) -> None:
        self.record = record
        self.conn_id = conn_id
        self.job_id: str | None = None
        self.shelf = shelf
        self._log = log
        if shelf:
            record.keep_beside(shelf)

    def obtain(
        self,
        client: SyncClient,
        order: Order,
        *,
        overwrite: bool = False,
        on_unknown_submit: str = "fail",
        max_credits: float | None = None,
        ends_at: float | None = None,
    ) -> Adopt | Reuse:
        """Return the job of this task: that of an earlier try, or a new one; or the picture that lies there.

        :param overwrite: buy although a picture lies there, once and once more after each clear.
        :param on_unknown_submit: one of :data:`UNKNOWN_SUBMIT_POLICIES`.
        :param max_credits: the most AI credits that this task may spend; ``None`` for no limit.
        :param ends_at: on the monotonic clock; nothing is bought from then on.
        :raises BudgetExceeded: where a limit leaves too little; nothing was sent.
        :raises SubmitOutcomeUnknown: with all that could be found out about it.
        """
        record = self.record
        wanted = fingerprint(self.conn_id, order.identity)
        request: ImageRequest | None = None

        def requested() -> ImageRequest:
            nonlocal request
            if request is None:
                # It may take a user's function, whose failure is none of an earlier job's.
                record.prepare_intent(None, order.identity)
                request = order.request()
            return request

        wish = self._wish(order, wanted, overwrite, requested)
        from pictory_provider import inquiry  # a DAG file does without

        may_resubmit = on_unknown_submit == "resubmit"
        step = self._first_step(client, wish)
        budget = self._budget(client, max_credits)
        while not isinstance(step, (Adopt, Reuse)):
            if isinstance(step, Submit):
                if step.warning:
                    self._log.warning("%s", step.warning)
                if self.shelf:
                    self.shelf.check(overwrite=overwrite)
                record.prepare_intent(wanted, asked_for(requested()))
                record.note_credits(inquiry.credits_used(client.settings, log=self._log))
                try:
                    job_id = submit(
                        client,
                        requested(),
                        budget=budget,
                        recorder=record,
                        ends_at=ends_at,
                        tags={"dag_id": str(record.me.dag_id)},
                        log=self._log,
                    )
                    step = Adopt(job_id, time.time())
                except SubmitOutcomeUnknown as error:
                    step = error
            elif not isinstance(step, SubmitOutcomeUnknown):
                raise step
            elif may_resubmit:
                may_resubmit = False
                step = self._looked(client, wish, self._once_more(step, wish))
            else:
                raise self._reported(client, order, step) from step.__cause__
        self.job_id = step.sidecar.submission.job_id if isinstance(step, Reuse) else step.job_id
        return step

    def remember(self, job_id: str, carried: Any) -> None:
        """Find again, after a deferral, what is on record of this try.

        :param carried: what the deferral has carried of it.
        """
        self._find()
        record = self.record
        if record.latest.job_id != job_id:
            record.latest = (Submission.read(carried) if carried else None) or record.latest
        if record.latest.job_id != job_id and self.shelf:
            sidecar = record.look_beside().sidecar
            if sidecar and sidecar.submission.job_id == job_id:
                record.latest = sidecar.submission

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
            if job_id and not isinstance(error, _OF_NO_JOB):
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
        with suppress(Exception):
            self._find()
        self.job_id, unread = self.record.recall()
        if self.job_id is None:
            raise failure(PAID_AND_LOST) from unread
        return self.job_id

    def _find(self) -> Any:
        """Return what the task state store holds, and keep to the place that the try has rendered that bought."""
        value, record = self.record.find(), self.record
        if self.shelf is None:
            return value
        found = record.latest
        is_clear = found.is_before_a_clear(max_tries=record.max_tries, retries=record.retries)
        if found.job_id and found.path not in (None, self.shelf.path) and not is_clear:
            self._log.warning(
                "path renders to %r now. The try that bought this picture had %r, and there it goes.",
                self.shelf.path,
                found.path,
            )
            with suppress(RequestInvalid):  # a release before this one took a path that this one refuses
                self.shelf = Shelf(str(found.path))
                record.keep_beside(self.shelf)
        return value

    def _wish(self, order: Order, wanted: str, overwrite: bool, requested: Callable[[], ImageRequest]) -> Wish:
        record = self.record
        return Wish(
            me=record.me,
            fingerprint=wanted,
            order=order.identity,
            request=lambda: asked_for(requested()),
            max_tries=record.max_tries,
            retries=record.retries,
            overwrite=overwrite,
            now=time.time(),
            is_only_here=not record.has_store,
        )

    def _budget(self, client: SyncClient, max_credits: float | None) -> Budget:
        """Return the limits of this purchase, and what the task has bought before."""
        record, found = self.record, self.record.latest
        is_cleared = found.is_before_a_clear(max_tries=record.max_tries, retries=record.retries)
        return Budget(
            Limits.of(client.settings, per_task=max_credits),
            own=found.purchases,
            this_task=0.0 if is_cleared else total(found.purchases) - found.before_clear,
        )

    def _first_step(self, client: SyncClient, wish: Wish) -> Submit | Adopt | Reuse | PictoryError:
        value = self._find()
        step: Step
        if self.shelf is None:
            step = first_step(
                value,
                wanted=wish.fingerprint,
                max_tries=wish.max_tries,
                is_mapped=wish.is_mapped,
                retries=wish.retries,
                request=wish.order,
            )
        else:
            step = first_step_at(self.record.look_beside(), value, wish)
        return self._looked(client, wish, step)

    def _looked(self, client: SyncClient, wish: Wish, step: Step) -> Submit | Adopt | Reuse | PictoryError:
        """Look at the job that a step speaks of, and at what lies at the path by then, until it is decided."""
        settled: set[str] = set()
        result: Step | Adopt | PictoryError = step
        while isinstance(result, LookFirst):
            job_id = result.job_id
            result = after_look(result, _ask(client, job_id), time.time())
            if isinstance(result, Submit) and self.shelf:
                settled.add(job_id)
                result = next_step_at(self.record.look_beside(), wish, result, settled)
        if isinstance(result, SubmitOutcomeUnknown):
            count("pictory.submit_outcome_unknown")
        if isinstance(result, Adopt):
            self._adopt(result, wish.fingerprint, wish.order)
        if isinstance(result, Reuse):
            self._reuse(result)
        return result

    def _adopt(self, job: Adopt, wanted: str, asked: dict[str, Any]) -> None:
        if job.warning:
            self._log.warning("%s", job.warning)
        self._log.info("Adopting job %s, which is on record: nothing is submitted.", job.job_id)
        if job.is_to_keep:
            self.record.prepare_intent(wanted, job.found.request or asked)
            self.record.keep(job.job_id, job.submitted_at)
        else:
            self.record.latest = job.found
        count("pictory.adopted")

    def _reuse(self, found: Reuse) -> None:
        if found.warning:
            self._log.warning("%s", found.warning)
        sidecar = found.sidecar
        self._log.info(
            "The picture at %s is the one that is asked for: job %s of %s. Nothing is submitted.",
            self.shelf.path if self.shelf else None,
            sidecar.submission.job_id,
            sidecar.made_by,
        )
        self.record.latest = sidecar.submission
        if not found.is_own:
            count("pictory.reused")

    def _once_more(self, unknown: SubmitOutcomeUnknown, wish: Wish) -> Step:
        if unknown.is_out_of_time:
            later = "on_unknown_submit is 'resubmit', but this try's time is up: a retry buys it."
            raise AirflowTaskTimeout(f"{unknown.message} {later}") from unknown
        self._log.warning("%s on_unknown_submit is 'resubmit', so it is bought again.", unknown.message)
        return next_step_at(self.record.look_beside(), wish, Submit()) if self.shelf else Submit()

    def _reported(self, client: SyncClient, order: Order, unknown: SubmitOutcomeUnknown) -> SubmitOutcomeUnknown:
        """Return an unknown outcome with all that can be said about it."""
        from pictory_provider import inquiry

        evidence = inquiry.evidence_of(client.settings, self.record.latest, order.identity, log=self._log)
        return report(unknown, evidence, self.record.how_to_adopt(self.conn_id))


def _ask(client: SyncClient, job_id: str) -> Job | PictoryError:
    try:
        return get_job(client, job_id)
    except PictoryError as error:
        return error
