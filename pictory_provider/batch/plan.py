# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What is next? The state of a batch while a try works on it.

A worker asks :meth:`Plan.next`, does it, and tells what came of it:

=============  =======================================================================================
:class:`Buy`   :meth:`Plan.intend`, write the journal, send, :meth:`Plan.answered` for each answer,
               write the journal
:class:`Wait`  wait for jobs, or defer
``None``       nothing is left to be done: write the manifest, raise :attr:`Plan.error`
=============  =======================================================================================

Beside that it asks for jobs that are at Pictory (:attr:`Plan.tickets`) and saves what is finished: then
:meth:`Plan.saved`, :meth:`Plan.failed` or :meth:`Plan.still_running` (when: :mod:`pictory_provider.batch.looks`).

What ends a paid request and has nothing to do with its row (no usable key, no credits, a budget, Pictory out of
reach) stops further purchases, and what was bought is still waited for. So do :data:`MOST_UNKNOWN` rows of which
nobody can know, so that neither a crash nor a bad day leaves more of them to one try.

So do eight pictures in a row that were paid for and could not be fetched or saved, whatever the cause: the storage
is full or gone, the pictures' host cannot be reached, or answers with something else. A picture that is saved ends
the count, which goes on over deferrals. After that a retry, and another run, buy nothing until one of the pictures
that are paid for is saved; if none is left that could be, they buy one alone and wait for it. A clear, by a person
who was told, begins to count anew. A job that Pictory says has failed neither counts nor ends the count, since
that is about its row; nor does a picture that an earlier try could not save either.
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from pictory_provider.api.errors import JobCleaned, PictoryError, SubmitOutcomeUnknown, WaitTimeout
from pictory_provider.api.retry import Fate, fate_of_submit
from pictory_provider.batch import stopping
from pictory_provider.batch.decision import Decision, Found, Picture, Place, decide, is_unknown, may_resubmit
from pictory_provider.batch.entries import BOUGHT, FAILED, INTENT, SAVED, UNKNOWN, Entry
from pictory_provider.batch.journal import page_of
from pictory_provider.batch.names import same
from pictory_provider.batch.opening import left_over
from pictory_provider.batch.steps import Buy, Ticket, Wait
from pictory_provider.jobs.files import spare_name
from pictory_provider.jobs.ledger import Purchase

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pictory_provider.batch.opening import Opening
    from pictory_provider.batch.rows import Row

WAVE = 8
"""Paid requests side by side."""
MOST_UNKNOWN = 8
"""Rows whose outcome one try may leave unknown."""
MAX_IN_FLIGHT = 200
"""Jobs at Pictory at once, unless a task says otherwise."""
MOST_WAITED_FOR = 1_000
"""Jobs that one trigger waits for: MySQL keeps 64 kB of its arguments."""


