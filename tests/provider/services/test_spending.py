# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The limits on spending, against a Pictory whose ledger is late, wrong or away."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException

from pictory_provider.api import retry
from pictory_provider.api.errors import StorageFailed
from pictory_provider.client import sync
from pictory_provider.client.clocks import skew_of
from pictory_provider.core.budget import next_month
from pictory_provider.core.ledger import beginning
from pictory_provider.exceptions import (
    PictoryAuthenticationError,
    PictoryBudgetExceeded,
    PictoryEdgeBlocked,
    PictoryJobFailed,
    PictoryRequestInvalid,
    PictoryStorageFailed,
    PictorySubmitOutcomeUnknown,
    PictoryUnavailable,
    PictoryWaitTimeout,
)
from pictory_provider.hooks.pictory import PictoryHook
from pictory_provider.operators.pictory import GenerateImageOperator
from pictory_provider.services import spending
from pictory_provider.simulator import Simulator
from tests.provider.batches import Tries, billed, lamps
from tests.stand_ins import StateStore, TaskInstance, says

PROMPT = "A lighthouse at dawn"
PAGE = Path(__file__).resolve().parents[3] / "docs" / "costs.md"
(FORMULA,) = re.findall(r"<!-- the test evaluates this -->\n```text\n(.*?)```", PAGE.read_text(), re.DOTALL)
NEVER = 10**9
LIMITS = ("credits_per_day", "credits_per_month", "credits_reserve")


@pytest.fixture
def limit(pictory, monkeypatch):
    """Return a function that sets limits on the connection."""

    def set_limits(**limits):
        monkeypatch.setenv(
            "AIRFLOW_CONN_PICTORY_DEFAULT", pictory.connection_json(requests_per_second=500, **limits)
        )
        return pictory

    return set_limits


@pytest.fixture
def others_spend(fast, monkeypatch):
    """Return a function that lets another user spend after so many pictures were bought."""
    bill = fast.account.ledger.bill

    def others_spend(*, after, amount):
        def billed_too(job):
            bill(job)
            if len(fast.account.jobs) == after:
                fast.enter(amount=amount)

        monkeypatch.setattr(fast.account.ledger, "bill", billed_too)

    return others_spend


def run(context, **arguments):
    return GenerateImageOperator(task_id="draw", prompt=PROMPT, **arguments).execute(context)


def limits_of(name, room, pictory):
    """Return a connection's limits, so that one of them leaves so much room."""
    return {name: pictory.account.credits_limit - room if name == "credits_reserve" else room}


def asked(pictory):
    return [request.path.rpartition("/v1/")[2] for request in pictory.requests if request.method == "GET"]


def ledgers_asked(pictory):
    """Return how often the ledger was requested. On the first of a month each time is a request for two months."""
    months = Counter(str(each.query) for each in pictory.requests if each.path.endswith("/aicredits/usage"))
    (times,) = set(months.values())
    return times


# One picture ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_credits", [0.595, 0.5999, 0.59999])
def test_a_limit_that_is_a_little_below_the_price_holds(pictory, context, max_credits):
    with pytest.raises(PictoryBudgetExceeded, match=says(f"max_credits leaves {max_credits} of {max_credits}")):
        run(context, model="flux-schnell", max_credits=max_credits)
    assert pictory.submissions == []


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_of_the_connection_that_is_a_little_below_the_price_holds(name, limit, pictory, context):
    limit(**limits_of(name, 0.595, pictory))
    with pytest.raises(PictoryBudgetExceeded, match=says(f"{name} leaves 0.595")):
        run(context, model="flux-schnell")
    assert pictory.submissions == []


@pytest.fixture
def at_clock(monkeypatch):
    """Return a function that connects to a Pictory whose clock is so many seconds ahead, with limits."""
    with ExitStack() as running:

        def at_clock(ahead, **limits):
            pictory = running.enter_context(Simulator(seconds=0, clock=lambda: time.time() + ahead))
            monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", pictory.connection_json(**limits))
            return pictory

        yield at_clock


