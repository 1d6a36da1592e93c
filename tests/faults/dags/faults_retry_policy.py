# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Airflow's own retry policies (3.3 and later), with the errors of this package."""

from __future__ import annotations

# [START retry_policy]
import pendulum
from airflow.sdk import DAG, ExceptionRetryPolicy, RetryAction, RetryRule

from pictory_provider.operators.pictory import GenerateImageOperator

ERRORS = "pictory_provider.exceptions"
patient = ExceptionRetryPolicy(
    rules=[
        # Nothing was submitted: try again soon.
        RetryRule(
            f"{ERRORS}.PictoryRateLimited", RetryAction.RETRY, pendulum.duration(seconds=20), "Pictory is busy"
        ),
        # The job is still running: poll again later, which costs nothing.
        RetryRule(
            f"{ERRORS}.PictoryWaitTimeout",
            RetryAction.RETRY,
            pendulum.duration(minutes=10),
            "the job is still running",
        ),
        # A person has to change the user agent: do not try again.
        RetryRule(f"{ERRORS}.PictoryEdgeBlocked", RetryAction.FAIL, reason="the firewall blocks this client"),
    ]
)

with DAG(dag_id="pictory_patient", schedule=None, params={"prompt": "A lighthouse at dawn"}):
    GenerateImageOperator(
        task_id="generate",
        prompt="{{ params.prompt }}",
        pictory_conn_id="pictory_quiet",
        retries=3,
        retry_delay=pendulum.duration(hours=1),
        retry_policy=patient,
    )
# [END retry_policy]
