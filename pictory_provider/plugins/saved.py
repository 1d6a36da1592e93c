# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""May this saved picture be shown, and which bytes are it?

XComs can be edited over Airflow's API, so what one says is a claim. A file is shown where all of this holds:

- its path is under an entry of ``[pictory] gallery_paths``, links resolved; nothing is by default;
- it is a regular file that begins as a PNG, JPEG or WebP does, no larger than 100 MiB;
- it has the size and the SHA-256 that the task's record names. So whoever writes another picture's path into an
  XCom sees it only if he knows its bytes already.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from pictory_provider.images.paths import object_storage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_BYTES = 100 * 1024 * 1024
"""The same as the default of ``max_bytes`` where a picture is saved."""
LONGEST_PATH = 4_096
"""Characters: no file has a longer one, and resolving such would take minutes."""
CHUNK = 256 * 1024
_IN_MEMORY = 4 * 1024 * 1024
_SHA256 = re.compile(r"[0-9a-f]{64}")
_HEAD = 12


class NotShown(Exception):
    """There is no such picture, or it must not be shown. Which of the two is for the server's log alone."""


class Claim(NamedTuple):
    """What a record says of the file that was saved."""

    path: str
    size: int
    sha256: str

    @classmethod
    def of(cls, record: Any) -> Claim:
        """Return what an image record claims.

        :raises NotShown: where it names no file.
        """
        path, size, sha256 = (
            record.get(name) if isinstance(record, dict) else None for name in ("path", "size", "sha256")
        )
        if not isinstance(path, str) or type(size) is not int or not isinstance(sha256, str):
            raise NotShown("the record names no file")
        if len(path) > LONGEST_PATH or not path.isprintable():
            raise NotShown("the path cannot be one")
        if not 0 < size <= MAX_BYTES or not _SHA256.fullmatch(sha256):
            raise NotShown("the record's size or digest cannot be")
        return cls(path, size, sha256)


def record_of(value: Any, number: int) -> Any:
    """Return one image record of an XCom: its value, or one of a list."""
    if isinstance(value, list):
        return value[number] if 0 <= number < len(value) else None
    return value if number == 0 else None


def place_of(path: str, allowed: Sequence[str]) -> tuple[str, list[str]] | str:
    """Return where an allowed file lies: a folder and the names below it, or the URL of an object.

    :param allowed: absolute local folders, and URLs such as ``s3://bucket/folder``.
    :raises NotShown: where no entry allows it.
    """
    if "\0" in path or ".." in re.split(r"[/\\]", path):
        raise NotShown("the path goes up")
    if "://" in path:
        url = path if not path.startswith("file:") else ""
        for entry in allowed:
            if "://" in entry and not entry.startswith("file:") and url.startswith(entry.rstrip("/") + "/"):
                return url
        raise NotShown("no entry of gallery_paths allows the object")
    if not path.startswith("/"):
        raise NotShown("the path is relative")
    real = os.path.realpath(path)
    for entry in allowed:
        folder = os.path.realpath(entry) if entry.startswith("/") else "/"
        if folder != "/" and real.startswith(folder + "/"):
            return folder, real[len(folder) + 1 :].split("/")
    raise NotShown("no entry of gallery_paths allows the file")


def opened(claim: Claim, allowed: Sequence[str]) -> tuple[IO[bytes], str]:
    """Return the claimed picture, at its first byte, and its media type.

    :raises NotShown: where it is not there, not allowed, or another than claimed.
    """
    try:
        place = place_of(claim.path, allowed)
        file = _fetched(place, claim.size) if isinstance(place, str) else _below(*place)
    except (OSError, ValueError, ImportError) as error:
        raise NotShown(f"it cannot be read: {error}") from error
    try:
        return file, _checked(file, claim)
    except BaseException:
        file.close()
        raise


def chunks(file: IO[bytes], size: int) -> Iterator[bytes]:
    """Yield a file from where it stands, so many bytes at most, and close it."""
    with file:
        while size > 0 and (chunk := file.read(min(CHUNK, size))):
            size -= len(chunk)
            yield chunk


def _below(folder: str, names: list[str]) -> IO[bytes]:
    """Open a file, following no link: what was resolved may have been replaced since."""
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        for name in names[:-1]:
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = below
        file = os.open(names[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=at)
    finally:
        with suppress(OSError):
            os.close(at)
    return os.fdopen(file, "rb")


def _fetched(url: str, size: int) -> IO[bytes]:
    """Return a copy of an object, up to one byte more than it should have."""
    copy = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115  its reader closes it
    try:
        with object_storage("path", url).open("rb") as source:
            left = size + 1
            while left > 0 and (chunk := source.read(min(CHUNK, left))):
                copy.write(chunk)
                left -= len(chunk)
    except BaseException as error:
        copy.close()
        if isinstance(error, Exception):  # of whichever library reads that storage
            raise OSError(f"{type(error).__name__}: {error}") from error
        raise
    copy.seek(0)
    return copy


def _checked(file: IO[bytes], claim: Claim) -> str:
    """Return the media type of a file that is what was claimed."""
    if not isinstance(file, tempfile.SpooledTemporaryFile):
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size != claim.size:
            raise NotShown("it is no file of the size on record")
    kind = media_type(file.read(_HEAD))
    if kind is None:
        raise NotShown("it is neither PNG nor JPEG nor WebP")
    file.seek(0)
    digest, size = hashlib.sha256(), 0
    while chunk := file.read(CHUNK):
        size += len(chunk)
        if size > claim.size:
            raise NotShown("it has grown")
        digest.update(chunk)
    if size != claim.size or digest.hexdigest() != claim.sha256:
        raise NotShown("it is not the picture on record")
    file.seek(0)
    return kind


def media_type(head: bytes) -> str | None:
    """Return the media type of what begins like that."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    return None
