# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The format of a picture, whether it is complete, and whether it is what Pictory promised."""

from __future__ import annotations

import struct

import pytest

from pictory_provider.api.errors import ImageInvalid
from pictory_provider.api.models import Job
from pictory_provider.media.formats import Picture, PictureChecker
from tests.pure.media.test_png import WHOLE as PNG


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


THUMBNAIL = segment(0xE1, b"Exif\0\0" + b"\xff\xd8\xff\xd9" * 3)
FRAME = struct.pack(">BHHB", 8, 2, 3, 1) + b"\x01\x11\x00"
SCAN = segment(0xDA, b"\x01\x01\x00\x00\x3f\x00") + b"\x12\xff\x00\x34\xff\xd0\x56"
JPEG = b"\xff\xd8" + THUMBNAIL + b"\xff" + segment(0xC4, b"12345") + segment(0xC0, FRAME) + SCAN + b"\xff\xd9"
PROGRESSIVE = b"\xff\xd8" + segment(0xE0, b"JFIF\0") + segment(0xC2, FRAME) + SCAN + SCAN + b"\xff\xd9"


def webp(kind: bytes, content: bytes) -> bytes:
    inner = b"WEBP" + kind + struct.pack("<I", len(content)) + content
    return b"RIFF" + struct.pack("<I", len(inner)) + inner


LOSSY = webp(b"VP8 ", b"\x00\x00\x00\x9d\x01\x2a" + struct.pack("<HH", 3 | 0x4000, 2 | 0x8000) + b"pixels")
LOSSLESS = webp(b"VP8L", b"\x2f" + struct.pack("<I", 2 | 1 << 14 | 1 << 28) + b"pixels")
EXTENDED = webp(b"VP8X", b"\0\0\0\0" + b"\x02\0\0" + b"\x01\0\0" + b"more chunks")
WHOLE = {"PNG": [PNG], "JPEG": [JPEG, PROGRESSIVE], "WebP": [LOSSY, LOSSLESS, EXTENDED]}
EACH = [(kind, content) for kind, contents in WHOLE.items() for content in contents]


def check(content: bytes, step: int = 1000) -> Picture:
    checker = PictureChecker()
    for start in range(0, len(content), step):
        checker.feed(content[start : start + step])
    assert checker.size == len(content)
    return checker.finish()


@pytest.mark.parametrize("step", [1, 2, 7, 13, 1000])
@pytest.mark.parametrize(("kind", "content"), EACH)
def test_a_whole_picture_of_a_known_kind_is_known_in_pieces_of_any_size(kind, content, step):
    assert check(content, step) == Picture(kind, 3, 2, trailing=0)


@pytest.mark.parametrize(("kind", "content"), EACH)
def test_a_picture_cut_anywhere_is_found_out(kind, content):
    for length in range(len(content)):
        with pytest.raises(ImageInvalid):
            check(content[:length])


def test_sizes_of_more_than_a_byte_are_read_whole():
    frame = struct.pack(">BHHB", 8, 0x0102, 0x0304, 1) + b"\x01\x11\x00"
    large = b"\xff\xd8" + segment(0xE1, b"\xff\xd9" * 400) + segment(0xC0, frame) + SCAN + b"\xff\xd9"
    assert check(large) == Picture("JPEG", 0x0304, 0x0102)


@pytest.mark.parametrize("step", [1, 1000])
@pytest.mark.parametrize(("kind", "content"), EACH)
def test_what_follows_the_end_is_counted(kind, content, step):
    assert check(content + b"12345", step) == Picture(kind, 3, 2, trailing=5)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"<html><body>Sorry</body></html>", "not a picture: .* begins with b'<html><body>'"),
        (b"GIF89a and so on", "not a picture"),
        (b"RIFF\x20\0\0\0WAVEfmt ", "not a picture"),
        (b"", "cut short: 0 bytes"),
        (b"\xff\xd8\xff", "cut short: 3 bytes"),
        (b"\xff\xd8" + SCAN + b"\xff\xd9", "scan before its header"),
        (b"\xff\xd8" + segment(0xE0, b"JFIF") + b"\x00" * 20, "segment"),
        (JPEG.replace(FRAME, struct.pack(">BHHB", 8, 0, 3, 1) + FRAME[6:]), "no pixels"),
        (JPEG.replace(FRAME, struct.pack(">BHHB", 8, 2, 0, 1) + FRAME[6:]), "no pixels"),
        (webp(b"ALPH", b"0123456789abcdef"), "without a picture"),
        (webp(b"VP8L", b"0123456789abcdef"), "without a picture"),
        (webp(b"VP8 ", b"0123456789abcdef"), "without a picture"),
    ],
)
def test_what_is_not_a_whole_picture_is_distinguished(content, why):
    with pytest.raises(ImageInvalid, match=why):
        check(content)


def test_a_picture_as_promised_surprises_nobody():
    assert Picture("PNG", 640, 480).surprises(Job(job_id="j", width=640, height=480)) == []


@pytest.mark.parametrize("job", [Job(job_id="j"), Job(job_id="j", width=1), Job(job_id="j", height=1)])
def test_only_what_pictory_said_is_compared(job):
    assert Picture("PNG", 640, 480).surprises(job) == []


