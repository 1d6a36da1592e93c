# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Parsing replies: every sample format, and invalid ones."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pictory_provider.api import responses
from pictory_provider.api.errors import (
    AuthenticationError,
    EdgeBlocked,
    ImageInvalid,
    JobNotFound,
    PictoryError,
    ProtocolError,
    RateLimited,
    RequestInvalid,
    Unavailable,
)
from pictory_provider.api.models import GeneratedImage, Job, JobState, Quota
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
VALUES = [
    "submit-accepted/200",
    "images/200",
    "jobs/200",
    "quota/200",
    "usage/200",
    "cleaned/200",
    "upload-url/200",
]


def reply(body, status=200, **headers):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(status, headers, raw)


def test_every_sample_says_how_surely_it_is_known_and_is_read_by_a_test():
    assert all(load(name).mark in MARKS for name in NAMES)
    assert sorted([*JOB_STATES, *REFUSALS, *INVALID, *MISSING, *VALUES]) == NAMES


PICTORY = "https://api.pictory.ai/pictoryapis"
LOCAL = "http://127.0.0.1:8000/pictoryapis"


def test_the_reply_about_an_upload_has_two_urls():
    urls = responses.parse_upload_urls(load("upload-url/200").response(), PICTORY)
    assert urls.signed_url.endswith("/lamp.png?Content-Type=image%2Fpng&X-Amz-Signature=secret")
    assert urls.url == "https://d123.cloudfront.net/public/teams/4d82d040/lamp.png"


@pytest.mark.parametrize(
    ("url", "base_url", "is_safe"),
    [
        ("https://h/a.png", PICTORY, True),
        ("HTTPS://h/a.png", LOCAL, True),
        ("http://h/a.png", PICTORY, False),
        ("http://h/a.png", LOCAL, False),
        ("http://127.0.0.1:9000/a.png", PICTORY, False),
        ("http://127.0.0.1:9000/a.png", LOCAL, True),
        ("http://[::1]/a.png", "http://localhost/pictoryapis", True),
        ("ftp://127.0.0.1/a.png", LOCAL, False),
        ("https:///a.png", PICTORY, False),
        ("https://h:99999/a.png", PICTORY, False),
        ("https://h/a b.png", PICTORY, False),
        ("", PICTORY, False),
        (None, PICTORY, False),
        (7, PICTORY, False),
    ],
)
def test_a_file_is_sent_and_read_over_https_only_but_on_the_loopback(url, base_url, is_safe):
    assert responses.is_safe_url(url, base_url) is is_safe
    reply_with = {"success": True, "data": {"signedUrl": url, "url": "https://h/a.png"}}
    if is_safe:
        assert responses.parse_upload_urls(reply(reply_with), base_url).signed_url == url
    else:
        with pytest.raises(ProtocolError, match="without a usable signedUrl"):
            responses.parse_upload_urls(reply(reply_with), base_url)


@pytest.mark.parametrize(
    ("status", "error"),
    [(200, None), (204, None), (400, RequestInvalid), (403, Unavailable), (307, Unavailable), (503, Unavailable)],
)
def test_an_upload_has_succeeded_only_with_a_success_and_no_error_quotes_its_host(status, error):
    answer = Response(status, {}, b"<Error><Code>Odd</Code><Signature>secret</Signature></Error>")
    if error is None:
        responses.check_upload(answer, "https://h/a?secret")
        return
    with pytest.raises(error, match=rf"^h refused the upload \({status} Odd\)\.$"):
        responses.check_upload(answer, "https://h/a?secret")


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
def test_an_unknown_job_is_recognized_in_every_shape(name):
    with pytest.raises(JobNotFound, match=JOB_ID):
        responses.parse_job(load(name).response(), JOB_ID)


def test_a_reply_about_another_job_is_an_error():
    with pytest.raises(ProtocolError, match="answered a request for job"):
        responses.parse_job(load("job-completed/200").response(), "another")


@pytest.mark.parametrize("url", [None, 5, "", "picture.png", "javascript:alert(1)", "ftp://h/a.png", "https://["])
def test_an_invalid_url_is_absent(url):
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
def test_the_parser_raises_only_its_own_errors_for_any_reply(body, status):
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


def refused(status, body=None, **headers):
    with pytest.raises(PictoryError) as caught:
        responses.check(reply({"message": "x"} if body is None else body, status, **headers))
    return caught.value


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (199, ProtocolError),
        (300, ProtocolError),
        (304, ProtocolError),
        (399, ProtocolError),
        (400, RequestInvalid),
        (401, AuthenticationError),
        (402, RequestInvalid),
        (403, AuthenticationError),
        (404, RequestInvalid),
        (428, RequestInvalid),
        (429, RateLimited),
        (430, RequestInvalid),
        (499, RequestInvalid),
        (500, Unavailable),
        (599, Unavailable),
    ],
)
def test_every_border_between_statuses_is_where_http_draws_it(status, kind):
    error = refused(status)
    assert (type(error), error.status) == (kind, status)


