# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Generate an image: submit the job, wait for it, save the picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from pictory_provider.api.models import DEFAULT_MODEL
from pictory_provider.operators.download import DownloadImageOperator, PictureOperator
from pictory_provider.provider_info import DEFAULT_CONN_ID, DEFAULT_POLL_INTERVAL, DEFAULT_TIMEOUT
from pictory_provider.telemetry import push_failure_xcom
from pictory_provider.version_compat import TaskDeferralError, TaskDeferralTimeout

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from airflow.providers.common.compat.sdk import BaseOperator, Context

    from pictory_provider.operators.tasks import CandidatesTask, PictureTask
    from pictory_provider.services.generate import LazyRequest

__all__ = ["DownloadImageOperator", "GenerateImageOperator"]


def check_result_use(task: BaseOperator, context: Context, *, is_list: bool = False) -> None:
    """Refuse, before anything is bought, uses of the result that Airflow would refuse afterwards.

    The result is a string, so it has no ``multiple_outputs``, and no task can be mapped over it. That of a task
    with candidates is a list, over which a task can be mapped.

    :raises RequestInvalid: says what to change.
    """
    from pictory_provider.api.errors import RequestInvalid

    problem = None
    map_index = context["ti"].map_index
    is_mapped = map_index is not None and map_index >= 0
    if task.multiple_outputs:
        problem = "multiple_outputs is on and needs a dict. Leave it out"
    elif not is_list and task.get_dag() and not is_mapped and next(task.iter_mapped_dependants(), None):
        problem = (
            "another task expands over it and needs a list. Map this task and expand over its outputs, or pass "
            "the jobId with .partial()"
        )
    if problem:
        raise RequestInvalid.unsent(
            f"The result of this task is {'a list of jobIds' if is_list else 'one jobId, a string'}; {problem}",
            fields=["multiple_outputs" if task.multiple_outputs else "job_id"],
        )


