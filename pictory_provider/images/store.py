# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Put a picture where it should go: whole or not at all, on a local disk or in object storage."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import tempfile
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from uuid import uuid4

from pictory_provider.api.errors import ImageInvalid, PictoryError, RequestInvalid, StorageFailed
from pictory_provider.images.formats import Picture, PictureChecker
from pictory_provider.images.paths import check_path, folder, local_file, object_storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

DEFAULT_MAX_BYTES = 100 * 1024 * 1024
_PIECE = 1024 * 1024
_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)
"""What a file system answers that knows no hard links, the only way to place a file without replacing one."""


_PLACING = (
    "The picture could not be written to",
    "It is still at Pictory, and saving it again is free. Check the folder, its permissions and its space.",
)
_READING = ("It could not be read what lies at", "Check the folder and its permissions.")
_NOTING = (
    "The record beside the picture could not be written:",
    "Check the folder, its permissions and its space.",
)


class Received:
    """A picture that has arrived in a temporary file: complete, checked, not yet in its place."""

    def __init__(self, file: Path, picture: Picture, *, size: int, sha256: str) -> None:
        self.file = file
        self.picture = picture
        self.size = size
        self.sha256 = sha256

    def insert(self, offset: int, data: bytes) -> None:
        """Put bytes into the middle of it. The checked picture keeps its description.

        :raises OSError: where it cannot be written.
        """
        whole, digest = self.file.with_suffix(".marked.part"), hashlib.sha256()
        try:
            with self.file.open("rb") as old, whole.open("xb") as new:
                for piece in chain((old.read(offset), data), iter(lambda: old.read(_PIECE), b"")):
                    digest.update(piece)
                    new.write(piece)
                new.flush()
                os.fsync(new.fileno())
            whole.replace(self.file)
        finally:
            whole.unlink(missing_ok=True)
        self.size += len(data)
        self.sha256 = digest.hexdigest()


