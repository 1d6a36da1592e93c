# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests that report and samples have no secrets, wherever Pictory puts them, and that the rest is readable."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pictory_provider.api.connection import ConnectionSettings
from pictory_provider.api.endpoints import Request
from pictory_provider.api.responses import Response, parse_job
from tests.live.gathering import Facts
from tests.live.probe import Exchange, Fetched
from tests.live.report import render, samples, scrubber_for
from tests.live.scrubbing import Scrubber
from tests.samples import JOB_ID

KEY = "pictai_9f8e7d6c5b4a39281706f5e4d3c2b1a0"
JOB = "0d3f8a52-6c1e-4b7a-9a10-5be2c4d7f901"
USER = "71c5b2aa-1f0e-4a55-8f63-20a9b7cc11d4"
IMAGE = "c2a4e7d1-93b5-4d0f-b1e8-f6a7d8c9e0b2"
URL = (
    f"https://d3f00k5ecret7.cloudfront.net/images/user/{USER}/janedoe/{IMAGE}.png"
    "?Expires=1795832208&Signature=Zm9vYmFyc2VjcmV0~&Key-Pair-Id=K2JCJMDEHXQW5F&account=998877665544"
)
SECRETS = [
    *(
        KEY,
        KEY.removeprefix("pictai_"),
        JOB,
        USER,
        IMAGE,
        USER.upper(),
        "d3f00k5ecret7",
        "janedoe",
        "Jane",
        "Quibblewick",
        "drawer-of-pictures",
    ),
    *(
        "Acme",
        "jane.quibblewick@acme-corp.example",
        "acme-corp",
        "998877665544",
        "Zm9vYmFyc2VjcmV0",
        "K2JCJMDEHXQW5F",
    ),
    *(
        "acme-private-bucket",
        "203.0.113.77",
        "AKIAIOSFODNN7EXAMPLE",
        "arn:aws:iam::123456789012",
        "8a7b6c5d4e3f2a1b",
    ),
    *("eyJhbGciOiJIUzI1NiJ9", "5551234567", "Somebody else's prompt", "4f2a9c", "tracked-in-a-cookie"),
]
"""Secrets in the invented replies, which must not be in any page."""

ACCOUNT = {
    "accountId": 998877665544,
    "firstName": "Jane",
    "user": {"name": "Jane Quibblewick", "mail": "jane.quibblewick@acme-corp.example"},
}
HEADERS = {
    "content-type": "application/json",
    "server": "cloudflare",
    "x-amzn-requestid": "8a7b6c5d4e3f2a1b",
    "set-cookie": "session=tracked-in-a-cookie",
    "x-ratelimit-limit": "60",
    "x-ratelimit-key": f"user:{USER}",
    "location": URL,
    "cf-ray": "8a7b6c5d4e3f2a1b-FRA",
}


def exchange(method, path, status, body, **headers):
    raw = body if isinstance(body, str) else json.dumps(body)
    return Exchange(Request(method, path), 1_795_828_600.0, 0.2, Response(status, HEADERS | headers, raw.encode()))


@pytest.fixture
def facts():
    completed = {
        "job_id": JOB,
        "success": True,
        "data": {
            "status": "completed",
            "url": URL,
            "width": 1280,
            "height": 720,
            "aiCreditsUsed": 0.6,
            **ACCOUNT,
            "storage": "s3://acme-private-bucket/users/4f2a9c/a.png",
            "token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJqYW5lIn0.c2ln",
            USER: "5551234567",
        },
    }
    row = {
        "transactionId": USER,
        "type": "debit",
        "amount": 0.6,
        "source": "Text-to-Image",
        "plan": "Acme Teams",
        "description": f"Image {IMAGE} for Jane Quibblewick",
        "transactionDate": "2026-11-28T01:16:43.244Z",
    }
    own = {"url": URL, "id": IMAGE, "prompt": "A lighthouse", "model": "flux-schnell", "jobId": JOB}
    other = {"url": URL, "id": USER, "prompt": "Somebody else's prompt"}
    replies = {
        "quota": exchange("GET", "/v1/quota", 200, {"aiCredits": {"used": 12.6, "limit": 22000}, **ACCOUNT}),
        "missing": exchange(
            "GET",
            f"/v1/jobs/{USER}",
            404,
            {
                "success": False,
                "data": {
                    "error_code": "5000",
                    "error_message": f"JOB_NOT_FOUND in bucket acme-private-bucket.s3.eu-west-1.amazonaws.com for {USER.upper()}, "
                    "arn:aws:iam::123456789012:role/drawer-of-pictures, AKIAIOSFODNN7EXAMPLE, jane.quibblewick@acme-corp.example",
                },
            },
        ),
        "invalid": exchange(
            "POST",
            "/v1/aistudio/images",
            400,
            {"code": "INVALID_REQUEST_BODY", "message": f"Jane Quibblewick: see {URL}", "fields": [{"name": "prompt", "errors": "too short"}]},
        ),
        "unauthorized": exchange("GET", "/v1/quota", 401, {"message": f"Unauthorized: {KEY}, Bearer {KEY.upper()}"}),
        "blocked": exchange("GET", "/v1/quota", 403, "<p>Ray 8a7b6c5d4e3f2a1b, your address 203.0.113.77</p>"),
        "unknown header": exchange("GET", "/v1/quota", 400, {"message": f"no {JOB}"}),
        "submitted": exchange("POST", "/v1/aistudio/images", 200, {"success": True, "data": {"jobId": JOB}, "for": "Acme"}),
        "in progress": exchange("GET", f"/v1/jobs/{JOB}", 200, {"job_id": JOB, "success": True, "data": {"status": "in-progress"}}),
        "job": exchange("GET", f"/v1/jobs/{JOB}", 200, completed),
        "usage": exchange("GET", "/v1/aicredits/usage", 200, [row]),
        "quota after": exchange("GET", "/v1/quota", 200, {"aiCredits": {"used": 13.2, "limit": 22000}, **ACCOUNT}),
        "images": exchange("GET", "/v1/aistudio/images", 200, {"items": [other, own], "nextPageKey": f"{USER}:{KEY}"}),
        "jobs": exchange("GET", "/v1/jobs", 200, {"items": [{"data": {"jobId": JOB, "status": "completed"}}, other]}),
    }  # fmt: skip
    return Facts(
        at=1_795_828_600.0,
        settings=ConnectionSettings(api_key=KEY),
        exchanges=list(replies.values()),
        replies=replies,
        agents=[("this provider", "airflow-provider-pictory/0.1.0", replies["quota"]), ("urllib's", "Python-urllib/3.11", replies["blocked"])],
        after={"visible": 0.2, "ended": 4.0, "ledger": 6.0, "quota": 6.0},
        job_id=JOB,
        prompt="A lighthouse",
        job=parse_job(replies["job"].response, JOB),
        used_before=12.6,
        used_after=13.2,
        new_rows=[row],
        image=own,
        listed_job={"data": {"jobId": JOB, "status": "completed"}},
        fetched=Fetched(1_795_828_604.0, 403, HEADERS, problem=f"see {URL} of jane.quibblewick@acme-corp.example"),
        stopped=f"Connection of {KEY} to {JOB} broke",
    )  # fmt: skip


