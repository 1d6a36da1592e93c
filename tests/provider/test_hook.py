# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The hook against a local Pictory: every endpoint, every refusal, and the number of POSTs."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import ExitStack

import pytest

from pictory_provider.exceptions import (
    PictoryAuthenticationError,
    PictoryEdgeBlocked,
    PictoryJobFailed,
    PictoryJobNotFound,
    PictoryProtocolError,
    PictoryRateLimited,
    PictoryRequestInvalid,
    PictorySubmitOutcomeUnknown,
    PictoryUnavailable,
    PictoryWaitTimeout,
)
from pictory_provider.hooks.pictory import PictoryHook
from pictory_provider.simulator import Simulator
from tests.stand_ins import says

PROMPT = "A lighthouse at dawn"


def connect(monkeypatch, pictory, **changes):
    monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", json.dumps(pictory.connection() | changes))


def test_making_a_hook_does_no_io_even_for_a_connection_that_does_not_exist():
    assert PictoryHook("no_such_connection").pictory_conn_id == "no_such_connection"


def test_a_picture_is_bought_with_one_post_that_carries_the_raw_key_and_the_documented_body(hook, pictory):
    job_id = hook.generate_image(
        PROMPT,
        model="nanobanana",
        aspect_ratio="9:16",
        style="cartoon",
        reference_image_url=pictory.reference_image_url,
        webhook=f"{pictory.images_url}/hook",
    )
    (post,) = pictory.submissions
    assert post.body == {
        "prompt": PROMPT,
        "model": "nanobanana",
        "aspectRatio": "9:16",
        "style": "cartoon",
        "referenceImageUrl": pictory.reference_image_url,
        "webhook": f"{pictory.images_url}/hook",
    }
    assert post.ignored == ()
    assert post.headers["Authorization"] == pictory.api_key
    assert post.headers["Content-Type"] == "application/json"
    assert job_id in pictory.account.jobs


@pytest.mark.parametrize(
    "wrong",
    [
        {"prompt": ""},
        {"prompt": "four"},
        {"prompt": "x" * 5_001},
        {"prompt": None},
        {"prompt": "None"},
        {"prompt": 5},
        {"model": "dall-e-9"},
        {"style": "baroque"},
        {"aspect_ratio": "21:9"},
        {"reference_image_url": "a.png"},
        {"reference_image_url": "ftp://h/a.png"},
        {"reference_image_url": "https:///a.png"},
        {"webhook": "https://h/a b"},
    ],
    ids=lambda wrong: "-".join(f"{k}={str(v)[:10]}" for k, v in wrong.items()),
)
def test_a_request_that_pictory_would_refuse_is_never_sent(hook, pictory, wrong):
    with pytest.raises(PictoryRequestInvalid):
        hook.generate_image(**{"prompt": PROMPT, **wrong})
    assert pictory.requests == []


@pytest.mark.parametrize("length", [5, 5_000])
def test_prompts_of_the_documented_lengths_are_accepted_by_pictory(hook, pictory, length):
    hook.generate_image("x" * length)
    assert [r.status for r in pictory.submissions] == [200]


@pytest.mark.parametrize(
    ("field", "wire"), [("model", "model"), ("style", "style"), ("aspect_ratio", "aspectRatio")]
)
def test_an_unlisted_value_reaches_pictory_whose_400_names_the_field(hook, pictory, field, wire):
    with pytest.raises(PictoryRequestInvalid) as caught:
        hook.generate_image(PROMPT, allow_unlisted=True, **{field: "brand-new"})
    assert caught.value.fields == (wire,)
    assert (len(pictory.submissions), pictory.account.credits_used) == (1, 0)


@pytest.mark.parametrize("shape", ["objects", "objects-of-lists", "strings", "string"])
def test_a_400_is_told_with_its_fields_in_every_shape(hook, pictory, shape):
    pictory.shape("invalid", shape)
    with pytest.raises(PictoryRequestInvalid, match=r"style\s+must\s+be\s+one\s+of") as caught:
        hook.generate_image(PROMPT, allow_unlisted=True, style="baroque")
    assert caught.value.fields == ("style",)


@pytest.mark.parametrize("shape", ["402", "400"])
def test_missing_credits_are_told_as_such(hook, pictory, shape):
    pictory.account.credits_limit = 1
    pictory.shape("insufficient", shape)
    with pytest.raises(PictoryRequestInvalid, match=says("Not enough AI credits")):
        hook.generate_image(PROMPT)
    assert len(pictory.submissions) == 1


