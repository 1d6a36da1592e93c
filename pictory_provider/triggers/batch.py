# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Wait for the jobs of a batch in the triggerer. The trigger submits nothing."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from asgiref.sync import sync_to_async

from pictory_provider.api.errors import JobError, PictoryError, WaitTimeout
from pictory_provider.api.models import Job
from pictory_provider.api.text import counted
from pictory_provider.api.timing import TIMING
from pictory_provider.core.batch import events
from pictory_provider.core.batch.plan import PROGRESS_KEY
from pictory_provider.core.batch.schedule import event_due_at
from pictory_provider.core.log_throttle import SampledLog
from pictory_provider.core.polling import JobPoller, Wait
from pictory_provider.hooks.pictory import PictoryHook
from pictory_provider.services.polling import AsyncWatcher
from pictory_provider.triggers.base import LoggableEvent, PictoryTrigger
from pictory_provider.version_compat import is_deferred

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow.triggers.base import TriggerEvent

    from pictory_provider.client.shared import Lease


class _End(NamedTuple):
    """A job that has ended.

    :param at: epoch seconds at which that was seen.
    """

    job_id: str
    result: Job | PictoryError | Exception
    at: float


class PictoryJobsEvent(LoggableEvent):
    """The event of :class:`PictoryJobsTrigger`."""

    def __init__(self, payload: Any) -> None:
        super().__init__(payload)

    def for_log(self) -> Any:
        """Return what to log of the payload."""
        return events.for_log(self.payload)


class PictoryJobsTrigger(PictoryTrigger):
    """Wait until a worker can save pictures, and send exactly one event.

    It resumes the task when all jobs have ended, when a hundred have, or a minute after the first
    (:mod:`pictory_provider.core.batch.schedule`); a job that is past its deadline has ended, too. The event
    reports the jobs that have ended (:mod:`pictory_provider.core.batch.events`), so that the worker need not poll
    them.

    All jobs share one client, one rate limit and one queue with the other waits in this triggerer
    (:mod:`pictory_provider.client.shared`). All times are absolute, so that a restart does not extend any of them.

    :param job_ids: at most a thousand: MySQL stores 64 kB of the arguments.
    :param end_times: epoch seconds of the deadline of each; there is one poll after it.
    :param pictory_conn_id: the Airflow connection for the polls.
    :param poll_interval: seconds between two polls of a job.
    :param timeout: seconds from the submission of a job to its deadline.
    :param first_poll_at: epoch seconds before which it does not poll.
    :param progress: the progress of the batch when it deferred. The trigger pushes it again when jobs fail.
    :param first_event_at: epoch seconds before which it sends no event; ``first_poll_at`` if ``None``.
    """

    def __init__(
        self,
        job_ids: list[str],
        end_times: list[int],
        pictory_conn_id: str,
        poll_interval: float,
        timeout: float,
        first_poll_at: float,
        progress: dict[str, Any] | None = None,
        first_event_at: float | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.job_ids = job_ids
        self.end_times = end_times
        self.pictory_conn_id = pictory_conn_id
        self.poll_interval = poll_interval
        self.timeout = timeout
        self.first_poll_at = first_poll_at
        self.progress = progress
        self.first_event_at = first_event_at

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll each job until it has ended; send one event and end."""
        ends: asyncio.Queue[_End] = asyncio.Queue()
        ended: list[_End] = []
        log = SampledLog(self.log)
        hook = PictoryHook(self.pictory_conn_id)
        waits: list[asyncio.Task[None]] = []
        self.log.info("Waiting for %s.", counted(len(self.job_ids), "job"))
        try:
            lease = hook.lease()
            waits = [
                asyncio.create_task(self._wait_for(job_id, end_time, lease, ends, log))
                for job_id, end_time in zip(self.job_ids, self.end_times, strict=True)
            ]
            await self._until_event_is_due(ends, ended)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
            await hook.aclose()
        log.sum_up()
        of = len(self.job_ids)
        why = "all have ended" if len(ended) >= of else "there is something to save"
        self.log.info("%s of %s ended.", f"{len(ended):,}", counted(of, "job"))
        reported = [(job_id, result if isinstance(result, Job) else None, at) for job_id, result, at in ended]
        yield PictoryJobsEvent(events.build(of, reported, why, time.time()))

    async def _until_event_is_due(self, ends: asyncio.Queue[_End], ended: list[_End]) -> None:
        """Return when the task is to be resumed.

        :param ended: filled with the jobs that have ended by then.
        """
        failed = reported = 0
        not_before = self.first_poll_at if self.first_event_at is None else self.first_event_at
        report_at = time.time() + TIMING.progress_interval
        while True:
            now = time.time()
            first_ended_at = ended[0].at if ended else None
            at = event_due_at(
                not_before=not_before, of=len(self.job_ids), ended=len(ended), first_ended_at=first_ended_at
            )
            if now >= at:
                return
            if failed != reported and now >= report_at:
                reported, report_at = failed, now + TIMING.progress_interval
                await self._push_progress(failed)
            next_at = min(at, report_at if failed != reported else at)
            try:
                end = await asyncio.wait_for(
                    ends.get(), timeout=None if next_at == float("inf") else max(0.0, next_at - now)
                )
            except TimeoutError:
                continue
            result = end.result
            if isinstance(result, Exception) and not isinstance(result, PictoryError):
                raise result
            ended.append(end)
            failed += isinstance(result, JobError) and not isinstance(result, WaitTimeout)

    async def _wait_for(
        self,
        job_id: str,
        end_time: float,
        lease: Lease,
        ends: asyncio.Queue[_End],
        log: SampledLog,
    ) -> None:
        """Poll one job until it has ended."""
        started_at = end_time - self.timeout
        poller = JobPoller(
            job_id=job_id, started_at=started_at, end_time=end_time, poll_interval=self.poll_interval
        )
        watcher = AsyncWatcher(poller, lease.waiter(poller), log=log, is_carried_on=True, counts_credits=False)
        not_before = max(self.first_poll_at, started_at + self.poll_interval)
        result: Job | Exception
        try:
            while isinstance(decision := await watcher.poll(not_before), Wait):
                not_before = time.time() + decision.seconds
            result = decision.result
        except Exception as error:
            result = error
        await ends.put(_End(job_id, result, time.time()))

    async def _push_progress(self, failed: int) -> None:
        """Push the progress, if the task still waits for this trigger."""
        if self.task_instance is None or self.progress is None:  # `dag.test()`
            return
        try:
            if await sync_to_async(is_deferred)(self.task_instance):
                now = {
                    **self.progress,
                    "waiting": self.progress["waiting"] - failed,
                    "failed": self.progress["failed"] + failed,
                }
                await sync_to_async(self._push)(PROGRESS_KEY, now)
        except Exception as error:
            self.log.debug("Could not push the progress: %r", error)

    async def on_kill(self) -> None:
        """Log what happens to the jobs. Nothing is cancelled or cleaned."""
        self.log.warning(
            "This wait was ended, or continues in another triggerer. %s running at Pictory, on record: a retry or "
            "a clear of the task saves their pictures.",
            counted(len(self.job_ids), "job keeps", "jobs keep"),
        )
