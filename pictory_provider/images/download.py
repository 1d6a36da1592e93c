# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Save the picture of a finished job. Downloading is free, and again where that may help."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypedDict

from pictory_provider.api import responses, retry
from pictory_provider.api.errors import Fault, ImageInvalid, TransportError
from pictory_provider.client.asking import repeat
from pictory_provider.images.mark import AFTER_HEADER, MARKS, mark, why_not
from pictory_provider.images.paths import occupied
from pictory_provider.images.store import DEFAULT_MAX_BYTES, too_large

if TYPE_CHECKING:
    from collections.abc import Callable

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


class Saved(NamedTuple):
    """A picture that lies in its place.

    :param marks: what the file says of its origin.
    """

    image: SavedImage
    marks: tuple[str, ...]


def save_picture(
    client: SyncClient,
    job: Job,
    target: Target,
    *,
    overwrite: bool,
    max_bytes: int,
    mark_ai_generated: bool = False,
    otherwise: Target | None = None,
    log: Log,
) -> Saved:
    """Stream, check and place a finished job's picture. The job is not asked for again.

    :param mark_ai_generated: say in the file that a machine made it (:mod:`pictory_provider.images.mark`).
    :param otherwise: where to put it if something else lies at ``target``, which is left as it is.
    :raises RequestInvalid: where something else lies there, ``overwrite`` is off, and ``otherwise`` is ``None``.
    :raises ImageInvalid: for what is no whole picture, or larger than ``max_bytes``.
    :raises StorageFailed: where it cannot be written.
    :raises Unavailable: where its host cannot be reached.
    """
    picture_url = job.url
    assert picture_url is not None

    def save() -> Saved:
        with client.stream(picture_url) as (reply, pieces):
            responses.check_picture(reply, picture_url)
            announced = reply.headers.get("content-length", "")
            if announced.isdigit() and int(announced) > max_bytes:
                raise too_large(max_bytes)
            with target.receive(pieces, max_bytes=max_bytes) as received:
                plain = received.sha256
                marks = _marked(target, received, log) if mark_ai_generated else received.picture.marks
                if target.place(received, overwrite=overwrite) or (
                    # The same picture, not marked yet: a try before this one did not get that far.
                    plain != received.sha256
                    and target.digest() == plain
                    and target.place(received, overwrite=True)
                ):
                    return Saved(_record(job, target, received, log), marks)
                if otherwise is None:
                    raise occupied(target.path)
                log.warning(
                    "At %s lies something else by now. It is left as it is, and the picture of job %s goes to %s.",
                    target.path,
                    job.job_id,
                    otherwise.path,
                )
                otherwise.place(received, overwrite=True)
                return Saved(_record(job, otherwise, received, log), marks)

    try:
        return repeat(save, retry.after_read, log=log)
    except TransportError as error:
        if error.fault is not Fault.UNREADABLE:
            raise
        raise ImageInvalid(f"The picture is cut short: {error.message} {_NOTHING_SAVED}") from error
    except ImageInvalid as error:
        raise ImageInvalid(f"{error.message} {_NOTHING_SAVED}") from error.__cause__


def mark_in_place(target: Target, log: Log, *, before: Callable[[], object]) -> tuple[int, str, tuple[str, ...]]:
    """Mark a picture that lies in its place already, if it can be marked and is not yet.

    :param before: called right before it is replaced.
    :return: its size in bytes, its SHA-256, and its marks, as they are then.
    :raises ImageInvalid: where no whole picture lies there.
    :raises StorageFailed: where it cannot be read or written.
    """
    with target.receive(target.pieces(), max_bytes=DEFAULT_MAX_BYTES) as received:
        marks = received.picture.marks or _marked(target, received, log)
        if marks != received.picture.marks:
            before()
            target.place(received, overwrite=True)
        return received.size, received.sha256, marks


def _marked(target: Target, received: Received, log: Log) -> tuple[str, ...]:
    """Mark a received picture, and return the marks that it has then."""
    if unmarked := why_not(received.picture):
        log.warning("The picture at %s is not marked as made by AI: %s.", target.path, unmarked)
        return received.picture.marks
    target.insert(received, AFTER_HEADER, mark())
    return MARKS


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
