# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Report the rows of a batch of which it is unknown whether they were bought, with the evidence about each."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pictory_provider.api.errors import SubmitOutcomeUnknown
from pictory_provider.api.text import counted
from pictory_provider.core.batch.decision import OUTCOME_UNKNOWN, RECORD_UNREADABLE, RowState
from pictory_provider.core.batch.file_names import FAILED
from pictory_provider.core.batch.journal import page_name
from pictory_provider.core.batch.plan import line, progress, unit_of, without_picture
from pictory_provider.core.batch.rows import BadRow, request_of
from pictory_provider.core.evidence import Evidence, matching
from pictory_provider.services.evidence import read_account

if TYPE_CHECKING:
    from pictory_provider.api.connection import ConnectionSettings
    from pictory_provider.api.models import ImageRequest
    from pictory_provider.client.retrying import Log
    from pictory_provider.core.batch.journal import Entry
    from pictory_provider.core.batch.plan import Plan
    from pictory_provider.core.batch.rows import Row
    from pictory_provider.storage.folder import Folder

SHOWN = 10
"""Rows that an error names. ``failed.jsonl`` names all."""


def unknown_outcome(plan: Plan, folder: Folder, settings: ConnectionSettings, log: Log) -> SubmitOutcomeUnknown:
    """Return the error of rows whose outcome is unknown, with the evidence about each."""
    unknown = [
        (row, end, plan.entry_of(row)) for row, end in without_picture(plan) if end.state is RowState.UNKNOWN
    ]
    since = [entry.intended_at if entry else None for _, _, entry in unknown]
    oldest = min((at for at in since if at), default=None)
    used, images, is_whole = read_account(settings, oldest, log=log)
    evidence = Evidence(since=None, credits_before=None, credits_now=used, matches=None)
    lines = [f"The batch: {line(progress(plan))}."]
    if used is not None:
        lines.append(f"AI credits used by the whole account now: {used:,.10g}.")
    for (row, end, entry), at in zip(unknown[:SHOWN], since, strict=False):
        matches = matching(images, _request_of(row, entry), at)
        of_row = replace(evidence, since=at, matches=matches if matches or is_whole else None)
        lines.append(f"    {row.label}, {row.file_name}: {end.message}. {of_row.gallery()}")
        if ways := of_row.how_to_save():
            lines += ways.splitlines()[1:]
    if len(unknown) > SHOWN:
        lines.append(f"    and {len(unknown) - SHOWN:,} more; all are listed in {folder.at(FAILED)}.")
    first_steps = []
    if any(entry is None and end.code == OUTCOME_UNKNOWN for _, end, entry in unknown):
        first_steps.append("check the tasks that the sidecars with `intent` name, and delete these sidecars")
    if any(end.code == RECORD_UNREADABLE for _, end, _ in unknown):
        first_steps.append("correct or delete the pages of the record that cannot be read")
    if any(isinstance(row, BadRow) for row, _, _ in unknown):
        first_steps.append("correct the bad rows among them")
    to_buy = "To buy these rows again, and all others without a picture,"
    lines.append(f"{to_buy} {'; '.join((*first_steps, 'then clear' if first_steps else 'clear'))} the task.")
    if first := next((entry for _, _, entry in unknown if entry is not None), None):
        page = folder.at(page_name(plan.journal.header.generation, plan.journal.home_of(first.key)))
        lines.append(
            "If you have found a jobId, adopt the job: put the jobId into the row's record before you clear the "
            f"task, in {page}, for {first.file_name}:"
        )
        lines.append(f'    "{first.key}": {{..., "jobId": "<its jobId>"}}')
    if plan.error:
        lines.append(f"Submissions have stopped, too: {plan.error.message}")
    reasons = {str(end.message) for _, end, _ in unknown}
    reason = next(iter(reasons)) if len(reasons) == 1 else "the reasons are below"
    why = f"{len(unknown):,} of {counted(plan.of, unit_of(plan))} ({reason})"
    return SubmitOutcomeUnknown.because(why, what_now="\n".join(lines))


def _request_of(row: Row | BadRow, entry: Entry | None) -> ImageRequest:
    """Return what was requested for a row whose outcome is unknown; for a bad row that is on record."""
    if not isinstance(row, BadRow):
        return row.request
    assert entry is not None
    return request_of(entry.request)
