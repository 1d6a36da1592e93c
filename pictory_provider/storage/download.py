# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Download and save the picture of a finished job. A download is free, and repeated if that may help."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple, NotRequired, TypedDict

from pictory_provider.api import responses, retry
from pictory_provider.api.errors import Fault, ImageInvalid, TransportError, Unavailable
from pictory_provider.api.models import DEFAULT_MAX_BYTES
from pictory_provider.client.retrying import retry_call
from pictory_provider.core.picture_names import copy_name
from pictory_provider.media.mark import MARKS, Unmarked, edits_to_mark
from pictory_provider.media.xmp import TRAINED, says_ai
from pictory_provider.storage.paths import occupied
from pictory_provider.storage.target import too_large

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from pictory_provider.api.errors import PictoryError
    from pictory_provider.api.models import Job
    from pictory_provider.client.retrying import Log
    from pictory_provider.client.sync import SyncClient
    from pictory_provider.core.sidecar import SavedFile
    from pictory_provider.media.copies import CopySpec
    from pictory_provider.storage.target import Received, Target

_NOTHING_SAVED = "Nothing was saved, and downloading again is free."


class SavedImage(TypedDict):
    """The image record of a saved picture, with its file.

    ``path`` as it was given, ``size`` in bytes, ``sha256`` in hexadecimal. Unknown values are ``None``.
    ``ai_mark`` exists if ``mark_ai_generated`` was set: whether the file now says that a model made it.
    ``copies`` exists if the task makes copies: those that exist, in the order of its argument.
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
    ai_mark: NotRequired[bool]
    copies: NotRequired[list[SavedCopy]]


class SavedCopy(TypedDict):
    """A copy of a saved picture. ``width`` and ``height`` are in pixels, ``size`` is in bytes."""

    path: str
    format: str
    width: int
    height: int
    size: int
    sha256: str


class Saved(NamedTuple):
    """A saved picture: its image record, and its description for the sidecar.

    :param sidecar_version: the version of its sidecar in object storage; ``None`` if it is unknown.
    :param problem: why copies of it could not be made; ``None`` if all exist.
    """

    image: SavedImage
    file: SavedFile
    sidecar_version: str | None = None
    problem: PictoryError | None = None


def save_picture(
    client: SyncClient,
    job: Job,
    target: Target,
    *,
    overwrite: bool,
    max_bytes: int,
    mark_ai_generated: bool = False,
    replaces: Collection[str] = (),
    otherwise: Target | None = None,
    before: Callable[[Received], object] | None = None,
    is_new: bool = False,
    log: Log,
) -> Saved:
    """Download, check and save a finished job's picture. Pictory is not asked for the job.

    :param mark_ai_generated: mark the file as made by AI (:mod:`pictory_provider.media.mark`).
    :param replaces: digests of files that are replaced without ``overwrite``.
    :param otherwise: where to save it if another file exists at ``target``; that file is left as it is.
    :param before: called with the received picture right before it is moved to its path.
    :param is_new: whether no earlier attempt may have saved this picture without its mark.
    :raises RequestInvalid: if another file exists, ``overwrite`` is off, and ``otherwise`` is ``None``.
    :raises ImageInvalid: if it is not a whole picture, or larger than ``max_bytes``.
    :raises StorageFailed: if it cannot be written.
    :raises Unavailable: if its host cannot be reached.
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
                may_replace = {*replaces} if is_new else {*replaces, received.sha256}
                if mark_ai_generated:
                    _mark(target, received, log)
                if before:
                    before(received)
                actual = target
                if not _is_placed(target, received, may_replace, overwrite=overwrite):
                    actual = _spare(target, otherwise, job, log)
                    actual.place(received, overwrite=True)
                if surprises := received.picture.surprises(job, actual.path):
                    log.warning(
                        "The picture at %s was saved unchanged, but differs from what Pictory promises: %s.",
                        actual.path,
                        "; ".join(surprises),
                    )
            file = received.as_saved_file(ai_credits_used=job.ai_credits_used, saved_at=time.time())
            return Saved(image_record(job, actual.path, file, mark_ai_generated=mark_ai_generated), file)

    try:
        return retry_call(save, retry.after_read, log=log)
    except Unavailable as error:
        if not isinstance(error, TransportError) or error.fault is not Fault.UNREADABLE:
            picture = f"The picture of job {job.job_id}" if job.job_id else "The picture"
            raise error.with_message(
                f"{picture} could not be downloaded: {error.message} It is paid for and still at Pictory: a retry "
                "saves it and buys nothing. Pictures are served by another host than the API: check that this "
                "worker can reach it."
            ) from error
        raise ImageInvalid(f"The picture is cut short: {error.message} {_NOTHING_SAVED}") from error
    except ImageInvalid as error:
        raise ImageInvalid(f"{error.message} {_NOTHING_SAVED}") from error.__cause__


