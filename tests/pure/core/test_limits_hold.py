# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Limits hold over any history, with an account whose ledger is late and that others use too."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pictory_provider.api.models import Quota
from pictory_provider.core.batch.journal import Entry
from pictory_provider.core.budget import COUNTED_FOR, SENT_WITHIN, Budget, CostEstimate, Limits
from pictory_provider.core.submission import Submission
from tests.pure.core.batch.tables import rows_of

if TYPE_CHECKING:
    from pictory_provider.core.ledger import Charge

PAGE = Path(__file__).resolve().parents[3] / "docs" / "costs.md"
(FORMULA,) = re.findall(r"<!-- the test evaluates this -->\n```text\n(.*?)```", PAGE.read_text(), re.DOTALL)
NOON = datetime(2026, 11, 28, 12, tzinfo=UTC).timestamp()
EVENING = datetime(2026, 11, 28, 22, 30, tzinfo=UTC).timestamp()
LAST_EVENING = datetime(2026, 11, 30, 22, 30, tzinfo=UTC).timestamp()
HOUR = 3_600.0
PLAN = 1_000_000.0
PRICES = {"flux-schnell": 0.6, "seedream3.0": 2.0, "nanobanana": 4.0}


class Bill(NamedTuple):
    """A charge of the account for a picture.

    :param at: when it was bought; epoch seconds.
    :param dated: what its entry in the ledger says.
    :param shown_at: from when on ledger and quota show it.
    """

    at: float
    amount: float
    dated: float
    shown_at: float
    by: str


@dataclass
class Account:
    """An account, and what its ledger and quota show.

    :param delay: the longest time until a bill is shown.
    """

    delay: float
    bills: list[Bill] = field(default_factory=list)

    def charge(self, by, amount, at, *, runs, late):
        self.bills.append(Bill(at, amount, at + runs, at + max(runs, late), by))

    def ledger(self, now):
        return [
            {
                "transactionId": str(number),
                "type": "debit",
                "amount": bill.amount,
                "source": "Text-to-Image",
                "transactionDate": datetime.fromtimestamp(bill.dated, UTC).isoformat(),
            }
            for number, bill in enumerate(self.bills)
            if bill.shown_at <= now
        ]

    def quota(self, now):
        used = sum(bill.amount for bill in self.bills if bill.shown_at <= now)
        return Quota(ai_credits_used=used, ai_credits_limit=PLAN, raw={})

    def spent(self, limit, now):
        """Return what counts against a limit, whatever is shown."""
        at = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        since = {
            "credits_per_day": at.timestamp(),
            "credits_per_month": at.replace(day=1).timestamp(),
            "credits_reserve": float("-inf"),
        }[limit]
        return sum(bill.amount for bill in self.bills if bill.dated >= since)

    def bound(self, me, now):
        """Return by how much the page says that a buyer may exceed a limit."""
        mine = [bill.at for bill in self.bills if bill.by == me]
        first = now
        for at in sorted(mine, reverse=True):
            if first - at > COUNTED_FOR:
                break
            first = at
        others = (bill.amount for bill in self.bills if bill.by != me and bill.at >= first - self.delay)
        recent = (bill.amount for bill in self.bills if bill.at >= now - self.delay)
        return eval(  # it is our own page
            FORMULA,
            {},
            {
                "bought_by_others_since_it_began": sum(others),
                "bought_by_all_within_a_delay": sum(recent),
                "min": min,
            },
        )


class Wanted(NamedTuple):
    """A request, as far as a cost estimate needs it."""

    credits: float
    model: str = "seedream3.0"


def limits_of(name, amount):
    return {
        "credits_per_day": Limits(per_day=amount),
        "credits_per_month": Limits(per_month=amount),
        "credits_reserve": Limits(reserve=PLAN - amount),
    }[name]


class Buyer:
    """A task that keeps what its record keeps, and may continue on another worker from that alone."""

    def __init__(self, name, limits, *, keeps=lambda purchases: purchases, offset=0.0):
        self.name = name
        self.limits = limits
        self.bought: list[Charge] = []
        self.budget = Budget(limits)
        self._keeps = keeps
        self.offset = offset
        """Seconds by which the clock of the machine is ahead of the account's."""

    def go_on_elsewhere(self):
        self.budget = Budget(self.limits, own=self._keeps(self.bought))

    def poll(self, account, now):
        self.budget.update(
            quota=account.quota(now) if self.limits.need_quota else None,
            ledgers=[account.ledger(now)] if self.limits.need_ledger else [],
            now=now + self.offset,
            skew=-self.offset,
        )

    def buy(self, account, prices, now, *, sent_after=0.0, **more):
        """Check the limits for some pictures, and buy them if allowed.

        :param sent_after: seconds from the check until they are charged.
        """
        self.poll(account, now)
        if self.budget.refusal(CostEstimate(tuple(map(Wanted, prices))), now + self.offset):
            return False
        for number, price in enumerate(prices):
            self.bought.append(self.budget.spend(price, now + self.offset + number / 100))
            account.charge(self.name, price, now + number / 100 + sent_after, **more)
        return True


