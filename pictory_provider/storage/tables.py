# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Read the table of a batch from a file or from a data frame.

Excel and Parquet files, and data frames, are read by openpyxl and pyarrow (the extra ``tables``), row by row.
openpyxl reports numbers, dates and errors as they are in the file; python-calamine, for example, turns 120 into
``120.0`` and the cell of an error into an empty one. What openpyxl does not report when it streams,
:class:`_SheetScan` finds in the sheet itself: hidden rows, merged cells, and formulas without a valid result.
"""

from __future__ import annotations

import gzip
import io
import re
import zipfile
import zlib
from contextlib import contextmanager
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn
from xml.parsers import expat

from pictory_provider.api.decoding import parse_json
from pictory_provider.api.text import counted, listed, type_of
from pictory_provider.core.tables.inputs import InputRow, InputTable, column_problem, refused, typed_row
from pictory_provider.core.tables.text import read_text
from pictory_provider.core.tables.values import is_empty, number_text, short
from pictory_provider.storage.folder import LARGEST_TABLE, read_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import ModuleType

_GZIP = b"\x1f\x8b"
_ENCRYPTED = b"\xd0\xcf\x11\xe0"
"""How an Excel file begins that is protected by a password, or is of the format before 2007 (.xls)."""
_LARGEST_SHEET = 8 * LARGEST_TABLE
"""Bytes of an Excel file after it is unpacked."""
_FILE_HINT = "Is the file complete, and of the format that its name says?"
_FRAME_HINT = "Give each of its columns one plain type, or pass its rows as dicts."
_SHOWN = 5
_BATCH = 1_000
"""Rows that are decoded at the same time."""
_PANDAS_INDEX = re.compile(r"__index_level_\d+__")
"""A column that pandas adds for an index without a name."""
_NOT_CODES = re.compile(r'"[^"]*"|\[[^\]]*\]|\\.')
"""The parts of a number format that are texts, colours and languages."""
_PADDING = re.compile(r"\[\$[^\]]*\]|_.")
"""The parts of a number format that are a language, and space as wide as a character."""
_ESCAPED = re.compile(r"_x(?!005[Ff])([0-9A-Fa-f]{4})_")
"""A character that XML cannot have, such as ``_x000D_`` for a carriage return (ECMA-376, part 1, 22.9.2.19)."""
_EAST_ASIAN_DATES = {*range(27, 37), *range(50, 59)}
"""Built-in number formats of dates and times that openpyxl takes for numbers (ECMA-376, part 1, 18.8.30)."""
_MOST_ROWS, _MOST_COLUMNS = 1_048_576, 16_384
"""Of a sheet (Excel specifications and limits)."""
_WORKBOOK = re.compile(r"(?:^|/)workbook[^/]*\.xml$")
"""The part of an Excel file that names its sheets."""
_EXCEL_DIGITS = 15
"""Digits of a number that Excel shows and calculates with (Excel specifications and limits)."""


def read_table(path: str, *, sheet: str | None = None) -> InputTable:
    """Return the table of a file.

    :param path: an absolute local path, or any URL that ``ObjectStoragePath`` takes; its suffix is one of
        :data:`~pictory_provider.core.tables.inputs.SUFFIXES`.
    :param sheet: of an Excel file; ``None`` for its first visible one.
    :raises RequestInvalid: if it does not exist, is too large, or cannot be read; the rows raise it, too.
    :raises StorageFailed: if the storage cannot be read.
    """
    kind = path.lower()
    if sheet is not None and not kind.endswith(".xlsx"):
        raise refused(f"sheet={sheet!r} has no effect: {path} has no sheets", field="sheet")
    if kind.endswith(".xlsx"):
        library = _library("openpyxl", path)
        return _read_xlsx(library, path, read_file(path), sheet)
    if kind.endswith(".parquet"):
        library = _library("pyarrow", path)
        return _read_parquet(library, path, read_file(path))
    content = read_file(path)
    if kind.endswith(".gz"):
        content, kind = _unpacked(path, content), kind.removesuffix(".gz")
    return read_text(path, content, kind=kind)


def read_frame(frame: Any, *, is_read_again: bool) -> InputTable:
    """Return the table of a data frame, or of another object that exports an Arrow stream.

    :param is_read_again: whether the same object may have to give its rows a second time.
    :raises RequestInvalid: if it is not a table, or cannot give its rows a second time.
    """
    name = type_of(frame).removeprefix("of type ")
    pyarrow = _library("pyarrow", f"a {name}")
    with _errors_of(f"requests, a {name},", _FRAME_HINT):
        try:
            reader = pyarrow.RecordBatchReader.from_stream(frame)
        except pyarrow.ArrowInvalid as error:
            if "non-struct" not in str(error):
                raise
            raise refused(
                f"requests is of type {name}, which has values and no columns: {short(frame)}",
                "Pass `list(...)` of it.",
            ) from error
    rows = _arrow_rows(pyarrow, f"requests, a {name},", reader.schema, reader, hint=_FRAME_HINT)
    if is_read_again:
        rows = _once_more(pyarrow, frame, name, rows)
    return InputTable(rows, _arrow_columns(reader.schema), f"a {name}", _left_out(reader.schema))


def _once_more(pyarrow: ModuleType, frame: Any, name: str, rows: Iterator[InputRow]) -> Iterator[InputRow]:
    """Yield the rows, and check that the frame could give them again.

    A stream that is used up is empty (pyarrow 26), or raises an error (nanoarrow 0.9, arro3 0.9).
    """
    number = 0
    for number, row in enumerate(rows, 1):  # noqa: B007
        yield row
    try:
        is_empty_now = not any(batch.num_rows for batch in pyarrow.RecordBatchReader.from_stream(frame))
    except Exception:
        is_empty_now = True
    if number and is_empty_now:
        raise refused(
            f"requests is of type {name}, which gives its rows only once, and a task that defers reads them again",
            "Pass a table: `reader.read_all()`. Or set deferrable=False.",
        )


def _library(name: str, what: str) -> ModuleType:
    """Return a library of the extra ``tables``.

    :raises RequestInvalid: if it is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise refused(
            f"{name} is needed to read {what}, and it is not installed on this worker",
            "Install it on all workers: pip install 'airflow-provider-pictory[tables]'.",
        ) from error


