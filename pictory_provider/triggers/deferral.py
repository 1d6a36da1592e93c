# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Wait on a worker or defer to the triggerer, for the operators and the sensor.

:class:`pictory_provider.core.polling.JobPoller` decides. This module passes a wait between a worker and the
triggerer.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from pictory_provider.api.errors import WaitTimeout
from pictory_provider.api.models import Job
from pictory_provider.api.retry import is_transient
from pictory_provider.api.text import counted
from pictory_provider.api.timing import TIMING
from pictory_provider.core.polling import Finished, JobPoller, Wait, deferral_timeout, short_interval_warning
from pictory_provider.services.polling import SyncWatcher
from pictory_provider.version_compat import TaskDeferralTimeout, min_deferral

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from airflow.providers.common.compat.sdk import BaseOperator

    from pictory_provider.api.errors import PictoryError
    from pictory_provider.core.events import Ended
    from pictory_provider.hooks.pictory import PictoryHook
    from pictory_provider.services.batch.runner import PendingJobs
    from pictory_provider.triggers.pictory import PictoryJobTrigger


@dataclass(frozen=True, slots=True, kw_only=True)
class JobWait:
    """One wait for one job, with its absolute times.

    :param started_at: epoch seconds.
    :param timeout: seconds from ``started_at`` to the deadline.
    :param end_from_trigger: let the trigger end the task when the job is completed.
    :param first_poll: seconds from ``started_at`` to the first poll, if that is sooner than an interval.
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
        """Return the rules for polls from this process."""
        names = ("job_id", "started_at", "poll_interval", "exponential_backoff", "max_wait", "first_poll")
        arguments: Any = {name: getattr(self, name) for name in names}
        return JobPoller(**arguments, end_time=self.started_at + self.timeout)

    def trigger(self, first_poll_at: float) -> PictoryJobTrigger:
        """Return the trigger that continues this wait."""
        from pictory_provider.triggers.pictory import PictoryJobTrigger

        arguments = asdict(self)
        del arguments["first_poll"]  # the trigger takes first_poll_at
        arguments["end_time"] = self.started_at + arguments.pop("timeout")
        return PictoryJobTrigger(**arguments, first_poll_at=first_poll_at)

    def run(
        self,
        task: Any,
        hook: PictoryHook,
        answer: Job | PictoryError | None = None,
        kwargs: dict[str, Any] | None = None,
    ) -> Job:
        """Wait on this worker, or in the triggerer if the task is deferrable.

        :param answer: of a poll that was just made; ``None`` to poll the job first.
        :param kwargs: as for :meth:`defer`.
        :raises PictoryError: if the job ends badly, or at the deadline.
        """
        watcher = SyncWatcher(self.poller(), hook, log=task.log)
        decision = watcher.poll() if answer is None else watcher.handle(answer)
        while isinstance(decision, Wait):
            if task.deferrable:
                self.defer(task, decision.seconds, kwargs=kwargs)
            time.sleep(decision.seconds)
            decision = watcher.poll()
        return decision.job()

    def defer(self, task: BaseOperator, pause: float, kwargs: dict[str, Any] | None = None) -> NoReturn:
        """Defer the task.

        :param pause: seconds until the trigger's first poll. It is longer if this Airflow fails on an early event
            (:func:`pictory_provider.version_compat.min_deferral`).
        :param kwargs: arguments of ``execute_complete``, in addition to the event.
        """
        now = time.time()
        first_poll_at = now + max(pause, min_deferral(TIMING.min_deferral))
        left = max(self.started_at + self.timeout, first_poll_at) - now
        task.defer(
            trigger=self.trigger(first_poll_at),
            method_name="execute_complete",
            kwargs=kwargs,
            # Airflow 3.3.2 cannot send a pendulum.Duration to the supervisor; the task would fail.
            timeout=timedelta(seconds=deferral_timeout(left, self.poll_interval)),
        )


def wait_for_all(
    task: Any,
    hook: PictoryHook,
    waits: Mapping[int, JobWait],
    answers: Mapping[int, Job | PictoryError | None],
    kwargs: Callable[[], dict[str, Any]],
) -> Iterator[tuple[int, Job | PictoryError]]:
    """Poll several jobs, and yield each result when it is known.

    A deferrable task polls each job once and then defers until the last one has ended, which was submitted last.

    :param waits: by the number of the job.
    :param answers: of polls that were just made; a job without one is polled first.
    :param kwargs: returns the arguments of ``execute_complete``, in addition to the event.
    """
    watchers = {number: SyncWatcher(wait.poller(), hook, log=task.log) for number, wait in waits.items()}
    known = dict(answers)
    while watchers:
        pauses = {}
        for number, watcher in list(watchers.items()):
            answer = known.pop(number, None)
            decision = watcher.poll() if answer is None else watcher.handle(answer)
            if isinstance(decision, Wait):
                pauses[number] = decision.seconds
            else:
                del watchers[number]
                yield number, decision.result
        if pauses and task.deferrable:
            last = max(pauses)
            waits[last].defer(task, pauses[last], kwargs=kwargs())
        time.sleep(min(pauses.values(), default=0.0))


def deadline(limit: timedelta | None) -> float | None:
    """Return when an ``execution_timeout`` that begins now is over, in seconds of the monotonic clock."""
    return None if limit is None else time.monotonic() + limit.total_seconds()


def defer_batch(task: BaseOperator, jobs: PendingJobs) -> NoReturn:
    """Defer the task of a batch.

    The record is in the folder, so ``execute_complete`` needs only the folder's path.
    """
    from pictory_provider.triggers.batch import PictoryJobsTrigger

    now = time.time()
    first_poll_at = now + min(jobs.poll_interval, 1.0)
    first_event_at = max(first_poll_at, now + min_deferral(TIMING.min_deferral))
    task.log.info("Waiting for %s in the triggerer.", counted(len(jobs.job_ids), "job"))
    arguments = jobs._asdict()
    folder, left = arguments.pop("folder"), max(*jobs.end_times, first_event_at) - now
    task.defer(
        trigger=PictoryJobsTrigger(**arguments, first_poll_at=first_poll_at, first_event_at=first_event_at),
        method_name="execute_complete",
        kwargs={"folder": folder},
        timeout=timedelta(seconds=deferral_timeout(left, jobs.poll_interval)),
    )


def conclude(ended: Ended, *, pictory_conn_id: str, poll_interval: float) -> Job:
    """Return the completed job of a trigger's event, or raise its error.

    A task may resume long after the trigger's last poll, if no worker slot was free. So after a timeout the job is
    polled again, unless the last poll is less than an interval ago.
    """
    if isinstance(ended.result, Job):
        return ended.result
    if isinstance(ended.result, WaitTimeout) and time.time() - ended.at >= poll_interval:
        return last_poll(pictory_conn_id, ended.job_id, ended.result)
    raise ended.result


def last_poll(pictory_conn_id: str, job_id: str, error: Exception) -> Job:
    """Poll once more after a wait has ended with an error: the job may have been completed meanwhile.

    :param error: ended the wait; raised again, unless Pictory's answer is more definite.
    """
    from pictory_provider.hooks.pictory import PictoryHook

    with PictoryHook(pictory_conn_id) as hook:
        decision = SyncWatcher(JobPoller.for_last_poll(job_id, time.time()), hook, log=hook.log).poll()
    assert isinstance(decision, Finished)
    result = decision.result
    if isinstance(result, Job):
        return result
    raise error if isinstance(result, WaitTimeout) or is_transient(result) else result


def last_poll_after(error: Exception, pictory_conn_id: str, job_id: str) -> Job:
    """Poll once more after Airflow itself has ended a deferral with an error."""
    if isinstance(error, TaskDeferralTimeout):
        error = WaitTimeout(
            f"Airflow ended the deferral before job {job_id} was seen to end: {error}. The job keeps running at "
            "Pictory. Is a triggerer running, and is it healthy?"
        )
    return last_poll(pictory_conn_id, job_id, error)


def warn_of_short_interval(task: BaseOperator, name: str, interval: float) -> None:
    """Log a warning if a task polls more often than Pictory recommends."""
    if warning := short_interval_warning(name, interval):
        task.log.warning(warning)
