# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The trigger of a batch: wait for many jobs in the triggerer. At Pictory it only reads."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.providers.common.compat.sdk import XCom
from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from pictory_provider.api.errors import JobError, PictoryError, WaitTimeout
from pictory_provider.api.models import Job
from pictory_provider.api.timing import TIMING
from pictory_provider.batch import seen
from pictory_provider.batch.waking import wake_at
from pictory_provider.compat import is_deferred
from pictory_provider.hooks.pictory import PictoryHook
from pictory_provider.jobs.news import Sparing
from pictory_provider.jobs.polling import JobPoller, Wait
from pictory_provider.looking import SharedWatch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pictory_provider.pool import Lease

PROGRESS_KEY = "progress"


class _End(NamedTuple):
    """A job that has ended.

    :param at: epoch seconds at which that was seen.
    """

    job_id: str
    result: Job | PictoryError | Exception
    at: float


class PictoryJobsEvent(TriggerEvent):
    """An event that the triggerer can log: the queries of results' URLs are not in its ``repr``."""

    def __init__(self, payload: Any) -> None:
        super().__init__(payload)  # type: ignore[no-untyped-call]

    def __repr__(self) -> str:
        return f"TriggerEvent<{seen.for_log(self.payload)!r}>"

    __str__ = __repr__


class PictoryJobsTrigger(BaseTrigger):
    """Wait until there is something for a worker to save, and send exactly one event.

    A worker is woken when all jobs have ended, when a hundred have, or a minute after the first
    (:mod:`pictory_provider.batch.waking`); a job that is past its time has ended, too. The event tells of the jobs
    that have ended (:mod:`pictory_provider.batch.seen`), so that the worker need not ask again.

    All jobs share one client, one pace and one queue with whatever else waits in this triggerer
    (:mod:`pictory_provider.pool`). The arguments lie in Airflow's database in clear text, and hold nothing secret.
    All times are absolute, so that a restart begins none of them anew.

    :param job_ids: at most a thousand: MySQL keeps 64 kB of the arguments.
    :param end_times: epoch seconds of the deadline of each; there is one look after it.
    :param pictory_conn_id: the Airflow connection to ask with.
    :param poll_interval: seconds between two looks at a job.
    :param timeout: seconds from the submission of a job to its deadline.
    :param first_poll_at: epoch seconds before which it does not look.
    :param progress: how far the batch was when it deferred. Where jobs fail meanwhile, it is told anew.
    :param first_event_at: epoch seconds before which it sends no event; that of its first look by default.
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

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path, and the arguments as plain JSON."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "job_ids": self.job_ids,
                "end_times": self.end_times,
                "pictory_conn_id": self.pictory_conn_id,
                "poll_interval": self.poll_interval,
                "timeout": self.timeout,
                "first_poll_at": self.first_poll_at,
                "progress": self.progress,
                "first_event_at": self.first_event_at,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look at each job until it has ended; send one event and end."""
        ends: asyncio.Queue[_End] = asyncio.Queue()
        ended: list[_End] = []
        log = Sparing(self.log)
        hook = PictoryHook(self.pictory_conn_id)
        looks: list[asyncio.Task[None]] = []
        self.log.info("Waiting for %s jobs.", f"{len(self.job_ids):,}")
        try:
            lease = hook.lease()
            looks = [
                asyncio.create_task(self._watch(job_id, end_time, lease, ends, log))
                for job_id, end_time in zip(self.job_ids, self.end_times, strict=True)
            ]
            await self._until_worth_a_worker(ends, ended)
        finally:
            for look in looks:
                look.cancel()
            await asyncio.gather(*looks, return_exceptions=True)
            await hook.aclose()
        log.sum_up()
        of = len(self.job_ids)
        why = "all have ended" if len(ended) >= of else "there is something to save"
        self.log.info("%s of %s jobs have ended.", f"{len(ended):,}", f"{of:,}")
        told = [(job_id, result if isinstance(result, Job) else None, at) for job_id, result, at in ended]
        yield PictoryJobsEvent(seen.build(of, told, why, time.time()))

    async def _until_worth_a_worker(self, ends: asyncio.Queue[_End], ended: list[_End]) -> None:
        """Return when a worker is to be woken.

        :param ended: filled with the jobs that have ended by then.
        """
        failed = told = 0
        not_before = self.first_poll_at if self.first_event_at is None else self.first_event_at
        tell_at = time.time() + TIMING.progress_interval
        while True:
            now = time.time()
            first_ended_at = ended[0].at if ended else None
            at = wake_at(
                not_before=not_before, of=len(self.job_ids), ended=len(ended), first_ended_at=first_ended_at
            )
            if now >= at:
                return
            if failed != told and now >= tell_at:
                told, tell_at = failed, now + TIMING.progress_interval
                await self._tell(failed)
            next_at = min(at, tell_at if failed != told else at)
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

    async def _watch(
        self,
        job_id: str,
        end_time: float,
        lease: Lease,
        ends: asyncio.Queue[_End],
        log: Sparing,
    ) -> None:
        """Look at one job until it has ended."""
        started_at = end_time - self.timeout
        poller = JobPoller(
            job_id=job_id, started_at=started_at, end_time=end_time, poll_interval=self.poll_interval
        )
        watch = SharedWatch(poller, lease.waiter(poller), log=log, is_carried_on=True, is_last=False)
        not_before = max(self.first_poll_at, started_at + self.poll_interval)
        try:
            while isinstance(decision := await watch.look(not_before), Wait):
                not_before = time.time() + decision.seconds
        except Exception as error:
            await ends.put(_End(job_id, error, time.time()))
        else:
            await ends.put(_End(job_id, decision.result, time.time()))

    async def _tell(self, failed: int) -> None:
        """Push the progress, while the task still waits for this trigger."""
        if self.task_instance is None or self.progress is None:  # `dag.test()`
            return
        try:
            if await sync_to_async(is_deferred)(self.task_instance):
                now = {
                    **self.progress,
                    "waiting": self.progress["waiting"] - failed,
                    "failed": self.progress["failed"] + failed,
                }
                await sync_to_async(self._push)(now)
        except Exception as error:
            self.log.debug("The progress could not be told: %r", error)

    def _push(self, progress: dict[str, Any]) -> None:
        ti: Any = self.task_instance
        map_index = -1 if ti.map_index is None else ti.map_index
        XCom.set(
            PROGRESS_KEY, progress, dag_id=ti.dag_id, task_id=ti.task_id, run_id=ti.run_id, map_index=map_index
        )

    async def on_kill(self) -> None:
        """Say what happens to the jobs. Nothing is cancelled or cleaned."""
        self.log.warning(
            "This wait was ended, or goes on in another triggerer. %s jobs run on at Pictory, and are on record: "
            "a retry or a clear of the task saves them.",
            f"{len(self.job_ids):,}",
        )
