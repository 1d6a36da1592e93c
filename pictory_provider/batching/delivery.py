# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Look at jobs, and save the pictures of those that are finished, beside whatever else a worker does.

Threads ask and save: eight ask, and eight save. What follows an answer is decided by a
:class:`~pictory_provider.jobs.polling.JobPoller` for each job, and noted by the one thread that owns the plan,
whenever it comes by (:meth:`Delivery.go_on`).
"""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, NamedTuple

from pictory_provider.api.errors import AuthenticationError, JobFailed, JobNotFound, PictoryError, StorageFailed
from pictory_provider.api.models import Job
from pictory_provider.batch.decision import Picture
from pictory_provider.batch.looks import Looks
from pictory_provider.batching.saving import save, sidecar_of
from pictory_provider.client.asking import get_job
from pictory_provider.jobs.events import is_fresh
from pictory_provider.jobs.polling import Finished, JobPoller
from pictory_provider.telemetry import count

if TYPE_CHECKING:
    from collections.abc import Callable

    from pictory_provider.batch.plan import Plan
    from pictory_provider.batch.rows import Row
    from pictory_provider.batch.seen import Seen
    from pictory_provider.batch.steps import Ticket
    from pictory_provider.batching.folder import Folder
    from pictory_provider.batching.record import BatchRecord
    from pictory_provider.batching.saving import HowTo
    from pictory_provider.batching.turns import PacedClient
    from pictory_provider.client.asking import Log
    from pictory_provider.images.download import SavedImage
    from pictory_provider.images.sidecar import Sidecar

AT_ONCE = 8
"""Jobs that are asked for, and pictures that are saved, side by side."""
_TICK = 1.0
_GONE_FOR_GOOD = ("JobFailed", "JobCleaned")
"""Ends of a job after which it gives no picture. After any other a later try looks again."""


class _Doing(NamedTuple):
    """What a thread does.

    :param job: whose picture it saves; ``None`` where it asks.
    :param is_told: whether a trigger has told of the job, and this worker has not asked for it.
    """

    ticket: Ticket
    client: PacedClient
    job: Job | None = None
    is_told: bool = False


class Delivery:
    """Looks and saves for one leg of a batch.

    :param seen: what the trigger has seen that woke this worker.
    :param can_defer: whether the triggerer looks where this worker does not.
    :param renew: reads the Airflow connection again, and returns a client of what it holds now.
    :param on_saved: told of each picture as it is saved.
    :param quiet: takes what every single job has to say.
    """

    def __init__(
        self,
        plan: Plan,
        record: BatchRecord,
        folder: Folder,
        how: HowTo,
        *,
        seen: Seen | None,
        can_defer: bool,
        renew: Callable[[], PacedClient],
        on_saved: Callable[[Row, SavedImage], None],
        log: Log,
        quiet: Log,
    ) -> None:
        self._plan = plan
        self._record = record
        self._folder = folder
        self._how = how
        self._renew = renew
        self._client = renew()
        self._on_saved = on_saved
        self._log = log
        self._quiet = quiet
        self._askers = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="pictory-ask")
        self._savers = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="pictory-save")
        self._doing: dict[Future[Any], _Doing] = {}
        self._asking = 0
        self._looks = Looks(how.poll_interval, can_defer=can_defer)
        self._pollers: dict[str, JobPoller] = {}
        self._refused: AuthenticationError | None = None
        self._begin(seen)

    @property
    def client(self) -> PacedClient:
        """The client that speaks for the connection as it was read last."""
        return self._client

    @property
    def is_busy(self) -> bool:
        """Whether a job is asked for, or a picture is saved."""
        return bool(self._doing)

    @property
    def next_look_at(self) -> float:
        """When a job is to be looked at, at the soonest; epoch seconds, or infinity."""
        return self._looks.next_at

    @property
    def is_worth_staying(self) -> bool:
        """Whether the next look is worth waiting for on this worker, rather than to defer."""
        return self._looks.is_worth_staying(time.time())

    def close(self, *, is_patient: bool) -> None:
        """Begin nothing more.

        :param is_patient: wait for what is being done.
        """
        for pool in (self._askers, self._savers):
            pool.shutdown(wait=is_patient, cancel_futures=True)

    def go_on(self) -> None:
        """Take what threads have come back with, and give them what is next. It waits for nothing."""
        for future in [future for future in self._doing if future.done()]:
            doing = self._doing.pop(future)
            if doing.job is None:
                self._asking -= 1
                self._after_answer(doing, future)
            else:
                self._after_saving(doing, future)
        for key, ticket in self._plan.tickets.items():
            if key not in self._looks:
                self._looks.add(key, (ticket.submitted_at or 0.0) + self._how.poll_interval)
        while self._asking < AT_ONCE and (due := self._looks.take(time.time())) is not None:
            self._ask(self._plan.tickets[due])

    def wait(self) -> None:
        """Wait until a thread has come back, or a job may be looked at: for a second at most."""
        until = _TICK
        if self._asking < AT_ONCE:
            until = min(until, max(0.0, self.next_look_at - time.time()))
        wait(self._doing, timeout=until, return_when=FIRST_COMPLETED)

    def mark(self, unmarked: dict[str, Sidecar]) -> None:
        """Mark pictures that lie there already and say nothing of their origin.

        :param unmarked: by their names in the folder; marked are those that rows of this batch take.
        """
        rows = [row for row in self._plan.rows if row.file_name in unmarked and self._plan.end_of(row).picture]
        todo = deque(rows)
        running: dict[Future[Any], Row] = {}
        while todo or running:
            while len(running) < AT_ONCE and todo:
                row = todo.popleft()
                shelf = self._folder.shelf(row.file_name)
                shelf.look()
                sidecar = unmarked[row.file_name]
                running[self._savers.submit(shelf.take, sidecar, mark_ai_generated=True, log=self._quiet)] = row
            done, _ = wait(running, timeout=_TICK, return_when=FIRST_COMPLETED)
            for future in done:
                row = running.pop(future)
                image, picture = future.result(), self._plan.end_of(row).picture
                assert picture is not None
                self._plan.changed(row, picture._replace(size=image["size"], sha256=image["sha256"]))

    def _begin(self, seen: Seen | None) -> None:
        """Look at once at what was bought before, but for what a trigger has just seen."""
        now, tickets = time.time(), self._plan.tickets
        # Where not all jobs were waited for, or not all that ended are named, the others may have ended, too.
        is_known = seen is not None and seen.is_whole and seen.of == len(tickets)
        later = 0.0 if seen is None or not is_known else seen.at + self._how.poll_interval
        for key, ticket in tickets.items():
            job = seen.jobs.get(ticket.job_id) if seen else None
            if seen and job and is_fresh(seen.seen_at[job.job_id], now):
                self._looks.add(key, float("inf"))
                self._save(ticket, job, is_told=True)
            else:
                has_ended = seen is not None and (job is not None or ticket.job_id in seen.others)
                self._looks.add(key, 0.0 if has_ended else later, is_first=has_ended or not is_known)

    def _ask(self, ticket: Ticket) -> None:
        if self._refused:
            self._ended(ticket, self._refused)
            return
        self._asking += 1
        client = self._client
        self._doing[self._askers.submit(get_job, client, ticket.job_id)] = _Doing(ticket, client)

    def _save(self, ticket: Ticket, job: Job, *, is_told: bool = False) -> None:
        row, client, journal = ticket.row, self._client, self._plan.journal
        saving = self._savers.submit(
            save,
            self._folder,
            row.file_name,
            job,
            sidecar_of(ticket, journal.get(row.key), self._record, self._how),
            client,
            # What is left of another table may replace nothing.
            overwrite=self._how.overwrite and not journal.is_left_over(row.key),
            mark_ai_generated=self._how.mark_ai_generated,
            log=self._quiet,
        )
        self._doing[saving] = _Doing(ticket, client, job, is_told)

    def _after_answer(self, doing: _Doing, future: Future[Job]) -> None:
        """Note how a job stands; have its picture saved, or ask once more."""
        ticket = doing.ticket
        row = ticket.row
        now, answer = time.time(), _result(future)
        count("pictory.polled")
        if isinstance(answer, Exception) and not isinstance(answer, PictoryError):
            raise answer
        decision = self._poller(ticket, now).after(answer, now)
        if isinstance(decision, Finished):
            if isinstance(decision.result, Job):
                self._save(ticket, decision.result)
            else:
                self._ended(ticket, decision.result)
        elif decision.renew_connection:
            if doing.client is self._client:
                self._client = self._renew()
            self._ask(ticket)
        else:
            self._looks.still_running(row.key, now, decision.seconds)
            if not decision.is_normal:
                self._quiet.warning("%s", decision.reason)
            self._plan.still_running(row, since=now)

    def _poller(self, ticket: Ticket, now: float) -> JobPoller:
        key = ticket.row.key
        if key not in self._pollers:
            started_at = now if ticket.submitted_at is None else ticket.submitted_at
            self._pollers[key] = JobPoller(
                job_id=ticket.job_id,
                started_at=started_at,
                end_time=started_at + self._how.timeout,
                poll_interval=self._how.poll_interval,
            )
        return self._pollers[key]

    def _after_saving(self, doing: _Doing, future: Future[SavedImage]) -> None:
        ticket, image = doing.ticket, _result(future)
        row = ticket.row
        if isinstance(image, PictoryError):
            if doing.is_told and not isinstance(image, StorageFailed):
                self._quiet.debug("%s is asked for again: %s", ticket.job_id, image.message)
                self._ask(ticket)
            else:
                self._ended(ticket, image)
            return
        if isinstance(image, Exception):
            self._log.error("%s, %s: an error that nobody foresaw", row.label, row.file_name, exc_info=image)
            self._ended(ticket, StorageFailed(f"Its picture could not be saved: {image!r}"))
            return
        self._forget(row)
        if image["ai_credits_used"]:
            count("pictory.credits_used", count=image["ai_credits_used"])
        name = image["path"].removeprefix(self._folder.path + "/")
        picture = Picture(
            job_id=ticket.job_id,
            ai_credits_used=image["ai_credits_used"],
            width=image["width"],
            height=image["height"],
            size=image["size"],
            sha256=image["sha256"],
            file_name=None if name == row.file_name else name,
        )
        self._plan.saved(row, picture)
        self._on_saved(row, image)

    def _ended(self, ticket: Ticket, error: PictoryError) -> None:
        """Note that a job gives no picture, for now or for good."""
        row = ticket.row
        self._forget(row)
        if isinstance(error, JobNotFound):
            self._plan.unknown(row, f"job {ticket.job_id} is on record, and Pictory knows no such job")
            self._log.error("%s, %s: unknown: Pictory knows no job %s.", row.label, row.file_name, ticket.job_id)
            return
        code, message = type(error).__name__, error.message
        if isinstance(error, JobFailed) and error.job is not None:
            code, message = error.job.error_code or code, error.job.error_message or message
        log = self._quiet.debug if error is self._refused else self._log.error
        if isinstance(error, AuthenticationError):
            self._refused = error
            self._plan.stop(error)
        self._plan.failed(row, code, message, adoptable=type(error).__name__ not in _GONE_FOR_GOOD)
        first = message.partition(". ")[0].rstrip(".")
        log("%s, %s: %s: %s (job %s).", row.label, row.file_name, code, first, ticket.job_id)

    def _forget(self, row: Row) -> None:
        self._pollers.pop(row.key, None)
        self._looks.ended(row.key)


def _result(future: Future[Any]) -> Any:
    error = future.exception()
    return future.result() if error is None else error
