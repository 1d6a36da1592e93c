# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The triggerer's shared clients: the connection is read once, with a few sockets, one rate limiter and one queue."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter

import pytest

from pictory_provider.api.endpoints import get_job
from pictory_provider.api.errors import AuthenticationError
from pictory_provider.client import shared as pool
from pictory_provider.client.aio import AsyncClient
from pictory_provider.core import rate_limit
from pictory_provider.core.polling import JobPoller
from pictory_provider.core.rate_limit import RateLimiter
from pictory_provider.hooks.pictory import PictoryHook
from tests.provider.waits import buy, trigger


@pytest.fixture(autouse=True)
def lookups(mocker):
    """Watch how often the Airflow connection is looked up."""
    return mocker.spy(PictoryHook, "_afind_settings")


@pytest.fixture
def opened(mocker):
    """Watch how often a client is opened."""
    return mocker.spy(AsyncClient, "open")


def connect(monkeypatch, pictory, **extra):
    monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", pictory.connection_json(**extra))


async def end_of(waiting):
    return [event.payload async for event in waiting.run()]


def assert_closed():
    for shared in pool._shared[asyncio.get_running_loop()].values():
        assert shared.opened is None, "the last one has closed nothing"
        assert shared.queue._timer is None


def run(*waits):
    async def together():
        events = await asyncio.gather(*(end_of(each) for each in waits))
        assert_closed()
        return events

    return asyncio.run(together())


def outcomes(events):
    return {payload["outcome"] for (payload,) in events}


def begin_now(pictory):
    """Let every job that was bought begin now, with an empty log."""
    for job in pictory.account.jobs.values():
        job.created = time.time()
    pictory.requests.clear()


async def seen(pictory):
    """Wait until Pictory has seen a look."""
    while not pictory.polls:
        await asyncio.sleep(0.01)


def polls_of_each(pictory, job_ids):
    polled = Counter(poll.path.rpartition("/")[2] for poll in pictory.polls)
    return [polled[job_id] for job_id in job_ids]


def most_in_any_second(times):
    times = sorted(times)
    return max(sum(1 for later in times[i:] if later < at + 1) for i, at in enumerate(times))


def test_a_hundred_waits_read_the_connection_once_and_share_a_few_connections(
    pictory, monkeypatch, lookups, opened
):
    connect(monkeypatch, pictory, requests_per_second=300)
    job_ids = [buy(pictory, seconds=3_600) for _ in range(100)]
    pictory.requests.clear()

    async def wait():
        waits = [asyncio.create_task(end_of(trigger(job_id))) for job_id in job_ids]
        while min(polls_of_each(pictory, job_ids)) < 2:
            await asyncio.sleep(0.01)
            assert [each.result() for each in waits if each.done()] == []
        for job in pictory.account.jobs.values():
            job.seconds = 0
        events = await asyncio.gather(*waits)
        assert_closed()
        return events

    assert outcomes(asyncio.run(wait())) == {"completed"}
    assert (lookups.call_count, opened.call_count) == (1, 1)
    assert len({poll.port for poll in pictory.polls}) <= 50
    assert len(pictory.polls) >= 200


def test_the_rate_limiter_outlives_the_client(pictory, monkeypatch):
    connect(monkeypatch, pictory, requests_per_second=2)
    job_ids = [buy(pictory) for _ in range(5)]
    pictory.requests.clear()

    async def one_after_the_other():
        for job_id in job_ids:
            await end_of(trigger(job_id))

    asyncio.run(one_after_the_other())
    assert most_in_any_second([poll.at for poll in pictory.polls]) <= 2


def test_loops_that_are_gone_are_not_kept(pictory):
    job_id = buy(pictory)
    for _ in range(3):
        run(trigger(job_id))
    assert len(pool._shared) == 1


def test_each_connection_has_a_client_of_its_own(pictory, monkeypatch, opened):
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", pictory.connection_json())
    job_id = buy(pictory)
    events = run(trigger(job_id), trigger(job_id, pictory_conn_id="other"))
    assert outcomes(events) == {"completed"}
    assert opened.call_count == 2


