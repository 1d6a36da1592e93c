# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Decide what to do with one row of a batch: reuse, adopt, submit, or report why not.

*Earlier* means before the last clear, or before another run took over the folder; what a retry finds is not
earlier. *Its picture* is one whose sidecar has this very request, and whose size is the one in the sidecar.

===============================  ==============================  =================================================
on record                        at the row's file name          the row
===============================  ==============================  =================================================
a page that cannot be read       anything                        unknown; a clear submits it if the page is
                                                                 missing
bought, or failed adoptably      that job's picture              saved; with ``overwrite`` and earlier, submitted
bought                           anything else                   adopted
failed adoptably                 anything else                   adopted, once per attempt; then owed
saved                            that job's picture              saved; if earlier reused, or submitted with
                                                                 ``overwrite``
saved, not earlier               anything else                   adopted: the picture is fetched again
failed, not earlier              anything                        failed
unknown, or an intent            anything                        unknown; with ``resubmit`` submitted, once per
                                                                 attempt
nothing, or a settled row        nothing, or a sidecar alone     submitted
nothing, or a settled row        its picture                     reused; with ``overwrite`` submitted
nothing, or a settled row        a sidecar: this very request    adopted; with ``overwrite`` submitted
                                 was bought
nothing, or a settled row        a sidecar: an intent            unknown: another task submits it now, or its
                                                                 outcome is lost
nothing, or a settled row        a sidecar that cannot be read   refused, with ``overwrite`` too
nothing, or a settled row        the picture of another request  refused; with ``overwrite`` submitted, also if
                                                                 only changed pictures are replaced
nothing, or a settled row        any other file                  refused; with ``overwrite`` submitted
nothing, or a settled row        a folder there, or at its       refused, with ``overwrite`` too
                                 sidecar's name
nothing, or a settled row        a version of another picture     refused, with ``overwrite`` too
nothing, or a settled row        no picture of the request, and   refused; with ``overwrite`` submitted
                                 another file with a copy's name
nothing, a settled row, or the   a sidecar: that job's picture   submitted; with another file there refused, or
job of the sidecar               was moved, buy another          with ``overwrite`` submitted
===============================  ==============================  =================================================

A *settled* row failed or was saved earlier, or was unknown before a user's clear.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from pictory_provider.core.batch.journal import BOUGHT, FAILED, INTENT, SAVED, UNKNOWN, page_of
from pictory_provider.core.batch.resume import unreadable_pages
from pictory_provider.core.sidecar import REDO
from pictory_provider.core.submission import is_same_request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pictory_provider.core.batch.journal import Entry, Header, Journal
    from pictory_provider.core.batch.rows import Row
    from pictory_provider.core.resume import ExistingImage
    from pictory_provider.core.sidecar import SavedFile, Sidecar
    from pictory_provider.media.copies import CopySpec


OUTCOME_UNKNOWN, RECORD_UNREADABLE = "SUBMIT_OUTCOME_UNKNOWN", "RECORD_UNREADABLE"
"""Codes of rows of which it is unknown whether they were bought."""


class RowState(Enum):
    """The state of a row; the values are the names in the progress."""

    TO_DO = "to_do"
    WAITING = "waiting"
    SAVED = "saved"
    REUSED = "reused"
    OWED = "owed"
    FAILED = "failed"
    UNKNOWN = "unknown"
    NOT_BOUGHT = "not_bought"


class RowImage(NamedTuple):
    """The saved picture of a row.

    :param file: as its sidecar describes it.
    :param file_name: where it is, if not at its row's own file name.
    :param sidecar_version: as in :class:`~pictory_provider.core.resume.ExistingImage`.
    """

    job_id: str
    file: SavedFile
    file_name: str | None = None
    sidecar_version: str | None = None

    @classmethod
    def from_existing(cls, existing: ExistingImage | None) -> RowImage | None:
        """Return the picture that exists; ``None`` if it is missing, or is not the one of its sidecar."""
        if existing is None or existing.sidecar is None or not existing.has_its_picture:
            return None
        sidecar = existing.sidecar
        assert sidecar.saved is not None
        # A sidecar that is to be mended has to be read again.
        version = None if sidecar.may_be else existing.sidecar_version
        return cls(str(sidecar.submission.job_id), sidecar.saved, sidecar_version=version)


