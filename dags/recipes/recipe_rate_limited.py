# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Reschedule a task that Pictory refuses with 429, without using up a retry (Airflow 3.4 and later)."""

from airflow import __version__

if tuple(int(part) for part in __version__.split(".")[:2]) >= (3, 4):
    # [START recipe]
    import pendulum
    from airflow.sdk import DAG, ExceptionRetryPolicy, RetryAction, RetryRule

    from pictory_provider.operators.pictory import GenerateImageOperator

    wait_for_rate_limit = ExceptionRetryPolicy(
        rules=[
            RetryRule(
                "pictory_provider.exceptions.PictoryRateLimited",  # nothing was bought
                RetryAction.RESCHEDULE,
                pendulum.duration(seconds=20),  # at least 8: Airflow may lose a task that comes back sooner
                "Pictory is busy",
                max_reschedules=120,
            )
        ]
    )

    with DAG(dag_id="recipe_rate_limited", schedule=None, tags=["pictory", "recipe"]):
        GenerateImageOperator(
            task_id="picture",
            prompt="A paper boat on calm water",
            path="{{ var.value.get('pictory_pictures', '/tmp/pictory') }}/patient/{{ run_id }}.png",
            retry_policy=wait_for_rate_limit,
        )
    # [END recipe]
