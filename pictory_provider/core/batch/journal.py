# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Keep the record of a batch: a header, and pages of 48 rows, as plain JSON.

A page has an :class:`Entry` for each of its rows that was ever about to be submitted:

=========  =====================================================================================
state      meaning
=========  =====================================================================================
intent     the paid request was about to be sent; if written by an earlier attempt, the outcome
           is unknown
bought     Pictory returned a jobId; if it has no time, a user recorded it
saved      its picture has been saved at its file name
failed     it was refused or has failed, or could not be saved; ``adoptable`` if the job may
           still give its picture
unknown    the request was sent, and it is unknown whether Pictory accepted it
=========  =====================================================================================

A page that is not in this format, or is of a later release, is *unreadable*, and a page that the header names and
that does not exist is *missing*. Neither is treated as empty, since a paid job may be on it.

Changes are collected, and :meth:`Journal.writes` returns them in the order in which they have to be written: first
the pages, then the header that names them.

The entries have the batch's charges, each with its time and its listed price (:func:`purchases_of`). The header
has the rest, under ``spending``: the charges of an earlier table's rows (``dropped``), and how much of everything
was spent before the task was last cleared (``before_clear``). Version 0.1.0 also wrote ``baseline``: the quota
before the first charges that it might not include yet.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from pictory_provider.api.decoding import count_or_none, is_count, is_number
from pictory_provider.api.errors import RequestInvalid, Unavailable
from pictory_provider.core.attempt import MadeBy
from pictory_provider.core.batch.file_names import HEADER, RECORD_FOLDER
from pictory_provider.core.batch.rows import request_of
from pictory_provider.core.budget import LATE_AT_MOST, Budget, Limits, remembered
from pictory_provider.core.ledger import Charge, purchases_from_dict, purchases_to_dict, total
from pictory_provider.core.sidecar import SavedFile, Sidecar, Unreadable
from pictory_provider.core.submission import PurchaseRecord, Submission, charge_fields, money_fields

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pictory_provider.core.batch.rows import Row


def purchases_of(journal: Journal) -> list[Charge]:
    """Return all of a batch's charges, certain or possible.

    :raises Unavailable: if the record cannot be read.
    """
    return [*_dropped(journal.header), *chain.from_iterable(entry.purchases for entry in journal)]


def budget_of(journal: Journal, limits: Limits) -> Budget:
    """Return the budget of a batch.

    :raises Unavailable: if the batch's spending cannot be read from the record.
    """
    bought, spending = purchases_of(journal), journal.header.spending or {}
    before_clear = spending.get("before_clear", 0.0)
    if not is_number(before_clear):
        raise _unreadable(spending)
    # The clock is only checked with Pictory's first reply: then the budget forgets what no longer matters.
    own = _with_baseline(sorted(bought, key=lambda each: each.at), spending)
    return Budget(limits, own=own, this_task=total(bought) - before_clear)


def spending_to_keep(header: Header, bought: Sequence[Charge], dropped: Iterable[Charge] = ()) -> dict[str, Any]:
    """Return the ``spending`` of the header when a batch begins anew.

    It has charges of dropped rows as long as they may count for a limit of the connection.

    :param bought: all charges so far (:func:`purchases_of`), which no longer count for ``max_credits``.
    :param dropped: those of rows that are about to be dropped.
    """
    recent = set(remembered(bought, max((each.at for each in bought), default=0.0)))
    gone = [*_dropped(header), *dropped]
    left = [each for each in gone if each in recent]
    spending = {name: value for name, value in (header.spending or {}).items() if not name.startswith("dropped")}
    spending["before_clear"] = round(total(bought) - total(gone) + total(left), 6)
    return spending | purchases_to_dict("dropped", left)


def _dropped(header: Header) -> tuple[Charge, ...]:
    dropped = purchases_from_dict("dropped", header.spending or {})
    if dropped is None:
        raise _unreadable(header.spending)
    return dropped


