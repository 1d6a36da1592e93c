# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Run a task as Airflow does: execute, reschedule, run its trigger, resume, retry, clear.

There are no pauses, and values that Airflow stores in its database pass through JSON.
"""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from airflow.providers.common.compat.sdk import TaskDeferred
from airflow.sdk.execution_time.context import OutletEventAccessors

from pictory_provider.triggers.batch import PictoryJobsTrigger
from pictory_provider.triggers.pictory import PictoryJobTrigger
from pictory_provider.version_compat import AirflowRescheduleException
from tests.stand_ins import StateStore, TaskInstance

if TYPE_CHECKING:
    from collections.abc import Callable

TRIGGERS = {
    "pictory_provider.triggers.batch.PictoryJobsTrigger": PictoryJobsTrigger,
    "pictory_provider.triggers.pictory.PictoryJobTrigger": PictoryJobTrigger,
}
MOST_ROUNDS = 200


class Attempts:
    """The attempts of one task: the state that survives between them, and the results of the last one.

    :param make: creates the operator, as each Airflow process does.
    :param has_store: whether this Airflow has a task state store.
    """

    def __init__(self, make: Callable[..., Any], *, run_id: str = "first", has_store: bool = True) -> None:
        self.make = make
        self.store = StateStore() if has_store else None
        self.run_id = run_id
        self.map_index = -1
        self.region: tuple[UUID, int] | None = None
        self.max_tries, self.try_number = 2, 0
        self.ti: Any = None
        self.context: Any = None
        self.task: Any = None

    def of_another_run(self, run_id: str) -> Attempts:
        """Return the attempts of the same task in another run."""
        return Attempts(self.make, run_id=run_id, has_store=self.store is not None)

    def of_iteration(self, index: int, region: int = 1) -> Attempts:
        """Return the attempts of the same task in the same run, in an iteration of a loop (Airflow 3.4 and later).

        :param region: another one after a clear that replaces the iterations after the cleared one.
        """
        other = self.of_another_run(self.run_id)
        other.region = UUID(int=region), index
        return other

    def clear(self) -> None:
        """Clear the task as a user does."""
        self.max_tries += 1
        self.try_number = 0

    def begin(self, *args: Any, **kwargs: Any) -> None:
        """Begin an attempt, without executing it."""
        self.try_number += 1
        self.task = self.make(*args, **kwargs)
        self.ti = TaskInstance()
        self.ti.run_id, self.ti.map_index = self.run_id, self.map_index
        if self.region:
            self.ti.region_id, self.ti.region_index = self.region
        self.ti.max_tries, self.ti.try_number = self.max_tries, self.try_number
        self.context = {"ti": self.ti, "outlet_events": OutletEventAccessors()}
        if self.store:
            self.context["task_state_store"] = self.store

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run one attempt to its end, and return its result."""
        self.begin(*args, **kwargs)

        def anew() -> Any:
            self.task = self.make(*args, **kwargs)
            return self.task

        return to_its_end(self.task, self.context, anew)


class Runs:
    """The runs of a DAG with one task that saves a picture.

    :param make: creates the operator.
    :param has_store: whether this Airflow has a task state store.
    """

    def __init__(self, make: Callable[..., Any], *, has_store: bool = True) -> None:
        self.make = make
        self.has_store = has_store
        self.attempts: dict[str, Attempts] = {}
        self.last: Any = None

    def __call__(self, run_id: str = "first", *, clears: int = 0, **kwargs: Any) -> dict[str, Any]:
        """Run an attempt after a number of clears, and return the record of its picture."""
        attempts = self.attempts.setdefault(run_id, Attempts(self.make, run_id=run_id, has_store=self.has_store))
        attempts.max_tries = 2 + clears
        try:
            attempts(**kwargs)
        finally:
            self.last = attempts
        return attempts.ti.xcoms["image"]


def to_its_end(task: Any, context: Any, anew: Callable[[], Any] | None = None) -> Any:
    """Run a task until it returns or fails.

    :param anew: creates the operator again after each pause, as another process does; by default it stays the same.
    """
    method, arguments = task.execute, (context,)
    for _ in range(MOST_ROUNDS):
        try:
            return method(*arguments)
        except AirflowRescheduleException as pause:
            context["ti"].first_reschedule_date = context["ti"].first_reschedule_date or datetime.now(UTC)
            time.sleep(max(0, (pause.reschedule_date - datetime.now(UTC)).total_seconds()))
        except TaskDeferred as deferral:
            task = anew() if anew else task
            kwargs = {"event": event_of(deferral), **(deferral.kwargs or {})}
            method, arguments = task.resume_execution, (deferral.method_name, kwargs, context)
    raise AssertionError("the task does not end")


def event_of(deferral: TaskDeferred) -> Any:
    """Run the trigger of a deferral without its delays, and return the payload of its event."""
    classpath, arguments = deferral.trigger.serialize()
    arguments = json.loads(json.dumps(arguments))
    arguments["first_poll_at"] = time.time()
    if "first_event_at" in arguments:
        arguments["first_event_at"] = None
    (event,) = events_of(TRIGGERS[classpath](**arguments))
    return json.loads(json.dumps(event.payload))


def events_of(trigger: Any) -> list[Any]:
    """Run a trigger to its end, and return its events."""

    async def collect() -> list[Any]:
        return [event async for event in trigger.run()]

    return asyncio.run(collect())
