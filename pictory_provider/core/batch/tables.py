# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Parse a table of requests: a list, or the text of a CSV or JSONL file.

Nothing is guessed. Anything that could shift a value into another column is refused, and so is anything without
rows in a fixed order, such as a set, or whose iterator does not give rows: that of a DataFrame gives its columns.
A value stays as it was written: every cell of a CSV file is a string, and a JSON number keeps its own text for
patterns, so ``1.50`` does not become ``1.5``, nor ``00120`` a number.

A row without any value, as spreadsheets leave them at the end, is skipped. A problem of one row is kept with it
(:attr:`InputRow.problem`), so that all bad rows can be reported together.

A CSV file does not say which delimiter it uses, unless its first line is ``sep=;`` or similar, as spreadsheets
write it. Otherwise the delimiter is the one of ``, ; tab |`` with which all rows have as many cells as the
header, and the header has at least two. If two delimiters fit, the table could be read in two ways, and is
refused. If none fits, the one that fits most rows is used, and the other rows are bad.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pictory_provider.api.decoding import TooDeep, parse_json
from pictory_provider.api.errors import RequestInvalid
from pictory_provider.api.text import counted, shorten, type_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars (|)"}
"""The possible delimiters, in the order in which they are tried."""
_SEP_LINE = re.compile(r"\"?sep=(.*?)\"?(?:\r\n|\n|\r|$)", re.IGNORECASE)
_SHOWN = 80
"""Characters of a value or a row that an error shows."""


