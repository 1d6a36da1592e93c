# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Reference images that Pictory cannot read by itself: sign the URL of a private object, or read a file to upload.

Pictory reads only public ``http(s)`` URLs (https://docs.pictory.ai/api-reference/ai-studio/generate-image), and a
catalogue's pictures are often private. So an object's URL is signed right before the paid request: for an hour, it
allows anyone who has it to read this one object. It is sent to Pictory only.

With ``reference_upload`` a local file, or an object whose storage cannot sign, is uploaded instead
(:mod:`pictory_provider.services.uploads`). Here it is read and checked. Records name it by its bytes, so that
another file of the same path makes another request.
"""

from __future__ import annotations

import hashlib
import logging
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from pictory_provider.api.checks import UPLOAD_HINT, is_object, upload_name
from pictory_provider.api.errors import (
    NOTHING_SPENT,
    ImageInvalid,
    PictoryError,
    RequestInvalid,
    StorageFailed,
    Unavailable,
)
from pictory_provider.api.text import counted
from pictory_provider.media.formats import PictureChecker
from pictory_provider.storage.paths import object_storage
from pictory_provider.storage.target import Target

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pictory_provider.api.models import ImageRequest

LIFETIME = 3600
"""Seconds that a signed URL is valid: a job may wait in Pictory's queue before the image is read."""
MAX_BYTES = 20 * 1024 * 1024
"""The largest picture that is uploaded. Our value: Pictory names none. It is sent from memory, and a batch sends
eight at a time; a camera's JPEG has up to about 15 MiB."""
_UPLOADED_KINDS = ("PNG", "JPEG")
"""The formats that Pictory lists for uploads (api-reference/media-management/generate-signed-url)."""
_KINDS_ARE = "Pictory lists PNG and JPEG files for uploads: convert it, or use a public URL."
_FIELD = "reference_image_url"
_UNREAD = "0" * 64
"""The digest in the name of a file that could not be read."""


class ReferenceFile(NamedTuple):
    """A reference image that can be uploaded.

    :param name: in records (:func:`~pictory_provider.api.checks.upload_name`).
    """

    name: str
    content_type: str
    content: bytes


class References:
    """The reference images of one task that are to be uploaded.

    :param is_on: whether the user allows uploads; otherwise every reference image stays as it is.
    :ivar names: in records, by the paths of the files that were read.
    :ivar has_read: whether :meth:`identify` has read any.
    :ivar problem: why :meth:`name_of` could not read a file.
    """

    def __init__(self, *, is_on: bool = True) -> None:
        self.is_on = is_on
        self.names: dict[str, str] = {}
        self.has_read = False
        self.problem: PictoryError | None = None
        self._paths: dict[str, str] = {}
        self._can_sign: dict[int, tuple[Any, bool]] = {}

    def identify(self, url: Any) -> Any:
        """Return the name in records of a reference image that is to be uploaded. It is read once.

        :return: any other value unchanged: a public URL, an object whose storage signs, nothing.
        :raises RequestInvalid: if it is not a picture that can be uploaded.
        :raises StorageFailed: if it cannot be read.
        """
        if not self.is_on or not isinstance(url, str) or url.lower().startswith(("http:", "https:")):
            return url
        if url not in self.names:
            if is_object(url) and self._is_signed(url):
                return url
            self.remember({url: read_reference(url).name})
            self.has_read = True
        return self.names[url]

    def name_of(self, url: Any) -> Any:
        """Do as :meth:`identify`, but keep an error in :attr:`problem`, and return a name without a digest then.

        A job that is paid for is adopted even if its reference image is gone.
        """
        try:
            return self.identify(url)
        except PictoryError as error:
            self.problem = error
            return upload_name("unread", _UNREAD)

    def remember(self, names: Mapping[str, str]) -> None:
        """Take the names of files that were read before."""
        self.names.update(names)
        self._paths.update({name: path for path, name in names.items()})

    def open(self, name: str) -> ReferenceFile:
        """Read a reference image again, to upload it.

        :param name: in records.
        :raises RequestInvalid: if it is not among those that were read, or has other bytes now.
        :raises StorageFailed: if it cannot be read.
        """
        path = self._paths.get(name)
        if path is None and self.problem:
            raise self.problem
        if path is None:
            raise RequestInvalid.unsent(
                f"{_FIELD} {name!r} is the name of an upload in records, and not a file",
                "Pass the file, and set reference_upload=True.",
                fields=[_FIELD],
            )
        file = read_reference(path)
        if file.name != name:
            raise RequestInvalid.unsent(
                f"{_FIELD} {path!r} has changed while the task was running, so it was not uploaded",
                "Clear the task, so that it takes the new picture.",
                fields=[_FIELD],
            )
        return file

    def _is_signed(self, url: str) -> bool:
        """Whether a storage signs URLs. It is asked once; why it fails is found again right before the request."""
        image = object_storage(_FIELD, url)
        if id(image.fs) not in self._can_sign:
            try:
                _sign(image)
                can_sign = True
            except Exception as error:
                can_sign = not isinstance(error, NotImplementedError)
            self._can_sign[id(image.fs)] = image.fs, can_sign
        return self._can_sign[id(image.fs)][1]


def read_reference(path: str) -> ReferenceFile:
    """Read a picture that is to be uploaded, and check that it is complete.

    :param path: an absolute local path, a ``file://`` URL, or an object.
    :raises RequestInvalid: if it does not exist, is too large, or is not a complete PNG or JPEG file.
    :raises StorageFailed: if its storage does not answer.
    """
    if "\0" in path:
        raise _refused(path, "contains a NUL character")
    target = Target(path, field=_FIELD)
    content, checker = bytearray(), PictureChecker()
    try:
        size = target.size()
        if size is None:
            raise _refused(path, "does not exist", "Check that this worker has access to its storage.")
        if size == 0:
            raise _refused(path, "is empty", "Was it written completely?")
        for piece in target.pieces():
            content += piece
            if len(content) > MAX_BYTES:
                raise _refused(
                    path, f"has more than {counted(MAX_BYTES, 'byte')}", "Reduce its size, or use a public URL."
                )
            checker.feed(piece)
        kind = checker.finish()
    except ImageInvalid as error:
        raise _refused(path, f"is not a complete picture. {error.message.rstrip('.')}", _KINDS_ARE) from None
    except StorageFailed as error:
        if target.is_on_disk and isinstance(error.__cause__, PermissionError):
            raise _refused(path, "may not be read by this worker's account") from None
        raise StorageFailed(f"{error.message} {NOTHING_SPENT}") from error
    if kind.kind not in _UPLOADED_KINDS:
        raise _refused(path, f"is a {kind.kind} file", _KINDS_ARE)
    name = upload_name(target.file_name, hashlib.sha256(content).hexdigest())
    return ReferenceFile(name, kind.content_type, bytes(content))


def readable(request: ImageRequest) -> ImageRequest:
    """Return a request whose reference image Pictory can read, unless it is to be uploaded.

    :raises RequestInvalid: if the object does not exist, or its storage cannot sign.
    :raises Unavailable: if the storage does not answer.
    """
    url = request.reference_image_url
    return replace(request, reference_image_url=_signed(url)) if url and is_object(url) else request


def _signed(url: str) -> str:
    image = object_storage(_FIELD, url)
    try:
        if not image.fs.exists(image.path):
            raise RequestInvalid.unsent(f"{_FIELD} {url!r} does not exist", fields=[_FIELD])
        return _sign(image)
    except RequestInvalid:
        raise
    except NotImplementedError:
        raise RequestInvalid.unsent(
            f"{_FIELD} {url!r} cannot be signed by its storage, and Pictory reads only public http(s) URLs",
            f"Copy it to a public URL, or to a storage that signs URLs (S3, GCS, Azure). {UPLOAD_HINT}",
            fields=[_FIELD],
        ) from None
    except Exception as error:  # each client of an object storage has its own error classes
        raise Unavailable.unsent(
            f"{_FIELD} {url!r} could not be signed: {type(error).__name__}: {error}",
            "Check the connection of that storage, and its permission to read.",
        ) from None


def _sign(image: Any) -> str:
    with _quiet():
        return str(image.fs.sign(image.path, expiration=LIFETIME))


def _refused(path: str, problem: str, what_now: str = "") -> RequestInvalid:
    return RequestInvalid.unsent(f"{_FIELD} {path!r} {problem}", what_now, fields=[_FIELD])


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep signatures out of botocore's DEBUG logs."""
    log = logging.getLogger("botocore.auth")
    level = log.level
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
