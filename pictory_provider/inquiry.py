# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What can be found out about a purchase whose outcome nobody knows? Free questions, within a given time.

What the answers mean is said in :mod:`pictory_provider.jobs.evidence`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from pictory_provider.api import endpoints, responses
from pictory_provider.api.timing import TIMING
from pictory_provider.client.asking import ask_all
from pictory_provider.jobs.evidence import Evidence, matching
from pictory_provider.jobs.submission import request_of

if TYPE_CHECKING:
    from pictory_provider.api.connection import ConnectionSettings
    from pictory_provider.client.asking import Log
    from pictory_provider.jobs.submission import Submission


def credits_used(settings: ConnectionSettings, *, log: Log) -> float | None:
    """Return the AI credits used so far; ``None`` where Pictory does not say within five seconds."""
    question = endpoints.get_quota(), responses.parse_quota
    (quota,) = ask_all(settings, question, within=TIMING.credits, log=log)
    return quota.ai_credits_used if quota else None


def evidence_of(settings: ConnectionSettings, latest: Submission, asked: dict[str, Any], *, log: Log) -> Evidence:
    """Gather what may be evidence about an unknown outcome. It never fails, and takes ten seconds at most.

    :param latest: what is on record of the purchase.
    :param asked: what this try asks for, where the record does not say what that one did.
    """
    since = latest.intended_at
    found = Evidence(since=since, credits_before=latest.credits_before, credits_now=None, matches=None)
    try:
        request = request_of(latest.request or asked)
        quota, page = ask_all(
            settings,
            (endpoints.get_quota(), responses.parse_quota),
            (endpoints.list_images(), responses.parse_images),
            within=TIMING.evidence,
            log=log,
        )
        return replace(
            found,
            credits_now=quota.ai_credits_used if quota else None,
            price=request.credits if request else None,
            matches=matching(page[0], request, since) if page and request else None,
        )
    except (Exception, AirflowTaskTimeout) as error:
        # Nothing may hide the report: without a record a retry would buy the picture again.
        log.warning("No evidence could be gathered: %r", error)
        return found