def through_a_submission(purchases):
    """Return purchases as a single task finds them on its record, the last one and those before it."""
    if not purchases:
        return []
    *earlier, last = purchases
    model = next(name for name, price in PRICES.items() if price == last.price)
    kept = Submission(
        max_tries=1,
        request={"prompt": "A lamp", "model": model},
        intended_at=last.at,
        shown_before=last.shown_before,
        used_before=last.used_before,
        earlier=tuple(earlier),
    ).to_dict()
    return Submission.from_dict(json.loads(json.dumps(kept))).purchases


@lru_cache
def row_of(prompt, model):
    (row,) = rows_of([{"prompt": prompt, "model": model}])
    return row


def through_a_batch(purchases):
    """Return purchases as a batch finds them in its entries, several of one row together."""
    entries = {}
    for number, purchase in enumerate(purchases):
        model = next(name for name, price in PRICES.items() if price == purchase.price)
        row = row_of(f"A lamp {number // 2}", model)
        entry = Entry.intent(row, purchase, tried=1, before=entries.get(row.key))
        entries[row.key] = Entry.from_dict(row.key, json.loads(json.dumps(entry.to_dict())))
    return [each for entry in entries.values() for each in entry.purchases]


RECORDS = [
    pytest.param(through_a_submission, id="of a single task"),
    pytest.param(through_a_batch, id="of a batch"),
]
LIMITS = ["credits_per_day", "credits_per_month", "credits_reserve"]
STEPS = st.lists(
    st.fixed_dictionaries(
        {
            "wait": st.sampled_from([0.0, 0.5, 5.0, 45.0, 300.0, 1_500.0, 3_500.0, 3_700.0]),
            "prices": st.lists(st.sampled_from(list(PRICES.values())), min_size=1, max_size=3),
            "by": st.sampled_from(["me", "me", "me", "others", "a second buyer"]),
            "late": st.floats(0, 1),
            "runs": st.sampled_from([0.0, 0.0, 0.3, 1.0]),
            "elsewhere": st.booleans(),
        }
    ),
    max_size=40,
)
HISTORY = {
    "limit": st.sampled_from(LIMITS),
    "amount": st.sampled_from([0.0, 5.0, 12.0, 40.0]),
    "steps": STEPS,
    "delay": st.sampled_from([0.0, 3.0, 15.0, 90.0, 1_800.0, HOUR]),
    "begin": st.sampled_from([NOON, EVENING, LAST_EVENING]),
}


@pytest.mark.parametrize("keeps", RECORDS)
@given(**HISTORY)
def test_however_a_history_is_split_what_is_left_is_that_of_one_budget_that_lived_throughout(
    keeps, limit, amount, steps, delay, begin
):
    account, now = Account(delay), begin
    throughout, split = Buyer("me", limits_of(limit, amount)), Buyer("me", limits_of(limit, amount), keeps=keeps)
    for step in steps:
        now += step["wait"]
        if step["by"] != "me":
            account.charge("others", step["prices"][0], now, runs=0, late=step["late"] * delay)
            continue
        if step["elsewhere"]:
            split.go_on_elsewhere()
        split.poll(account, now)
        if throughout.buy(account, step["prices"], now, runs=0, late=step["late"] * delay):
            now = account.bills[-1].at
            split.bought += [
                split.budget.spend(each.price, each.at) for each in throughout.bought[-len(step["prices"]) :]
            ]
        assert split.bought == throughout.bought
        for one, other in zip(split.budget.headroom(now), throughout.budget.headroom(now), strict=True):
            assert one.left == pytest.approx(other.left)


@given(**HISTORY)
def test_what_is_billed_exceeds_no_limit_by_more_than_the_docs_say(limit, amount, steps, delay, begin):
    account, now = Account(delay), begin
    buyers = {
        name: Buyer(name, limits_of(limit, amount), keeps=through_a_batch) for name in ("me", "a second buyer")
    }
    for step in steps:
        now += step["wait"]
        more = {"runs": step["runs"] * delay, "late": step["late"] * delay}
        if step["by"] == "others":
            account.charge("others", step["prices"][0], now, **more)
            continue
        buyer = buyers[step["by"]]
        if step["elsewhere"]:
            buyer.go_on_elsewhere()
        if buyer.buy(account, step["prices"], now, **more):
            now = account.bills[-1].at
            assert account.spent(limit, now) <= amount + account.bound(step["by"], now) + 0.01


