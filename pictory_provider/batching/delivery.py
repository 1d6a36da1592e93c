# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Look at jobs, and save the pictures of those that are finished, eight at a time.

Threads ask and save. What follows an answer is decided by a :class:`~pictory_provider.jobs.polling.JobPoller` for
each job, and noted by the one thread that owns the plan.
"""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import TYPE_CHECKING, Any, NamedTuple

from pictory_provider.api.errors import AuthenticationError, JobFailed, JobNotFound, PictoryError, StorageFailed
from pictory_provider.api.models import Job
from pictory_provider.batch.decision import Picture
from pictory_provider.client.asking import get_job
from pictory_provider.images.sidecar import Sidecar
from pictory_provider.jobs.polling import Finished, JobPoller
from pictory_provider.jobs.submission import Submission, fingerprint
from pictory_provider.telemetry import count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Executor

    from pictory_provider.batch.plan import Plan
    from pictory_provider.batch.rows import Row
    from pictory_provider.batch.steps import Ticket
    from pictory_provider.batching.folder import Folder
    from pictory_provider.batching.record import BatchRecord
    from pictory_provider.batching.turns import PacedClient
    from pictory_provider.client.asking import Log
    from pictory_provider.images.download import SavedImage

AT_ONCE = 8
"""Jobs that are asked for, or saved, side by side."""
_TICK = 1.0

_GONE_FOR_GOOD = ("JobFailed", "JobCleaned")
"""Ends of a job after which it gives no picture. After any other a later try looks again."""


class HowTo(NamedTuple):
    """What the operator says of waiting and saving.

    :param poll_interval: seconds between two looks at one job.
    :param timeout: seconds of each job, from its submission.
    """

    conn_id: str
    poll_interval: float
    timeout: float
    overwrite: bool
    mark_ai_generated: bool


class Delivery:
    """Looks and saves for one leg of a batch.

    :param renew: reads the Airflow connection again, and returns a client of what it holds now.
    :param tick: called about once a second.
    :param on_saved: told of each picture as it is saved.
    :param quiet: takes what every single job has to say.
    """

    def __init__(
        self,
        plan: Plan,
        record: BatchRecord,
        folder: Folder,
        pool: Executor,
        how: HowTo,
        *,
        renew: Callable[[], PacedClient],
        tick: Callable[[], None],
        on_saved: Callable[[Row, SavedImage], None],
        log: Log,
        quiet: Log,
    ) -> None:
        self._plan = plan
        self._record = record
        self._folder = folder
        self._pool = pool
        self._how = how
        self._renew = renew
        self._client = renew()
        self._tick = tick
        self._on_saved = on_saved
        self._log = log
        self._quiet = quiet
        self._pollers: dict[str, JobPoller] = {}
        self._not_before: dict[str, float] = {}
        self._refused: AuthenticationError | None = None

    @property
    def client(self) -> PacedClient:
        """The client that speaks for the connection as it was read last."""
        return self._client

    @property
    def next_look_at(self) -> float:
        """When a job that still runs is to be looked at again, at the soonest; epoch seconds."""
        return min(self._not_before.values(), default=time.time() + self._how.poll_interval)

    def look(self, tickets: tuple[Ticket, ...], enough: int | None = None) -> None:
        """Look at each job, the oldest first, save what is finished, and tell the plan of all.

        :param enough: when so many have ended, only those are looked at whose time is up.
        """
        asking, ended = deque(self._worth_a_look(tickets)), 0
        saving: deque[tuple[Ticket, Job]] = deque()
        running: dict[Future[Any], tuple[Ticket, Job | None, PacedClient]] = {}
        try:
            while asking or saving or running:
                while len(running) < AT_ONCE and (saving or asking):
                    self._start(running, asking, saving)
                done, _ = wait(running, timeout=_TICK, return_when=FIRST_COMPLETED)
                for future in done:
                    ticket, job, client = running.pop(future)
                    if job is not None:
                        self._after_saving(ticket, future)
                    elif (found := self._after_answer(ticket, future, client)) is None:
                        asking.append(ticket)
                    else:
                        ended += found is not False
                        if isinstance(found, Job):
                            saving.append((ticket, found))
                if enough is not None and ended >= enough:
                    asking = deque(self._past_their_time(asking))
                self._tick()
        finally:
            for future in running:
                future.cancel()

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
                running[self._pool.submit(shelf.take, sidecar, mark_ai_generated=True, log=self._quiet)] = row
            done, _ = wait(running, timeout=_TICK, return_when=FIRST_COMPLETED)
            for future in done:
                row = running.pop(future)
                image, picture = future.result(), self._plan.end_of(row).picture
                assert picture is not None
                self._plan.changed(row, picture._replace(size=image["size"], sha256=image["sha256"]))
            self._tick()

    def _worth_a_look(self, tickets: tuple[Ticket, ...]) -> list[Ticket]:
        """Return those whose time to be looked at has come; who asks too often is only asked to slow down."""
        now, worth = time.time(), []
        for ticket in sorted(tickets, key=lambda ticket: ticket.submitted_at or 0.0):
            if self._not_before.get(ticket.row.key, 0.0) > now:
                self._plan.still_running(ticket.row)
            else:
                worth.append(ticket)
        return worth

    def _past_their_time(self, tickets: Iterable[Ticket]) -> list[Ticket]:
        """Return those whose deadline has passed, and let the others run on."""
        now, past = time.time(), []
        for ticket in tickets:
            if ticket.submitted_at is None or ticket.submitted_at + self._how.timeout <= now:
                past.append(ticket)
            else:
                self._plan.still_running(ticket.row)
        return past

    def _start(
        self,
        running: dict[Future[Any], tuple[Ticket, Job | None, PacedClient]],
        asking: deque[Ticket],
        saving: deque[tuple[Ticket, Job]],
    ) -> None:
        client = self._client
        if saving:
            ticket, job = saving.popleft()
            row, bought = ticket.row, self._sidecar(ticket)
            # What is left of another table may replace nothing.
            overwrite = self._how.overwrite and not self._plan.journal.is_left_over(row.key)
            save = self._pool.submit(self._save, row.file_name, job, bought, client, overwrite=overwrite)
            running[save] = ticket, job, client
            return
        ticket = asking.popleft()
        if self._refused:
            self._ended(ticket, self._refused)
        else:
            running[self._pool.submit(get_job, client, ticket.job_id)] = ticket, None, client

    def _after_answer(self, ticket: Ticket, future: Future[Job], client: PacedClient) -> Job | bool | None:
        """Note how a job stands.

        :return: the job, where its picture is to be saved; whether it has ended; ``None`` to ask once more.
        """
        now, answer = time.time(), _result(future)
        count("pictory.polled")
        if isinstance(answer, Exception) and not isinstance(answer, PictoryError):
            raise answer
        decision = self._poller(ticket, now).after(answer, now)
        if not isinstance(decision, Finished):
            if decision.renew_connection:
                if client is self._client:
                    self._client = self._renew()
                return None
            self._not_before[ticket.row.key] = now + decision.seconds
            if not decision.is_normal:
                self._quiet.warning("%s", decision.reason)
            self._plan.still_running(ticket.row, since=now)
            return False
        if isinstance(decision.result, Job):
            return decision.result
        self._ended(ticket, decision.result)
        return True

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

    def _save(self, name: str, job: Job, bought: Sidecar, client: PacedClient, *, overwrite: bool) -> SavedImage:
        shelf = self._folder.shelf(name)
        there = shelf.look()
        is_left_behind = there.sidecar is not None and there.sidecar.saved is not None and there.size is None
        is_of_another = there.sidecar is None or there.sidecar.submission.job_id != job.job_id
        if is_of_another and not there.problem and (overwrite or is_left_behind):
            # The sidecar never says of a picture that it is another's.
            shelf.note(bought)
        return shelf.save(
            client,
            job,
            bought,
            overwrite=overwrite,
            mark_ai_generated=self._how.mark_ai_generated,
            log=self._quiet,
        )

    def _sidecar(self, ticket: Ticket) -> Sidecar:
        row = ticket.row
        entry = self._plan.journal.get(row.key)
        return Sidecar(
            file=row.file_name.rpartition("/")[2],
            submission=Submission(
                job_id=ticket.job_id,
                fingerprint=fingerprint(self._how.conn_id, row.asked),
                request=row.asked,
                max_tries=self._record.max_tries,
                retries=self._record.retries,
                intended_at=entry.intended_at if entry else None,
                submitted_at=ticket.submitted_at,
            ),
            made_by=self._record.me,
        )

    def _after_saving(self, ticket: Ticket, future: Future[SavedImage]) -> None:
        image = _result(future)
        row = ticket.row
        if isinstance(image, PictoryError):
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
        self._not_before.pop(row.key, None)


def _result(future: Future[Any]) -> Any:
    error = future.exception()
    return future.result() if error is None else error
