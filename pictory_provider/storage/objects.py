# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The objects of an object storage, through the fsspec filesystem of Airflow's ``ObjectStoragePath``.

fsspec has no portable way to write an object only if it does not exist, or is still the one that was read. Each
cloud has its own conditions (``If-None-Match`` and ``If-Match`` on S3 and Azure, ``ifGenerationMatch`` on Google
Cloud Storage). A :class:`_Client` sends them with one request each. Other storages, and those that refuse a
condition, are read right before they are written, which is logged once.
"""

from __future__ import annotations

import errno
import json
import logging
import re
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pictory_provider.storage.files import (
    PIECE,
    AlreadyExists,
    Changed,
    Content,
    Headers,
    Stat,
    map_concurrently,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

log = logging.getLogger(__name__)

_TAKEN = {409, 412, "ConditionNotMet", "ConditionalRequestConflict", "PreconditionFailed"}
"""Statuses and error codes of a condition that is not met."""
_IN_PROGRESS = "ConditionalRequestConflict"
"""S3's error code while another request writes the same object."""
_UNSUPPORTED = {501, "NotImplemented", "UnsupportedHeader"}
"""Statuses and error codes of a storage that does not know a condition."""
_PAUSES = (0.1, 0.4, 1.6)
"""Seconds between attempts while another request writes the same object."""
_logged: set[str] = set()


