# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Parse a table from the text of a CSV, TSV or JSONL file.

Nothing is guessed. Anything that could shift a value into another column is refused. A value stays as it was
written: every cell of a CSV file is a string, and a JSON number keeps its own text for patterns, so ``1.50`` does
not become ``1.5``, nor ``00120`` a number.

A row without any value, as spreadsheets leave them at the end, is not a row.

A CSV file does not say which delimiter it uses, unless its first line is ``sep=;`` or similar, as spreadsheets
write it. Otherwise the delimiter is the one of ``, ; tab |`` with which all rows have as many cells as the
header, and the header has at least two. If two delimiters fit, the table could be read in two ways, and is
refused. If none fits, the one that fits most rows is used, and the other rows are bad.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from typing import TYPE_CHECKING, Any

from pictory_provider.api.decoding import TooDeep, parse_json
from pictory_provider.api.text import counted, shorten
from pictory_provider.core.tables.inputs import InputRow, InputTable, column_problem, dict_row, refused
from pictory_provider.core.tables.values import SHOWN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pictory_provider.api.errors import RequestInvalid

_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars (|)"}
"""The possible delimiters, in the order in which they are tried."""
_SEP_LINE = re.compile(r"\"?sep=(.*?)\"?(?:\r\n|\n|\r|$)", re.IGNORECASE)


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
        self.delimiter = delimiter
        self._text = text
        self._skipped = skipped

    @property
    def quoting(self) -> str:
        """How to write a cell that contains the delimiter, as a clause."""
        return f"a cell that contains one of the {_name(self.delimiter)}, or a line break, has to be in quotes"

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the cells of rows that are not blank, each with the line in which it begins.

        :raises csv.Error: if the file cannot be read further.
        """
        lines = csv.reader(io.StringIO(self._text, newline=""), delimiter=self.delimiter, strict=True)
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

    def with_delimiter(self, delimiter: str) -> Dialect:
        """Return the same text with another delimiter."""
        return Dialect(self._text, delimiter, self.why, skipped=self._skipped)

    def widths(self) -> list[int]:
        """Return the number of cells of each row below the first, and below a second line of a title."""
        try:
            rows = [cells for _, cells in self.rows()][1:]
        except csv.Error:
            return []
        if any(sum(1 for cell in cells if cell.strip()) < 2 for cells in rows[:2]):
            rows = rows[1:]
        return [len(cells) for cells in rows]

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
        return f"{problem}: {row:.{SHOWN}}{beyond} ({self.why}; {self.quoting})"


def tsv_dialect(text: str) -> Dialect:
    """Return the format of a TSV file."""
    return Dialect(text, "\t", "its name says that tabs separate its cells")


def dialect_of(path: str, text: str) -> Dialect:
    """Return the format of a CSV file.

    :raises RequestInvalid: if the file could be read in two ways.
    """
    if (found := _SEP_LINE.match(text)) is not None:
        delimiter = found[1]
        if len(delimiter) != 1 or delimiter in '"\r\n ':
            what = f"{path} begins with {found[0].strip()!r}, which names no delimiter"
            raise refused(what, "Write one character: `sep=;`.")
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
        raise refused(
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
        return refused(
            f"{what}: it has a cell of more than {limit:,} characters",
            "Either a quote is opened there and never closed, or a column contains something other than text: "
            "leave that column out.",
        )
    return refused(f"{what}: {error}", 'A quote within a quoted cell is written twice: "".')


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


def read_text(path: str, content: bytes | str, *, kind: str | None = None) -> InputTable:
    """Return the table in a text file.

    :param path: named in errors.
    :param content: of the file, unpacked. Bytes are UTF-8, with or without a byte order mark; or UTF-16 with one,
        which spreadsheets call Unicode text.
    :param kind: ``.csv``, ``.tsv`` or ``.jsonl``; by default the suffix of the path.
    :raises RequestInvalid: if the table as a whole cannot be read; names the file and the line. The rows raise it,
        too.
    """
    text, encoding = _decoded(path, content) if isinstance(content, bytes) else (content, "text")
    text = text.removeprefix("\ufeff")
    kind = kind or path.lower()
    if kind.endswith(".jsonl"):
        return InputTable(_jsonl_rows(text), None, f"{path} (JSON lines, {encoding})", [])
    dialect = tsv_dialect(text) if kind.endswith(".tsv") and not _SEP_LINE.match(text) else dialect_of(path, text)
    columns, rows = _csv_columns(path, dialect)
    return InputTable(rows, columns, f"{path} ({_name(dialect.delimiter)} between the cells, {encoding})", [])


def _decoded(path: str, content: bytes) -> tuple[str, str]:
    """Return the text, and its encoding for the log."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            return content.decode("utf-16"), "UTF-16"
        except UnicodeDecodeError:
            what = f"{path} begins like UTF-16, and is not: it cannot be decoded"
            raise refused(what, 'Save the table as UTF-8; a spreadsheet calls it "CSV UTF-8".') from None
    try:
        has_mark = content.startswith(codecs.BOM_UTF8)
        return content.decode(), "UTF-8 with a byte order mark" if has_mark else "UTF-8"
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        what = f"{path} is not UTF-8: line {line} contains the byte 0x{content[error.start]:02x}"
        raise refused(
            what,
            'Save the table as UTF-8; a spreadsheet calls it "CSV UTF-8". A file of Windows-1252, which '
            "some programs write in Western Europe, is converted by: iconv -f cp1252 -t utf-8",
        ) from None


