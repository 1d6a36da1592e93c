# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests that the report describes the behaviour for which the simulator is configured."""

from __future__ import annotations

import json
import re

import pytest

from pictory_provider.api import responses
from pictory_provider.simulator import SHAPES
from tests.live.questions import QUESTIONS, expiry
from tests.samples import JOB_ID, NAMES, load, shape_of

AGENTS = {
    "open": ["this provider", "urllib's", "requests'", "aiohttp's", "a browser's"],
    "no-urllib": ["this provider", "requests'", "aiohttp's", "a browser's"],
    "no-libraries": ["this provider", "a browser's"],
}


def test_one_picture_answers_all_questions_except_those_about_failures(run_tool, pictory):
    pictory.account.seconds = 0.2
    result = run_tool()
    assert len(pictory.submissions) == 2  # the purchase and the refused request
    assert pictory.account.credits_billed == 0.6
    assert [title for title, found in result.found.items() if isinstance(found, str)] == [
        "What does a failed job look like, and is it charged?"
    ]
    assert "18 of 19 questions have an answer" in result.report
    assert result.samples() == [
        "images-observed/200",
        "job-completed/200",
        "job-in-progress/200",
        "job-missing-data/404",
        "jobs/200",
        "quota/200",
        "submit-accepted/200",
        "submit-invalid-objects/400",
        "unauthorized/401",
        "usage/200",
    ]


@pytest.mark.parametrize("shape", SHAPES["missing"])
def test_it_finds_the_shape_of_an_unknown_job(run_tool, pictory, shape):
    pictory.shape("missing", shape)
    where, _, status = shape.partition("-")
    result = run_tool()
    assert f"{status}, in the shape of the sample `job-missing-{where}/{status}`" in result.says("404")
    assert f"`missing={shape}`" in result.says("404")


@pytest.mark.parametrize("shape", SHAPES["invalid"])
def test_it_finds_the_shape_of_a_refused_request(run_tool, pictory, shape):
    pictory.shape("invalid", shape)
    assert f"`submit-invalid-{shape}/400`, which the simulator calls `invalid={shape}`" in run_tool().says("400")


@pytest.mark.parametrize("shape", SHAPES["failed"])
def test_it_finds_the_shape_of_a_failed_job_and_what_it_was_charged(run_tool, pictory, shape):
    pictory.shape("failed", shape)
    pictory.plan("failed")
    result = run_tool()
    assert f"`failed={shape}`. It was charged: 1 new rows in the ledger, 0.6 AI credits" in result.says(
        "failed job"
    )
    assert result.says("completed job").startswith("- The job was not seen completed")
    assert f"job-failed-{shape}/200" in result.samples()


def test_a_new_shape_is_reported_and_saved_as_a_sample(run_tool, pictory):
    pictory.script("job", "server-error", status=410)
    result = run_tool()
    assert "410, in a shape that no sample has" in result.says("404")
    sample = json.loads((result.folder / "samples" / "job-missing-observed" / "410.json").read_text())
    assert sample["body"] == {"message": "server-error"}


def test_it_measures_how_long_a_job_is_unknown(run_tool, pictory):
    pictory.plan("completed", missing_seconds=0.4)
    result = run_tool()
    after = result.facts.after["visible"]
    last_unknown = [poll for poll in pictory.polls if poll.status == 404][-1]
    assert after >= 0.35
    assert last_unknown.at < result.facts.replies["submitted"].answered_at + after
    assert f"After {after:.1f} s at most: it was unknown before" in result.says("visible at")


def test_a_job_that_is_known_immediately_is_reported(run_tool):
    assert run_tool().says("visible at").startswith("The first poll, 0.")


def test_it_measures_how_long_a_job_runs(run_tool, pictory):
    pictory.plan("completed", seconds=0.4)
    result = run_tool()
    assert result.facts.after["ended"] >= 0.35
    assert "It had ended" in result.says("How long does a job run")


@pytest.mark.parametrize(
    ("setting", "what", "title"), [("ledger_lag", "ledger", "row"), ("quota_lag", "quota", "to the quota")]
)
def test_it_measures_the_lag_of_ledger_and_quota(run_tool, pictory, setting, what, title):
    pictory.set(**{setting: 0.5})
    result = run_tool()
    assert result.facts.after[what] >= 0.45
    other = result.facts.after["quota" if what == "ledger" else "ledger"]
    assert other < result.facts.after[what]
    assert f"{result.facts.after[what]:.1f} s after Pictory's reply" in result.says(title)


