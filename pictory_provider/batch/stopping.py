# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What stops purchases? Errors that have nothing to do with the row that met them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pictory_provider.api.errors import (
    KINDS,
    EdgeBlocked,
    ImageInvalid,
    PictoryError,
    RequestInvalid,
    StorageFailed,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pictory_provider.batch.decision import Decision
    from pictory_provider.batch.rows import Row

UNSAVED = 8
"""Pictures in a row that could not be fetched or saved, after which no more are bought."""
_ROW_AT_FAULT = (400, 413, 414, 422, 431)
"""Refusals that speak of the request itself, so that another row's may be taken."""
_SHOWN = 10
"""How many rows an error names."""


def stops_buying(error: PictoryError) -> bool:
    """Whether an error that bought nothing says that the next row would fare no better.

    Where Pictory has no credits left may be told by a 402, or by the code of another refusal.
    """
    if isinstance(error, RequestInvalid):
        return error.status not in (None, *_ROW_AT_FAULT) or lacks_credits(error.code)
    return True


def lacks_credits(code: str | None) -> bool:
    """Whether a code of Pictory, of a refusal or of a failed job, says that there are too few credits."""
    return code is not None and "CREDIT" in code.upper()


def no_credits(code: str, message: str) -> RequestInvalid:
    """Return the reason to stop where a job has failed for want of credits."""
    return RequestInvalid(f"Pictory has too few AI credits: {message}", code=code)


def plain(error: PictoryError) -> dict[str, Any]:
    """Return a reason to stop as the JSON that is kept in the header."""
    return {"kind": type(error).__name__, "message": error.message, "code": getattr(error, "code", None)}


def read(kept: Mapping[str, Any]) -> PictoryError:
    """Return the reason to stop that is kept. A class that this room does not know is the root of the tree."""
    message, code = str(kept.get("message")), kept.get("code")
    if kept.get("kind") == RequestInvalid.__name__:
        return RequestInvalid(message, code=code if isinstance(code, str) else None)
    return KINDS.get(str(kept.get("kind")), PictoryError)(message)


def code_of(error: PictoryError) -> str:
    """Return what an error is called: Pictory's code, or the name of its class."""
    return getattr(error, "code", None) or type(error).__name__


def not_saved(code: str, message: str) -> PictoryError:
    """Return the reason to stop where pictures that are paid for cannot be fetched or saved.

    It is an error after which Airflow tries again, since a retry buys none of these again and may save them.

    :param code: of the last one: the name of an error's class.
    """
    kind = KINDS.get(code, Unavailable)
    if kind not in (StorageFailed, ImageInvalid, EdgeBlocked):
        kind = Unavailable  # of a job that runs on, Airflow's retry line would say that nothing is bought
    return kind(
        f"{UNSAVED} pictures in a row could not be fetched or saved, so no more are bought: what is wrong with "
        f"these is likely to be wrong with the next. The last: {message} What is paid for is on record: a retry "
        "saves it and buys none of it again. It buys others only after a picture is saved; if none is left that "
        "could be, it buys one alone, to see. If those will never be saved, clear the task: it buys the others at "
        "once, and again those that Pictory does not have any more."
    )


def places_taken(rows: Sequence[Row], ends: Mapping[str, Decision]) -> RequestInvalid:
    """Return the reason to stop where rows' places are taken by what nobody may replace unasked."""
    told = [f"    {row.label}, {row.file_name}: {ends[row.key].message}." for row in rows[:_SHOWN]]
    if len(rows) > _SHOWN:
        told.append(f"    and {len(rows) - _SHOWN:,} more.")
    return RequestInvalid(
        f"In the places of {len(rows):,} rows lies something else. Nothing more was sent, and what was paid for "
        "is saved. Give those pictures other names or another folder, or set overwrite=True to replace what lies "
        "there. A folder, and a sidecar that cannot be read, are never replaced: move them away.\n"
        + "\n".join(told),
        fields=["path", "file_name"],
    )
