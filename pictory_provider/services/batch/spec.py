# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The arguments of a batch, checked before anything is sent."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from pictory_provider.api.checks import (
    CHANGED,
    check_candidates,
    check_count,
    check_overwrite,
    check_policy,
    check_seconds,
    check_switch,
)
from pictory_provider.api.errors import RequestInvalid, StorageFailed
from pictory_provider.core.batch.plan import Plan
from pictory_provider.core.batch.rows import RowBuilder
from pictory_provider.core.picture_names import copy_name
from pictory_provider.core.tables.inputs import is_frame, refused, table_of, table_path
from pictory_provider.services.spending import BUDGET_POLICIES, PARTIAL, check_limits
from pictory_provider.services.uploads import Uploads
from pictory_provider.storage.copies import SaveOptions, check_installed
from pictory_provider.storage.tables import read_frame, read_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pictory_provider.client.retrying import Log
    from pictory_provider.core.batch.resume import ResumedBatch
    from pictory_provider.core.batch.rows import CheckedTable
    from pictory_provider.core.resume import ExistingImage
    from pictory_provider.core.tables.inputs import InputTable
    from pictory_provider.storage.folder import Folder


_OF_ROWS = (
    *("prompt", "file_name", "reference_image_url", "model", "aspect_ratio", "style", "allow_unlisted"),
    *("request_columns", "skip_blank", "on_bad_row"),
)


class BatchSpec(NamedTuple):
    """The arguments of one batch.

    :param requests: the table, or its path.
    :param column_names: of rows of a database.
    :param sheet: of an Excel file.
    :param path: the folder.
    :param rows: makes a request of each row of the table.
    :param conn_id: the Airflow connection.
    :param poll_interval: seconds between two polls of one job.
    :param timeout: seconds from the submission of a job to its deadline.
    :param max_in_flight: the most jobs at Pictory at the same time.
    :param max_credits: the most AI credits that the task may spend; ``None`` for no limit.
    :param is_partial: buy as many rows as the limits allow, from the top, and end well.
    :param resubmit: submit a row of unknown outcome again, at most once per attempt.
    :param overwrite: submit all rows, once, and once more after each clear.
    :param replaces_changed: submit rows whose existing picture is of another request.
    :param save_options: how pictures are saved.
    :param is_deferrable: wait in the triggerer, without a worker.
    :param is_plan: only say what would be bought.
    :param uploads: upload reference images, if the operator may.
    """

    requests: Any
    column_names: Any
    sheet: Any
    path: Any
    rows: RowBuilder
    conn_id: str
    poll_interval: float
    timeout: float
    overwrite: bool
    replaces_changed: bool
    mark_ai_generated: bool
    save_options: SaveOptions
    max_in_flight: int
    max_credits: float | None
    is_partial: bool
    fail_on_partial_error: bool
    resubmit: bool
    is_deferrable: bool
    is_plan: bool
    uploads: Uploads

    @classmethod
    def from_operator(cls, operator: Any) -> BatchSpec:
        """Check the rendered arguments of a :class:`~pictory_provider.operators.batch.GenerateImageBatchOperator`.

        :raises RequestInvalid: names the argument that is wrong.
        """
        check_policy(operator.on_unknown_submit)
        check_overwrite(operator.overwrite)
        options = SaveOptions.checked(cache_control=operator.cache_control, copies=operator.copies)
        check_installed(options.copies)
        return cls(
            requests=operator.requests,
            column_names=operator.column_names,
            sheet=operator.sheet,
            path=operator.path,
            rows=RowBuilder(
                conn_id=operator.pictory_conn_id,
                candidates=check_candidates(operator.candidates),
                copies=options.copies,
                **{name: getattr(operator, name) for name in _OF_ROWS},
            ),
            conn_id=operator.pictory_conn_id,
            poll_interval=check_seconds("poll_interval", operator.poll_interval),
            timeout=check_seconds("timeout", operator.timeout),
            overwrite=operator.overwrite is True,
            replaces_changed=operator.overwrite == CHANGED,
            mark_ai_generated=operator.mark_ai_generated,
            save_options=options,
            max_in_flight=check_count("max_in_flight", operator.max_in_flight),
            max_credits=check_limits(operator.max_credits, operator.on_budget, (*BUDGET_POLICIES, PARTIAL)),
            is_partial=operator.on_budget == PARTIAL,
            fail_on_partial_error=operator.fail_on_partial_error,
            resubmit=operator.on_unknown_submit == "resubmit",
            is_deferrable=operator.deferrable,
            is_plan=check_switch("plan_only", operator.plan_only),
            uploads=Uploads.of(operator),
        )

    def read_table(
        self, folder: Folder, *, is_resumed: bool, is_trying: bool = True, log: Log
    ) -> CheckedTable | RequestInvalid | StorageFailed:
        """Read the table and return its rows, each with a valid request; or the error that names every bad row.

        The error is returned and not raised, since what is already paid for is saved even then.

        :param folder: that must be able to take the files. After a deferral it is only asked again if it decides
            which rows are left out.
        :param is_resumed: whether this attempt has read the table before.
        :param is_trying: whether to create files in the folder, and remove them, to see whether it takes them.
        """
        self.uploads.use_folder(folder.record, is_resumed=is_resumed, log=log)
        refused_names = None
        if not is_resumed or self.rows.on_bad_row == "skip":
            refused_names = partial(
                folder.refused,
                overwrite=self.overwrite,
                copies=self.save_options.copies,
                is_trying=is_trying,
            )
        try:
            table = self.rows.build(self._input_table(), refused_names, self.uploads.references.identify)
            if not is_resumed:
                folder.check_manifests()
        except (RequestInvalid, StorageFailed) as error:
            return error
        if not is_resumed:
            for note in table.notes:
                log.info("%s", note)
            for warning in table.warnings:
                log.warning("%s", warning)
        return table

    def plan(self, resumed: ResumedBatch, existing: Mapping[str, ExistingImage]) -> Plan:
        """Return the plan of an attempt.

        :param existing: what exists at the rows' file names.
        """
        return Plan(
            resumed,
            existing,
            overwrite=self.overwrite,
            replaces_changed=self.replaces_changed,
            copies=self.save_options.copies,
            resubmit=self.resubmit,
            max_in_flight=self.max_in_flight,
        )

    def copy_names(self, name: str) -> list[str]:
        """Return the names of a picture's copies by its own."""
        return [copy_name(name, spec) for spec in self.save_options.copies]

    def _input_table(self) -> InputTable:
        path = table_path(self.requests)
        if path is None and not is_frame(self.requests):
            self._check_unused("sheet", "a list has no sheets")
            return table_of(self.requests, self.column_names)
        self._check_unused("column_names", "the table names its columns itself")
        if path is not None:
            return read_table(path, sheet=self.sheet)
        self._check_unused("sheet", "a data frame has no sheets")
        return read_frame(self.requests, is_read_again=self.is_deferrable)

    def _check_unused(self, name: str, why: str) -> None:
        if getattr(self, name) is not None:
            raise refused(f"{name}={getattr(self, name)!r} has no effect: {why}", "Leave it out.", field=name)