def test_a_missing_charge_leaves_the_question_open(run_tool, pictory):
    pictory.set(ledger_lag=600, quota_lag=600)
    result = run_tool(patience=0.1)
    assert result.says("row").startswith("- No new row was seen")
    assert result.says("to the quota").startswith("- No change was seen")


def test_the_new_row_of_the_ledger_is_found_among_other_rows(run_tool, pictory):
    pictory.enter(amount=14.0, description="nanobanana-pro image")
    result = run_tool()
    assert "Type `debit`, amount 0.6, source `Text-to-Image`; it does not name the job" in result.says("row")
    assert "rose by 0.6" in result.says("to the quota")
    assert "nanobanana-pro" not in result.report


@pytest.mark.parametrize(("shape", "text"), [("yes", "Yes."), ("no", "No: the job is not on the first page.")])
def test_it_finds_whether_jobs_are_listed(run_tool, pictory, shape, text):
    pictory.shape("listed", shape)
    result = run_tool()
    assert result.says("GET /v1/jobs`?") == text
    assert ("jobs/200" in result.samples()) is (shape == "yes")


@pytest.mark.parametrize(
    ("shape", "text"), [("unnamed", "does not name the job"), ("named", "names the job, in `jobId`")]
)
def test_it_finds_whether_an_image_names_its_job(run_tool, pictory, shape, text):
    pictory.shape("image-job", shape)
    assert text in run_tool().says("/v1/aistudio/images")


@pytest.mark.parametrize("shape", SHAPES["limit-headers"])
def test_it_finds_the_headers_of_rate_limiting(run_tool, pictory, shape):
    pictory.shape("limit-headers", shape)
    text = run_tool().says("rate limits")
    assert text.endswith("none was 429, and none was provoked.")
    assert ("None carried" in text) is (shape == "none")
    assert (f"`{shape}-remaining` (59 to " in text) is (shape != "none")


def test_a_429_that_comes_by_itself_is_shown(run_tool, pictory):
    pictory.script("submit", "rate-limited", retry_after="0.1")
    result = run_tool(with_invalid=False)
    assert (len(pictory.submissions), pictory.account.credits_billed) == (2, 0.6)
    assert "`retry-after` (0.1); 1 were 429" in result.says("rate limits")
    assert "rate-limited/429" in result.samples()


@pytest.mark.parametrize("shape", SHAPES["unknown-header"])
def test_it_finds_whether_an_unknown_header_is_tolerated(run_tool, pictory, shape):
    pictory.shape("unknown-header", shape)
    assert run_tool().says("unknown header").startswith("Yes" if shape == "tolerated" else "No: 400")


@pytest.mark.parametrize("shape", AGENTS)
def test_it_finds_which_user_agents_the_firewall_accepts(run_tool, pictory, shape):
    pictory.shape("firewall", shape)
    result = run_tool()
    passed = result.says("firewall").split(" Refused")[0]
    assert [who for who in AGENTS["open"] if who in passed] == AGENTS[shape]
    assert ("edge-block/403" in result.samples()) is (shape != "open")


def test_a_firewall_that_blocks_the_provider_prevents_the_purchase_and_is_reported(run_tool, pictory):
    pictory.shape("firewall", "browsers-only")
    result = run_tool()
    assert pictory.account.jobs == {}
    assert result.says("firewall").startswith("Accepted: a browser's.")
    assert "Nothing was bought: The firewall in front of Pictory blocked this client" in result.report