@pytest.mark.parametrize("size", [(640, 481), (641, 480), (480, 640)])
def test_other_dimensions_than_promised_are_reported(size):
    (reported,) = Picture("PNG", 640, 480).surprises(Job(job_id="j", width=size[0], height=size[1]))
    assert reported == f"it has 640x480 pixels, and Pictory promised {size[0]}x{size[1]}"


def test_every_surprise_is_reported():
    reported = Picture("JPEG", 1, 1, trailing=1_000).surprises(Job(job_id="j", width=2, height=2))
    assert len(reported) == 3
    assert "JPEG" in reported[0]
    assert "1,000 bytes" in reported[2]


def test_what_is_not_a_picture_is_refused_with_its_twelfth_byte_and_shown_by_its_first_twelve():
    checker = PictureChecker()
    checker.feed(b"<html><body")
    with pytest.raises(ImageInvalid, match=r"begins with b'<html><body>'\."):
        checker.feed(b">")
    with pytest.raises(ImageInvalid, match="cut short: 11 bytes"):
        check(b"<html><body")


@pytest.mark.parametrize("marker", [0xBF, *range(0xC0, 0xD1), 0xDB, 0xE0, 0xFE])
def test_every_frame_of_a_jpeg_says_its_size_and_no_other_segment_does(marker):
    # ITU-T T.81, table B.1: C4 are Huffman tables, C8 is reserved, CC is arithmetic conditioning.
    content = b"\xff\xd8" + segment(marker, FRAME) + SCAN + b"\xff\xd9"
    if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
        assert check(content) == Picture("JPEG", 3, 2)
    else:
        with pytest.raises(ImageInvalid, match="scan before its header"):
            check(content)


def test_any_number_of_fill_bytes_may_stand_before_a_marker():
    content = b"\xff\xd8" + b"\xff" * 20 + segment(0xC0, FRAME) + b"\xff\xff" + SCAN + b"\xff\xd9"
    assert check(content) == Picture("JPEG", 3, 2)


def test_an_end_within_a_segment_is_not_an_end():
    assert check(b"\xff\xd8" + segment(0xFE, b"\xff\xd9" * 9) + JPEG[2:]) == Picture("JPEG", 3, 2)


@pytest.mark.parametrize(
    ("content", "width", "height"),
    [
        (
            webp(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 0x3FFF | 0x4000, 0x2F0E | 0xC000)),
            0x3FFF,
            0x2F0E,
        ),
        (webp(b"VP8L", b"\x2f" + struct.pack("<I", 0x3FFF | 0x2F0E << 14 | 7 << 29) + bytes(9)), 0x4000, 0x2F0F),
        (webp(b"VP8L", b"\x2f" + struct.pack("<I", 0x1234 | 0x3FFF << 14) + bytes(9)), 0x1235, 0x4000),
        (webp(b"VP8X", bytes(4) + b"\x01\x02\x03" + b"\x04\x05\x06"), 0x030202, 0x060505),
        (webp(b"VP8X", bytes(4) + b"\xff\xff\xff" + b"\0\0\0"), 1 << 24, 1),
    ],
)
def test_a_webp_may_be_as_large_as_its_format_knows(content, width, height):
    # RFC 9649, 2.5 to 2.7: 14 bits in a frame, 14 bits and one more without loss, 24 bits and one more in VP8X.
    assert check(content) == Picture("WebP", width, height)


@pytest.mark.parametrize(
    "content",
    [
        webp(b"VP8L", b"\x2e" + bytes(13)),
        webp(b"VP8 ", b"\0\0\0\x9d\x01\x2b" + bytes(8)),
        webp(b"VP8 ", b"\0\0\x9d\x01\x2a" + bytes(9)),
        webp(b"VP8Y", bytes(14)),
    ],
)
def test_a_webp_whose_frame_has_no_signature_is_damaged(content):
    with pytest.raises(ImageInvalid, match="without a picture"):
        check(content)


@pytest.mark.parametrize("head", [b"RIFX", b"RIFF\0\0\0\0WEBQ"])
def test_a_webp_is_recognised_by_both_of_its_signatures(head):
    with pytest.raises(ImageInvalid, match="not a picture"):
        check(head + LOSSY[len(head) :])


def test_each_surprise_is_reported_in_its_own_words():
    job = Job(job_id="j", width=1, height=1)
    assert Picture("WebP", 1, 1).surprises(job) == ["it is a WebP file and not a PNG, whatever its name says"]
    assert Picture("PNG", 1, 1, trailing=1).surprises(job) == ["1 byte follows its end"]


@pytest.mark.parametrize("step", [1, 1000])
def test_the_first_end_of_a_jpeg_is_its_end(step):
    assert check(JPEG + b"12\xff\xd9345", step) == Picture("JPEG", 3, 2, trailing=7)


@pytest.mark.parametrize(("kind", "content"), EACH)
def test_a_picture_that_is_cut_short_says_how_many_bytes_came(kind, content):
    with pytest.raises(ImageInvalid, match=f"cut short: {len(content) - 3} bytes came"):
        check(content[:-3])
