# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tables in files of other programs, and data frames."""

from __future__ import annotations

import gzip
import io
import re
import zipfile
from datetime import date, datetime, time, timedelta
from decimal import Decimal

import openpyxl
import pyarrow as pa
import pytest
import xlsxwriter
from pyarrow import parquet

from pictory_provider.api.errors import RequestInvalid
from pictory_provider.core.tables.inputs import InputRow
from pictory_provider.storage import tables
from pictory_provider.storage.tables import read_frame, read_table


class Read:
    """What was read of a table."""

    def __init__(self, table):
        self.rows = list(table.rows)
        self.columns, self.about, self.notes = table.columns, table.about, table.notes

    @property
    def values(self):
        return [row.values for row in self.rows]


@pytest.fixture
def read(tmp_path):
    """Return a function that reads bytes as a file of a given name."""

    def read(name, content, **arguments):
        (tmp_path / name).write_bytes(content)
        return Read(read_table(str(tmp_path / name), **arguments))

    return read


@pytest.fixture
def refusal(read):
    def refusal(name, content, **arguments):
        with pytest.raises(RequestInvalid) as caught:
            read(name, content, **arguments)
        assert "Nothing was sent and nothing was spent." in caught.value.message
        return caught.value.message

    return refusal


def sheet(write, *, name="Products", **options):
    """Return an Excel file with one sheet. It is written by another library than the one that reads it."""
    file = io.BytesIO()
    book = xlsxwriter.Workbook(file, {"in_memory": True, **options})
    write(book.add_worksheet(name), book)
    book.close()
    return calculated(file.getvalue())


