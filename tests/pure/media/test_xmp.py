# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The source of a picture is read from an XMP packet, and added without changing the rest of the packet."""

from __future__ import annotations

import io
import zlib
from contextlib import suppress
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pictory_provider.media.mark import AFTER_HEADER, Edit, Unmarked, edits_to_mark, mark
from pictory_provider.media.png import SIGNATURE
from pictory_provider.media.xmp import (
    MOST_BYTES,
    TRAINED,
    NotReadable,
    XmpChunk,
    new_packet,
    says_ai,
    source_type_of,
    with_source_type,
)
from pictory_provider.storage.target import Received
from tests.pure.media.test_mark import picture
from tests.pure.media.test_png import DATA, END, chunk, header

SAYS_TRAINED = f"<Iptc4xmpExt:DigitalSourceType>{TRAINED}</Iptc4xmpExt:DigitalSourceType>"
KEYWORD = b"XML:com.adobe.xmp"
CAMERA = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"
NAMESPACES = (
    'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
    'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    'xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:s="http://example.com/s/"'
)
IPTC, RDF = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}", "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"


def packet(inside="", attributes='rdf:about=""', more=""):
    return (
        f'<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        f"<rdf:RDF {NAMESPACES}><rdf:Description {attributes}>{inside}</rdf:Description>{more}</rdf:RDF>"
        "</x:xmpmeta>\n" + " " * 50 + '\n<?xpacket end="w"?>'
    ).encode()


def itxt(content, *, is_compressed=False):
    return b"iTXt", KEYWORD + b"\0" + (
        b"\1\0\0\0" + zlib.compress(content) if is_compressed else bytes(4) + content
    )


def raw(content):
    return (
        b"\nxmp\n%8d\n" % len(content)
        + "\n".join(content.hex()[at : at + 72] for at in range(0, 2 * len(content), 72)).encode()
        + b"\n"
    )


WAYS = {
    "uncompressed": itxt,
    "compressed": lambda content: itxt(content, is_compressed=True),
    "as libvips and sharp write it": lambda content: (b"zTXt", KEYWORD + b"\0\0" + zlib.compress(content)),
    "in a plain text chunk": lambda content: (b"tEXt", KEYWORD + b"\0" + content),
    "as ImageMagick writes it": lambda content: (
        b"zTXt",
        b"Raw profile type xmp\0\0" + zlib.compress(raw(content)),
    ),
}


def png(*chunks, late=()):
    return (
        SIGNATURE
        + header()
        + b"".join(chunk(*each) for each in chunks)
        + DATA
        + b"".join(chunk(*each) for each in late)
        + END
    )


def edited(content, tmp_path):
    """Return a PNG as it is when it is marked."""
    file = tmp_path / "a.part"
    file.write_bytes(content)
    received = Received(file, picture(content), size=len(content), sha256="")
    received.edit(edits_to_mark(received.picture))
    assert received.size == file.stat().st_size
    return file.read_bytes()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("inside", "attributes"),
    [
        (f"<Iptc4xmpExt:DigitalSourceType>{TRAINED}</Iptc4xmpExt:DigitalSourceType>", 'rdf:about=""'),
        (f"<Iptc4xmpExt:DigitalSourceType>\n {TRAINED} \n</Iptc4xmpExt:DigitalSourceType>", 'rdf:about=""'),
        (f'<Iptc4xmpExt:DigitalSourceType rdf:resource="{TRAINED}"/>', ""),
        ("", f'rdf:about="" Iptc4xmpExt:DigitalSourceType="{TRAINED}"'),
        ("", f'xmlns:n="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" n:DigitalSourceType="{TRAINED}"'),
    ],
)
def test_the_source_is_read_however_it_is_written(way, inside, attributes):
    found = picture(png(WAYS[way](packet(inside, attributes))))
    assert (found.digital_source_type, found.marks) == (TRAINED, ("xmp",))
    assert edits_to_mark(found) == []


