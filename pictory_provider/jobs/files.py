# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What the files around a picture are called, and which names every disk takes."""

from __future__ import annotations

import re

SIDECAR_SUFFIX = ".json"
"""What follows a picture's path in its sidecar's."""
LONGEST_KEY = 1_024
"""Bytes of an object's key, in S3, Google Cloud Storage and Azure alike."""
LONGEST_PATH = 4_095
"""Bytes of a local path, on Linux."""
_SPARE_BYTES = 100
"""Bytes up to which a spare name may be longer than the picture's own."""
_PORTABLE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
"""Names of devices, which Windows servers refuse whatever follows a dot."""


def is_sidecar_name(name: str) -> bool:
    """Whether a name is one that a picture must not have, because sidecars are called so."""
    return name.casefold().endswith(SIDECAR_SUFFIX)


def spare_name(name: str, job_id: str) -> str:
    """Return where a paid picture goes if its own place is taken: ``a.png`` becomes ``a.<jobId>.png``.

    A long name is cut, so that a disk or a storage which takes the picture's own name takes this one too.

    :param name: of the picture; its folder, if it has one, stays.
    """
    folder, slash, file = name.rpartition("/")
    stem, dot, suffix = file.rpartition(".")
    if not (dot and stem):
        stem, suffix = file, ""
    job = re.sub(r"[^A-Za-z0-9_-]", "-", job_id)[:64]
    longest = max(_SPARE_BYTES, len(_encoded(file)))
    end = f".{job}.{suffix}" if suffix else f".{job}"
    if len(_encoded(end)) >= longest:
        end = f".{job}"
    stem = _encoded(stem)[: longest - len(_encoded(end))].decode("utf-8", "ignore").rstrip(". ")
    return f"{folder}{slash}{stem}{end}"


def longest_name(name: str) -> str:
    """Return the longest name that a file around a picture may need: that of a spare picture's sidecar."""
    return spare_name(name, "0" * 36) + SIDECAR_SUFFIX


def is_portable(name: str) -> bool:
    """Whether every disk takes a file or a folder of this name, and of :func:`longest_name` of it.

    Letters, digits, ``.``, ``_`` and ``-`` are POSIX's portable characters.
    """
    return bool(_PORTABLE.fullmatch(name)) and not name.endswith(".") and not _RESERVED.fullmatch(name)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
