# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""How far is it? The counts of a batch, as they go to the XCom ``progress`` and to the log."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pictory_provider.api.timing import TIMING
from pictory_provider.batch.decision import Place

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pictory_provider.batch.decision import Picture
    from pictory_provider.batch.plan import Plan


def progress(plan: Plan) -> dict[str, Any]:
    """Return the progress of a batch: plain JSON.

    Every row is in exactly one count, and they add up to ``of``:

    ==============  =====================================================================
    ``to_do``       is to be bought
    ``waiting``     is bought, and its picture is not in its place yet
    ``saved``       bought by this batch, and saved
    ``reused``      was there already, and cost nothing
    ``failed``      was refused or has failed, or could not be saved
    ``unknown``     may or may not have been bought
    ``not_bought``  is not bought by this try: purchases were stopped
    ==============  =====================================================================

    ``ai_credits_used`` are those that Pictory names for what is saved.
    """
    return as_json(plan.of, plan.counts, plan.pictures)


def as_json(of: int, counts: Mapping[Place, int], pictures: Iterable[Picture]) -> dict[str, Any]:
    """Return the progress as plain JSON."""
    used = math.fsum(picture.ai_credits_used or 0.0 for picture in pictures)
    return {"of": of, **{place.value: counts.get(place, 0) for place in Place}, "ai_credits_used": round(used, 2)}


def line(now: Mapping[str, Any]) -> str:
    """Return a progress in one line of a log. What is nought is left out."""
    told = [f"{now[place.value]:,} {_WORDS[place]}" for place in Place if now[place.value]]
    return f"{now['of']:,} pictures: {', '.join(told) or 'none'}; {now['ai_credits_used']:g} AI credits used"


def is_worth_telling(last: Mapping[str, Any] | None, now: Mapping[str, Any], *, seconds: float) -> bool:
    """Whether a progress is to be reported again.

    :param last: what was reported; ``None`` for nothing yet.
    :param seconds: since then.
    """
    return last is None or (last != now and seconds >= TIMING.progress_interval)


_WORDS = {
    Place.TO_DO: "to do",
    Place.WAITING: "waiting",
    Place.SAVED: "saved",
    Place.REUSED: "reused",
    Place.FAILED: "failed",
    Place.UNKNOWN: "unknown",
    Place.NOT_BOUGHT: "not bought",
}