def until_yesterday():
    """Return the seconds from the last hour of yesterday, UTC, to now."""
    return time.time() - beginning(time.time()).timestamp() + 1_800


@pytest.mark.parametrize("name", ["credits_per_day", "credits_per_month"])
def test_a_worker_whose_clock_is_a_day_ahead_of_pictorys_holds_the_limit_of_the_day_before(
    name, at_clock, context
):
    pictory = at_clock(-until_yesterday(), **{name: 101})
    pictory.enter(amount=100)
    with pytest.raises(PictoryBudgetExceeded, match=says(f"{name} leaves 1 of 101")):
        run(context)
    assert pictory.submissions == []


def test_a_worker_whose_clock_is_a_month_behind_asks_for_pictorys_month_too(at_clock, context):
    pictory = at_clock(32 * 86_400, credits_per_month=101)
    pictory.enter(amount=100)
    with pytest.raises(PictoryBudgetExceeded, match=says("credits_per_month leaves 1 of 101")):
        run(context)
    assert pictory.submissions == []


@pytest.mark.parametrize(
    ("ahead", "skew"), [(3_600, "60 minutes behind"), (-3_600, "60 minutes ahead of"), (0, None), (30, None)]
)
def test_clocks_that_differ_are_reported_once_and_purchases_are_recorded_by_pictorys(
    at_clock, capsys, ahead, skew
):
    pictory = at_clock(ahead, credits_per_day=5)
    with PictoryHook() as hook:
        for _ in range(2):
            hook.generate_image(PROMPT)
        with pytest.raises(PictoryBudgetExceeded):
            hook.generate_image(PROMPT)
        noted = [purchase.at for purchase in hook._submitter.budget.own]
    printed = capsys.readouterr().out
    assert printed.count("Set this machine's clock") == (1 if skew else 0)
    assert skew is None or f"This machine's clock is {skew} Pictory's" in printed
    for at, job in zip(noted, pictory.account.jobs.values(), strict=True):
        assert abs(at - job.created) <= 60


