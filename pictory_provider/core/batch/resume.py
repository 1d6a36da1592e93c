# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Decide how an attempt continues from the record in a batch's folder.

==================================================  ====================================================
in the folder                                       the attempt
==================================================  ====================================================
nothing                                             is the first, and submits
a header of this task, after a deferral             continues unchanged
a header of this task, ``max_tries`` unchanged      is a retry: submits what was never sent
a header of this task, another ``max_tries``        follows a clear: also submits what failed or is unknown
a header of another task or run, which has ended    begins anew with what exists: submits what failed, but
                                                    not what is unknown, which no user has checked
a header of another task or run, not ended          :class:`StorageFailed`: that task may be submitting now
pages without a header, an unreadable header, a     :class:`SubmitOutcomeUnknown`
resumed deferral without a header
==================================================  ====================================================

A retry whose table or folder differs, and any attempt with a new table while a page cannot be read, continues with
the record's rows: it submits nothing, saves what is paid for, and fails with :attr:`ResumedBatch.error`.

A job that is paid for and not saved is adopted by a row of the new table with the same request and another file
name, if no other row has the old name, and nothing exists at the new one.

:mod:`pictory_provider.core.attempt` says how a clear differs from a retry.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from pictory_provider.api.errors import (
    PictoryError,
    RequestInvalid,
    StorageFailed,
    SubmitOutcomeUnknown,
    Unavailable,
)
from pictory_provider.api.text import counted, listed
from pictory_provider.core.attempt import Attempt
from pictory_provider.core.batch.file_names import HEADER, RECORD_FOLDER, same
from pictory_provider.core.batch.journal import (
    INTENT,
    PAGE_ROWS,
    UNKNOWN,
    Entry,
    Header,
    Journal,
    page_name,
    page_of,
    purchases_of,
    spending_to_keep,
)
from pictory_provider.core.batch.rows import CheckedTable, Row, digest_of, key_of, request_of
from pictory_provider.core.picture_names import candidate_number
from pictory_provider.core.resume import NOT_MOVED, ExistingImage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pictory_provider.core.batch.rows import BadRow
    from pictory_provider.core.ledger import Charge

_SHOWN = 5
"""How many pages of rows, or file names, an error names."""