def test_no_secret_of_the_replies_is_in_the_report_or_in_a_sample(facts):
    scrubber = scrubber_for(facts)
    pages = {"report": render(facts, scrubber), **samples(facts, scrubber)}
    assert len(pages) > 8
    for name, page in pages.items():
        assert [secret for secret in SECRETS if secret.lower() in page.lower()] == [], name


def test_values_that_are_not_secret_are_readable(facts):
    scrubber = scrubber_for(facts)
    report, found = render(facts, scrubber), samples(facts, scrubber)
    for text in (
        *(
            "A lighthouse",
            "JOB_NOT_FOUND in bucket",
            "INVALID_REQUEST_BODY",
            '"errors": "too short"',
            "x-ratelimit-limit: 60",
        ),
        *(
            "server: cloudflare",
            "(also cf-ray, set-cookie, x-amzn-requestid)",
            '"aiCreditsUsed": 0.6',
            "Text-to-Image",
        ),
        *("cloudfront.net", "s3.eu-west-1.amazonaws.com", "?Expires=...&Signature=...&Key-Pair-Id=...&other=..."),
        *('"limit": 22000', "rose by 0.6", "airflow-provider-pictory/0.1.0"),
    ):
        assert text in report
    sample = json.loads(next(text for name, text in found.items() if name.startswith("job-completed")))["body"]
    assert sample["job_id"] == JOB_ID
    assert (sample["data"]["accountId"], sample["data"]["user"]["name"]) == (0, "text-2")
    assert JOB_ID in found["images-observed/200"]


def test_the_same_secret_has_the_same_replacement_everywhere(facts):
    scrubber = scrubber_for(facts)
    first = scrubber.value({"id": USER})["id"]
    assert first == scrubber.text(f"see {USER.upper()}.").removeprefix("see ").removesuffix(".")
    assert f"/user/{first}/" in scrubber.url(URL)
    assert scrubber.value({"id": IMAGE})["id"] != first


@given(
    st.recursive(
        st.sampled_from([KEY, f"Bearer {KEY}", JOB, USER, URL, f"see {URL}, {IMAGE}", "jane.quibblewick@acme-corp.example", 998877665544]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["message", "url", "id", "errors", "x", KEY, USER]), inner, max_size=3),
    )
)  # fmt: skip
def test_a_secret_anywhere_in_a_reply_is_replaced_and_the_shape_stays(value):
    def kinds(value):
        if isinstance(value, dict):
            return [kinds(inner) for inner in value.values()]
        return [kinds(inner) for inner in value] if isinstance(value, list) else type(value)

    shown = Scrubber(KEY, JOB).value(value)
    text = json.dumps(shown)
    hard = [KEY, JOB, USER, IMAGE, "d3f00k5ecret7", "Zm9vYmFyc2VjcmV0", "acme-corp", "998877665544"]
    assert [secret for secret in hard if secret in text] == []
    assert kinds(shown) == kinds(value)


def test_a_whole_run_leaves_no_secret_of_its_account(run_tool, pictory, tmp_path):
    pictory.shape("url", "signed")
    pictory.shape("image-job", "named")
    result = run_tool()
    (job,) = pictory.account.jobs.values()
    row = pictory.account.ledger.rows(pictory.account.clock())[0]
    secrets = [pictory.api_key, job.job_id, job.image_id, row["transactionId"], "Signature=simulated", "127.0.0.1"]
    for path in (p for p in tmp_path.rglob("*") if p.is_file() and p.name not in ("private.json", "picture.png")):
        assert [secret for secret in secrets if secret in path.read_text()] == [], path
    assert job.job_id not in result.report
