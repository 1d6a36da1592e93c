# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Is this a whole PNG?

A PNG file is a signature and a row of chunks, each with its length, type and CRC, from ``IHDR`` to ``IEND``
(https://www.w3.org/TR/png-3/). Following them while the bytes arrive finds what is no PNG, what was cut
short and what was damaged on the way, without holding the picture in memory.
"""

from __future__ import annotations

import struct
import zlib

from pictory_provider.api.errors import ImageInvalid

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_IHDR_LENGTH = 13
_TEXT = (b"iTXt", b"tEXt", b"zTXt")
_MARKS = {b"XML:com.adobe.xmp": "xmp", b"Raw profile type xmp": "xmp", b"AIGC": "aigc"}
_LONGEST_KEYWORD = 79


class PngChecker:
    """Follow a PNG as it arrives.

    ::

        checker = PngChecker()
        for piece in stream:
            checker.feed(piece)  # raises as soon as the bytes cannot be a PNG any more
        width, height = checker.finish()

    :ivar trailing: bytes that came after the end of the picture.
    :ivar marks: what the file says of its origin: ``c2pa`` (a signed manifest), ``xmp``, ``aigc`` (China's label).
    """

    def __init__(self) -> None:
        self.size = 0
        self.trailing = 0
        self.marks: set[str] = set()
        self._text = b""
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
                if self._chunk in _TEXT and len(self._text) <= _LONGEST_KEYWORD:
                    self._text += bytes(piece[: _LONGEST_KEYWORD + 1])
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
        """Return width and height in pixels, now that all bytes have come.

        :raises ImageInvalid: where the picture is not whole.
        """
        if not self._ended or self.width is None or self.height is None:
            raise ImageInvalid(f"The picture is cut short: {self.size:,} bytes came, and its end is missing.")
        return self.width, self.height

    def _signature(self, head: bytes) -> None:
        if head != SIGNATURE:
            raise ImageInvalid(f"This is not a PNG: it begins with {head!r}.")
        self._expect(self._chunk_header, 8)

    def _chunk_header(self, head: bytes) -> None:
        length, kind = struct.unpack(">I4s", head)
        if not kind.isalpha() or length > 2**31 - 1:
            raise ImageInvalid(f"The picture is damaged: {kind!r} is no chunk of a PNG.")
        if (kind == b"IHDR") != (self.width is None) or (kind == b"IHDR" and length != _IHDR_LENGTH):
            raise ImageInvalid("The picture is damaged: its header is not where it belongs.")
        self._chunk, self._crc = kind, zlib.crc32(kind)
        self._has_data = self._has_data or kind == b"IDAT"
        self._text = b""
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
            raise ImageInvalid("The picture is damaged: it says that it has no pixels.")
        self._expect(self._checksum, 4)

    def _checksum(self, head: bytes) -> None:
        if int.from_bytes(head, "big") != self._crc:
            raise ImageInvalid(f"The picture is damaged: the checksum of its {self._chunk.decode()} is wrong.")
        if self._chunk in _TEXT and (mark := _MARKS.get(self._text.partition(b"\0")[0])):
            self.marks.add(mark)
        if self._chunk == b"IEND":
            if not self._has_data:
                raise ImageInvalid("The picture is damaged: it holds no pixels.")
            self._ended = True
        self._expect(self._chunk_header, 8)

    def _expect(self, step: object, length: int) -> None:
        self._step, self._need = step, length  # type: ignore[assignment]
