# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Build the :class:`Request` of each endpoint. Nothing is sent here.

Paths and parameters are those of https://docs.pictory.ai/api-reference.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pictory_provider.api.checks import check_job_id
from pictory_provider.api.errors import NO_REQUEST, RequestInvalid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pictory_provider.api.models import ImageRequest

MAX_REPLY_BYTES = 256 * 1024
"""The largest reply that is read. The largest documented one, a completed job, has half a kilobyte."""
MAX_LIST_BYTES = 16 * 1024 * 1024
"""The same for a page of up to 100 items."""
MAX_LEDGER_BYTES = 64 * 1024 * 1024
"""The same for a month's ledger, which Pictory does not page: about 300,000 entries."""


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request without headers.

    :param path: what follows the base URL.
    :param max_bytes: the largest reply that is read.
    :param is_paid: whether it costs credits, so that it must not be sent twice.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    json: dict[str, Any] | None = None
    max_bytes: int = MAX_REPLY_BYTES
    is_paid: bool = False


def generate_image(request: ImageRequest) -> Request:
    """Submit one picture. The only request that costs credits."""
    return Request("POST", "/v1/aistudio/images", json=request.body(), is_paid=True)


def get_job(job_id: str) -> Request:
    """Get a job. The path is the same for every kind of job."""
    return Request("GET", f"/v1/jobs/{quote(check_job_id(job_id), safe='')}")


def list_images(next_page_key: str | None = None) -> Request:
    """Get one page of the gallery, newest first, up to 100 items."""
    return Request("GET", "/v1/aistudio/images", query=_page(next_page_key), max_bytes=MAX_LIST_BYTES)


def list_jobs(next_page_key: str | None = None) -> Request:
    """Get one page of the account's jobs, newest first."""
    return Request("GET", "/v1/jobs", query=_page(next_page_key), max_bytes=MAX_LIST_BYTES)


def generate_upload_url(file_name: str, content_type: str) -> Request:
    """Get a URL to which a file can be uploaded within 24 hours, and the public URL that it then has. Free.

    https://docs.pictory.ai/api-reference/media-management/generate-signed-url
    """
    return Request("POST", "/v1/media/generateurl", json={"fileName": file_name, "contentType": content_type})


def get_quota() -> Request:
    """Get the subscription's used and available amounts. Free."""
    return Request("GET", "/v1/quota")


def get_credit_usage(year: int | None = None, month: int | None = None) -> Request:
    """Get the ledger of AI credits, newest first. Pictory keeps it for 12 months.

    :raises RequestInvalid: for a year without a month, which Pictory answers with 400, and for a month
        outside 1 to 12.
    """
    if year is not None and month is None:
        raise RequestInvalid.unsent(
            f"year {year} came without a month, which Pictory refuses",
            "Pass both, or neither for the whole ledger.",
            fields=["month"],
            money=NO_REQUEST,
        )
    if month is not None and not 1 <= month <= 12:
        raise RequestInvalid.unsent(f"month {month} is not within 1 to 12", fields=["month"], money=NO_REQUEST)
    given = {"year": year, "month": month}
    query = {name: str(value) for name, value in given.items() if value is not None}
    return Request("GET", "/v1/aicredits/usage", query=query, max_bytes=MAX_LEDGER_BYTES)


def clean_job(job_id: str) -> Request:
    """Delete a finished job's output permanently. Calling it twice is safe."""
    return Request("DELETE", f"/v1/jobs/{quote(check_job_id(job_id), safe='')}/clean")


def _page(next_page_key: str | None) -> dict[str, str]:
    return {"nextPageKey": next_page_key} if next_page_key else {}
