# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Thumbnails of saved pictures: a light copy of the picture, or one that the API server makes and keeps.

The server makes a thumbnail with Pillow, which the extra ``images`` installs. It keeps it in a folder of its own,
by the digest of the picture, so that a picture with other bytes has another thumbnail. Without Pillow, and for a
picture that Pillow cannot decode correctly, there is none; without Pillow a heavier copy is used, too.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import tempfile
import time
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from pictory_provider.api.errors import ImageInvalid, RequestInvalid
from pictory_provider.plugins import saved_files
from pictory_provider.plugins.saved_files import Claim, NotShown
from pictory_provider.storage.copies import THUMBNAIL, THUMBNAIL_WIDTH, check_installed, convert

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger(__name__)

RECIPE = "320w1"
"""How :data:`THUMBNAIL` is made. Another recipe has another name, so that no thumbnail of another one is used."""
MEDIA_TYPE = "image/webp"
MOST_AT_ONCE = 2
"""Thumbnails that one process of the API server makes at the same time."""
MOST_BYTES = 256 * 1024 * 1024
"""Bytes of the cache: some 13,000 thumbnails."""
MOST_OF_A_COPY = 48 * 1024
"""Bytes of a copy that is used although a thumbnail, of some 15 kB, could be made."""
MOST_TRIED = 4
"""Copies that are tried, if those before cannot be shown."""
MOST_REFUSED = 10_000
"""Pictures that are remembered as impossible to decode."""
_ABANDONED = 3_600
"""Seconds after which a temporary file belongs to a process that has died."""
_checking = Lock()
_NAME = re.compile(r"[0-9a-f]{64}\.[0-9a-z]+\.webp")


def etag_of(sha256: str) -> str:
    """Return the entity tag of the thumbnail that is made of a picture with this digest."""
    return f'"{sha256}-{RECIPE}"'


def copies_of(record: dict[str, Any], picture: Claim) -> list[Claim]:
    """Return the copies of a picture that are large enough for a thumbnail, those with the fewest bytes first.

    :param record: the image record. A copy in it that is not as expected is left out.
    :param picture: what the record says about the picture itself.
    """
    width, listed = record.get("width"), record.get("copies")
    least = min(THUMBNAIL_WIDTH, width) if type(width) is int and width > 0 else THUMBNAIL_WIDTH
    found = []
    for copy in listed if isinstance(listed, list) else ():
        if isinstance(copy, dict) and type(copy.get("width")) is int and copy["width"] >= least:
            with suppress(NotShown):
                found.append(Claim.from_record(copy))
    smaller = (copy for copy in found if copy.size < picture.size)
    return sorted(smaller, key=lambda copy: copy.size)[:MOST_TRIED]


def can_make() -> bool:
    """Whether this process can make thumbnails. Log once if not."""
    with _checking:  # of the requests of a page, one looks
        return is_pillow_installed()


@cache
def is_pillow_installed() -> bool:
    """Whether Pillow can make thumbnails."""
    try:
        check_installed([THUMBNAIL])
    except RequestInvalid:
        log.info(
            "The pages show whole pictures in place of thumbnails, which are much smaller, since this API server "
            "has no Pillow that can make them. Run `pip install 'airflow-provider-pictory[images]'` for it, and "
            "restart it."
        )
        return False
    return True


