# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Spending limits: what is spent, what they leave, and the text of a refusal."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pictory_provider.api.connection import ConnectionSettings
from pictory_provider.api.errors import BudgetExceeded, RequestInvalid, Unavailable
from pictory_provider.api.models import MODELS, ImageRequest, Quota
from pictory_provider.core.budget import (
    COUNTED_FOR,
    LATE_AT_MOST,
    SENT_WITHIN,
    Budget,
    CostEstimate,
    Headroom,
    Limits,
    format_credits,
    next_day,
    next_month,
    remembered,
)
from pictory_provider.core.ledger import (
    CLOCKS_DIFFER,
    Charge,
    beginning,
    count_shown,
    months_of,
    parse_ledger,
    price_of,
    purchases_from_dict,
    purchases_to_dict,
    spent_since,
    total,
    unseen,
)

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


class Wanted(NamedTuple):
    """A request, as far as a cost estimate needs it."""

    credits: float | None
    model: str = "seedream3.0"


def estimate(*prices):
    return CostEstimate(tuple(Wanted(price) for price in prices or (2.0,)))


def spent(ledger):
    lines = parse_ledger(ledger)
    return tuple(spent_since(lines, beginning(NOW, of_month=of_month).timestamp()) for of_month in (False, True))


def noted(limits, *ledgers, used=None, limit=100.0, now=NOW, **more):
    budget = Budget(limits, **more)
    budget.update(quota=None if used is None else quota(used, limit), ledgers=ledgers, now=now)
    return budget


# What the ledger says ------------------------------------------------------------------------------------


def test_debits_count_for_the_day_and_the_month_that_they_fall_into():
    ledger = [
        entry(1),
        entry(2, at=datetime(2026, 11, 28, tzinfo=UTC)),
        entry(4, at=datetime(2026, 11, 27, 23, 59, 59, tzinfo=UTC)),
        entry(8, at=datetime(2026, 11, 1, tzinfo=UTC)),
        entry(16, at=datetime(2026, 10, 31, 23, 59, 59, tzinfo=UTC)),
    ]
    assert spent(ledger) == (3, 15)


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
    assert spent([entry(at=when)])[0] == (2 if is_today else 0)


def test_the_monthly_reset_is_a_credit_and_opens_no_budget():
    ledger = [entry(5), entry(22_000, kind="credit", source="Monthly Reset")]
    assert spent(ledger) == (5, 5)


def test_a_reset_that_is_written_as_both_counts_as_nothing_spent():
    ledger = [
        entry(5),
        entry(300, source="Monthly Reset"),
        entry(22_000, kind="credit", source="Monthly Reset"),
    ]
    assert spent(ledger) == (5, 5)


def test_what_is_given_back_under_the_source_of_a_debit_is_not_spent():
    assert spent([entry(5), entry(2, kind="credit")]) == (3, 3)
    assert spent([entry(5), entry(2, kind="CREDIT ", source=" text-to-image")]) == (3, 3)


def test_no_more_is_given_back_than_was_spent_in_the_same_time():
    yesterday = NOON - timedelta(days=1)
    ledger = [entry(10, at=yesterday), entry(1), entry(10, kind="credit")]
    assert spent(ledger) == (0, 1)


def test_a_credit_without_a_source_gives_nothing_back():
    assert spent([entry(5, source=None), entry(5, kind="credit", source=None)]) == (5, 5)


@pytest.mark.parametrize("zone", ["Pacific/Auckland", "America/Los_Angeles"])
def test_an_entry_that_says_no_zone_is_of_utc_wherever_the_worker_stands(zone, monkeypatch):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        read = [
            parse_ledger([entry(at=when)])[0].at for when in ("2026-11-28T12:00:00", "2026-11-28T13:00:00+01:00")
        ]
        assert read == [NOW, NOW]
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_time_from_2020_on_is_one_and_an_earlier_one_is_none():
    begun = datetime(2020, 1, 1, tzinfo=UTC)
    assert parse_ledger([entry(at=begun)])[0].at == begun.timestamp()
    with pytest.raises(Unavailable):
        parse_ledger([entry(at=begun - timedelta(seconds=1))])


def test_an_entry_of_nothing_is_understood_and_counts_as_nothing():
    assert spent([entry(0), entry(3)]) == (3, 3)


def test_what_is_not_understood_is_shown_with_its_type_its_amount_its_source_and_its_time():
    with pytest.raises(Unavailable) as caught:
        parse_ledger([entry("two", kind="odd", source="Some", at="2026-11-28T12:00:00Z")])
    reported = "type 'odd', amount 'two', source 'Some', transactionDate '2026-11-28T12:00:00Z'"
    assert reported in caught.value.message


