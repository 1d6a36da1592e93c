# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""This release reads what an earlier one left in Airflow's database: tasks may wait during an upgrade.

``releases/`` keeps a sample of each release, named by its version. None of them is ever changed.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

import pytest

import pictory_provider
from pictory_provider.core import events
from pictory_provider.triggers.pictory import PictoryJobTrigger
from tests.driver import events_of
from tests.provider.waits import buy

RELEASES = Path(__file__).parent / "releases"
STORED = [
    pytest.param(stored, id=f"{file.stem}: {stored['what']}")
    for file in sorted(RELEASES.glob("*.json"))
    for stored in json.loads(file.read_text())
]


@pytest.mark.parametrize("stored", STORED)
def test_a_wait_that_an_earlier_release_deferred_continues(pictory, stored):
    module, _, name = stored["classpath"].rpartition(".")
    trigger = getattr(import_module(module), name)(**stored["kwargs"] | {"job_id": buy(pictory)})
    trigger.timeout_after = datetime(2026, 11, 21, tzinfo=UTC)

    (event,) = events_of(trigger)

    assert events.read(event.payload).result.status == "completed"


def test_this_release_has_its_sample_and_stores_what_the_sample_says():
    samples = json.loads((RELEASES / f"{pictory_provider.__version__}.json").read_text())
    classpath, arguments = PictoryJobTrigger("j", "c", 15.0).serialize()
    assert {sample["classpath"] for sample in samples} == {classpath}
    assert max((set(sample["kwargs"]) for sample in samples), key=len) == set(arguments)
