# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Buy, adopt, or ask a human: what a try does about the submission that an earlier one left on record.

An *intent* is put on record right before the paid request, and the jobId right after it. So whatever a
crash leaves behind says how far it had got:

===========================================  ==========================================================
what is on record                            what the next try does
===========================================  ==========================================================
nothing                                      submits
an intent of before a user's clear           submits, and names what it leaves behind
a jobId of before a user's clear             the same
an intent without a jobId                    :class:`SubmitOutcomeUnknown`
a jobId, put there by hand                   adopts it, after a clear too
a jobId, of this request                     adopts it, running or finished
a jobId, of another request                  adopts it with a warning; a mapped task refuses, and names both
something that cannot be read, or that a     :class:`SubmitOutcomeUnknown`
later release has written
===========================================  ==========================================================

Before it adopts a job it looks at it, once:

===========================================  ==========================================================
Pictory says                                 the try
===========================================  ==========================================================
in-progress, completed, any other status     adopts it
no answer, for a cause that may pass         adopts it all the same
failed, or cleaned                           submits
no such job, in its first minute             adopts it
no such job                                  :class:`SubmitOutcomeUnknown`
401, 403, 400                                the error
===========================================  ==========================================================

A retry leaves ``ti.max_tries`` alone, and a user's clear sets it anew: to the tries that were made, plus the
``retries`` that the DAG then gives the task. So it moves, unless ``retries`` was lowered by just as much. For that
case a try that has ended for good says so on the record, and where ``retries`` is another now, what follows is a
clear. Where ``retries`` is the same it cannot be one, whatever the record says: a worker may die between its last
word and Airflow's hearing of it, and is then tried again. The number of the try and the id of the task instance
change with both, so they say nothing.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, NamedTuple

from pictory_provider.api.checks import public_name
from pictory_provider.api.errors import JobNotFound, PictoryError, RequestInvalid, SubmitOutcomeUnknown
from pictory_provider.api.models import ImageRequest, Job, JobState
from pictory_provider.api.retry import is_passing
from pictory_provider.api.timing import TIMING
from pictory_provider.jobs.ledger import (
    Purchase,
    count_or_none,
    number_or_none,
    price_of,
    purchases_from_dict,
    purchases_to_dict,
)

