# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What becomes of one row: reuse, adopt, buy, or say why not.

*Earlier* is before the batch was last taken in hand anew, by a clear or by another run; what a retry finds is not
earlier. *Its picture* is one whose sidecar says that this very request made it, with the size that it says.

===============================  ==============================  =================================================
on record                        in its place                    the row
===============================  ==============================  =================================================
a page that cannot be read       whatever                        unknown; a clear buys it where the page is gone
bought, or failed adoptably      that job's picture              saved; with ``overwrite`` and earlier, bought
bought                           whatever else                   adopted
failed adoptably                 whatever else                   adopted, once a try
saved                            that job's picture              saved; earlier, reused, or bought with
                                                                 ``overwrite``
saved, not earlier               whatever else                   adopted: the picture is fetched again
failed, not earlier              whatever                        failed
unknown, or an intent            whatever                        unknown; with ``resubmit`` bought, once a try
nothing, or what is settled      nothing, or a sidecar alone     bought
nothing, or what is settled      its picture                     reused; with ``overwrite`` bought
nothing, or what is settled      a sidecar: bought by this       adopted; with ``overwrite`` bought
                                 very request
nothing, or what is settled      a sidecar: an intent            unknown: somebody buys it now, or nobody can know
nothing, or what is settled      a sidecar that cannot be read   refused, with ``overwrite`` too
nothing, or what is settled      any other file                  refused; with ``overwrite`` bought
nothing, or what is settled      a folder, or in the place of    refused, with ``overwrite`` too
                                 its sidecar
===============================  ==============================  =================================================

*Settled* is what failed, or was saved, earlier, and what was unknown before a user's clear.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from pictory_provider.batch.entries import BOUGHT, FAILED, INTENT, SAVED, UNKNOWN
from pictory_provider.batch.journal import page_of
from pictory_provider.batch.opening import unreadable_pages

if TYPE_CHECKING:
    from pictory_provider.batch.entries import Entry, Header
    from pictory_provider.batch.journal import Journal
    from pictory_provider.batch.rows import Row


OUTCOME_UNKNOWN, RECORD_UNREADABLE = "SUBMIT_OUTCOME_UNKNOWN", "RECORD_UNREADABLE"
"""Why nobody can know of a row whether it was bought."""


class Place(Enum):
    """Where a row stands. Each row is in one of them; the values are the names in the progress."""

    TO_DO = "to_do"
    WAITING = "waiting"
    SAVED = "saved"
    REUSED = "reused"
    FAILED = "failed"
    UNKNOWN = "unknown"
    NOT_BOUGHT = "not_bought"


