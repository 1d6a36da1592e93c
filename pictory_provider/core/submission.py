# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Decide whether an attempt submits, adopts the job on record, or stops with an error.

The task records an *intent* right before the paid request, and the jobId right after it. So after a crash the
record shows how far the attempt got:

===========================================  ==========================================================
on record                                    the next attempt
===========================================  ==========================================================
nothing                                      submits
an intent from before a user's clear         submits, and names the submission that it leaves behind
a jobId from before a user's clear           the same
an intent without a jobId                    :class:`SubmitOutcomeUnknown`
a jobId that a user recorded                 adopts it, after a clear too
a jobId of this request                      adopts it, running or finished
a jobId of another request                   adopts it with a warning; a mapped task refuses and names both
something unreadable, or written by a later  :class:`SubmitOutcomeUnknown`
release
===========================================  ==========================================================

Before it adopts a job, the attempt polls it once:

===========================================  ==========================================================
Pictory's answer                             the attempt
===========================================  ==========================================================
in-progress, completed, any other status     adopts it
no answer, because of a transient error      adopts it
failed, or cleaned                           submits
job not found, in its first minute           adopts it
job not found, later                         :class:`SubmitOutcomeUnknown`
401, 403, 400                                raises the error
===========================================  ==========================================================

What tells a clear from a retry is in :mod:`pictory_provider.core.attempt`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pictory_provider.api.checks import public_name
from pictory_provider.api.decoding import (
    any_number_or_none,
    count_or_none,
    int_or_none,
    number_or_none,
    parse_json,
)
from pictory_provider.api.errors import (
    NOTHING_SPENT,
    JobNotFound,
    PictoryError,
    RequestInvalid,
    SubmitOutcomeUnknown,
)
from pictory_provider.api.models import ImageRequest, Job, JobState
from pictory_provider.api.retry import is_transient
from pictory_provider.api.text import shorten
from pictory_provider.api.timing import TIMING
from pictory_provider.core.attempt import Attempt
from pictory_provider.core.ledger import Charge, price_of, purchases_from_dict, purchases_to_dict, total

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pictory_provider.core.sidecar import Sidecar