@pytest.mark.parametrize("status", [200, 201, 250, 299])
def test_every_2xx_is_a_success(status):
    assert responses.check(reply({"a": 1}, status)) == {"a": 1}
    assert responses.check(reply([1], status), list) == [1]


@pytest.mark.parametrize("status", [200, 299])
def test_a_success_with_other_json_is_an_error(status):
    for body, expected in (({}, list), ([], dict), (b"<html>", dict), (7, dict)):
        with pytest.raises(ProtocolError) as caught:
            responses.check(reply(body, status), expected)
        assert caught.value.status == status


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_status_that_may_pass_keeps_its_retry_after(status):
    assert refused(status, **{"retry-after": "7"}).retry_after == "7"
    assert refused(status).retry_after is None


def test_what_pictory_says_is_in_the_text_and_its_signed_urls_are_not():
    for status in (302, 400, 403, 429, 500):
        told = refused(status, {"message": "see https://h/a?sig=secret now."}).message
        assert "see https://h/a?... now." in told
        assert "secret" not in told
        assert ".." not in told.replace("?...", "")
    assert "b'" not in refused(500, b"<html>Bad   gateway</html>").message
    assert "'<html>Bad gateway</html>'" in refused(500, b"<html>Bad   gateway</html>").message
    assert "an empty body" in refused(500, b" ").message
    assert "'[1]'" in refused(500, [1]).message


def test_a_long_reply_is_shown_by_its_first_200_characters():
    assert f"'{'x' * 200}'" in refused(500, b"x" * 200).message
    assert f"'{'x' * 200}…'" in refused(500, b"x" * 201).message
    assert "…" in refused(500, b"x" * 2_000).message


def test_a_firewall_is_recognized_by_its_page_which_is_quoted():
    blocked = refused(403, b"<html>error code: 1010</html>")
    assert isinstance(blocked, EdgeBlocked)
    assert "The page says: '<html>error code: 1010</html>'." in blocked.message
    assert type(refused(403, [])) is AuthenticationError


def test_a_refusal_is_said_to_have_cost_nothing_only_where_that_is_certain():
    for status in (400, 401, 402, 403, 404, 413, 422, 429):
        assert "This request cost nothing" in refused(status).message, status
    for status in (408, 409, 410, 425, 451, 500, 302):
        assert "cost nothing" not in refused(status).message, status


@pytest.mark.parametrize(
    ("value", "fields", "told"),
    [
        (None, (), "x."),
        ("prompt", ("prompt",), "x [prompt]."),
        ("prompt: is too short", ("prompt",), "x [prompt: is too short]."),
        (["prompt: a", "style: b"], ("prompt", "style"), "x [prompt: a; style: b]."),
        ({"prompt": "is too short"}, ("prompt",), "x [prompt: is too short]."),
        ({"prompt": ["a", "b"], "style": {"message": "c"}}, ("prompt", "style"), "x [prompt: a, b; style: c]."),
        ([{"name": "prompt", "errors": ["a", None, "b"]}], ("prompt",), "x [prompt: a, b]."),
        ([{"field": "prompt", "error": "a"}], ("prompt",), "x [prompt: a]."),
        ([{"path": "prompt", "message": "a"}], ("prompt",), "x [prompt: a]."),
        ([{"errors": "a"}], ("?",), "x [?: a]."),
        ([{"name": "prompt"}], ("prompt",), "x [prompt]."),
        ([7, True, None], ("7",), "x [7]."),
        ([{"name": "a", "error": "https://h/a?sig=1"}], ("a",), "x [a: https://h/a?...]."),
    ],
)
def test_the_fields_of_a_400_are_read_in_every_form(value, fields, told):
    error = refused(400, {"message": "x", "fields": value})
    assert error.fields == fields
    assert error.message.startswith(f"Pictory refused the request (400): {told} This request cost nothing.")


def test_the_code_of_a_refusal_is_shown_and_kept():
    error = refused(402, {"message": "no credits.", "code": "INSUFFICIENT_CREDITS"})
    assert error.code == "INSUFFICIENT_CREDITS"
    assert error.message == (
        "The account has too few AI credits left for this picture (402): INSUFFICIENT_CREDITS no credits. This "
        "request cost nothing. Top up the account at https://app.pictory.ai and clear the task: it buys what is "
        "missing, and does not buy again what is on record."
    )
    assert refused(402).code is None


