# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Buy, adopt, or ask a human: the decision about what is on record."""

from __future__ import annotations

import json
import time

import pytest

from pictory_provider.api.errors import (
    AuthenticationError,
    EdgeBlocked,
    JobNotFound,
    ProtocolError,
    RateLimited,
    RequestInvalid,
    SubmitOutcomeUnknown,
    TransportError,
    Unavailable,
)
from pictory_provider.api.models import GeneratedImage, ImageRequest, Job
from pictory_provider.jobs.evidence import Evidence, by_hand, matching, report
from pictory_provider.jobs.submission import (
    LookFirst,
    Submission,
    Submit,
    after_look,
    asked_for,
    fingerprint,
    first_step,
)

NOW = 1_800_000_000.0
REQUEST = ImageRequest(prompt="A lighthouse at dawn")
WANTED = fingerprint("pictory_default", asked_for(REQUEST))


def kept(job_id="j", **changes):
    """Return what lies in the store after it crossed the database."""
    fields = {
        "job_id": job_id,
        "fingerprint": WANTED,
        "max_tries": 2,
        "intended_at": NOW - 100,
        "submitted_at": NOW - 99 if job_id else None,
        **changes,
    }
    return json.loads(json.dumps(Submission(**fields).plain()))


def first(value, **more):
    return first_step(value, **{"wanted": WANTED, "max_tries": 2, "is_mapped": False, **more})


# What is on record ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_mapped", [False, True])
class TestWhateverKindOfTaskItIs:
    def test_nothing_on_record_is_bought(self, is_mapped):
        assert first(None, is_mapped=is_mapped) == Submit()

    def test_a_job_of_this_request_is_looked_at_first(self, is_mapped):
        step = first(kept(), is_mapped=is_mapped)
        assert (type(step), step.job_id, step.warning) == (LookFirst, "j", None)

    def test_an_intent_without_a_job_id_is_an_unknown_outcome(self, is_mapped):
        assert isinstance(first(kept(None), is_mapped=is_mapped), SubmitOutcomeUnknown)
        assert isinstance(first(kept(None, fingerprint="other"), is_mapped=is_mapped), SubmitOutcomeUnknown)

    @pytest.mark.parametrize("max_tries", [0, 1, 3, 4])
    def test_a_users_clear_buys_again_and_names_the_job_that_it_leaves_behind(self, is_mapped, max_tries):
        step = first(kept(), is_mapped=is_mapped, max_tries=max_tries)
        assert isinstance(step, Submit)
        assert "j, is left behind" in step.warning

    def test_a_users_clear_of_an_unknown_outcome_buys_again(self, is_mapped):
        step = first(kept(None), is_mapped=is_mapped, max_tries=3)
        assert isinstance(step, Submit)
        assert "whose jobId is not known, is left behind" in step.warning

    @pytest.mark.parametrize("max_tries", [2, 3])
    @pytest.mark.parametrize(
        "value",
        [
            {"jobId": "j"},
            {"job_id": " j "},
            "j",
            {**kept(None), "jobId": "j"},
            {**kept(None, fingerprint="other"), "jobId": "j"},
        ],
    )
    def test_a_job_id_put_there_by_hand_is_adopted_after_a_clear_too(self, is_mapped, max_tries, value):
        step = first(value, is_mapped=is_mapped, max_tries=max_tries)
        assert (type(step), step.job_id) == (LookFirst, "j")

    @pytest.mark.parametrize(
        "value",
        [
            "",
            "None",
            {},
            [],
            7,
            True,
            {"jobId": ""},
            {"jobId": 7},
            {"jobId": None},
            {"max_tries": "2"},
            {"max_tries": True},
            {"what": "is"},
            {**kept(), "version": 2},
            {**kept(None), "version": "1"},
        ],
    )
    def test_a_record_that_cannot_be_read_is_an_unknown_outcome_and_never_a_purchase(self, is_mapped, value):
        step = first(value, is_mapped=is_mapped)
        assert isinstance(step, SubmitOutcomeUnknown)
        assert "cannot be read" in step.message


def test_a_job_of_another_request_is_adopted_with_a_warning():
    step = first(kept(fingerprint="other"))
    assert (type(step), step.job_id) == (LookFirst, "j")
    assert "rendered differently" in step.warning


