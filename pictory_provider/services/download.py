# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Download the picture of a finished job, or of a URL, to a path."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pictory_provider.api.checks import check_header, check_url, without_query
from pictory_provider.api.errors import RequestInvalid
from pictory_provider.api.models import Job
from pictory_provider.api.text import counted
from pictory_provider.core.picture_names import warning_of_kind
from pictory_provider.services.polling import finished_job
from pictory_provider.storage.download import SavedImage, save_picture
from pictory_provider.storage.pictures import PictureTarget
from pictory_provider.storage.target import Target

if TYPE_CHECKING:
    from pictory_provider.client.retrying import Log
    from pictory_provider.services.polling import Connected
    from pictory_provider.storage.target import Received


class Download(NamedTuple):
    """A picture that was downloaded.

    :param uri: of its file, for lineage.
    """

    job: Job
    image: SavedImage
    uri: str


def download_image(
    connected: Connected,
    path: str,
    *,
    job_id: str | None,
    url: str | None,
    overwrite: bool,
    max_bytes: int,
    mark_ai_generated: bool,
    cache_control: str | None = None,
    log: Log,
) -> Download:
    """Do as :meth:`~pictory_provider.hooks.pictory.PictoryHook.download_image`, which describes the parameters.

    :raises RequestInvalid: if both or neither of ``job_id`` and ``url`` are given.
    """
    if (job_id is None) == (url is None):
        raise RequestInvalid(
            "Pass either job_id or url, and not both. Nothing was downloaded.", fields=["job_id", "url"]
        )
    if not isinstance(overwrite, bool):
        raise RequestInvalid(
            f"overwrite is {overwrite!r}; to download, it takes True or False. Nothing was downloaded.",
            fields=["overwrite"],
        )
    target = Target(path, cache_control=check_header("cache_control", cache_control))
    if warning := warning_of_kind([str(path).rpartition("/")[2]]):
        log.warning("%s", warning)
    known = Job(job_id="", url=check_url("url", url)) if url is not None else None
    job = known or finished_job(job_id, connected, log=log)

    def before(_: Received) -> None:
        if overwrite:
            PictureTarget(path).drop_stale_sidecar(job.job_id)

    image = save_picture(
        connected.get_conn(),
        job,
        target,
        overwrite=overwrite,
        max_bytes=max_bytes,
        mark_ai_generated=mark_ai_generated,
        before=before,
        log=log,
    ).image
    log.info("Saved %s (%s) from %s.", path, counted(image["size"], "byte"), without_query(job.url))
    return Download(job, image, target.uri)