def edited(content, part, change):
    """Return a ZIP archive with one part changed."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            new.writestr(entry, change(data) if entry.filename == part else data)
    return file.getvalue()


def calculated(content):
    """Return an Excel file as a program writes it that has calculated its formulas."""
    return edited(content, "xl/workbook.xml", lambda data: data.replace(b' fullCalcOnLoad="1"', b""))


SHEET = "xl/worksheets/sheet1.xml"


def rows(*lines, **kwargs):
    """Return an Excel file with these cells."""

    def write(sheet, _):
        for number, cells in enumerate(lines):
            sheet.write_row(number, 0, cells)

    return sheet(write, **kwargs)


# Text files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "about"),
    [
        ("t.tsv", "sku\ttitle\n00120\ta; b, c\n", "tabs between the cells, UTF-8"),
        (
            "t.csv",
            "\ufeffsku;title\n00120;a; b, c\n".replace("a; b, c", '"a; b, c"'),
            "UTF-8 with a byte order mark",
        ),
        ("t.jsonl", '{"sku": "00120", "title": "a; b, c"}\n', "JSON lines, UTF-8"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_text_files_are_read_also_if_they_are_compressed(read, name, content, about, suffix):
    data = content.encode()
    table = read(name + suffix, gzip.compress(data) if suffix else data)
    assert table.values == [{"sku": "00120", "title": "a; b, c"}]
    assert about in table.about


def test_one_column_of_a_tsv_may_contain_commas(read):
    assert read("t.tsv", b"title\nA lamp, red\n").values == [{"title": "A lamp, red"}]


def test_a_sep_line_of_a_tsv_is_heeded(read):
    assert read("t.tsv", b"sep=;\na;b\n1;2\n").values == [{"a": "1", "b": "2"}]


def test_a_storage_may_unpack_what_it_sends(read):
    assert read("t.csv.gz", b"sku\n1\n").values == [{"sku": "1"}]


def test_several_compressed_parts_are_one_file(read):
    assert read("t.csv.gz", gzip.compress(b"sku\n1\n") + gzip.compress(b"2\n")).values == [
        {"sku": "1"},
        {"sku": "2"},
    ]


def test_half_a_compressed_file_is_refused(refusal):
    assert "cannot be unpacked" in refusal("t.csv.gz", gzip.compress(b"sku\n1\n" * 1000)[:-20])
    assert "cannot be unpacked" in refusal("t.csv.gz", b"\x1f\x8b garbage")


def test_what_is_too_large_when_it_is_unpacked_is_refused(refusal, monkeypatch):
    monkeypatch.setattr(tables, "LARGEST_TABLE", 100)
    assert "has more than 100 bytes when it is unpacked" in refusal("t.csv.gz", gzip.compress(b"0" * 101))


# Excel --------------------------------------------------------------------------------------------------


def test_a_cell_is_what_the_sheet_shows(read):
    def write(sheet, book):
        formats = {
            "d": "yyyy-mm-dd",
            "dt": 'dd.mm.yyyy hh:mm "Uhr"',
            "stand": '"Stand: "dd.mm.yyyy',
            "t": "hh:mm",
            "h": "[h]:mm",
            "code": "00000",
        }
        formats = {name: book.add_format({"num_format": code}) for name, code in formats.items()}
        bold = book.add_format({"bold": True})
        at = datetime(2026, 11, 29, 13, 5)
        sheet.write_row(
            0, 0, ["sku", "n", "price", "ean", "on", "at", "stand", "t", "h", "code", "f", "e", "rich", "yes"]
        )
        sheet.write_string(1, 0, "00120")
        sheet.write_number(1, 1, 120)
        sheet.write_number(1, 2, 19.99)
        sheet.write_number(1, 3, 4006381333931)
        sheet.write_datetime(1, 4, at, formats["d"])
        sheet.write_datetime(1, 5, at, formats["dt"])
        sheet.write_datetime(1, 6, at, formats["stand"])
        sheet.write_number(1, 7, 0.5, formats["t"])
        sheet.write_number(1, 8, 1.5, formats["h"])
        sheet.write_number(1, 9, 120, formats["code"])
        sheet.write_formula(1, 10, "=B2*2", None, 240)
        sheet.write_formula(1, 11, '=IF(A2="","",A2)', None, "")
        sheet.write_rich_string(1, 12, "A ", bold, "bold", " mug")
        sheet.write_boolean(1, 13, True)

    # The result of a formula that is an empty text, as Excel and LibreOffice write it.
    content = edited(sheet(write), SHEET, lambda data: re.sub(rb'(<c r="L2")( t="str")?>', rb'\1 t="str">', data))
    (row,) = read("t.xlsx", content).rows
    assert row.values == {
        "sku": "00120",
        "n": 120,
        "price": 19.99,
        "ean": 4006381333931,
        "on": "2026-11-29",
        "at": "2026-11-29T13:05:00",
        "stand": "2026-11-29",
        "t": "12:00:00",
        "h": "1 day, 12:00:00",
        "code": "00120",
        "f": 240,
        "e": None,
        "rich": "A bold mug",
        "yes": True,
    }
    assert type(row.values["n"]) is int
    assert {name: row.texts[name] for name in ("n", "price", "ean", "on", "code", "f")} == {
        "n": "120",
        "price": "19.99",
        "ean": "4006381333931",
        "on": "2026-11-29",
        "code": "00120",
        "f": "240",
    }


@pytest.mark.parametrize(
    ("written", "value", "text"),
    [
        ("19.989999999999998", 19.99, "19.99"),
        ("0.30000000000000004", 0.3, "0.3"),
        ("120.0", 120, "120"),
        ("4.006381333931E12", 4006381333931, "4006381333931"),
        ("1E-7", 1e-7, "0.0000001"),
    ],
)
def test_a_number_has_the_fifteen_digits_that_excel_shows(read, written, value, text):
    content = edited(rows(["n"], [7]), SHEET, lambda data: data.replace(b"<v>7</v>", f"<v>{written}</v>".encode()))
    (row,) = read("t.xlsx", content).rows
    assert (row.values, row.texts) == ({"n": value}, {"n": text})


def test_the_first_visible_sheet_is_read_or_the_one_that_is_named(read, refusal):
    file = io.BytesIO()
    with xlsxwriter.Workbook(file) as book:
        for name in ("Hidden", "First", "Second"):
            book.add_worksheet(name).write_column(0, 0, ["sku", name])
        book.get_worksheet_by_name("Hidden").hide()
        book.get_worksheet_by_name("First").activate()
        book.get_worksheet_by_name("First").set_first_sheet()
    content = calculated(file.getvalue())
    assert read("t.xlsx", content).values == [{"sku": "First"}]
    table = read("t.xlsx", content, sheet="Hidden")
    assert table.values == [{"sku": "Hidden"}]
    assert table.about.endswith("t.xlsx (Excel, sheet 'Hidden')")
    assert "has no sheet 'Third'; its sheets are: 'Hidden', 'First', 'Second'" in refusal(
        "t.xlsx", content, sheet="Third"
    )
    assert "sheet='First' has no effect" in refusal("t.csv", b"sku\n", sheet="First")


def test_hidden_rows_are_read_and_counted(read):
    def write(sheet, _):
        sheet.write_column(0, 0, ["sku", "1", "2", "3"])
        sheet.set_row(2, None, None, {"hidden": True})
        sheet.set_row(7, None, None, {"hidden": True})  # which has no cells

    table = read("t.xlsx", sheet(write))
    assert [row.values["sku"] for row in table.rows] == ["1", "2", "3"]
    assert table.notes == ["1 row is hidden and read like the others."]


def test_blank_rows_are_no_rows_and_rows_know_their_numbers(read):
    table = read("t.xlsx", rows([], ["sku", "title", ""], [], ["1", "A"], [" ", None], ["2"]))
    assert [(row.line, row.values) for row in table.rows] == [
        (4, {"sku": "1", "title": "A"}),
        (6, {"sku": "2", "title": None}),
    ]


def test_a_sheet_that_gives_a_wrong_size_is_read_as_a_whole(read):
    content = edited(
        rows(["sku", "title"], ["1", "A"]),
        SHEET,
        lambda data: re.sub(rb'<dimension ref="[^"]*"', b'<dimension ref="A1"', data),
    )
    assert read("t.xlsx", content).values == [{"sku": "1", "title": "A"}]


def test_a_formula_without_a_result_and_an_error_are_bad_rows_with_the_name_of_their_cell(read):
    def write(sheet, _):
        sheet.write_row(0, 0, ["sku", "n"])
        sheet.write_column(1, 0, ["1", "2", "3"])
        sheet.write_formula(1, 1, "=1+1", None, 2)
        sheet.write_formula(2, 1, "=1/0", None, "#DIV/0!")
        sheet.write_formula(3, 1, "=1+2", None, 333)

    content = edited(sheet(write), SHEET, lambda data: data.replace(b"<v>333</v>", b"<v></v>"))
    good, error, formula = read("t.xlsx", content).rows
    assert good.values == {"sku": "1", "n": 2}
    assert error.problem == "has the error #DIV/0! in B3"
    assert formula.problem.startswith("has a formula in B4 whose result is missing or not reliable")
    assert (error.values, formula.values) == ({"sku": "2", "n": "#DIV/0!"}, {"sku": "3", "n": None})


@pytest.mark.parametrize("library", ["xlsxwriter", "openpyxl"])
def test_the_results_in_a_file_that_was_never_calculated_are_not_believed(read, library):
    file = io.BytesIO()
    if library == "xlsxwriter":
        with xlsxwriter.Workbook(file) as book:
            written = book.add_worksheet()
            written.write_column(0, 0, ["n", 7])
            written.write_formula(2, 0, "=A2*2")  # it writes 0 as the result
    else:
        book = openpyxl.Workbook()
        for cell in ("n", 7, "=A2*2"):
            book.active.append([cell])
        book.save(file)
    good, formula = read("t.xlsx", file.getvalue()).rows
    assert good.values == {"n": 7}
    assert "has a formula in A3 whose result is missing or not reliable" in formula.problem


@pytest.mark.parametrize(
    ("write", "reported"),
    [
        (lambda sheet, _: None, "is empty: it has no row with column names"),
        (lambda sheet, _: sheet.write_row(0, 0, ["a", "a"]), "has two columns named 'a'"),
        (lambda sheet, _: sheet.write_row(0, 0, ["a", "", "b"]), "has a column without a name"),
        (lambda sheet, _: sheet.merge_range("A1:C1", "Products"), "has a merged cell in its header, A1:C1"),
        (lambda sheet, _: sheet.merge_range("A1:A2", "Products"), "has a merged cell in its header, A1:A2"),
        (
            lambda sheet, _: sheet.write_formula(0, 0, "=NA()", None, "#N/A"),
            "has a bad header: has the error #N/A in A1",
        ),
    ],
)
def test_a_header_that_names_no_columns_is_refused(refusal, write, reported):
    assert reported in refusal("t.xlsx", sheet(write))


def test_names_of_columns_may_be_numbers_and_dates(read):
    assert read("t.xlsx", rows(["sku", 2026], ["1", "A"])).columns == ["sku", "2026"]


def test_a_title_above_the_header_is_reported_with_the_first_row_that_differs(refusal):
    text = refusal("t.xlsx", rows(["Catalogue of 2026"], ["sku", "title"], ["1", "A"]))
    assert "has 1 column by its first row, 'Catalogue of 2026'" in text
    assert "its next row has 'title' in B2, and the last column with a name is 'Catalogue of 2026'" in text
    assert "delete a title above it" in text


def test_a_remark_beside_the_table_is_a_bad_row(read):
    good, remark = read("t.xlsx", rows(["sku"], ["1"], ["2", "sold out"])).rows
    assert good.problem is None
    assert remark.problem == "has 'sold out' in B3, and the last column with a name is 'sku'"


def test_merged_cells_below_the_header_have_their_value_in_the_first_cell(read):
    def write(sheet, _):
        sheet.write_row(0, 0, ["sku", "group"])
        sheet.write_column(1, 0, ["1", "2"])
        sheet.merge_range("B2:B3", "Lamps")

    assert read("t.xlsx", sheet(write)).values == [{"sku": "1", "group": "Lamps"}, {"sku": "2", "group": None}]


def test_what_is_no_excel_file_is_refused(refusal, monkeypatch):
    assert "is protected by a password, or is an .xls file" in refusal(
        "t.xlsx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
    )
    assert "cannot be decoded: BadZipFile" in refusal("t.xlsx", b"sku\n1\n")
    assert "cannot be decoded" in refusal("t.xlsx", rows(["a"])[:-30])
    content = rows(["a"])
    monkeypatch.setattr(tables, "_LARGEST_SHEET", 100)
    assert "has more than 100 bytes when it is unpacked" in refusal("t.xlsx", content)


def test_a_sheet_that_declares_entities_is_refused(refusal):
    content = edited(
        rows(["a"]),
        SHEET,
        lambda data: data.replace(b"<worksheet", b'<!DOCTYPE x [<!ENTITY e "e">]><worksheet', 1),
    )
    assert "cannot be decoded" in refusal("t.xlsx", content)


# Parquet and data frames --------------------------------------------------------------------------------

ARROW = {
    "sku": (pa.array(["00120"]), "00120", None),
    "n": (pa.array([120]), 120, None),
    "float": (pa.array([120.0]), 120.0, "120"),
    "float32": (pa.array([0.1], pa.float32()), 0.1, "0.1"),
    "price": (pa.array([Decimal("19.90")]), 19.9, "19.90"),
    "large": (pa.array([2**64 - 1], pa.uint64()), 2**64 - 1, None),
    "on": (pa.array([date(2026, 11, 29)]), "2026-11-29", "2026-11-29"),
    "at": (
        pa.array([1_764_421_200_123_456_789], pa.timestamp("ns", "UTC")),
        "2025-11-29T13:00:00.123456+00:00",
        "2025-11-29T13:00:00.123456+00:00",
    ),
    "t": (pa.array([time(13, 5)]), "13:05:00", "13:05:00"),
    "long": (pa.array([timedelta(hours=36)], pa.duration("ns")), "1 day, 12:00:00", "1 day, 12:00:00"),
    "kind": (pa.array(["lamp"]).dictionary_encode(), "lamp", None),
    "tags": (pa.array([["a", "b"]]), ["a", "b"], None),
    "box": (pa.array([{"on": date(2026, 1, 2)}]), {"on": "2026-01-02"}, None),
    "none": (pa.nulls(1), None, None),
    "yes": (pa.array([True]), True, None),
}
TABLE = pa.table({name: array for name, (array, _, _) in ARROW.items()})
EXPECTED = InputRow(
    {name: value for name, (_, value, _) in ARROW.items()},
    texts={name: text for name, (_, _, text) in ARROW.items() if text is not None},
)


def to_parquet(table, **options):
    file = io.BytesIO()
    parquet.write_table(table, file, **options)
    return file.getvalue()


def test_a_parquet_file_keeps_the_types_of_its_columns(read):
    table = read("t.parquet", to_parquet(TABLE))
    assert table.rows == [EXPECTED]
    assert table.about.endswith("t.parquet (Parquet)")


@pytest.mark.parametrize("frame", [TABLE, TABLE.to_batches()[0]], ids=lambda frame: type(frame).__name__)
def test_a_data_frame_keeps_the_types_of_its_columns(frame):
    table = Read(read_frame(frame, is_read_again=True))
    assert table.rows == [EXPECTED]
    assert table.about == f"a {type(frame).__name__}"


def test_rows_are_read_in_parts(read):
    numbers = pa.table({"n": range(2_500)})
    for table in (
        read("t.parquet", to_parquet(numbers, row_group_size=700)),
        Read(read_frame(numbers, is_read_again=False)),
    ):
        assert [row.values["n"] for row in table.rows] == list(range(2_500))


def test_columns_of_bytes_and_the_index_of_pandas_are_left_out(read):
    table = pa.table({"sku": ["1"], "thumbnail": [b"\x89PNG"], "__index_level_0__": [7]})
    found = read("t.parquet", to_parquet(table))
    assert found.values == [{"sku": "1"}]
    assert found.notes == ["1 column is left out, because the values are bytes: 'thumbnail'."]


def test_two_columns_of_one_name_are_refused(refusal):
    table = pa.table([["1"], ["2"]], names=["sku", "sku"])
    with pytest.raises(RequestInvalid, match="has two columns named 'sku'"):
        Read(read_frame(table, is_read_again=False))
    assert "has two columns named 'sku'" in refusal("t.parquet", to_parquet(table))


def test_a_damaged_file_is_refused(refusal):
    content = to_parquet(TABLE)
    assert "cannot be decoded" in refusal("t.parquet", content[:-8])
    assert "cannot be decoded" in refusal(
        "t.parquet", b"PAR1" + content[4:100] + bytes(len(content) - 104) + content[-4:]
    )


def test_a_value_that_python_cannot_represent_is_a_bad_row_and_the_others_are_not():
    table = pa.table({"at": pa.array([10**15, 0], pa.timestamp("s")), "n": [1, 2]})
    bad, good = Read(read_frame(table, is_read_again=False)).rows
    assert bad.problem.startswith("column 'at' contains a value of type timestamp[s], of type _Unreadable")
    assert good.values == {"at": "1970-01-01T00:00:00", "n": 2}


@pytest.mark.parametrize("column", [pa.chunked_array([[1, 2]])])
def test_one_column_is_not_a_table(column):
    with pytest.raises(RequestInvalid, match="which has values and no columns"):
        Read(read_frame(column, is_read_again=False))


class Once:
    """A stream that raises an error when it is used up, as those of nanoarrow and arro3 do."""

    def __init__(self):
        self.table = TABLE

    def __arrow_c_stream__(self, requested_schema=None):
        table, self.table = self.table, None
        if table is None:
            raise RuntimeError("array stream is released")
        return table.__arrow_c_stream__(requested_schema)


def test_a_stream_is_read_once_and_refused_if_it_may_be_read_again():
    def stream():
        return pa.RecordBatchReader.from_batches(TABLE.schema, TABLE.to_batches())

    assert Read(read_frame(stream(), is_read_again=False)).rows == [EXPECTED]
    with pytest.raises(RequestInvalid, match="gives its rows only once, and a task that defers reads them again"):
        Read(read_frame(stream(), is_read_again=True))
    with pytest.raises(RequestInvalid, match="gives its rows only once"):
        Read(read_frame(Once(), is_read_again=True))
    empty = pa.RecordBatchReader.from_batches(TABLE.schema, [])
    assert Read(read_frame(empty, is_read_again=True)).rows == []


@pytest.mark.parametrize(("name", "library"), [("t.xlsx", "openpyxl"), ("t.parquet", "pyarrow")])
def test_a_missing_library_is_named_with_what_to_install(refusal, monkeypatch, name, library):
    def without(module):
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr(tables, "import_module", without)
    text = refusal(name, b"")
    assert f"{library} is needed to read " in text
    assert "pip install 'airflow-provider-pictory[tables]'" in text


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(RequestInvalid, match="does not exist"):
        read_table(str(tmp_path / "t.parquet"))


# What was found by trial ----------------------------------------------------------------------------------


def with_sheet(data):
    return edited(rows(["a", "b"]), SHEET, lambda _: data.encode())


ROWS = '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>{}</sheetData></worksheet>'


def text_cell(at, text):
    return f'<c r="{at}" t="inlineStr"><is><t>{text}</t></is></c>'


@pytest.mark.parametrize(
    ("lines", "reported"),
    [
        (
            [("1", text_cell("A1", "sku")), ("2", text_cell("B2", "x") + text_cell("A2", "1"))],
            "are not in order, at A2",
        ),
        ([("1", text_cell("A1", "sku")), ("3", text_cell("A3", "1")), ("2", "")], "its row 2 comes after row 3"),
        ([("1", text_cell("A1", "sku")), ("2", text_cell("A2", "1")), ("2", "")], "its row 2 comes after row 2"),
        (
            [("1", text_cell("A1", "sku")), ("20000000", text_cell("A20000000", "1"))],
            "its row 20,000,000 comes after",
        ),
        ([("1", text_cell("A1", "sku")), ("2", text_cell("XFE2", "1"))], "are not in order, at XFE2"),
    ],
)
def test_a_sheet_of_which_cells_would_be_left_out_is_refused(refusal, lines, reported):
    data = ROWS.format("".join(f'<row r="{number}">{cells}</row>' for number, cells in lines))
    assert reported in refusal("t.xlsx", with_sheet(data))


def test_rows_and_cells_without_places_are_read_in_order(read):
    cells = "".join(f'<c t="inlineStr"><is><t>{text}</t></is></c>' for text in ("sku", "title"))
    data = ROWS.format(f"<row>{cells}</row><row>{cells}</row>")
    assert read("t.xlsx", with_sheet(data)).values == [{"sku": "sku", "title": "title"}]


def test_a_first_row_of_a_formula_alone_is_a_bad_header(refusal):
    data = ROWS.format('<row r="1"><c r="A1"><f>B1</f></c></row><row r="2">' + text_cell("A2", "sku") + "</row>")
    assert "has a bad header: has a formula in A1" in refusal("t.xlsx", with_sheet(data))


def test_characters_that_xml_cannot_have_are_decoded(read):
    assert read("t.xlsx", rows(["a"], ["A lamp\r\nwith feet"])).values == [{"a": "A lamp\r\nwith feet"}]


@pytest.mark.parametrize("code", ["[$-407]00000", "00000;@", "00000_)"])
def test_a_format_of_zeros_may_have_a_language_and_space(read, code):
    def write(sheet, book):
        sheet.write(0, 0, "sku")
        sheet.write_number(1, 0, 120, book.add_format({"num_format": code}))

    assert read("t.xlsx", sheet(write)).values == [{"sku": "00120"}]


def test_built_in_dates_of_east_asia_are_dates(read):
    def write(sheet, book):
        sheet.write(0, 0, "on")
        sheet.write_number(1, 0, 46355, book.add_format({"num_format": 31}))

    assert read("t.xlsx", sheet(write)).values == [{"on": "2026-11-29"}]


def test_a_strict_file_is_refused_with_how_to_save_it(refusal):
    content = edited(
        rows(["a"]), "xl/workbook.xml", lambda data: re.sub(rb"<sheets>.*</sheets>", b"<sheets/>", data)
    )
    assert "none of its sheets can be read" in refusal("t.xlsx", content)


def test_timestamps_of_spark_are_not_limited_to_nanoseconds(read):
    table = pa.table({"at": pa.array([datetime(9999, 12, 31), datetime(1500, 1, 1)])})
    content = to_parquet(table, use_deprecated_int96_timestamps=True)
    assert [row["at"] for row in read("t.parquet", content).values] == [
        "9999-12-31T00:00:00",
        "1500-01-01T00:00:00",
    ]


def test_a_parquet_file_that_is_too_large_when_it_is_unpacked_is_refused(refusal, monkeypatch):
    content = to_parquet(pa.table({"a": ["x" * 100_000]}), compression="zstd", use_dictionary=False)
    monkeypatch.setattr(tables, "LARGEST_TABLE", 50_000)
    assert "has more than 50,000 bytes when it is unpacked" in refusal("t.parquet", content)


def test_a_struct_with_a_field_of_bytes_in_its_name_is_kept():
    table = pa.table({"box": [{"binary_size": 1}]})
    assert Read(read_frame(table, is_read_again=False)).values == [{"box": {"binary_size": 1}}]


def test_a_range_as_index_of_pandas_is_said_to_be_no_column():
    described = b'{"index_columns": [{"kind": "range", "name": "sku", "start": 0, "stop": 2, "step": 1}]}'
    table = pa.table({"title": ["A lamp", "A mug"]}).replace_schema_metadata({b"pandas": described})
    (note,) = Read(read_frame(table, is_read_again=False)).notes
    assert note.startswith("The index 'sku' of the pandas data frame is no column")
    assert "reset_index()" in note