def test_a_job_of_another_request_in_a_mapped_task_is_refused_and_both_requests_are_named():
    earlier = asked_for(ImageRequest(prompt="A lighthouse at dusk", style="vintage"))
    step = first(kept(fingerprint="other", request=earlier), is_mapped=True, request=asked_for(REQUEST))
    assert isinstance(step, RequestInvalid)
    assert "It was bought for prompt 'A lighthouse at dusk', model 'seedream3.0', style 'vintage'." in step.message
    assert "This try asks for prompt 'A lighthouse at dawn', model 'seedream3.0'." in step.message
    assert "Nothing was sent and nothing was spent. To buy this request, clear the task." in step.message
    assert step.fields == ("prompt", "style")


def test_a_long_prompt_is_shown_by_its_beginning():
    step = first(kept(fingerprint="other"), is_mapped=True, request={"prompt": "x" * 5_000})
    assert "It was bought for a request that is not on record. This try asks for prompt 'xxx" in step.message
    assert len(step.message) < 1_000


# A clear that leaves max_tries as it was -----------------------------------------------------------------


def test_a_clear_after_retries_were_lowered_buys_again_where_the_try_before_has_said_that_it_ended():
    for value in (kept(retries=2, has_ended=True), kept(None, retries=2, has_ended=True)):
        assert isinstance(first(value, retries=1), Submit)


def test_what_ended_is_adopted_by_what_can_only_be_a_retry():
    """A worker may die after its last word, and before Airflow has heard of it."""
    step = first(kept(retries=2, has_ended=True), retries=2)
    assert (type(step), step.job_id) == (LookFirst, "j")


@pytest.mark.parametrize("retries", [None, 0, 1, 2, 3])
def test_what_has_not_said_that_it_ended_is_adopted_whatever_retries_is_now(retries):
    assert isinstance(first(kept(retries=2), retries=retries), LookFirst)


def test_a_record_without_retries_tells_a_clear_by_max_tries_alone():
    assert isinstance(first(kept(has_ended=True), retries=1), LookFirst)


# What Pictory says of it ---------------------------------------------------------------------------------


def after(answer, now=NOW, *, value=None):
    return after_look(first(kept() if value is None else value), answer, now)


@pytest.mark.parametrize("status", ["in-progress", "completed", "hibernating", None])
def test_a_job_that_runs_or_is_done_is_adopted_from_the_time_of_its_submission(status):
    answer = Job(job_id="j", status=status)
    assert after(answer)[:3] == ("j", NOW - 99, answer)


@pytest.mark.parametrize(
    "passing", [Unavailable("x"), RateLimited("x"), TransportError("x"), ProtocolError("x"), EdgeBlocked("x")]
)
def test_a_job_that_cannot_be_asked_for_now_is_adopted_all_the_same(passing):
    assert after(passing)[:3] == ("j", NOW - 99, passing)


@pytest.mark.parametrize(
    "job", [Job(job_id="j", status="failed"), Job(job_id="j", success=False), Job(job_id="j", status="cleaned")]
)
def test_a_job_that_failed_or_was_cleaned_is_bought_again(job):
    assert isinstance(after(job), Submit)


@pytest.mark.parametrize("definite", [AuthenticationError("x"), RequestInvalid("x", status=400)])
def test_what_someone_has_to_mend_is_raised_as_it_is(definite):
    assert after(definite) is definite


def test_a_job_that_pictory_does_not_know_is_borne_in_its_first_minute_only():
    missing = JobNotFound("x")
    assert after(missing, NOW - 99 + 59)[:3] == ("j", NOW - 99, missing)
    assert isinstance(after(missing, NOW - 99 + 60), SubmitOutcomeUnknown)


def test_a_job_id_put_there_by_hand_that_pictory_does_not_know_is_never_adopted():
    assert isinstance(after(JobNotFound("x"), value={"jobId": "j"}), SubmitOutcomeUnknown)


def test_a_job_adopted_by_hand_is_waited_for_from_now_on():
    answer = Job(job_id="j", status="in-progress")
    adopted = after(answer, value={"jobId": "j"})
    assert (adopted[:3], adopted.found.is_by_hand) == (("j", NOW, answer), True)