@pytest.mark.parametrize(
    ("body", "job_id"),
    [
        ({"data": {"jobId": " j "}}, "j"),
        ({"data": {"job_id": "j"}}, "j"),
        ({"jobId": "j"}, "j"),
        ({"job_id": "j"}, "j"),
        ({"data": {"jobId": "j"}, "jobId": "k"}, "j"),
        ({"data": {"jobId": "None"}, "jobId": "k"}, "k"),
        ({"data": {"jobId": 5}, "job_id": "k"}, "k"),
        ({"data": [], "jobId": "k"}, "k"),
    ],
)
def test_a_job_id_is_read_wherever_pictory_puts_it(body, job_id):
    assert responses.parse_submission(reply(body, 201)) == job_id


def test_a_success_without_a_job_id_keeps_its_status_and_shows_the_reply():
    with pytest.raises(ProtocolError, match=r"Pictory answered 201 without a jobId: '\{\}'") as caught:
        responses.parse_submission(reply({}, 201))
    assert caught.value.status == 201


DATA = {
    "job_id": JOB_ID.upper(),
    "status": "completed",
    "url": "https://h/a.png",
    "width": 1024.0,
    "height": 576,
    "aiCreditsUsed": 0.6,
}


def test_all_that_pictory_says_of_a_job_is_kept():
    assert responses.parse_job(reply({"success": True, "data": DATA}), JOB_ID) == Job(
        job_id=JOB_ID,
        status="completed",
        success=True,
        url="https://h/a.png",
        width=1024,
        height=576,
        ai_credits_used=0.6,
    )


@pytest.mark.parametrize("success", ["false", 0, None, "x"])
def test_an_invalid_success_flag_is_ignored(success):
    assert responses.parse_job(reply({"success": success, "data": DATA}), JOB_ID).success is None


@pytest.mark.parametrize(("code", "message"), [("errorCode", "errorMessage"), ("error_code", "error_message")])
def test_why_a_job_has_failed_is_read_under_both_names(code, message):
    for body in (
        {"data": {code: "C", message: "m"}},
        {"error": {code: "C", message: "m"}},
        {code: "C", message: "m"},
    ):
        found = responses.parse_job(reply({"success": False, **body}), JOB_ID)
        assert (found.error_code, found.error_message) == ("C", "m")


@pytest.mark.parametrize("status", [200, 400, 404, 500])
@pytest.mark.parametrize(
    "body",
    [
        {"data": {"error_code": "JOB_NOT_FOUND"}},
        {"error": {"errorCode": "JOB_NOT_FOUND"}},
        {"error_message": "JOB_NOT_FOUND"},
    ],
)
def test_an_unknown_job_is_recognized_by_its_code_with_any_status(status, body):
    with pytest.raises(JobNotFound) as caught:
        responses.parse_job(reply(body, status), JOB_ID)
    assert f"(HTTP {status})" in caught.value.message
    assert "JOB_NOT_FOUND" in (caught.value.job.error_code, caught.value.job.error_message)
    assert caught.value.job.job_id == JOB_ID


def test_any_404_says_that_pictory_knows_no_such_job_and_no_other_status_does():
    with pytest.raises(JobNotFound):
        responses.parse_job(reply(b"<html>", 404), JOB_ID)
    for status, kind in ((403, EdgeBlocked), (405, RequestInvalid), (500, Unavailable)):
        with pytest.raises(kind):
            responses.parse_job(reply(b"<html>", status), JOB_ID)


@pytest.mark.parametrize("name", ["job_id", "jobId"])
@pytest.mark.parametrize("holder", ["data", "error", None])
def test_a_reply_that_names_another_job_is_refused_wherever_it_does(name, holder):
    body = {holder: {name: "another"}} if holder else {name: "another"}
    with pytest.raises(ProtocolError, match=r"answered a request for job .* with job another") as caught:
        responses.parse_job(reply({"data": {}, **body}), JOB_ID)
    assert caught.value.status == 200


@pytest.mark.parametrize(
    ("url", "is_one"),
    [
        ("https://h/a.png", True),
        ("http://h/a.png?sig=1", True),
        ("HTTPS://h/a.png", True),
        ("https:///a.png", False),
        ("https://", False),
        ("//h/a.png", False),
        ("ftp://h/a.png", False),
        (["https://h"], False),
    ],
)
def test_a_url_has_a_scheme_of_the_web_and_a_host(url, is_one):
    found = responses.parse_job(reply({"data": {"status": "completed", "url": url}}), JOB_ID).url
    assert found == (url if is_one else None)


@pytest.mark.parametrize(
    ("value", "number"),
    [(0.6, 0.6), (0, 0), (14, 14), (-1, -1), (None, None), ("2", None), (True, None), (10**400, None)],
)
def test_credits_are_a_number_or_absent(value, number):
    assert responses.parse_job(reply({"data": {"aiCreditsUsed": value}}), JOB_ID).ai_credits_used == number
    assert responses.parse_job(reply(b'{"data": {"aiCreditsUsed": 1e999}}'), JOB_ID).ai_credits_used is None


