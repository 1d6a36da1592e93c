# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Have a picture made: submit the job, wait for it, save it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import BaseOperator

from pictory_provider.api.errors import PictoryError, StorageFailed
from pictory_provider.api.models import DEFAULT_MODEL, ImageRequest, first_poll_of
from pictory_provider.compat import TaskDeferralError, TaskDeferralTimeout, airflow_line
from pictory_provider.durable import JOB_ID_KEY, SubmissionRecord
from pictory_provider.exceptions import airflow_errors
from pictory_provider.images.paths import local_file
from pictory_provider.images.reuse import Reuse
from pictory_provider.images.shelf import Shelf
from pictory_provider.jobs import events
from pictory_provider.jobs.evidence import runs_on
from pictory_provider.jobs.polling import DEFAULT_POLL_INTERVAL, DEFAULT_TIMEOUT, Wait
from pictory_provider.links.pictory import PictoryJobLink
from pictory_provider.looking import Watch, finished_job
from pictory_provider.operators.download import DownloadImageOperator
from pictory_provider.operators.result import check_what_follows
from pictory_provider.order import Order, Purchase, check_policy
from pictory_provider.provider_info import DEFAULT_CONN_ID
from pictory_provider.spending import check_limits, skipped
from pictory_provider.telemetry import openlineage_of, report_assets, report_lineage, show_request, tells_why
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
    from airflow.providers.openlineage.extractors import OperatorLineage

    from pictory_provider.api.models import Job
    from pictory_provider.hooks.pictory import PictoryHook

__all__ = ["DownloadImageOperator", "GenerateImageOperator"]

IMAGE_KEY = "image"


