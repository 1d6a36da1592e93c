# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What a PNG says of its colours beside an ICC profile.

Of these chunks the first that a file has decides (https://www.w3.org/TR/png-3/#color-chunk-precendence): ``cICP``,
``iCCP``, ``sRGB``, ``gAMA`` with ``cHRM``. Without any of them the colours are sRGB. Pillow applies none of them,
and does not read ``cICP``. A profile beside ``cICP`` is for programs that do not know that chunk.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from pictory_provider.media.png import SIGNATURE

if TYPE_CHECKING:
    from collections.abc import Iterator

_CICP = (1, 13, 0, 1)
"""sRGB: primaries, transfer function, matrix and range of ITU-T H.273."""
_GAMMA = 45_455
"""Of sRGB, as PNG counts: a 100,000th of an exponent."""
_GAMMA_TOLERANCE = 0.05
"""What libpng takes for no difference (``PNG_GAMMA_THRESHOLD``)."""
_CHROMATICITIES = (31_270, 32_900, 64_000, 33_000, 30_000, 60_000, 15_000, 6_000)
"""Of sRGB: x and y of white, red, green and blue, as PNG counts."""
_CHROMATICITY_TOLERANCE = 100
"""What libpng takes for no difference."""


def chunks_before_pixels(data: bytes) -> dict[bytes, bytes]:
    """Return the content of each chunk of a PNG before its pixels, by its type; the first one of a type.

    :param data: a complete PNG (:class:`~pictory_provider.media.png.PngChecker`).
    """
    found: dict[bytes, bytes] = {}
    for kind, body in _chunks(data):
        if kind == b"IDAT":
            break
        found.setdefault(kind, body)
    return found


def why_not_srgb(chunks: dict[bytes, bytes]) -> str | None:
    """Return why the colours of a PNG are not sRGB, as a clause; ``None`` if they are, or if it has a profile.

    :param chunks: of :func:`chunks_before_pixels`.
    """
    if b"iCCP" in chunks:
        return None
    cicp = chunks.get(b"cICP", b"")
    if len(cicp) == len(_CICP):
        return None if tuple(cicp) == _CICP else f"a cICP chunk ({', '.join(map(str, cicp))}) says so"
    if b"sRGB" in chunks:
        return None
    gamma = _numbers(chunks.get(b"gAMA"), 1)
    if gamma and gamma[0] and abs(gamma[0] / _GAMMA - 1) > _GAMMA_TOLERANCE:
        return f"a gAMA chunk ({gamma[0] / 100_000:g}) says so"
    chromaticities = _numbers(chunks.get(b"cHRM"), len(_CHROMATICITIES))
    pairs = zip(chromaticities, _CHROMATICITIES, strict=False)
    if any(abs(one - other) > _CHROMATICITY_TOLERANCE for one, other in pairs):
        return f"a cHRM chunk ({', '.join(f'{each / 100_000:g}' for each in chromaticities)}) says so"
    return None


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(SIGNATURE)
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind, data[at + 8 : at + 8 + length]
        at += 12 + length


def _numbers(body: bytes | None, count: int) -> tuple[int, ...]:
    """Return the numbers of a chunk; none if it has another length, which programs ignore."""
    return struct.unpack(f">{count}I", body) if body is not None and len(body) == 4 * count else ()
