# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A batch and a single task that begin at the same moment: which of them goes on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pictory_provider.core.attempt import MadeBy
from pictory_provider.core.batch.resume import beside_batch, open_batch, taken_meanwhile
from pictory_provider.core.resume import ExistingImage
from pictory_provider.core.sidecar import SavedFile, Sidecar
from pictory_provider.core.submission import Submission
from tests.pure.core.batch.tables import checked

FILE = SavedFile(size=3, sha256="0" * 64, width=1, height=1, ai_credits_used=2.0, marks=(), saved_at=1.0)
INTENT = Sidecar(file="a.png", submission=Submission(request={}), made_by=MadeBy("d", "r", "t", -1))
BOUGHT = replace(INTENT, submission=Submission(request={}, job_id="j"))
SAVED = replace(BOUGHT, saved=FILE)


def existing(sidecar=None, **more):
    return ExistingImage("/srv/a.png", sidecar=sidecar, **more)


def taken(seen, found):
    return taken_meanwhile(
        ["a.png"], {"a.png": seen} if seen else {}, {"a.png": found} if found else {}, folder="/srv"
    )


@pytest.mark.parametrize(
    ("seen", "found"),
    [
        (None, None),
        (existing(SAVED, size=3), existing(replace(SAVED, keeps_spending=True), size=3, sidecar_version="2")),
        (existing(size=3), existing(size=3)),
    ],
)
def test_what_is_still_the_same_was_not_taken(seen, found):
    assert taken(seen, found) is None


@pytest.mark.parametrize(
    ("seen", "found", "may_be_left"),
    [
        (None, existing(INTENT), True),
        (None, existing(BOUGHT), False),
        (None, existing(size=3), False),
        (None, existing(problem="no JSON"), False),
        (existing(SAVED, size=3), existing(INTENT, size=3), True),
        (existing(SAVED, size=3), existing(SAVED, size=4), False),
        (existing(SAVED, size=3), None, True),
    ],
)
def test_only_an_intent_may_be_taken_back(seen, found, may_be_left):
    meanwhile = taken(seen, found)
    assert meanwhile is not None
    assert meanwhile.may_be_left is may_be_left
    assert "1 file name of it in /srv: a.png" in meanwhile.error.message


def header(*, has_ended):
    batch = open_batch(None, {}, checked([]), folder="/srv", made_by={"dag_id": "d"}, max_tries=1, retries=1)
    return replace(batch.journal.header, has_ended=has_ended).to_dict()


def test_a_task_may_buy_in_the_folder_of_a_batch_that_has_ended_and_in_no_other():
    arguments = {"path": "/srv/a.png", "record": "/srv/.pictory/batch.json"}
    assert beside_batch(header(has_ended=True), **arguments) is None
    assert "a batch, dag_id d, which" in beside_batch(header(has_ended=False), **arguments).message
    for unreadable in (None, {}, [], header(has_ended=True) | {"version": 2}):
        assert "whose record cannot be read" in beside_batch(unreadable, **arguments).message
