# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What lies in a batch's folder, on a local disk or in object storage; and the file that its table is in."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from stat import S_ISDIR
from typing import TYPE_CHECKING, Any, TypeVar

from pictory_provider.api.errors import PictoryError, RequestInvalid, StorageFailed
from pictory_provider.batch.decision import Found, Picture
from pictory_provider.batch.names import RECORD_FOLDER
from pictory_provider.images.paths import check_path, local_file, object_storage
from pictory_provider.images.placing import refused_pictures
from pictory_provider.images.reuse import Lying
from pictory_provider.images.shelf import Shelf
from pictory_provider.images.sidecar import Sidecar, Unreadable
from pictory_provider.images.store import Target
from pictory_provider.jobs.files import SIDECAR_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE = 8
"""Files that are read side by side."""
LARGEST_TABLE = 256 * 1024 * 1024
_LARGEST_SIDECAR = 1024 * 1024
_SPARE, _SPARE_BYTES = f"{RECORD_FOLDER}/spare", 64 * 1024
_KEEPING = (
    "The record of the batch could not be written:",
    (
        "Nothing is bought while it cannot be. What was bought before is paid for, and on record: a retry saves "
        "it, and buys none of it again. Check the folder, its permissions and its space."
    ),
)
_LISTING = (
    "The manifest could not be written:",
    (
        "The pictures that are saved stay, and what is paid for and not saved is on record: a retry saves that, "
        "writes the manifest, and buys nothing again. Check the folder, its permissions and its space."
    ),
)


def read_file(path: str) -> bytes:
    """Return the file of a table.

    :param path: an absolute local path, or any URL that ``ObjectStoragePath`` takes.
    :raises RequestInvalid: where there is none, or where it is too large for one.
    :raises StorageFailed: where it cannot be read.
    """
    try:
        target = Target(path)
        size = target.size()
    except RequestInvalid as error:
        raise RequestInvalid(error.message.replace("path ", "requests ", 1), fields=["requests"]) from None
    if size is None:
        raise RequestInvalid(
            f"requests {path!r} does not exist. Nothing was sent and nothing was spent. Does this worker see the "
            "storage that it lies in?",
            fields=["requests"],
        )
    if size > LARGEST_TABLE:
        raise RequestInvalid(
            f"requests {path!r} has {size:,} bytes, and a table has {LARGEST_TABLE:,} at most. Nothing was sent "
            "and nothing was spent.",
            fields=["requests"],
        )
    return b"".join(target.pieces())


