# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Find out what the ``requests`` of a batch are, and read rows that are Python objects.

Nothing is guessed: anything without rows in a fixed order, such as a set, is refused, and so is anything whose
iterator does not give rows. A problem of one row is kept with it (:attr:`InputRow.problem`), so that all bad rows
can be reported together.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pictory_provider.api.errors import RequestInvalid
from pictory_provider.api.text import counted, type_of
from pictory_provider.core.tables.values import problem_of, short, to_json, typed

TEXT_SUFFIXES = (".csv", ".tsv", ".jsonl")
"""Suffixes of text formats, in upper or lower case; ``.gz`` may follow."""
SUFFIXES = (*TEXT_SUFFIXES, *(f"{suffix}.gz" for suffix in TEXT_SUFFIXES), ".xlsx", ".parquet")
"""Suffixes of all files that are read, in upper or lower case."""
_ARROW_STREAM = "__arrow_c_stream__"
"""The method of data frames that gives their rows (the Arrow PyCapsule interface)."""
_UNREAD = {
    (".xls", ".xlsm", ".xlsb", ".ods", ".numbers"): "Save the sheet as .xlsx.",
    (
        ".feather",
        ".arrow",
        ".ipc",
        ".orc",
        ".avro",
    ): "Read it in a task and pass the table or the data frame itself.",
    (".tab", ".txt"): "If its columns are separated by tabs, give it a name that ends in .tsv.",
    (".ndjson",): "Give it a name that ends in .jsonl, which is the same format.",
    (".json",): "Write one object per line, and name it .jsonl. Or read it in a task and pass the list itself.",
    (".zip", ".bz2", ".xz", ".zst"): "Unpack it first, or compress it as .gz.",
    (".gz",): "Only the text formats are read compressed: unpack it first.",
}
"""Table files that are not read, and what to do instead."""
_IN_ORDER = (Sequence, Generator, map, filter, csv.DictReader)
"""Types that have rows in order. Other iterables may give anything: names of columns, lines, keys."""
_MADE_OF_ROWS = {
    "tolist": "Pass `list(...)` of it.",
    "to_list": "Pass `list(...)` of it.",
    "to_dicts": "Pass its rows: `frame.to_dicts()`.",
    "collect": "Pass its result: `frame.collect()`.",
    "to_pylist": "Pass its rows: `table.to_pylist()`.",
    "to_dict": 'Pass its rows: `df.to_dict("records")`.',
}
"""What to pass, by the methods of pandas, polars, pyarrow and NumPy objects. The first match is used."""
_TAKES = (
    "Pass a list of prompts or of dicts, rows of a database with column_names, a data frame, or the path of a "
    f"table whose name ends in {', '.join((*TEXT_SUFFIXES, '.xlsx'))} or .parquet."
)


class InputRow(NamedTuple):
    """One row of the input.

    :param values: by column, as JSON.
    :param line: of the file, from 1; in a spreadsheet, the row of the sheet; ``None`` for other inputs.
    :param texts: the text of values for patterns, by column, if it is not ``str`` of the value.
    :param problem: why it cannot be read; ``None`` if it can.
    """

    values: dict[str, Any]
    line: int | None = None
    texts: dict[str, str] | None = None
    problem: str | None = None


class InputTable(NamedTuple):
    """A table whose rows are read once, from its beginning.

    :param rows: raise :class:`RequestInvalid` if the table as a whole cannot be read further.
    :param columns: their names, if they are known before the rows are read.
    :param about: what is read, for the log: a noun phrase.
    :param notes: sentences for the log; complete when all rows are read.
    """

    rows: Iterable[InputRow]
    columns: Sequence[str] | None
    about: str
    notes: list[str]


def table_path(requests: object) -> str | None:
    """Return the path if the requests are a table's path, and ``None`` if they are rows or a data frame.

    :raises RequestInvalid: for a string that is not such a path, and for anything that is none of these.
    """
    if isinstance(requests, str):
        if requests.lower().endswith(SUFFIXES) and not any(character in requests for character in "\r\n"):
            return requests
        raise _not_a_path(requests)
    is_one_row = hasattr(requests, "_fields")
    is_bytes = isinstance(requests, (bytes, bytearray, memoryview))
    if is_frame(requests) or (isinstance(requests, _IN_ORDER) and not is_bytes and not is_one_row):
        return None
    if requests is None:
        raise refused("requests is None: the upstream task returned nothing", _TAKES)
    what_now = f"{_TAKES} {_what_to_pass(requests, is_one_row=is_one_row)}".strip()
    raise refused(f"requests is {type_of(requests)}: {short(requests)}", what_now)


def is_frame(requests: object) -> bool:
    """Whether an object is a data frame, or another table that exports its rows as an Arrow stream."""
    return hasattr(requests, _ARROW_STREAM)


def _not_a_path(requests: str) -> RequestInvalid:
    kinds = ((suffix, way) for suffixes, way in _UNREAD.items() for suffix in suffixes)
    found = next((each for each in kinds if requests.lower().endswith(each[0])), None)
    what, what_now = f"requests is the string {short(requests)}", _TAKES
    if found and "\n" not in requests:
        suffix, way = found
        what, what_now = f"requests {short(requests)} is a {suffix} file, which is not read", f"{_TAKES} {way}"
    elif requests.strip() in ("", "None"):
        what = f"requests rendered to {requests!r}: its template found nothing"
    else:
        what_now = (
            f"{_TAKES} For one picture, pass a list with one item. A list that was rendered by a template is a "
            "string: pass `task.output` itself, or set render_template_as_native_obj in the DAG."
        )
    return refused(what, what_now)


