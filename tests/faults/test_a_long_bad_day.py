# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A stateful Hypothesis test: attempts, crashes, retries, clears, lost replies, restarted triggerers, long pauses.

The operator, the hook, the clients and the trigger are real, and so are the simulator and its sockets. Only the clock
is simulated: it advances when code sleeps, or by a rule of the test. A crash ends an attempt at one of its calls to
the outside; afterwards nothing of that attempt runs.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import threading
import time
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowTaskTimeout, TaskDeferred
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from pictory_provider.client import shared
from pictory_provider.client.sync import SyncClient
from pictory_provider.core import events
from pictory_provider.core.sidecar import Sidecar
from pictory_provider.core.submission import KEY, Submission
from pictory_provider.exceptions import PictorySubmitOutcomeUnknown
from pictory_provider.operators.pictory import GenerateImageOperator
from pictory_provider.simulator import Simulator
from pictory_provider.storage.target import Target
from pictory_provider.triggers.pictory import PictoryJobTrigger
from tests.faults.conftest import CANARY

if TYPE_CHECKING:
    from collections.abc import Callable

    from pictory_provider.core.rate_limit import RateLimiter

KINDS = {
    "submit": {},
    "wait": {"wait_for_completion": True, "deferrable": False, "poll_interval": 60, "timeout": 600},
    "defer": {"wait_for_completion": True, "poll_interval": 60, "timeout": 600},
    "resubmit": {"on_unknown_submit": "resubmit"},
    "forgetful": {"durable": False},
    "save": {"path": "a.png", "poll_interval": 60, "timeout": 600},
    "save where no state is kept": {"path": "a.png", "deferrable": False, "poll_interval": 60, "timeout": 600},
    "replace": {"path": "a.png", "overwrite": True, "poll_interval": 60, "timeout": 600},
}
SAVING = ("save", "save where no state is kept", "replace")
SUBMIT_FAULTS = [
    ("rate-limited", {"retry_after": "2"}),
    ("unavailable", {"retry_after": "1"}),
    ("unavailable", {"accepted": "yes"}),
    ("server-error", {"status": 409, "accepted": "yes"}),
    ("redirect", {"accepted": "yes"}),
    ("drop-before", {}),
    ("drop-during", {}),
    ("drop-after", {}),
    ("server-error", {}),
    ("server-error", {"accepted": "yes"}),
    ("garbage", {}),
    ("edge-block", {}),
    ("unauthorized", {}),
    ("redirect", {}),
]
POLL_FAULTS = [
    ("rate-limited", {"retry_after": "86400"}),
    ("server-error", {}),
    ("drop-before", {}),
    ("edge-block", {}),
    ("garbage", {}),
    ("unauthorized", {}),
]
FATES = [{"fate": "failed"}, {"fate": "cleaned"}, {"fate": "stuck"}, {"missing_seconds": 30}]


class Crash(BaseException):
    """The process of an attempt has died."""


class Clock:
    """A simulated clock, which advances when code sleeps."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def time(self) -> float:
        return self.now

    monotonic = time

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def clocked(clock: Clock) -> type:
    """Return a poll queue with the real rate limiter, in which waiting advances the clock."""

    class Queue:
        def __init__(self, limiter: RateLimiter) -> None:
            self.limiter = limiter

        async def turn(self, delay: float) -> None:
            clock.now = max(clock.now + max(0, delay), self.limiter.next_at(clock.now))
            self.limiter.go(clock.now)
            await asyncio.sleep(0)

        def answered(self) -> None:
            self.limiter.answered(clock.now)

        def pause(self, seconds: float) -> None:
            self.limiter.pause(clock.now, seconds)

        def clear(self) -> None:
            pass

    return Queue


@dataclass(frozen=True)
class Failure:
    """A failure of an attempt: a crash, its timeout, or Airflow's stores that do not answer for a while.

    :param at: the number of the call at which it happens.
    """

    kind: str
    at: int


FAILURES = st.none() | st.builds(
    Failure, st.sampled_from(["crash", "timeout", "away", "long away"]), st.integers(0, 18)
)


class World:
    """The outside of an attempt. It counts the calls, and causes the failure."""

    def __init__(self) -> None:
        self.begin_attempt(None)
        self.bought_late = False
        self.tasks: list[Task] = []

    def begin_attempt(self, failure: Failure | None) -> None:
        self.failure, self.calls = failure, 0
        self.is_dead = self.is_out_of_time = False

    def call(self, to: str) -> None:
        """Count a call of the attempt's main thread, to Pictory or to a store, and cause the failure if it is due."""
        if threading.current_thread() is not threading.main_thread():
            return
        self.bought_late |= to == "a purchase" and self.is_out_of_time
        failure, number = self.failure, self.calls
        self.calls += 1
        if failure is None or number < failure.at:
            return
        if failure.kind == "crash":
            raise Crash
        if failure.kind == "timeout" and not self.is_out_of_time:
            self.is_out_of_time = True
            raise AirflowTaskTimeout("Timeout")
        if to in ("a store", "a folder") and (
            failure.kind == "long away" or (failure.kind == "away" and number == failure.at)
        ):
            raise RuntimeError("the API server is away")


