# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Whether a PNG says that its colours are not sRGB."""

from __future__ import annotations

import struct

import pytest

from pictory_provider.media.colours import chunks_before_pixels, why_not_srgb
from pictory_provider.media.png import SIGNATURE
from tests.pure.media.test_png import DATA, END, chunk, header

SRGB_PRIMARIES = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
P3_PRIMARIES = (31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)


def gamma(value):
    return chunk(b"gAMA", struct.pack(">I", value))


def primaries(values):
    return chunk(b"cHRM", struct.pack(">8I", *values))


def why(*chunks, late=()):
    content = SIGNATURE + header() + b"".join(chunks) + DATA + b"".join(late) + END
    return why_not_srgb(chunks_before_pixels(content))


SRGB = chunk(b"sRGB", b"\0")


@pytest.mark.parametrize(
    "chunks",
    [
        (),
        (SRGB,),
        (gamma(45455),),
        (gamma(45000),),
        (gamma(0),),
        (gamma(45455), primaries(SRGB_PRIMARIES)),
        (primaries((31269, 32899, 63999, 33001, 30000, 60000, 15000, 5999)), gamma(45455)),
        (chunk(b"cICP", bytes((1, 13, 0, 1))),),
        (chunk(b"cICP", bytes((1, 13, 0, 1))), gamma(100000)),
        (SRGB, gamma(100000), primaries(P3_PRIMARIES)),
        (chunk(b"gAMA", b"\0"), chunk(b"cHRM", b"\0" * 31), chunk(b"cICP", b"\x09\x10\0")),
    ],
)
def test_what_says_srgb_in_any_way_is_srgb(chunks):
    assert why(*chunks) is None


@pytest.mark.parametrize(
    ("chunks", "said"),
    [
        ((gamma(100000),), "a gAMA chunk (1) says so"),
        ((gamma(55556), primaries(SRGB_PRIMARIES)), "a gAMA chunk (0.55556) says so"),
        ((gamma(45455), primaries(P3_PRIMARIES)), "a cHRM chunk (0.3127, 0.329, 0.68"),
        ((chunk(b"cICP", bytes((12, 13, 0, 1))), SRGB), "a cICP chunk (12, 13, 0, 1) says so"),
        ((chunk(b"cICP", bytes((9, 16, 0, 1))),), "a cICP chunk (9, 16, 0, 1) says so"),
        ((chunk(b"cICP", bytes((1, 13, 0, 0))),), "a cICP chunk (1, 13, 0, 0) says so"),
    ],
)
def test_what_says_something_else_is_named(chunks, said):
    assert said in why(*chunks)


def test_a_profile_decides_before_other_chunks():
    profile = chunk(b"iCCP", b"any\0\0")
    assert why(profile, gamma(100000), primaries(P3_PRIMARIES), chunk(b"cICP", bytes((9, 16, 0, 1)))) is None


def test_a_chunk_after_the_pixels_says_nothing_and_of_two_the_first_counts():
    assert why(late=(gamma(100000),)) is None
    assert why(gamma(45455), gamma(100000)) is None
    assert why(gamma(100000), gamma(45455)) is not None
