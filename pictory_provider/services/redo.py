# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Move a saved picture aside, so that the next run of its task buys another one.

The order of steps keeps every picture, wherever the process ends, and lets the command be repeated:

1. copy picture and sidecar to the names of a version, which must be free, or be this very copy;
2. write the sidecar in state ``redo``, if it has not changed: from now on the next run buys a picture;
3. note the job in the sidecars of earlier versions, for a user who moves one of them back;
4. remove the picture from its path. A task does this too, before it buys.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from pictory_provider.api.decoding import parse_json
from pictory_provider.api.errors import StorageFailed, Unavailable
from pictory_provider.core.batch.file_names import HEADER
from pictory_provider.core.batch.resume import redo_beside_batch
from pictory_provider.core.picture_names import copy_name
from pictory_provider.core.resume import NOT_MOVED, refused_redo
from pictory_provider.core.sidecar import REDO
from pictory_provider.storage.pictures import PictureTarget
from pictory_provider.storage.target import Target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pictory_provider.core.sidecar import Sidecar


class Moved(NamedTuple):
    """A picture that was moved.

    :param sidecar: at its old path, in state ``redo``.
    :param version: the path of the picture now.
    :param is_repeated: whether an earlier command had moved it already.
    """

    path: str
    sidecar: Sidecar
    version: str
    is_repeated: bool

    def find_copies(self) -> list[tuple[str, str]]:
        """Return where the picture's copies are now, and where they were.

        :raises StorageFailed: if the storage does not say.
        """
        specs = [copy.spec for copy in self.sidecar.copies]
        names = [(copy_name(self.version, spec), copy_name(self.path, spec)) for spec in specs]
        return [(version, path) for version, path in names if Target(version).size() is not None]


def redo(path: str) -> Moved:
    """Move a saved picture and its sidecar to the first free version, and leave a sidecar in state ``redo``.

    :param path: of the picture.
    :raises RequestInvalid: if it is not a saved picture, or a job for it is in flight.
    :raises Unavailable: if a batch is running in its folder, or the sidecar has just changed.
    :raises StorageFailed: if it cannot be read or written.
    """
    target = PictureTarget(path)
    existing = target.inspect()
    if error := refused_redo(existing):
        raise error
    sidecar = existing.sidecar
    assert sidecar is not None
    is_repeated = sidecar.state == REDO and existing.size is None
    if sidecar.state != REDO:
        assert sidecar.saved is not None
        _check_batches(target)
        sidecar = sidecar.as_moved(target.keep_version(sidecar.saved))
        if not target.write_sidecar(sidecar):
            raise Unavailable(
                f"Another process has just changed {target.sidecar_path}. {NOT_MOVED} A copy of the picture is at "
                f"{target.beside(str(sidecar.moved_to)).path}. Run the command again."
            )
    target.note_in_versions(sidecar)
    if left := target.inspect().sidecar:
        target.finish_redo(left)
    return Moved(target.path, sidecar, target.beside(str(sidecar.moved_to)).path, is_repeated)


def _check_batches(target: PictureTarget) -> None:
    """Check that no batch is running in the picture's folder, or in one above it: a row may name subfolders."""
    for number, header in enumerate(_headers(target.path)):
        try:
            found = header.read()
        except StorageFailed:
            if number == 0:
                raise
            continue  # an account need not be able to read above its own folder
        value = None
        with suppress(ValueError):
            value = None if found is None else parse_json(found.data)
        if found is not None and (error := redo_beside_batch(value, path=target.path, record=header.path)):
            raise error


def _headers(path: str) -> Iterator[Target]:
    folder = path.rpartition("/")[0]
    while folder and not folder.endswith(":/"):
        yield Target(f"{folder}/{HEADER}")
        folder = folder.rpartition("/")[0]
