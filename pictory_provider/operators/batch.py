# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Have many pictures made by one task: a table in, a folder of pictures and a manifest out."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import BaseOperator

from pictory_provider.api.errors import RequestInvalid
from pictory_provider.api.models import DEFAULT_MODEL
from pictory_provider.compat import TaskDeferralError, TaskDeferralTimeout, shortest_absence
from pictory_provider.exceptions import airflow_errors
from pictory_provider.jobs.polling import DEFAULT_POLL_INTERVAL, DEFAULT_TIMEOUT, deferral_timeout
from pictory_provider.links.pictory import PictoryBatchLink
from pictory_provider.order import check_policy
from pictory_provider.provider_info import DEFAULT_CONN_ID
from pictory_provider.spending import check_limits, skipped
from pictory_provider.telemetry import report_assets, tells_why
from pictory_provider.waiting import seconds, warn_if_impolite

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from airflow.providers.common.compat.sdk import Context

    from pictory_provider.batch.seen import Seen
    from pictory_provider.batching.work import Batch, Deferral, Wish

__all__ = ["GenerateImageBatchOperator"]


class GenerateImageBatchOperator(BaseOperator):
    """Have Pictory AI Studio make a picture for each row of a table, and save them all in a folder.

    What lies there already, made by the very same request, costs nothing: a re-run buys what is missing. Every row
    is checked before anything is sent, and one error names all that are bad. Its record lies in
    ``<path>/.pictory``, on every Airflow, so all workers have to see the folder. A retry finds every job that was
    bought, and saves it; a user's clear does so too, and buys the rows that failed, and those of which nobody can
    know whether they were bought.

    In the end the folder has ``metadata.jsonl``, a line for each picture, and ``failed.jsonl``, a line for each
    row without one. The XCom ``return_value`` is ``{"of", "to_do", "waiting", "saved", "reused", "failed",
    "unknown", "not_bought", "ai_credits_used", "manifest"}``; all of it but ``manifest`` lies under ``progress``
    while the task runs. The image records lie in the XComs ``pictures_0``, ``pictures_1`` and so on, for 50 rows
    each.

    :param requests: a list of prompts, or of dicts; or the path of a ``.csv`` or ``.jsonl`` file, local or any URL
        that ``ObjectStoragePath`` takes. A row's own ``prompt``, ``file_name``, ``model``, ``aspect_ratio``,
        ``style`` and ``reference_image_url`` win over the arguments below; what else it holds goes into the
        manifest. (templated)
    :param path: the folder: an absolute local path, or any URL that ``ObjectStoragePath`` takes. Each task, run
        and map index that runs at the same time needs its own. (templated)
    :param prompt: a pattern over the columns of a row, such as ``"{product} on a wooden table"``; ``{index}`` is
        the number of the row, from 0. (templated)
    :param file_name: a pattern for where a picture goes, relative to ``path``, such as ``"{sku}.png"``.
        (templated)
    :param reference_image_url: a pattern for the picture to start from, public or private; see
        :class:`~pictory_provider.operators.pictory.GenerateImageOperator`. (templated)
    :param model: of rows that name none.
    :param aspect_ratio: of rows that name none.
    :param style: of rows that name none.
    :param pictory_conn_id: the Airflow connection; its ``requests_per_second`` is the pace of submissions and
        looks together. (templated)
    :param allow_unlisted: let a model, style or ratio pass that this release does not know.
    :param overwrite: buy all rows and replace what lies there: once, and once more after each clear.
    :param mark_ai_generated: write into the saved PNG files that a machine made them; see
        :class:`~pictory_provider.operators.pictory.DownloadImageOperator`. Pictures that lie there already are
        marked, and not bought.
    :param max_in_flight: jobs at Pictory at once.
    :param max_credits: the most AI credits that the task may spend, retries included, compared with the listed
        price of what is missing before the first of it is sent, and before each wave; a clear begins anew.
    :param on_budget: what to do where a limit, of this task or of the connection, has stopped purchases:
        ``"fail"``, without a retry, or ``"skip"``. What was bought is waited for and saved before that.
    :param fail_on_partial_error: fail the task, after all else is saved, where a row has failed.
    :param deferrable: wait in the triggerer, without a worker slot.
    :param poll_interval: seconds, or a duration, between two looks at a job.
    :param timeout: seconds, or a duration, to wait for each job, from its submission on.
    :param on_unknown_submit: what to do where Pictory may or may not have accepted a row: ``"fail"``, or
        ``"resubmit"``, which rather pays twice than waits for someone; once for each try.
    :raises PictoryRequestInvalid: where rows or arguments are wrong, where something else lies in a row's place,
        or where a retry's table is not that of the try before; nothing was bought by that.
    :raises PictoryBudgetExceeded: where a limit leaves too little for what is missing.
    :raises PictorySubmitOutcomeUnknown: where Pictory may or may not have accepted some rows.
    :raises PictoryJobFailed: where rows have no picture, and no retry would give them one.
    :raises PictoryWaitTimeout: where jobs were still running after ``timeout``; a retry looks once more.
    :raises PictoryStorageFailed: where the folder cannot be read or written, or is in use by another batch.
    """

    template_fields: Sequence[str] = (
        "requests",
        "path",
        "prompt",
        "file_name",
        "reference_image_url",
        "pictory_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"requests": "json", "prompt": "md"}
    operator_extra_links = (PictoryBatchLink(),)
    ui_color = "#efe7fb"

    def __init__(
        self,
        *,
        requests: Any,
        path: str,
        prompt: str | None = None,
        file_name: str = "{index:05d}.png",
        reference_image_url: str | None = None,
        model: str = DEFAULT_MODEL,
        aspect_ratio: str | None = None,
        style: str | None = None,
        pictory_conn_id: str = DEFAULT_CONN_ID,
        allow_unlisted: bool = False,
        overwrite: bool = False,
        mark_ai_generated: bool = False,
        max_in_flight: int = 200,
        max_credits: float | None = None,
        on_budget: str = "fail",
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
        self.prompt = prompt
        self.file_name = file_name
        self.reference_image_url = reference_image_url
        self.model = model
        self.aspect_ratio = aspect_ratio
        self.style = style
        self.pictory_conn_id = pictory_conn_id
        self.allow_unlisted = allow_unlisted
        self.overwrite = overwrite
        self.mark_ai_generated = mark_ai_generated
        self.max_in_flight = max_in_flight
        self.max_credits = max_credits
        self.on_budget = on_budget
        self.fail_on_partial_error = fail_on_partial_error
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.timeout = timeout
        self.on_unknown_submit = on_unknown_submit
        self._batch: Batch | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Check every row; take, adopt and buy; wait and save; write the manifest."""
        return self._go_on(context, is_leg=False)

    def execute_complete(
        self, context: Context, event: dict[str, Any] | None = None, folder: str | None = None
    ) -> dict[str, Any]:
        """Go on after the trigger's event, and save what it tells of.

        An event that crossed the database and cannot be understood is not believed: then Pictory is asked again.

        :param folder: where the record lies; ``path`` as it was rendered before the deferral.
        """
        from pictory_provider.batch import seen as events

        seen = events.read(event)
        if seen is None:
            self.log.warning(
                "Awake again, by an event that this release does not understand: all jobs are asked for."
            )
        else:
            self.log.info("Awake again: %s of %s jobs have ended.", seen.ended, seen.of)
        return self._go_on(context, is_leg=True, seen=seen, folder=folder)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after a deferral, after one that Airflow itself ended too: the record says what to look at."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except (TaskDeferralTimeout, TaskDeferralError) as error:
            self.log.warning("Airflow ended the deferral: %s. Is a triggerer running, and is it healthy?", error)
            return self._go_on(context, is_leg=True)

    def on_kill(self) -> None:
        """Buy nothing more. Pictory knows no cancel, and nothing is cleaned."""
        if self._batch:
            self._batch.kill()
            self.log.warning(
                "The task was ended. Jobs that were bought run on at Pictory, and are on record in %s/.pictory: a "
                "retry or a clear of this task saves them.",
                self.path,
            )

    @tells_why
    def _go_on(
        self, context: Context, *, is_leg: bool, seen: Seen | None = None, folder: str | None = None
    ) -> dict[str, Any]:
        limit = self.execution_timeout
        ends_at = None if limit is None else time.monotonic() + limit.total_seconds()
        with skipped(self.on_budget), airflow_errors(self.pictory_conn_id, log=self.log):
            wish = self._wish()
            if not is_leg:
                warn_if_impolite(self, "poll_interval", wish.how.poll_interval)
            from pictory_provider.batching.work import Batch, Deferral
            from pictory_provider.hooks.pictory import PictoryHook

            with (
                PictoryHook(self.pictory_conn_id) as hook,
                Batch(wish, context, hook, retries=self.retries, ends_at=ends_at, log=self.log) as batch,
            ):
                self._batch = batch
                result = batch.run(is_leg=is_leg, seen=seen, folder=folder)
            if isinstance(result, Deferral):
                self._wait_for(result, wish)
            report_assets(context, self.outlets, result)
            return result

    def _wish(self) -> Wish:
        """Return what the arguments ask for, checked."""
        from pictory_provider.batch.rows import RowMaker
        from pictory_provider.batching.saving import HowTo
        from pictory_provider.batching.work import Wish

        check_policy(self.on_unknown_submit)
        return Wish(
            requests=self.requests,
            path=self.path,
            rows=RowMaker(
                conn_id=self.pictory_conn_id,
                prompt=self.prompt,
                file_name=self.file_name,
                reference_image_url=self.reference_image_url,
                model=self.model,
                aspect_ratio=self.aspect_ratio,
                style=self.style,
                allow_unlisted=self.allow_unlisted,
            ),
            how=HowTo(
                conn_id=self.pictory_conn_id,
                poll_interval=seconds("poll_interval", self.poll_interval),
                timeout=seconds("timeout", self.timeout),
                overwrite=self.overwrite,
                mark_ai_generated=self.mark_ai_generated,
            ),
            max_in_flight=_count("max_in_flight", self.max_in_flight),
            max_credits=check_limits(self.max_credits, self.on_budget),
            fail_on_partial_error=self.fail_on_partial_error,
            resubmit=self.on_unknown_submit == "resubmit",
            is_deferrable=self.deferrable,
        )

    def _wait_for(self, jobs: Deferral, wish: Wish) -> NoReturn:
        from pictory_provider.triggers.batch import PictoryJobsTrigger

        now = time.time()
        first_poll_at = now + min(wish.how.poll_interval, 1.0)
        first_event_at = max(first_poll_at, now + shortest_absence())
        self.log.info("Waiting for %s jobs without a worker.", f"{len(jobs.job_ids):,}")
        left = max(*jobs.end_times, first_event_at) - now
        self.defer(
            trigger=PictoryJobsTrigger(
                job_ids=jobs.job_ids,
                end_times=jobs.end_times,
                pictory_conn_id=self.pictory_conn_id,
                poll_interval=wish.how.poll_interval,
                timeout=wish.how.timeout,
                first_poll_at=first_poll_at,
                first_event_at=first_event_at,
                progress=jobs.progress,
            ),
            method_name="execute_complete",
            kwargs={"folder": jobs.folder},
            timeout=timedelta(seconds=deferral_timeout(left, wish.how.poll_interval)),
        )


def _count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise RequestInvalid(
            f"{name} is {value!r}; it takes a whole number from 1 on. Nothing was sent and nothing was spent.",
            fields=[name],
        )
    return value
