# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What has a batch bought? Its entries tell, each with its time and its listed price.

What they do not tell is in the header, under ``spending``: what rows of an earlier table were bought
(``dropped``), how much of all that was before the task was last cleared (``before_clear``), and what the quota
said before the batch bought anything that it may not count yet (``baseline``).
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

from pictory_provider.api.errors import Unavailable
from pictory_provider.jobs.budget import LATE_AT_MOST, Baseline, Budget, Limits
from pictory_provider.jobs.ledger import Purchase, is_number, read_purchases, total

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pictory_provider.batch.entries import Header
    from pictory_provider.batch.journal import Journal


def purchases_of(journal: Journal) -> list[Purchase]:
    """Return everything that a batch has bought, or may have bought.

    :raises Unavailable: where the record does not tell.
    """
    return [*_dropped(journal.header), *chain.from_iterable(entry.purchases for entry in journal)]


def budget_of(journal: Journal, limits: Limits, *, now: float) -> Budget:
    """Return what a batch may still spend.

    :param now: epoch seconds.
    :raises Unavailable: where the record does not tell what it has spent.
    """
    bought, spending = purchases_of(journal), journal.header.spending or {}
    before_clear = spending.get("before_clear", 0.0)
    (baseline,) = read_purchases([spending["baseline"]] if spending.get("baseline") else None) or (None,)
    if not is_number(before_clear) or bool(baseline) != bool(spending.get("baseline")):
        raise _unreadable(spending)
    return Budget(
        limits,
        own=[each for each in bought if abs(now - each.at) <= LATE_AT_MOST],
        this_task=total(bought) - before_clear,
        baseline=Baseline(*baseline) if baseline else None,
    )


def kept(
    header: Header,
    *,
    before_clear: float | None = None,
    dropped: Iterable[Purchase] = (),
    baseline: Baseline | None = None,
) -> dict[str, Any]:
    """Return what a header keeps of spending, with something changed or added."""
    spending = dict(header.spending or {})
    if before_clear is not None:
        spending["before_clear"] = before_clear
    if dropped := [*_dropped(header), *dropped]:
        spending["dropped"] = [list(each) for each in dropped]
    if baseline is not None:
        spending["baseline"] = [baseline.at, baseline.used]
    return spending


def _dropped(header: Header) -> tuple[Purchase, ...]:
    dropped = read_purchases((header.spending or {}).get("dropped"))
    if dropped is None:
        raise _unreadable(header.spending)
    return dropped


def _unreadable(spending: dict[str, Any] | None) -> Unavailable:
    return Unavailable(
        "What this batch has spent cannot be read from its record, so nothing is bought by this try. Was it "
        f"changed by hand? It reads {str(spending)[:200]}, under `spending` in batch.json."
    )
