# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Write a batch's manifest: ``metadata.jsonl`` for the pictures, ``failed.jsonl`` for the rows without one.

Both have one line per row, in the order of the table, and every line has the same fields in the same order:
``file_name`` and ``text``, then the columns of the table as they first appear in it, then our other fields. A row
without a column has ``null`` in it. The same rows with the same outcomes give the same bytes.

Readers such as DuckDB take the type of a column from its first values, so a number that may have a fraction is
always a float: credits are ``1.0``, not ``1``. The values of the table's own columns stay as they are.

A column of the table that has the name of one of our fields, or is called ``image``, in upper or lower case, is
called ``row_<name>`` in both files and for all rows: ``size`` becomes ``row_size``. A column whose name ends in
``file_name`` or ``file_names`` gets ``_column`` at its end. Otherwise ImageFolder of ``datasets`` shows the column
in place of the pictures, or takes its values for the names of more pictures. The order of the rows does not change
these names. The columns that make up the request are not repeated: they are in our fields (``prompt`` in
``text``), or stay in the table.

With candidates, a line is about one of them, and has its number as ``candidate``. With copies, a line of
``metadata.jsonl`` has the list of their names, widths and heights as ``copies``.
"""

from __future__ import annotations

import heapq
import json
import re
from typing import TYPE_CHECKING, Any

from pictory_provider.api.decoding import number_or_none
from pictory_provider.core.batch.breaker import code_of
from pictory_provider.core.batch.decision import RowState
from pictory_provider.core.batch.plan import OVER_LIMIT, without_picture
from pictory_provider.core.batch.rows import BadRow
from pictory_provider.core.picture_names import copy_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pictory_provider.core.batch.decision import Decision
    from pictory_provider.core.batch.plan import Plan
    from pictory_provider.core.batch.rows import Row

_PICTURE = ("job_id", "model", "ai_credits_used", "width", "height", "size", "sha256")
_FAILURE = ("index", "line", "job_id", "model", "state", "code", "message", "what_to_do")
_RESERVED = {"file_name", "text", "image", *_PICTURE, *_FAILURE}
_NAMES_MORE_PICTURES = re.compile(r"(?:^|_)file_names?$")
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ufeff]")
"""Characters that some readers take for the end of a line, or do not show."""
REFUSED = "refused"
"""The ``state`` in ``failed.jsonl`` of rows that were refused before an attempt began."""
_AFTER_REFUSAL = "This attempt bought nothing. Fix the problem in the message, and clear the task."
_WHAT_TO_DO = {
    RowState.OWED: "It is paid for. A retry or a clear of the task saves it, and pays nothing for it.",
    RowState.FAILED: "Correct the row if it is at fault, and clear the task: that buys failed rows again.",
    RowState.UNKNOWN: "Look at https://app.pictory.ai for a picture of this prompt. Put its jobId into the row's "
    "record to have it saved, or clear the task to buy it.",
    RowState.NOT_BOUGHT: "Nothing was spent on it. Fix the problem in the message, and clear the task.",
    RowState.TO_DO: "Nothing was spent on it. The attempt ended before; a retry or a clear of the task buys it.",
    RowState.WAITING: "It is paid for. The attempt ended before; a retry or a clear of the task saves it, and "
    "pays nothing for it.",
}
_BAD_ROW = "Nothing was spent on it. Correct the row, and clear the task: that buys it."
_LATER = "Nothing was spent on it. The next run, or a clear of the task, buys it as far as the limits allow."
_NOT_MARKED = (
    "The existing picture could not be marked, and was not changed. The message says what you can do; clearing "
    "the task alone does not buy another."
)
_NOT_COPIED = (
    "The picture is saved. Fix the problem in the message, and clear the task, without overwrite=True: that makes "
    "the copies, for free."
)


def metadata_lines(plan: Plan) -> Iterator[str]:
    """Yield the lines of ``metadata.jsonl``: the pictures that were saved or reused."""
    names = column_names(plan)
    for row in plan.rows:
        end = plan.end_of(row)
        if end.picture is not None and end.state in (RowState.SAVED, RowState.REUSED):
            file = end.picture.file
            values = {
                **file._asdict(),
                "job_id": end.picture.job_id,
                "model": row.request.model,
                "ai_credits_used": number_or_none(file.ai_credits_used),
            }
            name = end.picture.file_name or row.file_name
            fields = {field: values[field] for field in _PICTURE}
            if plan.copies:
                made = {copy.spec: copy for copy in file.copies if copy.of == file.sha256}
                fields["copies"] = [
                    {"name": copy_name(name, spec), "width": made[spec].width, "height": made[spec].height}
                    for spec in plan.copies
                    if spec in made
                ]
            yield _line(row, name, names, fields)


def failed_lines(plan: Plan, ended_by: BaseException | None = None) -> Iterator[str]:
    """Yield the lines of ``failed.jsonl``: the rows that have no picture or lack copies, why, and what to do.

    :param ended_by: the error that ended the attempt while rows were still to be bought or saved.
    """
    names = column_names(plan)
    code, message = (None, None) if ended_by is None else _described(ended_by)
    for row, end in _incomplete(plan):
        what_to_do = _WHAT_TO_DO.get(end.state, _NOT_COPIED)
        if end.picture and end.state in _WHAT_TO_DO:
            what_to_do = _NOT_MARKED
        elif end.code == OVER_LIMIT:
            what_to_do = _LATER
        elif isinstance(row, BadRow) and end.state is RowState.FAILED:
            what_to_do = _BAD_ROW
        fields = {
            "index": row.index,
            "line": row.line,
            "job_id": end.job_id or (end.picture and end.picture.job_id),
            "model": row.model,
            "state": end.state.value,
            "code": end.code or code,
            "message": end.message or message,
            "what_to_do": what_to_do,
        }
        yield _line(row, row.file_name, names, fields)


def _incomplete(plan: Plan) -> Iterator[tuple[Row | BadRow, Decision]]:
    """Yield the rows that have no picture or lack copies, and why, in the order of the table."""
    rows = [(row, plan.not_copied[row.key][1]) for row in plan.rows if row.key in plan.not_copied]
    not_copied = (
        (row, plan.end_of(row)._replace(code=code_of(error), message=error.message)) for row, error in rows
    )
    return heapq.merge(without_picture(plan), not_copied, key=lambda each: each[0].index or 0)


def refusal_lines(error: BaseException) -> Iterator[str]:
    """Yield the lines of ``failed.jsonl`` of an attempt that was refused: one per bad row, or a single one."""
    code, message = _described(error)
    rows: Sequence[BadRow] = getattr(error, "bad_rows", ()) or [BadRow(None, None, None, message, {})]
    names = _column_names(rows)
    for row in rows:
        values = {"index": row.index, "line": row.line, "state": REFUSED, "code": code, "message": row.problem}
        fields = dict.fromkeys(_FAILURE) | values | {"what_to_do": _AFTER_REFUSAL}
        yield _line(row, row.file_name, names, fields)


def column_names(plan: Plan) -> dict[str, str]:
    """Return the names of the table's other columns in the manifest, in the order of their first appearance."""
    return _column_names((*plan.rows, *plan.bad), {"copies"} if plan.copies else ())


