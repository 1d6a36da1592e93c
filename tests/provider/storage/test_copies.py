# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Copies of a picture, made and read by a real Pillow."""

from __future__ import annotations

import io
import os
import random
import re
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import PIL
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFilter, PngImagePlugin

from pictory_provider.api.errors import ImageInvalid, RequestInvalid
from pictory_provider.media.copies import DEFAULT_QUALITY, check_copies
from pictory_provider.media.mark import AFTER_HEADER
from pictory_provider.media.png import SIGNATURE
from pictory_provider.media.xmp import TRAINED, new_packet
from pictory_provider.storage import copies
from pictory_provider.storage.copies import check_installed, convert
from tests.profiles import cmyk_of_grey_cyan, display_p3, linear_grey
from tests.pure.media.test_png import END, chunk

ROOT = Path(__file__).parents[3]
EVERY = check_copies([{"format": name} for name in DEFAULT_QUALITY])
FORMATS = [name for name in DEFAULT_QUALITY if name != "jpg"]
(PNG_COPY,) = check_copies([{"format": "png"}])
ORIENTATION = 0x0112


def saved(image, kind="PNG", **kwargs):
    file = io.BytesIO()
    image.save(file, kind, **kwargs)
    return file.getvalue()


def opened(data):
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def noise(size=(64, 48), mode="RGB", seed=1):
    channels = len(Image.new(mode, (1, 1)).getbands())
    return Image.frombytes(mode, size, random.Random(seed).randbytes(size[0] * size[1] * channels))


def with_chunks(png, *chunks):
    return png[:AFTER_HEADER] + b"".join(chunks) + png[AFTER_HEADER:]


