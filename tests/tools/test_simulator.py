# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests that the simulator is as strict as the documentation, and that its replies have the shapes of the samples."""

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
from pictory_provider.media.formats import PictureChecker
from pictory_provider.simulator import FATES, SETTINGS, SHAPES, Simulator, rules
from pictory_provider.simulator.faults import FAULTS, PLACES, parse
from tests.samples import JOB_ID, load, shape_of

PROMPT = {"prompt": "A lighthouse at dawn"}


@pytest.fixture
def send(pictory):
    """Return a function that sends a request without the provider's client."""

    def send(method, path, *, key=None, base=None, **arguments):
        headers = {"Authorization": key or pictory.api_key} if key != "" else {}
        headers |= arguments.pop("headers", {})
        url = (base or pictory.base_url) + path
        return requests.request(method, url, headers=headers, timeout=10, allow_redirects=False, **arguments)

    return send


def submit(send, **body):
    return send("POST", "/v1/aistudio/images", json={**PROMPT, **body})


def assert_like(reply, name):
    sample = load(name)
    assert reply.status_code == sample.status
    if isinstance(sample.body, str):
        assert reply.text == sample.body
    else:
        assert shape_of(reply.json()) == shape_of(sample.body)


def job_like(send, pictory, fate, **shapes):
    for each in shapes.items():
        pictory.shape(*each)
    pictory.plan(fate)
    return send("GET", f"/v1/jobs/{submit(send).json()['data']['jobId']}")


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
def test_a_job_has_the_shape_of_its_sample_for_every_fate(send, pictory, sample, fate):
    assert_like(job_like(send, pictory, fate), sample)


@pytest.mark.parametrize("shape", SHAPES["failed"])
def test_a_failed_job_has_the_shape_of_its_sample(send, pictory, shape):
    assert_like(job_like(send, pictory, "failed", failed=shape), f"job-failed-{shape}/200")


@pytest.mark.parametrize("shape", SHAPES["missing"])
def test_an_unknown_job_has_the_shape_of_its_sample(send, pictory, shape):
    pictory.shape("missing", shape)
    where, _, status = shape.partition("-")
    assert_like(send("GET", f"/v1/jobs/{JOB_ID}"), f"job-missing-{where}/{status}")


@pytest.mark.parametrize("shape", SHAPES["invalid"])
def test_a_refused_request_has_the_shape_of_its_sample(send, pictory, shape):
    pictory.shape("invalid", shape)
    assert_like(submit(send, prompt="four"), f"submit-invalid-{shape}/400")


@pytest.mark.parametrize("shape", ["400", "402"])
def test_missing_credits_have_the_shape_of_their_sample(send, pictory, shape):
    pictory.shape("insufficient", shape)
    pictory.account.credits_limit = 1
    assert_like(submit(send), f"submit-insufficient/{shape}")


def test_every_other_reply_has_the_shape_of_its_sample(send, pictory):
    assert_like(submit(send), "submit-accepted/200")
    job_id = submit(
        send, style="vintage", referenceImageUrl=pictory.reference_image_url, aspectRatio="16:9"
    ).json()["data"]["jobId"]
    for _ in range(500):
        if send("GET", f"/v1/jobs/{job_id}").json()["data"]["status"] == "completed":
            break
    pictory.account.jobs |= {str(n): pictory.account.jobs[job_id] for n in range(120)}
    assert_like(send("GET", "/v1/aistudio/images"), "images/200")
    pictory.account.jobs = {job_id: pictory.account.jobs[job_id]}
    assert_like(send("GET", "/v1/jobs"), "jobs/200")
    assert_like(send("GET", "/v1/quota"), "quota/200")
    assert_like(send("GET", "/v1/aicredits/usage"), "usage/200")
    assert_like(send("GET", "/v1/aicredits/usage?year=2026"), "usage-invalid/400")
    assert_like(send("DELETE", f"/v1/jobs/{job_id}/clean"), "cleaned/200")
    assert_like(send("GET", "/v1/quota", key="wrong"), "unauthorized/401")
    assert_like(send("GET", "/v1/quota", key=""), "unauthorized/401")
    faults = {"forbidden": "forbidden/403", "edge-block": "edge-block/403", "rate-limited": "rate-limited/429"}
    for fault, sample in {**faults, "server-error": "server-error/500"}.items():
        pictory.script("quota", fault)
        assert_like(send("GET", "/v1/quota"), sample)


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
def test_an_undocumented_request_gets_an_error(send, method, path, status):
    assert send(method, path).status_code == status


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
def test_a_wrong_field_is_named_and_nothing_is_billed(send, pictory, body, field):
    reply = submit(send, **body)
    assert reply.status_code == 400
    assert [item["name"] for item in reply.json()["fields"]] == [field]
    assert pictory.account.credits_used == 0


