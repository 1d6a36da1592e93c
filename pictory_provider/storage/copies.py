# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Make copies of a picture in other formats and sizes, with Pillow (the extra ``images``).

What Pillow does without a word, and this module does not: it reduces 16 bits of grey to white, resizes a palette
without interpolation, drops the colour profile of JPEG and WebP, further frames and a transparent colour, ignores
how a PNG describes its colours, and encodes AVIF differently on a machine with more CPUs.

The same picture gives the same bytes, with the same Pillow. A copy has no metadata of the picture, and in
particular no signed manifest, which would be invalid: its XMP packet is a new one.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import logging
import os
import stat
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pictory_provider.api.checks import check_header
from pictory_provider.api.errors import ImageInvalid, PictoryError, RequestInvalid, StorageFailed
from pictory_provider.api.text import counted, listed
from pictory_provider.api.timing import TIMING
from pictory_provider.core.picture_names import copy_name, problem_of_copies
from pictory_provider.media.colours import chunks_before_pixels, why_not_srgb
from pictory_provider.media.copies import Copy, CopySpec, check_copies, may_replace
from pictory_provider.media.formats import PictureChecker
from pictory_provider.media.xmp import KEYWORD, NotReadable, new_packet
from pictory_provider.storage.errors import WRITING_COPY
from pictory_provider.storage.files import Changed, Headers
from pictory_provider.storage.paths import Occupied
from pictory_provider.storage.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from PIL.Image import Image

    from pictory_provider.client.retrying import Log
    from pictory_provider.core.sidecar import SavedFile
    from pictory_provider.storage.files import Content

log = logging.getLogger(__name__)

THUMBNAIL_WIDTH = 320
"""Pixels. A card of the gallery is narrower."""
THUMBNAIL = CopySpec("webp", THUMBNAIL_WIDTH, 80)
"""A thumbnail of the gallery, which the API server makes."""
MOST_PIXELS = 40_000_000
"""The largest picture that is decoded. It takes half a GiB of memory if it has transparency and a profile."""
_OLDEST = (11, 3)
"""The first Pillow whose wheels write AVIF."""


class _Format(NamedTuple):
    """A format of copies.

    :param name: as Pillow calls it.
    :param feature: that a Pillow with it has.
    :param library: that encodes it, and how Pillow calls that library.
    :param longest: pixels of the longest side.
    :param options: how it is written. Nothing is left to defaults, which differ between releases and machines.
    """

    name: str
    feature: str
    library: tuple[str, str]
    longest: int
    options: dict[str, Any]


_NO_METADATA: dict[str, Any] = {"icc_profile": b"", "exif": b""}
_WEBP = _Format(
    "WEBP",
    "webp",
    ("libwebp", "webp"),
    16_383,
    {**_NO_METADATA, "lossless": False, "method": 4, "alpha_quality": 100, "exact": False},
)
_JPEG = _Format(
    "JPEG",
    "jpg",
    ("libjpeg-turbo", "libjpeg_turbo"),
    65_500,
    {**_NO_METADATA, "optimize": True, "progressive": True, "subsampling": "4:2:0"},
)
_AVIF = _Format(
    "AVIF",
    "avif",
    ("libavif", "avif"),
    32_768,  # wider ones can be written, and no program with libavif reads them
    {**_NO_METADATA, "codec": "aom", "speed": 8, "max_threads": 1, "subsampling": "4:2:0", "range": "full"},
)
_PNG = _Format(
    "PNG", "zlib", ("zlib", "zlib"), 2**31 - 1, {**_NO_METADATA, "optimize": False, "compress_level": 6}
)
_FORMATS = {"webp": _WEBP, "jpeg": _JPEG, "jpg": _JPEG, "avif": _AVIF, "png": _PNG}


class Converted(NamedTuple):
    """A copy, in memory.

    :param width: pixels.
    :param height: pixels.
    :param made_with: the program that made it, such as ``Pillow 13.0.0, libwebp 1.6.0``.
    """

    spec: CopySpec
    data: bytes
    width: int
    height: int
    made_with: str


