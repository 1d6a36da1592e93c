# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Buy a wave: some rows side by side, each on record before it is sent, and again as soon as Pictory has answered.

The sending of one row is :func:`pictory_provider.purchase.submit`, as everywhere. What is written, and when:

1. the intents of the wave, before its first request;
2. a second after the first answer that is not on record yet, all answers until then;
3. when the last has answered, the rest.

Threads only send. What their answers mean is noted by the one thread that owns the plan.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from pictory_provider.api.errors import PictoryError, SubmitOutcomeUnknown
from pictory_provider.api.timing import TIMING
from pictory_provider.batch.decision import Place
from pictory_provider.exceptions import failure
from pictory_provider.jobs.budget import Budget, Limits
from pictory_provider.purchase import submit

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from concurrent.futures import Executor

    from pictory_provider.batch.plan import Plan
    from pictory_provider.batch.rows import Row
    from pictory_provider.batch.steps import Buy
    from pictory_provider.batching.record import BatchRecord
    from pictory_provider.batching.turns import PacedClient, Turns
    from pictory_provider.client.asking import Log
    from pictory_provider.jobs.ledger import Purchase

UNRECORDED = 1.0
"""Seconds that an answer may be known and not on record."""


class _NotSentError(PictoryError):
    """Purchases have stopped before a row's request was sent."""


class _Answer(NamedTuple):
    """What came of a row's request.

    :param result: the jobId; the error; ``None`` where it was not sent.
    :param is_open: whether it may have been accepted.
    """

    row: Row
    result: str | BaseException | None
    is_open: bool = False


class _Sending:
    """One row's request on its way: a :class:`~pictory_provider.purchase.Recorder` that knows how far it
    is.

    The journal is written by somebody else. Here it is only remembered whether a request is under way, and its
    turn is waited for.
    """

    def __init__(self, wave: Wave, row: Row) -> None:
        self._wave = wave
        self.row = row
        self.is_open = False
        self._job_id: str | None = None

    def intend(self, purchase: Purchase) -> None:  # noqa: ARG002  the journal has it already
        wave = self._wave
        wave.turns.take(wave.check)
        try:
            wave.check_held()
            with wave.lock:
                wave.check()
                self.is_open = True
        except BaseException:
            wave.turns.answered()
            raise

    def withdraw(self) -> None:
        self.is_open = False

    def keep(self, job_id: str) -> None:
        self._job_id = job_id

    def send(self) -> _Answer:
        """Send it, and return what came of it, whatever that is."""
        row, wave = self.row, self._wave
        request = row.request
        if row.private_reference is not None:
            request = replace(request, reference_image_url=row.private_reference)
        try:
            self._job_id = submit(
                wave.client,
                request,
                budget=Budget(Limits()),  # the batch has asked for the whole wave
                recorder=self,
                ends_at=wave.ends_at,
                tags={"dag_id": str(wave.record.me.dag_id)},
                log=wave.quiet,
            )
        except _NotSentError:
            return _Answer(row, None)
        except BaseException as error:
            if self._job_id is None:
                return _Answer(row, error, is_open=self.is_open)
        return _Answer(row, self._job_id, is_open=True)


