# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The trigger of a batch: many jobs, one pace, one event that wakes a worker when there is something to save."""

from __future__ import annotations

import asyncio
import inspect
import json
import time
import uuid

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from pictory_provider.batch import waking
from pictory_provider.batch.plan import MOST_WAITED_FOR
from pictory_provider.operators import batch as operators
from pictory_provider.triggers import batch as triggers
from pictory_provider.triggers.batch import PictoryJobsTrigger
from tests.provider.batches import lamps
from tests.provider.waits import buy, events_of

PROGRESS = {"of": 3, "to_do": 0, "waiting": 3, "saved": 0, "reused": 0, "failed": 0, "unknown": 0, "not_bought": 0}


def trigger(job_ids, **more):
    """Return a trigger that looks at once and often, and gives up after five seconds."""
    now = time.time()
    arguments = {
        "job_ids": job_ids,
        "end_times": [round(now + 5)] * len(job_ids),
        "pictory_conn_id": "pictory_default",
        "poll_interval": 0.02,
        "timeout": 6,
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
    }
    assert set(arguments) == set(inspect.signature(PictoryJobsTrigger.__init__).parameters) - {"self"}
    classpath, serialized = PictoryJobsTrigger(**arguments).serialize()
    assert classpath == "pictory_provider.triggers.batch.PictoryJobsTrigger"
    assert json.loads(json.dumps(serialized)) == arguments


def test_the_arguments_of_a_thousand_jobs_fit_into_what_mysql_keeps():
    ids = [str(uuid.uuid4()) for _ in range(MOST_WAITED_FOR)]
    made = trigger(ids, pictory_conn_id="c" * 100, end_times=[round(time.time())] * MOST_WAITED_FOR)
    assert len(json.dumps(made.serialize()[1])) < 64_000 - 4_000, "Airflow adds a little"


def test_fewer_jobs_are_waited_for_where_their_ids_are_long(fast, one_try, monkeypatch):
    fast.account.seconds = 60
    monkeypatch.setattr("pictory_provider.batching.work._MOST_BYTES", 3 * (36 + 2 + 16) + 1)
    one_try.begin(lamps(5), deferrable=True)
    with pytest.raises(TaskDeferred) as deferral:
        one_try.task.execute(one_try.context)
    assert len(deferral.value.trigger.job_ids) == 3


def test_the_event_comes_when_all_have_ended_and_says_how_many_and_why_and_no_more(pictory):
    payload = wake(trigger([buy(pictory), buy(pictory, "failed"), buy(pictory, seconds=0.3)]))
    assert {**payload, "at": None} == {"of": 3, "ended": 3, "why": "all have ended", "at": None}


def test_a_worker_is_woken_a_while_after_the_first_although_others_run(pictory, monkeypatch):
    monkeypatch.setattr(waking, "WAKE_AFTER", 0.3)
    begun = time.time()
    payload = wake(trigger([buy(pictory), buy(pictory, "stuck")]))
    assert (payload["of"], payload["ended"]) == (2, 1)
    assert 0.3 <= time.time() - begun < 3


def test_a_worker_is_woken_at_once_when_many_have_ended(pictory, monkeypatch):
    monkeypatch.setattr(waking, "WAKE_FOR", 2)
    assert wake(trigger([buy(pictory), buy(pictory), buy(pictory, "stuck")]))["ended"] == 2


def test_neither_a_look_nor_the_event_comes_before_its_time(pictory):
    ids, at = [buy(pictory), buy(pictory)], time.time() + 0.4
    pictory.requests.clear()
    payload = wake(trigger(ids, first_poll_at=at))
    assert payload["at"] >= at
    assert min(poll.at for poll in pictory.polls) >= at - 0.01


def test_the_side_that_defers_keeps_away_for_as_long_as_this_airflow_needs(fast, one_try, monkeypatch):
    fast.account.seconds = 60
    monkeypatch.setattr(operators, "shortest_absence", lambda: 8.0)
    one_try.begin(lamps(1), deferrable=True)
    begun = time.time()
    with pytest.raises(TaskDeferred) as deferral:
        one_try.task.execute(one_try.context)
    assert deferral.value.trigger.first_poll_at - begun >= 8.0
    assert deferral.value.timeout.total_seconds() > 1_200


def test_a_job_that_is_past_its_time_has_ended_after_one_look(pictory):
    job_id = buy(pictory, "stuck")
    pictory.requests.clear()
    payload = wake(trigger([job_id], end_times=[round(time.time()) - 100]))
    assert (payload["ended"], len(pictory.polls)) == (1, 1)


def test_it_only_reads_over_connections_that_all_jobs_share_and_at_their_pace(pictory, monkeypatch):
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


def test_the_progress_is_told_while_the_task_waits_for_it_and_not_after(pictory, monkeypatch, ti):
    told, is_waiting = [], [True]
    monkeypatch.setattr(triggers, "EVERY", 0.05)
    monkeypatch.setattr(triggers, "is_deferred", lambda ti: is_waiting[0])
    monkeypatch.setattr(triggers.XCom, "set", lambda key, value, **where: told.append((key, value, where)))
    for _ in range(2):
        made = trigger([buy(pictory, "failed"), buy(pictory, seconds=0.4), buy(pictory, seconds=0.4)])
        made.task_instance = ti
        assert wake(made)["ended"] == 3
        is_waiting[0] = False
    ((key, value, where),) = told
    assert (key, value) == ("progress", {**PROGRESS, "waiting": 2, "failed": 1})
    assert where["map_index"] == -1


def test_nothing_of_it_is_left_when_it_is_cancelled(pictory):
    ids = [buy(pictory, "stuck") for _ in range(3)]

    async def cancelled():
        running = asyncio.ensure_future(anext(trigger(ids).run()))
        await asyncio.sleep(0.3)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert asyncio.run(cancelled()) == set()


@pytest.mark.parametrize("reason", ["Trigger timeout", "Trigger failure"])
def test_where_airflow_itself_ends_the_deferral_the_worker_looks_at_what_is_on_record(fast, one_try, reason):
    one_try.begin(lamps(2), deferrable=True)
    with pytest.raises(TaskDeferred):
        one_try.task.execute(one_try.context)
    task = one_try.task_of(lamps(2), deferrable=True)
    result = task.resume_execution("__fail__", {"error": reason}, one_try.context)
    assert (result["saved"], len(fast.submissions)) == (2, 2)


def test_a_worker_that_knows_how_many_have_ended_looks_no_further(fast, one_try):
    fast.account.seconds = 60
    for _ in range(2):
        fast.plan(seconds=0)
    one_try.begin(lamps(40), deferrable=True)
    with pytest.raises(TaskDeferred):
        one_try.task.execute(one_try.context)
    quick = [job.job_id for job in fast.account.jobs.values() if job.seconds == 0]
    task = one_try.task_of(lamps(40), deferrable=True)
    fast.requests.clear()
    with pytest.raises(TaskDeferred) as deferral:
        task.execute_complete(one_try.context, {"of": 40, "ended": 2})
    assert set(deferral.value.trigger.job_ids) == set(fast.account.jobs) - set(quick)
    assert one_try.ti.xcoms["progress"]["saved"] == 2
    assert len(fast.polls) < 40
