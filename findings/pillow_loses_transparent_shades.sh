#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
#
# Guess, from memory: a PNG may name one shade of grey or one colour as transparent (tRNS), and `convert("RGBA")` of Pillow
# makes its pixels transparent, however many bits a value has.
#
# Seen with Pillow 13.0.0 and 11.3.0, for files that pypng 0.20220715.0 writes, and libvips 8.18.7 (pyvips 3.1.1) reads
# with transparency in each depth:
# - grey with 2 and 4 bits: nothing is transparent; Pillow compares the shade as it is in the file with pixels that it has
#   scaled to 8 bits. With 1 bit the same in 11.3.0, and right in 13.0.0;
# - grey with 8 bits: right. Grey with 16 bits: nothing is transparent, and every shade above 255 becomes white;
# - RGB with 8 bits: right. RGB with 16 bits: nothing is transparent;
# - `has_transparency_data` is True for all of them.
#
# What this project does about it: it reads the shade from the file and scales it, reduces 16 bits of grey itself, and
# refuses a transparent colour of 16 bits (`storage/copies.py`).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/look.py" <<'PYTHON'
import io
import sys

import PIL
import png
import pyvips
from PIL import Image

print("Pillow", PIL.__version__)


def written(depth, is_grey):
    """Return a PNG of two pixels, the first of which is transparent."""
    key, other = (1, 0) if depth == 1 else (2**depth * 5 // 8, 2**depth // 4)
    channels = 1 if is_grey else 3
    file = io.BytesIO()
    transparent = key if is_grey else (key,) * 3
    writer = png.Writer(2, 1, greyscale=is_grey, bitdepth=depth, transparent=transparent)
    writer.write(file, [[key] * channels + [other] * channels])
    return file.getvalue()


def by_libvips(data):
    image = pyvips.Image.new_from_buffer(data, "")
    return [int(image[image.bands - 1](x, 0)[0]) > 0 for x in (0, 1)]


seen = {}
for is_grey, depths in ((True, (1, 2, 4, 8, 16)), (False, (8, 16))):
    for depth in depths:
        data = written(depth, is_grey)
        assert by_libvips(data) == [False, True], "libvips: the first pixel is transparent"
        image = Image.open(io.BytesIO(data))
        image.load()
        assert image.has_transparency_data
        converted = image.convert("RGBA")
        (*_, first), (*colour, second) = (converted.getpixel((x, 0)) for x in (0, 1))
        name = f"{'grey' if is_grey else 'RGB'}, {depth} bits"
        seen[name] = "right" if (first, second) == (0, 255) else "nothing is transparent"
        if depth == 16 and is_grey:
            seen[name] += f", and 0x4000 is {colour[0]}"
        assert second == 255
        print(f"{name:<15}{seen[name]}")
lost = "nothing is transparent"
assert seen == {
    "grey, 1 bits": "right" if PIL.__version__ == "13.0.0" else lost,
    "grey, 2 bits": lost,
    "grey, 4 bits": lost,
    "grey, 8 bits": "right",
    "grey, 16 bits": f"{lost}, and 0x4000 is 255",
    "RGB, 8 bits": "right",
    "RGB, 16 bits": lost,
}, seen
PYTHON
for version in 13.0.0 11.3.0; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" install --quiet --disable-pip-version-check "pillow==$version" pypng==0.20220715.0 pyvips==3.1.1 pyvips-binary==8.18.7
    "$folder/$version/bin/python" "$folder/look.py"
done
