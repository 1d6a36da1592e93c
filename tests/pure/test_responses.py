# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Replies as values: every sample shape, and what is no shape at all."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pictory_provider.api import responses
from pictory_provider.api.errors import (
    AuthenticationError,
    EdgeBlocked,
    JobNotFound,
    PictoryError,
    ProtocolError,
    RateLimited,
    RequestInvalid,
    Unavailable,
)
from pictory_provider.api.models import Job, JobState
from pictory_provider.api.responses import Response
from tests.samples import JOB_ID, MARKS, NAMES, load

JOB_STATES = {
    "job-in-progress/200": JobState.IN_PROGRESS,
    "job-completed/200": JobState.COMPLETED,
    "job-no-url/200": JobState.COMPLETED,
    "job-cleaned/200": JobState.CLEANED,
    "job-unknown-status/200": JobState.UNKNOWN,
    "job-failed-data/200": JobState.FAILED,
    "job-failed-error/200": JobState.FAILED,
    "job-failed-top/200": JobState.FAILED,
    "job-failed-flag-only/200": JobState.FAILED,
}
REFUSALS = {
    "unauthorized/401": AuthenticationError,
    "forbidden/403": AuthenticationError,
    "edge-block/403": EdgeBlocked,
    "rate-limited/429": RateLimited,
    "server-error/500": Unavailable,
    "submit-insufficient/400": RequestInvalid,
    "submit-insufficient/402": RequestInvalid,
    "usage-invalid/400": RequestInvalid,
}
INVALID = [name for name in NAMES if name.startswith("submit-invalid")]
MISSING = [name for name in NAMES if name.startswith("job-missing")]
VALUES = ["submit-accepted/200", "images/200", "jobs/200", "quota/200", "usage/200", "cleaned/200"]


def reply(body, status=200, **headers):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(status, headers, raw)


def test_every_sample_says_how_surely_it_is_known_and_is_read_by_a_test():
    assert all(load(name).mark in MARKS for name in NAMES)
    assert sorted([*JOB_STATES, *REFUSALS, *INVALID, *MISSING, *VALUES]) == NAMES


def test_an_accepted_request_has_a_job_id():
    assert responses.parse_submission(load("submit-accepted/200").response()) == JOB_ID


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"null", b"[]", {}, {"data": {}}, {"data": {"jobId": ""}}, {"data": {"jobId": 5}}]
)
def test_a_success_without_a_job_id_is_no_success(body):
    with pytest.raises(ProtocolError):
        responses.parse_submission(reply(body))


@pytest.mark.parametrize(("name", "state"), JOB_STATES.items())
def test_every_shape_of_a_job_is_read(name, state):
    job = responses.parse_job(load(name).response(), JOB_ID)
    assert job.state is state
    assert job.job_id == JOB_ID


@pytest.mark.parametrize("name", [name for name in JOB_STATES if "failed" in name])
def test_a_failed_job_says_why_wherever_pictory_puts_it(name):
    job = responses.parse_job(load(name).response(), JOB_ID)
    assert job.error_code == "IMAGE_GENERATION_FAILED"
    assert job.error_message == "The image could not be generated."


def test_a_number_as_an_error_code_is_read():
    body = {"success": False, "error": {"error_code": 890, "error_message": "no"}}
    assert responses.parse_job(reply(body), JOB_ID).error_code == "890"


def test_a_completed_job_has_all_that_pictory_says():
    job = responses.parse_job(load("job-completed/200").response(), JOB_ID)
    assert (job.width, job.height, job.ai_credits_used) == (1280, 720, 0.6)
    assert job.url.startswith("https://")


@pytest.mark.parametrize("name", MISSING)
def test_an_unknown_job_is_told_from_everything_else_in_every_shape(name):
    with pytest.raises(JobNotFound, match=JOB_ID):
        responses.parse_job(load(name).response(), JOB_ID)


def test_a_reply_about_another_job_is_not_taken_for_an_answer():
    with pytest.raises(ProtocolError, match="answered for job"):
        responses.parse_job(load("job-completed/200").response(), "another")


@pytest.mark.parametrize("url", [None, 5, "", "picture.png", "javascript:alert(1)", "ftp://h/a.png", "https://["])
def test_a_url_that_is_none_is_absent(url):
    body = {"success": True, "data": {"status": "completed", "url": url}}
    assert responses.parse_job(reply(body), JOB_ID).url is None


@pytest.mark.parametrize("value", [None, "12", True, -1, 0, 1.5, [1]])
def test_a_width_that_is_no_number_of_pixels_is_absent(value):
    body = {"success": True, "data": {"status": "completed", "width": value}}
    assert responses.parse_job(reply(body), JOB_ID).width is None


@pytest.mark.parametrize(("name", "error"), REFUSALS.items())
def test_every_status_has_its_class(name, error):
    with pytest.raises(error) as caught:
        responses.check(load(name).response())
    assert type(caught.value) is error


@pytest.mark.parametrize("name", INVALID)
def test_a_400_names_the_field_in_every_shape(name):
    with pytest.raises(RequestInvalid) as caught:
        responses.parse_submission(load(name).response())
    assert caught.value.fields == ("prompt",)
    assert caught.value.code == "INVALID_REQUEST_BODY"
    assert "prompt must be between 5 and 5000 characters" in str(caught.value)


def test_retry_after_is_kept_as_it_came():
    with pytest.raises(RateLimited) as caught:
        responses.check(load("rate-limited/429").response(**{"retry-after": "1.5"}))
    assert caught.value.retry_after == "1.5"


def test_an_edge_block_names_the_user_agent_and_clears_the_key():
    with pytest.raises(EdgeBlocked, match="user_agent") as caught:
        responses.check(load("edge-block/403").response())
    assert "key is not the cause" in str(caught.value)


def test_a_page_of_the_gallery_is_read_with_its_next_key():
    (image,), key = responses.parse_images(load("images/200").response())
    assert (image.model, image.aspect_ratio, image.width, image.style) == (
        "nanobanana",
        "16:9",
        1024,
        "photorealistic",
    )
    assert key == "ZnJvbToxMDA="


def test_the_last_page_of_the_jobs_has_no_key():
    (job,), key = responses.parse_jobs(load("jobs/200").response())
    assert job["data"]["jobId"] == JOB_ID
    assert key is None


def test_the_quota_says_what_is_left():
    quota = responses.parse_quota(load("quota/200").response())
    assert (quota.ai_credits_used, quota.ai_credits_limit, quota.ai_credits_left) == (690, 22_000, 21_310)


def test_the_ledger_is_a_list():
    (entry,) = responses.parse_credit_usage(load("usage/200").response())
    assert entry["amount"] == 0.6


def test_an_unconfirmed_clean_up_is_an_error():
    responses.parse_cleaned(load("cleaned/200").response())
    with pytest.raises(ProtocolError):
        responses.parse_cleaned(reply({"success": False}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["data", "error", "status", "success", "url", "job_id", "jobId", "fields", "name", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=30, derandomize=True)
@given(
    body=st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()), status=st.integers(100, 599)
)
def test_no_reply_whatever_makes_the_parser_raise_anything_but_its_own_errors(body, status):
    for parse in (
        responses.parse_submission,
        lambda reply: responses.parse_job(reply, JOB_ID),
        responses.parse_images,
        responses.parse_jobs,
        responses.parse_quota,
        responses.parse_credit_usage,
        responses.parse_cleaned,
    ):
        try:
            value = parse(Response(status, {}, body))
        except PictoryError:
            continue
        if isinstance(value, Job):
            assert status < 300