def test_a_body_that_is_not_a_json_object_is_refused(send):
    as_json = {"headers": {"Content-Type": "application/json"}}
    for arguments in ({"data": b"{", **as_json}, {"data": b"[]", **as_json}, {"data": {"prompt": "A house"}}):
        assert send("POST", "/v1/aistudio/images", **arguments).status_code == 400


def test_unknown_fields_are_dropped_and_logged(send, pictory):
    assert submit(send, aspect_ratio="16:9", seed=7).status_code == 200
    assert pictory.submissions[0].ignored == ("aspect_ratio", "seed")
    assert next(iter(pictory.account.jobs.values())).body["aspectRatio"] == "1:1"


def test_the_provider_and_the_simulator_have_the_same_documented_values():
    assert {name: model.credits for name, model in models.MODELS.items()} == rules.PRICES
    assert all(model.aspect_ratios == rules.RATIOS for model in models.MODELS.values())
    assert models.STYLES == rules.STYLES
    body = models.ImageRequest(
        prompt="12345", aspect_ratio="1:1", style="cartoon", reference_image_url="http://h", webhook="http://h"
    ).body()
    assert tuple(body) == rules.FIELDS
    assert connection.DEFAULT_BASE_URL.endswith("/pictoryapis")


@pytest.mark.parametrize(("ratio", "size"), [("1:1", (1024, 1024)), ("16:9", (1280, 720)), ("9:16", (720, 1280))])
def test_a_picture_is_a_real_png_of_its_jobs_size(send, ratio, size):
    job_id = submit(send, aspectRatio=ratio, prompt="A very long prompt. " * 200).json()["data"]["jobId"]
    data = send("GET", f"/v1/jobs/{job_id}").json()["data"]
    picture = Image.open(io.BytesIO(requests.get(data["url"], timeout=10).content))
    picture.load()
    assert (picture.format, picture.size) == ("PNG", size) == ("PNG", (data["width"], data["height"]))


def test_pictures_of_other_prompts_models_and_styles_differ(send):
    seen = set()
    for body in ({}, {"prompt": "A house on a hill"}, {"model": "nanobanana"}, {"style": "vintage"}):
        job_id = submit(send, **body).json()["data"]["jobId"]
        seen.add(requests.get(send("GET", f"/v1/jobs/{job_id}").json()["data"]["url"], timeout=10).content)
    assert len(seen) == 4


@pytest.mark.parametrize("has_reference", [False, True])
def test_each_job_of_the_same_request_has_another_picture(send, pictory, has_reference):
    """As a model draws another one each time: candidates, or a picture that is bought again."""

    def picture():
        body = {"referenceImageUrl": pictory.reference_image_url} if has_reference else {}
        data = finished(send, submit(send, **body).json()["data"]["jobId"])["data"]
        return requests.get(data["url"], timeout=10).content

    pictures = [picture() for _ in range(4)]
    assert len(set(pictures)) == 4
    pictory.reset()
    assert picture() == pictures[0]


def finished(send, job_id):
    for _ in range(500):
        body = send("GET", f"/v1/jobs/{job_id}").json()
        if body["data"]["status"] != "in-progress":
            return body
    raise AssertionError("the job does not end")


