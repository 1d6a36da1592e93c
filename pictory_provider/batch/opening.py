# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What kind of try is this, and what may it do with the record that it finds?

==================================================  ====================================================
what lies there                                     the try
==================================================  ====================================================
nothing                                             is the first, and buys
a header of this task, after a deferral             goes on as it was
a header of this task, ``max_tries`` as it was      is a retry: buys what was never sent
a header of this task, another ``max_tries``        follows a clear: buys what failed or is unknown, too
a header of another task or run, which has ended    begins anew with what is there: buys what failed, but
                                                    not what is unknown, which nobody has looked at
a header of another task or run, not ended          :class:`StorageFailed`: it may be buying now
pages without a header, a header that cannot be     :class:`SubmitOutcomeUnknown`
read, a deferral's end without a header
==================================================  ====================================================

A retry whose table or folder differs, and whatever takes a new table while a page cannot be read, is held to the
record: it buys nothing, saves what is paid for, and fails with :attr:`Opening.error`.

A job that is paid for and not saved is taken by a row of the new table that asks for the same under another name,
if no other row has its old name, and nothing is in the new place.

How a clear is told from a retry is said in :mod:`pictory_provider.jobs.submission`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from pictory_provider.api.errors import PictoryError, RequestInvalid, StorageFailed, SubmitOutcomeUnknown
from pictory_provider.batch.entries import INTENT, PAGE_ROWS, UNKNOWN, Entry, Header
from pictory_provider.batch.journal import HEADER, Journal, page_name
from pictory_provider.batch.names import RECORD_FOLDER, same
from pictory_provider.batch.rows import Row, digest_of, key_of, request_of
from pictory_provider.batch.spending import kept, purchases_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pictory_provider.jobs.ledger import Purchase

_SHOWN = 5
"""How many pages of rows, or names of files, an error names."""