class Dialect:
    """The format of a CSV file.

    :param delimiter: between its cells.
    :param why: this delimiter, as a clause.
    :param skipped: lines above the text.
    :ivar begins: the line in which the next row begins.
    """

    def __init__(self, text: str, delimiter: str, why: str, *, skipped: int = 0) -> None:
        self.why = why
        self.begins = 1 + skipped
        self._text = text
        self._delimiter = delimiter
        self._skipped = skipped

    @property
    def quoting(self) -> str:
        """How to write a cell that contains the delimiter, as a clause."""
        return f"a cell that contains one of the {_name(self._delimiter)}, or a line break, has to be in quotes"

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the cells of rows that are not blank, each with the line in which it begins.

        :raises csv.Error: if the file cannot be read further.
        """
        lines = csv.reader(io.StringIO(self._text, newline=""), delimiter=self._delimiter, strict=True)
        self.begins = 1 + self._skipped
        for cells in lines:
            begun, self.begins = self.begins, lines.line_num + 1 + self._skipped
            if any(cell.strip() for cell in cells):
                yield begun, cells

    def header(self) -> list[str]:
        """Return the cells of the first row, none if there is none."""
        try:
            return next(self.rows(), (0, []))[1]
        except csv.Error:
            return []

    def fitting(self) -> tuple[bool, int]:
        """Return whether all rows have as many cells as the header, and how many rows have."""
        rows, fit = 0, 0
        columns = _named(self.header())
        try:
            for _, cells in self.rows():
                rows += 1
                fit += _fits(len(columns), cells)
        except csv.Error:
            return False, fit
        return rows == fit, fit

    def problem_of(self, columns: list[str], cells: list[str], *, is_first: bool) -> str | None:
        """Return why a row does not fit the header; ``None`` if it does.

        :param is_first: whether it is the first such row, whose text has all details.
        """
        if _fits(len(columns), cells):
            return None
        problem = f"has {counted(len(cells), 'cell')}, and the table has {counted(len(columns), 'column')}"
        if not is_first:
            return problem
        more = [cell for cell in cells[len(columns) :] if cell.strip()]
        beyond = (
            f"; beyond the last column it has {more[0]!r:.40}, which needs a column with a name" if more else ""
        )
        row = ", ".join(map(repr, cells))
        return f"{problem}: {row:.{_SHOWN}}{beyond} ({self.why}; {self.quoting})"


def dialect_of(path: str, text: str) -> Dialect:
    """Return the format of a CSV file.

    :raises RequestInvalid: if the file could be read in two ways.
    """
    if (found := _SEP_LINE.match(text)) is not None:
        delimiter = found[1]
        if len(delimiter) != 1 or delimiter in '"\r\n ':
            what = f"{path} begins with {found[0].strip()!r}, which names no delimiter"
            raise _refused(what, "Write one character: `sep=;`.")
        why = f"its first line names {_name(delimiter)} as the delimiter"
        return Dialect(text[found.end() :], delimiter, why, skipped=1)
    why = "{} separate the cells of its first line"
    every = {each: Dialect(text, each, why.format(name)) for each, name in _NAMES.items()}
    likely = {each: dialect for each, dialect in every.items() if len(_named(dialect.header())) > 1}
    if len(likely) == 1:
        return next(iter(likely.values()))
    if not likely:
        return Dialect(text, ",", f"its first line has none of {_listed(_NAMES)}, so commas are assumed")
    fitting = {each: dialect.fitting() for each, dialect in likely.items()}
    fit_all = [each for each, (is_whole, _) in fitting.items() if is_whole]
    if len(fit_all) > 1:
        raise _refused(
            f"{path} can be read in {len(fit_all)} ways: with {_listed(fit_all, 'or')} as the delimiter, all of "
            "its rows have as many cells as its first line",
            f"Name the delimiter in an extra first line, such as `sep={fit_all[-1]}`.".replace("\t", "<tab>"),
        )
    best = fit_all[0] if fit_all else max(fitting, key=lambda each: fitting[each][1])
    how_many = "all" if fit_all else "most"
    why = f"its first line has {_listed(likely)}; with {_name(best)} {how_many} of its rows have as many cells"
    return Dialect(text, best, why)


def refused_by_csv(path: str, line: int, error: csv.Error) -> RequestInvalid:
    """Return the error for a file that cannot be read further.

    :param line: in which the row begins.
    """
    limit = csv.field_size_limit()
    what = f"{path} cannot be read as CSV in the row that begins in line {line}"
    if "field larger" in str(error):
        return _refused(
            f"{what}: it has a cell of more than {limit:,} characters",
            "Either a quote is opened there and never closed, or a column contains something other than text: "
            "leave that column out.",
        )
    return _refused(f"{what}: {error}", 'A quote within a quoted cell is written twice: "".')


def _refused(what: str, what_now: str = "") -> RequestInvalid:
    return RequestInvalid.unsent(what, what_now, fields=["requests"])


def _fits(columns: int, cells: list[str]) -> bool:
    return len(cells) >= columns and not any(cell.strip() for cell in cells[columns:])


def _named(cells: list[str]) -> list[str]:
    """Return the cells of a header without blank ones at its end, which name no column."""
    while cells and not cells[-1].strip():
        cells = cells[:-1]
    return cells


def _name(delimiter: str) -> str:
    return _NAMES.get(delimiter, repr(delimiter))


def _listed(delimiters: Iterable[str], word: str = "and") -> str:
    names = [_name(each) for each in delimiters]
    return f"{', '.join(names[:-1])} {word} {names[-1]}"


SUFFIXES = (".csv", ".jsonl")
"""Suffixes of table files, in upper or lower case."""
_TO_ROWS = 'Read it in a task and pass its rows, such as `pandas.read_{}(path).to_dict("records")`.'
_UNREAD = {
    (".xlsx", ".xlsm", ".xls", ".ods"): 'Save the sheet as "CSV UTF-8". Or: '
    'Read it in a task and pass its rows: `pandas.read_excel(path, dtype=str).to_dict("records")`.',
    (".parquet",): _TO_ROWS.format("parquet"),
    (".feather", ".arrow"): _TO_ROWS.format("feather"),
    (".tsv", ".tab", ".txt"): "Give it a name that ends in .csv: tabs are accepted as delimiters, too.",
    (".ndjson",): "Give it a name that ends in .jsonl, which is the same format.",
    (".json",): "Write one object per line, and name it .jsonl. Or read it in a task and pass the list itself.",
    (".gz", ".zip", ".bz2", ".xz", ".zst"): "Unpack it first.",
}
"""Table files that are not read, and what to do instead."""
_IN_ORDER = (Sequence, Generator, map, filter, csv.DictReader)
"""Types that have rows in order. Other iterables may give anything: names of columns, lines, keys."""
_MADE_OF_ROWS = {
    "tolist": "Pass `list(...)` of it.",
    "to_list": "Pass `list(...)` of it.",
    "to_dicts": "Pass its rows: `frame.to_dicts()`.",
    "collect": "Pass its rows: `frame.collect().to_dicts()`.",
    "to_pylist": "Pass its rows: `table.to_pylist()`.",
    "to_df": 'Pass its rows: `relation.to_df().to_dict("records")`.',
    "to_dict": 'Pass its rows: `df.to_dict("records")`.',
}
"""What to pass, by the methods of pandas, polars, pyarrow, DuckDB and NumPy objects. The first match is used."""
_TAKES = f"Pass a list of prompts or of dicts, or the path of a table whose name ends in {' or '.join(SUFFIXES)}."


class InputRow(NamedTuple):
    """One row of the input.

    :param values: by column.
    :param line: of the file, from 1; ``None`` for a list.
    :param texts: the original text of JSON numbers, by column.
    :param problem: why it cannot be read; ``None`` if it can.
    """

    values: dict[str, Any]
    line: int | None = None
    texts: dict[str, str] | None = None
    problem: str | None = None


def table_path(requests: object) -> str | None:
    """Return the path if the requests are a table's path, and ``None`` if they are rows.

    :raises RequestInvalid: for a string that is not such a path, and for anything that is neither.
    """
    if isinstance(requests, str):
        if requests.lower().endswith(SUFFIXES) and not any(character in requests for character in "\r\n"):
            return requests
        raise _not_a_path(requests)
    is_one_row = hasattr(requests, "_fields")
    is_bytes = isinstance(requests, (bytes, bytearray, memoryview))
    if isinstance(requests, _IN_ORDER) and not is_bytes and not is_one_row:
        return None
    if requests is None:
        raise _refused("requests is None: the upstream task returned nothing", _TAKES)
    what_now = f"{_TAKES} {_what_to_pass(requests, is_one_row=is_one_row)}".strip()
    raise _refused(f"requests is {type_of(requests)}: {_short(requests)}", what_now)


def _not_a_path(requests: str) -> RequestInvalid:
    kinds = ((suffix, way) for suffixes, way in _UNREAD.items() for suffix in suffixes)
    found = next((each for each in kinds if requests.lower().endswith(each[0])), None)
    what, what_now = f"requests is the string {_short(requests)}", _TAKES
    if found and "\n" not in requests:
        suffix, way = found
        what, what_now = f"requests {_short(requests)} is a {suffix} file, which is not read", f"{_TAKES} {way}"
    elif requests.strip() in ("", "None"):
        what = f"requests rendered to {requests!r}: its template found nothing"
    else:
        what_now = (
            f"{_TAKES} For one picture, pass a list with one item. A list that was rendered by a template is a "
            "string: pass `task.output` itself, or set render_template_as_native_obj in the DAG."
        )
    return _refused(what, what_now)


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
    if way is None and hasattr(type(requests), "__arrow_c_stream__"):
        way = "Pass its rows: `pyarrow.table(...).to_pylist()`."
    if way is None and hasattr(requests, "__iter__"):
        way = "If each of its items is a row, pass `list(...)` of it, or `sorted(...)` of a set."
    return way or ""


def records_of(requests: Iterable[Any]) -> list[InputRow]:
    """Return the rows of a list of prompts or of dicts."""
    return [_record(item) for item in requests]


def read_table(path: str, content: bytes | str) -> list[InputRow]:
    """Return the rows of a table's file.

    :param path: its suffix gives the format; named in errors.
    :param content: of the file; bytes are UTF-8, with or without a byte order mark.
    :raises RequestInvalid: if the table as a whole cannot be read; names the file and the line.
    """
    text = _decoded(path, content) if isinstance(content, bytes) else content
    text = text.removeprefix("\ufeff")
    return _csv_records(path, text) if path.lower().endswith(".csv") else _jsonl_records(text)


def is_empty(value: object) -> bool:
    """Whether a cell is empty: blanks, null, or the NaN that pandas writes for a missing value."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def _record(item: object, line: int | None = None) -> InputRow:
    if isinstance(item, str):
        return InputRow({"prompt": item}, line)
    if not isinstance(item, Mapping):
        return InputRow({}, line, problem=f"is {type_of(item)}, neither a prompt nor a dict: {_short(item)}")
    values = dict(item)
    for name, value in values.items():
        if not isinstance(name, str) or not name.strip():
            return InputRow({}, line, problem=f"has a column named {name!r}; a name is a string that is not empty")
        problem = _problem(name) or _problem(value)
        if problem:
            return InputRow({}, line, problem=f"column {name!r} {problem}")
    return InputRow({name: None if is_nan(value) else value for name, value in values.items()}, line)


