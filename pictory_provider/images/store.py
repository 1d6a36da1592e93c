# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Put a picture where it should go: whole or not at all, on a local disk or in object storage."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import tempfile
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from pictory_provider.api.errors import ImageInvalid, PictoryError, RequestInvalid, StorageFailed
from pictory_provider.images.formats import Picture, PictureChecker

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DEFAULT_MAX_BYTES = 100 * 1024 * 1024
_PIECE = 1024 * 1024
_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)
"""What a file system answers that knows no hard links, the only way to place a file without replacing one."""


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
        whole, digest = self.file.with_suffix(".whole"), hashlib.sha256()
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
    :raises RequestInvalid: for a relative or empty path, for a ``file://`` URL with a host, ``?`` or ``#``, and
        for a scheme that Airflow has no filesystem for.
    """

    def __init__(self, path: str) -> None:
        if not isinstance(path, (str, os.PathLike)) or str(path).strip() in ("", "None"):
            raise RequestInvalid(f"path is missing: got {path!r}. Nothing was downloaded.", fields=["path"])
        self.path = str(path)
        scheme = urlsplit(self.path).scheme if "://" in self.path else ""
        self.local: Path | None = None
        self._remote: Any = None
        if scheme in ("", "file"):
            self.local = Path(_path_of_file_url(self.path) if scheme else self.path)
            if not self.local.is_absolute():
                raise RequestInvalid(
                    f"path {self.path!r} is relative. Nothing was downloaded. Workers differ in their "
                    "working directory: use an absolute path, or a URL such as s3://bucket/key.png.",
                    fields=["path"],
                )
        else:
            self._remote = _object_storage(self.path)

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
        folder = self.local.parent if self.local else Path(tempfile.gettempdir())
        part = folder / f".pictory-{uuid4().hex}.part"
        with self._storing():
            folder.mkdir(parents=True, exist_ok=True)
            file = part.open("xb")
        try:
            with file:
                received = self._fill(file, part, pieces, max_bytes)
            yield received
        finally:
            part.unlink(missing_ok=True)

    def insert(self, received: Received, offset: int, data: bytes) -> None:
        """Put bytes into the middle of a received picture.

        :raises StorageFailed: where it cannot be written.
        """
        with self._storing():
            received.insert(offset, data)

    def place(self, received: Received, *, overwrite: bool) -> None:
        """Put a received picture in its place, in one step.

        The same bytes already there are a success.

        :raises RequestInvalid: where something else is there and ``overwrite`` is off.
        :raises StorageFailed: where it cannot be written.
        """
        with self._storing():
            if self.local:
                self._place_locally(received, self.local, overwrite=overwrite)
            else:
                self._upload(received, overwrite=overwrite)

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

    def _place_locally(self, received: Received, target: Path, *, overwrite: bool) -> None:
        if overwrite:
            received.file.replace(target)
            return
        try:
            os.link(received.file, target)
        except FileExistsError:
            with target.open("rb") as there:
                self._accept_if_same(there, received)
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS or target.exists():
                raise
            received.file.replace(target)

    def _upload(self, received: Received, *, overwrite: bool) -> None:
        target = self._remote
        if not overwrite and target.exists():
            with target.open("rb") as there:
                self._accept_if_same(there, received)
            return
        try:
            target.fs.put_file(str(received.file), target.path)
        except FileNotFoundError:
            # Folders are made where a storage has them, but never its root: that would be a new bucket.
            root = re.match("/?[^/]*", target.path)
            if root is None or not target.fs.exists(root[0]):
                raise
            target.parent.mkdir(parents=True, exist_ok=True)
            target.fs.put_file(str(received.file), target.path)

    def _accept_if_same(self, there: BinaryIO, received: Received) -> None:
        digest = hashlib.sha256()
        while piece := there.read(_PIECE):
            digest.update(piece)
        if digest.hexdigest() != received.sha256:
            raise RequestInvalid(
                f"path {self.path!r} already holds something else. It was left as it is, and the new "
                "picture was not saved. Choose another path, one with the run in it for example, or set "
                "overwrite=True.",
                fields=["path"],
            )

    @contextmanager
    def _storing(self) -> Iterator[None]:
        try:
            yield
        except PictoryError:
            raise
        except Exception as error:  # the clients of object storages have errors of their own kinds
            why = getattr(error, "strerror", None) or error
            raise StorageFailed(
                f"The picture could not be written to {self.path!r}: {why}. It is still "
                "at Pictory, and saving it again is free. Check the folder, its permissions and its space."
            ) from error


def _path_of_file_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or "?" in url or "#" in url:
        raise RequestInvalid(
            f"path {url!r} names another file than it seems to. Nothing was downloaded. A file URL has three "
            "slashes and no host (file:///srv/a.png), and `?` and `#` in it are written %3F and %23; or pass the "
            "plain path, in which every character is part of the name.",
            fields=["path"],
        )
    return unquote(parts.path)


def _object_storage(path: str) -> Any:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    target: Any = ObjectStoragePath(path)
    try:
        target.fs  # noqa: B018  found, or not, by looking
    except (ValueError, ImportError) as error:
        raise RequestInvalid(
            f"path {path!r} has a scheme that Airflow knows no filesystem for: {error}. Nothing was "
            "downloaded. Install its provider on the workers, as with airflow-provider-pictory[s3], [gcs] "
            "or [azure].",
            fields=["path"],
        ) from error
    return target


def too_large(max_bytes: int) -> ImageInvalid:
    """Return the error for a picture that is larger than allowed."""
    return ImageInvalid(
        f"The picture is larger than max_bytes, {max_bytes:,} bytes. "
        "Raise max_bytes if pictures of that size are expected."
    )
