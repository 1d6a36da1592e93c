# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A picture in a temporary file, checked while it arrives."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, BinaryIO

from pictory_provider.core.sidecar import SavedFile
from pictory_provider.storage.files import PIECE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pictory_provider.media.formats import Picture


class Received:
    """A complete, checked picture in a temporary file."""

    def __init__(self, file: Path, picture: Picture, *, size: int, sha256: str) -> None:
        self.file = file
        self.picture = picture
        self.size = size
        self.sha256 = sha256

    def as_saved_file(self, *, ai_credits_used: float | None, saved_at: float | None) -> SavedFile:
        """Return the description of this picture for a sidecar."""
        picture = self.picture
        return SavedFile(
            size=self.size,
            sha256=self.sha256,
            width=picture.width,
            height=picture.height,
            ai_credits_used=ai_credits_used,
            marks=picture.marks,
            saved_at=saved_at,
            digital_source_type=picture.digital_source_type,
            is_examined=bool(picture.marks) or picture.kind != "PNG",  # a PNG without marks can still be marked
        )

    def edit(self, edits: Sequence[tuple[int, int, bytes]]) -> None:
        """Replace bytes in the file. :attr:`picture` is not updated.

        :param edits: an offset, the number of bytes to leave out there, and their replacement; sorted by offset.
        :raises OSError: if it cannot be written.
        """
        whole, digest, size = self.file.with_suffix(".marked.part"), hashlib.sha256(), 0
        try:
            with self.file.open("rb") as old, whole.open("xb") as new:
                for piece in _edited(old, edits):
                    digest.update(piece)
                    size += new.write(piece)
                new.flush()
                os.fsync(new.fileno())
            whole.replace(self.file)
        finally:
            whole.unlink(missing_ok=True)
        self.size = size
        self.sha256 = digest.hexdigest()


def _edited(old: BinaryIO, edits: Sequence[tuple[int, int, bytes]]) -> Iterator[bytes]:
    for offset, length, data in edits:
        while (left := offset - old.tell()) > 0 and (piece := old.read(min(left, PIECE))):
            yield piece
        old.seek(offset + length)
        yield data
    while piece := old.read(PIECE):
        yield piece