@pytest.mark.parametrize(
    "inside",
    [
        "",
        "<dc:source>trainedAlgorithmicMedia</dc:source>",
        f"<s:DigitalSourceType>{TRAINED}</s:DigitalSourceType>",
        # of a picture that this one was made of, and not of this one
        f"<s:made rdf:parseType='Resource'>{SAYS_TRAINED}</s:made>",
        "<Iptc4xmpExt:DigitalSourceType>  </Iptc4xmpExt:DigitalSourceType>",
    ],
)
def test_what_says_nothing_of_the_source_is_not_a_source(inside):
    assert picture(png(itxt(packet(inside)))).digital_source_type is None


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("is_late", [False, True])
def test_a_packet_that_says_nothing_of_the_source_is_added_to_and_loses_nothing(way, is_late, tmp_path):
    inside = "<dc:title>Grüße &amp; mehr <![CDATA[<&]]></dc:title>"
    before = packet(inside, 'rdf:about="uuid:1&amp;2"', '<rdf:Description rdf:about="uuid:1&amp;2" s:a="b"/>')
    described = b"tEXt", b"Comment\0kept"
    content = png(described, late=[WAYS[way](before)]) if is_late else png(described, WAYS[way](before))
    marked = edited(content, tmp_path)
    found = picture(marked)
    (there,) = found.xmp
    after = there.packet()
    assert (found.digital_source_type, found.marks, there.kind, there.is_early) == (
        TRAINED,
        ("xmp",),
        b"iTXt",
        True,
    )
    end = before.index(b"</rdf:RDF>")
    assert after.startswith(before[:end])
    assert after.endswith(before[end:])
    described_by = ET.fromstring(after.decode().strip("\ufeff")).findall(f".//{RDF}Description")
    assert {each.get(f"{RDF}about") for each in described_by} == {"uuid:1&2"}
    assert [each.findtext(f"{IPTC}AISystemUsed") for each in described_by] == [None, None, "Pictory AI Studio"]
    assert chunk(*described) in marked
    assert edits_to_mark(found) == [], "and a second time nothing is done"


def test_a_system_that_is_named_already_is_not_named_again():
    before = packet("<Iptc4xmpExt:AISystemUsed>Seedream</Iptc4xmpExt:AISystemUsed>")
    assert with_source_type(before).count(b"AISystemUsed>") == 2


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (
            packet(f"<Iptc4xmpExt:DigitalSourceType>{CAMERA}</Iptc4xmpExt:DigitalSourceType>"),
            "says that its source is",
        ),
        (b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>", "has no place for the mark"),
        (f"<rdf:RDF {NAMESPACES}/>".encode(), "has no place for the mark"),
        (packet() + packet(), "is not XML in UTF-8"),
        (b"<a", "is not XML in UTF-8"),
        (b"", "is not XML in UTF-8"),
        (packet("\x00"), "is not XML in UTF-8"),
        (packet().decode().encode("utf-16"), "is not XML in UTF-8"),
        (packet("<dc:title>gr\u00fcn</dc:title>").decode().encode("latin-1", "ignore"), "is not XML in UTF-8"),
        (b"<!DOCTYPE a [<!ENTITY b 'b'>]>" + packet()[57:], "has a document type"),
        (packet("<s:a>" * 300 + "</s:a>" * 300), "is nested more than 200 levels deep"),
        (packet(" " * MOST_BYTES), "is larger than 1,048,576 bytes"),
        (packet("", 'rdf:about="a"', '<rdf:Description rdf:about="b"/>'), "contradicts itself"),
        (packet("", 'rdf:about="a&#10;b"'), "has a name that is not printable"),
    ],
)
def test_a_packet_that_nothing_can_be_added_to_is_left_and_it_has_its_reason_reported(content, why):
    with pytest.raises(NotReadable, match=why):
        with_source_type(content)
    with pytest.raises(Unmarked, match=f"its XMP {why}.*left unchanged"):
        edits_to_mark(picture(png(itxt(content))))


def test_entities_that_would_grow_without_end_are_not_read():
    entities = "".join(f"<!ENTITY e{n} '{f'&e{n - 1};' * 10}'>" for n in range(1, 12))
    bomb = f"<!DOCTYPE a [<!ENTITY e0 'ha'>{entities}]><a>&e11;</a>".encode()
    assert picture(png(itxt(bomb))).digital_source_type is None
    with pytest.raises(NotReadable, match="document type"):
        with_source_type(bomb)


def test_a_chunk_that_would_inflate_without_end_is_not_inflated():
    bomb = KEYWORD + b"\0\0" + zlib.compress(bytes(64 * MOST_BYTES))
    assert len(bomb) < MOST_BYTES
    (found,) = picture(png((b"zTXt", bomb))).xmp
    with pytest.raises(NotReadable, match="larger than"):
        found.packet()


def test_a_chunk_that_is_larger_than_a_packet_may_be_is_not_kept(tmp_path):
    found = picture(png(itxt(packet(" " * MOST_BYTES))))
    assert (found.marks, found.xmp[0].body, found.digital_source_type) == (("xmp",), None, None)
    with pytest.raises(Unmarked, match="larger than"):
        edits_to_mark(found)


@pytest.mark.parametrize("body", [b"\0\0x\x9c", b"\0\0" + zlib.compress(b"a" * 99)[:-3], b"\0\0", b""])
def test_a_damaged_chunk_is_read_as_nothing(body):
    found = picture(png((b"zTXt", KEYWORD + body)))
    assert (found.digital_source_type, found.marks) == (None, ("xmp",))


@pytest.mark.parametrize("digits", [b"", b"xmp", b"xmp 4 3c6", b"exif 2 3c", b"\nxmp\n 2\nzz"])
def test_digits_that_are_none_are_read_as_nothing(digits):
    found = picture(png((b"tEXt", b"Raw profile type xmp\0" + digits)))
    assert (found.digital_source_type, found.marks) == (None, ("xmp",))
    with pytest.raises(Unmarked, match="its XMP is "):
        edits_to_mark(found)


