# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The interface of all storages, and the files of a local disk.

Files are written whole or not at all. Errors are those of the disk (``OSError``) or of the storage's client;
:mod:`pictory_provider.storage.errors` explains them.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import math
import os
import shlex
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar
from uuid import uuid4

from pictory_provider.api.errors import StorageFailed
from pictory_provider.api.timing import TIMING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")
R = TypeVar("R")

log = logging.getLogger(__name__)

PIECE = 1024 * 1024
"""Bytes that are read at a time."""
MAX_THREADS = 8
"""Files that are read in parallel."""
_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)
"""Errors of a file system without hard links, which are the only way to place a file without replacing another."""
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES, errno.EPERM, errno.EBADF)
"""Errors of a file system that does not sync folders."""


class Stat(NamedTuple):
    """What exists under a name.

    :param size: of a file, in bytes; ``None`` for a folder and for a broken symbolic link.
    :param version: of an object, another one after each write; ``None`` on a disk, and if the storage has none.
    """

    size: int | None
    is_folder: bool = False
    version: str | None = None


def is_same_version(one: str | None, other: str | None) -> bool:
    """Whether two versions are known and the same; some replies have an ETag in quotes, and others do not."""
    return None not in (one, other) and str(one).strip('"') == str(other).strip('"')


class Content(NamedTuple):
    """A file's content.

    :param version: as in :class:`Stat`.
    """

    data: bytes
    version: str | None = None


class Headers(NamedTuple):
    """The HTTP headers with which an object storage serves an object. Disks have none."""

    content_type: str
    cache_control: str | None = None


class AlreadyExists(Exception):
    """A file that was to be created exists. The argument is its name."""


class Changed(Exception):
    """A file is no longer the one that was read."""


class Files(Protocol):
    """The files of one storage, by name: an absolute local path, or an object's container and key.

    :ivar is_disk: whether it is a disk, which can be full, and on which each file has its own permissions. In
        object storage an account has permissions.
    """

    is_disk: bool

    def stat(self, name: str) -> Stat | None:
        """Return what exists under a name; ``None`` for nothing."""

    def stats(self, names: Iterable[str]) -> dict[str, Stat]:
        """Return what exists under names, by name; a name without anything is left out."""

    def list(self, folder: str) -> list[str]:
        """Return the names, without the folder, of the files directly in a folder; none if it does not exist."""

    def read(self, name: str) -> Content | None:
        """Return a file's content; ``None`` for no file."""

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield a file's content in pieces. A missing file is an error."""

    def put(self, name: str, data: bytes, headers: Headers) -> None:
        """Write a small file in one step, and create its folders. It survives a loss of power."""

    def create(self, name: str, data: bytes, headers: Headers, *, most: float) -> Content:
        """Write a small file that must not exist, as :meth:`put`. Only one of several writers succeeds.

        :param data: something that no other writer writes.
        :param most: seconds to wait for other processes of this package.
        :raises AlreadyExists: if it exists.
        :raises StorageFailed: if another process takes longer.
        """

    def replace(self, name: str, data: bytes, seen: Content, headers: Headers, *, most: float) -> Content:
        """Replace a small file, as :meth:`put`, if it is still the one that was read.

        :param most: as for :meth:`create`.
        :raises Changed: if it is another one, or is gone.
        """

    def delete(self, name: str, seen: Content, *, most: float) -> None:
        """Remove a file, if it is still the one that was read, or is gone.

        :param most: as for :meth:`create`.
        :raises Changed: if it is another one.
        """

    def home(self, name: str) -> Path:
        """Return the local folder for a temporary file that is then moved to a name."""

    def place(self, file: Path, name: str, headers: Headers, *, overwrite: bool) -> bool:
        """Move a temporary file to a name, in one step.

        :return: ``False`` if a file exists there and ``overwrite`` is off.
        """

    def remove(self, name: str) -> None:
        """Remove a file; a missing file counts as success."""


