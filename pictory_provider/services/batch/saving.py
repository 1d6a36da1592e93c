# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Save the pictures of a batch's rows; mark those that were saved without a mark, and make missing copies."""

from __future__ import annotations

from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pictory_provider.api.errors import ImageInvalid, PictoryError, StorageFailed
from pictory_provider.api.text import counted
from pictory_provider.core.batch.decision import RowImage, replaced
from pictory_provider.core.sidecar import REDO, SAVED, Sidecar
from pictory_provider.core.submission import Submission, canonicalize, fingerprint, unknown_job
from pictory_provider.media.xmp import says_ai

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pictory_provider.api.models import Job
    from pictory_provider.client.retrying import Log
    from pictory_provider.client.sync import SyncClient
    from pictory_provider.core.batch.plan import PendingJob, Plan
    from pictory_provider.core.batch.rows import Row
    from pictory_provider.services.batch.spec import BatchSpec
    from pictory_provider.services.batch.state import BatchRecord
    from pictory_provider.storage.download import Saved
    from pictory_provider.storage.pictures import PictureTarget

AT_ONCE = 8
"""Pictures that are saved at the same time."""
_TICK = 1.0


class PictureSaver:
    """Saves pictures in its own threads.

    :param taken: file names at which something existed when this attempt began.
    :param quiet: logs what each single picture has to say.
    """

    def __init__(
        self,
        plan: Plan,
        record: BatchRecord,
        spec: BatchSpec,
        *,
        taken: Collection[str],
        log: Log,
        quiet: Log,
    ) -> None:
        self._plan = plan
        self._record = record
        self._folder = record.folder
        self._spec = spec
        self._taken = taken
        self._log = log
        self._quiet = quiet
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="pictory-save")

    def close(self, *, is_patient: bool) -> None:
        """Begin nothing more.

        :param is_patient: wait for the pictures that are being saved.
        """
        self._pool.shutdown(wait=is_patient, cancel_futures=True)

    def begin(self, pending: PendingJob, job: Job, client: SyncClient) -> Future[Saved]:
        """Begin to save the picture of a completed job."""
        # A job that is left over from another table may replace nothing.
        is_left_over = self._plan.journal.is_left_over(pending.row.key)
        return self._pool.submit(
            self._save,
            pending.row.file_name,
            job,
            self._sidecar(pending),
            client,
            overwrite=self._spec.overwrite and not is_left_over,
            # One that is left over keeps its name if no row has that now. Then it replaces what it was bought for.
            replaces_changed=self._spec.replaces_changed and (not is_left_over or self._has_own_name(pending)),
            is_seen=is_left_over or pending.row.file_name in self._taken,
        )

    def picture(self, pending: PendingJob, saved: Saved) -> RowImage:
        """Return a saved picture as the plan keeps it."""
        name = saved.image["path"].removeprefix(self._folder.path + "/")
        file_name = None if name == pending.row.file_name else name
        return RowImage(pending.job_id, saved.file, file_name, saved.sidecar_version)

    def as_error(self, row: Row, error: Exception) -> PictoryError:
        """Return what saving has raised as an error of this package."""
        if isinstance(error, PictoryError):
            return error
        self._log.error("%s, %s: unexpected error", row.label, row.file_name, exc_info=error)
        return StorageFailed(f"Its picture could not be saved: {error!r}")

    def describe_unknown_job(self, row: Row, job_id: str) -> str:
        """Return a sentence, without a full stop, about a job that Pictory does not know. It names its sidecar."""
        message = unknown_job(job_id)
        with suppress(PictoryError):
            target = self._folder.target(row.file_name)
            sidecar = target.inspect().sidecar
            if sidecar and not sidecar.saved and sidecar.submission.job_id == job_id:
                message += (
                    f". The sidecar {target.sidecar_path} names this job: before you clear the task to buy again, "
                    f"{sidecar.how_to_drop(target.path)}"
                )
        return message

    def complete(self, incomplete: Mapping[str, Sidecar], client: SyncClient) -> None:
        """Mark pictures that exist already and may not say that a model made them, and make their missing copies.

        A picture that cannot be marked or copied because it is damaged or cannot be read fails its row, and no
        other.

        :param incomplete: by their names in the folder; those that rows of this batch use are completed.
        """
        pictures = [(row, self._plan.end_of(row).picture) for row in self._plan.rows]
        markable = {name for name, sidecar in incomplete.items() if sidecar.may_lack_mark}
        unmarkable = [
            row.file_name
            for row, picture in pictures
            if picture and not says_ai(picture.file.digital_source_type) and row.file_name not in markable
        ]
        if unmarkable and self._spec.mark_ai_generated:
            self._log.warning(
                "%s without saying that AI made it, and cannot be made to: not a PNG, or one that says something "
                "else of its origin. The first is %s.",
                counted(len(unmarkable), "picture exists", "pictures exist"),
                unmarkable[0],
            )
        todo = deque(row for row, picture in pictures if picture and row.file_name in incomplete)
        running: dict[Future[Saved], Row] = {}
        while todo or running:
            while len(running) < AT_ONCE and todo:
                row = todo.popleft()
                target = self._folder.target(row.file_name, self._spec.save_options)
                running[self._pool.submit(self._complete, target, incomplete[row.file_name], client)] = row
            done, _ = wait(running, timeout=_TICK, return_when=FIRST_COMPLETED)
            for future in done:
                self._after_completion(running.pop(future), future)

    def _complete(self, target: PictureTarget, found: Sidecar, client: SyncClient) -> Saved:
        sidecar = target.inspect().sidecar  # that on record does not have all of it
        if sidecar is None or sidecar.saved is None or sidecar.saved != found.saved:
            raise StorageFailed(f"{target.path} was replaced meanwhile, so it was left as it is.")
        return target.reuse(
            client,
            sidecar,
            overwrite=self._spec.overwrite,
            mark_ai_generated=self._spec.mark_ai_generated,
            log=self._quiet,
        )

    def _after_completion(self, row: Row, future: Future[Saved]) -> None:
        saved, picture = result_of(future), self._plan.end_of(row).picture
        assert picture is not None
        if isinstance(saved, Exception):
            error = self.as_error(row, saved)
            if not (self._spec.mark_ai_generated and picture.file.may_lack_mark):
                self._plan.not_copied[row.key] = row, error
                self._log.error("%s, %s is saved and was not copied: %s", row.label, row.file_name, error.message)
                return
            may_pass = isinstance(error, (ImageInvalid, StorageFailed))
            self._plan.not_marked(row, type(error).__name__, error.message, may_pass=may_pass)
            self._log.error("%s, %s is not marked: %s", row.label, row.file_name, error.message)
            return
        file = saved.file
        if file.ai_credits_used is None:  # a reply about a job that is downloaded again may not repeat its cost
            file = file._replace(ai_credits_used=picture.file.ai_credits_used)
        self._plan.changed(row, picture._replace(file=file, sidecar_version=saved.sidecar_version))
        self.note_problem(row, saved)

    def note_problem(self, row: Row, saved: Saved) -> None:
        """Note that copies of a row's picture could not be made, if so."""
        if error := saved.problem:
            self._plan.not_copied[row.key] = row, error
            self._log.error("%s: %s", row.label, error.message)

    def _save(
        self,
        file_name: str,
        job: Job,
        bought: Sidecar,
        client: SyncClient,
        *,
        overwrite: bool,
        replaces_changed: bool,
        is_seen: bool,
    ) -> Saved:
        """Save the picture of a completed job, in a thread.

        :param bought: the sidecar of its submission.
        :param is_seen: whether something may exist at its path. The folder is not searched for what is left over.
        """
        target = self._folder.target(file_name, self._spec.save_options)
        is_new = not is_seen and not overwrite
        sidecar = None
        if not is_new:
            existing = target.inspect()
            sidecar = existing.sidecar
            is_gone = existing.size is None and sidecar is not None and sidecar.state in (SAVED, REDO)
            is_of_another = sidecar is None or sidecar.submission.job_id != job.job_id
            bought = replace(bought, redone=sidecar.redone if sidecar else ())
            if replaces_changed and is_of_another and not overwrite:
                bought = replace(bought, replaces=replaced(bought.submission.request or {}, existing))
                if bought.replaces and existing.replaced:  # of a job that has come to nothing
                    target.write_sidecar(bought)
            if is_of_another and not existing.problem and (overwrite or is_gone):
                # A sidecar must never describe a picture of another job.
                target.write_sidecar(bought)
        return target.save(
            client,
            job,
            bought,
            overwrite=overwrite,
            mark_ai_generated=self._spec.mark_ai_generated,
            earlier=sidecar.copies if sidecar else (),
            is_new=is_new,
            log=self._quiet,
        )

    def _has_own_name(self, pending: PendingJob) -> bool:
        entry = self._plan.journal.get(pending.row.key)
        return entry is not None and entry.file_name == pending.row.file_name

    def _sidecar(self, pending: PendingJob) -> Sidecar:
        """Return the sidecar of a row's submission."""
        row, record = pending.row, self._record
        entry = self._plan.journal.get(row.key)
        # For a row of an earlier table the record may hold more than a request of this release can.
        request = canonicalize(entry.request if entry else row.canonical_request)
        return Sidecar(
            file=row.file_name.rpartition("/")[2],
            submission=Submission(
                job_id=pending.job_id,
                fingerprint=fingerprint(self._spec.conn_id, request),
                request=request,
                max_tries=record.max_tries,
                retries=record.retries,
                intended_at=entry.intended_at if entry else None,
                submitted_at=pending.submitted_at,
            ),
            made_by=record.made_by,
        )


def result_of(future: Future[Any]) -> Any:
    """Return what a finished future has returned, or the exception that it has raised."""
    error = future.exception()
    return future.result() if error is None else error
