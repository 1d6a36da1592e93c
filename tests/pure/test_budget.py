# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""May this be bought? What is spent, what is left, and what a refusal says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pictory_provider.api.errors import BudgetExceeded, RequestInvalid, Unavailable
from pictory_provider.api.models import MODELS, ImageRequest, Quota
from pictory_provider.jobs.budget import LATE_AT_MOST, Budget, Limits, Lot
from pictory_provider.jobs.ledger import Spent, month_of, spent_of

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
NOW = NOON.timestamp()
DAY = 86_400.0


def entry(amount=2, *, at=NOON, kind="debit", source="Text-to-Image", **more):
    when = at if isinstance(at, str) else at.isoformat().replace("+00:00", "Z")
    return {
        "transactionId": "1",
        "type": kind,
        "amount": amount,
        "source": source,
        "transactionDate": when,
        **more,
    }


def quota(used, limit=100.0):
    return Quota(ai_credits_used=used, ai_credits_limit=limit, raw={})


def lot(price=2.0, pictures=1):
    return Lot(pictures, price)


# What the ledger says ------------------------------------------------------------------------------------


def test_debits_count_for_the_day_and_the_month_that_they_fall_into():
    ledger = [
        entry(1),
        entry(2, at=datetime(2026, 11, 28, tzinfo=UTC)),
        entry(4, at=datetime(2026, 11, 27, 23, 59, 59, tzinfo=UTC)),
        entry(8, at=datetime(2026, 11, 1, tzinfo=UTC)),
        entry(16, at=datetime(2026, 10, 31, 23, 59, 59, tzinfo=UTC)),
    ]
    assert spent_of(ledger, NOW) == Spent(today=3, this_month=15)


@pytest.mark.parametrize(
    ("when", "is_today"),
    [
        ("2026-11-28T00:00:00.000Z", True),
        ("2026-11-27T23:59:59.999Z", False),
        ("2026-11-28T01:00:00+02:00", False),
        ("2026-11-27T23:00:00-02:00", True),
        ("2026-11-28T00:00:00", True),
        (" 2026-11-28 ", True),
        ("2026-11-29T00:00:05Z", True),  # Pictory's clock is ahead of ours
    ],
)
def test_days_are_those_of_utc_whatever_zone_an_entry_is_written_in(when, is_today):
    assert spent_of([entry(at=when)], NOW).today == (2 if is_today else 0)


def test_the_monthly_reset_is_a_credit_and_opens_no_budget():
    ledger = [entry(5), entry(22_000, kind="credit", source="Monthly Reset")]
    assert spent_of(ledger, NOW) == Spent(5, 5)


def test_a_reset_that_is_written_as_both_counts_as_nothing_spent():
    ledger = [
        entry(5),
        entry(300, source="Monthly Reset"),
        entry(22_000, kind="credit", source="Monthly Reset"),
    ]
    assert spent_of(ledger, NOW) == Spent(5, 5)


def test_what_is_given_back_under_the_source_of_a_debit_is_not_spent():
    assert spent_of([entry(5), entry(2, kind="credit")], NOW) == Spent(3, 3)
    assert spent_of([entry(5), entry(2, kind="CREDIT ", source=" text-to-image")], NOW) == Spent(3, 3)


def test_no_more_is_given_back_than_was_spent_in_the_same_time():
    yesterday = NOON - timedelta(days=1)
    ledger = [entry(10, at=yesterday), entry(1), entry(10, kind="credit")]
    assert spent_of(ledger, NOW) == Spent(today=0, this_month=1)


def test_a_credit_without_a_source_gives_nothing_back():
    assert spent_of([entry(5, source=None), entry(5, kind="credit", source=None)], NOW) == Spent(5, 5)


@pytest.mark.parametrize("kind", ["adjustment", None, "", 3, "refund"])
def test_an_entry_of_a_type_that_nobody_has_named_is_spent(kind):
    assert spent_of([entry(5, kind=kind)], NOW) == Spent(5, 5)


@pytest.mark.parametrize(
    "bad",
    [
        {"amount": None},
        {"amount": "2"},
        {"amount": True},
        {"amount": float("nan")},
        {"amount": -2},
        {"transactionDate": None},
        {"transactionDate": "yesterday"},
        {"transactionDate": 1_790_000_000},
    ],
)
def test_an_entry_that_cannot_be_understood_makes_the_ledger_unreadable(bad):
    with pytest.raises(Unavailable, match="an entry that this release does not understand"):
        spent_of([entry(), {**entry(kind="credit"), **bad}], NOW)


def test_the_ledger_of_the_current_month_of_utc_is_asked_for():
    assert month_of(datetime(2026, 12, 1, tzinfo=UTC).timestamp()) == (2026, 12)
    assert month_of(datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC).timestamp()) == (2026, 11)


# Whether there is room -----------------------------------------------------------------------------------


def test_without_limits_everything_may_be_bought_unlisted_models_too():
    assert Budget(Limits()).refusal(Lot(1, None, ("newer",)), NOW) is None
    assert Budget(Limits()).refusal(lot(10_000), NOW) is None


