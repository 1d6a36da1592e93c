# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The record of a batch: read and written. What it says is in :mod:`pictory_provider.batch.journal`.

It lies in the folder, and its header in the task's state store too, where there is one (Airflow 3.3 and later): so
a worker that does not see the folder as it was left knows that there is something to be seen.
"""

from __future__ import annotations

import json
import re
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pictory_provider.api.errors import PictoryError, RequestInvalid, StorageFailed
from pictory_provider.api.timing import TIMING
from pictory_provider.batch.entries import Header
from pictory_provider.batch.journal import HEADER, page_name
from pictory_provider.batch.names import RECORD_FOLDER
from pictory_provider.batch.opening import Start, check_shared, is_held, open_batch, start_of
from pictory_provider.batch.rows import NOTHING_SPENT
from pictory_provider.batching.folder import Folder
from pictory_provider.compat import task_state_store
from pictory_provider.images.sidecar import MadeBy
from pictory_provider.images.store import not_replaceable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context

    from pictory_provider.batch.journal import Journal, Write
    from pictory_provider.batch.opening import Opening
    from pictory_provider.batch.rows import Row
    from pictory_provider.images.store import Target

KEY = "pictory_batch"
"""The key of the header in the state store of a task."""
_PAGE = re.compile(r"(\d+)-(\d{5,})\.json")


class BatchRecord:
    """The record of one batch.

    :param retries: of the task.
    :ivar folder: where it lies.
    :ivar me: the task instance whose batch it is.
    """

    def __init__(self, folder: Folder, context: Context, *, retries: int | None) -> None:
        self.folder = folder
        self._store = task_state_store(context)
        self._ti: Any = context["ti"]
        self._retries = retries
        self._left: list[Write] = []
        self._stored: tuple[str, int, int] | None = None
        self._seen: bytes | None = None
        self._is_taken_up = False
        self._written_at = time.monotonic()
        self.me = MadeBy.of(self._ti)

    @property
    def max_tries(self) -> int:
        """Airflow's ``ti.max_tries``."""
        return int(self._ti.max_tries)

    @property
    def retries(self) -> int | None:
        """The ``retries`` of the task."""
        return self._retries

    @property
    def is_last_try(self) -> bool:
        """Whether Airflow retries no more after this try."""
        return bool(self._ti.try_number > self._ti.max_tries)

    def open(
        self,
        table: Sequence[Row] | RequestInvalid | StorageFailed,
        *,
        is_leg: bool,
        conn_id: str | None = None,
        kept_in: str | None = None,
    ) -> Opening:
        """Take up what is on record. Nothing is written yet.

        A retry, and a leg, keep to the folder that the try before them had, and save what is on record there.

        :param table: of this try; or what is wrong with it.
        :param is_leg: whether this is the same try after a deferral.
        :param conn_id: of the Airflow connection.
        :param kept_in: the folder of this try before its deferral.
        :raises RequestInvalid: the table's, where nothing is on record that a retry could save.
        :raises StorageFailed: where it cannot be read, or where this worker does not see it.
        :raises SubmitOutcomeUnknown: where it is none that can be read.
        """
        stored = self._store.get(KEY) if self._store else None
        asked_for, warning = self.folder.path, None
        known = Header.read(stored)
        if kept_in is not None:
            self.folder = Folder(kept_in)
        elif known is not None and known.folder != asked_for:
            if self._start(known, is_leg=is_leg) in (Start.LEG, Start.RETRY):
                self.folder = Folder(known.folder)
            else:
                warning = (
                    f"The task was cleared, and its folder is {asked_for} now. It was {known.folder}: what was "
                    "paid for and is not saved is on record there."
                )
        self._seen = self._content()
        lying = _header_in(self._seen)
        check_shared(stored, lying, self.folder.path)
        if known is not None:
            self._stored = (known.folder, known.tries, known.generation)
        found = None if lying is None else Header.read(lying)
        start = None if found is None else self._start(found, is_leg=is_leg)
        if isinstance(table, PictoryError) and start not in (Start.LEG, Start.RETRY):
            raise table
        opening = open_batch(
            lying,
            self._pages(lying),
            [] if isinstance(table, PictoryError) else table,
            folder=asked_for,
            made_by=self.me.plain(),
            max_tries=self.max_tries,
            retries=self._retries,
            is_leg=is_leg,
            conn_id=conn_id,
            is_free=lambda name: not self.folder.found([name])[0],
        )
        self._is_taken_up = is_leg
        if isinstance(table, PictoryError):
            told = table.message.replace(NOTHING_SPENT, "Nothing more was sent, and what is paid for is saved.")
            error = RequestInvalid(told, fields=table.fields) if isinstance(table, RequestInvalid) else None
            opening = replace(opening, error=error or StorageFailed(told))
        return replace(opening, warning=opening.warning or warning)

    def _start(self, header: Header, *, is_leg: bool) -> Start:
        return start_of(
            header,
            made_by=self.me.plain(),
            max_tries=self.max_tries,
            retries=self._retries,
            is_leg=is_leg,
        )

    def check_held(self, header: Header) -> None:
        """See that the record is still this try's: whoever was away for long may have been given up meanwhile.

        :raises StorageFailed: where another try, or another task, has taken the batch up.
        """
        if not is_held(self._header(), header):
            raise StorageFailed(
                f"Another try has taken up the batch in {self.folder.path} while this one was away. Nothing more "
                "is bought by this one."
            )

    def is_due(self, journal: Journal) -> bool:
        """Whether what can be found out again has waited for long enough to be written."""
        return journal.is_changed and time.monotonic() - self._written_at >= TIMING.progress_interval

    def write(self, journal: Journal, *, patience: Sequence[float] = ()) -> None:
        """Write whatever has changed. What could not be written is written by the next call.

        :param patience: seconds before each further attempt to write what must not be lost, for which some room is
            held.
        :raises StorageFailed: where it cannot be written, or is another try's by now.
        """
        self._left += journal.writes()
        self._written_at = time.monotonic()
        for pause in (*patience, None):
            try:
                if self._left and self._is_taken_up:
                    self.check_held(journal.header)
                self._write_all()
                self._is_taken_up = True
                if not patience:
                    self.folder.hold_room()
                break
            except StorageFailed:
                if patience:
                    self.folder.give_room()
                if pause is None:
                    raise
                time.sleep(pause)
        self._store_header(journal.header)

    def end(self, journal: Journal) -> None:
        """Note that this try has ended for good, so that another run may take the folder."""
        journal.set_header(has_ended=True)
        self.write(journal)
        self.folder.give_room()

    def _write_all(self) -> None:
        while self._left:
            name, value = self._left[0]
            content = (json.dumps(value, separators=(",", ":")) + "\n").encode()
            target = self.folder.record(name)
            if self._is_taken_up or name != HEADER:
                target.write(content)
            elif not target.swap(self._seen, content):
                # Whoever opens a batch takes it up by this write, and only in place of what it has seen.
                raise StorageFailed(
                    f"Another try, or another task, has just taken up the batch in {self.folder.path}. Nothing "
                    "was sent by this one, and nothing was spent. Give each task, run and map index a folder of "
                    "its own."
                )
            else:
                if self._seen is None:
                    self._check_replaceable(target, content)
                self._seen = content
            self._left.pop(0)

    def _check_replaceable(self, header: Target, content: bytes) -> None:
        """See that the header can be replaced, before any row is on record as about to be bought.

        An account of an object storage may be allowed to create objects and not to replace them.
        """
        if header.local:
            return
        try:
            header.write(content)
        except StorageFailed as error:
            raise not_replaceable(header.path, error) from error.__cause__

    def _store_header(self, header: Header) -> None:
        """Let the state store know of the batch, once it lies in the folder. It says no more than the folder."""
        now = (self.folder.path, header.tries, header.generation)
        if self._store and self._stored != now:
            self._store.set(KEY, header.plain())
            self._stored = now

    def _content(self) -> bytes | None:
        return self.folder.read([HEADER]).get(HEADER)

    def _header(self) -> Any:
        return _header_in(self._content())

    def _pages(self, lying: Any) -> dict[int, Any]:
        """Return the pages of the header's generation; whatever pages there are where it cannot be read."""
        header = None if lying is None else Header.read(lying)
        named = {}
        for name in self.folder.names(RECORD_FOLDER):
            match = _PAGE.fullmatch(name)
            if match and (header is None or int(match[1]) == header.generation):
                named[f"{RECORD_FOLDER}/{name}"] = int(match[2])
        if header is None:
            return dict.fromkeys(named.values())
        # A listing may be late.
        named |= {page_name(header.generation, page): page for page in header.begun}
        return {named[name]: _json(content) for name, content in self.folder.read(named).items()}


def _header_in(content: bytes | None) -> Any:
    return None if content is None else _json(content, otherwise={})


def _json(content: bytes, otherwise: Any = None) -> Any:
    with suppress(ValueError):
        return json.loads(content)
    return otherwise
