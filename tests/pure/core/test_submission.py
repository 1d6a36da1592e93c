# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The decision to submit, adopt or stop, by the record of a submission."""

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
from pictory_provider.core.evidence import (
    Evidence,
    failed_after_submission,
    how_to_adopt,
    how_to_wait,
    is_since,
    job_keeps_running,
    matching,
    report,
)
from pictory_provider.core.ledger import Charge
from pictory_provider.core.submission import (
    KEY,
    Adopt,
    PollFirst,
    Submission,
    Submit,
    after_poll,
    canonical_request,
    describe_request,
    fingerprint,
    first_step,
    request_of,
)

NOW = 1_800_000_000.0
REQUEST = ImageRequest(prompt="A lighthouse at dawn")
WANTED = fingerprint("pictory_default", canonical_request(REQUEST))


def kept(job_id="j", **changes):
    """Return what the store returns, after the way through the database."""
    fields = {
        "job_id": job_id,
        "fingerprint": WANTED,
        "max_tries": 2,
        "intended_at": NOW - 100,
        "submitted_at": NOW - 99 if job_id else None,
        **changes,
    }
    return json.loads(json.dumps(Submission(**fields).to_dict()))


def first(value, **more):
    return first_step(value, **{"wanted": WANTED, "max_tries": 2, "is_mapped": False, **more})


# What is on record ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_mapped", [False, True])
class TestWhateverKindOfTaskItIs:
    def test_nothing_on_record_is_bought(self, is_mapped):
        assert first(None, is_mapped=is_mapped) == Submit()

    def test_a_job_of_this_request_is_polled_first(self, is_mapped):
        step = first(kept(), is_mapped=is_mapped)
        assert (type(step), step.job_id, step.warning) == (PollFirst, "j", None)

    def test_an_intent_without_a_job_id_is_an_unknown_outcome(self, is_mapped):
        assert isinstance(first(kept(None), is_mapped=is_mapped), SubmitOutcomeUnknown)
        assert isinstance(first(kept(None, fingerprint="other"), is_mapped=is_mapped), SubmitOutcomeUnknown)

    @pytest.mark.parametrize("max_tries", [0, 1, 3, 4])
    def test_a_users_clear_buys_again_and_names_the_job_that_it_leaves_behind(self, is_mapped, max_tries):
        step = first(kept(), is_mapped=is_mapped, max_tries=max_tries)
        assert isinstance(step, Submit)
        assert "(j) is left behind" in step.warning

    def test_a_users_clear_of_an_unknown_outcome_buys_again(self, is_mapped):
        step = first(kept(None), is_mapped=is_mapped, max_tries=3)
        assert isinstance(step, Submit)
        assert "(jobId unknown) is left behind" in step.warning

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
    def test_a_job_id_recorded_by_a_user_is_adopted_after_a_clear_too(self, is_mapped, max_tries, value):
        step = first(value, is_mapped=is_mapped, max_tries=max_tries)
        assert (type(step), step.job_id) == (PollFirst, "j")

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
    assert (type(step), step.job_id) == (PollFirst, "j")
    assert "rendered differently" in step.warning


def test_a_job_of_another_request_in_a_mapped_task_is_refused_and_both_requests_are_named():
    earlier = canonical_request(ImageRequest(prompt="A lighthouse at dusk", style="vintage"))
    step = first(kept(fingerprint="other", request=earlier), is_mapped=True, request=canonical_request(REQUEST))
    assert isinstance(step, RequestInvalid)
    assert "It was bought for prompt 'A lighthouse at dusk', model 'seedream3.0', style 'vintage'." in step.message
    assert "This attempt requests prompt 'A lighthouse at dawn', model 'seedream3.0'." in step.message
    assert "Nothing was sent and nothing was spent. To buy this request, clear the task." in step.message
    assert step.fields == ("prompt", "style")


def test_a_long_prompt_is_shown_by_its_beginning():
    step = first(kept(fingerprint="other"), is_mapped=True, request={"prompt": "x" * 5_000})
    assert "It was bought for a request that is not on record. This attempt requests prompt 'xxx" in step.message
    assert len(step.message) < 1_000


