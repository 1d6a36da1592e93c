# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Read and write the record of a submission, which survives a crash and a retry.

The record is stored in up to two places: in Airflow's task state store (3.3 and later, AIP-103), and, for a task
that saves its picture, in the sidecar next to it, on every Airflow. Other runs read the sidecar too. XComs are not
suitable, because Airflow deletes a task's XComs at the start of every retry.
:mod:`pictory_provider.core.submission` decides what follows from a record, and :mod:`pictory_provider.core.resume`
what follows from a sidecar.

An intent must be written to every place before anything is sent. A jobId counts as recorded as soon as one place
has it.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from pictory_provider.api.decoding import parse_json
from pictory_provider.api.errors import NOTHING_SPENT, StorageFailed, Unavailable
from pictory_provider.core.attempt import MadeBy
from pictory_provider.core.batch.file_names import HEADER
from pictory_provider.core.batch.resume import beside_batch
from pictory_provider.core.evidence import how_to_adopt, how_to_wait
from pictory_provider.core.ledger import total
from pictory_provider.core.picture_names import SIDECAR_SUFFIX
from pictory_provider.core.resume import latest
from pictory_provider.core.sidecar import Sidecar
from pictory_provider.core.submission import Submission, charge_fields, key_of
from pictory_provider.provider_info import DEFAULT_CONN_ID
from pictory_provider.services.uploads import FolderCache, StoreCache
from pictory_provider.version_compat import loop_index, task_state_store

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.providers.common.compat.sdk import Context

    from pictory_provider.core.ledger import Charge
    from pictory_provider.core.resume import ExistingImage
    from pictory_provider.storage.pictures import PictureTarget

JOB_ID_KEY = "jobId"
"""The key of the XCom with the jobId, pushed as soon as the jobId is recorded."""

log = logging.getLogger(__name__)


class _Backend(Protocol):
    """One place of the record. It can restore what an intent has replaced."""

    def write(self, submission: Submission, *, is_intent: bool = False) -> bool: ...
    def restore(self) -> None: ...


class _TaskStateBackend:
    """The task state store."""

    def __init__(self, store: Any, key: str) -> None:
        self.store = store
        self._key = key
        self.last_value: Any = None
        self._replaced: Any = None

    def read(self) -> Any:
        self.last_value = self.store.get(self._key)
        return self.last_value

    def write(self, submission: Submission, *, is_intent: bool = False) -> bool:
        if is_intent:
            self._replaced = self.last_value
        value = submission.to_dict()
        self.store.set(self._key, value)
        self.last_value = value
        return True

    def restore(self) -> None:
        if self._replaced is None:
            self.store.delete(self._key)
        else:
            self.store.set(self._key, self._replaced)
        self.last_value = self._replaced


class _SidecarBackend:
    """The sidecar of a picture."""

    def __init__(self, target: PictureTarget, made_by: MadeBy, *, has_only_sidecar: bool) -> None:
        self.target = target
        self._made_by = made_by
        self._has_only_sidecar = has_only_sidecar
        self.last_sidecar: Sidecar | None = None
        """The sidecar as it was last read, of any task."""
        self._has_written = False
        self._replaced: bytes | None = None
        self.replaces: Sidecar | None = None

    def inspect(self) -> ExistingImage:
        existing = self.target.inspect()
        self.last_sidecar = existing.sidecar
        return existing

    def own(self) -> Sidecar | None:
        """Return the sidecar as it was last read, if it is of this task."""
        sidecar = self.last_sidecar
        return sidecar if sidecar and sidecar.made_by == self._made_by else None

    def of(self, submission: Submission) -> Sidecar:
        last = self.last_sidecar
        return Sidecar(
            file=self.target.name,
            submission=submission,
            made_by=self._made_by,
            keeps_spending=self._has_only_sidecar,
            replaces=self.replaces or (last.replaces if last else None),
            redone=last.redone if last else (),
        )

    def write(self, submission: Submission, *, is_intent: bool = False) -> bool:
        if is_intent:
            if self.last_sidecar:
                self.target.finish_redo(self.last_sidecar)
            self._replaced = self.target.last_sidecar
        elif not self._has_written and self.last_sidecar and self._is_of_another_job(submission):
            return False
        write = self.target.announce if is_intent else self.target.write_sidecar
        if not write(self.of(submission)):
            if not is_intent:
                return False  # another task has written its sidecar
            raise Unavailable(
                f"Another task has just begun to buy a picture for {self.target.path!r}. This task sent nothing, "
                "and nothing was spent. A retry uses that picture when it is saved."
            )
        self._has_written = True
        if is_intent:
            self._check_batch()
        return True

    def _check_batch(self) -> None:
        """Check that no batch has begun to buy pictures for the same folder, after the intent was written.

        A batch looks for sidecars after it has written its header
        (:meth:`pictory_provider.services.batch.state.BatchRecord.check_unchanged`).

        :raises Unavailable: if one has, or its header cannot be read.
        """
        record = self.target.beside(HEADER)
        found = record.read()
        if found is None:
            return
        header = None
        with suppress(ValueError):
            header = parse_json(found.data)
        if error := beside_batch(header, path=self.target.path, record=record.path):
            raise error

    def _is_of_another_job(self, submission: Submission) -> bool:
        own = self.own()
        return own is None or (own.saved is not None and own.submission.job_id != submission.job_id)

    def restore(self) -> None:
        # Read it again: the intent may have been written although the write failed, and another task's sidecar
        # must not be replaced.
        self.inspect()
        own = self.own()
        if own and own.submission.job_id is None:
            self.target.restore_sidecar(self._replaced)
        self._has_written = False