KEY = "pictory_submission"
"""The key of the record in the task state store."""
VERSION = 1
"""Version of the record's format. Version 0.1.0 did not write one; its records have the same format."""
_FIELDS = (
    *("job_id", "fingerprint", "request", "max_tries", "retries", "has_ended", "intended_at", "submitted_at"),
    *("credits_before", "path", "shown_before", "used_before"),
)
_SHOWN = 160
"""Characters of a prompt that an error text shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PurchaseRecord:
    """What single tasks and batches record of a paid request.

    :param request: the fields that decide the picture (:func:`canonical_request`).
    :param job_id: ``None`` for an intent.
    :param intended_at: epoch seconds, right before the request.
    :param submitted_at: epoch seconds, right after the reply.
    :param shown_before: what the ledger showed right before the request (:class:`Charge`).
    :param used_before: AI credits that the account had used right before it (:class:`Charge`).
    :param earlier: the charges, certain or possible, of the requests that this record has replaced.
    """

    request: dict[str, Any] | None = None
    job_id: str | None = None
    intended_at: float | None = None
    submitted_at: float | None = None
    shown_before: int | None = None
    used_before: float | None = None
    earlier: tuple[Charge, ...] = ()

    @property
    def is_charged(self) -> bool:
        """Whether the request was charged, or may have been."""
        return self.intended_at is not None

    @property
    def purchases(self) -> tuple[Charge, ...]:
        """All charges, certain or possible, including that of this request."""
        if self.intended_at is None or not self.is_charged:
            return self.earlier
        price = price_of(self.request)
        return (*self.earlier, Charge(self.intended_at, price, self.shown_before, self.used_before))

    def fields(self, names: Iterable[str]) -> dict[str, Any]:
        """Return these fields as JSON, by their names in a record, with :attr:`earlier` after them."""
        fields = {"jobId" if name == "job_id" else name: getattr(self, name) for name in names}
        return fields | purchases_to_dict("earlier", self.earlier)


def charge_fields(charge: Charge) -> dict[str, Any]:
    """Return the fields of a record whose request is about to be sent.

    :param charge: as it was counted against the limits.
    """
    return {"intended_at": charge.at, "shown_before": charge.shown_before, "used_before": charge.used_before}


def money_fields(value: dict[str, Any]) -> dict[str, Any] | None:
    """Read times and charges of a record; ``None`` if what was spent before cannot be read.

    :param value: the record's JSON.
    """
    earlier = purchases_from_dict("earlier", value)
    if earlier is None:
        return None
    return {
        "intended_at": any_number_or_none(value.get("intended_at")),
        "submitted_at": any_number_or_none(value.get("submitted_at")),
        "shown_before": count_or_none(value.get("shown_before")),
        "used_before": number_or_none(value.get("used_before")),
        "earlier": earlier,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission(PurchaseRecord):
    """The record of a task's submission.

    :param fingerprint: of the request (:func:`fingerprint`).
    :param max_tries: Airflow's ``ti.max_tries`` in the attempt that wrote the record.
    :param retries: of the task in that attempt.
    :param has_ended: whether that attempt has ended for good, successfully or not.
    :param credits_before: AI credits used right before the request; ``None`` if Pictory did not say.
    :param path: where the picture was to be saved, as rendered by that attempt.
    :param before_clear: AI credits of :attr:`purchases` that were spent when the task was last cleared.
    """

    fingerprint: str | None = None
    max_tries: int | None = None
    retries: int | None = None
    has_ended: bool = False
    credits_before: float | None = None
    path: str | None = None
    before_clear: float = 0.0

    @property
    def credits_since_clear(self) -> float:
        """AI credits that the task has spent since it was last cleared."""
        return total(self.purchases) - self.before_clear

    @property
    def is_from_user(self) -> bool:
        """Whether a user recorded the jobId: the operator always writes it together with its time."""
        return self.job_id is not None and self.submitted_at is None

    def is_before_a_clear(self, *, max_tries: int, retries: int | None) -> bool:
        """Whether a user has cleared the task since this was written (:mod:`pictory_provider.core.attempt`)."""
        earlier = Attempt(self.max_tries, self.retries)
        is_clear = Attempt(max_tries, retries).is_clear_after(earlier, has_ended=self.has_ended)
        return is_clear and not self.is_from_user

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON."""
        fields = {"version": VERSION, **self.fields(_FIELDS), "before_clear": self.before_clear or None}
        fields["has_ended"] = self.has_ended or None
        return {name: value for name, value in fields.items() if value is not None}

    @classmethod
    def from_dict(cls, value: Any) -> Submission | None:
        """Read a record. A user may also store ``{"jobId": "..."}`` or the bare jobId.

        :return: ``None`` for anything that is neither an intent nor a jobId.
        """
        if isinstance(value, str):
            value = {"jobId": value}
        if not isinstance(value, dict) or value.get("version", VERSION) != VERSION:
            return None
        job_id = value.get("jobId", value.get("job_id"))
        if job_id is not None and not (isinstance(job_id, str) and job_id.strip() not in ("", "None")):
            return None
        request, path, money = value.get("request"), value.get("path"), money_fields(value)
        if money is None:
            return None
        found = cls(
            job_id=job_id.strip() if job_id else None,
            fingerprint=value.get("fingerprint"),
            request=request if isinstance(request, dict) else None,
            max_tries=int_or_none(value.get("max_tries")),
            retries=int_or_none(value.get("retries")),
            has_ended=value.get("has_ended") is True,
            credits_before=any_number_or_none(value.get("credits_before")),
            path=path if isinstance(path, str) else None,
            before_clear=any_number_or_none(value.get("before_clear")) or 0.0,
            **money,
        )
        return found if found.job_id or found.max_tries is not None else None


class Submit(NamedTuple):
    """Submit a paid request.

    :param warning: the submission that this leaves behind; for the log.
    :param replaces: the sidecar of the saved picture of another request that the new one replaces.
    """

    warning: str | None = None
    replaces: Sidecar | None = None


