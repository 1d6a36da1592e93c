# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Read and write one picture with its sidecar.

:mod:`pictory_provider.core.sidecar` defines what a sidecar contains, and :mod:`pictory_provider.core.resume` what
follows from it. Both files are written in an order that keeps the sidecar true after a crash at any point: it says
``saved`` only after the picture has been moved to its path.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pictory_provider.api.errors import (
    NOTHING_SPENT,
    ImageInvalid,
    PictoryError,
    RequestInvalid,
    StorageFailed,
)
from pictory_provider.api.models import DEFAULT_MAX_BYTES, Job, JobState
from pictory_provider.api.retry import is_transient
from pictory_provider.client.retrying import get_job
from pictory_provider.core.picture_names import (
    SIDECAR_SUFFIX,
    spare_name,
    version_name,
    warning_of_kind,
)
from pictory_provider.core.resume import ExistingImage
from pictory_provider.core.sidecar import REDO, SavedFile, Sidecar, Unreadable
from pictory_provider.storage.copies import CopyFiles, SaveOptions, examined, refused_copy, without_copies
from pictory_provider.storage.files import Changed
from pictory_provider.storage.paths import Occupied, problem_of_picture, refused_path
from pictory_provider.storage.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pictory_provider.client.retrying import Log
    from pictory_provider.client.sync import SyncClient
    from pictory_provider.media.copies import Copy, CopySpec
    from pictory_provider.storage.download import Saved, SavedImage
    from pictory_provider.storage.files import Content
    from pictory_provider.storage.target import Received

_LARGEST_SIDECAR = 1024 * 1024
_TRIES_TO_RECORD = 8


