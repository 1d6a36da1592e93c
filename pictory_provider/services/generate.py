# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Reuse, adopt or submit the picture of one task.

:mod:`pictory_provider.core.submission` decides what an attempt does first; if the picture goes to a path,
:mod:`pictory_provider.core.resume` does. :mod:`pictory_provider.services.submit` submits, and
:mod:`pictory_provider.services.state` reads and writes the record. This module calls them in order. It also makes
sure that an error after the submission is retried only if the retry will find the job on record.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowTaskTimeout

from pictory_provider.api.errors import (
    BudgetExceeded,
    JobError,
    PictoryError,
    RequestInvalid,
    SubmitOutcomeUnknown,
)
from pictory_provider.api.models import ImageRequest
from pictory_provider.client.retrying import get_job
from pictory_provider.core.budget import Budget, CostEstimate, Limits, PurchasePlan
from pictory_provider.core.evidence import (
    PAID_AND_LOST,
    failed_after_submission,
    how_to_buy_again,
    job_keeps_running,
    report,
)
from pictory_provider.core.resume import (
    GenerationSpec,
    Reuse,
    Step,
    decide_at_path,
    decide_by_record,
    next_step_at,
)
from pictory_provider.core.submission import (
    Adopt,
    PollFirst,
    Submission,
    Submit,
    after_poll,
    canonical_request,
    fingerprint,
)
from pictory_provider.exceptions import airflow_errors, failure
from pictory_provider.services.submit import check_submission, submit
from pictory_provider.services.uploads import Uploads
from pictory_provider.storage.pictures import PictureTarget, targets_of
from pictory_provider.telemetry import count

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from contextlib import AbstractContextManager

    from airflow.providers.common.compat.sdk import Context

    from pictory_provider.api.models import Job
    from pictory_provider.client.retrying import Log
    from pictory_provider.client.sync import SyncClient

_WITHOUT_RUNNING_JOB = (BudgetExceeded, JobError, RequestInvalid, SubmitOutcomeUnknown)
"""Errors after which no job of the task keeps running."""


class LazyRequest(NamedTuple):
    """A request that may be made late.

    :param identity: distinguishes it from other requests; JSON that is the same in every attempt.
    :param request: called at most once per attempt, right before the submission, and not if a job is adopted.
    :param uploads: upload the reference image, if the operator may.
    """

    identity: dict[str, Any]
    request: Callable[[], ImageRequest]
    uploads: Uploads

    @classmethod
    def from_operator(cls, operator: Any) -> LazyRequest:
        """Return a request that is known already.

        :raises RequestInvalid: for a field that is wrong.
        """
        uploads = Uploads.of(operator)
        url = uploads.references.name_of(operator.reference_image_url)
        request = ImageRequest.of(operator, reference_image_url=url)
        return cls(canonical_request(request), lambda: request, uploads)

    def once(self) -> LazyRequest:
        """Return one that several pictures may ask: the request is made for the first of them."""
        return self._replace(request=cache(self.request))


class Decided(NamedTuple):
    """What an attempt does first.

    :param get_request: makes the request at its first call.
    :param uploads: upload its reference image, if the operator may.
    """

    step: Submit | Adopt | Reuse | PictoryError
    spec: GenerationSpec
    get_request: Callable[[], ImageRequest]
    uploads: Uploads


