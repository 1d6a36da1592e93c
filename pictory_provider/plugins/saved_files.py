# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Open a saved picture for the pages, if it may be shown.

XComs can be edited over Airflow's API, so their content is only a claim. A file is shown if:

- its path, with links resolved, is under an entry of ``[pictory] gallery_paths``, which is empty by default;
- it is a regular file that begins like a PNG, JPEG or WebP file, and is not larger than 100 MiB;
- it has the size and the SHA-256 that the task's record names. A user who writes the path of another picture into
  an XCom therefore sees that picture only if they already know its bytes.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from pictory_provider.storage.paths import object_storage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_BYTES = 100 * 1024 * 1024
"""The same as the default of ``max_bytes`` for saving a picture."""
LONGEST_PATH = 4_096
"""Characters: no file has a longer path, and resolving a longer one would take minutes."""
CHUNK = 256 * 1024
_IN_MEMORY = 4 * 1024 * 1024
_SHA256 = re.compile(r"[0-9a-f]{64}")
_HEAD = 12


class NotShown(Exception):
    """There is no such picture, or it may not be shown. Only the server's log says which."""


class Claim(NamedTuple):
    """What a record says about the saved file."""

    path: str
    size: int
    sha256: str

    @classmethod
    def from_record(cls, record: Any) -> Claim:
        """Return what an image record claims.

        :raises NotShown: if it does not name a file.
        """
        path, size, sha256 = (
            record.get(name) if isinstance(record, dict) else None for name in ("path", "size", "sha256")
        )
        if not isinstance(path, str) or type(size) is not int or not isinstance(sha256, str):
            raise NotShown("the record names no file")
        if len(path) > LONGEST_PATH or not path.isprintable():
            raise NotShown("the path is invalid")
        if not 0 < size <= MAX_BYTES or not _SHA256.fullmatch(sha256):
            raise NotShown("the record's size or digest is invalid")
        return cls(path, size, sha256)


def find_record(value: Any, sha256: str) -> Any:
    """Return the image record with this digest, which is an XCom's value or an item of it; ``None`` for none.

    Pictures are requested by digest and not by position, because positions change while a batch runs.
    """
    records = value if isinstance(value, list) else [value]
    return next((one for one in records if isinstance(one, dict) and one.get("sha256") == sha256), None)


def locate(path: str, allowed: Sequence[str]) -> tuple[str, list[str]] | str:
    """Return the location of an allowed file: a folder and the names below it, or the URL of an object.

    :param allowed: absolute local folders, and URLs such as ``s3://bucket/folder``.
    :raises NotShown: if no entry allows it.
    """
    if "\0" in path or ".." in re.split(r"[/\\]", path):
        raise NotShown("the path has '..' or a null byte")
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


def open_picture(claim: Claim, allowed: Sequence[str]) -> tuple[IO[bytes], str]:
    """Return the claimed picture, at its first byte, and its media type.

    :raises NotShown: if it does not exist, is not allowed, or differs from the claim.
    """
    try:
        location = locate(claim.path, allowed)
        file = _copy_object(location, claim.size) if isinstance(location, str) else _open_below(*location)
    except (OSError, ValueError, ImportError) as error:
        raise NotShown(f"it cannot be read: {error}") from error
    try:
        return file, _check(file, claim)
    except BaseException:
        file.close()
        raise


def chunks(file: IO[bytes], size: int) -> Iterator[bytes]:
    """Yield at most ``size`` bytes from a file's current position, and close it."""
    with file:
        while size > 0 and (chunk := file.read(min(CHUNK, size))):
            size -= len(chunk)
            yield chunk


def _open_below(folder: str, names: list[str]) -> IO[bytes]:
    """Open a file without following links: a folder of the resolved path may have been replaced since."""
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


def _copy_object(url: str, size: int) -> IO[bytes]:
    """Return a copy of an object, up to one byte more than the claimed size."""
    copy = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115  the caller closes it
    try:
        with object_storage("path", url).open("rb") as source:
            left = size + 1
            while left > 0 and (chunk := source.read(min(CHUNK, left))):
                copy.write(chunk)
                left -= len(chunk)
    except BaseException as error:
        copy.close()
        if isinstance(error, Exception):  # of any library that reads this storage
            raise OSError(f"{type(error).__name__}: {error}") from error
        raise
    copy.seek(0)
    return copy


def _check(file: IO[bytes], claim: Claim) -> str:
    """Return the media type of a file that matches the claim."""
    if not isinstance(file, tempfile.SpooledTemporaryFile):
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size != claim.size:
            raise NotShown("it is not a regular file of the recorded size")
    kind = media_type(file.read(_HEAD))
    if kind is None:
        raise NotShown("it is neither PNG nor JPEG nor WebP")
    file.seek(0)
    digest, size = hashlib.sha256(), 0
    while chunk := file.read(CHUNK):
        size += len(chunk)
        if size > claim.size:
            raise NotShown("it is larger than recorded")
        digest.update(chunk)
    if size != claim.size or digest.hexdigest() != claim.sha256:
        raise NotShown("it is not the recorded picture")
    file.seek(0)
    return kind


def media_type(head: bytes) -> str | None:
    """Return the media type of a file that begins with these bytes; ``None`` for any other kind."""
    signatures = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for signature, kind in signatures.items() if head.startswith(signature)), None)
