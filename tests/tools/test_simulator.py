# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The simulator: as strict as the documentation, in the shapes of the samples, and it draws."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid

import pytest
import requests
from PIL import Image

from pictory_provider.api import connection, models
from pictory_provider.images.formats import PictureChecker
from pictory_provider.simulator import FATES, SETTINGS, SHAPES, Simulator, rules
from pictory_provider.simulator.faults import FAULTS, PLACES, parse
from tests.samples import JOB_ID, load, shape_of

PROMPT = {"prompt": "A lighthouse at dawn"}


@pytest.fixture
def ask(pictory):
    """Return a function that speaks to the simulator as a stranger would."""

    def ask(method, path, *, key=None, base=None, **arguments):
        headers = {"Authorization": key or pictory.api_key} if key != "" else {}
        headers |= arguments.pop("headers", {})
        url = (base or pictory.base_url) + path
        return requests.request(method, url, headers=headers, timeout=10, allow_redirects=False, **arguments)

    return ask


def submit(ask, **body):
    return ask("POST", "/v1/aistudio/images", json={**PROMPT, **body})


def assert_like(reply, name):
    sample = load(name)
    assert reply.status_code == sample.status
    if isinstance(sample.body, str):
        assert reply.text == sample.body
    else:
        assert shape_of(reply.json()) == shape_of(sample.body)


def job_like(ask, pictory, fate, **shapes):
    for each in shapes.items():
        pictory.shape(*each)
    pictory.plan(fate)
    return ask("GET", f"/v1/jobs/{submit(ask).json()['data']['jobId']}")


@pytest.mark.parametrize(
    ("sample", "fate"),
    [
        ("job-completed/200", "completed"),
        ("job-in-progress/200", "stuck"),
        ("job-cleaned/200", "cleaned"),
        ("job-no-url/200", "no-url"),
        ("job-unknown-status/200", "unknown-status"),
    ],
)
def test_every_fate_of_a_job_has_the_shape_of_its_sample(ask, pictory, sample, fate):
    assert_like(job_like(ask, pictory, fate), sample)


@pytest.mark.parametrize("shape", SHAPES["failed"])
def test_a_failed_job_has_the_shape_of_its_sample(ask, pictory, shape):
    assert_like(job_like(ask, pictory, "failed", failed=shape), f"job-failed-{shape}/200")


@pytest.mark.parametrize("shape", SHAPES["missing"])
def test_an_unknown_job_has_the_shape_of_its_sample(ask, pictory, shape):
    pictory.shape("missing", shape)
    where, _, status = shape.partition("-")
    assert_like(ask("GET", f"/v1/jobs/{JOB_ID}"), f"job-missing-{where}/{status}")


@pytest.mark.parametrize("shape", SHAPES["invalid"])
def test_a_refused_request_has_the_shape_of_its_sample(ask, pictory, shape):
    pictory.shape("invalid", shape)
    assert_like(submit(ask, prompt="four"), f"submit-invalid-{shape}/400")


@pytest.mark.parametrize("shape", ["400", "402"])
def test_missing_credits_have_the_shape_of_their_sample(ask, pictory, shape):
    pictory.shape("insufficient", shape)
    pictory.account.credits_limit = 1
    assert_like(submit(ask), f"submit-insufficient/{shape}")


