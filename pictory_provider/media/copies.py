# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What a copy of a picture is: its format, width and quality, as a user asks for them and as they are recorded.

:mod:`pictory_provider.storage.copies` makes copies.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple

from pictory_provider.api.errors import RequestInvalid
from pictory_provider.api.text import listed, type_of

if TYPE_CHECKING:
    from collections.abc import Collection

DEFAULT_QUALITY = {"webp": 80, "jpeg": 85, "jpg": 85, "avif": 60, "png": None}
"""The formats, which are also the suffixes of file names, with their quality by default. PNG is lossless."""
NARROWEST, WIDEST = 16, 16_383
"""Pixels: a narrower copy could have the name of a candidate, and WebP has no wider one (RFC 9649)."""
MOST_COPIES = 16
"""Copies of one picture."""
_FIELDS = ("format", "width", "quality")


class CopySpec(NamedTuple):
    """A copy that a task makes of its picture.

    :param format: one of :data:`DEFAULT_QUALITY`.
    :param width: pixels; ``None`` for the picture's own width. A picture is never enlarged.
    :param quality: 1 to 100, as the encoder of the format counts; ``None`` for a lossless format.
    """

    format: str
    width: int | None = None
    quality: int | None = None

    @property
    def suffix(self) -> str:
        """What the name of its file has after the stem of the picture: ``.1200.webp``."""
        return f".{self.format}" if self.width is None else f".{self.width}.{self.format}"

    @property
    def content_type(self) -> str:
        """Its media type (RFC 6838)."""
        return f"image/{'jpeg' if self.format == 'jpg' else self.format}"


class Copy(NamedTuple):
    """A copy that was made, as the sidecar of its picture records it.

    :param of: SHA-256 of the picture that it was made of, in hexadecimal.
    :param size: bytes.
    :param sha256: of the copy, in hexadecimal.
    :param width: pixels.
    :param height: pixels.
    :param digital_source_type: IPTC's, in its XMP; ``None`` for none.
    :param made_with: the program that made it: formats such as AVIF are encoded differently by other versions.
    """

    spec: CopySpec
    of: str
    size: int
    sha256: str
    width: int
    height: int
    digital_source_type: str | None = None
    made_with: str | None = None

    def is_current(self, spec: CopySpec, of: str, digital_source_type: str | None) -> bool:
        """Whether it is what would be made now.

        :param of: SHA-256 of the picture as it is now.
        :param digital_source_type: that a copy is to have.
        """
        return (self.spec, self.of, self.digital_source_type) == (spec, of, digital_source_type)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            **self.spec._asdict(),
            "of": self.of,
            "size": self.size,
            "sha256": self.sha256,
            "pixels": [self.width, self.height],
            "digital_source_type": self.digital_source_type,
            "made_with": self.made_with,
        }

    @classmethod
    def from_dict(cls, value: Any) -> Copy | None:
        """Read it; ``None`` for anything else."""
        try:
            (spec,) = check_copies([{name: value[name] for name in _FIELDS if value[name] is not None}])
            width, height = value["pixels"]
            source_type, made_with = value["digital_source_type"], value["made_with"]
        except (KeyError, TypeError, ValueError, RequestInvalid):
            return None
        numbers, texts = (value.get("size"), width, height), (value.get("of"), value.get("sha256"))
        if not all(type(each) is int for each in numbers) or not all(isinstance(each, str) for each in texts):
            return None
        of, sha256 = texts
        return cls(
            spec,
            of,
            value["size"],
            sha256,
            width,
            height,
            source_type if isinstance(source_type, str) else None,
            made_with if isinstance(made_with, str) else None,
        )


def may_replace(found: bytes, new: bytes, on_record: Collection[str]) -> bool:
    """Whether a copy may replace the file that has its name.

    :param found: that file.
    :param new: the copy.
    :param on_record: SHA-256 of the copies that had this name, in hexadecimal. One of these may be replaced, and
        so may the beginning of the new copy, which a damaged disk or another program has left.
    """
    return hashlib.sha256(found).hexdigest() in on_record or new.startswith(found)


def check_copies(value: object) -> tuple[CopySpec, ...]:
    """Return the copies that a task makes of its picture.

    :param value: the argument ``copies``: a list of dicts with ``format`` and, if need be, ``width`` and
        ``quality``; ``None`` for no copies.
    :raises RequestInvalid: says which copy is wrong, and what is supported.
    """
    if value is None:
        return ()
    if not isinstance(value, (list, tuple)):
        raise _refused(f" is {type_of(value)}; it takes a list of dicts")
    if len(value) > MOST_COPIES:
        raise _refused(f" has {len(value)} entries, and a picture may have {MOST_COPIES}")
    specs = tuple(_check_copy(number, each) for number, each in enumerate(value))
    seen: set[str] = set()
    for number, spec in enumerate(specs):
        if spec.suffix in seen:
            raise _refused(f"[{number}] has the same file name as another entry, <name>{spec.suffix}")
        seen.add(spec.suffix)
    return specs


def _check_copy(number: int, value: object) -> CopySpec:
    which = f"[{number}]"
    if not isinstance(value, dict):
        raise _refused(f"{which} is {type_of(value)}; it takes a dict")
    if unknown := [name for name in value if name not in _FIELDS]:
        raise _refused(f"{which} has {listed([repr(name) for name in unknown], 3)}; it takes {', '.join(_FIELDS)}")
    kind, width, quality = (value.get(name) for name in _FIELDS)
    if not isinstance(kind, str) or kind not in DEFAULT_QUALITY:
        raise _refused(f"{which} has the format {kind!r}; it takes {', '.join(DEFAULT_QUALITY)}")
    if width is not None and (type(width) is not int or not NARROWEST <= width <= WIDEST):
        raise _refused(f"{which} has the width {width!r}; it takes whole pixels from {NARROWEST} to {WIDEST:,}")
    default = DEFAULT_QUALITY[kind]
    if default is None and quality is not None:
        raise _refused(f"{which} has a quality, and {kind} is lossless: leave it out")
    if quality is not None and (type(quality) is not int or not 1 <= quality <= 100):
        raise _refused(f"{which} has the quality {quality!r}; it takes whole numbers from 1 to 100")
    return CopySpec(kind, width, default if quality is None else quality)


def _refused(problem: str) -> RequestInvalid:
    return RequestInvalid.unsent(
        f"copies{problem}",
        'An entry is {"format": "webp", "width": 1200, "quality": 80}; only the format is required.',
        fields=["copies"],
    )
