# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Save the picture of a finished job. Downloading is free, and again where that may help."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from pictory_provider.api import responses, retry
from pictory_provider.api.errors import Fault, ImageInvalid, TransportError
from pictory_provider.client.asking import repeat
from pictory_provider.images.mark import AFTER_HEADER, mark, why_not
from pictory_provider.images.store import too_large

if TYPE_CHECKING:
    from pictory_provider.api.models import Job
    from pictory_provider.client.asking import Log
    from pictory_provider.client.sync import SyncClient
    from pictory_provider.images.store import Received, Target

_NOTHING_SAVED = "Nothing was saved, and downloading again is free."


class SavedImage(TypedDict):
    """The image record of a saved picture, with where it lies.

    ``path`` as it was given, ``size`` in bytes, ``sha256`` in hexadecimal. Unknown values are ``None``.
    """

    job_id: str | None
    status: str | None
    url: str | None
    width: int | None
    height: int | None
    ai_credits_used: float | None
    path: str
    size: int
    sha256: str


def save_picture(
    client: SyncClient,
    job: Job,
    target: Target,
    *,
    overwrite: bool,
    max_bytes: int,
    mark_ai_generated: bool = False,
    log: Log,
) -> SavedImage:
    """Stream, check and place a finished job's picture. The job is not asked for again.

    :param mark_ai_generated: say in the file that a machine made it (:mod:`pictory_provider.images.mark`).
    :raises ImageInvalid: for what is no whole picture, or larger than ``max_bytes``.
    :raises StorageFailed: where it cannot be written.
    :raises Unavailable: where its host cannot be reached.
    """
    picture_url = job.url
    assert picture_url is not None

    def save() -> SavedImage:
        with client.stream(picture_url) as (reply, pieces):
            responses.check_picture(reply, picture_url)
            announced = reply.headers.get("content-length", "")
            if announced.isdigit() and int(announced) > max_bytes:
                raise too_large(max_bytes)
            with target.receive(pieces, max_bytes=max_bytes) as received:
                unmarked = why_not(received.picture)
                if mark_ai_generated and unmarked is None:
                    target.insert(received, AFTER_HEADER, mark())
                target.place(received, overwrite=overwrite)
        if mark_ai_generated and unmarked:
            log.warning("The picture at %s is not marked as made by AI: %s.", target.path, unmarked)
        return _record(job, target, received, log)

    try:
        return repeat(save, retry.after_read, log=log)
    except TransportError as error:
        if error.fault is not Fault.UNREADABLE:
            raise
        raise ImageInvalid(f"The picture is cut short: {error.message} {_NOTHING_SAVED}") from error
    except ImageInvalid as error:
        raise ImageInvalid(f"{error.message} {_NOTHING_SAVED}") from error.__cause__


def _record(job: Job, target: Target, received: Received, log: Log) -> SavedImage:
    picture = received.picture
    if surprises := picture.surprises(job):
        log.warning(
            "The picture at %s was saved as it came, and is not quite what Pictory promises: %s.",
            target.path,
            "; ".join(surprises),
        )
    return SavedImage(
        job_id=job.job_id or None,
        status=job.status,
        url=job.url,
        width=picture.width,
        height=picture.height,
        ai_credits_used=job.ai_credits_used,
        path=target.path,
        size=received.size,
        sha256=received.sha256,
    )