def check_installed(specs: Sequence[CopySpec]) -> None:
    """Check that this worker can make copies.

    :param specs: of the copies; nothing is checked if there are none.
    :raises RequestInvalid: if Pillow is not installed, is too old, or was built without a format.
    """
    if not specs:
        return
    now = "Install it on all workers: pip install 'airflow-provider-pictory[images]'."
    try:
        pillow, features = import_module("PIL"), import_module("PIL.features")
    except ImportError as error:
        raise _not_installed(
            "Pillow is needed to make copies, and it is not installed on this worker", now
        ) from error
    version = tuple(int(part) for part in pillow.__version__.split(".")[:2] if part.isdecimal())
    if version < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        raise _not_installed(
            f"copies need Pillow {oldest} or later, and this worker has {pillow.__version__}", now
        )
    needed = {_FORMATS[spec.format].feature: spec.format for spec in specs} | {"littlecms2": "colour profiles"}
    if missing := sorted(name for feature, name in needed.items() if not features.check(feature)):
        raise _not_installed(
            f"Pillow {pillow.__version__} on this worker was built without {listed(missing, len(missing))}",
            "Install a Pillow that has it on all workers, or leave that format out.",
        )


def convert(data: bytes, specs: Sequence[CopySpec], *, source_type: str | None) -> list[Converted]:
    """Return copies of a picture, in the order of their specifications.

    Only as many conversions run on a machine at the same time as it has CPUs for them; others wait.

    :param data: the whole file: PNG, JPEG or WebP.
    :param source_type: the IPTC Digital Source Type that each copy states in its XMP; ``None`` for no XMP.
    :raises ImageInvalid: says why a copy cannot be made.
    :raises StorageFailed: if there is not enough memory.
    """
    checker = PictureChecker()
    checker.feed(data)
    picture = checker.finish()
    _check_pixels(picture.width, picture.height)
    try:
        packet = b"" if source_type is None else new_packet(source_type)
    except NotReadable as error:
        raise _refused(f"its XMP {error}") from None
    with _slot():
        with _explained("cannot be decoded"):
            full = _decode(data, picture.kind)
        made: dict[CopySpec, Converted] = {}
        for size, same in _by_size(full.size, specs).items():
            with _explained(f"cannot be resized to {size[0]:,}x{size[1]:,} pixels"):
                resized = _resize(full, size)
            for spec in same:
                made[spec] = _encode(resized, spec, packet)
    return [made[spec] for spec in specs]


def _by_size(full: tuple[int, int], specs: Iterable[CopySpec]) -> dict[tuple[int, int], list[CopySpec]]:
    """Return the specifications by the size of their copies.

    :raises ImageInvalid: if a format has no picture of that size.
    """
    sizes: dict[tuple[int, int], list[CopySpec]] = {}
    for spec in specs:
        width, height = full
        if spec.width is not None and spec.width < width:
            width, height = spec.width, max(1, round(height * spec.width / width))
        longest = _FORMATS[spec.format].longest
        if max(width, height) > longest:
            raise _refused(
                f"a copy of {width:,}x{height:,} pixels is too large for {spec.format}, whose sides have at most "
                f"{longest:,}",
                "Ask for another format or a smaller width.",
            )
        sizes.setdefault((width, height), []).append(spec)
    return sizes


def _decode(data: bytes, kind: str) -> Image:
    """Return the picture as it is to be seen: upright, in sRGB, as ``RGB``, or as ``RGBA`` if it has transparency.

    :param kind: of :class:`~pictory_provider.media.formats.Picture`.
    :raises ImageInvalid: if it cannot be reproduced correctly.
    """
    from PIL import Image, ImageOps

    chunks = chunks_before_pixels(data) if kind == "PNG" else {}
    if why := why_not_srgb(chunks):
        raise _refused(
            f"its colours are not sRGB ({why}), and only those of an ICC profile can be converted",
            "Convert the picture to sRGB with an image program.",
        )
    image: Image.Image = Image.open(io.BytesIO(data), formats=(kind.upper(),))
    _check_pixels(*image.size)
    if (frames := getattr(image, "n_frames", 1)) > 1:
        raise _refused(f"it has {frames:,} frames, and a copy would have only the first one")
    image.load()
    profile = image.info.get("icc_profile")
    if b"iCCP" in chunks and not profile:
        raise _refused("its colour profile is damaged")
    image = _with_usual_depth(image, chunks)
    ImageOps.exif_transpose(image, in_place=True)
    if profile:
        image = _to_srgb(image, profile)
    elif image.mode == "CMYK":
        raise _refused("it has CMYK colours and no colour profile, so nobody can know which colours they are")
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    image.info.clear()
    return image