class PictureTarget:
    """A path for a picture, with its sidecar.

    :param path: of the picture, as for :class:`~pictory_provider.storage.target.Target`.
    :raises RequestInvalid: for a path at which no picture can be saved.
    """

    def __init__(self, path: str, options: SaveOptions | None = None) -> None:
        self._options = options or SaveOptions()
        self.target = Target(path, cache_control=self._options.cache_control)
        if (problem := problem_of_picture(self.target.path)) is not None:
            raise refused_path(path, problem)
        self.copies = CopyFiles(self.target.path, cache_control=self._options.cache_control)
        self._sidecar = Target(self.target.path + SIDECAR_SUFFIX)
        self._seen: Content | None = None
        self._written: Sidecar | None = None
        """The sidecar, if this process has written it and not read it since."""

    @property
    def path(self) -> str:
        """The picture's path, as it was given."""
        return self.target.path

    @property
    def uri(self) -> str:
        """The picture's URI, for lineage."""
        return self.target.uri

    @property
    def sidecar_path(self) -> str:
        """The sidecar's path."""
        return self._sidecar.path

    @property
    def last_sidecar(self) -> bytes | None:
        """The sidecar's content as it was last read or written; ``None`` for no sidecar."""
        return None if self._seen is None else self._seen.data

    @property
    def sidecar_version(self) -> str | None:
        """The version of that sidecar in object storage; ``None`` if it is unknown."""
        return None if self._seen is None else self._seen.version

    @property
    def name(self) -> str:
        """The picture's name, without its folder."""
        return self.path.rpartition("/")[2]

    def check(self, *, overwrite: bool, is_replacing: bool = False, is_trying: bool = True) -> str | None:
        """Refuse a path to which no picture or none of its copies could be saved, before one is paid for.

        :param overwrite: whether any existing file is to be replaced.
        :param is_replacing: whether the picture of another request is, and its copies.
        :param is_trying: whether to create a file on a disk, and remove it.
        :return: a warning about the name, if it promises another kind of file.
        :raises RequestInvalid: says why.
        :raises StorageFailed: if nothing can be saved there now.
        """
        from pictory_provider.storage.preflight import refused_pictures

        is_overwriting = overwrite or is_replacing
        copies = self._options.copies
        refused = refused_pictures([self.path], overwrite=is_overwriting, copies=copies, is_trying=is_trying)
        for problem in refused.values():
            raise refused_path(self.path, problem)
        there = ExistingImage(self.path, sidecar=self._last_read(), copies=self.copies.sizes(copies))
        name = there.in_the_way(copies, overwrite=overwrite)
        if name and not self._has_changed():  # by another task, which may have saved its picture and this copy
            raise refused_copy(self.beside(name).path, is_file=there.copies[name] is not None)
        return warning_of_kind([self.name])

    def inspect(self, *, with_picture: bool = True) -> ExistingImage:
        """Return what exists at the path.

        :param with_picture: look for the picture too, not only for its sidecar.
        :raises RequestInvalid: for a folder.
        :raises StorageFailed: if it cannot be read. That is never taken for a missing file.
        """
        self._seen = self._written = None
        size = self.target.size() if with_picture else None
        # On a disk this is free. In object storage the sidecar is read right away, with one request.
        length = self._sidecar.size() if self._sidecar.is_on_disk else None
        if length is None and self._sidecar.is_on_disk:
            return ExistingImage(self.path, size=size)

        def read() -> bytes | None:
            self._seen = self._sidecar.read()
            return self.last_sidecar

        return read_existing(self.target, read, size=size, length=length)

    def write_sidecar(self, sidecar: Sidecar) -> bool:
        """Write the sidecar in one step, if it has not changed since it was last read or written.

        :return: ``False`` if it has changed; then it is left as it is.
        :raises StorageFailed: if it cannot be written.
        """
        if not self._swap(sidecar.to_json(), is_patient=sidecar.submission.job_id is not None):
            return False
        self._written = sidecar
        return True

    def announce(self, sidecar: Sidecar) -> bool:
        """Write the sidecar of an intent, as :meth:`write_sidecar`, and check that it can be replaced.

        It has to be replaced when the picture is bought and when it is saved. An account of an object storage may
        be allowed to create objects but not to replace them. This is found here, before anything is sent.

        :raises RequestInvalid: if it may not be replaced.
        :raises StorageFailed: if it cannot be written.
        """
        if self._seen is not None:
            return self.write_sidecar(sidecar)
        try:
            self._seen = self._sidecar.announce(sidecar.to_json())
        except Changed:
            return False
        self._written = sidecar
        return True

    def beside(self, name: str) -> Target:
        """Return the target of another file in the picture's folder."""
        return Target(f"{self.path.rpartition('/')[0]}/{name}")

    def restore_sidecar(self, before: bytes | None) -> None:
        """Write back an earlier sidecar, if it has not changed since it was last read or written.

        :raises StorageFailed: if it cannot be written.
        """
        self._swap(before)
        self._written = None

    def _swap(self, content: bytes | None, *, is_patient: bool = False) -> bool:
        try:
            self._seen = self._sidecar.swap(self._seen, content, is_patient=is_patient)
        except Changed:
            return False
        return True

    def drop_stale_sidecar(self, job_id: str) -> None:
        """Remove a sidecar that does not describe this job's picture, which is about to replace another one.

        That is the sidecar of another job's saved picture, or one in state ``redo``, whatever its job.

        :raises StorageFailed: if it cannot be removed.
        """
        sidecar = self.inspect().sidecar
        is_of_another = sidecar and sidecar.saved and sidecar.submission.job_id != job_id
        if sidecar and (sidecar.state == REDO or is_of_another):
            self.restore_sidecar(None)

    def keep_version(self, saved: SavedFile) -> str:
        """Copy the picture, its copies and its sidecar, as it was last read, to its first free version.

        A version that is the same already, of a command that was interrupted, is used again. Nothing is replaced.

        :param saved: the picture, as the sidecar describes it.
        :return: the name of the version's picture.
        :raises RequestInvalid: if the picture is not the one that the sidecar describes.
        :raises StorageFailed: if it cannot be read or written.
        """
        sidecar = self.last_sidecar
        assert sidecar is not None
        try:
            with self.target.receive(self.target.pieces(), max_bytes=saved.size) as received:
                if received.sha256 != saved.sha256:
                    raise not_described(self.path)
                versions = (PictureTarget(version_name(self.path, number)) for number in itertools.count(1))
                copies = self.copies.read(saved.copies)
                return next(each.name for each in versions if _is_kept(each, received, sidecar, copies))
        except ImageInvalid as error:
            raise not_described(self.path) from error

    def note_in_versions(self, sidecar: Sidecar) -> None:
        """Note in the sidecar of each earlier version that the jobs after it were moved away.

        If a user moves that version back to its place, the records of these jobs do not count.

        :param sidecar: in state ``redo``.
        :raises StorageFailed: if they cannot be read or written.
        """
        for number in itertools.count(1):
            version = PictureTarget(version_name(self.path, number))
            if version.name == sidecar.moved_to:
                return
            found = version.inspect(with_picture=False).sidecar
            if found is None:
                return
            others = [each for each in sidecar.redone if each != found.submission.job_id]
            redone = tuple(dict.fromkeys((*found.redone, *others)))
            if redone != found.redone:
                version.write_sidecar(replace(found, redone=redone))

    def finish_redo(self, sidecar: Sidecar) -> None:
        """Remove a picture that was moved, if the command that moved it was interrupted before it removed it.

        :param sidecar: of the picture, as it was last read; if it is in another state, this does nothing.
        :raises RequestInvalid: if its version is missing, or either is not the picture that was moved.
        :raises StorageFailed: if it cannot be read or removed.
        """
        saved = sidecar.saved
        if sidecar.moved_to is None or saved is None:
            return
        version = self.beside(sidecar.moved_to.rpartition("/")[2])
        if version.size() != saved.size or version.digest() != saved.sha256:
            raise RequestInvalid(
                f"The sidecar {self.sidecar_path} says that the picture was moved to {version.path}, but it "
                f"is still at {self.path}, and {version.path} is missing or another file. {NOTHING_SPENT} To keep "
                f"the picture, move {version.path}{SIDECAR_SUFFIX} to {self.sidecar_path}. To buy another one, "
                "move the picture away.",
                fields=["path"],
            )
        found, now = self.target.read(), self._sidecar.read()
        if found is None or now is None or now.data != self.last_sidecar:
            return  # another process has removed it, and perhaps bought another one since
        if hashlib.sha256(found.data).hexdigest() != saved.sha256:
            raise not_described(self.path)
        self.copies.remove(saved.copies, CopyFiles(version.path, cache_control=None))
        try:
            self.target.swap(found, None)
        except Changed:
            raise not_described(self.path) from None

    def save(
        self,
        client: SyncClient,
        job: Job,
        purchase: Sidecar,
        *,
        overwrite: bool,
        mark_ai_generated: bool,
        earlier: Sequence[Copy] = (),
        is_new: bool = False,
        log: Log,
    ) -> Saved:
        """Save a finished job's picture and record it in the sidecar; then make its copies.

        If another task has taken over the path meanwhile, both pictures are kept: this one is saved to
        ``<stem>.<jobId>.png``.

        :param purchase: the sidecar of the job's purchase.
        :param earlier: copies of a picture that was at the path before, if no sidecar names them any more.
        :param is_new: whether neither picture nor sidecar existed when the job was bought. Then both are created
            without looking for them first, which saves requests to object storage.
        """
        from pictory_provider.storage.download import save_picture

        if not overwrite and (is_new or _is_of_unsaved(self._written, purchase)):
            saved = self._save_unseen(client, job, purchase, mark_ai_generated=mark_ai_generated, log=log)
            if saved is not None:
                return self.make_copies(saved, mark_ai_generated=mark_ai_generated, log=log)
        existing = self.inspect(with_picture=overwrite or purchase.replaces is not None)
        if not overwrite and not _is_of_unsaved(existing.sidecar, purchase):
            existing = self.inspect()
        spare = PictureTarget(spare_name(self.path, job.job_id), self._options)
        target = self
        is_replacing = purchase.replaces is not None and existing.sidecar == purchase.replaces
        if existing.problem or not (is_replacing or _is_same_purchase(existing.sidecar, purchase)):
            log.warning(
                "%s now belongs to another task: %s. The picture of job %s is saved to %s instead.",
                self.path,
                existing.problem or existing.described,
                job.job_id,
                spare.path,
            )
            target, overwrite = spare, True
        if existing.sidecar and _is_same_job(existing.sidecar, purchase):
            # Another task may have bought it: its sidecar stays.
            purchase = replace(existing.sidecar, keeps_spending=purchase.keeps_spending)
        before = None
        if is_replacing and target is self:
            before = self._before_changing(job, purchase)
        elif overwrite and target is self and existing.sidecar and existing.sidecar.saved:
            before = self._before_replacing(existing.sidecar, existing.sidecar.saved)
        saved = save_picture(
            client,
            job,
            target.target,
            overwrite=overwrite,
            replaces=[purchase.replaces.saved.sha256] if purchase.replaces and purchase.replaces.saved else [],
            max_bytes=DEFAULT_MAX_BYTES,
            mark_ai_generated=mark_ai_generated,
            otherwise=spare.target,
            before=before,
            log=log,
        )
        is_here = saved.image["path"] == self.path
        if not is_here:
            target = spare
            target.inspect()
        else:
            of_sidecar = existing.sidecar.copies if existing.sidecar else ()
            on_record = tuple(dict.fromkeys((*of_sidecar, *purchase.copies, *earlier)))
            saved = saved._replace(file=saved.file._replace(copies=on_record))
        _write_saved(target, replace(purchase, file=target.name, may_be=(), replaces=None, saved=saved.file))
        if not is_here and existing.sidecar and _is_same_purchase(existing.sidecar, purchase):
            self.restore_sidecar(None)  # the file at this path is of a writer without sidecars
        return target.make_copies(
            saved._replace(sidecar_version=target.sidecar_version),
            overwrite=overwrite,
            mark_ai_generated=mark_ai_generated,
            log=log,
        )

    def _save_unseen(
        self, client: SyncClient, job: Job, purchase: Sidecar, *, mark_ai_generated: bool, log: Log
    ) -> Saved | None:
        """Save a picture without looking at its path first; return ``None`` if another task has used it."""
        from pictory_provider.storage.download import save_picture

        try:
            saved = save_picture(
                client,
                job,
                self.target,
                overwrite=False,
                max_bytes=DEFAULT_MAX_BYTES,
                mark_ai_generated=mark_ai_generated,
                is_new=True,
                log=log,
            )
        except Occupied:
            return None
        if not _write_saved(self, replace(purchase, file=self.name, saved=saved.file)):
            if self.target.has_created and not _is_same_purchase(self.inspect().sidecar, purchase):
                self._take_back(saved.file)
            return None
        return saved._replace(sidecar_version=self.sidecar_version)

    def _take_back(self, saved: SavedFile) -> None:
        """Remove the picture that this process has created, since the path is of another task.

        It is saved elsewhere. If it was replaced meanwhile, it is left alone.
        """
        found = self.target.read()
        if found is not None and hashlib.sha256(found.data).hexdigest() == saved.sha256:
            with suppress(Changed):
                self.target.swap(found, None)

    def reuse(
        self,
        client: SyncClient,
        sidecar: Sidecar,
        *,
        overwrite: bool,
        mark_ai_generated: bool,
        log: Log,
    ) -> Saved:
        """Return the image record of the saved picture; mark it if it is to be marked, and make missing copies.

        No request is sent to Pictory, unless the picture has to be marked and is damaged: then it is downloaded
        again.

        :param sidecar: in state ``saved``.
        :param overwrite: let copies replace other files, as when the picture was saved.
        :raises ImageInvalid: for a damaged picture that could not be downloaded now; a retry may succeed.
        :raises RequestInvalid: for a damaged picture that Pictory no longer has.
        :raises StorageFailed: if it cannot be read or written.
        """
        from pictory_provider.storage.download import Saved, image_record

        saved, job_id = sidecar.saved, sidecar.submission.job_id
        assert saved is not None
        if self._is_of_replacement():  # whose job gave no picture
            self.write_sidecar(sidecar)
        if mark_ai_generated and saved.may_lack_mark:
            try:
                saved = self._mark(sidecar, saved, log)
            except ImageInvalid as damaged:
                return self._download_again(client, sidecar, damaged, log)
        elif sidecar.may_be:  # an attempt ended while it replaced the picture
            self.write_sidecar(replace(sidecar, may_be=()))
        job = Job(job_id=job_id or "", status="completed")
        found = Saved(image_record(job, self.path, saved, mark_ai_generated=mark_ai_generated), saved)
        return self.make_copies(found, overwrite=overwrite, mark_ai_generated=mark_ai_generated, log=log)

    def _has_changed(self) -> bool:
        """Whether the sidecar is not the one that was last read or written. Then no intent can be written."""
        now = self._sidecar.read()
        return (now.data if now else None) != self.last_sidecar

    def _last_read(self) -> Sidecar | None:
        """Return the sidecar that was last read or written; ``None`` for no sidecar that can be read."""
        with suppress(Unreadable):
            return Sidecar.from_json(self.last_sidecar or b"")
        return None

    def make_copies(
        self,
        saved: Saved,
        *,
        mark_ai_generated: bool,
        overwrite: bool = False,
        log: Log,
    ) -> Saved:
        """Make the copies of the saved picture that do not exist yet, and record them in its sidecar.

        A file with the name of a copy is replaced if it is on record as a copy. Another file is left as it is,
        unless it is the same as the copy.

        :param saved: the picture, whose sidecar says so.
        :param overwrite: replace other files, too.
        :return: it, with the copies that exist; its ``problem`` says which could not be made, and why.
        """
        from pictory_provider.storage.download import Saved, copy_records

        specs, file = self._options.copies, saved.file
        if not specs:
            return saved
        problems: dict[CopySpec, PictoryError] = {}
        try:
            todo = file.copies_to_make(
                specs, mark_ai_generated=mark_ai_generated, size_of=lambda spec: self.copies.target(spec).size()
            )
            if todo:
                found = self.target.read()
                data = b"" if found is None else found.data
                if hashlib.sha256(data).hexdigest() != file.sha256:
                    raise not_described(self.path)
                file = examined(file, data)
                source_type = file.source_type_of_copies(mark_ai_generated=mark_ai_generated)
                made, problems = self.copies.make(data, todo, file, source_type=source_type, overwrite=overwrite)
                file = self._record_copies(file, made)
                self.copies.log_made(made, file, specs, log)
        except PictoryError as error:
            problems = dict.fromkeys(specs, error)
        exist = [spec for spec in specs if spec not in problems]
        image: SavedImage = {
            **saved.image,
            "copies": copy_records(self.path, file, exist, mark_ai_generated=mark_ai_generated),
        }
        version = self.sidecar_version if file != saved.file else saved.sidecar_version
        return Saved(image, file, version, without_copies(self.path, problems) if problems else None)

    def _record_copies(self, file: SavedFile, made: Sequence[Copy]) -> SavedFile:
        """Record copies in the sidecar, next to those that other processes have recorded meanwhile.

        :param file: the picture, with the copies on record when the new ones were begun.
        :return: it, with all copies on record.
        :raises RequestInvalid: if the sidecar is not of this picture any more.
        """
        sidecar = self._written or self.inspect().sidecar
        for _ in range(_TRIES_TO_RECORD):
            if sidecar is None or sidecar.saved is None or sidecar.saved.sha256 != file.sha256:
                raise not_described(self.path)
            saved = file.with_copies([*sidecar.saved.copies, *made])
            if saved == sidecar.saved or self.write_sidecar(replace(sidecar, saved=saved, may_be=())):
                return saved
            sidecar = self.inspect().sidecar
        return file.with_copies(made)  # the next attempt records them

    def _is_of_replacement(self) -> bool:
        """Whether the sidecar that was last read is of a submission that has not replaced the picture yet."""
        sidecar = self._last_read()
        return sidecar is not None and sidecar.replaces is not None

    def _mark(self, sidecar: Sidecar, saved: SavedFile, log: Log) -> SavedFile:
        """Mark the saved picture, and return the description of the file afterwards."""
        from pictory_provider.storage.download import mark_in_place

        received = mark_in_place(self.target, log, before=self._before_replacing(sidecar, saved))
        marked = _replacement(received, saved)
        if marked != saved or sidecar.may_be:
            self.write_sidecar(replace(sidecar, saved=marked, may_be=()))
        return marked

    def _before_replacing(self, sidecar: Sidecar, saved: SavedFile) -> Callable[[Received], object]:
        """Return the function to call right before a saved picture is replaced.

        It writes a sidecar that does not say ``saved`` and has the digests of both pictures.
        """

        def before(received: Received) -> None:
            self.write_sidecar(replace(sidecar, saved=None, may_be=(saved, _replacement(received, saved))))

        return before

    def _before_changing(self, job: Job, purchase: Sidecar) -> Callable[[Received], object]:
        """Return the function to call right before the picture of another request is replaced.

        It writes the sidecar of the new purchase, with the sidecar of the old picture and the new one's digest.
        """

        def before(received: Received) -> None:
            new = received.as_saved_file(ai_credits_used=job.ai_credits_used, saved_at=time.time())
            # The old picture's copies stay on record, so that those of the new one replace them.
            self.write_sidecar(replace(purchase, may_be=(new._replace(copies=purchase.copies),)))

        return before

    def _download_again(
        self,
        client: SyncClient,
        sidecar: Sidecar,
        damaged: ImageInvalid,
        log: Log,
    ) -> Saved:
        """Replace a damaged picture by a new download of its job's. It is left as it is if that fails."""
        job_id = str(sidecar.submission.job_id)
        log.warning("The picture at %s is damaged and is downloaded again. %s", self.path, damaged.message)
        try:
            job = get_job(client, job_id)
            if job.state is not JobState.COMPLETED or job.url is None:
                raise RequestInvalid(f"Its job {job_id} is {job.status}.")
            return self.save(client, job, sidecar, overwrite=True, mark_ai_generated=True, log=log)
        except PictoryError as error:
            what = (
                f"The picture at {self.path!r} is damaged, and could not be downloaded again. {damaged.message} "
                f"{error.message} It was left as it is, and nothing was bought."
            )
            if is_transient(error) or isinstance(error, (ImageInvalid, StorageFailed)):
                raise ImageInvalid(f"{what} A retry downloads it for free.") from error
            raise RequestInvalid(
                f"{what} To buy it again, delete it and {self.path}{SIDECAR_SUFFIX}, and clear the task. To keep "
                "it, set mark_ai_generated=False.",
                fields=["path"],
            ) from error


