# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The trigger of a batch: many jobs, one rate limit, one event that resumes the task when it can save pictures."""

from __future__ import annotations

import asyncio
import inspect
import json
import time
import uuid

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from pictory_provider.core.batch import events, schedule
from pictory_provider.core.batch.plan import MOST_WAITED_FOR
from pictory_provider.exceptions import PictoryImageInvalid
from pictory_provider.hooks.pictory import PictoryHook
from pictory_provider.triggers import base, deferral
from pictory_provider.triggers import batch as triggers
from pictory_provider.triggers.batch import PictoryJobsTrigger
from tests.driver import event_of, events_of
from tests.provider.batches import lamps
from tests.provider.waits import buy

PROGRESS = {"of": 3, "to_do": 0, "waiting": 3, "saved": 0, "reused": 0, "failed": 0, "unknown": 0, "not_bought": 0}


def trigger(job_ids, **more):
    """Return a trigger that polls immediately and often, and times out after a minute."""
    now = time.time()
    arguments = {
        "job_ids": job_ids,
        "end_times": [round(now + 60)] * len(job_ids),
        "pictory_conn_id": "pictory_default",
        "poll_interval": 0.02,
        "timeout": 61,
        "first_poll_at": now,
        "progress": PROGRESS,
    }
    return PictoryJobsTrigger(**{**arguments, **more})


def wake(made):
    (event,) = events_of(made)
    return event.payload


def test_every_argument_makes_the_round_trip_through_json():
    arguments = {
        "job_ids": ["a", "b"],
        "end_times": [1, 2],
        "pictory_conn_id": "c",
        "poll_interval": 1.5,
        "timeout": 3.0,
        "first_poll_at": 4.0,
        "progress": PROGRESS,
        "first_event_at": 5.0,
    }
    assert set(arguments) == set(inspect.signature(PictoryJobsTrigger.__init__).parameters) - {"self"}
    classpath, serialized = PictoryJobsTrigger(**arguments).serialize()
    assert classpath == "pictory_provider.triggers.batch.PictoryJobsTrigger"
    assert json.loads(json.dumps(serialized)) == arguments


def test_the_arguments_of_a_thousand_jobs_fit_into_what_mysql_stores():
    ids = [str(uuid.uuid4()) for _ in range(MOST_WAITED_FOR)]
    made = trigger(ids, pictory_conn_id="c" * 100, end_times=[round(time.time())] * MOST_WAITED_FOR)
    assert len(json.dumps(made.serialize()[1])) < 64_000 - 4_000, "Airflow adds a little"


def test_fewer_jobs_are_waited_for_if_their_ids_are_long(fast, one_try, monkeypatch):
    fast.account.seconds = 60
    monkeypatch.setattr("pictory_provider.services.batch.runner._MOST_BYTES", 3 * (36 + 2 + 16) + 1)
    one_try.begin(lamps(5), deferrable=True, poll_interval=5)
    with pytest.raises(TaskDeferred) as deferral:
        one_try.task.execute(one_try.context)
    assert len(deferral.value.trigger.job_ids) == 3


def test_the_event_comes_when_all_have_ended_and_has_what_their_downloads_need(pictory):
    ids = [buy(pictory), buy(pictory, "failed"), buy(pictory, seconds=0.3)]
    begun = time.time()
    payload = wake(trigger(ids))
    assert (payload["of"], payload["ended"], payload["why"]) == (3, 3, "all have ended")
    assert payload["others"] == [ids[1]]
    event_read = events.read(json.loads(json.dumps(payload)))
    assert [event_read.jobs[job_id].record() for job_id in (ids[0], ids[2])] == [
        {
            "job_id": job_id,
            "status": "completed",
            "url": event_read.jobs[job_id].url,
            "width": 1024,
            "height": 1024,
            "ai_credits_used": 2,
        }
        for job_id in (ids[0], ids[2])
    ]
    assert all(job_id in event_read.jobs[job_id].url for job_id in (ids[0], ids[2]))
    assert all(begun <= at <= payload["at"] for at in event_read.seen_at.values())


def test_the_triggerer_logs_an_event_without_the_queries_of_its_urls(pictory):
    pictory.shape("url", "signed")
    (event,) = events_of(trigger([buy(pictory)]))
    assert "Signature=" in event.payload["jobs"][0][1]
    assert "http://" in repr(event)
    assert "Signature" not in repr(event) + str(event) + f"{event}"


def test_a_trigger_of_the_release_before_still_begins(pictory):
    made = trigger([buy(pictory)])
    _, arguments = made.serialize()
    del arguments["first_event_at"]
    assert wake(PictoryJobsTrigger(**arguments))["ended"] == 1