class Generation:
    """The picture of a running task, submitted by this attempt or by an earlier one that left a record.

    :param conn_id: the Airflow connection that pays.
    :param path: of the picture, as this attempt rendered it; ``None`` if it is not saved.
    :param target_of: returns the target of a path.
    :param durable: record the submission in the task state store.
    :param retries: of the task.
    :param candidate: the number of the picture among the candidates of the task; ``None`` if there is only one.
    :ivar record: of the submission.
    :ivar copy_error: why copies of the saved picture could not be made; ``None`` if all exist.
    :ivar job_id: as soon as it is known.
    :ivar charges: of this task for this picture, certain or possible, when the attempt began.
    :ivar spent_since_clear: AI credits of these since the task was last cleared.
    :ivar target: where the picture is saved: a retry keeps the path of the attempt that submitted the job.
    :raises RequestInvalid: for a path at which no picture can be saved.
    """

    def __init__(
        self,
        context: Context,
        *,
        conn_id: str,
        path: str | None,
        target_of: Callable[[str], PictureTarget] = PictureTarget,
        durable: bool,
        retries: int | None,
        candidate: int | None = None,
        log: Log,
    ) -> None:
        from pictory_provider.services.state import SubmissionState  # not needed when a DAG file is parsed

        self.record = SubmissionState(context, durable=durable, retries=retries, candidate=candidate)
        self.conn_id = conn_id
        self.job_id: str | None = None
        self.charges = self.record.latest.purchases
        self.spent_since_clear = 0.0
        self.copy_error: PictoryError | None = None
        self._target_of = target_of
        self.target = None if path is None else target_of(path)
        self._existing: Reuse | None = None
        self._is_plan = self._is_checked = False
        self._log = log
        if self.target:
            self.record.use_sidecar(self.target)

    @classmethod
    def from_operator(
        cls, operator: Any, context: Context, path: str | None, candidate: int | None = None
    ) -> Self:
        """Return the picture of a running ``GenerateImageOperator``.

        :param path: of the picture, as this attempt rendered it; ``None`` if it is not saved.
        :param candidate: as for the class.
        :raises RequestInvalid: for a wrong argument.
        """
        return cls(
            context,
            conn_id=operator.pictory_conn_id,
            path=path,
            target_of=targets_of(operator, path, candidate),
            durable=operator.durable,
            retries=operator.retries,
            candidate=candidate,
            log=operator.log,
        )

    def obtain(
        self,
        client: SyncClient,
        lazy_request: LazyRequest,
        *,
        overwrite: bool = False,
        replaces_changed: bool = False,
        on_unknown_submit: str = "fail",
        max_credits: float | None = None,
        ends_at: float | None = None,
    ) -> Adopt | None:
        """Return the job of this task, an earlier attempt's or a new one; ``None`` if the picture exists already.

        :param overwrite: submit although a picture exists, once, and once more after each clear.
        :param replaces_changed: submit if the existing picture is of another request.
        :param on_unknown_submit: ``fail`` or ``resubmit``.
        :param max_credits: the most AI credits that this task may spend; ``None`` for no limit.
        :param ends_at: seconds of the monotonic clock; nothing is submitted after that.
        :raises BudgetExceeded: if a limit leaves too little; nothing was sent.
        :raises SubmitOutcomeUnknown: with the evidence about it.
        """
        decided = self.decide(client, lazy_request, overwrite=overwrite, replaces_changed=replaces_changed)
        budget = budget_of([self], client, max_credits)
        return self.carry_out(client, decided, budget, on_unknown_submit=on_unknown_submit, ends_at=ends_at)

    def decide(
        self,
        client: SyncClient,
        lazy_request: LazyRequest,
        *,
        overwrite: bool = False,
        replaces_changed: bool = False,
        is_plan: bool = False,
    ) -> Decided:
        """Decide what this attempt does first (:meth:`carry_out`); the arguments are those of :meth:`obtain`.

        :param is_plan: write nothing.
        """
        self._is_plan = is_plan
        lazy_request.uploads.cache = self.record.upload_cache
        identity, get_request = self._identity_of(lazy_request), self._once(lazy_request)
        spec = self._spec(identity, get_request, overwrite=overwrite, replaces_changed=replaces_changed)
        return Decided(self._first_step(client, spec), spec, get_request, lazy_request.uploads)

    def carry_out(
        self,
        client: SyncClient,
        decided: Decided,
        budget: Budget,
        *,
        on_unknown_submit: str = "fail",
        ends_at: float | None = None,
    ) -> Adopt | None:
        """Do what was decided; see :meth:`obtain`.

        :param budget: is charged before each paid request.
        """
        from pictory_provider.services.evidence import credits_used  # not needed when a DAG file is parsed

        record, (step, spec, get_request, uploads) = self.record, decided
        may_resubmit = on_unknown_submit == "resubmit"
        while not isinstance(step, (Adopt, Reuse)):
            if isinstance(step, Submit):
                self._warn(step.warning)
                self.check_place(spec, step)
                request_now = canonical_request(get_request())
                record.prepare_intent(spec.fingerprint, request_now, replaces=step.replaces)
                record.note_credits(credits_used(client.settings, log=self._log))
                try:
                    job_id = submit(
                        client,
                        get_request(),
                        uploads=uploads,
                        budget=budget,
                        recorder=record,
                        ends_at=ends_at,
                        tags={"dag_id": str(record.made_by.dag_id)},
                        log=self._log,
                    )
                    step = Adopt(job_id, time.time())
                except SubmitOutcomeUnknown as error:
                    step = error
            elif not isinstance(step, SubmitOutcomeUnknown):
                raise step
            elif may_resubmit:
                may_resubmit = False
                step = self._poll_until_decided(client, spec, self._resubmit(step, spec))
            else:
                raise self._with_evidence(client, spec.identity, step) from step.__cause__
        if isinstance(step, Reuse):
            self._existing = step
            self.job_id = step.sidecar.submission.job_id
            return None
        self.job_id = step.job_id
        return step

    def plan(
        self,
        client: SyncClient,
        lazy_request: LazyRequest,
        *,
        overwrite: bool = False,
        replaces_changed: bool = False,
        on_unknown_submit: str = "fail",
    ) -> tuple[str, PictoryError | None]:
        """Return what :meth:`obtain` would do with these arguments, and the error that it would raise.

        Nothing that costs is sent, nothing is written, and limits are not checked.

        :return: the name of a count of :class:`~pictory_provider.core.budget.PurchasePlan`.
        """
        step, spec, *_ = self.decide(
            client, lazy_request, overwrite=overwrite, replaces_changed=replaces_changed, is_plan=True
        )
        if isinstance(step, SubmitOutcomeUnknown) and on_unknown_submit == "resubmit":
            step = self._poll_until_decided(client, spec, self._resubmit(step, spec))
        if isinstance(step, Reuse):
            return "reused", None
        if isinstance(step, Adopt):
            return "adopted", None
        if isinstance(step, SubmitOutcomeUnknown):
            return "unknown", self._with_evidence(client, spec.identity, step)
        if not isinstance(step, Submit):
            return "refused", step
        try:
            self.check_place(spec, step, is_trying=False)
        except RequestInvalid as error:
            return "refused", error
        return "to_buy", None

    def save(self, client: SyncClient, job: Job, *, overwrite: bool, mark_ai_generated: bool) -> dict[str, Any]:
        """Save the picture of a completed job, and return its image record."""
        assert self.target is not None
        sidecar = self.record.sidecar(job.job_id)
        saved = self.target.save(
            client,
            job,
            sidecar,
            overwrite=overwrite,
            mark_ai_generated=mark_ai_generated,
            log=self._log,
        )
        image, self.copy_error = saved.image, saved.problem
        self._log.info("Saved %s (%s bytes).", image["path"], f"{image['size']:,}")
        return {**image}

    def reuse(self, client: SyncClient, *, overwrite: bool, mark_ai_generated: bool) -> dict[str, Any]:
        """Return the image record of the existing picture, after :meth:`obtain` has returned ``None``.

        :param overwrite: let copies replace other files.
        :return: with ``reused``: whether another task, another run or an attempt before a clear has paid for it.
        """
        assert self.target is not None
        assert self._existing is not None
        saved = self.target.reuse(
            client,
            self._existing.sidecar,
            overwrite=overwrite,
            mark_ai_generated=mark_ai_generated,
            log=self._log,
        )
        self.copy_error = saved.problem
        return {**saved.image, "reused": not self._existing.is_own}

    def warn_of_kill(self) -> None:
        """Log what happens to the job of a task that is killed."""
        if self.job_id:
            self._log.warning("The task was killed. %s", job_keeps_running(self.job_id))

    def find_on_record(self, client: SyncClient) -> bool:
        """Find the job of this attempt after a deferral that has passed nothing on.

        :return: whether its picture is saved, so that :meth:`reuse` returns it.
        :raises SubmitOutcomeUnknown: if only an intent is on record.
        """
        self.job_id, _ = self.record.find_job_id()
        latest = self.record.latest
        if self.job_id is None and latest.is_charged:
            unknown = SubmitOutcomeUnknown.because("it was sent before a deferral, and its jobId is not on record")
            raise self._with_evidence(client, latest.request or {}, unknown)
        return self.job_id is not None and self.is_saved(self.job_id)

    def is_saved(self, job_id: str) -> bool:
        """Whether the picture of a job exists at the path; then :meth:`reuse` returns it."""
        existing = self.record.existing_image()
        sidecar = existing.sidecar if existing.has_its_picture else None
        if sidecar is None or sidecar.submission.job_id != job_id:
            return False
        self._existing = Reuse(sidecar, is_own=True)
        return True

    def restore_record(self, job_id: str, from_deferral: Any) -> None:
        """Read this attempt's record again after a deferral.

        :param from_deferral: the record that the deferral has stored, for a task without a state store.
        """
        self._read_store()
        record = self.record
        if record.latest.job_id != job_id:
            record.latest = (Submission.from_dict(from_deferral) if from_deferral else None) or record.latest
        if record.latest.job_id != job_id and self.target:
            sidecar = record.existing_image().sidecar
            if sidecar and sidecar.submission.job_id == job_id:
                record.latest = sidecar.submission

    def guarded(self, *, is_bought: bool = False) -> AbstractContextManager[None]:
        """Return the context manager :func:`guarded` for this picture alone."""
        return guarded([self], conn_id=self.conn_id, is_bought=is_bought, log=self._log)

    def end_after(self, error: AirflowFailException) -> None:
        """Record that the attempt has ended with an error that is not retried."""
        job_id = self.job_id or self.record.latest.job_id
        if job_id and not isinstance(error, _WITHOUT_RUNNING_JOB) and self.record.is_on_record(job_id):
            self._log.warning("%s", job_keeps_running(job_id))
        self.record.end()

    def check_retry(self, error: BaseException, *, is_bought: bool) -> None:
        """Raise if a retry after this error would not find the job of this attempt.

        :param is_bought: whether this attempt has submitted the job before a deferral.
        """
        job_id = self.job_id or self.record.latest.job_id
        if job_id is None and (not is_bought or self.record.read_error):
            return
        is_on_record = False if job_id is None else self.record.is_on_record(job_id)
        if is_on_record:
            self._log.warning("Job %s is on record: a retry of this task adopts it and buys nothing.", job_id)
            return
        if is_on_record is None:
            self._log.warning(
                "Job %s is paid for, but its record cannot be read now: %s. A retry of this task reads it "
                "before it sends anything, and buys nothing while the record cannot be read.",
                job_id,
                self.record.read_error,
            )
            return
        self._log.error("After the submission, the task failed with:", exc_info=error)
        raise failure(PAID_AND_LOST if job_id is None else failed_after_submission(job_id, error)) from None

    def find_job_id(self) -> str:
        """Return the jobId of this attempt, if Airflow has ended its deferral without the arguments.

        :raises AirflowFailException: if neither the record nor the XCom has it.
        :raises Exception: if the record cannot be read now and the XCom does not have it; a retry finds it.
        """
        with suppress(Exception):
            self._read_store()
        self.job_id, xcom_error = self.record.find_job_id()
        if self.job_id is None:
            if self.record.read_error:
                raise self.record.read_error
            raise failure(PAID_AND_LOST) from xcom_error
        return self.job_id

    def _read_store(self) -> Any:
        """Return the record in the task state store, and use the path of the attempt that submitted the job."""
        record = self.record
        value, found = record.read_store(), record.latest
        if self.target is None:
            return value
        if found.job_id and found.path not in (None, self.target.path) and not record.was_cleared:
            self._log.warning(
                "path now renders to %r. The picture is saved to %r, the path of the attempt that bought it.",
                self.target.path,
                found.path,
            )
            with suppress(RequestInvalid):  # an earlier release accepted a path that this one refuses
                self.target = self._target_of(str(found.path))
                record.use_sidecar(self.target)
        return value

    def _warn(self, warning: str | None) -> None:
        if warning:
            self._log.warning("%s", warning)

    def _spec(
        self,
        identity: dict[str, Any],
        get_request: Callable[[], ImageRequest],
        *,
        overwrite: bool,
        replaces_changed: bool,
    ) -> GenerationSpec:
        record = self.record
        is_recorded = identity is record.latest.request
        return GenerationSpec(
            made_by=record.made_by,
            fingerprint=str(record.latest.fingerprint) if is_recorded else fingerprint(self.conn_id, identity),
            identity=identity,
            request=lambda: identity if is_recorded else canonical_request(get_request()),
            max_tries=record.max_tries,
            retries=record.retries,
            overwrite=overwrite,
            replaces_changed=replaces_changed,
            now=time.time(),
            has_only_sidecar=not record.has_store,
        )

    def _identity_of(self, lazy_request: LazyRequest) -> dict[str, Any]:
        """Return the identity of a request; that on record if its reference image cannot be read any more.

        So a job that is paid for is adopted.

        :raises PictoryError: if nothing is on record either.
        """
        problem = lazy_request.uploads.references.problem
        if problem is None:
            return lazy_request.identity
        self._read_store()
        if self.target:
            self.record.existing_image()
        latest = self.record.latest
        if latest.request is None and latest.job_id is None:
            raise problem
        self._warn(f"{problem.message} The attempt goes on with what is on record.")
        return latest.request or lazy_request.identity

    def _once(self, lazy_request: LazyRequest) -> Callable[[], ImageRequest]:
        """Return a function that makes the request at its first call."""
        request: ImageRequest | None = None

        def get_request() -> ImageRequest:
            nonlocal request
            if problem := lazy_request.uploads.references.problem:
                raise problem
            if request is None:
                # This may call a user's function. If that fails, the error is not about an earlier job.
                self.record.prepare_intent(None, lazy_request.identity)
                request = lazy_request.request()
            return request

        return get_request

    def check_place(self, spec: GenerationSpec, step: Submit, *, is_trying: bool = True) -> None:
        """Check that the picture can be saved, before it is paid for.

        :param is_trying: whether to create a file on a disk, and remove it.
        :raises RequestInvalid: says why not.
        """
        if self.target:
            warning = self.target.check(
                overwrite=spec.overwrite, is_replacing=step.replaces is not None, is_trying=is_trying
            )
            if not self._is_checked:
                self._warn(warning)
            self._is_checked = True

    def _first_step(self, client: SyncClient, spec: GenerationSpec) -> Submit | Adopt | Reuse | PictoryError:
        value = self._read_store()
        existing = self.record.existing_image() if self.target else None
        record = self.record  # of this task: afterwards it may be that of a picture that is reused
        self.charges = record.latest.purchases
        self.spent_since_clear = 0.0 if record.was_cleared else record.latest.credits_since_clear
        step: Step
        if existing is None:
            step = decide_by_record(value, spec, to_buy="clear the task")
        else:
            step = decide_at_path(existing, value, spec)
        return self._poll_until_decided(client, spec, step)

    def _poll_until_decided(
        self, client: SyncClient, spec: GenerationSpec, step: Step
    ) -> Submit | Adopt | Reuse | PictoryError:
        """Poll the job that a step names, and read the path again, until it is clear what to do."""
        settled: set[str] = set()
        result: Step | Adopt | PictoryError = step
        while isinstance(result, PollFirst):
            job_id = result.job_id
            result = after_poll(result, _poll(client, job_id), time.time())
            if isinstance(result, Submit) and self.target:
                settled.add(job_id)
                result = next_step_at(self.record.existing_image(), spec, result, settled)
        if self._is_plan:
            return result
        if isinstance(result, SubmitOutcomeUnknown):
            count("pictory.submit_outcome_unknown")
        if isinstance(result, Adopt):
            self._adopt(result, spec.fingerprint, spec.identity)
        if isinstance(result, Reuse):
            self._reuse(result)
        return result

    def _adopt(self, job: Adopt, fingerprint: str, identity: dict[str, Any]) -> None:
        self._warn(job.warning)
        self._log.info("Adopting job %s, which is on record: nothing is submitted.", job.job_id)
        if job.is_to_record:
            self.record.prepare_intent(fingerprint, job.found.request or identity)
            self.record.keep(job.job_id, job.submitted_at)
        else:
            self.record.latest = job.found
        count("pictory.adopted")

    def _reuse(self, found: Reuse) -> None:
        self._warn(found.warning)
        sidecar = found.sidecar
        self._log.info(
            "Reusing the picture at %s, which was made by the same request: job %s of %s. Nothing is submitted.",
            self.target.path if self.target else None,
            sidecar.submission.job_id,
            sidecar.made_by,
        )
        self.record.latest = sidecar.submission
        if not found.is_own:
            count("pictory.reused")

    def _resubmit(self, unknown: SubmitOutcomeUnknown, spec: GenerationSpec) -> Step:
        if unknown.is_out_of_time:
            later = "on_unknown_submit is 'resubmit', but this attempt's time is over: a retry submits again."
            raise AirflowTaskTimeout(f"{unknown.message} {later}") from unknown
        self._log.warning("%s on_unknown_submit is 'resubmit', so the picture is bought again.", unknown.message)
        return next_step_at(self.record.existing_image(), spec, Submit()) if self.target else Submit()

    def _with_evidence(
        self, client: SyncClient, identity: dict[str, Any], unknown: SubmitOutcomeUnknown
    ) -> SubmitOutcomeUnknown:
        """Return an unknown outcome with its evidence and what the user can do."""
        from pictory_provider.services.evidence import gather_evidence

        record = self.record
        evidence = gather_evidence(client.settings, record.latest, identity, log=self._log)
        to_buy = "clear the task"
        if self.target and record.latest.job_id:  # a clear alone would adopt it
            to_buy = how_to_buy_again(self.target.sidecar_path, is_only_there=not record.has_store)
        return report(unknown, evidence, record.how_to_adopt(self.conn_id), to_buy=to_buy)