class GenerateImageOperator(BaseOperator):
    """Have Pictory AI Studio make one picture; with ``path`` it is waited for and saved in the same task.

    The task's XCom ``return_value`` is the jobId, a string; it also lies under the key ``jobId``. Both are
    there as soon as Pictory has named it and it is on record. With ``wait_for_completion`` or ``path`` the image
    record lies under ``image`` when the task succeeds, and an asset in ``outlets`` gets it as the ``extra`` of its
    event, without the query of the URL. With ``path`` it also holds ``path``, ``size``, ``sha256``, ``reused``,
    ``prompt`` and ``model``.

    A retry adopts the job that is on record. Without ``path`` a user's clear buys again
    (:mod:`pictory_provider.jobs.submission`). With it the same request at the same path is bought once, over
    retries, clears and runs (:mod:`pictory_provider.images.reuse`).

    Everything is checked before anything is sent. Limits and prices:
    https://docs.pictory.ai/api-reference/ai-studio/generate-image.

    :param prompt: what to draw, 5 to 5,000 characters after rendering. (templated)
    :param model: ``seedream3.0``, ``flux-schnell``, ``nanobanana`` or ``nanobanana-pro``. (templated)
    :param aspect_ratio: ``1:1``, ``16:9`` or ``9:16``; the model's first where it is ``None``. (templated)
    :param style: ``photorealistic``, ``artistic``, ``cartoon``, ``minimalist``, ``vintage`` or
        ``futuristic``. (templated)
    :param reference_image_url: a picture to start from: at a public ``http(s)`` URL, or a private object such as
        ``s3://bucket/key.png``, for which Pictory gets a signed URL that lives an hour. (templated)
    :param webhook: an ``http(s)`` URL that Pictory calls when the job ends. (templated)
    :param pictory_conn_id: the Airflow connection. (templated)
    :param allow_unlisted: let a model, style or ratio pass that this release does not know.
    :param path: save the picture there: an absolute local path, or any URL that ``ObjectStoragePath`` takes. What
        was asked for is kept beside it, as ``<path>.json``. It implies ``wait_for_completion``. (templated)
    :param overwrite: buy and replace what lies at ``path``: once, and once more after each clear.
    :param mark_ai_generated: write into the saved PNG file that a machine made it; see
        :class:`~pictory_provider.operators.pictory.DownloadImageOperator`.
    :param max_credits: the most AI credits that the task may spend, retries included, compared with the listed
        price before anything is sent; a clear begins anew.
    :param on_budget: what to do where a limit, of this task or of the connection, leaves too little: ``"fail"``,
        without a retry, or ``"skip"``.
    :param wait_for_completion: end the task when the picture is ready, and not when the job is accepted.
    :param deferrable: wait in the triggerer, without a worker slot.
    :param poll_interval: seconds, or a duration, between two looks at the job. The first comes sooner: when a
        picture of the model may be ready (:data:`~pictory_provider.api.models.MODELS`).
    :param timeout: seconds, or a duration, to wait for the job, from its submission on; a retry does not
        start it again.
    :param durable: keep the submission on record in the task's state store (Airflow 3.3 and later), so that a
        retry adopts the job. Without a record whatever fails after the submission is not retried, and a
        retry after a crash buys the picture again.
    :param on_unknown_submit: what to do where Pictory may or may not have accepted the job: ``"fail"``, or
        ``"resubmit"``, which rather pays twice than waits for someone; once for each try.
    :raises PictoryRequestInvalid: where a field is wrong, or something else lies at ``path``; nothing was sent, or
        Pictory refused it.
    :raises PictoryBudgetExceeded: where a limit leaves too little; nothing was sent.
    :raises PictorySubmitOutcomeUnknown: where Pictory may or may not have accepted the job.
    :raises PictoryUnavailable: where another task is buying the picture for ``path``; a retry takes that.
    :raises PictoryStorageFailed: where ``path`` cannot be read or written; a retry buys nothing twice.
    :raises PictoryJobFailed: where the job failed; only where it is waited for.
    :raises PictoryWaitTimeout: where it was still running after ``timeout``; a retry adopts it and looks once.
    """

    template_fields: Sequence[str] = (
        "prompt",
        "model",
        "aspect_ratio",
        "style",
        "reference_image_url",
        "webhook",
        "path",
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
        path: str | None = None,
        overwrite: bool = False,
        mark_ai_generated: bool = False,
        pictory_conn_id: str = DEFAULT_CONN_ID,
        allow_unlisted: bool = False,
        max_credits: float | None = None,
        on_budget: str = "fail",
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
        self.path = path
        self.overwrite = overwrite
        self.mark_ai_generated = mark_ai_generated
        self.pictory_conn_id = pictory_conn_id
        self.allow_unlisted = allow_unlisted
        self.max_credits = max_credits
        self.on_budget = on_budget
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.timeout = timeout
        self.durable = durable
        self.on_unknown_submit = on_unknown_submit
        self._purchase: Purchase | None = None
        self._lineage: tuple[str | None, str | None] = None, None

    @tells_why
    def execute(self, context: Context) -> str:
        """Check; take, adopt or submit; publish the jobId; wait and save if that was asked for."""
        with airflow_errors():
            order = self._order(context)
            poll_interval = seconds("poll_interval", self.poll_interval)
            timeout = seconds("timeout", self.timeout)
            check_policy(self.on_unknown_submit)
            max_credits = check_limits(self.max_credits, self.on_budget)
            check_what_follows(self, context)
            purchase = self._purchase_of(context, self.path)
        limit = self.execution_timeout
        ends_at = None if limit is None else time.monotonic() + limit.total_seconds()
        if self.durable and not purchase.record.is_possible:
            self.log.warning(
                "Airflow %s keeps no state of a task (3.3 and later do). So a retry after a crash cannot know of "
                "this submission, and would buy the picture again: keep retries=0 on this task, or give it a "
                "path. Nor does it tell a trigger that its task was ended by hand, so nothing will say that the "
                "job runs on.",
                airflow_line(),
            )
        from pictory_provider.hooks.pictory import PictoryHook

        with skipped(self.on_budget), purchase.guarded(), PictoryHook(self.pictory_conn_id) as hook:
            job = purchase.obtain(
                hook.get_conn(),
                order,
                overwrite=self.overwrite,
                on_unknown_submit=self.on_unknown_submit,
                max_credits=max_credits,
                ends_at=ends_at,
            )
            self._publish(context, str(purchase.job_id))
            waits = bool(self.wait_for_completion or purchase.shelf)
            show_request(context, purchase.record.latest, is_waited_for=waits)
            if isinstance(job, Reuse):
                return self._take(context, purchase, job)
            if not waits:
                return self._end(purchase)
            warn_if_impolite(self, "poll_interval", poll_interval)
            wait = JobWait(
                job_id=job.job_id,
                pictory_conn_id=self.pictory_conn_id,
                started_at=job.submitted_at,
                timeout=timeout,
                poll_interval=poll_interval,
                first_poll=first_poll_of((purchase.record.latest.request or {}).get("model")),
            )
            carried = None
            if purchase.shelf:
                carried = {"path": purchase.shelf.path, "bought": purchase.record.latest.plain()}
            return self._finish(context, purchase, hook, self._wait(hook, wait, job.answer, carried))

    @tells_why
    def execute_complete(
        self,
        context: Context,
        event: dict[str, Any],
        path: str | None = None,
        bought: dict[str, Any] | None = None,
    ) -> str:
        """Go on after the trigger's event.

        :param path: as it was rendered before the deferral. ``dag.test()`` leaves it out, and the next too.
        :param bought: what was on record then.
        """
        from pictory_provider.hooks.pictory import PictoryHook

        purchase = self._purchase_of(context, self.path if path is None else path)
        with purchase.guarded(is_bought=True), PictoryHook(self.pictory_conn_id) as hook:
            ended = events.read(event)
            purchase.job_id = ended.job_id
            poll_interval = seconds("poll_interval", self.poll_interval)
            job = conclude(ended, pictory_conn_id=self.pictory_conn_id, poll_interval=poll_interval)
            if purchase.shelf is None:
                return self._finish(context, purchase, hook, job)
            purchase.remember(job.job_id, bought)
            if events.is_fresh(ended.at, time.time()):
                try:
                    return self._finish(context, purchase, hook, job)
                except StorageFailed:
                    raise
                except PictoryError as error:
                    self.log.warning(
                        "The picture could not be downloaded from the URL that the trigger saw; Pictory is asked "
                        "for it again, which is free. %s",
                        error.message,
                    )
            return self._finish(context, purchase, hook, finished_job(job.job_id, hook, log=self.log))

    @tells_why
    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after a deferral; one that Airflow itself ended badly gets a late look at the job."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except (TaskDeferralTimeout, TaskDeferralError) as error:
            from pictory_provider.hooks.pictory import PictoryHook

            purchase = self._purchase_of(context, self.path)
            with purchase.guarded(is_bought=True), PictoryHook(self.pictory_conn_id) as hook:
                job_id = purchase.recall()
                ended = ended_by_airflow(job_id, error) if isinstance(error, TaskDeferralTimeout) else error
                job = late_look(self.pictory_conn_id, job_id, ended)
                return self._finish(context, purchase, hook, job)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:  # noqa: ARG002
        """Tell OpenLineage of the reference image, and of the picture where it was saved."""
        reference, path = self._lineage
        return openlineage_of([reference], [path and str(local_file(path) or path)])

    def on_kill(self) -> None:
        """Say what happens to the job. Pictory knows no cancel, and nothing is cleaned."""
        if self._purchase and self._purchase.job_id:
            self.log.warning("The task was killed. %s", runs_on(self._purchase.job_id))

    def _order(self, context: Context) -> Order:  # noqa: ARG002  a decorated function is given it
        return Order.of(ImageRequest.of(self))

    def _purchase_of(self, context: Context, path: str | None) -> Purchase:
        record = SubmissionRecord(context, durable=self.durable, retries=self.retries)
        shelf = None if path is None else Shelf(path)
        self._purchase = Purchase(record, conn_id=self.pictory_conn_id, log=self.log, shelf=shelf)
        return self._purchase

    def _publish(self, context: Context, job_id: str) -> None:
        ti = context["ti"]
        ti.xcom_push(key=JOB_ID_KEY, value=job_id)
        if self.do_xcom_push:
            ti.xcom_push(key="return_value", value=job_id)

    def _wait(
        self, hook: PictoryHook, wait: JobWait, answer: Job | PictoryError | None, carried: dict[str, Any] | None
    ) -> Job:
        watch = Watch(wait.poller(), hook, log=self.log)
        decision = watch.look() if answer is None else watch.take(answer)
        while isinstance(decision, Wait):
            if self.deferrable:
                wait.defer(self, decision.seconds, kwargs=carried)
            time.sleep(decision.seconds)
            decision = watch.look()
        return decision.job()

    def _finish(self, context: Context, purchase: Purchase, hook: PictoryHook, job: Job) -> str:
        self.image_url = job.url
        if purchase.shelf is None:
            return self._tell(context, purchase, job.record())
        saved = purchase.shelf.save(
            hook.get_conn(),
            job,
            purchase.record.sidecar(job.job_id),
            overwrite=self.overwrite,
            mark_ai_generated=self.mark_ai_generated,
            log=self.log,
        )
        report_lineage(hook, job, purchase.shelf.target.uri)
        self.log.info("Saved %s (%s bytes).", saved["path"], f"{saved['size']:,}")
        return self._tell(context, purchase, {**saved, "reused": False})

    def _take(self, context: Context, purchase: Purchase, found: Reuse) -> str:
        assert purchase.shelf is not None
        image = purchase.shelf.take(found.sidecar, mark_ai_generated=self.mark_ai_generated, log=self.log)
        return self._tell(context, purchase, {**image, "reused": not found.is_own})

    def _tell(self, context: Context, purchase: Purchase, image: dict[str, Any]) -> str:
        """Publish what there is now, and return the task's result."""
        if purchase.shelf:
            request = purchase.record.latest.request or {}
            image |= {name: request.get(name) for name in ("prompt", "model")}
            self._lineage = (request.get("referenceImageUrl"), image["path"])
        context["ti"].xcom_push(key=IMAGE_KEY, value=image)
        report_assets(context, self.outlets, image)
        return self._end(purchase)

    def _end(self, purchase: Purchase) -> str:
        """Return the task's result, now that nothing of ours can fail any more."""
        purchase.record.end()
        if not purchase.record.is_possible:
            # Airflow pushes the result once more. Where that fails the task is retried, and without a record would
            # buy again; it was pushed when it became known.
            self.do_xcom_push = False
        return str(purchase.job_id)