class ThumbnailCache:
    """Thumbnails in a private folder, by the digest of their pictures. Several processes may share it.

    A folder that cannot be created or written, or that others could write, is not used.

    :param folder: created at the first use.
    :param most_bytes: of all thumbnails. If there are more, the oldest are removed.
    """

    def __init__(self, folder: str, most_bytes: int = MOST_BYTES) -> None:
        self._folder = Path(folder)
        # Each process counts what it has written itself, and looks at the whole folder after a sixteenth.
        self._step = most_bytes // 16
        self._most = most_bytes - self._step
        self._written = self._step
        self._lock = Lock()
        self._is_logged = False

    def get(self, sha256: str) -> bytes | None:
        """Return the thumbnail of a picture, if it is cached."""
        try:
            self._prepare()
            data = self._file(sha256).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._log(error)
            return None
        return data if _is_whole(data) else None

    def put(self, sha256: str, data: bytes) -> None:
        """Cache the thumbnail of a picture."""
        try:
            self._prepare()
            number, part = tempfile.mkstemp(".part", ".", self._folder)
            try:
                with os.fdopen(number, "wb") as file:
                    file.write(data)
                os.replace(part, self._file(sha256))
            except BaseException:
                os.unlink(part)
                raise
            with self._lock:
                self._written += len(data)
                if self._written < self._step:
                    return
                self._written = 0
            self._remove_oldest()
        except OSError as error:
            self._log(error)

    def _file(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.{RECIPE}.webp"

    def _prepare(self) -> None:
        """Create the folder.

        :raises OSError: if that fails, or if other users could write to it.
        """
        try:
            found = self._folder.stat()
        except FileNotFoundError:
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            found = self._folder.stat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise PermissionError(f"{self._folder} is not a folder that only this user may write")

    def _remove_oldest(self) -> None:
        """Remove the oldest thumbnails beyond the limit, and temporary files of processes that have died."""
        total, found = 0, []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # another process has just removed it
                    each = entry.stat(follow_symlinks=False)
                    if _NAME.fullmatch(entry.name):
                        total += each.st_size
                        found.append((each.st_mtime_ns, each.st_size, entry.path))
                    elif entry.name.endswith(".part") and time.time() - each.st_mtime > _ABANDONED:
                        os.unlink(entry.path)
        for _, size, path in sorted(found):
            if total <= self._most:
                break
            with suppress(FileNotFoundError):
                os.unlink(path)
            total -= size

    def _log(self, error: OSError) -> None:
        if not self._is_logged:
            self._is_logged = True
            log.warning(
                "Thumbnails are made anew for each request, because their cache cannot be used (%s). Set "
                "[pictory] thumbnail_cache to a folder of its own that only the API server's user may write.",
                error,
            )


class ThumbnailMaker:
    """Makes thumbnails, a few at a time, and each only once for all requests that wait for it."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(MOST_AT_ONCE, "pictory-thumbnails")
        self._lock = Lock()
        self._pending: dict[Claim, Future[bytes | None]] = {}
        self._refused: OrderedDict[str, None] = OrderedDict()

    def is_refused(self, sha256: str) -> bool:
        """Whether no thumbnail could be made of a picture."""
        with self._lock:
            return sha256 in self._refused

    def make(self, claim: Claim, allowed: Sequence[str], kept: ThumbnailCache) -> Future[bytes | None]:
        """Return the thumbnail of a picture, later; ``None`` if none can be made.

        The future raises :class:`NotShown` if the picture may not be shown, or differs from the claim.

        :param allowed: as for :func:`saved_files.open_picture`.
        """
        with self._lock:
            pending = self._pending.get(claim)
            if pending is None:
                pending = self._pending[claim] = self._threads.submit(self._make, claim, allowed, kept)
        return pending

    def _make(self, claim: Claim, allowed: Sequence[str], kept: ThumbnailCache) -> bytes | None:
        try:
            picture = saved_files.read_picture(claim, allowed)
            data = kept.get(claim.sha256)  # another record of the same picture, or another process
            if data is None:
                (made,) = convert(picture, [THUMBNAIL], source_type=None)
                data = made.data
                kept.put(claim.sha256, data)
        except ImageInvalid as error:
            log.info("The whole picture %s is shown in place of a thumbnail: %s", claim.path, error)
            with self._lock:
                self._refused[claim.sha256] = None
                while len(self._refused) > MOST_REFUSED:
                    self._refused.popitem(last=False)
            return None
        except MemoryError:
            log.warning("There was too little memory to make a thumbnail of %s.", claim.path)
            return None
        else:
            return data
        finally:
            with self._lock:
                del self._pending[claim]


def _is_whole(data: bytes) -> bool:
    """Whether a WebP file is complete: after a loss of power, files may be cut."""
    return data[:4] == b"RIFF" and len(data) == 8 + int.from_bytes(data[4:8], "little")