@pytest.mark.parametrize("mark", SHAPES["mark"])
def test_it_finds_the_marks_of_the_file(run_tool, pictory, mark):
    pictory.shape("mark", mark)
    text = run_tool().says("origin")
    assert "PNG, 1280x720" in text
    kind = mark.partition("-")[0]
    marks = "It has no mark of its origin" if mark == "none" else f"Marks of its origin: {kind}"
    assert marks in text
    is_marked = mark in ("none", "xmp-rdf", "xmp-zipped")
    assert (f"{marks}. `mark_ai_generated` would mark it." in text) is is_marked
    assert ("`mark_ai_generated` would leave it unchanged" in text) is not is_marked
    assert ("(its source is " in text) is (mark in ("xmp-ai", "xmp-camera"))
    chunk = {"xmp": "iTXt (XML:com.adobe.xmp)", "c2pa": "caBX", "aigc": "tEXt (AIGC)"}
    name = "zTXt (XML:com.adobe.xmp)" if mark == "xmp-zipped" else chunk.get(kind)
    assert f"Chunks: IHDR, {f'{name}, ' if name else ''}IDAT, IEND." in text


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("wrong-size", "it has 640x640 pixels, and Pictory promised 1280x720"),
        ("jpeg", "it is a JPEG file and not a PNG"),
        ("trailing", "1 byte follows its end"),
        ("not-a-png", "It is not a complete picture"),
        ("truncated", "cut short"),
    ],
)
def test_it_finds_how_the_file_differs_from_the_job(run_tool, pictory, fault, text):
    pictory.script("picture", fault)
    assert text in run_tool().says("origin")


@pytest.mark.parametrize(
    ("shape", "seconds", "text"),
    [
        ("plain", 0, "It is not signed"),
        ("signed", 0, r"It is signed, and expires (0:59:5\d|1:00:00) after"),
        ("signed", 7200, r"It is signed, and expires (1:59:5\d|2:00:00) after"),
    ],
)
def test_it_finds_who_can_read_the_picture_and_for_how_long(run_tool, pictory, shape, seconds, text):
    pictory.shape("url", shape)
    pictory.set(url_seconds=seconds)
    assert re.search(f"Anybody: it was read without a key. {text}", run_tool().says("Who can read"))


def test_a_picture_that_is_not_public_is_reported(run_tool, pictory):
    pictory.script("picture", "forbidden")
    assert "Without a key its host answered 403" in run_tool().says("Who can read")


@pytest.mark.parametrize(
    ("query", "at"),
    [
        ("Expires=1775000000&Signature=x", "2026-03-31T23:33:20+00:00"),
        ("X-Amz-Date=20260331T233000Z&X-Amz-Expires=200", "2026-03-31T23:33:20+00:00"),
        ("X-Goog-Date=20260331T233000Z&X-Goog-Expires=200", "2026-03-31T23:33:20+00:00"),
        ("se=2026-03-31T23:33:20Z&sig=x", "2026-03-31T23:33:20+00:00"),
        ("token=x", None),
        ("Expires=never", None),
        ("X-Amz-Expires=200", None),
    ],
)
def test_the_expiry_is_read_from_the_urls_of_each_storage(query, at):
    found = expiry(f"https://h.example/a.png?{query}")
    assert (found and found.isoformat()) == at


@pytest.mark.parametrize("fate", ["cleaned", "stuck", "no-url", "unknown-status"])
def test_a_job_without_a_picture_gets_a_report(run_tool, pictory, fate):
    pictory.plan(fate)
    result = run_tool(most=0.2, patience=0.1)
    assert "unknown job look like" in result.report
    assert result.says("Who can read").startswith("- There was no URL")


def test_a_job_that_pictory_does_not_know_is_not_waited_for_long(run_tool, pictory):
    result = run_tool(job_id=JOB_ID, patience=0.1, most=600)
    assert pictory.account.jobs == {}
    assert result.says("completed job").startswith("- The job was not seen completed")


def test_the_samples_can_be_parsed_and_have_the_shapes_of_the_replies(run_tool, pictory):
    pictory.shape("url", "signed")
    result = run_tool()
    for name in result.samples():
        sample = json.loads((result.folder / "samples" / f"{name}.json").read_text())
        assert (sample["mark"], set(sample)) == ("observed", {"mark", "source", "body"})
        if name in NAMES:
            assert shape_of(sample["body"]) == shape_of(load(name).body)
    raw = (result.folder / "samples" / "job-completed" / "200.json").read_text()
    reply = responses.Response(200, {}, json.dumps(json.loads(raw)["body"]).encode())
    job = responses.parse_job(reply, JOB_ID)
    assert (job.status, job.width, job.ai_credits_used) == ("completed", 1280, 0.6)
    assert job.url.endswith(".png?Expires=...&Signature=...")


def test_every_question_is_listed_in_the_docs():
    from tests.docs.snippets import ROOT

    page = (ROOT / "docs" / "pictory.md").read_text()
    assert [title for title, _ in QUESTIONS if title not in page] == []
