# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Draw the pictures: real PNG files that show what they were asked for."""

from __future__ import annotations

import colorsys
import hashlib
import io
import struct
import textwrap
import zlib
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageFont import FreeTypeFont, ImageFont


_AFTER_HEADER = 33


def check_installed() -> None:
    """Raise where Pillow is missing, and say how to get it."""
    if find_spec("PIL") is None:
        raise ModuleNotFoundError(
            "The simulator draws its pictures with Pillow, which is not installed: "
            "pip install 'airflow-provider-pictory[simulator]'"
        )


def paint(body: dict[str, Any], size: tuple[int, int], reference: bytes | None = None) -> bytes:
    """Return a PNG of a size that shows prompt, model and style, on its reference image if it has one."""
    from PIL import ImageDraw

    width, height = size
    canvas = _on_reference(reference, size) if reference else _landscape(body, size)
    draw = ImageDraw.Draw(canvas, "RGBA")
    label = " · ".join(
        part
        for part in (
            body["model"],
            body.get("style"),
            body["aspectRatio"],
            "from a reference image" if reference else None,
        )
        if part
    )
    margin = width // 20
    text_font, label_font = _font(width // 28), _font(width // 44)
    columns = max(16, int((width - 4 * margin) / (width / 28 * 0.5)))
    lines = textwrap.wrap(body["prompt"], columns)
    shown = [*lines[:7], "…"] if len(lines) > 8 else lines
    text = "\n".join(shown)
    _, top, _, bottom = draw.multiline_textbbox((0, 0), text, font=text_font, spacing=8)
    text_height = int(bottom - top)
    box_top = height - margin - text_height - width // 14
    draw.rounded_rectangle(
        (margin, box_top - margin // 2, width - margin, height - margin // 2),
        radius=margin // 3,
        fill=(0, 0, 0, 150),
    )
    draw.multiline_text((2 * margin, box_top), text, font=text_font, fill="white", spacing=8)
    draw.text((2 * margin, height - margin - width // 40), label, font=label_font, fill=(255, 255, 255, 200))
    draw.text((margin, margin // 2), "Pictory simulator", font=label_font, fill=(255, 255, 255, 180))
    return _png(canvas)


def read_image(content: bytes) -> bytes | None:
    """Return an image as PNG, or ``None`` where the bytes are none."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content)) as found:
            return _png(found.convert("RGB"))
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError):
        return None


def marked(content: bytes, kind: str) -> bytes:
    """Return a PNG that says something of its origin: ``xmp``, ``c2pa`` or ``aigc``."""
    chunk_type, body = {
        "xmp": (b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"),
        "c2pa": (b"caBX", b"no signature: this is the simulator"),
        "aigc": (b"tEXt", b'AIGC\0{"Label": "1"}'),
    }[kind]
    crc = zlib.crc32(chunk_type + body)
    chunk = struct.pack(">I", len(body)) + chunk_type + body + struct.pack(">I", crc)
    return content[:_AFTER_HEADER] + chunk + content[_AFTER_HEADER:]


def as_kind(content: bytes, kind: str) -> bytes:
    """Return a picture as another kind of file: ``jpeg`` or ``webp``."""
    from PIL import Image

    out = io.BytesIO()
    with Image.open(io.BytesIO(content)) as found:
        found.convert("RGB").save(out, kind)
    return out.getvalue()


def _landscape(body: dict[str, Any], size: tuple[int, int]) -> Image.Image:
    """A sky, a sun and hills whose colours and lines follow from the prompt."""
    from PIL import Image, ImageDraw

    width, height = size
    seed = hashlib.sha256(f"{body['prompt']}{body['model']}{body.get('style')}".encode()).digest()
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


def _on_reference(reference: bytes, size: tuple[int, int]) -> Image.Image:
    """The reference image, blurred: whatever is written on it must not be read beside the caption."""
    from PIL import Image, ImageFilter, ImageOps

    with Image.open(io.BytesIO(reference)) as found:
        fitted = ImageOps.fit(found.convert("RGB"), size)
    blurred = fitted.filter(ImageFilter.GaussianBlur(size[0] / 40))
    return Image.blend(blurred, ImageOps.posterize(blurred, 3), 0.6)


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
