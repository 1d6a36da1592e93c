# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Generate an image: submit the job, wait for it, save the picture."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from pictory_provider.api.models import DEFAULT_MODEL
from pictory_provider.operators.download import DownloadImageOperator, PictureOperator
from pictory_provider.provider_info import DEFAULT_CONN_ID, DEFAULT_POLL_INTERVAL, DEFAULT_TIMEOUT
from pictory_provider.telemetry import push_failure_xcom
from pictory_provider.version_compat import TaskDeferralError, TaskDeferralTimeout, airflow_minor

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from airflow.providers.common.compat.sdk import BaseOperator, Context

    from pictory_provider.api.models import Job
    from pictory_provider.hooks.pictory import PictoryHook
    from pictory_provider.services.generate import Generation, LazyRequest

__all__ = ["DownloadImageOperator", "GenerateImageOperator"]

IMAGE_KEY = "image"


def check_result_use(task: BaseOperator, context: Context) -> None:
    """Refuse, before anything is bought, uses of the result that Airflow would refuse afterwards.

    The result is a string, so it has no ``multiple_outputs``, and no task can be mapped over it.

    :raises RequestInvalid: says what to change.
    """
    from pictory_provider.api.errors import RequestInvalid

    problem = None
    map_index = context["ti"].map_index
    is_mapped = map_index is not None and map_index >= 0
    if task.multiple_outputs:
        problem = "multiple_outputs is on and needs a dict. Leave it out"
    elif task.get_dag() and not is_mapped and next(task.iter_mapped_dependants(), None):
        problem = (
            "another task expands over it and needs a list. Map this task and expand over its outputs, or pass "
            "the jobId with .partial()"
        )
    if problem:
        raise RequestInvalid.unsent(
            f"The result of this task is one jobId, a string; {problem}",
            fields=["multiple_outputs" if task.multiple_outputs else "job_id"],
        )


