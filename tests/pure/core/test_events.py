# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The trigger event survives the way through Airflow's database."""

from __future__ import annotations

import json

import pytest

from pictory_provider.api import errors
from pictory_provider.api.errors import (
    KINDS,
    JobFailed,
    PictoryError,
    ProtocolError,
)
from pictory_provider.api.models import Job
from pictory_provider.core import events
from pictory_provider.core.events import Ended

JOB = Job(
    job_id="j", status="completed", success=True, url="https://h/a.png", width=1, height=2, ai_credits_used=0.6
)


def crossed(payload):
    return json.loads(json.dumps(payload))


def test_a_completed_job_comes_back_as_it_went():
    assert events.read(crossed(events.build(Ended("j", JOB, 5.0)))) == Ended("j", JOB, 5.0)


@pytest.mark.parametrize("kind", KINDS.values())
def test_every_error_comes_back_as_its_class_with_its_text(kind):
    ended = events.read(crossed(events.build(Ended("j", kind("what happened"), 5.0))))
    assert (ended.job_id, type(ended.result), ended.result.message) == ("j", kind, "what happened")


def test_a_job_error_brings_its_job():
    failed = Job(job_id="j", status="failed", success=False, error_code="POLICY", error_message="no")
    ended = events.read(crossed(events.build(Ended("j", JobFailed("failed", job=failed), 5.0))))
    assert ended.result.job == failed


@pytest.mark.parametrize(
    "payload",
    [
        None,
        "success",
        [],
        {},
        {"job_id": "j"},
        {"job_id": "j", "outcome": "completed", "image": {"url": "https://h/a.png"}},
        {"job_id": "j", "at": 5.0, "outcome": "completed"},
        {"job_id": "j", "at": 5.0, "outcome": "completed", "image": {"url": None}},
        {"job_id": None, "at": 5.0, "outcome": "completed", "image": {"url": "https://h/a.png"}},
        {"job_id": "j", "at": 5.0, "outcome": "splendid", "image": {"url": "https://h/a.png"}},
        {"job_id": "j", "at": 5.0, "outcome": "error", "error": "oops"},
    ],
)
def test_an_event_of_another_form_is_an_error_and_never_a_success(payload):
    with pytest.raises(ProtocolError, match="does not understand"):
        events.read(payload)


def test_an_error_of_a_kind_from_another_release_is_still_an_error():
    error = {"kind": "JobExploded", "message": "m"}
    ended = events.read({"job_id": "j", "at": 5.0, "outcome": "error", "error": error})
    assert isinstance(ended.result, PictoryError)
    assert "JobExploded" in ended.result.message


def branches(cls):
    return {cls}.union(*(branches(each) for each in cls.__subclasses__() if each.__module__ == errors.__name__))


def test_every_class_of_the_tree_is_known_by_its_name():
    assert set(KINDS.values()) == branches(errors.PictoryError)
    assert all(KINDS[kind.__name__] is kind for kind in KINDS.values())


def test_what_is_logged_of_an_event_hides_the_query_of_its_url():
    payload = events.build(Ended("j", Job(job_id="j", url="https://h/a.png?Signature=secret"), 5.0))
    assert events.for_log(payload)["image"]["url"] == "https://h/a.png"
    assert payload["image"]["url"].endswith("secret")
    assert events.for_log({"outcome": "error"}) == {"outcome": "error"}


def test_an_event_has_the_documented_form():
    assert events.build(Ended("j", JOB, 5.0)) == {
        "job_id": "j",
        "at": 5.0,
        "outcome": "completed",
        "image": {
            "status": "completed",
            "success": True,
            "url": "https://h/a.png",
            "width": 1,
            "height": 2,
            "ai_credits_used": 0.6,
            "error_code": None,
            "error_message": None,
        },
    }
    assert events.build(Ended("j", PictoryError("what happened"), 5.0)) == {
        "job_id": "j",
        "at": 5.0,
        "outcome": "error",
        "error": {"kind": "PictoryError", "message": "what happened"},
    }
    assert "job" not in events.build(Ended("j", JobFailed("failed"), 5.0))["error"]


