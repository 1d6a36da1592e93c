# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Submit an image generation job, and save its picture."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import BaseOperator

from pictory_provider.api.errors import RequestInvalid
from pictory_provider.api.models import DEFAULT_MODEL, ImageRequest
from pictory_provider.compat import TaskDeferralError, TaskDeferralTimeout, airflow_line
from pictory_provider.durable import JOB_ID_KEY, SubmissionRecord
from pictory_provider.exceptions import airflow_errors
from pictory_provider.images.store import DEFAULT_MAX_BYTES
from pictory_provider.jobs import events
from pictory_provider.jobs.polling import DEFAULT_POLL_INTERVAL, DEFAULT_TIMEOUT, Wait
from pictory_provider.jobs.submission import runs_on
from pictory_provider.links.pictory import PictoryJobLink
from pictory_provider.looking import Watch
from pictory_provider.provider_info import DEFAULT_CONN_ID
from pictory_provider.purchase import Order, Purchase, check_policy
from pictory_provider.telemetry import report_assets
from pictory_provider.waiting import (
    JobWait,
    conclude,
    ended_by_airflow,
    late_look,
    seconds,
    warn_if_impolite,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from airflow.providers.common.compat.sdk import Context

    from pictory_provider.api.errors import PictoryError
    from pictory_provider.api.models import Job
    from pictory_provider.hooks.pictory import PictoryHook
    from pictory_provider.images.download import SavedImage

IMAGE_KEY = "image"


class GenerateImageOperator(BaseOperator):
    """Submit one image generation job to Pictory AI Studio.

    The task's XCom ``return_value`` is the jobId, a string; it also lies under the key ``jobId``. Both are
    there as soon as Pictory has named it and it is on record. With ``wait_for_completion`` the image record
    lies under ``image`` when the task succeeds, and an asset in ``outlets`` gets it as the ``extra`` of its event,
    without the query of the URL.

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
    :param poll_interval: seconds, or a duration, between two looks at the job.
    :param timeout: seconds, or a duration, to wait for the job, from its submission on; a retry does not
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
    template_fields_renderers: ClassVar[dict[str, str]] = {"prompt": "md"}
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
        self._purchase: Purchase | None = None

    def execute(self, context: Context) -> str:
        """Check; adopt the job of an earlier try, or submit; publish the jobId; wait if that was asked for."""
        with airflow_errors():
            order = self._order(context)
            poll_interval = seconds("poll_interval", self.poll_interval)
            timeout = seconds("timeout", self.timeout)
            check_policy(self.on_unknown_submit)
            self._check_what_follows(context)
        limit = self.execution_timeout
        ends_at = None if limit is None else time.monotonic() + limit.total_seconds()
        purchase = self._purchase_of(context)
        if self.durable and not purchase.record.is_possible:
            self.log.warning(
                "Airflow %s keeps no state of a task (3.3 and later do). So a retry after a crash cannot know of "
                "this submission, and would buy the picture again: keep retries=0 on this task. Nor does it tell "
                "a trigger that its task was ended by hand, so nothing will say that the job runs on.",
                airflow_line(),
            )
        from pictory_provider.hooks.pictory import PictoryHook

        with purchase.guarded(), PictoryHook(self.pictory_conn_id) as hook:
            job = purchase.obtain(
                hook.get_conn(),
                order,
                on_unknown_submit=self.on_unknown_submit,
                ends_at=ends_at,
            )
            self._publish(context, job.job_id)
            if not self.wait_for_completion:
                return self._end(purchase)
            warn_if_impolite(self, "poll_interval", poll_interval)
            wait = JobWait(
                job_id=job.job_id,
                pictory_conn_id=self.pictory_conn_id,
                started_at=job.submitted_at,
                timeout=timeout,
                poll_interval=poll_interval,
            )
            return self._finish(context, purchase, self._wait(hook, wait, job.answer))

    def execute_complete(self, context: Context, event: dict[str, Any]) -> str:
        """Go on after the trigger's event."""
        purchase = self._purchase_of(context)
        with purchase.guarded(is_bought=True):
            ended = events.read(event)
            purchase.job_id = ended.job_id
            poll_interval = seconds("poll_interval", self.poll_interval)
            job = conclude(ended, pictory_conn_id=self.pictory_conn_id, poll_interval=poll_interval)
            return self._finish(context, purchase, job)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after a deferral; one that Airflow itself ended badly gets a late look at the job."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except (TaskDeferralTimeout, TaskDeferralError) as error:
            purchase = self._purchase_of(context)
            with purchase.guarded(is_bought=True):
                job_id = purchase.recall()
                ended = ended_by_airflow(job_id, error) if isinstance(error, TaskDeferralTimeout) else error
                return self._finish(context, purchase, late_look(self.pictory_conn_id, job_id, ended))

    def on_kill(self) -> None:
        """Say what happens to the job. Pictory knows no cancel, and nothing is cleaned."""
        if self._purchase and self._purchase.job_id:
            self.log.warning("The task was killed. %s", runs_on(self._purchase.job_id))

    def _order(self, context: Context) -> Order:  # noqa: ARG002  a decorated function is given it
        return Order.of(ImageRequest.of(self))

    def _purchase_of(self, context: Context) -> Purchase:
        record = SubmissionRecord(context, durable=self.durable, retries=self.retries)
        self._purchase = Purchase(record, conn_id=self.pictory_conn_id, log=self.log)
        return self._purchase

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

    def _publish(self, context: Context, job_id: str) -> None:
        ti = context["ti"]
        ti.xcom_push(key=JOB_ID_KEY, value=job_id)
        if self.do_xcom_push:
            ti.xcom_push(key="return_value", value=job_id)

    def _wait(self, hook: PictoryHook, wait: JobWait, answer: Job | PictoryError | None) -> Job:
        watch = Watch(wait.poller(), hook, log=self.log)
        decision = watch.look() if answer is None else watch.take(answer)
        while isinstance(decision, Wait):
            if self.deferrable:
                wait.defer(self, decision.seconds)
            time.sleep(decision.seconds)
            decision = watch.look()
        return decision.job()

    def _finish(self, context: Context, purchase: Purchase, job: Job) -> str:
        self.image_url = job.url
        context["ti"].xcom_push(key=IMAGE_KEY, value=job.record())
        report_assets(context, self.outlets, job.record())
        return self._end(purchase)

    def _end(self, purchase: Purchase) -> str:
        """Return the task's result, now that nothing of ours can fail any more."""
        purchase.record.end()
        if not purchase.record.is_possible:
            # Airflow pushes the result once more. Where that fails the task is retried, and without a record would
            # buy again; it was pushed when it became known.
            self.do_xcom_push = False
        return str(purchase.job_id)


def _is_mapped(context: Context) -> bool:
    map_index = context["ti"].map_index
    return map_index is not None and map_index >= 0


class DownloadImageOperator(BaseOperator):
    """Save a finished picture to a local disk or to object storage.

    The picture is streamed, checked to be whole, and written in one step; the folders above it are made. A whole
    one that is not what Pictory promised (JPEG, WebP, another size) is saved with a warning: it was paid for. The
    API key is not sent to the picture's host.

    Returns the image record with ``path``, ``size`` (bytes) and ``sha256``; an asset in ``outlets`` gets the same,
    without the query of the URL, as the ``extra`` of its event.

    :param job_id: the job whose picture to save. (templated) Pictory is asked for a URL that lives. Or
    :param url: the picture's URL. (templated)
    :param path: an absolute local path, or any URL that ``ObjectStoragePath`` takes. (templated)
    :param overwrite: replace what is there. The same bytes already there are always a success.
    :param max_bytes: refuse larger pictures; 100 MiB.
    :param mark_ai_generated: write into the PNG file that a machine made it: IPTC's Digital Source Type
        ``trainedAlgorithmicMedia``, as XMP. A file that says something of its origin already (C2PA, XMP, AIGC) is
        left as it came, and so is a JPEG or a WebP, with a warning.
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
        mark_ai_generated: bool = False,
        pictory_conn_id: str = DEFAULT_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.path = path
        self.job_id = job_id
        self.url = url
        self.overwrite = overwrite
        self.max_bytes = max_bytes
        self.mark_ai_generated = mark_ai_generated
        self.pictory_conn_id = pictory_conn_id

    def execute(self, context: Context) -> SavedImage:
        """Download, check and save."""
        from pictory_provider.hooks.pictory import PictoryHook

        with airflow_errors(log=self.log), PictoryHook(self.pictory_conn_id) as hook:
            saved = hook.download_image(
                self.path,
                job_id=self.job_id,
                url=self.url,
                overwrite=self.overwrite,
                max_bytes=self.max_bytes,
                mark_ai_generated=self.mark_ai_generated,
            )
        self.image_url = saved["url"]
        report_assets(context, self.outlets, saved)
        return saved
