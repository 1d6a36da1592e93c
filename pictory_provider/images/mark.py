# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Say in a PNG file that its picture was made by a machine.

The mark is IPTC's Digital Source Type ``trainedAlgorithmicMedia`` in an XMP packet, which Google Merchant Center
asks for and which image searches and social networks read
(https://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia). In a PNG, XMP is an ``iTXt`` chunk, not
compressed, before the pixels (https://www.w3.org/TR/png-3/#11iTXt). It is no signature, and no proof of anything.

There is no date and no name of its own in it, so the same picture always gives the same bytes.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pictory_provider.images.formats import Picture

AFTER_HEADER = 33
"""The offset of a PNG's second chunk: the signature and ``IHDR`` lie before it."""

MARKS = ("xmp",)
"""What a marked file then says of its origin."""

_PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">
   <Iptc4xmpExt:DigitalSourceType>\
http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia</Iptc4xmpExt:DigitalSourceType>
   <Iptc4xmpExt:AISystemUsed>Pictory AI Studio</Iptc4xmpExt:AISystemUsed>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""


def mark() -> bytes:
    """Return the chunk that marks a PNG; it goes to :data:`AFTER_HEADER`."""
    # Keyword, not compressed, no language, no translated keyword: five zero bytes end and fill these fields.
    body = b"iTXt" + b"XML:com.adobe.xmp" + bytes(5) + _PACKET.encode()
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


def why_not(picture: Picture) -> str | None:
    """Say why a picture is left as it came; ``None`` for one that can be marked.

    A file that says something of its origin already is never touched: one changed byte makes a C2PA signature
    invalid, and two XMP packets contradict each other.
    """
    if picture.kind != "PNG":
        return f"it is a {picture.kind} file, and only PNG files are marked"
    if picture.marks:
        return f"it says something of its origin already ({', '.join(picture.marks)}), and is left as it came"
    return None
