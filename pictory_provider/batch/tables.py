# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What is in this table? A list, the text of a CSV file or that of a JSONL file becomes records.

Nothing is guessed: what could shift a value into another column is refused. A value stays as it was written:
every cell of a CSV file is a string, and a JSON number keeps its own text for patterns, so ``1.50`` is not
made ``1.5``, nor ``00120`` a number.

A row without any value, as spreadsheets leave them at the end, is no row. What is wrong with one row is kept with
it (:attr:`Record.problem`), so that all bad rows can be told at once.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pictory_provider.api.errors import RequestInvalid

SUFFIXES = (".csv", ".jsonl")
"""How the name of a table's file ends, in upper or lower case."""
_OTHER_DELIMITERS = ";\t"
"""What a spreadsheet writes in place of commas where a comma is the decimal sign."""
_SHOWN = 80
_NOTHING = "Nothing was sent and nothing was spent."


class Record(NamedTuple):
    """One row as it came.

    :param values: by column.
    :param line: of the file, from 1; ``None`` for a list.
    :param texts: the own text of a JSON number, by column.
    :param problem: why it cannot be read; ``None`` where it can.
    """

    values: dict[str, Any]
    line: int | None = None
    texts: dict[str, str] | None = None
    problem: str | None = None


def table_path(requests: object) -> str | None:
    """Return the path where the requests are a table's path, and ``None`` where they are rows themselves.

    :raises RequestInvalid: for a string that is no such path, and for whatever is neither.
    """
    if isinstance(requests, str):
        if requests.lower().endswith(SUFFIXES) and not any(character in requests for character in "\r\n"):
            return requests
        raise RequestInvalid(
            f"requests is the string {_short(requests)}. {_NOTHING} It takes a list of prompts or of dicts, or "
            f"the path of a table whose name ends in {' or '.join(SUFFIXES)}. One picture is a list of one. "
            "A list that came through a template is a string: pass `task.output` itself, or set "
            "render_template_as_native_obj in the DAG.",
            fields=["requests"],
        )
    if isinstance(requests, (bytes, Mapping)) or not isinstance(requests, Iterable):
        raise RequestInvalid(
            f"requests is {type(requests).__name__}: {_short(requests)}. {_NOTHING} It takes a list of prompts or "
            "of dicts, or the path of a table.",
            fields=["requests"],
        )
    return None


def records_of(requests: Iterable[Any]) -> list[Record]:
    """Return the rows of a list of prompts or of dicts."""
    return [_record(item) for item in requests]


def read_table(path: str, content: bytes | str) -> list[Record]:
    """Return the rows of a table's file.

    :param path: tells the kind by its end, and is named in errors.
    :param content: of the file; bytes are UTF-8, with or without a byte order mark.
    :raises RequestInvalid: where the table as a whole cannot be read; names the file and the line.
    """
    text = _decoded(path, content) if isinstance(content, bytes) else content
    text = text.removeprefix("\ufeff")
    return _csv_records(path, text) if path.lower().endswith(".csv") else _jsonl_records(text)


def is_empty(value: object) -> bool:
    """Whether a cell holds nothing: blanks, null, or the NaN that pandas writes for a missing value."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def _record(item: object, line: int | None = None) -> Record:
    if isinstance(item, str):
        return Record({"prompt": item}, line)
    if not isinstance(item, Mapping):
        return Record({}, line, problem=f"is {type(item).__name__}, neither a prompt nor a dict: {_short(item)}")
    values = dict(item)
    for name, value in values.items():
        if not isinstance(name, str) or not name.strip():
            return Record({}, line, problem=f"has a column named {name!r}; a name is a string that is not empty")
        problem = _problem(name) or _problem(value)
        if problem:
            return Record({}, line, problem=f"column {name!r} {problem}")
    return Record({name: None if is_nan(value) else value for name, value in values.items()}, line)


def is_nan(value: object) -> bool:
    """Whether a value is a floating-point NaN, for which JSON has no word."""
    return isinstance(value, float) and math.isnan(value)


def _problem(value: object) -> str | None:
    """Return why a value cannot be kept in a manifest; ``None`` where it can."""
    if value is None or is_nan(value) or (isinstance(value, str) and value.isascii()):
        return None
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return "holds half a character (a lone surrogate), which no file can keep"
    except (TypeError, ValueError, RecursionError):
        return f"holds {type(value).__name__} {_short(value)}, for which JSON has no word: make it a string"
    return None


def _decoded(path: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise RequestInvalid(
            f"{path} is not UTF-8: line {line} holds the byte 0x{content[error.start]:02x}. {_NOTHING} Save the "
            'table as UTF-8; a spreadsheet calls it "CSV UTF-8".',
            fields=["requests"],
        ) from None


def _csv_records(path: str, text: str) -> list[Record]:
    begins = 1
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    columns: list[str] | None = None
    records = []
    try:
        for cells in lines:
            begun, begins = begins, lines.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if columns is None:
                columns = _columns(path, cells)
            else:
                records.append(_csv_record(columns, cells, begun))
    except csv.Error as error:
        raise RequestInvalid(
            f"{path} cannot be read as CSV in the row that begins in line {begins}: {error}. {_NOTHING} A quote "
            'within a quoted cell is written twice: "".',
            fields=["requests"],
        ) from None
    if columns is None:
        raise RequestInvalid(f"{path} is empty: it has no line with column names. {_NOTHING}", fields=["requests"])
    return records


def _delimiter(text: str) -> str:
    """Return what parts the cells: a comma, unless the first line has none and has one of the others.

    A CSV file does not say it; its first line, which holds names, is the one that cannot mislead.
    """
    first = next((line for line in io.StringIO(text) if line.strip()), "")
    if "," in first:
        return ","
    return next((other for other in _OTHER_DELIMITERS if other in first), ",")


def _columns(path: str, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    while not names[-1]:
        names.pop()
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        what = "has a column without a name" if doubled[0] == "" else f"has two columns named {doubled[0]!r}"
    elif "" in names:
        what = "has a column without a name"
    else:
        return names
    raise RequestInvalid(
        f"{path} {what}: its first line names {', '.join(map(repr, names))}. {_NOTHING}", fields=["requests"]
    )


def _csv_record(columns: list[str], cells: list[str], line: int) -> Record:
    more = cells[len(columns) :]
    if len(cells) < len(columns) or any(cell.strip() for cell in more):
        return Record(
            {},
            line,
            problem=f"has {len(cells)} cells, and the table has {len(columns)} columns; a cell that holds a "
            "delimiter or a line break stands in quotes",
        )
    return _record(dict(zip(columns, cells, strict=False)), line)


def _jsonl_records(text: str) -> list[Record]:
    # Not splitlines(): U+2028 and the like may stand within a JSON string.
    lines = enumerate(text.split("\n"), 1)
    return [_jsonl_record(line, number) for number, line in lines if line.strip()]


def _jsonl_record(text: str, line: int) -> Record:
    try:
        item = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
        record = _record(item, line)
        if any(isinstance(value, (int, float)) for value in record.values.values()):
            own = json.loads(text, parse_int=str, parse_float=str)
            numbers = {name: own[name] for name, value in record.values.items() if _is_number(value)}
            return record._replace(texts=numbers)
    except RecursionError:
        return Record({}, line, problem="is nested too deeply")
    except ValueError as error:
        said = f"{error.msg}, character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else str(error)
        return Record({}, line, problem=f"is not JSON ({said})")
    return record


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it has {next(name for name in names if names.count(name) > 1)!r} twice")
    return values


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
