# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Find pictures that could not be saved at their paths, before the first of them is paid for.

Every name that saving would refuse is refused here: by its path alone
(:func:`pictory_provider.storage.paths.problem_of_picture`), by what exists above it, and by the disk, which is
tested by creating files of such names, as they are saved, and removing them. Object storages are not tested so:
their rules for keys are the same everywhere.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import stat
import sys
from collections import defaultdict
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

from pictory_provider.api.errors import StorageFailed
from pictory_provider.core.picture_names import SIDECAR_SUFFIX, copy_name, is_portable, longest_name
from pictory_provider.storage.errors import CHECK_FOLDER, READING, storage_errors
from pictory_provider.storage.files import Headers, LocalFiles
from pictory_provider.storage.paths import local_file, problem_of_picture
from pictory_provider.storage.target import locate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from pictory_provider.media.copies import CopySpec
    from pictory_provider.storage.files import Files

_NOT_ABOUT_NAMES = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.EROFS),
    *(errno.ENODEV, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENOTCONN),
)
"""Errors of a disk that do not depend on the name of a file."""
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
"""Errors of a disk on which this account may not create files."""
_IMMUTABLE, _APPEND_ONLY = 0x10, 0x20
"""Attributes that ``chattr`` sets (``FS_IMMUTABLE_FL``, ``FS_APPEND_FL`` in linux/fs.h)."""
_GET_ATTRIBUTES = 0x80086601
"""The ``ioctl`` that reads them (``FS_IOC_GETFLAGS``)."""
_FLAT = {"s3", "s3a", "gs", "gcs"}
"""Schemes of storages without folders, in which an object may be below another one."""


class _Home(NamedTuple):
    """The existing folder in which a file, or its missing parent folders, would be created.

    :param path: of the file's own folder, without symbolic links.
    :param problem: why that is impossible; a text that follows the path.
    """

    folder: Path
    path: str
    problem: str | None = None


def refused_pictures(
    paths: Iterable[str],
    *,
    overwrite: bool = False,
    copies: Sequence[CopySpec] = (),
    is_trying: bool = True,
) -> dict[str, str]:
    """Return the pictures that could not be saved, and why.

    :param paths: absolute local paths, or URLs for ``ObjectStoragePath``.
    :param overwrite: whether existing files are to be replaced. Otherwise they are not tested.
    :param copies: that are made of each picture.
    :param is_trying: whether to create files on a disk, and remove them.
    :return: by path, a text that follows it.
    :raises RequestInvalid: for an invalid path.
    :raises StorageFailed: if a local folder cannot be written now, for example on a full disk, or if a storage
        cannot be read.
    """
    check = _Check(overwrite=overwrite, copies=copies)
    refused = {path: problem for path in paths if (problem := check.problem(path)) is not None}
    for folder, names in check.to_try.items() if is_trying else ():
        try:
            refused |= _refused_by_disk(folder, names, copies)
        except StorageFailed as error:
            why = error.__cause__
            if not isinstance(why, OSError) or why.errno not in _FORBIDDEN:
                raise
            problem = f"cannot be written: no file can be created in {str(folder)!r}: {why.strerror}"
            refused |= {path: problem for path, _ in names}
    return refused


class _Check:
    """Checks paths that are to be used together.

    :ivar to_try: the paths that the disk has yet to accept, with their names below an existing folder.
    """

    def __init__(self, *, overwrite: bool, copies: Sequence[CopySpec] = ()) -> None:
        self._overwrite = overwrite
        self._copies = copies
        self._homes: dict[Path, _Home] = {}
        self._above: dict[str, str | None] = {}
        self._first: dict[str, str] = {}
        self.to_try: defaultdict[Path, list[tuple[str, Path]]] = defaultdict(list)

    def problem(self, path: str) -> str | None:
        """Return why no picture can be saved at a path; ``None`` if no reason is known before a trial."""
        problem = problem_of_picture(path, self._copies)
        if problem is not None:
            return problem
        file = local_file(path)
        if file is None:
            return self._problem_above(path)
        home = self._homes.get(file.parent)
        if home is None:
            home = self._homes[file.parent] = _home_of(file.parent)
        other = self._first.setdefault(f"{home.path}/{file.name}", path)
        if other != path:
            return f"is the same file as {other!r}, through a symbolic link"
        problem = home.problem or self._problem_of_file(file)
        if problem is None and (self._overwrite or not os.path.lexists(file)):
            self.to_try[home.folder].append((path, file.relative_to(home.folder)))
        return problem

    def _problem_of_file(self, file: Path) -> str | None:
        """Return why an existing picture, sidecar or copy prevents saving."""
        sidecar = file.with_name(file.name + SIDECAR_SUFFIX)
        for each in (file, sidecar):
            if os.path.islink(each) and not os.path.exists(each):  # no error if the name is invalid, unlike Path's
                return f"is a broken symbolic link, or its sidecar is one: {str(each)!r}"
        copies = (file.with_name(copy_name(file.name, spec)) for spec in self._copies)
        for each in (file, sidecar, *copies) if self._overwrite else ():
            if os.path.lexists(each) and (why := self._why_not_replaceable(each)):
                return f"may not be replaced: {why}: {str(each)!r}"
        return None

    def _why_not_replaceable(self, file: Path) -> str | None:
        folder, me = file.parent.stat(), os.geteuid()
        if folder.st_mode & stat.S_ISVTX and me not in (0, folder.st_uid, file.lstat().st_uid):
            return "another user owns it, in a sticky folder"
        if _attributes(file) & (_IMMUTABLE | _APPEND_ONLY):
            return "it is immutable or append-only (chattr)"
        if os.path.realpath(file) in self._mounts:
            return "it is a mount of its own, as containers have for single files"
        return None

    @cached_property
    def _mounts(self) -> set[str]:
        """The paths at which file systems, or single files, are mounted."""
        with (
            suppress(OSError),
            open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table,
        ):
            paths = [line.split()[4] for line in table]
            return {re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), path) for path in paths}
        return set()

    def _problem_above(self, path: str) -> str | None:
        """Return why nothing can be saved below an object, in a storage that has folders."""
        if path.partition("://")[0].lower() in _FLAT:
            return None
        files, name, _ = locate(path)
        folder = name.rpartition("/")[0]
        if folder not in self._above:
            self._above[folder] = _problem_of_folder(files, folder)
        return self._above[folder]