def raw_png(width, height, depth, colour_type, rows, *chunks):
    """Return a PNG of rows that are already packed."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return SIGNATURE + header + b"".join(chunks) + pixels + END


def copy_of(data, *, source_type=None, **spec):
    (made,) = convert(data, check_copies([{"format": "png", **spec}]), source_type=source_type)
    return made


def pixels_of(data, **spec):
    return opened(copy_of(data, **spec).data)


def refusal(data, **spec):
    with pytest.raises(ImageInvalid) as caught:
        copy_of(data, **spec)
    return caught.value.message


def is_near(one, other, most=3):
    return all(abs(a - b) <= most for a, b in zip(one, other, strict=True))


class TestSizes:
    @pytest.mark.parametrize("name", DEFAULT_QUALITY)
    def test_a_copy_has_the_width_that_was_asked_for_and_says_what_it_is(self, name):
        made = copy_of(saved(noise((1023, 681))), format=name, width=320)
        kind = "jpeg" if name == "jpg" else name
        assert (made.width, made.height, made.spec.content_type) == (320, 213, f"image/{kind}")
        image = opened(made.data)
        assert (image.size, image.format) == ((320, 213), kind.upper())
        assert re.fullmatch(rf"Pillow {PIL.__version__}, lib\S+ [0-9.]+|Pillow \S+, zlib \S+", made.made_with)

    @pytest.mark.parametrize("spec", [{}, {"width": 64}, {"width": 5000}])
    def test_a_picture_is_never_enlarged(self, spec):
        picture = noise()
        assert pixels_of(saved(picture), **spec).tobytes() == picture.tobytes()

    def test_a_flat_picture_keeps_a_row_of_pixels(self):
        assert pixels_of(saved(noise((2000, 3))), width=320).size == (320, 1)
        assert pixels_of(saved(noise((2000, 1))), width=16).size == (16, 1)

    def test_copies_come_in_the_order_of_their_specifications_each_made_of_the_whole_picture(self):
        wanted = [("webp", 320), ("png", None), ("jpeg", 16), ("png", 320), ("webp", None)]
        specs = check_copies([{"format": name, "width": width} for name, width in wanted])
        data = saved(noise((640, 480)))
        made = convert(data, specs, source_type=TRAINED)
        assert [each.spec for each in made] == list(specs)
        alone = [convert(data, [spec], source_type=TRAINED)[0] for spec in specs]
        assert made == alone

    @pytest.mark.parametrize(("name", "longest"), [("webp", 16_383), ("jpeg", 65_500), ("avif", 32_768)])
    def test_a_copy_whose_side_is_too_long_for_its_format_is_refused_and_the_longest_is_made(self, name, longest):
        assert refusal(saved(Image.new("L", (16, longest + 1))), format=name) == (
            f"No copy of the picture can be made: a copy of 16x{longest + 1:,} pixels is too large for {name}, whose "
            f"sides have at most {longest:,}. Ask for another format or a smaller width."
        )
        assert opened(copy_of(saved(Image.new("L", (1, longest))), format=name).data).size == (1, longest)


class TestWhatIsRead:
    @pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "ICO", "PPM", "JPEG2000", "AVIF"])
    def test_only_three_formats_are_given_to_pillow(self, kind):
        assert "it is not PNG, JPEG or WebP" in refusal(saved(noise(), kind))

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
    def test_a_picture_of_each_of_the_three_has_copies(self, kind):
        assert is_near(
            pixels_of(saved(Image.new("RGB", (64, 64), (200, 100, 50)), kind)).getpixel((9, 9)), (200, 100, 50)
        )

    @pytest.mark.parametrize("size", [(9_460, 9_460), (20_000, 20_000), (8_000, 5_001), (2**31 - 1, 2**31 - 1)])
    @pytest.mark.parametrize("action", ["error", "ignore", "default"])
    def test_a_bomb_of_pixels_is_refused_by_its_header(self, size, action):
        width, height = size
        bomb = raw_png(width, height, 8, 2, [b"\0" * 9])
        with warnings.catch_warnings():
            warnings.simplefilter(action)
            assert f"it has {width:,}x{height:,} pixels, and at most 40,000,000 are decoded" in refusal(bomb)

    def test_the_size_that_pillow_reads_is_bounded_too(self):
        with pytest.raises(ImageInvalid, match=r"it has 8,000x5,001 pixels, and at most 40,000,000 are decoded"):
            copies._decode(raw_png(8_000, 5_001, 8, 2, [b"\0" * 9]), "PNG")

    def test_a_bomb_of_text_is_refused(self):
        text = b"Comment\0\0" + zlib.compress(bytes(1024 * 1024 + 1))
        assert "it cannot be decoded: ValueError: Decompressed data too large" in refusal(
            with_chunks(saved(noise()), chunk(b"zTXt", text))
        )

    @pytest.mark.parametrize("kind", ["PNG", "WEBP"])
    def test_a_picture_of_several_frames_is_refused(self, kind):
        frames = [noise(seed=number) for number in range(3)]
        data = saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)
        assert "it has 3 frames, and a copy would have only the first one" in refusal(data)

    def test_a_jpeg_with_a_second_picture_inside_is_refused(self):
        data = saved(noise(), "MPO", save_all=True, append_images=[noise(seed=2)])
        assert "it has 2 frames, and a copy would have only the first one" in refusal(data)

    def test_an_animation_of_one_frame_is_a_picture(self):
        animation = chunk(b"acTL", struct.pack(">II", 1, 0))
        frame = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 64, 48, 0, 0, 1, 10, 0, 0))
        assert pixels_of(with_chunks(saved(noise()), animation, frame)).tobytes() == noise().tobytes()

    def test_damaged_pixels_are_refused(self):
        rows = chunk(b"IDAT", zlib.compress(bytes(49 * 48))[:-9] + b"\xff" * 9)
        header = saved(noise((16, 48)))[:AFTER_HEADER]
        assert "it cannot be decoded: " in refusal(header + rows + END)

    def test_a_picture_cut_short_is_refused(self):
        for kind in ("PNG", "JPEG", "WEBP"):
            assert "cut short" in refusal(saved(noise(), kind)[:-20])

    def test_a_mode_that_pillow_may_decode_to_some_day_is_refused(self):
        with pytest.raises(ImageInvalid, match="Pillow decodes it to the mode 'F', of which no copies are made"):
            copies._with_usual_depth(Image.new("F", (1, 1)), {})

    @settings(max_examples=200, deadline=None)
    @given(st.sampled_from(["PNG", "P", "JPEG", "WEBP"]), st.data())
    def test_of_damaged_files_there_are_copies_or_reasons(self, kind, data):
        """No other error, whatever Pillow raises."""
        if kind == "P":
            content = saved(noise((16, 16)).quantize(16), transparency=3, icc_profile=display_p3())
        else:
            content = saved(noise((16, 16)), kind, icc_profile=display_p3(), exif=turned(6))
        damaged = bytearray(content)
        for _ in range(data.draw(st.integers(1, 3))):
            damaged[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        whole = with_checksums(bytes(damaged)) if kind in ("PNG", "P") else bytes(damaged)
        with suppress(ImageInvalid):
            assert copy_of(whole, width=16).data


def turned(orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif.tobytes()


def with_checksums(png):
    """Return a PNG with the checksums that its chunks should have."""
    content, at = bytearray(png), 8
    while at + 12 <= len(content):
        end = at + 8 + int.from_bytes(content[at : at + 4], "big")
        if end + 4 > len(content):
            break
        content[end : end + 4] = struct.pack(">I", zlib.crc32(content[at + 4 : end]))
        at = end + 4
    return bytes(content)


class TestPixels:
    @pytest.mark.parametrize("name", FORMATS)
    def test_16_bits_of_grey_are_not_white(self, name):
        row = struct.pack(">256H", *(value * 257 for value in range(256)))
        image = opened(copy_of(raw_png(256, 64, 16, 0, [row] * 64), format=name).data).convert("L")
        assert [abs(image.getpixel((value, 9)) - value) <= 4 for value in range(256)] == [True] * 256

    def test_16_bits_of_grey_are_reduced_as_those_of_colours_are(self):
        values = (0, 255, 256, 0x80FF, 0xFFFF)
        grey = pixels_of(raw_png(5, 1, 16, 0, [struct.pack(">5H", *values)]))
        colours = pixels_of(
            raw_png(5, 1, 16, 2, [struct.pack(">15H", *(value for value in values for _ in range(3)))])
        )
        assert grey.tobytes() == colours.tobytes() == bytes(value >> 8 for value in values for _ in range(3))

    @pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
    def test_a_transparent_shade_of_grey_is_transparent_in_every_depth(self, depth):
        key, other = (1, 0) if depth == 1 else (2, 1)
        bits = f"{key:0{depth}b}{other:0{depth}b}".ljust(8, "0")
        row = int(bits, 2).to_bytes(len(bits) // 8, "big")
        image = pixels_of(raw_png(2, 1, depth, 0, [row], chunk(b"tRNS", struct.pack(">H", key))))
        assert [image.getpixel((x, 0))[3] for x in (0, 1)] == [0, 255]

    def test_a_transparent_colour_of_16_bits_is_refused(self):
        """Pillow compares it with pixels of 8 bits, so nothing would be transparent."""
        key = struct.pack(">3H", 0x80FF, 0x80FF, 0x80FF)
        message = refusal(raw_png(1, 1, 16, 2, [key], chunk(b"tRNS", key)))
        assert "it has a transparent colour of 16 bits, which Pillow does not apply" in message

    @pytest.mark.parametrize("mode", ["P", "RGB", "RGBA"])
    def test_edges_of_transparency_are_soft_and_have_no_fringe(self, mode):
        """A disc of red on a transparent ground, whose hidden colour is green."""
        mask = Image.new("L", (400, 400))
        mask.paste(255, (100, 100, 300, 303))
        disc = Image.composite(Image.new("RGB", mask.size, "red"), Image.new("RGB", mask.size, (0, 255, 0)), mask)
        if mode == "P":
            palette = disc.quantize(2)
            data = saved(palette, transparency=palette.getpixel((0, 0)))
        elif mode == "RGB":
            data = saved(disc, transparency=(0, 255, 0))
        else:
            disc.putalpha(mask)
            data = saved(disc)
        image = pixels_of(data, width=61)
        alphas = {image.getpixel((x, y))[3] for x in range(61) for y in range(61)}
        seen = {image.getpixel((x, y))[:3] for x in range(61) for y in range(61) if image.getpixel((x, y))[3]}
        assert {0, 255} < alphas, "and values between them"
        assert all(is_near(colour, (255, 0, 0), 8) for colour in seen)

    def test_a_palette_is_resized_smoothly(self):
        stripes = Image.new("L", (640, 16))
        for x in range(0, 640, 2):
            stripes.paste(255, (x, 0, x + 1, 16))
        image = pixels_of(saved(stripes.convert("P")), width=64)
        assert is_near(image.getpixel((30, 0)), (128, 128, 128), 10)

    @pytest.mark.parametrize("mode", ["P", "LA", "RGBA", "key"])
    def test_jpeg_shows_transparency_on_white(self, mode):
        if mode == "key":
            data = saved(Image.new("RGB", (16, 16), (0, 0, 0)), transparency=(0, 0, 0))
        else:
            clear = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
            data = saved(clear.quantize() if mode == "P" else clear.convert(mode))
        assert is_near(pixels_of(data, format="jpeg").getpixel((8, 8)), (255, 255, 255))

    @pytest.mark.parametrize("name", ["webp", "avif", "png"])
    def test_other_formats_keep_transparency(self, name):
        half = Image.new("RGBA", (64, 64), (200, 100, 50, 128))
        assert is_near(pixels_of(saved(half), format=name).getpixel((9, 9)), (200, 100, 50, 128), 6)

    def test_webp_keeps_every_shade_of_transparency(self):
        picture, mask = noise(), noise(mode="L", seed=2)
        picture.putalpha(mask)
        assert pixels_of(saved(picture), format="webp").getchannel("A").tobytes() == mask.tobytes()

    @pytest.mark.parametrize("name", FORMATS)
    def test_a_picture_whose_alpha_hides_nothing_has_copies_without_alpha(self, name):
        picture = noise().convert("RGBA")
        assert copy_of(saved(picture), format=name).data == copy_of(saved(noise()), format=name).data

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
    @pytest.mark.parametrize("orientation", range(2, 9))
    def test_a_picture_is_turned_as_its_exif_says(self, kind, orientation):
        """The corner that the eye sees at the top left is red."""
        upright = Image.new("RGB", (64, 32), "blue")
        upright.paste("red", (0, 0, 16, 16))
        undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose
        stored = upright.transpose(Image.Transpose(undo[orientation]))
        image = pixels_of(saved(stored, kind, exif=turned(orientation)))
        assert image.size == (64, 32)
        assert is_near(image.getpixel((4, 4)), (255, 0, 0), 20)
        assert is_near(image.getpixel((60, 28)), (0, 0, 255), 20)
        assert ORIENTATION not in image.getexif()


P3_PATCHES = [((200, 100, 50), (215, 93, 31)), ((128,) * 3, (128,) * 3), ((60, 120, 180), (30, 122, 185))]
"""Display P3 and the same colour in sRGB, by the matrices of CSS Color 4."""


class TestColours:
    @pytest.mark.parametrize("name", FORMATS)
    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
    def test_display_p3_is_converted_to_srgb_in_every_format(self, kind, name):
        for p3, srgb in P3_PATCHES:
            data = saved(Image.new("RGB", (64, 64), p3), kind, icc_profile=display_p3())
            made = copy_of(data, format=name)
            assert is_near(opened(made.data).convert("RGB").getpixel((30, 30)), srgb, 6), p3
            assert not opened(made.data).info.get("icc_profile")

    @pytest.mark.parametrize("mode", ["P", "RGBA", "key"])
    def test_a_profile_changes_colours_and_not_transparency(self, mode):
        picture = Image.new("RGBA", (4, 1), (200, 100, 50, 77))
        kwargs = {"icc_profile": display_p3()}
        if mode == "P":
            picture = Image.new("P", (4, 1), 0)
            picture.putpalette((200, 100, 50))
            kwargs["transparency"] = bytes((77,))
        elif mode == "key":
            picture, kwargs["transparency"] = Image.new("RGB", (4, 1), (200, 100, 50)), (1, 2, 3)
            picture.putpixel((0, 0), (1, 2, 3))
        image = pixels_of(saved(picture, **kwargs))
        assert is_near(image.getpixel((3, 0)), (215, 93, 31, 255 if mode == "key" else 77), 1)
        assert image.getpixel((0, 0))[3] == (0 if mode == "key" else 77)

    @pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16", "key"])
    def test_a_grey_profile_is_applied_to_a_grey_picture(self, mode):
        """Half of the light is the sRGB value 188."""
        white = mode == "1"
        if mode == "I;16":
            data = raw_png(1, 1, 16, 0, [b"\x80\x00"])
            profile = chunk(b"iCCP", b"x\0\0" + zlib.compress(linear_grey()))
            data = with_chunks(data, profile)
        else:
            picture = Image.new("L", (1, 1), 255 if white else 128).convert("L" if mode == "key" else mode)
            key = {"transparency": 128} if mode == "key" else {}
            data = saved(picture, icc_profile=linear_grey(), **key)
        expected = 255 if white else 188
        assert is_near(pixels_of(data).getpixel((0, 0))[:3], (expected,) * 3, 1)
        assert pixels_of(data).mode == ("RGBA" if mode == "key" else "RGB")

    def test_a_profile_of_rgb_is_applied_to_a_grey_picture_as_pillow_writes_them(self):
        data = saved(Image.new("L", (1, 1), 128), icc_profile=display_p3())
        assert pixels_of(data).getpixel((0, 0)) == (128, 128, 128)

    def test_a_cmyk_picture_is_converted_by_its_profile(self):
        data = saved(Image.new("CMYK", (64, 64), (255, 0, 0, 0)), "JPEG", icc_profile=cmyk_of_grey_cyan())
        assert is_near(pixels_of(data).getpixel((9, 9)), (119, 119, 119))

    def test_white_paper_of_cmyk_is_white(self):
        data = saved(Image.new("CMYK", (64, 64)), "JPEG", icc_profile=cmyk_of_grey_cyan())
        assert is_near(pixels_of(data).getpixel((9, 9)), (255, 255, 255), 1)

    def test_a_cmyk_picture_without_a_profile_is_refused(self):
        assert "it has CMYK colours and no colour profile" in refusal(saved(Image.new("CMYK", (8, 8)), "JPEG"))

    @pytest.mark.parametrize(
        ("profile", "mode", "why"),
        [
            (b"x" * 200, "RGB", "its colour profile cannot be used (cannot open profile from string)"),
            (display_p3()[:300], "RGB", "its colour profile cannot be used ("),
            (linear_grey(), "RGB", "its colour profile is one of GRAY colours, and the picture's mode is 'RGB'"),
            (cmyk_of_grey_cyan(), "RGB", "its colour profile is one of CMYK colours"),
            (ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(), "RGB", "profile is one of Lab colours"),
        ],
    )  # fmt: skip
    def test_a_profile_that_is_damaged_or_of_other_colours_is_refused(self, profile, mode, why):
        assert why in refusal(saved(Image.new(mode, (8, 8)), icc_profile=profile))

    def test_a_profile_that_cannot_be_unpacked_is_refused(self):
        data = with_chunks(saved(noise()), chunk(b"iCCP", b"name\0\0" + b"not zlib"))
        assert "its colour profile is damaged" in refusal(data)

    def test_a_profile_of_rgb_on_cmyk_is_refused(self):
        data = saved(Image.new("CMYK", (8, 8)), "JPEG", icc_profile=display_p3())
        assert "one of RGB colours, and the picture's mode is 'CMYK'" in refusal(data)

    def test_a_png_whose_chunks_say_srgb_is_copied_and_one_with_other_colours_is_refused(self):
        srgb, linear = (chunk(b"gAMA", struct.pack(">I", value)) for value in (45_455, 100_000))
        assert pixels_of(with_chunks(saved(noise()), srgb)).tobytes() == noise().tobytes()
        assert refusal(with_chunks(saved(noise()), linear)) == (
            "No copy of the picture can be made: its colours are not sRGB (a gAMA chunk (1) says so), and only those "
            "of an ICC profile can be converted. Convert the picture to sRGB with an image program."
        )


class TestMark:
    @pytest.mark.parametrize("name", FORMATS)
    @pytest.mark.parametrize("source_type", [TRAINED, "http://example.com/?a=1&b=<2>", "Größe {0}"])
    def test_every_format_has_the_packet_byte_for_byte(self, name, source_type):
        image = opened(copy_of(saved(noise()), format=name, source_type=source_type).data)
        assert image.info["xmp"] == new_packet(source_type)

    @pytest.mark.parametrize("name", FORMATS)
    def test_without_a_source_there_is_no_packet(self, name):
        made = copy_of(saved(noise()), format=name)
        assert b"adobe" not in made.data
        assert "xmp" not in opened(made.data).info

    def test_a_png_has_the_packet_uncompressed_before_the_pixels(self):
        data = copy_of(saved(noise()), source_type=TRAINED).data
        assert 0 < data.index(b"iTXtXML:com.adobe.xmp" + bytes(5) + b"<?xpacket") < data.index(b"IDAT")

    def test_a_copy_in_which_the_mark_is_not_read_back_is_refused(self, monkeypatch):
        """As if a release of Pillow ignored it, as all do for the argument ``xmp`` of PNG."""
        monkeypatch.setattr(PngImagePlugin.PngInfo, "add_itxt", lambda *_, **__: None)
        with pytest.raises(
            ImageInvalid, match=r"Pillow .* has written a png with another XMP packet than it should"
        ):
            copy_of(saved(noise()), source_type=TRAINED)

    def test_a_source_that_xmp_cannot_contain_is_refused(self):
        with pytest.raises(ImageInvalid, match="its XMP cannot say that the picture's source is 'a"):
            copy_of(saved(noise()), source_type="a\0b")

    @pytest.mark.parametrize("name", FORMATS)
    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
    def test_nothing_that_the_picture_said_is_carried_over(self, kind, name):
        """A signed manifest would be invalid, and a packet could name one elsewhere (``dcterms:provenance``)."""
        packet = new_packet().replace(b"<rdf:Description", b'<rdf:Description dcterms:provenance="http://c2pa"')
        kwargs = {"exif": turned(1), "icc_profile": display_p3(), "dpi": (72, 72), "xmp": packet}
        if kind == "PNG":
            text = PngImagePlugin.PngInfo()
            text.add_itxt("XML:com.adobe.xmp", packet.decode())
            text.add_text("Prompt", "secret")
            text.add(b"caBX", b"manifest")
            kwargs["pnginfo"] = text
        elif kind == "JPEG":
            kwargs["comment"] = b"secret"
        data = saved(noise(), kind, **kwargs)
        assert b"c2pa" in data, "the picture says it"
        made = copy_of(data, format=name, source_type=TRAINED)
        for said in (
            b"secret",
            b"caBX",
            b"provenance",
            b"c2pa",
            b"manifest",
            b"Exif",
            b"ICC_PROFILE",
            b"iCCP",
            b"pHYs",
        ):
            assert said not in made.data, said
        assert made.data.count(b"DigitalSourceType>") == 2

    def test_a_png_copy_has_four_kinds_of_chunks(self):
        data = copy_of(with_chunks(saved(noise()), chunk(b"sRGB", b"\0")), source_type=TRAINED).data
        assert re.findall(rb"(?:IHDR|iTXt|IDAT|IEND|gAMA|sRGB|tEXt|pHYs|eXIf|iCCP|tRNS|caBX)", data)[0] == b"IHDR"
        kinds, at = [], 8
        while at < len(data):
            kinds.append(data[at + 4 : at + 8])
            at += 12 + int.from_bytes(data[at : at + 4], "big")
        assert set(kinds) == {b"IHDR", b"iTXt", b"IDAT", b"IEND"}


DIGESTS = """
import hashlib, os, sys
from pictory_provider.media.copies import check_copies
from pictory_provider.storage.copies import convert
os.sched_setaffinity(0, {int(cpu) for cpu in sys.argv[1].split(",")})
specs = check_copies([{"format": name, "width": 320} for name in ("webp", "jpeg", "png", "avif")])
for made in convert(sys.stdin.buffer.read(), specs, source_type="x"):
    print(hashlib.sha256(made.data).hexdigest())
