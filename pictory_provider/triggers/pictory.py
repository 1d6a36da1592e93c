# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The trigger: wait for one job in the triggerer. It only ever reads."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import XCom
from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent
from asgiref.sync import sync_to_async

from pictory_provider.api.checks import check_job_id
from pictory_provider.api.errors import PictoryError
from pictory_provider.api.models import Job
from pictory_provider.api.timing import TIMING
from pictory_provider.compat import has_mapped_dependants, is_deferred
from pictory_provider.hooks.pictory import PictoryHook
from pictory_provider.jobs import events
from pictory_provider.jobs.evidence import runs_on
from pictory_provider.jobs.polling import JobPoller, Wait, deferral_timeout, impolite
from pictory_provider.links.pictory import PictoryJobLink
from pictory_provider.looking import SharedWatch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime


class PictoryJobEvent(TriggerEvent):
    """An event that the triggerer can log: the query of a result's URL is not in its ``repr``."""

    def __init__(self, payload: Any) -> None:
        super().__init__(payload)  # type: ignore[no-untyped-call]

    def __repr__(self) -> str:
        return f"TriggerEvent<{events.for_log(self.payload)!r}>"

    __str__ = __repr__


class PictoryJobTrigger(BaseTrigger):
    """Wait until a job ends, and send exactly one event (:mod:`pictory_provider.jobs.events`).

    A trigger may be started again elsewhere, or run twice at once. So all its times are absolute, and it
    never submits, cleans or cancels anything. Its arguments lie in Airflow's database in clear text, and
    hold nothing secret.

    :param job_id: the job to wait for.
    :param pictory_conn_id: the Airflow connection to ask with.
    :param poll_interval: seconds between two looks.
    :param started_at: epoch seconds at which the wait began.
    :param first_poll_at: epoch seconds before which it does not look.
    :param end_time: epoch seconds of the deadline; there is one look after it. These three times are left out
        where Airflow starts the task in the triggerer: they follow from the timeout that it fixed then.
    :param exponential_backoff: let the interval double with the time waited.
    :param max_wait: seconds that the doubled interval may reach.
    :param silent_fail: go on waiting after an error that nobody foresaw.
    :param timeout: seconds of the wait in all; only where the three times are left out.
    :param end_from_trigger: end the task where the job is completed, with its image record as the XCom
        ``return_value``. Every other ending resumes the task on a worker, which knows what to make of it.
    """

    timeout_after: datetime | None = None
    """Set by the triggerer: when Airflow gives the deferral up."""

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

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path, and the arguments as plain JSON."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "job_id": self.job_id,
                "pictory_conn_id": self.pictory_conn_id,
                "poll_interval": self.poll_interval,
                "started_at": self.started_at,
                "first_poll_at": self.first_poll_at,
                "end_time": self.end_time,
                "exponential_backoff": self.exponential_backoff,
                "max_wait": self.max_wait,
                "silent_fail": self.silent_fail,
                "timeout": self.timeout,
                "end_from_trigger": self.end_from_trigger,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look, wait, look again; send one event and end."""
        result = await self._result()
        if self.end_from_trigger and isinstance(result, Job) and await self._is_pushed(result):
            yield TaskSuccessEvent()
        else:
            yield PictoryJobEvent(events.build(events.Ended(self.job_id, result, time.time())))

    async def _is_pushed(self, job: Job) -> bool:
        """Push what a worker would have pushed, the link included; where that fails, a worker has to.

        XComs that go with the event itself are stored as JSON within JSON, and the tasks that pull them get a
        string (measured on 3.3.2; 3.4.0b2 reads the same).
        """
        if self.task_instance is None:  # `dag.test()`
            return False
        # The task is known here where Airflow itself has started the trigger; else the sensor has looked.
        if has_mapped_dependants(getattr(self.task_instance, "task", None)):
            return False
        try:
            if not await sync_to_async(is_deferred)(self.task_instance):
                self.log.warning("It is not certain that the task still waits for this trigger: a worker goes on.")
                return False
            await sync_to_async(self._push)({"return_value": job.record(), PictoryJobLink().xcom_key: job.url})
        except Exception as error:
            self.log.warning("The result could not be pushed from the triggerer, a worker will: %r", error)
            return False
        return True

    def _push(self, xcoms: dict[str, Any]) -> None:
        ti: Any = self.task_instance
        map_index = -1 if ti.map_index is None else ti.map_index
        for key, value in xcoms.items():
            XCom.set(key, value, dag_id=ti.dag_id, task_id=ti.task_id, run_id=ti.run_id, map_index=map_index)

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
            # A task that starts here has no early look; one that was deferred says when its first look is due.
            first_poll=None if self.first_poll_at is None else first_poll_at - started_at,
        )
        hook, not_before = PictoryHook(self.pictory_conn_id), first_poll_at
        try:
            waiter = hook.lease().waiter(poller)
            watch = SharedWatch(poller, waiter, log=self.log, silent_fail=self.silent_fail, is_carried_on=True)
            while isinstance(decision := await watch.look(not_before), Wait):
                not_before = time.time() + decision.seconds
        finally:
            await hook.aclose()
        return decision.result

    def _times(self) -> tuple[float, float, float]:
        """Return the epoch seconds of the start, the first look and the deadline.

        A deadline that was computed when the DAG file was parsed would be another at every parse, and stale
        when the task starts. So a task that starts here gives Airflow a timeout, and Airflow's moment for it
        tells when the wait began, also after a restart of the triggerer.
        """
        if self.end_time is not None:
            assert self.started_at is not None
            assert self.first_poll_at is not None
            return self.started_at, self.first_poll_at, self.end_time
        assert self.timeout is not None
        assert self.timeout_after is not None
        if warning := impolite("poke_interval", self.poll_interval):
            self.log.warning(warning)
        started_at = self.timeout_after.timestamp() - deferral_timeout(self.timeout, self.poll_interval)
        soonest = min(self.poll_interval, TIMING.poll_interval_recommended)
        return started_at, started_at + soonest, started_at + self.timeout

    async def on_kill(self) -> None:
        """Say what happens to the job. Nothing is cancelled or cleaned.

        Airflow 3.3 also calls this when it has given the trigger to another triggerer (apache/airflow#73454),
        and Pictory knows no cancel.
        """
        self.log.warning("This wait was ended, or goes on in another triggerer. %s", runs_on(self.job_id))
