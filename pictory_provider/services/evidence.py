# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Gather evidence about a submission whose outcome is unknown, with free requests and within a time limit.

:mod:`pictory_provider.core.evidence` says what the answers mean.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from pictory_provider.api.timing import TIMING
from pictory_provider.client import calls
from pictory_provider.client.retrying import fetch_within
from pictory_provider.core.evidence import Evidence, is_since, matching
from pictory_provider.core.submission import request_of

if TYPE_CHECKING:
    from pictory_provider.api.connection import ConnectionSettings
    from pictory_provider.api.models import GeneratedImage
    from pictory_provider.client.retrying import Log
    from pictory_provider.core.submission import Submission


def credits_used(settings: ConnectionSettings, *, log: Log) -> float | None:
    """Return the AI credits used so far; ``None`` if Pictory does not answer within five seconds."""
    (quota,) = fetch_within(settings, calls.get_quota(), within=TIMING.credits, log=log)
    return quota.ai_credits_used if quota else None


def gather_evidence(
    settings: ConnectionSettings, latest: Submission, identity: dict[str, Any], *, log: Log
) -> Evidence:
    """Gather evidence about an unknown outcome. This never fails, and takes ten seconds at most.

    :param latest: the record of the submission.
    :param identity: the request of this attempt, used if the record does not have one.
    """
    since = latest.intended_at
    found = Evidence(since=since, credits_before=latest.credits_before, credits_now=None, matches=None)
    try:
        request = request_of(latest.request or identity)
        quota, page = fetch_within(
            settings, calls.get_quota(), calls.list_images(), within=TIMING.evidence, log=log
        )
        return replace(
            found,
            credits_now=quota.ai_credits_used if quota else None,
            price=request.credits if request else None,
            matches=matching(page[0], request, since) if page and request else None,
        )
    except (Exception, AirflowTaskTimeout) as error:
        # This error must not replace the report: without a record a retry would buy the picture again.
        log.warning("Could not gather evidence: %r", error)
        return found


def read_account(
    settings: ConnectionSettings, since: float | None, *, log: Log
) -> tuple[float | None, list[GeneratedImage], bool]:
    """Read the AI credits used and the gallery, for ten seconds at most.

    :param since: epoch seconds of the oldest picture that is needed; ``None`` for the first page alone.
    :return: the credits, or ``None`` if Pictory did not answer; the pictures; and whether they go back to
        ``since``.
    """
    until = time.monotonic() + TIMING.evidence
    used: float | None = None
    images: list[GeneratedImage] = []
    key: str | None = None
    while (within := until - time.monotonic()) > 0:
        first = () if images else (calls.get_quota(),)
        page, *more = fetch_within(settings, calls.list_images(key), *first, within=within, log=log)
        if more and more[0]:
            used = more[0].ai_credits_used
        if page is None:
            return used, images, False
        images += page[0]
        key = page[1]
        if key is None or since is None or not any(is_since(image, since) for image in page[0]):
            return used, images, True
    return used, images, False
