# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Read the source of a picture from an XMP packet, and add it to a packet that does not have it.

The property is IPTC's Digital Source Type (https://iptc.org/std/photometadata/specification/). In a PNG the
packet is in a text chunk: uncompressed by the standard (https://www.w3.org/TR/png-3/#11iTXt), compressed as
libvips and sharp write it, or as hexadecimal digits, as ImageMagick writes it. A packet is XML from an unknown
source: one with a document type, which could declare entities, and one of more than a mebibyte is not read.

A packet is never rewritten. The addition goes before the end of ``rdf:RDF``, and every other byte stays.
"""

from __future__ import annotations

import html
import re
import zlib
from typing import NamedTuple
from xml.parsers import expat

TRAINED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""The Digital Source Type of a picture that a model has made."""
MOST_BYTES = 1024 * 1024
"""The largest packet, and the largest chunk with one, that is read."""
KEYWORD, RAW_KEYWORD = b"XML:com.adobe.xmp", b"Raw profile type xmp"
"""Keywords of the text chunks that contain a packet."""
_OF_AI = ("trainedalgorithmicmedia", "compositewithtrainedalgorithmicmedia")
_RDF, _IPTC = "http://www.w3.org/1999/02/22-rdf-syntax-ns#", "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_SOURCE_TYPE = f"{_IPTC} DigitalSourceType"
_LONGEST_VALUE = 500
_DEEPEST = 200
_RAW = re.compile(rb"\s*xmp\s+[0-9]+\s+([0-9A-Fa-f\s]+)")
_SYSTEM = f"{_IPTC} AISystemUsed"
_SAYS = "   <Iptc4xmpExt:DigitalSourceType>{}</Iptc4xmpExt:DigitalSourceType>\n"
_SAYS_SOURCE = _SAYS.format(TRAINED)
_SAYS_SYSTEM = "   <Iptc4xmpExt:AISystemUsed>Pictory AI Studio</Iptc4xmpExt:AISystemUsed>\n"
_PACKET = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="{_RDF}">
  <rdf:Description rdf:about="" xmlns:Iptc4xmpExt="{_IPTC}">
{{}}  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""


class NotReadable(ValueError):
    """A packet cannot be read or extended; says why, in words that follow "its XMP"."""


class XmpChunk(NamedTuple):
    """A text chunk of a PNG with an XMP packet.

    :param offset: of the chunk in the file, in bytes.
    :param length: of the whole chunk, in bytes.
    :param kind: ``iTXt``, ``tEXt`` or ``zTXt``.
    :param body: its content; ``None`` if it is larger than :data:`MOST_BYTES`.
    :param is_early: whether it is before the pixels. Some readers ignore later chunks.
    """

    offset: int
    length: int
    kind: bytes
    body: bytes | None
    is_early: bool

    def packet(self) -> bytes:
        """Return the packet.

        :raises NotReadable: says why.
        """
        if self.body is None:
            raise NotReadable(f"is larger than {MOST_BYTES:,} bytes")
        keyword, _, text = self.body.partition(b"\0")
        if self.kind == b"iTXt":
            is_compressed, text = text[:1] == b"\1", text[2:].split(b"\0", 2)[-1]
        else:
            is_compressed, text = self.kind == b"zTXt", text[1:] if self.kind == b"zTXt" else text
        if is_compressed:
            text = _decompressed(text)
        if keyword != RAW_KEYWORD:
            return text
        found = _RAW.fullmatch(text)
        try:
            return bytes.fromhex(found[1].decode()) if found else b""
        except ValueError:
            raise NotReadable("is damaged") from None


def new_packet(source_type: str = TRAINED) -> bytes:
    """Return a packet that says only where the picture comes from: by default, that a model made it.

    :param source_type: the Digital Source Type. Only with one of AI the packet also names the system.
    :raises NotReadable: if a reader of the packet would see another value.
    """
    if not source_type.isprintable() or not 0 < len(source_type.strip()) <= _LONGEST_VALUE:
        raise NotReadable(f"cannot say that the picture's source is {source_type[:_LONGEST_VALUE]!r}")
    said = _SAYS.format(html.escape(source_type.strip(), quote=False))
    return _PACKET.format(said + (_SAYS_SYSTEM if says_ai(source_type) else "")).encode()


def says_ai(source_type: str | None) -> bool:
    """Whether a Digital Source Type says that a model made the picture, or a part of it."""
    return source_type is not None and re.split("[/:]", source_type)[-1].lower() in _OF_AI


def source_type_of(chunks: tuple[XmpChunk, ...]) -> str | None:
    """Return the Digital Source Type that a file's packets agree on; ``None`` if none can be read."""
    try:
        said = {_Packet(chunk.packet()).source_type for chunk in chunks}
    except NotReadable:
        return None
    return said.pop() if len(said) == 1 else None


def with_source_type(packet: bytes) -> bytes:
    """Return a packet, extended to say that a model made the picture.

    :raises NotReadable: if it cannot be read, or already names the picture's source.
    """
    found = _Packet(packet)
    if found.source_type is not None:
        raise NotReadable(f"says that its source is {found.source_type!r}")
    if found.end is None or packet[found.end : found.end + 2] != b"</":
        raise NotReadable("has no place for the mark")
    if not found.about.isprintable():
        raise NotReadable("has a name that is not printable")
    added = (
        f'<rdf:Description xmlns:rdf="{_RDF}" rdf:about="{html.escape(found.about)}" '
        f'xmlns:Iptc4xmpExt="{_IPTC}">\n{_SAYS_SOURCE}{"" if found.names_system else _SAYS_SYSTEM}'
        "  </rdf:Description>\n "
    )
    merged = packet[: found.end] + added.encode() + packet[found.end :]
    if _Packet(merged).source_type != TRAINED:
        raise NotReadable("has no place for the mark")
    return merged


def _decompressed(data: bytes) -> bytes:
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(data, MOST_BYTES + 1)
    except zlib.error:
        raise NotReadable("is damaged") from None
    if len(text) > MOST_BYTES:
        raise NotReadable(f"is larger than {MOST_BYTES:,} bytes")
    if not inflater.eof:
        raise NotReadable("is damaged")
    return text


class _Packet:
    """A parsed packet. Only properties of the described resource itself count, not those of its parts or history.

    :ivar source_type: the Digital Source Type; ``None`` if it has none.
    :ivar about: the name of the described resource; usually empty.
    :ivar end: the offset of the end of ``rdf:RDF``; ``None`` if there is not exactly one.
    :ivar names_system: whether it names the system that made the picture.
    :raises NotReadable: says why.
    """

    def __init__(self, packet: bytes) -> None:
        if len(packet) > MOST_BYTES:
            raise NotReadable(f"is larger than {MOST_BYTES:,} bytes")
        self.names_system = False
        self._source_types: list[str] = []
        self._ends: list[int] = []
        self._abouts: list[str] = []
        self._depth = 0
        self._rdf_depth: int | None = None
        self._text: list[str] | None = None
        self._parser = parser = expat.ParserCreate("utf-8", " ")
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        try:
            packet.decode("utf-8")
            parser.Parse(packet, True)
        except (expat.ExpatError, UnicodeDecodeError):
            raise NotReadable("is not XML in UTF-8") from None
        if len({*self._source_types}) > 1 or len({*self._abouts}) > 1:
            raise NotReadable("contradicts itself")
        self.source_type = next(iter(self._source_types), None)
        self.about = next(iter(self._abouts), "")
        self.end = self._ends[0] if len(self._ends) == 1 else None

    def _doctype(self, *_: object) -> None:
        raise NotReadable("has a document type, which XMP does not allow")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise NotReadable(f"is nested more than {_DEEPEST} levels deep")
        if self._rdf_depth is None:
            if name == f"{_RDF} RDF":
                self._rdf_depth = self._depth
        elif self._depth == self._rdf_depth + 1:
            self._abouts.append(attributes.get(f"{_RDF} about", attributes.get("about", "")))
            self._add_source(attributes.get(_SOURCE_TYPE))
            self.names_system = self.names_system or _SYSTEM in attributes
        elif self._depth == self._rdf_depth + 2 and name == _SOURCE_TYPE:
            self._add_source(attributes.get(f"{_RDF} resource"))
            self._text = []
        elif self._depth == self._rdf_depth + 2:
            self.names_system = self.names_system or name == _SYSTEM

    def _end(self, _: str) -> None:
        if self._rdf_depth is not None:
            if self._text is not None and self._depth == self._rdf_depth + 2:
                self._add_source("".join(self._text))
                self._text = None
            if self._depth == self._rdf_depth:
                self._ends.append(self._parser.CurrentByteIndex)
                self._rdf_depth = None
        self._depth -= 1

    def _characters(self, text: str) -> None:
        if self._text is not None:
            self._text.append(text)

    def _add_source(self, value: str | None) -> None:
        if value is not None and (value := value.strip()):
            self._source_types.append(value[:_LONGEST_VALUE])