class Clock:
    """A clock that a worker and Pictory share. It stands still but for who sleeps by it."""

    monotonic = staticmethod(time.monotonic)

    def __init__(self, now):
        self.now, self.slept = now, []

    def time(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


def test_a_purchase_right_after_midnight_waits_for_the_minute_in_which_the_limit_resets(monkeypatch, capsys):
    midnight = datetime(2026, 11, 29, tzinfo=UTC).timestamp()
    clock = Clock(midnight - 1_800)
    for module in (sync, spending):
        monkeypatch.setattr(module, "time", clock)
    with Simulator(seconds=0, clock=clock.time) as pictory, PictoryHook() as hook:
        monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", pictory.connection_json(credits_per_day=2))
        pictory.enter(amount=2)
        clock.now = midnight + 5
        hook.generate_image(PROMPT)
        assert clock.slept == [55]
        assert "credits_per_day: a new period begins" in capsys.readouterr().out
        with pytest.raises(PictoryBudgetExceeded):
            hook.generate_image(PROMPT)
        assert (clock.slept, len(pictory.submissions)) == ([55], 1)


def test_a_reply_out_of_a_cache_or_without_a_time_says_nothing_of_the_clocks():
    now = datetime(2026, 11, 28, 12, tzinfo=UTC).timestamp()
    date = "Sat, 28 Nov 2026 {} GMT"
    for headers, skew in (
        ({"date": date.format("12:00:00")}, 0.0),
        ({"date": date.format("11:59:59")}, 0.0),
        ({"date": date.format("12:00:02"), "age": "0"}, 0.0),
        ({"date": date.format("13:00:02")}, 3_600.0),
        ({"date": date.format("10:59:59")}, -3_600.0),
        ({"date": date.format("10:59:59"), "age": "3600"}, None),
        ({"date": "yesterday"}, None),
        ({}, None),
    ):
        assert skew_of(headers, sent=now, received=now + 2) == skew


def test_a_ledger_too_large_to_be_read_buys_nothing_and_says_until_when_and_which_limits_work_meanwhile(
    limit, context
):
    pictory = limit(credits_per_month=100)
    pictory.set(reply_bytes=64 * 1024 * 1024 + 1)
    with pytest.raises(PictoryUnavailable) as caught:
        run(context)
    text = " ".join(str(caught.value).split())
    assert "Could not check whether credits_per_day or credits_per_month" in text
    assert "the reply is too large, above 65,536 KiB" in text
    assert f"stays too large until {next_month(time.time()) + timedelta(days=1):%Y-%m-%d} UTC" in text
    assert "credits_reserve, which needs only the quota, or with max_credits" in text
    assert [path.partition("?")[0] for path in asked(pictory)].count("aicredits/usage") == 1
    assert pictory.submissions == []


def test_a_ledger_of_more_than_16_mib_is_read(limit, context):
    pictory = limit(credits_per_month=100)
    pictory.set(reply_bytes=17 * 1024 * 1024)
    with PictoryHook() as hook:
        assert hook.get_credit_usage() == []


def test_without_a_limit_the_ledger_is_not_read(pictory, context):
    run(context)
    assert [path for path in asked(pictory) if "usage" in path] == []


@pytest.mark.parametrize("name", LIMITS)
def test_each_limit_holds_for_the_operator_to_the_last_credit(name, limit, pictory, context):
    limit(**limits_of(name, 4, pictory))
    for run_id in ("one", "two", "three"):
        context["ti"].run_id, context["task_state_store"] = run_id, StateStore()
        if run_id == "three":
            with pytest.raises(PictoryBudgetExceeded, match=says(f"{name} leaves 0")) as refused:
                run(context)
            assert refused.value.limits == (name,)
        else:
            run(context)
    assert pictory.account.credits_billed == 4


@pytest.mark.parametrize("name", LIMITS)
def test_each_limit_holds_for_a_hook_although_the_ledger_is_late(name, limit, pictory):
    limit(**limits_of(name, 5, pictory))
    pictory.set(ledger_lag=NEVER, quota_lag=NEVER)
    with PictoryHook() as hook:
        for _ in range(2):
            hook.generate_image(PROMPT)
        with pytest.raises(PictoryBudgetExceeded):
            hook.generate_image(PROMPT)
        hook.generate_image(PROMPT, model="flux-schnell")
    assert pictory.account.credits_billed == 4.6


def test_a_refusal_puts_nothing_on_record_so_a_clear_buys(limit, context):
    pictory = limit(credits_per_day=1)
    with pytest.raises(PictoryBudgetExceeded):
        run(context)
    assert context["task_state_store"].rows == {}
    limit(credits_per_day=10)
    context["ti"].clear()
    run(context)
    assert len(pictory.submissions) == 1


def test_a_picture_that_exists_or_is_on_record_is_not_charged(limit, context, tmp_path):
    pictory = limit(credits_per_day=2)
    path = str(tmp_path / "a.png")
    run(context, path=path, deferrable=False)
    limit(credits_per_day=0)
    run(context, path=path, deferrable=False)  # a retry
    run({"ti": TaskInstance(), "task_state_store": StateStore()}, path=path, deferrable=False, max_credits=0)
    assert len(pictory.submissions) == 1


def test_a_resend_is_checked_again(limit, context, impatient):
    pictory = limit(credits_per_day=2)
    pictory.script("submit", "rate-limited", retry_after="0")
    run(context)
    assert ledgers_asked(pictory) == 2
    assert pictory.account.credits_billed == 2


def test_another_task_may_have_spent_the_credits_before_a_resend(limit, context, impatient, monkeypatch):
    pictory = limit(credits_per_day=2)
    pictory.script("submit", "rate-limited", retry_after="0")
    after = retry.after_submit

    def spend_meanwhile(error, **more):
        pictory.enter(amount=1)
        return after(error, **more)

    monkeypatch.setattr(retry, "after_submit", spend_meanwhile)
    with pytest.raises(PictoryBudgetExceeded, match=says("leaves 1 of 2")):
        run(context)
    assert pictory.account.credits_billed == 0


def test_skip_skips_the_task_and_says_why(limit, context):
    pictory = limit(credits_per_day=1)
    with pytest.raises(AirflowSkipException, match=says("credits_per_day leaves 1 of 1")):
        run(context, on_budget="skip")
    assert pictory.submissions == []


def test_skip_skips_for_limits_alone(limit, context):
    pictory = limit(credits_per_day=10)
    pictory.plan("failed")
    with pytest.raises(PictoryJobFailed):
        run(context, on_budget="skip", wait_for_completion=True, deferrable=False)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"on_budget": "wait"}, "on_budget is 'wait'; it takes one of fail, skip"),
        ({"max_credits": "7"}, "max_credits is '7'"),
        ({"max_credits": True}, "max_credits is True"),
        ({"max_credits": -1}, "max_credits is -1"),
        ({"max_credits": float("nan")}, "max_credits is nan"),
    ],
)
def test_a_tasks_arguments_for_limits_are_checked_first(arguments, text, pictory, context):
    with pytest.raises(PictoryRequestInvalid, match=says(text)):
        run(context, **arguments)
    assert pictory.requests == []


