# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Decide whether to keep waiting for a job or to finish.

Poke mode, reschedule mode, the trigger and the operator's own wait all pass Pictory's answer to a
:class:`JobPoller` and do what it says, so they cannot disagree.

==========================  ===============================================================
Pictory's answer            the poller's decision
==========================  ===============================================================
in-progress                 wait
an unknown status           wait, with a warning
completed, with a URL       finished, even after the deadline
completed, without a URL    wait for a minute, then :class:`ProtocolError`
failed, or success false    :class:`JobFailed`
cleaned                     :class:`JobCleaned`
job not found               wait in the job's first minute, then :class:`JobNotFound`
401, or no usable key       read the connection again once, then :class:`AuthenticationError`
400                         :class:`RequestInvalid`
a transient error           wait longer each time, respecting ``Retry-After``
==========================  ===============================================================

After the deadline, a decision to wait becomes an error: :class:`WaitTimeout`, or :class:`EdgeBlocked` if the
firewall was the last to answer. The deadline is checked after an answer and never before, so there is always one
poll after it. Two polls are never closer than the interval, except the one with a renewed key.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Any, NamedTuple

from pictory_provider.api.errors import (
    TOP_UP,
    AuthenticationError,
    EdgeBlocked,
    JobCleaned,
    JobFailed,
    JobNotFound,
    PictoryError,
    ProtocolError,
    WaitTimeout,
    lacks_credits,
)
from pictory_provider.api.models import Job, JobState
from pictory_provider.api.retry import is_transient, pause_after
from pictory_provider.api.timing import TIMING

if TYPE_CHECKING:
    from collections.abc import Callable

DEFERRAL_SLACK = 180.0
"""Seconds by which Airflow's own timeout of a deferral exceeds the deadline plus the one poll after it."""


class Wait(NamedTuple):
    """Poll again after some seconds.

    :param reason: a line for the log.
    :param is_normal: whether the reason is the usual one; otherwise it is logged as a warning.
    :param status: Pictory's status of a job that has not ended; ``None`` if the reason is another.
    :param stay_in_process: the poller has state that a new one would not have.
    :param renew_connection: read the Airflow connection again before the next poll.
    """

    seconds: float
    reason: str
    is_normal: bool = True
    status: str | None = None
    stay_in_process: bool = False
    renew_connection: bool = False


class Finished(NamedTuple):
    """The wait is over: a completed job with its URL, or the error to raise."""

    result: Job | PictoryError

    def job(self) -> Job:
        """Return the completed job, or raise the error."""
        if isinstance(self.result, PictoryError):
            raise self.result
        return self.result


def deferral_timeout(timeout: float, poll_interval: float) -> float:
    """Return the seconds after which Airflow may end a deferral, for a wait of ``timeout`` seconds."""
    return timeout + poll_interval + DEFERRAL_SLACK


def short_interval_warning(name: str, interval: float) -> str | None:
    """Return a warning if an interval is shorter than Pictory recommends, else ``None``.

    :param name: of the argument.
    """
    if interval >= TIMING.poll_interval_recommended:
        return None
    least = TIMING.poll_interval_min
    limit = f" Polling is limited to once every {least:.0f} s." if interval < least else ""
    return (
        f"{name} is {interval} s; Pictory recommends 10 to 30 s between two polls, and may refuse more "
        f"frequent ones.{limit}"
    )