@pytest.mark.parametrize(
    ("request_", "line"),
    [
        (None, "a request that is not on record"),
        ({}, ""),
        ({"prompt": "A lamp", "style": "vintage"}, "prompt 'A lamp', style 'vintage'"),
        ({"prompt": "x" * 160}, f"prompt '{'x' * 160}'"),
        ({"prompt": "x" * 161}, f"prompt '{'x' * 160}…'"),
    ],
)
def test_a_request_is_reported_in_one_line_with_the_first_160_characters_of_each_value(request_, line):
    assert describe_request(request_) == line


def test_an_unreadable_record_is_shown_with_both_ways_on():
    message = first({"what": "is"}).message
    assert "{'what': 'is'}. Correct it to adopt a job, or delete it to buy the picture" in message
    assert len(first({"what": "is" * 1_000}).message) < 700


def test_an_intent_says_that_the_outcome_is_unknown_and_where_the_job_id_may_be():
    message = first(kept(None)).message
    assert "ended after it recorded its intent to submit and before it recorded Pictory's answer" in message
    assert "(its log may name the jobId)" in message


def test_what_has_to_be_done_to_buy_another_request_is_said_as_the_caller_says_it():
    refused = first(kept(fingerprint="other"), is_mapped=True, to_buy="stand on your head")
    adopted = first(kept(fingerprint="other"), to_buy="stand on your head")
    for text in (refused.message, adopted.warning):
        assert "To buy this request, stand on your head." in text.replace("a picture of the new", "this")
    assert 'PictoryJobSensor(job_id="j") waits for the other picture.' in refused.message


@pytest.mark.parametrize(
    ("earlier", "now", "fields"),
    [
        ({"prompt": "A lamp"}, {"prompt": "A lamp"}, ()),
        (
            {"prompt": "A lamp", "style": "vintage"},
            {"prompt": "A desk", "model": "m"},
            ("model", "prompt", "style"),
        ),
        (None, {"prompt": "A lamp"}, ("prompt",)),
        ({"prompt": "A lamp"}, None, ("prompt",)),
        (None, None, ()),
    ],
)
def test_the_fields_in_which_two_requests_differ_are_named_in_order(earlier, now, fields):
    assert first(kept(fingerprint="other", request=earlier), is_mapped=True, request=now).fields == fields


# A clear that leaves max_tries as it was -----------------------------------------------------------------


def test_a_clear_after_retries_were_lowered_buys_again_where_the_attempt_before_has_said_that_it_ended():
    for value in (kept(retries=2, has_ended=True), kept(None, retries=2, has_ended=True)):
        assert isinstance(first(value, retries=1), Submit)


def test_what_ended_is_adopted_by_what_can_only_be_a_retry():
    """A worker may die after it wrote the record, and before Airflow has heard of it."""
    step = first(kept(retries=2, has_ended=True), retries=2)
    assert (type(step), step.job_id) == (PollFirst, "j")


@pytest.mark.parametrize("retries", [None, 0, 1, 2, 3])
def test_what_has_not_said_that_it_ended_is_adopted_whatever_retries_is_now(retries):
    assert isinstance(first(kept(retries=2), retries=retries), PollFirst)


def test_a_record_without_retries_recognises_a_clear_by_max_tries_alone():
    assert isinstance(first(kept(has_ended=True), retries=1), PollFirst)


# What Pictory says of it ---------------------------------------------------------------------------------


def after(answer, now=NOW, *, value=None):
    return after_poll(first(kept() if value is None else value), answer, now)


@pytest.mark.parametrize("status", ["in-progress", "completed", "hibernating", None])
def test_a_job_that_runs_or_is_done_is_adopted_from_the_time_of_its_submission(status):
    answer = Job(job_id="j", status=status)
    assert after(answer)[:3] == ("j", NOW - 99, answer)


@pytest.mark.parametrize(
    "passing", [Unavailable("x"), RateLimited("x"), TransportError("x"), ProtocolError("x"), EdgeBlocked("x")]
)
def test_a_job_that_cannot_be_requested_now_is_adopted_all_the_same(passing):
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