def test_max_credits_is_compared_with_the_listed_price(pictory, context):
    with pytest.raises(PictoryBudgetExceeded, match=says("max_credits leaves 1.9 of 1.9")):
        run(context, max_credits=1.9)
    run(context, max_credits=2)
    assert len(pictory.submissions) == 1


def test_max_credits_counts_what_may_have_been_bought(pictory, context):
    pictory.script("submit", "drop-after")
    with pytest.raises(PictoryBudgetExceeded, match=says("max_credits leaves 1 of 3")):
        run(context, max_credits=3, on_unknown_submit="resubmit")
    assert len(pictory.submissions) == 1


def test_max_credits_counts_over_the_retries_and_is_reset_by_a_clear(pictory, context):
    pictory.script("submit", "drop-after")
    with pytest.raises(PictorySubmitOutcomeUnknown):
        run(context, max_credits=3)
    with pytest.raises(PictoryBudgetExceeded):
        run(context, max_credits=3, on_unknown_submit="resubmit")
    context["ti"].clear()
    run(context, max_credits=3)
    assert len(pictory.submissions) == 2


def test_max_credits_counts_everything_that_a_task_has_bought_and_not_only_the_last(pictory, context):
    for bought in (1, 2, 3):
        pictory.plan("failed")
        run(context, max_credits=6)
        assert len(pictory.submissions) == bought
    with pytest.raises(
        PictoryBudgetExceeded, match=says("max_credits leaves 0 of 6, since this task has spent 6")
    ):
        run(context, max_credits=6)
    context["ti"].clear()
    pictory.plan("failed")
    run(context, max_credits=2)
    with pytest.raises(PictoryBudgetExceeded):
        run(context, max_credits=2)
    assert len(pictory.submissions) == 4


@pytest.mark.parametrize("name", LIMITS)
def test_what_a_task_may_have_bought_counts_in_a_later_attempt_in_addition_to_what_others_have_spent(
    name, limit, context, pictory
):
    pictory.enter(amount=18, transactionDate=datetime.fromtimestamp(time.time() - 200, UTC).isoformat())
    room = {"credits_reserve": pictory.account.credits_limit - 21}.get(name, 21)
    limit(**{name: room})
    pictory.set(ledger_lag=NEVER, quota_lag=NEVER)
    pictory.script("submit", "drop-after")
    with pytest.raises(PictorySubmitOutcomeUnknown):
        run(context)
    with pytest.raises(PictoryBudgetExceeded):
        run(context, on_unknown_submit="resubmit")
    context["ti"].clear()
    with pytest.raises(PictoryBudgetExceeded):
        run(context)
    assert pictory.account.credits_billed == 2


