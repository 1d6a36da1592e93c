# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""One file at a path: a picture, a sidecar, a table or a part of a batch's record."""

from __future__ import annotations

import hashlib
import math
import os
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO, NamedTuple
from uuid import uuid4

from pictory_provider.api.errors import ImageInvalid, RequestInvalid, StorageFailed
from pictory_provider.api.text import counted
from pictory_provider.api.timing import TIMING
from pictory_provider.core.sidecar import SavedFile
from pictory_provider.media.formats import PictureChecker
from pictory_provider.storage.errors import (
    READING,
    WRITING_PICTURE,
    WRITING_SIDECAR,
    may_not_replace,
    not_replaceable,
    storage_errors,
)
from pictory_provider.storage.files import PIECE, AlreadyExists, Changed, Content, Headers, LocalFiles
from pictory_provider.storage.objects import ObjectFiles
from pictory_provider.storage.paths import check_path, folder, local_file, object_storage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from pictory_provider.media.formats import Picture
    from pictory_provider.storage.files import Files

JSON, JSON_LINES = Headers("application/json"), Headers("application/x-ndjson")


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


class Received:
    """A complete, checked picture in a temporary file."""

    def __init__(self, file: Path, picture: Picture, *, size: int, sha256: str) -> None:
        self.file = file
        self.picture = picture
        self.size = size
        self.sha256 = sha256

    def as_saved_file(self, *, ai_credits_used: float | None, saved_at: float | None) -> SavedFile:
        """Return the description of this picture for a sidecar."""
        picture = self.picture
        return SavedFile(
            size=self.size,
            sha256=self.sha256,
            width=picture.width,
            height=picture.height,
            ai_credits_used=ai_credits_used,
            marks=picture.marks,
            saved_at=saved_at,
            digital_source_type=picture.digital_source_type,
            is_examined=bool(picture.marks) or picture.kind != "PNG",  # a PNG without marks can still be marked
        )

    def edit(self, edits: Sequence[tuple[int, int, bytes]]) -> None:
        """Replace bytes in the file. :attr:`picture` is not updated.

        :param edits: an offset, the number of bytes to leave out there, and their replacement; sorted by offset.
        :raises OSError: if it cannot be written.
        """
        whole, digest, size = self.file.with_suffix(".marked.part"), hashlib.sha256(), 0
        try:
            with self.file.open("rb") as old, whole.open("xb") as new:
                for piece in _edited(old, edits):
                    digest.update(piece)
                    size += new.write(piece)
                new.flush()
                os.fsync(new.fileno())
            whole.replace(self.file)
        finally:
            whole.unlink(missing_ok=True)
        self.size = size
        self.sha256 = digest.hexdigest()


