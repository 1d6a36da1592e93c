# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""How long a deferred task stays away, by Airflow's version and executor."""

from __future__ import annotations

import pytest

from pictory_provider import version_compat
from pictory_provider.version_compat import min_deferral

CELERY = "airflow.providers.celery.executors.celery_executor.CeleryExecutor"


@pytest.fixture
def airflow(monkeypatch):
    """Return a function that pretends a version and an executor of Airflow."""

    def pretend(version, executor):
        *minor, patch = version
        monkeypatch.setattr(version_compat, "AIRFLOW_VERSION", tuple(minor))
        monkeypatch.setattr(version_compat, "_AIRFLOW_PATCH", patch)
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)

    return pretend


@pytest.mark.parametrize(
    ("version", "executor", "seconds"),
    [
        ((3, 1, 8), "CeleryExecutor", 8.0),
        ((3, 2, 2), "CeleryExecutor", 8.0),
        ((3, 3, 1), "CeleryExecutor", 8.0),
        ((3, 3, 2), "CeleryExecutor", 0.0),
        ((3, 3, 2), CELERY, 0.0),
        ((3, 3, 3), "CeleryExecutor", 0.0),
        ((3, 3, 2), "LocalExecutor", 8.0),
        ((3, 3, 2), "KubernetesExecutor", 8.0),
        ((3, 3, 2), "CeleryExecutor,LocalExecutor", 8.0),
        ((3, 3, 2), f"LocalExecutor,{CELERY}", 8.0),
        ((3, 3, 2), "another.CeleryExecutor", 8.0),
        ((3, 4, 0), "LocalExecutor", 0.0),
    ],
)
def test_a_deferred_task_stays_away_where_airflow_may_lose_it(airflow, version, executor, seconds):
    airflow(version, executor)
    assert min_deferral(8.0) == seconds
    assert min_deferral(8.0, is_rescheduled=True) == 8.0
