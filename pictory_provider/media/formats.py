# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Check that a picture is complete, and find its format, its size and its origin.

Pictory promises PNG files. A paid picture in another format is saved too if it can be checked to be complete: JPEG
(ITU-T T.81, annex B) or WebP (RFC 9649).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from pictory_provider.api.errors import ImageInvalid
from pictory_provider.api.text import counted
from pictory_provider.media.png import NO_PIXELS, SIGNATURE, PngChecker, cut_short
from pictory_provider.media.xmp import XmpChunk, source_type_of

if TYPE_CHECKING:
    from pictory_provider.api.models import Job

_HEAD = 12
"""Bytes that identify the format."""
_WEBP_HEAD = 30
_SUFFIXES = {"JPEG": (".jpg", ".jpeg", ".jfif"), "WebP": (".webp",)}
NOT_PNG_SUFFIXES = (
    *(suffix for suffixes in _SUFFIXES.values() for suffix in suffixes),
    *(".gif", ".avif", ".heic", ".bmp", ".tif", ".tiff", ".jxl", ".svg"),
)
"""Suffixes of image files that are not PNG."""
_END_OF_IMAGE = b"\xff\xd9"


class Picture(NamedTuple):
    """A complete picture.

    :param kind: ``PNG``, ``JPEG`` or ``WebP``.
    :param trailing: bytes after its end.
    :param marks: what a PNG says about its origin (:class:`~pictory_provider.media.png.PngChecker`), sorted.
    :param digital_source_type: IPTC's, from a PNG's XMP, as it is written there; ``None`` if it has none.
    :param xmp: the chunks that have it, or may have it.
    """

    kind: str
    width: int
    height: int
    trailing: int = 0
    marks: tuple[str, ...] = ()
    digital_source_type: str | None = None
    xmp: tuple[XmpChunk, ...] = ()

    @property
    def content_type(self) -> str:
        """Its media type (RFC 6838)."""
        return f"image/{self.kind.lower()}"

    def surprises(self, job: Job, name: str = "") -> list[str]:
        """Return how it differs from what Pictory promised for the job, as clauses.

        :param name: of its file.
        """
        found = []
        if self.kind != "PNG":
            is_named_so = name.casefold().endswith(_SUFFIXES[self.kind])
            says = "as its name says" if is_named_so else "whatever its name says"
            found.append(f"it is a {self.kind} file and not a PNG, {says}")
        promised = (job.width, job.height)
        if None not in promised and promised != (self.width, self.height):
            found.append(
                f"it has {self.width}x{self.height} pixels, and Pictory promised {job.width}x{job.height}"
            )
        if self.trailing:
            found.append(f"{counted(self.trailing, 'byte follows', 'bytes follow')} its end")
        return found


class _Checker(Protocol):
    def feed(self, data: bytes) -> None: ...
    def finish(self) -> Picture: ...


class PictureChecker:
    """Check a picture of any known format as it arrives.

    ::

        checker = PictureChecker()
        for piece in stream:
            checker.feed(piece)  # raises as soon as the bytes cannot be a picture
        picture = checker.finish()
    """

    def __init__(self) -> None:
        self.size = 0
        self._head = b""
        self._checker: _Checker | None = None

    def feed(self, data: bytes) -> None:
        """Take the next bytes.

        :raises ImageInvalid: as soon as they cannot belong to a picture.
        """
        self.size += len(data)
        if self._checker is None:
            self._head += data
            if len(self._head) < _HEAD:
                return
            data, self._checker = self._head, _checker_for(self._head)
        self._checker.feed(data)

    def finish(self) -> Picture:
        """Return the picture's properties, after all bytes have arrived.

        :raises ImageInvalid: if the picture is not complete.
        """
        if self._checker is None:
            raise cut_short(self.size)
        return self._checker.finish()