class Decision(NamedTuple):
    """The state of a row, and why.

    :param job_id: of the job to adopt.
    :param submitted_at: epoch seconds; ``None`` if unknown.
    :param picture: the existing one; of a failed row, one that could not be marked.
    :param code: of the error of a row that failed, is unknown, or is refused.
    :param message: of the same error.
    :param is_refused: whether the existing file may not be replaced without ``overwrite``.
    :param is_changed: whether the existing picture is of another request: ``overwrite="changed"`` replaces it.
    """

    state: RowState
    job_id: str | None = None
    submitted_at: float | None = None
    picture: RowImage | None = None
    code: str | None = None
    message: str | None = None
    is_refused: bool = False
    is_changed: bool = False


SUBMIT = Decision(RowState.TO_DO)


def decide(
    row: Row,
    journal: Journal,
    existing: ExistingImage | None,
    *,
    overwrite: bool,
    replaces_changed: bool = False,
    copies: Sequence[CopySpec] = (),
    resubmit: bool,
) -> Decision:
    """Decide what to do with a row. The table is at the top of this module.

    :param existing: what exists at its file name; ``None`` for nothing.
    :param replaces_changed: submit it if the existing picture is of another request.
    :param copies: to be made of its picture.
    :param resubmit: submit again if the outcome is unknown, accepting that this may pay twice.
    """
    entry, header = journal.get(row.key), journal.header
    if entry and existing and existing.sidecar and existing.sidecar.overrides(entry.job_id):
        by_record = None
    elif entry is None:
        by_record = _without_page(row, journal)
    elif entry.state not in (INTENT, UNKNOWN):
        by_record = _by_job(entry, header, existing, overwrite=overwrite)
    elif entry.tried < header.cleared:
        by_record = None
    else:
        by_record = SUBMIT if resubmit and may_resubmit(entry, header) else is_unknown(entry)
    if by_record:
        return by_record
    if existing and existing.sidecar and existing.replaced:
        # It was about to be replaced by a job that this batch knows to have come to nothing, or whose picture goes
        # elsewhere. Another one's may be of a task that is still running.
        of_job = [each for each in journal if each.job_id == existing.sidecar.submission.job_id]
        if of_job and not any(each.key == row.key and each.is_owed for each in of_job):
            existing = existing.replaced
    found = _by_folder(row, existing, overwrite=overwrite)
    if found.is_refused and existing and replaced(row.canonical_request, existing) is not None:
        found = (SUBMIT if replaces_changed else found)._replace(is_changed=True)
    is_bought = found.state is RowState.TO_DO
    if is_bought and existing and (name := existing.in_the_way(copies, overwrite=overwrite)):
        what = (
            "is a folder or a broken link" if existing.copies[name] is None else "exists, and is no copy on record"
        )
        return _refused("PLACE_TAKEN", f"{name}, the name of a copy, {what}")
    return found


def replaced(request: dict[str, Any], existing: ExistingImage) -> Sidecar | None:
    """Return the sidecar of an existing picture of another request, which a picture of this one may replace.

    :param request: of :attr:`~pictory_provider.core.batch.rows.Row.canonical_request`.
    """
    existing = existing.replaced or existing
    sidecar = existing.sidecar
    if sidecar is None or existing.problem or not existing.may_be_replaced:
        return None
    return None if is_same_request(sidecar.submission.request, request) else sidecar


def _by_job(entry: Entry, header: Header, existing: ExistingImage | None, *, overwrite: bool) -> Decision | None:
    """Decide by the job on record; ``None`` if the row is settled."""
    is_earlier = entry.tried < header.since
    picture = RowImage.from_existing(existing)
    adopt = Decision(RowState.WAITING, entry.job_id, entry.submitted_at)
    if entry.state != FAILED or entry.adoptable:
        if picture is not None and picture.job_id == entry.job_id:
            if is_earlier and overwrite:
                return SUBMIT
            state = RowState.REUSED if is_earlier and entry.state == SAVED else RowState.SAVED
            return Decision(state, picture=picture)
        if entry.state == BOUGHT or (entry.state == SAVED and not is_earlier):
            return adopt
    if entry.state == FAILED:
        if entry.adoptable and entry.tried < header.tries:
            return adopt
        if entry.adoptable or not is_earlier:
            return failed(entry)
    return None