def test_a_job_id_recorded_by_a_user_that_pictory_does_not_know_is_never_adopted():
    assert isinstance(after(JobNotFound("x"), value={"jobId": "j"}), SubmitOutcomeUnknown)


def test_a_job_adopted_by_a_user_is_waited_for_from_now_on():
    answer = Job(job_id="j", status="in-progress")
    adopted = after(answer, value={"jobId": "j"})
    assert (adopted[:3], adopted.found.is_from_user) == (("j", NOW, answer), True)


def test_a_job_that_is_adopted_brings_its_record_and_its_warning():
    poll = first(kept(fingerprint="other"))
    adopted = after_poll(poll, Job(job_id="j", status="in-progress"), NOW)
    assert (adopted.found, adopted.warning) == (poll.found, poll.warning)
    assert (adopted.submitted_at, adopted.is_to_record) == (NOW - 99, False)
    assert Adopt("j", NOW).found == Submission()


@pytest.mark.parametrize(
    ("poll", "is_to_record"),
    [
        ({}, False),
        ({"begins_anew": True}, True),
        ({"begins_anew": True, "is_ours": False}, False),
        ({"is_ours": False}, False),
    ],
)
def test_a_job_whose_wait_begins_anew_is_put_on_record_anew_if_it_is_this_tasks(poll, is_to_record):
    adopted = after_poll(first(kept())._replace(**poll), Job(job_id="j", status="in-progress"), NOW)
    assert adopted.is_to_record is is_to_record
    assert adopted.submitted_at == (NOW if "begins_anew" in poll else NOW - 99)


def test_a_job_id_recorded_by_a_user_is_put_on_record_with_its_time_unless_it_is_another_tasks():
    poll, answer = first({"jobId": "j"}), Job(job_id="j", status="completed")
    assert after_poll(poll, answer, NOW).is_to_record is True
    assert after_poll(poll._replace(is_ours=False), answer, NOW).is_to_record is False


GONE, ALIVE = RequestInvalid("gone"), RequestInvalid("alive")


@pytest.mark.parametrize(
    ("answer", "then"),
    [
        (Job(job_id="j", status="in-progress"), ALIVE),
        (Job(job_id="j", status="completed"), ALIVE),
        (Unavailable("x"), ALIVE),
        (Job(job_id="j", status="failed"), Submit),
        (Job(job_id="j", status="cleaned"), GONE),
        (JobNotFound("x"), GONE),
    ],
)
def test_a_caller_may_say_what_follows_a_job_that_is_gone_and_one_that_is_not(answer, then):
    step = after_poll(first(kept())._replace(if_gone=GONE, if_alive=ALIVE), answer, NOW)
    assert isinstance(step, Submit) if then is Submit else step is then


def test_what_someone_has_to_mend_comes_before_what_follows_a_job_that_is_alive():
    definite = AuthenticationError("x")
    assert after_poll(first(kept())._replace(if_alive=ALIVE), definite, NOW) is definite


@pytest.mark.parametrize("status", ["failed", "cleaned"])
def test_a_purchase_after_a_job_that_came_to_nothing_names_it(status):
    step = after(Job(job_id="j", status=status))
    assert step.warning == f"Job j, submitted by an earlier attempt, is {status}; the picture is bought again."


# The fingerprint -----------------------------------------------------------------------------------------


def print_of(conn_id="pictory_default", **fields):
    return fingerprint(conn_id, canonical_request(ImageRequest(**{"prompt": REQUEST.prompt, **fields})))


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
    assert fingerprint("elsewhere", canonical_request(everything)) == "178b231ad52f614e3962612b02199f4d"


