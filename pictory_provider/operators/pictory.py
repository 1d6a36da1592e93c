# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Submit an image generation job, and save its picture."""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowTaskTimeout,
    BaseOperator,
)

from pictory_provider.api.errors import JobError, PictoryError, RequestInvalid, SubmitOutcomeUnknown
from pictory_provider.api.models import DEFAULT_MODEL, ImageRequest
from pictory_provider.compat import TaskDeferralError, TaskDeferralTimeout, airflow_line
from pictory_provider.durable import SubmissionRecord
from pictory_provider.exceptions import airflow_errors
from pictory_provider.images.store import DEFAULT_MAX_BYTES
from pictory_provider.jobs import events
from pictory_provider.jobs.evidence import Evidence, report
from pictory_provider.jobs.polling import DEFAULT_POLL_INTERVAL, DEFAULT_TIMEOUT, Wait
from pictory_provider.jobs.submission import (
    PAID_AND_LOST,
    Adopt,
    LookFirst,
    Submit,
    after_look,
    asked_for,
    begin,
    fingerprint,
    paid_and_then,
    runs_on,
)
from pictory_provider.links.pictory import PictoryJobLink
from pictory_provider.provider_info import DEFAULT_CONN_ID
from pictory_provider.waiting import (
    JobWait,
    conclude,
    ended_by_airflow,
    late_look,
    seconds,
    warn_if_impolite,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import timedelta

    from airflow.providers.common.compat.sdk import Context

    from pictory_provider.api.models import Job
    from pictory_provider.hooks.pictory import PictoryHook, SavedImage

JOB_ID_KEY = "jobId"
IMAGE_KEY = "image"
UNKNOWN_SUBMIT_POLICIES = ("fail", "resubmit")


class GenerateImageOperator(BaseOperator):
    """Submit one image generation job to Pictory AI Studio.

    The task's XCom ``return_value`` is the jobId, a string; it also lies under the key ``jobId``. Both are
    there as soon as Pictory has named it and it is on record. With ``wait_for_completion`` the image record
    lies under ``image`` when the task succeeds.

    A retry adopts the job that is on record; a user's clear buys again
    (:mod:`pictory_provider.jobs.submission`).

    Everything is checked before anything is sent. Limits and prices:
    https://docs.pictory.ai/api-reference/ai-studio/generate-image.

    :param prompt: what to draw, 5 to 5,000 characters after rendering. (templated)
    :param model: ``seedream3.0``, ``flux-schnell``, ``nanobanana`` or ``nanobanana-pro``. (templated)
    :param aspect_ratio: ``1:1``, ``16:9`` or ``9:16``; the model's first where it is ``None``. (templated)
    :param style: ``photorealistic``, ``artistic``, ``cartoon``, ``minimalist``, ``vintage`` or
        ``futuristic``. (templated)
    :param reference_image_url: a picture to start from, at a public ``http(s)`` URL. (templated)
    :param webhook: an ``http(s)`` URL that Pictory calls when the job ends. (templated)
    :param pictory_conn_id: the Airflow connection. (templated)
    :param allow_unlisted: let a model, style or ratio pass that this release does not know.
    :param wait_for_completion: end the task when the picture is ready, and not when the job is accepted.
    :param deferrable: wait in the triggerer, without a worker slot. Only with ``wait_for_completion``.
    :param poll_interval: seconds, or a timedelta, between two looks at the job.
    :param timeout: seconds, or a timedelta, to wait for the job, from its submission on; a retry does not
        start it again.
    :param durable: keep the submission on record in the task's state store (Airflow 3.3 and later), so that a
        retry adopts the job. Without a record whatever fails after the submission is not retried, and a
        retry after a crash buys the picture again.
    :param on_unknown_submit: what to do where Pictory may or may not have accepted the job: ``"fail"``, or
        ``"resubmit"``, which rather pays twice than waits for someone; once for each try.
    :raises PictoryRequestInvalid: where a field is wrong; nothing was sent, or Pictory refused it.
    :raises PictorySubmitOutcomeUnknown: where Pictory may or may not have accepted the job.
    :raises PictoryJobFailed: where the job failed; only with ``wait_for_completion``.
    :raises PictoryWaitTimeout: where it was still running after ``timeout``; a retry adopts it and looks once.
    """

    template_fields: Sequence[str] = (
        "prompt",
        "model",
        "aspect_ratio",
        "style",
        "reference_image_url",
        "webhook",
        "pictory_conn_id",
    )
    operator_extra_links = (PictoryJobLink(),)
    image_url: str | None = None
    ui_color = "#efe7fb"

    def __init__(
        self,
        *,
        prompt: str,
        model: str = DEFAULT_MODEL,
        aspect_ratio: str | None = None,
        style: str | None = None,
        reference_image_url: str | None = None,
        webhook: str | None = None,
        pictory_conn_id: str = DEFAULT_CONN_ID,
        allow_unlisted: bool = False,
        wait_for_completion: bool = False,
        deferrable: bool = True,
        poll_interval: float | timedelta = DEFAULT_POLL_INTERVAL,
        timeout: float | timedelta = DEFAULT_TIMEOUT,
        durable: bool = True,
        on_unknown_submit: str = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.prompt = prompt
        self.model = model
        self.aspect_ratio = aspect_ratio
        self.style = style
        self.reference_image_url = reference_image_url
        self.webhook = webhook
        self.pictory_conn_id = pictory_conn_id
        self.allow_unlisted = allow_unlisted
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.timeout = timeout
        self.durable = durable
        self.on_unknown_submit = on_unknown_submit
        self._job_id: str | None = None

    def execute(self, context: Context) -> str:
        """Check; adopt the job of an earlier try, or submit; publish the jobId; wait if that was asked for."""
        with airflow_errors():
            request = ImageRequest(
                prompt=self.prompt,
                model=self.model,
                aspect_ratio=self.aspect_ratio,
                style=self.style,
                reference_image_url=self.reference_image_url,
                webhook=self.webhook,
                allow_unlisted=self.allow_unlisted,
            )
            poll_interval = seconds("poll_interval", self.poll_interval)
            timeout = seconds("timeout", self.timeout)
            _check_policy(self.on_unknown_submit)
            self._check_what_follows(context)
        limit = self.execution_timeout
        ends_at = None if limit is None else time.monotonic() + limit.total_seconds()
        record = self._record(context)
        if self.durable and not record.is_possible:
            self.log.warning(
                "Airflow %s keeps no state of a task (3.3 and later do). So a retry after a crash cannot know of "
                "this submission, and would buy the picture again: keep retries=0 on this task. Nor does it tell "
                "a trigger that its task was ended by hand, so nothing will say that the job runs on.",
                airflow_line(),
            )
        from pictory_provider.hooks.pictory import PictoryHook

        with self._after_purchase(record), PictoryHook(self.pictory_conn_id) as hook:
            job = self._obtain(hook, request, record, ends_at)
            self._job_id = job.job_id
            self._publish(context, job.job_id)
            if not self.wait_for_completion:
                return self._end(record)
            warn_if_impolite(self, "poll_interval", poll_interval)
            wait = JobWait(
                job_id=job.job_id,
                pictory_conn_id=self.pictory_conn_id,
                started_at=job.submitted_at,
                timeout=timeout,
                poll_interval=poll_interval,
            )
            return self._finish(context, record, self._wait(hook, wait, job.answer))

    def execute_complete(self, context: Context, event: dict[str, Any]) -> str:
        """Go on after the trigger's event."""
        record = self._record(context)
        with self._after_purchase(record, is_bought=True):
            ended = events.read(event)
            self._job_id = ended.job_id
            poll_interval = seconds("poll_interval", self.poll_interval)
            job = conclude(ended, pictory_conn_id=self.pictory_conn_id, poll_interval=poll_interval)
            return self._finish(context, record, job)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after a deferral; one that Airflow itself ended badly gets a late look at the job."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except (TaskDeferralTimeout, TaskDeferralError) as error:
            record = self._record(context)
            with self._after_purchase(record, is_bought=True):
                # The arguments of the deferral are gone by now.
                job_id = self._job_id = self._find_job_id(context, record)
                ended = ended_by_airflow(job_id, error) if isinstance(error, TaskDeferralTimeout) else error
                return self._finish(context, record, late_look(self.pictory_conn_id, job_id, ended))

    @staticmethod
    def _find_job_id(context: Context, record: SubmissionRecord) -> str:
        """Return the jobId of this try: from the record, else from the XCom that it pushed."""
        unread: Exception | None = None
        with suppress(Exception):
            record.find()
        if record.latest.job_id:
            return record.latest.job_id
        ti = context["ti"]
        try:
            job_id = ti.xcom_pull(task_ids=ti.task_id, key=JOB_ID_KEY, map_indexes=ti.map_index)
        except Exception as error:
            job_id, unread = None, error
        if not isinstance(job_id, str):
            raise AirflowFailException(PAID_AND_LOST) from unread
        return job_id

    def on_kill(self) -> None:
        """Say what happens to the job. Pictory knows no cancel, and nothing is cleaned."""
        if self._job_id:
            self.log.warning("The task was killed. %s", runs_on(self._job_id))

    def _record(self, context: Context) -> SubmissionRecord:
        return SubmissionRecord(context, durable=self.durable, retries=self.retries)

    def _check_what_follows(self, context: Context) -> None:
        """Refuse, before anything is bought, what Airflow would refuse after it: the result is a string."""
        problem = None
        if self.multiple_outputs:
            problem = "multiple_outputs is on, and asks for a dict. Leave it out"
        elif self.get_dag() and not _is_mapped(context) and next(self.iter_mapped_dependants(), None):
            problem = (
                "another task expands over it, and takes a list. Map this task, and expand over its outputs; "
                "or hand the jobId over by .partial()"
            )
        if problem:
            raise RequestInvalid(
                f"The result of this task is one jobId, a string; {problem}. "
                "Nothing was sent and nothing was spent.",
                fields=["multiple_outputs" if self.multiple_outputs else "job_id"],
            )

    def _obtain(  # noqa: C901  a loop over the verdicts of jobs/submission
        self, hook: PictoryHook, request: ImageRequest, record: SubmissionRecord, ends_at: float | None
    ) -> Adopt:
        """Return the job of this task: that of an earlier try, or a new one."""
        wanted, asked = fingerprint(self.pictory_conn_id, request), asked_for(request)
        may_resubmit = self.on_unknown_submit == "resubmit"
        step: Submit | LookFirst | Adopt | PictoryError = begin(
            record.find(),
            wanted=wanted,
            max_tries=record.max_tries,
            is_mapped=record.is_mapped,
            retries=self.retries,
            request=asked,
        )
        if isinstance(step, LookFirst):
            step = after_look(step, hook.ask(step.job_id), time.time())
        if isinstance(step, SubmitOutcomeUnknown):
            hook.count("pictory.submit_outcome_unknown")
        while True:
            if isinstance(step, Adopt):
                return self._adopt(hook, record, step, wanted, asked)
            if isinstance(step, Submit):
                if step.warning:
                    self.log.warning("%s", step.warning)
                record.draft(wanted, asked)
                record.note_credits(hook.credits_used())
                try:
                    return Adopt(hook.submit(request, recorder=record, ends_at=ends_at), time.time())
                except SubmitOutcomeUnknown as error:
                    step = error
            elif isinstance(step, SubmitOutcomeUnknown) and may_resubmit:
                may_resubmit = False
                if step.is_out_of_time:
                    later = "on_unknown_submit is 'resubmit', but this try's time is up: a retry buys it."
                    raise AirflowTaskTimeout(f"{step.message} {later}") from step
                self.log.warning("%s on_unknown_submit is 'resubmit', so it is bought again.", step.message)
                step = Submit()
            elif isinstance(step, SubmitOutcomeUnknown):
                raise self._reported(hook, request, record, step) from step.__cause__
            else:
                raise step

    def _adopt(
        self, hook: PictoryHook, record: SubmissionRecord, job: Adopt, wanted: str, asked: dict[str, Any]
    ) -> Adopt:
        if job.warning:
            self.log.warning("%s", job.warning)
        self.log.info("Adopting job %s, which is on record: nothing is submitted.", job.job_id)
        if job.is_by_hand:
            record.draft(wanted, asked)
            record.keep(job.job_id, job.submitted_at)
        hook.count("pictory.adopted")
        return job

    @staticmethod
    def _reported(
        hook: PictoryHook, request: ImageRequest, record: SubmissionRecord, unknown: SubmitOutcomeUnknown
    ) -> SubmitOutcomeUnknown:
        """Return an unknown outcome with all that can be said about it."""
        known = {"since": record.latest.intended_at, "credits_before": record.latest.credits_before}
        try:
            evidence = hook.find_evidence(request, **known)
        except (Exception, AirflowTaskTimeout):
            # Nothing may hide the report: without a record a retry would buy the picture again.
            evidence = Evidence(**known, credits_now=None, matches=None)
        return report(unknown, evidence, record.how_to_adopt())

    def _publish(self, context: Context, job_id: str) -> None:
        ti = context["ti"]
        ti.xcom_push(key=JOB_ID_KEY, value=job_id)
        if self.do_xcom_push:
            ti.xcom_push(key="return_value", value=job_id)

    def _end(self, record: SubmissionRecord) -> str:
        """Return the task's result, now that nothing of ours can fail any more."""
        record.end()
        if not record.is_possible:
            # Airflow pushes the result once more. Where that fails the task is retried, and without a record would
            # buy again; it was pushed when it became known.
            self.do_xcom_push = False
        return str(self._job_id)

    def _wait(self, hook: PictoryHook, wait: JobWait, answer: Job | PictoryError | None) -> Job:
        poller = wait.poller()
        decision = hook.look(poller) if answer is None else hook.decide(poller, answer)
        while isinstance(decision, Wait):
            if self.deferrable:
                wait.defer(self, decision.seconds)
            time.sleep(decision.seconds)
            decision = hook.look(poller)
        return decision.job()

    def _finish(self, context: Context, record: SubmissionRecord, job: Job) -> str:
        self._job_id = job.job_id
        self.image_url = job.url
        context["ti"].xcom_push(key=IMAGE_KEY, value=job.record())
        return self._end(record)

    @contextmanager
    def _after_purchase(self, record: SubmissionRecord, *, is_bought: bool = False) -> Iterator[None]:
        """Let what fails after a purchase be retried only where the retry will find the job on record.

        :param is_bought: whether the purchase was made before, in an earlier leg of this try.
        """
        try:
            with airflow_errors():
                yield
        except AirflowFailException as error:
            job_id = self._job_id or record.latest.job_id
            if job_id and not isinstance(error, JobError):
                self.log.warning("%s", runs_on(job_id))
            record.end()
            raise
        except (Exception, AirflowTaskTimeout) as error:
            job_id = self._job_id or record.latest.job_id
            if job_id is None and not is_bought:
                raise
            if job_id is None:
                raise AirflowFailException(PAID_AND_LOST) from error
            if record.holds(job_id):
                self.log.warning("Job %s is on record: a retry of this task adopts it, and buys nothing.", job_id)
                raise
            raise AirflowFailException(paid_and_then(job_id, error)) from error


def _is_mapped(context: Context) -> bool:
    map_index = context["ti"].map_index
    return map_index is not None and map_index >= 0


def _check_policy(on_unknown_submit: object) -> None:
    if on_unknown_submit not in UNKNOWN_SUBMIT_POLICIES:
        raise RequestInvalid(
            f"on_unknown_submit is {on_unknown_submit!r}; it takes one of {', '.join(UNKNOWN_SUBMIT_POLICIES)}. "
            "Nothing was sent and nothing was spent.",
            fields=["on_unknown_submit"],
        )


class DownloadImageOperator(BaseOperator):
    """Save a finished picture to a local disk or to object storage.

    The picture is streamed, checked to be whole, and written in one step; the folders above it are made. A whole
    one that is not what Pictory promised (JPEG, WebP, another size) is saved with a warning: it was paid for. The
    API key is not sent to the picture's host.

    Returns the image record with ``path``, ``size`` (bytes) and ``sha256``.

    :param job_id: the job whose picture to save. (templated) Pictory is asked for a URL that lives. Or
    :param url: the picture's URL. (templated)
    :param path: an absolute local path, or any URL that ``ObjectStoragePath`` takes. (templated)
    :param overwrite: replace what is there. The same bytes already there are always a success.
    :param max_bytes: refuse larger pictures; 100 MiB.
    :param pictory_conn_id: the Airflow connection. (templated)
    :raises PictoryRequestInvalid: for a path that is relative or already holds something else.
    :raises PictoryImageInvalid: for what is no whole picture.
    :raises PictoryUnavailable: for a job that still runs; a retry looks again, and is free.
    :raises PictoryStorageFailed: where it cannot be written.
    """

    template_fields: Sequence[str] = ("job_id", "url", "path", "pictory_conn_id")
    operator_extra_links = (PictoryJobLink(),)
    image_url: str | None = None
    ui_color = "#efe7fb"

    def __init__(
        self,
        *,
        path: str,
        job_id: str | None = None,
        url: str | None = None,
        overwrite: bool = False,
        max_bytes: int = DEFAULT_MAX_BYTES,
        pictory_conn_id: str = DEFAULT_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.path = path
        self.job_id = job_id
        self.url = url
        self.overwrite = overwrite
        self.max_bytes = max_bytes
        self.pictory_conn_id = pictory_conn_id

    def execute(self, context: Context) -> SavedImage:  # noqa: ARG002  Airflow calls it so
        """Download, check and save."""
        from pictory_provider.hooks.pictory import PictoryHook

        with PictoryHook(self.pictory_conn_id) as hook:
            saved = hook.download_image(
                self.path,
                job_id=self.job_id,
                url=self.url,
                overwrite=self.overwrite,
                max_bytes=self.max_bytes,
            )
        self.image_url = saved["url"]
        return saved
