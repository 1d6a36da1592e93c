# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""How a task waits: what the operator and the sensor share.

The decisions are those of :class:`pictory_provider.jobs.polling.JobPoller`. Here they are carried between
a worker and the triggerer.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from pictory_provider.api.errors import RequestInvalid, WaitTimeout
from pictory_provider.api.models import Job
from pictory_provider.api.retry import is_passing
from pictory_provider.compat import shortest_absence
from pictory_provider.jobs.polling import Finished, JobPoller, deferral_timeout, impolite
from pictory_provider.looking import Watch

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator

    from pictory_provider.compat import TaskDeferralTimeout
    from pictory_provider.jobs import events
    from pictory_provider.triggers.pictory import PictoryJobTrigger


@dataclass(frozen=True, slots=True, kw_only=True)
class JobWait:
    """One wait for one job, with its absolute times.

    :param started_at: epoch seconds.
    :param timeout: seconds from ``started_at`` to the deadline.
    :param end_from_trigger: let the trigger end the task where the job is completed.
    :param first_poll: seconds from ``started_at`` to the first look, if that is sooner than an interval.
    """

    job_id: str
    pictory_conn_id: str
    started_at: float
    timeout: float
    poll_interval: float
    exponential_backoff: bool = False
    max_wait: float | None = None
    silent_fail: bool = False
    end_from_trigger: bool = False
    first_poll: float | None = None

    def poller(self) -> JobPoller:
        """Return the decision maker for looks from this process."""
        return JobPoller(
            job_id=self.job_id,
            started_at=self.started_at,
            end_time=self.started_at + self.timeout,
            poll_interval=self.poll_interval,
            exponential_backoff=self.exponential_backoff,
            max_wait=self.max_wait,
            first_poll=self.first_poll,
        )

    def trigger(self, first_poll_at: float) -> PictoryJobTrigger:
        """Return the trigger that carries the same wait on."""
        from pictory_provider.triggers.pictory import PictoryJobTrigger

        arguments = asdict(self)
        del arguments["first_poll"]  # the trigger has its first_poll_at
        arguments["end_time"] = self.started_at + arguments.pop("timeout")
        return PictoryJobTrigger(**arguments, first_poll_at=first_poll_at)

    def defer(self, task: BaseOperator, pause: float, kwargs: dict[str, Any] | None = None) -> NoReturn:
        """Hand the wait to the triggerer.

        :param pause: seconds until the trigger may look; more where Airflow cannot bear an early event
            (:func:`pictory_provider.compat.shortest_absence`).
        :param kwargs: what ``execute_complete`` is given beside the event.
        """
        now = time.time()
        first_poll_at = now + max(pause, shortest_absence())
        left = max(self.started_at + self.timeout, first_poll_at) - now
        task.defer(
            trigger=self.trigger(first_poll_at),
            method_name="execute_complete",
            kwargs=kwargs,
            # A pendulum.Duration does not cross to the supervisor (Airflow 3.3.2), and the task would fail.
            timeout=timedelta(seconds=deferral_timeout(left, self.poll_interval)),
        )


def conclude(ended: events.Ended, *, pictory_conn_id: str, poll_interval: float) -> Job:
    """Return the completed job of a trigger's event, or raise its error.

    A worker may resume long after the trigger's last look, for lack of a slot. So after a timeout there is
    another look, unless it would be closer to the last one than the interval.
    """
    if isinstance(ended.result, Job):
        return ended.result
    if isinstance(ended.result, WaitTimeout) and time.time() - ended.at >= poll_interval:
        return late_look(pictory_conn_id, ended.job_id, ended.result)
    raise ended.result


def late_look(pictory_conn_id: str, job_id: str, error: Exception) -> Job:
    """Look once more after a wait has ended badly: the job may have been completed meanwhile.

    :param error: what ended the wait; raised again unless Pictory now says something more definite.
    """
    from pictory_provider.hooks.pictory import PictoryHook

    with PictoryHook(pictory_conn_id) as hook:
        decision = Watch(JobPoller.for_last_look(job_id, time.time()), hook, log=hook.log).look()
    assert isinstance(decision, Finished)
    result = decision.result
    if isinstance(result, Job):
        return result
    raise error if isinstance(result, WaitTimeout) or is_passing(result) else result


def ended_by_airflow(job_id: str, error: TaskDeferralTimeout) -> WaitTimeout:
    """Return the timeout of a deferral that Airflow itself ended."""
    return WaitTimeout(
        f"Job {job_id} was not seen to end before Airflow ended the deferral: {error}. It runs on at Pictory. "
        "Is a triggerer running, and is it healthy?"
    )


def seconds(name: str, value: object) -> float:
    """Return a duration in seconds.

    :raises RequestInvalid: for anything but a non-negative number, ``timedelta`` or ``pendulum.Duration``.
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
        raise RequestInvalid(
            f"{name} is {value!r}; it takes a number of seconds or a duration. "
            "Nothing was sent and nothing was spent.",
            fields=[name],
        )
    return float(value)


def warn_if_impolite(task: BaseOperator, name: str, interval: float) -> None:
    """Log a warning where a task asks more often than Pictory recommends."""
    if warning := impolite(name, interval):
        task.log.warning(warning)
