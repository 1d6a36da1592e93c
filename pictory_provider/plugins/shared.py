# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What requests for one file share: that it is verified, whose turn it is to read, and the copy of an object."""

from __future__ import annotations

import io
import os
import threading
from collections import OrderedDict
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

MOST_VERIFIED = 10_000
"""Files that are remembered as verified: some 5 MB."""


class Verified:
    """The media types of files that are known to have a digest. The ones not asked for longest are forgotten."""

    def __init__(self) -> None:
        self._known: OrderedDict[Hashable, tuple[str, str]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, identity: Hashable, sha256: str) -> str | None:
        """Return the media type of a file, if it is known to have this digest."""
        with self._lock:
            known = self._known.get(identity)
            if known is None or known[0] != sha256:
                return None
            self._known.move_to_end(identity)
            return known[1]

    def add(self, identity: Hashable, sha256: str, kind: str) -> None:
        """Remember the digest and the media type of a file."""
        with self._lock:
            self._known[identity] = sha256, kind
            self._known.move_to_end(identity)
            while len(self._known) > MOST_VERIFIED:
                self._known.popitem(last=False)

    def clear(self) -> None:
        """Forget all files."""
        with self._lock:
            self._known.clear()


class Turns:
    """A lock for each key, as long as it is in use: of many requests for one file, one reads it."""

    def __init__(self) -> None:
        self._used: dict[Hashable, tuple[threading.Lock, int]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def of(self, key: Hashable) -> Iterator[None]:
        """Wait for the others that use this key."""
        with self._lock:
            lock, users = self._used.get(key, (threading.Lock(), 0))
            self._used[key] = lock, users + 1
        try:
            with lock:
                yield
        finally:
            with self._lock:
                users = self._used[key][1] - 1
                self._used[key] = lock, users
                if not users:
                    del self._used[key]


class SharedCopy:
    """A temporary copy of an object, which concurrent requests for the object share.

    :ivar used: the copies in use, by what they were claimed to be.
    """

    used: ClassVar[dict[Hashable, SharedCopy]] = {}
    _lock = threading.Lock()

    def __init__(self, key: Hashable, file: IO[bytes], kind: str) -> None:
        self.kind = kind
        self.number = file.fileno()
        self._key, self._file, self._readers = key, file, 1
        self.used[key] = self

    @classmethod
    def join(cls, key: Hashable) -> SharedCopy | None:
        """Return the copy in use, with one reader more; ``None`` if there is none."""
        with cls._lock:
            copy = cls.used.get(key)
            if copy is not None:
                copy._readers += 1  # noqa: SLF001  of its own class
            return copy

    def leave(self) -> None:
        """Have one reader less, and remove the copy after the last one."""
        with self._lock:
            self._readers -= 1
            if not self._readers:
                del self.used[self._key]
                self._file.close()


class Reader(io.RawIOBase):
    """Reads a shared copy from its first byte on."""

    def __init__(self, copy: SharedCopy) -> None:
        self._copy, self._position = copy, 0

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer, and return the number of bytes."""
        data = os.pread(self._copy.number, len(buffer), self._position)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        """Give the copy back."""
        if not self.closed:
            self._copy.leave()
        super().close()
