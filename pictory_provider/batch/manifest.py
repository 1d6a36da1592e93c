# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What lies in the folder? ``metadata.jsonl`` for the pictures, ``failed.jsonl`` for the rows without one.

Both have a line for each of their rows, in the order of the table, and every line has the same fields, so that the
ImageFolder of ``datasets``, pandas and DuckDB read them as they are. The same rows with the same ends give the
same bytes.

Our fields win. A row's column that has the name of one of them, in upper or lower case, is called ``row_<name>``
instead, in both files and for all rows alike: ``size`` becomes ``row_size``. The columns that say what to draw are
told by our fields (``prompt`` by ``text``), or stay in the table.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from pictory_provider.batch.decision import Place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pictory_provider.batch.plan import Plan
    from pictory_provider.batch.rows import Row

_PICTURE = ("job_id", "model", "ai_credits_used", "width", "height", "size", "sha256")
_FAILURE = ("index", "line", "job_id", "model", "state", "code", "message", "what_to_do")
_RESERVED = {"file_name", "text", *_PICTURE, *_FAILURE}
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ufeff]")
"""What some readers take for the end of a line, or do not show."""
_WHAT_TO_DO = {
    Place.FAILED: "Correct the row where it is at fault. A clear of the task buys failed rows again; a picture "
    "that is paid for and could only not be saved is saved by it.",
    Place.UNKNOWN: "Look at https://app.pictory.ai for a picture of this prompt. Put its jobId into the row's "
    "record to have it saved, or clear the task to buy it.",
    Place.NOT_BOUGHT: "Nothing was spent on it. Mend what the message says, and clear the task.",
}


def metadata_lines(plan: Plan) -> Iterator[str]:
    """Yield the lines of ``metadata.jsonl``: the pictures that are saved or reused."""
    names = column_names(plan)
    for row in plan.rows:
        end = plan.end_of(row)
        if end.picture is not None and end.place in (Place.SAVED, Place.REUSED):
            told = {**end.picture._asdict(), "model": row.request.model}
            name = end.picture.file_name or row.file_name
            yield _line(row, name, names, {field: told[field] for field in _PICTURE})


def failed_lines(plan: Plan) -> Iterator[str]:
    """Yield the lines of ``failed.jsonl``: the rows that have no picture, why, and what to do."""
    names = column_names(plan)
    for row in plan.rows:
        end = plan.end_of(row)
        if end.place in (Place.SAVED, Place.REUSED):
            continue
        told = {
            "index": row.index,
            "line": row.line,
            "job_id": end.job_id,
            "model": row.request.model,
            "state": end.place.value,
            "code": end.code,
            "message": end.message,
            "what_to_do": _WHAT_TO_DO.get(end.place),
        }
        yield _line(row, row.file_name, names, {field: told[field] for field in _FAILURE})


def column_names(plan: Plan) -> dict[str, str]:
    """Return what the table's other columns are called in the manifest, in the order of their appearance."""
    columns = list(dict.fromkeys(column for row in plan.rows for column in row.columns))
    taken = _RESERVED | {column.casefold() for column in columns}
    names = {}
    for column in columns:
        name = column
        while name.casefold() in _RESERVED or (name != column and name.casefold() in taken):
            name = f"row_{name}"
        taken.add(name.casefold())
        names[column] = name
    return names


def _line(row: Row, file_name: str, names: dict[str, str], fields: dict[str, Any]) -> str:
    others = {name: row.columns.get(column) for column, name in names.items()}
    values = {"file_name": file_name, "text": row.request.prompt, **others, **fields}
    text = json.dumps(values, ensure_ascii=False, allow_nan=False)
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"