class Start(Enum):
    """What kind of try it is."""

    FIRST = "first"
    LEG = "leg"
    """The same try, after a deferral."""
    RETRY = "retry"
    CLEAR = "clear"
    OTHER = "other"
    """The first try of another task or run, in a folder that has a record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """A batch that a try may go on with. Its journal is to be written before anything is sent.

    :param rows: of the table; where it is held to the record, those on record.
    :param of: how many rows there are in all.
    :param error: why nothing may be bought; to be raised when what is paid for is saved.
    :param warning: what is left behind; for the log.
    """

    journal: Journal
    start: Start
    rows: Sequence[Row]
    of: int
    error: PictoryError | None = None
    warning: str | None = None


def start_of(
    found: Header | None, *, made_by: Mapping[str, Any], max_tries: int, retries: int | None, is_leg: bool = False
) -> Start:
    """Tell what kind of try it is.

    :param made_by: dag, run, task and map index of this task.
    :param max_tries: Airflow's ``ti.max_tries`` of this try.
    :param retries: of the task, now.
    :param is_leg: whether this is the same try after a deferral.
    """
    if found is None:
        return Start.FIRST
    if found.made_by != dict(made_by):
        return Start.OTHER
    if is_leg:
        return Start.LEG
    was_lowered = found.has_ended and None not in (retries, found.retries) and retries != found.retries
    return Start.CLEAR if found.max_tries != max_tries or was_lowered else Start.RETRY


def open_batch(
    header: Any,
    pages: Mapping[int, Any],
    rows: Sequence[Row],
    *,
    folder: str,
    made_by: Mapping[str, Any],
    max_tries: int,
    retries: int | None,
    is_leg: bool = False,
    conn_id: str | None = None,
    is_free: Callable[[str], bool] = lambda _: True,
) -> Opening:
    """Take up the record of a batch. The table is at the top of this module.

    :param header: the JSON that lies in the folder; ``None`` for nothing.
    :param pages: see :meth:`Journal.read`; without a header, whatever pages there are.
    :param rows: of this try's table.
    :param conn_id: of the Airflow connection; ``None`` adopts no job of a row that has another name now.
    :param is_free: whether nothing is in the place of a file name.
    :raises SubmitOutcomeUnknown: where the record as a whole cannot be read.
    :raises StorageFailed: where another task may be buying into this folder now.
    """
    found = None if header is None else Header.read(header)
    if (header is not None and found is None) or (found is None and (pages or is_leg)):
        raise SubmitOutcomeUnknown.because(
            f"{folder}/{HEADER} "
            + ("is missing, though this batch has a record" if header is None else "is none that can be read")
            + ". Nothing was sent by this try. Either workers do not share the storage, or the file was changed, "
            f"or a later release has written it. Put it back, or delete {folder}/{RECORD_FOLDER} and clear the "
            "task to buy whatever has no picture yet"
        )
    start = start_of(found, made_by=made_by, max_tries=max_tries, retries=retries, is_leg=is_leg)
    table = _header_of(rows, folder, made_by, max_tries, retries)
    if found is None:
        journal = Journal(header=table)
        journal.set_header()
        return Opening(journal=journal, start=start, rows=rows, of=len(rows))
    if start is Start.OTHER and not found.has_ended:
        raise StorageFailed(
            f"{folder} is in use by another batch: {_who(found.made_by)}. Its last try has not said that it "
            "ended, so it may be buying now. Nothing was sent and nothing was spent. Give each task, run and map "
            "index a folder of its own, or let that task end; if it was killed, clear it, and it goes on where "
            "it was."
        )
    journal = Journal.read(found, pages)
    if start is not Start.LEG:
        is_anew = start in (Start.CLEAR, Start.OTHER)
        error: PictoryError | None = None if is_anew else _difference(found, table)
        if is_anew and found.digest != table.digest:
            error = _unreadable(journal, start)
        if is_anew and error is None:
            renamed = _Renamed(journal, rows, conn_id, is_free)
            return _anew(journal, start, table, rows, renamed)
        journal.set_header(
            tries=found.tries + 1,
            max_tries=max_tries,
            retries=retries,
            has_ended=False,
            stopped=None,
        )
    else:
        error = _difference(found, table)
    if error is None:
        return Opening(journal=journal, start=start, rows=rows, of=len(rows))
    on_record = [_row_of(entry) for entry in journal if not journal.is_left_over(entry.key)]
    on_record.sort(key=lambda row: row.index)
    return Opening(journal=journal, start=start, rows=on_record, of=found.of, error=error)


def left_over(journal: Journal) -> list[Row]:
    """Return the rows of an earlier table whose pictures are paid for and not delivered."""
    return [_row_of(entry) for entry in journal if journal.is_left_over(entry.key) and entry.is_owed]


def check_shared(stored: Any, lying: Any, folder: str) -> None:
    """See whether the journal that a task has is the one that this worker sees.

    :param stored: the header in the task's state store, ``None`` for nothing.
    :param lying: the header in the folder, ``None`` for nothing.
    :raises StorageFailed: where the folder does not show what is known.
    """
    known, seen = Header.read(stored), Header.read(lying)
    if stored is None or (known is not None and known.folder != folder):
        return
    if known and seen and (seen.tries, seen.generation) >= (known.tries, known.generation):
        return
    if lying is not None and seen is None:
        return  # open_batch says what is wrong with it
    raise StorageFailed(
        f"This batch has a record in {folder}/{RECORD_FOLDER}, and this worker does not see it as it was left: "
        "the storage is not shared by all workers, or the folder was emptied. Nothing was sent and nothing was "
        "spent by this try. Use a folder that every worker sees. If it was emptied on purpose, delete the key of "
        "this batch in the task's state store, and clear the task."
    )


def is_held(lying: Any, header: Header) -> bool:
    """Whether the batch is still this try's own: another try, or another task, may have taken it up meanwhile.

    :param lying: the header in the folder, as it is now.
    """
    seen = Header.read(lying)
    return seen is not None and (seen.made_by, seen.tries) == (header.made_by, header.tries)


def _anew(journal: Journal, start: Start, table: Header, rows: Sequence[Row], renamed: _Renamed) -> Opening:
    found, tries = journal.header, journal.header.tries + 1
    is_clear = start is Start.CLEAR
    begun = set(found.begun) - (journal.missing if is_clear else set())
    header = replace(
        table,
        tries=tries,
        since=tries,
        cleared=tries if is_clear else found.cleared,
        generation=found.generation,
        begun=tuple(sorted(begun)),
        spending=found.spending,
        unsaved=0 if is_clear else found.unsaved,
    )
    bought = purchases_of(journal)
    if found.digest == table.digest:
        header = replace(header, spending=kept(header, bought))
        journal.set_header(**{name: getattr(header, name) for name in Header.__slots__})
        if is_clear:
            journal.missing = frozenset()
        return Opening(journal=journal, start=start, rows=rows, of=len(rows))
    keys = {row.key for row in rows}
    owed: list[Entry] = []
    dropped: list[Entry] = []
    gone: list[Purchase] = []
    for entry in (entry for entry in journal if entry.key not in keys):
        is_unknown = entry.state in (INTENT, UNKNOWN)
        if entry.is_owed and renamed.take(entry):
            continue
        if entry.is_owed or (is_unknown and not is_clear):
            owed.append(entry)
            continue
        gone += entry.purchases
        if is_unknown:
            dropped.append(entry)
    header = replace(header, generation=tries, begun=(), spending=kept(header, bought, gone))
    journal.start_over(header, rows, owed)
    for entry in renamed.taken:
        journal.put(entry)
    return Opening(journal=journal, start=start, rows=rows, of=len(rows), warning=_left_behind(dropped))


class _Renamed:
    """The rows of a new table that ask for a picture which is paid for under a name that no other row has now.

    A picture may be owed because the storage refuses its name. The row that has been given another name for it
    takes that job, and does not buy one more. Each job is taken once, and for a place that is free.

    :ivar taken: what is on record of these rows now.
    """

    def __init__(
        self, journal: Journal, rows: Sequence[Row], conn_id: str | None, is_free: Callable[[str], bool]
    ) -> None:
        self.taken: list[Entry] = []
        self._conn_id = conn_id
        self._is_free = is_free
        self._rows: defaultdict[str, list[Row]] = defaultdict(list)
        self._names = {same(row.file_name): row for row in rows}
        if conn_id is not None:
            for row in rows:
                if journal.get(row.key) is None:
                    self._rows[key_of(conn_id, row.asked, "")].append(row)

    def take(self, entry: Entry) -> bool:
        """Give an owed job to a row that asks for the same; say whether there is one."""
        if self._conn_id is None or entry.key != key_of(self._conn_id, entry.asked, entry.file_name):
            return False  # it was bought over another connection, perhaps for another account
        rows = self._rows[key_of(self._conn_id, entry.asked, "")]
        # A disk may take the old name and a new one for the same: then that row alone may have the picture.
        named = self._names.get(same(entry.file_name))
        for row in rows if named is None else [named]:
            if row in rows and self._is_free(row.file_name):
                rows.remove(row)
                self.taken.append(replace(entry, key=row.key, index=row.index, file_name=row.file_name))
                return True
        return False


def _header_of(
    rows: Sequence[Row], folder: str, made_by: Mapping[str, Any], max_tries: int, retries: int | None
) -> Header:
    pages = [rows[first : first + PAGE_ROWS] for first in range(0, len(rows), PAGE_ROWS)]
    return Header(
        digest=digest_of(rows),
        parts=tuple(digest_of(page)[:8] for page in pages),
        of=len(rows),
        folder=folder,
        made_by=dict(made_by),
        max_tries=max_tries,
        retries=retries,
    )


def _difference(found: Header, table: Header) -> RequestInvalid | None:
    """Return what to say where a retry's table or folder is not that of the record."""
    what = []
    if found.folder != table.folder:
        what.append(f"the folder was {found.folder} and is {table.folder}")
    if found.of != table.of:
        what.append(f"the table had {found.of:,} rows and has {table.of:,}")
    pairs = zip(found.parts, table.parts, strict=False)
    differing = [page for page, (one, other) in enumerate(pairs) if one != other]
    if differing:
        spans = [f"{page * PAGE_ROWS} to {min((page + 1) * PAGE_ROWS, table.of) - 1}" for page in differing]
        more = f" and {len(spans) - _SHOWN:,} more such" if len(spans) > _SHOWN else ""
        what.append(f"there are other requests among rows {', '.join(spans[:_SHOWN])}{more}")
    elif not what and found.digest != table.digest:
        what.append("the table is another")
    if not what:
        return None
    return RequestInvalid(
        f"This try's batch is not that of the try before: {'; '.join(what)}. Nothing more was bought, and what "
        "was paid for is saved. Either the table was changed meanwhile, or a template renders differently at "
        "every try. Clear the task to buy what the new table asks for and has no picture yet.",
        fields=["requests"],
    )