def test_what_a_task_has_bought_is_on_record_in_its_sidecar_too(limit, context_without_store, tmp_path):
    pictory = limit(credits_per_day=3)
    pictory.set(ledger_lag=NEVER)
    pictory.plan("failed")
    arguments = {"path": str(tmp_path / "a.png"), "deferrable": False}
    with pytest.raises(PictoryJobFailed):
        run(context_without_store, **arguments)
    with pytest.raises(PictoryBudgetExceeded):
        run(context_without_store, **arguments)
    assert len(pictory.submissions) == 1


def test_max_credits_counts_a_job_that_has_failed(pictory, context):
    pictory.plan("failed")
    run(context)
    with pytest.raises(PictoryBudgetExceeded, match=says("max_credits leaves 1 of 3")):
        run(context, max_credits=3)
    run(context, max_credits=4)
    assert len(pictory.submissions) == 2


def test_an_unknown_outcome_counts_as_bought_although_the_ledger_does_not_show_it(limit, context):
    pictory = limit(credits_per_day=3)
    pictory.set(ledger_lag=NEVER)
    pictory.script("submit", "drop-after")
    with pytest.raises(PictoryBudgetExceeded):
        run(context, on_unknown_submit="resubmit")
    with pytest.raises(PictoryBudgetExceeded):
        run(context, on_unknown_submit="resubmit")
    assert pictory.account.credits_billed == 2


# What cannot be known ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "place"), [("credits_per_day", "usage"), ("credits_reserve", "quota")])
@pytest.mark.parametrize("fault", ["unavailable", "drop-before", "garbage", "rate-limited"])
def test_what_cannot_be_read_buys_nothing_and_airflow_may_retry(name, place, fault, limit, context, timing):
    timing(read_budget=0.0)
    pictory = limit(**{name: 100})
    pictory.script(place, fault, times=-1)
    with pytest.raises(PictoryUnavailable, match=says(f"Could not check whether {name}.* nothing was bought")):
        run(context)
    assert pictory.submissions == []
    assert context["task_state_store"].rows == {}
    pictory.clear_faults()
    run(context)
    assert len(pictory.submissions) == 1


@pytest.mark.parametrize(("name", "place"), [("credits_per_day", "usage"), ("credits_reserve", "quota")])
def test_a_reading_that_fails_once_is_repeated(name, place, limit, context, impatient):
    pictory = limit(**{name: 100})
    pictory.script(place, "unavailable", times=2)
    run(context)
    assert len(pictory.submissions) == 1


def test_a_bad_key_is_reported_as_such(limit, context):
    pictory = limit(credits_per_day=100)
    pictory.script("usage", "unauthorized", times=-1)
    with pytest.raises(PictoryAuthenticationError):
        run(context)
    assert pictory.submissions == []


def test_an_edge_block_is_reported_as_such(limit, context, timing):
    timing(read_budget=0.0)
    pictory = limit(credits_per_day=100)
    pictory.script("usage", "edge-block", times=-1)
    with pytest.raises(PictoryEdgeBlocked):
        run(context)
    assert pictory.submissions == []


@pytest.mark.parametrize(
    "row",
    [{"amount": "0.6"}, {"amount": None}, {"transactionDate": "soon"}, {"transactionDate": None}, {"amount": -3}],
)
def test_a_row_of_the_ledger_that_cannot_be_understood_buys_nothing(row, limit, context):
    pictory = limit(credits_per_day=100)
    pictory.enter(**row)
    with pytest.raises(PictoryUnavailable, match=says("an entry that this release does not understand")):
        run(context)
    assert pictory.submissions == []


