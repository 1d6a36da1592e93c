# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What exists at the file name of a row, for the tests of a batch's rules."""

from __future__ import annotations

from pictory_provider.core.attempt import MadeBy
from pictory_provider.core.batch.decision import RowImage
from pictory_provider.core.resume import ExistingImage
from pictory_provider.core.sidecar import SavedFile, Sidecar
from pictory_provider.core.submission import Submission

ANOTHER = MadeBy("another_dag", "a_run", "a_task", -1)
SIZE = 7


def file(**fields):
    """Return a saved file, as its sidecar describes it."""
    saved = SavedFile(SIZE, "abc", 8, 8, ai_credits_used=None, marks=(), saved_at=None)
    return saved._replace(**fields)


def row_image(job_id, ai_credits_used=None, *, file_name=None, **fields):
    """Return the saved picture of a row."""
    return RowImage(job_id, file(ai_credits_used=ai_credits_used, **fields), file_name)


def existing(
    state=None,
    *,
    request=None,
    job_id=None,
    submitted_at=None,
    size=None,
    ai_credits_used=None,
    problem=None,
    folder=None,
):
    """Return what exists at a path: with a state, a sidecar of another task.

    :param size: of the picture; a whole one has :data:`SIZE` bytes.
    """
    sidecar = None
    if state:
        submission = Submission(
            job_id=None if state == "intent" else job_id, request=request, submitted_at=submitted_at
        )
        saved = file(ai_credits_used=ai_credits_used) if state == "saved" else None
        sidecar = Sidecar(file="a.png", submission=submission, made_by=ANOTHER, saved=saved)
    return ExistingImage("/f/a.png", sidecar=sidecar, problem=problem, size=size, folder=folder)
