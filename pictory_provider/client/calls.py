# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Every free call to Pictory: its request, and what reads the reply. A submission is paid, and not among them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from pictory_provider.api import endpoints, responses
from pictory_provider.api.checks import check_job_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from pictory_provider.api.endpoints import Request
    from pictory_provider.api.models import GeneratedImage, Job, Quota
    from pictory_provider.api.responses import Response, UploadUrls

T = TypeVar("T")
R = TypeVar("R")


class Call(NamedTuple, Generic[R]):
    """One free call.

    :param request: may be sent again.
    :param parse: returns what the reply says; raises a :class:`~pictory_provider.api.errors.PictoryError` for a
        refusal, and for a reply that the documentation does not describe.
    """

    request: Request
    parse: Callable[[Response], R]


Page = tuple[list[T], str | None]
"""The items of a page, and the key of the next; ``None`` if it is the last."""


def get_job(job_id: str) -> Call[Job]:
    """Ask how a job stands.

    :raises RequestInvalid: for what is not a jobId.
    """
    known = check_job_id(job_id)
    return Call(endpoints.get_job(known), lambda response: responses.parse_job(response, known))


def clean_job(job_id: str) -> Call[None]:
    """Delete the output of a finished job."""
    return Call(endpoints.clean_job(job_id), responses.parse_cleaned)


def list_images(next_page_key: str | None = None) -> Call[Page[GeneratedImage]]:
    """Read a page of the gallery, newest first."""
    return Call(endpoints.list_images(next_page_key), responses.parse_images)


def list_jobs(next_page_key: str | None = None) -> Call[Page[dict[str, Any]]]:
    """Read a page of the account's jobs, newest first."""
    return Call(endpoints.list_jobs(next_page_key), responses.parse_jobs)


def generate_upload_url(file_name: str, content_type: str, base_url: str) -> Call[UploadUrls]:
    """Ask where to upload a file.

    :param base_url: of the API.
    """
    request = endpoints.generate_upload_url(file_name, content_type)
    return Call(request, lambda response: responses.parse_upload_urls(response, base_url))


def get_quota() -> Call[Quota]:
    """Read the AI credits that are used and allowed."""
    return Call(endpoints.get_quota(), responses.parse_quota)


def get_credit_usage(year: int | None = None, month: int | None = None) -> Call[list[dict[str, Any]]]:
    """Read the ledger of AI credits.

    :param month: 1 to 12; only together with ``year``.
    """
    return Call(endpoints.get_credit_usage(year, month), responses.parse_credit_usage)
