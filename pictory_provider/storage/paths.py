# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Check paths: local files and objects in object storage."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from pictory_provider.api.errors import RequestInvalid
from pictory_provider.core.picture_names import LONGEST_KEY, LONGEST_PATH, is_sidecar_name, longest_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pictory_provider.media.copies import CopySpec


def check_path(path: object, field: str = "path") -> str:
    """Return a picture's path as a string.

    :param field: the argument's name, for the text.
    :raises RequestInvalid: for an empty path, for ``"None"``, which Jinja renders for ``None``, and for a folder.
    """
    if not isinstance(path, (str, os.PathLike)) or str(path).strip() in ("", "None"):
        raise RequestInvalid.unsent(f"{field} is missing: got {path!r}", fields=[field])
    if str(path).endswith("/"):
        raise folder(str(path), field)
    return str(path)


def local_file(path: str, field: str = "path") -> Path | None:
    """Return the local file of a path; ``None`` for an object in object storage.

    :param field: the argument's name, for the text.
    :raises RequestInvalid: for a relative path, and for a ``file://`` URL with a host, ``?`` or ``#``.
    """
    scheme = urlsplit(path).scheme if "://" in path else ""
    if scheme not in ("", "file"):
        return None
    plain = _path_of_file_url(path, field) if scheme else path
    if plain.endswith("/"):
        raise folder(path, field)
    local = Path(plain)
    if not local.is_absolute():
        raise RequestInvalid.unsent(
            f"{field} {path!r} is relative",
            "Workers have different working directories: use an absolute path, or a URL such as "
            "s3://bucket/key.png.",
            fields=[field],
        )
    return local


def folder(path: str, field: str = "path") -> RequestInvalid:
    """Return the error for a path that names a folder."""
    return RequestInvalid.unsent(f"{field} {path!r} is a folder", "Add a file name.", fields=[field])


def problem_of_picture(path: str, copies: Sequence[CopySpec] = ()) -> str | None:
    """Return why no picture can be saved at a path, judged by the path alone; ``None`` if it can.

    :param copies: that are made of it.
    :return: a text that follows the path.
    :raises RequestInvalid: as :func:`local_file` and :func:`object_storage`.
    """
    if "\0" in path:
        return "contains a NUL character"
    local = local_file(path)
    if local is not None and (unquote(path) if "://" in path else path).rpartition("/")[2] in (".", ".."):
        return "names a folder: its last part is `.` or `..`"
    if is_sidecar_name(path if local is None else str(local)):
        return "ends in .json, as sidecars do: give it another name, such as one that ends in .png"
    if local is not None:
        longest, most, what = len(os.fsencode(longest_name(str(local), copies))), LONGEST_PATH, "it"
    else:
        target = _object("path", path)
        if (problem := _problem_of_key(path, target)) is not None:
            return problem
        key = target.path.lstrip("/")
        if any(part in (".", "..") for part in key.split("/")):
            return "contains . or .., which object storages treat differently"
        longest = len(longest_name(key, copies).encode("utf-8", "surrogatepass")) - len(key.partition("/")[0]) - 1
        most, what = LONGEST_KEY, "its key"
    if longest > most:
        longest_file = "the suffix of its sidecar or a copy" if copies else "the sidecar's suffix"
        return f"is too long: with {longest_file} and the jobId {what} has {longest:,} bytes, of {most:,} allowed"
    return None


def xcom_folder() -> str | None:
    """Return the URL under which Airflow's XCom backend for object storage stores values; ``None`` without it.

    https://airflow.apache.org/docs/apache-airflow-providers-common-io/stable/xcom_backend.html
    """
    from airflow.providers.common.compat.sdk import XCom, conf

    if not any(cls.__module__.startswith("airflow.providers.common.io.") for cls in XCom.__mro__):
        return None
    return str(conf.get("common.io", "xcom_objectstorage_path", fallback=""))


