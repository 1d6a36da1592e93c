# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The hook: the connection, every documented endpoint, the wait and the download."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

from pictory_provider.api import endpoints, responses, retry
from pictory_provider.api.checks import check_job_id, check_url, without_query
from pictory_provider.api.connection import ConnectionSettings, extra_of
from pictory_provider.api.errors import AuthenticationError, PictoryError, RequestInvalid
from pictory_provider.api.models import ImageOptions, ImageRequest, Job, Quota
from pictory_provider.client.asking import repeat
from pictory_provider.exceptions import airflow_errors
from pictory_provider.images.download import SavedImage, save_picture
from pictory_provider.images.shelf import Shelf
from pictory_provider.images.store import DEFAULT_MAX_BYTES, Target
from pictory_provider.jobs.budget import Budget, Limits
from pictory_provider.jobs.polling import DEFAULT_POLL_INTERVAL, DEFAULT_TIMEOUT, JobPoller, Wait
from pictory_provider.looking import Watch, finished_job
from pictory_provider.provider_info import (
    CONNECTION_FIELDS,
    CONNECTION_TYPE,
    DEFAULT_CONN_ID,
    HOOK_NAME,
    UI_FIELD_BEHAVIOUR,
)
from pictory_provider.purchase import submit
from pictory_provider.telemetry import report_lineage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pictory_provider.api.endpoints import Request
    from pictory_provider.api.models import GeneratedImage
    from pictory_provider.api.responses import Response
    from pictory_provider.client.sync import SyncClient
    from pictory_provider.pool import Lease

T = TypeVar("T")


