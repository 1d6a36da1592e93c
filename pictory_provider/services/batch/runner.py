# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Run a batch on a worker, from its start or resumption to the next deferral, or to the end.

:mod:`pictory_provider.core.batch.plan` decides what is next. Whatever fails here leaves the record behind, so that
a retry finds every job that was submitted.
"""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from airflow.providers.common.compat.sdk import AirflowException, AirflowTaskTimeout

from pictory_provider.api.errors import PictoryError
from pictory_provider.api.text import counted, wrap_sentences
from pictory_provider.client.throttle import PacedClient, ThreadRateLimiter
from pictory_provider.core.batch import events
from pictory_provider.core.batch.plan import WAVE, SubmitWave, Wait, line, may_be_bought
from pictory_provider.core.log_throttle import SampledLog
from pictory_provider.services.batch.budget import BatchBudget
from pictory_provider.services.batch.collector import JobCollector
from pictory_provider.services.batch.outcome import (
    ends_task,
    final_error,
    report_refusal,
    write_failures,
    write_manifest,
)
from pictory_provider.services.batch.progress import ProgressReporter
from pictory_provider.services.batch.state import BatchRecord
from pictory_provider.services.batch.wave import Wave
from pictory_provider.storage.folder import Folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.providers.common.compat.sdk import Context

    from pictory_provider.api.connection import ConnectionSettings
    from pictory_provider.core.batch.plan import Plan
    from pictory_provider.services.batch.spec import BatchSpec

_KILLED = (
    "The task was ended from outside. Its jobs keep running at Pictory and are on record. A retry or a clear "
    "saves their pictures, and buys none of them again."
)
_OUT_OF_TIME = (
    "The task's execution_timeout is over. What was bought is on record. A retry saves it, buys none of it again, "
    "and continues with what is missing."
)
_MOST_BYTES = 60_000
"""Bytes of jobs in a trigger's arguments: MySQL stores 64 kB. Further jobs wait for the next deferral."""
_BYTES_PER_DEADLINE = 16
"""Bytes of a job's deadline and of the separators."""


class PendingJobs(NamedTuple):
    """Jobs that the triggerer waits for.

    All but ``folder`` are arguments of :class:`~pictory_provider.triggers.batch.PictoryJobsTrigger`.

    :param job_ids: in the order of their submission.
    :param end_times: epoch seconds of the deadline of each.
    :param pictory_conn_id: the Airflow connection.
    :param poll_interval: seconds between two polls of one job.
    :param timeout: seconds from the submission of a job to its deadline.
    :param progress: of the batch.
    :param folder: of the batch.
    """

    job_ids: list[str]
    end_times: list[int]
    pictory_conn_id: str
    poll_interval: float
    timeout: float
    progress: dict[str, Any]
    folder: str


