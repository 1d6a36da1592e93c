# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Generate many images in one task, from a table into a folder with a manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import BaseOperator

from pictory_provider.api.models import DEFAULT_MODEL
from pictory_provider.links.pictory import PictoryBatchLink
from pictory_provider.provider_info import DEFAULT_CONN_ID, DEFAULT_POLL_INTERVAL, DEFAULT_TIMEOUT
from pictory_provider.telemetry import push_failure_xcom
from pictory_provider.version_compat import TaskDeferralError, TaskDeferralTimeout

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from airflow.providers.common.compat.sdk import Context

    from pictory_provider.api.connection import ConnectionSettings
    from pictory_provider.services.batch.runner import Batch

__all__ = ["GenerateImageBatchOperator"]


class GenerateImageBatchOperator(BaseOperator):
    """Generate a picture for each row of a table with Pictory AI Studio, and save them all in a folder.

    A picture of the same request that exists already costs nothing, so a re-run buys only what is missing. Every
    row is checked before anything is sent, and one error names all bad rows. On every Airflow the record is in
    ``<path>/.pictory``, so all workers need access to the folder. A retry finds every job that was bought, and
    saves its picture. A clear does so too, and also submits the rows that failed and those whose outcome is
    unknown.

    At the end the folder has ``metadata.jsonl``, with a line for each picture, and ``failed.jsonl``, with a line
    for each row without one. The XCom ``return_value`` is ``{"of", "to_do", "waiting", "saved", "reused", "owed",
    "failed", "unknown", "not_bought", "skipped", "ai_credits_used", "manifest"}``; while the task runs, the XCom
    ``progress`` has all of it but ``manifest``. The XComs ``pictures_0``, ``pictures_1`` and so on have the image
    records of 50 rows each.

    :param requests: a list of prompts or of dicts; the rows of a database, with ``column_names``; a data frame, or
        any other object with ``__arrow_c_stream__``; or the path of a ``.csv``, ``.tsv`` or ``.jsonl`` file, also
        with ``.gz``, or of an ``.xlsx`` or ``.parquet`` file, local or any URL that ``ObjectStoragePath`` takes.
        Excel, Parquet and data frames need the extra ``tables``. A row's ``prompt``, ``file_name``, ``model``,
        ``aspect_ratio``, ``style`` and ``reference_image_url`` win over the arguments below; its other columns go
        into the manifest. (templated)
    :param path: the folder: an absolute local path, or any URL that ``ObjectStoragePath`` takes. Tasks, runs and
        map indexes that run at the same time need a folder each. (templated)
    :param column_names: the columns of rows that are tuples or lists, in their order. (templated)
    :param request_columns: which columns are fields of the request, such as
        ``{"prompt": "Description", "model": None}``; ``None`` says that no column is. A field that is not named
        here is taken from the column of its own name. (templated)
    :param skip_blank: a column; rows with a blank cell in it are left out and counted as ``skipped``. (templated)
    :param sheet: of an Excel file; by default its first visible one. (templated)
    :param on_bad_row: ``"fail"`` to buy nothing while a row is bad, or ``"skip"`` to leave bad rows out, list them
        in ``failed.jsonl`` and count them as failed.
    :param prompt: a pattern over the columns of a row, such as ``"{product} on a wooden table"``; ``{index}`` is
        the number of the row, from 0; ``{row[g:id]}`` names any column. (templated)
    :param file_name: a pattern for the path of a picture, relative to ``path``, such as ``"{sku}.png"``.
        (templated)
    :param candidates: pictures of each row, 1 to 8, to choose from: from 2 on ``cover.png`` becomes
        ``cover.1.png``, ``cover.2.png`` and so on, each bought and counted like a row.
    :param reference_image_url: a pattern for the picture to start from, public or private; see
        :class:`~pictory_provider.operators.pictory.GenerateImageOperator`. (templated)
    :param reference_upload: let reference images also be local PNG or JPEG files, such as
        ``/data/refs/{sku}.png``, and upload each content once. **Everyone who has the URL of an uploaded picture
        can see it, and Pictory keeps it for good.** (templated)
    :param model: of rows that name none.
    :param aspect_ratio: of rows that name none.
    :param style: of rows that name none.
    :param pictory_conn_id: the Airflow connection; its ``requests_per_second`` limits submissions and polls
        together. (templated)
    :param allow_unlisted: accept a model, style or ratio that this release does not know.
    :param overwrite: ``True`` buys all rows and replaces their pictures: once, and once more after each clear.
        ``"changed"`` buys and replaces only rows whose picture is of another request, such as a corrected prompt.
    :param copies: smaller files to make of each picture, next to it; see
        :class:`~pictory_provider.operators.pictory.GenerateImageOperator`. ``metadata.jsonl`` names them in
        ``copies``.
    :param cache_control: in object storage, the HTTP header ``Cache-Control`` for the files, such as
        ``public, max-age=31536000``; local files have none.
    :param mark_ai_generated: write into the saved PNG files that they were generated by AI; see
        :class:`~pictory_provider.operators.pictory.DownloadImageOperator`. Pictures that exist already are marked,
        and not bought.
    :param max_in_flight: the most jobs at Pictory at the same time.
    :param max_credits: the most AI credits that the task may spend, retries included. The listed price of all that
        is missing is compared with it before the first submission, and that of each wave before the wave; a clear
        resets what was spent.
    :param on_budget: what to do if a limit of this task or of the connection leaves too little for all that is
        missing: ``"fail"``, without a retry, or ``"skip"``, and buy nothing; or ``"partial"``, to buy as many rows
        as the limits allow, from the top of the table, count the others as ``not_bought``, and succeed. Rows that
        have failed before come last.
    :param plan_only: check everything, limits included, and buy nothing and write nothing: the XCom ``plan`` says
        what the task would do, and the task is skipped, or fails as it would. (templated)
    :param fail_on_partial_error: fail the task if a row has failed, after all other rows are saved. With ``False``
        the task still fails and is retried while a retry may save pictures that are paid for.
    :param deferrable: wait in the triggerer, without a worker slot.
    :param poll_interval: seconds, or a duration, between two polls of a job.
    :param timeout: seconds, or a duration, to wait for each job, from its submission on.
    :param on_unknown_submit: what to do if Pictory may or may not have accepted a row: ``"fail"``, or
        ``"resubmit"`` to submit it again, at most once per attempt, accepting that this may pay twice.
    :raises PictoryRequestInvalid: if rows or arguments are wrong, if another file is in a row's place, or if a
        retry's table is not that of the attempt before. Nothing is bought then.
    :raises PictoryBudgetExceeded: if a limit leaves too little for what is missing.
    :raises PictorySubmitOutcomeUnknown: if Pictory may or may not have accepted some rows.
    :raises PictoryJobFailed: if rows have no picture, and a retry would not give them one.
    :raises PictoryWaitTimeout: if jobs are still running after ``timeout``; a retry polls them once more.
    :raises PictoryStorageFailed: if the folder cannot be read or written, or another batch uses it.
    """

    template_fields: Sequence[str] = (
        "requests",
        "path",
        "prompt",
        "file_name",
        "reference_image_url",
        "reference_upload",
        "pictory_conn_id",
        "column_names",
        "request_columns",
        "skip_blank",
        "sheet",
        "plan_only",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"requests": "json", "prompt": "md"}
    operator_extra_links = (PictoryBatchLink(),)
    ui_color = "#efe7fb"

    def __init__(
        self,
        *,
        requests: Any,
        path: str,
        column_names: Sequence[str] | None = None,
        request_columns: dict[str, str | None] | None = None,
        skip_blank: str | None = None,
        sheet: str | None = None,
        on_bad_row: str = "fail",
        prompt: str | None = None,
        file_name: str = "{index:05d}.png",
        candidates: int = 1,
        reference_image_url: str | None = None,
        reference_upload: bool | str = False,
        model: str = DEFAULT_MODEL,
        aspect_ratio: str | None = None,
        style: str | None = None,
        pictory_conn_id: str = DEFAULT_CONN_ID,
        allow_unlisted: bool = False,
        overwrite: bool | str = False,
        mark_ai_generated: bool = False,
        copies: Sequence[dict[str, Any]] | None = None,
        cache_control: str | None = None,
        max_in_flight: int = 200,
        max_credits: float | None = None,
        on_budget: str = "fail",
        plan_only: bool | str = False,
        fail_on_partial_error: bool = True,
        deferrable: bool = True,
        poll_interval: float | timedelta = DEFAULT_POLL_INTERVAL,
        timeout: float | timedelta = DEFAULT_TIMEOUT,
        on_unknown_submit: str = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.requests = requests
        self.path = path
        self.column_names = column_names
        self.request_columns = request_columns
        self.skip_blank = skip_blank
        self.sheet = sheet
        self.on_bad_row = on_bad_row
        self.prompt = prompt
        self.file_name = file_name
        self.candidates = candidates
        self.reference_image_url = reference_image_url
        self.reference_upload = reference_upload
        self.model = model
        self.aspect_ratio = aspect_ratio
        self.style = style
        self.pictory_conn_id = pictory_conn_id
        self.allow_unlisted = allow_unlisted
        self.overwrite = overwrite
        self.mark_ai_generated = mark_ai_generated
        self.copies = copies
        self.cache_control = cache_control
        self.max_in_flight = max_in_flight
        self.max_credits = max_credits
        self.on_budget = on_budget
        self.plan_only = plan_only
        self.fail_on_partial_error = fail_on_partial_error
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.timeout = timeout
        self.on_unknown_submit = on_unknown_submit
        self._batch: Batch | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Check every row; reuse, adopt and submit; wait and save; write the manifest.

        :return: the counts of rows by their state, and the path of the manifest; see the class.
        """
        return self._run(context, is_resumed=False)

    def execute_complete(
        self, context: Context, event: dict[str, Any] | None = None, folder: str | None = None
    ) -> dict[str, Any]:
        """Resume after the trigger's event, and save the pictures of the jobs that it reports.

        :param event: of :class:`~pictory_provider.triggers.batch.PictoryJobsTrigger`. If this release does not
            understand it, the batch polls every job.
        :param folder: of the batch: ``path`` as it was rendered before the deferral.
        """
        return self._run(context, is_resumed=True, event=event or {}, folder=folder)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after a deferral, even if Airflow itself has ended it: the folder's record names the jobs."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except (TaskDeferralTimeout, TaskDeferralError) as error:
            self.log.warning("Airflow ended the deferral: %s. Is a triggerer running, and is it healthy?", error)
            return self._run(context, is_resumed=True)

    def on_kill(self) -> None:
        """Submit nothing more. Pictory cannot cancel a job, and this cleans none."""
        if self._batch:
            self._batch.kill()
            self.log.warning(
                "The task was killed. Its jobs keep running at Pictory and are on record in %s/.pictory: a retry "
                "or a clear of this task saves their pictures.",
                self.path,
            )

    @push_failure_xcom
    def _run(
        self,
        context: Context,
        *,
        is_resumed: bool,
        event: dict[str, Any] | None = None,
        folder: str | None = None,
    ) -> dict[str, Any]:
        from pictory_provider.exceptions import airflow_errors
        from pictory_provider.hooks.pictory import PictoryHook
        from pictory_provider.services.batch.outcome import refusal_reported
        from pictory_provider.services.batch.preview import preview
        from pictory_provider.services.batch.runner import Batch, PendingJobs
        from pictory_provider.services.batch.spec import BatchSpec
        from pictory_provider.services.spending import skipped
        from pictory_provider.storage.paths import warn_of_xcoms
        from pictory_provider.telemetry import report_assets, report_output
        from pictory_provider.triggers.deferral import deadline, defer_batch, warn_of_short_interval

        ends_at = deadline(self.execution_timeout)
        with skipped(self.on_budget), airflow_errors(self.pictory_conn_id, log=self.log):
            with refusal_reported(self, context):
                spec = BatchSpec.from_operator(self)
            if not is_resumed:
                warn_of_short_interval(self, "poll_interval", spec.poll_interval)
                warn_of_xcoms(self.path, self.log)
            with PictoryHook(self.pictory_conn_id) as hook:

                def settings() -> ConnectionSettings:
                    hook.close()  # so that get_conn() reads the connection again
                    return hook.get_conn().settings

                if spec.is_plan:
                    preview(spec, context, settings(), retries=self.retries, log=self.log)
                with Batch(spec, context, settings, retries=self.retries, ends_at=ends_at, log=self.log) as batch:
                    self._batch = batch
                    try:
                        result = batch.run(is_resumed=is_resumed, event=event, folder=folder)
                    finally:
                        if batch.has_manifest:
                            report_output(hook, batch.uri)
            if isinstance(result, PendingJobs):
                defer_batch(self, result)
            report_assets(context, self.outlets, result)
            return result