class Target:
    """A place for a picture.

    :param path: an absolute local path, a ``file://`` URL, or any URL that ``ObjectStoragePath`` takes.
        In a ``file://`` URL, as everywhere in Python, ``%20`` is a blank. In the others every character is
        part of the name.
    :param noting: what the error of :meth:`write` and :meth:`swap` says before and after the path.
    :raises RequestInvalid: for a relative or empty path, for a ``file://`` URL with a host, ``?`` or ``#``, and
        for a scheme that Airflow has no filesystem for.
    """

    def __init__(self, path: str, *, noting: tuple[str, str] = _NOTING) -> None:
        self.path = check_path(path)
        self._noting = noting
        self.local = local_file(self.path)
        self._remote: Any = object_storage("path", self.path) if self.local is None else None

    @property
    def uri(self) -> str:
        """The place as a URI, for lineage: unencoded, but for what would end its path."""
        if self.local is None:
            return self.path
        return "file://" + str(self.local).replace("#", "%23").replace("?", "%3F")

    @contextmanager
    def receive(self, pieces: Iterable[bytes], *, max_bytes: int) -> Iterator[Received]:
        """Take a picture's bytes into a temporary file, checking them as they come.

        The file lies beside a local target, so that moving it there is one step, and is gone afterwards
        whatever happens.

        :raises ImageInvalid: for what is no whole picture, or larger than ``max_bytes``.
        :raises StorageFailed: where the folder cannot be made or written.
        """
        home = self.local.parent if self.local else Path(tempfile.gettempdir())
        part = home / f".pictory-{uuid4().hex}.part"
        with self._storing():
            home.mkdir(parents=True, exist_ok=True)
            file = part.open("xb")
        try:
            received = self._fill(file, part, pieces, max_bytes)
            with self._storing():
                file.close()
            yield received
        finally:
            with suppress(OSError):
                file.close()  # what a full disk has not taken is written once more, and refused once more
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def insert(self, received: Received, offset: int, data: bytes) -> None:
        """Put bytes into the middle of a received picture.

        :raises StorageFailed: where it cannot be written.
        """
        with self._storing():
            received.insert(offset, data)

    def place(self, received: Received, *, overwrite: bool) -> bool:
        """Put a received picture in its place, in one step.

        :return: whether it lies there; ``False`` where something else does and ``overwrite`` is off. The same
            bytes already there are a success.
        :raises StorageFailed: where it cannot be written.
        """
        with self._storing():
            if self.local:
                return self._place_locally(received, self.local, overwrite=overwrite)
            return self._upload(received, overwrite=overwrite)

    def size(self) -> int | None:
        """Return the bytes that lie here; ``None`` for nothing.

        :raises RequestInvalid: for a folder.
        :raises StorageFailed: where it cannot be told.
        """
        with self._storing(_READING):
            try:
                if self.local:
                    is_folder, size = self.local.is_dir(), self._size_of_file(self.local)
                else:
                    self._remote.fs.invalidate_cache()
                    info = self._remote.fs.info(self._remote.path)
                    is_folder, size = info.get("type") == "directory", int(info["size"] or 0)
            except (FileNotFoundError, NotADirectoryError):
                return None
            except OSError as error:
                if error.errno == errno.ENAMETOOLONG:
                    return None
                raise
        if is_folder:
            raise folder(self.path)
        return size

    def pieces(self) -> Iterator[bytes]:
        """Read what lies here, piece by piece.

        :raises StorageFailed: where it cannot be read.
        """
        with self._storing(_READING), (self.local or self._remote).open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece

    def write(self, data: bytes) -> None:
        """Put a small file in its place, in one step; the folders above it are made.

        :raises StorageFailed: where it cannot be written.
        """
        with self._storing(self._noting):
            self._put(data)

    def swap(self, seen: bytes | None, data: bytes | None) -> bool:
        """Do as :meth:`write`, if what lies here is still what was seen.

        On a local disk that holds even where several do so at once. Object storage is looked at right before.

        :param seen: ``None`` for nothing.
        :param data: ``None`` to take it away.
        :return: whether it was done.
        :raises StorageFailed: where it cannot be read or written.
        """
        with self._storing(self._noting), self._alone():
            there = None if self.size() is None else b"".join(self.pieces())
            if there != seen:
                return False
            if data is not None:
                self._put(data)
            elif there is not None:
                self._remove()
            return True

    def digest(self) -> str:
        """Return the SHA-256 of what lies here, in hexadecimal.

        :raises StorageFailed: where it cannot be read.
        """
        digest = hashlib.sha256()
        for piece in self.pieces():
            digest.update(piece)
        return digest.hexdigest()

    def _put(self, data: bytes) -> None:
        if self.local is None:
            self._with_its_folder(lambda: self._remote.fs.pipe_file(self._remote.path, data))
            return
        self.local.parent.mkdir(parents=True, exist_ok=True)
        part = self.local.parent / f".pictory-{uuid4().hex}.part"
        try:
            with part.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.local)
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def _remove(self) -> None:
        if self.local:
            self.local.unlink(missing_ok=True)
        else:
            self._remote.fs.rm_file(self._remote.path)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep others of this package out of a local folder for a moment.

        The lock is on the folder itself, so it leaves no file, and a process that dies gives it back.
        """
        if self.local is None:
            yield
            return
        self.local.parent.mkdir(parents=True, exist_ok=True)
        home = os.open(self.local.parent, os.O_RDONLY)
        try:
            with suppress(OSError):  # a network's file system may know no locks
                fcntl.flock(home, fcntl.LOCK_EX)
            yield
        finally:
            os.close(home)

    def _size_of_file(self, file: Path) -> int:
        if file.is_symlink() and not file.exists():
            raise RequestInvalid(
                f"path {self.path!r} is a symbolic link that leads nowhere. Nothing was sent or saved. Is a mount "
                "missing?",
                fields=["path"],
            )
        return file.stat().st_size

    def _fill(self, file: BinaryIO, part: Path, pieces: Iterable[bytes], max_bytes: int) -> Received:
        checker, digest = PictureChecker(), hashlib.sha256()
        for piece in pieces:
            checker.feed(piece)
            if checker.size > max_bytes:
                raise too_large(max_bytes)
            digest.update(piece)
            with self._storing():
                file.write(piece)
        picture = checker.finish()
        with self._storing():
            file.flush()
            os.fsync(file.fileno())
        return Received(part, picture, size=checker.size, sha256=digest.hexdigest())

    def _place_locally(self, received: Received, target: Path, *, overwrite: bool) -> bool:
        if move_into_place(received.file, target, overwrite=overwrite):
            return True
        return self._holds(received)

    def _upload(self, received: Received, *, overwrite: bool) -> bool:
        target = self._remote
        if not overwrite and target.exists():
            return self._holds(received)
        self._with_its_folder(lambda: target.fs.put_file(str(received.file), target.path))
        return True

    def _with_its_folder(self, write: Callable[[], object]) -> None:
        """Write to object storage. Folders are made where a storage has them, but never its root, a new bucket."""
        target = self._remote
        try:
            write()
        except FileNotFoundError:
            root = re.match("/?[^/]*", target.path)
            if root is None or not target.fs.exists(root[0]):
                raise
            target.parent.mkdir(parents=True, exist_ok=True)
            write()

    def _holds(self, received: Received) -> bool:
        return self.digest() == received.sha256

    @contextmanager
    def _storing(self, what: tuple[str, str] = _PLACING) -> Iterator[None]:
        try:
            yield
        except PictoryError:
            raise
        except Exception as error:  # the clients of object storages have errors of their own kinds
            why = getattr(error, "strerror", None) or error
            failed, what_now = what
            raise StorageFailed(f"{failed} {self.path!r}: {why}. {what_now}") from error


def move_into_place(file: Path, target: Path, *, overwrite: bool) -> bool:
    """Move a file into its place, in one step.

    :return: ``False`` where something is there and ``overwrite`` is off.
    """
    if not overwrite:
        try:
            os.link(file, target)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            if target.exists():
                return False
        else:
            return True
    file.replace(target)
    return True


def not_replaceable(path: str, error: StorageFailed) -> PictoryError:
    """Return the error for an object that was created a moment ago and could not be replaced.

    :param path: of the object.
    :return: :class:`RequestInvalid`, which is not retried, if the account may not replace it; else ``error``.
    """
    cause = error.__cause__
    # s3fs raises PermissionError; the error of gcsfs has a code, and that of adlfs a status_code.
    codes = [getattr(cause, name, None) for name in ("code", "status_code")]
    if not isinstance(cause, PermissionError) and 403 not in codes:
        return error
    return RequestInvalid(
        f"path cannot be used: {path} was created, and may not be read or replaced ({cause}). Nothing was sent "
        "and nothing was spent. Let the account of this storage read, replace and delete objects, too; then "
        "delete that object, if it is still there, and clear the task.",
        fields=["path"],
    )


def too_large(max_bytes: int) -> ImageInvalid:
    """Return the error for a picture that is larger than allowed."""
    return ImageInvalid(
        f"The picture is larger than max_bytes, {max_bytes:,} bytes. "
        "If pictures of that size are expected, DownloadImageOperator(max_bytes=...) saves them."
    )