def _column_names(rows: Sequence[Row | BadRow], others: Iterable[str] = ()) -> dict[str, str]:
    """Return the names of other columns.

    :param others: names of our fields that only some batches have.
    """
    columns = dict.fromkeys(column for row in rows for column in row.columns)
    reserved = _RESERVED | {*others} | {"candidate" for row in rows[:1] if row.candidate is not None}
    taken = reserved | {column.casefold() for column in columns}
    names = {}
    for column in sorted(columns):  # so that the order of the rows decides no name
        name = f"{column}_column" if _NAMES_MORE_PICTURES.search(column) else column
        while name.casefold() in reserved or (name != column and name.casefold() in taken):
            name = f"row_{name}"
        taken.add(name.casefold())
        names[column] = name
    return {column: names[column] for column in columns}


def _line(row: Row | BadRow, file_name: str | None, names: dict[str, str], fields: dict[str, Any]) -> str:
    others = {name: row.columns.get(column) for column, name in names.items()}
    if row.candidate is not None:
        others["candidate"] = row.candidate
    return _as_line({"file_name": file_name, "text": row.prompt, **others, **fields})


def _described(error: BaseException) -> tuple[str, str]:
    """Return the code and the message of an error."""
    message = getattr(error, "message", None) or str(error) or type(error).__name__
    return code_of(error), str(message)


def _as_line(values: dict[str, Any]) -> str:
    text = json.dumps(values, ensure_ascii=False, allow_nan=False)
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"
