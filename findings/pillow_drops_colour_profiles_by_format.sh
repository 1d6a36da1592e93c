#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
#
# Guess, from memory: if Pillow opens a picture with an ICC profile and saves it in another format, the profile is kept
# in every format that can have one, so that the copy shows the same colours. CMYK becomes RGB by its profile.
#
# Seen with Pillow 13.0.0 and 11.3.0, for a PNG in Display P3 with a patch of (200, 100, 50), and a JPEG in CMYK:
# - AVIF and PNG keep the profile, JPEG and WebP drop it without a warning. Without it the same numbers are read as sRGB,
#   in which the patch should be (215, 93, 31);
# - of the CMYK picture, AVIF has RGB pixels that were converted without the profile, and the profile of CMYK.
#
# What this project does about it: colours are converted to sRGB, and no copy has a profile (`storage/copies.py`).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/look.py" <<'PYTHON'
import io
import struct
import warnings

import PIL
from PIL import Image, ImageCms

warnings.simplefilter("error")


def fixed(*values):
    return struct.pack(f">{len(values)}i", *(round(value * 65_536) for value in values))


def profile(space, connection, kind, tags):
    """Return an ICC profile of version 4."""
    text = "Test".encode("utf-16-be")
    name = b"mluc" + bytes(4) + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(text), 28) + text
    white = (0.9642, 1.0, 0.8249)
    tags = {b"desc": name, b"cprt": name, b"wtpt": b"XYZ " + bytes(4) + fixed(*white), **tags}
    table, bodies, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for tag, body in tags.items():
        table += struct.pack(">4sII", tag, start + len(bodies), len(body))
        bodies += body + bytes(-len(body) % 4)
    head = struct.pack(">I4xI4s4s4s12x4s28x", start + len(bodies), 0x04000000, kind, space, connection, b"acsp")
    return (head + fixed(*white)).ljust(128, b"\0") + table + bodies


curve = b"para" + bytes(4) + struct.pack(">HH", 3, 0) + fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
colorants = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
P3 = profile(b"RGB ", b"XYZ ", b"mntr", {
    **{tag: b"XYZ " + bytes(4) + fixed(*of) for tag, of in zip((b"rXYZ", b"gXYZ", b"bXYZ"), colorants)},
    **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve),
})
same = bytes(range(256))
nodes = b"".join(bytes({0: (255, 128, 128), 8: (128, 128, 128)}.get(node, (0, 128, 128))) for node in range(16))
CMYK = profile(b"CMYK", b"Lab ", b"prtr", {  # in which cyan is a grey, so that a naive conversion shows
    b"A2B0": b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1) + same * 4 + nodes + same * 3
})
SRGB = ImageCms.createProfile("sRGB")


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return Image.open(io.BytesIO(file.getvalue()))


def in_srgb(image, icc, mode):
    """Return the first pixel as a program sees it that heeds profiles."""
    if not icc:
        return image.convert("RGB").getpixel((0, 0))
    source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    return ImageCms.profileToProfile(image.convert(mode), source, SRGB, 1, outputMode="RGB").getpixel((0, 0))


def near(one, other):
    return all(abs(a - b) <= 4 for a, b in zip(one, other))


print("Pillow", PIL.__version__)
original = saved(Image.new("RGB", (64, 64), (200, 100, 50)), "PNG", icc_profile=P3)
should = in_srgb(original, P3, "RGB")
print(f"{'PNG in Display P3':<24}{should}")
kept = {}
for kind in ("PNG", "AVIF", "WEBP", "JPEG"):
    copy = saved(original, kind)
    icc = copy.info.get("icc_profile")
    seen = in_srgb(copy, icc, "RGB")
    kept[kind] = (icc == P3, near(seen, should))
    print(f"{'copied to ' + kind:<24}{seen}, {'with' if icc else 'without'} a profile")
assert kept == {"PNG": (True, True), "AVIF": (True, True), "WEBP": (False, False), "JPEG": (False, False)}, kept

cmyk = saved(Image.new("CMYK", (64, 64), (255, 0, 0, 0)), "JPEG", icc_profile=CMYK)
should = in_srgb(cmyk, CMYK, "CMYK")
copy = saved(cmyk, "AVIF")
space = ImageCms.ImageCmsProfile(io.BytesIO(copy.info["icc_profile"])).profile.xcolor_space
print(f"{'JPEG in CMYK':<24}{should}")
print(f"{'copied to AVIF':<24}{copy.convert('RGB').getpixel((0, 0))}, mode {copy.mode}, with a profile of {space}")
assert (copy.mode, space) == ("RGB", "CMYK")
assert near(should, (119, 119, 119))
assert not near(copy.convert("RGB").getpixel((0, 0)), should)
PYTHON
for version in 13.0.0 11.3.0; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" install --quiet --disable-pip-version-check "pillow==$version"
    "$folder/$version/bin/python" "$folder/look.py"
done
