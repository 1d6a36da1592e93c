# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What kind of picture is this, is it whole, and is it the one that was promised?

Pictory promises PNG files. A picture that was paid for is saved all the same if it is of another kind that can be
told to be whole: JPEG (ITU-T T.81, annex B) or WebP (RFC 9649).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from pictory_provider.api.errors import ImageInvalid
from pictory_provider.images.png import SIGNATURE, PngChecker

if TYPE_CHECKING:
    from pictory_provider.api.models import Job

_HEAD = 12
"""Bytes that tell the kinds apart."""
_WEBP_HEAD = 30
_END_OF_IMAGE = b"\xff\xd9"


class Picture(NamedTuple):
    """A whole picture.

    :param kind: ``PNG``, ``JPEG`` or ``WebP``.
    :param trailing: bytes that came after its end.
    :param marks: what a PNG says of its origin (:class:`~pictory_provider.images.png.PngChecker`), sorted.
    """

    kind: str
    width: int
    height: int
    trailing: int = 0
    marks: tuple[str, ...] = ()

    def surprises(self, job: Job) -> list[str]:
        """Say in what it differs from what Pictory promised; nothing where it said nothing."""
        found = []
        if self.kind != "PNG":
            found.append(f"it is a {self.kind} file and no PNG, whatever its name says")
        promised = (job.width, job.height)
        if None not in promised and promised != (self.width, self.height):
            found.append(
                f"it has {self.width}x{self.height} pixels, and Pictory promised {job.width}x{job.height}"
            )
        if self.trailing:
            found.append(f"{self.trailing:,} bytes follow its end")
        return found


class _Checker(Protocol):
    def feed(self, data: bytes) -> None: ...
    def finish(self) -> Picture: ...


class PictureChecker:
    """Follow a picture of any known kind as it arrives.

    ::

        checker = PictureChecker()
        for piece in stream:
            checker.feed(piece)  # raises as soon as the bytes cannot be a picture any more
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
        """Return what it is, now that all bytes have come.

        :raises ImageInvalid: where the picture is not whole.
        """
        if self._checker is None:
            raise _cut_short(self.size)
        return self._checker.finish()


def _checker_for(head: bytes) -> _Checker:
    if head.startswith(b"\xff\xd8\xff"):
        return _JpegChecker()
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return _WebpChecker()
    if head.startswith(SIGNATURE):
        return _PngChecker()
    raise ImageInvalid(f"This is no picture: it is neither PNG, JPEG nor WebP, and begins with {head[:_HEAD]!r}.")


class _PngChecker:
    def __init__(self) -> None:
        self._png = PngChecker()

    def feed(self, data: bytes) -> None:
        self._png.feed(data)

    def finish(self) -> Picture:
        width, height = self._png.finish()
        return Picture("PNG", width, height, self._png.trailing, tuple(sorted(self._png.marks)))


class _JpegChecker:
    """Walk the segments up to the first scan, whose header tells the size; then look for the end of the image.

    In a scan ``FF`` is followed by ``00`` or by a marker that is no end, so the first ``FF D9`` is the end.
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
            raise _cut_short(self._size)
        return Picture("JPEG", *self._dimensions, self._size - self._end)

    def _segment(self) -> bool:
        """Take one segment's header and as much of it as has come; ``False`` where more has to come first."""
        buffer = self._buffer
        skipped = min(self._skip, len(buffer))
        del buffer[:skipped]
        self._skip -= skipped
        if self._skip or len(buffer) < 9:
            return False
        if buffer[0] != 0xFF:
            raise ImageInvalid("The picture is damaged: a segment of the JPEG is not where it belongs.")
        marker, length = buffer[1], int.from_bytes(buffer[2:4], "big")
        if marker == 0xFF:  # padding
            self._skip = 1
            return True
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = int.from_bytes(buffer[5:7], "big"), int.from_bytes(buffer[7:9], "big")
            if not width or not height:
                raise ImageInvalid("The picture is damaged: it says that it has no pixels.")
            self._dimensions = width, height
        elif marker == 0xDA:
            if self._dimensions is None:
                raise ImageInvalid("The picture is damaged: the JPEG has a scan before its header.")
            self._is_in_scan = True
        self._skip = 2 + length
        return True


class _WebpChecker:
    """Read the size of file and picture from the head; the rest is counted."""

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
            raise _cut_short(self._size)
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


def _cut_short(size: int) -> ImageInvalid:
    return ImageInvalid(f"The picture is cut short: {size:,} bytes came, and its end is missing.")
