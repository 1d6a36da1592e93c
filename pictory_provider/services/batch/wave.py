# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Submit a wave: some rows in parallel, with a record before they are sent and after Pictory has answered.

:func:`pictory_provider.services.submit.submit` sends each row. The record is written:

1. after the uploads of reference images and before the first request, with the intents of the wave;
2. a second after the first answer that is not recorded yet, with all answers until then;
3. after the last answer, with the rest.

The threads only send. The one thread that owns the plan handles the answers.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from concurrent.futures import wait
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from pictory_provider.api.checks import is_upload
from pictory_provider.api.errors import PictoryError, SubmitOutcomeUnknown
from pictory_provider.api.timing import TIMING
from pictory_provider.core.batch.decision import RowState
from pictory_provider.core.budget import Budget, Limits
from pictory_provider.exceptions import failure
from pictory_provider.services.submit import check_time, submit

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from concurrent.futures import Executor

    from pictory_provider.client.retrying import Log
    from pictory_provider.client.throttle import PacedClient, ThreadRateLimiter
    from pictory_provider.core.batch.plan import Plan, SubmitWave
    from pictory_provider.core.batch.rows import Row
    from pictory_provider.core.ledger import Charge
    from pictory_provider.services.batch.state import BatchRecord
    from pictory_provider.services.uploads import Uploads

UNRECORDED = 1.0
"""Seconds after which an answer is recorded at the latest."""


class _NotSentError(PictoryError):
    """Submissions have stopped before a row's request was sent."""


class _Answer(NamedTuple):
    """The outcome of a row's request.

    :param result: the jobId; the error; ``None`` if it was not sent.
    :param may_be_accepted: whether Pictory may have accepted it.
    """

    row: Row
    result: str | BaseException | None
    may_be_accepted: bool = False


class _Sending:
    """One row's request: a :class:`~pictory_provider.services.submit.Recorder` that tracks whether it was sent.

    It does not write the journal; the wave does. It waits for the rate limiter before the request is sent.

    :param problem: why the reference image could not be uploaded, so that the request is not sent.
    """

    def __init__(self, wave: Wave, row: Row, problem: BaseException | None) -> None:
        self._wave = wave
        self.row = row
        self.may_be_accepted = False
        self._job_id: str | None = None
        self._problem = problem

    def intend(self, purchase: Charge) -> None:  # noqa: ARG002  the journal has it already
        wave = self._wave
        wave.rate_limiter.acquire(wave.check)
        try:
            wave.check_ownership()
            with wave.lock:
                wave.check()
                self.may_be_accepted = True
        except BaseException:
            wave.rate_limiter.answered()
            raise

    def withdraw(self) -> None:
        self.may_be_accepted = False

    def keep(self, job_id: str) -> None:
        self._job_id = job_id

    def send(self) -> _Answer:
        """Send the request and return its outcome; this raises nothing."""
        row, wave = self.row, self._wave
        try:
            if self._problem:
                raise self._problem
            self._job_id = submit(
                wave.client,
                row.request,
                uploads=wave.uploads,
                budget=Budget(Limits()),  # the batch has reserved the credits of the whole wave
                recorder=self,
                ends_at=wave.ends_at,
                tags={"dag_id": str(wave.record.made_by.dag_id)},
                log=wave.quiet,
            )
        except _NotSentError:
            return _Answer(row, None)
        except BaseException as error:
            if self._job_id is None:
                return _Answer(row, error, self.may_be_accepted)
        return _Answer(row, self._job_id, may_be_accepted=True)


