# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""How does a batch end? With its manifest, and with the error that tells what is missing and what to do.

What fails a task, in this order: rows of which nobody can know whether they were bought; what stopped purchases;
rows without a picture. Where a retry would find a job that is paid for and save its picture, the error is one that
Airflow retries, and else it is not.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowFailException

from pictory_provider.api import endpoints, responses
from pictory_provider.api.errors import KINDS, BudgetExceeded, JobFailed, PictoryError, SubmitOutcomeUnknown
from pictory_provider.api.timing import TIMING
from pictory_provider.batch.decision import OUTCOME_UNKNOWN, RECORD_UNREADABLE, Place
from pictory_provider.batch.journal import page_name, page_of
from pictory_provider.batch.manifest import failed_lines, metadata_lines
from pictory_provider.batch.names import FAILED, MANIFEST
from pictory_provider.batch.progress import line, progress
from pictory_provider.client.asking import ask_all
from pictory_provider.exceptions import as_airflow_error
from pictory_provider.jobs.evidence import Evidence, is_since, matching

if TYPE_CHECKING:
    from pictory_provider.api.connection import ConnectionSettings
    from pictory_provider.api.models import GeneratedImage
    from pictory_provider.batch.entries import Entry
    from pictory_provider.batch.plan import Plan
    from pictory_provider.batch.rows import Row
    from pictory_provider.batching.folder import Folder
    from pictory_provider.client.asking import Log

SHOWN = 10
"""Rows that an error names. ``failed.jsonl`` names all."""


def write_manifest(plan: Plan, folder: Folder) -> str:
    """Write ``failed.jsonl``, and ``metadata.jsonl`` last; return where that lies."""
    folder.manifest(FAILED).write("".join(failed_lines(plan)).encode())
    manifest = folder.manifest(MANIFEST)
    manifest.write("".join(metadata_lines(plan)).encode())
    return manifest.path


def error_of(
    plan: Plan, folder: Folder, settings: ConnectionSettings, *, fail_on_partial_error: bool, log: Log
) -> PictoryError | None:
    """Return what the task has to fail with; ``None`` where it succeeds."""
    if plan.counts[Place.UNKNOWN]:
        return _unknown(plan, folder, settings, log)
    failed = [row for row in plan.rows if plan.end_of(row).place is Place.FAILED]
    is_owed = any(entry.adoptable for entry in _entries(failed, plan))
    # A limit, which is not retried and may skip the task, hides neither what is paid for nor what has failed.
    comes_first = isinstance(plan.error, BudgetExceeded) and (is_owed or (failed and fail_on_partial_error))
    if plan.error and not comes_first:
        return _with_more(plan.error, plan, folder)
    if not failed:
        return None
    error = _failed(failed, plan, folder)
    if fail_on_partial_error or plan.error:
        return error
    log.warning(
        "%s of %s rows have no picture, and fail_on_partial_error is off. They are in %s.",
        f"{len(failed):,}",
        f"{plan.of:,}",
        folder.at(FAILED),
    )
    return None


def is_final(error: BaseException) -> bool:
    """Whether Airflow does not retry after an error."""
    return isinstance(as_airflow_error(error) if isinstance(error, PictoryError) else error, AirflowFailException)


def _failed(rows: list[Row], plan: Plan, folder: Folder) -> PictoryError:
    """Return the error of rows that failed: one that is retried, where a retry may save what is paid for."""
    kind: type[PictoryError] = JobFailed
    owed = [entry for entry in _entries(rows, plan) if entry.adoptable]
    for entry in owed:
        known = KINDS.get(str(entry.code))
        if known and not is_final(known("")):
            kind = known
            break
    paid = ""
    if owed:
        paid = (
            f" Of these, {len(owed):,} are paid for: their jobs run on or could not be saved, and a later try "
            "saves what is there by then and buys nothing."
        )
    besides = f" Besides, purchases have stopped: {plan.error.message}" if plan.error else ""
    return kind(
        f"{len(rows):,} of {plan.of:,} rows have no picture ({line(progress(plan))}).{paid} Why, and what to do, "
        f"is told for each in {folder.at(FAILED)}. To buy what has failed, clear the task; to let it succeed "
        f"without, set fail_on_partial_error=False.{besides}\n" + _named(rows, plan)
    )


def _entries(rows: list[Row], plan: Plan) -> list[Entry]:
    found = (plan.journal.get(row.key) for row in rows)
    return [entry for entry in found if entry is not None]