@dataclass
class Task:
    """One task instance, and the state that Airflow stores for it."""

    name: str
    kind: str
    world: World
    map_index: int = -1
    max_tries: int = 3
    phase: str = "ready"
    dag_id: str = "d"
    run_id: str = "r"
    task_id: str = "t"
    rows: dict[str, str] = field(default_factory=dict)
    xcoms: dict[str, Any] = field(default_factory=dict)
    try_number: int = 1
    intents: int = 0
    crashes: int = 0
    clears: int = 0
    of_before: set[str] = field(default_factory=set)
    folder: Path | None = None
    trigger: dict[str, Any] | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)
    returned: str | None = None
    ended: BaseException | None = None

    @property
    def prompt(self) -> str:
        return f"The picture of {self.name}"

    # The task state store and the XComs

    def get(self, key: str, default: Any = None) -> Any:
        self.world.call("a store")
        return json.loads(self.rows[key]) if key in self.rows else default

    def set(self, key: str, value: Any) -> None:
        self.world.call("a store")
        self.rows[key] = json.dumps(value)
        self.intents += "jobId" not in value and "has_ended" not in value
        self.world.call("a store")

    def delete(self, key: str) -> None:
        self.world.call("a store")
        self.rows.pop(key, None)
        self.world.call("a store")

    def xcom_push(self, key: str, value: Any) -> None:
        self.world.call("a store")
        self.xcoms[key] = value
        self.world.call("a store")

    @property
    def record(self) -> Submission | None:
        """The record, in the state store or in the sidecar."""
        stored = Submission.from_dict(json.loads(self.rows[KEY])) if KEY in self.rows else None
        in_sidecar = self.sidecar.submission if self.sidecar else None
        return in_sidecar if in_sidecar and not (stored and stored.job_id) else stored

    @property
    def sidecar(self) -> Sidecar | None:
        file = Path(f"{self.path}.json") if self.folder else None
        return Sidecar.from_json(file.read_bytes()) if file and file.exists() else None

    @property
    def path(self) -> str:
        return str(self.folder / "a.png")

    @property
    def context(self) -> Any:
        return (
            {"ti": self} if self.kind == "save where no state is kept" else {"ti": self, "task_state_store": self}
        )

    def adopt(self, job_id: str) -> None:
        """Record the job as the error's text says."""
        if self.kind == "save where no state is kept":
            file = Path(f"{self.path}.json")
            file.write_text(json.dumps({**json.loads(file.read_text()), "job_id": job_id}))
        else:
            self.rows[KEY] = json.dumps({"jobId": job_id})

    def operator(self) -> GenerateImageOperator:
        options = {**KINDS[self.kind]}
        if self.folder:
            options["path"] = self.path
        return GenerateImageOperator(task_id="t", prompt=self.prompt, **options)


