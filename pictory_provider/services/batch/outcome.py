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

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from pictory_provider.api.checks import check_switch
from pictory_provider.api.errors import (
    KINDS,
    BudgetExceeded,
    JobFailed,
    PictoryError,
    RequestInvalid,
    StorageFailed,
)
from pictory_provider.api.text import counted, listed
from pictory_provider.core.batch.decision import RowState
from pictory_provider.core.batch.file_names import FAILED, MANIFEST
from pictory_provider.core.batch.manifest import failed_lines, metadata_lines, refusal_lines
from pictory_provider.core.batch.plan import line, progress, unit_of, without_picture
from pictory_provider.core.batch.resume import left_over
from pictory_provider.core.batch.rows import BadRow
from pictory_provider.exceptions import is_final
from pictory_provider.services.batch.state import BatchRecord
from pictory_provider.services.batch.unknown import SHOWN, unknown_outcome
from pictory_provider.storage.folder import Folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow.providers.common.compat.sdk import Context

    from pictory_provider.api.connection import ConnectionSettings
    from pictory_provider.client.retrying import Log
    from pictory_provider.core.batch.decision import Decision
    from pictory_provider.core.batch.plan import Plan
    from pictory_provider.core.batch.rows import Row


def write_manifest(plan: Plan, folder: Folder) -> str:
    """Write ``failed.jsonl`` and then ``metadata.jsonl``; return the path of the latter."""
    folder.manifest(FAILED).write("".join(failed_lines(plan)).encode())
    manifest = folder.manifest(MANIFEST)
    manifest.write("".join(metadata_lines(plan)).encode())
    return manifest.path


@contextmanager
def refusal_reported(operator: Any, context: Context) -> Iterator[None]:
    """Write into ``failed.jsonl`` that the arguments were refused, if ``path`` is a folder that can be written.

    A plan writes nothing.
    """
    is_plan = check_switch("plan_only", operator.plan_only)
    try:
        yield
    except RequestInvalid as error:
        if not is_plan:
            with suppress(RequestInvalid):
                record = BatchRecord(Folder(operator.path), context, retries=operator.retries)
                report_refusal(record, error, log=operator.log)
        raise


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
        return unknown_outcome(plan, folder, settings, log)
    missing = [each for each in without_picture(plan) if each[1].state in (RowState.OWED, RowState.FAILED)]
    gone = [entry.file_name for entry in left_over(plan.journal)]
    owed = plan.counts[RowState.OWED]
    # A limit error is not retried and may skip the task, so paid and failed rows come first.
    comes_first = isinstance(plan.error, BudgetExceeded) and (owed or (missing and fail_on_partial_error))
    if plan.error and not comes_first:
        return _with_more(plan.error, plan, folder)
    if gone:
        log.warning(
            "%s of an earlier table, or of rows that are left out, may be paid for and not saved: %s. A retry or "
            "a clear saves what is ready by then, for free.",
            counted(len(gone), "picture", "pictures"),
            listed(gone, SHOWN),
        )
    if not missing:
        return _error_of_copies(plan, folder, is_strict=fail_on_partial_error, is_last_try=is_last_try, log=log)
    if fail_on_partial_error or plan.error or (owed and not is_last_try):
        return _failed(missing, plan, folder, is_strict=fail_on_partial_error)
    log.warning(
        "%s no picture, and fail_on_partial_error is off.%s They are listed in %s.",
        _have(len(missing), plan),
        f" Of these, {counted(owed, 'is', 'are')} paid for: clearing the task saves what is ready, for free."
        if owed
        else "",
        folder.at(FAILED),
    )
    return _error_of_copies(plan, folder, is_strict=False, is_last_try=is_last_try, log=log)


def _error_of_copies(
    plan: Plan, folder: Folder, *, is_strict: bool, is_last_try: bool, log: Log
) -> PictoryError | None:
    """Return the error of pictures whose copies could not be made; ``None`` if there are none, or it is tolerated.

    It is one that Airflow retries if a retry may make a copy.
    """
    rows = list(plan.not_copied.values())
    if not rows:
        return None
    may_pass = any(isinstance(error, StorageFailed) for _, error in rows)
    what_now = "A retry makes" if may_pass else "Fix that, and clear the task, without overwrite=True, to make"
    text = (
        f"Copies of {counted(len(rows), 'picture')} could not be made. The pictures themselves are saved. "
        f"{folder.at(FAILED)} says why. {what_now} these copies, for free."
    )
    if is_strict or (may_pass and not is_last_try):
        lines = [f"\n    {row.label}: {error.message}" for row, error in rows[:SHOWN]]
        error = f"{text}{''.join(lines)}"
        return StorageFailed(error) if may_pass else RequestInvalid(error, fields=["copies"])
    log.warning("%s fail_on_partial_error is off.", text)
    return None


def ends_task(error: BaseException, record: BatchRecord) -> bool:
    """Whether Airflow does not retry the task after an attempt that ends with this error."""
    return is_final(error) or record.is_last_try


def _failed(
    rows: list[tuple[Row | BadRow, Decision]], plan: Plan, folder: Folder, *, is_strict: bool
) -> PictoryError:
    """Return the error of rows that failed. It is one that Airflow retries if a retry may save paid pictures."""
    bad = [row for row, end in rows if isinstance(row, BadRow) and end.state is RowState.FAILED]
    kind: type[PictoryError] = RequestInvalid if len(bad) == len(rows) else JobFailed
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
    if bad:
        what_now = f" Correct the {counted(len(bad), 'bad row')} first.{what_now}"
    if is_strict:
        what_now += " To let the task succeed without them, set fail_on_partial_error=False."
    stopped = f" Submissions have stopped, too: {plan.error.message}" if plan.error else ""
    return kind(
        f"{_have(len(rows), plan)} no picture ({line(progress(plan))}).{paid} {folder.at(FAILED)} says why, "
        f"and what to do, for each row.{what_now}{stopped}\n" + _named(rows)
    )


def _have(number: int, plan: Plan) -> str:
    return f"{number:,} of {counted(plan.of, unit_of(plan))} {'has' if number == 1 else 'have'}"


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