def test_the_last_credit_may_be_spent_and_not_one_more():
    budget = Budget(Limits(per_day=5.0))
    budget.note(quota=None, ledger=[entry(3)], now=NOW)
    assert budget.refusal(lot(2), NOW) is None
    assert isinstance(budget.refusal(lot(2.1), NOW), BudgetExceeded)


def test_sums_of_tenths_reach_a_limit_exactly():
    budget = Budget(Limits(per_day=0.6 * 10))
    bought = 0
    while budget.refusal(lot(0.6), NOW) is None:
        budget.spend(0.6, NOW)
        bought += 1
    assert bought == 10


def test_a_limit_of_nothing_lets_nothing_be_bought():
    assert budget_says(Limits(per_day=0.0), lot(0.6)) == ("credits_per_day",)


def test_a_reserve_is_kept_and_one_of_nothing_keeps_the_account_from_running_dry():
    for reserve, room in ((10.0, 5.0), (0.0, 15.0)):
        budget = Budget(Limits(reserve=reserve))
        budget.note(quota=quota(85), ledger=None, now=NOW)
        assert budget.refusal(lot(room), NOW) is None
        assert budget.refusal(lot(room + 0.1), NOW).limits == ("credits_reserve",)


def test_a_reserve_that_nobody_has_looked_for_leaves_nothing():
    assert budget_says(Limits(reserve=1.0), lot(0.6)) == ("credits_reserve",)


def budget_says(limits, wanted):
    refusal = Budget(limits).refusal(wanted, NOW)
    return refusal.limits if refusal else None


def test_every_limit_that_leaves_too_little_is_named():
    budget = Budget(Limits(per_day=3.0, per_month=50.0, reserve=10.0, per_task=4.0))
    budget.note(quota=quota(95), ledger=[entry(49)], now=NOW)
    assert budget.refusal(lot(2, pictures=3), NOW).limits == (
        "credits_per_day",
        "credits_per_month",
        "credits_reserve",
    )


def test_a_refusal_says_what_was_asked_for_what_is_left_when_it_begins_anew_and_where_it_is_set():
    budget = Budget(Limits(per_day=50.0))
    budget.note(quota=None, ledger=[entry(49.6)], now=NOW)
    refusal = budget.refusal(lot(2), NOW)
    assert refusal.message == (
        "The picture costs 2 AI credits as listed, which is over a limit, so it was not bought. The limit "
        "credits_per_day leaves 0.4 of 50, since the account has spent 49.6 today. It begins anew at 2026-11-29 "
        "00:00 UTC. It is set in the connection. Clear the task when there is room."
    )
    assert (refusal.asked, refusal.left) == (2, 0.4)


@pytest.mark.parametrize(
    ("now", "anew"),
    [
        (datetime(2026, 12, 31, 23, 59, tzinfo=UTC), "2027-01-01 00:00"),
        (datetime(2026, 2, 1, tzinfo=UTC), "2026-03-01 00:00"),
        (datetime(2028, 1, 31, 12, tzinfo=UTC), "2028-02-01 00:00"),
    ],
)
def test_a_month_begins_anew_on_the_next_first(now, anew):
    refusal = Budget(Limits(per_month=0.0)).refusal(lot(), now.timestamp())
    assert f"anew at {anew} UTC" in refusal.message


def test_a_model_without_a_listed_price_is_refused_for_good_where_a_limit_is_set():
    request = ImageRequest(prompt="A lamp", model="newer", allow_unlisted=True)
    for limits in (Limits(per_day=9.0), Limits(reserve=0.0), Limits(per_task=9.0)):
        refusal = Budget(limits).refusal(Lot.of([request]), NOW)
        assert isinstance(refusal, RequestInvalid)
        assert "'newer'" in refusal.message


def test_a_lot_costs_what_its_pictures_cost():
    requests = [ImageRequest(prompt="A lamp", model=model) for model in MODELS]
    assert Lot.of(requests) == Lot(4, 20.6)
    assert Lot.of([]) == Lot(0, 0)


# A ledger that is late -----------------------------------------------------------------------------------


def test_what_is_bought_counts_at_once_although_the_ledger_does_not_say_it_yet():
    budget = Budget(Limits(per_day=5.0))
    for _ in range(2):
        budget.note(quota=None, ledger=[], now=NOW)
        assert budget.refusal(lot(2), NOW) is None
        budget.spend(2, NOW)
    budget.note(quota=None, ledger=[], now=NOW)
    assert budget.refusal(lot(2), NOW).left == 1


def test_what_the_ledger_says_later_is_not_counted_twice():
    budget = Budget(Limits(per_day=10.0))
    budget.spend(4, NOW)
    budget.note(quota=None, ledger=[entry(2), entry(2)], now=NOW)
    assert budget.today == 4


def test_what_others_spend_meanwhile_counts():
    budget = Budget(Limits(per_day=10.0))
    budget.spend(2, NOW)
    budget.note(quota=None, ledger=[entry(9)], now=NOW)
    assert budget.today == 9