def test_the_record_says_what_was_requested_without_the_webhook_and_without_signatures():
    request = ImageRequest(
        prompt=REQUEST.prompt, reference_image_url="https://h/a.png?sig=1", webhook="https://h/hook?token=1"
    )
    assert canonical_request(request) == {
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
    assert Submission.from_dict(value).to_dict() == {"version": 1, **value}
    assert not Submission.from_dict(value).is_from_user


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
    assert Submission.from_dict(json.loads(json.dumps(kept_of_all.to_dict()))) == kept_of_all


def test_a_record_keeps_every_field_under_its_name():
    everything = Submission(
        job_id="j",
        fingerprint="f",
        max_tries=0,
        retries=0,
        request={"prompt": "x", "model": "nanobanana"},
        has_ended=True,
        intended_at=1.5,
        submitted_at=2.5,
        credits_before=0.0,
        path="/srv/a.png",
        shown_before=0,
        used_before=0.0,
        earlier=(Charge(0.5, 2.0, 1, 7.0),),
        before_clear=2.0,
    )
    plain = everything.to_dict()
    assert plain == {
        "version": 1,
        "jobId": "j",
        "fingerprint": "f",
        "request": {"prompt": "x", "model": "nanobanana"},
        "max_tries": 0,
        "retries": 0,
        "has_ended": True,
        "intended_at": 1.5,
        "submitted_at": 2.5,
        "credits_before": 0.0,
        "path": "/srv/a.png",
        "shown_before": 0,
        "used_before": 0.0,
        "earlier": [[0.5, 2.0]],
        "earlier_before": [[1, 7.0]],
        "before_clear": 2.0,
    }
    assert Submission.from_dict(json.loads(json.dumps(plain))) == everything
    assert everything.purchases == (Charge(0.5, 2.0, 1, 7.0), Charge(1.5, 4, 0, 0.0))
    assert Submission(earlier=everything.earlier).purchases == everything.earlier


def test_what_is_not_known_is_not_kept():
    assert Submission().to_dict() == {"version": 1}
    assert KEY == "pictory_submission"


@pytest.mark.parametrize("value", ["x", True, [], {}])
def test_a_field_that_cannot_be_read_is_not_known(value):
    names = ("max_tries", "intended_at", "submitted_at", "credits_before", "shown_before", "used_before")
    found = Submission.from_dict({"jobId": "j", **dict.fromkeys((*names, "retries", "before_clear"), value)})
    assert found == Submission(job_id="j")


def test_a_number_that_is_too_large_for_a_float_is_not_known():
    names = ("intended_at", "submitted_at", "credits_before", "used_before", "before_clear")
    assert Submission.from_dict({"jobId": "j", **dict.fromkeys(names, 10**400)}) == Submission(job_id="j")


@pytest.mark.parametrize("name", ["request", "path"])
def test_a_request_is_an_object_and_a_path_a_text(name):
    assert getattr(Submission.from_dict({"jobId": "j", name: 7}), name) is None


def test_only_a_plain_yes_says_that_an_attempt_has_ended():
    for value, has_ended in ((True, True), (1, False), ("yes", False), (None, False)):
        assert Submission.from_dict({"jobId": "j", "has_ended": value}).has_ended is has_ended


def test_a_record_whose_earlier_purchases_cannot_be_read_is_unreadable():
    assert Submission.from_dict({**kept(), "earlier": [[1]]}) is None
    assert Submission.from_dict({**kept(), "earlier": [[1, 2.0]]}).earlier == (Charge(1, 2.0),)


def test_prompt_and_model_are_reported_by_a_record_that_has_both():
    found = request_of({"prompt": "A lamp", "model": "newer", "style": "odd"})
    assert (found.prompt, found.model, found.allow_unlisted) == ("A lamp", "newer", True)
    for requested in ({"prompt": "A lamp"}, {"model": "newer"}, {"prompt": 7, "model": "newer"}, {}):
        assert request_of(requested) is None


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


def test_a_time_that_is_not_known_is_not_reported():
    assert "picture of this request. A picture that" in evidence(since=None).text()


def test_clocks_may_differ_by_five_minutes():
    assert matching([image(created="2027-01-15T07:55:00Z")], REQUEST, NOW)
    assert not matching([image(created="2027-01-15T07:54:59Z")], REQUEST, NOW)


def test_the_first_three_matches_are_shown():
    gallery = tuple(image(url=f"https://h/{number}.png") for number in range(5))
    shown = evidence(matches=gallery).how_to_save()
    assert [number for number in range(5) if f"/{number}.png" in shown] == [0, 1, 2]
    assert ": 5, made" in evidence(matches=gallery).text()


def test_a_task_that_is_not_mapped_is_named_without_an_index():
    assert "map-index" not in how_to_adopt(dag_id="d", run_id="r", task_id="t")
    assert "JOBID --map-index 0 --clear\n" in how_to_adopt(dag_id="d", run_id="r", task_id="t", map_index=0)


def test_an_iteration_of_a_loop_is_named_by_its_number():
    of = {"dag_id": "d", "run_id": "r", "task_id": "t"}
    assert "JOBID --loop-index 0 --clear\n" in how_to_adopt(**of, loop_index=0)
    assert "JOBID --map-index 2 --loop-index 1 --clear\n" in how_to_adopt(**of, map_index=2, loop_index=1)
    assert "loop-index" not in how_to_adopt(**of, map_index=2)


def test_a_name_with_a_blank_is_quoted_for_the_shell():
    assert "adopt d 'my run' t JOBID --clear\n" in how_to_adopt(dag_id="d", run_id="my run", task_id="t")


def test_an_unknown_outcome_may_be_bought_again_unless_the_time_is_up():
    assert SubmitOutcomeUnknown("x").is_out_of_time is False


def test_a_block_is_a_403():
    assert EdgeBlocked("x").status == 403


def evidence(**fields):
    return Evidence(**{"since": NOW, "credits_before": 690.0, "credits_now": 692.0, "matches": (), **fields})


def test_the_evidence_is_reported_in_plain_words_without_the_query_of_a_url():
    assert "used 2 more AI credits (690 before, 692 now)." in evidence().text()
    assert (
        "since 2027-01-15 08:00:00 UTC. A picture that is still being generated is not there yet"
        in evidence().text()
    )
    found = evidence(matches=(image(),)).text()
    assert "in the gallery since 2027-01-15 08:00:00 UTC: 1, made 2027-01-15T08:00:00.000Z." in found
    assert "sig" not in found


@pytest.mark.parametrize(
    ("used", "reported"),
    [
        (690.6, "used 0.6 more AI credits (690 before, 690.6 now): exactly the price of this picture."),
        (
            690,
            "The whole account has used no AI credits since (690 before, 690 now); this picture costs 0.6.",
        ),
        (694, "used 4 more AI credits (690 before, 694 now); this picture costs 0.6."),
    ],
)
def test_the_evidence_does_the_arithmetic(used, reported):
    assert reported in evidence(credits_now=used, price=0.6).text()


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
    how = how_to_adopt(dag_id="d", run_id="manual__2026-11-21T04:15:34+00:00", task_id="g.t", map_index=3)
    reported = report(SubmitOutcomeUnknown.because("the cable was cut"), evidence(), how)
    assert (reported.why, reported.evidence) == ("the cable was cut", evidence())
    assert "the cable was cut. If it did, a picture was or will be paid for." in reported.message
    assert "To buy the picture again, clear the task." in reported.message
    command = (
        "python -m pictory_provider adopt d manual__2026-11-21T04:15:34+00:00 g.t JOBID --map-index 3 --clear"
    )
    assert f"    {command}\n" in reported.message
    assert 'set pictory_submission to {"jobId": "<its jobId>"} in' in reported.message


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (None, 692.0, "unknown before the request, 692 now."),
        (690.0, None, "690 before the request, unknown now."),
        (0.0, 1_234.5, "used 1,234.5 more AI credits (0 before, 1,234.5 now)."),
        (690.1, 690.7, "used 0.6 more AI credits (690.1 before, 690.7 now): exactly the price of this picture."),
    ],
)
def test_what_of_the_credits_is_known_is_reported_and_what_is_not_known_is_called_unknown(before, now, expected):
    price = 0.6 if before == 690.1 else None
    assert expected in evidence(credits_before=before, credits_now=now, price=price).text()


