# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The shapes of the replies, with a choice for those that the documentation leaves open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pictory_provider.simulator.ledger import iso

if TYPE_CHECKING:
    from pictory_provider.simulator.account import Account, SimulatedJob

SHAPES: dict[str, tuple[str, ...]] = {
    "invalid": ("objects", "objects-of-lists", "strings", "string"),
    "failed": ("data", "error", "top", "flag-only"),
    "missing": ("data-404", "error-404", "top-404", "empty-404", "data-200", "error-200", "top-500"),
    "insufficient": ("402", "400", "failed-job"),
    "url": ("plain", "signed"),
    "listed": ("yes", "no"),
    "image-job": ("unnamed", "named"),
    "mark": ("none", "xmp", "xmp-rdf", "xmp-zipped", "xmp-camera", "xmp-ai", "xmp-hostile", "c2pa", "aigc"),
    "unknown-header": ("tolerated", "refused"),
    "limit-headers": ("none", "x-ratelimit", "ratelimit"),
    "firewall": ("open", "no-urllib", "no-libraries", "browsers-only"),
}
"""The choices, by name; the first one is the default."""

Reply = tuple[int, Any]


def accepted(job: SimulatedJob) -> Reply:
    """Return the reply to an accepted request."""
    return 200, {"success": True, "data": {"jobId": job.job_id}}


def invalid(found: dict[str, str], shape: str) -> Reply:
    """Return the reply to an invalid request, with its wrong fields."""
    texts = [f"{name}: {text}" for name, text in found.items()]
    fields: Any = {
        "objects": [{"name": name, "errors": text} for name, text in found.items()],
        "objects-of-lists": [{"name": name, "errors": [text]} for name, text in found.items()],
        "strings": texts,
        "string": "; ".join(texts),
    }[shape]
    return 400, {"code": "INVALID_REQUEST_BODY", "message": "Invalid request body", "fields": fields}


def insufficient(shape: str) -> Reply:
    """Return the reply to a request for which the account has too few credits."""
    return int(shape), {"code": "INSUFFICIENT_CREDITS", "message": "Not enough AI credits"}


def unauthorized() -> Reply:
    """Return the reply to a missing or wrong key."""
    return 401, {"message": "Unauthorized"}


def job(found: SimulatedJob, now: float, url: str, failed_shape: str) -> Reply:
    """Return the reply with the state of a job; a failed job has the status code 200 too."""
    status = found.status(now)
    body: dict[str, Any] = {"job_id": found.job_id, "success": True, "data": {"status": status}}
    if status == "completed":
        width, height = found.size
        body["data"] |= {"url": url, "width": width, "height": height, "aiCreditsUsed": found.credits}
        if found.fate == "no-url":
            del body["data"]["url"]
    elif status == "failed":
        error = {"error_code": found.error_code, "error_message": found.error_message}
        body = {
            "data": {**body, "success": False, "data": {"status": status, **error}},
            "error": {"success": False, "error": error},
            "top": {**body, "success": False, **error},
            "flag-only": {**body, "success": False, "data": error},
        }[failed_shape]
    return 200, body


def missing(shape: str) -> Reply:
    """Return the reply for an unknown job."""
    error = {"error_code": "5000", "error_message": "JOB_NOT_FOUND"}
    where, _, status = shape.partition("-")
    bodies = {
        "data": {"success": False, "data": error},
        "error": {"success": False, "error": error},
        "top": error,
        "empty": {},
    }
    return int(status), bodies[where]


def image(found: SimulatedJob, url: str, names_job: str) -> dict[str, Any]:
    """Return an item of the gallery."""
    width, height = found.size
    body = found.body
    sent: dict[str, Any] = {name: body[name] for name in ("style", "referenceImageUrl") if name in body}
    if names_job == "named":
        sent["jobId"] = found.job_id
    return {
        "url": url,
        "id": found.image_id,
        "prompt": body["prompt"],
        "aspectRatio": body["aspectRatio"],
        "createdDate": iso(found.created),
        "model": body["model"],
        "width": width,
        "height": height,
        **sent,
    }


def listed_job(found: SimulatedJob, now: float) -> dict[str, Any]:
    """Return an item of the list of jobs."""
    status = found.status(now)
    return {"success": status != "failed", "data": {"jobId": found.job_id, "status": status}}


def quota(account: Account) -> Reply:
    """Return the reply with what the subscription has used and may use."""
    minutes = {"used": 0, "limit": 14400}
    return 200, {
        "videoMinutes": minutes,
        "transcriptionMinutes": minutes,
        "elevenLabsVoiceOverMinutes": {"used": 0, "limit": 480},
        "aiCredits": {"used": account.ledger.used(account.clock()), "limit": account.credits_limit},
    }
