# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Decide what a batch does next, from the state of its rows during an attempt.

A worker calls :meth:`Plan.next`, does what it returns, and reports the result:

===================  ================================================================================
:class:`SubmitWave`  :meth:`Plan.intend`, write the journal, send, :meth:`Plan.answered` for each
                     answer, write the journal
:class:`Wait`        wait for jobs, or defer
``None``             nothing is left to do: write the manifest, raise :attr:`Plan.error`
===================  ================================================================================

Meanwhile it polls the jobs at Pictory (:attr:`Plan.pending_jobs`) and saves the finished pictures: then
:meth:`Plan.saved`, :meth:`Plan.failed` or :meth:`Plan.still_running`. :mod:`pictory_provider.core.batch.schedule`
decides when it polls. The progress of the batch (:func:`progress`) goes to the XCom ``progress`` and to the log.

An error of a paid request that does not depend on its row (no usable key, no credits, a budget, Pictory
unreachable) stops further submissions; the worker still waits for the jobs that were submitted. So do
:data:`MOST_UNKNOWN` rows with an unknown outcome, so that a crash or an outage leaves no more than that per
attempt.

So do eight pictures in a row that were paid for and could not be fetched or saved, for any reason: the storage is
full or gone, or the pictures' host is unreachable or answers with something else. A saved picture resets the
count, which continues over deferrals. After that a retry, and another run, submit nothing until one of the paid
pictures is saved; if none is left to save, they submit a single one and wait for it. A clear resets the count,
since a user has read the error. A job that failed at Pictory neither counts nor resets the count, since its row
is the cause; nor does a picture that an earlier attempt could not save either.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

from pictory_provider.api.errors import (
    JobCleaned,
    JobNotFound,
    PictoryError,
    SubmitOutcomeUnknown,
    WaitTimeout,
    lacks_credits,
)
from pictory_provider.api.retry import SubmitOutcome, classify_submit_error
from pictory_provider.api.text import counted
from pictory_provider.api.timing import TIMING
from pictory_provider.core.batch import breaker
from pictory_provider.core.batch.decision import (
    SUBMIT,
    Decision,
    RowImage,
    RowState,
    decide,
    failed,
    is_unknown,
    may_resubmit,
)
from pictory_provider.core.batch.file_names import same
from pictory_provider.core.batch.journal import BOUGHT, FAILED, INTENT, SAVED, UNKNOWN, Entry, page_of
from pictory_provider.core.batch.resume import left_over, row_of
from pictory_provider.core.batch.rows import BadRow
from pictory_provider.core.ledger import Charge
from pictory_provider.core.picture_names import spare_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pictory_provider.core.batch.resume import ResumedBatch
    from pictory_provider.core.batch.rows import Row
    from pictory_provider.core.resume import ExistingImage
    from pictory_provider.media.copies import CopySpec


class PendingJob(NamedTuple):
    """A job to poll, and the row of its picture.

    :param submitted_at: epoch seconds; ``None`` if unknown: then its time begins now.
    """

    row: Row
    job_id: str
    submitted_at: float | None


class SubmitWave(NamedTuple):
    """Submit these rows in parallel; they are on one page of the journal."""

    rows: tuple[Row, ...]


class Wait(NamedTuple):
    """Wait until some of these jobs have ended."""

    pending_jobs: tuple[PendingJob, ...]


WAVE = 8
"""Paid requests in parallel."""
MOST_UNKNOWN = 8
"""Rows that one attempt may leave with an unknown outcome."""
MAX_IN_FLIGHT = 200
"""Default of the most jobs at Pictory at the same time."""
MOST_WAITED_FOR = 1_000
"""Jobs that one trigger waits for: MySQL stores 64 kB of its arguments."""
OVER_LIMIT = "OVER_LIMIT"
"""The code of rows that were not bought because a limit leaves too little, and that a later attempt may buy."""
PROGRESS_KEY = "progress"
"""The XCom of :func:`progress`."""


