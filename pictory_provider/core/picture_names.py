# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Name the files around a picture, and check which names every disk accepts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pictory_provider.media.formats import NOT_PNG_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pictory_provider.media.copies import CopySpec

SIDECAR_SUFFIX = ".json"
"""Suffix of a sidecar's path after the picture's."""
LONGEST_KEY = 1_024
"""Bytes of an object's key in S3, Google Cloud Storage and Azure."""
LONGEST_PATH = 4_095
"""Bytes of a local path, on Linux."""
_SPARE_BYTES = 100
"""Bytes that a spare name may have even if the picture's own name is shorter."""
_PORTABLE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
"""Names of devices, which Windows servers refuse with any suffix."""


def is_sidecar_name(name: str) -> bool:
    """Whether a name has the suffix of sidecars, which a picture must not have."""
    return name.casefold().endswith(SIDECAR_SUFFIX)


def says_another_kind(name: str) -> bool:
    """Whether a name has the suffix of another image format. Pictory makes PNG files, whatever the path says."""
    return name.casefold().endswith(NOT_PNG_SUFFIXES)


def warning_of_kind(names: Sequence[str]) -> str | None:
    """Return a warning if pictures' names have suffixes of other formats than PNG, else ``None``.

    Pictory promises a PNG: https://docs.pictory.ai/api-reference/ai-studio/generate-image.
    """
    others = [name for name in names if says_another_kind(name)]
    if not others:
        return None
    which = f"{others[0]!r} does not"
    if len(names) > 1:
        which = f"{len(others):,} of {len(names):,} do not, the first is {others[0]!r}"
    return (
        f"Pictory makes PNG files, and a name should end in .png: {which}. Pictures are saved without conversion; "
        "programs that rely on the name may refuse them."
    )


def spare_name(name: str, job_id: str) -> str:
    """Return where a paid picture is saved if its own name is taken: ``a.png`` becomes ``a.<jobId>.png``.

    A long name is cut, so that a disk or a storage that accepts the picture's own name accepts this one too.

    :param name: of the picture; its folder, if it has one, stays.
    """
    return _with_infix(name, re.sub(r"[^A-Za-z0-9_-]", "-", job_id)[:64])


def version_name(name: str, number: int) -> str:
    """Return where an earlier version of a picture is kept: ``a.png`` becomes ``a.v1.png``.

    A long name is cut, as by :func:`spare_name`.

    :param name: of the picture; its folder, if it has one, stays.
    :param number: of the version, from 1.
    """
    return _with_infix(name, f"v{number}")


def is_version_name(name: str, of: str) -> bool:
    """Whether a file's name is that of a version of another (:func:`version_name`); both without a folder."""
    number = re.search(r"\.v([1-9][0-9]{0,8})(\.[^.]*)?$", name)
    return number is not None and name == version_name(of, int(number[1]))


def _with_infix(name: str, infix: str) -> str:
    folder, slash, file = name.rpartition("/")
    stem, dot, suffix = file.rpartition(".")
    if not (dot and stem):
        stem, suffix = file, ""
    longest = max(_SPARE_BYTES, len(_encoded(file)))
    end = f".{infix}.{suffix}" if suffix else f".{infix}"
    if len(_encoded(end)) >= longest:
        end = f".{infix}"
    stem = _encoded(stem)[: longest - len(_encoded(end))].decode("utf-8", "ignore").rstrip(". ")
    return f"{folder}{slash}{stem}{end}"


def candidate_name(name: str, number: int) -> str:
    """Return the file name of one candidate: ``cover.png`` becomes ``cover.2.png``.

    :param name: of the picture; its folder, if it has one, stays.
    :param number: from 1.
    """
    folder, slash, file = name.rpartition("/")
    stem, dot, suffix = file.rpartition(".")
    if not stem:
        return f"{name}.{number}"
    return f"{folder}{slash}{stem}.{number}{dot}{suffix}"


def candidate_number(name: str) -> int | None:
    """Return the number in the name of a candidate (:func:`candidate_name`); ``None`` if it has none."""
    found = re.search(r"\.([1-9])(\.[^./]*)?$", name)
    return int(found[1]) if found else None


def copy_name(name: str, spec: CopySpec) -> str:
    """Return the file name of a copy: ``cover.png`` becomes ``cover.1200.webp``, or ``cover.webp`` in full width.

    :param name: of the picture; its folder, if it has one, stays.
    """
    folder, slash, file = name.rpartition("/")
    return f"{folder}{slash}{file.rpartition('.')[0] or file}{spec.suffix}"


def problem_of_copies(name: str, specs: Sequence[CopySpec], candidate: int | None = None) -> str | None:
    """Return which copy would have the name of its own picture, or of another candidate's copy; ``None`` for none.

    :param name: of the picture; its folder, if it has one, is ignored.
    :param candidate: its number, if it is a candidate.
    """
    file = name.rpartition("/")[2]
    if specs and candidate is not None and file.endswith(f".{candidate}"):
        copy = copy_name(file, specs[0])
        return f"the copies of all candidates would have the same name, {copy!r}, since path has no suffix"
    for spec in specs:
        if copy_name(file, spec).casefold() == file.casefold():
            return f"the copy of format {spec.format} would have the picture's own name, {file!r}"
    return None


def longest_name(name: str, copies: Sequence[CopySpec] = ()) -> str:
    """Return the longest name that a file around a picture may need: of a spare picture's sidecar, or of a copy.

    :param copies: that are made of the picture.
    """
    spare = spare_name(name, "0" * 36)
    names = [spare + SIDECAR_SUFFIX, *(copy_name(each, spec) for each in (name, spare) for spec in copies)]
    return max(names, key=lambda each: len(_encoded(each)))


def is_portable(name: str) -> bool:
    """Whether every disk accepts a file or a folder of this name, and of its :func:`longest_name`.

    Letters, digits, ``.``, ``_`` and ``-`` are POSIX's portable characters.
    """
    return bool(_PORTABLE.fullmatch(name)) and not name.endswith(".") and not _RESERVED.fullmatch(name)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