def warn_of_xcoms(path: object, log: Any) -> None:
    """Log a warning if a picture's path is among Airflow's XComs."""
    folder, place = (str(url or "").removeprefix("file://").rstrip("/") for url in (xcom_folder(), path))
    if folder and (place == folder or place.startswith(f"{folder}/")):
        log.warning(
            "path %r is below [common.io] xcom_objectstorage_path, where Airflow stores XComs. If a task pushes "
            "the URL of a file there as an XCom, the XCom backend treats the file as its own: a retry or a clear "
            "of that task deletes the picture. Choose a path outside of it.",
            str(path),
        )


def refused_path(path: str, problem: str) -> RequestInvalid:
    """Return the error for a path at which no picture can be saved.

    :param problem: of :func:`problem_of_picture`.
    """
    return RequestInvalid.unsent(f"path {path!r} {problem}", "Choose another path.", fields=["path"])


class Occupied(RequestInvalid):
    """Another file exists at the path, and may not be replaced."""


def occupied(path: str) -> Occupied:
    """Return the error for a path at which another file exists."""
    return Occupied(
        f"path {path!r} already exists and is another file. It was not changed, and the new picture was not "
        "saved. Choose another path, for example one with the run id, or set overwrite=True.",
        fields=["path"],
    )


def _path_of_file_url(url: str, field: str) -> str:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or "?" in url or "#" in url:
        raise RequestInvalid.unsent(
            f"{field} {url!r} is a file URL with a host, `?` or `#`",
            "A file URL has three slashes and no host, as in file:///srv/a.png. Write `?` and `#` in it as %3F "
            "and %23, or pass the plain path, in which every character is part of the name.",
            fields=[field],
        )
    return unquote(parts.path)


def object_storage(field: str, path: str) -> Any:
    """Return the ``ObjectStoragePath`` of a URL.

    :param field: the argument's name, for the text.
    :raises RequestInvalid: for a scheme that Airflow has no filesystem for, and for a path that it would read as
        another one.
    """
    target = _object(field, path)
    if (problem := _problem_of_key(path, target)) is not None:
        raise RequestInvalid.unsent(f"{field} {path!r} {problem}", "Use a name without them.", fields=[field])
    return target


def _object(field: str, path: str) -> Any:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    try:
        target: Any = ObjectStoragePath(path)
        target.fs  # noqa: B018  loads the filesystem
    except (ValueError, ImportError) as error:
        raise RequestInvalid.unsent(
            f"{field} {path!r} has a scheme that Airflow has no filesystem for: {error}",
            "Install its provider on the workers, for example airflow-provider-pictory[s3], [gcs] or [azure].",
            fields=[field],
        ) from error
    return target


def _problem_of_key(path: str, target: Any) -> str | None:
    other = _other_key(path, target.path, target.fs)
    return other and (
        f"would be read as another object, {other!r}: Airflow's object storage gives `::`, `?`, tabs and line "
        "breaks a special meaning"
    )


def _other_key(url: str, path: str, fs: Any) -> str | None:
    """Return the object that a storage would access for a URL, if it is another one than the URL names.

    universal_pathlib reads ``::`` as a chain of filesystems and cuts the key there, and ``urllib`` drops tabs and
    line breaks. s3fs and adlfs read ``?versionId=`` as a version, and do so only when they send a request.

    :param path: the path that the filesystem gets.
    """
    authority, slash, key = url.partition("://")[2].partition("/")
    container = authority.rpartition("@")[2]  # the other part is the id of an Airflow connection
    named = f"{container}{slash}{key}"
    with_scheme = f"{url.partition('://')[0]}://{named}"
    same = {named, key, with_scheme}  # some filesystems omit the host, some keep the scheme
    if path.removeprefix("/").rstrip("/") not in {each.rstrip("/") for each in same}:
        return path
    split: tuple[Any, ...] = fs.split_path(path) if hasattr(fs, "split_path") else ()
    if len(split) > 1 and f"{split[0]}/{split[1]}".strip("/") != named.strip("/"):
        return f"{split[0]}/{split[1]}"
    return None
