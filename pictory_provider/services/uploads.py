# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Upload reference images to Pictory, each content once.

Pictory documents the uploaded picture's URL as public and permanent
(https://docs.pictory.ai/api-reference/media-management/generate-signed-url). So a picture is uploaded only right
before the request that needs it, and its URL is kept in one place: next to the pictures, or in the task's state.

A URL that is kept is used only if its host confirms it right before. After any other answer, a temporary error
too, the picture is uploaded again: that is free, and a paid job without its reference image is not.
"""

from __future__ import annotations

import json
import re
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from pictory_provider.api import retry
from pictory_provider.api.checks import check_switch, is_upload
from pictory_provider.api.decoding import parse_json
from pictory_provider.api.errors import PictoryError
from pictory_provider.api.responses import check_upload, is_safe_url
from pictory_provider.client import calls
from pictory_provider.client.retrying import retry_call
from pictory_provider.core.batch.file_names import RECORD_FOLDER
from pictory_provider.storage.references import References, read_reference, readable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pictory_provider.api.models import ImageRequest
    from pictory_provider.client.retrying import Log
    from pictory_provider.client.sync import SyncClient
    from pictory_provider.storage.references import ReferenceFile
    from pictory_provider.storage.target import Target

UPLOADS = f"{RECORD_FOLDER}/uploads"
"""The folder of the kept URLs, next to the pictures."""
_NAMES = f"{UPLOADS}/names.json"
KEY = "pictory_upload"
"""The key of the kept URL in the task state store."""
VERSION = 1


class FolderCache:
    """URLs that are kept next to the pictures.

    :param target: returns a file in their folder.
    """

    def __init__(self, target: Callable[[str], Target]) -> None:
        self._target = target

    def read(self, sha256: str) -> Any:
        """Return the value of a picture; ``None`` for none."""
        return self._read(f"{UPLOADS}/{sha256}.json")

    def write(self, sha256: str, value: dict[str, Any]) -> None:
        """Keep the value of a picture."""
        self._write(f"{UPLOADS}/{sha256}.json", value)

    def read_names(self) -> dict[str, str]:
        """Return the names in records of the files that this attempt of a batch has read, by their paths."""
        value = self._read(_NAMES) or {"names": {}}
        return {path: name for path, name in value["names"].items() if is_upload(name)}

    def write_names(self, names: dict[str, str]) -> None:
        """Keep these names."""
        self._write(_NAMES, {"version": VERSION, "names": names})

    def _read(self, name: str) -> Any:
        found = self._target(name).read()
        return None if found is None else parse_json(found.data)

    def _write(self, name: str, value: dict[str, Any]) -> None:
        self._target(name).write(json.dumps(value).encode())


class StoreCache:
    """The URL of a task without an output path, in its state store.

    :param store: Airflow's.
    """

    def __init__(self, store: Any) -> None:
        self._store = store

    def read(self, sha256: str) -> Any:
        """Return the value of a picture; ``None`` for none."""
        value = self._store.get(KEY)
        return value if isinstance(value, dict) and value.get("sha256") == sha256 else None

    def write(self, sha256: str, value: dict[str, Any]) -> None:
        """Keep the value of a picture, in place of that of another one."""
        self._store.set(KEY, {**value, "sha256": sha256})


class Uploads:
    """The uploads of one task or hook. Several threads may use it at the same time.

    :param references: the pictures that may be uploaded.
    :ivar cache: where their URLs are kept for later attempts; ``None`` for nowhere.
    """

    def __init__(self, references: References | None = None) -> None:
        self.references = references or References()
        self.cache: FolderCache | StoreCache | None = None
        self._urls: dict[str, str] = {}
        self._locks: dict[str, threading.Lock] = {}

    @classmethod
    def of(cls, operator: Any) -> Uploads:
        """Return the uploads of an operator, which does not upload unless its ``reference_upload`` is on.

        :raises RequestInvalid: if that is neither true nor false.
        """
        return cls(References(is_on=check_switch("reference_upload", operator.reference_upload)))

    def use_folder(self, target: Callable[[str], Target], *, is_resumed: bool, log: Log) -> None:
        """Keep URLs in a batch's folder. After a deferral, files that the attempt has read are not read again.

        :param target: returns a file in the folder.
        """
        self.cache = FolderCache(target)
        if is_resumed and self.references.is_on:
            try:
                self.references.remember(self.cache.read_names())
            except Exception as error:
                log.warning("The reference images are read again, because their record cannot be read: %r", error)

    def keep_names(self, log: Log) -> None:
        """Keep, before a deferral, the names of the files that were read since the attempt began."""
        if isinstance(self.cache, FolderCache) and self.references.has_read:
            try:
                self.cache.write_names(self.references.names)
            except Exception as error:
                log.warning("After the deferral the reference images are read again: %s", error)

    def identify(self, url: Any) -> Any:
        """Return the name in records of a reference image, and read it now: a hook outlives a file's content.

        :raises PictoryError: as :meth:`References.identify`.
        """
        self.references = References()
        return self.references.identify(url)

    def readable(self, client: SyncClient, request: ImageRequest, *, log: Log) -> ImageRequest:
        """Return a request whose reference image Pictory can read: a private object is signed, a file uploaded.

        :raises RequestInvalid: if that is not possible.
        :raises PictoryError: if the storage or Pictory does not answer.
        """
        name = request.reference_image_url
        if name is None or not is_upload(name):
            return readable(request)
        return replace(request, reference_image_url=self.url_of(client, name, log=log))

    def check(self, request: ImageRequest) -> None:
        """Check that :meth:`readable` would find the reference image, and upload nothing.

        :raises RequestInvalid: if it would not.
        """
        if is_upload(name := request.reference_image_url):
            self.references.open(str(name))
        else:
            readable(request)

    def url_of(self, client: SyncClient, name: str, *, log: Log) -> str:
        """Return the public URL of a picture, which is uploaded if Pictory does not have it.

        :param name: in records.
        :raises PictoryError: if it cannot be uploaded.
        """
        sha256 = name.rpartition("=")[2]
        with self._locks.setdefault(sha256, threading.Lock()):
            if sha256 not in self._urls:
                self._urls[sha256] = self._kept(client, sha256, log) or self._upload(client, name, sha256, log)
            return self._urls[sha256]

    def upload(self, client: SyncClient, path: str, *, log: Log) -> str:
        """Upload a file, whatever Pictory could read by itself, and return its public URL; see :meth:`url_of`."""
        name = read_reference(path).name
        self.references = References()
        self.references.remember({path: name})
        return self.url_of(client, name, log=log)

    def _kept(self, client: SyncClient, sha256: str, log: Log) -> str | None:
        """Return the URL that is kept for a picture, if its host confirms it."""
        if self.cache is None:
            return None
        try:
            value = self.cache.read(sha256)
            if not isinstance(value, dict) or value.get("version") != VERSION:
                return None
            url = value["url"]
            if not is_safe_url(url, client.settings.base_url):
                return None
            reply = client.head(url)
            if reply.status == 200 and reply.headers.get("content-length") in (None, str(value["size"])):
                return str(url)
            log.info(
                "The reference image is uploaded again: the host of the earlier upload says %s.", reply.status
            )
        except Exception as error:
            log.warning("The reference image is uploaded again: the earlier upload is not confirmed (%s).", error)
        return None

    def _upload(self, client: SyncClient, name: str, sha256: str, log: Log) -> str:
        file = self.references.open(name)
        log.info("Uploading the reference image to Pictory, %s. Its URL is public and permanent.", name)

        def once() -> str:
            base_url = client.settings.base_url
            urls = client.call(calls.generate_upload_url(_file_name(file), file.content_type, base_url))
            check_upload(client.put(urls.signed_url, file.content, file.content_type), urls.signed_url)
            return urls.url

        try:
            url = retry_call(once, retry.after_read, log=log)
        except PictoryError as error:
            what = f"reference_image_url {name!r} could not be uploaded: {error.message} Nothing was bought."
            raise error.with_message(what) from error.__cause__
        if self.cache is not None:
            value = {"version": VERSION, "url": url, "name": name, "size": len(file.content), "at": time.time()}
            try:
                self.cache.write(sha256, value)
            except Exception as error:
                log.warning("The URL of the upload is not kept, so a later attempt uploads it again: %s", error)
        return url


@contextmanager
def hidden(sent: ImageRequest, original: ImageRequest) -> Iterator[None]:
    """Replace the URL that Pictory got in the errors of the block by the original one."""
    try:
        yield
    except PictoryError as error:
        private, plain = sent.reference_image_url, original.reference_image_url
        if private and plain and private != plain:
            for secret, shown in ((private, plain), (private.partition("?")[2], "...")):
                error.message = error.message.replace(secret, shown) if secret else error.message
            error.args = (error.message, *error.args[1:])
        raise


def _file_name(file: ReferenceFile) -> str:
    """Return the name under which a picture is uploaded: it becomes part of a URL."""
    stem = PurePosixPath(file.name.removeprefix("upload:").rpartition("?")[0]).stem
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-")[:80]
    return f"{plain or 'reference'}.{'png' if file.content_type == 'image/png' else 'jpg'}"