def _csv_columns(path: str, dialect: Dialect) -> tuple[list[str], Iterator[InputRow]]:
    """Return the columns of a CSV file, and its rows."""
    lines = dialect.rows()
    try:
        first = next(lines, None)
    except csv.Error as error:
        raise refused_by_csv(path, dialect.begins, error) from None
    if first is None:
        raise refused(f"{path} is empty: it has no line with column names")
    columns = _columns(path, first[1])
    if len(columns) == 1:
        _check_title(path, dialect, columns[0])
    return columns, _csv_rows(path, dialect, columns, lines)


def _check_title(path: str, dialect: Dialect, title: str) -> None:
    """Raise if the first line is a title above a table: it has one cell, and every line below it has several."""
    for delimiter, name in _NAMES.items():
        below = dialect.with_delimiter(delimiter)
        numbers = below.widths()
        if len(numbers) > 1 and len(set(numbers)) == 1 and numbers[0] > 1:
            raise refused(
                f"The first line of {path} has one cell, {title!r}, and the {counted(len(numbers), 'line')} below "
                f"it {numbers[0]} each, if {name} separate them: the first line looks like a title",
                "Delete the lines above the names of the columns. If the table really has one column, write "
                "`sep=,` into an extra first line, and its cells in quotes.",
            )


def _csv_rows(
    path: str, dialect: Dialect, columns: list[str], lines: Iterator[tuple[int, list[str]]]
) -> Iterator[InputRow]:
    first: tuple[int, list[str]] | None = None
    has_good_rows = False
    try:
        for line, cells in lines:
            problem = dialect.problem_of(columns, cells, is_first=first is None)
            if problem is None:
                has_good_rows = True
                yield dict_row(dict(zip(columns, cells, strict=False)), line)
                continue
            first = first or (line, cells)
            yield InputRow({}, line, problem=problem)
    except csv.Error as error:
        raise refused_by_csv(path, dialect.begins, error) from None
    if first and not has_good_rows:
        line, cells = first
        raise refused(
            f"{path} has {counted(len(columns), 'column')} by its first line, {_shown(columns)}, and no row has "
            f"as many cells: line {line} has {counted(len(cells), 'cell')}, {_shown(cells)}",
            f"{_sentence(dialect.why)} The first line names the columns: delete a title above it, give each "
            "column a name, or name the delimiter in an extra first line such as `sep=;`. "
            f"{_sentence(dialect.quoting)}",
        )


def _columns(path: str, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    while not names[-1]:
        names.pop()
    if (problem := column_problem(names)) is None:
        return names
    raise refused(f"{path} {problem}: its first line names {', '.join(map(repr, names))}")


def _jsonl_rows(text: str) -> Iterator[InputRow]:
    # Not splitlines(): U+2028 and similar characters may occur within a JSON string.
    lines = enumerate(text.split("\n"), 1)
    return (_jsonl_row(line, number) for number, line in lines if line.strip())


def _jsonl_row(text: str, line: int) -> InputRow:
    try:
        item = parse_json(text, object_pairs_hook=_once, parse_constant=_no_constant)
        record = dict_row(item, line)
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
    return shorten(", ".join(map(repr, cells)), SHOWN)
