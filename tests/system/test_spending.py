# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The limits of a connection in a real Airflow: sixteen parallel tasks, their retries, and a clear."""

from __future__ import annotations

import pytest

AT_ONCE = 4
"""Tasks of the DAG that run in parallel."""


@pytest.fixture(scope="module")
def run(airflow, runs):
    _, run_id = runs["spending"]
    states = airflow.finish("system_spending", run_id, timeout=300)
    return run_id, states


def test_parallel_tasks_stop_at_the_limit_within_the_bound_in_the_docs(airflow, run, limited):
    run_id, _ = run
    found = airflow.call("GET", f"/dags/system_spending/dagRuns/{run_id}/taskInstances")["task_instances"]
    mapped = [each for each in found if each["task_id"] == "pictures"]
    states = [each["state"] for each in mapped]
    bought = states.count("success")
    assert len(mapped) == bought + states.count("failed") == 16
    assert {each["try_number"] for each in mapped} == {1}  # a limit is not retried
    assert limited.account.credits_billed == 2 * bought
    assert 20 <= limited.account.credits_billed <= 20 + 2 * (AT_ONCE - 1)


def test_the_hook_in_a_function_and_a_batch_are_held_to_it_too(run, limited):
    _, states = run
    assert (states["by_hand"], states["batch"]) == ("failed", "skipped")
    assert {request.body["model"] for request in limited.submissions} == {"seedream3.0"}
    assert not [request for request in limited.submissions if "batch" in request.body["prompt"]]


def test_a_refusal_is_logged(airflow, run):
    log = airflow.task_log("system_spending", run[0], "by_hand")
    assert "PictoryBudgetExceeded" in log
    assert "The picture costs 14 AI credits as listed, which is over a limit" in log
    assert "credits_per_day leaves 0 of 20" in log
    assert "pictai_canary" not in log


def test_a_clear_buys_nothing_over_the_limit(airflow, run, limited):
    run_id, _ = run
    before = len(limited.submissions)
    airflow.call(
        "POST",
        "/dags/system_spending/clearTaskInstances",
        dry_run=False,
        dag_run_id=run_id,
        only_failed=True,
        task_ids=["pictures"],
    )
    airflow.finish("system_spending", run_id, timeout=300)
    assert len(limited.submissions) == before