def targets_of(operator: Any, path: str | None, candidate: int | None = None) -> Callable[[str], PictureTarget]:
    """Return the function that makes the target of a task's picture from its path.

    :param operator: with the arguments ``cache_control`` and ``copies``.
    :param path: of the picture, or a similar one; ``None`` if it is not saved.
    :param candidate: its number, if it is a candidate.
    :raises RequestInvalid: for a wrong argument.
    """
    options = SaveOptions.checked(cache_control=operator.cache_control, copies=operator.copies)
    options = options.for_path(path, candidate)
    return partial(PictureTarget, options=options)


def _is_kept(
    version: PictureTarget, received: Received, sidecar: bytes, copies: Mapping[CopySpec, Content]
) -> bool:
    """Create a picture, its copies and its sidecar as a version, unless they exist.

    :return: ``False`` if something else exists.
    """
    if not version.copies.are_free_for(copies):
        return False
    version.inspect(with_picture=False)
    if version.last_sidecar not in (None, sidecar) or not version.target.place(received, overwrite=False):
        return False
    for spec, content in copies.items():
        version.copies.create(spec, content.data)
    if version.last_sidecar is None:
        version.restore_sidecar(sidecar)
    if version.last_sidecar is None:
        version.inspect(with_picture=False)  # another process has written it: perhaps the same
    return version.last_sidecar == sidecar


