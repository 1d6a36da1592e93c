# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The trigger: wait for one job in the triggerer. It only ever reads."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from pictory_provider.hooks.pictory import PictoryHook
from pictory_provider.jobs import events
from pictory_provider.jobs.polling import JobPoller, Wait
from pictory_provider.jobs.submission import runs_on

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


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
    :param end_time: epoch seconds of the deadline; there is one look after it.
    :param exponential_backoff: let the interval double with the time waited.
    :param max_wait: seconds that the doubled interval may reach.
    :param silent_fail: go on waiting after an error that nobody foresaw.
    """

    def __init__(
        self,
        job_id: str,
        pictory_conn_id: str,
        poll_interval: float,
        started_at: float,
        first_poll_at: float,
        end_time: float,
        exponential_backoff: bool = False,
        max_wait: float | None = None,
        silent_fail: bool = False,
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
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look, wait, look again; send one event and end."""
        hook = PictoryHook(self.pictory_conn_id)
        poller = JobPoller(
            job_id=self.job_id,
            started_at=self.started_at,
            end_time=self.end_time,
            poll_interval=self.poll_interval,
            exponential_backoff=self.exponential_backoff,
            max_wait=self.max_wait,
        )
        try:
            await asyncio.sleep(max(0.0, self.first_poll_at - time.time()))
            while isinstance(decision := await hook.alook(poller, silent_fail=self.silent_fail), Wait):
                await asyncio.sleep(decision.seconds)
        finally:
            await hook.aclose()
        yield PictoryJobEvent(events.build(events.Ended(self.job_id, decision.result, time.time())))

    async def on_kill(self) -> None:
        """Say what happens to the job. Nothing is cancelled or cleaned.

        Airflow 3.3 also calls this when it has given the trigger to another triggerer (apache/airflow#73454),
        and Pictory knows no cancel.
        """
        self.log.warning("This wait was ended, or goes on in another triggerer. %s", runs_on(self.job_id))