class PollFirst(NamedTuple):
    """Poll the job on record, and pass the answer to :func:`after_poll`.

    :param begins_anew: whether the wait begins now, and not at the job's submission.
    :param is_ours: whether this task submitted the job.
    :param if_gone: the error to return if Pictory no longer has the job; if ``None``, the job is submitted again.
    :param if_alive: the error to return unless the job failed; if ``None``, the job is adopted.
    """

    found: Submission
    job_id: str
    warning: str | None = None
    begins_anew: bool = False
    is_ours: bool = True
    if_gone: PictoryError | None = None
    if_alive: PictoryError | None = None


class Adopt(NamedTuple):
    """Wait for a job as this attempt's own: the job on record, or one that it has just submitted.

    :param submitted_at: epoch seconds at which the wait began.
    :param answer: Pictory's answer about the job just now; a first poll that need not be repeated.
    :param found: the job's record, if it was found there.
    :param is_to_record: whether the record must be written again.
    """

    job_id: str
    submitted_at: float
    answer: Job | PictoryError | None = None
    found: Submission = Submission()
    warning: str | None = None
    is_to_record: bool = False


def key_of(candidate: int | None) -> str:
    """Return the key of a record in the task state store.

    :param candidate: the number of the picture among the candidates of its task; ``None`` if there is only one.
    """
    return KEY if candidate is None else f"{KEY}_{candidate}"


def canonical_request(request: ImageRequest) -> dict[str, Any]:
    """Return the fields that decide the picture, by Pictory's names, as they are recorded.

    The webhook is left out: it does not change the picture.
    """
    body: dict[str, Any] = dict(request.body())
    body.pop("webhook", None)
    return canonicalize(body)


def canonicalize(request: dict[str, Any]) -> dict[str, Any]:
    """Return a request in the form in which all records keep it and two requests are compared.

    A reference image is reduced to its public name: the query of its URL is often a signature that changes, and
    the Airflow connection that reads a private one does not change the picture. Everything else is passed through
    JSON, which joins the two halves of a surrogate pair into one character.

    :param request: JSON, by Pictory's names; of this release or an earlier one.
    """
    request = parse_json(json.dumps(request))
    if isinstance(reference := request.get("referenceImageUrl"), str):
        request["referenceImageUrl"] = public_name(reference)
    return request


def is_same_request(one: dict[str, Any] | None, other: dict[str, Any] | None) -> bool:
    """Whether two recorded requests ask for the same picture. An unknown request never equals another."""
    if one is None or other is None:
        return False
    first, second = (json.dumps(canonicalize(each), sort_keys=True) for each in (one, other))
    return first == second  # as JSON, in which 1 is neither true nor 1.0


def unknown_job(job_id: str) -> str:
    """Return why an outcome is unknown although Pictory has returned a jobId, without a full stop."""
    return (
        f"job {job_id} is on record, but Pictory does not know it. Pictory accepted the request then; it may have "
        "deleted the job, or the connection has the key of another account, or a proxy answers in Pictory's place"
    )


def request_of(request: dict[str, Any]) -> ImageRequest | None:
    """Return prompt and model of a :func:`canonical_request`; ``None`` if it lacks one of them."""
    if not all(isinstance(request.get(name), str) for name in ("prompt", "model")):
        return None
    return ImageRequest(prompt=request["prompt"], model=request["model"], allow_unlisted=True)


def fingerprint(conn_id: str, request: dict[str, Any]) -> str:
    """Return the identity of a submission: a digest of the connection and of all fields that decide the picture.

    :param request: of :func:`canonical_request`; JSON.

    It depends on nothing else, so fields that a later release adds do not change the fingerprint of requests
    without them.
    """
    body = {**request, "conn_id": conn_id}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:32]