class Day(RuleBasedStateMachine):
    """The events that can happen to each kind of task, and to a mapped one."""

    pictory: Simulator
    clock: Clock
    world: World
    folders: Callable[[], Path]

    @initialize()
    def begin(self) -> None:
        self.pictory.reset()
        self.tasks = [
            Task(kind, kind, self.world, folder=self.folders() if kind in SAVING else None) for kind in KINDS
        ]
        self.world.tasks = self.tasks
        self.tasks.append(Task("one of many", "defer", self.world, map_index=2))

    def pick(self, index: int, *phases: str) -> Task | None:
        """Return a task in one of the phases; ``None`` if there is none."""
        fitting = [task for task in self.tasks if task.phase in phases]
        return fitting[index % len(fitting)] if fitting else None

    def attempt(self, task: Task, work: Any, failure: Failure | None) -> None:
        """Run an attempt or its resumption, and handle its end as Airflow does."""
        self.world.begin_attempt(failure)
        before = len(self.billed(task))
        try:
            task.returned = work()
            task.phase, task.ended = "success", None
        except TaskDeferred as deferral:
            task.trigger = json.loads(json.dumps(deferral.trigger.serialize()[1]))
            task.kwargs = json.loads(json.dumps(deferral.kwargs or {}))
            task.phase = "deferred"
        except Crash:
            task.phase = "ready"
            task.crashes += 1
        except AirflowFailException as error:
            task.phase, task.ended = "failed", error
        except (Exception, AirflowTaskTimeout) as error:
            task.phase, task.ended = "ready", error
        finally:
            self.world.begin_attempt(None)
            self.pictory._faults.waiting.clear()
        assert len(self.billed(task)) - before <= (2 if task.kind == "resubmit" else 1), task.name

    @rule(
        index=st.integers(0, 8),
        failure=FAILURES,
        submit_fault=st.none() | st.sampled_from(SUBMIT_FAULTS),
        poll_fault=st.none() | st.sampled_from(POLL_FAULTS),
        times=st.integers(1, 2),
    )
    def a_worker_runs_an_attempt(self, index, failure, submit_fault, poll_fault, times):
        if task := self.pick(index, "ready"):
            if submit_fault:
                self.pictory.script("submit", submit_fault[0], times=times, **submit_fault[1])
            if poll_fault:
                self.pictory.script("job", poll_fault[0], times=times, **poll_fault[1])
            task.xcoms.clear()
            self.attempt(task, lambda: task.operator().execute(task.context), failure)

    @rule(
        index=st.integers(0, 8),
        triggerers=st.integers(1, 2),
        restarts=st.booleans(),
        poll_fault=st.none() | st.sampled_from(POLL_FAULTS),
        failure=FAILURES,
    )
    def a_trigger_runs_and_the_task_resumes(self, index, triggerers, restarts, poll_fault, failure):
        task = self.pick(index, "deferred")
        if task is None:
            return
        if poll_fault:
            self.pictory.script("job", poll_fault[0], times=1, **poll_fault[1])
        before = len(self.pictory.requests)
        if restarts:
            asyncio.run(self._poll_once_and_stop(task.trigger))
        sent = asyncio.run(self._run_triggers(task.trigger, triggerers))
        assert {request.method for request in self.pictory.requests[before:]} <= {"GET"}
        assert [len(of_one) for of_one in sent] == [1] * triggerers
        payload = json.loads(json.dumps(sent[0][0].payload))
        assert events.read(payload).job_id == task.trigger["job_id"]
        self.attempt(task, lambda: task.operator().execute_complete(task.context, payload, **task.kwargs), failure)

    async def _poll_once_and_stop(self, arguments: dict[str, Any]) -> None:
        running = asyncio.ensure_future(anext(PictoryJobTrigger(**arguments).run()))
        await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    async def _run_triggers(self, arguments: dict[str, Any], triggerers: int) -> list[list[Any]]:
        async def run() -> list[Any]:
            return [event async for event in PictoryJobTrigger(**arguments).run()]

        return await asyncio.gather(*(run() for _ in range(triggerers)))

    @rule(index=st.integers(0, 8))
    def a_user_clears(self, index):
        if task := self.pick(index, "ready", "deferred", "success", "failed"):
            task.max_tries += 1
            task.clears += 1
            if not (task.kind in SAVING[:2] and task.record and task.record.job_id):
                task.of_before |= set(
                    self.billed(task)
                )  # with a path, what is known to be bought is not bought again
            if (record := task.record) and record.is_from_user:
                task.of_before.discard(record.job_id)
            task.phase, task.trigger = "ready", None

    @rule(index=st.integers(0, 8))
    def a_user_finds_the_job_and_adopts_it(self, index):
        task = self.pick(index, "failed")
        if task and task.kind != "forgetful" and isinstance(task.ended, PictorySubmitOutcomeUnknown):
            lost = [job_id for job_id in self.billed(task) if job_id not in task.of_before]
            if len(lost) == 1 and self.is_known(lost[0]):
                task.adopt(lost[0])
                task.max_tries += 1
                task.phase = "ready"

    @rule(seconds=st.sampled_from([1, 30, 61, 300, 1_000, 40_000]))
    def time_passes(self, seconds):
        self.clock.now += seconds

    @rule(fate=st.sampled_from(FATES))
    def the_next_job_has_another_outcome(self, fate):
        self.pictory.plan(**{"seconds": 200, **fate})

    def billed(self, task: Task) -> list[str]:
        return [job.job_id for job in self.pictory.account.jobs.values() if job.body["prompt"] == task.prompt]

    def is_known(self, job_id: str) -> bool:
        return not self.pictory.account.jobs[job_id].is_missing(self.clock.now)

    def live(self, task: Task) -> list[str]:
        """Return the jobs that were bought since the last clear, without those that failed or were cleaned."""
        return [
            job_id
            for job_id in self.billed(task)
            if job_id not in task.of_before and self.pictory.account.jobs[job_id].fate not in ("failed", "cleaned")
        ]

    @invariant()
    def every_paid_request_has_its_own_intent(self):
        for task in getattr(self, "tasks", ()):
            if task.kind == "forgetful":
                continue
            sent = [request for request in self.pictory.submissions if request.body["prompt"] == task.prompt]
            assert len(self.billed(task)) <= len(sent) <= task.intents

    @invariant()
    def nothing_is_bought_twice_unless_a_user_has_chosen_that(self):
        """A task without a record buys again after a crash only."""
        for task in getattr(self, "tasks", ()):
            if task.kind != "resubmit":
                crashes = task.crashes if task.kind == "forgetful" else 0
                assert len(self.live(task)) <= 1 + crashes, (task.name, self.live(task))

    @invariant()
    def nothing_is_bought_after_the_timeout_of_an_attempt(self):
        assert not self.world.bought_late

    @invariant()
    def every_paid_picture_is_delivered_or_adoptable_or_reported_as_unknown(self):
        for task in getattr(self, "tasks", ()):
            if task.kind in ("resubmit", "forgetful"):
                continue
            for job_id in self.live(task):
                record = task.record
                is_delivered = task.phase == "success" and task.returned == job_id
                is_on_record = record is not None and record.job_id == job_id
                is_reported = record is not None and record.job_id is None
                assert is_delivered or is_on_record or is_reported, (task.name, job_id, record)

    @invariant()
    def a_success_has_published_a_paid_job(self):
        for task in getattr(self, "tasks", ()):
            if task.phase == "success":
                assert task.returned in self.billed(task)
                assert task.xcoms["jobId"] == task.returned
                if task.kind in ("wait", "defer", *SAVING):
                    assert task.xcoms["image"]["status"] == "completed"
                if task.kind in SAVING:
                    assert task.sidecar.submission.job_id == task.returned
                    assert task.sidecar.saved.sha256 == hashlib.sha256(Path(task.path).read_bytes()).hexdigest()

    @invariant()
    def the_deadline_depends_on_the_submission_and_not_on_retries(self):
        for task in getattr(self, "tasks", ()):
            if task.phase == "deferred":
                assert task.trigger["started_at"] == pytest.approx(task.record.submitted_at, abs=0.01)
                assert task.trigger["end_time"] == pytest.approx(task.record.submitted_at + 600, abs=0.01)


