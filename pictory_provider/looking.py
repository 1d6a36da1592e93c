# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Look at a job: ask once, hand the answer to its poller, and tell log and metrics what comes of it.

The rule of a look stands here once, for workers (:class:`Watch`) and for the triggerer (:class:`SharedWatch`).
What follows an answer is decided in :mod:`pictory_provider.jobs.polling`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from pictory_provider.api import endpoints, responses
from pictory_provider.api.checks import check_job_id
from pictory_provider.api.errors import PictoryError, Unavailable, WaitTimeout
from pictory_provider.api.models import Job
from pictory_provider.client.asking import get_job
from pictory_provider.jobs.news import News
from pictory_provider.jobs.polling import Finished, JobPoller, Wait
from pictory_provider.telemetry import count

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from pictory_provider.client.asking import Log
    from pictory_provider.client.sync import SyncClient
    from pictory_provider.pool import Waiter


class Connected(Protocol):
    """What speaks for an Airflow connection: a :class:`~pictory_provider.hooks.pictory.PictoryHook`."""

    def get_conn(self) -> SyncClient:
        """Return the client, looking the connection up where it is not open."""

    def close(self) -> None:
        """Close it, so that the connection is looked up again."""


class Watched:
    """One wait for one job, as the process sees it that looks.

    :param silent_fail: take an error that nobody foresaw for one that passes.
    :param is_carried_on: whether another process has begun the wait, and said so.
    :param is_last: whether nobody looks at the completed job again, to count what it cost.
    """

    def __init__(
        self,
        poller: JobPoller,
        *,
        log: Log,
        silent_fail: bool = False,
        is_carried_on: bool = False,
        is_last: bool = True,
    ) -> None:
        self.poller = poller
        self._log = log
        self._silent_fail = silent_fail
        self._is_last = is_last
        self._news = News(poller.started_at, is_carried_on=is_carried_on)

    def take(self, answer: Job | PictoryError) -> Wait | Finished:
        """Return what the poller says to an answer, logged and counted."""
        count("pictory.polled")
        now = time.time()
        decision = self.poller.after(answer, now)
        if isinstance(decision, Wait):
            if self._news.is_worth_a_line(decision, now):
                log = self._log.info if decision.is_normal else self._log.warning
                pause = max(decision.seconds, self._stretched_interval)
                log("%s. Next look in %.0f s.", decision.reason.rstrip("."), pause)
        elif isinstance(decision.result, Job):
            credits = decision.result.ai_credits_used
            if credits and self._is_last:
                # Prices are in tenths; every backend of Airflow's Stats counts fractions.
                count("pictory.credits_used", count=credits)
            self._log.info("Job %s is completed (%s AI credits).", self.poller.job_id, credits)
        return decision

    async def _look(self, ask: Callable[..., Awaitable[Job]]) -> Wait | Finished:
        """Ask, and return what the poller says to it: the rule of a look.

        :param ask: takes ``renew``, whether the connection has to be read anew before.
        """
        renew = False
        while True:
            answer: Job | PictoryError
            try:
                answer = await ask(renew=renew)
            except PictoryError as error:
                answer = error
            except Exception as error:
                if not self._silent_fail:
                    raise
                self._log.exception("An error that nobody foresaw; silent_fail is on.")
                answer = Unavailable(f"{type(error).__name__}: {error}")
            decision = self.take(answer)
            if isinstance(decision, Finished) or not decision.renew_connection:
                return decision
            renew = True

    @property
    def _stretched_interval(self) -> float:
        """Seconds between two looks at one job where others leave no choice."""
        return 0.0


class Watch(Watched):
    """A wait whose looks go from a worker.

    :param connected: asked for a new client after a 401.
    """

    def __init__(self, poller: JobPoller, connected: Connected, **more: Any) -> None:
        super().__init__(poller, **more)
        self._connected = connected

    def look(self) -> Wait | Finished:
        """Look once, now."""
        return _without_waiting(self._look(self._ask))

    async def _ask(self, *, renew: bool) -> Job:
        if renew:
            self._connected.close()
        return get_job(self._connected.get_conn(), self.poller.job_id)


class SharedWatch(Watched):
    """A wait whose looks go from the triggerer, through the client that all its waits share."""

    def __init__(self, poller: JobPoller, waiter: Waiter, **more: Any) -> None:
        super().__init__(poller, **more)
        self._waiter = waiter

    async def look(self, not_before: float = 0.0) -> Wait | Finished:
        """Look once, when the turn has come.

        :param not_before: epoch seconds of the turn at the soonest.
        """

        async def ask(*, renew: bool) -> Job:
            if renew:
                self._waiter.renew()
            request = endpoints.get_job(self.poller.job_id)
            reply = await self._waiter.send(request, not_before=0.0 if renew else not_before)
            return responses.parse_job(reply, self.poller.job_id)

        return await self._look(ask)

    @property
    def _stretched_interval(self) -> float:
        return self._waiter.stretched_interval


def finished_job(job_id: object, connected: Connected, *, log: Log) -> Job:
    """Return a job whose picture can be downloaded now.

    A job that Pictory does not know yet, or that has no URL yet, is asked for again for a minute.

    :raises PictoryError: why it cannot; :class:`Unavailable` for a job that still runs.
    """
    watch = Watch(JobPoller.for_download(check_job_id(job_id), time.time()), connected, log=log)
    while isinstance(decision := watch.look(), Wait):
        if decision.status is not None:
            raise Unavailable(
                f"{decision.reason}: there is no picture to download yet. Put a PictoryJobSensor before the "
                "download. A retry looks again, and is free."
            )
        time.sleep(decision.seconds)
    if isinstance(decision.result, WaitTimeout):
        raise Unavailable(f"{decision.result.message} Nothing was saved. A retry looks again, and is free.")
    return decision.job()


def _without_waiting(coroutine: Coroutine[Any, Any, Wait | Finished]) -> Wait | Finished:
    """Run a coroutine that waits for nothing but plain calls."""
    try:
        coroutine.send(None)
    except StopIteration as ended:
        result: Wait | Finished = ended.value
        return result
    raise AssertionError("a look from a worker has no event loop to wait in")