def test_every_other_reply_has_the_shape_of_its_sample(ask, pictory):
    assert_like(submit(ask), "submit-accepted/200")
    job_id = submit(
        ask, style="vintage", referenceImageUrl=pictory.reference_image_url, aspectRatio="16:9"
    ).json()["data"]["jobId"]
    for _ in range(500):
        if ask("GET", f"/v1/jobs/{job_id}").json()["data"]["status"] == "completed":
            break
    pictory.account.jobs |= {str(n): pictory.account.jobs[job_id] for n in range(120)}
    assert_like(ask("GET", "/v1/aistudio/images"), "images/200")
    pictory.account.jobs = {job_id: pictory.account.jobs[job_id]}
    assert_like(ask("GET", "/v1/jobs"), "jobs/200")
    assert_like(ask("GET", "/v1/quota"), "quota/200")
    assert_like(ask("GET", "/v1/aicredits/usage"), "usage/200")
    assert_like(ask("GET", "/v1/aicredits/usage?year=2026"), "usage-invalid/400")
    assert_like(ask("DELETE", f"/v1/jobs/{job_id}/clean"), "cleaned/200")
    assert_like(ask("GET", "/v1/quota", key="wrong"), "unauthorized/401")
    assert_like(ask("GET", "/v1/quota", key=""), "unauthorized/401")
    faults = {"forbidden": "forbidden/403", "edge-block": "edge-block/403", "rate-limited": "rate-limited/429"}
    for fault, sample in {**faults, "server-error": "server-error/500"}.items():
        pictory.script("quota", fault)
        assert_like(ask("GET", "/v1/quota"), sample)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/aistudio/videos", 404),
        ("PUT", "/v1/aistudio/images", 404),
        ("POST", "/v1/jobs", 404),
        ("GET", "/v2/jobs/x", 404),
        ("GET", "/v1/quota/", 404),
        ("GET", "/v1/quota?verbose=1", 400),
        ("GET", "/v1/aistudio/images?nextPageKey=rubbish", 400),
        ("GET", "/v1/aistudio/images?page=2", 400),
        ("DELETE", f"/v1/jobs/{JOB_ID}/clean", 404),
    ],
)
def test_what_the_documentation_does_not_know_gets_an_error(ask, method, path, status):
    assert ask(method, path).status_code == status


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": 12345}, "prompt"),
        ({"model": "dall-e"}, "model"),
        ({"aspectRatio": "4:3"}, "aspectRatio"),
        ({"style": ""}, "style"),
        ({"referenceImageUrl": "a.png"}, "referenceImageUrl"),
        ({"webhook": "ftp://h/"}, "webhook"),
    ],
)
def test_every_wrong_field_is_named_and_nothing_is_billed(ask, pictory, body, field):
    reply = submit(ask, **body)
    assert reply.status_code == 400
    assert [item["name"] for item in reply.json()["fields"]] == [field]
    assert pictory.account.credits_used == 0


def test_a_body_that_is_no_json_object_is_refused(ask):
    as_json = {"headers": {"Content-Type": "application/json"}}
    for arguments in ({"data": b"{", **as_json}, {"data": b"[]", **as_json}, {"data": {"prompt": "A house"}}):
        assert ask("POST", "/v1/aistudio/images", **arguments).status_code == 400


def test_unknown_fields_are_dropped_silently_and_noted_in_the_log(ask, pictory):
    assert submit(ask, aspect_ratio="16:9", seed=7).status_code == 200
    assert pictory.submissions[0].ignored == ("aspect_ratio", "seed")
    assert next(iter(pictory.account.jobs.values())).body["aspectRatio"] == "1:1"


def test_both_sides_read_the_same_documentation():
    assert {name: model.credits for name, model in models.MODELS.items()} == rules.PRICES
    assert all(model.aspect_ratios == rules.RATIOS for model in models.MODELS.values())
    assert models.STYLES == rules.STYLES
    body = models.ImageRequest(
        prompt="12345", aspect_ratio="1:1", style="cartoon", reference_image_url="http://h", webhook="http://h"
    ).body()
    assert tuple(body) == rules.FIELDS
    assert connection.DEFAULT_BASE_URL.endswith("/pictoryapis")