def test_missing_credits_may_also_come_as_a_failed_job(hook, pictory):
    pictory.account.credits_limit = 1
    pictory.shape("insufficient", "failed-job")
    with pytest.raises(PictoryJobFailed, match="INSUFFICIENT_CREDITS"):
        hook.wait_for_job(hook.generate_image(PROMPT), poll_interval=0.01)
    assert pictory.account.credits_used == 0


@pytest.mark.parametrize(
    ("fault", "options", "billed"),
    [
        ("drop-before", {}, 0),
        ("drop-before", {"reset": "yes"}, 0),
        ("drop-after", {}, 1),
        ("drop-after", {"reset": "yes"}, 1),
        ("drop-during", {}, 1),
        ("server-error", {"status": 500}, 0),
        ("server-error", {"status": 500, "accepted": "yes"}, 1),
        ("server-error", {"status": 502, "accepted": "yes"}, 1),
        ("server-error", {"status": 504}, 0),
        ("server-error", {"status": 524}, 0),
        ("garbage", {}, 1),
        ("empty", {}, 1),
        ("redirect", {}, 0),
        ("redirect", {"status": 307}, 0),
        ("redirect", {"status": 308}, 0),
    ],
)
def test_a_post_that_may_have_been_accepted_is_never_sent_again(hook, pictory, fault, options, billed):
    pictory.script("submit", fault, **options)
    with pytest.raises(PictorySubmitOutcomeUnknown, match=says("could buy the picture a second time")):
        hook.generate_image(PROMPT)
    assert (len(pictory.submissions), len(pictory.account.jobs)) == (1, billed)


def test_a_reply_slower_than_the_timeout_is_an_unknown_outcome(pictory, monkeypatch):
    connect(monkeypatch, pictory, extra={"timeout": 0.2})
    pictory.script("submit", "slow-reply", seconds=1)
    with pytest.raises(PictorySubmitOutcomeUnknown):
        PictoryHook().generate_image(PROMPT)
    assert (len(pictory.submissions), len(pictory.account.jobs)) == (1, 1)


def test_a_reply_that_drips_longer_than_the_timeout_is_an_unknown_outcome(pictory, monkeypatch):
    connect(monkeypatch, pictory, extra={"timeout": 0.3})
    pictory.script("submit", "drip", seconds=0.05)
    with pytest.raises(PictorySubmitOutcomeUnknown, match=says("too slow")):
        PictoryHook().generate_image(PROMPT)
    assert len(pictory.submissions) == 1


def test_a_post_that_was_plainly_refused_is_sent_again(hook, pictory, impatient):
    pictory.script("submit", "rate-limited", times=3, retry_after="0")
    hook.generate_image(PROMPT)
    assert (len(pictory.submissions), len(pictory.account.jobs)) == (4, 1)


def test_a_post_that_never_left_is_sent_again(monkeypatch, mocker):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with ExitStack() as stack:
        late = Simulator(port=port)
        host = f"http://127.0.0.1:{port}/pictoryapis"
        connection = {"conn_type": "pictory", "host": host, "password": late.api_key}
        monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", json.dumps(connection))
        pause = mocker.patch("time.sleep")
        pause.side_effect = lambda _: stack.enter_context(late)

        assert PictoryHook().generate_image(PROMPT) in late.account.jobs

        assert (pause.call_count, len(late.submissions)) == (1, 1)


def test_a_refusal_for_longer_than_a_minute_is_left_to_airflow(hook, pictory):
    pictory.script("submit", "rate-limited", retry_after="3600")
    with pytest.raises(PictoryRateLimited) as caught:
        hook.generate_image(PROMPT)
    assert caught.value.retry_after == "3600"
    assert len(pictory.submissions) == 1


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("unauthorized", PictoryAuthenticationError),
        ("forbidden", PictoryAuthenticationError),
        ("edge-block", PictoryEdgeBlocked),
    ],
)
def test_a_post_that_was_refused_for_good_is_told_apart(hook, pictory, fault, error):
    pictory.script("submit", fault)
    with pytest.raises(error):
        hook.generate_image(PROMPT)
    assert len(pictory.submissions) == 1


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"password": ""}, PictoryAuthenticationError, "has no API key"),
        ({"password": "Bearer pictai_x"}, PictoryAuthenticationError, "`Bearer`"),
        ({"password": "pictai_wrong"}, PictoryAuthenticationError, "refused the API key"),
        ({"host": "api.pictory.ai/pictoryapis"}, PictoryRequestInvalid, "base URL"),
        ({"extra": {"timeout": "soon"}}, PictoryRequestInvalid, "timeout"),
    ],
)
def test_a_wrong_connection_buys_nothing_and_says_what_to_mend(pictory, monkeypatch, changes, error, text):
    connect(monkeypatch, pictory, **changes)
    with pytest.raises(error, match=text):
        PictoryHook().generate_image(PROMPT)
    assert pictory.account.jobs == {}
    success, message = PictoryHook().test_connection()
    assert not success
    assert text in message