def test_a_client_that_the_last_wait_closed_is_opened_again_by_the_next(pictory, opened):
    job_id = buy(pictory)

    async def one_after_the_other():
        return [await end_of(trigger(job_id)) for _ in range(2)]

    assert outcomes(asyncio.run(one_after_the_other())) == {"completed"}
    assert opened.call_count == 2


def test_no_second_has_more_polls_than_the_rate(pictory, monkeypatch):
    connect(monkeypatch, pictory, requests_per_second=20)
    job_ids = [buy(pictory, seconds=1) for _ in range(30)]
    pictory.requests.clear()
    assert outcomes(run(*(trigger(job_id) for job_id in job_ids))) == {"completed"}
    assert len(pictory.polls) >= 30
    assert most_in_any_second([poll.at for poll in pictory.polls]) <= 20


def test_every_job_has_its_turn_before_any_has_another(pictory, monkeypatch):
    connect(monkeypatch, pictory, requests_per_second=40)
    job_ids = [buy(pictory, "stuck") for _ in range(25)]
    pictory.requests.clear()
    now = time.time()
    run(*(trigger(job_id, poll_interval=0.5, end_time=now + 1) for job_id in job_ids))
    polled = Counter(dict.fromkeys(job_ids, 0))
    for poll in pictory.polls:
        polled[poll.path.rpartition("/")[2]] += 1
        assert max(polled.values()) - min(polled.values()) <= 1
    assert min(polled.values()) >= 1


@pytest.mark.parametrize("fault", ["rate-limited", "unavailable"])
def test_a_retry_after_of_one_poll_pauses_all(pictory, fault):
    job_ids = [buy(pictory, seconds=0.3) for _ in range(5)]
    begin_now(pictory)
    pictory.script("job", fault, retry_after="1")
    assert outcomes(run(*(trigger(job_id) for job_id in job_ids))) == {"completed"}
    refused = next(poll.at for poll in pictory.polls if poll.status in (429, 503))
    later = [poll.at for poll in pictory.polls if poll.at > refused + 0.3]
    assert min(later) >= refused + 0.99


def test_a_pictory_that_was_down_is_not_flooded_when_it_is_back(pictory, monkeypatch):
    connect(monkeypatch, pictory, requests_per_second=25)
    job_ids = [buy(pictory) for _ in range(40)]
    pictory.requests.clear()
    pictory.script("job", "drop-before", times=40)
    assert outcomes(run(*(trigger(job_id, end_time=time.time() + 30) for job_id in job_ids))) == {"completed"}
    assert most_in_any_second([poll.at for poll in pictory.polls]) <= 25


def test_a_key_that_was_renewed_is_read_once_for_all_and_the_old_client_is_closed(
    pictory, monkeypatch, lookups, opened
):
    job_ids = [buy(pictory, seconds=0.4) for _ in range(8)]
    begin_now(pictory)
    waits = [trigger(job_id) for job_id in job_ids]

    async def renew():
        waiting = [asyncio.create_task(end_of(each)) for each in waits]
        await seen(pictory)
        monkeypatch.setattr(pictory, "api_key", "pictai_renewed")
        connect(monkeypatch, pictory)
        return await asyncio.gather(*waiting)

    assert outcomes(asyncio.run(renew())) == {"completed"}
    assert (lookups.call_count, opened.call_count) == (2, 2)


def test_a_bad_key_ends_every_wait_and_opens_no_second_client(pictory, monkeypatch, opened):
    job_ids = [buy(pictory) for _ in range(3)]
    monkeypatch.setattr(pictory, "api_key", "another")
    events = run(*(trigger(job_id) for job_id in job_ids))
    assert {payload["error"]["kind"] for (payload,) in events} == {"AuthenticationError"}
    assert opened.call_count == 1