class Wave:
    """Buys waves for one leg of a batch.

    :param ends_at: on the monotonic clock; nothing is bought from then on.
    :param no_more: set where nothing more is to be bought.
    :param quiet: takes what every single request has to say.
    """

    def __init__(
        self,
        plan: Plan,
        record: BatchRecord,
        client: PacedClient,
        turns: Turns,
        pool: Executor,
        *,
        ends_at: float | None,
        no_more: threading.Event,
        log: Log,
        quiet: Log,
    ) -> None:
        self.plan = plan
        self.record = record
        self.client = client
        self.turns = turns
        self.ends_at = ends_at
        self.quiet = quiet
        self.lock = threading.Lock()
        self._held_at = -math.inf
        self._unrecorded: set[str] = set()
        self._pool = pool
        self._no_more = no_more
        self._log = log

    def buy(self, wave: Buy, purchases: Sequence[Purchase]) -> None:
        """Buy a wave, and have on record what came of it.

        :param purchases: of its rows, as they were counted against the limits.
        :raises StorageFailed: where the record cannot be written, or is another try's by now; nothing was sent.
        :raises AirflowTaskTimeout: where the task's time is over.
        :raises AirflowFailException: where jobs were bought and cannot be put on record.
        """
        to_send = [_Sending(self, row) for row in wave.rows]
        # The end of the task's time may strike in any line of this.
        try:
            now = time.time()
            self.plan.intend(wave, purchases)
            self.record.write(self.plan.journal)
            self._held_at = now
            self._send(list(to_send))
        except BaseException:
            with self.lock:
                self._no_more.set()  # what is not open now will not be
            if self.plan.unsent([each.row for each in to_send if not each.is_open]):
                self._write_anyhow()
            raise

    def check_held(self) -> None:
        """See that the batch is still this try's, right before something is sent.

        :raises StorageFailed: where another try, or another task, has taken it up.
        """
        with self.lock:
            now = time.time()
            if not 0 <= now - self._held_at <= TIMING.ownership:
                self.record.check_held(self.plan.journal.header)
                self._held_at = now

    def check(self) -> None:
        """Raise where nothing more may be sent."""
        if self._no_more.is_set():
            raise _NotSentError("Purchases have stopped.")
        if self.ends_at is not None and time.monotonic() >= self.ends_at:
            raise AirflowTaskTimeout("The task's execution_timeout is over: nothing is bought any more")

    def _send(self, to_send: list[_Sending]) -> None:
        """Send a wave, and take the answers as they come; those under way are waited for whatever happens."""
        answers: queue.SimpleQueue[_Answer] = queue.SimpleQueue()
        open_ones = {each.row.key: each for each in to_send}
        pending: _Answer | None = None
        write_at = give_up_at = math.inf
        ended_by: BaseException | None = None
        while open_ones and (pending or time.monotonic() < give_up_at):
            # The end of the task's time strikes once, in any line. What is under way is not left alone for that.
            try:
                while to_send:
                    each = to_send.pop(0)  # first: whatever strikes, no row is sent twice
                    self._pool.submit(lambda one: answers.put(one.send()), each)
                if time.monotonic() >= write_at:
                    write_at = math.inf
                    self._write()
                pending = pending or _next(answers, before=min(write_at, give_up_at))
                if pending is not None:
                    if pending.is_open:
                        self._unrecorded.add(pending.row.key)
                    ended_by = self._note(pending) or ended_by
                    open_ones.pop(pending.row.key, None)
                    pending, write_at = None, min(write_at, time.monotonic() + UNRECORDED)
            except (Exception, AirflowTaskTimeout) as error:
                if ended_by is not None:
                    raise
                ended_by, give_up_at = error, time.monotonic() + TIMING.wave_grace
                self._no_more.set()
        self._give_up(open_ones.values())
        self._write()
        if ended_by is not None:
            raise ended_by

    def _give_up(self, left: Iterable[_Sending]) -> None:
        """Note what becomes of requests that are not answered when the task has to end."""
        for each in left:
            if each.is_open:
                self._log.error("%s, %s: still under way at the end.", each.row.label, each.row.file_name)
            else:
                self.plan.withdraw(each.row)  # it waits for a turn that it will not get any more

    def _note(self, answer: _Answer) -> BaseException | None:
        """Tell the plan of an answer; return what has to end this try."""
        row, result, is_open = answer
        plan, now = self.plan, time.time()
        if isinstance(result, str):
            plan.answered(row, result, now)
        elif isinstance(result, SubmitOutcomeUnknown):
            plan.answered(row, result, now)
            self._log.warning("%s, %s: %s", row.label, row.file_name, result.why)
        elif is_open:
            self._log.error("%s, %s: an error that nobody foresaw", row.label, row.file_name, exc_info=result)
            plan.answered(row, SubmitOutcomeUnknown.because("an error that nobody foresaw"), now)
        elif isinstance(result, PictoryError):
            plan.refused(row, result)
            if plan.end_of(row).place is Place.FAILED:
                self._log.error("%s, %s: refused: %s", row.label, row.file_name, result.message)
        else:
            plan.withdraw(row)
            self._no_more.set()
            return result
        if plan.error:
            self._no_more.set()
        return None

    def _write(self) -> None:
        """Put answers on record. Where that cannot be done the log and the error name the jobs."""
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
                self._log.error("Bought, and perhaps not on record:%s", line)
            raise failure(
                f"Pictures were bought, and the record of the batch could not be written: {error} The task is "
                "not retried: a retry would ask what became of them. Mend the storage, put these jobIds into the "
                "rows' records there, and clear the task.\n" + "\n".join(bought[-16:])
            ) from error

    def _write_anyhow(self) -> None:
        try:
            self.record.write(self.plan.journal)
        except Exception as error:
            self._log.error(
                "Some rows were not sent, and the record says that they were about to be: %r. So a retry calls "
                "them unknown.",
                error,
            )


def _next(answers: queue.SimpleQueue[_Answer], *, before: float) -> _Answer | None:
    """Return an answer; ``None`` where there is none for a while.

    :param before: on the monotonic clock.
    """
    try:
        return answers.get(timeout=min(1.0, max(0.0, before - time.monotonic())))
    except queue.Empty:
        return None
