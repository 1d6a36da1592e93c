# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What only a scheduler, a triggerer and workers together can show of a wait."""

from __future__ import annotations

import itertools

WAYS = ("poke", "reschedule", "deferrable")


def test_every_way_of_waiting_returns_the_same_record(airflow, runs):
    assert set(airflow.finish(*runs["modes"]).values()) == {"success"}

    records = [airflow.xcom(*runs["modes"], way) for way in WAYS]
    assert records[0] == records[1] == records[2]
    assert records[0]["ai_credits_used"] == 0.6


def test_jobs_that_do_not_complete_end_in_the_same_way_in_every_mode_and_without_a_retry(airflow, runs):
    states = airflow.finish(*runs["outcomes"])

    for fate, way in itertools.product(("failed", "cleaned", "stuck"), WAYS):
        assert states[f"{fate}_{way}"] == "failed", (fate, way)
        assert states[f"{fate}_{way}_soft"] == "skipped", (fate, way)
    tries = {task["task_id"]: task["try_number"] for task in airflow.tasks(*runs["outcomes"])}
    assert set(tries.values()) == {1}


def test_the_log_of_a_failed_wait_names_the_job_and_what_pictory_said(airflow, runs):
    airflow.finish(*runs["outcomes"])

    log = airflow.task_log(*runs["outcomes"], "failed_deferrable")
    assert "failed at Pictory: IMAGE_GENERATION_FAILED: The image could not be generated" in log
    log = airflow.task_log(*runs["outcomes"], "stuck_deferrable")
    # The trigger's own lines may be missing: on a busy machine Airflow ends the deferral before the trigger begins,
    # and the triggerer may write what comes late to a log of its own (Airflow 3.3.2, triggerer_job_runner.py).
    assert "AirflowSensorTimeout" in log


def test_short_jobs_are_waited_for_by_deferral_and_none_is_lost(airflow, runs, crowd):
    states = airflow.finish(*runs["race"])
    assert len(states) == 6
    assert set(states.values()) == {"success"}
    jobs = [job for job in crowd.account.jobs.values() if job.body["prompt"].startswith("Picture ")]
    assert len(jobs) == 6
    for job in jobs:
        looks = [poll.at for poll in crowd.polls if poll.path.endswith(job.job_id)]
        assert all(later - earlier >= 0.99 for earlier, later in itertools.pairwise(looks))
