# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Open a saved picture for the pages, if it may be shown.

XComs can be edited over Airflow's API, so their content is only a claim. A file is shown if:

- its path, with links resolved, is under an entry of ``[pictory] gallery_paths``, which is empty by default;
- it is a regular file that begins like a PNG, JPEG or WebP file, and is not larger than 100 MiB;
- it has the size and the SHA-256 that the task's record names. A user who writes the path of another picture into
  an XCom therefore sees that picture only if they already know its bytes.

A file is hashed once. After that it is recognised by its inode, size and times: each change of its content changes
the time of its last change (``ctime``), which no program can set. An object is recognised by its version.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import tempfile
import time
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any, NamedTuple, cast

from pictory_provider.plugins.shared import Reader, SharedCopy, Turns, Verified
from pictory_provider.storage.target import locate as locate_in_storage

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

MAX_BYTES = 100 * 1024 * 1024
"""The same as the default of ``max_bytes`` for saving a picture."""
LONGEST_PATH = 4_096
"""Characters: no file has a longer path, and resolving a longer one would take minutes."""
CHUNK = 256 * 1024
SETTLED = 2.0
"""Seconds since a file's last change until it is remembered: a file system may count times in steps of 2 s, so two
changes within a step have the same time."""
AVIF = "image/avif"
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


def open_picture(claim: Claim, allowed: Sequence[str], *, with_avif: bool = False) -> tuple[IO[bytes], str]:
    """Return the claimed picture, at its first byte, and its media type.

    :param with_avif: show AVIF files too. Pictory makes none, but a copy of a picture may be one.
    :raises NotShown: if it does not exist, is not allowed, or differs from the claim.
    """
    with _readable():
        location = locate(claim.path, allowed)
        opened = _open_object(location, claim) if isinstance(location, str) else _open_file(*location, claim)
    if opened[1] == AVIF and not with_avif:
        opened[0].close()
        raise NotShown("it is an AVIF file")
    return opened


def check_picture(claim: Claim, allowed: Sequence[str]) -> None:
    """Check the claimed picture, and read it only if it is not known to match the claim.

    :raises NotShown: as :func:`open_picture`.
    """
    with _readable():
        url = locate(claim.path, allowed)
        if not isinstance(url, str):
            _open_file(*url, claim)[0].close()
            return
        files, name, _ = locate_in_storage(url)
        before = files.stat(name)
        if before is None or before.size != claim.size:
            raise NotShown("there is no object of the recorded size")
        identity = (url, before.size, before.version)
        if before.version is not None and verified.get(identity, claim.sha256):
            return
        content, kind = _open_object(url, claim)
        content.close()
        if before.version is not None and files.stat(name) == before:
            verified.add(identity, claim.sha256, kind)


def read_picture(claim: Claim, allowed: Sequence[str]) -> bytes:
    """Return the bytes of the claimed picture, which were compared with the claim themselves.

    :raises NotShown: as :func:`open_picture`.
    """
    with _readable():
        location = locate(claim.path, allowed)
        if isinstance(location, str):
            files, name, _ = locate_in_storage(location)
            found = files.stat(name)
            if found is None or found.size != claim.size:
                raise NotShown("there is no object of the recorded size")
            content = files.read(name)
            data, version = content or (b"", None)
            identity: Hashable = version and (location, claim.size, version)
        else:
            folder, names = location
            path = "/".join((folder, *names))
            with _open_below(folder, names) as file:
                before = _identity(file, path, claim)
                is_settled = _is_settled(before)
                data = file.read(claim.size + 1)
                identity = before if is_settled and _identity(file, path, claim) == before else None
    kind = _check(io.BytesIO(data), claim)
    if identity:
        verified.add(identity, claim.sha256, kind)
    return data


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


@contextmanager
def _readable() -> Iterator[None]:
    """Raise the errors of a storage as :class:`NotShown`."""
    try:
        yield
    except NotShown:
        raise
    except Exception as error:  # each client of an object storage has its own error classes
        raise NotShown(f"it cannot be read: {type(error).__name__}: {error}") from error


class _Identity(NamedTuple):
    """A file and the state of its content."""

    path: str
    device: int
    inode: int
    size: int
    modified: int
    changed: int


verified = Verified()
_turns = Turns()


def _open_file(folder: str, names: list[str], claim: Claim) -> tuple[IO[bytes], str]:
    """Return an open local file and its media type. Hash it if it is not known to match the claim."""
    file, path = _open_below(folder, names), "/".join((folder, *names))
    try:
        identity = _identity(file, path, claim)
        if not _is_settled(identity):
            return file, _check(file, claim)
        with _turns.of((identity, claim.sha256)):
            kind = verified.get(identity, claim.sha256)
            if kind is None:
                kind = _check(file, claim)
                if _identity(file, path, claim) == identity:
                    verified.add(identity, claim.sha256, kind)
        return file, kind
    except BaseException:
        file.close()
        raise


def _identity(file: IO[bytes], path: str, claim: Claim) -> _Identity:
    """Return what a local file is recognised by.

    :raises NotShown: if it is not a regular file of the claimed size.
    """
    found = os.fstat(file.fileno())
    if not stat.S_ISREG(found.st_mode) or found.st_size != claim.size:
        raise NotShown("it is not a regular file of the recorded size")
    return _Identity(path, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _is_settled(identity: _Identity) -> bool:
    """Whether a change of the file from now on would have another time than the last one."""
    return time.time() - identity.changed / 1e9 > SETTLED


def _open_object(url: str, claim: Claim) -> tuple[IO[bytes], str]:
    """Return a temporary copy of an object, which matches the claim, and its media type."""
    key = (url, claim.size, claim.sha256)
    with _turns.of(key):
        copy = SharedCopy.join(key)
        if copy is None:
            file = tempfile.TemporaryFile()  # noqa: SIM115  closed by its last reader
            try:
                _download(url, file, claim.size)
                kind = _check(file, claim)
            except BaseException:
                file.close()
                raise
            copy = SharedCopy(key, file, kind)
    return cast("IO[bytes]", Reader(copy)), copy.kind


def _download(url: str, file: IO[bytes], size: int) -> None:
    """Write an object to a file, up to one byte more than the claimed size."""
    files, name, _ = locate_in_storage(url)
    left = size + 1
    for piece in files.pieces(name):
        left -= file.write(piece[:left])
        if not left:
            break
    file.flush()


def _check(file: IO[bytes], claim: Claim) -> str:
    """Return the media type of a file that matches the claim, and go to its first byte."""
    file.seek(0)
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
    if head[4:12] in (b"ftypavif", b"ftypavis"):
        return AVIF
    return next((kind for signature, kind in signatures.items() if head.startswith(signature)), None)