"""


def photo():
    """Return a picture of 640x480 pixels with soft and sharp parts."""
    return Image.blend(noise((640, 480)).filter(ImageFilter.GaussianBlur(6)), noise((640, 480), seed=2), 0.2)


class TestDeterminism:
    def test_the_same_picture_gives_the_same_bytes_again_and_in_threads(self):
        data, specs = saved(photo()), check_copies([{"format": name, "width": 320} for name in FORMATS])
        with ThreadPoolExecutor(4) as pool:
            made = list(pool.map(lambda _: convert(data, specs, source_type=TRAINED), range(4)))
        assert all(each == made[0] for each in made)

    def test_a_picture_in_another_format_with_the_same_pixels_gives_the_same_bytes(self):
        lossless = saved(photo(), "WEBP", lossless=True)
        assert convert(lossless, EVERY, source_type=TRAINED) == convert(saved(photo()), EVERY, source_type=TRAINED)

    def test_the_number_of_cpus_does_not_change_the_bytes(self):
        cpus = sorted(os.sched_getaffinity(0))
        if len(cpus) < 2:
            pytest.skip("this process may use only one CPU")
        data = saved(photo())
        one, all_of_them = (
            subprocess.run(
                [sys.executable, "-c", DIGESTS, ",".join(map(str, some))],
                input=data, capture_output=True, cwd=ROOT, check=True,
            ).stdout.split()
            for some in (cpus[:1], cpus)
        )  # fmt: skip
        assert len(one) == 4
        assert one == all_of_them


class TestInstalled:
    def test_nothing_is_needed_for_no_copies(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "PIL", None)
        check_installed([])

    def test_this_pillow_makes_every_format(self):
        check_installed(EVERY)

    def test_without_pillow_nothing_is_sent(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "PIL", None)
        with pytest.raises(RequestInvalid) as caught:
            check_installed(EVERY)
        assert caught.value.message == (
            "Pillow is needed to make copies, and it is not installed on this worker. Nothing was sent and nothing "
            "was spent. Install it on all workers: pip install 'airflow-provider-pictory[images]'."
        )
        assert caught.value.fields == ("copies",)

    @pytest.mark.parametrize("version", ["11.2.1", "10.4.0", "9.5", "11.2.1.post1"])
    def test_a_pillow_that_is_too_old_is_refused(self, monkeypatch, version):
        monkeypatch.setattr(PIL, "__version__", version)
        with pytest.raises(
            RequestInvalid, match=f"copies need Pillow 11.3 or later, and this worker has {version}"
        ):
            check_installed(EVERY)

    @pytest.mark.parametrize("version", ["11.3.0", "12.0", "13.0.0", "14.0.0.dev0"])
    def test_a_later_pillow_is_accepted(self, monkeypatch, version):
        monkeypatch.setattr(PIL, "__version__", version)
        check_installed(EVERY)

    def test_a_pillow_without_a_format_is_refused_if_that_format_is_asked_for(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "PIL._avif", None)
        with pytest.raises(RequestInvalid, match=r"was built without avif. .* or leave that format out"):
            check_installed(EVERY)
        check_installed([PNG_COPY])

    def test_a_pillow_without_colour_profiles_is_refused(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "PIL._imagingcms", None)
        with pytest.raises(RequestInvalid, match="was built without colour profiles"):
            check_installed([PNG_COPY])


CONVERTER = """
import logging, os, sys, threading
os.sched_setaffinity(0, {int(cpu) for cpu in sys.argv[1].split(",")})
from pictory_provider.api.timing import TIMING
from pictory_provider.media.copies import check_copies
from pictory_provider.storage.copies import convert

