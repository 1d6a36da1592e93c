# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The record of a submission, where it survives a crash and a retry.

There are two places for it. Airflow's task state store (3.3 and later, AIP-103) is the task's own. A task that
saves its picture also has the sidecar beside that, on every Airflow, and other runs see it too. XComs will not do:
Airflow wipes a task's at the start of every retry. What the record says is decided in
:mod:`pictory_provider.jobs.submission`, and for a picture's place in :mod:`pictory_provider.images.reuse`.

An intent has to be in every place before anything is sent. A jobId that one of them has taken is on record.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from pictory_provider.api.errors import StorageFailed, Unavailable
from pictory_provider.compat import loop_index, task_state_store
from pictory_provider.images.reuse import latest
from pictory_provider.images.sidecar import MadeBy, Sidecar
from pictory_provider.jobs.evidence import by_hand, by_sensor
from pictory_provider.jobs.files import SIDECAR_SUFFIX
from pictory_provider.jobs.ledger import total
from pictory_provider.jobs.submission import KEY, Submission
from pictory_provider.provider_info import DEFAULT_CONN_ID

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from pictory_provider.images.reuse import Lying
    from pictory_provider.images.shelf import Shelf
    from pictory_provider.jobs.ledger import Purchase

JOB_ID_KEY = "jobId"
"""The key of the XCom that a jobId lies under as soon as it is on record."""

log = logging.getLogger(__name__)


class _Place(Protocol):
    """One place for a record. It remembers what was there, and what an intent has replaced."""

    def write(self, submission: Submission, *, is_intent: bool = False) -> bool: ...
    def put_back(self) -> None: ...


class _InStore:
    """The task state store."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.there: Any = None
        self._replaced: Any = None

    def look(self) -> Any:
        self.there = self.store.get(KEY)
        return self.there

    def write(self, submission: Submission, *, is_intent: bool = False) -> bool:
        if is_intent:
            self._replaced = self.there
        value = submission.plain()
        self.store.set(KEY, value)
        self.there = value
        return True

    def put_back(self) -> None:
        if self._replaced is None:
            self.store.delete(KEY)
        else:
            self.store.set(KEY, self._replaced)
        self.there = self._replaced


class _BesidePicture:
    """The sidecar at a picture's place."""

    def __init__(self, shelf: Shelf, me: MadeBy, *, is_only_here: bool) -> None:
        self.shelf = shelf
        self._me = me
        self._is_only_here = is_only_here
        self._seen: Lying | None = None
        self._is_ours = False
        self._replaced: bytes | None = None

    def look(self) -> Lying:
        self._seen = self.shelf.look()
        return self._seen

    def own(self) -> Sidecar | None:
        """What was seen last, where it is of this task."""
        sidecar = self._seen.sidecar if self._seen else None
        return sidecar if sidecar and sidecar.made_by == self._me else None

    def of(self, submission: Submission) -> Sidecar:
        return Sidecar(
            file=self.shelf.name, submission=submission, made_by=self._me, keeps_spending=self._is_only_here
        )

    def write(self, submission: Submission, *, is_intent: bool = False) -> bool:
        if is_intent:
            self._replaced = self.shelf.there
        elif not self._is_ours and self._seen and self._seen.sidecar and self._tells_of_another(submission):
            return False
        write = self.shelf.announce if is_intent else self.shelf.note
        if not write(self.of(submission)):
            if not is_intent:
                return False  # another task has taken the place
            raise Unavailable(
                f"Another task has just begun to buy a picture for {self.shelf.path!r}. Nothing was sent by this "
                "one, and nothing was spent. A retry takes that picture when it is there."
            )
        self._is_ours = True
        return True

    def _tells_of_another(self, submission: Submission) -> bool:
        own = self.own()
        return own is None or (own.saved is not None and own.submission.job_id != submission.job_id)

    def put_back(self) -> None:
        # Looked at once more: the intent may have arrived although its writing failed, and what another task has
        # put here meanwhile is not ours to take away.
        self.look()
        own = self.own()
        if own and own.submission.job_id is None:
            self.shelf.put_back(self._replaced)
        self._is_ours = False


