# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The objects of an object storage, through the fsspec filesystem of Airflow's ``ObjectStoragePath``.

fsspec has no portable way to write an object only if it does not exist, or is still the one that was read, and its
filesystems ignore such wishes without a word: s3fs, gcsfs and adlfs before 2024.12 for all writes, adlfs before
2026.2 for files, s3fs for a parameter that botocore does not know, and gcsfs cuts data that contains its fixed
boundary. So each cloud has a :class:`_Client` that sends the conditions of its API itself, with one request each:
``If-None-Match`` and ``If-Match`` on S3 and Azure, ``ifGenerationMatch`` on Google Cloud Storage. Other storages,
and those that refuse a condition, are read right before they are written, which is logged once. So are storages
that are compatible with S3 and ignore a condition: each process finds that out with its first new object, which it
creates twice.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import tempfile
import time
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote
from uuid import uuid4

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

T = TypeVar("T")

log = logging.getLogger(__name__)

_NEW = ""
"""The condition of an object that must not exist."""
_LARGEST_REQUEST = 100 * 1024 * 1024
"""Bytes of a file that is uploaded with a single request; larger ones are uploaded in parts."""
_TAKEN = {409, 412}
"""Statuses of a condition that is not met."""
_IN_PROGRESS = "ConditionalRequestConflict"
"""S3's error code while another request writes the same object."""
_UNSUPPORTED = {501}
"""Statuses of a storage that does not know a condition."""
_PAUSES = (0.1, 0.4, 1.6)
"""Seconds between attempts while another request writes the same object."""
_logged: set[str] = set()
_kept: dict[tuple[str, str], bool] = {}
"""Whether conditions are kept, by endpoint and bucket, as this process has found out."""


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
                may_be_there = isinstance(error, FileNotFoundError)  # adlfs believes an outdated listing
                if begun or is_last or not (may_be_there or error.errno == errno.EBUSY):
                    raise
                self._fs.invalidate_cache()  # another task has just written here
            else:
                return

    def put(self, name: str, data: bytes, headers: Headers) -> None:
        """Write a small object in one step."""
        self._with_its_folder(name, lambda: self._client.write(name, data, headers))

    def create(self, name: str, data: bytes, headers: Headers, *, most: float) -> Content:  # noqa: ARG002
        """Write a small object that must not exist.

        :param data: something that no other writer writes: if the storage says that the object exists, it may be
            this one, whose reply was lost and which the client has sent again.
        """
        try:
            return Content(data, self._write(name, data, None, headers))
        except Changed:
            return self._own(name, data, AlreadyExists(name))

    def replace(self, name: str, data: bytes, seen: Content, headers: Headers, *, most: float) -> Content:  # noqa: ARG002
        """Replace an object, if it is still the one that was read."""
        try:
            return Content(data, self._write(name, data, seen, headers))
        except Changed as changed:
            return self._own(name, data, changed)

    def delete(self, name: str, seen: Content, *, most: float) -> None:  # noqa: ARG002
        """Remove an object, if it is still the one that was read, or is gone."""

        def look_and_remove() -> None:
            found = self.read(name)
            if found is not None and found.data != seen.data:
                raise Changed(name)
            self.remove(name)

        try:
            self._conditionally(name, lambda: self._client.delete(name, seen), look_and_remove)
        except (Changed, FileNotFoundError):
            if self.read(name) is not None:  # Azure says of a missing blob that it has changed
                raise

    def home(self, name: str) -> Path:  # noqa: ARG002
        """Return the folder for temporary files."""
        return Path(tempfile.gettempdir())

    def place(self, file: Path, name: str, headers: Headers, *, overwrite: bool) -> bool:
        """Upload a temporary file, in one step; return ``False`` if an object exists there.

        :param overwrite: replace it instead.
        """
        if file.stat().st_size > _LARGEST_REQUEST:
            return self._place_in_parts(file, name, headers, overwrite=overwrite)
        data = file.read_bytes()
        if overwrite:
            self.put(name, data, headers)
            return True
        try:
            if self._client.keeps_conditions(name) is None:
                self._put_new(name, data, headers)
            else:
                self._conditionally(
                    name,
                    lambda: self._client.write(name, data, headers, _NEW),
                    lambda: self._put_new(name, data, headers),
                )
        except Changed:
            return False
        return True

    def remove(self, name: str) -> None:
        """Remove an object; a missing object counts as success."""
        with suppress(FileNotFoundError):
            self._fs.rm_file(name)

    def _write(self, name: str, data: bytes, seen: Content | None, headers: Headers) -> str | None:
        """Write an object if it is still what was seen, and return its version, if it is known.

        :raises Changed: if it is not.
        """

        def write() -> str | None:
            is_known = self._client.keeps_conditions(name) is not None
            if not is_known:
                look()
            version = send()
            if not is_known and seen is None:
                self._find_out(name, data, headers)
            return version

        def send() -> str | None:
            version = _NEW if seen is None else seen.version or self._version_of(name, seen)
            try:
                return self._client.write(name, data, headers, version)
            except FileNotFoundError:
                if seen is None:
                    raise  # the bucket is missing
                raise Changed(name) from None

        def look() -> None:
            found = self.read(name)
            if (found and found.data) != (seen and seen.data):
                raise Changed(name)

        def look_and_write() -> None:
            look()
            self.put(name, data, headers)

        return self._conditionally(name, write, look_and_write)

    def _find_out(self, name: str, data: bytes, headers: Headers) -> None:
        """Find out whether the storage keeps conditions: create the object again that was just created."""
        try:
            with _conditions():
                self._client.write(name, data, headers, _NEW)
        except Changed:
            self._client.set_keeps_conditions(name, keeps=True)
        else:
            self._client.set_keeps_conditions(name, keeps=False)
            self._log_once()

    def _version_of(self, name: str, seen: Content) -> str:
        """Return the version of an object that has this content."""
        found = self.read(name)
        if found is None or found.data != seen.data:
            raise Changed(name)
        if found.version is None:
            raise _UnsupportedError
        return found.version

    def _own(self, name: str, data: bytes, error: Exception) -> Content:
        """Return an object that has this content, or raise the error."""
        found = self.read(name)
        if found is None or found.data != data:
            raise error from None
        return found

    def _conditionally(self, name: str, write: Callable[[], T], otherwise: Callable[[], T]) -> T:
        """Write with a condition, or, if the storage does not know conditions, in another way.

        :raises Changed: if the condition is not met.
        """
        if self._client.keeps_conditions(name) is False:
            self._log_once()
            return otherwise()
        pauses = iter(_PAUSES)
        while True:
            try:
                with _conditions():
                    return write()
            except _UnsupportedError:
                self._log_once()
                return otherwise()
            except Changed as changed:
                pause = next(pauses, None)
                if pause is None or _IN_PROGRESS not in changed.args:
                    raise
                time.sleep(pause)

    def _put_new(self, name: str, data: bytes, headers: Headers) -> None:
        if self.stat(name) is not None:
            raise Changed(name)
        self.put(name, data, headers)

    def _place_in_parts(self, file: Path, name: str, headers: Headers, *, overwrite: bool) -> bool:
        """Upload a large file. Whether an object exists is looked up right before."""
        if not overwrite and self.stat(name) is not None:
            return False
        options = self._client.options(headers)
        self._with_its_folder(name, lambda: self._fs.put_file(str(file), name, **options))
        return True

    def _log_once(self) -> None:
        protocol = self._fs.protocol if isinstance(self._fs.protocol, str) else self._fs.protocol[0]
        if protocol not in _logged:
            _logged.add(protocol)
            log.warning(
                "The storage %s:// does not support conditional writes, so it is read right before it is written: "
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
    """A filesystem without conditions. The subclasses are those of the clouds."""

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
        return Content(self._fs.cat_file(name))

    def write(self, name: str, data: bytes, headers: Headers, condition: str | None = None) -> str | None:
        """Write an object with one request, and return its version, if it is known.

        :param condition: the version that is to be replaced, or :data:`_NEW`; ``None`` for any.
        :raises Exception: of the client, if the condition is not met.
        """
        assert condition is None
        self._fs.pipe_file(name, data, **self.options(headers))
        return None

    def delete(self, name: str, seen: Content) -> None:
        """Remove an object of a version.

        :raises Exception: of the client, if it is of another version.
        """
        raise NotImplementedError

    def keeps_conditions(self, name: str) -> bool | None:  # noqa: ARG002
        """Whether the storage of an object keeps conditions; ``None`` if that is unknown yet.

        If it does not, :meth:`write` takes none, and :meth:`delete` is not called.
        """
        return False

    def set_keeps_conditions(self, name: str, *, keeps: bool) -> None:
        """Remember whether the storage of an object keeps conditions."""

    def options(self, headers: Headers) -> dict[str, Any]:  # noqa: ARG002
        """Return the options for ``pipe_file`` and ``put_file``."""
        return {}


class _S3(_Client):
    """s3fs (https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-requests.html)."""

    def keeps_conditions(self, name: str) -> bool | None:
        """Whether the storage keeps conditions. Amazon's does; some that are compatible ignore them silently."""
        endpoint = self._endpoint
        if endpoint is None or re.fullmatch(r"https?://([\w-]+\.)*amazonaws\.com(\.cn)?(:\d+)?/?", endpoint):
            return True
        return _kept.get((endpoint, self._fs.split_path(name)[0]))

    def set_keeps_conditions(self, name: str, *, keeps: bool) -> None:
        """Remember whether the storage of an object keeps conditions."""
        _kept[str(self._endpoint), self._fs.split_path(name)[0]] = keeps

    @property
    def _endpoint(self) -> str | None:
        options = getattr(self._fs, "client_kwargs", None) or {}
        endpoint = getattr(self._fs, "endpoint_url", None) or options.get("endpoint_url")
        return endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")

    def stat(self, name: str) -> Stat:
        """Return an object's size and version. A folder is no object, and does not prevent one of its name."""
        bucket, key, _ = self._fs.split_path(name)
        head = self._fs.call_s3("head_object", Bucket=bucket, Key=key)
        return Stat(int(head["ContentLength"]), version=_text(head.get("ETag")))

    def read(self, name: str) -> Content:
        """Return an object's content and version."""
        from fsspec.asyn import sync

        bucket, key, _ = self._fs.split_path(name)
        reply = self._fs.call_s3("get_object", Bucket=bucket, Key=key)
        return Content(sync(self._fs.loop, reply["Body"].read), _text(reply.get("ETag")))

    def write(self, name: str, data: bytes, headers: Headers, condition: str | None = None) -> str | None:
        """Write an object, on a condition."""
        bucket, key, _ = self._fs.split_path(name)
        options = self.options(headers)
        if condition is not None:
            options |= self._known(
                "PutObject", "IfNoneMatch" if condition == _NEW else "IfMatch", condition or "*"
            )
        reply = self._fs.call_s3("put_object", Bucket=bucket, Key=key, Body=data, **options)
        self._fs.invalidate_cache(name)
        return _text(reply.get("ETag"))

    def delete(self, name: str, seen: Content) -> None:
        """Remove an object, on a condition."""
        bucket, key, _ = self._fs.split_path(name)
        if seen.version is None:
            raise _UnsupportedError
        condition = self._known("DeleteObject", "IfMatch", seen.version)
        self._fs.call_s3("delete_object", Bucket=bucket, Key=key, **condition)
        self._fs.invalidate_cache(name)

    def options(self, headers: Headers) -> dict[str, Any]:
        """Return the options of S3."""
        options = {"ContentType": headers.content_type, "CacheControl": headers.cache_control}
        return {name: value for name, value in options.items() if value}

    def _known(self, operation: str, parameter: str, value: str) -> dict[str, Any]:
        """Return a parameter, if botocore knows it: s3fs drops an unknown one without a word."""
        from fsspec.asyn import sync

        self._fs.connect()
        model = sync(self._fs.loop, self._fs.get_s3, None).meta.service_model.operation_model(operation)
        if parameter not in model.input_shape.members:
            raise _UnsupportedError
        return {parameter: value}


class _Body(BytesIO):
    """The body of a request, which aiohttp closes after it is sent, and gcsfs may send again."""

    def close(self) -> None:
        """Stay open."""


class _Gcs(_Client):
    """gcsfs (https://cloud.google.com/storage/docs/request-preconditions)."""

    def keeps_conditions(self, name: str) -> bool | None:  # noqa: ARG002
        """Whether the storage of an object keeps conditions: it does."""
        return True

    def stat(self, name: str) -> Stat:
        """Return an object's size and version. A folder is no object, and does not prevent one of its name."""
        bucket, key, _ = self._fs.split_path(name)
        return _stat_of(self._fs.call("GET", "b/{}/o/{}", bucket, key, json_out=True))

    def read(self, name: str) -> Content:
        """Return an object's content and version."""
        headers, data = self._fs.call("GET", self._fs.url(name))
        return Content(data, _text(headers.get("x-goog-generation")))

    def write(self, name: str, data: bytes, headers: Headers, condition: str | None = None) -> str | None:
        """Write an object, on a condition."""
        bucket, key, _ = self._fs.split_path(name)
        fields = {"name": key, "contentType": headers.content_type, "cacheControl": headers.cache_control}
        described = json.dumps({field: value for field, value in fields.items() if value})
        boundary = uuid4().hex
        head = (
            f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{described}\r\n"
            f"--{boundary}\r\nContent-Type: {headers.content_type}\r\n\r\n"
        )
        reply = self._fs.call(
            "POST",
            f"{self._fs.url(name).partition('/download/storage/v1/')[0]}/upload/storage/v1/b/{quote(bucket)}/o",
            uploadType="multipart",
            **({} if condition is None else {"ifGenerationMatch": condition or "0"}),
            headers={"Content-Type": f'multipart/related; boundary="{boundary}"'},
            data=_Body(head.encode() + data + f"\r\n--{boundary}--\r\n".encode()),
            json_out=True,
        )
        self._fs.invalidate_cache(name)
        return _text(reply.get("generation"))

    def delete(self, name: str, seen: Content) -> None:
        """Remove an object, on a condition."""
        bucket, key, _ = self._fs.split_path(name)
        if seen.version is None:
            raise _UnsupportedError
        self._fs.call("DELETE", "b/{}/o/{}", bucket, key, ifGenerationMatch=seen.version)
        self._fs.invalidate_cache(name)

    def options(self, headers: Headers) -> dict[str, Any]:
        """Return the options of Google Cloud Storage."""
        options: dict[str, Any] = {"content_type": headers.content_type}
        if headers.cache_control:
            options["fixed_key_metadata"] = {"cache_control": headers.cache_control}
        return options


class _Azure(_Client):
    """adlfs (https://learn.microsoft.com/rest/api/storageservices/specifying-conditional-headers-for-blob-service-operations)."""

    def keeps_conditions(self, name: str) -> bool | None:  # noqa: ARG002
        """Whether the storage of an object keeps conditions: it does."""
        return True

    def stat(self, name: str) -> Stat:
        """Return a blob's size and version, or a folder of an account with hierarchical namespaces."""
        if not self._fs.split_path(name)[1]:
            return super().stat(name)
        found = self._with_blob(name, lambda blob: blob.get_blob_properties())
        if (found.metadata or {}).get("hdi_isfolder") == "true":
            return Stat(None, is_folder=True)
        return Stat(int(found.size), version=_text(found.etag))

    def read(self, name: str) -> Content:
        """Return a blob's content and version."""

        async def read(blob: Any) -> Content:
            stream = await blob.download_blob()
            return Content(await stream.readall(), _text(stream.properties.etag))

        content: Content = self._with_blob(name, read)
        return content

    def write(self, name: str, data: bytes, headers: Headers, condition: str | None = None) -> str | None:
        """Write a blob, on a condition."""
        options = self.options(headers) | {"overwrite": condition != _NEW}
        if condition:
            options |= _unmodified(condition)
        reply = self._fs.pipe_file(name, data, **options)
        return _text(reply.get("etag")) if isinstance(reply, dict) else None

    def delete(self, name: str, seen: Content) -> None:
        """Remove a blob, on a condition."""
        if seen.version is None:
            raise _UnsupportedError
        condition = _unmodified(seen.version)
        self._with_blob(name, lambda blob: blob.delete_blob(**condition))
        self._fs.invalidate_cache()

    def options(self, headers: Headers) -> dict[str, Any]:
        """Return the options of Azure."""
        from azure.storage.blob import ContentSettings

        settings = ContentSettings(content_type=headers.content_type, cache_control=headers.cache_control)
        return {"content_settings": settings}

    def _with_blob(self, name: str, function: Callable[[Any], Any]) -> Any:
        """Return what a coroutine function returns for the client of a blob."""
        from azure.core.exceptions import ResourceNotFoundError
        from fsspec.asyn import sync

        async def call() -> Any:
            container, key, _ = self._fs.split_path(name)
            async with self._fs.service_client.get_blob_client(container=container, blob=key) as blob:
                return await function(blob)

        try:
            return sync(self._fs.loop, call)
        except ResourceNotFoundError as error:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name) from error