def test_a_worker_is_woken_a_while_after_the_first_although_others_run(pictory, timing):
    timing(resume_after=0.3)
    payload = wake(trigger([buy(pictory), buy(pictory, "stuck")]))
    assert (payload["of"], payload["ended"]) == (2, 1)
    (seen_at,) = events.read(payload).seen_at.values()
    assert payload["at"] - seen_at >= 0.3


def test_the_task_resumes_immediately_when_many_have_ended(pictory, monkeypatch):
    monkeypatch.setattr(schedule, "WAKE_FOR", 2)
    assert wake(trigger([buy(pictory), buy(pictory), buy(pictory, "stuck")]))["ended"] == 2


def test_neither_a_poll_nor_the_event_comes_before_its_time(pictory):
    ids, at = [buy(pictory), buy(pictory)], time.time() + 0.4
    pictory.requests.clear()
    payload = wake(trigger(ids, first_poll_at=at, first_event_at=at + 2))
    assert payload["at"] >= at + 2
    assert at - 0.01 <= min(poll.at for poll in pictory.polls) < at + 2
    assert len(pictory.polls) == 2


def test_a_batch_that_defers_stays_away_for_as_long_as_this_airflow_needs(fast, one_try, monkeypatch):
    fast.account.seconds = 60
    monkeypatch.setattr(deferral, "min_deferral", lambda _: 8.0)
    one_try.begin(lamps(1), deferrable=True)
    begun = time.time()
    with pytest.raises(TaskDeferred) as deferred:
        one_try.task.execute(one_try.context)
    made = deferred.value.trigger
    assert made.first_event_at - begun >= 8.0
    assert made.first_poll_at - begun < 2.0, "it polls meanwhile"
    assert deferred.value.timeout.total_seconds() > 1_200


def test_a_job_that_is_past_its_deadline_has_ended_after_one_poll(pictory):
    job_id = buy(pictory, "stuck")
    pictory.requests.clear()
    payload = wake(trigger([job_id], end_times=[round(time.time()) - 100]))
    assert (payload["ended"], len(pictory.polls)) == (1, 1)


def test_it_only_reads_over_connections_that_all_jobs_share_within_their_rate_limit(pictory, monkeypatch):
    ids = [buy(pictory) for _ in range(12)]
    monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", pictory.connection_json(requests_per_second=8))
    pictory.requests.clear()
    assert wake(trigger(ids))["ended"] == 12
    assert {request.method for request in pictory.requests} == {"GET"}
    looks = sorted(poll.at for poll in pictory.polls)
    assert all(later - earlier > 0.99 for earlier, later in zip(looks, looks[8:], strict=False))
    assert len({poll.port for poll in pictory.polls}) <= 8


def test_a_missing_connection_wakes_the_worker_which_says_so(pictory):
    assert wake(trigger(["a", "b"], pictory_conn_id="nowhere"))["ended"] == 2


def test_the_progress_is_pushed_while_the_task_waits_for_it_and_not_after(pictory, monkeypatch, ti, timing):
    pushed, is_waiting = [], [True]

    def finish_the_jobs():
        for job in pictory.account.jobs.values():
            job.seconds = 0

    def is_deferred(ti):
        if not is_waiting[0]:
            finish_the_jobs()
        return is_waiting[0]

    def push(key, value, **instance):
        pushed.append((key, value, instance))
        finish_the_jobs()

    timing(progress_interval=0.05)
    monkeypatch.setattr(triggers, "is_deferred", is_deferred)
    monkeypatch.setattr(base.XCom, "set", push)
    for _ in range(2):
        made = trigger([buy(pictory, "failed"), buy(pictory, seconds=60), buy(pictory, seconds=60)])
        made.task_instance = ti
        assert wake(made)["ended"] == 3
        is_waiting[0] = False
    ((key, value, instance),) = pushed
    assert (key, value) == ("progress", {**PROGRESS, "waiting": 2, "failed": 1})
    assert instance["map_index"] == -1


def test_nothing_is_left_when_it_is_cancelled(pictory):
    ids = [buy(pictory, "stuck") for _ in range(3)]

    async def cancelled():
        running = asyncio.ensure_future(anext(trigger(ids).run()))
        await asyncio.sleep(0.3)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert asyncio.run(cancelled()) == set()


@pytest.mark.parametrize("reason", ["Trigger timeout", "Trigger failure"])
def test_if_airflow_itself_ends_the_deferral_the_worker_polls_the_jobs_on_record(fast, one_try, reason):
    one_try.begin(lamps(2), deferrable=True, poll_interval=5)
    with pytest.raises(TaskDeferred):
        one_try.task.execute(one_try.context)
    task = one_try.task_of(lamps(2), deferrable=True)
    result = task.resume_execution("__fail__", {"error": reason}, one_try.context)
    assert (result["saved"], len(fast.submissions)) == (2, 2)


