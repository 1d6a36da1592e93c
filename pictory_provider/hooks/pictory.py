# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The hook: the connection, every documented endpoint, waiting for a job, and the download."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from airflow.providers.common.compat.sdk import BaseHook

from pictory_provider.api.errors import PictoryError
from pictory_provider.api.models import DEFAULT_MAX_BYTES, ImageOptions, ImageRequest, Job, Quota
from pictory_provider.client import calls
from pictory_provider.client.retrying import read
from pictory_provider.exceptions import airflow_errors
from pictory_provider.hooks.connection import read_settings
from pictory_provider.provider_info import (
    CONNECTION_FIELDS,
    CONNECTION_TYPE,
    DEFAULT_CONN_ID,
    DEFAULT_POLL_INTERVAL,
    DEFAULT_TIMEOUT,
    HOOK_NAME,
    UI_FIELD_BEHAVIOUR,
)
from pictory_provider.services import polling
from pictory_provider.services.submit import Submitter
from pictory_provider.telemetry import report_lineage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pictory_provider.api.connection import ConnectionSettings
    from pictory_provider.api.models import GeneratedImage
    from pictory_provider.client.calls import Call, Page
    from pictory_provider.client.shared import Lease
    from pictory_provider.client.sync import SyncClient
    from pictory_provider.storage.download import SavedImage

T = TypeVar("T")


