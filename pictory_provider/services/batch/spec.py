# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The arguments of a batch, checked before anything is sent."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from pictory_provider.api.checks import check_count, check_header, check_policy, check_seconds
from pictory_provider.api.errors import RequestInvalid, StorageFailed
from pictory_provider.core.batch.rows import RowBuilder
from pictory_provider.core.batch.tables import read_table, records_of, table_path
from pictory_provider.services.spending import check_limits
from pictory_provider.storage.folder import read_file

if TYPE_CHECKING:
    from pictory_provider.core.batch.rows import Row
    from pictory_provider.storage.folder import Folder


_OF_ROWS = ("prompt", "file_name", "reference_image_url", "model", "aspect_ratio", "style", "allow_unlisted")


class BatchSpec(NamedTuple):
    """The arguments of one batch.

    :param requests: the table, or its path.
    :param path: the folder.
    :param rows: makes a request of each row of the table.
    :param conn_id: the Airflow connection.
    :param poll_interval: seconds between two polls of one job.
    :param timeout: seconds from the submission of a job to its deadline.
    :param max_in_flight: the most jobs at Pictory at the same time.
    :param max_credits: the most AI credits that the task may spend; ``None`` for no limit.
    :param resubmit: submit a row of unknown outcome again, at most once per attempt.
    :param is_deferrable: wait in the triggerer, without a worker.
    """

    requests: Any
    path: Any
    rows: RowBuilder
    conn_id: str
    poll_interval: float
    timeout: float
    overwrite: bool
    mark_ai_generated: bool
    cache_control: str | None
    max_in_flight: int
    max_credits: float | None
    fail_on_partial_error: bool
    resubmit: bool
    is_deferrable: bool

    @classmethod
    def from_operator(cls, operator: Any) -> BatchSpec:
        """Check the rendered arguments of a :class:`~pictory_provider.operators.batch.GenerateImageBatchOperator`.

        :raises RequestInvalid: names the argument that is wrong.
        """
        check_policy(operator.on_unknown_submit)
        return cls(
            requests=operator.requests,
            path=operator.path,
            rows=RowBuilder(
                conn_id=operator.pictory_conn_id, **{name: getattr(operator, name) for name in _OF_ROWS}
            ),
            conn_id=operator.pictory_conn_id,
            poll_interval=check_seconds("poll_interval", operator.poll_interval),
            timeout=check_seconds("timeout", operator.timeout),
            overwrite=operator.overwrite,
            mark_ai_generated=operator.mark_ai_generated,
            cache_control=check_header("cache_control", operator.cache_control),
            max_in_flight=check_count("max_in_flight", operator.max_in_flight),
            max_credits=check_limits(operator.max_credits, operator.on_budget),
            fail_on_partial_error=operator.fail_on_partial_error,
            resubmit=operator.on_unknown_submit == "resubmit",
            is_deferrable=operator.deferrable,
        )

    def read_rows(self, folder: Folder | None) -> list[Row] | RequestInvalid | StorageFailed:
        """Read the table and return its rows, each with a valid request; or the error that names every bad row.

        The error is returned and not raised, since what is already paid for is saved even then.

        :param folder: that must be able to take the files; ``None`` to skip that.
        """
        refused = None if folder is None else partial(folder.refused, overwrite=self.overwrite)
        try:
            path = table_path(self.requests)
            records = records_of(self.requests) if path is None else read_table(path, read_file(path))
            rows = self.rows.rows(records, refused)
            if folder is not None:
                folder.check_manifests()
        except (RequestInvalid, StorageFailed) as error:
            return error
        return rows