def test_a_missing_connection_ends_every_wait_and_leaves_nothing_behind(pictory):
    events = run(*(trigger("j", pictory_conn_id="nowhere") for _ in range(3)))
    assert {payload["error"]["kind"] for (payload,) in events} == {"AuthenticationError"}


def test_a_wait_that_is_cancelled_in_the_queue_takes_no_other_waits_turn(pictory, monkeypatch):
    connect(monkeypatch, pictory, requests_per_second=2)
    job_ids = [buy(pictory) for _ in range(60)]
    pictory.requests.clear()

    async def cancel_some():
        waiting = [asyncio.create_task(end_of(trigger(job_id))) for job_id in job_ids]
        await seen(pictory)
        for task in waiting[1:-1]:
            task.cancel()
        events = await asyncio.gather(*waiting, return_exceptions=True)
        assert_closed()
        return events

    events = asyncio.run(cancel_some())
    assert outcomes([events[0], events[-1]]) == {"completed"}
    first, *_, last = sorted(poll.at for poll in pictory.polls)
    turns = 58 / 2
    assert last - first < turns, "the turns of the cancelled ones were waited for"


def test_a_wait_that_is_cancelled_with_its_turn_gives_its_place_back(pictory, monkeypatch):
    connect(monkeypatch, pictory, requests_per_second=1)
    slow, quick = buy(pictory), buy(pictory)
    pictory.requests.clear()
    pictory.script("job", "slow-reply", seconds=30)

    async def cancel_the_first():
        first = asyncio.create_task(end_of(trigger(slow)))
        second = asyncio.create_task(end_of(trigger(quick)))
        await seen(pictory)
        first.cancel()
        return await asyncio.wait_for(second, 5)

    assert outcomes([asyncio.run(cancel_the_first())]) == {"completed"}


def test_a_turn_that_is_cancelled_before_it_is_taken_gives_its_place_back():
    async def cancel_with_the_turn():
        loop, pace = asyncio.get_running_loop(), RateLimiter(1)
        queue = pool._Queue(pace)
        waiting = asyncio.create_task(queue.turn(0))
        await asyncio.sleep(0)
        queue._beat(loop.time())
        assert pace.next_at(loop.time()) == math.inf, "its place is taken"
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        return pace.next_at(loop.time()) - loop.time()

    assert asyncio.run(cancel_with_the_turn()) <= 1


def test_the_warning_about_many_waits_is_logged_once(pictory, monkeypatch, caplog):
    connect(monkeypatch, pictory, requests_per_second=200)
    job_ids = [buy(pictory) for _ in range(20)]
    with caplog.at_level(logging.WARNING, pool.log.name):
        run(*(trigger(job_id, end_time=time.time() + 0.01) for job_id in job_ids))
    said = [record.getMessage() for record in caplog.records if record.name == pool.log.name]
    assert len(said) == 2
    assert "Connection pictory_default: 5 jobs wait, and requests_per_second is 200" in said[0]


def test_a_hook_without_a_wait_shares_the_client_too(pictory, opened):
    job_ids = [buy(pictory) for _ in range(2)]

    async def ask():
        hooks = [PictoryHook(), PictoryHook()]
        try:
            return [await hook.aget_job(job_id) for hook, job_id in zip(hooks, job_ids, strict=True)]
        finally:
            for hook in hooks:
                await hook.aclose()

    assert [job.status for job in asyncio.run(ask())] == ["completed", "completed"]
    assert opened.call_count == 1


def test_the_first_that_is_cancelled_while_it_opens_leaves_the_opening_to_the_next(pictory, mocker):
    real, begun = AsyncClient.open, asyncio.Event()

    async def slowly(settings):
        begun.set()
        await asyncio.sleep(0.05)
        return await real(settings)

    mocker.patch.object(AsyncClient, "open", slowly)
    job_id = buy(pictory)

    async def cancel_the_first():
        first = asyncio.create_task(end_of(trigger(job_id)))
        second = asyncio.create_task(end_of(trigger(job_id)))
        await begun.wait()
        first.cancel()
        return await second

    assert outcomes([asyncio.run(cancel_the_first())]) == {"completed"}


