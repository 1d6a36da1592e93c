# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The trigger: one event, only reads, nothing secret, and nothing that blocks its loop."""

from __future__ import annotations

import asyncio
import inspect
import json
import time

import pytest

from pictory_provider.core import events
from pictory_provider.exceptions import PictoryAuthenticationError
from pictory_provider.hooks.pictory import PictoryHook
from pictory_provider.triggers.pictory import PictoryJobTrigger
from tests.provider.waits import buy, trigger


def run(*triggers):
    async def collect(each):
        return [event.payload async for event in each.run()]

    async def together():
        return await asyncio.gather(*(collect(each) for each in triggers))

    return asyncio.run(together())


def test_every_argument_makes_the_round_trip_through_json():
    arguments = {
        "job_id": "j",
        "pictory_conn_id": "c",
        "poll_interval": 1.5,
        "started_at": 1.0,
        "first_poll_at": 2.0,
        "end_time": 3.0,
        "exponential_backoff": True,
        "max_wait": 9.0,
        "silent_fail": True,
        "timeout": 4.0,
        "end_from_trigger": True,
    }
    parameters = set(inspect.signature(PictoryJobTrigger.__init__).parameters) - {"self"}
    assert set(arguments) == parameters
    classpath, serialized = PictoryJobTrigger(**arguments).serialize()
    assert classpath == "pictory_provider.triggers.pictory.PictoryJobTrigger"
    assert json.loads(json.dumps(serialized)) == arguments


def test_the_arguments_of_the_first_release_still_make_a_trigger():
    made = PictoryJobTrigger(
        job_id="j", pictory_conn_id="c", poll_interval=15, started_at=1.0, first_poll_at=9.0, end_time=1201.0
    )
    assert made.serialize()[1]["silent_fail"] is False


def test_exactly_one_event_ends_the_wait(pictory):
    job_id = buy(pictory, seconds=1)
    ((payload,),) = run(trigger(job_id))
    assert events.read(payload).result.status == "completed"
    assert len(pictory.polls) > 1


def test_a_job_that_fails_is_an_event_and_not_an_exception(pictory):
    job_id = buy(pictory, "failed", error_code="POLICY")
    ((payload,),) = run(trigger(job_id))
    assert payload["error"]["kind"] == "JobFailed"
    assert payload["error"]["job"]["error_code"] == "POLICY"


def test_a_missing_connection_is_an_event_too(pictory):
    ((payload,),) = run(trigger("j", pictory_conn_id="nowhere"))
    assert payload["error"]["kind"] == "AuthenticationError"
    assert "AIRFLOW_CONN_NOWHERE" in payload["error"]["message"]


def test_there_is_one_poll_after_a_deadline_that_passed_without_polls(pictory):
    job_id = buy(pictory)
    ((payload,),) = run(trigger(job_id, end_time=time.time() - 100))
    assert payload["outcome"] == "completed"


def test_the_first_poll_waits_for_its_time(pictory):
    job_id = buy(pictory)
    at = time.time() + 0.2
    run(trigger(job_id, first_poll_at=at))
    assert pictory.polls[0].at >= at - 0.01


def test_the_duration_of_earlier_jobs_of_its_task_delays_no_poll_of_the_next(pictory):
    run(*(trigger(buy(pictory, seconds=2)) for _ in range(6)))
    job_id = buy(pictory)
    pictory.requests.clear()
    begun = time.time()
    run(trigger(job_id))
    assert pictory.polls[0].at - begun < 1.5


def test_a_trigger_that_runs_twice_at_the_same_time_only_reads(pictory):
    job_id = buy(pictory, seconds=0.1)
    pictory.requests.clear()
    first, second = run(trigger(job_id), trigger(job_id))
    assert [payload["outcome"] for payload in (*first, *second)] == ["completed", "completed"]
    assert {request.method for request in pictory.requests} == {"GET"}


def test_a_renewed_key_is_taken_from_the_connection(pictory, monkeypatch):
    job_id = buy(pictory)
    monkeypatch.setattr(pictory, "api_key", "pictai_renewed")
    monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", pictory.connection_json())
    ((payload,),) = run(trigger(job_id))
    assert payload["outcome"] == "completed"


def test_the_loop_continues_while_pictory_is_slow(pictory):
    job_id = buy(pictory)
    pictory.script("job", "slow-reply", seconds=1)

    async def count():
        turns, ended = 0, asyncio.Event()

        async def turn():
            nonlocal turns
            while not ended.is_set():
                await asyncio.sleep(0)
                turns += bool(pictory.polls)

        turning = asyncio.create_task(turn())
        async for _ in trigger(job_id).run():
            ended.set()
        await turning
        return turns

    assert asyncio.run(count()) > 100, "the loop stood still while it waited for a reply of a second"


def test_the_key_is_in_no_argument_event_or_repr(pictory):
    job_id = buy(pictory)
    pictory.script("job", "unauthorized", times=-1)
    made = trigger(job_id)
    ((payload,),) = run(made)
    assert pictory.api_key not in json.dumps([payload, made.serialize()]) + repr(made) + repr(vars(made))


def test_the_query_of_a_result_url_is_not_in_what_the_triggerer_logs(pictory):
    pictory.shape("url", "signed")
    job_id = buy(pictory)

    async def first():
        return await anext(trigger(job_id).run())

    event = asyncio.run(first())
    assert "Signature" in event.payload["image"]["url"]
    assert "Signature" not in repr(event) + str(event)
    assert job_id in repr(event)


def test_being_killed_says_what_happens_to_the_job_and_sends_nothing(pictory, mocker):
    job_id = buy(pictory, "stuck")
    pictory.requests.clear()
    killed = trigger(job_id)
    warning = mocker.patch.object(killed.log, "warning")
    asyncio.run(killed.on_kill())
    assert f"Job {job_id} keeps running at Pictory" in warning.call_args.args[1]
    assert pictory.requests == []
    assert pictory.account.jobs[job_id].is_cleaned is False


def test_a_cancelled_trigger_closes_its_connections(pictory):
    job_id = buy(pictory, "stuck")

    async def cancel():
        run = trigger(job_id).run()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(run), 0.1)
        await run.aclose()

    asyncio.run(cancel())


def test_an_asynchronous_look_up_raises_what_airflow_understands(pictory, monkeypatch):
    monkeypatch.setattr(pictory, "api_key", "another")

    async def look():
        hook = PictoryHook()
        try:
            await hook.aget_job("j")
        finally:
            await hook.aclose()

    with pytest.raises(PictoryAuthenticationError):
        asyncio.run(look())
