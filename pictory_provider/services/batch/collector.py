# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Poll jobs and save the pictures of completed ones, in threads, while the worker does other things.

Up to eight threads poll, and up to eight save (:mod:`pictory_provider.services.batch.saving`). For each job a
:class:`~pictory_provider.core.polling.JobPoller` decides what follows a reply. Only the thread that owns the plan
writes into it, in :meth:`JobCollector.go_on`.
"""

from __future__ import annotations

import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, NamedTuple

from pictory_provider.api.errors import (
    AuthenticationError,
    JobFailed,
    JobNotFound,
    PictoryError,
    StorageFailed,
    Unavailable,
)
from pictory_provider.api.models import Job
from pictory_provider.client.retrying import get_job
from pictory_provider.core.batch.schedule import PollSchedule
from pictory_provider.core.events import is_fresh
from pictory_provider.core.polling import Finished, JobPoller
from pictory_provider.services.batch.saving import PictureSaver, result_of
from pictory_provider.telemetry import count

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from pictory_provider.client.retrying import Log
    from pictory_provider.client.throttle import PacedClient
    from pictory_provider.core.batch.events import JobsEvent
    from pictory_provider.core.batch.plan import PendingJob, Plan
    from pictory_provider.core.batch.rows import Row
    from pictory_provider.services.batch.spec import BatchSpec
    from pictory_provider.services.batch.state import BatchRecord
    from pictory_provider.storage.download import Saved, SavedImage

AT_ONCE = 8
"""Jobs that are polled at the same time."""
_TICK = 1.0
_GONE_FOR_GOOD = ("JobFailed", "JobCleaned")
"""Ends of a job after which it gives no picture. After any other a later attempt polls it again."""


class _Running(NamedTuple):
    """What a thread is doing.

    :param job: whose picture it saves; ``None`` if it polls.
    :param is_from_trigger: whether the trigger has reported the job, and this worker has not polled it.
    """

    pending: PendingJob
    client: PacedClient
    job: Job | None = None
    is_from_trigger: bool = False


class JobCollector:
    """Polls and saves while a batch runs on this worker.

    :param taken: file names at which something existed when this attempt began.
    :param event: of the trigger that resumed this worker.
    :param renew: reads the Airflow connection again, and returns a client of it.
    :param on_saved: called with each picture that was saved.
    :param quiet: logs what each single job has to say.
    :ivar saver: saves the pictures.
    """

    def __init__(
        self,
        plan: Plan,
        record: BatchRecord,
        spec: BatchSpec,
        *,
        taken: Collection[str],
        event: JobsEvent | None,
        renew: Callable[[], PacedClient],
        on_saved: Callable[[Row, SavedImage], None],
        log: Log,
        quiet: Log,
    ) -> None:
        self._plan = plan
        self._spec = spec
        self._renew = renew
        self._client = renew()
        self._on_saved = on_saved
        self._log = log
        self._quiet = quiet
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="pictory-poll")
        self.saver = PictureSaver(plan, record, spec, taken=taken, log=log, quiet=quiet)
        self._running: dict[Future[Any], _Running] = {}
        self._polls = 0
        self._schedule = PollSchedule(spec.poll_interval, can_defer=spec.is_deferrable)
        self._pollers: dict[str, JobPoller] = {}
        self._refused: AuthenticationError | None = None
        self._begin(event)

    @property
    def client(self) -> PacedClient:
        """The client of the connection as it was last read."""
        return self._client

    @property
    def is_busy(self) -> bool:
        """Whether a job is being polled, or a picture saved."""
        return bool(self._running)

    @property
    def next_poll_at(self) -> float:
        """When the next job is due to be polled; epoch seconds, or infinity."""
        return self._schedule.next_at

    @property
    def is_worth_staying(self) -> bool:
        """Whether to wait for the next poll on this worker, rather than to defer."""
        return self._schedule.is_worth_staying(time.time())

    def close(self, *, is_patient: bool) -> None:
        """Begin nothing more.

        :param is_patient: wait for what the threads are doing.
        """
        self._pool.shutdown(wait=is_patient, cancel_futures=True)
        self.saver.close(is_patient=is_patient)

    def go_on(self) -> None:
        """Take the results of threads that are done, and begin the next polls. This waits for nothing."""
        for future in [future for future in self._running if future.done()]:
            running = self._running.pop(future)
            if running.job is None:
                self._polls -= 1
                self._after_poll(running, future)
            else:
                self._after_saving(running, future)
        for key, pending in self._plan.pending_jobs.items():
            if key not in self._schedule:
                self._schedule.add(key, (pending.submitted_at or 0.0) + self._spec.poll_interval)
        while self._polls < AT_ONCE and (due := self._schedule.next_due(time.time())) is not None:
            self._poll(self._plan.pending_jobs[due])

    def wait(self) -> None:
        """Wait until a thread is done, or a job is due to be polled: for a second at most."""
        until = _TICK
        if self._polls < AT_ONCE:
            until = min(until, max(0.0, self.next_poll_at - time.time()))
        wait(self._running, timeout=until, return_when=FIRST_COMPLETED)

    def _begin(self, event: JobsEvent | None) -> None:
        """Schedule a poll of every job for now, except for those that the trigger has just polled."""
        now, pending_jobs = time.time(), self._plan.pending_jobs
        # If the trigger did not wait for all jobs, or does not name all that ended, others may have ended, too.
        is_known = event is not None and event.is_whole and event.of == len(pending_jobs)
        later = 0.0 if event is None or not is_known else event.at + self._spec.poll_interval
        for key, pending in pending_jobs.items():
            job = event.jobs.get(pending.job_id) if event else None
            if event and job and is_fresh(event.seen_at[job.job_id], now):
                self._schedule.add(key, float("inf"))
                self._save(pending, job, is_from_trigger=True)
            else:
                has_ended = event is not None and (job is not None or pending.job_id in event.others)
                self._schedule.add(key, 0.0 if has_ended else later, is_first=has_ended or not is_known)

    def _poll(self, pending: PendingJob) -> None:
        if self._refused:
            self._ended(pending, self._refused)
            return
        self._polls += 1
        client = self._client
        self._running[self._pool.submit(get_job, client, pending.job_id)] = _Running(pending, client)

    def _save(self, pending: PendingJob, job: Job, *, is_from_trigger: bool = False) -> None:
        future = self.saver.begin(pending, job, self._client)
        self._running[future] = _Running(pending, self._client, job, is_from_trigger)

    def _after_poll(self, running: _Running, future: Future[Job]) -> None:
        """Begin to save a completed job's picture, or schedule the next poll."""
        pending = running.pending
        row = pending.row
        now, answer = time.time(), result_of(future)
        count("pictory.polled")
        if isinstance(answer, Exception) and not isinstance(answer, PictoryError):
            self._log.error("%s, %s: unexpected error", row.label, row.file_name, exc_info=answer)
            self._ended(pending, Unavailable(f"Its job could not be polled: {answer!r}"))
            return
        decision = self._poller(pending, now).after(answer, now)
        if isinstance(decision, Finished):
            if isinstance(decision.result, Job):
                self._save(pending, decision.result)
            else:
                self._ended(pending, decision.result)
        elif decision.renew_connection:
            if running.client is self._client:
                self._client = self._renew()
            self._poll(pending)
        else:
            self._schedule.still_running(row.key, now, decision.seconds)
            if not decision.is_normal:
                self._quiet.warning("%s", decision.reason)
            self._plan.still_running(row, since=now)

    def _poller(self, pending: PendingJob, now: float) -> JobPoller:
        key = pending.row.key
        if key not in self._pollers:
            started_at = now if pending.submitted_at is None else pending.submitted_at
            self._pollers[key] = JobPoller(
                job_id=pending.job_id,
                started_at=started_at,
                end_time=started_at + self._spec.timeout,
                poll_interval=self._spec.poll_interval,
            )
        return self._pollers[key]

    def _after_saving(self, running: _Running, future: Future[Saved]) -> None:
        pending, saved = running.pending, result_of(future)
        row = pending.row
        if isinstance(saved, Exception):
            error = self.saver.as_error(row, saved)
            if running.is_from_trigger and not isinstance(error, StorageFailed):
                self._quiet.debug("%s is polled again: %s", pending.job_id, error.message)
                self._poll(pending)
            else:
                self._ended(pending, error)
            return
        self._forget(row)
        if saved.file.ai_credits_used:
            count("pictory.credits_used", count=saved.file.ai_credits_used)
        self._plan.saved(row, self.saver.picture(pending, saved))
        self._on_saved(row, saved.image)
        self.saver.note_problem(row, saved)

    def _ended(self, pending: PendingJob, error: PictoryError) -> None:
        """Record that a job gives no picture, for now or for good."""
        row = pending.row
        self._forget(row)
        if isinstance(error, JobNotFound):
            self._plan.unknown(row, self.saver.describe_unknown_job(row, pending.job_id))
            log_line = "%s, %s: outcome unknown: Pictory does not know job %s."
            self._log.error(log_line, row.label, row.file_name, pending.job_id)
            return
        code, message = type(error).__name__, error.message
        if isinstance(error, JobFailed) and error.job is not None:
            code, message = error.job.error_code or code, error.job.error_message or message
        log = self._quiet.debug if error is self._refused else self._log.error
        if isinstance(error, AuthenticationError):
            self._refused = error
            self._plan.stop(error)
        self._plan.failed(row, code, message, adoptable=type(error).__name__ not in _GONE_FOR_GOOD)
        first = message.partition(". ")[0].rstrip(".")
        log("%s, %s: %s: %s (job %s).", row.label, row.file_name, code, first, pending.job_id)

    def _forget(self, row: Row) -> None:
        self._pollers.pop(row.key, None)
        self._schedule.ended(row.key)
