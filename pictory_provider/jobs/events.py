# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The trigger's event: built and read in this one place.

An event crosses Airflow's database as JSON. It carries the job's id, because a resumed task may have
nothing else::

    {"job_id": "...", "outcome": "completed", "image": {"job_id": ..., "status": ..., "url": ..., ...}}
    {"job_id": "...", "outcome": "error", "error": {"kind": "JobFailed", "message": "...", ...}}
"""

from __future__ import annotations

from typing import Any

from pictory_provider.api.errors import JobError, PictoryError, ProtocolError, kinds
from pictory_provider.api.models import Job

_JOB_FIELDS = ("status", "success", "url", "width", "height", "ai_credits_used", "error_code", "error_message")


def build(job_id: str, result: Job | PictoryError) -> dict[str, Any]:
    """Return the payload of the one event that ends a wait."""
    if isinstance(result, Job):
        return {"job_id": job_id, "outcome": "completed", "image": _job_to_plain(result)}
    error: dict[str, Any] = {"kind": type(result).__name__, "message": result.message}
    if isinstance(result, JobError) and result.job is not None:
        error["job"] = _job_to_plain(result.job)
    return {"job_id": job_id, "outcome": "error", "error": error}


def read(payload: Any) -> tuple[str, Job | PictoryError]:
    """Return the job id and the result that :func:`build` was given.

    :raises ProtocolError: for anything that :func:`build` does not make. Such an event is never a success.
    """
    if isinstance(payload, dict) and isinstance(job_id := payload.get("job_id"), str):
        outcome, image, error = (payload.get(name) for name in ("outcome", "image", "error"))
        if outcome == "completed" and isinstance(image, dict) and isinstance(image.get("url"), str):
            return job_id, _job_from_plain(job_id, image)
        if outcome == "error" and isinstance(error, dict):
            return job_id, _error_from_plain(job_id, error)
    raise ProtocolError(
        f"The trigger sent an event that this release does not understand: {payload!r}. The job runs on at "
        "Pictory. Do the worker and the triggerer have the same version of airflow-provider-pictory?"
    )


def _error_from_plain(job_id: str, plain: dict[str, Any]) -> PictoryError:
    kind = kinds().get(str(plain.get("kind")))
    message = str(plain.get("message"))
    if kind is None:
        return ProtocolError(f"The wait for job {job_id} ended with {plain.get('kind')!r}: {message}")
    error = kind(message)
    job = plain.get("job")
    if isinstance(error, JobError) and isinstance(job, dict):
        error.job = _job_from_plain(job_id, job)
    return error


def _job_to_plain(job: Job) -> dict[str, Any]:
    return {name: getattr(job, name) for name in _JOB_FIELDS}


def _job_from_plain(job_id: str, plain: dict[str, Any]) -> Job:
    return Job(job_id=job_id, **{name: plain[name] for name in _JOB_FIELDS if name in plain})
