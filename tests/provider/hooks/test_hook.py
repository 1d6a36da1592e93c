# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The hook against a local Pictory: every endpoint, every refusal, and the number of POSTs."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from contextlib import ExitStack

import pytest

from pictory_provider.api.errors import CertificateUntrusted, PictoryError
from pictory_provider.api.network import CA_VARIABLES
from pictory_provider.core import events
from pictory_provider.exceptions import (
    PictoryAuthenticationError,
    PictoryBudgetExceeded,
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
from tests.driver import events_of
from tests.provider.waits import trigger
from tests.stand_ins import says

PROMPT = "A lighthouse at dawn"
JOB_ID = "4d82d040-4394-4371-867d-72ae1dd62b6d"


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
def test_a_400_is_reported_with_its_fields_in_every_shape(hook, pictory, shape):
    pictory.shape("invalid", shape)
    with pytest.raises(PictoryRequestInvalid, match=r"style\s+must\s+be\s+one\s+of") as caught:
        hook.generate_image(PROMPT, allow_unlisted=True, style="baroque")
    assert caught.value.fields == ("style",)


@pytest.mark.parametrize("shape", ["402", "400"])
def test_missing_credits_are_reported_as_such(hook, pictory, shape):
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
def test_a_post_that_was_refused_for_good_has_its_own_error(hook, pictory, fault, error):
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
def test_a_wrong_connection_buys_nothing_and_says_what_to_fix(pictory, monkeypatch, changes, error, text):
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
def test_a_job_that_does_not_exist_is_reported_in_every_shape(hook, pictory, shape):
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
def test_a_look_up_is_repeated_after_a_transient_fault(hook, pictory, impatient, fault):
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
    with pytest.raises(PictoryWaitTimeout, match=says("keeps running at Pictory")):
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


# A connection that Airflow cannot read -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"colour": "canary"}, "has the field 'colour'"),
        ({"password": 84728472}, "has a number as its 'password'"),
        ({"host": 84728472}, "has a number as its 'host'"),
        ({"conn_type": 84728472}, "has a number as its 'conn_type'"),
        ({"port": "84a"}, "has a 'port' that is not a whole number"),
    ],
)
@pytest.mark.parametrize("conn_id", ["pictory_default", "my-Own.one"])
def test_a_variable_that_airflow_passes_over_is_named_with_its_field_and_without_its_value(
    monkeypatch, pictory, changes, expected, conn_id
):
    monkeypatch.delenv("AIRFLOW_CONN_PICTORY_DEFAULT")
    variable = f"AIRFLOW_CONN_{conn_id.upper()}"
    monkeypatch.setenv(variable, json.dumps(pictory.connection() | changes))
    with PictoryHook(conn_id) as hook, pytest.raises(PictoryAuthenticationError) as caught:
        hook.get_quota()
    message = " ".join(str(caught.value).split())
    assert f"The environment variable {variable} is set on this machine, but it {expected}" in message
    assert "84728472" not in message
    assert "canary" not in message
    assert pictory.requests == []