# The fingerprint -----------------------------------------------------------------------------------------


def print_of(conn_id="pictory_default", **fields):
    return fingerprint(conn_id, asked_for(ImageRequest(**{"prompt": REQUEST.prompt, **fields})))


@pytest.mark.parametrize(
    "other",
    [
        {"prompt": "Another lighthouse"},
        {"model": "flux-schnell"},
        {"aspect_ratio": "16:9"},
        {"style": "vintage"},
        {"reference_image_url": "https://h/a.png"},
        {"conn_id": "elsewhere"},
    ],
)
def test_whatever_decides_the_picture_or_who_pays_is_in_the_fingerprint(other):
    assert print_of(**other) != WANTED


def test_the_webhook_and_the_signature_of_a_reference_image_are_not_in_it():
    assert print_of(webhook="https://h/hook?token=1") == WANTED
    assert print_of(reference_image_url="https://h/a.png?sig=1") == print_of(
        reference_image_url="https://h/a.png?sig=2"
    )


def test_a_fingerprint_is_the_same_in_every_release():
    assert WANTED == "6f43801564b3f0f8f1f646069cec5ac7"
    everything = ImageRequest(
        prompt=REQUEST.prompt,
        model="nanobanana",
        aspect_ratio="16:9",
        style="vintage",
        reference_image_url="https://h/a.png",
    )
    assert fingerprint("elsewhere", asked_for(everything)) == "178b231ad52f614e3962612b02199f4d"


def test_the_record_says_what_was_asked_for_without_the_webhook_and_without_signatures():
    request = ImageRequest(
        prompt=REQUEST.prompt, reference_image_url="https://h/a.png?sig=1", webhook="https://h/hook?token=1"
    )
    assert asked_for(request) == {
        "prompt": REQUEST.prompt,
        "model": "seedream3.0",
        "referenceImageUrl": "https://h/a.png",
    }


def test_the_record_of_the_first_release_can_still_be_read():
    value = {
        "jobId": "j",
        "fingerprint": "f",
        "max_tries": 2,
        "intended_at": 1.0,
        "submitted_at": 2.0,
        "credits_before": 690,
    }
    assert Submission.read(value).plain() == {"version": 1, **value}
    assert not Submission.read(value).is_by_hand


def test_a_record_survives_the_database():
    kept_of_all = Submission(
        job_id="j",
        fingerprint="f",
        max_tries=2,
        retries=2,
        request={"prompt": "x"},
        has_ended=True,
        submitted_at=2.0,
    )
    assert Submission.read(json.loads(json.dumps(kept_of_all.plain()))) == kept_of_all


# The evidence --------------------------------------------------------------------------------------------


def image(created="2027-01-15T08:00:00.000Z", **fields):
    return GeneratedImage(
        **{"id": "i", "url": "https://h/a.png?sig=1", "prompt": REQUEST.prompt, "model": REQUEST.model, **fields},
        created_date=created,
    )


def test_matching_pictures_have_the_prompt_the_model_and_the_time_of_the_request():
    gallery = [
        image(id="this"),
        image(id="a little before, by another clock", created="2027-01-15T07:56:00Z"),
        image(id="no zone", created="2027-01-15T08:00:00"),
        image(id="no time", created=None),
        image(id="no model", model=None),
        image(id="long before", created="2027-01-15T07:50:00Z"),
        image(id="other prompt", prompt="Another lighthouse"),
        image(id="other model", model="flux-schnell"),
    ]
    found = [match.id for match in matching(gallery, REQUEST, NOW)]
    assert found == ["this", "a little before, by another clock", "no zone", "no time", "no model"]
    assert "long before" in [match.id for match in matching(gallery, REQUEST, None)]


@pytest.mark.parametrize("zone", ["Pacific/Auckland", "America/Los_Angeles"])
def test_a_time_without_a_zone_is_utc_wherever_the_worker_stands(zone, monkeypatch):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        gallery = [
            image(id="now", created="2027-01-15T08:00:00"),
            image(id="now, as told elsewhere", created="2027-01-15T20:00:00+12:00"),
            image(id="long before", created="2027-01-15T07:00:00"),
        ]
        gallery.append(image(id="long before, as told elsewhere", created="2027-01-15T09:00:00+12:00"))
        assert [match.id for match in matching(gallery, REQUEST, NOW)] == ["now", "now, as told elsewhere"]
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_time_that_is_not_known_is_not_told():
    assert "picture of this request. One that" in evidence(since=None).text()