def _with_baseline(own: list[Charge], spending: dict[str, Any]) -> list[Charge]:
    """Return charges with the quota that version 0.1.0 recorded before the first of them."""
    baseline = spending.get("baseline")
    if baseline is None:
        return own
    found = purchases_from_dict("baseline", {"baseline": [baseline]})
    if not found:
        raise _unreadable(spending)
    ((at, used, *_),) = found
    first = next((number for number, each in enumerate(own) if each.at >= at), None)
    if first is not None and own[first].used_before is None and own[first].at - at <= LATE_AT_MOST:
        own[first] = own[first]._replace(used_before=used)
    return own


def _unreadable(spending: dict[str, Any] | None) -> Unavailable:
    return Unavailable(
        "What this batch has spent cannot be read from its record, so this attempt buys nothing. `spending` in "
        f"batch.json is {str(spending)[:200]}. Undo the manual change and clear the task. If that is not "
        "possible, wait an hour, so that Pictory's ledger has all charges, set it to null, and clear the task."
    )


VERSION = 1
"""Version of the format of header and pages."""
PAGE_ROWS = 48
"""Rows per page. A multiple of the size of a wave, so that a wave needs one write."""
INTENT, BOUGHT, SAVED, FAILED, UNKNOWN = "intent", "bought", "saved", "failed", "unknown"
_STATES = (INTENT, BOUGHT, SAVED, FAILED, UNKNOWN)
_FIELDS = (
    *("index", "file_name", "request", "state", "tried", "job_id", "intended_at", "submitted_at"),
    *("code", "message", "adoptable", "again", "shown_before", "used_before"),
)