def _unpacked(path: str, content: bytes) -> bytes:
    if not content.startswith(_GZIP):
        return content  # some storages unpack what they send
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            unpacked = file.read(LARGEST_TABLE + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise refused(f"{path} cannot be unpacked: {error}", "Was it written or copied only in part?") from None
    if len(unpacked) > LARGEST_TABLE:
        raise refused(f"{path} has more than {LARGEST_TABLE:,} bytes when it is unpacked")
    return unpacked


@contextmanager
def _errors_of(what: str, hint: str = _FILE_HINT) -> Iterator[None]:
    """Turn the errors of a library into one that names the table."""
    from pictory_provider.api.errors import PictoryError

    try:
        yield
    except PictoryError:
        raise
    except Exception as error:
        raise refused(f"{what} cannot be decoded: {type(error).__name__}: {error}", hint) from error


# Arrow --------------------------------------------------------------------------------------------------


def _read_parquet(pyarrow: ModuleType, path: str, content: bytes) -> InputTable:
    parquet = _library("pyarrow.parquet", path)
    with _errors_of(path):
        # Timestamps of Spark and Impala (INT96) overflow as nanoseconds before 1677 and after 2262.
        file = parquet.ParquetFile(pyarrow.BufferReader(content), coerce_int96_timestamp_unit="us")
        schema = file.schema_arrow
        groups = (file.metadata.row_group(number) for number in range(file.num_row_groups))
        if sum(group.total_byte_size for group in groups) > LARGEST_TABLE:
            raise refused(f"{path} has more than {LARGEST_TABLE:,} bytes when it is unpacked")
    batches = file.iter_batches(batch_size=_BATCH)
    return InputTable(
        _arrow_rows(pyarrow, path, schema, batches), _arrow_columns(schema), f"{path} (Parquet)", _left_out(schema)
    )


def _arrow_rows(
    pyarrow: ModuleType, what: str, schema: Any, batches: Iterable[Any], *, hint: str = _FILE_HINT
) -> Iterator[InputRow]:
    columns = _arrow_columns(schema)
    if problem := column_problem(columns):
        raise refused(f"{what} {problem}: it has the columns {', '.join(map(repr, columns))}")
    batches = iter(batches)
    while True:
        with _errors_of(what, hint):
            batch = next(batches, None)
        if batch is None:
            return
        for first in range(0, batch.num_rows, _BATCH):
            part = batch.slice(first, _BATCH)
            names = part.schema.names
            cells = [_cells(pyarrow, part.column(names.index(name))) for name in columns]
            for row in zip(*cells, strict=True):
                yield typed_row(columns, row)


def _cells(pyarrow: ModuleType, column: Any) -> list[Any]:
    """Return the values of a column as Python objects; one that has none becomes :class:`_Unreadable`."""
    types, kind = pyarrow.types, column.type
    try:
        if types.is_float16(kind) or types.is_float32(kind):
            # As text it has the digits that people write: 0.1, not 0.10000000149011612.
            texts = column.cast(pyarrow.string()).to_pylist()
            return [None if text is None else float(text) for text in texts]
        if types.is_timestamp(kind) and kind.unit == "ns":
            column = column.cast(pyarrow.timestamp("us", kind.tz), safe=False)
        elif types.is_duration(kind) and kind.unit == "ns":
            column = column.cast(pyarrow.duration("us"), safe=False)
        elif str(kind).startswith("extension<pandas."):  # its numbers mean something else to people
            return [None if value is None else _Unreadable(str(kind)) for value in column.to_pylist()]
        return list(column.to_pylist())
    except Exception:
        return [_value_of(scalar, kind) for scalar in column]


def _value_of(scalar: Any, kind: Any) -> Any:
    try:
        return scalar.as_py()
    except Exception:
        return _Unreadable(str(kind))


class _Unreadable:
    """A value that Python cannot represent, such as an infinite date."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __repr__(self) -> str:
        return f"a value of type {self._kind}"


def _arrow_columns(schema: Any) -> list[str]:
    return [field.name for field in schema if not _is_binary(field) and not _PANDAS_INDEX.fullmatch(field.name)]


def _is_binary(field: Any) -> bool:
    kind = str(field.type)
    return kind in ("binary", "large_binary", "binary_view") or kind.startswith("fixed_size_binary[")


def _left_out(schema: Any) -> list[str]:
    notes = []
    if names := [repr(field.name) for field in schema if _is_binary(field)]:
        is_left_out = counted(len(names), "column is", "columns are")
        notes.append(f"{is_left_out} left out, because the values are bytes: {listed(names, _SHOWN)}.")
    notes += [
        f"The index {index['name']!r} of the pandas data frame is no column, because its values are a range. To "
        "use it, call reset_index()."
        for index in _index_of_pandas(schema)
        if isinstance(index, dict) and index.get("name")
    ]
    return notes


def _index_of_pandas(schema: Any) -> list[Any]:
    """Return how pandas describes its index: the name of a column, or a range."""
    described = (schema.metadata or {}).get(b"pandas")
    try:
        found = parse_json(described)["index_columns"] if described else []
    except (ValueError, KeyError, TypeError):
        return []
    return found if isinstance(found, list) else []


# Excel --------------------------------------------------------------------------------------------------


def _read_xlsx(openpyxl: ModuleType, path: str, content: bytes, name: str | None) -> InputTable:
    if content.startswith(_ENCRYPTED):
        raise refused(
            f"{path} is protected by a password, or is an .xls file of another name",
            "Save it as .xlsx, without a password.",
        )
    with _errors_of(path):
        archive = zipfile.ZipFile(io.BytesIO(content))
        size = sum(part.file_size for part in archive.infolist())
        if size > _LARGEST_SHEET:
            raise refused(f"{path} has more than {_LARGEST_SHEET:,} bytes when it is unpacked")
        book = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
        sheet = _sheet(path, book, name)
        about = f"{path} (Excel, sheet {sheet.title!r})"
        with archive.open(sheet._worksheet_path.lstrip("/")) as part:  # noqa: SLF001  openpyxl has no public name for it
            scan = _SheetScan(part, is_calculated=_is_calculated(archive))
        # The size that the file says a sheet has is often wrong, and rows would be cut to it.
        sheet.reset_dimensions()
        lines = _lines(sheet, scan)
        line, cells = next(lines, (0, ()))
    if not line:
        raise refused(f"{about} is empty: it has no row with column names")
    columns = _header(about, line, cells, scan)
    return InputTable(_xlsx_rows(about, columns, lines, scan), columns, about, scan.notes())


def _sheet(path: str, book: Any, name: str | None) -> Any:
    sheets = book.worksheets
    if not sheets:
        raise refused(
            f"{path}: none of its sheets can be read",
            'If it is a "Strict Open XML Spreadsheet", save it as an "Excel Workbook" (.xlsx).',
        )
    titles = ", ".join(repr(sheet.title) for sheet in sheets)
    if name is not None:
        for sheet in sheets:
            if sheet.title == name:
                return sheet
        raise refused(f"{path} has no sheet {name!r}; its sheets are: {titles}", field="sheet")
    visible = next((sheet for sheet in sheets if sheet.sheet_state == "visible"), None)
    if visible is None:
        raise refused(f"{path} has no visible sheet", f"Name one of {titles} in sheet.", field="sheet")
    return visible


def _is_calculated(archive: zipfile.ZipFile) -> bool:
    """Whether the results of formulas in a file are valid.

    Programs that write formulas without calculating them ask Excel to do so when it opens the file
    (``fullCalcOnLoad``, ECMA-376, part 1, 18.2.2), and often write 0 as the result. openpyxl 3.1 says that of
    every file.
    """
    asked: list[str] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        if name.rpartition(":")[2] == "calcPr":
            asked.append(attributes.get("fullCalcOnLoad", "0"))

    for name in archive.namelist():
        if _WORKBOOK.search(name):
            parser = expat.ParserCreate()
            parser.StartElementHandler = start
            parser.Parse(archive.read(name), True)
    return not {"1", "true"} & set(asked)


def _lines(sheet: Any, scan: _SheetScan) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Yield the rows that are not blank, each with its number."""
    for number, cells in enumerate(sheet.iter_rows(), 1):
        if scan.problem_in(number) or not all(is_empty(cell.value) for cell in cells):
            yield number, cells


def _header(about: str, line: int, cells: Sequence[Any], scan: _SheetScan) -> list[str]:
    values = [_value(cell)[0] for cell in cells]
    texts = [_value(cell)[1] or str(value) for cell, value in zip(cells, values, strict=True)]
    names = ["" if value is None else text.strip() for value, text in zip(values, texts, strict=True)]
    while names and not names[-1]:
        names.pop()
    problem = column_problem(names)
    if merged := scan.merged_in(line):
        problem = f"has a merged cell in its header, {merged}"
    if bad := scan.problem_in(line) or next((each for each in map(_problem, cells) if each), None):
        problem = f"has a bad header: {bad}"
    if problem is None:
        return names
    raise refused(
        f"{about} {problem}: its first row that is not blank, row {line}, names {', '.join(map(repr, names))}",
        "That row names the columns. Delete a title above it, and give each column one cell with a name.",
    )


def _xlsx_rows(
    about: str, columns: list[str], lines: Iterator[tuple[int, tuple[Any, ...]]], scan: _SheetScan
) -> Iterator[InputRow]:
    first: str | None = None
    has_good_rows, width = False, len(columns)
    while True:
        with _errors_of(about):
            line, cells = next(lines, (0, ()))
        if not line:
            break
        problem = scan.problem_in(line) or next((each for each in map(_problem, cells) if each), None)
        beyond = next((cell for cell in cells[width:] if cell.value is not None), None)
        if problem is None and beyond is not None:
            problem = (
                f"has {short(beyond.value)} in {beyond.coordinate}, and the last column with a name is "
                f"{columns[-1]!r}"
            )
            first = first or problem
        has_good_rows = has_good_rows or problem is None
        values, texts = {}, {}
        for name, cell in zip(columns, cells, strict=False):
            values[name], text = _value(cell)
            if text is not None:
                texts[name] = text
        yield InputRow(dict.fromkeys(columns) | values, line, texts or None, problem)
    if first and not has_good_rows:
        raise refused(
            f"{about} has {counted(width, 'column')} by its first row, {', '.join(map(repr, columns))}, and its "
            f"next row {first}",
            "The first row that is not blank names the columns: delete a title above it, and give each column a "
            "name.",
        )


def _problem(cell: Any) -> str | None:
    return f"has the error {cell.value} in {cell.coordinate}" if cell.data_type == "e" else None


def _value(cell: Any) -> tuple[Any, str | None]:
    """Return the value of a cell as JSON, and its text for patterns."""
    value = cell.value
    if isinstance(value, str):
        return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), value), None
    if isinstance(value, bool) or value is None:
        return value, None
    has_time = re.search("[hs]", _NOT_CODES.sub("", cell.number_format), re.IGNORECASE)
    if isinstance(value, (int, float)) and cell.style_array.numFmtId in _EAST_ASIAN_DATES:
        has_time = None if float(value).is_integer() else has_time
        value = _library("openpyxl.utils.datetime", "a date").from_excel(value, cell.parent.parent.epoch)
    if isinstance(value, (int, float)):
        return _number(value, cell.number_format)
    if isinstance(value, datetime) and not has_time:
        value = value.date()
    row = typed_row(["value"], [value])
    return row.values["value"], (row.texts or {}).get("value")


