# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""When a worker looks at which job of a batch, and what a trigger tells it so that it need not."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pictory_provider.api.models import Job
from pictory_provider.batch import seen
from pictory_provider.batch.looks import IN_VAIN, WORTH_STAYING, Looks

NOW = 1_000.0


def looks(*jobs, interval=15.0, can_defer=True):
    made = Looks(interval, can_defer=can_defer)
    for number, at in enumerate(jobs):
        made.add(f"job-{number}", at)
    return made


def taken(made, now):
    keys = []
    while (key := made.take(now)) is not None:
        keys.append(key)
    return keys


def test_jobs_are_looked_at_when_they_are_due_the_one_that_was_due_for_longest_first():
    made = looks(NOW - 1, NOW - 3, NOW + 5)
    assert taken(made, NOW) == ["job-1", "job-0"]
    assert made.next_at == NOW + 5
    assert taken(made, NOW + 5) == ["job-2"]
    assert made.next_at == math.inf


def test_a_job_that_has_ended_is_not_looked_at_again_and_may_be_bought_anew():
    made = looks(NOW)
    assert "job-0" in made
    made.take(NOW)
    made.ended("job-0")
    assert "job-0" not in made
    assert made.next_at == math.inf
    made.add("job-0", NOW + 3)
    assert taken(made, NOW + 3) == ["job-0"]


def run_in_vain(made, times, now=NOW):
    for _ in range(times):
        made.still_running(made.take(now), now, 15.0)


def test_after_some_looks_in_vain_looking_is_left_to_the_triggerer_for_an_interval():
    made = looks(*[NOW] * (IN_VAIN + 5))
    run_in_vain(made, IN_VAIN - 1)
    assert made.next_at == NOW
    run_in_vain(made, 1)
    assert made.next_at == NOW + 15
    assert made.take(NOW + 14) is None
    assert len(taken(made, NOW + 15)) == IN_VAIN + 5


def test_a_job_that_has_ended_is_worth_more_looks():
    made = looks(*[NOW] * (2 * IN_VAIN))
    run_in_vain(made, IN_VAIN - 1)
    made.ended(made.take(NOW))
    run_in_vain(made, IN_VAIN - 1)
    assert made.next_at == NOW


def test_where_nobody_else_looks_every_job_is_looked_at_when_it_is_due():
    made = looks(*[NOW] * 30, can_defer=False)
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
def test_a_worker_stays_for_a_first_look_that_is_near_where_looks_have_found_something(
    due, is_first, has_found, is_worth
):
    made = looks(NOW)
    made.take(NOW)
    if has_found:
        made.ended("job-0")
    made.add("next", due, is_first=is_first)
    assert made.is_worth_staying(NOW) == is_worth


def test_nobody_stays_for_nothing():
    assert not looks().is_worth_staying(NOW)
    made = looks(*[NOW] * 20, NOW + 1)
    made.ended(made.take(NOW))
    run_in_vain(made, IN_VAIN)
    assert not made.is_worth_staying(NOW)


# What a trigger tells ------------------------------------------------------------------------------------


def job(number, url="https://cdn.example.com/{}.png?X-Amz-Signature=secret"):
    job_id = f"00000000-0000-0000-0000-{number:012d}"
    return Job(job_id=job_id, url=url.format(number), width=1024, height=720, ai_credits_used=0.6, success=True)


def event(number=3, failed=0, **more):
    ended = [(each.job_id, each, NOW - 2) for each in map(job, range(number))]
    ended += [(f"failed-{each}", None, NOW - 1) for each in range(failed)]
    return json.loads(json.dumps(seen.build(200, ended, "there is something to save", NOW))) | more


def test_a_worker_reads_what_a_trigger_has_seen():
    told = seen.read(event(3, failed=2))
    assert (told.of, told.ended, told.at, told.is_whole) == (200, 5, NOW, True)
    assert told.others == {"failed-0", "failed-1"}
    assert [each.record() for each in told.jobs.values()] == [
        {**job(number).record(), "status": "completed"} for number in range(3)
    ]
    assert set(told.seen_at.values()) == {NOW - 2}


@given(number=st.integers(0, 1_000), failed=st.integers(0, 1_000), length=st.integers(1, 3_000))
def test_an_event_is_never_large_and_what_has_no_room_is_named_by_its_id_or_missing(number, failed, length):
    url = "https://cdn.example.com/ü" + "x" * length
    ended = [(each.job_id, each, NOW) for each in (job(n, url) for n in range(number))]
    ended += [(f"failed-{n}", None, NOW) for n in range(failed)]
    payload = seen.build(2_000, ended, "all have ended", NOW)
    assert len(json.dumps(payload)) < seen.MOST_BYTES + 200
    told = seen.read(json.loads(json.dumps(payload)))
    assert told.is_whole == (len(told.jobs) + len(told.others) == number + failed)
    assert set(told.jobs) <= {job_id for job_id, each, _ in ended if each}
    if number + failed <= 800:
        assert told.is_whole


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
    assert seen.read(payload) is None