@pytest.mark.parametrize(("ratio", "size"), [("1:1", (1024, 1024)), ("16:9", (1280, 720)), ("9:16", (720, 1280))])
def test_a_picture_is_a_real_png_of_its_jobs_size(ask, ratio, size):
    job_id = submit(ask, aspectRatio=ratio, prompt="A very long prompt. " * 200).json()["data"]["jobId"]
    data = ask("GET", f"/v1/jobs/{job_id}").json()["data"]
    picture = Image.open(io.BytesIO(requests.get(data["url"], timeout=10).content))
    picture.load()
    assert (picture.format, picture.size) == ("PNG", size) == ("PNG", (data["width"], data["height"]))


def test_pictures_of_other_prompts_models_and_styles_differ(ask):
    seen = set()
    for body in ({}, {"prompt": "A house on a hill"}, {"model": "nanobanana"}, {"style": "vintage"}):
        job_id = submit(ask, **body).json()["data"]["jobId"]
        seen.add(requests.get(ask("GET", f"/v1/jobs/{job_id}").json()["data"]["url"], timeout=10).content)
    assert len(seen) == 4


def finished(ask, job_id):
    for _ in range(500):
        body = ask("GET", f"/v1/jobs/{job_id}").json()
        if body["data"]["status"] != "in-progress":
            return body
    raise AssertionError("the job does not end")


@pytest.mark.parametrize("mark", SHAPES["mark"])
def test_a_picture_says_of_its_origin_what_was_chosen(ask, pictory, mark):
    pictory.shape("mark", mark)
    job_id = submit(ask).json()["data"]["jobId"]
    checker = PictureChecker()
    checker.feed(requests.get(ask("GET", f"/v1/jobs/{job_id}").json()["data"]["url"], timeout=10).content)
    assert checker.finish().marks == (() if mark == "none" else (mark,))


@pytest.mark.parametrize("url", SHAPES["url"])
def test_a_pictures_url_serves_for_as_long_as_was_set(ask, pictory, monkeypatch, url):
    now = 1_775_000_000.0
    monkeypatch.setattr(pictory.account, "clock", lambda: now)
    pictory.shape("url", url)
    pictory.set(url_seconds=60)
    job_id = submit(ask).json()["data"]["jobId"]

    def told():
        return ask("GET", f"/v1/jobs/{job_id}").json()["data"]["url"]

    first = told()
    now += 59
    assert (told(), requests.get(first, timeout=10).status_code) == (first, 200)
    now += 2
    assert requests.get(first, timeout=10).status_code == 403
    assert (told() == first, requests.get(told(), timeout=10).status_code == 200) == (
        (False, True) if url == "signed" else (True, False)
    )


def test_jobs_are_listed_and_images_name_their_job_as_chosen(ask, pictory):
    job_id = submit(ask).json()["data"]["jobId"]
    pictory.shape("listed", "no")
    assert ask("GET", "/v1/jobs").json() == {"items": [], "nextPageKey": None}
    assert "jobId" not in ask("GET", "/v1/aistudio/images").json()["items"][0]
    pictory.shape("image-job", "named")
    assert ask("GET", "/v1/aistudio/images").json()["items"][0]["jobId"] == job_id


URLLIB, AIOHTTP, OURS, BROWSER = (
    "Python-urllib/3.11",
    "Python/3.11 aiohttp/3.13",
    "airflow-provider-x/1",
    "Mozilla/5.0",
)


@pytest.mark.parametrize(
    ("firewall", "let_in"),
    [
        ("open", [URLLIB, AIOHTTP, OURS, BROWSER]),
        ("no-urllib", [AIOHTTP, OURS, BROWSER]),
        ("no-libraries", [OURS, BROWSER]),
        ("browsers-only", [BROWSER]),
    ],
)
def test_the_firewall_lets_in_whom_it_was_told_to(ask, pictory, firewall, let_in):
    pictory.shape("firewall", firewall)
    replies = {
        agent: ask("GET", "/v1/quota", headers={"User-Agent": agent}) for agent in (URLLIB, AIOHTTP, OURS, BROWSER)
    }
    assert [agent for agent, reply in replies.items() if reply.status_code == 200] == let_in
    for agent in set(replies) - set(let_in):
        assert_like(replies[agent], "edge-block/403")