class PictoryHook(BaseHook):  # noqa: PLR0904  one method for each call, and five that Airflow asks for
    """Call the Pictory AI Studio API.

    Creating a hook does no I/O: the first request reads the Airflow connection. Every method raises the errors of
    :mod:`pictory_provider.exceptions`. As a context manager, the hook closes its HTTP connections.

    :param pictory_conn_id: an Airflow connection of type ``pictory``: the API key as its password, and
        optionally the base URL as its host.
    """

    conn_name_attr = "pictory_conn_id"
    default_conn_name = DEFAULT_CONN_ID
    conn_type = CONNECTION_TYPE
    hook_name = HOOK_NAME

    def __init__(self, pictory_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pictory_conn_id = pictory_conn_id
        self._client: SyncClient | None = None
        self._lease: Lease | None = None
        self._submitter = Submitter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Jobs --------------------------------------------------------------------------------------------

    def generate_image(
        self, prompt: str, *, reference_upload: bool = False, **options: Unpack[ImageOptions]
    ) -> str:
        """Submit one picture, which costs AI credits, and return its jobId.

        :param prompt: the text that describes the picture, 5 to 5,000 characters.
        :param options: ``model``, ``aspect_ratio``, ``style``, ``reference_image_url``, ``webhook`` and
            ``allow_unlisted``, as in :class:`~pictory_provider.api.models.ImageRequest`.
        :param reference_upload: let ``reference_image_url`` also be a file, as :meth:`upload_reference` takes it.
        :raises PictoryRequestInvalid: before anything is sent, or if Pictory answers 400.
        :raises PictoryBudgetExceeded: if a limit of the connection leaves too little; nothing was sent.
        :raises PictorySubmitOutcomeUnknown: if Pictory may or may not have accepted the job.
        :raises PictoryRateLimited: if Pictory refused the request for longer than a minute.
        """
        with airflow_errors(self.pictory_conn_id):
            if reference_upload is True and "reference_image_url" in options:
                url = self._submitter.uploads.identify(options["reference_image_url"])
                options["reference_image_url"] = url
            request = ImageRequest(prompt=prompt, **options)
            return self._submitter.submit(self.get_conn(), request, log=self.log)

    def upload_reference(self, path: str) -> str:
        """Upload a picture to Pictory, which is free, and return its URL, for ``reference_image_url``.

        **Everyone who has the URL can see the picture, and Pictory keeps it for good.** A hook uploads the same
        content once. https://docs.pictory.ai/api-reference/media-management/generate-signed-url

        :param path: a PNG or JPEG file of up to 20 MiB: an absolute local path, or any ``ObjectStoragePath`` URL.
        :raises PictoryRequestInvalid: if it is not such a file, and nothing was sent; or if it was refused.
        :raises PictoryStorageFailed: if it cannot be read.
        :raises PictoryUnavailable: if Pictory, or the storage that it names, does not answer for 20 seconds.
        :raises PictoryProtocolError: if Pictory's reply has no usable URLs.
        """
        with airflow_errors(self.pictory_conn_id):
            return self._submitter.uploads.upload(self.get_conn(), path, log=self.log)

    def get_job(self, job_id: str) -> Job:
        """Return the current state of a job. A failed job is returned too, and raises no error.

        :raises PictoryJobNotFound: if Pictory does not know the job.
        """
        return self._read(calls.get_job, job_id)

    async def aget_job(self, job_id: str) -> Job:
        """Do the same as :meth:`get_job` on the running event loop, with one request.

        Call :meth:`aclose` when done. All hooks of an event loop and a connection share one client and one rate
        limit (:mod:`pictory_provider.client.shared`).
        """
        with airflow_errors(self.pictory_conn_id):
            call = calls.get_job(job_id)
            return call.parse(await self.lease().waiter().send(call.request))

    def wait_for_job(
        self,
        job_id: str,
        *,
        poll_interval: float = DEFAULT_POLL_INTERVAL,
        timeout: float = DEFAULT_TIMEOUT,
        started_at: float | None = None,
        exponential_backoff: bool = False,
        max_wait: float | None = None,
    ) -> Job:
        """Wait on this worker until a job is completed, and return it.

        :param poll_interval: seconds between two polls.
        :param timeout: seconds from ``started_at`` to the deadline. There is one poll after it.
        :param started_at: epoch seconds at which the wait began; ``None`` for now.
        :param exponential_backoff: let the interval double with the time waited.
        :param max_wait: seconds; the upper limit of the doubled interval.
        :raises PictoryJobFailed: and the other job errors of :mod:`pictory_provider.exceptions`.
        :raises PictoryWaitTimeout: if the job is still running at the deadline.
        """
        begun = time.time() if started_at is None else started_at
        with airflow_errors(self.pictory_conn_id):
            return polling.wait_for_job(
                job_id,
                self,
                started_at=begun,
                end_time=begun + timeout,
                poll_interval=poll_interval,
                exponential_backoff=exponential_backoff,
                max_wait=max_wait,
                log=self.log,
            )

    def clean_job(self, job_id: str) -> None:
        """Delete the output of a finished job at Pictory permanently. Calling it twice is safe."""
        self._read(calls.clean_job, job_id)

    # Account -----------------------------------------------------------------------------------------

    def list_images(self) -> Iterator[GeneratedImage]:
        """Iterate over the gallery, newest first. Pages of up to 100 images are fetched when needed."""
        return self._pages(calls.list_images)

    def list_jobs(self) -> Iterator[dict[str, Any]]:
        """Iterate over the account's jobs as Pictory returns them, newest first.

        Pictory does not document whether they include jobs of AI Studio.
        """
        return self._pages(calls.list_jobs)

    def get_quota(self) -> Quota:
        """Return the AI credits that are used and allowed. The request is free."""
        return self._read(calls.get_quota)

    def get_credit_usage(self, year: int | None = None, month: int | None = None) -> list[dict[str, Any]]:
        """Return the ledger of AI credits as Pictory returns it, newest first; Pictory keeps it for 12 months.

        A row has ``transactionId``, ``type`` (such as ``debit``), ``amount`` (AI credits, may be fractional),
        ``source`` (such as ``Text-to-Image``), ``description``, ``plan`` and ``transactionDate`` (ISO 8601).
        https://docs.pictory.ai/api-reference/aicredits/usage

        :param year: only together with ``month``.
        :param month: 1 to 12.
        """
        return self._read(calls.get_credit_usage, year, month)

    def test_connection(self) -> tuple[bool, str]:
        """Request the quota, which is free, and return the credits that are left as a text."""
        try:
            with self:
                quota = self.get_conn().call(calls.get_quota())
        except PictoryError as error:
            # Airflow's Test button uses a temporary name for the connection, which would mean nothing to the user.
            return False, error.message.replace(f"Connection {self.pictory_conn_id!r}", "This connection")
        except Exception as error:
            return False, f"{type(error).__name__}: {error}"
        return True, (
            f"Connected to Pictory: {_plain(quota.ai_credits_left)} AI credits left of "
            f"{_plain(quota.ai_credits_limit)}."
        )

    # Pictures ----------------------------------------------------------------------------------------

    def download_image(
        self,
        path: str,
        *,
        job_id: str | None = None,
        url: str | None = None,
        overwrite: bool = False,
        max_bytes: int = DEFAULT_MAX_BYTES,
        mark_ai_generated: bool = False,
        cache_control: str | None = None,
    ) -> SavedImage:
        """Save the picture of a completed job or of a URL. It is streamed, checked, and written in one step.

        The API key is not sent to the picture's host.

        :param path: an absolute local path, or any ``ObjectStoragePath`` URL.
        :param job_id: the job; it is polled for a valid URL and the promised dimensions. A job that Pictory does
            not know yet, or that has no URL yet, is polled again for a minute. Pass this or ``url``.
        :param url: the picture's URL.
        :param overwrite: replace the file at ``path``. A file with the same bytes is always a success.
        :param max_bytes: refuse larger pictures.
        :param cache_control: in object storage, the HTTP header ``Cache-Control`` for the picture.
        :param mark_ai_generated: write IPTC's ``trainedAlgorithmicMedia`` into a PNG file that does not name its
            source yet; ``ai_mark`` of the result says whether the file has it now.
        :raises PictoryImageInvalid: if the download is not a complete picture. A complete one that is not what
            Pictory promised (JPEG, WebP, another size) is saved, with a warning.
        :raises PictoryUnavailable: for a job that is still running.
        :raises PictoryStorageFailed: if the picture cannot be written.
        """
        from pictory_provider.services.download import download_image

        with airflow_errors(self.pictory_conn_id):
            downloaded = download_image(
                self,
                path,
                job_id=job_id,
                url=url,
                overwrite=overwrite,
                max_bytes=max_bytes,
                mark_ai_generated=mark_ai_generated,
                cache_control=cache_control,
                log=self.log,
            )
        report_lineage(self, downloaded.job, downloaded.uri)
        return downloaded.image

    # The connection ----------------------------------------------------------------------------------

    def get_conn(self) -> SyncClient:
        """Return the HTTP client of this connection; the first call creates it."""
        if self._client is None:
            from pictory_provider.client.sync import SyncClient

            self._client = SyncClient(self._find_settings())
        return self._client

    def close(self) -> None:
        """Close the HTTP client. The next request reads the Airflow connection again."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def lease(self) -> Lease:
        """Join the client that the waits of this event loop share; :meth:`aclose` leaves it."""
        if self._lease is None:
            from pictory_provider.client import shared

            self._lease = shared.lease(self.pictory_conn_id, self._afind_settings)
        return self._lease

    async def aclose(self) -> None:
        """Leave the event loop's shared client; the last hook closes it."""
        if self._lease is not None:
            lease, self._lease = self._lease, None
            await lease.leave()

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the form's fields for Airflow 3.1; later versions read ``conn-fields`` of the provider info."""
        from wtforms import StringField

        return {
            name: StringField(field["label"], description=field["description"])
            for name, field in CONNECTION_FIELDS.items()
        }

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the form's labels for Airflow 3.1; later versions read ``ui-field-behaviour``."""
        return {name.replace("-", "_"): value for name, value in UI_FIELD_BEHAVIOUR.items()}

    # -------------------------------------------------------------------------------------------------

    def _find_settings(self) -> ConnectionSettings:
        return read_settings(self.pictory_conn_id, self.get_connection, log=self.log)

    async def _afind_settings(self) -> ConnectionSettings:
        """Read the connection in a thread.

        Before Airflow 3.3.2 its asynchronous look-up makes a blocking call to mask secrets, which fails while
        another trigger's call is running on the event loop. A thread of asgiref can return to the loop.
        """
        from asgiref.sync import sync_to_async

        return await sync_to_async(self._find_settings)()

    def _read(self, call: Callable[..., Call[T]], *arguments: Any) -> T:
        """Make a free call, and repeat it after a transient error."""
        with airflow_errors(self.pictory_conn_id):
            checked = call(*arguments)  # before the connection is read
            return read(self.get_conn(), checked, log=self.log)

    def _pages(self, page: Callable[[str | None], Call[Page[T]]]) -> Iterator[T]:
        key: str | None = None
        while True:
            items, key = self._read(page, key)
            yield from items
            if key is None:
                return


def _plain(number: float) -> str:
    return f"{number:,.2f}".rstrip("0").rstrip(".")