def _number(value: float, number_format: str) -> tuple[Any, str]:
    """Return a number as the sheet shows it: with 15 digits, and as text if its format pads it with zeros."""
    number = value if isinstance(value, int) else float(f"{value:.{_EXCEL_DIGITS}g}")
    number = int(number) if float(number).is_integer() else number
    zeros = _PADDING.sub("", number_format.partition(";")[0])
    if isinstance(number, int) and number >= 0 and re.fullmatch("00+", zeros):
        code = str(number).zfill(len(zeros))
        return code, code
    return number, number_text(number)


class _SheetScan:
    """What a sheet says besides the values of its cells.

    :param part: the sheet's XML (ECMA-376, part 1, 18.3.1).
    :param is_calculated: whether the results of formulas in the file are valid.
    """

    def __init__(self, part: Any, *, is_calculated: bool) -> None:
        self._is_calculated = is_calculated
        self._hidden = self._line = self._column = 0
        self._merged: list[str] = []
        self._problems: dict[int, str] = {}
        self._cell = ""
        self._is_hidden = self._is_text = self._is_formula = self._has_result = self._is_value = False
        parser = expat.ParserCreate()
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.EntityDeclHandler = _no_entities
        parser.ParseFile(part)

    def notes(self) -> list[str]:
        """Return sentences for the log."""
        return (
            [f"{counted(self._hidden, 'row is', 'rows are')} hidden and read like the others."]
            if self._hidden
            else []
        )

    def merged_in(self, line: int) -> str | None:
        """Return a range of merged cells in a row."""
        for cells in self._merged:
            rows = [int(number) for number in re.findall(r"\d+", cells)]
            if rows and rows[0] <= line <= rows[-1]:
                return cells
        return None

    def problem_in(self, line: int) -> str | None:
        """Return what is wrong with a formula in a row."""
        return self._problems.get(line)

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        tag = name.rpartition(":")[2]
        if tag == "c":
            self._cell = attributes.get("r", f"row {self._line}")
            self._check_order(attributes.get("r"))
            self._is_text = attributes.get("t") == "str"
            self._is_formula = self._has_result = False
        elif tag == "f":
            self._is_formula = True
        elif tag in ("v", "t"):
            self._is_value = True
            self._has_result = self._is_text  # the result of a formula may be an empty text
        elif tag == "row":
            line = int(attributes.get("r", self._line + 1))
            if not self._line < line <= _MOST_ROWS:
                raise ValueError(f"its row {line:,} comes after row {self._line:,}")
            self._line, self._column = line, 0
            self._is_hidden = attributes.get("hidden") in ("1", "true")
        elif tag == "mergeCell":
            self._merged.append(attributes.get("ref", ""))

    def _check_order(self, cell: str | None) -> None:
        """Raise if a cell is not to the right of the one before: openpyxl would leave cells out."""
        column = self._column + 1
        if cell is not None:
            column = 0
            for letter in cell.rstrip("0123456789"):
                column = column * 26 + ord(letter.upper()) - ord("A") + 1
        if not self._column < column <= _MOST_COLUMNS:
            raise ValueError(f"the cells of its row {self._line:,} are not in order, at {cell}")
        self._column = column

    def _text(self, text: str) -> None:
        if self._is_value and text:
            self._has_result = True
            self._hidden += self._is_hidden
            self._is_hidden = False

    def _end(self, name: str) -> None:
        tag = name.rpartition(":")[2]
        if tag in ("v", "t"):
            self._is_value = False
        elif tag == "c" and self._is_formula and not (self._has_result and self._is_calculated):
            self._problems.setdefault(
                self._line,
                f"has a formula in {self._cell} whose result is missing or not reliable, because the program that "
                "wrote the file did not calculate it: recalculate the file in a spreadsheet program (LibreOffice: "
                "Ctrl+Shift+F9) and save it, or write values",
            )


def _no_entities(*_: Any) -> NoReturn:
    raise ValueError("it declares entities, which spreadsheet programs do not write")