_OPTIONAL: dict[str, Any] = {"unsaved": 0, "token": "", "skipped": 0, "candidates": 1}
"""Fields of the header that are left out if they have these values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The record of a batch as a whole.

    :param digest: of the table (:func:`pictory_provider.core.batch.rows.digest_of`).
    :param parts: a short digest of each page of the table, to show where two tables differ.
    :param of: the number of rows in the table, including those that are left out.
    :param folder: of the batch.
    :param made_by: dag, run, task and map index of the batch's task.
    :param max_tries: Airflow's ``ti.max_tries`` in the last attempt.
    :param retries: of the task in that attempt.
    :param has_ended: whether that attempt has ended for good, successfully or not.
    :param tries: the number of attempts that began here, retries and clears alike.
    :param since: the number of the attempt that last began anew with the whole table: the first, one after a
        clear, or the first of another run. What failed before it is submitted again, and with ``overwrite``
        everything is.
    :param cleared: the number of the attempt that followed the last clear; 0 for none. What was unknown before it
        is submitted again: a user has checked it.
    :param generation: of the pages; a new table gets new ones.
    :param begun: the pages that have been written.
    :param stopped: why this attempt, and its deferrals, submit nothing more
        (:func:`pictory_provider.core.batch.breaker.to_dict`).
    :param spending: the spending that is not in the entries; see the top of this module.
    :param token: of the attempt that has the batch: a random text, which no other attempt has.
    :param skipped: how many rows of the table are left out because a cell is blank.
    :param candidates: pictures of each row of the table.
    :param unsaved: how many pictures in a row could not be fetched or saved, over all attempts
        (:meth:`pictory_provider.core.batch.plan.Plan.failed`).
    """

    digest: str
    parts: tuple[str, ...]
    of: int
    folder: str
    made_by: dict[str, Any]
    max_tries: int
    retries: int | None
    has_ended: bool = False
    tries: int = 1
    since: int = 1
    cleared: int = 0
    generation: int = 1
    begun: tuple[int, ...] = ()
    stopped: dict[str, Any] | None = None
    spending: dict[str, Any] | None = None
    unsaved: int = 0
    token: str = ""
    skipped: int = 0
    candidates: int = 1

    @property
    def table_pages(self) -> int:
        """How many pages the table has. What is left of an earlier table is on the pages after them."""
        return -(-self.of // PAGE_ROWS)

    @property
    def owner(self) -> str:
        """Dag, run, task and map index of the batch's task, as text."""
        return ", ".join(f"{name} {value}" for name, value in self.made_by.items() if value is not None)

    def to_dict(self) -> dict[str, Any]:
        """Return the header as JSON."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        fields = {
            name: field for name, field in fields.items() if name not in _OPTIONAL or field != _OPTIONAL[name]
        }
        return {"version": VERSION, **fields, "parts": list(self.parts), "begun": list(self.begun)}

    @classmethod
    def from_dict(cls, value: Any) -> Header | None:
        """Read a header; ``None`` if it is not of this version."""
        if not isinstance(value, dict) or value.get("version") != VERSION:
            return None
        counts = [value.get(name) for name in ("of", "max_tries", "tries", "since", "cleared", "generation")]
        texts = [value.get("digest"), value.get("folder"), *_listed(value, "parts")]
        retries, begun = value.get("retries"), _listed(value, "begun")
        if not (
            all(is_count(count) for count in counts + begun)
            and all(isinstance(text, str) for text in texts)
            and isinstance(value.get("made_by"), dict)
            and isinstance(value.get("has_ended"), bool)
            and (retries is None or is_count(retries))
            and all(isinstance(value.get(name), (dict, type(None))) for name in ("stopped", "spending"))
        ):
            return None
        fields = {name: field for name, field in value.items() if name in cls.__slots__}
        fields |= {name: count_or_none(value.get(name)) or 0 for name in ("unsaved", "skipped")}
        fields["candidates"] = count_or_none(value.get("candidates")) or 1
        fields["token"] = _text(value.get("token")) or ""
        try:
            return cls(**{**fields, "parts": tuple(value["parts"]), "begun": tuple(begun)})
        except (KeyError, TypeError):
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry(PurchaseRecord):
    """The record of one row. Its ``job_id`` is also ``None`` after a refusal.

    :param tried: the number of the attempt that last submitted it, or saved it.
    :param code: of a failure, such as Pictory's error code.
    :param message: what happened.
    :param adoptable: of a failure: the job is paid for and may still give its picture.
    :param again: whether that attempt submitted it although an earlier request's outcome is unknown.
    :param picture: the saved one, in object storage: it saves a later attempt from reading the sidecar.
    :param sidecar_version: the version of the sidecar in the storage that describes ``picture``.
    """

    key: str
    index: int
    file_name: str
    request: dict[str, Any]
    state: str
    tried: int
    code: str | None = None
    message: str | None = None
    adoptable: bool = False
    again: bool = False
    picture: SavedFile | None = None
    sidecar_version: str | None = None

    @classmethod
    def intent(
        cls, row: Row, charge: Charge, *, tried: int, again: bool = False, before: Entry | None = None
    ) -> Entry:
        """Return the entry of a row that is about to be submitted.

        :param charge: as it was counted against the limits.
        :param before: the row's entry so far.
        """
        return cls(
            key=row.key,
            index=row.index,
            file_name=row.file_name,
            request=row.canonical_request,
            state=INTENT,
            tried=tried,
            again=again,
            earlier=before.purchases if before else (),
            **charge_fields(charge),
        )

    def sidecar(self, made_by: dict[str, Any]) -> Sidecar | None:
        """Return the sidecar of its picture, as far as it is on record; ``None`` if it is not.

        :param made_by: of the batch; the picture may be of another task.
        """
        if self.picture is None or self.sidecar_version is None:
            return None
        return Sidecar(
            file=self.file_name.rpartition("/")[2],
            submission=Submission(job_id=self.job_id, request=self.request, submitted_at=self.submitted_at),
            made_by=MadeBy.from_dict(made_by),
            saved=self.picture,
        )

    @property
    def is_charged(self) -> bool:
        """Whether the row was charged, or may have been. A refusal was not."""
        return self.intended_at is not None and (self.state != FAILED or self.job_id is not None)

    @property
    def is_owed(self) -> bool:
        """Whether a picture was paid for, or may have been, and is not saved."""
        return self.state == BOUGHT or (self.state == FAILED and self.adoptable)

    def to_dict(self) -> dict[str, Any]:
        """Return the entry as JSON."""
        fields = self.fields(_FIELDS) | {"adoptable": self.adoptable or None, "again": self.again or None}
        if self.picture is not None:
            fields |= {"picture": self.picture.to_dict(), "sidecar_version": self.sidecar_version}
        return {name: value for name, value in fields.items() if value is not None}

    @classmethod
    def from_dict(cls, key: Any, value: Any) -> Entry | None:
        """Read an entry. A ``jobId`` that a user adds to an intent, or to an unknown row, makes it bought.

        An empty ``jobId``, or the text ``None``, counts as none: a row that was bought with it is unknown.

        :return: ``None`` if it cannot be read.
        """
        if not isinstance(value, dict) or not isinstance(key, str):
            return None
        request, state, job_id = value.get("request"), value.get("state"), value.get("jobId")
        money = money_fields(value)
        if not (
            isinstance(request, dict)
            and all(isinstance(request.get(name), str) for name in ("prompt", "model"))
            and isinstance(value.get("file_name"), str)
            and is_count(value.get("index"))
            and is_count(value.get("tried"))
            and state in _STATES
            and money is not None
            and (job_id is None or isinstance(job_id, str))
        ):
            return None
        message = _text(value.get("message"))
        if job_id is not None and job_id.strip() in ("", "None"):
            if state in (BOUGHT, SAVED):
                state, message = UNKNOWN, f"its jobId on record is {job_id!r}, which is not a jobId"
            job_id = None
        is_from_user = state in (INTENT, UNKNOWN) and job_id is not None
        if state in (BOUGHT, SAVED) and job_id is None:
            return None
        try:
            request_of(request)
        except RequestInvalid:
            return None
        return cls(
            key=key,
            index=value["index"],
            file_name=value["file_name"],
            request=request,
            state=BOUGHT if is_from_user else state,
            tried=value["tried"],
            job_id=job_id.strip() if job_id else None,
            code=_text(value.get("code")),
            message=message,
            adoptable=value.get("adoptable") is True and job_id is not None,
            again=value.get("again") is True,
            picture=_picture(value.get("picture")) if state == SAVED else None,
            sidecar_version=_text(value.get("sidecar_version")),
            **(money | {"submitted_at": None} if is_from_user else money),
        )


def _listed(value: dict[str, Any], name: str) -> list[Any]:
    listed = value.get(name)
    return listed if isinstance(listed, list) else [None]


def _picture(value: Any) -> SavedFile | None:
    """Read a saved picture. What cannot be read is read from the sidecar instead."""
    with suppress(Unreadable):
        return SavedFile.from_dict(value) if isinstance(value, dict) else None
    return None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


class Write(NamedTuple):
    """A value to write, and its file name relative to the folder."""

    name: str
    value: dict[str, Any]


def page_name(generation: int, page: int) -> str:
    """Return a page's file name, relative to the folder."""
    return f"{RECORD_FOLDER}/{generation}-{page:05d}.json"


def page_of(index: int) -> int:
    """Return the page of a row."""
    return index // PAGE_ROWS


@dataclass(slots=True, kw_only=True)
class Journal:
    """The record of a batch, with the changes that are still to be written.

    :param header: with all changes.
    :param unreadable: pages that are not in this version's format.
    :param missing: pages that the header names and that do not exist.
    """

    header: Header
    unreadable: frozenset[int] = frozenset()
    missing: frozenset[int] = frozenset()
    _pages: dict[int, dict[str, Entry]] = field(default_factory=dict)
    _home: dict[str, int] = field(default_factory=dict)
    _changed: set[int] = field(default_factory=set)
    _is_urgent: bool = False
    _header_changed: bool = False
    _is_written: bool = False
    _before: Header | None = None

    @classmethod
    def from_pages(cls, header: Header, pages: Mapping[int, Any]) -> Journal:
        """Read the pages of a header.

        :param pages: every page of the header's generation in the folder, named by the header or not, as its JSON;
            ``None`` for a page that is not JSON.
        """
        journal = cls(header=header)
        read = {page: _entries(header, page, value) for page, value in pages.items()}
        for page, entries in read.items():
            for entry in entries or ():
                journal._place(page, entry)
        journal.unreadable = frozenset(page for page, entries in read.items() if entries is None)
        journal.missing = frozenset(set(header.begun) - set(pages))
        return journal

    def __iter__(self) -> Iterator[Entry]:
        """Yield every entry, in the order of the pages."""
        for page in sorted(self._pages):
            yield from self._pages[page].values()

    def get(self, key: str) -> Entry | None:
        """Return a row's entry."""
        home = self._home.get(key)
        return None if home is None else self._pages[home][key]

    def home_of(self, key: str) -> int:
        """Return the page that a row's entry is on."""
        return self._home[key]

    def is_left_over(self, key: str) -> bool:
        """Whether a row is on a page after those of the table: it is a row of an earlier table."""
        return self._home[key] >= self.header.table_pages

    def put(self, entry: Entry, *, is_urgent: bool = True) -> None:
        """Record a row, replacing its entry.

        :param is_urgent: whether the change could not be found out again after a crash.
        """
        page = self._home.get(entry.key, page_of(entry.index))
        self._place(page, entry)
        self._changed.add(page)
        self._is_urgent = self._is_urgent or is_urgent

    def drop(self, key: str) -> None:
        """Remove a row's entry, if there is one."""
        page = self._home.pop(key, None)
        if page is not None:
            del self._pages[page][key]
            self._changed.add(page)
            self._is_urgent = True

    def set_header(self, **changes: Any) -> None:
        """Change the header."""
        self.header = replace(self.header, **changes)
        self._header_changed = True

    def start_over(self, header: Header, table: Sequence[Row], left_over: Iterable[Entry]) -> None:
        """Begin a new generation: known rows move to their places in a new table, others to pages after it.

        The old header stays until the new pages are written, so a crash meanwhile loses nothing. It is written
        once more before them with the number of this attempt, so that the next attempt uses another generation,
        and never reads pages that this one did not finish.
        """
        self._before = replace(self.header, tries=header.tries, token=header.token)
        old = {entry.key: entry for entry in self}
        self.header, self._header_changed = header, True
        self.unreadable = self.missing = frozenset()
        self._pages, self._home, self._changed = {}, {}, set()
        for row in table:
            if row.key in old:
                self.put(replace(old[row.key], index=row.index))
        for number, entry in enumerate(left_over):
            page = header.table_pages + number // PAGE_ROWS
            self._place(page, entry)
            self._changed.add(page)

    @property
    def is_changed(self) -> bool:
        """Whether there are changes to write."""
        return bool(self._changed) or self._header_changed

    @property
    def is_urgent(self) -> bool:
        """Whether there are changes that could not be found out again after a crash."""
        return self._is_urgent or self._before is not None

    def writes(self) -> list[Write]:
        """Return the changes in the order in which to write them, and treat them as written."""
        if self._header_changed and self._changed and not self._is_written and self._before is None:
            # The attempt takes the batch over with its header. Until then it may change no page.
            self._before = self.header
        new = self._changed - set(self.header.begun)
        if new:
            self.set_header(begun=tuple(sorted({*self.header.begun, *new})))
        generation = self.header.generation
        pages = [Write(page_name(generation, page), self.page(page)) for page in sorted(self._changed)]
        before = [Write(HEADER, self._before.to_dict())] if self._before else []
        is_new = self._before is None or self._before != self.header
        header = [Write(HEADER, self.header.to_dict())] if self._header_changed and is_new else []
        self._is_written = True
        self._changed, self._header_changed, self._before, self._is_urgent = set(), False, None, False
        return before + pages + header

    def page(self, page: int) -> dict[str, Any]:
        """Return the JSON of a page."""
        rows = {key: entry.to_dict() for key, entry in self._pages[page].items()}
        return {"version": VERSION, "generation": self.header.generation, "page": page, "rows": rows}

    def _place(self, page: int, entry: Entry) -> None:
        self._home[entry.key] = page
        self._pages.setdefault(page, {})[entry.key] = entry


def _entries(header: Header, page: int, value: Any) -> list[Entry] | None:
    if not isinstance(value, dict) or value.get("version") != VERSION or not isinstance(value.get("rows"), dict):
        return None
    if (value.get("generation"), value.get("page")) != (header.generation, page):
        return None
    entries = [Entry.from_dict(key, fields) for key, fields in value["rows"].items()]
    return None if None in entries else [entry for entry in entries if entry is not None]
