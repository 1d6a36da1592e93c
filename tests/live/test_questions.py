# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Whatever Pictory turns out to be like, the report finds it: the simulator is set, and the report says what was set."""

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


def test_one_picture_answers_all_but_what_only_a_failure_tells(visit, pictory):
    pictory.account.seconds = 0.2
    brought = visit()
    assert len(pictory.submissions) == 2  # the purchase, and the request that is refused
    assert pictory.account.credits_billed == 0.6
    assert [title for title, found in brought.found.items() if isinstance(found, str)] == [
        "What does a failed job look like, and is it charged?"
    ]
    assert "18 of 19 questions have an answer" in brought.report
    assert brought.samples() == [
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
def test_it_finds_the_shape_of_an_unknown_job(visit, pictory, shape):
    pictory.shape("missing", shape)
    where, _, status = shape.partition("-")
    brought = visit()
    assert f"{status}, in the shape of the sample `job-missing-{where}/{status}`" in brought.says("404")
    assert f"`missing={shape}`" in brought.says("404")


@pytest.mark.parametrize("shape", SHAPES["invalid"])
def test_it_finds_the_shape_of_a_refused_request(visit, pictory, shape):
    pictory.shape("invalid", shape)
    assert f"`submit-invalid-{shape}/400`, which the simulator calls `invalid={shape}`" in visit().says("400")


@pytest.mark.parametrize("shape", SHAPES["failed"])
def test_it_finds_the_shape_of_a_failed_job_and_what_it_was_charged(visit, pictory, shape):
    pictory.shape("failed", shape)
    pictory.plan("failed")
    brought = visit()
    assert f"`failed={shape}`. It was charged: 1 new rows in the ledger, 0.6 AI credits" in brought.says(
        "failed job"
    )
    assert brought.says("completed job").startswith("- The job was not seen completed")
    assert f"job-failed-{shape}/200" in brought.samples()


def test_a_shape_that_no_sample_has_is_told_and_kept(visit, pictory):
    pictory.script("job", "server-error", status=410)
    brought = visit()
    assert "410, in a shape that no sample has" in brought.says("404")
    sample = json.loads((brought.folder / "samples" / "job-missing-observed" / "410.json").read_text())
    assert sample["body"] == {"message": "server-error"}


def test_it_measures_how_long_a_job_is_unknown(visit, pictory):
    pictory.plan("completed", missing_seconds=0.4)
    brought = visit()
    after = brought.facts.after["visible"]
    last_unknown = [poll for poll in pictory.polls if poll.status == 404][-1]
    assert after >= 0.35
    assert last_unknown.at < brought.facts.replies["submitted"].answered_at + after
    assert f"After {after:.1f} s at most: it was unknown before" in brought.says("visible at")


def test_a_job_that_is_known_at_once_is_told_so(visit):
    assert visit().says("visible at").startswith("The first look, 0.")


def test_it_measures_how_long_a_job_runs(visit, pictory):
    pictory.plan("completed", seconds=0.4)
    brought = visit()
    assert brought.facts.after["ended"] >= 0.35
    assert "It had ended" in brought.says("How long does a job run")


@pytest.mark.parametrize(
    ("setting", "what", "title"), [("ledger_lag", "ledger", "row"), ("quota_lag", "quota", "to the quota")]
)
def test_it_measures_the_lag_of_ledger_and_quota(visit, pictory, setting, what, title):
    pictory.set(**{setting: 0.5})
    brought = visit()
    assert brought.facts.after[what] >= 0.45
    other = brought.facts.after["quota" if what == "ledger" else "ledger"]
    assert other < brought.facts.after[what]
    assert f"{brought.facts.after[what]:.1f} s after Pictory's reply" in brought.says(title)


def test_a_charge_that_does_not_come_is_open(visit, pictory):
    pictory.set(ledger_lag=600, quota_lag=600)
    brought = visit(patience=0.1)
    assert brought.says("row").startswith("- No new row was seen")
    assert brought.says("to the quota").startswith("- No change was seen")


def test_the_row_of_the_ledger_is_told_apart_from_those_before_and_those_of_others(visit, pictory):
    pictory.enter(amount=14.0, description="nanobanana-pro image")
    brought = visit()
    assert "Type `debit`, amount 0.6, source `Text-to-Image`; it does not name the job" in brought.says("row")
    assert "rose by 0.6" in brought.says("to the quota")
    assert "nanobanana-pro" not in brought.report


@pytest.mark.parametrize(("shape", "text"), [("yes", "Yes."), ("no", "No: the job is not on the first page.")])
def test_it_finds_whether_jobs_are_listed(visit, pictory, shape, text):
    pictory.shape("listed", shape)
    brought = visit()
    assert brought.says("GET /v1/jobs`?") == text
    assert ("jobs/200" in brought.samples()) is (shape == "yes")


@pytest.mark.parametrize(
    ("shape", "text"), [("unnamed", "does not name the job"), ("named", "names the job, in `jobId`")]
)
def test_it_finds_whether_an_image_names_its_job(visit, pictory, shape, text):
    pictory.shape("image-job", shape)
    assert text in visit().says("/v1/aistudio/images")


@pytest.mark.parametrize("shape", SHAPES["limit-headers"])
def test_it_finds_the_headers_of_rate_limiting(visit, pictory, shape):
    pictory.shape("limit-headers", shape)
    text = visit().says("rate limits")
    assert text.endswith("none was 429, and none was provoked.")
    assert ("None carried" in text) is (shape == "none")
    assert (f"`{shape}-remaining` (59 to " in text) is (shape != "none")


def test_a_429_that_comes_by_itself_is_shown(visit, pictory):
    pictory.script("submit", "rate-limited", retry_after="0.1")
    brought = visit(with_invalid=False)
    assert (len(pictory.submissions), pictory.account.credits_billed) == (2, 0.6)
    assert "`retry-after` (0.1); 1 were 429" in brought.says("rate limits")
    assert "rate-limited/429" in brought.samples()


@pytest.mark.parametrize("shape", SHAPES["unknown-header"])
def test_it_finds_whether_an_unknown_header_is_tolerated(visit, pictory, shape):
    pictory.shape("unknown-header", shape)
    assert visit().says("unknown header").startswith("Yes" if shape == "tolerated" else "No: 400")


@pytest.mark.parametrize("shape", AGENTS)
def test_it_finds_whom_the_firewall_lets_pass(visit, pictory, shape):
    pictory.shape("firewall", shape)
    brought = visit()
    passed = brought.says("firewall").split(" Not let pass")[0]
    assert [who for who in AGENTS["open"] if who in passed] == AGENTS[shape]
    assert ("edge-block/403" in brought.samples()) is (shape != "open")


def test_a_firewall_that_stops_the_provider_stops_the_purchase_and_is_told(visit, pictory):
    pictory.shape("firewall", "browsers-only")
    brought = visit()
    assert pictory.account.jobs == {}
    assert brought.says("firewall").startswith("Let pass: a browser's.")
    assert "Nothing was bought: The firewall in front of Pictory blocked this client" in brought.report


@pytest.mark.parametrize("mark", SHAPES["mark"])
def test_it_finds_what_the_file_says_of_its_origin(visit, pictory, mark):
    pictory.shape("mark", mark)
    text = visit().says("origin")
    assert "PNG, 1280x720" in text
    assert ("It says nothing of its origin. `mark_ai_generated` would mark it." in text) is (mark == "none")
    assert (f"It says of its origin: {mark}. `mark_ai_generated` would leave it as it is" in text) is (
        mark != "none"
    )
    chunk = {"xmp": "iTXt (XML:com.adobe.xmp)", "c2pa": "caBX", "aigc": "tEXt (AIGC)"}
    assert f"Chunks: IHDR, {chunk[mark] + ', ' if mark != 'none' else ''}IDAT, IEND." in text


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("wrong-size", "it has 640x640 pixels, and Pictory promised 1280x720"),
        ("jpeg", "it is a JPEG file and no PNG"),
        ("trailing", "1 bytes follow its end"),
        ("not-a-png", "It is no whole picture"),
        ("truncated", "cut short"),
    ],
)
def test_it_finds_in_what_the_file_differs_from_what_was_promised(visit, pictory, fault, text):
    pictory.script("picture", fault)
    assert text in visit().says("origin")


