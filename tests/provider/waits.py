# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Jobs and triggers for tests of waiting."""

from __future__ import annotations

import time

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
    """Return a trigger that polls immediately and often, and times out after a minute."""
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