class LocalFiles:
    """The files of a local disk. What is written survives a loss of power."""

    is_disk = True

    def stat(self, name: str) -> Stat | None:
        """Return what exists under a name; ``None`` for nothing."""
        try:
            found = os.stat(name)
        except (FileNotFoundError, NotADirectoryError):
            return Stat(None) if os.path.islink(name) else None
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return None
            if error.errno == errno.ELOOP:
                return Stat(None)
            raise
        return Stat(None, is_folder=True) if stat.S_ISDIR(found.st_mode) else Stat(found.st_size)

    def stats(self, names: Iterable[str]) -> dict[str, Stat]:
        """Return what exists under names, by name; a name without anything is left out."""
        found = ((name, self.stat(name)) for name in names)
        return {name: each for name, each in found if each is not None}

    def list(self, folder: str) -> list[str]:
        """Return the names, without the folder, of the files directly in a folder; none if it does not exist."""
        try:
            with os.scandir(folder) as entries:
                return [entry.name for entry in entries if not entry.is_dir()]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def read(self, name: str) -> Content | None:
        """Return a file's content; ``None`` for no file."""
        try:
            file = os.open(name, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would wait for its writer
        except (FileNotFoundError, NotADirectoryError):
            return None
        with open(file, "rb") as opened:
            return Content(opened.read())

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield a file's content in pieces. A missing file is an error."""
        with Path(name).open("rb") as file:
            while piece := file.read(PIECE):
                yield piece

    def put(self, name: str, data: bytes, headers: Headers) -> None:  # noqa: ARG002
        """Write a small file in one step, and create its folders."""
        folder = Path(name).parent
        _make_folder(folder)
        part = folder / f".pictory-{uuid4().hex}.part"
        try:
            with part.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(name)
            _sync_folder(folder)
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def create(self, name: str, data: bytes, headers: Headers, *, most: float) -> Content:
        """Write a small file that must not exist, while its folder is locked."""
        with self._lock(name, most):
            if os.path.lexists(name):
                raise AlreadyExists(name)
            self.put(name, data, headers)
        return Content(data)

    def replace(self, name: str, data: bytes, seen: Content, headers: Headers, *, most: float) -> Content:
        """Replace a small file if it is still the one that was read, while its folder is locked."""
        with self._lock(name, most):
            if self.read(name) != seen:
                raise Changed(name)
            self.put(name, data, headers)
        return Content(data)

    def delete(self, name: str, seen: Content, *, most: float) -> None:
        """Remove a file if it is still the one that was read, or is gone, while its folder is locked."""
        with self._lock(name, most):
            if self.read(name) not in (seen, None):
                raise Changed(name)
            self.remove(name)

    def home(self, name: str) -> Path:
        """Return the file's own folder, so that moving a temporary file there is one step."""
        return Path(name).parent

    def place(self, file: Path, name: str, headers: Headers, *, overwrite: bool) -> bool:  # noqa: ARG002
        """Move a temporary file to a name, in one step; return ``False`` if a file exists there.

        :param overwrite: replace it instead.
        """
        if not overwrite:
            try:
                os.link(file, name)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_HARD_LINKS:
                    raise
                if os.path.exists(name):
                    return False
            else:
                return True
        file.replace(name)
        return True

    def remove(self, name: str) -> None:
        """Remove a file; a missing file counts as success."""
        file = Path(name)
        with suppress(FileNotFoundError, NotADirectoryError):
            file.unlink(missing_ok=True)
            _sync_folder(file.parent)

    @contextmanager
    def _lock(self, name: str, most: float) -> Iterator[None]:
        """Lock a file's folder against other processes of this package.

        The lock is on the folder itself, so it leaves no file, and the lock of a process that dies is released.

        :param most: seconds to wait for another process.
        :raises StorageFailed: if that is not enough.
        """
        folder = Path(name).parent
        _make_folder(folder)
        home = os.open(folder, os.O_RDONLY)
        try:
            _lock(home, folder, most)
            yield
        finally:
            os.close(home)


def _lock(home: int, folder: Path, most: float) -> None:
    """Lock an open folder. Log a warning if that takes long.

    :param most: seconds to wait.
    :raises StorageFailed: if another process keeps the lock for longer.
    """
    begun, pause, is_logged = time.monotonic(), 0.001, False
    while True:
        try:
            fcntl.flock(home, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = time.monotonic() - begun
        except OSError:
            return  # a network file system may not support locks
        else:
            return
        if waited >= most:
            raise StorageFailed(
                f"The folder {str(folder)!r} has been locked by another process for {waited:,.0f} s, so the "
                "sidecar was not written. A task holds this lock only for a moment, so that process hangs, or it "
                f"is another program. Find it on this machine with `fuser {shlex.quote(str(folder))}` and end it, "
                "or use another folder."
            )
        if waited >= TIMING.lock_warning and not is_logged:
            is_logged = True
            limit = (
                f"for {most:g} s at most" if most < math.inf else "without a limit: it has to record a paid job"
            )
            log.warning("The folder %s is locked by another process. This task waits for it %s.", folder, limit)
        time.sleep(pause)
        pause = min(2 * pause, 0.05)


def _make_folder(folder: Path) -> None:
    """Create a folder and its parents, so that they survive a loss of power."""
    missing = list(takewhile(lambda each: not each.exists(), (folder, *folder.parents)))
    folder.mkdir(parents=True, exist_ok=True)
    for each in reversed(missing):
        _sync_folder(each.parent)


def _sync_folder(folder: Path) -> None:
    """Write a folder's names to the disk. Without this a loss of power may undo a rename.

    :raises OSError: if the disk fails.
    """
    home = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(home)
    except OSError as error:
        if error.errno not in _NO_SYNC:  # a network file system may not support it, and stores names by itself
            raise
    finally:
        os.close(home)


def map_concurrently(function: Callable[[T], R], items: Iterable[T]) -> dict[T, R]:
    """Call a function for each item in :data:`MAX_THREADS` threads, and return its results by item."""
    listed = list(items)
    if len(listed) <= 1:
        return {item: function(item) for item in listed}
    with ThreadPoolExecutor(MAX_THREADS) as pool:
        return dict(zip(listed, pool.map(function, listed), strict=True))