@pytest.mark.parametrize("kind", ["adjustment", None, "", 3, "refund"])
def test_an_entry_of_a_type_that_nobody_has_named_is_spent(kind):
    assert spent([entry(5, kind=kind)]) == (5, 5)


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
        {"transactionDate": 1_796_010_100_000},
        {"transactionDate": "1796010100000"},
        {"amount": 10**400},
    ],
)
def test_an_entry_that_cannot_be_understood_makes_the_ledger_unreadable(bad):
    with pytest.raises(Unavailable, match="an entry that this release does not understand"):
        parse_ledger([entry(), {**entry(kind="credit"), **bad}])


def test_the_ledger_of_the_current_month_of_utc_is_requested_and_on_the_first_that_of_the_month_before():
    assert months_of(datetime(2026, 12, 2, tzinfo=UTC).timestamp()) == [(2026, 12)]
    assert months_of(datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC).timestamp()) == [(2026, 11)]
    assert months_of(datetime(2026, 12, 1, tzinfo=UTC).timestamp()) == [(2026, 12), (2026, 11)]
    assert months_of(datetime(2027, 1, 1, 23, tzinfo=UTC).timestamp()) == [(2027, 1), (2026, 12)]
    assert months_of(datetime(2027, 2, 1, tzinfo=UTC).timestamp()) == [(2027, 2), (2027, 1)]


def test_a_day_begins_at_midnight_utc_and_a_month_with_its_first_day():
    late = datetime(2026, 11, 28, 23, 59, 59, 999_999, tzinfo=UTC).timestamp()
    assert beginning(late) == datetime(2026, 11, 28, tzinfo=UTC)
    assert beginning(late, of_month=True) == datetime(2026, 11, 1, tzinfo=UTC)
    assert beginning(datetime(2026, 11, 28, tzinfo=UTC).timestamp()) == datetime(2026, 11, 28, tzinfo=UTC)


def test_an_entry_that_is_in_both_ledgers_counts_once_and_two_alike_in_one_count_twice():
    both = [entry(1), entry(1)]
    assert len(parse_ledger(both, [*both, entry(2)])) == 3
    assert len(parse_ledger(both, [dict(reversed(entry(1).items()))])) == 2, "whatever the order of its fields"
    assert len(parse_ledger(both)) == 2
    assert parse_ledger() == []


KEPT = [Charge(1.5, 2), Charge(2.5, 0.6, 3), Charge(3.5, 4, 0, 690.5)]


@pytest.mark.parametrize("purchases", [[], KEPT[:1], KEPT[:1] * 3, KEPT])
def test_purchases_are_read_as_they_are_kept(purchases):
    kept = json.loads(json.dumps(purchases_to_dict("earlier", purchases)))
    assert list(purchases_from_dict("earlier", kept)) == purchases


def test_version_0_1_0_finds_of_each_purchase_what_it_expects():
    kept = purchases_to_dict("earlier", KEPT)
    assert kept["earlier"] == [[1.5, 2], [2.5, 0.6], [3.5, 4]]
    assert purchases_from_dict("earlier", {"earlier": kept["earlier"]}) == tuple(
        Charge(*purchase[:2]) for purchase in KEPT
    )


def test_purchases_of_which_the_account_showed_nothing_are_kept_in_the_form_of_version_0_1_0():
    assert purchases_to_dict("earlier", []) == {}
    assert purchases_to_dict("earlier", KEPT[:1] * 2) == {"earlier": [[1.5, 2], [1.5, 2]]}
    assert purchases_to_dict("earlier", KEPT)["earlier_before"] == [[None, None], [3, None], [0, 690.5]]
    assert purchases_from_dict("earlier", {}) == ()


def test_what_purchases_cost_together_is_the_sum_of_their_prices():
    assert (total(KEPT), total([])) == (6.6, 0)
    assert total([Charge(1.0, 0.1)] * 10) == 1, "without dust"


@pytest.mark.parametrize("wrong", ["x", {}, [1], [[1]], [[1, "2"]], [[1, 2, 3]], [[1, 10**400]], [[1, True]]])
def test_purchases_that_cannot_be_read_are_not_taken_for_none(wrong):
    assert purchases_from_dict("earlier", {"earlier": wrong}) is None


@pytest.mark.parametrize(
    "before", [None, 3, [], [[1, 2], [3, 4]], [[1]], ["ab"], [{"a": 1, "b": 2}], [["1", True]]]
)
def test_what_was_known_before_a_purchase_and_cannot_be_read_is_unknown(before):
    kept = {"earlier": [[1.5, 2]], "earlier_before": before}
    assert purchases_from_dict("earlier", kept) == (Charge(1.5, 2),)


def test_the_price_of_what_was_requested_is_the_listed_one():
    assert (price_of({"model": "nanobanana"}), price_of({"model": "newer"}), price_of(None)) == (4, 0, 0)


# What it does not show -----------------------------------------------------------------------------------


def bought(at=NOW, price=2.0, shown_before=0, **more):
    return Charge(at, price, shown_before, **more)