def test_a_quota_that_is_late_does_not_give_back_what_was_bought():
    budget = Budget(Limits(reserve=0.0))
    budget.note(quota=quota(90), ledger=None, now=NOW)
    budget.spend(8, NOW)
    budget.note(quota=quota(90), ledger=None, now=NOW)
    assert budget.left == 2
    budget.note(quota=quota(98), ledger=None, now=NOW)
    assert budget.left == 2


def test_credits_that_come_in_make_room_again():
    budget = Budget(Limits(reserve=0.0))
    budget.note(quota=quota(98), ledger=None, now=NOW)
    budget.spend(2, NOW)
    budget.note(quota=quota(98, limit=200), ledger=None, now=NOW)
    assert budget.left == 100
    budget.note(quota=quota(0, limit=200), ledger=None, now=NOW)
    assert budget.left == 198


def test_a_purchase_that_was_refused_is_given_back():
    budget = Budget(Limits(per_day=2.0, per_task=2.0))
    budget.spend(2, NOW)
    budget.give_back(2)
    assert budget.refusal(lot(2), NOW) is None


def test_a_new_day_and_a_new_month_begin_with_nothing_spent():
    end_of_month = datetime(2026, 11, 30, 23, 59, tzinfo=UTC).timestamp()
    budget = Budget(Limits(per_day=2.0, per_month=2.0, per_task=9.0))
    budget.spend(2, end_of_month - DAY)
    budget.note(quota=None, ledger=[], now=end_of_month)
    assert (budget.today, budget.this_month, budget.this_task) == (0, 2, 2)
    budget.note(quota=None, ledger=[], now=end_of_month + 60)
    assert (budget.today, budget.this_month, budget.this_task) == (0, 0, 2)


def test_a_clock_that_is_put_back_opens_no_budget():
    budget = Budget(Limits(per_day=2.0))
    budget.spend(2, NOW)
    assert budget.refusal(lot(2), NOW - DAY) is not None


def test_a_later_leg_goes_on_with_what_was_spent_and_a_clear_has_its_own_max_credits():
    budget = Budget(Limits(per_day=10.0, per_task=10.0))
    budget.spend(4, NOW)
    kept, limits = budget.plain(), budget.limits
    later = NOW + LATE_AT_MOST
    assert Budget.read(limits, kept, now=later, is_cleared=False) == budget
    cleared = Budget.read(limits, kept, now=later, is_cleared=True)
    assert (cleared.today, cleared.this_task) == (4, 0)
    forgotten = Budget.read(limits, kept, now=later + 1, is_cleared=False)
    assert (forgotten.today, forgotten.this_task) == (0, 4)
    assert Budget.read(limits, None, now=NOW, is_cleared=False) == Budget(limits)


@pytest.mark.parametrize("bad", [{}, {"day": 3}, {"today": "much"}, {"today": None}, {"bought_at": None}])
def test_a_record_of_spending_that_cannot_be_read_lets_nothing_be_bought(bad):
    kept = {**Budget(Limits()).plain(), **bad} if bad else {}
    with pytest.raises(Unavailable, match="cannot be read from its record"):
        Budget.read(Limits(per_day=1.0), kept, now=NOW, is_cleared=False)


PRICES = st.sampled_from([0.6, 2.0, 4.0, 14.0])


@given(
    limit=st.floats(0, 60).map(lambda value: round(value, 1)),
    steps=st.lists(st.tuples(PRICES, st.integers(0, 5), st.booleans()), max_size=40),
)
def test_one_buyer_never_exceeds_a_limit_however_late_the_ledger_is(limit, steps):
    """Each purchase shows in the ledger after some more of them; some are refused by Pictory."""
    limits = Limits(per_day=limit, per_month=limit, reserve=round(60 - limit, 1), per_task=limit)
    budget, billed, visible = Budget(limits), [], 0
    for price, late, is_refused in steps:
        visible = max(visible, len(billed) - late)
        shown = billed[:visible]
        budget.note(quota=quota(sum(shown), 60.0), ledger=[entry(each) for each in shown], now=NOW)
        if budget.refusal(lot(price), NOW) is None:
            budget.spend(price, NOW)
            if is_refused:
                budget.give_back(price)
            else:
                billed.append(price)
        budget = Budget.read(limits, budget.plain(), now=NOW, is_cleared=False)
    assert sum(billed) <= limit + 0.01
    if visible == len(billed):
        assert budget.today == pytest.approx(sum(billed))


@given(
    others=st.lists(st.tuples(PRICES, st.sampled_from(["debit", "credit", "odd"])), max_size=20),
    price=PRICES,
    limit=st.floats(0, 50),
)
def test_what_is_let_in_leaves_the_ledger_within_the_limit(others, price, limit):
    ledger = [entry(amount, kind=kind, source="Text-to-Image") for amount, kind in others]
    budget = Budget(Limits(per_day=limit))
    budget.note(quota=None, ledger=ledger, now=NOW)
    if budget.refusal(lot(price), NOW) is None:
        assert spent_of([*ledger, entry(price)], NOW).today <= limit + price + 0.01
        debits = sum(amount for amount, kind in others if kind != "credit")
        credits = sum(amount for amount, kind in others if kind == "credit")
        assert max(0.0, debits - credits) + price <= limit + 0.01
