# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Nothing is bought once the month's AI credits are spent."""

# [START recipe]
import pendulum
from airflow.sdk import DAG, Param, task

from pictory_provider.api.models import MODELS
from pictory_provider.hooks.pictory import PictoryHook
from pictory_provider.operators.pictory import GenerateImageOperator

MODEL = "seedream3.0"

with DAG(
    dag_id="recipe_monthly_budget",
    schedule=None,
    max_active_runs=1,  # two runs that look at the same moment would both find the budget open
    tags=["pictory", "recipe"],
    params={"budget": Param(500, type="number", description="AI credits a month")},
):

    @task.short_circuit
    def within_budget(params: dict) -> bool:
        today = pendulum.now("UTC")
        with PictoryHook() as hook:
            ledger = hook.get_credit_usage(today.year, today.month)
            left = hook.get_quota().ai_credits_left
        spent = sum(entry["amount"] for entry in ledger if entry["type"] == "debit")
        price = MODELS[MODEL].credits
        print(f"{spent:g} of {params['budget']:g} AI credits are spent this month; {left:g} are left in all.")
        return spent + price <= params["budget"] and price <= left

    picture = GenerateImageOperator(
        task_id="picture",
        prompt="A cup of tea beside an open book",
        model=MODEL,
        path="{{ var.value.get('pictory_pictures', '/tmp/pictory') }}/budget/{{ run_id }}.png",
    )
    within_budget() >> picture
# [END recipe]