class Folder:
    """The folder of a batch.

    :param path: an absolute local path, or any URL that ``ObjectStoragePath`` takes.
    :raises RequestInvalid: for one that no folder can have.
    """

    def __init__(self, path: object) -> None:
        checked = check_path(str(path).rstrip("/") if path is not None else path)
        self._local: Path | None = local_file(checked)
        self.path = checked if self._local is None else str(self._local)
        self._remote: Any = None if self._local else object_storage("path", checked)

    def at(self, name: str) -> str:
        """Return the path of a file in it."""
        return f"{self.path}/{name}"

    def record(self, name: str) -> Target:
        """Return the place of a file of the batch's record."""
        return Target(self.at(name), noting=_KEEPING)

    def hold_room(self) -> None:
        """Hold some room on a local disk, so that a full one still takes on record what was just bought.

        :raises StorageFailed: where there is none.
        """
        if self._local and not (self._local / _SPARE).exists():
            self.record(_SPARE).write(os.urandom(_SPARE_BYTES))  # what no disk can make smaller

    def give_room(self) -> None:
        """Give the room that is held to whoever writes next."""
        if self._local:
            with suppress(OSError):
                (self._local / _SPARE).unlink(missing_ok=True)

    def manifest(self, name: str) -> Target:
        """Return the place of a file that tells of the batch in the end."""
        return Target(self.at(name), noting=_LISTING)

    def shelf(self, name: str) -> Shelf:
        """Return the place of a picture in it, and of its sidecar."""
        return Shelf(self.at(name))

    def refused(self, names: Iterable[str], *, overwrite: bool) -> dict[str, str]:
        """Return the pictures that could not be saved in it, and why, by their names.

        :param overwrite: whether what is there is to be replaced.
        :raises StorageFailed: if nothing can be saved in it.
        """
        paths = {self.at(name): name for name in names}
        return {paths[path]: problem for path, problem in refused_pictures(paths, overwrite=overwrite).items()}

    @property
    def uri(self) -> str:
        """The folder as a URI, for lineage."""
        return Target(self.path).uri

    def names(self, below: str) -> list[str]:
        """Return the files that lie directly in a folder of it.

        :raises StorageFailed: where that cannot be told.
        """
        with _reading(self.at(below)):
            if self._local:
                try:
                    return [file.name for file in (self._local / below).iterdir()]
                except (FileNotFoundError, NotADirectoryError):
                    return []
            return [name for name, size in self._listed(below).items() if size is not None]

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """Return the contents of files that lie there; a name without a file is left out.

        :raises StorageFailed: where one cannot be read.
        """
        read = side_by_side(self._content, names)
        return {name: content for name, content in read.items() if content is not None}

    def found(self, names: Iterable[str]) -> tuple[dict[str, Found], dict[str, Sidecar]]:
        """Say what lies in the places of pictures.

        :return: by the pictures' names; and the sidecars of those that say nothing of their origin yet.
        :raises StorageFailed: where it cannot be told.
        """
        names = list(names)
        sizes = self._sizes(names)
        beside = {name: name + SIDECAR_SUFFIX for name in names}
        folders = {
            name: Found(folder=self.at(each))
            for name in names
            for each in (beside[name], name)
            if each in sizes and sizes[each] is None
        }
        there = [name for name in names if name not in folders and (name in sizes or beside[name] in sizes)]

        def look(name: str) -> Lying:
            return self._lying(name, size=sizes.get(name), length=sizes.get(beside[name]))

        lying = side_by_side(look, there)
        unmarked = {
            name: seen.sidecar
            for name, seen in lying.items()
            if seen.has_its_picture and seen.sidecar and seen.sidecar.saved and not seen.sidecar.saved.marks
        }
        return folders | {name: _found(seen) for name, seen in lying.items()}, unmarked

    def _lying(self, name: str, *, size: int | None, length: int | None) -> Lying:
        path = self.at(name)
        if length is None:
            return Lying(path, size=size)
        if length > _LARGEST_SIDECAR:
            return Lying(path, problem=f"it has {length:,} bytes", size=size)
        try:
            return Lying(path, sidecar=Sidecar.read(self._content(name + SIDECAR_SUFFIX) or b""), size=size)
        except Unreadable as error:
            return Lying(path, problem=str(error), size=size)

    def _content(self, name: str) -> bytes | None:
        with _reading(self.at(name)):
            try:
                if self._local:
                    return (self._local / name).read_bytes()
                content: bytes = self._remote.fs.cat_file(self._within(name))
            except FileNotFoundError:
                return None
            return content

    def _sizes(self, names: Iterable[str]) -> dict[str, int | None]:
        """Return the bytes of pictures and sidecars that lie there, ``None`` for a folder.

        Object storage is listed, folder by folder.
        """
        with _reading(self.path):
            if self._local:
                sizes: dict[str, int | None] = {}
                for name in (each for picture in names for each in (picture, picture + SIDECAR_SUFFIX)):
                    try:
                        found = (self._local / name).stat()
                    except (FileNotFoundError, NotADirectoryError):
                        continue
                    sizes[name] = None if S_ISDIR(found.st_mode) else found.st_size
                return sizes
            self._remote.fs.invalidate_cache()
            folders = {name.rpartition("/")[0] for name in names}
            return {
                f"{folder}/{name}" if folder else name: size
                for folder, listed in side_by_side(self._listed, folders).items()
                for name, size in listed.items()
            }

    def _listed(self, below: str) -> dict[str, int | None]:
        """Return what is directly in a folder of the storage, with its bytes, ``None`` for a folder."""
        fs, folder = self._remote.fs, self._within(below) if below else str(self._remote.path)
        try:
            listed = fs.ls(folder, detail=True, refresh=True)
        except TypeError:  # not every storage keeps what it has listed
            listed = fs.ls(folder, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        found: dict[str, int | None] = {}
        for each in listed:
            path = str(each["name"]).rstrip("/")
            name = path.rpartition("/")[2]
            if each.get("type") != "directory":
                found[name] = int(each.get("size") or 0)
            elif path.strip("/") != folder.strip("/"):
                found.setdefault(name, None)  # an object and a folder may have one name
        return found

    def _within(self, name: str) -> str:
        return f"{str(self._remote.path).rstrip('/')}/{name}"


def side_by_side(function: Callable[[T], R], items: Iterable[T]) -> dict[T, R]:
    """Call a function for each item, :data:`AT_ONCE` at a time."""
    listed = list(items)
    if len(listed) <= 1:
        return {item: function(item) for item in listed}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(listed, pool.map(function, listed), strict=True))


class _reading:  # noqa: N801  reads as a word of the language
    """Turn what a storage raises into :class:`StorageFailed`."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, *__: object) -> None:
        if error is None or isinstance(error, PictoryError) or not isinstance(error, Exception):
            return
        why = getattr(error, "strerror", None) or error
        raise StorageFailed(
            f"It could not be read what lies at {self._path!r}: {why}. Nothing was bought by that. Check the "
            "folder and its permissions."
        ) from error


def _found(there: Lying) -> Found:
    sidecar = there.sidecar
    if sidecar is None:
        return Found(has_file=there.size is not None, problem=there.problem)
    saved, submission = sidecar.saved, sidecar.submission
    picture = None
    if saved and there.has_its_picture:
        picture = Picture(
            job_id=str(submission.job_id),
            ai_credits_used=saved.ai_credits_used,
            width=saved.width,
            height=saved.height,
            size=there.size,
            sha256=saved.sha256,
        )
    return Found(
        state=sidecar.state,
        asked=submission.request,
        job_id=submission.job_id,
        submitted_at=submission.submitted_at,
        has_file=there.size is not None,
        picture=picture,
        by=str(sidecar.made_by),
    )
