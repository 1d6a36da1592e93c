# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Check the file names of a batch: relative, inside the folder, and without conflicts.

Names are compared as on the least exact disk: without case, and with composed characters (NFC).
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from pictory_provider.api.text import type_of
from pictory_provider.core.picture_names import SIDECAR_SUFFIX, copy_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pictory_provider.media.copies import CopySpec

RECORD_FOLDER = ".pictory"
"""The folder of a batch's record, and the prefix of its temporary files."""
HEADER = f"{RECORD_FOLDER}/batch.json"
"""The file name of the record's header, relative to the folder."""
MANIFEST = "metadata.jsonl"
FAILED = "failed.jsonl"
_TAKEN = (MANIFEST, FAILED, "metadata.csv", "metadata.parquet")
"""Names of manifests. ``datasets`` refuses a folder that has two kinds of them."""
_LONGEST_PART = 200
"""Bytes of a part. Disks allow 255, and the names of a sidecar and of a spare picture are longer than the
picture's."""
_LONGEST = 900
"""Bytes of a whole name. Object storage allows 1,024, including the folder."""


def problem_of_name(name: object) -> str | None:
    """Return why a picture cannot have this name; ``None`` if it can."""
    if not isinstance(name, str):
        return f"is {type_of(name)}, not a string"
    parts = name.split("/")
    checks = (
        (not name.strip(), "is empty"),
        (name.startswith("/"), "is absolute; it has to be relative to the folder"),
        ("\\" in name, "has a backslash; separate folders with /"),
        (any(_is_unprintable(character) for character in name), "has control characters"),
        (name.endswith("/"), "ends in / and names no file"),
        ("" in parts, "has an empty part"),
        (any(part in (".", "..") for part in parts), "has a part `.` or `..`"),
        (any(part != part.strip() for part in parts), "has a part that begins or ends with a space"),
        (any(part.casefold().startswith(RECORD_FOLDER) for part in parts), "is reserved for the batch's record"),
        (any(part.casefold() in _TAKEN for part in parts), "has the name of a file that the batch itself writes"),
        (any(_size(part) > _LONGEST_PART for part in parts), f"has a part of more than {_LONGEST_PART} bytes"),
        (_size(name) > _LONGEST, f"has more than {_LONGEST} bytes"),
    )
    return next((problem for is_so, problem in checks if is_so), None)


def same(name: str) -> str:
    """Return a form that is equal for two names that a disk may treat as one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def collisions(names: Iterable[tuple[int, str]], copies: Sequence[CopySpec] = ()) -> Iterator[tuple[int, str]]:
    """Yield the rows whose files conflict with another row's, and why; of two equal names, the later row.

    :param names: of rows, by their numbers, in their order.
    :param copies: that are made of each picture.
    """
    first: dict[str, int] = {}
    for index, name in names:
        other = first.setdefault(same(name), index)
        if other != index:
            yield index, f"{name!r} is also the file name of row {other} (case may not matter on the disk)"
    yield from _collisions_of_copies(first, copies)
    copied = {same(copy_name(name, spec)): index for name, index in first.items() for spec in copies}
    sidecars = {name + SIDECAR_SUFFIX: index for name, index in first.items()}
    saved = copied | sidecars | first
    for name, index in first.items():
        if name in sidecars:
            yield index, f"{name!r} is the name of the sidecar of row {sidecars[name]}"
        folder = name
        while "/" in folder:
            folder = folder.rpartition("/")[0]
            if folder in saved:
                yield (
                    index,
                    f"{name!r} needs the folder {folder!r}, but row {saved[folder]} saves a file of that name",
                )


def _collisions_of_copies(first: Mapping[str, int], copies: Sequence[CopySpec]) -> Iterator[tuple[int, str]]:
    """Yield the rows whose copies would have the name of a picture, of a sidecar or of another copy, and why.

    :param first: the rows' numbers by :func:`same` of their file names.
    """
    made: dict[str, int] = {}
    for name, index in first.items():
        for spec in copies:
            copy = same(copy_name(name, spec))
            other = first.get(copy, made.setdefault(copy, index))
            if copy in first or other != index:
                whose = "its own" if other == index else "the"
                what = "file name" if copy in first else "name of a copy"
                of = "" if other == index else f" of row {other}"
                yield index, f"{name!r} would have a copy with the name {copy!r}, and that is {whose} {what}{of}"
                break


def _is_unprintable(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


def _size(text: str) -> int:
    return len(text.encode(errors="replace"))
