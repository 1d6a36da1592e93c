# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What has a batch bought? Its entries tell, each with its time and its listed price.

What they do not tell is in the header, under ``spending``: what rows of an earlier table were bought
(``dropped``), and how much of all that was before the task was last cleared (``before_clear``). Version 0.1.0
wrote ``baseline`` too: what the quota said before the batch bought anything that it might not count yet.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

from pictory_provider.api.errors import Unavailable
from pictory_provider.jobs.budget import LATE_AT_MOST, Budget, Limits, remembered
from pictory_provider.jobs.ledger import Purchase, is_number, purchases_from_dict, purchases_to_dict, total

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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
    if not is_number(before_clear):
        raise _unreadable(spending)
    own = _with_baseline(remembered(bought, now), spending)
    return Budget(limits, own=own, this_task=total(bought) - before_clear)


def kept(header: Header, bought: Sequence[Purchase], dropped: Iterable[Purchase] = ()) -> dict[str, Any]:
    """Return what a header keeps of spending when a batch begins anew.

    Purchases of rows that are gone are kept for as long as they may matter for a limit of the connection.

    :param bought: everything so far (:func:`purchases_of`), which does not count for ``max_credits`` any more.
    :param dropped: those of it whose rows are about to go.
    """
    recent = set(remembered(bought, max((each.at for each in bought), default=0.0)))
    gone = [*_dropped(header), *dropped]
    left = [each for each in gone if each in recent]
    spending = {name: value for name, value in (header.spending or {}).items() if not name.startswith("dropped")}
    spending["before_clear"] = round(total(bought) - total(gone) + total(left), 6)
    return spending | purchases_to_dict("dropped", left)


def _dropped(header: Header) -> tuple[Purchase, ...]:
    dropped = purchases_from_dict("dropped", header.spending or {})
    if dropped is None:
        raise _unreadable(header.spending)
    return dropped


def _with_baseline(own: list[Purchase], spending: dict[str, Any]) -> list[Purchase]:
    """Return purchases with what version 0.1.0 knew of the quota before the first of them."""
    kept = spending.get("baseline")
    if kept is None:
        return own
    found = purchases_from_dict("baseline", {"baseline": [kept]})
    if not found:
        raise _unreadable(spending)
    ((at, used, *_),) = found
    if own and own[0].used_before is None and 0 <= own[0].at - at <= LATE_AT_MOST:
        own[0] = own[0]._replace(used_before=used)
    return own


def _unreadable(spending: dict[str, Any] | None) -> Unavailable:
    return Unavailable(
        "What this batch has spent cannot be read from its record, so nothing is bought by this try. Was it "
        f"changed by hand? It reads {str(spending)[:200]}, under `spending` in batch.json."
    )
