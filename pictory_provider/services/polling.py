# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Poll a job: ask Pictory once, let the poller decide, log and count the result.

:class:`SyncWatcher` polls from a worker, :class:`AsyncWatcher` from the triggerer.
:mod:`pictory_provider.core.polling` decides what follows an answer.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from pictory_provider.api.checks import check_job_id
from pictory_provider.api.errors import PictoryError, Unavailable, WaitTimeout
from pictory_provider.api.models import Job
from pictory_provider.client import calls
from pictory_provider.client.retrying import get_job
from pictory_provider.core.log_throttle import LogThrottle
from pictory_provider.core.polling import Finished, JobPoller, Wait
from pictory_provider.telemetry import count

if TYPE_CHECKING:
    from pictory_provider.client.retrying import Log
    from pictory_provider.client.shared import QueuedClient
    from pictory_provider.client.sync import SyncClient


class Connected(Protocol):
    """Has a client of an Airflow connection: a :class:`~pictory_provider.hooks.pictory.PictoryHook`."""

    def get_conn(self) -> SyncClient:
        """Return the client; read the Airflow connection if the client is closed."""

    def close(self) -> None:
        """Close the client, so that the Airflow connection is read again."""


class JobWatcher:
    """One wait for one job.

    :param silent_fail: keep waiting after an unexpected error.
    :param is_carried_on: whether another process has begun this wait and logged it.
    :param counts_credits: count what the completed job cost. Of all processes that poll a job, one does.
    """

    def __init__(
        self,
        poller: JobPoller,
        *,
        log: Log,
        silent_fail: bool = False,
        is_carried_on: bool = False,
        counts_credits: bool = True,
    ) -> None:
        self.poller = poller
        self._log = log
        self._silent_fail = silent_fail
        self._counts_credits = counts_credits
        self._throttle = LogThrottle(poller.started_at, is_carried_on=is_carried_on)

    def handle(self, answer: Job | PictoryError) -> Wait | Finished:
        """Return the poller's decision about an answer, after logging and counting it."""
        count("pictory.polled")
        now = time.time()
        decision = self.poller.after(answer, now)
        if isinstance(decision, Wait):
            if self._throttle.should_log(decision, now):
                log = self._log.info if decision.is_normal else self._log.warning
                pause = max(decision.seconds, self._stretched_interval)
                log("%s. Next poll in %.0f s.", decision.reason.rstrip("."), pause)
        elif isinstance(decision.result, Job):
            credits = decision.result.ai_credits_used
            if credits and self._counts_credits:
                # Prices are in tenths; every backend of Airflow's Stats counts fractions.
                count("pictory.credits_used", count=credits)
            self._log.info("Job %s is completed (%s AI credits).", self.poller.job_id, credits)
        return decision

    def _error(self, error: Exception) -> PictoryError:
        """Return an error as an answer, or raise it."""
        if isinstance(error, PictoryError):
            return error
        if not self._silent_fail:
            raise error
        self._log.error("Unexpected error; silent_fail is on, so the wait continues.", exc_info=error)
        return Unavailable(f"{type(error).__name__}: {error}")

    @property
    def _stretched_interval(self) -> float:
        """Seconds between two polls of one job, if other jobs make that longer than its interval."""
        return 0.0


class SyncWatcher(JobWatcher):
    """Polls from a worker.

    :param connected: has a new client after a 401.
    """

    def __init__(self, poller: JobPoller, connected: Connected, **kwargs: Any) -> None:
        super().__init__(poller, **kwargs)
        self._connected = connected

    def poll(self) -> Wait | Finished:
        """Poll now; after a 401 poll again, with the connection read again."""
        renew = False
        while True:
            answer: Job | PictoryError
            try:
                if renew:
                    self._connected.close()
                answer = get_job(self._connected.get_conn(), self.poller.job_id)
            except Exception as error:
                answer = self._error(error)
            decision = self.handle(answer)
            if isinstance(decision, Finished) or not decision.renew_connection:
                return decision
            renew = True


class AsyncWatcher(JobWatcher):
    """Polls from the triggerer, through the client that all its waits share."""

    def __init__(self, poller: JobPoller, client: QueuedClient, **kwargs: Any) -> None:
        super().__init__(poller, **kwargs)
        self._client = client

    async def poll(self, not_before: float = 0.0) -> Wait | Finished:
        """Do the same as :meth:`SyncWatcher.poll`, when the queue allows.

        :param not_before: epoch seconds before which it does not poll.
        """
        renew = False
        while True:
            answer: Job | PictoryError
            try:
                if renew:
                    self._client.renew()
                    not_before = 0.0
                call = calls.get_job(self.poller.job_id)
                answer = call.parse(await self._client.send(call.request, not_before=not_before))
            except Exception as error:
                answer = self._error(error)
            decision = self.handle(answer)
            if isinstance(decision, Finished) or not decision.renew_connection:
                return decision
            renew = True

    @property
    def _stretched_interval(self) -> float:
        return self._client.stretched_interval


def wait_for_job(job_id: object, connected: Connected, *, started_at: float, log: Log, **kwargs: Any) -> Job:
    """Wait on this worker until a job is completed.

    :param started_at: epoch seconds.
    :param kwargs: of :class:`~pictory_provider.core.polling.JobPoller`.
    :raises PictoryError: if the job ends badly, or at the deadline.
    """
    poller = JobPoller(job_id=check_job_id(job_id), started_at=started_at, **kwargs)
    watcher = SyncWatcher(poller, connected, log=log)
    while isinstance(decision := watcher.poll(), Wait):
        time.sleep(decision.seconds)
    return decision.job()


def finished_job(job_id: object, connected: Connected, *, log: Log) -> Job:
    """Return a job whose picture can be downloaded now.

    A job that Pictory does not know yet, or that has no URL yet, is polled again for a minute.

    :raises PictoryError: why it cannot; :class:`Unavailable` for a job that still runs.
    """
    poller = JobPoller.for_download(check_job_id(job_id), time.time())
    # The wait for the job has counted its credits.
    watcher = SyncWatcher(poller, connected, log=log, counts_credits=False)
    while isinstance(decision := watcher.poll(), Wait):
        if decision.status is not None:
            raise Unavailable(
                f"{decision.reason}: there is no picture to download yet. Put a PictoryJobSensor before the "
                "download. A retry polls again, and is free."
            )
        time.sleep(decision.seconds)
    if isinstance(decision.result, WaitTimeout):
        raise Unavailable(f"{decision.result.message} Nothing was saved. A retry polls again, and is free.")
    return decision.job()