def test_the_largest_packet_is_read():
    largest = packet(SAYS_TRAINED + " " * (MOST_BYTES - len(packet(SAYS_TRAINED))))
    assert len(largest) == MOST_BYTES
    assert picture(png(itxt(largest, is_compressed=True))).digital_source_type == TRAINED
    assert picture(png(itxt(largest + b" ", is_compressed=True))).digital_source_type is None


def test_a_packet_that_would_become_too_large_to_be_read_is_left():
    with pytest.raises(NotReadable, match="is larger than"):
        with_source_type(packet(" " * (MOST_BYTES - len(packet()))))


def test_two_packets_are_left_and_give_a_source_only_if_they_agree(tmp_path):
    of_ai = itxt(packet("", f'Iptc4xmpExt:DigitalSourceType="{TRAINED}"'))
    assert picture(png(of_ai, of_ai)).digital_source_type == TRAINED
    both = picture(png(of_ai, itxt(packet())))
    assert both.digital_source_type is None
    with pytest.raises(Unmarked, match="more than one XMP packet"):
        edits_to_mark(both)


def test_of_many_packets_two_are_kept():
    found = picture(png(*[itxt(packet())] * 9))
    assert [each.body is None for each in found.xmp] == [False] * 2 + [True] * 7
    assert found.digital_source_type is None


def test_a_source_that_is_long_is_cut():
    said = picture(png(itxt(packet("", f'Iptc4xmpExt:DigitalSourceType="{"a" * 9_999}"')))).digital_source_type
    assert said == "a" * 500


@pytest.mark.parametrize(
    ("source_type", "is_ai"),
    [
        (TRAINED, True),
        ("https://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia", True),
        ("digsrctype:trainedAlgorithmicMedia", True),
        ("TrainedAlgorithmicMedia", True),
        ("http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia", True),
        (CAMERA, False),
        ("http://cv.iptc.org/newscodes/digitalsourcetype/algorithmicMedia", False),
        ("not trainedAlgorithmicMedia", False),
        ("", False),
        (None, False),
    ],
)
def test_which_sources_are_models_depends_on_their_last_word(source_type, is_ai):
    assert says_ai(source_type) is is_ai


def test_a_file_without_a_packet_gets_one():
    assert edits_to_mark(picture(png())) == [Edit(AFTER_HEADER, 0, mark())]
    with pytest.raises(NotReadable, match="says that its source is"):
        with_source_type(new_packet())


@given(st.binary(max_size=300), st.sampled_from([b"iTXt", b"tEXt", b"zTXt"]))
def test_whatever_a_chunk_holds_it_is_read_or_refused(body, kind):
    chunks = (XmpChunk(0, 0, kind, body, True),)
    assert source_type_of(chunks) is None
    with suppress(NotReadable):
        assert with_source_type(chunks[0].packet())


@given(
    st.binary(max_size=2_000),
    st.lists(st.tuples(st.integers(0, 1_000), st.integers(0, 99), st.binary(max_size=9)), max_size=3),
)
def test_edits_put_bytes_in_the_place_of_others(content, edits):
    from pictory_provider.storage.target import _edited

    edits, ordered, at = sorted(edits, key=lambda edit: edit[0]), [], 0
    for offset, length, data in edits:
        if at <= offset <= len(content):
            ordered.append((offset, length, data))
            at = offset + length
    expected = content
    for offset, length, data in reversed(ordered):
        expected = expected[:offset] + data + expected[offset + length :]
    assert b"".join(_edited(io.BytesIO(content), ordered)) == expected


CAPTURE_ELSEWHERE = "http://example.com/a?b=1&c=<2>"


@pytest.mark.parametrize("source_type", [TRAINED, CAMERA, CAPTURE_ELSEWHERE, "{0} {}", "]]>", "Größe 图"])
def test_a_new_packet_says_any_source_exactly(source_type):
    packet = new_packet(source_type)
    assert source_type_of((XmpChunk(0, 0, *itxt(packet), is_early=True),)) == source_type
    said = ET.fromstring(packet.decode().split("?>", 1)[1].rsplit("<?", 1)[0])
    assert said.findtext(f".//{IPTC}DigitalSourceType") == source_type


def test_a_new_packet_names_the_system_only_if_a_model_made_the_picture():
    composite = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
    assert b"Pictory AI Studio" in new_packet(composite)
    assert b"Pictory" not in new_packet(CAMERA)


@pytest.mark.parametrize("source_type", ["", " ", "\0", "a\nb", "\ud800", "x" * 501])
def test_a_new_packet_refuses_a_source_that_would_be_read_differently(source_type):
    with pytest.raises(NotReadable, match=r"^cannot say that the picture's source is"):
        new_packet(source_type)