def failed(entry: Entry) -> Decision:
    """Return the decision about a row that failed, whose job may still give its picture to a later attempt."""
    state = RowState.OWED if entry.adoptable else RowState.FAILED
    return Decision(state, code=entry.code, message=entry.message, job_id=entry.job_id)


def may_resubmit(entry: Entry, header: Header) -> bool:
    """Whether this attempt may submit a row again whose outcome is unknown: it may do so once."""
    return not (entry.again and entry.tried == header.tries)


def is_unknown(entry: Entry) -> Decision:
    """Return the decision about a row of which it is unknown whether it was bought."""
    why = "an earlier attempt ended after it recorded its intent to submit and before it recorded Pictory's answer"
    return Decision(RowState.UNKNOWN, code=OUTCOME_UNKNOWN, message=entry.message or why)


def _without_page(row: Row, journal: Journal) -> Decision | None:
    page = page_of(row.index)
    if page not in journal.unreadable and page not in journal.missing:
        return None
    problem = "cannot be read" if page in journal.unreadable else "is missing"
    why = f"the record of its page, {unreadable_pages(journal, {page})}, {problem}"
    return Decision(RowState.UNKNOWN, code=RECORD_UNREADABLE, message=why)


def _by_folder(row: Row, existing: ExistingImage | None, *, overwrite: bool) -> Decision:
    if existing is None:
        return SUBMIT
    if (blocked := _blocked(existing)) is not None:
        return blocked
    sidecar = existing.sidecar
    if sidecar and sidecar.state == INTENT:
        why = (
            f"its sidecar says that {sidecar.made_by} was about to buy a picture for this file name: it is doing "
            "so now, or the outcome is unknown"
        )
        return Decision(RowState.UNKNOWN, code=OUTCOME_UNKNOWN, message=why)
    if overwrite or existing.is_to_redo:
        return SUBMIT
    is_bought = sidecar is not None and sidecar.state == BOUGHT
    if sidecar and is_same_request(sidecar.submission.request, row.canonical_request):
        if (picture := RowImage.from_existing(existing)) is not None:
            return Decision(RowState.REUSED, picture=picture)
        if is_bought:
            return Decision(RowState.WAITING, sidecar.submission.job_id, sidecar.submission.submitted_at)
    if is_bought or existing.size is not None:
        return _refused("PLACE_TAKEN", _taken(existing))
    return SUBMIT


def _blocked(existing: ExistingImage) -> Decision | None:
    """Return the refusal of what may not be replaced, with ``overwrite`` either; ``None`` for anything else."""
    if existing.folder:
        return _refused("PLACE_TAKEN", f"{existing.folder} is a folder")
    if existing.problem:
        return _refused("SIDECAR_UNREADABLE", f"its sidecar cannot be read: {existing.problem}")
    if existing.is_version:
        return _refused("PLACE_TAKEN", "an earlier version of another picture exists there")
    return None


def _refused(code: str, why: str) -> Decision:
    return Decision(RowState.NOT_BOUGHT, code=code, message=why, is_refused=True)


def _taken(existing: ExistingImage) -> str:
    sidecar = existing.sidecar
    if sidecar is None:
        return "a file exists there, without a sidecar that says what it is"
    if sidecar.state == REDO:
        return "another file exists there, in place of the picture that was moved"
    if sidecar.state == BOUGHT:
        return (
            f"its sidecar says that {sidecar.made_by} has bought a picture of another request for this file name"
        )
    if existing.has_its_picture:
        prompt = (sidecar.submission.request or {}).get("prompt")
        return f"the picture of another request exists there ({prompt!r:.80})"
    return "a file exists there whose size is not the one in its sidecar"