def _attributes(file: Path) -> int:
    """Return the attributes of a file, which lsattr shows; 0 on a file system without them."""
    with suppress(OSError):
        opened = os.open(file, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would wait for its writer
        try:
            return int.from_bytes(fcntl.ioctl(opened, _GET_ATTRIBUTES, bytes(8))[:4], sys.byteorder)
        finally:
            os.close(opened)
    return 0


def _home_of(folder: Path) -> _Home:
    path = os.path.realpath(folder)
    while not os.path.lexists(folder):  # no error if the name is invalid, unlike Path's
        folder = folder.parent
    problem = None if folder.is_dir() else f"needs a folder, but this is not one: {str(folder)!r}"
    return _Home(folder, path, problem)


def _problem_of_folder(files: Files, folder: str) -> str | None:
    while "/" in folder.strip("/"):  # the first part is the container, of which an account may know nothing
        with storage_errors(folder, *READING):
            found = files.stat(folder)
        if found is not None:
            return None if found.is_folder else f"needs a folder, but this is an object: {folder!r}"
        folder = folder.rpartition("/")[0]
    return None


def _refused_by_disk(home: Path, names: list[tuple[str, Path]], copies: Sequence[CopySpec]) -> dict[str, str]:
    refused: dict[str, str] = {}
    with _trial(home) as trial:
        for path, name in names:
            if ".." in name.parts or all(map(is_portable, name.parts)):
                continue
            try:
                _try_name(trial, name, copies)
            except (OSError, ValueError) as error:
                if getattr(error, "errno", None) in _NOT_ABOUT_NAMES:
                    raise _unwritable(home, error) from error
                why = getattr(error, "strerror", None) or error
                refused[path] = f"has a name that the disk at {str(home)!r} refuses: {why}"
    return refused


@contextmanager
def _trial(home: Path) -> Iterator[Path]:
    """Create a temporary folder on the same disk, and check that files can be created in it."""
    trial, renamed = (home / f".pictory-{uuid4().hex}.part" for _ in range(2))
    try:
        try:
            trial.mkdir()
            _make(trial / "part")
            trial.rename(renamed)  # in a folder that is append-only, files can be created and not renamed
        except OSError as error:
            raise _unwritable(home, error) from error
        trial = renamed
        yield trial
    finally:
        shutil.rmtree(trial, ignore_errors=True)


def _try_name(trial: Path, name: Path, copies: Sequence[CopySpec]) -> None:
    """Create files with a picture's name, and with the longest name derived from it, in the way they are saved.

    :raises OSError: if the disk refuses the name.
    :raises ValueError: if the name is invalid on every disk.
    """
    part, picture = trial / "part", trial / "names" / name
    longest = picture.with_name(longest_name(picture.name, copies))
    picture.parent.mkdir(parents=True, exist_ok=True)
    part.touch()
    LocalFiles().place(part, str(picture), Headers(""), overwrite=False)
    picture.replace(longest)
    longest.unlink()


def _make(file: Path) -> None:
    file.open("xb").close()


def _unwritable(home: Path, error: OSError | ValueError) -> StorageFailed:
    why = getattr(error, "strerror", None) or error
    return StorageFailed.unsent(f"Cannot create a file in {str(home)!r}: {why}", CHECK_FOLDER)