def test_an_event_says_nothing_secret_in_a_log():
    told = repr(seen.for_log(event(3, failed=2)))
    assert "secret" not in told
    assert "https://cdn.example.com/0.png" in told
    assert "and 2 more" in told
    assert seen.for_log({"of": 1}) == {"of": 1}


def test_an_event_is_made_of_what_has_ended_in_its_order():
    done = job(0)
    ended = [("gone", None, NOW - 1), (done.job_id, done, NOW - 2)]
    assert seen.build(7, ended, "there is something to save", NOW) == {
        "of": 7,
        "ended": 2,
        "why": "there is something to save",
        "at": NOW,
        "jobs": [[done.job_id, done.url, 1024, 720, 0.6, NOW - 2]],
        "others": ["gone"],
    }


def test_a_job_of_which_little_is_known_comes_back_with_as_little():
    told = seen.read(event(jobs=[["job", "https://a.b/c.png", None, None, None, 0]], others=[], ended=1))
    assert told.jobs == {"job": Job(job_id="job", status="completed", success=True, url="https://a.b/c.png")}
    assert (told.seen_at, told.others) == ({"job": 0}, frozenset())
    assert seen.read(event(jobs=[["job", "https://a.b/c.png", 0, 0, 0, NOW]])) is not None


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
    assert seen.read(event() | wrong) is None


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
    told = seen.read(event(of=of, ended=ended, others=others))
    assert (told is not None) is is_read
    if told:
        assert told.is_whole is is_whole


def test_an_event_without_anything_that_has_ended_is_one():
    assert seen.read(event(0)) == seen.Seen(of=200, ended=0, at=NOW)
    assert seen.MOST_BYTES == 40_000


@pytest.mark.parametrize(
    ("number", "failed", "jobs", "others"),
    [
        (0, 0, [], 0),
        (1, 2, [[job(0).job_id, "https://cdn.example.com/0.png"]], 2),
        (2, 0, [[job(0).job_id, "https://cdn.example.com/0.png"], "and 1 more"], 0),
    ],
)
def test_an_event_is_logged_with_its_first_job_and_the_number_of_the_others(number, failed, jobs, others):
    assert seen.for_log(event(number, failed)) == {**event(number, failed), "jobs": jobs, "others": others}
    assert seen.for_log({**event(1), "others": None})["others"] is None


# Which job is looked at ----------------------------------------------------------------------------------


def test_the_times_of_looks_are_those_that_the_module_gives():
    assert (IN_VAIN, WORTH_STAYING) == (8, 8)


def test_a_job_that_still_runs_is_looked_at_again_after_the_seconds_that_its_poller_says():
    made = looks(NOW)
    made.still_running(made.take(NOW), NOW, 7.0)
    assert made.next_at == NOW + 7
    assert made.take(NOW + 6.9) is None
    assert made.take(NOW + 7) == "job-0"


def test_a_job_that_is_looked_at_now_is_waited_for_and_not_taken_twice():
    made = looks(NOW)
    assert made.take(NOW) == "job-0"
    assert made.take(NOW) is None
    assert "job-0" in made
    assert made.next_at == math.inf


def test_of_two_looks_that_are_due_at_once_the_one_that_is_no_first_goes_first():
    made = looks()
    made.add("first", NOW)
    made.add("again", NOW, is_first=False)
    assert taken(made, NOW) == ["again", "first"]


def test_a_job_whose_look_was_put_off_is_looked_at_then_and_not_before():
    made = looks(NOW)
    made.add("job-0", NOW + 9)
    assert made.take(NOW) is None
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
def test_what_an_event_has_room_for_is_told_in_full_and_then_by_its_id(number, length, jobs, others):
    """An id takes 40 bytes, quotes and comma among them; what is said of a job is made as long as is asked for."""

    def ended(each):
        item = json.dumps([job(each).job_id, "https://h/", 1024, 720, 0.6, NOW])
        return job(each, "https://h/" + "x" * (length - 2 - len(item)))

    told = seen.build(2_000, [(one.job_id, one, NOW) for one in map(ended, range(number))], "x", NOW)
    assert (len(told["jobs"]), len(told["others"]), told["ended"]) == (jobs, others, number)
