# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Carry a waiting task to its end as Airflow would, without its pauses."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import TaskDeferred

from pictory_provider.compat import AirflowRescheduleException
from pictory_provider.hooks.pictory import PictoryHook
from pictory_provider.triggers.pictory import PictoryJobTrigger

SENSOR_WAYS = {
    "poke": {"deferrable": False, "mode": "poke"},
    "reschedule": {"deferrable": False, "mode": "reschedule"},
    "deferrable": {"deferrable": True},
}


def buy(pictory, fate="completed", **options):
    """Submit a job without a task."""
    pictory.plan(fate, **options)
    with PictoryHook() as hook:
        return hook.generate_image("A lighthouse at dawn")


def trigger(job_id, **more):
    """Return a trigger that looks at once and often, and gives up after a minute."""
    now = time.time()
    arguments = {
        "job_id": job_id,
        "pictory_conn_id": "pictory_default",
        "poll_interval": 0.02,
        "started_at": now,
        "first_poll_at": now,
        "end_time": now + 60,
    }
    return PictoryJobTrigger(**{**arguments, **more})


def run(task, context):
    """Run a task, come back after each reschedule, and run its trigger where it defers."""
    first = None
    for _ in range(200):
        try:
            return task.execute(context)
        except AirflowRescheduleException as pause:
            first = first or datetime.now(UTC)
            context["ti"].first_reschedule_date = first
            time.sleep(max(0, (pause.reschedule_date - datetime.now(UTC)).total_seconds()))
        except TaskDeferred as deferral:
            classpath, arguments = deferral.trigger.serialize()
            assert classpath == "pictory_provider.triggers.pictory.PictoryJobTrigger"
            arguments["first_poll_at"] = time.time()
            (event,) = events_of(PictoryJobTrigger(**json.loads(json.dumps(arguments))))
            return task.resume_execution("execute_complete", {"event": event.payload}, context)
    raise AssertionError("the task does not end")


def events_of(trigger):
    async def collect():
        return [event async for event in trigger.run()]

    return asyncio.run(collect())