def test_a_missing_connection_says_how_to_make_one(pictory):
    with pytest.raises(PictoryAuthenticationError, match="AIRFLOW_CONN_NOWHERE"):
        PictoryHook("nowhere").generate_image(PROMPT)


def test_a_trailing_slash_after_the_base_url_makes_no_difference(pictory, monkeypatch):
    connect(monkeypatch, pictory, host=pictory.base_url + "/")
    assert PictoryHook().generate_image(PROMPT) in pictory.account.jobs


def test_the_test_button_reports_the_credits_that_are_left_and_costs_nothing(hook, pictory):
    assert hook.test_connection() == (True, "Connected to Pictory: 22,000 AI credits left of 22,000.")
    assert [(r.method, r.path) for r in pictory.requests] == [("GET", "/v1/quota")]


def test_a_job_is_looked_up(hook, pictory):
    job_id = hook.generate_image(PROMPT, model="flux-schnell", aspect_ratio="16:9")
    job = hook.get_job(job_id)
    assert (job.status, job.width, job.height, job.ai_credits_used) == ("completed", 1280, 720, 0.6)


@pytest.mark.parametrize("shape", ["data-404", "error-404", "top-404", "empty-404", "data-200", "top-500"])
def test_a_job_that_does_not_exist_is_told_in_every_shape(hook, pictory, shape):
    pictory.shape("missing", shape)
    with pytest.raises(PictoryJobNotFound, match="no-such-job"):
        hook.get_job("no-such-job")


@pytest.mark.parametrize("shape", ["data", "error", "top", "flag-only"])
def test_a_failed_job_is_an_answer_to_a_look_up_in_every_shape(hook, pictory, shape):
    pictory.plan("failed", error_code="POLICY", error_message="not that")
    pictory.shape("failed", shape)
    job = hook.get_job(hook.generate_image(PROMPT))
    assert (job.state.value, job.error_code, job.error_message) == ("failed", "POLICY", "not that")


@pytest.mark.parametrize("fault", ["drop-before", "server-error", "rate-limited", "garbage", "edge-block"])
def test_a_look_up_is_repeated_after_a_fault_that_may_pass(hook, pictory, impatient, fault):
    job_id = hook.generate_image(PROMPT)
    pictory.script("job", fault, times=2)
    assert hook.get_job(job_id).status == "completed"


def test_a_look_up_that_never_succeeds_says_so(hook, pictory, impatient, timing):
    timing(read_budget=0.05)
    job_id = hook.generate_image(PROMPT)
    pictory.script("job", "server-error", times=-1)
    with pytest.raises(PictoryUnavailable, match=says("could not answer")):
        hook.get_job(job_id)


def test_an_asynchronous_look_up_gives_the_same_job(hook, pictory):
    job_id = hook.generate_image(PROMPT)

    async def look():
        try:
            return await hook.aget_job(job_id)
        finally:
            await hook.aclose()

    assert asyncio.run(look()) == hook.get_job(job_id)


def test_a_wait_ends_with_the_job(hook, pictory):
    pictory.plan(seconds=0.1)
    job_id = hook.generate_image(PROMPT)
    assert hook.wait_for_job(job_id, poll_interval=0.02, timeout=5).status == "completed"
    assert len(pictory.polls) > 1


def test_a_wait_ends_at_its_deadline(hook, pictory):
    pictory.plan("stuck")
    job_id = hook.generate_image(PROMPT)
    with pytest.raises(PictoryWaitTimeout, match=says("runs on at Pictory")):
        hook.wait_for_job(job_id, poll_interval=0.02, timeout=0.05)


