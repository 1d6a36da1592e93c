# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Explain the errors of disks and object storages."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pictory_provider.api.errors import PictoryError, RequestInvalid, StorageFailed
from pictory_provider.storage.files import AlreadyExists, Changed

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECK_FOLDER = "Check the folder, its permissions and its space."
READING = ("Could not read", "Check the folder and its permissions.")
WRITING_PICTURE = (
    "The picture could not be written to",
    f"It is still at Pictory, and saving it again is free. {CHECK_FOLDER}",
)
WRITING_COPY = ("The copy could not be written to", CHECK_FOLDER)
WRITING_SIDECAR = ("The sidecar could not be written:", CHECK_FOLDER)
"""The texts of :func:`storage_failed` before and after the path and the reason."""

_S3 = (
    "Amazon S3 gives the same answer for a missing object, unless the account may list the bucket. The account "
    "needs s3:ListBucket on the bucket, and s3:GetObject, s3:PutObject and s3:DeleteObject on its objects."
)
_AZURE = "The account needs the role Storage Blob Data Contributor."
_PERMISSIONS = {
    "s3": _S3,
    "s3a": _S3,
    "gs": "The account needs storage.objects.list, get, create and delete.",
    "abfs": _AZURE,
    "abfss": _AZURE,
    "wasb": _AZURE,
}
"""The permissions that an account needs, by the storage's scheme. docs/deployment.md lists them too."""


@contextmanager
def storage_errors(path: str, failed: str, what_now: str) -> Iterator[None]:
    """Raise the errors of a storage as :class:`StorageFailed`. Parameters as in :func:`storage_failed`."""
    try:
        yield
    except (PictoryError, AlreadyExists, Changed):
        raise
    except Exception as error:  # each client of an object storage has its own error classes
        raise storage_failed(path, error, failed, what_now) from error


def storage_failed(path: str, error: Exception, failed: str, what_now: str) -> StorageFailed:
    """Return the :class:`StorageFailed` for an error of a storage.

    :param failed: what failed; the path follows it.
    :param what_now: what to do.
    """
    why = str(getattr(error, "strerror", None) or error).rstrip(". ") or type(error).__name__
    scheme = path.partition("://")[0].lower() if "://" in path else "file"
    if scheme != "file" and getattr(error, "errno", None) == errno.EBUSY:  # s3fs: the object's ETag has changed
        why = f"another task has just written there ({why})"
        what_now = "A retry reads it again."
    elif _is_forbidden(error):
        what_now = f"{what_now} {_PERMISSIONS.get(scheme, '')}".rstrip()
    return StorageFailed(f"{failed} {path!r}: {why}. {what_now}")


def not_replaceable(path: str, error: StorageFailed) -> PictoryError:
    """Return the error for an object that was just created and could not be replaced.

    :param path: of the object.
    :return: :class:`RequestInvalid`, which is not retried, if the account may not replace it; else ``error``.
    """
    cause = error.__cause__
    return may_not_replace(path, str(cause)) if _is_forbidden(cause) else error


def may_not_replace(path: str, why: str) -> RequestInvalid:
    """Return the error for an object that was just created and may not be replaced.

    :param path: of the object.
    """
    return RequestInvalid.unsent(
        f"path cannot be used: {path} was created, but may not be read or replaced ({why})",
        "Allow this storage's account to read, replace and delete objects. Then delete that object, if it still "
        "exists, and clear the task.",
        fields=["path"],
    )


def _is_forbidden(error: BaseException | None) -> bool:
    # s3fs raises PermissionError; the error of gcsfs has a code, and that of adlfs a status_code.
    codes = (getattr(error, "code", None), getattr(error, "status_code", None))
    return isinstance(error, PermissionError) or 403 in codes