@pytest.mark.parametrize(
    ("shape", "seconds", "text"),
    [
        ("plain", 0, "It is not signed"),
        ("signed", 0, r"It is signed, and says that it expires (0:59:5\d|1:00:00) after"),
        ("signed", 7200, r"It is signed, and says that it expires (1:59:5\d|2:00:00) after"),
    ],
)
def test_it_finds_who_can_read_the_picture_and_for_how_long(visit, pictory, shape, seconds, text):
    pictory.shape("url", shape)
    pictory.set(url_seconds=seconds)
    assert re.search(f"Anybody: it was read without a key. {text}", visit().says("Who can read"))


def test_a_picture_that_is_not_public_is_told(visit, pictory):
    pictory.script("picture", "forbidden")
    assert "Without a key its host answered 403" in visit().says("Who can read")


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
def test_an_expiry_is_read_as_each_storage_writes_it(query, at):
    found = expiry(f"https://h.example/a.png?{query}")
    assert (found and found.isoformat()) == at


@pytest.mark.parametrize("fate", ["cleaned", "stuck", "no-url", "unknown-status"])
def test_a_job_that_does_not_end_as_hoped_leaves_a_report(visit, pictory, fate):
    pictory.plan(fate)
    brought = visit(most=0.2, patience=0.1)
    assert "unknown job look like" in brought.report
    assert brought.says("Who can read").startswith("- No URL came")


def test_a_job_that_pictory_does_not_know_is_not_waited_for_long(visit, pictory):
    brought = visit(job_id=JOB_ID, patience=0.1, most=600)
    assert pictory.account.jobs == {}
    assert brought.says("completed job").startswith("- The job was not seen completed")


def test_what_is_brought_home_is_read_by_the_parser_and_has_the_shapes_that_came(visit, pictory):
    pictory.shape("url", "signed")
    brought = visit()
    for name in brought.samples():
        sample = json.loads((brought.folder / "samples" / f"{name}.json").read_text())
        assert (sample["mark"], set(sample)) == ("observed", {"mark", "source", "body"})
        if name in NAMES:
            assert shape_of(sample["body"]) == shape_of(load(name).body)
    raw = (brought.folder / "samples" / "job-completed" / "200.json").read_text()
    reply = responses.Response(200, {}, json.dumps(json.loads(raw)["body"]).encode())
    job = responses.parse_job(reply, JOB_ID)
    assert (job.status, job.width, job.ai_credits_used) == ("completed", 1280, 0.6)
    assert job.url.endswith(".png?Expires=...&Signature=...")


def test_every_question_is_listed_in_the_docs():
    from tests.docs.snippets import ROOT

    page = (ROOT / "docs" / "pictory.md").read_text()
    assert [title for title, _ in QUESTIONS if title not in page] == []