class Plan:
    """The state of a batch.

    :param opening: the batch as this try has found it.
    :param found: what lies in the places of rows, by file name.
    :param overwrite: buy what lies there already, once, and once more after each clear.
    :param resubmit: buy again, once a try, what may or may not have been bought.
    :param max_in_flight: jobs at Pictory at once.
    """

    def __init__(
        self,
        opening: Opening,
        found: Mapping[str, Found],
        *,
        overwrite: bool = False,
        resubmit: bool = False,
        max_in_flight: int = MAX_IN_FLIGHT,
    ) -> None:
        self.journal = opening.journal
        self.rows = opening.rows
        self.of = opening.of
        self.error: PictoryError | None = None
        self._resubmit = resubmit
        self._max_in_flight = max_in_flight
        self._by_key = {row.key: row for row in self.rows}
        self._numbers = {row.key: number for number, row in enumerate(self.rows)}
        self._ends: dict[str, Decision] = {}
        self._counts: Counter[Place] = Counter({Place.NOT_BOUGHT: opening.of - len(self.rows)})
        self._to_buy: list[int] = []
        self._before: dict[str, Entry | None] = {}
        self._waiting: dict[str, Ticket] = {}
        for row in self.rows:
            self._begin(
                row, decide(row, self.journal, found.get(row.file_name), overwrite=overwrite, resubmit=resubmit)
            )
        self._take_left_over()
        stopped = self.journal.header.stopped
        if opening.error:
            self._stop(opening.error)
        elif stopped:
            self._stop(stopping.read(stopped))
        elif refused := [row for row in self.rows if self._ends[row.key].is_refused]:
            self._stop(stopping.places_taken(refused, self._ends))

    @property
    def counts(self) -> Mapping[Place, int]:
        """How many rows stand where. They add up to :attr:`of`."""
        return self._counts

    @property
    def pictures(self) -> list[Picture]:
        """The pictures that this batch has bought, and not those that it reuses."""
        ends = self._ends.values()
        return [end.picture for end in ends if end.place is Place.SAVED and end.picture is not None]

    @property
    def missing(self) -> list[Row]:
        """The rows that are still to be bought."""
        return [self.rows[number] for number in self._to_buy]

    def end_of(self, row: Row) -> Decision:
        """Return where a row stands, and why."""
        return self._ends[row.key]

    @property
    def tickets(self) -> Mapping[str, Ticket]:
        """The jobs that are at Pictory, or whose pictures are being saved, by the keys of their rows."""
        return self._waiting

    def next(self) -> Buy | Wait | None:
        """Say what is to be done next; ``None`` when all is done."""
        if self._to_buy:
            most = self._most_at_once()
            room = self._max_in_flight - len(self._waiting)
            # A wave costs as many writes as a single row, so some room is waited for.
            enough = max(1, min(most, self._max_in_flight // 4, len(self._to_buy)))
            if most and room >= enough:
                return Buy(self._wave(min(most, room)))
        return self._wait()

    def _most_at_once(self) -> int:
        """Return how many rows may be bought now. Purchases stop if it is to be none from now on."""
        left = MOST_UNKNOWN - self._unknown_now()
        if left <= 0:
            why = f"of {MOST_UNKNOWN} rows nobody can know whether Pictory accepted them, so no more are sent"
            self._stop(SubmitOutcomeUnknown.because(why))
            return 0
        if self.journal.header.unsaved < stopping.UNSAVED:
            return min(WAVE, left)
        if self._is_proof_awaited():
            return 0
        # Nothing of a job that never ends shows whether pictures can be saved, so one more is tried beside those.
        tries, entries = self.journal.header.tries, iter(self.journal)
        owed = [e for e in entries if e.adoptable and e.tried == tries and e.code != WaitTimeout.__name__]
        if not owed:
            return 1
        self.stop(stopping.not_saved(str(owed[-1].code), str(owed[-1].message)))
        return 0

    def _is_proof_awaited(self) -> bool:
        """Whether a picture is on its way that may show that pictures can be saved."""
        entries = [self.journal.get(key) for key in self._waiting]
        return any(entry is not None and entry.code != WaitTimeout.__name__ for entry in entries)

    def _wait(self) -> Wait | None:
        if self._waiting:
            oldest = sorted(self._waiting.values(), key=lambda ticket: ticket.submitted_at or 0.0)
            return Wait(tuple(oldest[:MOST_WAITED_FOR]))
        return None

    def intend(self, wave: Buy, purchases: Sequence[Purchase]) -> None:
        """Note that the paid requests of a wave are about to be sent: first the journal is written.

        :param purchases: of its rows, as they were counted against the limits.
        """
        if self.journal.is_urgent:
            raise RuntimeError("The record of what went before is to be written first: a crash could lose it.")
        header = self.journal.header
        for row, purchase in zip(wave.rows, purchases, strict=True):
            before = self._before[row.key] = self.journal.get(row.key)
            again = before is not None and before.state in (INTENT, UNKNOWN) and before.tried >= header.cleared
            self.journal.put(Entry.intent(row, purchase, tried=header.tries, again=again, before=before))
            heapq.heappop(self._to_buy)

    def unsent(self, rows: Iterable[Row]) -> bool:
        """Note that rows of a wave were never sent, however far :meth:`intend` had got when it was struck.

        :return: whether the record said otherwise of any.
        """
        for row in (announced := [row for row in rows if row.key in self._before]):
            self._put_back(row)
        self._to_buy = sorted({*self._to_buy, *(self._numbers[row.key] for row in announced)})
        if self.error:
            self._stop(self.error)
        return bool(announced)

    def answered(self, row: Row, answer: str | PictoryError, now: float) -> None:
        """Note what came of a paid request.

        :param answer: the jobId, or the error that it ended with when nothing was left to be tried.
        :param now: epoch seconds.
        """
        if isinstance(answer, str):
            entry = replace(self._entry(row), state=BOUGHT, job_id=answer, submitted_at=now)
            self.journal.put(entry)
            self._wait_for(row, entry)
        elif isinstance(answer, SubmitOutcomeUnknown) or fate_of_submit(answer) is Fate.UNKNOWN:
            self._is_unknown(row, answer)
        else:
            self.refused(row, answer)
        self._before.pop(row.key, None)

    def refused(self, row: Row, error: PictoryError) -> None:
        """Note that a row's paid request certainly bought nothing, and why: it was refused, or never left."""
        if stopping.stops_buying(error):
            self.stop(error)
            self.withdraw(row)
        else:
            self.failed(row, stopping.code_of(error), error.message)
        self._before.pop(row.key, None)

    def withdraw(self, row: Row) -> None:
        """Note that a row's paid request was certainly not accepted, or never sent, and leave what was before."""
        self._put_back(row)
        heapq.heappush(self._to_buy, self._numbers[row.key])
        if self.error:
            self._stop(self.error)

    def saved(self, row: Row, picture: Picture) -> None:
        """Note that a row's picture is in its place, with its sidecar."""
        tried, entry = self.journal.header.tries, self._entry(row)
        self.journal.put(
            replace(entry, state=SAVED, tried=tried, code=None, message=None, adoptable=False), is_urgent=False
        )
        if self.journal.header.unsaved:
            self.journal.set_header(unsaved=0)
        self._end(row, Decision(Place.SAVED, picture=picture))

    def failed(self, row: Row, code: str, message: str, *, adoptable: bool = False) -> None:
        """Note that a row gives no picture.

        A job of before a clear, which buys what failed, makes room for a purchase.

        :param code: Pictory's, or the name of an error's class.
        :param adoptable: whether the job may still give its picture to a later try: it runs on, or could not be
            saved.
        """
        entry, header = self._entry(row), self.journal.header
        tried = header.tries if adoptable else entry.tried
        self.journal.put(
            replace(entry, state=FAILED, tried=tried, code=code, message=message, adoptable=adoptable),
            is_urgent=entry.job_id is None,
        )
        if stopping.lacks_credits(code):
            self.stop(stopping.no_credits(code, message))
        is_earlier = not adoptable and entry.tried < header.since
        if is_earlier and row.key in self._by_key and not self.error:
            self._end(row, Decision(Place.TO_DO))
            heapq.heappush(self._to_buy, self._numbers[row.key])
        else:
            self._end(row, Decision(Place.FAILED, code=code, message=message, job_id=entry.job_id))
        if entry.state != FAILED and (adoptable or code == JobCleaned.__name__):
            self.journal.set_header(unsaved=header.unsaved + 1)
            is_last = header.unsaved >= stopping.UNSAVED and not self._is_proof_awaited()
            if self._to_buy and (header.unsaved + 1 == stopping.UNSAVED or is_last):
                self.stop(stopping.not_saved(code, message))

    def unknown(self, row: Row, message: str) -> None:
        """Note that nobody can know what became of a row's job, such as one that Pictory does not know."""
        before, tried = self._entry(row), self.journal.header.tries
        entry = replace(before, state=UNKNOWN, tried=tried, job_id=None, message=message)
        self.journal.put(entry, is_urgent=before.job_id is None)
        self._end(row, is_unknown(entry))

    def still_running(self, row: Row, since: float | None = None) -> None:
        """Note that a job was looked at and has not ended.

        :param since: epoch seconds from which on its time counts, where nobody knows when it was submitted.
        """
        ticket = self._waiting[row.key]
        if ticket.submitted_at is None and since is not None:
            self.journal.put(replace(self._entry(row), submitted_at=since), is_urgent=False)
            self._waiting[row.key] = ticket._replace(submitted_at=since)

    def changed(self, row: Row, picture: Picture) -> None:
        """Note that a picture that lies there is another file now: it was marked."""
        self._ends[row.key] = self._ends[row.key]._replace(picture=picture)

    def stop(self, error: PictoryError) -> None:
        """Buy nothing more in this try, after a deferral neither. The first reason stays."""
        if self.error is None:
            self.journal.set_header(stopped=stopping.plain(error))
        self._stop(error)

    def _stop(self, error: PictoryError) -> None:
        self.error = self.error or error
        for number in self._to_buy:
            row = self.rows[number]
            entry = self.journal.get(row.key)
            if entry is not None and entry.state in (INTENT, UNKNOWN):
                self._end(row, is_unknown(entry))
            else:
                code, message = stopping.code_of(self.error), self.error.message
                self._end(row, Decision(Place.NOT_BOUGHT, code=code, message=message))
        self._to_buy = []

    def _begin(self, row: Row, decision: Decision) -> None:
        self._ends[row.key] = decision
        self._counts[decision.place] += 1
        if decision.place is Place.TO_DO:
            heapq.heappush(self._to_buy, self._numbers[row.key])
        entry = self.journal.get(row.key)
        if decision.place is Place.SAVED and entry is not None and entry.state != SAVED:
            # Whoever saved it died before that was on record.
            self.journal.put(replace(entry, state=SAVED, tried=self.journal.header.tries), is_urgent=False)
        if decision.place is not Place.WAITING:
            return
        if entry is None or entry.job_id != decision.job_id:
            # The sidecar of a purchase by another task; from now on it is on record here, too.
            entry = replace(
                Entry.intent(row, Purchase(0.0, 0.0), tried=self.journal.header.tries, before=entry),
                intended_at=None,
                state=BOUGHT,
                job_id=decision.job_id,
                submitted_at=decision.submitted_at,
            )
            self.journal.put(entry)
        self._wait_for(row, entry)

    def _take_left_over(self) -> None:
        """Have the paid pictures of an earlier table saved, beside those of this one."""
        taken = {same(row.file_name) for row in self.rows}
        for row in left_over(self.journal):
            entry = self._entry(row)
            assert entry.job_id is not None
            if entry.state == FAILED and entry.tried >= self.journal.header.tries:
                continue
            is_free = same(row.file_name) not in taken
            name = row.file_name if is_free else spare_name(row.file_name, entry.job_id)
            self._waiting[row.key] = Ticket(replace(row, file_name=name), entry.job_id, entry.submitted_at)

    def _wait_for(self, row: Row, entry: Entry) -> None:
        assert entry.job_id is not None
        self._end(row, Decision(Place.WAITING, job_id=entry.job_id))
        self._waiting[row.key] = Ticket(row, entry.job_id, entry.submitted_at)

    def _put_back(self, row: Row) -> None:
        """Let the record of a row be what it was before its intent."""
        before = self._before.pop(row.key, None)
        if before is None:
            self.journal.drop(row.key)
        else:
            self.journal.put(before)

    def _is_unknown(self, row: Row, error: PictoryError) -> None:
        why = getattr(error, "why", "") or error.message
        self.unknown(row, why)
        if self._resubmit and not self.error and may_resubmit(self._entry(row), self.journal.header):
            self._end(row, Decision(Place.TO_DO))
            heapq.heappush(self._to_buy, self._numbers[row.key])

    def _wave(self, size: int) -> tuple[Row, ...]:
        numbers = heapq.nsmallest(size, self._to_buy)
        page = page_of(self.rows[numbers[0]].index)
        return tuple(self.rows[number] for number in numbers if page_of(self.rows[number].index) == page)

    def _unknown_now(self) -> int:
        """How many rows this try has left unknown."""
        if not self._counts[Place.UNKNOWN]:
            return 0
        unknown = [self.journal.get(key) for key, end in self._ends.items() if end.place is Place.UNKNOWN]
        return sum(1 for entry in unknown if entry is not None and entry.tried == self.journal.header.tries)

    def _end(self, row: Row, decision: Decision) -> None:
        self._waiting.pop(row.key, None)
        if row.key in self._by_key:
            self._counts[self._ends[row.key].place] -= 1
            self._counts[decision.place] += 1
            self._ends[row.key] = decision

    def _entry(self, row: Row) -> Entry:
        entry = self.journal.get(row.key)
        assert entry is not None
        return entry