def _unmodified(version: str) -> dict[str, Any]:
    from azure.core import MatchConditions

    return {"etag": version, "match_condition": MatchConditions.IfNotModified}


def _client_of(fs: Any) -> _Client:
    """Return the client of a filesystem, by the module of its class."""
    modules = {each.__module__.partition(".")[0] for each in type(fs).__mro__}
    for module, client in (("s3fs", _S3), ("gcsfs", _Gcs), ("adlfs", _Azure)):
        if module in modules:
            return client(fs)
    return _Client(fs)


@contextmanager
def _conditions() -> Iterator[None]:
    """Raise the errors of a conditional write as :class:`Changed` and :class:`_UnsupportedError`.

    s3fs, gcsfs and azure have error classes of their own, some of which are no ``OSError``, and none is the same
    in all of their releases.
    """
    try:
        yield
    except (Changed, _UnsupportedError):
        raise
    except Exception as error:
        codes = _codes(error)
        if isinstance(error, FileExistsError) or codes & _TAKEN:
            raise Changed(*(codes & {_IN_PROGRESS})) from error
        if isinstance(error, (TypeError, NotImplementedError)) or codes & _UNSUPPORTED:
            raise _UnsupportedError from error
        raise


def _codes(error: BaseException | None) -> set[Any]:
    """Return the statuses and error codes of an error and of its causes."""
    codes: set[Any] = set()
    while error is not None:
        codes |= {getattr(error, name, None) for name in ("code", "status", "status_code")}
        response = getattr(error, "response", None)
        if isinstance(response, dict):  # botocore
            codes.add((response.get("Error") or {}).get("Code"))
            codes.add((response.get("ResponseMetadata") or {}).get("HTTPStatusCode"))
        error = error.__cause__
    return {code for code in codes if isinstance(code, (int, str))}


def _stat_of(info: dict[str, Any]) -> Stat:
    if info.get("type") == "directory":
        return Stat(None, is_folder=True)
    version = next((info[name] for name in ("generation", "ETag", "etag") if info.get(name)), None)
    return Stat(int(info.get("size") or 0), version=_text(version))


def _text(version: Any) -> str | None:
    return None if version in (None, "") else str(version)
