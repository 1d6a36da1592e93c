# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""May a picture lie under this name? Relative, in the folder, and no two of them in each other's way.

Names are compared as the least particular disk would: without case, and with composed characters (NFC).
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from pictory_provider.jobs.files import SIDECAR_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

RECORD_FOLDER = ".pictory"
"""Where the record of a batch lies, and how its temporary files begin."""
MANIFEST = "metadata.jsonl"
FAILED = "failed.jsonl"
_TAKEN = (MANIFEST, FAILED, "metadata.csv", "metadata.parquet")
"""Names of manifests. ``datasets`` refuses a folder that has two kinds of them."""
_LONGEST_PART = 200
"""Bytes of a part. Disks end at 255, and a sidecar's or a spare name is longer than the picture's."""
_LONGEST = 900
"""Bytes of a whole name. Object storage ends at 1,024, with the folder."""


def problem_of_name(name: object) -> str | None:
    """Return why a picture cannot have this name; ``None`` where it can."""
    if not isinstance(name, str):
        return f"is {type(name).__name__}, not a string"
    parts = name.split("/")
    checks = (
        (not name.strip(), "is empty"),
        (name.startswith("/"), "is absolute; it is relative to the folder"),
        ("\\" in name, "has a backslash; folders are parted by /"),
        (any(_is_unprintable(character) for character in name), "has control characters"),
        (name.endswith("/"), "ends in / and names no file"),
        ("" in parts, "has an empty part"),
        (any(part in (".", "..") for part in parts), "has . or .. in it"),
        (any(part != part.strip() for part in parts), "has a part that begins or ends with a blank"),
        (any(part.casefold().startswith(RECORD_FOLDER) for part in parts), "is kept for the record of the batch"),
        (parts[-1].casefold() in _TAKEN, "is a name that the batch itself writes"),
        (any(_size(part) > _LONGEST_PART for part in parts), f"has a part of more than {_LONGEST_PART} bytes"),
        (_size(name) > _LONGEST, f"has more than {_LONGEST} bytes"),
    )
    return next((problem for is_so, problem in checks if is_so), None)


def same(name: str) -> str:
    """Return what is equal for two names that a disk may take for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def collisions(names: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Yield the rows whose files would be in the way of another's: the later of two same names, and others.

    :param names: of rows, by their numbers, in their order.
    """
    first: dict[str, int] = {}
    for index, name in names:
        other = first.setdefault(same(name), index)
        if other != index:
            yield index, f"{name!r} is the file name of row {other} too (disks differ in whether case matters)"
    sidecars = {name + SIDECAR_SUFFIX: index for name, index in first.items()}
    for name, index in first.items():
        if name in sidecars:
            yield index, f"{name!r} is where the sidecar of row {sidecars[name]} lies"
        folder = name
        while "/" in folder:
            folder = folder.rpartition("/")[0]
            if folder in first or folder in sidecars:
                other = first[folder] if folder in first else sidecars[folder]
                yield index, f"{name!r} needs a folder where a file of row {other} lies"


def _is_unprintable(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


def _size(text: str) -> int:
    return len(text.encode(errors="replace"))
