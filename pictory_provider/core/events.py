# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Encode and decode the trigger event that ends the wait for one job.

An event crosses Airflow's database as JSON. It has the jobId, because a resumed task may have nothing else, and
the time of the last poll::

    {"job_id": "...", "at": 1.7e9, "outcome": "completed", "image": {"status": ..., "url": ..., ...}}
    {"job_id": "...", "at": 1.7e9, "outcome": "error", "error": {"kind": "JobFailed", "message": "...", ...}}
"""

from __future__ import annotations

from typing import Any, NamedTuple

from pictory_provider.api.checks import without_query
from pictory_provider.api.errors import KINDS, JobError, PictoryError, ProtocolError
from pictory_provider.api.models import Job
from pictory_provider.api.timing import TIMING

_JOB_FIELDS = ("status", "success", "url", "width", "height", "ai_credits_used", "error_code", "error_message")


class Ended(NamedTuple):
    """The end of a wait.

    :param result: the completed job, or the error.
    :param at: epoch seconds of the last poll.
    """

    job_id: str
    result: Job | PictoryError
    at: float


def build(ended: Ended) -> dict[str, Any]:
    """Return the payload of the event."""
    result, head = ended.result, {"job_id": ended.job_id, "at": ended.at}
    if isinstance(result, Job):
        return {**head, "outcome": "completed", "image": _job_to_dict(result)}
    error: dict[str, Any] = {"kind": type(result).__name__, "message": result.message}
    if isinstance(result, JobError) and result.job is not None:
        error["job"] = _job_to_dict(result.job)
    return {**head, "outcome": "error", "error": error}


def is_fresh(at: float, now: float) -> bool:
    """Whether a polled URL is recent enough to download from without polling the job again.

    :param at: epoch seconds of the poll, by the triggerer's clock.
    :param now: epoch seconds of this machine's clock. If it is behind ``at``, the age is unknown, so the result is
        ``False``.
    """
    return 0 <= now - at <= TIMING.url_fresh


def for_log(payload: dict[str, Any]) -> dict[str, Any]:
    """Return a payload without the query of its URL: Airflow logs events whole, and the query may hold a token."""
    image = payload.get("image")
    if not isinstance(image, dict):
        return payload
    return {**payload, "image": {**image, "url": without_query(image.get("url"))}}


def read(payload: Any) -> Ended:
    """Decode a payload of :func:`build`.

    :raises ProtocolError: for anything that :func:`build` does not make. Such an event is never a success.
    """
    names = ("job_id", "at", "outcome", "image", "error")
    job_id, at, outcome, image, error = (
        payload.get(name) if isinstance(payload, dict) else None for name in names
    )
    if isinstance(job_id, str) and isinstance(at, (int, float)):
        if outcome == "completed" and isinstance(image, dict) and isinstance(image.get("url"), str):
            return Ended(job_id, _job_from_dict(job_id, image), at)
        if outcome == "error" and isinstance(error, dict):
            return Ended(job_id, _error_from_dict(job_id, error), at)
    raise ProtocolError(
        f"The trigger sent an event that this release does not understand: {payload!r}. The job keeps running at "
        "Pictory. Check that the worker and the triggerer have the same version of airflow-provider-pictory."
    )


def _error_from_dict(job_id: str, value: dict[str, Any]) -> PictoryError:
    kind = KINDS.get(str(value.get("kind")))
    message = str(value.get("message"))
    if kind is None:
        return ProtocolError(f"The wait for job {job_id} ended with {value.get('kind')!r}: {message}")
    error = kind(message)
    if isinstance(error, JobError) and isinstance(job := value.get("job"), dict):
        error.job = _job_from_dict(job_id, job)
    return error


def _job_to_dict(job: Job) -> dict[str, Any]:
    return {name: getattr(job, name) for name in _JOB_FIELDS}


def _job_from_dict(job_id: str, value: dict[str, Any]) -> Job:
    return Job(job_id=job_id, **{name: value[name] for name in _JOB_FIELDS if name in value})