def test_clocks_may_differ_by_five_minutes():
    assert matching([image(created="2027-01-15T07:55:00Z")], REQUEST, NOW)
    assert not matching([image(created="2027-01-15T07:54:59Z")], REQUEST, NOW)


def test_the_first_three_matches_are_shown():
    gallery = tuple(image(url=f"https://h/{number}.png") for number in range(5))
    shown = evidence(matches=gallery).how_to_save()
    assert [number for number in range(5) if f"/{number}.png" in shown] == [0, 1, 2]
    assert ": 5, made" in evidence(matches=gallery).text()


def test_a_task_that_is_not_mapped_is_named_without_an_index():
    assert "map-index" not in by_hand(dag_id="d", run_id="r", task_id="t", map_index=None)
    assert "JOBID --map-index 0\n" in by_hand(dag_id="d", run_id="r", task_id="t", map_index=0)


def test_a_name_with_a_blank_is_quoted_for_the_shell():
    assert "adopt d 'my run' t JOBID\n" in by_hand(dag_id="d", run_id="my run", task_id="t", map_index=None)


def test_an_unknown_outcome_may_be_bought_again_unless_the_time_is_up():
    assert SubmitOutcomeUnknown("x").is_out_of_time is False


def test_a_block_is_a_403():
    assert EdgeBlocked("x").status == 403


def evidence(**fields):
    return Evidence(**{"since": NOW, "credits_before": 690.0, "credits_now": 692.0, "matches": (), **fields})


def test_the_evidence_is_told_in_plain_words_without_the_query_of_a_url():
    assert "used 2 AI credits more (690 before, 692 now)." in evidence().text()
    assert "since 2027-01-15 08:00:00 UTC. One that is still being drawn is not there yet" in evidence().text()
    found = evidence(matches=(image(),)).text()
    assert "in the gallery since 2027-01-15 08:00:00 UTC: 1, made 2027-01-15T08:00:00.000Z." in found
    assert "sig" not in found


@pytest.mark.parametrize(
    ("used", "told"),
    [
        (690.6, "used 0.6 AI credits more (690 before, 690.6 now): exactly the price of this picture."),
        (
            690,
            "No AI credits were used since, by all of the account (690 before, 690 now); this picture costs 0.6.",
        ),
        (694, "used 4 AI credits more (690 before, 694 now); this picture costs 0.6."),
    ],
)
def test_the_evidence_does_the_arithmetic(used, told):
    assert told in evidence(credits_now=used, price=0.6).text()


def test_a_picture_of_the_gallery_can_be_saved_in_place_of_the_unknown_one():
    assert evidence().how_to_save() == ""
    ready = evidence(matches=(image(url="https://h/a.png"),)).how_to_save()
    assert ready.splitlines()[1] == '    DownloadImageOperator(url="https://h/a.png", path=...)'
    signed = evidence(matches=(image(url="https://h/a.png?sig=1"),)).how_to_save()
    assert "list_images()" in signed
    assert "sig" not in signed


def test_what_could_not_be_found_out_is_said():
    text = evidence(since=None, credits_before=None, credits_now=None, matches=None).text()
    assert "unknown before the request, unknown now" in text
    assert "The gallery could not be searched." in text


def test_the_report_names_the_cause_the_evidence_and_both_ways_on():
    how = by_hand(dag_id="d", run_id="manual__2026-11-21T04:15:34+00:00", task_id="g.t", map_index=3)
    told = report(SubmitOutcomeUnknown.because("the cable was cut"), evidence(), how)
    assert (told.why, told.evidence) == ("the cable was cut", evidence())
    assert "the cable was cut. If it did, a picture was or will be paid for." in told.message
    assert "To buy the picture again, clear the task." in told.message
    command = "python -m pictory_provider adopt d manual__2026-11-21T04:15:34+00:00 g.t JOBID --map-index 3"
    assert f"    {command}\n" in told.message
    assert '{"jobId": "<its jobId>"} under pictory_submission' in told.message