def test_an_unknown_header_is_tolerated_or_refused(ask, pictory):
    strange = {"X-Anything": "1"}
    assert ask("GET", "/v1/quota", headers=strange).status_code == 200
    pictory.shape("unknown-header", "refused")
    assert ask("GET", "/v1/quota").status_code == 200
    assert ask("GET", "/v1/quota", headers=strange).status_code == 400
    assert submit(ask).status_code == 200


@pytest.mark.parametrize(("shape", "name"), [("x-ratelimit", "X-RateLimit-"), ("ratelimit", "RateLimit-")])
def test_every_reply_tells_how_many_requests_are_left_where_that_was_chosen(ask, pictory, shape, name):
    assert not [header for header in ask("GET", "/v1/quota").headers if "ratelimit" in header.lower()]
    pictory.shape("limit-headers", shape)
    pictory.script("quota", "rate-limited", retry_after=1)
    replies = [ask("GET", "/v1/quota"), ask("GET", f"/v1/jobs/{JOB_ID}")]
    assert [reply.headers[f"{name}Remaining"] for reply in replies] == ["58", "57"]
    assert replies[0].status_code == 429


def test_a_reference_image_is_fetched_and_painted_on(ask, pictory):
    first = submit(ask, referenceImageUrl=pictory.reference_image_url).json()["data"]["jobId"]
    data = finished(ask, first)["data"]
    assert data["status"] == "completed"
    fetched = [request.path for request in pictory.requests if request.host == "images"]
    assert fetched == ["/samples/reference.png"]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/a.png",
        "{images}/nothing.png",
        "{api}/v1/quota",
        "http://192.0.2.1/a.png",
        "https://example.com/a.png",
    ],
)
def test_a_reference_image_that_cannot_be_had_fails_the_job(ask, pictory, url):
    url = url.format(images=pictory.images_url, api=pictory.base_url)
    body = finished(ask, submit(ask, referenceImageUrl=url).json()["data"]["jobId"])
    assert (body["success"], body["data"]["error_code"]) == (False, "REFERENCE_IMAGE_ERROR")


def test_a_webhook_is_called_once_with_the_finished_job(ask, pictory):
    with Simulator() as receiver:
        job_id = submit(ask, webhook=f"{receiver.base_url}/hook").json()["data"]["jobId"]
        for _ in range(200):
            if receiver.requests:
                break
            time.sleep(0.02)
        (call,) = receiver.requests
    assert (call.method, call.body["job_id"], call.body["data"]["status"]) == ("POST", job_id, "completed")


@pytest.mark.parametrize("fate", FATES)
def test_words_in_the_prompt_decide_a_jobs_fate(ask, pictory, fate):
    submit(ask, prompt=f"A job that is to end simulate:{fate} today")
    assert next(iter(pictory.account.jobs.values())).fate == fate


def test_words_in_the_prompt_decide_how_long_a_job_runs(ask, pictory):
    job_id = submit(ask, prompt="A slow one simulate:seconds=30").json()["data"]["jobId"]
    assert ask("GET", f"/v1/jobs/{job_id}").json()["data"] == {"status": "in-progress"}
    pictory.account.jobs[job_id].created -= 30
    assert ask("GET", f"/v1/jobs/{job_id}").json()["data"]["status"] == "completed"


def test_a_picture_needs_no_key_and_refuses_one(ask):
    url = ask("GET", f"/v1/jobs/{submit(ask).json()['data']['jobId']}").json()["data"]["url"]
    assert requests.get(url, timeout=10).status_code == 200
    assert requests.get(url, headers={"Authorization": "x"}, timeout=10).status_code == 400


def test_credits_are_counted_and_a_reset_forgets_everything(ask, pictory):
    submit(ask, model="nanobanana-pro")
    submit(ask, model="flux-schnell")
    assert ask("GET", "/v1/quota").json()["aiCredits"] == {"used": 14.6, "limit": 22_000}
    pictory.reset()
    assert ask("GET", "/v1/quota").json()["aiCredits"]["used"] == 0
    assert len(pictory.requests) == 1


