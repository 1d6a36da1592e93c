# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Read and write the record of a batch, whose format is in :mod:`pictory_provider.core.batch.journal`.

It is in the folder. Its header is also in the task's state store, if this Airflow has one (3.3 and later), so that
a worker without access to the folder knows that a record exists.
"""

from __future__ import annotations

import json
import re
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from pictory_provider.api.decoding import parse_json
from pictory_provider.api.errors import PictoryError, RequestInvalid, StorageFailed
from pictory_provider.api.text import counted, listed
from pictory_provider.api.timing import TIMING
from pictory_provider.core.attempt import MadeBy
from pictory_provider.core.batch.file_names import HEADER, RECORD_FOLDER
from pictory_provider.core.batch.journal import SAVED, Header, page_name
from pictory_provider.core.batch.resume import (
    StartKind,
    check_shared,
    is_held,
    open_batch,
    start_of,
    taken_meanwhile,
)
from pictory_provider.core.batch.rows import CheckedTable
from pictory_provider.storage.files import Changed
from pictory_provider.storage.folder import Folder
from pictory_provider.version_compat import task_state_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from airflow.providers.common.compat.sdk import Context

    from pictory_provider.core.batch.journal import Journal, Write
    from pictory_provider.core.batch.resume import ResumedBatch
    from pictory_provider.core.resume import ExistingImage
    from pictory_provider.core.sidecar import Sidecar
    from pictory_provider.storage.files import Content
    from pictory_provider.storage.target import Target

KEY = "pictory_batch"
"""The key of the header in the state store of a task."""
_PAGE = re.compile(r"(\d+)-(\d{5,})\.json")


class BatchRecord:
    """The record of one batch.

    :param retries: of the task.
    :ivar folder: the folder of the batch.
    :ivar made_by: the task instance of this attempt.
    """

    def __init__(self, folder: Folder, context: Context, *, retries: int | None) -> None:
        self.folder = folder
        self._store = task_state_store(context)
        self._ti: Any = context["ti"]
        self.retries = retries
        self._to_write: list[Write] = []
        self._stored: tuple[str, int, int] | None = None
        self._last_header: Content | None = None
        self._is_taken_over = False
        self._known: Callable[[str], tuple[Sidecar, str] | None] = lambda _: None
        self._written_at = time.monotonic()
        self.made_by = MadeBy.from_task_instance(self._ti)

    @property
    def max_tries(self) -> int:
        """Airflow's ``ti.max_tries``."""
        return int(self._ti.max_tries)

    @property
    def is_last_try(self) -> bool:
        """Whether Airflow does not retry the task after this attempt."""
        return bool(self._ti.try_number > self._ti.max_tries)

    def open(
        self,
        table: CheckedTable | RequestInvalid | StorageFailed,
        *,
        is_resumed: bool,
        conn_id: str | None = None,
        kept_in: str | None = None,
    ) -> ResumedBatch:
        """Read the record. Nothing is written yet.

        A retry and a resumed attempt use the folder of the attempt before them, and save what is on record there.

        :param table: of this attempt, or its error.
        :param is_resumed: whether this is the same attempt after a deferral.
        :param conn_id: the Airflow connection.
        :param kept_in: the folder of this attempt before its deferral.
        :raises RequestInvalid: the table's, if there is no record of which a retry could save pictures.
        :raises StorageFailed: if the record cannot be read, or does not exist for this worker.
        :raises SubmitOutcomeUnknown: if the record has an unknown format.
        """
        stored = self._store.get(KEY) if self._store else None
        folder, warning = self.folder.path, None
        known = Header.from_dict(stored)
        if kept_in is not None:
            self.folder = Folder(kept_in)
        elif known is not None and known.folder != folder:
            if self._start(known, is_resumed=is_resumed) in (StartKind.RESUMED, StartKind.RETRY):
                self.folder = Folder(known.folder)
            else:
                warning = (
                    f"The task was cleared, and its folder is now {folder}. It was {known.folder}: pictures that "
                    "are paid for and not saved are on record there."
                )
        self._last_header = self.folder.record(HEADER).read()
        existing = _header_in(self._last_header and self._last_header.data)
        check_shared(stored, existing, self.folder.path)
        if known is not None:
            self._stored = (known.folder, known.tries, known.generation)
        found = None if existing is None else Header.from_dict(existing)
        start = None if found is None else self._start(found, is_resumed=is_resumed)
        if isinstance(table, PictoryError) and start not in (StartKind.RESUMED, StartKind.RETRY):
            raise table
        resumed = open_batch(
            existing,
            self._pages(existing),
            CheckedTable([]) if isinstance(table, PictoryError) else table,
            folder=folder,
            made_by=self.made_by.to_dict(),
            max_tries=self.max_tries,
            retries=self.retries,
            is_resumed=is_resumed,
            conn_id=conn_id,
            is_free=lambda name: not self.folder.existing([name]),
            token=uuid4().hex,
        )
        self._is_taken_over = is_resumed
        if isinstance(table, PictoryError):
            error = table.with_money("Nothing more was sent, and what is paid for is saved.")
            resumed = replace(resumed, error=error)
        return replace(resumed, warning=resumed.warning or warning)

    def existing(
        self,
        resumed: ResumedBatch,
        *,
        is_marking: bool,
        copies: Callable[[str], Sequence[str]] = lambda _: (),
    ) -> dict[str, ExistingImage]:
        """Return what exists at the file names of a batch's rows; a name without anything is left out.

        In object storage, a sidecar that is on record and has not changed is not read. A picture that is on record
        and not in the listing, with its sidecar, is looked for directly, since a listing may be outdated.

        :param is_marking: whether pictures are to be marked, for which the whole sidecar is needed.
        :param copies: returns the names of a picture's copies by its own.
        """
        journal, keys = resumed.journal, {row.file_name: row.key for row in resumed.rows}

        def known(name: str) -> tuple[Sidecar, str] | None:
            entry = journal.get(keys[name])
            if entry is None or entry.file_name != name or entry.sidecar_version is None:
                return None
            sidecar = entry.sidecar(journal.header.made_by)
            if sidecar is None or (is_marking and sidecar.saved and sidecar.saved.may_lack_mark):
                return None
            return sidecar, entry.sidecar_version

        self._known = known
        existing = self.folder.existing(keys, known, copies=copies)
        saved = (entry.file_name for entry in journal if entry.state == SAVED and entry.file_name in keys)
        unseen = [name for name in saved if name not in existing or not existing[name].has_its_picture]
        seen = self.folder.look(unseen)
        listed_copies = {name: existing[name].copies for name in seen if name in existing}
        return existing | {
            name: each._replace(copies=listed_copies.get(name, each.copies)) for name, each in seen.items()
        }

    def check_replaceable(self, refused: Mapping[str, str]) -> None:
        """Check that existing pictures can be replaced, before others are bought for their names.

        :param refused: of :meth:`~pictory_provider.storage.folder.Folder.refused`.
        :raises RequestInvalid: says which cannot be, and why.
        """
        if refused:
            what = [f"{name!r} {problem}" for name, problem in refused.items()]
            raise RequestInvalid.unsent(
                f"{counted(len(what), 'picture')} in {self.folder.path} cannot be replaced: {listed(what, 3)}",
                "Correct that, or give these rows other names, and clear the task.",
                fields=["path"],
            )

    def check_unchanged(self, names: Iterable[str], seen: Mapping[str, ExistingImage]) -> None:
        """Check that nobody has begun to use these file names, after the header was written.

        A single task writes its intent into a sidecar and then looks for the header; this looks for sidecars after
        the header was written. So at least one of two that begin at the same moment sees the other. If both do,
        the task takes its intent back, and the batch waits for that.

        :param names: of the pictures that are to be bought.
        :param seen: what existed there before the header was written.
        :raises StorageFailed: if it is something else now.
        """
        wanted = dict.fromkeys(names)
        for pause in (*TIMING.second_looks, None):
            found = self.folder.existing(wanted, self._known)
            taken = taken_meanwhile(wanted, seen, found, folder=self.folder.path)
            if taken is None:
                return
            if pause is None or not taken.may_be_left:
                raise taken.error
            time.sleep(pause)

    def finish_redos(self, seen: Mapping[str, ExistingImage]) -> None:
        """Remove pictures that were moved, as :meth:`PictureTarget.finish_redo`, before others are bought.

        :param seen: what exists at the file names of the pictures that are to be bought.
        """
        for name, existing in seen.items():
            if existing.is_to_redo and existing.size is not None:
                target = self.folder.target(name)
                if left := target.inspect().sidecar:
                    target.finish_redo(left)

    def _start(self, header: Header, *, is_resumed: bool) -> StartKind:
        return start_of(
            header,
            made_by=self.made_by.to_dict(),
            max_tries=self.max_tries,
            retries=self.retries,
            is_resumed=is_resumed,
        )

    def check_ownership(self, header: Header) -> None:
        """Check that no other attempt has the batch now: a worker that lost its heartbeat may still be running.

        :raises StorageFailed: if another attempt or another task has taken it over.
        """
        if not is_held(_header_in(self._read_header()), header):
            raise StorageFailed(
                f"Another attempt has taken over the batch in {self.folder.path} in the meantime. This attempt "
                "buys nothing more."
            )

    def is_ours(self, journal: Journal) -> bool:
        """Whether this attempt has the batch, and no other has taken it over; ``False`` if that cannot be read."""
        try:
            return self._is_taken_over and is_held(_header_in(self._read_header()), journal.header)
        except StorageFailed:
            return False

    def is_in_use(self) -> bool:
        """Whether another task may be using the folder; ``True`` if that cannot be read."""
        try:
            existing = _header_in(self._read_header())
        except StorageFailed:
            return True
        header = None if existing is None else Header.from_dict(existing)
        return header is not None and header.made_by != self.made_by.to_dict() and not header.has_ended

    def is_due(self, journal: Journal) -> bool:
        """Whether to write changes now that a later attempt could also find out again by itself."""
        return journal.is_changed and time.monotonic() - self._written_at >= TIMING.progress_interval

    def write(self, journal: Journal, *, patience: Sequence[float] = ()) -> None:
        """Write all changes. If this fails, the next call writes them.

        :param patience: seconds before each further attempt to write what must not be lost. For these writes some
            disk space is reserved.
        :raises StorageFailed: if it cannot be written, or another attempt has taken the batch over.
        """
        self._to_write += journal.writes()
        self._written_at = time.monotonic()
        for pause in (*patience, None):
            try:
                if self._to_write and self._is_taken_over:
                    self.check_ownership(journal.header)
                self._write_all()
                self._is_taken_over = True
                if not patience:
                    self.folder.reserve_disk_space()
                break
            except StorageFailed:
                if patience:
                    self.folder.release_disk_space()
                if pause is None:
                    raise
                time.sleep(pause)
        self._store_header(journal.header)

    def end(self, journal: Journal) -> None:
        """Record that this attempt has ended for good, so that another run may use the folder."""
        journal.set_header(has_ended=True)
        self.write(journal)
        self.folder.release_disk_space()

    def _write_all(self) -> None:
        while self._to_write:
            name, value = self._to_write[0]
            content = (json.dumps(value, separators=(",", ":")) + "\n").encode()
            target = self.folder.record(name)
            if self._is_taken_over or name != HEADER:
                target.write(content)
            else:
                self._take_over(target, content)
            self._to_write.pop(0)

    def _take_over(self, header: Target, content: bytes) -> None:
        """Write the header for the first time. It replaces only the one that this attempt has read."""
        try:
            if self._last_header is None:
                self._last_header = header.announce(content)
            else:
                self._last_header = header.swap(self._last_header, content)
        except Changed:
            raise StorageFailed(
                f"Another attempt or another task has just taken over the batch in {self.folder.path}. This "
                "one sent nothing, and nothing was spent. Give each task, run and map index its own folder."
            ) from None

    def _store_header(self, header: Header) -> None:
        """Write the header to the state store too, after it was written to the folder."""
        now = (self.folder.path, header.tries, header.generation)
        if self._store and self._stored != now:
            self._store.set(KEY, header.to_dict())
            self._stored = now

    def _read_header(self) -> bytes | None:
        return self.folder.read([HEADER]).get(HEADER)

    def _pages(self, existing: Any) -> dict[int, Any]:
        """Return the pages of the header's generation; all pages, without content, if it cannot be read."""
        header = None if existing is None else Header.from_dict(existing)
        named = {}
        for name in self.folder.names(RECORD_FOLDER):
            match = _PAGE.fullmatch(name)
            if match and (header is None or int(match[1]) == header.generation):
                named[f"{RECORD_FOLDER}/{name}"] = int(match[2])
        if header is None:
            return dict.fromkeys(named.values())
        # A listing of an object storage may be outdated.
        named |= {page_name(header.generation, page): page for page in header.begun}
        return {named[name]: _json(content) for name, content in self.folder.read(named).items()}


def _header_in(content: bytes | None) -> Any:
    return None if content is None else _json(content, otherwise={})


def _json(content: bytes, otherwise: Any = None) -> Any:
    with suppress(ValueError):
        return parse_json(content)
    return otherwise