def test_the_gallery_is_reported_with_the_dates_of_the_first_three_pictures():
    gallery = tuple(image(created=f"2027-01-1{number}") for number in range(5))
    assert evidence(since=None, matches=gallery).gallery() == (
        "Pictures of this request in the gallery: 5, made 2027-01-10, 2027-01-11, 2027-01-12."
    )


def test_a_picture_whose_time_is_not_known_may_have_been_made_since():
    assert is_since(image(created=None), NOW)
    assert is_since(image(created="some day"), NOW)
    assert not is_since(image(created="2027-01-15T07:00:00Z"), NOW)


def test_a_picture_of_the_gallery_without_a_url_can_be_saved_by_no_line():
    assert 'DownloadImageOperator(url="", path=...)' in evidence(matches=(image(url=None),)).how_to_save()
    assert "which buys nothing" in evidence(matches=(image(),)).how_to_save()


def test_a_connection_that_is_not_the_default_one_is_named_in_the_command():
    of = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": 0}
    assert "adopt d r t JOBID --map-index 0 --conn-id 'my own' --clear\n" in how_to_adopt(**of, conn_id="my own")
    assert "--conn-id" not in how_to_adopt(**of)


def test_each_way_to_a_job_names_it_or_its_place():
    of = {"dag_id": "d", "run_id": "r", "task_id": "t"}
    in_store, beside = how_to_adopt(**of), how_to_adopt(**of, has_store=False, sidecar="/srv/a.png.json")
    both = how_to_adopt(**of, sidecar="/srv/a.png.json")
    assert in_store.count("pictory_submission") == 1
    assert "*Keep task state and resume*" in in_store
    assert beside == both
    assert 'set "job_id": "<its jobId>" in /srv/a.png.json, in place of null, and clear the task (' in beside
    assert "pictory_submission" not in beside
    assert how_to_wait("j") == 'PictoryJobSensor(job_id="j") waits for a job whose jobId you have.'
    assert 'job_id="<its jobId>"' in how_to_wait()
    assert job_keeps_running("j").startswith("Job j keeps running at Pictory, and its cost is committed.")
    assert 'PictoryJobSensor(job_id="j") waits for it.' in job_keeps_running("j")


