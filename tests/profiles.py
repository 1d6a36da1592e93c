# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Small ICC profiles for tests, made from numbers (ICC.1, version 4)."""

from __future__ import annotations

import struct

_D50 = (0.9642, 1.0, 0.8249)


def display_p3() -> bytes:
    """Return a profile of Display P3: sRGB's curve with wider primaries."""
    colorants = {
        b"rXYZ": (0.51512, 0.24120, -0.00105),
        b"gXYZ": (0.29198, 0.69225, 0.04189),
        b"bXYZ": (0.15710, 0.06657, 0.78407),
    }
    curve = (
        b"para" + bytes(4) + struct.pack(">HH", 3, 0) + _fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    )
    tags = {tag: _xyz(*values) for tag, values in colorants.items()}
    return _profile(b"RGB ", b"XYZ ", tags | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve))


def linear_grey() -> bytes:
    """Return a profile of grey whose values are proportional to the light."""
    return _profile(b"GRAY", b"XYZ ", {b"kTRC": b"curv" + bytes(4) + struct.pack(">I", 0)})


def cmyk_of_grey_cyan() -> bytes:
    """Return a profile of CMYK in which nothing is white, cyan is grey (L* of 50), and everything else is black.

    The paper is yellowish, which a copy should not show.
    """
    lab = {0b0000: (255, 128, 128), 0b1000: (128, 128, 128)}
    grid = b"".join(bytes(lab.get(node, (0, 128, 128))) for node in range(16))
    table = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    same = bytes(range(256))
    tags = {b"A2B0": table + same * 4 + grid + same * 3, b"wtpt": _xyz(0.8, 0.83, 0.5)}
    return _profile(b"CMYK", b"Lab ", tags, b"prtr")


def _profile(space: bytes, connection: bytes, tags: dict[bytes, bytes], kind: bytes = b"mntr") -> bytes:
    text = "A test".encode("utf-16-be")
    name = b"mluc" + bytes(4) + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(text), 28) + text
    tags = {b"desc": name, b"cprt": name, b"wtpt": _xyz(*_D50), **tags}
    table, bodies, at = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for tag, body in tags.items():
        table += struct.pack(">4sII", tag, at + len(bodies), len(body))
        bodies += body + bytes(-len(body) % 4)
    head = struct.pack(
        ">I4sI4s4s4s6H4s4sI4sIQI12s", at + len(bodies), b"", 0x04000000, kind, space, connection,
        2026, 1, 1, 0, 0, 0, b"acsp", b"", 0, b"", 0, 0, 0, _fixed(*_D50),
    )  # fmt: skip
    return head.ljust(128, b"\0") + table + bodies


def _xyz(*values: float) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(*values)


def _fixed(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65_536) for value in values))
