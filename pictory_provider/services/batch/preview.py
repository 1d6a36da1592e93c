# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Say what a batch would buy, before it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from pictory_provider.api.errors import BudgetExceeded, PictoryError, RequestInvalid
from pictory_provider.api.text import counted, listed
from pictory_provider.client.throttle import PacedClient, ThreadRateLimiter
from pictory_provider.core.batch.decision import RowState
from pictory_provider.core.batch.plan import unit_of, without_picture
from pictory_provider.core.budget import CostEstimate, PurchasePlan
from pictory_provider.services.batch.budget import BatchBudget
from pictory_provider.services.batch.state import BatchRecord
from pictory_provider.services.batch.unknown import unknown_outcome
from pictory_provider.services.spending import conclude_plan
from pictory_provider.storage.folder import Folder

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from pictory_provider.api.connection import ConnectionSettings
    from pictory_provider.client.retrying import Log
    from pictory_provider.core.batch.plan import Plan
    from pictory_provider.core.budget import Headroom
    from pictory_provider.services.batch.spec import BatchSpec

_SHOWN = 5
"""Rows of each kind that the log names."""


def preview(
    spec: BatchSpec, context: Context, settings: ConnectionSettings, *, retries: int | None, log: Log
) -> NoReturn:
    """Push to XCom what a batch would do, and end the task as it would end, or skip it.

    Nothing that costs is sent, and nothing is written.

    :raises PictoryError: that the batch would end with; or if the table, the folder or the account cannot be read.
    :raises AirflowSkipException: if the batch would succeed.
    """
    record = BatchRecord(Folder(spec.path), context, retries=retries)
    client = PacedClient(settings, ThreadRateLimiter(settings.requests_per_second))
    try:
        plan, error = _preview(spec, record, client, log)
    finally:
        client.close()
    conclude_plan(context, plan, error, log=log)


def _preview(
    spec: BatchSpec, record: BatchRecord, client: PacedClient, log: Log
) -> tuple[PurchasePlan, PictoryError | None]:
    table = spec.read_table(record.folder, is_resumed=False, is_trying=False, log=log)
    if isinstance(table, PictoryError):
        raise table
    resumed = record.open(table, is_resumed=False, conn_id=spec.conn_id)
    plan = spec.plan(resumed, record.existing(resumed, is_marking=False, copies=spec.copy_names))
    budget = BatchBudget.from_spec(spec, plan, dag_id=record.made_by.dag_id, log=log)
    if plan.error is None:
        budget.check(client)
    _log_names(plan, log)
    return plan_of(plan, limits=budget.headroom(client)), error_of_plan(
        plan, record.folder, client.settings, fail_on_partial_error=spec.fail_on_partial_error, log=log
    )


def plan_of(plan: Plan, *, limits: tuple[Headroom, ...]) -> PurchasePlan:
    """Return what an attempt with this plan would do."""
    counts = plan.counts
    refused = sum(1 for row in plan.rows if plan.end_of(row).is_refused)
    return PurchasePlan(
        of=plan.of,
        to_buy=counts[RowState.TO_DO],
        reused=counts[RowState.REUSED] + counts[RowState.SAVED],
        adopted=counts[RowState.WAITING],
        refused=refused,
        failed=counts[RowState.FAILED],
        owed=counts[RowState.OWED],
        unknown=counts[RowState.UNKNOWN],
        not_bought=counts[RowState.NOT_BOUGHT] - refused,
        skipped=plan.skipped,
        price=CostEstimate(tuple(row.request for row in plan.missing)).price,
        limits=limits,
    )


def _log_names(plan: Plan, log: Log) -> None:
    """Log the first file names of each kind."""
    names: dict[str, list[str]] = {}
    for row in plan.rows:
        end = plan.end_of(row)
        kind = "refused" if end.is_refused else _KINDS[end.state]
        names.setdefault(kind, []).append(row.file_name)
    for kind, files in names.items():
        log.info("%s: %s.", kind.capitalize(), listed(files, _SHOWN))


_KINDS = {state: state.value.replace("_", " ") for state in RowState} | {
    RowState.TO_DO: "to buy",
    RowState.WAITING: "adopted",
    RowState.SAVED: "reused",
}


def error_of_plan(
    plan: Plan, folder: Folder, settings: ConnectionSettings, *, fail_on_partial_error: bool, log: Log
) -> PictoryError | None:
    """Return the error that an attempt with this plan would end with, as far as it is known; ``None`` for none."""
    if plan.counts[RowState.UNKNOWN]:
        return unknown_outcome(plan, folder, settings, log)
    failed = [(row, end) for row, end in without_picture(plan) if end.state is RowState.FAILED]
    fails = bool(failed) and fail_on_partial_error
    # As at the end of a batch: a limit may skip the task, so rows that fail it come first.
    if plan.error is not None and not (fails and isinstance(plan.error, BudgetExceeded)):
        return plan.error
    if not fails:
        return None
    named = [f"\n    {row.label}: {end.message}" for row, end in failed[:_SHOWN]]
    return RequestInvalid(
        f"{counted(len(failed), unit_of(plan))} of {plan.of:,} would have no picture. Correct them, or set "
        "fail_on_partial_error=False to let the task succeed without them." + "".join(named),
        fields=["requests"],
    )
