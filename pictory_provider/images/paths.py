# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What does a path name: a file of this machine, or an object of a storage?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pictory_provider.api.errors import RequestInvalid
from pictory_provider.jobs.files import LONGEST_KEY, LONGEST_PATH, is_sidecar_name, longest_name


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


def problem_of_picture(path: str) -> str | None:
    """Return why no picture can be saved at a path, as far as the path itself tells; ``None`` if it can.

    :return: a text that follows the path.
    :raises RequestInvalid: as :func:`local_file` and :func:`object_storage`.
    """
    if "\0" in path:
        return "has a NUL character in it"
    local = local_file(path)
    if is_sidecar_name(path if local is None else str(local)):
        return "ends in .json, as sidecars do: give it another name, such as one that ends in .png"
    if local is not None:
        longest = len(os.fsencode(longest_name(str(local))))
        too_long = (
            f"is too long: with its sidecar and its job's name it has {longest:,} bytes, of {LONGEST_PATH:,}"
        )
        return too_long if longest > LONGEST_PATH else None
    target = _object("path", path)
    if (problem := _problem_of_key(path, target)) is not None:
        return problem
    key = target.path.lstrip("/")
    if any(part in (".", "..") for part in key.split("/")):
        return "has . or .. in it, which object storages do not read alike"
    longest = len(longest_name(key).encode("utf-8", "surrogatepass")) - len(key.partition("/")[0]) - 1
    if longest > LONGEST_KEY:
        return (
            f"is too long: with its sidecar and its job's name the key has {longest:,} bytes, and object storages "
            f"take {LONGEST_KEY:,}"
        )
    return None


def refused_path(path: str, problem: str) -> RequestInvalid:
    """Return the error for a path at which no picture can be saved.

    :param problem: of :func:`problem_of_picture`.
    """
    return RequestInvalid(
        f"path {path!r} {problem}. Nothing was sent and nothing was saved. Choose another path.", fields=["path"]
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
    :raises RequestInvalid: for a scheme that Airflow has no filesystem for, and for a path that it would read as
        another.
    """
    target = _object(field, path)
    if (problem := _problem_of_key(path, target)) is not None:
        raise RequestInvalid(
            f"{field} {path!r} {problem}. Nothing was sent and nothing was saved. Use a name without them.",
            fields=[field],
        )
    return target


def _object(field: str, path: str) -> Any:
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


def _problem_of_key(path: str, target: Any) -> str | None:
    other = _other_key(path, target.path, target.fs)
    return other and (
        f"would be read as another object, {other!r}: Airflow's object storage gives `::`, `?`, tabs and line "
        "breaks a meaning of their own"
    )


def _other_key(url: str, path: str, fs: Any) -> str | None:
    """Return the object that a storage takes for the one that a URL names; ``None`` if it is that one.

    universal_pathlib takes ``::`` for a chain of filesystems and cuts the key there, and ``urllib`` drops tabs and
    line breaks. s3fs and adlfs take ``?versionId=`` for a version, and do so only when they send a request.

    :param path: what the filesystem is asked for.
    """
    authority, slash, key = url.partition("://")[2].partition("/")
    container = authority.rpartition("@")[2]  # the other part is the id of an Airflow connection
    asked = f"{container}{slash}{key}"
    alike = {asked, key, f"{url.partition('://')[0]}://{asked}"}  # some filesystems leave the host out, or all in
    if path.removeprefix("/").rstrip("/") not in {each.rstrip("/") for each in alike}:
        return path
    split: tuple[Any, ...] = fs.split_path(path) if hasattr(fs, "split_path") else ()
    if len(split) > 1 and f"{split[0]}/{split[1]}".strip("/") != asked.strip("/"):
        return f"{split[0]}/{split[1]}"
    return None
