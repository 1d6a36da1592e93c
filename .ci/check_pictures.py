# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Check that the demo has saved real pictures of the right size."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

PICTURES = Path(__file__).resolve().parent.parent / ".demo" / "pictures"
EXPECTED = {"text_to_image": (1, (1280, 720)), "reference_image": (1, (1024, 1024)), "batch": (4, (1024, 1024))}

for folder, (number, size) in EXPECTED.items():
    files = sorted((PICTURES / folder).rglob("*.png"))
    assert len(files) == number, (folder, files)
    for file in files:
        with Image.open(file) as picture:
            picture.load()
            assert (picture.format, picture.size) == ("PNG", size), (file, picture.format, picture.size)
            assert len(picture.convert("RGB").getcolors(2**24)) > 100, f"{file} is almost empty"
        print(f"{file.relative_to(PICTURES)} is a PNG of {size[0]}x{size[1]}")