@pytest.mark.parametrize("mark", SHAPES["mark"])
def test_a_picture_has_the_chosen_mark_of_its_origin(send, pictory, mark):
    pictory.shape("mark", mark)
    job_id = submit(send).json()["data"]["jobId"]
    checker = PictureChecker()
    checker.feed(requests.get(send("GET", f"/v1/jobs/{job_id}").json()["data"]["url"], timeout=10).content)
    picture = checker.finish()
    assert picture.marks == (() if mark == "none" else (mark.partition("-")[0],))
    source = {"xmp-ai": "trainedAlgorithmicMedia", "xmp-camera": "digitalCapture"}.get(mark)
    assert (picture.digital_source_type or "").rpartition("/")[2] == (source or "")


@pytest.mark.parametrize("url", SHAPES["url"])
def test_a_pictures_url_works_for_the_configured_time(send, pictory, monkeypatch, url):
    now = 1_775_000_000.0
    monkeypatch.setattr(pictory.account, "clock", lambda: now)
    pictory.shape("url", url)
    pictory.set(url_seconds=60)
    job_id = submit(send).json()["data"]["jobId"]

    def current_url():
        return send("GET", f"/v1/jobs/{job_id}").json()["data"]["url"]

    first = current_url()
    now += 59
    assert (current_url(), requests.get(first, timeout=10).status_code) == (first, 200)
    now += 2
    assert requests.get(first, timeout=10).status_code == 403
    assert (current_url() == first, requests.get(current_url(), timeout=10).status_code == 200) == (
        (False, True) if url == "signed" else (True, False)
    )


def test_jobs_are_listed_and_images_name_their_job_as_chosen(send, pictory):
    job_id = submit(send).json()["data"]["jobId"]
    pictory.shape("listed", "no")
    assert send("GET", "/v1/jobs").json() == {"items": [], "nextPageKey": None}
    assert "jobId" not in send("GET", "/v1/aistudio/images").json()["items"][0]
    pictory.shape("image-job", "named")
    assert send("GET", "/v1/aistudio/images").json()["items"][0]["jobId"] == job_id


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
def test_the_firewall_blocks_the_chosen_user_agents(send, pictory, firewall, let_in):
    pictory.shape("firewall", firewall)
    replies = {
        agent: send("GET", "/v1/quota", headers={"User-Agent": agent})
        for agent in (URLLIB, AIOHTTP, OURS, BROWSER)
    }
    assert [agent for agent, reply in replies.items() if reply.status_code == 200] == let_in
    for agent in set(replies) - set(let_in):
        assert_like(replies[agent], "edge-block/403")


def test_an_unknown_header_is_tolerated_or_refused(send, pictory):
    unknown = {"X-Anything": "1"}
    assert send("GET", "/v1/quota", headers=unknown).status_code == 200
    pictory.shape("unknown-header", "refused")
    assert send("GET", "/v1/quota").status_code == 200
    assert send("GET", "/v1/quota", headers=unknown).status_code == 400
    assert submit(send).status_code == 200


@pytest.mark.parametrize(("shape", "name"), [("x-ratelimit", "X-RateLimit-"), ("ratelimit", "RateLimit-")])
def test_every_reply_has_the_chosen_rate_limit_headers(send, pictory, shape, name):
    assert not [header for header in send("GET", "/v1/quota").headers if "ratelimit" in header.lower()]
    pictory.shape("limit-headers", shape)
    pictory.script("quota", "rate-limited", retry_after=1)
    replies = [send("GET", "/v1/quota"), send("GET", f"/v1/jobs/{JOB_ID}")]
    assert [reply.headers[f"{name}Remaining"] for reply in replies] == ["58", "57"]
    assert replies[0].status_code == 429


def test_a_reference_image_is_fetched(send, pictory):
    first = submit(send, referenceImageUrl=pictory.reference_image_url).json()["data"]["jobId"]
    data = finished(send, first)["data"]
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
def test_a_reference_image_that_cannot_be_fetched_fails_the_job(send, pictory, url):
    url = url.format(images=pictory.images_url, api=pictory.base_url)
    body = finished(send, submit(send, referenceImageUrl=url).json()["data"]["jobId"])
    assert (body["success"], body["data"]["error_code"]) == (False, "REFERENCE_IMAGE_ERROR")


def upload_url(send, **body):
    return send("POST", "/v1/media/generateurl", json={"fileName": "a b.png", "contentType": "image/png", **body})


