# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What is on record of a batch as a whole, and of one of its rows, as values and as plain JSON.

A row is on record from the moment before it was first to be bought:

=========  =====================================================================================
state      meaning
=========  =====================================================================================
intent     the paid request was about to be sent; as an earlier try's last word: nobody can know
bought     Pictory gave a jobId; without a time it was put there by hand
saved      its picture has been in its place
failed     it was refused or has failed, or could not be saved; ``adoptable`` where the job may
           still give its picture
unknown    the request was sent, and nobody can know whether it was accepted
=========  =====================================================================================

What is none of ours, or of a later release, cannot be read, and is never taken for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pictory_provider.api.errors import RequestInvalid
from pictory_provider.batch.rows import request_of
from pictory_provider.jobs.ledger import (
    Purchase,
    count_or_none,
    number_or_none,
    price_of,
    purchases_from_dict,
    purchases_to_dict,
)

if TYPE_CHECKING:
    from pictory_provider.batch.rows import Row

VERSION = 1
"""Of the form of header and pages."""
PAGE_ROWS = 48
"""Rows of a page. A multiple of every wave's size, so that a wave needs one write."""
INTENT, BOUGHT, SAVED, FAILED, UNKNOWN = "intent", "bought", "saved", "failed", "unknown"
_STATES = (INTENT, BOUGHT, SAVED, FAILED, UNKNOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What is on record of a batch as a whole.

    :param digest: of the table (:func:`pictory_provider.batch.rows.digest_of`).
    :param parts: a short digest of each page of the table, to tell where two tables differ.
    :param of: how many rows the table has.
    :param folder: where it is.
    :param made_by: dag, run, task and map index of the task whose batch it is.
    :param max_tries: Airflow's ``ti.max_tries`` of the last try.
    :param retries: of the task in that try.
    :param has_ended: whether that try has ended for good, well or not.
    :param tries: how often a try has begun here, retries and clears alike.
    :param since: the number of the try that last took the whole table in hand anew: the first, one after a clear,
        or the first of another run. What failed before it is bought again, and so is all with ``overwrite``.
    :param cleared: the number of the try that followed the last clear; 0 for none. What was unknown before it is
        bought again: a user has seen it.
    :param generation: of the pages; a new table gets new ones.
    :param begun: the pages that have been written.
    :param stopped: why this try buys nothing more, after a deferral neither
        (:func:`pictory_provider.batch.stopping.plain`).
    :param unsaved: how many pictures in a row could not be fetched or saved, over the tries
        (:meth:`pictory_provider.batch.plan.Plan.failed`).
    :param spending: what of its spending the entries do not tell (:mod:`pictory_provider.batch.spending`).
    """

    digest: str
    parts: tuple[str, ...]
    of: int
    folder: str
    made_by: dict[str, Any]
    max_tries: int
    retries: int | None
    has_ended: bool = False
    tries: int = 1
    since: int = 1
    cleared: int = 0
    generation: int = 1
    begun: tuple[int, ...] = ()
    stopped: dict[str, Any] | None = None
    spending: dict[str, Any] | None = None
    unsaved: int = 0

    @property
    def table_pages(self) -> int:
        """How many pages the table takes. What is left of an earlier table lies on those behind them."""
        return -(-self.of // PAGE_ROWS)

    def plain(self) -> dict[str, Any]:
        """Return the JSON that is kept."""
        return {
            "version": VERSION,
            "digest": self.digest,
            "parts": list(self.parts),
            "of": self.of,
            "folder": self.folder,
            "made_by": self.made_by,
            "max_tries": self.max_tries,
            "retries": self.retries,
            "has_ended": self.has_ended,
            "tries": self.tries,
            "since": self.since,
            "cleared": self.cleared,
            "generation": self.generation,
            "begun": list(self.begun),
            "stopped": self.stopped,
            "spending": self.spending,
            **({"unsaved": self.unsaved} if self.unsaved else {}),
        }

    @classmethod
    def read(cls, value: Any) -> Header | None:
        """Read what is kept; ``None`` for what is none of this version. A value of ``None`` is not asked for."""
        if not isinstance(value, dict) or value.get("version") != VERSION:
            return None
        counts = [value.get(name) for name in ("of", "max_tries", "tries", "since", "cleared", "generation")]
        texts = [value.get("digest"), value.get("folder"), *_listed(value, "parts")]
        retries, begun = value.get("retries"), _listed(value, "begun")
        if not (
            all(_is_count(count) for count in counts + begun)
            and all(isinstance(text, str) for text in texts)
            and isinstance(value.get("made_by"), dict)
            and isinstance(value.get("has_ended"), bool)
            and (retries is None or _is_count(retries))
            and all(isinstance(value.get(name), (dict, type(None))) for name in ("stopped", "spending"))
        ):
            return None
        fields = {name: kept for name, kept in value.items() if name in cls.__slots__}
        fields["unsaved"] = count_or_none(value.get("unsaved")) or 0
        try:
            return cls(**{**fields, "parts": tuple(value["parts"]), "begun": tuple(begun)})
        except (KeyError, TypeError):
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is on record of one row.

    :param asked: what decides the picture (:func:`pictory_provider.jobs.submission.asked_for`).
    :param tried: the number of the try that bought it last, or saved it.
    :param job_id: ``None`` for an intent, and for what was refused.
    :param intended_at: epoch seconds.
    :param submitted_at: epoch seconds.
    :param code: what a failure is called, such as Pictory's error code.
    :param message: what happened.
    :param adoptable: of a failure: the job is paid for and may still give its picture.
    :param again: the try has bought it although an earlier request's outcome is unknown.
    :param shown_before: what the ledger showed right before the request (:class:`Purchase`).
    :param used_before: AI credits that the account had used right before it (:class:`Purchase`).
    :param earlier: what this batch has bought, or may have bought, for the row before that.
    """

    key: str
    index: int
    file_name: str
    asked: dict[str, Any]
    state: str
    tried: int
    job_id: str | None = None
    intended_at: float | None = None
    submitted_at: float | None = None
    code: str | None = None
    message: str | None = None
    adoptable: bool = False
    again: bool = False
    shown_before: int | None = None
    used_before: float | None = None
    earlier: tuple[Purchase, ...] = ()

    @classmethod
    def intent(
        cls, row: Row, purchase: Purchase, *, tried: int, again: bool = False, before: Entry | None = None
    ) -> Entry:
        """Return the entry of a row that is about to be bought.

        :param purchase: as it was counted against the limits.
        :param before: what is on record of it so far.
        """
        return cls(
            key=row.key,
            index=row.index,
            file_name=row.file_name,
            asked=row.asked,
            state=INTENT,
            tried=tried,
            intended_at=purchase.at,
            shown_before=purchase.shown_before,
            used_before=purchase.used_before,
            again=again,
            earlier=before.purchases if before else (),
        )

    @property
    def purchases(self) -> tuple[Purchase, ...]:
        """Everything that this batch has bought, or may have bought, for the row."""
        is_bought = self.state != FAILED or self.job_id is not None
        if self.intended_at is None or not is_bought:
            return self.earlier
        price = price_of(self.asked)
        return (*self.earlier, Purchase(self.intended_at, price, self.shown_before, self.used_before))

    @property
    def is_owed(self) -> bool:
        """Whether a picture was paid for, as far as anybody knows, and has not been delivered."""
        return self.state == BOUGHT or (self.state == FAILED and self.adoptable)

    def plain(self) -> dict[str, Any]:
        """Return the JSON that is kept."""
        fields = {
            "index": self.index,
            "file_name": self.file_name,
            "request": self.asked,
            "state": self.state,
            "tried": self.tried,
            "jobId": self.job_id,
            "intended_at": self.intended_at,
            "submitted_at": self.submitted_at,
            "code": self.code,
            "message": self.message,
            "adoptable": self.adoptable or None,
            "again": self.again or None,
            "shown_before": self.shown_before,
            "used_before": self.used_before,
            **purchases_to_dict("earlier", self.earlier),
        }
        return {name: value for name, value in fields.items() if value is not None}

    @classmethod
    def read(cls, key: Any, value: Any) -> Entry | None:
        """Read what is kept. A ``jobId`` put by hand to an intent, or to what is unknown, makes it bought.

        An empty ``jobId``, or the text ``None``, is none: what was bought with it is unknown, and its row alone.

        :return: ``None`` for what cannot be read.
        """
        if not isinstance(value, dict) or not isinstance(key, str):
            return None
        asked, state, job_id = value.get("request"), value.get("state"), value.get("jobId")
        earlier = purchases_from_dict("earlier", value)
        if not (
            isinstance(asked, dict)
            and all(isinstance(asked.get(name), str) for name in ("prompt", "model"))
            and isinstance(value.get("file_name"), str)
            and _is_count(value.get("index"))
            and _is_count(value.get("tried"))
            and state in _STATES
            and earlier is not None
            and (job_id is None or isinstance(job_id, str))
        ):
            return None
        message = _text(value.get("message"))
        if job_id is not None and job_id.strip() in ("", "None"):
            if state in (BOUGHT, SAVED):
                state, message = UNKNOWN, f"its jobId on record is {job_id!r}, which is none"
            job_id = None
        is_by_hand = state in (INTENT, UNKNOWN) and job_id is not None
        if state in (BOUGHT, SAVED) and job_id is None:
            return None
        try:
            request_of(asked)
        except RequestInvalid:
            return None
        return cls(
            key=key,
            index=value["index"],
            file_name=value["file_name"],
            asked=asked,
            state=BOUGHT if is_by_hand else state,
            tried=value["tried"],
            job_id=job_id.strip() if job_id else None,
            intended_at=_seconds(value.get("intended_at")),
            submitted_at=None if is_by_hand else _seconds(value.get("submitted_at")),
            code=_text(value.get("code")),
            message=message,
            adoptable=value.get("adoptable") is True and job_id is not None,
            again=value.get("again") is True,
            shown_before=count_or_none(value.get("shown_before")),
            used_before=number_or_none(value.get("used_before")),
            earlier=earlier,
        )


def _listed(value: dict[str, Any], name: str) -> list[Any]:
    listed = value.get(name)
    return listed if isinstance(listed, list) else [None]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _seconds(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