class StartKind(Enum):
    """The kind of an attempt."""

    FIRST = "first"
    RESUMED = "resumed"
    """The same attempt, after a deferral."""
    RETRY = "retry"
    CLEAR = "clear"
    OTHER = "other"
    """The first attempt of another task or run, in a folder that has a record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumedBatch:
    """A batch that an attempt may continue. Its journal has to be written before anything is sent.

    :param rows: of the table; or of the record, if the attempt continues with the record's rows.
    :param of: how many rows there are in all, without those that are skipped.
    :param bad: rows of the table that cannot be bought and are left out.
    :param skipped: how many rows of the table are left out because a cell is blank.
    :param error: why nothing may be submitted; to be raised after what is paid for is saved.
    :param warning: the rows that are left behind; for the log.
    """

    journal: Journal
    start: StartKind
    rows: Sequence[Row]
    of: int
    bad: tuple[BadRow, ...] = ()
    skipped: int = 0
    error: PictoryError | None = None
    warning: str | None = None

    @classmethod
    def of_table(cls, journal: Journal, start: StartKind, table: CheckedTable) -> ResumedBatch:
        """Return a batch that continues with the rows of its table."""
        of = len(table.rows) + len(table.bad)
        return cls(journal=journal, start=start, rows=table.rows, of=of, bad=table.bad, skipped=table.skipped)


def start_of(
    found: Header | None,
    *,
    made_by: Mapping[str, Any],
    max_tries: int,
    retries: int | None,
    is_resumed: bool = False,
) -> StartKind:
    """Return the kind of an attempt.

    :param made_by: dag, run, task and map index of this task.
    :param max_tries: Airflow's ``ti.max_tries`` in this attempt.
    :param retries: of the task, now.
    :param is_resumed: whether this is the same attempt after a deferral.
    """
    if found is None:
        return StartKind.FIRST
    if found.made_by != dict(made_by):
        return StartKind.OTHER
    if is_resumed:
        return StartKind.RESUMED
    earlier = Attempt(found.max_tries, found.retries)
    is_clear = Attempt(max_tries, retries).is_clear_after(earlier, has_ended=found.has_ended)
    return StartKind.CLEAR if is_clear else StartKind.RETRY


def open_batch(
    header: Any,
    pages: Mapping[int, Any],
    table: CheckedTable,
    *,
    folder: str,
    made_by: Mapping[str, Any],
    max_tries: int,
    retries: int | None,
    is_resumed: bool = False,
    conn_id: str | None = None,
    is_free: Callable[[str], bool] = lambda _: True,
    token: str = "",
) -> ResumedBatch:
    """Open the record of a batch. The table is at the top of this module.

    :param header: the JSON in the folder; ``None`` for nothing.
    :param pages: see :meth:`Journal.from_pages`; without a header, any existing pages.
    :param table: of this attempt.
    :param conn_id: of the Airflow connection; ``None`` adopts no job of a row that has another name now.
    :param is_free: whether nothing exists at a file name.
    :param token: a random text, by which this attempt knows its own header.
    :raises SubmitOutcomeUnknown: if the record as a whole cannot be read.
    :raises StorageFailed: if another task may be submitting into this folder now.
    """
    found = None if header is None else Header.from_dict(header)
    if (header is not None and found is None) or (found is None and (pages or is_resumed)):
        raise SubmitOutcomeUnknown.because(
            f"{folder}/{HEADER} "
            + ("is missing, although this batch has a record" if header is None else "cannot be read")
            + ". This attempt sent nothing. Either the workers do not share the storage, or the file was changed, "
            f"or a later release wrote it. Restore it, or delete {folder}/{RECORD_FOLDER} and clear the task to "
            "buy all rows that have no picture yet"
        )
    start = start_of(found, made_by=made_by, max_tries=max_tries, retries=retries, is_resumed=is_resumed)
    new = replace(_header_of(table, folder, made_by, max_tries, retries), token=token)
    if found is None:
        journal = Journal(header=new)
        journal.set_header()
        return ResumedBatch.of_table(journal, start, table)
    if start is StartKind.OTHER and not found.has_ended:
        raise StorageFailed.unsent(
            f"{folder} is in use by another batch: {found.owner}. Its last attempt has not recorded that it "
            "ended, so it may be buying now",
            "Use a separate folder for each task, run and map index, or let that task end; if it was killed, "
            "clear it: it continues where it stopped.",
        )
    journal = Journal.from_pages(found, pages)
    error: PictoryError | None
    if start in (StartKind.CLEAR, StartKind.OTHER):
        error = None if _is_same_table(found, new) else _unreadable(journal, start)
        if error is None:
            return _begin_anew(journal, start, new, table, _Renamed(journal, table.rows, conn_id, is_free))
    else:
        error = _difference(found, new)
    if start is not StartKind.RESUMED:
        tries = found.tries + 1
        journal.set_header(
            tries=tries, max_tries=max_tries, retries=retries, has_ended=False, stopped=None, token=token
        )
    if error is None:
        return ResumedBatch.of_table(journal, start, table)
    is_candidate = found.candidates > 1
    on_record = [
        row_of(entry, is_candidate=is_candidate) for entry in journal if not journal.is_left_over(entry.key)
    ]
    on_record.sort(key=lambda row: (row.index, row.candidate or 0))
    of = max(len(on_record), (found.of - found.skipped) * found.candidates)
    return ResumedBatch(journal=journal, start=start, rows=on_record, of=of, skipped=found.skipped, error=error)


def left_over(journal: Journal) -> list[Entry]:
    """Return the entries of rows of an earlier table whose pictures are, or may be, paid for and are not saved."""
    entries = (entry for entry in journal if journal.is_left_over(entry.key))
    return [entry for entry in entries if entry.is_owed or entry.state in (INTENT, UNKNOWN)]


def check_shared(stored: Any, existing: Any, folder: str) -> None:
    """Raise if this worker sees an older journal than the task has written.

    :param stored: the header in the task state store, ``None`` for nothing.
    :param existing: the header in the folder, ``None`` for nothing.
    :raises StorageFailed: if the folder does not show the stored state.
    """
    known, seen = Header.from_dict(stored), Header.from_dict(existing)
    if stored is None or (known is not None and known.folder != folder):
        return
    if known and seen and (seen.tries, seen.generation) >= (known.tries, known.generation):
        return
    if existing is not None and seen is None:
        return  # open_batch reports the problem
    raise StorageFailed(
        f"This batch has a record in {folder}/{RECORD_FOLDER}, but this worker does not see its last state: the "
        "workers do not share the storage, or the folder was emptied. This attempt sent and spent nothing. Use a "
        "folder that every worker sees. If you emptied it on purpose, delete the key of this batch in the task's "
        "state store, and clear the task."
    )


def is_held(existing: Any, header: Header) -> bool:
    """Whether the batch still belongs to this attempt: another attempt, or another task, may have taken it over.

    :param existing: the header in the folder, as it is now.
    """
    seen = Header.from_dict(existing)
    return seen is not None and all(
        getattr(seen, name) == getattr(header, name) for name in ("made_by", "tries", "token")
    )


class TakenMeanwhile(NamedTuple):
    """File names of a batch that another task has begun to use while the batch began.

    :param may_be_left: whether that task may take its intent back, because it sees the batch.
    """

    error: StorageFailed
    may_be_left: bool


def taken_meanwhile(
    names: Iterable[str],
    seen: Mapping[str, ExistingImage],
    found: Mapping[str, ExistingImage],
    *,
    folder: str,
) -> TakenMeanwhile | None:
    """Return which file names another task has begun to use; ``None`` for none.

    :param names: of the pictures that are to be bought.
    :param seen: what existed there before the batch's header was written.
    :param found: what exists there after that.
    """
    changed = [name for name in names if _summary(found.get(name)) != _summary(seen.get(name))]
    if not changed:
        return None
    error = StorageFailed.unsent(
        f"While this batch began, another task has begun to use {counted(len(changed), 'file name')} of it in "
        f"{folder}: {listed(changed, _SHOWN)}",
        "A retry uses that task's pictures. Let no other task write into the folder of a batch while it runs.",
    )
    others = [found[name].sidecar for name in changed if name in found]
    return TakenMeanwhile(error, all(sidecar is not None and sidecar.state == INTENT for sidecar in others))


def _summary(existing: ExistingImage | None) -> tuple[Any, ...]:
    """Return what shows that something else exists; a sidecar from the record has no more than this.

    Files with the names of copies do not count.
    """
    existing = existing or ExistingImage("")
    sidecar = existing.sidecar
    state = None if sidecar is None else (sidecar.state, sidecar.submission.job_id)
    return existing.size, existing.folder, bool(existing.problem), state


def beside_batch(header: Any, *, path: str, record: str) -> Unavailable | None:
    """Return the error of a single task that would buy a picture in the folder of a batch; ``None`` if it may.

    :param header: the JSON of the batch's header; anything else if it is not JSON.
    :param path: of the task's picture.
    :param record: the path of the header.
    """
    owner = _running(header)
    if owner is None:
        return None
    return Unavailable(
        f"The folder of {path!r} is in use by {owner}, which may buy the same picture now: its record, {record}, "
        "does not say that it has ended. This task sent nothing, and nothing was spent. Let no other task write "
        "into the folder of a batch while it runs. If that batch was killed, clear its task: it continues where "
        "it stopped."
    )


def redo_beside_batch(header: Any, *, path: str, record: str) -> Unavailable | None:
    """Return the error if a picture cannot be moved aside now, because a batch may be running in its folder.

    :param header: as for :func:`beside_batch`; the same for the others.
    """
    owner = _running(header)
    if owner is None:
        return None
    return Unavailable(
        f"{path} cannot be moved: its folder is in use by {owner}, whose record, {record}, does not say that it "
        f"has ended. {NOT_MOVED} Let that batch end, and run this again. If it was killed, clear its task: it "
        "continues where it stopped."
    )


def _running(header: Any) -> str | None:
    """Return the batch that may be running with this header; ``None`` if it has ended."""
    found = Header.from_dict(header)
    if found is None:
        return "a batch whose record cannot be read"
    return None if found.has_ended else f"a batch, {found.owner}"


def _begin_anew(
    journal: Journal, start: StartKind, new: Header, table: CheckedTable, renamed: _Renamed
) -> ResumedBatch:
    found, tries = journal.header, journal.header.tries + 1
    is_clear = start is StartKind.CLEAR
    begun = set(found.begun) - (journal.missing if is_clear else set())
    header = replace(
        new,
        tries=tries,
        since=tries,
        cleared=tries if is_clear else found.cleared,
        generation=found.generation,
        begun=tuple(sorted(begun)),
        spending=found.spending,
        unsaved=0 if is_clear else found.unsaved,
    )
    if is_clear:
        for entry in left_over(journal):
            if not entry.is_owed:  # no attempt has reported it, so this clear does not settle it
                journal.put(replace(entry, tried=tries))
    bought = purchases_of(journal)
    resumed = ResumedBatch.of_table(journal, start, table)
    if _is_same_table(found, new):
        header = replace(header, spending=spending_to_keep(header, bought))
        journal.set_header(**{name: getattr(header, name) for name in Header.__slots__})
        if is_clear:
            journal.missing = frozenset()
        return resumed
    owed, left_behind, gone = _sorted_out(journal, {row.key for row in table.rows}, renamed)
    header = replace(header, generation=tries, begun=(), spending=spending_to_keep(header, bought, gone))
    journal.start_over(header, table.rows, owed)
    for entry in renamed.adopted:
        journal.put(entry)
    return replace(resumed, warning=_left_behind(left_behind) if is_clear else None)


def _sorted_out(
    journal: Journal, keys: set[str], renamed: _Renamed
) -> tuple[list[Entry], list[Entry], list[Charge]]:
    """Return the entries of rows that a new table does not have, as far as they still matter.

    :param keys: of the new table's rows.
    :return: those that are, or may be, paid for and not saved; of these, those of which it is unknown; and the
        charges of all others.
    """
    owed: list[Entry] = []
    unknown: list[Entry] = []
    gone: list[Charge] = []
    for entry in (entry for entry in journal if entry.key not in keys):
        if entry.state in (INTENT, UNKNOWN):
            owed.append(entry)
            unknown.append(entry)
        elif not entry.is_owed:
            gone += entry.purchases
        elif not renamed.adopt(entry):
            owed.append(entry)
    return owed, unknown, gone


class _Renamed:
    """The rows of a new table that request a paid picture under a new file name.

    A paid picture may be unsaved because the storage refuses its name. The row that has been given another name
    for it adopts that job instead of submitting again. Each job is adopted once, and only if its new name is free.

    :ivar adopted: the new entries of these rows.
    """

    def __init__(
        self, journal: Journal, rows: Sequence[Row], conn_id: str | None, is_free: Callable[[str], bool]
    ) -> None:
        self.adopted: list[Entry] = []
        self._conn_id = conn_id
        self._is_free = is_free
        self._rows: defaultdict[str, list[Row]] = defaultdict(list)
        self._names = {same(row.file_name): row for row in rows}
        if conn_id is not None:
            for row in rows:
                if journal.get(row.key) is None:
                    self._rows[key_of(conn_id, row.canonical_request, "")].append(row)

    def adopt(self, entry: Entry) -> bool:
        """Let a row with the same request adopt an owed job; return whether there is one."""
        if self._conn_id is None or entry.key != key_of(self._conn_id, entry.request, entry.file_name):
            return False  # it was bought over another connection, perhaps for another account
        rows = self._rows[key_of(self._conn_id, entry.request, "")]
        # A disk may treat the old name and a new one as the same: then only that row may have the picture.
        named = self._names.get(same(entry.file_name))
        for row in rows if named is None else [named]:
            if row in rows and self._is_free(row.file_name):
                rows.remove(row)
                self.adopted.append(replace(entry, key=row.key, index=row.index, file_name=row.file_name))
                return True
        return False


def _header_of(
    table: CheckedTable, folder: str, made_by: Mapping[str, Any], max_tries: int, retries: int | None
) -> Header:
    pages: list[list[Row]] = [[] for _ in range(0, table.size, PAGE_ROWS)]
    for row in table.rows:
        pages[page_of(row.index)].append(row)
    return Header(
        digest=digest_of(table.rows),
        parts=tuple(digest_of(page)[:8] for page in pages),
        of=table.size,
        skipped=table.skipped,
        candidates=table.candidates,
        folder=folder,
        made_by=dict(made_by),
        max_tries=max_tries,
        retries=retries,
    )


def _is_same_table(found: Header, new: Header) -> bool:
    """Whether two tables have the same rows on the same pages."""
    return (found.digest, found.parts) == (new.digest, new.parts)


def _difference(found: Header, table: Header) -> RequestInvalid | None:
    """Return the error if a retry's table or folder is not the one on record."""
    what = []
    if found.folder != table.folder:
        what.append(f"the folder was {found.folder} and is {table.folder}")
    if found.of != table.of:
        what.append(f"the table had {counted(found.of, 'row')} and has {table.of:,}")
    if found.candidates != table.candidates:
        what.append(f"candidates was {found.candidates} and is {table.candidates}")
    pairs = zip(found.parts, table.parts, strict=False)
    differing = [page for page, (one, other) in enumerate(pairs) if one != other]
    if differing:
        spans = [f"{page * PAGE_ROWS} to {min((page + 1) * PAGE_ROWS, table.of) - 1}" for page in differing]
        what.append(f"requests differ among rows {listed(spans, _SHOWN)}")
    elif not what and found.digest != table.digest:
        what.append("the table is another")
    if not what:
        return None
    return RequestInvalid(
        f"This attempt's batch differs from that of the attempt before: {'; '.join(what)}. Nothing more was "
        "bought, and what was paid for is saved. Either the table was changed meanwhile, or a template renders "
        "differently in every attempt, or other rows are left out now than before. Clear the task to buy what the "
        "new table requests and has no picture yet.",
        fields=["requests"],
    )