def test_an_entry_shows_one_purchase_of_its_amount_that_is_not_newer():
    lines = parse_ledger([entry(2), entry(0.6)])
    assert unseen([bought(), bought(NOW - 900, 0.6)], lines) == []
    assert unseen([bought()] * 2, lines) == [bought()]
    assert unseen([bought(price=4.0)], lines) == [bought(price=4.0)]
    assert unseen([bought(NOW + CLOCKS_DIFFER)], lines) == []
    assert unseen([bought(NOW + CLOCKS_DIFFER + 1)], lines) == [bought(NOW + CLOCKS_DIFFER + 1)]


def test_clocks_may_differ_by_a_minute():
    assert CLOCKS_DIFFER == 60


def test_entries_count_as_standing_there_from_a_minute_before_a_purchase_on():
    ledger = [entry(2, at=NOON + timedelta(seconds=seconds)) for seconds in (-61, -60, -59, 0, 3_600)]
    assert count_shown(parse_ledger(ledger), 2.0, NOW) == 4
    assert count_shown(parse_ledger([entry(2, kind="credit"), entry(0.6), entry(2, kind="odd")]), 2.0, NOW) == 1


def test_an_entry_of_a_minute_before_a_purchase_shows_it_and_an_older_one_does_not():
    for seconds, is_shown in ((-61, False), (-60, True), (0, True), (3_600, True)):
        lines = parse_ledger([entry(2, at=NOON + timedelta(seconds=seconds))])
        assert (unseen([bought()], lines) == []) is is_shown


def test_a_purchase_before_which_nobody_read_the_ledger_is_shown_by_what_is_dated_a_minute_later():
    for seconds, is_shown in ((59, False), (60, True), (61, True)):
        lines = parse_ledger([entry(2, at=NOON + timedelta(seconds=seconds))])
        assert (unseen([bought(shown_before=None)], lines) == []) is is_shown


@pytest.mark.parametrize(
    ("amount", "price", "is_same"),
    [
        (2, 2.0, True),
        (2.004, 2.0, True),
        (2, 2.004, True),
        (2.006, 2.0, False),
        (2, 2.01, False),
        (2, 1.99, False),
    ],
)
def test_amounts_are_compared_to_the_hundredth(amount, price, is_same):
    lines = parse_ledger([entry(amount)])
    assert count_shown(lines, price, NOW) == is_same
    assert (unseen([bought(price=price)], lines) == []) is is_same


def test_an_entry_that_stood_there_before_a_purchase_does_not_show_it():
    lines = parse_ledger([entry(2), entry(2)])
    for stood_there, missing in ((0, 0), (1, 1), (2, 2), (3, 2)):
        assert len(unseen([bought(shown_before=stood_there)] * 2, lines)) == missing


def test_if_nobody_read_the_ledger_before_a_purchase_only_a_later_entry_shows_it():
    for seconds, is_shown in ((-30, False), (30, False), (CLOCKS_DIFFER, True)):
        lines = parse_ledger([entry(2, at=NOON + timedelta(seconds=seconds))])
        assert (unseen([bought(shown_before=None)], lines) == []) is is_shown


def test_the_purchases_that_are_not_shown_are_the_latest():
    own = [bought(NOW + 10 * number) for number in range(5)]
    lines = parse_ledger([entry(2, at=NOON + timedelta(seconds=10 * number)) for number in range(3)])
    assert unseen(reversed(own), lines) == own[3:]


def test_a_credit_shows_no_purchase():
    assert unseen([bought()], parse_ledger([entry(2, kind="credit")])) == [bought()]


MOMENTS = st.integers(0, 20).map(lambda steps: NOW + 30 * steps)


@given(own=st.lists(MOMENTS, max_size=6), shown=st.lists(MOMENTS, max_size=6))
def test_as_many_purchases_are_seen_as_can_be(own, shown):
    lines = parse_ledger([entry(2, at=datetime.fromtimestamp(at, UTC)) for at in shown])
    free, seen = sorted(shown), 0
    for at in sorted(own):  # the earliest takes the earliest that will do for it, which is the other way round
        if fitting := [other for other in free if other >= at - CLOCKS_DIFFER]:
            free.remove(fitting[0])
            seen += 1
    assert len(own) - len(unseen([bought(at) for at in own], lines)) == seen


# What a limit leaves ------------------------------------------------------------------------------------


def test_without_limits_everything_may_be_bought_unlisted_models_too():
    assert Budget(Limits()).refusal(estimate(None), NOW) is None
    assert Budget(Limits()).refusal(estimate(10_000), NOW) is None


def test_the_last_credit_may_be_spent_and_not_one_more():
    budget = noted(Limits(per_day=5.0), [entry(3)])
    assert budget.refusal(estimate(2), NOW) is None
    assert isinstance(budget.refusal(estimate(2.1), NOW), BudgetExceeded)


