# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Repeat requests from a worker if that may help, and send several free requests within a given time."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pictory_provider.api import retry
from pictory_provider.api.errors import PictoryError
from pictory_provider.client import calls

if TYPE_CHECKING:
    from collections.abc import Callable

    from pictory_provider.api.connection import ConnectionSettings
    from pictory_provider.api.models import Job
    from pictory_provider.client.calls import Call
    from pictory_provider.client.sync import SyncClient

T = TypeVar("T")


class Log(Protocol):
    """A logger of the standard library or of an Airflow task."""

    def debug(self, event: Any, /, *args: Any, **kwargs: Any) -> Any: ...  # noqa: D102
    def info(self, event: Any, /, *args: Any, **kwargs: Any) -> Any: ...  # noqa: D102
    def warning(self, event: Any, /, *args: Any, **kwargs: Any) -> Any: ...  # noqa: D102
    def error(self, event: Any, /, *args: Any, **kwargs: Any) -> Any: ...  # noqa: D102
    def exception(self, event: Any, /, *args: Any, **kwargs: Any) -> Any: ...  # noqa: D102


def retry_call(attempt: Callable[[], T], after: Callable[..., retry.SendAgain | PictoryError], *, log: Log) -> T:
    """Call ``attempt`` until it succeeds, or until ``after`` returns an error to raise.

    :param after: :func:`~pictory_provider.api.retry.after_submit` or
        :func:`~pictory_provider.api.retry.after_read`.
    :raises PictoryError: the error that ``after`` returns.
    """
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
            log.warning("%s Trying again in %.1f s.", error.message, step.seconds)
            time.sleep(step.seconds)


def read(client: SyncClient, call: Call[T], *, log: Log) -> T:
    """Make a free call, again after an error that may pass.

    :raises PictoryError: the last one.
    """
    return retry_call(lambda: client.call(call), retry.after_read, log=log)


def get_job(client: SyncClient, job_id: str) -> Job:
    """Get a job with one request."""
    return client.call(calls.get_job(job_id))


def fetch_within(settings: ConnectionSettings, *questions: Call[Any], within: float, log: Log) -> list[Any | None]:
    """Send free requests in parallel, and return the parsed replies that arrived within a given time, in seconds.

    Each is sent in its own thread, since the timeouts of a request do not bound it: resolving a name has none. A
    request that fails or is late has ``None`` in its place.
    """
    from pictory_provider.client.sync import SyncClient

    answers: list[Any | None] = [None] * len(questions)

    def ask(index: int) -> None:
        request = questions[index].request
        client = SyncClient(settings)
        try:
            answers[index] = client.call(questions[index])
        except Exception as error:
            log.debug("%s %s failed: %s", request.method, request.path, error)
        finally:
            client.close()

    threads = [threading.Thread(target=ask, args=(index,), daemon=True) for index in range(len(questions))]
    ended = time.monotonic() + within
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, ended - time.monotonic()))
    return list(answers)