class Plan:
    """The state of a batch.

    :param resumed: the batch as this attempt has found it.
    :param found: what exists at the rows' file names, by file name.
    :param overwrite: submit again what already exists, once, and once more after each clear.
    :param replaces_changed: submit rows whose existing picture is of another request.
    :param copies: to be made of each picture.
    :param resubmit: submit again, once per attempt, rows with an unknown outcome.
    :param max_in_flight: most jobs at Pictory at the same time.
    :ivar copies: to be made of each picture.
    :ivar not_copied: the rows whose pictures are saved and could not be copied, and why, by their keys.
    :ivar to_submit: a heap with the place of each row that is still to be submitted, by :meth:`_rank`.
    """

    def __init__(
        self,
        resumed: ResumedBatch,
        found: Mapping[str, ExistingImage],
        *,
        overwrite: bool = False,
        replaces_changed: bool = False,
        copies: Sequence[CopySpec] = (),
        resubmit: bool = False,
        max_in_flight: int = MAX_IN_FLIGHT,
    ) -> None:
        self.journal = resumed.journal
        self.rows = resumed.rows
        self.of = resumed.of
        self.bad = resumed.bad
        self.copies = copies
        self.not_copied: dict[str, tuple[Row, PictoryError]] = {}
        self.skipped = resumed.skipped
        self.error: PictoryError | None = None
        self._resubmit = resubmit
        self._max_in_flight = max_in_flight
        self._by_key = {row.key: row for row in self.rows}
        self._numbers = {row.key: number for number, row in enumerate(self.rows)}
        self._ends: dict[str, Decision] = {}
        absent = resumed.of - len(self.rows) - len(self.bad)
        self._counts: Counter[RowState] = Counter({RowState.NOT_BOUGHT: absent})
        self._left_over = (
            {same(entry.file_name): entry.key for entry in left_over(self.journal)} if self.bad else {}
        )
        self.to_submit: list[tuple[bool, int]] = []
        self._before: dict[str, Entry | None] = {}
        self._waiting: dict[str, PendingJob] = {}
        for row in self.rows:
            existing = found.get(row.file_name)
            decision = decide(
                row,
                self.journal,
                existing,
                overwrite=overwrite,
                replaces_changed=replaces_changed,
                copies=copies,
                resubmit=resubmit,
            )
            self._begin(row, decision)
        self._add_left_over()
        stopped = self.journal.header.stopped
        if resumed.error or stopped:
            self._stop(resumed.error or breaker.from_dict(stopped or {}))
        elif refused := [row for row in self.rows if self._ends[row.key].is_refused]:
            self._stop(breaker.places_taken(refused, self._ends, missing=self.missing, rows=self.rows))

    @property
    def counts(self) -> Mapping[RowState, int]:
        """How many rows are in each state. The counts add up to :attr:`of`."""
        return self._counts + Counter(self.end_of(row).state for row in self.bad)

    @property
    def missing(self) -> list[Row]:
        """The rows that are still to be submitted, in this order: those that have failed before come last."""
        return first_missing(self, len(self.to_submit))

    def end_of(self, row: Row | BadRow) -> Decision:
        """Return the state of a row, and why.

        A bad row whose file name has a picture on record that is or may be paid for is owed, or unknown.
        """
        if not isinstance(row, BadRow):
            return self._ends[row.key]
        entry = self.entry_of(row)
        if entry is not None and entry.state in (INTENT, UNKNOWN):
            return is_unknown(entry)
        if entry is not None and entry.is_owed:
            why = f"it was paid for, and cannot be saved while the row is bad: {row.problem}"
            return failed(replace(entry, adoptable=True, code=breaker.ROW_INVALID, message=why))
        return Decision(RowState.FAILED, code=breaker.ROW_INVALID, message=row.problem)

    def entry_of(self, row: Row | BadRow) -> Entry | None:
        """Return what is on record of a row; of a bad row, what is on record for its file name."""
        if not isinstance(row, BadRow):
            return self.journal.get(row.key)
        key = self._left_over.get(same(row.file_name or ""))
        return None if key is None else self.journal.get(key)

    @property
    def pending_jobs(self) -> Mapping[str, PendingJob]:
        """The jobs that are at Pictory, or whose pictures are being saved, by the keys of their rows."""
        return self._waiting

    def next(self, wave: int = WAVE) -> SubmitWave | Wait | None:
        """Return what to do next; ``None`` when all is done.

        :param wave: the most paid requests in parallel.
        """
        if self.to_submit:
            most = self._most_at_once(wave)
            free = self._max_in_flight - len(self._waiting)
            # A wave costs as many writes as a single row, so wait until several can be submitted.
            enough = max(1, min(most, self._max_in_flight // 4, len(self.to_submit)))
            if most and free >= enough:
                return SubmitWave(self._wave(min(most, free)))
        if not self._waiting:
            return None
        oldest = sorted(self._waiting.values(), key=lambda pending: pending.submitted_at or 0.0)
        return Wait(tuple(oldest[:MOST_WAITED_FOR]))

    def _most_at_once(self, wave: int) -> int:
        """Return how many rows may be submitted now. Stop submissions if none may be from now on."""
        left = MOST_UNKNOWN - self._unknown_now()
        if left <= 0:
            why = f"for {MOST_UNKNOWN} rows it is unknown whether Pictory accepted them, so no more are sent"
            self._stop(SubmitOutcomeUnknown.because(why))
            return 0
        if self.journal.header.unsaved < breaker.UNSAVED:
            return min(wave, left)
        if self._is_test_running():
            return 0
        # A job that never ends does not show whether pictures can be saved, so submit another one as a test.
        tries, entries = self.journal.header.tries, iter(self.journal)
        failed = [e for e in entries if e.state == FAILED and e.adoptable and e.tried == tries]
        owed = [e for e in failed if e.code != WaitTimeout.__name__]
        if not owed:
            return 1
        self.stop(breaker.not_saved(str(owed[-1].code), str(owed[-1].message)))
        return 0

    def _is_test_running(self) -> bool:
        """Whether a pending job may show that pictures can be saved."""
        entries = [self.journal.get(key) for key in self._waiting]
        return any(entry is not None and entry.code != WaitTimeout.__name__ for entry in entries)

    def intend(self, wave: SubmitWave, purchases: Sequence[Charge]) -> None:
        """Record the intent to send the paid requests of a wave. The journal has to be written next.

        :param purchases: of its rows, as they were counted against the limits.
        """
        if self.journal.is_urgent:
            raise RuntimeError("Write the earlier changes of the record first: a crash could lose them.")
        header = self.journal.header
        for row, purchase in zip(wave.rows, purchases, strict=True):
            before = self._before[row.key] = self.journal.get(row.key)
            again = before is not None and before.state in (INTENT, UNKNOWN) and before.tried >= header.cleared
            self.journal.put(Entry.intent(row, purchase, tried=header.tries, again=again, before=before))
            heapq.heappop(self.to_submit)

    def unsent(self, rows: Iterable[Row]) -> bool:
        """Note that rows of a wave were never sent, even if :meth:`intend` was interrupted.

        :return: whether any of them had an intent on record.
        """
        announced = [row for row in rows if row.key in self._before]
        for row in announced:
            self._put_back(row)
        self.to_submit = sorted({*self.to_submit, *map(self._rank, announced)})
        if self.error:
            self._stop(self.error)
        return bool(announced)

    def answered(self, row: Row, answer: str | PictoryError, now: float) -> None:
        """Note the answer to a paid request.

        :param answer: the jobId, or the error after all attempts to send it.
        :param now: epoch seconds.
        """
        if isinstance(answer, str):
            entry = replace(self._entry(row), state=BOUGHT, job_id=answer, submitted_at=now)
            self.journal.put(entry)
            self._wait_for(row, entry)
        elif isinstance(answer, SubmitOutcomeUnknown) or classify_submit_error(answer) is SubmitOutcome.UNKNOWN:
            self._is_unknown(row, answer)
        else:
            self.refused(row, answer)
        self._before.pop(row.key, None)

    def refused(self, row: Row, error: PictoryError) -> None:
        """Note that a row's paid request certainly bought nothing, and why: it was refused, or never sent."""
        if breaker.trips_breaker(error):
            self.stop(error)
            self.withdraw(row)
        else:
            self.failed(row, breaker.code_of(error), error.message)
        self._before.pop(row.key, None)

    def withdraw(self, row: Row) -> None:
        """Restore a row's entry, since its paid request was certainly not accepted, or never sent."""
        self._put_back(row)
        heapq.heappush(self.to_submit, self._rank(row))
        if self.error:
            self._stop(self.error)

    def set_aside(self, after: int, error: PictoryError) -> None:
        """Do not submit the rows that are missing, but for the first ones, in this attempt. It may end well.

        :param after: how many of :attr:`missing` stay.
        :param error: why.
        """
        for row in self.missing[after:]:
            self._end_unsubmitted(row, OVER_LIMIT, error.message)
        self.to_submit = sorted(self.to_submit)[:after]

    def saved(self, row: Row, picture: RowImage) -> None:
        """Note that a row's picture is saved, with its sidecar."""
        tried, entry = self.journal.header.tries, self._entry(row)
        entry = replace(entry, state=SAVED, tried=tried, code=None, message=None, adoptable=False)
        self.journal.put(_with_picture(entry, picture), is_urgent=False)
        if self.journal.header.unsaved:
            self.journal.set_header(unsaved=0)
        self._end(row, Decision(RowState.SAVED, picture=picture))

    def failed(self, row: Row, code: str, message: str, *, adoptable: bool = False) -> None:
        """Note that a row has no picture.

        A failed job from before a clear, which submits failed rows again, makes its row one to submit.

        :param code: Pictory's, or the name of an error's class.
        :param adoptable: whether the job may still give its picture to a later attempt: it is still running, or
            its picture could not be saved.
        """
        before, header = self._entry(row), self.journal.header
        tried = header.tries if adoptable else before.tried
        entry = replace(before, state=FAILED, tried=tried, code=code, message=message, adoptable=adoptable)
        self.journal.put(entry, is_urgent=before.job_id is None)
        if lacks_credits(None, code):
            self.stop(breaker.no_credits(code, message))
        is_earlier = not adoptable and before.tried < header.since
        if is_earlier and row.key in self._by_key and not self.error:
            self._submit_again(row)
        else:
            self._end(row, failed(entry))
        if before.state != FAILED and (adoptable or code == JobCleaned.__name__):
            self._count_unsaved(code, message)

    def _count_unsaved(self, code: str, message: str) -> None:
        """Count one more paid picture in a row that could not be saved; stop submissions if these are too many."""
        unsaved = self.journal.header.unsaved + 1
        self.journal.set_header(unsaved=unsaved)
        is_last = unsaved > breaker.UNSAVED and not self._is_test_running()
        if self.to_submit and (unsaved == breaker.UNSAVED or is_last):
            self.stop(breaker.not_saved(code, message))

    def unknown(self, row: Row, message: str) -> None:
        """Note that the outcome of a row's submission is unknown, or that Pictory does not know its job."""
        before, tried = self._entry(row), self.journal.header.tries
        entry = replace(before, state=UNKNOWN, tried=tried, job_id=None, message=message)
        self.journal.put(entry, is_urgent=before.job_id is None)
        self._end(row, is_unknown(entry))
        if before.job_id is not None and before.state != FAILED:
            self._count_unsaved(JobNotFound.__name__, message)

    def still_running(self, row: Row, since: float | None = None) -> None:
        """Note that a job was polled and has not ended.

        :param since: epoch seconds from which its time counts, if it is unknown when it was submitted.
        """
        pending = self._waiting[row.key]
        if pending.submitted_at is None and since is not None:
            self.journal.put(replace(self._entry(row), submitted_at=since), is_urgent=False)
            self._waiting[row.key] = pending._replace(submitted_at=since)

    def changed(self, row: Row, picture: RowImage) -> None:
        """Note that an existing picture was marked, or has more copies now."""
        self._ends[row.key] = self._ends[row.key]._replace(picture=picture)
        self._record_picture(row, self.journal.get(row.key), self._ends[row.key])

    def not_marked(self, row: Row, code: str, message: str, *, may_pass: bool) -> None:
        """Note that an existing picture should be marked, but is damaged or cannot be read. It is not changed.

        :param may_pass: whether a later attempt may mark it, or fetch it again.
        """
        state = RowState.OWED if may_pass else RowState.FAILED
        self._end(row, self._ends[row.key]._replace(state=state, code=code, message=message))

    def stop(self, error: PictoryError) -> None:
        """Submit nothing more in this attempt, also after a deferral. The first reason stays."""
        if self.error is None:
            self.journal.set_header(stopped=breaker.to_dict(error))
        self._stop(error)

    def _stop(self, error: PictoryError) -> None:
        self.error = self.error or error
        for row in self.missing:
            self._end_unsubmitted(row, breaker.code_of(self.error), self.error.message)
        self.to_submit = []

    def _end_unsubmitted(self, row: Row, code: str, message: str) -> None:
        entry = self.journal.get(row.key)
        if entry is not None and entry.state in (INTENT, UNKNOWN):
            self._end(row, is_unknown(entry))
        else:
            self._end(row, Decision(RowState.NOT_BOUGHT, code=code, message=message))

    def _begin(self, row: Row, decision: Decision) -> None:
        self._ends[row.key] = decision
        self._counts[decision.state] += 1
        if decision.state is RowState.TO_DO:
            heapq.heappush(self.to_submit, self._rank(row))
        entry = self.journal.get(row.key)
        if decision.picture is not None and decision.state in (RowState.SAVED, RowState.REUSED):
            self._record_picture(row, entry, decision)
        if decision.state is not RowState.WAITING:
            return
        if entry is None or entry.job_id != decision.job_id:
            # From the sidecar of another task's job, which is now recorded here, too.
            entry = replace(
                Entry.intent(row, Charge(0.0, 0.0), tried=self.journal.header.tries, before=entry),
                intended_at=None,
                state=BOUGHT,
                job_id=decision.job_id,
                submitted_at=decision.submitted_at,
            )
            self.journal.put(entry)
        self._wait_for(row, entry)

    def _record_picture(self, row: Row, entry: Entry | None, decision: Decision) -> None:
        """Record the existing picture of a row, if that is not on record."""
        picture, is_ours = decision.picture, decision.state is RowState.SAVED
        assert picture is not None
        if picture.sidecar_version is None and not (is_ours and entry and entry.job_id == picture.job_id):
            return  # on a disk, sidecars are read again
        if entry is None or entry.job_id != picture.job_id:
            # It is not this batch's purchase, so it is neither charged nor, for a later attempt, newly saved.
            entry = Entry(
                key=row.key,
                index=row.index,
                file_name=row.file_name,
                request=row.canonical_request,
                state=SAVED,
                tried=0,
                job_id=picture.job_id,
                earlier=entry.purchases if entry else (),
            )
        elif entry.state != SAVED:  # the process that saved it ended before it recorded that
            tried = self.journal.header.tries if is_ours else 0
            entry = replace(entry, state=SAVED, tried=tried, code=None, message=None, adoptable=False)
        entry = _with_picture(entry, picture)
        if entry != self.journal.get(row.key):
            self.journal.put(entry, is_urgent=False)

    def _add_left_over(self) -> None:
        """Add the pending jobs of an earlier table, so that their paid pictures are saved too."""
        names = {same(row.file_name) for row in self.rows}
        for entry in left_over(self.journal):
            if not entry.is_owed:
                continue
            row = row_of(entry)
            assert entry.job_id is not None
            if entry.state == FAILED and entry.tried >= self.journal.header.tries:
                continue
            is_free = same(row.file_name) not in names
            name = row.file_name if is_free else spare_name(row.file_name, entry.job_id)
            self._waiting[row.key] = PendingJob(replace(row, file_name=name), entry.job_id, entry.submitted_at)

    def _wait_for(self, row: Row, entry: Entry) -> None:
        assert entry.job_id is not None
        self._end(row, Decision(RowState.WAITING, job_id=entry.job_id))
        self._waiting[row.key] = PendingJob(row, entry.job_id, entry.submitted_at)

    def _put_back(self, row: Row) -> None:
        """Restore a row's entry from before its intent."""
        before = self._before.pop(row.key, None)
        if before is None:
            self.journal.drop(row.key)
        else:
            self.journal.put(before)

    def _is_unknown(self, row: Row, error: PictoryError) -> None:
        self.unknown(row, getattr(error, "why", "") or error.message)
        if self._resubmit and not self.error and may_resubmit(self._entry(row), self.journal.header):
            self._submit_again(row)

    def _submit_again(self, row: Row) -> None:
        self._end(row, SUBMIT)
        heapq.heappush(self.to_submit, self._rank(row))

    def _rank(self, row: Row) -> tuple[bool, int]:
        """Return what orders the rows that are to be submitted: those that have failed before come last.

        The candidates of a table's row stay together.
        """
        number = self._numbers[row.key]
        first = number + 1 - (row.candidate or 1)
        candidates = self.rows[first : first + self.journal.header.candidates]
        entries = (self.journal.get(each.key) for each in candidates if each.index == row.index)
        return any(entry is not None and entry.state == FAILED for entry in entries), number

    def _wave(self, size: int) -> tuple[Row, ...]:
        rows = first_missing(self, size)
        page = page_of(rows[0].index)
        return tuple(takewhile(lambda row: page_of(row.index) == page, rows))

    def _unknown_now(self) -> int:
        """Return how many rows this attempt has left unknown."""
        if not self._counts[RowState.UNKNOWN]:
            return 0
        unknown = [self.journal.get(key) for key, end in self._ends.items() if end.state is RowState.UNKNOWN]
        return sum(1 for entry in unknown if entry is not None and entry.tried == self.journal.header.tries)

    def _end(self, row: Row, decision: Decision) -> None:
        self._waiting.pop(row.key, None)
        if row.key in self._by_key:
            self._counts[self._ends[row.key].state] -= 1
            self._counts[decision.state] += 1
            self._ends[row.key] = decision

    def _entry(self, row: Row) -> Entry:
        entry = self.journal.get(row.key)
        assert entry is not None
        return entry


def _with_picture(entry: Entry, picture: RowImage) -> Entry:
    """Return the entry of a saved picture with what a later attempt needs in place of its sidecar."""
    is_known = picture.sidecar_version is not None and picture.file_name is None
    return replace(
        entry,
        picture=picture.file if is_known else None,
        sidecar_version=picture.sidecar_version if is_known else None,
    )


def unit_of(plan: Plan) -> str:
    """Return what has one picture each, for texts: a row of the table, or a candidate."""
    return "candidate" if plan.journal.header.candidates > 1 else "row"


def first_missing(plan: Plan, number: int) -> list[Row]:
    """Return the first rows of :attr:`Plan.missing`."""
    return [plan.rows[place] for _, place in heapq.nsmallest(number, plan.to_submit)]


def whole_rows(plan: Plan, number: int) -> int:
    """Return how many of the first missing pictures to submit, so that no row's candidates are divided.

    :param number: at most so many.
    """
    missing = first_missing(plan, number + 1)
    while 0 < number < len(missing) and missing[number].index == missing[number - 1].index:
        number -= 1
    return number


def with_rest(plan: Plan, wave: Sequence[Row]) -> list[Row]:
    """Return the rows of a wave, and the other missing candidates of its last row."""
    rest = first_missing(plan, len(wave) + plan.journal.header.candidates)[len(wave) :]
    return [*wave, *takewhile(lambda row: row.index == wave[-1].index, rest)]


def without_picture(plan: Plan) -> Iterator[tuple[Row | BadRow, Decision]]:
    """Yield the rows that have no picture, and why, in the order of the table."""
    ends = ((row, plan.end_of(row)) for row in plan.rows)
    rows = (each for each in ends if each[1].state not in (RowState.SAVED, RowState.REUSED))
    bad = ((row, plan.end_of(row)) for row in plan.bad)
    return heapq.merge(rows, bad, key=lambda each: each[0].index or 0)


def progress(plan: Plan) -> dict[str, Any]:
    """Return the progress of a batch as JSON.

    Every row is in exactly one count, and the counts but ``skipped`` add up to ``of``:

    ==============  =====================================================================
    ``to_do``       to be submitted
    ``waiting``     submitted, and its picture is not saved yet
    ``saved``       bought by this batch, and saved
    ``reused``      existed already, and cost nothing
    ``owed``        paid for, and its picture could not be fetched or saved; a retry tries again
    ``failed``      refused or failed
    ``unknown``     may or may not have been bought
    ``not_bought``  not bought by this attempt, because submissions were stopped
    ``skipped``     left out, because the cell of ``skip_blank`` is blank
    ==============  =====================================================================

    ``ai_credits_used`` is the sum that Pictory reports for the saved pictures.
    """
    return as_json(plan.of, plan.counts, pictures_of(plan), skipped=plan.skipped)


def may_be_bought(plan: Plan) -> list[Row]:
    """Return the rows that this attempt may submit: those to be submitted, and those whose jobs may fail."""
    return [row for row in plan.rows if plan.end_of(row).state in (RowState.TO_DO, RowState.WAITING)]


def pictures_of(plan: Plan) -> list[RowImage]:
    """Return the pictures that a batch has bought and saved, without those that it reuses."""
    ends = (plan.end_of(row) for row in plan.rows)
    return [end.picture for end in ends if end.state is RowState.SAVED and end.picture is not None]


def as_json(
    of: int, counts: Mapping[RowState, int], pictures: Iterable[RowImage], *, skipped: int = 0
) -> dict[str, Any]:
    """Return the progress as JSON."""
    used = math.fsum(picture.file.ai_credits_used or 0.0 for picture in pictures)
    return {
        "of": of,
        **{state.value: counts.get(state, 0) for state in RowState},
        "skipped": skipped,
        "ai_credits_used": round(used, 2),
    }


def line(now: Mapping[str, Any]) -> str:
    """Return a progress in one line for the log. Counts of 0 are left out."""
    counts = [f"{now[state.value]:,} {_WORDS[state]}" for state in RowState if now[state.value]]
    if now["skipped"]:
        counts.append(f"{now['skipped']:,} more skipped")
    used = f"{now['ai_credits_used']:g} AI credits used{' for what is saved' if now[RowState.OWED.value] else ''}"
    return f"{counted(now['of'], 'picture')}: {', '.join(counts) or 'none'}; {used}"


def should_report(last: Mapping[str, Any] | None, now: Mapping[str, Any], *, seconds: float) -> bool:
    """Whether to report a progress again.

    :param last: the last reported progress; ``None`` for none.
    :param seconds: since then.
    """
    return last is None or (last != now and seconds >= TIMING.progress_interval)


_WORDS = {state: state.value.replace("_", " ") for state in RowState} | {RowState.OWED: "paid for and not saved"}