def put(url, content=b"a picture", **headers):
    return requests.put(url, data=content, headers={"Content-Type": "image/png", **headers}, timeout=10)


def test_an_upload_is_public_once_it_has_been_sent(send, pictory):
    reply = upload_url(send)
    assert_like(reply, "upload-url/200")
    data = reply.json()["data"]
    assert data["url"] == f"{pictory.images_url}/{data['key']}" == data["signedUrl"].partition("?")[0]
    assert requests.head(data["url"], timeout=10).status_code == 403
    assert put(data["signedUrl"]).status_code == 200
    assert requests.get(data["url"], timeout=10).content == b"a picture"
    assert requests.head(data["url"], timeout=10).headers["Content-Length"] == "9"
    pictory.reset()
    assert requests.get(data["url"], timeout=10).status_code == 403


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"fileName": ""}, "fileName"),
        ({"fileName": 7}, "fileName"),
        ({"contentType": "png"}, "contentType"),
        ({"contentType": None}, "contentType"),
    ],
)
def test_a_wrong_request_for_an_upload_is_refused_by_its_field(send, pictory, body, field):
    reply = upload_url(send, **body)
    assert reply.status_code == 400
    assert [each["name"] for each in reply.json()["fields"]] == [field]


@pytest.mark.parametrize(
    ("settings", "changes", "refusal"),
    [
        ({}, {"Content-Type": "image/jpeg"}, (403, "SignatureDoesNotMatch")),
        ({}, {"Authorization": "pictai_simulator"}, (400, "InvalidArgument")),
        ({"upload_bytes": 8}, {}, (400, "EntityTooLarge")),
        ({"upload_seconds": 1e-9}, {}, (403, "AccessDenied")),
    ],
)
def test_an_upload_is_refused_as_amazon_s3_refuses_it(send, pictory, settings, changes, refusal):
    pictory.set(**settings)
    data = upload_url(send).json()["data"]
    reply = put(data["signedUrl"], **changes)
    assert (reply.status_code, re.search("<Code>(.*)</Code>", reply.text)[1]) == refusal
    assert requests.get(data["url"], timeout=10).status_code == 403


@pytest.mark.parametrize("change", [lambda url: url.partition("?")[0], lambda url: url + "0"])
def test_an_upload_needs_its_signature(send, pictory, change):
    assert put(change(upload_url(send).json()["data"]["signedUrl"])).status_code == 403


def test_a_job_whose_reference_image_was_never_uploaded_fails(send, pictory):
    url = upload_url(send).json()["data"]["url"]
    body = finished(send, submit(send, referenceImageUrl=url).json()["data"]["jobId"])
    assert (body["success"], body["data"]["error_code"]) == (False, "REFERENCE_IMAGE_ERROR")


@pytest.mark.parametrize("place", ["upload", "uploaded"])
def test_uploads_have_faults_of_their_own(send, pictory, place):
    data = upload_url(send).json()["data"]
    pictory.script("any", "unavailable", times=-1)
    pictory.script(place, "server-error", status=503)
    replies = [put(data["signedUrl"]).status_code, requests.get(data["url"], timeout=10).status_code]
    assert replies == {"upload": [503, 403], "uploaded": [200, 503]}[place]


def test_a_webhook_is_called_once_with_the_finished_job(send, pictory):
    with Simulator() as receiver:
        job_id = submit(send, webhook=f"{receiver.base_url}/hook").json()["data"]["jobId"]
        for _ in range(200):
            if receiver.requests:
                break
            time.sleep(0.02)
        (call,) = receiver.requests
    assert (call.method, call.body["job_id"], call.body["data"]["status"]) == ("POST", job_id, "completed")


@pytest.mark.parametrize("fate", FATES)
def test_words_in_the_prompt_decide_a_jobs_fate(send, pictory, fate):
    submit(send, prompt=f"A job that is to end simulate:{fate} today")
    assert next(iter(pictory.account.jobs.values())).fate == fate