def read_existing(
    target: Target, read: Callable[[], bytes | None], *, size: int | None, length: int | None
) -> ExistingImage:
    """Return what exists at a path that may have a sidecar.

    :param target: of the picture.
    :param read: returns the content of the sidecar; ``None`` for no sidecar.
    :param size: of the picture before the sidecar is read, in bytes; ``None`` for no picture.
    :param length: of the sidecar, in bytes; ``None`` if it is unknown.
    :raises RequestInvalid: if a folder has meanwhile taken the picture's name.
    :raises StorageFailed: if the sidecar, or a picture that has to be identified by its digest, cannot be read.
    """
    try:
        content = None if length and length > _LARGEST_SIDECAR else read()
    except StorageFailed as error:
        if target.is_on_disk and isinstance(error.__cause__, PermissionError):
            return ExistingImage(target.path, problem="this account may not read it", size=size)
        raise
    length = length if content is None else len(content)
    if length and length > _LARGEST_SIDECAR:
        return ExistingImage(target.path, problem=f"it has {length:,} bytes", size=size)
    if content is None:
        return ExistingImage(target.path, size=size)
    try:
        sidecar = Sidecar.from_json(content)
    except Unreadable as error:
        return ExistingImage(target.path, problem=str(error), size=size)
    if sidecar.saved and sidecar.saved.size != size:
        size = target.size()  # another task may have saved its picture since
    sidecar = sidecar.as_saved(size, target.digest)
    return ExistingImage(target.path, sidecar=sidecar, size=size)


