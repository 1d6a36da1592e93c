# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The trigger's event crosses a database and comes back whole."""

from __future__ import annotations

import json

import pytest

from pictory_provider.api.errors import (
    JobFailed,
    PictoryError,
    ProtocolError,
    RateLimited,
    WaitTimeout,
    kinds,
)
from pictory_provider.api.models import Job
from pictory_provider.jobs import events

JOB = Job(
    job_id="j", status="completed", success=True, url="https://h/a.png", width=1, height=2, ai_credits_used=0.6
)


def crossed(payload):
    return json.loads(json.dumps(payload))


def test_a_completed_job_comes_back_as_it_went():
    assert events.read(crossed(events.build("j", JOB))) == ("j", JOB)


@pytest.mark.parametrize("kind", kinds().values())
def test_every_error_comes_back_as_its_class_with_its_text(kind):
    job_id, error = events.read(crossed(events.build("j", kind("what happened"))))
    assert (job_id, type(error), error.message) == ("j", kind, "what happened")


def test_a_job_error_brings_its_job():
    failed = Job(job_id="j", status="failed", success=False, error_code="POLICY", error_message="no")
    _, error = events.read(crossed(events.build("j", JobFailed("failed", job=failed))))
    assert error.job == failed


@pytest.mark.parametrize(
    "payload",
    [
        None,
        "success",
        [],
        {},
        {"job_id": "j"},
        {"job_id": "j", "outcome": "completed"},
        {"job_id": "j", "outcome": "completed", "image": {"url": None}},
        {"job_id": None, "outcome": "completed", "image": {"url": "https://h/a.png"}},
        {"job_id": "j", "outcome": "splendid", "image": {"url": "https://h/a.png"}},
        {"job_id": "j", "outcome": "error", "error": "oops"},
    ],
)
def test_an_event_of_another_form_is_an_error_and_never_a_success(payload):
    with pytest.raises(ProtocolError, match="does not understand"):
        events.read(payload)


def test_an_error_of_a_kind_from_another_release_is_still_an_error():
    _, error = events.read({"job_id": "j", "outcome": "error", "error": {"kind": "JobExploded", "message": "m"}})
    assert isinstance(error, PictoryError)
    assert "JobExploded" in error.message


def test_the_tree_knows_its_branches():
    assert issubclass(kinds()["RateLimited"], kinds()["Unavailable"])
    assert {RateLimited, WaitTimeout} <= set(kinds().values())
