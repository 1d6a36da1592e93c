# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Read and write a batch's folder, on a local disk or in object storage, and read the file of its table."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING

from pictory_provider.api.errors import RequestInvalid, StorageFailed
from pictory_provider.core.batch.file_names import FAILED, MANIFEST, RECORD_FOLDER
from pictory_provider.core.picture_names import SIDECAR_SUFFIX
from pictory_provider.core.resume import ExistingImage
from pictory_provider.storage.errors import CHECK_FOLDER, READING, storage_errors
from pictory_provider.storage.files import Stat, is_same_version, map_concurrently
from pictory_provider.storage.paths import check_path
from pictory_provider.storage.pictures import PictureTarget, read_existing
from pictory_provider.storage.preflight import refused_pictures
from pictory_provider.storage.target import JSON_LINES, Target, locate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pictory_provider.client.retrying import Log
    from pictory_provider.core.sidecar import Sidecar
    from pictory_provider.media.copies import CopySpec
    from pictory_provider.storage.copies import SaveOptions

LARGEST_TABLE = 256 * 1024 * 1024
_SPARE, _SPARE_BYTES = f"{RECORD_FOLDER}/spare", 64 * 1024
_WRITING_RECORD = (
    "The record of the batch could not be written:",
    (
        "Nothing more is bought until it can be. Everything bought before is paid for and on record: a retry "
        f"saves it and buys none of it again. {CHECK_FOLDER}"
    ),
)
_WRITING_MANIFEST = (
    "The manifest could not be written:",
    (
        "The saved pictures stay, and what is paid for but not saved is on record: a retry saves it, writes the "
        f"manifest and buys nothing again. {CHECK_FOLDER}"
    ),
)


def read_file(path: str) -> bytes:
    """Return the content of a table's file.

    :param path: an absolute local path, or any URL that ``ObjectStoragePath`` takes.
    :raises RequestInvalid: if it does not exist, or is too large.
    :raises StorageFailed: if it cannot be read.
    """
    target = Target(path, field="requests")
    size = target.size()
    if size is None:
        raise RequestInvalid.unsent(
            f"requests {path!r} does not exist",
            "Check that this worker has access to its storage.",
            fields=["requests"],
        )
    if size > LARGEST_TABLE:
        raise RequestInvalid.unsent(
            f"requests {path!r} has {size:,} bytes, and a table may have {LARGEST_TABLE:,} at most",
            fields=["requests"],
        )
    return b"".join(target.pieces())