def test_the_monthly_reset_opens_no_budget_and_an_unknown_type_is_spent(limit, context):
    pictory = limit(credits_per_month=10)
    pictory.enter(type="credit", amount=22_000, source="Monthly Reset")
    pictory.enter(type="adjustment", amount=9)
    with pytest.raises(PictoryBudgetExceeded, match=says("credits_per_month leaves 1 of 10")):
        run(context)
    pictory.enter(type="credit", amount=9, source="Text-to-Image")
    run(context)
    assert len(pictory.submissions) == 1


def test_what_was_spent_last_month_does_not_count(limit, context):
    pictory = limit(credits_per_month=2)
    first = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    pictory.enter(amount=500, transactionDate=datetime.fromtimestamp(first.timestamp() - 1, UTC).isoformat())
    run(context)
    assert len(pictory.submissions) == 1


def test_a_model_without_a_price_is_refused_for_good_if_a_limit_is_set(limit, context):
    pictory = limit(credits_reserve=0)
    with pytest.raises(PictoryRequestInvalid, match=says("The price of 'newer' is not known")):
        run(context, model="newer", allow_unlisted=True)
    assert pictory.submissions == []


# A batch -------------------------------------------------------------------------------------------------


def batch(folder, number, **arguments):
    return Tries(folder)(lamps(number), **arguments)


@pytest.mark.parametrize("name", LIMITS)
def test_a_batch_whose_missing_rows_cost_too_much_buys_none_of_them(name, limit, fast, folder):
    limit(**limits_of(name, 5, fast))
    with pytest.raises(PictoryBudgetExceeded, match=says(f"The 3 pictures cost 6 .* {name} leaves 5")):
        batch(folder, 3)
    assert fast.submissions == []


@pytest.mark.parametrize("name", LIMITS)
def test_resumed_runs_retries_and_clears_of_a_batch_never_exceed_a_limit_although_ledger_and_quota_never_show_it(
    name, limit, fast, folder, one_try
):
    limit(**limits_of(name, 41, fast))
    fast.set(ledger_lag=NEVER, quota_lag=NEVER)
    fast.script("submit", "drop-after", times=2)
    with pytest.raises(PictorySubmitOutcomeUnknown):
        one_try(lamps(20), max_in_flight=5, deferrable=True)
    for _ in range(3):
        one_try.clear()
        with pytest.raises((PictoryBudgetExceeded, PictorySubmitOutcomeUnknown)):
            one_try(lamps(20), max_in_flight=5, deferrable=True, overwrite=True)
    assert fast.account.credits_billed == 40


def test_a_batch_that_reaches_the_limit_because_others_spend_saves_what_it_has_bought(
    limit, fast, others_spend, one_try
):
    limit(credits_per_day=100)
    others_spend(after=10, amount=75)
    with pytest.raises(PictoryBudgetExceeded, match=says("The batch: 40 pictures: 1[0-9] saved, .* not bought")):
        one_try(lamps(40))
    assert fast.account.credits_billed <= 2 * 16


def test_a_batch_refunds_what_pictory_has_refused(limit, fast, folder, one_try):
    limit(credits_per_day=4)
    fast.script("submit", "server-error", status=400, times=2)
    with pytest.raises(PictoryJobFailed):
        one_try(lamps(2))
    one_try.clear()
    assert one_try(lamps(2))["saved"] == 2


def test_a_batch_whose_ledger_sometimes_fails_stops_and_a_retry_continues(limit, fast, folder, one_try, timing):
    timing(read_budget=0.0)
    limit(credits_per_day=100)
    fast.script("usage", "unavailable", times=2, every=2)
    with pytest.raises(PictoryUnavailable, match=says("Could not check whether credits_per_day")):
        one_try(lamps(20))
    with pytest.raises(PictoryUnavailable):
        one_try(lamps(20))
    assert one_try(lamps(20))["saved"] == 20
    assert set(billed(fast).values()) == {1}


