# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""End a batch: write its manifest, and return the error that says what is missing and what to do.

A task fails, in this order, because of rows whose outcome is unknown, because of what stopped submissions, or
because of rows without a picture. Airflow retries the error only if a retry would find a paid job and save its
picture.

``failed.jsonl`` is about the last attempt only. An attempt removes it when it begins, and writes it when it ends,
also if it is refused before it begins. Only an attempt whose worker was lost leaves none.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException

from pictory_provider.api.errors import (
    KINDS,
    BudgetExceeded,
    JobFailed,
    PictoryError,
    RequestInvalid,
    SubmitOutcomeUnknown,
)
from pictory_provider.api.text import counted
from pictory_provider.core.batch.decision import OUTCOME_UNKNOWN, RECORD_UNREADABLE, RowState
from pictory_provider.core.batch.file_names import FAILED, MANIFEST
from pictory_provider.core.batch.journal import page_name, page_of
from pictory_provider.core.batch.manifest import failed_lines, metadata_lines, refusal_lines
from pictory_provider.core.batch.plan import line, progress, without_picture
from pictory_provider.core.evidence import Evidence, matching
from pictory_provider.exceptions import as_airflow_error
from pictory_provider.services.batch.state import BatchRecord
from pictory_provider.services.evidence import read_account
from pictory_provider.storage.folder import Folder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow.providers.common.compat.sdk import Context

    from pictory_provider.api.connection import ConnectionSettings
    from pictory_provider.client.retrying import Log
    from pictory_provider.core.batch.decision import Decision
    from pictory_provider.core.batch.plan import Plan
    from pictory_provider.core.batch.rows import BadRow, Row

SHOWN = 10
"""Rows that an error names. ``failed.jsonl`` names all."""


def write_manifest(plan: Plan, folder: Folder) -> str:
    """Write ``failed.jsonl`` and then ``metadata.jsonl``; return the path of the latter."""
    folder.manifest(FAILED).write("".join(failed_lines(plan)).encode())
    manifest = folder.manifest(MANIFEST)
    manifest.write("".join(metadata_lines(plan)).encode())
    return manifest.path


def write_refusal(path: Any, context: Context, error: PictoryError, *, retries: int | None, log: Log) -> None:
    """Write into ``failed.jsonl`` that the arguments were refused, if ``path`` is a folder that can be written."""
    with suppress(RequestInvalid):
        report_refusal(BatchRecord(Folder(path), context, retries=retries), error, log=log)


def report_refusal(record: BatchRecord, error: PictoryError, *, log: Log) -> None:
    """Write into ``failed.jsonl`` why an attempt was refused, unless another task may be using the folder."""
    if not record.is_in_use():
        _write_failures(record.folder, refusal_lines(error), log)


def write_failures(folder: Folder, plan: Plan, error: BaseException, *, log: Log) -> None:
    """Write ``failed.jsonl`` for an attempt that an error has ended before the manifest was written."""
    _write_failures(folder, failed_lines(plan, error), log)


def _write_failures(folder: Folder, lines: Iterable[str], log: Log) -> None:
    try:
        folder.manifest(FAILED).write("".join(lines).encode())
    except Exception as error:
        log.warning("Could not write %s, so it is not about this attempt: %s", folder.at(FAILED), error)


def final_error(
    plan: Plan,
    folder: Folder,
    settings: ConnectionSettings,
    *,
    fail_on_partial_error: bool,
    is_last_try: bool,
    log: Log,
) -> PictoryError | None:
    """Return the error that the task fails with; ``None`` if it succeeds.

    :param is_last_try: whether Airflow does not retry the task again, so that only a clear would save paid
        pictures.
    """
    if plan.counts[RowState.UNKNOWN]:
        return _unknown(plan, folder, settings, log)
    missing = [each for each in without_picture(plan) if each[1].state in (RowState.OWED, RowState.FAILED)]
    owed = plan.counts[RowState.OWED]
    # A limit error is not retried and may skip the task, so paid and failed rows come first.
    comes_first = isinstance(plan.error, BudgetExceeded) and (owed or (missing and fail_on_partial_error))
    if plan.error and not comes_first:
        return _with_more(plan.error, plan, folder)
    if not missing:
        return None
    if fail_on_partial_error or plan.error or (owed and not is_last_try):
        return _failed(missing, plan, folder, is_strict=fail_on_partial_error)
    log.warning(
        "%s no picture, and fail_on_partial_error is off.%s They are listed in %s.",
        _have(len(missing), plan.of),
        f" Of these, {counted(owed, 'is', 'are')} paid for: clearing the task saves what is ready, for free."
        if owed
        else "",
        folder.at(FAILED),
    )
    return None


def is_final(error: BaseException) -> bool:
    """Whether Airflow does not retry after an error."""
    return isinstance(as_airflow_error(error) if isinstance(error, PictoryError) else error, AirflowFailException)