class SubmissionState:
    """The record of one task instance's submission.

    :param candidate: the number of the picture among the candidates of its task; ``None`` if there is only one.
    :param durable: whether to use the task state store. Without it, and on an Airflow without a store, only the
        sidecar is a record, and a task without a path has none.
    :ivar retries: of the task.
    :ivar upload_cache: the place of the URLs of uploaded reference images.
    :ivar latest: the last record of this task that was read or written.
    :ivar read_error: the error if :meth:`is_on_record` or :meth:`find_job_id` could not read the record.
    """

    def __init__(
        self, context: Context, *, durable: bool, retries: int | None = None, candidate: int | None = None
    ) -> None:
        store = task_state_store(context) if durable else None
        self._store = None if store is None else _TaskStateBackend(store, key_of(candidate))
        self._candidate = candidate
        self.upload_cache: FolderCache | StoreCache | None = None if store is None else StoreCache(store)
        self._sidecar: _SidecarBackend | None = None
        self._ti: Any = context["ti"]
        self._loop_index = loop_index(context)
        self.retries = retries
        self.latest = Submission()
        self.read_error: Exception | None = None
        self._recorded: str | None = None

    def use_sidecar(self, target: PictureTarget) -> None:
        """Write the record to the sidecar of a picture, too."""
        self._sidecar = _SidecarBackend(target, self.made_by, has_only_sidecar=not self.has_store)
        self.upload_cache = FolderCache(target.beside)

    @property
    def is_possible(self) -> bool:
        """Whether there is a place for the record."""
        return bool(self._backends)

    @property
    def has_store(self) -> bool:
        """Whether the record is in a task state store."""
        return self._store is not None

    @property
    def was_cleared(self) -> bool:
        """Whether a user has cleared the task since :attr:`latest` was written."""
        return self.latest.is_before_a_clear(max_tries=self.max_tries, retries=self.retries)

    @property
    def max_tries(self) -> int:
        """Airflow's ``ti.max_tries``: a retry does not change it, and a user's clear does."""
        return int(self._ti.max_tries)

    @property
    def made_by(self) -> MadeBy:
        """The task instance whose record it is."""
        return MadeBy.from_task_instance(self._ti)

    def sidecar(self, job_id: str) -> Sidecar:
        """Return the sidecar for :attr:`latest` with this jobId."""
        assert self._sidecar is not None
        return self._sidecar.of(replace(self.latest, job_id=job_id))

    def how_to_adopt(self, conn_id: str) -> str:
        """Say how a user adopts a job that this task submitted and whose jobId was not recorded.

        :param conn_id: of the connection that buys.
        """
        made_by = self.made_by
        if not self.is_possible:
            return how_to_wait()
        return how_to_adopt(
            dag_id=str(made_by.dag_id),
            run_id=str(made_by.run_id),
            task_id=str(made_by.task_id),
            map_index=made_by.map_index if made_by.map_index >= 0 else None,
            loop_index=self._loop_index,
            candidate=self._candidate,
            conn_id=None if conn_id == DEFAULT_CONN_ID else conn_id,
            has_store=self.has_store,
            sidecar=self._sidecar.target.path + SIDECAR_SUFFIX if self._sidecar else None,
        )

    def read_store(self) -> Any:
        """Return the record in the task state store, as JSON; ``None`` for no record."""
        value = self._store.read() if self._store else None
        self.latest = Submission.from_dict(value) or Submission()
        return value

    def existing_image(self) -> ExistingImage:
        """Return what exists at the picture's path, and update :attr:`latest` from its sidecar.

        :raises StorageFailed: if it cannot be read.
        """
        assert self._sidecar is not None
        existing = self._sidecar.inspect()
        value = latest(self._store.last_value if self._store else None, self._sidecar.own())
        self.latest = Submission.from_dict(value) or Submission()
        if existing.sidecar and existing.sidecar.overrides(self.latest.job_id):
            self.latest = replace(self.latest, job_id=None)
        return existing

    def prepare_intent(
        self, fingerprint: str | None, request: dict[str, Any], *, replaces: Sidecar | None = None
    ) -> None:
        """Set :attr:`latest` to a submission that is not sent yet. It carries over what the task has spent.

        :param replaces: the sidecar of the picture of another request that its picture is to replace.
        """
        if self._sidecar:
            self._sidecar.replaces = replaces
        left = self.latest
        self.latest = Submission(
            earlier=left.purchases,
            before_clear=total(left.purchases) if self.was_cleared else left.before_clear,
            fingerprint=fingerprint,
            request=request,
            max_tries=self.max_tries,
            retries=self.retries,
            path=self._sidecar.target.path if self._sidecar else None,
        )

    def note_credits(self, used: float | None) -> None:
        """Add to :attr:`latest` how many credits were used right before the request."""
        self.latest = replace(self.latest, credits_before=used)

    def intend(self, purchase: Charge) -> None:
        """Write the intent to every place.

        :raises StorageFailed: if one cannot be written; then nothing may be sent.
        """
        self.latest = replace(self.latest, **charge_fields(purchase))
        begun: list[_Backend] = []
        try:
            for backend in self._backends:
                begun.append(backend)
                backend.write(self.latest, is_intent=True)
        except BaseException as error:
            # The write may have succeeded although it raised an error, and nothing will be sent.
            with suppress(Exception):
                _restore(begun)
            if isinstance(error, StorageFailed):
                raise StorageFailed(f"{error.message} {NOTHING_SPENT}") from error
            raise

    def withdraw(self) -> None:
        """Restore what the intent replaced, because the request certainly bought nothing.

        That may be an earlier intent whose outcome is unknown.
        """
        _restore(self._backends)

    def keep(self, job_id: str, submitted_at: float | None = None) -> None:
        """Record the jobId.

        :param submitted_at: epoch seconds; ``None`` for now.
        :raises Exception: if no place took it.
        """
        at = time.time() if submitted_at is None else submitted_at
        self.latest = replace(self.latest, job_id=job_id, submitted_at=at)
        failed: Exception | None = None
        for backend in reversed(self._backends):  # the faster one first
            try:
                if backend.write(self.latest):
                    self._recorded = job_id
            except Exception as error:
                failed = error
        if failed is None:
            return
        if self._recorded != job_id:
            raise failed
        log.warning("Job %s is on record, but could not be written to its second place: %r", job_id, failed)

    def end(self) -> None:
        """Record that this attempt has ended for good, so that a clear can be distinguished from a retry.

        This is needed only if a retry is left: otherwise a clear always changes ``ti.max_tries``. If it cannot be
        written, nothing is lost: the attempt after a clear then adopts the job, as a retry does.
        """
        if self._store is None:
            return
        with suppress(Exception):
            if self._ti.try_number <= self._ti.max_tries:
                found = Submission.from_dict(self._store.read())
                if found is not None and found.max_tries == self._ti.max_tries and not found.is_from_user:
                    self._store.write(replace(found, has_ended=True))

    def is_on_record(self, job_id: str) -> bool | None:
        """Whether a retry of this task would find this job; ``None`` if the record cannot be read now.

        A place that cannot be read never counts as empty. A retry that cannot read it buys nothing.
        """
        if self._recorded == job_id:
            return self.is_possible
        self._read_all()
        sidecar = self._sidecar.last_sidecar if self._sidecar else None
        if job_id in (self.latest.job_id, sidecar.submission.job_id if sidecar else None):
            return True
        return None if self.read_error else False

    def find_job_id(self) -> tuple[str | None, Exception | None]:
        """Return the jobId that this attempt submitted, from the record or else from the XCom that it pushed.

        :return: the jobId, and the error if the XCom could not be read.
        """
        self._read_all()
        if self.latest.job_id:
            return self.latest.job_id, None
        ti = self._ti
        try:
            job_id = ti.xcom_pull(task_ids=ti.task_id, key=JOB_ID_KEY, map_indexes=ti.map_index)
        except Exception as error:
            return None, error
        return (job_id if isinstance(job_id, str) else None), None

    def _read_all(self) -> None:
        """Read every place again; :attr:`read_error` is the error if one of them cannot be read."""
        self.latest, self.read_error = Submission(), None
        reads: list[Callable[[], Any]] = [self.read_store]
        if self._sidecar:
            self._sidecar.last_sidecar = None
            reads.append(self.existing_image)
        for read in reads:
            try:
                read()
            except Exception as error:
                self.read_error = error

    @property
    def _backends(self) -> list[_Backend]:
        """The places of the record, in the order in which an intent is written."""
        return [backend for backend in (self._sidecar, self._store) if backend is not None]


def publish(ti: Any, job_ids: str | list[str | None], *, as_result: bool) -> None:
    """Push one jobId, or those of several candidates, to XCom.

    :param as_result: also as the task's result, which a later task pulls by default.
    """
    ti.xcom_push(key=JOB_ID_KEY, value=job_ids)
    if as_result:
        ti.xcom_push(key="return_value", value=job_ids)


def _restore(backends: list[_Backend]) -> None:
    for backend in reversed(backends):
        backend.restore()