class SubmissionRecord:
    """The record of one task instance: one purchase, as far as it got.

    :param durable: whether to keep one in the task state store. Without it, and on an Airflow without a store,
        only what lies beside a picture is kept, and without a picture's place nothing is.
    :ivar retries: of the task.
    :ivar latest: what is on record of this task, as far as it is known.
    """

    def __init__(self, context: Context, *, durable: bool, retries: int | None = None) -> None:
        store = task_state_store(context) if durable else None
        self._store = None if store is None else _InStore(store)
        self._beside: _BesidePicture | None = None
        self._ti: Any = context["ti"]
        self._loop_index = loop_index(context)
        self.retries = retries
        self.latest = Submission()
        self._kept: str | None = None

    def keep_beside(self, shelf: Shelf) -> None:
        """Keep it beside a picture, too."""
        self._beside = _BesidePicture(shelf, self.me, is_only_here=not self.has_store)

    @property
    def is_possible(self) -> bool:
        """Whether there is a place to keep it in."""
        return bool(self._places)

    @property
    def has_store(self) -> bool:
        """Whether it is kept in a task state store."""
        return self._store is not None

    @property
    def max_tries(self) -> int:
        """Airflow's ``ti.max_tries``: a retry leaves it alone, and a user's clear moves it."""
        return int(self._ti.max_tries)

    @property
    def is_mapped(self) -> bool:
        """Whether this is one instance of a mapped task."""
        return self.me.map_index >= 0

    @property
    def me(self) -> MadeBy:
        """The task instance whose record it is."""
        return MadeBy.of(self._ti)

    def sidecar(self, job_id: str) -> Sidecar:
        """Return what the sidecar says of :attr:`latest`, once it has this jobId."""
        assert self._beside is not None
        return self._beside.of(replace(self.latest, job_id=job_id))

    def how_to_adopt(self, conn_id: str) -> str:
        """Say how a user gets at a job that this task submitted and whose jobId was lost.

        :param conn_id: of the connection that buys.
        """
        me = self.me
        if not self.is_possible:
            return by_sensor()
        return by_hand(
            dag_id=str(me.dag_id),
            run_id=str(me.run_id),
            task_id=str(me.task_id),
            map_index=me.map_index if self.is_mapped else None,
            loop_index=self._loop_index,
            conn_id=None if conn_id == DEFAULT_CONN_ID else conn_id,
            has_store=self.has_store,
            sidecar=self._beside.shelf.path + SIDECAR_SUFFIX if self._beside else None,
        )

    def find(self) -> Any:
        """Return what is on record in the task state store, as it gives it; ``None`` for nothing."""
        value = self._store.look() if self._store else None
        self.latest = Submission.read(value) or Submission()
        return value

    def look_beside(self) -> Lying:
        """Return what lies at the picture's place, and take note of what it says of this task.

        :raises StorageFailed: where that cannot be told.
        """
        assert self._beside is not None
        there = self._beside.look()
        value = latest(self._store.there if self._store else None, self._beside.own())
        self.latest = Submission.read(value) or Submission()
        return there

    def prepare_intent(self, fingerprint: str | None, request: dict[str, Any]) -> None:
        """Say what the next intent is for. What was found is left behind."""
        left = self.latest
        is_cleared = left.is_before_a_clear(max_tries=self.max_tries, retries=self.retries)
        self.latest = Submission(
            earlier=left.purchases,
            before_clear=total(left.purchases) if is_cleared else left.before_clear,
            fingerprint=fingerprint,
            request=request,
            max_tries=self.max_tries,
            retries=self.retries,
            path=self._beside.shelf.path if self._beside else None,
        )

    def note_credits(self, used: float | None) -> None:
        """Say how many credits were used right before the request."""
        self.latest = replace(self.latest, credits_before=used)

    def intend(self, purchase: Purchase) -> None:
        """Put the intent on record. Where that fails, nothing may be sent."""
        self.latest = replace(
            self.latest,
            intended_at=purchase.at,
            shown_before=purchase.shown_before,
            used_before=purchase.used_before,
        )
        begun: list[_Place] = []
        try:
            for place in self._places:
                begun.append(place)
                place.write(self.latest, is_intent=True)
        except BaseException as error:
            # It may have arrived all the same, and nothing is going to be sent.
            with suppress(Exception):
                _put_back(begun)
            if isinstance(error, StorageFailed):
                raise StorageFailed(f"{error.message} Nothing was sent and nothing was spent.") from error
            raise

    def withdraw(self) -> None:
        """Take the intent away, and put back what it replaced: the request certainly bought nothing.

        What it replaced may be an earlier intent whose outcome nobody knows.
        """
        _put_back(self._places)

    def keep(self, job_id: str, submitted_at: float | None = None) -> None:
        """Put the jobId on record.

        :param submitted_at: epoch seconds; now, where it is ``None``.
        """
        at = time.time() if submitted_at is None else submitted_at
        self.latest = replace(self.latest, job_id=job_id, submitted_at=at)
        failed: Exception | None = None
        for place in reversed(self._places):  # the quicker one first
            try:
                if place.write(self.latest):
                    self._kept = job_id
            except Exception as error:
                failed = error
        if failed is None:
            return
        if self._kept != job_id:
            raise failed
        log.warning("Job %s is on record, and could not be noted in the second place for it: %r", job_id, failed)

    def end(self) -> None:
        """Note that this try has ended for good, so that a clear can be told from a retry.

        It is needed only where a retry is left: else a clear always moves ``ti.max_tries``. Where it cannot be
        noted nothing is lost: a clear is then taken for a retry, and adopts.
        """
        if self._store is None:
            return
        with suppress(Exception):
            if self._ti.try_number <= self._ti.max_tries:
                found = Submission.read(self._store.look())
                if found is not None and found.max_tries == self._ti.max_tries and not found.is_by_hand:
                    self._store.write(replace(found, has_ended=True))

    def holds(self, job_id: str) -> bool:
        """Whether a retry of this task would find this job; ``False`` where that cannot be told."""
        if self._kept == job_id:
            return self.is_possible
        with suppress(Exception):
            if self.find() is not None and self.latest.job_id == job_id:
                return True
            sidecar = self.look_beside().sidecar if self._beside else None
            return sidecar is not None and sidecar.submission.job_id == job_id
        return False

    def recall(self) -> tuple[str | None, Exception | None]:
        """Return the jobId that this try has bought: from the record, else from the XCom that it pushed.

        :return: with what kept the XCom from being read.
        """
        with suppress(Exception):
            self.find()
        with suppress(Exception):
            if self._beside:
                self.look_beside()
        if self.latest.job_id:
            return self.latest.job_id, None
        ti = self._ti
        try:
            job_id = ti.xcom_pull(task_ids=ti.task_id, key=JOB_ID_KEY, map_indexes=ti.map_index)
        except Exception as error:
            return None, error
        return (job_id if isinstance(job_id, str) else None), None

    @property
    def _places(self) -> list[_Place]:
        """Where it is kept, in the order of an intent: what a worker does not see it must not rely on."""
        return [place for place in (self._beside, self._store) if place is not None]


def _put_back(places: list[_Place]) -> None:
    for place in reversed(places):
        place.put_back()