class JobPoller:
    """Decide what follows each of Pictory's answers about one job.

    :param started_at: epoch seconds at which the wait began.
    :param end_time: epoch seconds of the deadline.
    :param poll_interval: seconds between two polls; never less than ``TIMING.poll_interval_min``.
    :param exponential_backoff: double the interval as the wait goes on.
    :param max_wait: seconds that the doubled interval may reach.
    :param first_poll: seconds from the start to the first poll, if that is sooner than an interval. The second
        poll follows as soon as Pictory recommends, and all others at whole intervals from the start.
    :param chance: returns random numbers from 0 to 1, for the jitter after errors.
    """

    def __init__(
        self,
        *,
        job_id: str,
        started_at: float,
        end_time: float,
        poll_interval: float,
        exponential_backoff: bool = False,
        max_wait: float | None = None,
        first_poll: float | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.job_id = job_id
        self.started_at = started_at
        self.end_time = end_time
        self.poll_interval = max(poll_interval, TIMING.poll_interval_min)
        self.exponential_backoff = exponential_backoff
        self.max_wait = max_wait
        self._first_poll = first_poll if first_poll is not None and first_poll < self.poll_interval else None
        self._chance = chance
        self._failures = 0
        self._last_failure: PictoryError | None = None
        self._renewed = False
        self._without_url_since: float | None = None

    @property
    def timeout(self) -> float:
        """Seconds from the start of the wait to its deadline."""
        return self.end_time - self.started_at

    @classmethod
    def for_last_poll(cls, job_id: str, now: float) -> JobPoller:
        """Return a poller whose deadline is now: it finishes with any answer."""
        return cls(job_id=job_id, started_at=now, end_time=now, poll_interval=0)

    @classmethod
    def for_download(cls, job_id: str, now: float) -> JobPoller:
        """Return a poller for a job that is said to be finished: it only waits while Pictory may not know the job
        yet or may not have its URL yet.
        """
        end_time = now + max(TIMING.unknown_job, TIMING.missing_url)
        interval = TIMING.poll_interval_recommended
        return cls(job_id=job_id, started_at=now, end_time=end_time, poll_interval=interval)

    def after(self, answer: Job | PictoryError, now: float) -> Wait | Finished:
        """Decide what follows an answer.

        :param answer: Pictory's answer about the job, or why the poll failed.
        :param now: epoch seconds.
        """
        if isinstance(answer, Job):
            self._failures, self._last_failure, self._renewed = 0, None, False
            return self._after_job(answer, now)
        return self._after_error(answer, now)

    def _after_job(self, job: Job, now: float) -> Wait | Finished:
        state = job.state
        if state is JobState.COMPLETED:
            return Finished(job) if job.url else self._after_missing_url(job, now)
        if state is JobState.FAILED:
            return Finished(_failed(job))
        if state is JobState.CLEANED:
            return Finished(
                JobCleaned(
                    f"Job {job.job_id} was cleaned: Pictory has removed its picture. It was paid for when it "
                    "ran; generating it again costs again. Save pictures soon after they are finished.",
                    job=job,
                )
            )
        status = job.status or "no status"
        if now >= self.end_time:
            return Finished(self._timed_out(job, f"still {status!r}", now))
        return self._wait(
            now,
            f"Job {job.job_id} is {status} after {now - self.started_at:.0f} s",
            is_normal=state is JobState.IN_PROGRESS,
            status=status,
        )

    def _after_missing_url(self, job: Job, now: float) -> Wait | Finished:
        if self._without_url_since is None:
            self._without_url_since = now
        waited = now - self._without_url_since
        if waited >= TIMING.missing_url or now >= self.end_time:
            return Finished(
                ProtocolError(
                    f"Job {job.job_id} is completed, but Pictory gave no URL for its picture in "
                    f"{waited:.0f} s. The picture was paid for. Look for it in the gallery: "
                    "`PictoryHook().list_images()`, or https://app.pictory.ai in a browser.",
                    status=200,
                )
            )
        return self._wait(
            now, f"Job {job.job_id} is completed but has no URL yet", is_normal=False, stay_in_process=True
        )

    def _after_error(self, error: PictoryError, now: float) -> Wait | Finished:
        if isinstance(error, AuthenticationError) and not self._renewed:
            self._renewed = True
            return Wait(
                0,
                "Pictory refused the API key; reading the connection again",
                is_normal=False,
                stay_in_process=True,
                renew_connection=True,
            )
        if isinstance(error, JobNotFound):
            age = now - self.started_at
            if age >= TIMING.unknown_job or now >= self.end_time:
                return Finished(error)
            return self._wait(now, f"Pictory does not know job {self.job_id} yet ({age:.0f} s)", is_normal=False)
        if not is_transient(error):
            return Finished(error)
        self._failures += 1
        self._last_failure = error
        if now >= self.end_time:
            if isinstance(error, EdgeBlocked):
                return Finished(error)
            return Finished(self._timed_out(Job(job_id=self.job_id), "out of reach", now))
        return self._wait_after_failure(error, now)

    def _wait_after_failure(self, error: PictoryError, now: float) -> Wait:
        first = max(self._interval(now), self.poll_interval)
        pause = pause_after(error, failures=self._failures, now=now, chance=self._chance(), first=first)
        in_a_row = f"({self._failures} in a row)"
        reason = f"Could not poll job {self.job_id} {in_a_row}: {error.message} The job is not affected"
        return Wait(self._within_deadline(pause, now), reason, is_normal=False)

    def _wait(self, now: float, reason: str, **kwargs: Any) -> Wait:
        return Wait(self._within_deadline(self._interval(now), now), reason, **kwargs)

    def _within_deadline(self, seconds: float, now: float) -> float:
        """Cap a wait at the time left until the deadline, but not below the interval."""
        return min(seconds, max(self.poll_interval, self.end_time - now))

    def _interval(self, now: float) -> float:
        """Return the seconds until the next poll.

        With exponential backoff the polls fall at 1, 3, 7, 15... intervals after the start. That follows from the
        clock alone, so a rescheduled sensor and a restarted trigger keep to it.
        """
        elapsed = max(0.0, now - self.started_at)
        if not self.exponential_backoff:
            return self.poll_interval if self._first_poll is None else self._after_first_poll(elapsed)
        doublings = min(30, math.floor(math.log2(elapsed / self.poll_interval + 1)))
        longest = math.inf if self.max_wait is None else max(self.max_wait, self.poll_interval)
        return min(self.poll_interval * float(2**doublings), longest)

    def _after_first_poll(self, elapsed: float) -> float:
        """Return the seconds until the next poll if the first comes sooner than an interval.

        A poll may come a little before or after its time, so each step has a second of slack.
        """
        assert self._first_poll is not None
        slack = TIMING.poll_interval_min
        if elapsed <= self._first_poll - slack:
            return self._first_poll - elapsed
        pause = min(TIMING.poll_interval_recommended, self.poll_interval)
        if elapsed < self._first_poll + pause - slack:
            return pause
        regular = math.ceil((elapsed + pause - slack) / self.poll_interval) * self.poll_interval
        return min(max(regular - elapsed, pause), self.poll_interval)

    def _timed_out(self, job: Job, how: str, now: float) -> WaitTimeout:
        last = f" The last answer was: {self._last_failure.message}" if self._last_failure else ""
        return WaitTimeout(
            f"Job {self.job_id} was {how} after {now - self.started_at:.0f} s; the deadline was "
            f"{self.timeout:.0f} s. It keeps running at Pictory, and its cost is committed.{last} Wait for it "
            f'again with PictoryJobSensor(job_id="{self.job_id}") and a longer `timeout`.',
            job=job,
        )


def _failed(job: Job) -> JobFailed:
    said = ": ".join(part for part in (job.error_code, job.error_message) if part).rstrip(".")
    if lacks_credits(None, job.error_code):
        return JobFailed(
            f"Job {job.job_id} failed at Pictory: {said}. The account has too few AI credits left for this "
            f"picture. {TOP_UP}",
            job=job,
        )
    return JobFailed(
        f"Job {job.job_id} failed at Pictory: {said or 'no reason given'}. Whether failed jobs are charged is not "
        "documented; `PictoryHook().get_credit_usage()` shows the ledger. Submitting the same request again "
        "costs again: change the prompt or the reference image first.",
        job=job,
    )
