# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Wait for one job in the triggerer. The trigger only reads."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import TaskSuccessEvent
from asgiref.sync import sync_to_async

from pictory_provider.api.checks import check_job_id
from pictory_provider.api.errors import PictoryError
from pictory_provider.api.models import Job
from pictory_provider.api.timing import TIMING
from pictory_provider.core import events
from pictory_provider.core.evidence import job_keeps_running
from pictory_provider.core.polling import JobPoller, Wait, deferral_timeout, short_interval_warning
from pictory_provider.hooks.pictory import PictoryHook
from pictory_provider.links.pictory import PictoryJobLink
from pictory_provider.services.polling import AsyncWatcher
from pictory_provider.triggers.base import LoggableEvent, PictoryTrigger
from pictory_provider.version_compat import has_mapped_dependants, is_deferred, push_xcom_to_database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

    from airflow.triggers.base import TriggerEvent


class PictoryJobEvent(LoggableEvent):
    """The event of :class:`PictoryJobTrigger`."""

    def __init__(self, payload: Any) -> None:
        super().__init__(payload)

    def for_log(self) -> Any:
        """Return what to log of the payload."""
        return events.for_log(self.payload)


class PictoryJobTrigger(PictoryTrigger):
    """Wait until a job ends, and send exactly one event (:mod:`pictory_provider.core.events`).

    Airflow may restart a trigger on another machine, or run it twice at the same time. So all its times are
    absolute, and it never submits, cleans or cancels anything.

    :param job_id: the job to wait for.
    :param pictory_conn_id: the Airflow connection for the polls.
    :param poll_interval: seconds between two polls.
    :param started_at: epoch seconds at which the wait began.
    :param first_poll_at: epoch seconds before which it does not poll.
    :param end_time: epoch seconds of the deadline; there is one poll after it. These three times are ``None`` if
        Airflow starts the task in the triggerer: then they follow from the timeout that Airflow fixed at the
        start.
    :param exponential_backoff: let the interval double with the time waited.
    :param max_wait: seconds; the upper limit of the doubled interval.
    :param silent_fail: keep waiting after an unexpected error.
    :param timeout: seconds of the whole wait; only if the three times are ``None``.
    :param end_from_trigger: end the task when the job is completed, with its image record as the XCom
        ``return_value``. Every other ending resumes the task on a worker.
    """

    timeout_after: datetime | None = None
    """When Airflow ends the deferral; set by the triggerer."""

    def __init__(
        self,
        job_id: str,
        pictory_conn_id: str,
        poll_interval: float,
        started_at: float | None = None,
        first_poll_at: float | None = None,
        end_time: float | None = None,
        exponential_backoff: bool = False,
        max_wait: float | None = None,
        silent_fail: bool = False,
        timeout: float | None = None,
        end_from_trigger: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.job_id = job_id
        self.pictory_conn_id = pictory_conn_id
        self.poll_interval = poll_interval
        self.started_at = started_at
        self.first_poll_at = first_poll_at
        self.end_time = end_time
        self.exponential_backoff = exponential_backoff
        self.max_wait = max_wait
        self.silent_fail = silent_fail
        self.timeout = timeout
        self.end_from_trigger = end_from_trigger

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until the job ends; send one event and end."""
        result = await self._result()
        if self.end_from_trigger and isinstance(result, Job) and await self._push_result(result):
            yield TaskSuccessEvent()
        else:
            event = events.build(events.Ended(self.job_id, result, time.time()))
            yield PictoryJobEvent(event)

    async def _push_result(self, job: Job) -> bool:
        """Push the XComs that a worker would push, the link included; return whether that succeeded.

        Airflow would store XComs that are part of the event as JSON within JSON, so that a task that pulls one
        gets a string (measured on 3.3.2; 3.4.0b2 reads the same).
        """
        if self.task_instance is None:  # `dag.test()`
            return False
        # The task is known only if Airflow itself has started the trigger; otherwise the sensor has checked this.
        if has_mapped_dependants(getattr(self.task_instance, "task", None)):
            return False
        try:
            if not await sync_to_async(is_deferred)(self.task_instance):
                self.log.warning("The task may no longer wait for this trigger, so a worker resumes it.")
                return False
            await sync_to_async(self._push_xcoms)(job)
        except Exception as error:
            self.log.warning("Could not push the result from the triggerer, so a worker will: %r", error)
            return False
        return True

    def _push_xcoms(self, job: Job) -> None:
        self._push("return_value", job.record())
        push_xcom_to_database(PictoryJobLink().xcom_key, job.url, **self._instance)

    async def _result(self) -> Job | PictoryError:
        try:
            job_id = check_job_id(self.job_id)
        except PictoryError as error:
            return error
        started_at, first_poll_at, end_time = self._times()
        poller = JobPoller(
            job_id=job_id,
            started_at=started_at,
            end_time=end_time,
            poll_interval=self.poll_interval,
            exponential_backoff=self.exponential_backoff,
            max_wait=self.max_wait,
            # A task that starts in the triggerer has no early first poll; a deferral passes the time of its own.
            first_poll=None if self.first_poll_at is None else first_poll_at - started_at,
        )
        hook, not_before = PictoryHook(self.pictory_conn_id), first_poll_at
        try:
            waiter = hook.lease().waiter(poller)
            watcher = AsyncWatcher(poller, waiter, log=self.log, silent_fail=self.silent_fail, is_carried_on=True)
            while isinstance(decision := await watcher.poll(not_before), Wait):
                not_before = time.time() + decision.seconds
        finally:
            await hook.aclose()
        return decision.result

    def _times(self) -> tuple[float, float, float]:
        """Return the epoch seconds of the start, the first poll and the deadline.

        A deadline computed when the DAG file is parsed would differ at every parse, and be outdated when the task
        starts. So a task that starts in the triggerer gives Airflow a timeout. The time at which Airflow ends the
        deferral then shows when the wait began, also after a restart of the triggerer.
        """
        if self.end_time is not None:
            assert self.started_at is not None
            assert self.first_poll_at is not None
            return self.started_at, self.first_poll_at, self.end_time
        assert self.timeout is not None
        assert self.timeout_after is not None
        if warning := short_interval_warning("poke_interval", self.poll_interval):
            self.log.warning(warning)
        started_at = self.timeout_after.timestamp() - deferral_timeout(self.timeout, self.poll_interval)
        soonest = min(self.poll_interval, TIMING.poll_interval_recommended)
        return started_at, started_at + soonest, started_at + self.timeout

    async def on_kill(self) -> None:
        """Log what happens to the job. Nothing is cancelled or cleaned.

        Airflow 3.3 also calls this when it has moved the trigger to another triggerer (apache/airflow#73454), and
        Pictory cannot cancel a job.
        """
        self.log.warning(
            "This wait was ended, or continues in another triggerer. %s", job_keeps_running(self.job_id)
        )