def _unreadable(journal: Journal, start: Start) -> SubmitOutcomeUnknown | None:
    """Return what to say where a new table cannot be compared with all that is on record."""
    pages = set(journal.unreadable) | (set(journal.missing) if start is Start.OTHER else set())
    if not pages:
        return None
    return SubmitOutcomeUnknown.because(
        f"the table is a new one, and {unreadable_pages(journal, pages)} of the old one's record cannot be read, "
        "so nobody can know which of its rows were bought. Nothing was sent by this try. Put them right, or "
        "delete them, and clear the task"
    )


def unreadable_pages(journal: Journal, pages: set[int] | frozenset[int]) -> str:
    """Name the files of pages."""
    header = journal.header
    names = [f"{header.folder}/{page_name(header.generation, page)}" for page in sorted(pages)]
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _left_behind(dropped: Sequence[Entry]) -> str | None:
    if not dropped:
        return None
    names = ", ".join(entry.file_name for entry in dropped[:_SHOWN])
    more = f" and {len(dropped) - _SHOWN:,} more" if len(dropped) > _SHOWN else ""
    return (
        f"The task was cleared with a new table, which no longer has {len(dropped):,} rows that may or may not "
        f"have been paid for: {names}{more}. They are left behind."
    )


def _row_of(entry: Entry) -> Row:
    """Return the row that an entry was made of, but for its other columns, which are not on record."""
    request, private = request_of(entry.asked)
    return Row(
        index=entry.index,
        file_name=entry.file_name,
        request=request,
        private_reference=private,
        key=entry.key,
        columns={},
    )


def _who(made_by: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in made_by.items() if value is not None)
