# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Save the picture of one row, in its place in the folder, with its sidecar."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pictory_provider.images.sidecar import Sidecar
from pictory_provider.jobs.submission import Submission, fingerprint

if TYPE_CHECKING:
    from pictory_provider.api.models import Job
    from pictory_provider.batch.entries import Entry
    from pictory_provider.batch.steps import Ticket
    from pictory_provider.batching.folder import Folder
    from pictory_provider.batching.record import BatchRecord
    from pictory_provider.client.asking import Log
    from pictory_provider.client.sync import SyncClient
    from pictory_provider.images.download import SavedImage


class HowTo(NamedTuple):
    """What the operator says of waiting and saving.

    :param poll_interval: seconds between two looks at one job.
    :param timeout: seconds of each job, from its submission.
    """

    conn_id: str
    poll_interval: float
    timeout: float
    overwrite: bool
    mark_ai_generated: bool


def save(
    folder: Folder,
    name: str,
    job: Job,
    bought: Sidecar,
    client: SyncClient,
    *,
    overwrite: bool,
    mark_ai_generated: bool,
    log: Log,
) -> SavedImage:
    """Save a finished job's picture where its row's goes.

    :param name: of the picture in the folder.
    :param bought: what the sidecar says of the purchase.
    :param overwrite: whether it may replace what lies there.
    """
    shelf = folder.shelf(name)
    there = shelf.look()
    is_left_behind = there.sidecar is not None and there.sidecar.saved is not None and there.size is None
    is_of_another = there.sidecar is None or there.sidecar.submission.job_id != job.job_id
    if is_of_another and not there.problem and (overwrite or is_left_behind):
        # The sidecar never says of a picture that it is another's.
        shelf.note(bought)
    return shelf.save(client, job, bought, overwrite=overwrite, mark_ai_generated=mark_ai_generated, log=log)


def sidecar_of(ticket: Ticket, entry: Entry | None, record: BatchRecord, how: HowTo) -> Sidecar:
    """Return what a sidecar says of a row's purchase.

    :param entry: what is on record of it.
    """
    row = ticket.row
    return Sidecar(
        file=row.file_name.rpartition("/")[2],
        submission=Submission(
            job_id=ticket.job_id,
            fingerprint=fingerprint(how.conn_id, row.asked),
            request=row.asked,
            max_tries=record.max_tries,
            retries=record.retries,
            intended_at=entry.intended_at if entry else None,
            submitted_at=ticket.submitted_at,
        ),
        made_by=record.me,
    )
