# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Copies of pictures, read by programs of others: exiftool, sharp, Pillow and a browser."""

from __future__ import annotations

import json
import shutil
import subprocess
from base64 import b64encode

import pytest
from PIL import Image, ImageDraw

from pictory_provider.media.copies import DEFAULT_QUALITY, check_copies
from pictory_provider.media.xmp import TRAINED
from pictory_provider.storage.copies import convert
from tests.profiles import display_p3
from tests.provider.storage.test_copies import P3_PATCHES, is_near, saved

FORMATS = [name for name in DEFAULT_QUALITY if name != "jpg"]
WIDTH, HEIGHT = 480, 160
SHARP = "sharp@0.35.5"
READ_WITH_SHARP = """
const sharp = require("sharp");
(async () => {
  const read = {};
  for (const file of process.argv.slice(1)) {
    const { format, width, height, icc, xmpAsString } = await sharp(file).metadata();
    const { channels } = await sharp(file).stats();
    read[file] = { format, width, height, hasProfile: Boolean(icc), xmp: xmpAsString, deviation: channels[0].stdev };
  }
  console.log(JSON.stringify(read));
})();
"""
PAINT = """async source => {
  const image = new Image();
  image.src = source;
  await image.decode();
  const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const at = x => [...context.getImageData(x, image.naturalHeight / 2, 1, 1).data];
  const columns = [1, 3, 5].map(sixth => Math.round(image.naturalWidth * sixth / 6));
  return { size: [image.naturalWidth, image.naturalHeight], patches: columns.map(at) };
}"""
"""Returns the size of a picture, and the colours in the middle of its thirds, as the browser paints them."""


@pytest.fixture(scope="module")
def original():
    """Return a PNG in Display P3 with three patches side by side."""
    picture = Image.new("RGB", (WIDTH, HEIGHT))
    draw = ImageDraw.Draw(picture)
    for number, (p3, _) in enumerate(P3_PATCHES):
        draw.rectangle((number * WIDTH // 3, 0, (number + 1) * WIDTH // 3, HEIGHT), p3)
    return saved(picture, icc_profile=display_p3())


@pytest.fixture(scope="module")
def files(original, tmp_path_factory):
    """Return the files of copies with 240 pixels of width, by their formats."""
    folder = tmp_path_factory.mktemp("copies")
    specs = check_copies([{"format": name, "width": 240} for name in FORMATS])
    for made in convert(original, specs, source_type=TRAINED):
        (folder / f"cover.{made.spec.format}").write_bytes(made.data)
    return {name: folder / f"cover.{name}" for name in FORMATS}


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")
def test_exiftool_reads_the_mark_of_every_format_and_finds_no_fault(files):
    said = subprocess.run(
        ["exiftool", "-json", "-validate", "-warning", "-n", "-all", *files.values()],
        check=True,
        capture_output=True,
    )
    read = {each["FileType"].lower().split()[-1]: each for each in json.loads(said.stdout)}
    assert set(read) == set(FORMATS)
    for name, tags in read.items():
        assert (tags["DigitalSourceType"], tags["AISystemUsed"]) == (TRAINED, "Pictory AI Studio"), name
        assert (tags["ImageWidth"], tags["ImageHeight"], tags.get("Warning")) == (240, 80, None), name
        assert not {"ProfileDescription", "Orientation", "Software", "ModifyDate"} & set(tags), name


@pytest.mark.parametrize("name", FORMATS)
def test_pillow_reads_the_mark_as_xml(files, name):
    pytest.importorskip("defusedxml")
    with Image.open(files[name]) as image:
        described = image.getxmp()["xmpmeta"]["RDF"]["Description"]
    assert described["DigitalSourceType"] == TRAINED


@pytest.fixture(scope="session")
def sharp(npm_install):
    """Return a folder with sharp."""
    return npm_install(SHARP)


def test_sharp_reads_the_mark_and_the_pixels_of_every_format(files, sharp):
    said = subprocess.run(
        ["node", "-e", READ_WITH_SHARP, *files.values()], cwd=sharp, check=True, capture_output=True
    )
    read = json.loads(said.stdout)
    for name, file in files.items():
        seen = read[str(file)]
        assert seen["format"] == ("heif" if name == "avif" else name)
        assert (seen["width"], seen["height"], seen["hasProfile"]) == (240, 80, False), name
        assert f"<Iptc4xmpExt:DigitalSourceType>{TRAINED}</Iptc4xmpExt:DigitalSourceType>" in seen["xmp"], name
        assert seen["deviation"] > 10, name


@pytest.fixture(scope="module")
def painted(chromium):
    """Return a function that paints a picture in Chromium: its size, and the colours of its patches."""
    context = chromium.new_context()
    page = context.new_page()
    page.goto("about:blank")

    def paint(data, kind):
        return page.evaluate(PAINT, f"data:image/{kind};base64,{b64encode(data).decode()}")

    yield paint
    context.close()


@pytest.mark.parametrize("name", FORMATS)
def test_a_browser_shows_a_copy_in_the_colours_of_its_original(painted, original, files, name):
    """The original is in Display P3, whose numbers are others than those of sRGB for the same colours."""
    first, copy = painted(original, "png"), painted(files[name].read_bytes(), name)
    assert (first["size"], copy["size"]) == ([WIDTH, HEIGHT], [240, 80])
    for (_, srgb), one, other in zip(P3_PATCHES, first["patches"], copy["patches"], strict=True):
        assert is_near(one, (*srgb, 255), 2), "as Chromium converts Display P3"
        assert is_near(other, one, 6), name