def test_a_fault_is_met_as_often_as_it_was_scripted(ask, pictory):
    pictory.script("quota", "server-error", times=2, status=502)
    assert [ask("GET", "/v1/quota").status_code for _ in range(3)] == [502, 502, 200]
    assert [request.fault for request in pictory.requests] == ["server-error", "server-error", None]


def test_a_fault_can_strike_only_at_times(ask, pictory):
    pictory.script("quota", "unavailable", times=-1, every=3)
    assert [ask("GET", "/v1/quota").status_code for _ in range(7)] == [200, 200, 503, 200, 200, 503, 200]
    pictory.clear_faults()
    pictory.script("quota", "unavailable", times=1, every=2)
    assert [ask("GET", "/v1/quota").status_code for _ in range(5)] == [200, 503, 200, 200, 200]


@pytest.mark.parametrize(("lagging", "prompt"), [("ledger_lag", "quota_lag"), ("quota_lag", "ledger_lag")])
def test_ledger_and_quota_lag_behind_a_charge_each_on_its_own(ask, pictory, lagging, prompt):
    def shown():
        return {
            "quota_lag": ask("GET", "/v1/quota").json()["aiCredits"]["used"],
            "ledger_lag": sum(row["amount"] for row in ask("GET", "/v1/aicredits/usage").json()),
        }

    pictory.set(**{lagging: 60})
    submit(ask)
    assert shown() == {lagging: 0, prompt: 2}
    assert pictory.account.credits_used == pictory.account.credits_billed == 2
    pictory.set(**{lagging: 0})
    assert shown() == {lagging: 2, prompt: 2}


def test_a_charge_that_lags_keeps_the_date_of_its_purchase(ask, pictory, monkeypatch):
    now = 1_775_000_000.0
    monkeypatch.setattr(pictory.account, "clock", lambda: now)
    pictory.set(ledger_lag=4)
    submit(ask)
    now += 3.9
    assert ask("GET", "/v1/aicredits/usage").json() == []
    now += 0.2
    (row,) = ask("GET", "/v1/aicredits/usage").json()
    assert row["transactionDate"] == "2026-03-31T23:33:20.000Z"
    assert ask("GET", "/v1/aicredits/usage?year=2026&month=3").json() == [row]
    assert ask("GET", "/v1/aicredits/usage?year=2026&month=4").json() == []


@pytest.mark.parametrize("where", ["ledger", "quota"])
def test_ledger_and_quota_may_be_updated_only_at_times_and_then_catch_up(ask, pictory, monkeypatch, where):
    now = 1_775_000_100.0

    def shown():
        if where == "quota":
            return ask("GET", "/v1/quota").json()["aiCredits"]["used"]
        return sum(row["amount"] for row in ask("GET", "/v1/aicredits/usage").json())

    monkeypatch.setattr(pictory.account, "clock", lambda: now)
    pictory.set(**{f"{where}_every": 600})
    seen = []
    for _ in range(10):
        submit(ask)
        seen.append(shown())
        now += 100
    assert seen == [0, 0, 0, 8, 8, 8, 8, 8, 8, 20]


def test_others_buy_from_the_account_and_the_ledger_and_the_quota_show_it_late(ask, pictory, monkeypatch):
    now = 1_775_000_000.0
    monkeypatch.setattr(pictory.account, "clock", lambda: now)
    pictory.set(others_every=10, others_amount=3, ledger_lag=25, quota_lag=5)
    submit(ask)
    now += 42
    assert [row["amount"] for row in ask("GET", "/v1/aicredits/usage").json()] == [3, 2]
    assert ask("GET", "/v1/quota").json()["aiCredits"]["used"] == 2 + 3 * 3
    assert (pictory.account.credits_by_others, pictory.account.credits_billed) == (12, 2)
    assert pictory.account.credits_used == 14
    pictory.set(others_every=0)
    now += 100
    assert pictory.account.credits_by_others == 12
    pictory.reset()
    assert pictory.account.credits_by_others == 0


