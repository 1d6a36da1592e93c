# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""When a worker polls which job of a batch, and the trigger event that resumes it."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pictory_provider.api.models import Job
from pictory_provider.core.batch import events
from pictory_provider.core.batch.schedule import MAX_FRUITLESS_POLLS, WORTH_STAYING, PollSchedule

NOW = 1_000.0


def polls(*jobs, interval=15.0, can_defer=True):
    made = PollSchedule(interval, can_defer=can_defer)
    for number, at in enumerate(jobs):
        made.add(f"job-{number}", at)
    return made


def taken(made, now):
    keys = []
    while (key := made.next_due(now)) is not None:
        keys.append(key)
    return keys


def test_jobs_are_polled_when_they_are_due_the_one_that_was_due_for_longest_first():
    made = polls(NOW - 1, NOW - 3, NOW + 5)
    assert taken(made, NOW) == ["job-1", "job-0"]
    assert made.next_at == NOW + 5
    assert taken(made, NOW + 5) == ["job-2"]
    assert made.next_at == math.inf


def test_a_job_that_has_ended_is_not_polled_again_and_may_be_bought_anew():
    made = polls(NOW)
    assert "job-0" in made
    made.next_due(NOW)
    made.ended("job-0")
    assert "job-0" not in made
    assert made.next_at == math.inf
    made.add("job-0", NOW + 3)
    assert taken(made, NOW + 3) == ["job-0"]


def run_in_vain(made, times, now=NOW):
    for _ in range(times):
        made.still_running(made.next_due(now), now, 15.0)


def test_after_some_polls_without_result_polling_is_left_to_the_triggerer_for_an_interval():
    made = polls(*[NOW] * (MAX_FRUITLESS_POLLS + 5))
    run_in_vain(made, MAX_FRUITLESS_POLLS - 1)
    assert made.next_at == NOW
    run_in_vain(made, 1)
    assert made.next_at == NOW + 15
    assert made.next_due(NOW + 14) is None
    assert len(taken(made, NOW + 15)) == MAX_FRUITLESS_POLLS + 5


def test_a_job_that_has_ended_is_worth_more_polls():
    made = polls(*[NOW] * (2 * MAX_FRUITLESS_POLLS))
    run_in_vain(made, MAX_FRUITLESS_POLLS - 1)
    made.ended(made.next_due(NOW))
    run_in_vain(made, MAX_FRUITLESS_POLLS - 1)
    assert made.next_at == NOW


def test_if_no_triggerer_polls_every_job_is_polled_when_it_is_due():
    made = polls(*[NOW] * 30, can_defer=False)
    run_in_vain(made, 30)
    assert made.next_at == NOW + 15


@pytest.mark.parametrize(
    ("due", "is_first", "has_found", "is_worth"),
    [
        (NOW + WORTH_STAYING, True, True, True),
        (NOW + WORTH_STAYING + 0.1, True, True, False),
        (NOW + 1, True, False, False),
        (NOW + 1, False, True, False),
    ],
)
def test_a_worker_stays_for_a_first_poll_that_is_near_where_polls_have_found_something(
    due, is_first, has_found, is_worth
):
    made = polls(NOW)
    made.next_due(NOW)
    if has_found:
        made.ended("job-0")
    made.add("next", due, is_first=is_first)
    assert made.is_worth_staying(NOW) == is_worth


def test_nobody_stays_for_nothing():
    assert not polls().is_worth_staying(NOW)
    made = polls(*[NOW] * 20, NOW + 1)
    made.ended(made.next_due(NOW))
    run_in_vain(made, MAX_FRUITLESS_POLLS)
    assert not made.is_worth_staying(NOW)


# The trigger event ---------------------------------------------------------------------------------------


def job(number, url="https://cdn.example.com/{}.png?X-Amz-Signature=secret"):
    job_id = f"00000000-0000-0000-0000-{number:012d}"
    return Job(job_id=job_id, url=url.format(number), width=1024, height=720, ai_credits_used=0.6, success=True)


def event(number=3, failed=0, **more):
    ended = [(each.job_id, each, NOW - 2) for each in map(job, range(number))]
    ended += [(f"failed-{each}", None, NOW - 1) for each in range(failed)]
    return json.loads(json.dumps(events.build(200, ended, "there is something to save", NOW))) | more