def test_what_failed_after_a_purchase_is_reported_with_its_own_words():
    for error in (Unavailable("the house burns."), OSError("the house burns.")):
        expected = failed_after_submission("j", error)
        assert f"is paid for, and then: {type(error).__name__}: the house burns. The task is not" in expected
        assert expected.startswith("Job j was submitted")
        assert 'PictoryJobSensor(job_id="j") waits for it.' in expected


def test_the_report_of_an_unknown_outcome_has_a_line_for_each_way_on_and_none_without_one():
    alone = report(SubmitOutcomeUnknown.because("cut"), evidence(), "Adopt it.")
    assert alone.message.splitlines()[1:] == ["To buy the picture again, clear the task.", "Adopt it."]
    shown = report(SubmitOutcomeUnknown.because("cut"), evidence(matches=(image(),)), "Adopt it.")
    assert len(shown.message.splitlines()) == 5


def test_a_poll_is_of_a_job_of_ones_own_whose_wait_goes_on_unless_it_says_otherwise():
    poll = PollFirst(Submission(), "j")
    assert (poll.begins_anew, poll.is_ours, poll.if_gone, poll.if_alive, poll.warning) == (
        False,
        True,
        None,
        None,
        None,
    )
    adopted = Adopt("j", NOW)
    assert (adopted.is_to_record, adopted.answer, adopted.warning) == (False, None, None)
    empty = Submission()
    assert (empty.has_ended, empty.before_clear, empty.earlier, empty.purchases) == (False, 0, (), ())
    assert empty.is_from_user is False


def test_a_retry_adopts_a_job_whose_record_has_an_odd_number_of_tries():
    """Airflow accepts ``retries=-1``."""
    record = kept(max_tries=-1, retries=-1)
    step = first(record, max_tries=-1, retries=-1)
    assert isinstance(step, PollFirst)
    assert step.job_id == "j"
