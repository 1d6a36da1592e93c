# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Whether a PNG is complete."""

from __future__ import annotations

import struct
import zlib

import pytest

from pictory_provider.api.errors import ImageInvalid
from pictory_provider.media.png import SIGNATURE, PngChecker


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def header(width=3, height=2) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))


DATA = chunk(b"IDAT", zlib.compress(b"\0\1\2\3" * 2))
END = chunk(b"IEND")
WHOLE = SIGNATURE + header() + chunk(b"tEXt", b"Comment\0hello") + DATA + END


def check(content: bytes, step: int = 1000) -> tuple[int, int]:
    checker = PngChecker()
    for start in range(0, len(content), step):
        checker.feed(content[start : start + step])
    return checker.finish()


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
def test_a_whole_picture_passes_in_pieces_of_any_size(step):
    assert check(WHOLE, step) == (3, 2)


def test_a_picture_cut_anywhere_is_found_out():
    for length in range(len(WHOLE)):
        with pytest.raises(ImageInvalid):
            check(WHOLE[:length])


def test_a_wrong_byte_anywhere_is_found_out():
    for position in range(len(WHOLE)):
        damaged = bytearray(WHOLE)
        damaged[position] ^= 0x01
        with pytest.raises(ImageInvalid):
            check(bytes(damaged))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"<html><body>Sorry</body></html>", "not a PNG"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "not a PNG"),
        (SIGNATURE + DATA + END, "header"),
        (SIGNATURE + header() + header() + DATA + END, "header"),
        (SIGNATURE + header() + END, "no pixels"),
        (SIGNATURE + header(0, 2) + DATA + END, "no pixels"),
        (SIGNATURE + header(3, 0) + DATA + END, "no pixels"),
        (SIGNATURE + chunk(b"IHDR", bytes(12)) + DATA + END, "header"),
        (SIGNATURE + chunk(b"IHDR", bytes(14)) + DATA + END, "header"),
        (SIGNATURE + header() + struct.pack(">I", 0) + b"ID4T", "b'ID4T' is not a PNG chunk"),
        (SIGNATURE + header() + DATA[:-1] + b"x", "the checksum of its IDAT is wrong"),
        (SIGNATURE + header(0x01020304, 0x05060708), "cut short: 33 bytes"),
        (SIGNATURE + struct.pack(">I", 2**31) + b"IDAT", "not a PNG chunk"),
        (b"", "cut short"),
    ],
)
def test_what_is_not_a_whole_picture_is_distinguished(content, why):
    with pytest.raises(ImageInvalid, match=why):
        check(content)


def test_the_longest_chunk_that_the_format_knows_is_one():
    # https://www.w3.org/TR/png-3/#5Chunk-layout: the length must not exceed 2**31 - 1
    PngChecker().feed(SIGNATURE + header() + struct.pack(">I", 2**31 - 1) + b"IDAT")


@pytest.mark.parametrize("step", [1, 1000])
def test_what_follows_the_end_is_counted(step):
    checker = PngChecker()
    content = WHOLE + b"more"
    for start in range(0, len(content), step):
        checker.feed(content[start : start + step])
    assert checker.finish() == (3, 2)
    assert (checker.trailing, checker.size) == (4, len(content))


def test_sizes_of_more_than_a_byte_are_read_whole():
    assert check(SIGNATURE + header(0x01020304, 0x05060708) + DATA + END) == (0x01020304, 0x05060708)


def test_what_is_not_a_png_is_refused_with_its_eighth_byte():
    checker = PngChecker()
    checker.feed(b"GIF89a.")
    with pytest.raises(ImageInvalid, match="not a PNG"):
        checker.feed(b".")