KEY = "pictory_submission"
"""The key of the record in the state store of a task."""
VERSION = 1
"""Of the record's form. The first release wrote none; what it wrote reads the same."""
_SHOWN = 160
"""How many characters of a prompt an error text shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What is on record of one purchase.

    :param job_id: ``None`` for an intent.
    :param fingerprint: of what was asked for (:func:`fingerprint`).
    :param max_tries: Airflow's ``ti.max_tries`` of the try that wrote it.
    :param intended_at: epoch seconds, right before the request.
    :param submitted_at: epoch seconds, right after the reply.
    :param credits_before: AI credits used right before the request; ``None`` where Pictory did not say.
    :param retries: of the task in the try that wrote it.
    :param request: what was asked for (:func:`asked_for`).
    :param has_ended: whether the try that wrote it has ended for good, well or not.
    :param path: where the picture was to be saved, as the try that wrote it rendered it.
    :param shown_before: what the ledger showed right before the request (:class:`Purchase`).
    :param used_before: AI credits that the account had used right before it, for the limits (:class:`Purchase`).
    :param earlier: what the task has bought, or may have bought, before this purchase.
    :param before_clear: AI credits of :attr:`purchases` that it had bought when it was last cleared.
    """

    job_id: str | None = None
    fingerprint: str | None = None
    max_tries: int | None = None
    retries: int | None = None
    request: dict[str, Any] | None = None
    has_ended: bool = False
    intended_at: float | None = None
    submitted_at: float | None = None
    credits_before: float | None = None
    path: str | None = None
    shown_before: int | None = None
    used_before: float | None = None
    earlier: tuple[Purchase, ...] = ()
    before_clear: float = 0.0

    @property
    def purchases(self) -> tuple[Purchase, ...]:
        """Everything that the task has bought, or may have bought, the last purchase among them."""
        if self.intended_at is None:
            return self.earlier
        price = price_of(self.request)
        return (*self.earlier, Purchase(self.intended_at, price, self.shown_before, self.used_before))

    @property
    def is_by_hand(self) -> bool:
        """Whether a user put the jobId there: the operator writes it together with its time."""
        return self.job_id is not None and self.submitted_at is None

    def is_before_a_clear(self, *, max_tries: int, retries: int | None) -> bool:
        """Whether a user has cleared the task since it was written; see the top of this module."""
        was_lowered = self.has_ended and None not in (retries, self.retries) and retries != self.retries
        return not self.is_by_hand and (self.max_tries != max_tries or was_lowered)

    def plain(self) -> dict[str, Any]:
        """Return the JSON that is kept."""
        fields = {
            "version": VERSION,
            "jobId": self.job_id,
            "fingerprint": self.fingerprint,
            "request": self.request,
            "max_tries": self.max_tries,
            "retries": self.retries,
            "has_ended": self.has_ended or None,
            "intended_at": self.intended_at,
            "submitted_at": self.submitted_at,
            "credits_before": self.credits_before,
            "path": self.path,
            "shown_before": self.shown_before,
            "used_before": self.used_before,
            **purchases_to_dict("earlier", self.earlier),
            "before_clear": self.before_clear or None,
        }
        return {name: value for name, value in fields.items() if value is not None}

    @classmethod
    def read(cls, value: Any) -> Submission | None:
        """Read what is kept. By hand, ``{"jobId": "..."}`` or the bare jobId will do.

        :return: ``None`` for what is neither an intent nor a jobId.
        """
        if isinstance(value, str):
            value = {"jobId": value}
        if not isinstance(value, dict) or value.get("version", VERSION) != VERSION:
            return None
        job_id = value.get("jobId", value.get("job_id"))
        if job_id is not None and not (isinstance(job_id, str) and job_id.strip() not in ("", "None")):
            return None
        request, path, earlier = value.get("request"), value.get("path"), purchases_from_dict("earlier", value)
        if earlier is None:
            return None
        found = cls(
            job_id=job_id.strip() if job_id else None,
            fingerprint=value.get("fingerprint"),
            max_tries=_count(value.get("max_tries")),
            retries=_count(value.get("retries")),
            request=request if isinstance(request, dict) else None,
            has_ended=value.get("has_ended") is True,
            intended_at=_seconds(value.get("intended_at")),
            submitted_at=_seconds(value.get("submitted_at")),
            credits_before=_seconds(value.get("credits_before")),
            path=path if isinstance(path, str) else None,
            shown_before=count_or_none(value.get("shown_before")),
            used_before=number_or_none(value.get("used_before")),
            earlier=earlier,
            before_clear=_seconds(value.get("before_clear")) or 0.0,
        )
        return found if found.job_id or found.max_tries is not None else None


class Submit(NamedTuple):
    """Buy it.

    :param warning: what is left behind by that; for the log.
    """

    warning: str | None = None


class LookFirst(NamedTuple):
    """Ask how the job on record stands, and hand the answer to :func:`after_look`.

    :param begins_anew: whether the wait for it begins now, and not with its submission.
    :param is_ours: whether this task has bought it.
    :param if_gone: the error where Pictory has no such job any more; ``None`` where it is then bought.
    :param if_alive: the error unless it came to nothing; ``None`` where it is then adopted.
    """

    found: Submission
    job_id: str
    warning: str | None = None
    begins_anew: bool = False
    is_ours: bool = True
    if_gone: PictoryError | None = None
    if_alive: PictoryError | None = None


class Adopt(NamedTuple):
    """Take a job for this try's own: the one on record, or the one that it has just submitted.

    :param submitted_at: epoch seconds at which the wait for it began.
    :param answer: what Pictory said of it now; a first look that need not be repeated.
    :param found: what is on record of it, where it was found there.
    :param is_to_keep: whether that has to be put on record anew.
    """

    job_id: str
    submitted_at: float
    answer: Job | PictoryError | None = None
    found: Submission = Submission()
    warning: str | None = None
    is_to_keep: bool = False


def asked_for(request: ImageRequest) -> dict[str, Any]:
    """Return what decides the picture, by Pictory's names, as it is kept on record.

    The webhook decides nothing, and the query of a reference image's URL is often a signature that changes.
    """
    body: dict[str, Any] = dict(request.body())
    body.pop("webhook", None)
    if "referenceImageUrl" in body:
        body["referenceImageUrl"] = public_name(body["referenceImageUrl"])
    return body


def request_of(asked: dict[str, Any]) -> ImageRequest | None:
    """Return prompt and model of what :func:`asked_for` gave; ``None`` where it does not tell them."""
    if not all(isinstance(asked.get(name), str) for name in ("prompt", "model")):
        return None
    return ImageRequest(prompt=asked["prompt"], model=asked["model"], allow_unlisted=True)


