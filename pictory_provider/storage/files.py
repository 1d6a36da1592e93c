# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The files of a local disk and of object storage, behind one interface.

Files are written whole or not at all. Errors are those of the disk (``OSError``) or of the storage's client;
:mod:`pictory_provider.storage.errors` explains them.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import math
import os
import re
import shlex
import stat
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar
from uuid import uuid4

from pictory_provider.api.errors import StorageFailed
from pictory_provider.api.timing import TIMING
from pictory_provider.storage.paths import local_file, object_storage

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
    """

    size: int | None
    is_folder: bool = False


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

    def read(self, name: str) -> bytes | None:
        """Return a file's content; ``None`` for no file."""

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield a file's content in pieces. A missing file is an error."""

    def put(self, name: str, data: bytes) -> None:
        """Write a small file in one step, and create its folders. It survives a loss of power."""

    def home(self, name: str) -> Path:
        """Return the local folder for a temporary file that is then moved to a name."""

    def place(self, file: Path, name: str, *, overwrite: bool) -> bool:
        """Move a temporary file to a name, in one step.

        :return: ``False`` if a file exists there and ``overwrite`` is off.
        """

    def remove(self, name: str) -> None:
        """Remove a file; a missing file counts as success."""

    def lock(self, name: str, most: float) -> AbstractContextManager[None]:
        """Lock a file's folder against other processes of this package, if the storage can.

        :param most: seconds to wait for another process.
        :raises StorageFailed: if that is not enough.
        """


class Location(NamedTuple):
    """A file in its storage.

    :param uri: for lineage: not encoded, except for characters that would end its path.
    """

    files: Files
    name: str
    uri: str


def locate(path: str, field: str = "path") -> Location:
    """Return the storage of a path, and the file's name in it.

    :param path: an absolute local path, a ``file://`` URL, or any URL that ``ObjectStoragePath`` takes.
        In a ``file://`` URL, as everywhere in Python, ``%20`` is a blank. In the others every character is
        part of the name.
    :param field: the argument's name, for the texts.
    :raises RequestInvalid: for a relative path, for a ``file://`` URL with a host, ``?`` or ``#``, and for a
        scheme that Airflow has no filesystem for.
    """
    local = local_file(path, field)
    if local is not None:
        name = str(local)
        return Location(LocalFiles(), name, "file://" + name.replace("#", "%23").replace("?", "%3F"))
    remote = object_storage(field, path)
    return Location(ObjectFiles(remote.fs), str(remote.path), path)


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

    def read(self, name: str) -> bytes | None:
        """Return a file's content; ``None`` for no file."""
        try:
            return Path(name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield a file's content in pieces. A missing file is an error."""
        with Path(name).open("rb") as file:
            while piece := file.read(PIECE):
                yield piece

    def put(self, name: str, data: bytes) -> None:
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

    def home(self, name: str) -> Path:
        """Return the file's own folder, so that moving a temporary file there is one step."""
        return Path(name).parent

    def place(self, file: Path, name: str, *, overwrite: bool) -> bool:
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
    def lock(self, name: str, most: float) -> Iterator[None]:
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


class ObjectFiles:
    """The objects of an object storage.

    :param fs: the filesystem of an ``ObjectStoragePath``.
    """

    is_disk = False

    def __init__(self, fs: Any) -> None:
        self._fs = fs

    def stat(self, name: str) -> Stat | None:
        """Return what exists under a name; ``None`` for nothing."""
        self._fs.invalidate_cache()
        try:
            info = self._fs.info(name)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return _stat_of(info)

    def stats(self, names: Iterable[str]) -> dict[str, Stat]:
        """Return what exists under names, by name. Their folders are listed, each once."""
        self._fs.invalidate_cache()
        names = set(names)
        listed = map_concurrently(self._list, {name.rpartition("/")[0] for name in names})
        found = {f"{folder}/{name}": each for folder, files in listed.items() for name, each in files.items()}
        return {name: found[name] for name in names & found.keys()}

    def list(self, folder: str) -> list[str]:
        """Return the names, without the folder, of the files directly in a folder; none if it does not exist."""
        return [name for name, found in self._list(folder).items() if not found.is_folder]

    def read(self, name: str) -> bytes | None:
        """Return an object's content; ``None`` for no object."""
        try:
            content: bytes = self._fs.cat_file(name)
        except FileNotFoundError:
            return None
        return content

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield an object's content in pieces. A missing object is an error."""
        begun = False
        for is_last in (False, True):
            try:
                with self._fs.open(name, "rb") as file:
                    while piece := file.read(PIECE):
                        begun = True
                        yield piece
            except OSError as error:
                if begun or is_last or error.errno != errno.EBUSY:
                    raise
                self._fs.invalidate_cache()  # another task has just written here
            else:
                return

    def put(self, name: str, data: bytes) -> None:
        """Write a small object in one step."""
        self._with_its_folder(name, lambda: self._fs.pipe_file(name, data))

    def home(self, name: str) -> Path:  # noqa: ARG002
        """Return the folder for temporary files."""
        return Path(tempfile.gettempdir())

    def place(self, file: Path, name: str, *, overwrite: bool) -> bool:
        """Upload a temporary file, in one step; return ``False`` if an object exists there.

        :param overwrite: replace it instead.
        """
        if not overwrite and self._fs.exists(name):
            return False
        self._with_its_folder(name, lambda: self._fs.put_file(str(file), name))
        return True

    def remove(self, name: str) -> None:
        """Remove an object; a missing object counts as success."""
        with suppress(FileNotFoundError):
            self._fs.rm_file(name)

    def lock(self, name: str, most: float) -> AbstractContextManager[None]:  # noqa: ARG002
        """Return a context without a lock: object storage has none."""
        return nullcontext()

    def _list(self, folder: str) -> dict[str, Stat]:
        try:
            listed = self._fs.ls(folder, detail=True, refresh=True)
        except TypeError:  # a filesystem without a cache of listings
            listed = self._fs.ls(folder, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        found: dict[str, Stat] = {}
        for info in listed:
            path = str(info["name"]).rstrip("/")
            if path.strip("/") == folder.strip("/"):
                continue  # the folder itself, or an object of its name
            name, each = path.rpartition("/")[2], _stat_of(info)
            if not each.is_folder:
                found[name] = each
            else:
                found.setdefault(name, each)  # an object and a folder may have one name
        return found

    def _with_its_folder(self, name: str, write: Callable[[], object]) -> None:
        """Write. Create folders if the storage has them, but never its root, a new bucket."""
        try:
            write()
        except FileNotFoundError:
            root = re.match("/?[^/]*", name)
            if root is None or not self._fs.exists(root[0]):
                raise
            self._fs.makedirs(name.rpartition("/")[0], exist_ok=True)
            write()


def _stat_of(info: dict[str, Any]) -> Stat:
    is_folder = info.get("type") == "directory"
    return Stat(None if is_folder else int(info.get("size") or 0), is_folder=is_folder)


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