class Folder:
    """The folder of a batch.

    :param path: an absolute local path, or any URL that ``ObjectStoragePath`` takes.
    :raises RequestInvalid: for an invalid path.
    """

    def __init__(self, path: object) -> None:
        checked = check_path(str(path).rstrip("/") if path is not None else path)
        self._files, name, self.uri = locate(checked)
        self._root = name.rstrip("/")
        self.path = name if self._files.is_disk else checked

    def at(self, name: str) -> str:
        """Return the path of a file in the folder."""
        return f"{self.path}/{name}"

    def record(self, name: str) -> Target:
        """Return the target of a file of the batch's record."""
        return Target(self.at(name), writing=_WRITING_RECORD)

    def reserve_disk_space(self) -> None:
        """Write a spare file to a local disk, so that a purchase can still be recorded when the disk is full.

        :raises StorageFailed: if it cannot be written.
        """
        if self._files.is_disk and self._files.stat(self._within(_SPARE)) is None:
            self.record(_SPARE).write(os.urandom(_SPARE_BYTES))  # random, so that no disk can compress it

    def release_disk_space(self) -> None:
        """Remove the spare file, so that the next write has its space."""
        if self._files.is_disk:
            with suppress(OSError):
                self._files.remove(self._within(_SPARE))

    def manifest(self, name: str) -> Target:
        """Return the target of a file that describes the finished batch."""
        return Target(self.at(name), writing=_WRITING_MANIFEST, headers=JSON_LINES)

    def check_manifests(self) -> None:
        """Check that nothing prevents the manifest and ``failed.jsonl`` from being written.

        :raises RequestInvalid: if there is a folder of that name.
        :raises StorageFailed: if it cannot be read.
        """
        for name in (MANIFEST, FAILED):
            with self._reading(name):
                found = self._files.stat(self._within(name))
            if found is not None and found.is_folder:
                raise RequestInvalid.unsent(
                    f"{self.at(name)!r} is a folder, and the batch writes a file of that name",
                    "Move it away, or use another folder.",
                    fields=["path"],
                )

    def forget_failures(self, log: Log) -> None:
        """Remove ``failed.jsonl`` of an earlier attempt. A failure is only logged, since nothing depends on it."""
        try:
            self.manifest(FAILED).remove()
        except StorageFailed as error:
            log.warning("%s of an earlier attempt could not be removed: %s", self.at(FAILED), error)

    def target(self, name: str, options: SaveOptions | None = None) -> PictureTarget:
        """Return the target of a picture in the folder, with its sidecar.

        :param options: how it is saved.
        """
        return PictureTarget(self.at(name), options)

    def refused(
        self,
        names: Iterable[str],
        *,
        overwrite: bool,
        copies: Sequence[CopySpec] = (),
        is_trying: bool = True,
    ) -> dict[str, str]:
        """Return the pictures that could not be saved in the folder, and why, by their names.

        :param overwrite: whether existing files are to be replaced.
        :param copies: that are made of each picture.
        :param is_trying: whether to create files on a disk, and remove them.
        :raises StorageFailed: if nothing can be saved in it.
        """
        paths = {self.at(name): name for name in names}
        refused = refused_pictures(paths, overwrite=overwrite, copies=copies, is_trying=is_trying)
        return {paths[path]: problem for path, problem in refused.items()}

    def names(self, below: str) -> list[str]:
        """Return the names of the files directly in a subfolder.

        :raises StorageFailed: if it cannot be listed.
        """
        with self._reading(below):
            return self._files.list(self._within(below))

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """Return the contents of files by their names; a missing file is left out.

        :raises StorageFailed: if one cannot be read.
        """
        contents = map_concurrently(self._content, names)
        return {name: content for name, content in contents.items() if content is not None}

    def existing(
        self,
        names: Iterable[str],
        known: Callable[[str], tuple[Sidecar, str] | None] = lambda _: None,
        *,
        copies: Callable[[str], Sequence[str]] = lambda _: (),
    ) -> dict[str, ExistingImage]:
        """Return what exists at the paths of pictures, by their names; a name without anything is left out.

        :param known: returns a sidecar by its picture's name, with its version in object storage. One that is
            still of this version is not read.
        :param copies: returns the names of a picture's copies by its own.
        :raises RequestInvalid: as :func:`~pictory_provider.storage.pictures.read_existing`.
        :raises StorageFailed: if it cannot be read.
        """
        pictures = {name: name + SIDECAR_SUFFIX for name in names}
        copied = {name: copies(name) for name in pictures}
        all_names = (each for name, sidecar in pictures.items() for each in (name, sidecar, *copied[name]))
        with self._reading():
            stats = self._files.stats(map(self._within, all_names))

        def inspect(name: str) -> ExistingImage:
            found = inspect_picture(name)
            there = {each: stats[self._within(each)] for each in copied[name] if self._within(each) in stats}
            sizes = {each.rpartition("/")[2]: stat.size for each, stat in there.items()}
            return found._replace(copies=sizes) if sizes else found

        def inspect_picture(name: str) -> ExistingImage:
            path, sidecar = self.at(name), pictures[name]
            here, beside = (stats.get(self._within(each), Stat(None)) for each in (name, sidecar))
            if here.is_folder or beside.is_folder:
                return ExistingImage(path, folder=path if here.is_folder else self.at(sidecar))
            if beside.size is None:
                return ExistingImage(path, size=here.size)
            on_record = known(name)
            if on_record and is_same_version(on_record[1], beside.version):
                found = ExistingImage(path, sidecar=on_record[0], size=here.size)
            else:
                found = read_existing(
                    Target(path), lambda: self._content(sidecar), size=here.size, length=beside.size
                )
            return found._replace(sidecar_version=beside.version)

        there = [
            name
            for name, sidecar in pictures.items()
            if any(self._within(each) in stats for each in (name, sidecar, *copied[name]))
        ]
        existing = map_concurrently(inspect, there)
        return {name: found for name, found in existing.items() if found != ExistingImage(found.path)}

    def look(self, names: Iterable[str]) -> dict[str, ExistingImage]:
        """Return what exists at the paths of pictures, as :meth:`existing`. Each is looked at directly.

        A listing of an object storage may be outdated.
        """

        def inspect(name: str) -> ExistingImage:
            try:
                return self.target(name).inspect()
            except RequestInvalid:  # a folder or a broken link, as the listing shows
                return ExistingImage(self.at(name))

        found = map_concurrently(inspect, names)
        return {name: each for name, each in found.items() if each != ExistingImage(each.path)}

    def _reading(self, name: str = "") -> AbstractContextManager[None]:
        failed, what_now = READING
        return storage_errors(self.at(name) if name else self.path, failed, f"This bought nothing. {what_now}")

    def _content(self, name: str) -> bytes | None:
        with self._reading(name):
            content = self._files.read(self._within(name))
        return None if content is None else content.data

    def _within(self, name: str) -> str:
        return f"{self._root}/{name}"