def test_a_worker_reads_what_a_trigger_has_seen():
    reported = events.read(event(3, failed=2))
    assert (reported.of, reported.ended, reported.at, reported.is_whole) == (200, 5, NOW, True)
    assert reported.others == {"failed-0", "failed-1"}
    assert [each.record() for each in reported.jobs.values()] == [
        {**job(number).record(), "status": "completed"} for number in range(3)
    ]
    assert set(reported.seen_at.values()) == {NOW - 2}


@given(number=st.integers(0, 1_000), failed=st.integers(0, 1_000), length=st.integers(1, 3_000))
def test_an_event_is_never_large_and_what_has_no_space_is_named_by_its_id_or_missing(number, failed, length):
    url = "https://cdn.example.com/ü" + "x" * length
    ended = [(each.job_id, each, NOW) for each in (job(n, url) for n in range(number))]
    ended += [(f"failed-{n}", None, NOW) for n in range(failed)]
    payload = events.build(2_000, ended, "all have ended", NOW)
    assert len(json.dumps(payload)) < events.MOST_BYTES + 200
    reported = events.read(json.loads(json.dumps(payload)))
    assert reported.is_whole == (len(reported.jobs) + len(reported.others) == number + failed)
    assert set(reported.jobs) <= {job_id for job_id, each, _ in ended if each}
    if number + failed <= 800:
        assert reported.is_whole


@pytest.mark.parametrize(
    "payload",
    [
        None,
        [],
        "event",
        {},
        {"of": 200, "ended": 3, "why": "all have ended", "at": NOW},
        event(of="200"),
        event(of=True),
        event(ended=2),
        event(ended=201),
        event(at=None),
        event(at=math.inf),
        event(jobs={}),
        event(jobs=[["job", "https://a.b/c.png", 1, 1, 0.6]]),
        event(jobs=[["job", "https://a.b/c.png", 1, 1, 0.6, NOW, 1]]),
        event(jobs=[["job", "file:///etc/passwd", 1, 1, 0.6, NOW]]),
        event(jobs=[["job", None, 1, 1, 0.6, NOW]]),
        event(jobs=[["None", "https://a.b/c.png", 1, 1, 0.6, NOW]]),
        event(jobs=[[None, "https://a.b/c.png", 1, 1, 0.6, NOW]]),
        event(jobs=[["job", "https://a.b/c.png", "1", 1, 0.6, NOW]]),
        event(jobs=[["job", "https://a.b/c.png", 1, 1, "0.6", NOW]]),
        event(jobs=[["job", "https://a.b/c.png", 1, 1, 0.6, "now"]]),
        event(jobs=["job"]),
        event(jobs=[7]),
        event(others=[7]),
        event(others=[[]]),
        event(others="job"),
        event(others=[job(0).job_id]),
    ],
)
def test_an_event_that_is_not_understood_in_every_part_is_not_believed_in_any(payload):
    assert events.read(payload) is None


def test_an_event_says_nothing_secret_in_a_log():
    reported = repr(events.for_log(event(3, failed=2)))
    assert "secret" not in reported
    assert "https://cdn.example.com/0.png" in reported
    assert "and 2 more" in reported
    assert events.for_log({"of": 1}) == {"of": 1}


def test_an_event_is_made_of_what_has_ended_in_its_order():
    done = job(0)
    ended = [("gone", None, NOW - 1), (done.job_id, done, NOW - 2)]
    assert events.build(7, ended, "there is something to save", NOW) == {
        "of": 7,
        "ended": 2,
        "why": "there is something to save",
        "at": NOW,
        "jobs": [[done.job_id, done.url, 1024, 720, 0.6, NOW - 2]],
        "others": ["gone"],
    }


def test_a_job_of_which_little_is_known_comes_back_with_as_little():
    reported = events.read(event(jobs=[["job", "https://a.b/c.png", None, None, None, 0]], others=[], ended=1))
    assert reported.jobs == {"job": Job(job_id="job", status="completed", success=True, url="https://a.b/c.png")}
    assert (reported.seen_at, reported.others) == ({"job": 0}, frozenset())
    assert events.read(event(jobs=[["job", "https://a.b/c.png", 0, 0, 0, NOW]])) is not None


