# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Draw the pictures: real PNG files that show their request."""

from __future__ import annotations

import colorsys
import hashlib
import io
import struct
import textwrap
import zlib
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageFont import FreeTypeFont, ImageFont


_AFTER_HEADER = 33


def check_installed() -> None:
    """Raise :exc:`ModuleNotFoundError` with installation instructions if Pillow is missing."""
    if find_spec("PIL") is None:
        raise ModuleNotFoundError(
            "The simulator draws its pictures with Pillow, which is not installed: "
            "pip install 'airflow-provider-pictory[simulator]'"
        )


def paint(body: dict[str, Any], size: tuple[int, int], reference: bytes | None = None, take: int = 1) -> bytes:
    """Return a PNG of this size that shows prompt, model and style, on the reference image if there is one.

    :param take: the number of this picture among those of the same request, which have other colours.
    """
    shown = _Shown(body["prompt"], body["model"], body.get("style"), body["aspectRatio"], take)
    return _paint(shown, size, reference)


class _Shown(NamedTuple):
    """What a picture shows of its request."""

    prompt: str
    model: str
    style: str | None
    aspect_ratio: str
    take: int

    @property
    def label(self) -> str:
        """What is written below the prompt."""
        which = f"take {self.take}" if self.take > 1 else None
        return " · ".join(filter(None, (self.model, self.style, self.aspect_ratio, which)))