def image_record(
    job: Job, path: str, file: SavedFile, *, mark_ai_generated: bool, copies: Sequence[CopySpec] = ()
) -> SavedImage:
    """Return the image record of a saved picture.

    :param copies: that the task makes.
    """
    image = SavedImage(
        job_id=job.job_id or None,
        status=job.status,
        url=job.url,
        width=file.width,
        height=file.height,
        ai_credits_used=file.ai_credits_used,
        path=path,
        size=file.size,
        sha256=file.sha256,
    )
    if mark_ai_generated:
        image["ai_mark"] = says_ai(file.digital_source_type)
    if copies:
        image["copies"] = copy_records(path, file, copies, mark_ai_generated=mark_ai_generated)
    return image


def copy_records(
    path: str, file: SavedFile, specs: Sequence[CopySpec], *, mark_ai_generated: bool
) -> list[SavedCopy]:
    """Return the records of the copies of a saved picture that were made of it as it is now.

    :param path: of the picture.
    """
    found = ((spec, file.copy_of(spec, mark_ai_generated=mark_ai_generated)) for spec in specs)
    return [
        SavedCopy(
            path=copy_name(path, spec),
            format=spec.format,
            width=copy.width,
            height=copy.height,
            size=copy.size,
            sha256=copy.sha256,
        )
        for spec, copy in found
        if copy is not None
    ]


def _is_placed(target: Target, received: Received, may_replace: Collection[str], *, overwrite: bool) -> bool:
    """Move a picture to its path; return ``False`` if another file exists there.

    :param may_replace: digests of files that it replaces: of the same picture without its mark, if an earlier
        attempt ended before it marked it, and of a picture that it was bought to replace.
    """
    return target.place(received, overwrite=overwrite) or (
        bool({*may_replace} - {received.sha256})
        and target.digest() in may_replace
        and target.place(received, overwrite=True)
    )


def _spare(target: Target, otherwise: Target | None, job: Job, log: Log) -> Target:
    if otherwise is None:
        raise occupied(target.path)
    log.warning(
        "%s is another file now, which is left as it is. The picture of job %s is saved to %s instead.",
        target.path,
        job.job_id,
        otherwise.path,
    )
    return otherwise


def mark_in_place(target: Target, log: Log, *, before: Callable[[Received], object]) -> Received:
    """Mark a saved picture, if it can be marked and is not yet.

    :param before: called with the marked picture right before it replaces the other.
    :return: the picture that is there afterwards; its temporary file is removed.
    :raises ImageInvalid: if the file is not a whole picture.
    :raises StorageFailed: if it cannot be read or written.
    """
    with target.receive(target.pieces(), max_bytes=DEFAULT_MAX_BYTES) as received:
        if _mark(target, received, log):
            before(received)
            target.place(received, overwrite=True)
        return received


def _mark(target: Target, received: Received, log: Log) -> bool:
    """Mark a received picture, if it can be marked and is not yet; return whether it was."""
    picture = received.picture
    try:
        edits = edits_to_mark(picture)
    except Unmarked as error:
        log.warning("The picture at %s is not marked as made by AI: %s.", target.path, error)
        return False
    if edits:
        target.edit(received, edits)
        received.picture = picture._replace(marks=MARKS, digital_source_type=TRAINED, xmp=())
    return bool(edits)