def _checker_for(head: bytes) -> _Checker:
    if head.startswith(b"\xff\xd8\xff"):
        return _JpegChecker()
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return _WebpChecker()
    if head.startswith(SIGNATURE):
        return _PngChecker()
    raise ImageInvalid(f"This is not a picture: it is not PNG, JPEG or WebP, and begins with {head[:_HEAD]!r}.")


class _PngChecker:
    def __init__(self) -> None:
        self._png = PngChecker()

    def feed(self, data: bytes) -> None:
        self._png.feed(data)

    def finish(self) -> Picture:
        png, xmp = self._png, tuple(self._png.xmp)
        width, height = png.finish()
        return Picture("PNG", width, height, png.trailing, tuple(sorted(png.marks)), source_type_of(xmp), xmp)


class _JpegChecker:
    """Read the segments up to the first scan, whose frame header has the size; then look for the end of the image.

    In a scan ``FF`` is followed by ``00`` or by a marker that is not an end, so the first ``FF D9`` is the end.
    """

    def __init__(self) -> None:
        self._size = 0
        self._buffer = bytearray()
        self._skip = 2
        self._is_in_scan = False
        self._dimensions: tuple[int, int] | None = None
        self._end: int | None = None

    def feed(self, data: bytes) -> None:
        self._size += len(data)
        if self._end is not None:
            return
        self._buffer += data
        while not self._is_in_scan and self._segment():
            pass
        if self._is_in_scan:
            at = self._buffer.find(_END_OF_IMAGE)
            if at >= 0:
                self._end = self._size - len(self._buffer) + at + len(_END_OF_IMAGE)
            del self._buffer[:-1]

    def finish(self) -> Picture:
        if self._end is None or self._dimensions is None:
            raise cut_short(self._size)
        return Picture("JPEG", *self._dimensions, self._size - self._end)

    def _segment(self) -> bool:
        """Read one segment's header and skip what has arrived of it; ``False`` if more has to arrive first."""
        buffer = self._buffer
        skipped = min(self._skip, len(buffer))
        del buffer[:skipped]
        self._skip -= skipped
        if self._skip or len(buffer) < 9:
            return False
        if buffer[0] != 0xFF:
            raise ImageInvalid("The picture is damaged: a segment of the JPEG is in the wrong place.")
        marker, length = buffer[1], int.from_bytes(buffer[2:4], "big")
        if marker == 0xFF:  # padding
            self._skip = 1
            return True
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = int.from_bytes(buffer[5:7], "big"), int.from_bytes(buffer[7:9], "big")
            if not width or not height:
                raise ImageInvalid(NO_PIXELS)
            self._dimensions = width, height
        elif marker == 0xDA:
            if self._dimensions is None:
                raise ImageInvalid("The picture is damaged: the JPEG has a scan before its header.")
            self._is_in_scan = True
        self._skip = 2 + length
        return True


class _WebpChecker:
    """Read the size of file and picture from the header, and count the other bytes."""

    def __init__(self) -> None:
        self._size = 0
        self._head = b""

    def feed(self, data: bytes) -> None:
        self._size += len(data)
        self._head += data[: _WEBP_HEAD - len(self._head)]

    def finish(self) -> Picture:
        head = self._head
        whole = int.from_bytes(head[4:8], "little") + 8
        if len(head) < _WEBP_HEAD or self._size < whole:
            raise cut_short(self._size)
        kind = head[12:16]
        if kind == b"VP8X":
            width, height = (int.from_bytes(head[at : at + 3], "little") + 1 for at in (24, 27))
        elif kind == b"VP8L" and head[20] == 0x2F:
            bits = int.from_bytes(head[21:25], "little")
            width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        elif kind == b"VP8 " and head[23:26] == b"\x9d\x01\x2a":
            width, height = (int.from_bytes(head[at : at + 2], "little") & 0x3FFF for at in (26, 28))
        else:
            raise ImageInvalid("The picture is damaged: it is a WebP file without a picture.")
        return Picture("WebP", width, height, self._size - whole)
