# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The mark of pictures that a model made, and the marks that files already have."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from pictory_provider.media.formats import Picture, PictureChecker
from pictory_provider.media.mark import AFTER_HEADER, MARKS, mark, why_not
from pictory_provider.media.png import SIGNATURE
from pictory_provider.media.xmp import TRAINED
from tests.pure.media.test_png import DATA, END, WHOLE, chunk, header

IPTC = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"


def picture(content: bytes, step: int = 1000) -> Picture:
    checker = PictureChecker()
    for start in range(0, len(content), step):
        checker.feed(content[start : start + step])
    return checker.finish()


def with_chunk(kind: bytes, content: bytes) -> bytes:
    return SIGNATURE + header() + chunk(kind, content) + DATA + END


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_a_marked_png_is_whole_and_says_so_before_its_pixels(step):
    marked = WHOLE[:AFTER_HEADER] + mark() + WHOLE[AFTER_HEADER:]
    found = picture(marked, step)
    assert found._replace(xmp=()) == Picture("PNG", 3, 2, marks=("xmp",), digital_source_type=TRAINED)
    assert [(each.offset, each.length, each.is_early) for each in found.xmp] == [(AFTER_HEADER, len(mark()), True)]
    assert marked.index(mark()) < marked.index(b"IDAT")


def test_the_mark_is_an_xmp_packet_with_the_words_of_iptc():
    packet = mark()[8 + len("XML:com.adobe.xmp") + 5 : -4].decode()
    (description,) = ET.fromstring(packet.strip("\ufeff")).iter(
        "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description"
    )
    said = {child.tag.removeprefix(IPTC): child.text for child in description}
    assert said == {
        "DigitalSourceType": "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia",
        "AISystemUsed": "Pictory AI Studio",
    }


@pytest.mark.parametrize("step", [1, 3, 1000])
@pytest.mark.parametrize(
    ("kind", "content", "marks"),
    [
        (b"caBX", b"a signed manifest", ("c2pa",)),
        (b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + b"<x:xmpmeta/>", ("xmp",)),
        (b"zTXt", b"Raw profile type xmp\0\0...", ("xmp",)),
        (b"tEXt", b"AIGC\0{}", ("aigc",)),
        (b"tEXt", b"Comment\0AIGC", ()),
        (b"tEXt", b"A" * 200, ()),
        (b"iTXt", b"", ()),
    ],
)
def test_what_a_file_says_of_its_origin_is_found(kind, content, marks, step):
    assert picture(with_chunk(kind, content), step).marks == marks


def test_a_mark_after_the_pixels_is_found_too():
    assert picture(SIGNATURE + header() + DATA + chunk(b"caBX", b"x") + END).marks == ("c2pa",)


def test_several_marks_are_reported_in_order():
    xmp = chunk(b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + b"<x:xmpmeta/>")
    content = SIGNATURE + header() + xmp + chunk(b"caBX", b"x") + chunk(b"tEXt", b"AIGC\0{}") + DATA + END
    assert picture(content).marks == ("aigc", "c2pa", "xmp")


@pytest.mark.parametrize("kind", [b"IDAT", b"eXIf", b"tIME"])
def test_what_is_not_text_marks_nothing(kind):
    assert picture(with_chunk(kind, b"AIGC\0{}")).marks == ()


def test_a_keyword_in_another_text_than_the_first_of_a_file_is_found():
    content = SIGNATURE + header() + chunk(b"tEXt", b"Comment\0x") + chunk(b"tEXt", b"AIGC\0{}") + DATA + END
    assert picture(content).marks == ("aigc",)


def test_why_a_picture_is_not_marked_is_said():
    assert why_not(Picture("JPEG", 1, 1)) == "it is a JPEG file, and only PNG files are marked"
    assert why_not(Picture("PNG", 1, 1, marks=("aigc", "xmp"))) == (
        "it already says something about its origin (aigc, xmp), and is left unchanged"
    )
    assert why_not(Picture("PNG", 1, 1, marks=("c2pa", "xmp"), digital_source_type=TRAINED)) is None
    assert MARKS == ("xmp",)


def test_the_mark_goes_between_the_header_of_a_png_and_the_rest():
    assert len(SIGNATURE + header()) == AFTER_HEADER == 33


@pytest.mark.parametrize(
    ("picture", "why"),
    [
        (Picture("PNG", 1, 1), None),
        (Picture("PNG", 1, 1, marks=("c2pa",)), "c2pa"),
        (Picture("JPEG", 1, 1), "JPEG"),
        (Picture("WebP", 1, 1), "WebP"),
    ],
)
def test_only_a_png_that_says_nothing_yet_is_marked(picture, why):
    said = why_not(picture)
    assert said is None if why is None else why in said