def first_step(
    value: Any,
    *,
    wanted: str,
    max_tries: int,
    is_mapped: bool,
    retries: int | None = None,
    request: dict[str, Any] | None = None,
    to_buy: str = "clear the task",
) -> Submit | PollFirst | SubmitOutcomeUnknown | RequestInvalid:
    """Decide what an attempt does first. The table is at the top of this module.

    :param value: the record as the store returned it; ``None`` for nothing.
    :param wanted: the fingerprint of this attempt's request.
    :param max_tries: Airflow's ``ti.max_tries`` in this attempt.
    :param retries: of the task, now.
    :param request: of this attempt (:func:`canonical_request`), for the text of a refusal.
    :param to_buy: what the user has to do to buy the picture, for the same text.
    """
    if value is None:
        return Submit()
    found = Submission.from_dict(value)
    if found is None:
        return SubmitOutcomeUnknown.because(
            f"an earlier attempt left a record that cannot be read: {repr(value)[:200]}. Correct it to adopt a "
            "job, or delete it to buy the picture"
        )
    if found.job_id and found.is_from_user:
        return PollFirst(found, found.job_id)
    if found.is_before_a_clear(max_tries=max_tries, retries=retries):
        return Submit(
            "This task was cleared, so the picture is bought again. The job from before the clear "
            f"({found.job_id or 'jobId unknown'}) is left behind."
        )
    if found.job_id is None:
        return SubmitOutcomeUnknown.because(
            "an earlier attempt of this task ended after it recorded its intent to submit and before it recorded "
            "Pictory's answer (its log may name the jobId)"
        )
    if found.fingerprint == wanted:
        return PollFirst(found, found.job_id)
    if is_mapped:
        return RequestInvalid(
            f"Job {found.job_id} is on record for this map index, and was bought for another request. It was "
            f"bought for {describe_request(found.request)}. This attempt requests {describe_request(request)}. "
            "Either the mapped list has changed, or a template renders differently in every attempt. "
            f"{NOTHING_SPENT} To buy this request, {to_buy}. "
            f'PictoryJobSensor(job_id="{found.job_id}") waits for the other picture.',
            fields=_differing(found.request, request),
        )
    return PollFirst(
        found,
        found.job_id,
        f"An earlier attempt submitted job {found.job_id} with a request that rendered differently, or through "
        f"another connection. The job is adopted anyway. To buy a picture of the new request, {to_buy}.",
    )


def after_poll(poll: PollFirst, answer: Job | PictoryError, now: float) -> Adopt | Submit | PictoryError:
    """Decide what to do after polling the job on record. The second table is at the top of this module.

    :param now: epoch seconds.
    """
    submitted_at = poll.found.submitted_at
    is_young = submitted_at is not None and now - submitted_at < TIMING.unknown_job
    is_missing = isinstance(answer, JobNotFound) and not is_young
    state = answer.state if isinstance(answer, Job) else None
    if poll.if_gone and (is_missing or state is JobState.CLEANED):
        return poll.if_gone
    if state is JobState.FAILED or state is JobState.CLEANED:
        return Submit(
            f"Job {poll.job_id}, submitted by an earlier attempt, is {state.value}; the picture is bought again."
        )
    if isinstance(answer, PictoryError) and not isinstance(answer, JobNotFound) and not is_transient(answer):
        return answer
    if poll.if_alive:
        return poll.if_alive
    if is_missing:
        return SubmitOutcomeUnknown.because(unknown_job(poll.job_id))
    return Adopt(
        poll.job_id,
        now if submitted_at is None or poll.begins_anew else submitted_at,
        answer,
        poll.found,
        warning=poll.warning,
        is_to_record=poll.is_ours and (poll.begins_anew or poll.found.is_from_user),
    )


def describe_request(request: dict[str, Any] | None) -> str:
    """Return a :func:`canonical_request` in one line; version 0.1.0 did not record the request."""
    if request is None:
        return "a request that is not on record"
    return ", ".join(
        f"{name} {value if len(text := str(value)) <= _SHOWN else shorten(text, _SHOWN)!r}"
        for name, value in request.items()
    )


def _differing(one: dict[str, Any] | None, other: dict[str, Any] | None) -> list[str]:
    one, other = one or {}, other or {}
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))
