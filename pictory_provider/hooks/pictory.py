# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The hook: the connection, every documented endpoint, the wait and the download."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING, Any, Self, TypedDict, TypeVar

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowNotFoundException,
    AirflowTaskTimeout,
    BaseHook,
    Stats,
    get_hook_lineage_collector,
)

from pictory_provider.api import endpoints, responses, retry
from pictory_provider.api.checks import check_job_id, check_url, without_query
from pictory_provider.api.connection import ConnectionSettings
from pictory_provider.api.errors import (
    AuthenticationError,
    Fault,
    ImageInvalid,
    PictoryError,
    RequestInvalid,
    SubmitOutcomeUnknown,
    TransportError,
    Unavailable,
    WaitTimeout,
)
from pictory_provider.api.models import (
    DEFAULT_MODEL,
    ImageRequest,
    Job,
    Quota,
)
from pictory_provider.api.retry import Fate
from pictory_provider.exceptions import airflow_errors
from pictory_provider.images.store import DEFAULT_MAX_BYTES, Target, too_large
from pictory_provider.jobs.evidence import Evidence, matching
from pictory_provider.jobs.polling import (
    DEFAULT_POLL_INTERVAL,
    DEFAULT_TIMEOUT,
    Finished,
    JobPoller,
    Wait,
)
from pictory_provider.jobs.submission import paid_and_then
from pictory_provider.provider_info import (
    CONNECTION_FIELDS,
    CONNECTION_TYPE,
    DEFAULT_CONN_ID,
    HOOK_NAME,
    UI_FIELD_BEHAVIOUR,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pictory_provider.api.endpoints import Request
    from pictory_provider.api.models import GeneratedImage
    from pictory_provider.api.responses import Response
    from pictory_provider.client.sync import SyncClient
    from pictory_provider.jobs.submission import Recorder
    from pictory_provider.pool import Member

T = TypeVar("T")

EVIDENCE_TIME = 10.0
"""Seconds that all the evidence about an unknown outcome may take."""
CREDITS_TIME = 5.0
"""Seconds that the credits used may take to ask for, before each submission."""
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
        self._member: Member | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Money -------------------------------------------------------------------------------------------

    def generate_image(
        self,
        prompt: str,
        *,
        model: str = DEFAULT_MODEL,
        aspect_ratio: str | None = None,
        style: str | None = None,
        reference_image_url: str | None = None,
        webhook: str | None = None,
        allow_unlisted: bool = False,
    ) -> str:
        """Buy one picture and return its jobId. Parameters are those of :class:`ImageRequest`.

        :raises PictoryRequestInvalid: before anything is sent, or from Pictory's 400.
        :raises PictorySubmitOutcomeUnknown: where it cannot be known whether Pictory accepted it.
        """
        with airflow_errors():
            request = ImageRequest(
                prompt=prompt,
                model=model,
                aspect_ratio=aspect_ratio,
                style=style,
                reference_image_url=reference_image_url,
                webhook=webhook,
                allow_unlisted=allow_unlisted,
            )
        return self.submit(request)

    def submit(
        self, request: ImageRequest, *, recorder: Recorder | None = None, ends_at: float | None = None
    ) -> str:
        """Buy one picture and return its jobId.

        The request is sent again only where the one before provably never left, or was plainly refused
        before any work (:mod:`pictory_provider.api.retry`), for at most a minute.

        :param recorder: told right before each paid request, and right after it what became of it.
        :param ends_at: on the monotonic clock; nothing is bought from then on.
        :raises PictorySubmitOutcomeUnknown: where it cannot be known whether Pictory accepted it.
        :raises PictoryRateLimited: where Pictory refused for longer than a minute.
        """
        with airflow_errors():
            try:
                job_id = self._repeat(lambda: self._buy(request, recorder, ends_at), retry.after_submit)
            except SubmitOutcomeUnknown:
                self.count("pictory.submit_outcome_unknown")
                raise
        self.count("pictory.submitted", tags={"model": request.model})
        return job_id

    def _buy(self, request: ImageRequest, recorder: Recorder | None, ends_at: float | None) -> str:
        """Send the paid request once, and have it on record at every moment how far that has got."""
        client = self.get_conn()
        if ends_at is not None and time.monotonic() >= ends_at:
            # Airflow's exception strikes once, in any line, and where that is a library's clean-up it is lost.
            raise AirflowTaskTimeout("The task's execution_timeout is over: nothing is bought any more")
        if recorder:
            recorder.intend()
        job_id: str | None = None
        try:
            job_id = responses.parse_submission(client.send(endpoints.generate_image(request)))
            # The log comes first: it is quicker than the record, and whoever has lost the record can read it.
            price = "an unknown number of" if request.credits is None else request.credits
            self.log.info("Pictory accepted job %s (model %s, %s AI credits).", job_id, request.model, price)
            if recorder:
                recorder.keep(job_id)
        except BaseException as error:
            if job_id is None:
                self._after_no_answer(error, recorder)
                raise
            if recorder:
                self._keep_once_more(recorder, job_id, error)
            if not isinstance(error, Exception):
                raise
        return job_id

    def _after_no_answer(self, error: BaseException, recorder: Recorder | None) -> None:
        """Say what became of a paid request to which no jobId came back."""
        if isinstance(error, PictoryError):
            if recorder and retry.fate_of_submit(error) is not Fate.UNKNOWN:
                self._withdraw(recorder)
        elif isinstance(error, AirflowTaskTimeout):
            unknown = SubmitOutcomeUnknown.because("execution_timeout ran out before an answer came")
            unknown.is_out_of_time = True
            raise unknown from error
        elif isinstance(error, Exception):
            raise SubmitOutcomeUnknown.because(f"an error that nobody foresaw ({type(error).__name__})") from error

    @staticmethod
    def _keep_once_more(recorder: Recorder, job_id: str, error: BaseException) -> None:
        """Put a jobId on record after all: what struck may have been a blip, or the end of the task's time."""
        try:
            recorder.keep(job_id)
        except Exception:
            raise AirflowFailException(paid_and_then(job_id, error)) from error

    def _withdraw(self, recorder: Recorder) -> None:
        try:
            recorder.withdraw()
        except Exception:
            self.log.exception(
                "The request bought nothing, and the record of it could not be taken away. So a retry will ask "
                "what became of it."
            )

    def credits_used(self) -> float | None:
        """Return the AI credits used so far; ``None`` where Pictory does not say within five seconds."""
        (quota,) = self._ask_all((endpoints.get_quota(), responses.parse_quota), within=CREDITS_TIME)
        return quota.ai_credits_used if quota else None

    def find_evidence(
        self, request: ImageRequest, *, since: float | None, credits_before: float | None
    ) -> Evidence:
        """Find out what can be known of a submission whose outcome is unknown. Takes ten seconds at most.

        :param since: epoch seconds of the submission.
        """
        quota, page = self._ask_all(
            (endpoints.get_quota(), responses.parse_quota),
            (endpoints.list_images(), responses.parse_images),
            within=EVIDENCE_TIME,
        )
        return Evidence(
            since=since,
            credits_before=credits_before,
            credits_now=quota.ai_credits_used if quota else None,
            matches=matching(page[0], request, since) if page else None,
        )

    def _ask_all(self, *questions: tuple[Request, Callable[[Response], Any]], within: float) -> list[Any | None]:
        """Ask free questions at once, and return what has been answered after so many seconds.

        Each is asked in a thread of its own, since the timeouts of one request do not bound it: resolving a
        name has none. A question that fails is not answered.
        """
        from pictory_provider.client.sync import SyncClient

        settings = self.get_conn().settings
        answers: list[Any | None] = [None] * len(questions)

        def ask(index: int) -> None:
            request, parse = questions[index]
            client = SyncClient(settings)
            try:
                answers[index] = parse(client.send(request))
            except Exception as error:
                self.log.debug("%s %s was not answered: %s", request.method, request.path, error)
            finally:
                client.close()

        threads = [threading.Thread(target=ask, args=(index,), daemon=True) for index in range(len(questions))]
        ended = time.monotonic() + within
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, ended - time.monotonic()))
        return list(answers)

    # Jobs --------------------------------------------------------------------------------------------

    def get_job(self, job_id: str) -> Job:
        """Return what Pictory says of a job now. A failed job is an answer, and raises nothing.

        :raises PictoryJobNotFound: where Pictory knows no such job.
        """
        with airflow_errors():
            known = check_job_id(job_id)
        return self._read(endpoints.get_job, lambda reply: responses.parse_job(reply, known), known)

    async def aget_job(self, job_id: str) -> Job:
        """Do as :meth:`get_job` on the running event loop, asking once. Call :meth:`aclose` when done.

        All hooks of a loop and a connection share one client and one pace (:mod:`pictory_provider.pool`).
        """
        with airflow_errors():
            return await self._aask(job_id)

    def ask(self, job_id: str) -> Job | PictoryError:
        """Ask once how a job stands. What keeps Pictory from answering is returned too, and not raised."""
        try:
            return responses.parse_job(self._send(endpoints.get_job(job_id)), job_id)
        except PictoryError as error:
            return error

    def look(self, poller: JobPoller, *, silent_fail: bool = False) -> Wait | Finished:
        """Ask once how a job stands, and return what the poller says to that.

        :param silent_fail: take an error that nobody foresaw for one that passes.
        """
        answer: Job | PictoryError
        try:
            answer = self.ask(poller.job_id)
        except Exception as error:
            answer = self._unforeseen(error, silent_fail=silent_fail)
        decision = self.decide(poller, answer)
        if isinstance(decision, Wait) and decision.renew_connection:
            self.close()
            return self.look(poller, silent_fail=silent_fail)
        return decision

    async def alook(
        self, poller: JobPoller, *, not_before: float = 0.0, silent_fail: bool = False
    ) -> Wait | Finished:
        """Do as :meth:`look` on the running event loop, when its turn has come.

        :param not_before: epoch seconds of the turn at the soonest.
        """
        answer: Job | PictoryError
        try:
            answer = await self._aask(poller.job_id, not_before=not_before, poller=poller)
        except PictoryError as error:
            answer = error
        except Exception as error:
            answer = self._unforeseen(error, silent_fail=silent_fail)
        crowded = self._member.stretched_interval if self._member else 0.0
        decision = self.decide(poller, answer, crowded=crowded)
        if isinstance(decision, Wait) and decision.renew_connection:
            if self._member:
                self._member.renew()
            return await self.alook(poller, silent_fail=silent_fail)
        return decision

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
        with airflow_errors():
            poller = JobPoller(
                job_id=check_job_id(job_id),
                started_at=begun,
                end_time=begun + timeout,
                poll_interval=poll_interval,
                exponential_backoff=exponential_backoff,
                max_wait=max_wait,
            )
            while isinstance(decision := self.look(poller), Wait):
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
            return False, error.message
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
    ) -> SavedImage:
        """Save a finished picture: streamed, checked, and written whole or not at all.

        The API key is not sent to the picture's host.

        :param path: an absolute local path, or any ``ObjectStoragePath`` URL.
        :param job_id: ask for the job, to get a URL that lives and the promised dimensions. A job that Pictory
            does not know yet, or that has no URL yet, is asked for again for a minute. Or
        :param url: download this.
        :param overwrite: replace what is at ``path``. The same bytes already there are always a success.
        :param max_bytes: refuse larger pictures.
        :raises PictoryImageInvalid: for what is no whole picture. A whole one that is not what Pictory promised
            (JPEG, WebP, another size) is saved, with a warning.
        :raises PictoryUnavailable: for a job that still runs.
        :raises PictoryStorageFailed: where it cannot be written.
        """
        with airflow_errors():
            if (job_id is None) == (url is None):
                raise RequestInvalid(
                    "Pass either job_id or url, and not both. Nothing was downloaded.", fields=["job_id", "url"]
                )
            target = Target(path)
            job = self._finished_job(job_id) if url is None else Job(job_id="", url=check_url("url", url))
            saved = self._download(job, target, overwrite=overwrite, max_bytes=max_bytes)
        self._report_lineage(job, target)
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

    async def aclose(self) -> None:
        """Leave the event loop's shared client, which the last hook closes."""
        if self._member is not None:
            member, self._member = self._member, None
            await member.leave()

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
            extra=connection.extra_dejson,
        )

    def _send(self, request: Request) -> Response:
        return self.get_conn().send(request)

    async def _aask(self, job_id: str, *, not_before: float = 0.0, poller: JobPoller | None = None) -> Job:
        if self._member is None:
            from pictory_provider import pool

            self._member = await pool.join(self.pictory_conn_id, self._afind_settings, poller=poller)
        return responses.parse_job(
            await self._member.send(endpoints.get_job(job_id), not_before=not_before), job_id
        )

    async def _afind_settings(self) -> ConnectionSettings:
        """Look the connection up in a thread.

        Before Airflow 3.3.2 its asynchronous look-up masks secrets by a blocking call, which fails where
        another trigger's call is under way on the loop. asgiref's thread finds the way back to the loop.
        """
        from asgiref.sync import sync_to_async

        return await sync_to_async(self._find_settings)()

    def _unforeseen(self, error: Exception, *, silent_fail: bool) -> PictoryError:
        if not silent_fail:
            raise error
        self.log.error("An error that nobody foresaw; silent_fail is on.", exc_info=error)
        return Unavailable(f"{type(error).__name__}: {error}")

    def decide(self, poller: JobPoller, answer: Job | PictoryError, *, crowded: float = 0.0) -> Wait | Finished:
        """Return what the poller says to an answer, logged and counted.

        :param crowded: seconds until the next look that a shared pace makes of a shorter wait.
        """
        self.count("pictory.polled")
        decision = poller.after(answer, time.time())
        if isinstance(decision, Wait):
            if decision.is_news:
                log = self.log.info if decision.is_normal else self.log.warning
                log("%s. Next look in %.0f s.", decision.reason.rstrip("."), max(decision.seconds, crowded))
        elif isinstance(decision.result, Job):
            credits = decision.result.ai_credits_used
            if credits:
                # Prices are in tenths; every backend of Airflow's Stats counts fractions.
                self.count("pictory.credits_used", count=credits)
            self.log.info("Job %s is completed (%s AI credits).", poller.job_id, credits)
        return decision

    def count(self, name: str, **more: Any) -> None:
        """Count something. A backend of metrics that fails must not cost the jobId of a paid job."""
        try:
            Stats.incr(name, **more)
        except Exception:
            self.log.debug("Could not count %s.", name, exc_info=True)

    def _read(self, endpoint: Callable[..., Request], parse: Callable[[Response], T], *arguments: Any) -> T:
        """Send a free request, again where that may help, and parse its reply."""
        with airflow_errors():
            request = endpoint(*arguments)
            return self._repeat(lambda: parse(self._send(request)), retry.after_read)

    def _repeat(self, attempt: Callable[[], T], after: Callable[..., retry.SendAgain | PictoryError]) -> T:
        """Attempt something until it succeeds or ``after`` says that it has failed for good."""
        begun = time.monotonic()
        count = 0
        while True:
            count += 1
            try:
                return attempt()
            except PictoryError as error:
                spent = time.monotonic() - begun
                step = after(error, attempt=count, spent=spent, now=time.time(), chance=random.random())
                if isinstance(step, PictoryError):
                    if step is error:
                        raise
                    raise step from error
                self.log.warning("%s Trying again in %.1f s.", error.message, step.seconds)
                time.sleep(step.seconds)

    def _pages(
        self, endpoint: Callable[..., Request], parse: Callable[[Response], tuple[list[T], str | None]]
    ) -> Iterator[T]:
        key: str | None = None
        while True:
            items, key = self._read(endpoint, parse, key)
            yield from items
            if key is None:
                return

    def _finished_job(self, job_id: object) -> Job:
        """Return a job whose picture can be downloaded now, or raise why it cannot."""
        poller = JobPoller.for_download(check_job_id(job_id), time.time())
        while isinstance(decision := self.look(poller), Wait):
            if decision.is_running:
                raise Unavailable(
                    f"{decision.reason}: there is no picture to download yet. Put a PictoryJobSensor before the "
                    "download. A retry looks again, and is free."
                )
            time.sleep(decision.seconds)
        if isinstance(decision.result, WaitTimeout):
            raise Unavailable(f"{decision.result.message} Nothing was saved. A retry looks again, and is free.")
        return decision.job()

    def _download(self, job: Job, target: Target, *, overwrite: bool, max_bytes: int) -> SavedImage:
        try:
            return self._repeat(
                lambda: self._save(job, target, overwrite=overwrite, max_bytes=max_bytes), retry.after_read
            )
        except TransportError as error:
            if error.fault is not Fault.UNREADABLE:
                raise
            raise ImageInvalid(f"The picture is cut short: {error.message} {_NOTHING_SAVED}") from error
        except ImageInvalid as error:
            raise ImageInvalid(f"{error.message} {_NOTHING_SAVED}") from error.__cause__

    def _save(self, job: Job, target: Target, *, overwrite: bool, max_bytes: int) -> SavedImage:
        assert job.url is not None
        with self.get_conn().stream(job.url) as (reply, pieces):
            responses.check_picture(reply, job.url)
            announced = reply.headers.get("content-length", "")
            if announced.isdigit() and int(announced) > max_bytes:
                raise too_large(max_bytes)
            with target.receive(pieces, max_bytes=max_bytes) as received:
                target.place(received, overwrite=overwrite)
        picture = received.picture
        if surprises := picture.surprises(job):
            self.log.warning(
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

    def _report_lineage(self, job: Job, target: Target) -> None:
        """Tell lineage what was read and written. The picture is saved, whatever becomes of the telling."""
        try:
            collector = get_hook_lineage_collector()
            collector.add_input_asset(context=self, uri=str(without_query(job.url)))
            collector.add_output_asset(context=self, uri=target.uri)
        except Exception as error:
            self.log.warning("The picture is saved, and lineage could not be told of it: %r", error)


def _plain(number: float) -> str:
    return f"{number:,.2f}".rstrip("0").rstrip(".")