def test_a_connection_that_cannot_be_read_again_leaves_the_client_as_it_was(pictory):
    async def found():
        hook = PictoryHook()
        return await hook._afind_settings()

    async def refuse():
        raise AuthenticationError("gone")

    async def read_again():
        answers = iter([found, refuse, found])

        async def read():
            return await next(answers)()

        lease = pool.lease("c", read)
        waiter = lease.waiter()
        try:
            await waiter.send(get_job("j"))
            waiter.renew()
            before = waiter._shared.opened
            with pytest.raises(AuthenticationError, match="gone"):
                await waiter.send(get_job("j"))
            assert (await waiter.send(get_job("j"))).status == 404
            assert waiter._shared.opened is before
        finally:
            await lease.leave()

    asyncio.run(read_again())


def test_a_group_of_polls_is_small_enough_for_the_loop(pictory, monkeypatch):
    connect(monkeypatch, pictory, requests_per_second=1_000)
    went = []
    real = rate_limit.RateLimiter.go
    monkeypatch.setattr(rate_limit.RateLimiter, "go", lambda pace, now: (went.append(now), real(pace, now)))
    job_ids = [buy(pictory) for _ in range(60)]
    run(*(trigger(job_id) for job_id in job_ids))
    assert max(went.count(at) for at in went) <= pool.GROUP


def test_the_log_of_the_task_says_that_the_rate_limit_stretches_its_interval(pictory, monkeypatch, mocker):
    connect(monkeypatch, pictory, requests_per_second=8)
    log = mocker.patch("pictory_provider.triggers.pictory.PictoryJobTrigger.log")
    long_ago = time.time() - 100
    job_ids = [buy(pictory, "stuck") for _ in range(8)]

    def logged():
        return [call.args for call in log.info.call_args_list if call.args[0] == "%s. Next poll in %.0f s."]

    async def until_all_have_logged():
        waits = [end_of(trigger(job_id, started_at=long_ago, end_time=time.time() + 1_000)) for job_id in job_ids]
        running = [asyncio.ensure_future(each) for each in waits]
        while len(logged()) < len(job_ids):
            await asyncio.sleep(0.01)
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    asyncio.run(until_all_have_logged())
    assert max(seconds for _, _, seconds in logged()) == 1


def test_one_lease_serves_many_jobs_and_gives_all_their_places_back(pictory, opened):
    job_ids = [buy(pictory) for _ in range(5)]

    async def ask_all():
        hook = PictoryHook()
        lease = hook.lease()
        try:
            waiters = [
                lease.waiter(JobPoller(job_id=job_id, started_at=0, end_time=1_200, poll_interval=1))
                for job_id in job_ids
            ]
            replies = await asyncio.gather(
                *(waiter.send(get_job(job_id)) for waiter, job_id in zip(waiters, job_ids, strict=True))
            )
            assert [reply.status for reply in replies] == [200] * 5
            assert waiters[0].stretched_interval == pytest.approx(5 / 10)
            waiters[0].close()
            waiters[0].close()
            assert waiters[1].stretched_interval == pytest.approx(4 / 10)
        finally:
            await hook.aclose()

    asyncio.run(ask_all())
    assert opened.call_count == 1


def test_each_job_of_a_lease_renews_its_own_refusal_and_the_connection_is_read_once(pictory, monkeypatch, lookups):
    async def ask_all():
        hook = PictoryHook()
        try:
            waiters = [hook.lease().waiter() for _ in range(3)]
            for waiter in waiters:
                await waiter.send(get_job("j"))
            monkeypatch.setattr(pictory, "api_key", "pictai_renewed")
            monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", pictory.connection_json())
            for waiter in waiters:
                assert (await waiter.send(get_job("j"))).status == 401
            for waiter in waiters:
                waiter.renew()
                assert (await waiter.send(get_job("j"))).status == 404
        finally:
            await hook.aclose()

    asyncio.run(ask_all())
    assert lookups.call_count == 2