def _what_to_pass(requests: object, *, is_one_row: bool) -> str:
    """Return what to pass instead of an object that is not a list of rows."""
    if isinstance(requests, Mapping):
        return 'For one row, pass a list of one; for a DataFrame, pass `df.to_dict("records")`.'
    if is_one_row:
        return "For one row, pass a list of one dict."
    if isinstance(requests, io.IOBase):
        return "Pass the path of the file, or its rows."
    if isinstance(requests, os.PathLike) or hasattr(type(requests), "as_posix"):  # ObjectStoragePath
        return "Pass the path as a string: `str(path)`."
    way = next((way for name, way in _MADE_OF_ROWS.items() if hasattr(type(requests), name)), None)
    if way is None and hasattr(requests, "__iter__"):
        way = "If each of its items is a row, pass `list(...)` of it, or `sorted(...)` of a set."
    return way or ""


def table_of(requests: Iterable[Any], column_names: Sequence[str] | None = None) -> InputTable:
    """Return the table of a list of prompts, of dicts, or of rows of a database.

    :param column_names: of rows that are tuples or lists; not needed for named tuples.
    :raises RequestInvalid: if the names are not distinct strings, or no row needs them.
    """
    names = None if column_names is None else _checked_names(column_names)
    return InputTable(_rows(requests, names), names, "a list", [])


def dict_row(item: object, line: int | None = None) -> InputRow:
    """Return the row of a prompt or a dict."""
    if isinstance(item, str):
        return InputRow({"prompt": item}, line)
    if not isinstance(item, Mapping):
        return InputRow({}, line, problem=f"is {type_of(item)}, neither a prompt nor a dict: {short(item)}")
    values, texts = {}, {}
    for name, value in item.items():
        if not isinstance(name, str) or not name.strip():
            return InputRow({}, line, problem=f"has a column named {name!r}; a name is a string that is not empty")
        values[name], text = (value, None) if type(value) is str else to_json(value)
        if problem := problem_of(name) or problem_of(values[name]):
            return InputRow({}, line, problem=f"column {name!r} {problem}")
        if text is not None:
            texts[name] = text
    return InputRow(values, line, texts or None)


def typed_row(names: Sequence[str], cells: Iterable[Any], line: int | None = None) -> InputRow:
    """Return the row of a table with types, such as Parquet or the result of a query."""
    values, texts = {}, {}
    for name, cell in zip(names, cells, strict=True):
        values[name], text = (cell, None) if type(cell) is str else typed(cell)
        if problem := problem_of(values[name]):
            return InputRow({}, line, problem=f"column {name!r} {problem}")
        if text is not None:
            texts[name] = text
    return InputRow(values, line, texts or None)


def column_problem(names: Sequence[str]) -> str | None:
    """Return why a table cannot have columns of these names: ``has ...``; ``None`` if it can."""
    doubled = min((name for name, times in Counter(names).items() if times > 1), default="")
    if not doubled and "" not in names:
        return None
    return f"has two columns named {doubled!r}" if doubled else "has a column without a name"


def refused(what: str, what_now: str = "", *, field: str = "requests") -> RequestInvalid:
    """Return the error of a table that cannot be read."""
    return RequestInvalid.unsent(what, what_now, fields=[field])


def _rows(requests: Iterable[Any], names: Sequence[str] | None) -> Iterator[InputRow]:
    has_used_names, item = False, None
    for item in requests:
        fields = getattr(item, "_fields", None) if isinstance(item, tuple) else None
        columns = names if fields is None or names is not None else [str(field) for field in fields]
        if not isinstance(item, (tuple, list)):
            yield dict_row(item)
            continue
        if columns is None:
            problem = f"is {type_of(item)}, and needs column_names to be a row: {short(item)}"
            yield InputRow({}, problem=problem)
            continue
        has_used_names = has_used_names or columns is names
        if len(item) != len(columns):
            has = f"has {counted(len(item), 'value')}, and column_names has {counted(len(columns), 'name')}"
            yield InputRow({}, problem=has)
        else:
            yield typed_row(columns, item)
    if names is not None and item is not None and not has_used_names:
        raise refused(
            f"column_names={list(names)!r} has no effect: no row is a tuple or a list",
            "Leave it out: prompts need no columns, and dicts name their own.",
            field="column_names",
        )


def _checked_names(column_names: Any) -> list[str]:
    if isinstance(column_names, str) or not isinstance(column_names, Sequence):
        raise refused(
            f"column_names is {type_of(column_names)}: {short(column_names)}",
            'Pass a list of the columns of the query, in their order: ["sku", "title"].',
            field="column_names",
        )
    wrong = [name for name in column_names if not isinstance(name, str) or problem_of(name)]
    names = [str(name).strip() for name in column_names]
    problem = f"has {short(wrong[0])}, {type_of(wrong[0])}" if wrong else column_problem(names)
    if problem:
        raise refused(f"column_names {problem}: {short(list(column_names))}", field="column_names")
    return names