def say(line):
    sys.stdout.write(line + chr(10))
    sys.stdout.flush()

class AtBarrier(list):
    '''Specifications whose conversion goes on when a line arrives.'''
    has_begun = False
    def __iter__(self):
        if not self.has_begun:
            self.has_begun = True
            say("converting")
            sys.stdin.readline()
        return super().__iter__()

def run():
    convert(picture, AtBarrier(check_copies([{"format": "webp"}])), source_type=None)
    say("done")

TIMING.lock_warning = 0.0
logging.basicConfig(format="%(message)s", stream=sys.stdout)
picture = open(sys.argv[2], "rb").read()
threads = [threading.Thread(target=run) for _ in range(int(sys.argv[3]))]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""
FORKS = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
from pictory_provider.storage import copies
with copies._slot():
    if not os.fork():
        sys.stdin.readline()
        os._exit(0)
print("released", flush=True)
sys.stdin.readline()
"""
WAITS = "Copies of other pictures are being made on all CPUs that this task may use "


class Converter(subprocess.Popen):
    """A process that makes a copy, and stops in the middle of it until :meth:`release`."""

    def says(self):
        return self.stdout.readline().rstrip("\n")

    def release(self):
        self.stdin.write("\n")
        self.stdin.flush()


class TestSlots:
    """Every process says what it does, so nothing here depends on time."""

    @pytest.fixture
    def converter(self, tmp_path):
        """Return a function that starts a process on so many CPUs."""
        picture = tmp_path / "picture.png"
        picture.write_bytes(saved(noise()))
        started = []

        def start(cpus=1, threads=1, program=CONVERTER):
            use = ",".join(map(str, sorted(os.sched_getaffinity(0))[:cpus]))
            process = Converter(
                [sys.executable, "-c", program, use, str(picture), str(threads)],
                cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                env={**os.environ, "TMPDIR": str(tmp_path)},
            )  # fmt: skip
            started.append(process)
            return process

        yield start
        for process in started:
            process.kill()
            process.communicate()

    def test_on_one_cpu_a_process_waits_for_that_of_another(self, converter):
        first = converter()
        assert first.says() == "converting"
        second = converter()
        assert second.says().startswith(f"{WAITS}(1). It waits.")
        first.release()
        assert first.says() == "done"
        assert second.says() == "converting"

    def test_on_two_cpus_two_convert_and_a_third_waits(self, converter):
        if len(os.sched_getaffinity(0)) < 2:
            pytest.skip("this process may use only one CPU")
        first, second = converter(2), converter(2)
        assert first.says() == second.says() == "converting"
        third = converter(2)
        assert third.says().startswith(f"{WAITS}(2)")
        second.release()
        assert third.says() == "converting"

    def test_a_process_that_is_killed_leaves_its_slot(self, converter):
        first = converter()
        assert first.says() == "converting"
        second = converter()
        assert second.says().startswith(WAITS)
        first.kill()
        assert second.says() == "converting"

    def test_a_process_that_was_forked_during_a_conversion_does_not_keep_the_slot(self, converter):
        assert converter(program=FORKS).says() == "released"
        assert converter().says() == "converting"

    def test_the_threads_of_a_process_wait_for_each_other(self, converter):
        process = converter(threads=2)
        said = sorted((process.says(), process.says()))
        assert said[0].startswith(WAITS)
        assert said[1] == "converting"
        process.release()
        assert {process.says(), process.says()} == {"done", "converting"}

    @pytest.mark.parametrize("spoil", ["open", "file", "link"])
    def test_without_a_private_folder_the_threads_still_wait(self, converter, tmp_path, spoil):
        folder = tmp_path / f"pictory-copies-{os.geteuid()}"
        if spoil == "open":
            folder.mkdir()
            folder.chmod(0o777)
        elif spoil == "file":
            folder.write_text("")
        else:
            folder.symlink_to(tmp_path)
        self.test_the_threads_of_a_process_wait_for_each_other(converter)
        assert not list(tmp_path.glob("**/*.lock"))

    def test_the_folder_is_private_and_its_files_are_empty(self, converter, tmp_path):
        process = converter()
        assert process.says() == "converting"
        folder = tmp_path / f"pictory-copies-{os.geteuid()}"
        assert folder.stat().st_mode & 0o777 == 0o700
        assert [(file.name, file.stat().st_size) for file in folder.iterdir()] == [("0.lock", 0)]

    def test_a_picture_that_is_refused_leaves_its_slot(self, monkeypatch, tmp_path):
        monkeypatch.setattr(copies.tempfile, "tempdir", str(tmp_path))
        for _ in range(2 * copies._cpus()):
            refusal(saved(Image.new("CMYK", (8, 8)), "JPEG"))
        assert copy_of(saved(noise())).data