@pytest.mark.parametrize(("value", "pixels"), [(1, 1), (1024, 1024), (1024.0, 1024), (0.5, None), (-1, None)])
def test_pixels_are_whole_and_more_than_none(value, pixels):
    found = responses.parse_job(reply({"data": {"width": value, "height": value}}), JOB_ID)
    assert (found.width, found.height) == (pixels, pixels)


def test_every_field_of_the_gallery_is_read():
    item = {
        "id": 7,
        "url": "https://h/a.png",
        "prompt": " A lamp ",
        "model": "nanobanana",
        "aspectRatio": "16:9",
        "style": "vintage",
        "referenceImageUrl": "https://h/r.png",
        "width": 16,
        "height": 9,
        "createdDate": "2026-11-28",
    }
    (image, empty), key = responses.parse_images(reply({"items": [item, {}, 7], "nextPageKey": ""}))
    assert key is None
    assert image == GeneratedImage(
        id="7",
        url="https://h/a.png",
        prompt="A lamp",
        model="nanobanana",
        aspect_ratio="16:9",
        style="vintage",
        reference_image_url="https://h/r.png",
        width=16,
        height=9,
        created_date="2026-11-28",
    )
    assert empty == GeneratedImage(id=None, url=None)


@pytest.mark.parametrize("parse", [responses.parse_images, responses.parse_jobs])
def test_a_list_without_items_is_an_error(parse):
    for body in ({}, {"items": None}, {"items": {}}):
        with pytest.raises(ProtocolError, match="Pictory sent a list without items") as caught:
            parse(reply(body, 201))
        assert caught.value.status == 201
    assert parse(reply({"items": [], "nextPageKey": "k"})) == ([], "k")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"aiCredits": {}},
        {"aiCredits": {"used": 1}},
        {"aiCredits": {"limit": 1}},
        {"aiCredits": {"used": "1", "limit": 2}},
    ],
)
def test_a_quota_without_both_numbers_is_an_error(body):
    with pytest.raises(ProtocolError, match="Pictory sent a quota without AI credits") as caught:
        responses.parse_quota(reply(body))
    assert caught.value.status == 200


def test_a_quota_of_zero_is_valid_and_the_rest_is_rounded_to_hundredths():
    body = {"aiCredits": {"used": 0, "limit": 0}, "other": 1}
    quota = responses.parse_quota(reply(body))
    assert (quota.ai_credits_used, quota.ai_credits_limit, quota.ai_credits_left, quota.raw) == (0, 0, 0, body)
    assert Quota(ai_credits_used=0.1 + 0.2, ai_credits_limit=1, raw={}).ai_credits_left == 0.7
    assert Quota(ai_credits_used=0.004, ai_credits_limit=1, raw={}).ai_credits_left == 1


def test_no_entry_of_the_ledger_is_left_out():
    assert responses.parse_credit_usage(reply([{"a": 1}, {}])) == [{"a": 1}, {}]
    assert responses.parse_credit_usage(reply([])) == []
    with pytest.raises(ProtocolError, match="an entry that is not an object") as caught:
        responses.parse_credit_usage(reply([{"a": 1}, 7]))
    assert caught.value.status == 200


@pytest.mark.parametrize("body", [{}, {"success": False}, {"success": 1}, {"success": "true"}])
def test_only_a_plain_yes_confirms_a_clean_up(body):
    with pytest.raises(ProtocolError, match="The clean-up was not confirmed") as caught:
        responses.parse_cleaned(reply(body, 202))
    assert caught.value.status == 202


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (199, ImageInvalid),
        (201, ImageInvalid),
        (206, ImageInvalid),
        (302, ImageInvalid),
        (403, ImageInvalid),
        (404, ImageInvalid),
        (428, ImageInvalid),
        (429, Unavailable),
        (499, ImageInvalid),
        (500, Unavailable),
        (503, Unavailable),
    ],
)
def test_a_pictures_host_serves_it_with_200_and_with_nothing_else(status, kind):
    responses.check_picture(reply(b"", 200), "https://h/a.png?sig=secret")
    with pytest.raises(kind) as caught:
        responses.check_picture(reply(b"", status, **{"retry-after": "7"}), "https://h/a.png?sig=secret")
    assert type(caught.value) is kind
    assert f"{status}" in caught.value.message
    assert "https://h/a.png" in caught.value.message
    assert "secret" not in caught.value.message
    if kind is Unavailable:
        assert (caught.value.status, caught.value.retry_after) == (status, "7")