def fingerprint(conn_id: str, asked: dict[str, Any]) -> str:
    """Return what tells one purchase from another: the connection, and all that decides the picture.

    :param asked: of :func:`asked_for`; JSON.

    It is made of what was asked for and of nothing else, so a field that a later release knows changes none that
    was made without it.
    """
    body = {**asked, "conn_id": conn_id}
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
) -> Submit | LookFirst | SubmitOutcomeUnknown | RequestInvalid:
    """Decide what a try does first. The table is at the top of this module.

    :param value: what is on record, as the store gave it; ``None`` for nothing.
    :param wanted: the fingerprint of this try's request.
    :param max_tries: Airflow's ``ti.max_tries`` of this try.
    :param retries: of the task, now.
    :param request: what this try asks for (:func:`asked_for`), for the text of a refusal.
    :param to_buy: what has to be done to buy it, for the same.
    """
    if value is None:
        return Submit()
    found = Submission.read(value)
    if found is None:
        return SubmitOutcomeUnknown.because(
            f"an earlier try left a record that cannot be read: {repr(value)[:200]}. Correct it to adopt a job, "
            "or delete it to buy the picture"
        )
    if found.job_id and found.is_by_hand:
        return LookFirst(found, found.job_id)
    if found.is_before_a_clear(max_tries=max_tries, retries=retries):
        return Submit(
            f"This task was cleared, so the picture is bought again. The job of before the clear, "
            f"{found.job_id or 'whose jobId is not known'}, is left behind."
        )
    if found.job_id is None:
        return SubmitOutcomeUnknown.because(
            "an earlier try of this task ended between its intent to submit and the record of Pictory's answer "
            "(its log may name the jobId)"
        )
    if found.fingerprint == wanted:
        return LookFirst(found, found.job_id)
    if is_mapped:
        return RequestInvalid(
            f"Job {found.job_id} is on record for this map index, and was bought for another request. "
            f"It was bought for {told(found.request)}. This try asks for {told(request)}. Either the mapped "
            "list has changed, or a template renders differently at every try. Nothing was sent and nothing was "
            f"spent. To buy this request, {to_buy}. "
            f'PictoryJobSensor(job_id="{found.job_id}") waits for the other picture.',
            fields=_differing(found.request, request),
        )
    return LookFirst(
        found,
        found.job_id,
        f"Job {found.job_id} was submitted by an earlier try, with a request that rendered differently or over "
        f"another connection. It is adopted all the same. To buy a picture of the new request, {to_buy}.",
    )


def after_look(look: LookFirst, answer: Job | PictoryError, now: float) -> Adopt | Submit | PictoryError:
    """Decide what follows the look at the job on record. The second table is at the top of this module.

    :param now: epoch seconds.
    """
    submitted_at = look.found.submitted_at
    is_young = submitted_at is not None and now - submitted_at < TIMING.unknown_job
    is_missing = isinstance(answer, JobNotFound) and not is_young
    state = answer.state if isinstance(answer, Job) else None
    if look.if_gone and (is_missing or state is JobState.CLEANED):
        return look.if_gone
    if state is JobState.FAILED or state is JobState.CLEANED:
        return Submit(
            f"Job {look.job_id}, which was submitted before, is {state.value}; the picture is bought again."
        )
    if isinstance(answer, PictoryError) and not isinstance(answer, JobNotFound) and not is_passing(answer):
        return answer
    if look.if_alive:
        return look.if_alive
    if is_missing:
        return SubmitOutcomeUnknown.because(f"job {look.job_id} is on record, and Pictory knows no such job")
    return Adopt(
        look.job_id,
        now if submitted_at is None or look.begins_anew else submitted_at,
        answer,
        look.found,
        warning=look.warning,
        is_to_keep=look.is_ours and (look.begins_anew or look.found.is_by_hand),
    )


def told(request: dict[str, Any] | None) -> str:
    """Return what :func:`asked_for` gave in one line; the first release kept none."""
    if request is None:
        return "a request that is not on record"
    shown = {name: value if len(str(value)) <= _SHOWN else f"{value[:_SHOWN]}…" for name, value in request.items()}
    return ", ".join(f"{name} {value!r}" for name, value in shown.items())


def _differing(one: dict[str, Any] | None, other: dict[str, Any] | None) -> list[str]:
    one, other = one or {}, other or {}
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _seconds(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number else None