def test_sums_of_tenths_reach_a_limit_exactly():
    budget = Budget(Limits(per_day=0.6 * 10))
    bought = 0
    while budget.refusal(estimate(0.6), NOW) is None:
        budget.spend(0.6, NOW)
        bought += 1
    assert bought == 10


def test_a_limit_of_nothing_lets_nothing_be_bought():
    assert budget_says(Limits(per_day=0.0), estimate(0.6)) == ("credits_per_day",)


def test_a_reserve_is_kept_and_one_of_nothing_keeps_the_account_from_running_dry():
    for reserve, headroom_left in ((10.0, 5.0), (0.0, 15.0)):
        budget = noted(Limits(reserve=reserve), used=85)
        assert budget.refusal(estimate(headroom_left), NOW) is None
        assert budget.refusal(estimate(headroom_left + 0.1), NOW).limits == ("credits_reserve",)


def test_a_reserve_without_a_quota_leaves_nothing():
    assert budget_says(Limits(reserve=1.0), estimate(0.6)) == ("credits_reserve",)


def budget_says(limits, wanted):
    refusal = Budget(limits).refusal(wanted, NOW)
    return refusal.limits if refusal else None


def test_every_limit_that_leaves_too_little_is_named():
    budget = noted(Limits(per_day=3.0, per_month=50.0, reserve=10.0, per_task=7.0), [entry(49)], used=95)
    assert budget.refusal(estimate(2, 2, 2), NOW).limits == (
        "credits_per_day",
        "credits_per_month",
        "credits_reserve",
    )


