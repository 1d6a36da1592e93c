# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What can a worker be told to do next? Buy, or wait (:meth:`pictory_provider.batch.plan.Plan.next`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pictory_provider.batch.rows import Row


class Ticket(NamedTuple):
    """A job to be looked at, and where its picture goes.

    :param submitted_at: epoch seconds; ``None`` where nobody knows: then its time begins now.
    """

    row: Row
    job_id: str
    submitted_at: float | None


class Buy(NamedTuple):
    """Buy these rows side by side; they lie on one page of the journal."""

    rows: tuple[Row, ...]


class Wait(NamedTuple):
    """Wait until some of these jobs have ended."""

    tickets: tuple[Ticket, ...]
