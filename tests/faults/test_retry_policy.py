# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests of the docs' recipe for Airflow's retry policies, in a real Airflow."""

from __future__ import annotations

import pytest


@pytest.fixture
def outcome(airflow, quiet):
    """Return a function that runs the recipe with a fault, and returns its task's state, tries and log."""

    def run(fault, **options):
        quiet.reset()
        quiet.script("submit", fault, **options)
        run = "pictory_patient", airflow.trigger("pictory_patient")
        airflow.finish(*run)
        (task,) = airflow.tasks(*run)
        return task["state"], task["try_number"], airflow.task_log(*run, "generate")

    return run


def test_a_rate_limited_task_is_retried_when_the_policy_says(outcome, quiet):
    state, tries, log = outcome("rate-limited", retry_after="3600")
    assert (state, tries) == ("success", 2), (
        "within the minutes of this test, and not after the hour of retry_delay"
    )
    assert "Pictory is busy" in log
    assert len(quiet.account.jobs) == 1


def test_a_blocked_task_is_not_retried(outcome, quiet):
    state, tries, log = outcome("edge-block")
    assert (state, tries) == ("failed", 1)
    assert "the firewall blocks this client" in log
    assert len(quiet.account.jobs) == 0


def test_an_unknown_outcome_does_not_reach_the_policy(outcome, quiet):
    state, tries, log = outcome("drop-after")
    assert (state, tries) == ("failed", 1)
    assert "Retry policy decision" not in log
    assert len(quiet.account.jobs) == 1