def _unreadable(journal: Journal, start: StartKind) -> SubmitOutcomeUnknown | None:
    """Return the error if a new table cannot be compared with the whole record."""
    pages = set(journal.unreadable) | (set(journal.missing) if start is StartKind.OTHER else set())
    if not pages:
        return None
    return SubmitOutcomeUnknown.because(
        f"the table is a new one, and {unreadable_pages(journal, pages)} of the old one's record cannot be read, "
        "so it is unknown which of its rows were bought. This attempt sent nothing. Restore or delete these "
        "files, and clear the task"
    )


def unreadable_pages(journal: Journal, pages: set[int] | frozenset[int]) -> str:
    """Return the file names of pages."""
    header = journal.header
    return listed([f"{header.folder}/{page_name(header.generation, page)}" for page in sorted(pages)], _SHOWN)


def _left_behind(entries: Sequence[Entry]) -> str | None:
    if not entries:
        return None
    return (
        f"The task was cleared with a new table, which no longer has {counted(len(entries), 'row')} that may or "
        f"may not have been paid for: {listed([entry.file_name for entry in entries], _SHOWN)}. They are left "
        "behind, and stay unknown if they come back."
    )


def row_of(entry: Entry, *, is_candidate: bool = False) -> Row:
    """Return the row of an entry, without its other columns, which are not on record.

    :param is_candidate: whether its file name has the number of a candidate.
    """
    return Row(
        index=entry.index,
        file_name=entry.file_name,
        request=request_of(entry.request),
        key=entry.key,
        columns={},
        candidate=candidate_number(entry.file_name) if is_candidate else None,
    )