class Target:
    """A file to be read or written.

    :param path: as for :func:`locate`.
    :param writing: the texts of a :class:`StorageFailed` of :meth:`write`, :meth:`remove` and :meth:`swap`, before
        and after the path and the reason.
    :param headers: of what :meth:`write` and :meth:`swap` write.
    :param cache_control: the HTTP header ``Cache-Control`` of a picture in object storage; ``None`` for none.
    :param field: the argument's name, for the texts.
    :raises RequestInvalid: for an empty path, and as :func:`locate`.
    """

    def __init__(
        self,
        path: str,
        *,
        writing: tuple[str, str] = WRITING_SIDECAR,
        headers: Headers = JSON,
        cache_control: str | None = None,
        field: str = "path",
    ) -> None:
        self.path = check_path(path, field)
        self._writing = writing
        self._headers = headers
        self._cache_control = cache_control
        self.has_created = False
        """Whether :meth:`place` has created or replaced the file; it may also have found the same bytes there."""
        self._field = field
        self._files, self._name, self.uri = locate(self.path, field)

    @property
    def is_on_disk(self) -> bool:
        """Whether it is a local file, not an object in object storage."""
        return self._files.is_disk

    @property
    def file_name(self) -> str:
        """Its name, without its folder."""
        return self._name.rpartition("/")[2]

    @contextmanager
    def receive(self, pieces: Iterable[bytes], *, max_bytes: int) -> Iterator[Received]:
        """Write a picture's bytes to a temporary file, and check them as they arrive.

        The temporary file is removed at the end of the block in any case.

        :raises ImageInvalid: if it is not a whole picture, or larger than ``max_bytes``.
        :raises StorageFailed: if the folder cannot be created or written.
        """
        home = self._files.home(self._name)
        part = home / f".pictory-{uuid4().hex}.part"
        with self._errors():
            home.mkdir(parents=True, exist_ok=True)
            file = part.open("xb")
        try:
            received = self._fill(file, part, pieces, max_bytes)
            with self._errors():
                file.close()
            yield received
        finally:
            with suppress(OSError):
                file.close()  # after a full disk this tries to write the rest again, and fails again
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def edit(self, received: Received, edits: Sequence[tuple[int, int, bytes]]) -> None:
        """Replace bytes of a received picture, as :meth:`Received.edit`.

        :raises StorageFailed: if it cannot be written.
        """
        with self._errors():
            received.edit(edits)

    def place(self, received: Received, *, overwrite: bool) -> bool:
        """Move a received picture to its path, in one step. In object storage it gets its content type.

        :return: whether it is there; ``False`` if another file exists and ``overwrite`` is off. An existing file
            with the same bytes counts as success.
        :raises StorageFailed: if it cannot be written.
        """
        with self._errors():
            headers = Headers(received.picture.content_type, self._cache_control)
            self.has_created = self._files.place(received.file, self._name, headers, overwrite=overwrite)
        return self.has_created or self.digest() == received.sha256

    def size(self) -> int | None:
        """Return the file's bytes; ``None`` if it does not exist.

        :raises RequestInvalid: for a folder, and for a broken symbolic link.
        :raises StorageFailed: if the storage does not say.
        """
        with self._errors(READING):
            found = self._files.stat(self._name)
        if found is None:
            return None
        if found.is_folder:
            raise folder(self.path, self._field)
        if found.size is None:
            raise RequestInvalid.unsent(
                f"{self._field} {self.path!r} is a broken symbolic link",
                "Check whether a mount is missing.",
                fields=[self._field],
            )
        return found.size

    def pieces(self) -> Iterator[bytes]:
        """Yield the file's content in pieces.

        :raises StorageFailed: if it cannot be read.
        """
        with self._errors(READING):
            yield from self._files.pieces(self._name)

    def write(self, data: bytes) -> None:
        """Write a small file in one step, and create its folders.

        On a local disk it survives a loss of power once this returns.

        :raises StorageFailed: if it cannot be written.
        """
        with self._errors(self._writing):
            self._files.put(self._name, data, self._headers)

    def remove(self) -> None:
        """Remove the file; a missing file counts as success.

        :raises StorageFailed: if it cannot be removed.
        """
        with self._errors(self._writing):
            self._files.remove(self._name)

    def read(self) -> Content | None:
        """Return the content of a small file, with one request; ``None`` for no file.

        :raises StorageFailed: if it cannot be read.
        """
        with self._errors(READING):
            return self._files.read(self._name)

    def swap(self, seen: Content | None, data: bytes | None, *, is_patient: bool = False) -> Content | None:
        """Write or remove the file if it is still what was last seen, also if several processes do it at once.

        :param seen: what was last read or written; ``None`` for no file.
        :param data: the new content, which no other task writes; ``None`` removes the file.
        :param is_patient: wait for the lock of a local folder without a limit, as a paid job is to be recorded.
        :return: what is there now.
        :raises Changed: if something else was there.
        :raises StorageFailed: if it cannot be read or written.
        """
        files, most = self._files, math.inf if is_patient else TIMING.lock
        try:
            with self._errors(self._writing):
                if data is None:
                    if seen is not None:
                        files.delete(self._name, seen, most=most)
                    return None
                if seen is None:
                    return files.create(self._name, data, self._headers, most=most)
                return files.replace(self._name, data, seen, self._headers, most=most)
        except AlreadyExists as error:
            raise Changed(self.path) from error

    def announce(self, data: bytes) -> Content:
        """Create the file, and check that it can be replaced, before anything is bought.

        An account of an object storage may be allowed to create objects and not to replace them, or the storage
        may keep objects from being replaced. So an object is first created with a blank line at its end, and then
        replaced.

        :raises Changed: if a file exists.
        :raises RequestInvalid: if it may not be replaced.
        :raises StorageFailed: if it cannot be written.
        """
        if self.is_on_disk:  # creating and replacing a local file need the same permission
            created = self.swap(None, data)
            assert created is not None
            return created
        draft = data + b"\n"
        created = self.swap(None, draft)
        try:
            replaced = self.swap(created, data)
        except StorageFailed as error:
            raise not_replaceable(self.path, error) from error.__cause__
        except Changed:
            found = self.read()
            if found is not None and found.data == draft:
                raise may_not_replace(self.path, "the storage keeps the object as it is") from None
            raise
        assert replaced is not None
        return replaced

    def digest(self) -> str:
        """Return the SHA-256 of the file, in hexadecimal.

        :raises StorageFailed: if it cannot be read.
        """
        digest = hashlib.sha256()
        for piece in self.pieces():
            digest.update(piece)
        return digest.hexdigest()

    def _fill(self, file: BinaryIO, part: Path, pieces: Iterable[bytes], max_bytes: int) -> Received:
        checker, digest = PictureChecker(), hashlib.sha256()
        for piece in pieces:
            checker.feed(piece)
            if checker.size > max_bytes:
                raise too_large(max_bytes)
            digest.update(piece)
            with self._errors():
                file.write(piece)
        picture = checker.finish()
        with self._errors():
            file.flush()
            os.fsync(file.fileno())
        return Received(part, picture, size=checker.size, sha256=digest.hexdigest())

    def _errors(self, texts: tuple[str, str] = WRITING_PICTURE) -> AbstractContextManager[None]:
        return storage_errors(self.path, *texts)


def too_large(max_bytes: int) -> ImageInvalid:
    """Return the error for a picture that is larger than allowed."""
    return ImageInvalid(
        f"The picture is larger than max_bytes, {counted(max_bytes, 'byte')}. "
        "To save pictures of that size, use DownloadImageOperator(max_bytes=...)."
    )


def _edited(old: BinaryIO, edits: Sequence[tuple[int, int, bytes]]) -> Iterator[bytes]:
    for offset, length, data in edits:
        while (left := offset - old.tell()) > 0 and (piece := old.read(min(left, PIECE))):
            yield piece
        old.seek(offset + length)
        yield data
    while piece := old.read(PIECE):
        yield piece