def test_words_in_the_prompt_decide_how_long_a_job_runs(send, pictory):
    job_id = submit(send, prompt="A slow one simulate:seconds=30").json()["data"]["jobId"]
    assert send("GET", f"/v1/jobs/{job_id}").json()["data"] == {"status": "in-progress"}
    pictory.account.jobs[job_id].created -= 30
    assert send("GET", f"/v1/jobs/{job_id}").json()["data"]["status"] == "completed"


def test_a_picture_needs_no_key_and_refuses_one(send):
    url = send("GET", f"/v1/jobs/{submit(send).json()['data']['jobId']}").json()["data"]["url"]
    assert requests.get(url, timeout=10).status_code == 200
    assert requests.get(url, headers={"Authorization": "x"}, timeout=10).status_code == 400


def test_credits_are_counted_and_a_reset_forgets_everything(send, pictory):
    submit(send, model="nanobanana-pro")
    submit(send, model="flux-schnell")
    assert send("GET", "/v1/quota").json()["aiCredits"] == {"used": 14.6, "limit": 22_000}
    pictory.reset()
    assert send("GET", "/v1/quota").json()["aiCredits"]["used"] == 0
    assert len(pictory.requests) == 1


def test_a_fault_affects_the_scripted_number_of_requests(send, pictory):
    pictory.script("quota", "server-error", times=2, status=502)
    assert [send("GET", "/v1/quota").status_code for _ in range(3)] == [502, 502, 200]
    assert [request.fault for request in pictory.requests] == ["server-error", "server-error", None]


def test_a_fault_can_affect_every_third_request(send, pictory):
    pictory.script("quota", "unavailable", times=-1, every=3)
    assert [send("GET", "/v1/quota").status_code for _ in range(7)] == [200, 200, 503, 200, 200, 503, 200]
    pictory.clear_faults()
    pictory.script("quota", "unavailable", times=1, every=2)
    assert [send("GET", "/v1/quota").status_code for _ in range(5)] == [200, 503, 200, 200, 200]


@pytest.mark.parametrize(("lagging", "prompt"), [("ledger_lag", "quota_lag"), ("quota_lag", "ledger_lag")])
def test_the_ledger_and_the_quota_have_separate_lags(send, pictory, lagging, prompt):
    def visible():
        return {
            "quota_lag": send("GET", "/v1/quota").json()["aiCredits"]["used"],
            "ledger_lag": sum(row["amount"] for row in send("GET", "/v1/aicredits/usage").json()),
        }

    pictory.set(**{lagging: 60})
    submit(send)
    assert visible() == {lagging: 0, prompt: 2}
    assert pictory.account.credits_used == pictory.account.credits_billed == 2
    pictory.set(**{lagging: 0})
    assert visible() == {lagging: 2, prompt: 2}


def test_a_late_charge_has_the_date_of_its_purchase(send, pictory, monkeypatch):
    now = 1_775_000_000.0
    monkeypatch.setattr(pictory.account, "clock", lambda: now)
    pictory.set(ledger_lag=4)
    submit(send)
    now += 3.9
    assert send("GET", "/v1/aicredits/usage").json() == []
    now += 0.2
    (row,) = send("GET", "/v1/aicredits/usage").json()
    assert row["transactionDate"] == "2026-03-31T23:33:20.000Z"
    assert send("GET", "/v1/aicredits/usage?year=2026&month=3").json() == [row]
    assert send("GET", "/v1/aicredits/usage?year=2026&month=4").json() == []


@pytest.mark.parametrize("where", ["ledger", "quota"])
def test_the_ledger_and_the_quota_can_be_updated_at_intervals(send, pictory, monkeypatch, where):
    now = 1_775_000_100.0

    def visible():
        if where == "quota":
            return send("GET", "/v1/quota").json()["aiCredits"]["used"]
        return sum(row["amount"] for row in send("GET", "/v1/aicredits/usage").json())

    monkeypatch.setattr(pictory.account, "clock", lambda: now)
    pictory.set(**{f"{where}_every": 600})
    seen = []
    for _ in range(10):
        submit(send)
        seen.append(visible())
        now += 100
    assert seen == [0, 0, 0, 8, 8, 8, 8, 8, 8, 20]