class GenerateImageOperator(PictureOperator):
    """Generate one picture with Pictory AI Studio. With ``path``, the task also waits for it and saves it.

    The XComs ``return_value`` and ``jobId`` are the jobId, a string. The task pushes both as soon as it has
    recorded the jobId. With ``wait_for_completion`` or ``path`` the XCom ``image`` is the image record when the
    task succeeds, and each asset in ``outlets`` gets the record as the ``extra`` of its event, without the query
    of the URL. With ``path`` the record also has ``path``, ``size``, ``sha256``, ``reused``, ``prompt`` and
    ``model``; with ``copies`` also ``copies``: a list with ``path``, ``format``, ``width``, ``height``, ``size``
    and ``sha256`` of each.

    With ``candidates`` from 2 on, the task generates that many pictures of the request, to choose from:
    ``cover.1.png``, ``cover.2.png`` and so on, each with its own sidecar and record. ``return_value`` and
    ``jobId`` are lists then, and the XCom ``images`` is the list of image records, each with ``candidate``, its
    number; the events of assets get it as ``images``.

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
    :param candidates: how many pictures to generate, 1 to 8; from 2 on ``path`` is required. Each is bought,
        counted against limits and reused like a picture of its own. If you raise the number, the next run buys
        what is missing.
    :param overwrite: ``True`` buys a new picture and replaces the one at ``path``: once, and once more after each
        clear. ``"changed"`` does so only if the picture there is of another request: a corrected prompt buys once,
        and a clear buys nothing more.
    :param copies: smaller files to make of the saved picture, next to it, such as
        ``[{"format": "webp", "width": 1200, "quality": 80}]`` for ``cover.1200.webp``. A format is ``webp``,
        ``jpeg`` (or ``jpg``), ``png`` or ``avif``; without a width, a copy is as wide as the picture. A re-run
        makes what is missing, for free. Needs ``path`` and the extra ``images``.
    :param cache_control: in object storage, the HTTP header ``Cache-Control`` for the picture and its copies, such
        as ``public, max-age=31536000``; a local file has none.
    :param mark_ai_generated: write into the saved PNG file, and into its copies, that it was generated by AI; see
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
        candidates: int = 1,
        overwrite: bool | str = False,
        mark_ai_generated: bool = False,
        copies: Sequence[dict[str, Any]] | None = None,
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
        self.candidates = candidates
        self.overwrite = overwrite
        self.mark_ai_generated = mark_ai_generated
        self.copies = copies
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
        self._task: PictureTask | CandidatesTask | None = None

    @push_failure_xcom
    def execute(self, context: Context) -> str | list[str]:
        """Check the arguments, reuse, adopt or submit, and push the jobId; wait and save if the task does so.

        :return: the jobId, or with ``candidates`` the list of them.
        """
        from pictory_provider.api.checks import (
            CHANGED,
            check_candidates,
            check_overwrite,
            check_policy,
            check_seconds,
            check_switch,
        )
        from pictory_provider.exceptions import airflow_errors
        from pictory_provider.services.spending import check_limits, skipped
        from pictory_provider.storage.copies import SaveOptions, check_installed
        from pictory_provider.storage.paths import warn_of_xcoms
        from pictory_provider.triggers.deferral import deadline

        with airflow_errors():
            lazy_request = self._lazy_request(context)
            for name in ("poll_interval", "timeout"):
                check_seconds(name, getattr(self, name))
            check_policy(self.on_unknown_submit)
            check_overwrite(self.overwrite)
            check_installed(SaveOptions.checked(cache_control=self.cache_control, copies=self.copies).copies)
            choices: dict[str, Any] = {
                "overwrite": self.overwrite is True,
                "replaces_changed": self.overwrite == CHANGED,
                "on_unknown_submit": self.on_unknown_submit,
                "max_credits": check_limits(self.max_credits, self.on_budget),
            }
            is_plan = check_switch("plan_only", self.plan_only)
            number = check_candidates(self.candidates)
            check_result_use(self, context, is_list=number > 1)
            task = self._begin(context, self.path, number)
        warn_of_xcoms(self.path, self.log)
        if self.mark_ai_generated and self.path is None:
            self.log.warning(
                "mark_ai_generated has no effect without a path: no file is saved that could be marked."
            )
        if is_plan:
            return self._plan(context, task, lazy_request, choices)
        choices["ends_at"] = deadline(self.execution_timeout)
        with skipped(self.on_budget):
            return task.execute(lazy_request, choices)

    @push_failure_xcom
    def execute_complete(
        self,
        context: Context,
        event: dict[str, Any],
        path: str | None = None,
        bought: dict[str, Any] | None = None,
        candidates: dict[str, Any] | None = None,
    ) -> str | list[str]:
        """Resume after the trigger's event: save the picture, or fail with the error of the job.

        :param path: as it was rendered before the deferral. ``dag.test()`` passes neither this nor ``bought``.
        :param bought: the record of the submission before the deferral.
        :param candidates: the state of each before the deferral.
        :return: the jobId, or with ``candidates`` the list of them.
        """
        from pictory_provider.services.spending import skipped

        number = (
            self.candidates
        )  # `dag.test()` passes nothing on; otherwise the DAG may have been edited meanwhile
        if candidates is not None:
            number = len(candidates)
        elif bought is not None or (path or self.path) is None:
            number = 1
        task = self._begin(context, self.path if path is None else path, number)
        with skipped(self.on_budget):
            return task.resume(event, bought or candidates)

    @push_failure_xcom
    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after a deferral. If Airflow itself has ended the deferral, poll the job once more."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except (TaskDeferralTimeout, TaskDeferralError) as error:
            return self._begin(context, self.path, self.candidates).resume_after(error)

    def on_kill(self) -> None:
        """Log what happens to the job. Pictory cannot cancel a job, and this does not clean it."""
        for generation in self._task.generations if self._task else ():
            generation.warn_of_kill()

    def set_lineage(self, source: str | None, paths: Sequence[str]) -> None:
        """Note what to report to OpenLineage: of an upload, the file."""
        from pictory_provider.api.checks import is_upload

        super().set_lineage(self.reference_image_url if is_upload(source) else source, paths)

    def _lazy_request(self, context: Context) -> LazyRequest:  # noqa: ARG002  the decorated operator needs it
        from pictory_provider.services.generate import LazyRequest

        return LazyRequest.from_operator(self)

    def _begin(self, context: Context, path: str | None, number: int) -> PictureTask | CandidatesTask:
        from pictory_provider.operators.tasks import CandidatesTask, PictureTask

        if number == 1:
            self._task = PictureTask(self, context, path)
        else:
            self._task = CandidatesTask(self, context, path, number)
        return self._task

    def _plan(
        self,
        context: Context,
        task: PictureTask | CandidatesTask,
        lazy_request: LazyRequest,
        choices: dict[str, Any],
    ) -> NoReturn:
        """Push the plan, and end the task as it would end, or skip it.

        :param choices: the arguments of :func:`pictory_provider.services.generate.plan`.
        """
        from pictory_provider.exceptions import airflow_errors
        from pictory_provider.hooks.pictory import PictoryHook
        from pictory_provider.services.generate import plan
        from pictory_provider.services.spending import conclude_plan, skipped

        conn_id = self.pictory_conn_id
        with skipped(self.on_budget), airflow_errors(conn_id, log=self.log), PictoryHook(conn_id) as hook:
            found, error = plan(task.generations, hook.get_conn(), lazy_request, **choices, log=self.log)
            conclude_plan(context, found, error, log=self.log)