def _with_usual_depth(image: Image, chunks: dict[bytes, bytes]) -> Image:
    """Return a picture with 8 bits for each value.

    Pillow reduces RGB with 16 bits by itself. It makes grey of 16 bits white, and compares the transparent colour
    of a PNG that does not have 8 bits with pixels that are scaled to 8.

    :raises ImageInvalid: if Pillow has decoded to an unknown mode, or if its reduction has lost the transparency.
    """
    from PIL import ImageMath

    key, depth = image.info.get("transparency"), chunks.get(b"IHDR", bytes(13))[8]
    if image.mode == "I;16":
        wide = image.convert("I")
        grey: Image = ImageMath.lambda_eval(lambda args: args["convert"](args["wide"] >> 8, "L"), wide=wide)
        if key is not None:
            alpha = ImageMath.lambda_eval(
                lambda args: args["convert"]((args["wide"] != key) * 255, "L"), wide=wide
            )
            grey.putalpha(alpha)
        grey.info = {name: value for name, value in image.info.items() if name != "transparency"}
        return grey
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK"):
        raise _refused(f"Pillow decodes it to the mode {image.mode!r}, of which no copies are made")
    if key is not None and image.mode == "RGB" and depth == 16:
        raise _refused("it has a transparent colour of 16 bits, which Pillow does not apply")
    if key is not None and image.mode in ("1", "L") and depth in (1, 2, 4):
        most = 2**depth - 1
        image.info["transparency"] = (int.from_bytes(chunks[b"tRNS"][:2]) & most) * 255 // most
    return image


def _to_srgb(image: Image, profile: bytes) -> Image:
    """Return a picture with its colours converted to sRGB.

    :param profile: ICC profile of its colours.
    :raises ImageInvalid: if the profile is damaged, or is one of other colours.
    """
    from PIL import Image, ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        fitting = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(space)
        is_grey, is_cmyk = image.mode in ("1", "L", "LA"), image.mode == "CMYK"
        if fitting is None or (fitting == "L" and not is_grey) or (fitting == "CMYK") != is_cmyk:
            raise _refused(
                f"its colour profile is one of {space} colours, and the picture's mode is {image.mode!r}"
            )
        alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
        converted = ImageCms.profileToProfile(
            image if image.mode == fitting else image.convert("RGBA").convert(fitting),
            source,
            ImageCms.createProfile("sRGB"),
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
        )
    except (ImageCms.PyCMSError, OSError) as error:
        raise _refused(f"its colour profile cannot be used ({error})") from error
    assert isinstance(converted, Image.Image)  # it is None only for a conversion in place
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


def _resize(full: Image, size: tuple[int, int]) -> Image:
    from PIL.Image import Resampling

    image = full if size == full.size else full.resize(size, Resampling.LANCZOS)
    if image.mode == "RGBA" and image.getchannel("A").getextrema() == (255, 255):
        return image.convert("RGB")
    return image


def _encode(image: Image, spec: CopySpec, packet: bytes) -> Converted:
    """Return a copy, after it was read back.

    :param packet: of XMP; empty for none.
    :raises ImageInvalid: if it cannot be written, or is read back differently.
    """
    import PIL
    from PIL import Image, features
    from PIL.PngImagePlugin import PngInfo

    kind = _FORMATS[spec.format]
    options = dict(kind.options)
    if kind is _JPEG and image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    if kind is _PNG:
        options["pnginfo"] = PngInfo()
        if packet:
            options["pnginfo"].add_itxt(KEYWORD.decode(), packet.decode(), zip=False)
    else:
        options |= {"quality": spec.quality, "xmp": packet}
    library, feature = kind.library
    made_with = f"Pillow {PIL.__version__}, {library} {features.version(feature) or ''}".rstrip()
    file = io.BytesIO()
    with _explained(f"cannot be written as {spec.format} by {made_with}"):
        image.save(file, kind.name, **options)
        data = file.getvalue()
        with Image.open(io.BytesIO(data), formats=(kind.name,)) as copy:
            copy.load()
            seen = (copy.size, copy.mode, copy.info.get("xmp", b""), copy.info.get("icc_profile") or b"")
    wanted = (image.size, image.mode, packet, b"")
    for name, one, other in zip(("size", "mode", "XMP packet", "colour profile"), seen, wanted, strict=True):
        if one != other:
            raise _refused(f"{made_with} has written a {spec.format} with another {name} than it should have")
    return Converted(spec, data, *image.size, made_with)