def test_a_batch_asks_once_before_all_and_once_a_wave(limit, fast, folder, one_try):
    limit(credits_per_day=100, credits_reserve=0)
    one_try(lamps(20))
    assert ledgers_asked(fast) == asked(fast).count("quota") == 4


def test_a_batch_without_limits_asks_for_neither_ledger_nor_quota(fast, folder, one_try):
    one_try(lamps(20))
    assert [path for path in asked(fast) if path.startswith(("aicredits", "quota"))] == []
    assert not json.loads((folder / ".pictory/batch.json").read_text())["spending"]


def test_a_batch_is_skipped_after_it_has_saved_what_it_bought(limit, fast, folder, one_try):
    limit(credits_per_day=100)
    one_try(lamps(2))
    limit(credits_per_day=0)
    one_try.clear()
    with pytest.raises(AirflowSkipException, match=says("credits_per_day leaves 0 of 0")):
        one_try(lamps(3), on_budget="skip")
    assert len((folder / "metadata.jsonl").read_text().splitlines()) == 2


def test_a_batch_whose_spending_cannot_be_read_buys_nothing(limit, fast, folder, one_try):
    limit(credits_per_day=100)
    one_try(lamps(2))
    header = folder / ".pictory/batch.json"
    header.write_text(json.dumps({**json.loads(header.read_text()), "spending": {"dropped": "much"}}))
    one_try.clear()
    with pytest.raises(PictoryUnavailable, match=says("What this batch has spent cannot be read")):
        one_try(lamps(3))
    assert len(fast.submissions) == 2


def test_a_limit_that_is_set_between_two_attempts_counts_what_was_bought_before(fast, folder, one_try, limit):
    fast.set(ledger_lag=NEVER)
    fast.plan("failed")
    with pytest.raises(PictoryJobFailed):
        one_try(lamps(8))
    limit(credits_per_day=17)
    for table, more in ((lamps(8), {}), (lamps(9), {}), (lamps(1), {"overwrite": True})):
        one_try.clear()
        with pytest.raises(PictoryBudgetExceeded, match=says("credits_per_day leaves 1 of 17")):
            one_try(table, **more)
    assert len(fast.submissions) == 8


def test_a_clear_resets_max_credits_whatever_its_first_run_does(fast, folder, one_try):
    fast.account.seconds = 60
    with pytest.raises(PictoryWaitTimeout):
        one_try(lamps(3), max_credits=6, timeout=0)
    for job in fast.account.jobs.values():
        job.fate, job.seconds = "failed", 0
    fast.account.seconds = 0
    one_try.clear()
    assert one_try(lamps(3), max_credits=6, deferrable=True)["saved"] == 3
    assert len(fast.submissions) == 6


def test_a_wave_that_was_never_sent_is_not_counted(fast, folder, one_try, monkeypatch):
    def struck(*_):
        raise StorageFailed("the disk is away")

    with monkeypatch.context() as patch:
        patch.setattr("pictory_provider.core.batch.plan.Plan.intend", struck)
        with pytest.raises(PictoryStorageFailed):
            one_try(lamps(3), max_credits=6)
    assert one_try(lamps(3), max_credits=6)["saved"] == 3


def test_running_paid_jobs_are_retried_although_a_limit_stops_submissions(limit, fast, folder, one_try):
    fast.account.seconds = 60
    with pytest.raises(PictoryWaitTimeout):
        one_try(lamps(2), timeout=0)
    limit(credits_per_day=0)
    one_try.clear()
    with pytest.raises(PictoryWaitTimeout, match=says("Submissions have stopped, too: The picture costs 2")):
        one_try(lamps(3), timeout=0, on_budget="skip")
    for job in fast.account.jobs.values():
        job.seconds = 0
    with pytest.raises(AirflowSkipException):
        one_try(lamps(3), on_budget="skip")
    assert len((folder / "metadata.jsonl").read_text().splitlines()) == 2


