# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Ask from a worker: again where that may help, or several questions at once within a given time."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pictory_provider.api import endpoints, responses, retry
from pictory_provider.api.errors import PictoryError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pictory_provider.api.connection import ConnectionSettings
    from pictory_provider.api.endpoints import Request
    from pictory_provider.api.models import Job
    from pictory_provider.api.responses import Response
    from pictory_provider.client.sync import SyncClient

T = TypeVar("T")


class Log(Protocol):
    """A logger: that of the standard library, or of an Airflow task."""

    def debug(self, event: Any, /, *args: Any, **kwargs: Any) -> Any: ...  # noqa: D102
    def info(self, event: Any, /, *args: Any, **kwargs: Any) -> Any: ...  # noqa: D102
    def warning(self, event: Any, /, *args: Any, **kwargs: Any) -> Any: ...  # noqa: D102
    def error(self, event: Any, /, *args: Any, **kwargs: Any) -> Any: ...  # noqa: D102
    def exception(self, event: Any, /, *args: Any, **kwargs: Any) -> Any: ...  # noqa: D102


def repeat(attempt: Callable[[], T], after: Callable[..., retry.SendAgain | PictoryError], *, log: Log) -> T:
    """Attempt something until it succeeds, or until ``after`` says that it has failed for good.

    :param after: :func:`~pictory_provider.api.retry.after_submit` or
        :func:`~pictory_provider.api.retry.after_read`.
    :raises PictoryError: the last one, or what ``after`` makes of it.
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


def get_job(client: SyncClient, job_id: str) -> Job:
    """Ask once how a job stands."""
    return responses.parse_job(client.send(endpoints.get_job(job_id)), job_id)


def ask_all(
    settings: ConnectionSettings,
    *questions: tuple[Request, Callable[[Response], Any]],
    within: float,
    log: Log,
) -> list[Any | None]:
    """Ask free questions at once, and return what has been answered after so many seconds.

    Each is asked in a thread of its own, since the timeouts of one request do not bound it: resolving a name has
    none. A question that fails is not answered, and stays ``None``.

    :param questions: each a request, and what reads its reply.
    """
    from pictory_provider.client.sync import SyncClient

    answers: list[Any | None] = [None] * len(questions)

    def ask(index: int) -> None:
        request, parse = questions[index]
        client = SyncClient(settings)
        try:
            answers[index] = parse(client.send(request))
        except Exception as error:
            log.debug("%s %s was not answered: %s", request.method, request.path, error)
        finally:
            client.close()

    threads = [threading.Thread(target=ask, args=(index,), daemon=True) for index in range(len(questions))]
    ended = time.monotonic() + within
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, ended - time.monotonic()))
    return list(answers)
