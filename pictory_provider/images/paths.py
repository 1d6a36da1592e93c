# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What does a path name: a file of this machine, or an object of a storage?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pictory_provider.api.errors import RequestInvalid


def check_path(path: object) -> str:
    """Return a picture's path as a string, or say what is wrong with it.

    :raises RequestInvalid: for an empty one, for ``"None"``, which is what Jinja makes of nothing, and a folder.
    """
    if not isinstance(path, (str, os.PathLike)) or str(path).strip() in ("", "None"):
        raise RequestInvalid(f"path is missing: got {path!r}. Nothing was sent or saved.", fields=["path"])
    if str(path).endswith("/"):
        raise folder(str(path))
    return str(path)


def local_file(path: str) -> Path | None:
    """Return the local file that a path names; ``None`` for an object of a storage.

    :raises RequestInvalid: for a relative path, and for a ``file://`` URL with a host, ``?`` or ``#``.
    """
    scheme = urlsplit(path).scheme if "://" in path else ""
    if scheme not in ("", "file"):
        return None
    plain = _path_of_file_url(path) if scheme else path
    if plain.endswith("/"):
        raise folder(path)
    local = Path(plain)
    if not local.is_absolute():
        raise RequestInvalid(
            f"path {path!r} is relative. Nothing was sent or saved. Workers differ in their "
            "working directory: use an absolute path, or a URL such as s3://bucket/key.png.",
            fields=["path"],
        )
    return local


def folder(path: str) -> RequestInvalid:
    """Return the error for a path that is a folder's."""
    return RequestInvalid(
        f"path {path!r} is a folder. Nothing was sent or saved. Name the picture too.", fields=["path"]
    )


def occupied(path: str) -> RequestInvalid:
    """Return the error for a place where something else lies."""
    return RequestInvalid(
        f"path {path!r} already holds something else. It was left as it is, and the new "
        "picture was not saved. Choose another path, one with the run in it for example, or set "
        "overwrite=True.",
        fields=["path"],
    )


def _path_of_file_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or "?" in url or "#" in url:
        raise RequestInvalid(
            f"path {url!r} names another file than it seems to. Nothing was sent or saved. A file URL has three "
            "slashes and no host (file:///srv/a.png), and `?` and `#` in it are written %3F and %23; or pass the "
            "plain path, in which every character is part of the name.",
            fields=["path"],
        )
    return unquote(parts.path)


def object_storage(field: str, path: str) -> Any:
    """Return the ``ObjectStoragePath`` of a URL.

    :param field: what it was given as, for the text.
    :raises RequestInvalid: for a scheme that Airflow has no filesystem for.
    """
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    try:
        target: Any = ObjectStoragePath(path)
        target.fs  # noqa: B018  found, or not, by looking
    except (ValueError, ImportError) as error:
        raise RequestInvalid(
            f"{field} {path!r} has a scheme that Airflow knows no filesystem for: {error}. Nothing was "
            "sent or saved. Install its provider on the workers, as with airflow-provider-pictory[s3], [gcs] "
            "or [azure].",
            fields=[field],
        ) from error
    return target
