# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Check that a PNG is complete, as its bytes arrive.

A PNG file is a signature and a sequence of chunks, each with its length, type and CRC, from ``IHDR`` to ``IEND``
(https://www.w3.org/TR/png-3/). Reading them as they arrive finds files that are not PNG, are cut short or were
damaged on the way, without keeping the picture in memory.
"""

from __future__ import annotations

import struct
import zlib

from pictory_provider.api.errors import ImageInvalid
from pictory_provider.api.text import counted
from pictory_provider.media.xmp import KEYWORD, MOST_BYTES, RAW_KEYWORD, XmpChunk

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_IHDR_LENGTH = 13
_TEXT = (b"iTXt", b"tEXt", b"zTXt")
_MOST_PACKETS = 2
"""Packets that are kept. If there are several, only what they agree on is used."""
NO_PIXELS = "The picture is damaged: its header says that it has no pixels."
_MARKS = {KEYWORD: "xmp", RAW_KEYWORD: "xmp", b"AIGC": "aigc"}


class PngChecker:
    """Check a PNG as it arrives.

    ::

        checker = PngChecker()
        for piece in stream:
            checker.feed(piece)  # raises as soon as the bytes cannot be a PNG
        width, height = checker.finish()

    :ivar trailing: bytes after the end of the picture.
    :ivar marks: what the file says about its origin: ``c2pa`` (a signed manifest), ``xmp``, ``aigc`` (China's
        label).
    :ivar xmp: the chunks that have an XMP packet.
    """

    def __init__(self) -> None:
        self.size = 0
        self.trailing = 0
        self.marks: set[str] = set()
        self.xmp: list[XmpChunk] = []
        self._text = bytearray()
        self._at = self._length = 0
        self.width: int | None = None
        self.height: int | None = None
        self._head = bytearray()
        self._need = len(SIGNATURE)
        self._step = self._signature
        self._left = 0
        self._crc = 0
        self._chunk = b""
        self._has_data = False
        self._ended = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes.

        :raises ImageInvalid: as soon as they cannot belong to a PNG.
        """
        self.size += len(data)
        view = memoryview(data)
        while view:
            if self._ended:
                self.trailing += len(view)
                return
            if self._left:
                piece = view[: self._left]
                self._crc = zlib.crc32(piece, self._crc)
                if self._chunk in _TEXT and len(self._text) <= MOST_BYTES:
                    self._text += piece[: MOST_BYTES + 1 - len(self._text)]
                self._left -= len(piece)
                view = view[len(piece) :]
                continue
            taken = view[: self._need - len(self._head)]
            self._head += taken
            view = view[len(taken) :]
            if len(self._head) == self._need:
                head, self._head = bytes(self._head), bytearray()
                self._step(head)

    def finish(self) -> tuple[int, int]:
        """Return width and height in pixels, after all bytes have arrived.

        :raises ImageInvalid: if the picture is not complete.
        """
        if not self._ended or self.width is None or self.height is None:
            raise cut_short(self.size)
        return self.width, self.height

    def _signature(self, head: bytes) -> None:
        if head != SIGNATURE:
            raise ImageInvalid(f"This is not a PNG: it begins with {head!r}.")
        self._length = len(head)
        self._expect(self._chunk_header, 8)

    def _chunk_header(self, head: bytes) -> None:
        length, kind = struct.unpack(">I4s", head)
        if not kind.isalpha() or length > 2**31 - 1:
            raise ImageInvalid(f"The picture is damaged: {kind!r} is not a PNG chunk.")
        if (kind == b"IHDR") != (self.width is None) or (kind == b"IHDR" and length != _IHDR_LENGTH):
            raise ImageInvalid("The picture is damaged: its header is in the wrong place.")
        self._chunk, self._crc = kind, zlib.crc32(kind)
        self._has_data = self._has_data or kind == b"IDAT"
        self._text = bytearray()
        self._at, self._length = self._at + self._length, length + 12
        if kind == b"caBX":
            self.marks.add("c2pa")
        if kind == b"IHDR":
            self._expect(self._image_header, length)
        else:
            self._left = length
            self._expect(self._checksum, 4)

    def _image_header(self, head: bytes) -> None:
        self._crc = zlib.crc32(head, self._crc)
        self.width, self.height = struct.unpack(">II", head[:8])
        if not self.width or not self.height:
            raise ImageInvalid(NO_PIXELS)
        self._expect(self._checksum, 4)

    def _checksum(self, head: bytes) -> None:
        if int.from_bytes(head, "big") != self._crc:
            raise ImageInvalid(f"The picture is damaged: the checksum of its {self._chunk.decode()} is wrong.")
        if self._chunk in _TEXT and (mark := _MARKS.get(bytes(self._text[:80]).partition(b"\0")[0])):
            self.marks.add(mark)
            if mark == "xmp":
                is_kept = len(self._text) <= MOST_BYTES and len(self.xmp) < _MOST_PACKETS
                body = bytes(self._text) if is_kept else None
                self.xmp.append(XmpChunk(self._at, self._length, self._chunk, body, not self._has_data))
        if self._chunk == b"IEND":
            if not self._has_data:
                raise ImageInvalid("The picture is damaged: it contains no pixels.")
            self._ended = True
        self._expect(self._chunk_header, 8)

    def _expect(self, step: object, length: int) -> None:
        self._step, self._need = step, length  # type: ignore[assignment]


def cut_short(size: int) -> ImageInvalid:
    """Return the error of a picture whose end is missing.

    :param size: bytes that arrived.
    """
    return ImageInvalid(f"The picture is cut short: {counted(size, 'byte')} came, and its end is missing.")
