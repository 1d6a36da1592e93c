# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Encode and decode the trigger event that resumes a batch.

The event crosses Airflow's database as JSON. For completed jobs it has what their pictures are downloaded with, so
the worker need not poll them again::

    {"of": 200, "ended": 3, "why": "...", "at": 1.7e9,
     "jobs": [["<jobId>", "https://...", 1024, 1024, 0.6, 1.7e9], ...], "others": ["<jobId>", ...]}

``jobs`` are completed: jobId, URL, width, height, AI credits, and the time of the poll. ``others`` have ended in
another way, or there was only space for their ids. Polling again costs a request and nothing else, so if any part
of an event cannot be understood, the whole event is ignored.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pictory_provider.api.checks import check_job_id, check_url, without_query
from pictory_provider.api.decoding import is_count, is_number
from pictory_provider.api.errors import RequestInvalid
from pictory_provider.api.models import Job, JobState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MOST_BYTES = 40_000
"""Bytes of the jobs in an event."""
_SEPARATOR = 2
"""Bytes between two items."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsEvent:
    """What a trigger knows about its jobs.

    :param of: how many jobs it has waited for.
    :param ended: how many of them have ended.
    :param at: epoch seconds of the event.
    :param jobs: completed ones, by their ids.
    :param seen_at: epoch seconds at which each of these was polled.
    :param others: ids of others that have ended.
    """

    of: int
    ended: int
    at: float
    jobs: Mapping[str, Job] = field(default_factory=dict)
    seen_at: Mapping[str, float] = field(default_factory=dict)
    others: frozenset[str] = frozenset()

    @property
    def is_whole(self) -> bool:
        """Whether every ended job is listed."""
        return self.ended == len(self.jobs) + len(self.others)


def build(of: int, ended: Sequence[tuple[str, Job | None, float]], why: str, at: float) -> dict[str, Any]:
    """Return the payload of the event.

    :param of: how many jobs were waited for.
    :param ended: of each that has ended its id, the completed job or ``None``, and when it was polled.
    :param why: the worker is resumed.
    :param at: epoch seconds.
    """
    space = MOST_BYTES
    named: list[tuple[str, Job | None, float]] = []
    for one in ended:
        space -= _length(one[0])
        if space < 0:
            break
        named.append(one)
    jobs: list[list[Any]] = []
    others: list[str] = []
    for job_id, job, seen_at in named:
        if job is not None:
            item = [job_id, job.url, job.width, job.height, job.ai_credits_used, seen_at]
            more = _length(item) - _length(job_id)
            if more <= space:
                space -= more
                jobs.append(item)
                continue
        others.append(job_id)
    return {"of": of, "ended": len(ended), "why": why, "at": at, "jobs": jobs, "others": others}


def read(payload: Any) -> JobsEvent | None:
    """Decode a payload of :func:`build`; ``None`` for anything that :func:`build` does not make."""
    if not isinstance(payload, dict):
        return None
    wanted: Any = (payload.get(name) for name in ("of", "ended", "at", "jobs", "others"))
    of, ended, at, items, others = wanted
    if not (is_count(of) and is_count(ended) and is_number(at)):
        return None
    if not (isinstance(items, list) and isinstance(others, list)):
        return None
    jobs, seen_at = {}, {}
    try:
        for item in items:
            job_id, url, width, height, credits_used, when = item
            are_sizes = all(value is None or is_count(value) for value in (width, height))
            if not (is_number(when) and are_sizes and (credits_used is None or is_number(credits_used))):
                return None
            seen_at[check_job_id(job_id)] = when
            jobs[job_id] = Job(
                job_id=job_id,
                status=JobState.COMPLETED.value,
                success=True,
                url=check_url("url", url),
                width=width,
                height=height,
                ai_credits_used=credits_used,
            )
        named = frozenset(check_job_id(job_id) for job_id in others)
    except (TypeError, ValueError, RequestInvalid):
        return None
    if len(jobs) + len(named) > ended or ended > of or named & set(jobs):
        return None
    return JobsEvent(of=of, ended=ended, at=at, jobs=jobs, seen_at=seen_at, others=named)


def for_log(payload: dict[str, Any]) -> dict[str, Any]:
    """Return a payload for the log: Airflow logs events whole, and a result URL's query may hold a token."""
    jobs = payload.get("jobs")
    if not isinstance(jobs, list):
        return payload
    shown = [[item[0], without_query(item[1])] for item in jobs[:1]]
    more = [f"and {len(jobs) - 1} more"] if len(jobs) > 1 else []
    others = payload.get("others")
    return {**payload, "jobs": [*shown, *more], "others": len(others) if isinstance(others, list) else others}


def _length(value: Any) -> int:
    return len(json.dumps(value)) + _SEPARATOR