class PictoryHook(BaseHook):
    """Talk to Pictory AI Studio.

    Making a hook does no I/O: the connection is looked up by the first request. Every method raises the
    errors of :mod:`pictory_provider.exceptions`. As a context manager it closes its connections.

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
        self._budget = Budget(Limits())  # what this hook has bought itself may not be in the ledger yet

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Jobs --------------------------------------------------------------------------------------------

    def generate_image(self, prompt: str, **options: Unpack[ImageOptions]) -> str:
        """Buy one picture and return its jobId.

        :param prompt: what to draw, 5 to 5,000 characters.
        :param options: ``model``, ``aspect_ratio``, ``style``, ``reference_image_url``, ``webhook`` and
            ``allow_unlisted``, as in :class:`~pictory_provider.api.models.ImageRequest`.
        :raises PictoryRequestInvalid: before anything is sent, or from Pictory's 400.
        :raises PictoryBudgetExceeded: where a limit of the connection leaves too little; nothing was sent.
        :raises PictorySubmitOutcomeUnknown: where it cannot be known whether Pictory accepted it.
        :raises PictoryRateLimited: where Pictory refused for longer than a minute.
        """
        with airflow_errors(self.pictory_conn_id):
            request = ImageRequest(prompt=prompt, **options)
            client = self.get_conn()
            self._budget.limits = Limits.of(client.settings)
            return submit(client, request, budget=self._budget, log=self.log)

    def get_job(self, job_id: str) -> Job:
        """Return what Pictory says of a job now. A failed job is an answer, and raises nothing.

        :raises PictoryJobNotFound: where Pictory knows no such job.
        """
        with airflow_errors(self.pictory_conn_id):
            known = check_job_id(job_id)
        return self._read(endpoints.get_job, lambda reply: responses.parse_job(reply, known), known)

    async def aget_job(self, job_id: str) -> Job:
        """Do as :meth:`get_job` on the running event loop, asking once. Call :meth:`aclose` when done.

        All hooks of a loop and a connection share one client and one pace (:mod:`pictory_provider.pool`).
        """
        with airflow_errors(self.pictory_conn_id):
            reply = await self.lease().waiter().send(endpoints.get_job(job_id))
            return responses.parse_job(reply, job_id)

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

        :param poll_interval: seconds between two looks.
        :param timeout: seconds from ``started_at``. There is one look after it.
        :param started_at: epoch seconds; the wait begins now where it is ``None``.
        :raises PictoryJobFailed: and the other job errors of :mod:`pictory_provider.exceptions`.
        :raises PictoryWaitTimeout: where the job is still running at the deadline.
        """
        begun = time.time() if started_at is None else started_at
        with airflow_errors(self.pictory_conn_id):
            poller = JobPoller(
                job_id=check_job_id(job_id),
                started_at=begun,
                end_time=begun + timeout,
                poll_interval=poll_interval,
                exponential_backoff=exponential_backoff,
                max_wait=max_wait,
            )
            watch = Watch(poller, self, log=self.log)
            while isinstance(decision := watch.look(), Wait):
                time.sleep(decision.seconds)
            return decision.job()

    def clean_job(self, job_id: str) -> None:
        """Delete a finished job's output at Pictory for good. Calling it twice is safe."""
        self._read(endpoints.clean_job, responses.parse_cleaned, job_id)

    # Account -----------------------------------------------------------------------------------------

    def list_images(self) -> Iterator[GeneratedImage]:
        """Iterate over the gallery, newest first. Pages of up to 100 are fetched as they are needed."""
        return self._pages(endpoints.list_images, responses.parse_images)

    def list_jobs(self) -> Iterator[dict[str, Any]]:
        """Iterate over the account's jobs as Pictory writes them, newest first.

        Whether jobs of AI Studio are among them is not documented.
        """
        return self._pages(endpoints.list_jobs, responses.parse_jobs)

    def get_quota(self) -> Quota:
        """Return the AI credits that are used and allowed. Free."""
        return self._read(endpoints.get_quota, responses.parse_quota)

    def get_credit_usage(self, year: int | None = None, month: int | None = None) -> list[dict[str, Any]]:
        """Return the ledger of AI credits as Pictory writes it, newest first, kept for 12 months.

        A row has ``transactionId``, ``type`` (such as ``debit``), ``amount`` (AI credits, may be fractional),
        ``source`` (such as ``Text-to-Image``), ``description``, ``plan`` and ``transactionDate`` (ISO 8601).
        https://docs.pictory.ai/api-reference/aicredits/usage

        :param year: only together with ``month``.
        :param month: 1 to 12.
        """
        return self._read(endpoints.get_credit_usage, responses.parse_credit_usage, year, month)

    def test_connection(self) -> tuple[bool, str]:
        """Ask for the quota, which is free, and report the credits that are left."""
        try:
            with self:
                quota = responses.parse_quota(self._send(endpoints.get_quota()))
        except PictoryError as error:
            # Airflow's Test button asks under a throw-away name, which says nothing to anyone.
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
    ) -> SavedImage:
        """Save a finished picture: streamed, checked, and written whole or not at all.

        The API key is not sent to the picture's host.

        :param path: an absolute local path, or any ``ObjectStoragePath`` URL.
        :param job_id: ask for the job, to get a URL that lives and the promised dimensions. A job that Pictory
            does not know yet, or that has no URL yet, is asked for again for a minute. Or
        :param url: download this.
        :param overwrite: replace what is at ``path``. The same bytes already there are always a success.
        :param max_bytes: refuse larger pictures.
        :param mark_ai_generated: write IPTC's ``trainedAlgorithmicMedia`` into a PNG file that says nothing of its
            origin yet.
        :raises PictoryImageInvalid: for what is no whole picture. A whole one that is not what Pictory promised
            (JPEG, WebP, another size) is saved, with a warning.
        :raises PictoryUnavailable: for a job that still runs.
        :raises PictoryStorageFailed: where it cannot be written.
        """
        with airflow_errors(self.pictory_conn_id):
            if (job_id is None) == (url is None):
                raise RequestInvalid(
                    "Pass either job_id or url, and not both. Nothing was downloaded.", fields=["job_id", "url"]
                )
            target = Target(path)
            if url is None:
                job = finished_job(job_id, self, log=self.log)
            else:
                job = Job(job_id="", url=check_url("url", url))
            if overwrite:
                Shelf(path).disown(job.job_id)
            saved = save_picture(
                self.get_conn(),
                job,
                target,
                overwrite=overwrite,
                max_bytes=max_bytes,
                mark_ai_generated=mark_ai_generated,
                log=self.log,
            ).image
        report_lineage(self, job, target.uri)
        self.log.info("Saved %s (%s bytes) from %s.", path, f"{saved['size']:,}", without_query(job.url))
        return saved

    # The connection ----------------------------------------------------------------------------------

    def get_conn(self) -> SyncClient:
        """Return the client that speaks for this connection; made by the first call."""
        if self._client is None:
            from pictory_provider.client.sync import SyncClient

            self._client = SyncClient(self._find_settings())
        return self._client

    def close(self) -> None:
        """Close the worker's connections. The next request looks the Airflow connection up again."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def lease(self) -> Lease:
        """Take part in the client that this event loop's waits share; :meth:`aclose` gives the part back."""
        if self._lease is None:
            from pictory_provider import pool

            self._lease = pool.lease(self.pictory_conn_id, self._afind_settings)
        return self._lease

    async def aclose(self) -> None:
        """Leave the event loop's shared client, which the last hook closes."""
        if self._lease is not None:
            lease, self._lease = self._lease, None
            await lease.leave()

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the form's fields for Airflow 3.1; later ones read ``conn-fields`` of the provider info."""
        from wtforms import StringField

        return {
            name: StringField(field["label"], description=field["description"])
            for name, field in CONNECTION_FIELDS.items()
        }

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the form's labels for Airflow 3.1; later ones read ``ui-field-behaviour``."""
        return {name.replace("-", "_"): value for name, value in UI_FIELD_BEHAVIOUR.items()}

    # -------------------------------------------------------------------------------------------------

    def _find_settings(self) -> ConnectionSettings:
        try:
            connection = self.get_connection(self.pictory_conn_id)
        except AirflowNotFoundException as error:
            raise AuthenticationError(
                f"Airflow has no connection {self.pictory_conn_id!r}, so there is no API key. No request was "
                "made. Make one of type `pictory` (Admin > Connections, or the environment variable "
                f"AIRFLOW_CONN_{self.pictory_conn_id.upper()}), with the key as its password."
            ) from error
        return ConnectionSettings.from_fields(
            self.pictory_conn_id,
            password=connection.password,
            host=connection.host,
            extra=extra_of(self.pictory_conn_id, connection.extra),
        )

    def _send(self, request: Request) -> Response:
        return self.get_conn().send(request)

    async def _afind_settings(self) -> ConnectionSettings:
        """Look the connection up in a thread.

        Before Airflow 3.3.2 its asynchronous look-up masks secrets by a blocking call, which fails where
        another trigger's call is under way on the loop. asgiref's thread finds the way back to the loop.
        """
        from asgiref.sync import sync_to_async

        return await sync_to_async(self._find_settings)()

    def _read(self, endpoint: Callable[..., Request], parse: Callable[[Response], T], *arguments: Any) -> T:
        """Send a free request, again where that may help, and parse its reply."""
        with airflow_errors(self.pictory_conn_id):
            request = endpoint(*arguments)
            return repeat(lambda: parse(self._send(request)), retry.after_read, log=self.log)

    def _pages(
        self, endpoint: Callable[..., Request], parse: Callable[[Response], tuple[list[T], str | None]]
    ) -> Iterator[T]:
        key: str | None = None
        while True:
            items, key = self._read(endpoint, parse, key)
            yield from items
            if key is None:
                return


def _plain(number: float) -> str:
    return f"{number:,.2f}".rstrip("0").rstrip(".")
