# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Decide which errors stop a batch from buying more: those that do not depend on the row that raised them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pictory_provider.api.errors import (
    KINDS,
    TOP_UP,
    EdgeBlocked,
    ImageInvalid,
    PictoryError,
    RequestInvalid,
    StorageFailed,
    Unavailable,
    lacks_credits,
)
from pictory_provider.api.text import counted
from pictory_provider.core.budget import CostEstimate, format_credits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pictory_provider.core.batch.decision import Decision
    from pictory_provider.core.batch.rows import Row

UNSAVED = 8
"""How many pictures in a row may fail to be fetched or saved before a batch buys no more."""
_ROW_AT_FAULT = (400, 413, 414, 422, 431)
"""Refusals that concern the request itself, so another row's request may be accepted."""
_SHOWN = 10
"""How many rows an error names."""


def trips_breaker(error: PictoryError) -> bool:
    """Whether an error that bought nothing means that the next row would fail too.

    Too few credits are reported by status 402, or by the code of another refusal.
    """
    if isinstance(error, RequestInvalid):
        return error.status not in (None, *_ROW_AT_FAULT) or lacks_credits(error.status, error.code)
    return True


def no_credits(code: str, message: str) -> RequestInvalid:
    """Return the reason to stop after a job has failed for lack of credits."""
    return RequestInvalid(
        f"The account has too few AI credits left for this picture: {message.rstrip('.')}. {TOP_UP}", code=code
    )


def to_dict(error: PictoryError) -> dict[str, Any]:
    """Return a reason to stop as the JSON in the journal's header."""
    return {"kind": type(error).__name__, "message": error.message, "code": getattr(error, "code", None)}


def from_dict(value: Mapping[str, Any]) -> PictoryError:
    """Return the reason to stop from the header. A class that this release does not know becomes PictoryError."""
    message, code = str(value.get("message")), value.get("code")
    if value.get("kind") == RequestInvalid.__name__:
        return RequestInvalid(message, code=code if isinstance(code, str) else None)
    return KINDS.get(str(value.get("kind")), PictoryError)(message)


ROW_INVALID = RequestInvalid.__name__
"""The code of a row that is left out because it cannot be bought as it is."""


def code_of(error: BaseException) -> str:
    """Return the code of an error: Pictory's code, or the name of its class."""
    return getattr(error, "code", None) or type(error).__name__


def not_saved(code: str, message: str) -> PictoryError:
    """Return the reason to stop after paid pictures could not be fetched or saved.

    Airflow retries a task after this error, since a retry buys none of these again and may save them.

    :param code: of the last one: the name of an error's class.
    """
    kind = KINDS.get(code, Unavailable)
    if kind not in (StorageFailed, ImageInvalid, EdgeBlocked):
        kind = Unavailable  # because Airflow's retry line for a running job would say that nothing is bought
    return kind(
        f"{UNSAVED} pictures in a row could not be fetched or saved, so no more are bought: the cause is likely "
        f"to affect the next ones too. The last error: {message} The paid pictures are on record: a retry saves "
        "them and buys none of them again. It buys others only after a picture is saved; if none is left to save, "
        "it buys a single one as a test. If these pictures will never be saved, clear the task: it then buys the "
        "others right away, and again those that Pictory no longer has."
    )


def places_taken(
    refused: Sequence[Row], decisions: Mapping[str, Decision], *, missing: Sequence[Row], rows: Sequence[Row]
) -> RequestInvalid:
    """Return the reason to stop if rows' places are taken by files that are not replaced without ``overwrite``.

    :param missing: the rows that are still to be bought, apart from those that are refused.
    :param rows: all of the table.
    """
    lines = [f"\n    {row.label}, {row.file_name}: {decisions[row.key].message}." for row in refused[:_SHOWN]]
    if len(refused) > _SHOWN:
        lines.append(f"\n    and {len(refused) - _SHOWN:,} more.")
    names = "file name" if len(refused) == 1 else "file names"
    besides = f", {len(missing):,} of them without a picture so far" if missing else ""
    few = f"which buys {_cost([*refused, *missing])}{besides}"
    ways = [
        f"move the existing files away, each picture with its .json, or rename these pictures, and clear, {few}",
        f"set overwrite=True and clear the task, which buys {_cost(rows)}, to replace them all",
    ]
    if all(decisions[row.key].is_changed for row in refused):
        ways.insert(0, f'set overwrite="changed" and clear the task, {few}, and replaces the pictures')
    numbered = [f"({number}) {way}" for number, way in enumerate(ways, 1)]
    return RequestInvalid(
        f"The {names} of {len(refused):,} of {counted(len(rows), 'row')} {'is' if len(refused) == 1 else 'are'} "
        "taken by something else, such as the picture of another request. Nothing more was sent, and what was "
        f"paid for is saved. There are {len(ways)} solutions, with their listed cost: {'; '.join(numbered)}. A "
        "folder, and a sidecar that cannot be read, are never replaced: move them away." + "".join(lines),
        fields=["path", "file_name"],
    )


def _cost(rows: Sequence[Row]) -> str:
    price = format_credits(CostEstimate(tuple(row.request for row in rows)).price)
    return f"{counted(len(rows), 'row')} for {price} AI credits"
