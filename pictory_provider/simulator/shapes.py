# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The shapes of the replies, with a choice where the documentation leaves one open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pictory_provider.simulator.account import created_date

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
    "mark": ("none", "xmp", "c2pa", "aigc"),
    "unknown-header": ("tolerated", "refused"),
    "limit-headers": ("none", "x-ratelimit", "ratelimit"),
    "firewall": ("open", "no-urllib", "no-libraries", "browsers-only"),
}
"""What can be chosen, by name; the first is the default."""

Reply = tuple[int, Any]


def accepted(job: SimulatedJob) -> Reply:
    """A job was made."""
    return 200, {"success": True, "data": {"jobId": job.job_id}}


def invalid(found: dict[str, str], shape: str) -> Reply:
    """A request was refused, with the fields at fault."""
    fields: Any = [{"name": name, "errors": text} for name, text in found.items()]
    if shape == "objects-of-lists":
        fields = [{"name": name, "errors": [text]} for name, text in found.items()]
    elif shape == "strings":
        fields = [f"{name}: {text}" for name, text in found.items()]
    elif shape == "string":
        fields = "; ".join(f"{name}: {text}" for name, text in found.items())
    return 400, {"code": "INVALID_REQUEST_BODY", "message": "Invalid request body", "fields": fields}


def insufficient(shape: str) -> Reply:
    """The account has too few credits left."""
    return int(shape), {"code": "INSUFFICIENT_CREDITS", "message": "Not enough AI credits"}


def unauthorized() -> Reply:
    """The key is missing or wrong."""
    return 401, {"message": "Unauthorized"}


def job(found: SimulatedJob, now: float, url: str, failed_shape: str) -> Reply:
    """How a job stands. A failed one comes with 200 too."""
    status = found.status(now)
    body: dict[str, Any] = {"job_id": found.job_id, "success": True, "data": {"status": status}}
    if status == "completed":
        width, height = found.size
        body["data"] |= {"url": url, "width": width, "height": height, "aiCreditsUsed": found.credits}
        if found.fate == "no-url":
            del body["data"]["url"]
    elif status == "failed":
        error = {"error_code": found.error_code, "error_message": found.error_message}
        body["success"] = False
        if failed_shape == "data":
            body["data"] |= error
        elif failed_shape == "error":
            body = {"success": False, "error": error}
        elif failed_shape == "top":
            body |= error
        else:
            body["data"] = error
    return 200, body


def missing(shape: str) -> Reply:
    """No such job."""
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
    """One item of the gallery."""
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
        "createdDate": created_date(found),
        "model": body["model"],
        "width": width,
        "height": height,
        **sent,
    }


def listed_job(found: SimulatedJob, now: float) -> dict[str, Any]:
    """One item of the list of jobs."""
    status = found.status(now)
    return {"success": status != "failed", "data": {"jobId": found.job_id, "status": status}}


def quota(account: Account) -> Reply:
    """What the subscription has used and may use."""
    minutes = {"used": 0, "limit": 14400}
    return 200, {
        "videoMinutes": minutes,
        "transcriptionMinutes": minutes,
        "elevenLabsVoiceOverMinutes": {"used": 0, "limit": 480},
        "aiCredits": {"used": account.ledger.used(account.clock()), "limit": account.credits_limit},
    }