class ObjectFiles:
    """The objects of an object storage.

    :param fs: the filesystem of an ``ObjectStoragePath``.
    """

    is_disk = False

    def __init__(self, fs: Any) -> None:
        self._fs = fs
        self._client = _client_of(fs)

    def stat(self, name: str) -> Stat | None:
        """Return what exists under a name; ``None`` for nothing."""
        self._fs.invalidate_cache()
        try:
            return self._client.stat(name)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def stats(self, names: Iterable[str]) -> dict[str, Stat]:
        """Return what exists under names, by name. Their folders are listed, each once."""
        self._fs.invalidate_cache()
        names = set(names)
        listed = map_concurrently(self._list, {name.rpartition("/")[0] for name in names})
        found = {f"{folder}/{name}": each for folder, files in listed.items() for name, each in files.items()}
        return {name: found[name] for name in names & found.keys()}

    def list(self, folder: str) -> list[str]:
        """Return the names, without the folder, of the files directly in a folder; none if it does not exist."""
        return [name for name, found in self._list(folder).items() if not found.is_folder]

    def read(self, name: str) -> Content | None:
        """Return an object's content; ``None`` for no object."""
        for is_last in (False, True):
            try:
                return self._client.read(name)
            except FileNotFoundError:
                return None
            except OSError as error:
                if is_last or error.errno != errno.EBUSY:
                    raise
                self._fs.invalidate_cache()  # another task has just written here
        raise AssertionError("unreachable")

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield an object's content in pieces. A missing object is an error."""
        begun = False
        for is_last in (False, True):
            try:
                with self._fs.open(name, "rb") as file:
                    while piece := file.read(PIECE):
                        begun = True
                        yield piece
            except OSError as error:
                if begun or is_last or error.errno != errno.EBUSY:
                    raise
                self._fs.invalidate_cache()  # another task has just written here
            else:
                return

    def put(self, name: str, data: bytes, headers: Headers) -> None:
        """Write a small object in one step."""
        self._with_its_folder(name, lambda: self._fs.pipe_file(name, data, **self._client.options(headers)))

    def create(self, name: str, data: bytes, headers: Headers, *, most: float) -> Content:  # noqa: ARG002
        """Write a small object that must not exist.

        :param data: something that no other writer writes: if the storage says that the object exists, it may be
            this one, whose reply was lost.
        """
        try:
            version = self._conditionally(
                lambda: self._client.create(name, data, headers),
                lambda: self._look_and_put(name, None, data, headers),
            )
        except Changed:
            found = self.read(name)
            if found is None or found.data != data:
                raise AlreadyExists(name) from None
            return found
        return Content(data, version)

    def replace(self, name: str, data: bytes, seen: Content, headers: Headers, *, most: float) -> Content:  # noqa: ARG002
        """Replace an object, if it is still the one that was read."""
        try:
            version = self._conditionally(
                lambda: self._client.replace(name, data, seen, headers),
                lambda: self._look_and_put(name, seen, data, headers),
            )
        except Changed:
            found = self.read(name)
            if found is None or found.data != data:
                raise
            return found
        return Content(data, version)

    def delete(self, name: str, seen: Content, *, most: float) -> None:  # noqa: ARG002
        """Remove an object, if it is still the one that was read. It is read right before."""
        found = self.read(name)
        if found is not None and found.data != seen.data:
            raise Changed(name)
        self.remove(name)

    def home(self, name: str) -> Path:  # noqa: ARG002
        """Return the folder for temporary files."""
        return Path(tempfile.gettempdir())

    def place(self, file: Path, name: str, headers: Headers, *, overwrite: bool) -> bool:
        """Upload a temporary file, in one step; return ``False`` if an object exists there.

        :param overwrite: replace it instead.
        """
        options = self._client.options(headers)
        if overwrite:
            self._with_its_folder(name, lambda: self._fs.put_file(str(file), name, **options))
            return True
        try:
            self._conditionally(
                lambda: self._client.create_from(file, name, options),
                lambda: self._look_and_place(file, name, options),
            )
        except Changed:
            return False
        return True

    def remove(self, name: str) -> None:
        """Remove an object; a missing object counts as success."""
        with suppress(FileNotFoundError):
            self._fs.rm_file(name)

    def _conditionally(self, write: Callable[[], str | None], otherwise: Callable[[], str | None]) -> str | None:
        """Write with a condition, or, if the storage does not know conditions, in another way.

        :return: the version that was written; ``None`` if it is unknown.
        :raises Changed: if the condition is not met.
        """
        if not self._client.has_conditions:
            return otherwise()
        for pause in (*_PAUSES, None):
            try:
                return write()
            except _UnsupportedError:
                self._log_once()
                return otherwise()
            except Changed as error:
                if pause is None or _IN_PROGRESS not in error.args:
                    raise
                time.sleep(pause)
        raise AssertionError("unreachable")

    def _look_and_put(self, name: str, seen: Content | None, data: bytes, headers: Headers) -> None:
        found = self.read(name)
        if (found and found.data) != (seen and seen.data):
            raise Changed(name)
        self.put(name, data, headers)

    def _look_and_place(self, file: Path, name: str, options: dict[str, Any]) -> None:
        if self._fs.exists(name):
            raise Changed(name)
        self._with_its_folder(name, lambda: self._fs.put_file(str(file), name, **options))

    def _log_once(self) -> None:
        protocol = str(self._fs.protocol)
        if protocol not in _logged:
            _logged.add(protocol)
            log.warning(
                "The storage (%s) does not support conditional writes, so it is read right before it is written: "
                "two tasks that write the same new name within milliseconds may both succeed.",
                protocol,
            )

    def _list(self, folder: str) -> dict[str, Stat]:
        try:
            listed = self._fs.ls(folder, detail=True, refresh=True)
        except TypeError:  # a filesystem without a cache of listings
            listed = self._fs.ls(folder, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        found: dict[str, Stat] = {}
        for info in listed:
            path = str(info["name"]).rstrip("/")
            if path.strip("/") == folder.strip("/"):
                continue  # the folder itself, or an object of its name
            name, each = path.rpartition("/")[2], _stat_of(info)
            if not each.is_folder:
                found[name] = each
            else:
                found.setdefault(name, each)  # an object and a folder may have one name
        return found

    def _with_its_folder(self, name: str, write: Callable[[], object]) -> None:
        """Write. Create folders if the storage has them, but never its root, a new bucket."""
        try:
            write()
        except FileNotFoundError:
            root = re.match("/?[^/]*", name)
            if root is None or not self._fs.exists(root[0]):
                raise
            self._fs.makedirs(name.rpartition("/")[0], exist_ok=True)
            write()


class _UnsupportedError(Exception):
    """The storage, or this release of its client, does not know a condition."""


class _Client:
    """A filesystem without conditions. The subclasses are those of the clouds.

    :ivar has_conditions: whether :meth:`create`, :meth:`replace` and :meth:`create_from` can be called.
    """

    has_conditions = False

    def __init__(self, fs: Any) -> None:
        self._fs = fs

    def stat(self, name: str) -> Stat:
        """Return what exists under a name.

        :raises FileNotFoundError: for nothing.
        """
        return _stat_of(self._fs.info(name))

    def read(self, name: str) -> Content:
        """Return an object's content, with one request.

        :raises FileNotFoundError: if it does not exist.
        """
        return Content(self._fs.cat_file(name), None)

    def options(self, headers: Headers) -> dict[str, Any]:  # noqa: ARG002
        """Return the options for ``pipe_file`` and ``put_file``."""
        return {}

    def create(self, name: str, data: bytes, headers: Headers) -> str | None:
        """Write an object that must not exist; return its version, if it is known.

        :raises Changed: if it exists.
        """
        with _conditions():
            return self._version_in(self._fs.pipe_file(name, data, mode="create", **self.options(headers)))

    def create_from(self, file: Path, name: str, options: dict[str, Any]) -> None:
        """Upload a file as an object that must not exist.

        :raises Changed: if it exists.
        """
        with _conditions():
            self._fs.put_file(str(file), name, mode="create", **options)

    def replace(self, name: str, data: bytes, seen: Content, headers: Headers) -> str | None:
        """Replace an object of a version; return the new version, if it is known.

        :raises Changed: if it is of another version.
        """
        version = seen.version or self._version_of(name, seen)
        with _conditions():
            written = self._replace(name, data, version, headers)
        self._fs.invalidate_cache(name)
        return written

    def _version_of(self, name: str, seen: Content) -> str:
        """Return the version of an object with this content."""
        try:
            found = self.read(name)
        except FileNotFoundError:
            raise Changed(name) from None
        if found.data != seen.data:
            raise Changed(name)
        if found.version is None:
            raise _UnsupportedError
        return found.version

    def _replace(self, name: str, data: bytes, version: str, headers: Headers) -> str | None:  # noqa: ARG002
        raise _UnsupportedError

    def _version_in(self, reply: Any) -> str | None:  # noqa: ARG002
        return None


class _S3(_Client):
    """s3fs."""

    has_conditions = True

    def stat(self, name: str) -> Stat:
        bucket, key, _ = self._fs.split_path(name)
        if not key:
            return super().stat(name)
        head = self._fs.call_s3("head_object", Bucket=bucket, Key=key)
        return Stat(int(head["ContentLength"]), version=self._version_in(head))

    def read(self, name: str) -> Content:
        from fsspec.asyn import sync

        bucket, key, _ = self._fs.split_path(name)
        reply = self._fs.call_s3("get_object", Bucket=bucket, Key=key)
        return Content(sync(self._fs.loop, reply["Body"].read), self._version_in(reply))

    def options(self, headers: Headers) -> dict[str, Any]:
        options = {"ContentType": headers.content_type, "CacheControl": headers.cache_control}
        return {name: value for name, value in options.items() if value}

    def _replace(self, name: str, data: bytes, version: str, headers: Headers) -> str | None:
        return self._version_in(self._fs.pipe_file(name, data, IfMatch=version, **self.options(headers)))

    def _version_in(self, reply: Any) -> str | None:
        return _text(reply.get("ETag")) if isinstance(reply, dict) else None


class _Gcs(_Client):
    """gcsfs."""

    has_conditions = True

    def stat(self, name: str) -> Stat:
        bucket, key, _ = self._fs.split_path(name)
        if not key:
            return super().stat(name)
        found = self._fs.call("GET", "b/{}/o/{}", bucket, key, json_out=True)
        return Stat(int(found.get("size") or 0), version=_text(found.get("generation")))

    def read(self, name: str) -> Content:
        headers, data = self._fs.call("GET", self._fs.url(name))
        return Content(data, _text(headers.get("x-goog-generation")))

    def options(self, headers: Headers) -> dict[str, Any]:
        options: dict[str, Any] = {"content_type": headers.content_type}
        if headers.cache_control:
            options["fixed_key_metadata"] = {"cache_control": headers.cache_control}
        return options

    def _replace(self, name: str, data: bytes, version: str, headers: Headers) -> str | None:
        bucket, key, _ = self._fs.split_path(name)
        about = {"name": key, "contentType": headers.content_type, "cacheControl": headers.cache_control}
        about = {field: value for field, value in about.items() if value}
        base = self._fs.url(name).partition("/download/")[0]
        boundary = "pictory-5f0c1c8e2d7b4a69"
        parts = (
            f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{json.dumps(about)}\r\n"
            f"--{boundary}\r\nContent-Type: {headers.content_type}\r\n\r\n"
        )
        reply = self._fs.call(
            "POST",
            f"{base}/upload/storage/v1/b/{bucket}/o",
            uploadType="multipart",
            ifGenerationMatch=version,
            headers={"Content-Type": f'multipart/related; boundary="{boundary}"'},
            data=parts.encode() + data + f"\r\n--{boundary}--".encode(),
            json_out=True,
        )
        return _text(reply.get("generation"))


class _Azure(_Client):
    """adlfs."""

    has_conditions = True

    def read(self, name: str) -> Content:
        from fsspec.asyn import sync

        content: Content = sync(self._fs.loop, self._read, name)
        return content

    async def _read(self, name: str) -> Content:
        from azure.core.exceptions import ResourceNotFoundError

        container, blob, _ = self._fs.split_path(name)
        async with self._fs.service_client.get_blob_client(container=container, blob=blob) as client:
            try:
                stream = await client.download_blob()
            except ResourceNotFoundError as error:
                raise FileNotFoundError(name) from error
            return Content(await stream.readall(), _text(stream.properties.etag))

    def options(self, headers: Headers) -> dict[str, Any]:
        from azure.storage.blob import ContentSettings

        return {
            "content_settings": ContentSettings(
                content_type=headers.content_type, cache_control=headers.cache_control
            )
        }

    def _replace(self, name: str, data: bytes, version: str, headers: Headers) -> str | None:
        from azure.core import MatchConditions

        condition = {"etag": version, "match_condition": MatchConditions.IfNotModified}
        return self._version_in(self._fs.pipe_file(name, data, **condition, **self.options(headers)))

    def _version_in(self, reply: Any) -> str | None:
        return _text(reply.get("etag")) if isinstance(reply, dict) else None


def _client_of(fs: Any) -> _Client:
    """Return the client of a filesystem, by the module of its class."""
    modules = {each.__module__.partition(".")[0] for each in type(fs).__mro__}
    for module, client in (("s3fs", _S3), ("gcsfs", _Gcs), ("adlfs", _Azure)):
        if module in modules:
            return client(fs)
    return _Client(fs)


class _conditions:  # noqa: N801  a context manager
    """Raise the errors of a conditional write as :class:`Changed` and :class:`_UnsupportedError`.

    s3fs, gcsfs and azure have error classes of their own, some of which are no ``OSError``.
    """

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, *__: object) -> None:
        if isinstance(error, (TypeError, NotImplementedError)):  # an older client
            raise _UnsupportedError from error
        if not isinstance(error, Exception) or isinstance(error, (Changed, FileNotFoundError)):
            return
        codes = _codes(error)
        if isinstance(error, FileExistsError) or codes & _TAKEN:
            raise Changed(*(codes & {_IN_PROGRESS})) from error
        if codes & _UNSUPPORTED:
            raise _UnsupportedError from error


def _codes(error: BaseException | None) -> set[Any]:
    """Return the statuses and error codes of an error and of its causes."""
    codes: set[Any] = set()
    while error is not None:
        codes |= {getattr(error, name, None) for name in ("code", "status", "status_code", "error_code")}
        response = getattr(error, "response", None)
        if isinstance(response, dict):  # botocore
            codes.add((response.get("Error") or {}).get("Code"))
        error = error.__cause__
    return {code for code in codes if isinstance(code, (int, str))}


def _stat_of(info: dict[str, Any]) -> Stat:
    if info.get("type") == "directory":
        return Stat(None, is_folder=True)
    version = next((info[name] for name in ("generation", "ETag", "etag") if info.get(name)), None)
    return Stat(int(info.get("size") or 0), version=_text(version))


def _text(version: Any) -> str | None:
    return None if version in (None, "") else str(version)