def in_a_folder(world: World, name: str) -> Any:
    """Return a method of a target with a call to the world before and after it."""
    original = getattr(Target, name)

    def counted(self: Target, *arguments: Any, **kwargs: Any) -> Any:
        with self._errors():
            world.call("a folder")
        result = original(self, *arguments, **kwargs)
        if name == "swap" and result and b'"state": "intent"' in (arguments[1] or b""):
            (task,) = [task for task in world.tasks if task.folder and self.path == f"{task.path}.json"]
            task.intents += task.kind == "save where no state is kept"
        with self._errors():
            world.call("a folder")
        return result

    return counted


@pytest.fixture
def world(monkeypatch, tmp_path):
    """Prepare the test's clock, simulator and failures."""
    clock, world = Clock(), World()
    fake = SimpleNamespace(**vars(time) | {"time": clock.time, "monotonic": clock.monotonic, "sleep": clock.sleep})
    provider = [module for name, module in sys.modules.items() if name.startswith("pictory_provider.")]
    for module in provider:
        if getattr(module, "time", None) is time and not module.__name__.startswith("pictory_provider.simulator"):
            monkeypatch.setattr(module, "time", fake)
    monkeypatch.setattr(shared, "_Queue", clocked(clock))
    send = SyncClient.send

    def counted(self, request):
        world.call("a purchase" if request.method == "POST" else "Pictory")
        reply = send(self, request)
        world.call("Pictory")
        return reply

    monkeypatch.setattr(SyncClient, "send", counted)
    for name in ("size", "swap", "place"):
        monkeypatch.setattr(Target, name, in_a_folder(world, name))
    with Simulator(seconds=200, api_key=CANARY, clock=clock.time) as pictory:
        monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", pictory.connection_json(timeout=5))
        Day.pictory, Day.clock, Day.world = pictory, clock, world
        numbers = count()
        Day.folders = staticmethod(lambda: tmp_path / str(next(numbers)))
        yield


@pytest.mark.usefixtures("world")
def test_on_a_long_bad_day_nothing_is_paid_twice_and_no_picture_is_lost():
    run_state_machine_as_test(
        Day,
        settings=settings(
            max_examples=150,
            stateful_step_count=150,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
