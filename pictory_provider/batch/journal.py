# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The record of a batch: a header, and pages of 48 rows, as plain JSON.

A page holds what is known of each of its rows that was ever to be bought
(:class:`pictory_provider.batch.entries.Entry`).

What is no record of ours, or that of a later release, is *unreadable*, and a page that the header names and that
is not there is *missing*. Neither is ever taken for nothing: a purchase may be on it.

Whatever changes is collected, and :meth:`Journal.writes` gives it in the order in which it is to be written: pages
first, then the header that names them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from pictory_provider.batch.entries import PAGE_ROWS, VERSION, Entry, Header
from pictory_provider.batch.names import RECORD_FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pictory_provider.batch.rows import Row

HEADER = f"{RECORD_FOLDER}/batch.json"
"""Where the header lies, in the folder."""


class Write(NamedTuple):
    """A value to be written, and its place in the folder."""

    name: str
    value: dict[str, Any]


def page_name(generation: int, page: int) -> str:
    """Return where a page lies, in the folder."""
    return f"{RECORD_FOLDER}/{generation}-{page:05d}.json"


def page_of(index: int) -> int:
    """Return the page of a row of the table."""
    return index // PAGE_ROWS


@dataclass(slots=True, kw_only=True)
class Journal:
    """A batch's record, as it is and as it is to be written.

    :param header: as it stands now.
    :param unreadable: pages that are no record of this version.
    :param missing: pages that the header names and that are not there.
    """

    header: Header
    unreadable: frozenset[int] = frozenset()
    missing: frozenset[int] = frozenset()
    _pages: dict[int, dict[str, Entry]] = field(default_factory=dict)
    _home: dict[str, int] = field(default_factory=dict)
    _changed: set[int] = field(default_factory=set)
    _is_urgent: bool = False
    _header_changed: bool = False
    _before: Header | None = None

    @classmethod
    def read(cls, header: Header, pages: Mapping[int, Any]) -> Journal:
        """Read what lies there.

        :param pages: every page of the header's generation that lies in the folder, named by the header or not,
            as its JSON; what is no JSON is ``None``.
        """
        journal = cls(header=header)
        unreadable = set()
        for page, value in pages.items():
            entries = _entries(header, page, value)
            if entries is None:
                unreadable.add(page)
                continue
            for entry in entries:
                journal._place(page, entry)
        journal.unreadable = frozenset(unreadable)
        journal.missing = frozenset(set(header.begun) - set(pages))
        return journal

    def __iter__(self) -> Iterator[Entry]:
        """Give every entry, in the order of the pages."""
        for page in sorted(self._pages):
            yield from self._pages[page].values()

    def get(self, key: str) -> Entry | None:
        """Return what is on record of a row."""
        home = self._home.get(key)
        return None if home is None else self._pages[home][key]

    def is_left_over(self, key: str) -> bool:
        """Whether a row lies behind the table: an earlier table had it."""
        return self._home[key] >= self.header.table_pages

    def put(self, entry: Entry, *, is_urgent: bool = True) -> None:
        """Put a row on record, in the place of what was there of it.

        :param is_urgent: whether nobody could find it out again.
        """
        page = self._home.get(entry.key, page_of(entry.index))
        self._place(page, entry)
        self._changed.add(page)
        self._is_urgent = self._is_urgent or is_urgent

    def drop(self, key: str) -> None:
        """Take a row off the record, if it is on it."""
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
        """Take the pages of a new generation: known rows find their places in a new table, others lie behind it.

        The old header stays until the new pages are written, so a crash on the way loses nothing. It is written
        once more before them with the number of this try, so that the next try takes another generation, and none
        reads pages that this one did not finish.
        """
        self._before = replace(self.header, tries=header.tries)
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
        """Whether something is to be written."""
        return bool(self._changed) or self._header_changed

    @property
    def is_urgent(self) -> bool:
        """Whether something is to be written that nobody could find out again."""
        return self._is_urgent or self._before is not None

    def writes(self) -> list[Write]:
        """Return what is to be written, in this order, and take it for written."""
        new = self._changed - set(self.header.begun)
        if new:
            self.set_header(begun=tuple(sorted({*self.header.begun, *new})))
        generation = self.header.generation
        pages = [Write(page_name(generation, page), self.page(page)) for page in sorted(self._changed)]
        before = [Write(HEADER, self._before.plain())] if self._before else []
        header = [Write(HEADER, self.header.plain())] if self._header_changed else []
        self._changed, self._header_changed, self._before, self._is_urgent = set(), False, None, False
        return before + pages + header

    def page(self, page: int) -> dict[str, Any]:
        """Return the JSON of a page."""
        rows = {key: entry.plain() for key, entry in self._pages[page].items()}
        return {"version": VERSION, "generation": self.header.generation, "page": page, "rows": rows}

    def _place(self, page: int, entry: Entry) -> None:
        self._home[entry.key] = page
        self._pages.setdefault(page, {})[entry.key] = entry


def _entries(header: Header, page: int, value: Any) -> list[Entry] | None:
    if not isinstance(value, dict) or value.get("version") != VERSION or not isinstance(value.get("rows"), dict):
        return None
    if (value.get("generation"), value.get("page")) != (header.generation, page):
        return None
    entries = [Entry.read(key, kept) for key, kept in value["rows"].items()]
    return None if None in entries else [entry for entry in entries if entry is not None]