def _check_pixels(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise _refused(
            f"it has {width:,}x{height:,} pixels, and at most {MOST_PIXELS:,} are decoded: a small file can claim "
            "any number"
        )


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn any error of Pillow into one that says what failed.

    :raises ImageInvalid: instead of the error.
    :raises StorageFailed: instead of a ``MemoryError``, which may not come again.
    """
    try:
        yield
    except PictoryError:
        raise
    except MemoryError as error:
        raise StorageFailed("This worker does not have enough memory left to make copies.") from error
    except Exception as error:  # OSError, ValueError, SyntaxError, RuntimeError, struct.error and others
        raise _refused(f"it {what}: {type(error).__name__}: {error}") from error


def _refused(why: str, what_now: str = "") -> ImageInvalid:
    return ImageInvalid(f"No copy of the picture can be made: {why}.{what_now and ' '}{what_now}")


def _not_installed(what: str, what_now: str) -> RequestInvalid:
    return RequestInvalid.unsent(what, what_now, fields=["copies"])


def _cpus() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_THREADS = threading.BoundedSemaphore(_cpus())


@contextmanager
def _slot() -> Iterator[None]:
    """Wait until fewer conversions run on this machine than this process may use CPUs.

    The slots are locked files in a private folder, so they also count other processes of this user; the lock of a
    process that dies is released. Without such a folder only the threads of this process are counted.
    """
    begun, pause, is_logged = time.monotonic(), 0.001, False
    while (release := _take_slot()) is None:
        if time.monotonic() - begun >= TIMING.lock_warning and not is_logged:
            is_logged = True
            log.warning(
                "Copies of other pictures are being made on all CPUs that this task may use (%d). It waits. If "
                "that takes long, find the processes with `fuser %s/*`.",
                _cpus(),
                _folder(),
            )
        time.sleep(pause)
        pause = min(2 * pause, 0.05)
    try:
        yield
    finally:
        release()


def _take_slot() -> Callable[[], None] | None:
    """Return what releases a slot; ``None`` if no slot is free."""
    try:
        _make_private(_folder())
        return _lock_one()
    except OSError as error:
        log.debug("Conversions are not counted across processes: %s", error)
        return _THREADS.release if _THREADS.acquire(blocking=False) else None


def _lock_one() -> Callable[[], None] | None:
    for number in range(_cpus()):
        file = os.open(_folder() / f"{number}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
        except BaseException:
            os.close(file)
            raise
        else:
            return partial(_unlock, file)
    return None


def _unlock(file: int) -> None:
    fcntl.flock(file, fcntl.LOCK_UN)  # a process that was forked meanwhile has the file open, too
    os.close(file)


def _folder() -> Path:
    return Path(tempfile.gettempdir(), f"pictory-copies-{os.geteuid()}")


def _make_private(folder: Path) -> None:
    """Make a folder that only this user can read and write.

    :raises OSError: if it cannot be made, or if another user can write it.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise PermissionError(f"{folder} is not a private folder of this user")


class SaveOptions(NamedTuple):
    """How pictures are saved.

    :param cache_control: of the picture, as for :class:`~pictory_provider.storage.target.Target`.
    :param copies: to be made of each picture.
    """

    cache_control: str | None = None
    copies: tuple[CopySpec, ...] = ()

    @classmethod
    def checked(cls, *, cache_control: object, copies: object) -> SaveOptions:
        """Check a task's arguments.

        :raises RequestInvalid: for a wrong value.
        """
        return cls(check_header("cache_control", cache_control), check_copies(copies))

    def for_path(self, path: str | None, candidate: int | None = None) -> SaveOptions:
        """Return them, after checking that there is a path, and that copies have names of their own.

        :param candidate: the picture's number, if it is a candidate.

        :raises RequestInvalid: says what to change.
        """
        if self.copies and path is None:
            raise RequestInvalid.unsent(
                "copies are made of the saved picture, and there is no path", "Pass a path.", fields=["path"]
            )
        if path is not None and (problem := problem_of_copies(path, self.copies, candidate)):
            raise RequestInvalid.unsent(
                problem,
                "Choose another path, such as one that ends in .png, or give that copy a width.",
                fields=["copies"],
            )
        return self


class CopyFiles:
    """The files of a picture's copies.

    :param path: of the picture.
    :param cache_control: as for :class:`~pictory_provider.storage.target.Target`.
    """

    def __init__(self, path: str, *, cache_control: str | None) -> None:
        self._path = path
        self._cache_control = cache_control

    def target(self, spec: CopySpec) -> Target:
        """Return the target of a copy."""
        headers = Headers(spec.content_type, self._cache_control)
        return Target(copy_name(self._path, spec), headers=headers, writing=WRITING_COPY)

    def sizes(self, specs: Sequence[CopySpec]) -> dict[str, int | None]:
        """Return the sizes of what exists with the names of copies, in bytes, by these names.

        :return: without names that do not exist; ``None`` for a folder or a broken link.
        :raises StorageFailed: if the storage does not say.
        """
        found: dict[str, int | None] = {}
        for target in map(self.target, specs):
            name = target.path.rpartition("/")[2]
            try:
                if (size := target.size()) is not None:
                    found[name] = size
            except RequestInvalid:
                found[name] = None
        return found

    def read(self, copies: Sequence[Copy]) -> dict[CopySpec, Content]:
        """Return the files that are the copies on record.

        :raises StorageFailed: if one cannot be read.
        """
        found = {copy: self.target(copy.spec).read() for copy in copies}
        return {
            copy.spec: content
            for copy, content in found.items()
            if content is not None and hashlib.sha256(content.data).hexdigest() == copy.sha256
        }

    def are_free_for(self, contents: Mapping[CopySpec, Content]) -> bool:
        """Whether there are no other files than these copies.

        :raises StorageFailed: if one cannot be read.
        """
        found = {spec: self.target(spec).read() for spec in contents}
        return all(each is None or each.data == contents[spec].data for spec, each in found.items())

    def create(self, spec: CopySpec, data: bytes, on_record: Collection[str] = ()) -> None:
        """Create the file of a copy, unless it exists and is the same.

        :param on_record: of :func:`~pictory_provider.media.copies.may_replace`.
        :raises Occupied: if another file exists.
        :raises StorageFailed: if it cannot be written.
        """
        target = self.target(spec)
        try:
            found = target.read() if on_record else None
            if found is None:
                target.swap(None, data)
            elif found.data != data:
                if not may_replace(found.data, data, on_record):
                    raise Changed(target.path)
                target.swap(found, data)
        except Changed:
            found = target.read()
            if found is None or found.data != data:
                raise Occupied(
                    f"Another file exists at {target.path}, and it is not the copy that the picture's sidecar "
                    "knows: it is yours, or it was changed. It was left as it is: move it away, or choose other "
                    "copies.",
                    fields=["copies"],
                ) from None

    def make(
        self,
        data: bytes,
        specs: Sequence[CopySpec],
        file: SavedFile,
        *,
        source_type: str | None,
        overwrite: bool,
    ) -> tuple[list[Copy], dict[CopySpec, PictoryError]]:
        """Make copies of a picture. A file with the name of a copy is replaced if it is one that is on record.

        :param data: the picture.
        :param file: its description.
        :param source_type: the Digital Source Type that copies get; ``None`` for none.
        :param overwrite: replace other files, too.
        :return: what was made; and why others could not be made.
        """
        made: list[Copy] = []
        problems: dict[CopySpec, PictoryError] = {}
        for spec, result in _each(specs, partial(convert, data, source_type=source_type)):
            if isinstance(result, PictoryError):
                problems[spec] = result
                continue
            try:
                if overwrite:
                    self.target(spec).write(result.data)
                else:
                    on_record = [copy.sha256 for copy in file.copies if copy.spec.suffix == spec.suffix]
                    self.create(spec, result.data, on_record)
            except PictoryError as error:
                problems[spec] = error
                continue
            made.append(
                Copy(
                    spec=spec,
                    of=file.sha256,
                    size=len(result.data),
                    sha256=hashlib.sha256(result.data).hexdigest(),
                    width=result.width,
                    height=result.height,
                    digital_source_type=source_type,
                    made_with=result.made_with,
                )
            )
        return made, problems

    def log_made(self, made: Sequence[Copy], file: SavedFile, specs: Sequence[CopySpec], log: Log) -> None:
        """Log which copies were made, and which files are copies of an earlier picture.

        :param file: the picture.
        :param specs: the copies that the task makes.
        """
        if made:
            sizes = [f"{self.target(copy.spec).path} ({counted(copy.size, 'byte')})" for copy in made]
            log.info("Made %s.", listed(sizes, len(sizes)))
        asked = {spec.suffix for spec in specs}
        old = [copy.spec for copy in file.copies if copy.of != file.sha256 and copy.spec.suffix not in asked]
        if outdated := self.sizes(old):
            log.warning(
                "%s shows an earlier picture: `copies` no longer has it, so it was left as it is.",
                listed([f"{self._path.rpartition('/')[0]}/{name}" for name in outdated], len(outdated)),
            )

    def remove(self, copies: Sequence[Copy], kept: CopyFiles) -> None:
        """Remove copies that are elsewhere, too.

        :param kept: where they are.
        :raises StorageFailed: if one cannot be read or removed.
        """
        elsewhere = kept.read(copies)
        for spec, content in self.read(copies).items():
            if spec in elsewhere:
                with suppress(Changed):
                    self.target(spec).swap(content, None)


def refused_copy(path: str, *, is_file: bool) -> RequestInvalid:
    """Return the error if something that is not a copy on record has the name of one, before a purchase.

    :param is_file: whether it is a file, and not a folder or a broken link.
    """
    if not is_file:
        return RequestInvalid.unsent(
            f"{path} is a folder or a broken link, and a copy is to have that name",
            "Move it away, or choose other copies.",
            fields=["copies"],
        )
    return RequestInvalid.unsent(
        f"{path} exists, a copy is to have that name, and it is not the copy that the picture's sidecar knows",
        "Move that file away, or choose other copies. With overwrite=True the task replaces it.",
        fields=["copies"],
    )


def without_copies(path: str, problems: Mapping[CopySpec, PictoryError]) -> PictoryError:
    """Return the error of a picture that is saved, and some of whose copies could not be made.

    :return: a :class:`StorageFailed`, which Airflow retries, if a retry may make one of them.
    """
    why = list(dict.fromkeys(error.message for error in problems.values()))
    names = listed([copy_name(path, spec).rpartition("/")[2] for spec in problems], len(problems))
    text = f"{path} is saved and paid for, and could not be copied to {names}. {' '.join(why)}"
    if any(isinstance(error, StorageFailed) for error in problems.values()):
        return StorageFailed(
            f"{text} A retry makes these copies, for free; so does a clear without overwrite=True."
        )
    return RequestInvalid(
        f"{text} Correct that, and clear the task, without overwrite=True: that makes them, for free.",
        fields=["copies"],
    )


def examined(file: SavedFile, data: bytes) -> SavedFile:
    """Return the description of a picture with its Digital Source Type, which version 0.1.0 did not read."""
    if file.is_examined or not file.marks:
        return file
    checker = PictureChecker()
    checker.feed(data)
    return file._replace(digital_source_type=checker.finish().digital_source_type, is_examined=True)


def _each(
    specs: Sequence[CopySpec], convert: Callable[[Sequence[CopySpec]], Sequence[Converted]]
) -> Iterator[tuple[CopySpec, Converted | ImageInvalid]]:
    """Yield each copy, or why it cannot be made. One that cannot be made does not prevent the others."""
    try:
        yield from zip(specs, convert(specs), strict=True)
    except ImageInvalid as error:
        if len(specs) == 1:
            yield specs[0], error
            return
        for spec in specs:
            yield from _each([spec], convert)