class Wave:
    """Submits waves of a batch on this worker.

    :param uploads: of the batch.
    :param ends_at: seconds of the monotonic clock; nothing is submitted after that.
    :param no_more: set if nothing more is to be submitted.
    :param quiet: the log for messages about single requests.
    """

    def __init__(
        self,
        plan: Plan,
        record: BatchRecord,
        client: PacedClient,
        rate_limiter: ThreadRateLimiter,
        pool: Executor,
        *,
        uploads: Uploads,
        ends_at: float | None,
        no_more: threading.Event,
        log: Log,
        quiet: Log,
    ) -> None:
        self.plan = plan
        self.record = record
        self.client = client
        self.rate_limiter = rate_limiter
        self.uploads = uploads
        self.ends_at = ends_at
        self.quiet = quiet
        self.lock = threading.Lock()
        self._owned_at = -math.inf
        self._unrecorded: set[str] = set()
        self._pool = pool
        self._no_more = no_more
        self._log = log

    def submit(self, wave: SubmitWave, purchases: Sequence[Charge]) -> None:
        """Submit a wave, and record its outcome.

        :param purchases: the charges of its rows.
        :raises StorageFailed: if the record cannot be written, or another attempt has taken it over; nothing was
            sent.
        :raises AirflowTaskTimeout: if the task's time is over.
        :raises AirflowFailException: if jobs were bought and cannot be recorded.
        """
        problems = self._upload(wave.rows)
        to_send = [_Sending(self, row, problems.get(row.request.reference_image_url)) for row in wave.rows]
        # Airflow's timeout may be raised in any line of this block.
        try:
            now = time.time()
            self.plan.intend(wave, purchases)
            self.record.write(self.plan.journal)
            self._owned_at = now
            self._send(list(to_send))
        except BaseException:
            with self.lock:
                self._no_more.set()  # from now on no request of this wave begins
            if self.plan.unsent([each.row for each in to_send if not each.may_be_accepted]):
                self._record_unsent()
            raise

    def check_ownership(self) -> None:
        """Check that this attempt still owns the batch, right before something is sent.

        :raises StorageFailed: if another attempt or another task has taken it over.
        """
        with self.lock:
            now = time.time()
            if not 0 <= now - self._owned_at <= TIMING.ownership:
                self.record.check_ownership(self.plan.journal.header)
                self._owned_at = now

    def check(self) -> None:
        """Raise if nothing more may be sent."""
        if self._no_more.is_set():
            raise _NotSentError("Submissions have stopped.")
        check_time(self.ends_at)

    def _upload(self, rows: Iterable[Row]) -> dict[str | None, BaseException]:
        """Upload the reference images of a wave, before any of its intents: a large one may take a while.

        :return: the errors, by the names of the reference images.
        """

        def upload(name: str) -> None:
            self.check()
            self.uploads.url_of(self.client, name, log=self.quiet)

        names = {str(name) for row in rows if is_upload(name := row.request.reference_image_url)}
        futures = {name: self._pool.submit(upload, name) for name in names}
        wait(futures.values())
        return {name: error for name, future in futures.items() if (error := future.exception()) is not None}

    def _send(self, to_send: list[_Sending]) -> None:
        """Send a wave and handle the answers as they arrive, also of requests in flight when an error occurs."""
        answers: queue.SimpleQueue[_Answer] = queue.SimpleQueue()
        unanswered = {each.row.key: each for each in to_send}
        pending: _Answer | None = None
        write_at = give_up_at = math.inf
        ended_by: BaseException | None = None
        while unanswered and (pending or time.monotonic() < give_up_at):
            # Airflow's timeout is raised once, in any line. The requests in flight must be waited for even then.
            try:
                while to_send:
                    each = to_send.pop(0)  # first, so that an error cannot make a row be sent twice
                    self._pool.submit(lambda one: answers.put(one.send()), each)
                if time.monotonic() >= write_at:
                    write_at = math.inf
                    self._write()
                pending = pending or _next(answers, before=min(write_at, give_up_at))
                if pending is not None:
                    if pending.may_be_accepted:
                        self._unrecorded.add(pending.row.key)
                    ended_by = self._handle(pending) or ended_by
                    unanswered.pop(pending.row.key, None)
                    pending, write_at = None, min(write_at, time.monotonic() + UNRECORDED)
            except (Exception, AirflowTaskTimeout) as error:
                if ended_by is not None:
                    raise
                ended_by, give_up_at = error, time.monotonic() + TIMING.wave_grace
                self._no_more.set()
        self._give_up(unanswered.values())
        self._write()
        if ended_by is not None:
            raise ended_by

    def _give_up(self, unanswered: Iterable[_Sending]) -> None:
        for each in unanswered:
            if each.may_be_accepted:
                self._log.error(
                    "%s, %s: no answer when the attempt had to end.", each.row.label, each.row.file_name
                )
            else:
                self.plan.withdraw(each.row)  # it still waits for the rate limiter and will not be sent

    def _handle(self, answer: _Answer) -> BaseException | None:
        """Enter an answer into the plan; return an error that has to end this attempt."""
        row, result, may_be_accepted = answer
        plan, now = self.plan, time.time()
        if isinstance(result, str):
            plan.answered(row, result, now)
        elif isinstance(result, SubmitOutcomeUnknown):
            plan.answered(row, result, now)
            self._log.warning("%s, %s: %s", row.label, row.file_name, result.why)
        elif may_be_accepted:
            self._log.error("%s, %s: unexpected error", row.label, row.file_name, exc_info=result)
            plan.answered(row, SubmitOutcomeUnknown.because("an unexpected error"), now)
        elif isinstance(result, PictoryError):
            plan.refused(row, result)
            if plan.end_of(row).state is RowState.FAILED:
                self._log.error("%s, %s: refused: %s", row.label, row.file_name, result.message)
        else:
            plan.withdraw(row)
            self._no_more.set()
            return result
        if plan.error:
            self._no_more.set()
        return None

    def _write(self) -> None:
        """Record the answers. If that fails, the log and the error name the jobs."""
        try:
            self.record.write(self.plan.journal, patience=TIMING.record_retries)
            self._unrecorded.clear()
        except Exception as error:
            if not self._unrecorded:
                raise
            bought: list[Any] = [
                f"    {entry.file_name}: jobId {entry.job_id}"
                for entry in self.plan.journal
                if entry.job_id and entry.key in self._unrecorded
            ]
            for line in bought:
                self._log.error("Bought, but maybe not on record:%s", line)
            raise failure(
                f"Pictures were bought, but the record of the batch could not be written: {error} The task is not "
                "retried, because a retry would report these rows as unknown. Fix the storage, put these jobIds "
                "into the rows' records there, and clear the task.\n" + "\n".join(bought[-16:])
            ) from error

    def _record_unsent(self) -> None:
        try:
            self.record.write(self.plan.journal)
        except Exception as error:
            self._log.error(
                "Some rows were not sent, but their intents could not be removed from the record: %r. So a retry "
                "reports them as unknown.",
                error,
            )


def _next(answers: queue.SimpleQueue[_Answer], *, before: float) -> _Answer | None:
    """Return the next answer; ``None`` if there is none within a second.

    :param before: seconds of the monotonic clock at which to return in any case.
    """
    try:
        return answers.get(timeout=min(1.0, max(0.0, before - time.monotonic())))
    except queue.Empty:
        return None
