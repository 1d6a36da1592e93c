# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Mark a PNG file as made by an AI model.

The mark is IPTC's Digital Source Type ``trainedAlgorithmicMedia`` in an XMP packet, which Google Merchant Center
requires and image searches and social networks read
(https://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia). In a PNG, XMP is an uncompressed
``iTXt`` chunk before the pixels (https://www.w3.org/TR/png-3/#11iTXt). It is not a signature, and proves nothing.

The mark has no date and no name, so the same picture always gives the same bytes.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, NamedTuple

from pictory_provider.media.xmp import KEYWORD, NotReadable, new_packet, says_ai, with_source_type

if TYPE_CHECKING:
    from pictory_provider.media.formats import Picture

AFTER_HEADER = 33
"""The offset of a PNG's second chunk, after the signature and ``IHDR``."""

MARKS = ("xmp",)
"""The marks of a marked file."""
_OF_OTHERS = ("aigc", "c2pa")
"""Marks that a change of the file would invalidate or contradict."""


class Edit(NamedTuple):
    """A replacement of bytes in a file.

    :param offset: of the first byte, in the file before all edits.
    :param length: bytes to remove.
    """

    offset: int
    length: int
    data: bytes


class Unmarked(ValueError):
    """A picture is not marked; says why."""


def mark(packet: bytes | None = None) -> bytes:
    """Return the chunk that marks a PNG; its place is :data:`AFTER_HEADER`.

    :param packet: that says so; by default one that says nothing else.
    """
    # Keyword, not compressed, no language, no translated keyword: five zero bytes end and fill these fields.
    body = b"iTXt" + KEYWORD + bytes(5) + (new_packet() if packet is None else packet)
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


def edits_to_mark(picture: Picture) -> list[Edit]:
    """Return the edits that mark a picture; none if it already says that a model made it.

    An XMP packet that does not say where the picture comes from is extended. A file with a C2PA manifest or
    China's label is never changed: one changed byte makes a signature invalid. Nor is one whose XMP names another
    source: two statements would contradict each other.

    :raises Unmarked: says why the picture is not marked.
    """
    if picture.kind != "PNG":
        raise Unmarked(f"it is a {picture.kind} file, and only PNG files are marked")
    if says_ai(picture.digital_source_type):
        return []
    if any(mark in _OF_OTHERS for mark in picture.marks):
        raise Unmarked(
            f"it already says something about its origin ({', '.join(picture.marks)}), and is left unchanged"
        )
    if not picture.xmp:
        return [Edit(AFTER_HEADER, 0, mark())]
    if len(picture.xmp) > 1:
        raise Unmarked("it has more than one XMP packet, and is left unchanged")
    (chunk,) = picture.xmp
    try:
        merged = mark(with_source_type(chunk.packet()))
    except NotReadable as error:
        raise Unmarked(f"its XMP {error}, and it is left unchanged") from None
    if chunk.is_early:
        return [Edit(chunk.offset, chunk.length, merged)]
    return [Edit(AFTER_HEADER, 0, merged), Edit(chunk.offset, chunk.length, b"")]


def why_not(picture: Picture) -> str | None:
    """Return why a picture is not marked; ``None`` if it is marked, or already says so."""
    try:
        edits_to_mark(picture)
    except Unmarked as error:
        return str(error)
    return None