def _failed(
    rows: list[tuple[Row | BadRow, Decision]], plan: Plan, folder: Folder, *, is_strict: bool
) -> PictoryError:
    """Return the error of rows that failed. It is one that Airflow retries if a retry may save paid pictures."""
    kind: type[PictoryError] = JobFailed
    owed = [end for _, end in rows if end.state is RowState.OWED]
    for end in owed:
        known = KINDS.get(str(end.code))
        if known and not is_final(known("")):
            kind = known
            break
    paid = ""
    if owed:
        paid = (
            f" Of these, {counted(len(owed), 'is', 'are')} paid for: the job is still running, or its picture "
            "could not be saved. A retry or a clear saves what is ready by then, for free."
        )
    what_now = " To buy what has failed, clear the task." if len(rows) > len(owed) else ""
    if is_strict:
        what_now += " To let the task succeed without them, set fail_on_partial_error=False."
    stopped = f" Submissions have stopped, too: {plan.error.message}" if plan.error else ""
    return kind(
        f"{_have(len(rows), plan.of)} no picture ({line(progress(plan))}).{paid} {folder.at(FAILED)} says why, "
        f"and what to do, for each row.{what_now}{stopped}\n" + _named(rows)
    )


def _have(number: int, of: int) -> str:
    return f"{number:,} of {counted(of, 'row')} {'has' if number == 1 else 'have'}"


def _with_more(error: PictoryError, plan: Plan, folder: Folder) -> PictoryError:
    """Return the error that stopped submissions, with what became of the rest of the batch."""
    missing = plan.of - plan.counts[RowState.SAVED] - plan.counts[RowState.REUSED]
    if not missing:
        return error
    text = (
        f"{error.message} The batch: {line(progress(plan))}. What was bought is on record, and all pictures that "
        f"could be saved are saved. {folder.at(FAILED)} lists what is missing."
    )
    return error.with_message(text)


def _unknown(plan: Plan, folder: Folder, settings: ConnectionSettings, log: Log) -> SubmitOutcomeUnknown:
    """Return the error of rows whose outcome is unknown, with the evidence about each."""
    rows = [row for row in plan.rows if plan.end_of(row).state is RowState.UNKNOWN]
    entries = {row.key: plan.journal.get(row.key) for row in rows}
    since = {key: entry.intended_at if entry else None for key, entry in entries.items()}
    oldest = min((at for at in since.values() if at), default=None)
    used, images, is_whole = read_account(settings, oldest, log=log)
    evidence = Evidence(since=None, credits_before=None, credits_now=used, matches=None)
    lines = [f"The batch: {line(progress(plan))}."]
    if used is not None:
        lines.append(f"AI credits used by the whole account now: {used:,.10g}.")
    for row in rows[:SHOWN]:
        at = since[row.key]
        matches = matching(images, row.request, at)
        of_row = replace(evidence, since=at, matches=matches if matches or is_whole else None)
        lines.append(f"    {row.label}, {row.file_name}: {plan.end_of(row).message}. {of_row.gallery()}")
        if ways := of_row.how_to_save():
            lines += ways.splitlines()[1:]
    if len(rows) > SHOWN:
        lines.append(f"    and {len(rows) - SHOWN:,} more; all are listed in {folder.at(FAILED)}.")
    first_steps = []
    if any(entries[row.key] is None and plan.end_of(row).code == OUTCOME_UNKNOWN for row in rows):
        first_steps.append("check the tasks that the sidecars with `intent` name, and delete these sidecars")
    if any(plan.end_of(row).code == RECORD_UNREADABLE for row in rows):
        first_steps.append("correct or delete the pages of the record that cannot be read")
    to_buy = "To buy these rows again, and all others without a picture,"
    lines.append(f"{to_buy} {'; '.join((*first_steps, 'then clear' if first_steps else 'clear'))} the task.")
    if first := next((row for row in rows if entries[row.key] is not None), None):
        page = folder.at(page_name(plan.journal.header.generation, page_of(first.index)))
        lines.append(
            "If you have found a jobId, adopt the job: put the jobId into the row's record before you clear the "
            f"task, in {page}, for {first.file_name}:"
        )
        lines.append(f'    "{first.key}": {{..., "jobId": "<its jobId>"}}')
    if plan.error:
        lines.append(f"Submissions have stopped, too: {plan.error.message}")
    reasons = {str(plan.end_of(row).message) for row in rows}
    reason = next(iter(reasons)) if len(reasons) == 1 else "the reasons are below"
    why = f"{len(rows):,} of {counted(plan.of, 'row')} ({reason})"
    return SubmitOutcomeUnknown.because(why, what_now="\n".join(lines))


def _named(rows: list[tuple[Row | BadRow, Decision]]) -> str:
    """Return a line for each of the first rows, for the end of a text."""
    lines = []
    for row, end in rows[:SHOWN]:
        first = str(end.message).partition(". ")[0].rstrip(".")
        file_name = f", {row.file_name}" if row.file_name else ""
        lines.append(f"    {row.label}{file_name}: {end.code}: {first}")
    if len(rows) > SHOWN:
        lines.append(f"    and {len(rows) - SHOWN:,} more.")
    return "\n".join(lines)