def test_rows_that_failed_fail_a_task_that_would_be_skipped_for_a_limit(limit, fast, others_spend, one_try):
    limit(credits_per_day=100)
    others_spend(after=8, amount=84)
    fast.plan("failed")
    with pytest.raises(PictoryJobFailed, match=says("Submissions have stopped, too")):
        one_try(lamps(40), on_budget="skip")
    assert fast.account.credits_billed == 16


def test_max_credits_holds_over_the_resumed_runs_and_retries_of_a_batch(fast, folder, one_try):
    fast.script("submit", "drop-after", times=3)
    with pytest.raises(PictorySubmitOutcomeUnknown):
        one_try(lamps(10), max_credits=20, max_in_flight=4, deferrable=True)
    with pytest.raises((PictorySubmitOutcomeUnknown, PictoryBudgetExceeded)):
        one_try(lamps(10), max_credits=20, max_in_flight=4, on_unknown_submit="resubmit")
    assert fast.account.credits_billed == 20


# At the same moment --------------------------------------------------------------------------------------


@pytest.mark.parametrize("lag", [0.0, 0.3])
@pytest.mark.parametrize("slots", [1, 4, 16])
def test_tasks_that_ask_at_the_same_moment_stay_within_the_bound_that_the_docs_give(slots, lag, limit):
    """As the page's formula says, and no more than one price for each slot but one and for each that is not shown."""
    pictory = limit(credits_per_day=20)
    pictory.set(ledger_lag=lag)
    together = threading.Barrier(slots)

    took = []

    def buy_until_refused(slot):
        together.wait(60)
        for number in range(100):
            begun = time.monotonic()
            try:
                with PictoryHook() as hook:
                    hook.generate_image(f"{PROMPT}, {slot}, {number}")
            except PictoryBudgetExceeded:
                return
            finally:
                took.append(time.monotonic() - begun)
        pytest.fail("a hundred purchases in a row were not refused")

    with ThreadPoolExecutor(slots) as pool:
        list(pool.map(buy_until_refused, range(slots)))
    bought_at = sorted(job.created for job in pictory.account.jobs.values())
    delay, last = lag + max(took), bought_at[-1]
    in_the_dark = max(sum(at - delay <= other < at for other in bought_at) for at in bought_at)
    billed_in_all = pictory.account.credits_billed
    print(f"{slots} at once, a ledger {lag} s late: {billed_in_all:g} of 20 credits")
    assert 20 <= billed_in_all <= 20 + 2 * (slots - 1) + 2 * in_the_dark
    others = 2 * sum(last - delay <= at for at in bought_at[:-1])
    formula = {"bought_by_others_since_it_began": others, "bought_by_all_within_a_delay": others + 2, "min": min}
    assert billed_in_all <= 20 + eval(FORMULA, {}, formula)


def test_what_is_refused_and_what_is_bought_is_counted_by_dag_and_model(limit, context, mocker):
    limit(credits_per_day=2)
    counted = mocker.patch("pictory_provider.telemetry.Stats.incr")
    run(context)
    context["ti"].clear()
    with pytest.raises(PictoryBudgetExceeded):
        run(context)
    counts = {call.args[0]: call.kwargs for call in counted.call_args_list}
    tags = {"dag_id": "covers", "model": "seedream3.0"}
    assert counts["pictory.credits_bought"] == {"count": 2, "tags": tags}
    assert counts["pictory.credits_refused"] == {"count": 2, "tags": tags}


def test_the_listed_price_is_in_the_log_before_the_purchase(pictory, context, logged):
    run(context, model="nanobanana")
    text = logged()
    assert text.index("Submitting a picture of model nanobanana, 4 AI credits as listed") < text.index(
        "accepted job"
    )
