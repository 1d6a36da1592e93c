# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A place for one picture, and for the sidecar that tells of it.

What a sidecar says is in :mod:`pictory_provider.images.sidecar`, and what follows from it in
:mod:`pictory_provider.images.reuse`. Here both files are read and written, in an order that a crash at any point
leaves true: the sidecar says ``saved`` only after the picture lies there.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from pictory_provider.api.errors import StorageFailed
from pictory_provider.images.paths import problem_of_picture, refused_path
from pictory_provider.images.reuse import Lying
from pictory_provider.images.sidecar import SavedFile, Sidecar, Unreadable
from pictory_provider.images.store import DEFAULT_MAX_BYTES, Target, not_replaceable
from pictory_provider.jobs.files import SIDECAR_SUFFIX, spare_name

if TYPE_CHECKING:
    from pictory_provider.api.models import Job
    from pictory_provider.client.asking import Log
    from pictory_provider.client.sync import SyncClient
    from pictory_provider.images.download import SavedImage

_LARGEST_SIDECAR = 1024 * 1024


class Shelf:
    """A place for a picture and its sidecar.

    :param path: of the picture, as for :class:`~pictory_provider.images.store.Target`.
    :raises RequestInvalid: for a path that no picture can have.
    """

    def __init__(self, path: str) -> None:
        self.target = Target(path)
        if (problem := problem_of_picture(self.target.path)) is not None:
            raise refused_path(path, problem)
        self._beside = Target(self.target.path + SIDECAR_SUFFIX)
        self._there: bytes | None = None

    @property
    def path(self) -> str:
        """The picture's path, as it was given."""
        return self.target.path

    @property
    def name(self) -> str:
        """The picture's name, without its folder."""
        return self.path.rpartition("/")[2]

    def check(self, *, overwrite: bool) -> None:
        """Refuse a place where no picture could be saved, before one is paid for.

        :param overwrite: whether what is there is to be replaced.
        :raises RequestInvalid: says why.
        :raises StorageFailed: if nothing can be saved there now.
        """
        from pictory_provider.images.placing import refused_pictures

        for problem in refused_pictures([self.path], overwrite=overwrite).values():
            raise refused_path(self.path, problem)

    def look(self) -> Lying:
        """Say what lies here.

        :raises RequestInvalid: for a folder.
        :raises StorageFailed: where it cannot be told, which is never the same as nothing.
        """
        size, length = self.target.size(), self._beside.size()
        self._there = None
        if length is None:
            return Lying(self.path, size=size)
        if length > _LARGEST_SIDECAR:
            return Lying(self.path, problem=f"it has {length:,} bytes", size=size)
        self._there = b"".join(self._beside.pieces())
        try:
            return Lying(self.path, sidecar=Sidecar.read(self._there), size=size)
        except Unreadable as error:
            return Lying(self.path, problem=str(error), size=size)

    def note(self, sidecar: Sidecar) -> bool:
        """Write the sidecar, in one step, in the place of what was seen or written last.

        :return: ``False`` where something else is there by now, which is left alone.
        :raises StorageFailed: where it cannot be written.
        """
        content = sidecar.content()
        if not self._beside.swap(self._there, content):
            return False
        self._there = content
        return True

    def announce(self, sidecar: Sidecar) -> bool:
        """Write the sidecar of an intent, as :meth:`note`, and see that it can be replaced.

        It has to be: by what was bought, and by what was saved. An account of an object storage may be allowed to
        create objects and not to replace them, which is found out here, before anything is sent.

        :raises RequestInvalid: where it may not be replaced.
        :raises StorageFailed: where it cannot be written.
        """
        if not self.note(sidecar):
            return False
        if self.target.local:
            return True  # a file is replaced by a rename, as it was made
        try:
            return self.note(sidecar)
        except StorageFailed as error:
            raise not_replaceable(self._beside.path, error) from error.__cause__

    @property
    def there(self) -> bytes | None:
        """The sidecar as it was seen or written last; ``None`` for none."""
        return self._there

    def put_back(self, before: bytes | None) -> None:
        """Let the sidecar be again what it was, unless it is another by now than was seen or written last.

        :raises StorageFailed: where it cannot be written.
        """
        if self._beside.swap(self._there, before):
            self._there = before

    def disown(self, job_id: str) -> None:
        """Take a sidecar away that tells of another job's picture than the one that is about to replace that.

        :raises StorageFailed: where that cannot be done.
        """
        there = self.look().sidecar
        if there and there.saved and there.submission.job_id != job_id:
            self.put_back(None)

    def save(
        self,
        client: SyncClient,
        job: Job,
        bought: Sidecar,
        *,
        overwrite: bool,
        mark_ai_generated: bool,
        log: Log,
    ) -> SavedImage:
        """Save a finished job's picture and say so beside it.

        Where another task has taken the place meanwhile, both pictures are kept: this one goes to
        ``<stem>.<jobId>.png``.

        :param bought: what the sidecar says of the purchase.
        """
        from pictory_provider.images.download import save_picture

        there = self.look()
        kept_apart = self._of_its_own(job.job_id)
        shelf = self
        if there.problem or not _is_of(there.sidecar, bought):
            log.warning(
                "%s is another task's by now: %s. The picture of job %s goes to %s.",
                self.path,
                there.problem or there.described,
                job.job_id,
                kept_apart.path,
            )
            shelf, overwrite = kept_apart, True
        if there.sidecar and there.sidecar.submission.job_id == bought.submission.job_id:
            bought = replace(there.sidecar, keeps_spending=bought.keeps_spending)  # whoever has bought it
        saved = save_picture(
            client,
            job,
            shelf.target,
            overwrite=overwrite,
            max_bytes=DEFAULT_MAX_BYTES,
            mark_ai_generated=mark_ai_generated,
            otherwise=kept_apart.target,
            log=log,
        )
        image = saved.image
        is_here = image["path"] == self.path
        if not is_here:
            shelf = kept_apart
            shelf.look()
        _note_saved(
            shelf,
            replace(
                bought,
                file=shelf.name,
                saved=SavedFile(
                    size=image["size"],
                    sha256=image["sha256"],
                    width=image["width"],
                    height=image["height"],
                    ai_credits_used=image["ai_credits_used"],
                    marks=saved.marks,
                    saved_at=time.time(),
                ),
            ),
        )
        if not is_here and there.sidecar and _is_of(there.sidecar, bought):
            self.put_back(None)  # what lies here is of somebody who left no sidecar
        return image

    def take(self, sidecar: Sidecar, *, mark_ai_generated: bool, log: Log) -> SavedImage:
        """Return the picture that lies here, marked if that is asked for. Nothing is asked of Pictory.

        :param sidecar: in state ``saved``.
        """
        from pictory_provider.images.download import SavedImage, mark_in_place

        saved = sidecar.saved
        assert saved is not None
        if mark_ai_generated and not saved.marks:
            # While it is replaced the sidecar does not say that it is there.
            size, sha256, marks = mark_in_place(
                self.target, log, before=lambda: self.note(replace(sidecar, saved=None))
            )
            if marks:
                saved = saved._replace(size=size, sha256=sha256, marks=marks)
                self.note(replace(sidecar, saved=saved))
        return SavedImage(
            job_id=sidecar.submission.job_id,
            status="completed",
            url=None,
            width=saved.width,
            height=saved.height,
            ai_credits_used=saved.ai_credits_used,
            path=self.path,
            size=saved.size,
            sha256=saved.sha256,
        )

    def _of_its_own(self, job_id: str) -> Shelf:
        return Shelf(spare_name(self.path, job_id))


def _note_saved(shelf: Shelf, sidecar: Sidecar) -> None:
    try:
        shelf.note(sidecar)
    except StorageFailed as error:
        raise StorageFailed(
            f"The picture of job {sidecar.submission.job_id} is saved at {shelf.path!r}, and its sidecar does not "
            f"say so yet. {error.message} A retry writes it and buys nothing."
        ) from error


def _is_of(there: Sidecar | None, bought: Sidecar) -> bool:
    """Whether a sidecar tells of a purchase, or is gone."""
    if there is None or there.submission.job_id == bought.submission.job_id:
        return True
    return there.submission.job_id is None and there.made_by == bought.made_by