def test_the_pictures_host_can_be_away_while_the_api_answers(ask, pictory):
    pictory.account.seconds = 0
    job_id = submit(ask).json()["data"]["jobId"]
    url = ask("GET", f"/v1/jobs/{job_id}").json()["data"]["url"]
    with requests.Session() as kept_open:
        assert kept_open.get(url, timeout=10).status_code == 200
        for _ in range(2):
            pictory.set(images_away=1)
            for browser in (requests, kept_open):
                with pytest.raises(requests.ConnectionError):
                    browser.get(url, timeout=10)
            assert ask("GET", f"/v1/jobs/{job_id}").json()["data"]["status"] == "completed"
            pictory.set(images_away=0)
            assert kept_open.get(url, timeout=10).status_code == 200
        pictory.set(images_away=1)
        pictory.reset()
        assert kept_open.get(pictory.reference_image_url, timeout=10).status_code == 200


def test_rows_can_be_entered_into_the_ledger_by_hand(ask, pictory, monkeypatch):
    now = 1_775_000_000.000_9  # later than its own text, which ends at the millisecond
    monkeypatch.setattr(pictory.account, "clock", lambda: now)
    submit(ask)
    pictory.enter(type="credit", amount=0.6, source="Text-to-Image")
    pictory.enter(type="adjustment", amount=5)
    pictory.enter(type="credit", amount=22_000, source="Monthly Reset", transactionDate="2026-01-01T00:00:00Z")
    pictory.enter(amount=None, type=None, transactionDate="yesterday")
    rows = ask("GET", "/v1/aicredits/usage").json()
    assert [(row.get("type"), row.get("amount")) for row in rows] == [
        (None, None),
        ("adjustment", 5),
        ("credit", 0.6),
        ("debit", 2.0),
        ("credit", 22_000),
    ]
    assert ask("GET", "/v1/aicredits/usage?year=2026&month=1").json() == rows[-1:]
    assert ask("GET", "/v1/quota").json()["aiCredits"]["used"] == 1.4
    pictory.reset()
    assert ask("GET", "/v1/aicredits/usage").json() == []


@pytest.mark.parametrize("value", ["2", "1.5", "Wed, 21 Oct 2026 07:28:00 GMT", "rubbish"])
def test_retry_after_is_sent_in_any_form(ask, pictory, value):
    pictory.script("quota", "rate-limited", retry_after=value)
    assert ask("GET", "/v1/quota").headers["Retry-After"] == value


def test_a_fault_place_fate_or_shape_that_does_not_exist_is_named():
    simulator = Simulator()
    for call in (
        lambda: simulator.script("nowhere", "garbage"),
        lambda: simulator.script("submit", "nothing"),
        lambda: simulator.plan("glorious"),
        lambda: simulator.shape("failed", "sideways"),
        lambda: parse("submit"),
        lambda: parse("submit:slow:second=5"),
        lambda: simulator.plan("failed", second=5),
        lambda: simulator.set(ledger_lags=5),
        lambda: simulator.set(ledger_lag=-1),
        lambda: parse("quota:unavailable:every=0"),
    ):
        with pytest.raises(ValueError, match="no such"):
            call()


def test_faults_are_read_from_the_command_line():
    fault = parse("submit:rate-limited:2:retry_after=1.5")
    assert (fault.place, fault.name, fault.times, fault.options) == (
        "submit",
        "rate-limited",
        2,
        {"retry_after": "1.5"},
    )