class Picture(NamedTuple):
    """A picture in its place, as its sidecar tells it; what it does not tell is ``None``.

    :param ai_credits_used: by its job.
    :param width: pixels.
    :param height: pixels.
    :param size: bytes.
    :param file_name: where it lies, where that is not its row's own place.
    """

    job_id: str
    ai_credits_used: float | None = None
    width: int | None = None
    height: int | None = None
    size: int | None = None
    sha256: str | None = None
    file_name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What lies where a row's picture goes.

    :param state: of the sidecar: ``intent``, ``bought`` or ``saved``; ``None`` where there is none to be read.
    :param asked: the sidecar's request.
    :param job_id: the sidecar's.
    :param submitted_at: the sidecar's; epoch seconds.
    :param has_file: whether there is a file in the picture's place.
    :param folder: the folder that is in the place of the picture or its sidecar; ``None`` for none.
    :param picture: what the sidecar says of it; ``None`` where there is no file, or its size is another.
    :param by: whose sidecar it is, for a text.
    :param problem: why a sidecar that is there cannot be read.
    """

    state: str | None = None
    asked: dict[str, Any] | None = None
    job_id: str | None = None
    submitted_at: float | None = None
    has_file: bool = False
    folder: str | None = None
    picture: Picture | None = None
    by: str = "another task"
    problem: str | None = None


class Decision(NamedTuple):
    """What becomes of a row.

    :param job_id: to be adopted.
    :param submitted_at: epoch seconds; ``None`` where nobody knows.
    :param picture: that lies there.
    :param code: and a message, of what failed, is unknown, or is refused.
    :param is_refused: something lies in its place that nobody may replace unasked.
    """

    place: Place
    job_id: str | None = None
    submitted_at: float | None = None
    picture: Picture | None = None
    code: str | None = None
    message: str | None = None
    is_refused: bool = False


BUY = Decision(Place.TO_DO)


def decide(row: Row, journal: Journal, found: Found | None, *, overwrite: bool, resubmit: bool) -> Decision:
    """Decide what becomes of a row. The table is at the top of this module.

    :param found: what lies in its place; ``None`` for nothing.
    :param resubmit: rather pay twice than wait for somebody.
    """
    entry, header = journal.get(row.key), journal.header
    if entry is None:
        return _without_page(row, journal) or _by_folder(row, found, overwrite=overwrite)
    if entry.state in (INTENT, UNKNOWN):
        if entry.tried >= header.cleared:
            return BUY if resubmit and may_resubmit(entry, header) else is_unknown(entry)
        return _by_folder(row, found, overwrite=overwrite)
    by_job = _by_job(entry, header, found, overwrite=overwrite)
    return by_job or _by_folder(row, found, overwrite=overwrite)


def _by_job(entry: Entry, header: Header, found: Found | None, *, overwrite: bool) -> Decision | None:
    """Decide by the job on record; ``None`` where that is settled."""
    is_earlier = entry.tried < header.since
    there = found.picture if found and found.state == SAVED else None
    if entry.state != FAILED or entry.adoptable:
        if there is not None and there.job_id == entry.job_id:
            if is_earlier and overwrite:
                return BUY
            return Decision(Place.REUSED if is_earlier and entry.state == SAVED else Place.SAVED, picture=there)
        if entry.state == BOUGHT or (entry.state == SAVED and not is_earlier):
            return Decision(Place.WAITING, entry.job_id, entry.submitted_at)
    if entry.state == FAILED:
        if entry.adoptable and entry.tried < header.tries:
            return Decision(Place.WAITING, entry.job_id, entry.submitted_at)
        if entry.adoptable or not is_earlier:
            return Decision(Place.FAILED, code=entry.code, message=entry.message, job_id=entry.job_id)
    return None


def may_resubmit(entry: Entry, header: Header) -> bool:
    """Whether a row whose outcome is unknown may be bought again by this try, which may do so once."""
    return not (entry.again and entry.tried == header.tries)


def is_unknown(entry: Entry) -> Decision:
    """Return the decision about a row of which nobody can know whether it was bought."""
    why = entry.message or ("an earlier try ended between its intent to submit and the record of Pictory's answer")
    return Decision(Place.UNKNOWN, code=OUTCOME_UNKNOWN, message=why)


def _without_page(row: Row, journal: Journal) -> Decision | None:
    page = page_of(row.index)
    if page not in journal.unreadable and page not in journal.missing:
        return None
    what = "cannot be read" if page in journal.unreadable else "is not there any more"
    return Decision(
        Place.UNKNOWN,
        code=RECORD_UNREADABLE,
        message=f"the record of its page, {unreadable_pages(journal, {page})}, {what}",
    )


def _by_folder(row: Row, found: Found | None, *, overwrite: bool) -> Decision:
    if found is None:
        return BUY
    is_ours = found.asked == row.asked
    if found.folder:
        why = f"{found.folder} is a folder"
        return Decision(Place.NOT_BOUGHT, code="PLACE_TAKEN", message=why, is_refused=True)
    if found.problem:
        why = f"its sidecar cannot be read: {found.problem}"
        return Decision(Place.NOT_BOUGHT, code="SIDECAR_UNREADABLE", message=why, is_refused=True)
    if found.state == INTENT:
        return Decision(
            Place.UNKNOWN,
            code=OUTCOME_UNKNOWN,
            message=f"its sidecar says that {found.by} was about to buy a picture for this place: it does so "
            "now, or nobody can know whether it did",
        )
    if overwrite:
        return BUY
    if found.state == SAVED and is_ours and found.picture is not None:
        return Decision(Place.REUSED, picture=found.picture)
    if found.state == BOUGHT and is_ours and found.job_id:
        return Decision(Place.WAITING, found.job_id, found.submitted_at)
    if found.state == BOUGHT or found.has_file:
        return Decision(Place.NOT_BOUGHT, code="PLACE_TAKEN", message=_taken(found), is_refused=True)
    return BUY


def _taken(found: Found) -> str:
    if found.state is None:
        return "a file lies there that has no sidecar to say what it is"
    if found.state == BOUGHT:
        return f"its sidecar says that {found.by} has bought a picture of another request for this place"
    return (
        f"the picture of another request lies there ({(found.asked or {}).get('prompt')!r:.80})"
        if found.picture is not None
        else "a file lies there that is not of the size that its sidecar says"
    )
