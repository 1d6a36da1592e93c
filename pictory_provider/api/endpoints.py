# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""One function for each endpoint: arguments in, a :class:`Request` out. Nothing is sent here.

Paths and parameters are those of https://docs.pictory.ai/api-reference.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pictory_provider.api.checks import check_job_id
from pictory_provider.api.errors import RequestInvalid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pictory_provider.api.models import ImageRequest


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request as a value: the path begins after the base URL, and no header is in it."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    json: dict[str, Any] | None = None


def generate_image(request: ImageRequest) -> Request:
    """Buy one picture. The only request that costs credits."""
    return Request("POST", "/v1/aistudio/images", json=request.body())


def get_job(job_id: str) -> Request:
    """Ask how a job stands. The path is the same for every kind of job."""
    return Request("GET", f"/v1/jobs/{quote(check_job_id(job_id), safe='')}")


def list_images(next_page_key: str | None = None) -> Request:
    """One page of the gallery, newest first, up to 100 items."""
    return Request("GET", "/v1/aistudio/images", query=_page(next_page_key))


def list_jobs(next_page_key: str | None = None) -> Request:
    """One page of the account's jobs, newest first."""
    return Request("GET", "/v1/jobs", query=_page(next_page_key))


def get_quota() -> Request:
    """Ask for what the subscription has used and may use. Free."""
    return Request("GET", "/v1/quota")


def get_credit_usage(year: int | None = None, month: int | None = None) -> Request:
    """Read the ledger of AI credits, newest first, kept for 12 months.

    :raises RequestInvalid: for a year without a month, which Pictory answers with 400, and for a month
        outside 1 to 12.
    """
    if year is not None and month is None:
        raise RequestInvalid(
            f"year {year} came without a month, which Pictory refuses. No request was made. "
            "Pass both, or neither for the whole ledger.",
            fields=["month"],
        )
    if month is not None and not 1 <= month <= 12:
        raise RequestInvalid(f"month {month} is not within 1 to 12. No request was made.", fields=["month"])
    asked = {"year": year, "month": month}
    return Request(
        "GET",
        "/v1/aicredits/usage",
        query={name: str(value) for name, value in asked.items() if value is not None},
    )


def clean_job(job_id: str) -> Request:
    """Delete a finished job's output for good. Calling it twice is safe."""
    return Request("DELETE", f"/v1/jobs/{quote(check_job_id(job_id), safe='')}/clean")


def _page(next_page_key: str | None) -> dict[str, str]:
    return {"nextPageKey": next_page_key} if next_page_key else {}