@given(**HISTORY, sent_after=st.sampled_from([0.0, 0.0, 20.0, SENT_WITHIN]))
def test_one_buyer_alone_exceeds_no_limit(limit, amount, steps, delay, begin, sent_after):
    account, now, buyer = Account(delay), begin, Buyer("me", limits_of(limit, amount), keeps=through_a_batch)
    for step in steps:
        now += step["wait"]
        if step["elsewhere"]:
            buyer.go_on_elsewhere()
        more = {"runs": step["runs"] * delay, "late": step["late"] * delay, "sent_after": sent_after}
        if buyer.buy(account, step["prices"], now, **more):
            now = account.bills[-1].at
        assert account.spent(limit, now) <= amount + 1e-5


OFFSETS = [-86_000.0, -2 * HOUR, -HOUR, -61.0, -59.0, 0.0, 59.0, 61.0, HOUR, 2 * HOUR, 86_000.0]


@given(**HISTORY, offsets=st.lists(st.sampled_from(OFFSETS), min_size=1, max_size=6))
def test_one_buyer_alone_exceeds_no_limit_on_machines_whose_clocks_are_wrong(
    limit, amount, steps, delay, begin, offsets
):
    account, now = Account(delay), begin
    buyer = Buyer("me", limits_of(limit, amount), keeps=through_a_batch, offset=offsets[0])
    for number, step in enumerate(steps):
        now += step["wait"]
        if step["elsewhere"]:
            buyer.offset = offsets[number % len(offsets)]
            buyer.go_on_elsewhere()
        if buyer.buy(account, step["prices"], now, runs=step["runs"] * delay, late=step["late"] * delay):
            now = account.bills[-1].at
        assert account.spent(limit, now) <= amount + 1e-5


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("limit", LIMITS)
def test_a_machine_whose_clock_is_wrong_still_reaches_a_limit(limit, offset):
    account, buyer = Account(0.0), Buyer("me", limits_of(limit, 10.0), offset=offset)
    for number in range(10):
        buyer.buy(account, [2.0], NOON + number, runs=0.0, late=0.0)
    assert account.spent(limit, NOON + 10) == 10.0


@given(steps=STEPS, limit=st.sampled_from(LIMITS))
def test_one_buyer_alone_reaches_each_limit_if_nothing_is_late(steps, limit):
    account, now, buyer = Account(0.0), NOON, Buyer("me", limits_of(limit, 40.0))
    for step in steps:
        now += step["wait"] / 100
        before = account.spent(limit, now)
        is_bought = buyer.buy(account, step["prices"], now, runs=0.0, late=0.0)
        assert is_bought is (before + sum(step["prices"]) <= 40.000001)
        now = account.bills[-1].at if is_bought else now


def test_a_limit_holds_together_with_entries_of_others_that_are_late():
    """Others have bought 60 credits shortly before; the ledger is 15 s late; one buyer, one picture at a time."""
    account, buyer = Account(15.0), Buyer("me", limits_of("credits_per_day", 120.0))
    for number in range(30):
        account.charge("others", 2.0, NOON - 40 + number / 10, runs=0, late=15.0)
    now = NOON
    for _ in range(200):
        buyer.buy(account, [2.0], now, runs=0, late=15.0)
        now += 0.1
    assert account.spent("credits_per_day", now) == 120.0


@pytest.mark.parametrize("limit", LIMITS)
def test_an_entry_of_a_purchase_of_more_than_an_hour_ago_is_not_taken_for_a_later_one(limit):
    """A buyer who buys every minute, with a ledger and a quota that are always just under an hour late."""
    account, buyer, now = Account(HOUR - 60), Buyer("me", limits_of(limit, 128.0), keeps=through_a_batch), NOON
    for _ in range(70):
        buyer.go_on_elsewhere()
        buyer.buy(account, [2.0], now, runs=0, late=HOUR - 60)
        now += 60
    assert account.spent(limit, now) == 128.0


def test_a_reserve_holds_together_with_others_whose_purchases_the_quota_shows():
    """Others have bought 10 credits between two purchases of one's own, a delay ago."""
    account, buyer = Account(60.0), Buyer("me", limits_of("credits_reserve", 14.0))
    buyer.buy(account, [2.0], NOON, runs=0, late=60.0)
    account.charge("others", 10.0, NOON + 1, runs=0, late=60.0)
    for second in range(100, 110):
        buyer.buy(account, [2.0], NOON + second, runs=0, late=60.0)
    assert account.spent("credits_reserve", NOON + 200) == 14.0


@pytest.mark.parametrize("limit", ["credits_per_day", "credits_per_month"])
def test_a_clock_that_is_a_little_ahead_begins_no_new_day_before_pictory_does(limit):
    midnight = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
    account, buyer = Account(0.0), Buyer("me", limits_of(limit, 1.0), keeps=through_a_batch, offset=59.0)
    account.charge("others", 0.6, midnight - HOUR, runs=0.0, late=0.0)
    reported = [buyer.buy(account, [0.6], midnight + at, runs=0.0, late=0.0) for at in (-55.0, 61.0)]
    assert reported == [False, True]