def budget_of(generations: Collection[Generation], client: SyncClient, max_credits: float | None) -> Budget:
    """Return the budget of a task, after the records of its pictures were read."""
    return Budget(
        Limits.from_settings(client.settings, per_task=max_credits),
        own=[charge for generation in generations for charge in generation.charges],
        this_task=sum(generation.spent_since_clear for generation in generations),
    )


def plan(
    generations: Collection[Generation],
    client: SyncClient,
    lazy_request: LazyRequest,
    *,
    max_credits: float | None = None,
    log: Log,
    **choices: Any,
) -> tuple[PurchasePlan, PictoryError | None]:
    """Return what a task would do about its pictures, and the first error that it would raise.

    :param choices: arguments of :meth:`Generation.plan`.
    """
    lazy_request = lazy_request.once()
    counts: dict[str, Any] = Counter()
    first_error = None
    for generation in generations:
        kind, error = generation.plan(client, lazy_request, **choices)
        counts[kind] += 1
        first_error = first_error or error
    planned = PurchasePlan(of=len(generations))
    if not counts["to_buy"]:
        return planned._replace(**counts), first_error
    request, budget = lazy_request.request(), budget_of(generations, client, max_credits)
    uploads, number = lazy_request.uploads, counts["to_buy"]
    exceeded = check_submission(client, request, budget, uploads, number=number, log=log)
    planned = planned._replace(limits=tuple(budget.headroom(time.time())))
    if error := first_error or exceeded:
        counts["not_bought"] = counts.pop("to_buy")
        return planned._replace(**counts), error
    return planned._replace(**counts, price=CostEstimate((request,) * counts["to_buy"]).price), None


@contextmanager
def guarded(
    generations: Collection[Generation], *, conn_id: str, is_bought: bool = False, log: Log
) -> Iterator[None]:
    """Make an error after a submission final, unless a retry would find the job on record.

    :param conn_id: the Airflow connection that pays.
    :param is_bought: whether this attempt has submitted the jobs before a deferral.
    """
    try:
        with airflow_errors(conn_id, log=log):
            yield
    except AirflowFailException as error:
        for generation in generations:
            generation.end_after(error)
        raise
    except (Exception, AirflowTaskTimeout) as error:
        for generation in generations:
            generation.check_retry(error, is_bought=is_bought)
        raise


def _poll(client: SyncClient, job_id: str) -> Job | PictoryError:
    try:
        return get_job(client, job_id)
    except PictoryError as error:
        return error