@lru_cache(256)  # a picture takes 0.1 s, and tests ask for the same ones again
def _paint(shown: _Shown, size: tuple[int, int], reference: bytes | None) -> bytes:
    from PIL import ImageDraw

    width, height = size
    canvas = _on_reference(reference, size, shown.take) if reference else _landscape(shown, size)
    draw = ImageDraw.Draw(canvas, "RGBA")
    label = f"{shown.label} · from a reference image" if reference else shown.label
    margin = width // 20
    text_font, label_font = _font(width // 28), _font(width // 44)
    columns = max(16, int((width - 4 * margin) / (width / 28 * 0.5)))
    lines = textwrap.wrap(shown.prompt, columns)
    text = "\n".join([*lines[:7], "…"] if len(lines) > 8 else lines)
    _, top, _, bottom = draw.multiline_textbbox((0, 0), text, font=text_font, spacing=8)
    text_height = int(bottom - top)
    box_top = height - margin - text_height - width // 14
    box = (margin, box_top - margin // 2, width - margin, height - margin // 2)
    draw.rounded_rectangle(box, radius=margin // 3, fill=(0, 0, 0, 150))
    draw.multiline_text((2 * margin, box_top), text, font=text_font, fill="white", spacing=8)
    draw.text((2 * margin, height - margin - width // 40), label, font=label_font, fill=(255, 255, 255, 200))
    draw.text((margin, margin // 2), "Pictory simulator", font=label_font, fill=(255, 255, 255, 180))
    return _png(canvas)


def read_image(content: bytes) -> bytes | None:
    """Return an image as PNG; ``None`` if the bytes are not an image."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content)) as found:
            return _png(found.convert("RGB"))
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError):
        return None


def marked(content: bytes, kind: str) -> bytes:
    """Return a PNG with a mark of its origin.

    The XMP packet is empty (``xmp``), has other properties (``-rdf``), has compressed properties as libvips and
    sharp write them (``-zipped``), names a camera or a model as the source (``-camera``, ``-ai``), or declares
    entities (``-hostile``).

    :param kind: one of the choices of ``mark`` in :data:`~pictory_provider.simulator.shapes.SHAPES`.
    """
    keyword, source = b"XML:com.adobe.xmp", "http://cv.iptc.org/newscodes/digitalsourcetype/"
    chunk_type, body = {
        "xmp": (b"iTXt", keyword + bytes(5) + b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"),
        "xmp-rdf": (b"iTXt", keyword + bytes(5) + _packet()),
        "xmp-zipped": (b"zTXt", keyword + bytes(2) + zlib.compress(_packet())),
        "xmp-camera": (b"iTXt", keyword + bytes(5) + _packet(f"{source}digitalCapture")),
        "xmp-ai": (b"iTXt", keyword + bytes(5) + _packet(f"{source}trainedAlgorithmicMedia")),
        "xmp-hostile": (b"iTXt", keyword + bytes(5) + b"<!DOCTYPE a [<!ENTITY b 'b'>]>" + _packet()),
        "c2pa": (b"caBX", b"no signature: this is the simulator"),
        "aigc": (b"tEXt", b'AIGC\0{"Label": "1"}'),
    }[kind]
    crc = zlib.crc32(chunk_type + body)
    chunk = struct.pack(">I", len(body)) + chunk_type + body + struct.pack(">I", crc)
    return content[:_AFTER_HEADER] + chunk + content[_AFTER_HEADER:]


def _packet(source: str | None = None) -> bytes:
    """Return an XMP packet with the property CreatorTool, and with a source if one is given."""
    origin = "" if source is None else f" e:DigitalSourceType='{source}'"
    return (
        "<x:xmpmeta xmlns:x='adobe:ns:meta/'><r:RDF xmlns:r='http://www.w3.org/1999/02/22-rdf-syntax-ns#'>"
        "<r:Description r:about='' xmlns:x='http://ns.adobe.com/xap/1.0/' "
        f"xmlns:e='http://iptc.org/std/Iptc4xmpExt/2008-02-29/' x:CreatorTool='Simulator'{origin}/>"
        "</r:RDF></x:xmpmeta>"
    ).encode()


def as_kind(content: bytes, kind: str) -> bytes:
    """Return a picture as another kind of file: ``jpeg`` or ``webp``."""
    from PIL import Image

    out = io.BytesIO()
    with Image.open(io.BytesIO(content)) as found:
        found.convert("RGB").save(out, kind)
    return out.getvalue()


def _landscape(shown: _Shown, size: tuple[int, int]) -> Image.Image:
    """Return a sky, a sun and hills whose colours and lines depend on the request and the take."""
    from PIL import Image, ImageDraw

    width, height = size
    take = shown.take if shown.take > 1 else ""
    seed = hashlib.sha256(f"{shown.prompt}{shown.model}{shown.style}{take}".encode()).digest()
    hue = seed[0] / 255
    top, low = _colour(hue, 0.6, 0.45), _colour(hue + 0.12, 0.45, 0.95)
    column = Image.new("RGB", (1, height))
    for y in range(height):
        share = y / height
        column.putpixel((0, y), tuple(int(a + (b - a) * share) for a, b in zip(top, low, strict=True)))
    canvas = column.resize(size)
    draw = ImageDraw.Draw(canvas, "RGBA")
    x, y, radius = width * (20 + seed[1] % 60) // 100, height * (15 + seed[2] % 25) // 100, width // 12
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(255, 244, 214, 230))
    for layer in range(3):
        base = height * (55 + 15 * layer) // 100
        peaks = [(width * i // 6, base - height * (seed[3 + layer * 7 + i] % 18) // 100) for i in range(7)]
        fill = (*_colour(hue + 0.05 * layer, 0.5, 0.5 - 0.13 * layer), 255)
        draw.polygon([(0, height), *peaks, (width, height)], fill=fill)
    return canvas


def _on_reference(reference: bytes, size: tuple[int, int], take: int) -> Image.Image:
    """Return the reference image, blurred so that any text in it does not interfere with the caption.

    Later takes are tinted.
    """
    from PIL import Image, ImageFilter, ImageOps

    with Image.open(io.BytesIO(reference)) as found:
        fitted = ImageOps.fit(found.convert("RGB"), size)
    blurred = fitted.filter(ImageFilter.GaussianBlur(size[0] / 40))
    first = Image.blend(blurred, ImageOps.posterize(blurred, 3), 0.6)
    return first if take == 1 else Image.blend(first, Image.new("RGB", size, _colour(take / 6, 0.6, 0.8)), 0.25)


def _colour(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return int(red * 255), int(green * 255), int(blue * 255)


def _font(size: int) -> FreeTypeFont | ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=3)
    return out.getvalue()