def test_a_refusal_says_what_was_requested_what_is_left_when_it_begins_anew_and_where_it_is_set():
    refusal = noted(Limits(per_day=50.0), [entry(49.6)]).refusal(estimate(2), NOW)
    assert refusal.message == (
        "The picture costs 2 AI credits as listed, which is over a limit, so it was not bought. The limit "
        "credits_per_day leaves 0.4 of 50, since the account has spent 49.6 today. It begins anew at 2026-11-29 "
        "00:00 UTC. It is set in the connection. Then clear the task."
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
    refusal = Budget(Limits(per_month=0.0)).refusal(estimate(), now.timestamp())
    assert f"anew at {anew} UTC" in refusal.message


def test_a_model_without_a_listed_price_is_refused_for_good_where_a_limit_is_set():
    request = ImageRequest(prompt="A lamp", model="newer", allow_unlisted=True)
    for limits in (Limits(per_day=9.0), Limits(reserve=0.0), Limits(per_task=9.0)):
        refusal = Budget(limits).refusal(CostEstimate((request,)), NOW)
        assert isinstance(refusal, RequestInvalid)
        assert "'newer'" in refusal.message


def test_a_lot_costs_what_its_pictures_cost():
    requests = tuple(ImageRequest(prompt="A lamp", model=model) for model in MODELS)
    assert (CostEstimate(requests).price, CostEstimate(requests).model, CostEstimate(requests[:1]).model) == (
        20.6,
        "several",
        "seedream3.0",
    )
    assert CostEstimate(()).price == 0


@pytest.mark.parametrize(
    ("limits", "need_ledger", "need_quota", "are_set"),
    [
        (Limits(), False, False, False),
        (Limits(per_day=0.0), True, False, True),
        (Limits(per_month=0.0), True, False, True),
        (Limits(reserve=0.0), False, True, True),
        (Limits(per_task=0.0), False, False, True),
        (Limits(1.0, 2.0, 3.0, 4.0), True, True, True),
    ],
)
def test_ledger_and_quota_are_asked_only_where_a_limit_needs_them_and_a_limit_of_nothing_is_one(
    limits, need_ledger, need_quota, are_set
):
    assert (limits.need_ledger, limits.need_quota, limits.are_set) == (need_ledger, need_quota, are_set)


def test_limits_are_those_of_the_connection_and_that_of_the_task():
    settings = ConnectionSettings(api_key="k", credits_per_day=1.0, credits_per_month=2.0, credits_reserve=3.0)
    assert Limits.from_settings(settings, per_task=4.0) == Limits(
        per_day=1.0, per_month=2.0, reserve=3.0, per_task=4.0
    )
    assert Limits.from_settings(ConnectionSettings(api_key="k")) == Limits()


def test_what_a_lot_costs_is_said_with_its_number():
    assert str(estimate(0.6)) == "The picture costs 0.6 AI credits as listed"
    assert str(estimate(2, 0.6)) == "The 2 pictures cost 2.6 AI credits as listed"
    assert str(estimate(*[2] * 1_000)) == "The 1,000 pictures cost 2,000 AI credits as listed"
    assert str(estimate(None)) == "The picture costs an unknown number of AI credits as listed"


def test_prices_of_tenths_add_up_without_dust():
    assert estimate(*[0.6] * 3).price == 1.8
    assert estimate(2, None).price is None


def test_the_models_without_a_price_are_named_once_each():
    requests = (Wanted(None, "newest"), Wanted(2.0), Wanted(None, "new"), Wanted(None, "newest"))
    assert CostEstimate(requests).unlisted == ["new", "newest"]


@pytest.mark.parametrize(
    ("number", "reported"),
    [
        (None, "an unknown number of"),
        (0, "0"),
        (0.6, "0.6"),
        (2.0, "2"),
        (1_234.56, "1,234.56"),
        (0.1 + 0.2, "0.3"),
        (0.125, "0.125"),
    ],
)
def test_credits_are_shown_to_the_millionth(number, reported):
    assert format_credits(number) == reported


def test_a_limit_that_is_exceeded_leaves_nothing_and_not_less():
    assert str(Headroom("credits_per_day", -3.0, "of 5", "Wait.")) == "0 of 5"
    assert str(Headroom("credits_per_day", 3.5, "of 5", "Wait.")) == "3.5 of 5"
    refusal = noted(Limits(per_day=5.0), [entry(9)]).refusal(estimate(2), NOW)
    assert refusal.left == 0
    assert "leaves 0 of 5" in refusal.message


def test_each_limit_says_what_it_leaves_of_what_and_when_there_will_be_more():
    budget = noted(Limits(50.0, 60.0, 70.0, 8.0), [entry(3)], used=20, this_task=1.5)
    assert [
        (headroom_left.limit, headroom_left.left, str(headroom_left), headroom_left.remedy)
        for headroom_left in budget.headroom(NOW)
    ] == [
        (
            "max_credits",
            6.5,
            "6.5 of 8, since this task has spent 1.5",
            "Raise or remove max_credits of the task.",
        ),
        (
            "credits_per_day",
            47,
            "47 of 50, since the account has spent 3 today",
            "It begins anew at 2026-11-29 00:00 UTC. It is set in the connection.",
        ),
        (
            "credits_per_month",
            57,
            "57 of 60, since the account has spent 3 this month",
            "It begins anew at 2026-12-01 00:00 UTC. It is set in the connection.",
        ),
        (
            "credits_reserve",
            10,
            "10 above it: the account has 80 left, of which 70 are reserved",
            "There is more when the account gets credits. It is set in the connection.",
        ),
    ]
    assert list(Budget(Limits()).headroom(NOW)) == []


def test_a_refusal_names_the_tightest_headroom_and_all_limits_that_are_too_small():
    budget = noted(Limits(50.0, 60.0, 70.0, 8.0), [entry(48)], used=20, this_task=1.5)
    refusal = budget.refusal(estimate(2, 4, 2), NOW)
    assert refusal.limits == ("max_credits", "credits_per_day")
    assert (refusal.asked, refusal.left) == (8, 2)
    assert refusal.message.startswith(
        "The 3 pictures cost 8 AI credits as listed, which is over a limit, so none of these was bought. The limit "
        "max_credits leaves 6.5 of 8, since this task has spent 1.5. Raise or remove max_credits of the "
        "task. The limit credits_per_day leaves 2 of 50"
    )
    partial = budget.refusal(estimate(2, 4, 2), NOW, is_partial=True)
    assert partial.message.startswith(
        "The 3 pictures cost 8 AI credits as listed, which is over a limit: it is enough for 1. The limit "
    )


@pytest.mark.parametrize(
    ("over", "is_refused"), [(0.0, False), (1e-9, False), (1e-5, True), (0.004, True), (0.005, True), (0.1, True)]
)
def test_a_limit_that_is_below_the_price_by_less_than_any_price_has_digits_holds(over, is_refused):
    for limits in (Limits(per_day=5.0 - over), Limits(per_month=5.0 - over), Limits(per_task=5.0 - over)):
        assert (Budget(limits).refusal(estimate(5), NOW) is not None) is is_refused


def test_a_refusal_for_want_of_a_price_names_the_limits_that_are_set():
    refusal = Budget(Limits(per_day=9.0, reserve=0.0)).refusal(estimate(None), NOW)
    assert "credits_per_day and credits_reserve are set" in refusal.message
    assert refusal.fields == ("model",)
    assert "max_credits is set" in Budget(Limits(per_task=9.0)).refusal(estimate(None), NOW).message
    assert "credits_per_month is set" in Budget(Limits(per_month=9.0)).refusal(estimate(None), NOW).message


@pytest.mark.parametrize(
    ("now", "day", "month"),
    [
        (
            datetime(2026, 11, 28, tzinfo=UTC),
            datetime(2026, 11, 29, tzinfo=UTC),
            datetime(2026, 12, 1, tzinfo=UTC),
        ),
        (
            datetime(2026, 12, 31, 23, tzinfo=UTC),
            datetime(2027, 1, 1, tzinfo=UTC),
            datetime(2027, 1, 1, tzinfo=UTC),
        ),
        (datetime(2027, 1, 1, tzinfo=UTC), datetime(2027, 1, 2, tzinfo=UTC), datetime(2027, 2, 1, tzinfo=UTC)),
    ],
)
def test_the_next_day_and_the_next_month_begin_at_midnight_utc(now, day, month):
    assert (next_day(now.timestamp()), next_month(now.timestamp())) == (day, month)


# What a purchase remembers of the account ----------------------------------------------------------------


def test_a_purchase_remembers_what_the_account_showed_right_before_it():
    budget = noted(Limits(per_day=50.0, reserve=0.0), [entry(2), entry(0.6)], used=7)
    assert budget.spend(2.0, NOW) == Charge(NOW, 2.0, 1, 7)
    assert Budget(Limits()).spend(2.0, NOW) == Charge(NOW, 2.0, None, None)
    assert Budget(Limits()).spend(None, NOW) == Charge(NOW, 0.0, None, None)


def test_what_an_earlier_poll_has_shown_is_not_remembered_of_a_later_one():
    budget = noted(Limits(per_day=50.0, reserve=0.0), [entry(2)], used=7)
    budget.update(quota=None, ledgers=[], now=NOW)
    assert budget.spend(2.0, NOW) == Charge(NOW, 2.0, None, None)


def test_a_purchase_counts_for_every_limit_until_it_is_given_back():
    budget = noted(Limits(50.0, 60.0, 0.0, 8.0), [entry(3)], used=20, this_task=1.5)
    purchase = budget.spend(2.0, NOW)
    assert (budget.today, budget.this_month, budget.this_task, budget.left) == (5, 5, 3.5, 78)
    budget.refund(purchase)
    assert (budget.today, budget.this_month, budget.this_task, budget.left) == (3, 3, 1.5, 80)


def test_a_purchase_is_given_back_to_the_task_although_it_is_not_remembered_for_the_account_any_longer():
    budget = noted(Limits(per_task=8.0))
    purchase = budget.spend(2.0, NOW)
    budget.update(quota=None, ledgers=[], now=NOW + COUNTED_FOR + 1)
    budget.refund(purchase)
    assert (budget.own, budget.this_task) == ([], 0)


def test_ledger_and_quota_may_be_late_by_an_hour_after_a_request_of_a_quarter_of_an_hour():
    assert (LATE_AT_MOST, SENT_WITHIN, COUNTED_FOR) == (3_600, 900, 4_500)


@pytest.mark.parametrize(("after", "is_kept"), [(4_500, True), (4_501, False), (-DAY, True), (-DAY - 1, False)])
def test_a_purchase_is_remembered_for_an_hour_and_a_quarter_and_one_that_a_clock_dated_ahead_for_a_day(
    after, is_kept
):
    assert (remembered([bought()], NOW + after) == [bought()]) is is_kept


def test_the_time_without_a_purchase_is_counted_from_the_next_one_and_not_from_one_ahead():
    own = [bought(NOW - 6_500), bought(NOW - 2_000), bought(NOW + 1_000)]
    assert remembered(own, NOW) == own
    assert remembered([bought(NOW - 6_501), *own[1:]], NOW) == own[1:]


@pytest.mark.parametrize("skew", [2 * 3_600.0, -2 * 3_600.0, 20 * 3_600.0, -20 * 3_600.0])
def test_a_date_header_that_is_wrong_at_times_makes_no_purchase_forgotten(skew):
    budget = Budget(Limits(per_day=10.0))
    bill = 0.0
    for number in range(20):
        budget.update(quota=None, ledgers=[[]], now=NOW + number, skew=skew if number % 2 else 0.0)
        if budget.refusal(estimate(2), NOW + number) is None:
            budget.spend(2, NOW + number)
            bill += 2
    assert bill == 10


def test_a_clock_of_this_machine_that_is_set_right_makes_no_purchase_forgotten():
    for wrong_by in (-7_200.0, 7_200.0):
        budget = Budget(Limits(per_day=10.0))
        budget.update(quota=None, ledgers=[[]], now=NOW + wrong_by, skew=-wrong_by)
        budget.spend(8, NOW + wrong_by)
        budget.update(quota=None, ledgers=[[]], now=NOW + 60, skew=0.0)
        assert budget.refusal(estimate(2), NOW + 60) is None
        assert budget.refusal(estimate(4), NOW + 60) is not None


def test_nothing_is_bought_under_a_limit_if_the_clocks_move_apart_by_more_than_a_day():
    for first in (0.0, -40.0 * DAY):
        budget = Budget(Limits(per_day=10.0))
        budget.update(quota=None, ledgers=[[]], now=NOW, skew=first)
        for skew in (first + DAY + 1, first - DAY - 1, -56 * 365 * DAY):
            with pytest.raises(Unavailable, match=r"moved apart by [\d,]+ days"):
                budget.update(quota=None, ledgers=[[]], now=NOW, skew=skew)
        budget.update(quota=None, ledgers=[[]], now=NOW, skew=first + DAY)


def test_purchases_of_the_same_moment_keep_their_order():
    own = [bought(used_before=1.0), bought(used_before=2.0), bought(used_before=3.0)]
    assert remembered(own, NOW) == own


def test_what_was_used_is_at_least_what_it_was_before_a_purchase_with_all_that_was_bought_since():
    own = [bought(NOW - 30, 4.0, used_before=50.0), bought(NOW - 20, 2.0), bought(NOW - 10, 0.6, used_before=51.0)]
    for used, left in ((0, 43.4), (56.6, 43.4), (56.7, 43.3), (90, 10)):
        assert noted(Limits(reserve=0.0), used=used, own=own).left == pytest.approx(left)


# A ledger that is late -----------------------------------------------------------------------------------


def test_what_is_bought_counts_at_once_although_the_ledger_does_not_say_it_yet():
    budget = Budget(Limits(per_day=5.0))
    for _ in range(2):
        budget.update(quota=None, ledgers=[[]], now=NOW)
        assert budget.refusal(estimate(2), NOW) is None
        budget.spend(2, NOW)
    budget.update(quota=None, ledgers=[[]], now=NOW)
    assert budget.refusal(estimate(2), NOW).left == 1


def test_what_the_ledger_says_later_is_not_counted_twice():
    assert noted(Limits(per_day=10.0), [entry(2), entry(2)], own=[bought()] * 2).today == 4


def test_what_others_have_spent_before_counts_together_with_ones_own_that_the_ledger_does_not_show():
    earlier = entry(2, at=NOON - timedelta(minutes=5))
    assert noted(Limits(per_day=10.0), [earlier, entry(9)], own=[Charge(NOW, 2.0)]).today == 13


def test_after_its_time_a_purchase_is_taken_to_be_in_the_ledger_and_a_clock_that_was_far_ahead_is_forgotten():
    for at, counts in (
        (NOW - COUNTED_FOR, 2),
        (NOW - COUNTED_FOR - 1, 0),
        (NOW + DAY, 2),
        (NOW + 40 * DAY, 0),
    ):
        assert noted(Limits(per_day=10.0), [], own=[Charge(at, 2.0)]).today == counts


def test_what_was_bought_shortly_before_midnight_and_is_not_shown_may_be_billed_after_it():
    midnight = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
    limits = Limits(per_day=9.0, per_month=9.0)
    for ago, counts in ((COUNTED_FOR, 2), (COUNTED_FOR + 1, 0)):
        budget = noted(limits, [], [], own=[bought(midnight + 60 - ago)], now=midnight + 60)
        assert (budget.today, budget.this_month) == (counts, counts)
    shown = entry(2, at=datetime.fromtimestamp(midnight - 10, UTC))
    assert noted(limits, [], [shown], own=[bought(midnight - 20)], now=midnight + 60).today == 0


def test_a_quota_that_is_late_or_flaps_does_not_give_back_what_was_bought():
    budget = Budget(Limits(reserve=0.0))
    for used in (90, 90, 85, 98, 90):
        budget.update(quota=quota(used), ledgers=[], now=NOW)
        if used == 90 and budget.left == 10:
            budget.spend(8, NOW)
        assert budget.left == 2


def test_a_quota_that_may_not_count_what_was_bought_before_counts_it_besides():
    assert noted(Limits(reserve=0.0), used=90, own=[Charge(NOW - 60, 4.0)]).left == 6


def test_a_limit_that_is_raised_leaves_headroom_at_once_and_credits_that_come_back_do_later():
    budget = noted(Limits(reserve=0.0), used=98)
    budget.spend(2, NOW)
    budget.update(quota=quota(98, limit=200), ledgers=[], now=NOW)
    assert budget.left == 100
    budget.update(quota=quota(0, limit=200), ledgers=[], now=NOW + COUNTED_FOR)
    assert budget.left == 100
    budget.update(quota=quota(0, limit=200), ledgers=[], now=NOW + COUNTED_FOR + 1)
    assert budget.left == 200


def test_a_buyer_remembers_back_to_a_long_time_without_a_purchase():
    minutes = [0, 30, 110, 180, 200]
    own = [bought(NOW + 60 * minute) for minute in minutes]
    assert remembered(own, NOW + 60 * 201) == own[2:]
    assert remembered(own, NOW + 60 * 276) == []
    assert remembered(own[::-1], NOW + 60 * 110) == own[2:]


def test_a_reserve_holds_over_runs_that_are_most_of_an_hour_apart_with_a_quota_that_is_late():
    plan, reserve, late = 1_000.0, 400.0, 30 * 60
    billed: list[Charge] = []
    for minute in (0, 55, 80):
        now = NOW + 60 * minute
        budget = Budget(Limits(reserve=reserve), own=billed)  # of another run of the same buyer
        reported = sum(each.price for each in billed if each.at <= now - late)
        for _ in range(150):
            budget.update(quota=quota(reported, plan), ledgers=[], now=now)
            if budget.refusal(estimate(2), now) is None:
                billed.append(budget.spend(2.0, now))
    assert sum(each.price for each in billed) == plan - reserve


def test_what_others_have_spent_meanwhile_is_counted_together_with_ones_own_that_the_quota_does_not_show():
    own = []
    for used, left in (
        (0, 100),
        (60, 40),
        (60, 30),
    ):  # 10 are bought; 50 by others; all show, and 10 more are bought
        budget = noted(Limits(reserve=0.0), used=used, own=own)
        assert budget.left == left
        own = [*own, budget.spend(10, NOW)]


def test_a_purchase_that_was_refused_is_given_back():
    budget = Budget(Limits(per_day=2.0, per_task=2.0, reserve=0.0))
    budget.update(quota=quota(98), ledgers=[[]], now=NOW)
    budget.refund(budget.spend(2, NOW))
    budget.update(quota=quota(98), ledgers=[[]], now=NOW)
    assert budget.refusal(estimate(2), NOW) is None
    assert budget.own == []


PRICES = st.sampled_from([0.6, 2.0, 4.0, 14.0])


@given(
    limit=st.floats(0, 60).map(lambda value: round(value, 1)),
    steps=st.lists(st.tuples(PRICES, st.integers(0, 5), st.booleans(), st.booleans()), max_size=40),
)
def test_one_buyer_never_exceeds_a_limit_however_late_the_ledger_is(limit, steps):
    """Each purchase shows in the ledger after some more of them; some are refused, and some by another run."""
    limits = Limits(per_day=limit, per_month=limit, reserve=round(60 - limit, 1), per_task=limit)
    budget, billed, visible = Budget(limits), [], 0
    for price, late, is_refused, is_another_run in steps:
        visible = max(visible, len(billed) - late)
        shown = billed[:visible]
        budget.update(quota=quota(sum(shown), 60.0), ledgers=[[entry(each) for each in shown]], now=NOW)
        if budget.refusal(estimate(price), NOW) is None:
            purchase = budget.spend(price, NOW)
            if is_refused:
                budget.refund(purchase)
            else:
                billed.append(price)
        if is_another_run:
            budget = Budget(limits, own=budget.own, this_task=budget.this_task)
    assert sum(billed) <= limit + 0.01
    budget.update(quota=None, ledgers=[[entry(each) for each in billed[:visible]]], now=NOW)
    assert budget.today == pytest.approx(sum(billed))


@given(
    others=st.lists(st.tuples(PRICES, st.sampled_from(["debit", "credit", "odd"])), max_size=20),
    price=PRICES,
    limit=st.floats(0, 50),
)
def test_what_is_let_in_leaves_the_ledger_within_the_limit(others, price, limit):
    ledger = [entry(amount, kind=kind, source="Text-to-Image") for amount, kind in others]
    budget = noted(Limits(per_day=limit), ledger)
    if budget.refusal(estimate(price), NOW) is None:
        debits = sum(amount for amount, kind in others if kind != "credit")
        credits = sum(amount for amount, kind in others if kind == "credit")
        assert max(0.0, debits - credits) + price <= limit + 0.01


@pytest.mark.parametrize(
    ("limits", "at", "seconds"),
    [
        (["credits_per_day"], "2026-11-29T00:00:05", 55),
        (["credits_per_day"], "2026-11-29T00:01:00", 0),
        (["credits_per_day"], "2026-11-28T23:59:59", 0),
        (["credits_per_month"], "2026-11-29T00:00:05", 0),
        (["credits_per_month", "credits_per_day"], "2026-12-01T00:00:20", 40),
        (["credits_per_day", "max_credits"], "2026-11-29T00:00:05", 0),
        (["credits_reserve"], "2026-12-01T00:00:20", 0),
    ],
)
def test_a_limit_that_begins_anew_within_the_minute_is_waited_for_and_no_other(limits, at, seconds):
    now = datetime.fromisoformat(at).replace(tzinfo=UTC).timestamp()
    assert Budget(Limits()).until_anew(limits, now) == seconds


def test_after_that_wait_the_new_day_counts_alone():
    midnight = datetime(2026, 11, 29, tzinfo=UTC)
    early = midnight.timestamp() + 5
    budget = Budget(Limits(per_day=2.0))
    for now, left in ((early, 0.0), (early + budget.until_anew(["credits_per_day"], early), 2.0)):
        budget.update(quota=None, ledgers=[[entry(at=midnight - timedelta(hours=1))]], now=now)
        (headroom_left,) = budget.headroom(now)
        assert headroom_left.left == left
