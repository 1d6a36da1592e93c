# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Which pictures could not be saved where they should go? Asked before the first of them is paid for.

Everything that the saving side would refuse about a name is refused here: what the path itself tells
(:func:`pictory_provider.images.paths.problem_of_picture`), and what only the disk knows, which is asked by making
files of such names, as they are saved, and removing them. Object storages are not asked: their rules for keys are
the same everywhere.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

from pictory_provider.api.errors import StorageFailed
from pictory_provider.images.paths import local_file, problem_of_picture
from pictory_provider.images.store import move_into_place
from pictory_provider.jobs.files import SIDECAR_SUFFIX, is_portable, longest_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_OF_NO_NAME = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.EROFS),
    *(errno.ENODEV, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENOTCONN),
)
"""What a disk answers that has nothing to do with a name."""


_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
"""What a disk answers where this account may make no file."""
_PART = "trial.part"


class _Home(NamedTuple):
    """The folder in which a file, or the folders above it, would be made.

    :param problem: why that cannot be done; a text that follows the path.
    """

    folder: Path
    problem: str | None = None


def refused_pictures(paths: Iterable[str], *, overwrite: bool = False) -> dict[str, str]:
    """Return the pictures that could not be saved, and why.

    :param paths: absolute local paths, or URLs that ``ObjectStoragePath`` takes.
    :param overwrite: whether files that are there are to be replaced. Else they are left alone, and not tried.
    :return: by path, a text that follows it.
    :raises RequestInvalid: for a path that is none.
    :raises StorageFailed: if a local folder cannot be written now, as on a disk that is full.
    """
    refused: dict[str, str] = {}
    homes: dict[Path, _Home] = {}
    to_try: defaultdict[Path, list[tuple[str, Path]]] = defaultdict(list)
    for path in paths:
        problem = problem_of_picture(path)
        file = None if problem else local_file(path)
        if file is not None:
            home = homes.get(file.parent)
            if home is None:
                home = homes[file.parent] = _home_of(file.parent)
            problem = home.problem or _problem_of_file(file, overwrite=overwrite)
            if problem is None and (overwrite or not os.path.lexists(file)):
                to_try[home.folder].append((path, file.relative_to(home.folder)))
        if problem:
            refused[path] = problem
    for folder, names in to_try.items():
        try:
            refused |= _refused_by_disk(folder, names)
        except StorageFailed as error:
            why = error.__cause__
            if not isinstance(why, OSError) or why.errno not in _FORBIDDEN:
                raise
            problem = f"cannot be made, since no file can be in {str(folder)!r}: {why.strerror}"
            refused |= {path: problem for path, _ in names}
    return refused


def _problem_of_file(file: Path, *, overwrite: bool) -> str | None:
    """Return why what is in a picture's place, or in that of its sidecar, is in its way."""
    for each in (file, file.with_name(file.name + SIDECAR_SUFFIX)):
        if os.path.islink(each) and not os.path.exists(each):  # which are no error for a name that no disk takes
            return f"is a symbolic link that leads nowhere, or has one as its sidecar: {str(each)!r}"
        if overwrite and os.path.lexists(each) and not _is_replaceable(each):
            return f"may not be replaced by this account, since it is another's in a sticky folder: {str(each)!r}"
    return None


def _is_replaceable(file: Path) -> bool:
    folder, me = file.parent.stat(), os.geteuid()
    is_sticky = folder.st_mode & stat.S_ISVTX
    return not is_sticky or me in (0, folder.st_uid, file.lstat().st_uid)


def _home_of(folder: Path) -> _Home:
    while not os.path.lexists(folder):  # which is no error for a name that no disk takes
        folder = folder.parent
    if folder.is_dir():
        return _Home(folder)
    return _Home(folder, f"needs a folder where something else is: {str(folder)!r}")


def _refused_by_disk(home: Path, names: list[tuple[str, Path]]) -> dict[str, str]:
    refused: dict[str, str] = {}
    with _trial(home) as trial:
        for path, name in names:
            if ".." in name.parts or all(map(is_portable, name.parts)):
                continue
            try:
                _try_name(trial, name)
            except (OSError, ValueError) as error:
                (trial / _PART).unlink(missing_ok=True)
                if getattr(error, "errno", None) in _OF_NO_NAME:
                    raise _unwritable(home, error) from error
                why = getattr(error, "strerror", None) or error
                refused[path] = f"is a name that the disk at {str(home)!r} refuses: {why}"
    return refused


@contextmanager
def _trial(home: Path) -> Iterator[Path]:
    """Give a folder of our own on the same disk, in which a file can be made."""
    trial = home / f".pictory-{uuid4().hex}.part"
    try:
        try:
            trial.mkdir()
            _make(trial / "picture.part")
        except OSError as error:
            raise _unwritable(home, error) from error
        yield trial
    finally:
        shutil.rmtree(trial, ignore_errors=True)


def _try_name(trial: Path, name: Path) -> None:
    """Put files of a picture's name, and of the longest that belongs to it, in place as they are saved.

    :raises OSError: if the disk refuses it.
    :raises ValueError: if no disk could take it.
    """
    part, picture = trial / _PART, trial / name
    longest = picture.with_name(longest_name(picture.name))
    picture.parent.mkdir(parents=True, exist_ok=True)
    _make(part)
    move_into_place(part, picture, overwrite=False)
    picture.replace(longest)
    longest.unlink()
    part.unlink(missing_ok=True)


def _make(file: Path) -> None:
    file.open("xb").close()


def _unwritable(home: Path, error: OSError | ValueError) -> StorageFailed:
    return StorageFailed(
        f"No file can be made in {str(home)!r}: {getattr(error, 'strerror', None) or error}. Nothing was sent and "
        "nothing was spent. Check the folder, its permissions and its space."
    )