class Batch:
    """One run of a batch on a worker.

    :param settings: reads the Airflow connection; called again after a 401.
    :param retries: of the task.
    :param ends_at: seconds of the monotonic clock; nothing is submitted after that.
    """

    def __init__(
        self,
        spec: BatchSpec,
        context: Context,
        settings: Callable[[], ConnectionSettings],
        *,
        retries: int | None,
        ends_at: float | None,
        log: Any,
    ) -> None:
        self._spec = spec
        self._context = context
        self._settings = settings
        self._ends_at = ends_at
        self._log = log
        self._quiet = SampledLog(log)
        self._no_more = threading.Event()
        self._is_killed = False
        self._pool = ThreadPoolExecutor(WAVE, thread_name_prefix="pictory-submit")
        self._collector: JobCollector | None = None
        self.has_manifest = False
        self._record = BatchRecord(Folder(spec.path), context, retries=retries)
        self._clients: list[PacedClient] = []
        self._rate_limiter: ThreadRateLimiter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, *__: object) -> None:
        self._no_more.set()
        # A failed attempt does not wait for downloads: they are free, and the next attempt finds what they save.
        self._pool.shutdown(wait=error is None, cancel_futures=True)
        if self._collector:
            self._collector.close(is_patient=error is None)
        for client in self._clients:
            client.close()

    @property
    def uri(self) -> str:
        """The folder as a URI, for lineage."""
        return self._folder.uri

    def kill(self) -> None:
        """Stop submissions as soon as possible."""
        self._is_killed = True
        self._no_more.set()

    def run(
        self, *, is_resumed: bool, event: dict[str, Any] | None = None, folder: str | None = None
    ) -> PendingJobs | dict[str, Any]:
        """Run until there is nothing left to do but wait, or until the end.

        :param is_resumed: whether this is the same attempt after a deferral.
        :param event: of the trigger that resumed this attempt.
        :param folder: of the record, if it is known.
        :return: the task's result, or the jobs to wait for.
        """
        jobs_event = self._read_event(event) if is_resumed and event is not None else None
        try:
            resumed = self._record.open(
                self._spec.read_table(
                    Folder(folder) if folder else self._folder, is_resumed=is_resumed, log=self._log
                ),
                is_resumed=is_resumed,
                conn_id=self._spec.conn_id,
                kept_in=folder,
            )
            existing = self._record.existing(
                resumed, is_marking=self._spec.mark_ai_generated, copies=self._spec.copy_names
            )
            plan = self._spec.plan(resumed, existing)
            if not is_resumed:
                changed = [row.file_name for row in plan.missing if plan.end_of(row).is_changed]
                copies = self._spec.save_options.copies
                refused = self._folder.refused(changed, overwrite=True, copies=copies) if changed else {}
                self._record.check_replaceable(refused)
        except PictoryError as error:
            report_refusal(self._record, error, log=self._log)
            raise
        is_marking = self._spec.mark_ai_generated
        incomplete = {
            name: each.sidecar
            for name, each in existing.items()
            if each.sidecar
            and each.is_incomplete(mark_ai_generated=is_marking, copies=self._spec.save_options.copies)
        }
        taken = frozenset(existing)
        wanted = {row.file_name for row in may_be_bought(plan)}
        seen = {name: each for name, each in existing.items() if name in wanted}
        del existing
        budget = BatchBudget.from_spec(self._spec, plan, dag_id=self._record.made_by.dag_id, log=self._log)
        self._record.write(plan.journal)
        try:
            if not is_resumed:
                self._record.check_unchanged(wanted, seen)
                self._record.finish_redos(seen)
                self._folder.forget_failures(self._log)
            reporter = ProgressReporter(
                self._context["ti"], plan, self._folder, self._spec, self._log, is_resumed=is_resumed
            )
            reporter.log_start(resumed.start, resumed.warning)
            self._collector = collector = JobCollector(
                plan,
                self._record,
                self._spec,
                taken=taken,
                event=jobs_event,
                renew=self._new_client,
                on_saved=reporter.saved,
                log=self._log,
                quiet=self._quiet,
            )
            if incomplete or (is_marking and not is_resumed):
                collector.saver.complete(incomplete, collector.client)
            if not is_resumed:
                budget.check(collector.client)
                if plan.error:
                    self._log.warning("Nothing is submitted: %s", plan.error.message)
            waited = self._carry_out(plan, collector, reporter, budget)
            self._quiet.sum_up()
            if waited:
                self._record.write(plan.journal)
                self._spec.uploads.keep_names(self._log)
                return self._deferral(waited, reporter.report())
            return self._finish(plan, collector, reporter)
        except BaseException as error:
            self._after_failure(plan, error)
            raise

    @property
    def _folder(self) -> Folder:
        return self._record.folder

    def _read_event(self, event: dict[str, Any]) -> events.JobsEvent | None:
        jobs_event = events.read(event)
        if jobs_event is None:
            self._log.warning("This release does not understand the trigger's event, so it polls every job.")
        else:
            self._log.info("Resumed: %s of %s ended.", f"{jobs_event.ended:,}", counted(jobs_event.of, "job"))
        return jobs_event

    def _carry_out(
        self, plan: Plan, collector: JobCollector, reporter: ProgressReporter, budget: BatchBudget
    ) -> Wait | None:
        """Do one step after the other; return if the batch is done, or can only wait in the triggerer.

        Polls and downloads continue in their threads while a wave is submitted.
        """
        has_stopped = plan.error is not None
        while True:
            self._between(plan, reporter)
            collector.go_on()
            step = plan.next(_wave_size(collector.client.settings))
            if isinstance(step, SubmitWave):
                purchases = budget.reserve(collector.client, step.rows)
                if purchases is not None:
                    wave = SubmitWave(step.rows[: len(purchases)])
                    self._wave(plan, collector).submit(wave, purchases)
                    budget.settle(wave.rows, purchases)
                if plan.error and not has_stopped:
                    has_stopped = True
                    self._log.warning("Submissions have stopped: %s", plan.error.message)
            elif collector.is_busy:
                collector.wait()
            elif step is None:
                return None
            elif self._spec.is_deferrable and not collector.is_worth_staying:
                return step
            else:
                self._sleep(plan, collector.next_poll_at, reporter)

    def _finish(self, plan: Plan, collector: JobCollector, reporter: ProgressReporter) -> dict[str, Any]:
        self._record.check_ownership(plan.journal.header)
        manifest = write_manifest(plan, self._folder)
        self.has_manifest = True
        now = reporter.report()
        reporter.report_failures()
        result = {**now, "manifest": manifest}
        error = final_error(
            plan,
            self._folder,
            collector.client.settings,
            fail_on_partial_error=self._spec.fail_on_partial_error,
            is_last_try=self._record.is_last_try,
            log=self._log,
        )
        self._log.info("%s. The manifest is %s.", line(now), manifest)
        if error is not None:
            raise error
        self._record.end(plan.journal)
        return result

    def _after_failure(self, plan: Plan, error: BaseException) -> None:
        """Write the record and ``failed.jsonl``, and record whether this attempt was the last."""
        try:
            self._record.write(plan.journal)
            # Until the record says that this attempt has ended, no other batch uses the folder.
            if not self.has_manifest and self._record.is_ours(plan.journal):
                write_failures(self._folder, plan, error, log=self._log)
            if ends_task(error, self._record):
                plan.journal.set_header(has_ended=True)
                self._record.write(plan.journal)
        except Exception as unwritten:
            self._log.warning("Could not write the record of the batch; it stays as it was: %r", unwritten)

    def _wave(self, plan: Plan, collector: JobCollector) -> Wave:
        assert self._rate_limiter is not None
        return Wave(
            plan,
            self._record,
            collector.client,
            self._rate_limiter,
            self._pool,
            uploads=self._spec.uploads,
            ends_at=self._ends_at,
            no_more=self._no_more,
            log=self._log,
            quiet=self._quiet,
        )

    def _new_client(self) -> PacedClient:
        """Read the Airflow connection, again if it was read before, and return a client of it."""
        settings = self._settings()
        self._rate_limiter = self._rate_limiter or ThreadRateLimiter(settings.requests_per_second)
        self._clients.append(PacedClient(settings, self._rate_limiter))
        return self._clients[-1]

    def _between(self, plan: Plan, reporter: ProgressReporter) -> None:
        self._check_time()
        if self._record.is_due(plan.journal):
            self._record.write(plan.journal)
        reporter.tick()

    def _check_time(self) -> None:
        if self._is_killed:
            raise AirflowException(wrap_sentences(_KILLED, after="AirflowException: "))
        if self._ends_at is not None and time.monotonic() >= self._ends_at:
            raise AirflowTaskTimeout(wrap_sentences(_OUT_OF_TIME, after="AirflowTaskTimeout: "))

    def _sleep(self, plan: Plan, until: float, reporter: ProgressReporter) -> None:
        while (left := until - time.time()) > 0:
            self._between(plan, reporter)
            time.sleep(min(left, 1.0))

    def _deferral(self, waited: Wait, progress: dict[str, Any]) -> PendingJobs:
        now, spec, left = time.time(), self._spec, _MOST_BYTES
        job_ids, end_times = [], []
        for _, job_id, submitted_at in waited.pending_jobs:
            left -= len(json.dumps(job_id)) + _BYTES_PER_DEADLINE
            if left < 0:
                break
            job_ids.append(job_id)
            end_times.append(round((now if submitted_at is None else submitted_at) + spec.timeout))
        return PendingJobs(
            job_ids, end_times, spec.conn_id, spec.poll_interval, spec.timeout, progress, self._folder.path
        )


def _wave_size(settings: ConnectionSettings) -> int:
    """Return how many requests a wave may have, so that its pace lets it be sent within a minute."""
    return max(1, min(WAVE, int(60 * settings.requests_per_second)))