@pytest.mark.parametrize(
    "wrong",
    [
        {"of": -1},
        {"of": None},
        {"of": 3.0},
        {"ended": True},
        {"ended": -1},
        {"at": "now"},
        {"at": True},
        {"at": -math.inf},
        {"others": None},
        {"jobs": None},
        {"jobs": [["job", "https://a.b/c.png", -1, 1, 0.6, NOW]]},
        {"jobs": [["job", "https://a.b/c.png", 1, True, 0.6, NOW]]},
        {"jobs": [["job", "https://a.b/c.png", 1, 1, True, NOW]]},
        {"jobs": [["job", "https://a.b/c.png", 1, 1, math.nan, NOW]]},
        {"jobs": [["job", "https://a.b/c.png", 1, 1, 0.6, None]]},
    ],
)
def test_one_part_that_is_not_understood_is_enough(wrong):
    assert events.read(event() | wrong) is None


@pytest.mark.parametrize(
    ("of", "ended", "others", "is_read", "is_whole"),
    [
        (3, 3, [], True, True),
        (4, 4, ["x"], True, True),
        (5, 4, [], True, False),
        (4, 3, ["x"], False, None),
        (2, 3, [], False, None),
        (0, 0, [], False, None),
    ],
)
def test_no_more_jobs_are_named_than_have_ended_and_no_more_have_ended_than_there_are(
    of, ended, others, is_read, is_whole
):
    reported = events.read(event(of=of, ended=ended, others=others))
    assert (reported is not None) is is_read
    if reported:
        assert reported.is_whole is is_whole


def test_an_event_without_anything_that_has_ended_is_one():
    assert events.read(event(0)) == events.JobsEvent(of=200, ended=0, at=NOW)
    assert events.MOST_BYTES == 40_000


@pytest.mark.parametrize(
    ("number", "failed", "jobs", "others"),
    [
        (0, 0, [], 0),
        (1, 2, [[job(0).job_id, "https://cdn.example.com/0.png"]], 2),
        (2, 0, [[job(0).job_id, "https://cdn.example.com/0.png"], "and 1 more"], 0),
    ],
)
def test_an_event_is_logged_with_its_first_job_and_the_number_of_the_others(number, failed, jobs, others):
    assert events.for_log(event(number, failed)) == {**event(number, failed), "jobs": jobs, "others": others}
    assert events.for_log({**event(1), "others": None})["others"] is None


# Which job is polled --------------------------------------------------------------------------------------


def test_the_times_of_polls_are_those_that_the_module_gives():
    assert (MAX_FRUITLESS_POLLS, WORTH_STAYING) == (8, 8)


def test_a_job_that_still_runs_is_polled_again_after_the_seconds_that_its_poller_says():
    made = polls(NOW)
    made.still_running(made.next_due(NOW), NOW, 7.0)
    assert made.next_at == NOW + 7
    assert made.next_due(NOW + 6.9) is None
    assert made.next_due(NOW + 7) == "job-0"


def test_a_job_that_is_polled_now_is_waited_for_and_not_taken_twice():
    made = polls(NOW)
    assert made.next_due(NOW) == "job-0"
    assert made.next_due(NOW) is None
    assert "job-0" in made
    assert made.next_at == math.inf


def test_of_two_polls_that_are_due_at_once_the_one_of_a_polled_job_goes_first():
    made = polls()
    made.add("first", NOW)
    made.add("again", NOW, is_first=False)
    assert taken(made, NOW) == ["again", "first"]


def test_a_job_whose_poll_was_put_off_is_polled_then_and_not_before():
    made = polls(NOW)
    made.add("job-0", NOW + 9)
    assert made.next_due(NOW) is None
    assert made.next_at == NOW + 9


@pytest.mark.parametrize(
    ("number", "length", "jobs", "others"),
    [
        (0, 0, 0, 0),
        (100, 400, 100, 0),
        (101, 400, 99, 2),
        (200, 400, 88, 112),
        (100, 401, 99, 1),
        (1_000, 400, 0, 1_000),
        (1_001, 400, 0, 1_000),
    ],
)
def test_what_an_event_has_space_for_is_reported_in_full_and_then_by_its_id(number, length, jobs, others):
    """An id takes 40 bytes, quotes and comma among them; what is said of a job is made as long as is asked for."""

    def ended(each):
        item = json.dumps([job(each).job_id, "https://h/", 1024, 720, 0.6, NOW])
        return job(each, "https://h/" + "x" * (length - 2 - len(item)))

    reported = events.build(2_000, [(one.job_id, one, NOW) for one in map(ended, range(number))], "x", NOW)
    assert (len(reported["jobs"]), len(reported["others"]), reported["ended"]) == (jobs, others, number)