def test_a_uri_with_an_odd_port_is_named_by_the_wait_of_a_triggerer_too(monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", "pictory://:pictai_canary@host:84a/")

    async def ask():
        hook = PictoryHook()
        try:
            await hook.aget_job("a")
        finally:
            await hook.aclose()

    with pytest.raises(
        PictoryAuthenticationError, match=says("has a port in its URI that is not a whole")
    ) as caught:
        asyncio.run(ask())
    assert "canary" not in str(caught.value)


def test_a_variable_that_is_ignored_for_a_connection_from_another_source_is_logged(monkeypatch, pictory, capsys):
    found = PictoryHook.get_connection("pictory_default")
    monkeypatch.setattr(PictoryHook, "get_connection", lambda *_: found)
    connect(monkeypatch, pictory, colour="red")
    with PictoryHook() as hook:
        hook.get_quota()
    expected = "AIRFLOW_CONN_PICTORY_DEFAULT is set but not used, because it has the field 'colour'"
    assert capsys.readouterr().out.count(expected) == 1


# The extra -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["max_credits", "budget", "Credits_Per_Day", "extra__pictory__limit"])
def test_a_limit_of_0_under_an_unknown_name_stops_submissions_before_anything_is_sent(monkeypatch, pictory, name):
    connect(monkeypatch, pictory, extra={name: 0})
    with PictoryHook() as hook, pytest.raises(PictoryRequestInvalid, match=f"has '{name}' in"):
        hook.generate_image(PROMPT)
    assert pictory.requests == []


def test_a_limit_under_the_name_that_old_forms_wrote_is_held(monkeypatch, pictory):
    connect(monkeypatch, pictory, extra={"extra__pictory__credits_per_day": 0})
    with PictoryHook() as hook, pytest.raises(PictoryBudgetExceeded):
        hook.generate_image(PROMPT)
    assert pictory.submissions == []


def test_a_misspelt_field_is_logged_and_stops_nothing(monkeypatch, pictory, caplog, capsys):
    connect(monkeypatch, pictory, extra={"Timeout": 30, "note": "of the covers team"})
    with PictoryHook() as hook:
        hook.get_quota()
        hook.get_quota()
    printed = caplog.text + capsys.readouterr().out
    assert printed.count("has 'Timeout' in its extra, which is not read. Did you mean 'timeout'?") == 1
    assert "note" not in printed


# A certificate that cannot be verified, a proxy that refuses ---------------------------------------------


@pytest.fixture
def untrusted(monkeypatch, certificate):
    """Return a Pictory with an untrusted certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    for name in CA_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with Simulator(ssl_context=context) as pictory:
        connect(monkeypatch, pictory)
        yield pictory


def test_a_purchase_whose_certificate_fails_is_tried_once_and_is_no_unknown_outcome(untrusted, capsys):
    with PictoryHook() as hook, pytest.raises(PictoryUnavailable) as caught:
        hook.generate_image(PROMPT)
    text = " ".join(str(caught.value).split())
    assert "The certificate of 127.0.0.1 cannot be verified" in text
    assert "so POST /v1/aistudio/images was never sent. It bought nothing," in text
    assert "`ca_bundle` of the connection's extra" in text
    assert "Trying again" not in capsys.readouterr().out
    assert untrusted.requests == []


def test_a_poll_whose_certificate_fails_ends_the_wait_immediately(untrusted, capsys):
    with (
        PictoryHook() as hook,
        pytest.raises(PictoryUnavailable, match=says("certificate of 127.0.0.1 cannot be")),
    ):
        hook.wait_for_job(JOB_ID, timeout=3_600)
    assert "Next look" not in capsys.readouterr().out


def test_a_trigger_whose_certificate_fails_ends_immediately_and_says_what_to_set(untrusted):
    (event,) = events_of(trigger(JOB_ID, end_time=time.time() + 3_600))
    error = events.read(event.payload).result
    assert isinstance(error, CertificateUntrusted)
    assert "`ca_bundle` of the connection's extra" in error.message


def test_with_the_authority_in_the_environment_alone_the_same_purchase_is_made(
    untrusted, certificate, monkeypatch
):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with PictoryHook() as hook:
        hook.generate_image(PROMPT)
    assert len(untrusted.submissions) == 1


# What a reply may hold -----------------------------------------------------------------------------------


def test_the_reply_to_a_purchase_that_is_too_large_is_an_unknown_outcome_and_is_sent_once(hook, pictory):
    pictory.set(reply_bytes=256 * 1024 + 1)
    with pytest.raises(PictorySubmitOutcomeUnknown, match=says("the reply is too large, above 256 KiB")):
        hook.generate_image(PROMPT)
    assert len(pictory.submissions) == len(pictory.account.jobs) == 1


def test_a_job_whose_replies_are_too_large_is_waited_for_until_the_deadline(hook, pictory):
    job_id = hook.generate_image(PROMPT)
    pictory.set(reply_bytes=12 * 1024 * 1024)
    with pytest.raises(PictoryWaitTimeout, match=says("the reply is too large, above 256 KiB")):
        hook.wait_for_job(job_id, timeout=0)
    (event,) = events_of(trigger(job_id, end_time=time.time()))
    assert "the reply is too large, above 256 KiB" in events.read(event.payload).result.message


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize("status", [200, 400, 403, 404, 500])
def test_a_reply_that_is_nested_too_deeply_is_an_answer_that_cannot_be_read(hook, pictory, status, timing):
    timing(read_budget=0)
    for body in (DEEP, f'{{"data": {DEEP}}}', '{"a":' * 500 + "1" + "}" * 500):
        pictory.script("any", "server-error", status=status, body=body, times=4)
        for ask in (
            hook.get_quota,
            hook.get_credit_usage,
            lambda: next(hook.list_images()),
            hook.list_jobs().__next__,
        ):
            with pytest.raises(PictoryError):
                ask()
    pictory.script("job", "server-error", status=status, body=DEEP, times=-1)
    (event,) = events_of(trigger(JOB_ID, end_time=time.time()))
    assert isinstance(events.read(event.payload).result, PictoryError)


@pytest.mark.parametrize("status", [200, 500])
def test_the_reply_to_a_purchase_that_is_nested_too_deeply_is_an_unknown_outcome(hook, pictory, status):
    pictory.script("submit", "server-error", status=status, body=DEEP, accepted="yes")
    with pytest.raises(PictorySubmitOutcomeUnknown):
        hook.generate_image(PROMPT)
    assert len(pictory.submissions) == len(pictory.account.jobs) == 1


def test_a_key_that_a_failed_job_repeats_in_another_form_is_in_no_event_and_no_error(monkeypatch):
    with Simulator(seconds=0, api_key="pictai_cAn+ary/9") as pictory:
        connect(monkeypatch, pictory)
        for form in ("pictai_cAn\\u002bary\\/9", "pictai_cAn%2Bary%2F9", "OnBpY3RhaV9jQW4rYXJ5Lzk="):
            said = f'{{"data": {{"status": "failed", "error_code": "{form}", "error_message": "for {form}"}}}}'
            pictory.script("job", "server-error", status=200, body=said, times=2)
            (event,) = events_of(trigger(JOB_ID))
            with PictoryHook() as hook, pytest.raises(PictoryJobFailed) as caught:
                hook.wait_for_job(JOB_ID)
            for text in (json.dumps(event.payload), str(caught.value), repr(caught.value.job)):
                assert "cAn" not in text
                assert "BpY3RhaV9jQW4rYXJ5Lzk" not in text
                assert "***" in text


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("get_job", ("None",)),
        ("clean_job", ("",)),
        ("get_credit_usage", (2024,)),
        ("get_credit_usage", (2024, 13)),
    ],
)
def test_arguments_are_checked_before_the_connection_is_read(method, arguments):
    with pytest.raises(PictoryRequestInvalid):
        getattr(PictoryHook("no_such_connection"), method)(*arguments)


def test_a_connection_that_loses_its_key_after_a_purchase_does_not_deny_the_purchase(pictory, monkeypatch):
    with PictoryHook() as hook:
        job_id = hook.generate_image(PROMPT)
        monkeypatch.setattr(pictory, "api_key", "another")
        connect(monkeypatch, pictory, password="")
        with pytest.raises(PictoryAuthenticationError) as caught:
            hook.wait_for_job(job_id)
    text = " ".join(str(caught.value).split())
    assert "has no API key. No request was made." in text
    assert "nothing was spent" not in text