def _with_more(error: PictoryError, plan: Plan, folder: Folder) -> PictoryError:
    """Return what stopped purchases, with what became of the rest."""
    missing = plan.of - plan.counts[Place.SAVED] - plan.counts[Place.REUSED]
    if not missing:
        return error
    told = (
        f"{error.message} Of the batch: {line(progress(plan))}. What was bought is on record, and all that could "
        f"be saved is. What is missing is in {folder.at(FAILED)}."
    )
    more = type(error)(told)
    more.__dict__.update({**error.__dict__, "message": told})
    return more


def _unknown(plan: Plan, folder: Folder, settings: ConnectionSettings, log: Log) -> SubmitOutcomeUnknown:
    """Return the error of rows of which nobody can know, with what can be found out about each."""
    rows = [row for row in plan.rows if plan.end_of(row).place is Place.UNKNOWN]
    entries = {row.key: plan.journal.get(row.key) for row in rows}
    since = {key: entry.intended_at if entry else None for key, entry in entries.items()}
    used, images, is_whole = _look_around(settings, min((at for at in since.values() if at), default=None), log)
    evidence = Evidence(since=None, credits_before=None, credits_now=used, matches=None)
    told, header = [], plan.journal.header
    for row in rows[:SHOWN]:
        at = since[row.key]
        matches = matching(images, row.request, at)
        of_row = replace(evidence, since=at, matches=matches if matches or is_whole else None)
        told.append(f"    {row.label}, {row.file_name}: {plan.end_of(row).message}. {of_row.gallery()}")
        if ways := of_row.how_to_save():
            told += ways.splitlines()[1:]
    if len(rows) > SHOWN:
        told.append(f"    and {len(rows) - SHOWN:,} more; all are in {folder.at(FAILED)}.")
    first = next((row for row in rows if entries[row.key] is not None), rows[0])
    is_on_record = entries[first.key] is not None
    name = page_name(header.generation, page_of(first.index))
    lines = [
        f"Of the batch: {line(progress(plan))}.",
        "" if used is None else f"AI credits used by all of the account now: {used:,.10g}.",
        *told,
        "To buy these rows again, and whatever else has no picture, clear the task.",
        "Before that, delete the sidecars that say `intent`, once you have looked at the tasks that they name."
        if any(entries[row.key] is None and plan.end_of(row).code == OUTCOME_UNKNOWN for row in rows)
        else "",
        "Before that, put right or delete the pages of the record that cannot be read."
        if any(plan.end_of(row).code == RECORD_UNREADABLE for row in rows)
        else "",
        "To adopt a job whose jobId you have found, put it into the row's record before you clear the task: in "
        f"{folder.at(name)}, for {first.file_name}:"
        if is_on_record
        else "",
        f'    "{first.key}": {{..., "jobId": "<its jobId>"}}' if is_on_record else "",
        f"Besides: {plan.error.message}" if plan.error else "",
    ]
    whys = {str(plan.end_of(row).message) for row in rows}
    why = f"{len(rows):,} of {plan.of:,} rows ({next(iter(whys)) if len(whys) == 1 else 'each is told below'})"
    return SubmitOutcomeUnknown.because(why, what_now="\n".join(text for text in lines if text))


def _look_around(
    settings: ConnectionSettings, since: float | None, log: Log
) -> tuple[float | None, list[GeneratedImage], bool]:
    """Return the AI credits used, and what the gallery shows since then, as far as can be asked for in time.

    :return: whether the gallery was read as far back as that, too.
    """
    until = time.monotonic() + TIMING.evidence
    quota = endpoints.get_quota(), responses.parse_quota
    used: float | None = None
    images: list[GeneratedImage] = []
    key: str | None = None
    while (within := until - time.monotonic()) > 0:
        first = () if images else (quota,)
        page, *more = ask_all(
            settings, (endpoints.list_images(key), responses.parse_images), *first, within=within, log=log
        )
        if more and more[0]:
            used = more[0].ai_credits_used
        if page is None:
            return used, images, False
        images += page[0]
        key = page[1]
        if key is None or since is None or not any(is_since(image, since) for image in page[0]):
            return used, images, True
    return used, images, False


def _named(rows: list[Row], plan: Plan) -> str:
    """Return a line for each of the rows, for the end of a text."""
    told = []
    for row in rows[:SHOWN]:
        end = plan.end_of(row)
        first = str(end.message).partition(". ")[0].rstrip(".")
        told.append(f"    {row.label}, {row.file_name}: {end.code}: {first}")
    if len(rows) > SHOWN:
        told.append(f"    and {len(rows) - SHOWN:,} more.")
    return "\n".join(told)