class GenerateImageOperator(PictureOperator):
    """Generate one picture with Pictory AI Studio. With ``path``, the task also waits for it and saves it.

    The XComs ``return_value`` and ``jobId`` are the jobId, a string. The task pushes both as soon as it has
    recorded the jobId. With ``wait_for_completion`` or ``path`` the XCom ``image`` is the image record when the
    task succeeds, and each asset in ``outlets`` gets the record as the ``extra`` of its event, without the query
    of the URL. With ``path`` the record also has ``path``, ``size``, ``sha256``, ``reused``, ``prompt`` and
    ``model``.

    A retry adopts the job that is on record. Without ``path``, clearing the task buys another picture
    (:mod:`pictory_provider.core.submission`). With ``path``, the same request at the same path is bought once,
    over retries, clears and runs (:mod:`pictory_provider.core.resume`).

    Everything is checked before anything is sent. Limits and prices:
    https://docs.pictory.ai/api-reference/ai-studio/generate-image.

    :param prompt: the text that describes the picture, 5 to 5,000 characters after rendering. (templated)
    :param model: ``seedream3.0``, ``flux-schnell``, ``nanobanana`` or ``nanobanana-pro``. (templated)
    :param aspect_ratio: ``1:1``, ``16:9`` or ``9:16``; ``None`` for the model's first one. (templated)
    :param style: ``photorealistic``, ``artistic``, ``cartoon``, ``minimalist``, ``vintage`` or
        ``futuristic``. (templated)
    :param reference_image_url: a picture to start from: a public ``http(s)`` URL, or a private object such as
        ``s3://bucket/key.png``, for which Pictory gets a signed URL that is valid for an hour. (templated)
    :param reference_upload: let ``reference_image_url`` also be a local PNG or JPEG file, by its absolute path, or
        an object that its storage cannot sign, and upload it to Pictory right before the submission. **Everyone
        who has the URL of an uploaded picture can see it, and Pictory keeps it for good.** (templated)
    :param webhook: an ``http(s)`` URL that Pictory calls when the job ends. (templated)
    :param pictory_conn_id: the Airflow connection. (templated)
    :param allow_unlisted: accept a model, style or ratio that this release does not know.
    :param path: where to save the picture: an absolute local path, or any URL that ``ObjectStoragePath`` takes.
        The request is stored next to it, in ``<path>.json``. Implies ``wait_for_completion``. (templated)
    :param overwrite: ``True`` buys a new picture and replaces the one at ``path``: once, and once more after each
        clear. ``"changed"`` does so only if the picture there is of another request: a corrected prompt buys once,
        and a clear buys nothing more.
    :param cache_control: in object storage, the HTTP header ``Cache-Control`` for the picture, such as
        ``public, max-age=31536000``; a local file has none.
    :param mark_ai_generated: write into the saved PNG file that it was generated by AI; see
        :class:`~pictory_provider.operators.pictory.DownloadImageOperator`.
    :param max_credits: the most AI credits that the task may spend, retries included. The listed price is compared
        with it before anything is sent; a clear resets what was spent.
    :param on_budget: what to do if a limit of this task or of the connection leaves too little: ``"fail"``,
        without a retry, or ``"skip"``.
    :param plan_only: check everything, limits included, and buy nothing and write nothing: the XCom ``plan`` says
        what the task would do, and the task is skipped, or fails as it would. (templated)
    :param wait_for_completion: end the task when the picture is ready, and not when the job is accepted.
    :param deferrable: wait in the triggerer, without a worker slot.
    :param poll_interval: seconds, or a duration, between two polls of the job. The first poll comes sooner: when a
        picture of the model may be ready (:data:`~pictory_provider.api.models.MODELS`).
    :param timeout: seconds, or a duration, to wait for the job, from its submission on. A retry does not restart
        it.
    :param durable: record the submission in the task's state store (Airflow 3.3 and later), so that a retry adopts
        the job. Without a record, an error after the submission is not retried, and a retry after a crash buys the
        picture again.
    :param on_unknown_submit: what to do if Pictory may or may not have accepted the job: ``"fail"``, or
        ``"resubmit"`` to submit again, at most once per attempt, accepting that this may pay twice.
    :raises PictoryRequestInvalid: if a field is wrong or another file exists at ``path``, and nothing was sent; or
        if Pictory refused the request.
    :raises PictoryBudgetExceeded: if a limit leaves too little; nothing was sent.
    :raises PictorySubmitOutcomeUnknown: if Pictory may or may not have accepted the job.
    :raises PictoryUnavailable: if another task is buying the picture for ``path``; a retry uses that picture.
    :raises PictoryStorageFailed: if ``path`` cannot be read or written; a retry buys nothing twice.
    :raises PictoryJobFailed: if the job failed and the task waited for it.
    :raises PictoryWaitTimeout: if the job is still running after ``timeout``; a retry adopts it and polls once.
    """

    template_fields: Sequence[str] = (
        "prompt",
        "model",
        "aspect_ratio",
        "style",
        "reference_image_url",
        "reference_upload",
        "webhook",
        "path",
        "pictory_conn_id",
        "plan_only",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"prompt": "md"}

    def __init__(
        self,
        *,
        prompt: str,
        model: str = DEFAULT_MODEL,
        aspect_ratio: str | None = None,
        style: str | None = None,
        reference_image_url: str | None = None,
        reference_upload: bool | str = False,
        webhook: str | None = None,
        path: str | None = None,
        overwrite: bool | str = False,
        mark_ai_generated: bool = False,
        cache_control: str | None = None,
        pictory_conn_id: str = DEFAULT_CONN_ID,
        allow_unlisted: bool = False,
        max_credits: float | None = None,
        on_budget: str = "fail",
        plan_only: bool | str = False,
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
        self.reference_upload = reference_upload
        self.webhook = webhook
        self.path = path
        self.overwrite = overwrite
        self.mark_ai_generated = mark_ai_generated
        self.cache_control = cache_control
        self.pictory_conn_id = pictory_conn_id
        self.allow_unlisted = allow_unlisted
        self.max_credits = max_credits
        self.on_budget = on_budget
        self.plan_only = plan_only
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.timeout = timeout
        self.durable = durable
        self.on_unknown_submit = on_unknown_submit
        self._generation: Generation | None = None

    @push_failure_xcom
    def execute(self, context: Context) -> str:
        """Check the arguments, reuse, adopt or submit, and push the jobId; wait and save if the task does so.

        :return: the jobId.
        """
        from pictory_provider.api.checks import (
            CHANGED,
            check_overwrite,
            check_policy,
            check_seconds,
            check_switch,
        )
        from pictory_provider.api.models import first_poll_of
        from pictory_provider.exceptions import airflow_errors
        from pictory_provider.services.spending import check_limits, skipped
        from pictory_provider.storage.paths import warn_of_xcoms
        from pictory_provider.telemetry import push_request_xcom
        from pictory_provider.triggers.deferral import JobWait, deadline, warn_of_short_interval

        with airflow_errors():
            lazy_request = self._lazy_request(context)
            poll_interval = check_seconds("poll_interval", self.poll_interval)
            timeout = check_seconds("timeout", self.timeout)
            check_policy(self.on_unknown_submit)
            check_overwrite(self.overwrite)
            choices: dict[str, Any] = {
                "overwrite": self.overwrite is True,
                "replaces_changed": self.overwrite == CHANGED,
                "on_unknown_submit": self.on_unknown_submit,
                "max_credits": check_limits(self.max_credits, self.on_budget),
            }
            is_plan = check_switch("plan_only", self.plan_only)
            check_result_use(self, context)
            generation = self._generation_of(context, self.path)
        warn_of_xcoms(self.path, self.log)
        if is_plan:
            return self._plan(context, generation, lazy_request, choices)
        ends_at = deadline(self.execution_timeout)
        if self.durable and not generation.record.is_possible:
            self.log.warning(
                "Airflow %s has no task state store (3.3 and later have). So a retry after a crash does not find "
                "this submission and buys the picture again: keep retries=0 on this task, or give it a path. This "
                "Airflow does not notify a trigger either when a user ends its task, so no log says then that the "
                "job keeps running.",
                airflow_minor(),
            )
        from pictory_provider.hooks.pictory import PictoryHook

        with skipped(self.on_budget), generation.guarded(), PictoryHook(self.pictory_conn_id) as hook:
            job = generation.obtain(hook.get_conn(), lazy_request, **choices, ends_at=ends_at)
            generation.record.publish(str(generation.job_id), as_result=self.do_xcom_push)
            waits = bool(self.wait_for_completion or generation.target)
            push_request_xcom(context, generation.record.latest, is_waited_for=waits)
            if job is None:
                image = generation.reuse(hook.get_conn(), mark_ai_generated=self.mark_ai_generated)
                return self._publish(context, generation, image)
            if not waits:
                return self._end(generation)
            warn_of_short_interval(self, "poll_interval", poll_interval)
            wait = JobWait(
                job_id=job.job_id,
                pictory_conn_id=self.pictory_conn_id,
                started_at=job.submitted_at,
                timeout=timeout,
                poll_interval=poll_interval,
                first_poll=first_poll_of((generation.record.latest.request or {}).get("model")),
            )
            carried = None
            if generation.target:
                carried = {"path": generation.target.path, "bought": generation.record.latest.to_dict()}
            job_done = wait.run(self, hook, job.answer, carried)
            return self._finish(context, generation, hook, job_done)

    @push_failure_xcom
    def execute_complete(
        self,
        context: Context,
        event: dict[str, Any],
        path: str | None = None,
        bought: dict[str, Any] | None = None,
    ) -> str:
        """Resume after the trigger's event: save the picture, or fail with the error of the job.

        :param path: as it was rendered before the deferral. ``dag.test()`` passes neither this nor ``bought``.
        :param bought: the record of the submission before the deferral.
        :return: the jobId.
        """
        from pictory_provider.api.checks import check_seconds
        from pictory_provider.api.errors import PictoryError, StorageFailed
        from pictory_provider.core import events
        from pictory_provider.hooks.pictory import PictoryHook
        from pictory_provider.services.polling import finished_job
        from pictory_provider.triggers.deferral import conclude

        generation = self._generation_of(context, self.path if path is None else path)
        with generation.guarded(is_bought=True), PictoryHook(self.pictory_conn_id) as hook:
            ended = events.read(event)
            generation.job_id = ended.job_id
            poll_interval = check_seconds("poll_interval", self.poll_interval)
            job = conclude(ended, pictory_conn_id=self.pictory_conn_id, poll_interval=poll_interval)
            if generation.target is None:
                return self._finish(context, generation, hook, job)
            generation.restore_record(job.job_id, bought)
            if events.is_fresh(ended.at, time.time()):
                try:
                    return self._finish(context, generation, hook, job)
                except StorageFailed:
                    raise
                except PictoryError as error:
                    self.log.warning(
                        "Could not download the picture from the URL that the trigger received. The job is polled "
                        "again for a new URL, which is free. %s",
                        error.message,
                    )
            return self._finish(context, generation, hook, finished_job(job.job_id, hook, log=self.log))

    @push_failure_xcom
    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after a deferral. If Airflow itself has ended the deferral, poll the job once more."""
        from pictory_provider.triggers.deferral import last_poll_after

        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except (TaskDeferralTimeout, TaskDeferralError) as error:
            from pictory_provider.hooks.pictory import PictoryHook

            generation = self._generation_of(context, self.path)
            with generation.guarded(is_bought=True), PictoryHook(self.pictory_conn_id) as hook:
                job = last_poll_after(error, self.pictory_conn_id, generation.find_job_id())
                return self._finish(context, generation, hook, job)

    def on_kill(self) -> None:
        """Log what happens to the job. Pictory cannot cancel a job, and this does not clean it."""
        if self._generation:
            self._generation.warn_of_kill()

    def _lazy_request(self, context: Context) -> LazyRequest:  # noqa: ARG002  the decorated operator needs it
        from pictory_provider.services.generate import LazyRequest

        return LazyRequest.from_operator(self)

    def _generation_of(self, context: Context, path: str | None) -> Generation:
        from pictory_provider.api.checks import check_header
        from pictory_provider.services.generate import Generation

        self._generation = Generation(
            context,
            conn_id=self.pictory_conn_id,
            path=path,
            cache_control=check_header("cache_control", self.cache_control),
            durable=self.durable,
            retries=self.retries,
            log=self.log,
        )
        return self._generation

    def _plan(
        self, context: Context, generation: Generation, lazy_request: LazyRequest, choices: dict[str, Any]
    ) -> NoReturn:
        """Push the plan, and end the task as it would end, or skip it.

        :param choices: the arguments of :meth:`Generation.plan`.
        """
        from pictory_provider.exceptions import airflow_errors
        from pictory_provider.hooks.pictory import PictoryHook
        from pictory_provider.services.spending import conclude_plan, skipped

        conn_id = self.pictory_conn_id
        with skipped(self.on_budget), airflow_errors(conn_id, log=self.log), PictoryHook(conn_id) as hook:
            plan, error = generation.plan(hook.get_conn(), lazy_request, **choices)
            conclude_plan(context, plan, error, log=self.log)

    def _finish(self, context: Context, generation: Generation, hook: PictoryHook, job: Job) -> str:
        from pictory_provider.telemetry import report_lineage

        self.image_url = job.url
        if generation.target is None:
            return self._publish(context, generation, job.record())
        saved = generation.save(
            hook.get_conn(), job, overwrite=self.overwrite is True, mark_ai_generated=self.mark_ai_generated
        )
        report_lineage(hook, job, generation.target.uri)
        return self._publish(context, generation, {**saved, "reused": False})

    def _publish(self, context: Context, generation: Generation, image: dict[str, Any]) -> str:
        """Push the image record to XCom and to the outlets' events, and return the task's result."""
        from pictory_provider.api.checks import is_upload
        from pictory_provider.telemetry import report_assets

        if generation.target:
            request = generation.record.latest.request or {}
            image |= {name: request.get(name) for name in ("prompt", "model")}
            source = request.get("referenceImageUrl")
            self._lineage = (self.reference_image_url if is_upload(source) else source, image["path"])
        context["ti"].xcom_push(key=IMAGE_KEY, value=image)
        report_assets(context, self.outlets, image)
        return self._end(generation)

    def _end(self, generation: Generation) -> str:
        """Record that the attempt has ended, and return the task's result."""
        generation.record.end()
        if not generation.record.is_possible:
            # Airflow would push the result again. If that failed, the task would be retried and, without a record,
            # would buy another picture. The result was already pushed when the jobId became known.
            self.do_xcom_push = False
        return str(generation.job_id)
