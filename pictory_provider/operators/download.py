# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Save a finished picture. Users import it from :mod:`pictory_provider.operators.pictory`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from pictory_provider.exceptions import airflow_errors
from pictory_provider.images.paths import local_file
from pictory_provider.images.store import DEFAULT_MAX_BYTES
from pictory_provider.links.pictory import PictoryJobLink
from pictory_provider.provider_info import DEFAULT_CONN_ID
from pictory_provider.telemetry import openlineage_of, report_assets, tells_why

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context
    from airflow.providers.openlineage.extractors import OperatorLineage

    from pictory_provider.images.download import SavedImage


class DownloadImageOperator(BaseOperator):
    """Save a finished picture to a local disk or to object storage.

    The picture is streamed, checked to be whole, and written in one step; the folders above it are made. A whole
    one that is not what Pictory promised (JPEG, WebP, another size) is saved with a warning: it was paid for. The
    API key is not sent to the picture's host.

    Returns the image record with ``path``, ``size`` (bytes) and ``sha256``; an asset in ``outlets`` gets the same,
    without the query of the URL, as the ``extra`` of its event.

    :param job_id: the job whose picture to save. (templated) Pictory is asked for a URL that lives. Or
    :param url: the picture's URL. (templated)
    :param path: an absolute local path, or any URL that ``ObjectStoragePath`` takes. (templated)
    :param overwrite: replace what is there. The same bytes already there are always a success.
    :param max_bytes: refuse larger pictures; 100 MiB.
    :param mark_ai_generated: write into the PNG file that a machine made it: IPTC's Digital Source Type
        ``trainedAlgorithmicMedia``, as XMP. A file that says something of its origin already (C2PA, XMP, AIGC) is
        left as it came, and so is a JPEG or a WebP, with a warning.
    :param pictory_conn_id: the Airflow connection. (templated)
    :raises PictoryRequestInvalid: for a path that is relative or already holds something else.
    :raises PictoryImageInvalid: for what is no whole picture.
    :raises PictoryUnavailable: for a job that still runs; a retry looks again, and is free.
    :raises PictoryStorageFailed: where it cannot be written.
    """

    template_fields: Sequence[str] = ("job_id", "url", "path", "pictory_conn_id")
    operator_extra_links = (PictoryJobLink(),)
    image_url: str | None = None
    ui_color = "#efe7fb"

    def __init__(
        self,
        *,
        path: str,
        job_id: str | None = None,
        url: str | None = None,
        overwrite: bool = False,
        max_bytes: int = DEFAULT_MAX_BYTES,
        mark_ai_generated: bool = False,
        pictory_conn_id: str = DEFAULT_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.path = path
        self.job_id = job_id
        self.url = url
        self.overwrite = overwrite
        self.max_bytes = max_bytes
        self.mark_ai_generated = mark_ai_generated
        self.pictory_conn_id = pictory_conn_id
        self._lineage: tuple[str | None, str | None] = None, None

    @tells_why
    def execute(self, context: Context) -> SavedImage:
        """Download, check and save."""
        from pictory_provider.hooks.pictory import PictoryHook

        with airflow_errors(log=self.log), PictoryHook(self.pictory_conn_id) as hook:
            saved = hook.download_image(
                self.path,
                job_id=self.job_id,
                url=self.url,
                overwrite=self.overwrite,
                max_bytes=self.max_bytes,
                mark_ai_generated=self.mark_ai_generated,
            )
        self.image_url = saved["url"]
        self._lineage = saved["url"], saved["path"]
        report_assets(context, self.outlets, saved)
        return saved

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:  # noqa: ARG002
        """Tell OpenLineage where the picture was read, and where it was saved."""
        url, path = self._lineage
        return openlineage_of([url], [path and str(local_file(path) or path)])