def test_purchases_of_others_are_visible_after_the_lags(send, pictory, monkeypatch):
    now = 1_775_000_000.0
    monkeypatch.setattr(pictory.account, "clock", lambda: now)
    pictory.set(others_every=10, others_amount=3, ledger_lag=25, quota_lag=5)
    submit(send)
    now += 42
    assert [row["amount"] for row in send("GET", "/v1/aicredits/usage").json()] == [3, 2]
    assert send("GET", "/v1/quota").json()["aiCredits"]["used"] == 2 + 3 * 3
    assert (pictory.account.credits_by_others, pictory.account.credits_billed) == (12, 2)
    assert pictory.account.credits_used == 14
    pictory.set(others_every=0)
    now += 100
    assert pictory.account.credits_by_others == 12
    pictory.reset()
    assert pictory.account.credits_by_others == 0


def test_the_pictures_host_can_refuse_connections_while_the_api_answers(send, pictory):
    pictory.account.seconds = 0
    job_id = submit(send).json()["data"]["jobId"]
    url = send("GET", f"/v1/jobs/{job_id}").json()["data"]["url"]
    with requests.Session() as session:
        assert session.get(url, timeout=10).status_code == 200
        for _ in range(2):
            pictory.set(images_away=1)
            for client in (requests, session):
                with pytest.raises(requests.ConnectionError):
                    client.get(url, timeout=10)
            assert send("GET", f"/v1/jobs/{job_id}").json()["data"]["status"] == "completed"
            pictory.set(images_away=0)
            assert session.get(url, timeout=10).status_code == 200
        pictory.set(images_away=1)
        pictory.reset()
        assert session.get(pictory.reference_image_url, timeout=10).status_code == 200


def test_a_test_can_add_rows_to_the_ledger(send, pictory, monkeypatch):
    now = 1_775_000_000.000_9  # later than its text, which has milliseconds only
    monkeypatch.setattr(pictory.account, "clock", lambda: now)
    submit(send)
    pictory.enter(type="credit", amount=0.6, source="Text-to-Image")
    pictory.enter(type="adjustment", amount=5)
    pictory.enter(type="credit", amount=22_000, source="Monthly Reset", transactionDate="2026-01-01T00:00:00Z")
    pictory.enter(amount=None, type=None, transactionDate="yesterday")
    rows = send("GET", "/v1/aicredits/usage").json()
    assert [(row.get("type"), row.get("amount")) for row in rows] == [
        (None, None),
        ("adjustment", 5),
        ("credit", 0.6),
        ("debit", 2.0),
        ("credit", 22_000),
    ]
    assert send("GET", "/v1/aicredits/usage?year=2026&month=1").json() == rows[-1:]
    assert send("GET", "/v1/quota").json()["aiCredits"]["used"] == 1.4
    pictory.reset()
    assert send("GET", "/v1/aicredits/usage").json() == []


@pytest.mark.parametrize("value", ["2", "1.5", "Wed, 21 Oct 2026 07:28:00 GMT", "rubbish"])
def test_retry_after_can_have_any_value(send, pictory, value):
    pictory.script("quota", "rate-limited", retry_after=value)
    assert send("GET", "/v1/quota").headers["Retry-After"] == value


def test_an_unknown_fault_place_fate_or_shape_is_refused():
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
def test_the_program_can_be_controlled_over_http_and_ends_at_a_signal(number):
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
        forever = fault | {"times": -1}
        assert requests.post(f"{api}/_simulator/faults", json=forever, timeout=10).status_code == 200
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


def test_a_port_that_is_in_use_is_reported(pictory):
    port = pictory.base_url.split(":")[2].split("/")[0]
    command = [sys.executable, "-m", "pictory_provider.simulator", "--port", port]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "cannot start" in done.stderr


def test_job_ids_are_uuids(send):
    uuid.UUID(submit(send).json()["data"]["jobId"])


def test_without_pillow_the_simulator_says_how_to_get_it():
    program = (
        "import importlib.util, runpy, sys; find = importlib.util.find_spec;"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'PIL' else find(name, *rest);"
        "sys.argv = ['simulator']; runpy.run_module('pictory_provider.simulator', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "airflow-provider-pictory[simulator]" in done.stderr