def is_nan(value: object) -> bool:
    """Whether a value is a floating-point NaN, which JSON cannot represent."""
    return isinstance(value, float) and math.isnan(value)


def _problem(value: object) -> str | None:
    """Return why a value cannot be written to the manifest; ``None`` if it can."""
    if value is None or is_nan(value) or (isinstance(value, str) and value.isascii()):
        return None
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return "contains half a character (a lone surrogate), which cannot be written to a file"
    except (TypeError, ValueError, RecursionError):
        return f"contains {_short(value)}, {type_of(value)}, which JSON cannot represent: make it a string"
    return None


def _decoded(path: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        what = f"{path} is not UTF-8: line {line} contains the byte 0x{content[error.start]:02x}"
        raise _refused(what, 'Save the table as UTF-8; a spreadsheet calls it "CSV UTF-8".') from None


def _csv_records(path: str, text: str) -> list[InputRow]:
    dialect = dialect_of(path, text)
    columns: list[str] | None = None
    records: list[InputRow] = []
    first: tuple[int, list[str]] | None = None
    try:
        for line, cells in dialect.rows():
            if columns is None:
                columns = _columns(path, cells)
                continue
            problem = dialect.problem_of(columns, cells, is_first=first is None)
            if problem and first is None:
                first = line, cells
            row = dict(zip(columns, cells, strict=False))
            records.append(InputRow({}, line, problem=problem) if problem else _record(row, line))
    except csv.Error as error:
        raise refused_by_csv(path, dialect.begins, error) from None
    if columns is None:
        raise _refused(f"{path} is empty: it has no line with column names")
    if first and all(record.problem for record in records):
        line, cells = first
        raise _refused(
            f"{path} has {counted(len(columns), 'column')} by its first line, {_shown(columns)}, and no row has "
            f"as many cells: line {line} has {counted(len(cells), 'cell')}, {_shown(cells)}",
            f"{_sentence(dialect.why)} The first line names the columns: delete a title above it, give each "
            "column a name, or name the delimiter in an extra first line such as `sep=;`. "
            f"{_sentence(dialect.quoting)}",
        )
    return records


def _columns(path: str, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    while not names[-1]:
        names.pop()
    doubled = min((name for name in names if names.count(name) > 1), default="")
    if not doubled and "" not in names:
        return names
    what = f"has two columns named {doubled!r}" if doubled else "has a column without a name"
    raise _refused(f"{path} {what}: its first line names {', '.join(map(repr, names))}")


def _jsonl_records(text: str) -> list[InputRow]:
    # Not splitlines(): U+2028 and similar characters may occur within a JSON string.
    lines = enumerate(text.split("\n"), 1)
    return [_jsonl_record(line, number) for number, line in lines if line.strip()]


def _jsonl_record(text: str, line: int) -> InputRow:
    try:
        item = parse_json(text, object_pairs_hook=_once, parse_constant=_no_constant)
        record = _record(item, line)
        if any(isinstance(value, (int, float)) for value in record.values.values()):
            own = parse_json(text, parse_int=str, parse_float=str)
            numbers = {name: own[name] for name, value in record.values.items() if _is_number(value)}
            return record._replace(texts=numbers)
    except TooDeep:
        return InputRow({}, line, problem="is nested too deeply")
    except ValueError as error:
        said = f"{error.msg}, character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else str(error)
        return InputRow({}, line, problem=f"is not JSON ({said})")
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
    raise ValueError(f"{word} is not JSON")


def _sentence(clause: str) -> str:
    return f"{clause[:1].upper()}{clause[1:]}."


def _shown(cells: list[str]) -> str:
    return shorten(", ".join(map(repr, cells)), _SHOWN)


def _short(value: object) -> str:
    return shorten(" ".join(repr(value).split()), _SHOWN)