@pytest.mark.parametrize("job_id", ["", None, "None"])
def test_a_wait_for_no_job_makes_no_request(hook, pictory, job_id):
    with pytest.raises(PictoryRequestInvalid, match=says("job_id is missing")):
        hook.wait_for_job(job_id)
    assert pictory.requests == []


def test_a_wait_takes_a_renewed_key_from_the_connection(hook, pictory, monkeypatch):
    job_id = hook.generate_image(PROMPT)
    monkeypatch.setattr(pictory, "api_key", "pictai_renewed")
    connect(monkeypatch, pictory, password="pictai_renewed")
    assert hook.wait_for_job(job_id, poll_interval=0.01).status == "completed"
    assert [poll.status for poll in pictory.polls] == [401, 200]


def test_a_wait_with_a_bad_key_ends_after_the_second_401(hook, pictory):
    job_id = hook.generate_image(PROMPT)
    pictory.script("job", "unauthorized", times=-1)
    with pytest.raises(PictoryAuthenticationError):
        hook.wait_for_job(job_id, poll_interval=0.01)
    assert len(pictory.polls) == 2


def test_the_gallery_is_read_page_by_page_as_it_is_needed(hook, pictory):
    for _ in range(230):
        pictory.account.accept({"prompt": PROMPT, "style": "vintage"})
    images = hook.list_images()
    assert next(images).style == "vintage"
    assert len(pictory.requests) == 1
    assert len(list(images)) == 229
    assert len(pictory.requests) == 3


def test_the_jobs_are_listed(hook, pictory):
    job_id = hook.generate_image(PROMPT)
    assert [item["data"]["jobId"] for item in hook.list_jobs()] == [job_id]


def test_the_ledger_shows_what_was_billed(hook, pictory):
    hook.generate_image(PROMPT, model="flux-schnell")
    (entry,) = hook.get_credit_usage()
    assert (entry["type"], entry["amount"]) == ("debit", 0.6)
    year, month = (int(part) for part in entry["transactionDate"].split("-")[:2])
    assert hook.get_credit_usage(year, month) == [entry]
    assert hook.get_credit_usage(year - 1, month) == []
    assert hook.get_quota().ai_credits_left == 21_999.4


def test_a_year_of_the_ledger_without_a_month_is_refused_here(hook, pictory):
    with pytest.raises(PictoryRequestInvalid, match=says("without a month")):
        hook.get_credit_usage(2026)
    assert pictory.requests == []


def test_a_finished_job_is_cleaned_twice_without_harm(hook, pictory):
    job_id = hook.generate_image(PROMPT)
    hook.clean_job(job_id)
    hook.clean_job(job_id)
    assert hook.get_job(job_id).status == "cleaned"


def test_a_running_job_cannot_be_cleaned(hook, pictory):
    pictory.plan("stuck")
    with pytest.raises(PictoryRequestInvalid, match=says("completed or failed")):
        hook.clean_job(hook.generate_image(PROMPT))


def test_a_list_that_is_none_is_an_error(hook, pictory, impatient, timing):
    timing(read_budget=0.02)
    pictory.script("images", "empty", times=-1)
    with pytest.raises(PictoryProtocolError, match=says("without items")):
        next(hook.list_images())


def test_get_conn_gives_one_client_and_close_lets_go_of_it(hook, pictory):
    first = hook.get_conn()
    assert hook.get_conn() is first
    hook.close()
    assert hook.get_conn() is not first


def test_what_happens_is_counted(hook, pictory, mocker):
    incr = mocker.patch("pictory_provider.telemetry.Stats.incr")
    hook.wait_for_job(hook.generate_image(PROMPT, model="flux-schnell"))
    pictory.script("submit", "drop-after")
    with pytest.raises(PictorySubmitOutcomeUnknown):
        hook.generate_image(PROMPT)
    assert [(call.args, call.kwargs) for call in incr.call_args_list] == [
        (("pictory.submitted",), {"tags": {"model": "flux-schnell"}}),
        (("pictory.credits_bought",), {"count": 0.6, "tags": {"model": "flux-schnell"}}),
        (("pictory.polled",), {}),
        (("pictory.credits_used",), {"count": 0.6}),
        (("pictory.submit_outcome_unknown",), {}),
    ]


def test_metrics_that_fail_do_not_cost_the_job_id(hook, pictory, mocker):
    mocker.patch("pictory_provider.telemetry.Stats.incr", side_effect=OSError("statsd is away"))
    assert hook.generate_image(PROMPT) in pictory.account.jobs