# What the worker makes of it -------------------------------------------------------------------------------


def deferred(one_try, rows=3, **more):
    """Begin a batch, and return its deferral."""
    one_try.begin(lamps(rows), deferrable=True, **more)
    with pytest.raises(TaskDeferred) as deferral:
        one_try.task.execute(one_try.context)
    return deferral.value


def wake_up(one_try, event, rows=3, **more):
    task = one_try.task_of(lamps(rows), deferrable=True, **more)
    return task.resume_execution("execute_complete", {"event": json.loads(json.dumps(event))}, one_try.context)


def test_a_worker_downloads_jobs_that_the_event_reports_without_a_poll(fast, one_try):
    fast.account.seconds = 0.3
    event = event_of(deferred(one_try, poll_interval=0.5))
    assert len(event["jobs"]) == 3
    fast.requests.clear()
    assert wake_up(one_try, event)["saved"] == 3
    assert {request.host for request in fast.requests} == {"images"}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda event: {**event, "jobs": [[*event["jobs"][0][:1], "https://", *event["jobs"][0][2:]]]},
        lambda event: {"of": event["of"], "ended": event["ended"], "why": event["why"], "at": event["at"]},
        lambda event: None,
        lambda event: {**event, "jobs": [[*job[:-1], job[-1] - 10_000] for job in event["jobs"]]},
        lambda event: {**event, "jobs": [], "others": [job[0] for job in event["jobs"]]},
        lambda event: {**event, "jobs": [["another", *job[1:]] for job in event["jobs"]][:1], "others": []},
    ],
    ids=["no URL", "an earlier release's", "none", "too old", "ids alone", "of another job"],
)
def test_a_job_is_polled_again_if_the_event_is_not_understood_too_old_or_does_not_name_it(fast, one_try, spoil):
    fast.account.seconds = 0.3
    event = event_of(deferred(one_try, poll_interval=0.5))
    fast.requests.clear()
    assert wake_up(one_try, spoil(event))["saved"] == 3
    assert len(fast.polls) == 3


def test_a_url_that_is_refused_is_requested_again(fast, one_try):
    fast.account.seconds = 0.3
    event = event_of(deferred(one_try, 1, poll_interval=0.5))
    fast.script("picture", "server-error", status=403)
    fast.requests.clear()
    assert wake_up(one_try, event, 1)["saved"] == 1
    assert len(fast.polls) == 1


def test_a_url_that_is_refused_twice_fails_its_row_which_stays_paid_for(fast, one_try):
    fast.account.seconds = 0.3
    event = event_of(deferred(one_try, 1, poll_interval=0.5))
    fast.script("picture", "server-error", status=403, times=-1)
    with pytest.raises(PictoryImageInvalid, match="is paid for"):
        wake_up(one_try, event, 1)
    fast.clear_faults()
    assert one_try(lamps(1))["saved"] == 1
    assert len(fast.submissions) == 1


def test_a_worker_does_not_poll_again_a_job_that_the_trigger_has_just_seen_running(fast, one_try):
    fast.account.seconds = 60
    first = deferred(one_try, 40, poll_interval=0.5)
    quick = set(list(fast.account.jobs)[:2])
    for job_id in quick:
        fast.account.jobs[job_id].seconds = 0
    jobs = [[job_id, *_shown(fast, job_id), time.time()] for job_id in quick]
    fast.requests.clear()
    event = {"of": 40, "ended": 2, "why": "a minute is over", "at": time.time(), "jobs": jobs, "others": []}
    with pytest.raises(TaskDeferred) as again:
        wake_up(one_try, event, 40, poll_interval=15)
    assert len(first.trigger.job_ids) == 40
    assert set(again.value.trigger.job_ids) == set(fast.account.jobs) - quick
    assert one_try.ti.xcoms["progress"]["saved"] == 2
    assert fast.polls == []


def _shown(fast, job_id):
    """Return Pictory's answer about a completed job's picture."""
    with PictoryHook() as hook:
        job = hook.wait_for_job(job_id, poll_interval=0.05)
    return [job.url, job.width, job.height, job.ai_credits_used]


def test_a_worker_leaves_polling_to_the_triggerer_if_jobs_are_running(fast, one_try):
    fast.account.seconds = 600
    deferral = deferred(one_try, 40, poll_interval=300)
    assert len(deferral.trigger.job_ids) == 40
    assert fast.polls == []


def test_a_worker_that_finds_jobs_ended_while_it_buys_stays_until_all_is_done(fast, one_try):
    one_try.begin(lamps(60), deferrable=True)
    assert one_try.task.execute(one_try.context)["saved"] == 60
    assert (len(fast.polls), len(fast.submissions)) == (60, 60)