@pytest.mark.parametrize(
    "payload",
    [
        {"job_id": 7, "at": 5.0, "outcome": "completed", "image": {"url": "https://h/a.png"}},
        {"job_id": "j", "at": "now", "outcome": "completed", "image": {"url": "https://h/a.png"}},
        {"job_id": "j", "at": 5.0, "outcome": "completed", "image": []},
        {"job_id": "j", "at": 5.0, "outcome": "error", "image": {"url": "https://h/a.png"}},
        {"job_id": "j", "at": 5.0, "outcome": "completed", "error": {"kind": "JobFailed", "message": "m"}},
    ],
)
def test_an_event_of_which_one_part_is_another_is_shown_and_says_that_the_job_runs_on(payload):
    with pytest.raises(ProtocolError) as caught:
        events.read(payload)
    assert repr(payload) in caught.value.message
    assert "The job keeps running at Pictory." in caught.value.message


def test_an_event_of_a_release_that_knows_fewer_fields_is_read():
    payload = {"job_id": "j", "at": 5, "outcome": "completed", "image": {"url": "https://h/a.png", "new": 1}}
    assert events.read(payload) == Ended("j", Job(job_id="j", url="https://h/a.png"), 5)
    failed = {"job_id": "j", "at": 5, "outcome": "error", "error": {"kind": "JobFailed", "message": "m"}}
    assert events.read(failed).result.job is None
    failed["error"]["job"] = {"status": "failed"}
    assert events.read(failed).result.job == Job(job_id="j", status="failed")
    failed["error"] = {"kind": "PictoryError", "message": "m", "job": {"status": "failed"}}
    assert not hasattr(events.read(failed).result, "job")


def test_an_error_of_a_kind_from_another_release_is_reported_with_its_job_and_its_words():
    error = {"kind": "JobExploded", "message": "it burst"}
    ended = events.read({"job_id": "j", "at": 5.0, "outcome": "error", "error": error})
    assert ended.result.message == "The wait for job j ended with 'JobExploded': it burst"
    assert isinstance(ended.result, ProtocolError)


# What an error carries -----------------------------------------------------------------------------------


def test_an_error_has_no_details_but_those_that_it_was_given():
    error = errors.RequestInvalid("m")
    assert (error.message, error.fields, error.status, error.code) == ("m", (), None, None)
    assert errors.AuthenticationError("m").status is None
    assert (errors.Unavailable("m").status, errors.Unavailable("m").retry_after) == (None, None)
    assert ProtocolError("m").status is None
    budget = errors.BudgetExceeded("m")
    assert (budget.limits, budget.asked, budget.left) == ((), None, None)
    assert JobFailed("m").job is None
    assert str(PictoryError("m")) == "m"


def test_an_error_carries_its_arguments():
    assert vars(errors.RequestInvalid("m", fields=["a"], status=400, code="C")) == {
        "message": "m",
        "fields": ("a",),
        "status": 400,
        "code": "C",
    }
    assert vars(errors.BudgetExceeded("m", limits=["a"], asked=2.0, left=1.0)) == {
        "message": "m",
        "limits": ("a",),
        "asked": 2.0,
        "left": 1.0,
    }


def test_a_connection_that_failed_may_have_sent_its_request_unless_it_is_known_that_it_did_not():
    assert errors.TransportError("m").fault is errors.Fault.MAYBE_ACCEPTED
    assert (errors.TransportError("m").status, errors.TransportError("m").retry_after) == (None, None)


def test_an_unknown_outcome_says_where_to_search_unless_more_is_known():
    error = errors.SubmitOutcomeUnknown.because("the cable was cut")
    assert error.message == (
        "It is unknown whether Pictory accepted this request: the cable was cut. If it did, a picture was or will be "
        "paid for. Check https://app.pictory.ai and `PictoryHook().list_images()` for a picture of this prompt "
        "before you buy it again."
    )
    assert (error.why, error.evidence, error.is_out_of_time) == ("the cable was cut", None, False)
    known = errors.SubmitOutcomeUnknown.because("cut", evidence=7, what_now="Do this.")
    assert (known.message.endswith("will be paid for. Do this."), known.evidence) == (True, 7)


@pytest.mark.parametrize(("age", "is_fresh"), [(0, True), (300, True), (300.1, False), (-0.1, False)])
def test_what_was_seen_is_fresh_for_five_minutes_and_never_if_it_was_seen_in_the_future(age, is_fresh):
    assert events.is_fresh(1_000.0, 1_000.0 + age) is is_fresh