def not_described(path: str) -> RequestInvalid:
    """Return the error if a picture is not the one that its sidecar describes."""
    return RequestInvalid(
        f"The picture at {path} is not the one that its sidecar describes: its content has changed. "
        f"{NOTHING_SPENT} It was left as it is. Find out what changed it; to buy another picture, move it and its "
        "sidecar away.",
        fields=["path"],
    )


def _replacement(received: Received, saved: SavedFile) -> SavedFile:
    """Return the description of a received picture that replaces another one of the same job."""
    new = received.as_saved_file(ai_credits_used=saved.ai_credits_used, saved_at=saved.saved_at)
    return new._replace(copies=saved.copies)


def _write_saved(target: PictureTarget, sidecar: Sidecar) -> bool:
    try:
        return target.write_sidecar(sidecar)
    except StorageFailed as error:
        raise StorageFailed(
            f"The picture of job {sidecar.submission.job_id} is saved at {target.path!r}, but its sidecar does "
            f"not say so yet. {error.message} A retry writes it and buys nothing."
        ) from error


def _is_of_unsaved(sidecar: Sidecar | None, purchase: Sidecar) -> bool:
    """Return whether a sidecar is of this purchase, and no picture of it has ever been at its path."""
    if sidecar is None or sidecar.saved or sidecar.may_be or sidecar.replaces:
        return False
    return _is_same_job(sidecar, purchase)


def _is_same_purchase(existing: Sidecar | None, purchase: Sidecar) -> bool:
    """Return whether an existing sidecar is of this purchase. A missing one counts as such."""
    if existing is None or _is_same_job(existing, purchase):
        return True
    return existing.submission.job_id is None and existing.made_by == purchase.made_by


def _is_same_job(existing: Sidecar, purchase: Sidecar) -> bool:
    """Return whether an existing sidecar is of this job, whose picture was not moved away."""
    job_id = purchase.submission.job_id
    return existing.submission.job_id == job_id and not existing.overrides(job_id)
