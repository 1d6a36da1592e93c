# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What a trigger has seen of a batch's jobs, as the one event that wakes a worker: built and read here.

It crosses Airflow's database as JSON, and says of completed jobs what their pictures are downloaded by, so that
nobody asks for them again::

    {"of": 200, "ended": 3, "why": "...", "at": 1.7e9,
     "jobs": [["<jobId>", "https://...", 1024, 1024, 0.6, 1.7e9], ...], "others": ["<jobId>", ...]}

``jobs`` are completed: jobId, URL, width, height, AI credits, and when that was seen. ``others`` have ended in
another way, or there was no room for more than their ids. To ask again costs a request and nothing else, so an
event that cannot be understood in every part is not believed in any.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pictory_provider.api.checks import check_job_id, check_url, without_query
from pictory_provider.api.errors import RequestInvalid
from pictory_provider.api.models import Job, JobState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MOST_BYTES = 40_000
"""Of the jobs in an event."""
_BESIDE = 2
"""Bytes that part one item from the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a trigger has seen.

    :param of: how many jobs it has waited for.
    :param ended: how many of them have ended.
    :param at: epoch seconds of the event.
    :param jobs: completed ones, by their ids.
    :param seen_at: epoch seconds at which each of these was seen.
    :param others: ids of some that have ended, too.
    """

    of: int
    ended: int
    at: float
    jobs: Mapping[str, Job] = field(default_factory=dict)
    seen_at: Mapping[str, float] = field(default_factory=dict)
    others: frozenset[str] = frozenset()

    @property
    def is_whole(self) -> bool:
        """Whether every job that has ended is named."""
        return self.ended == len(self.jobs) + len(self.others)


def build(of: int, ended: Sequence[tuple[str, Job | None, float]], why: str, at: float) -> dict[str, Any]:
    """Return the payload of the event.

    :param of: how many jobs were waited for.
    :param ended: of each that has ended its id, the completed job or ``None``, and when that was seen.
    :param why: the worker is woken.
    :param at: epoch seconds.
    """
    left = MOST_BYTES
    named: list[tuple[str, Job | None, float]] = []
    for one in ended:
        left -= _length(one[0])
        if left < 0:
            break
        named.append(one)
    jobs: list[list[Any]] = []
    others: list[str] = []
    for job_id, job, seen_at in named:
        item = None if job is None else [job_id, job.url, job.width, job.height, job.ai_credits_used, seen_at]
        more = 0 if item is None else _length(item) - _length(job_id)
        if item is None or more > left:
            others.append(job_id)
        else:
            left -= more
            jobs.append(item)
    return {"of": of, "ended": len(ended), "why": why, "at": at, "jobs": jobs, "others": others}


def read(payload: Any) -> Seen | None:
    """Return what :func:`build` was given; ``None`` for anything that :func:`build` does not make."""
    if not isinstance(payload, dict):
        return None
    wanted: Any = (payload.get(name) for name in ("of", "ended", "at", "jobs", "others"))
    of, ended, at, items, others = wanted
    if not (_is_count(of) and _is_count(ended) and _is_number(at)):
        return None
    if not (isinstance(items, list) and isinstance(others, list)):
        return None
    jobs, seen_at = {}, {}
    try:
        for item in items:
            job_id, url, width, height, credits_used, when = item
            if not (_is_number(when) and all(value is None or _is_count(value) for value in (width, height))):
                return None
            if not (credits_used is None or _is_number(credits_used)):
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
    return Seen(of=of, ended=ended, at=at, jobs=jobs, seen_at=seen_at, others=named)


def for_log(payload: dict[str, Any]) -> dict[str, Any]:
    """Return a payload fit for a log: Airflow logs events whole, and a result URL's query may hold a token."""
    jobs = payload.get("jobs")
    if not isinstance(jobs, list):
        return payload
    shown = [[item[0], without_query(item[1])] for item in jobs[:1]]
    more = [f"and {len(jobs) - 1} more"] if len(jobs) > 1 else []
    others = payload.get("others")
    return {**payload, "jobs": [*shown, *more], "others": len(others) if isinstance(others, list) else others}


def _length(value: Any) -> int:
    return len(json.dumps(value)) + _BESIDE


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < float("inf")