def test_help_names_every_fault_place_fate_and_shape():
    command = [sys.executable, "-m", "pictory_provider.simulator", "--help"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for name in (
        *FAULTS,
        *PLACES,
        *SHAPES,
        *SETTINGS,
        *(f"simulate:{fate}" for fate in FATES if fate != "completed"),
    ):
        assert name in text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_program_serves_on_loopback_obeys_its_control_and_ends_at_a_signal(number):
    command = [
        sys.executable,
        "-m",
        "pictory_provider.simulator",
        "--seconds",
        "0",
        "--fault",
        "quota:unavailable",
        "--set",
        "quota_lag=0",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ}) as program:
        lines = [program.stdout.readline() for _ in range(3)]
        settings = json.loads(re.search(r"'(.*)'", lines[2])[1])
        api = settings["host"].removesuffix("/pictoryapis")
        assert api.startswith("http://127.0.0.1:")
        headers = {"Authorization": settings["password"]}
        quota = f"{settings['host']}/v1/quota"
        assert [requests.get(quota, headers=headers, timeout=10).status_code for _ in range(2)] == [503, 200]
        fault = {"place": "quota", "fault": "server-error", "status": 504}
        assert requests.post(f"{api}/_simulator/faults", json=fault, timeout=10).status_code == 200
        assert requests.get(quota, headers=headers, timeout=10).status_code == 504
        for_ever = fault | {"times": -1}
        assert requests.post(f"{api}/_simulator/faults", json=for_ever, timeout=10).status_code == 200
        assert requests.delete(f"{api}/_simulator/faults", timeout=10).status_code == 200
        assert requests.get(quota, headers=headers, timeout=10).status_code == 200
        assert requests.post(f"{api}/_simulator/faults", json={"place": "moon"}, timeout=10).status_code == 400
        assert requests.post(f"{api}/_simulator/jobs", json={"fate": "failed"}, timeout=10).status_code == 200
        requests.post(f"{settings['host']}/v1/aistudio/images", json=PROMPT, headers=headers, timeout=10)
        state = requests.get(f"{api}/_simulator/state", timeout=10).json()
        assert (state["credits_used"], state["jobs"][0]["status"]) == (2.0, "failed")
        log = requests.get(f"{api}/_simulator/requests", timeout=10)
        assert len(log.json()) == 5
        assert settings["password"] not in log.text
        for change, wanted in (
            ("shapes", {"missing": "error-404"}),
            ("settings", {"ledger_lag": 60}),
            ("ledger", {"type": "credit", "amount": 1.5, "source": "Text-to-Image"}),
        ):
            assert requests.post(f"{api}/_simulator/{change}", json=wanted, timeout=10).status_code == 200
        state = requests.get(f"{api}/_simulator/state", timeout=10).json()
        assert (state["credits_used"], state["credits_billed"]) == (0.5, 2.0)
        assert (state["shapes"]["missing"], state["settings"]["ledger_lag"]) == ("error-404", 60)
        for change, wanted in (("shapes", {"moon": "full"}), ("settings", {"ledger_lag": "long"})):
            assert requests.post(f"{api}/_simulator/{change}", json=wanted, timeout=10).status_code == 400
        requests.post(f"{api}/_simulator/reset", timeout=10)
        assert requests.get(f"{api}/_simulator/requests", timeout=10).json() == []
        program.send_signal(number)
        assert program.wait(10) == 0


def test_a_port_that_is_taken_is_told(pictory):
    port = pictory.base_url.split(":")[2].split("/")[0]
    command = [sys.executable, "-m", "pictory_provider.simulator", "--port", port]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "cannot start" in done.stderr


def test_job_ids_are_uuids(ask):
    uuid.UUID(submit(ask).json()["data"]["jobId"])


def test_without_pillow_the_simulator_says_how_to_get_it():
    program = (
        "import importlib.util, runpy, sys; find = importlib.util.find_spec;"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'PIL' else find(name, *rest);"
        "sys.argv = ['simulator']; runpy.run_module('pictory_provider.simulator', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "airflow-provider-pictory[simulator]" in done.stderr
