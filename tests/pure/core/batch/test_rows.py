# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A table becomes requests, or one error that names every bad row."""

from __future__ import annotations

import csv
import io
import json
from collections import UserList, deque
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pictory_provider.api.errors import RequestInvalid
from pictory_provider.core.batch.file_names import collisions, problem_of_name
from pictory_provider.core.batch.rows import RowBuilder, digest_of, request_of
from pictory_provider.core.batch.templates import RowTemplate
from pictory_provider.core.picture_names import (
    LONGEST_KEY,
    LONGEST_PATH,
    SIDECAR_SUFFIX,
    is_portable,
    is_sidecar_name,
    longest_name,
    spare_name,
)
from pictory_provider.core.tables.inputs import InputRow, InputTable, is_frame, table_of, table_path
from pictory_provider.core.tables.text import read_text
from pictory_provider.core.tables.values import is_empty, is_nan
from tests.pure.core.batch.tables import built, read_table, records_of, rows_of


def values(text, path="t.csv"):
    return [record.values for record in read_table(path, text)]


def made(requests, **operator):
    return rows_of(requests, **operator)


def refusal(requests, **operator):
    with pytest.raises(RequestInvalid) as caught:
        made(requests, **operator)
    assert "Nothing was sent and nothing was spent." in caught.value.message
    return caught.value.message


# What is a table -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/d/a.csv", "s3://b/a.jsonl", "A.CSV"])
def test_a_string_that_ends_like_a_table_is_its_path(path):
    assert table_path(path) == path


@pytest.mark.parametrize(
    "wrong",
    ["A lamp at dawn", "['A lamp']", "", "a.xls", "A lamp\nfor t.csv", {"prompt": "x"}, b"a.csv", 7, None],
)
def test_what_is_neither_a_list_nor_a_tables_path_is_refused(wrong):
    with pytest.raises(RequestInvalid, match="Nothing was sent and nothing was spent"):
        table_path(wrong)


def test_a_list_is_its_rows_themselves():
    assert table_path(["A lamp at dawn"]) is None
    assert table_path(()) is None


@pytest.mark.parametrize(
    ("requests", "reported"),
    [
        ("A lamp", "requests is the string 'A lamp'. Nothing was sent and nothing was spent. Pass a list of"),
        ("x" * 78, f"requests is the string '{'x' * 78}'. Nothing"),
        ("x" * 79, f"requests is the string '{'x' * 79}…. Nothing"),
        (
            7,
            "requests is of type int: 7. Nothing was sent and nothing was spent. Pass a list of prompts or of dicts",
        ),
        ({"a": 1}, "requests is of type dict: {'a': 1}. Nothing was sent"),
        (b"a.csv", "requests is of type bytes: b'a.csv'. Nothing was sent"),
    ],
)
def test_what_is_not_a_table_is_shown_by_its_first_80_characters(requests, reported):
    with pytest.raises(RequestInvalid) as caught:
        table_path(requests)
    assert caught.value.message.startswith(reported)
    assert caught.value.fields == ("requests",)


def test_rows_may_come_from_whatever_gives_them():
    assert table_path(row for row in ["A lamp"]) is None
    assert records_of(row for row in ["A lamp", {"a": 1}]) == [InputRow({"prompt": "A lamp"}), InputRow({"a": 1})]


class Frame:
    """What data frames have in common: its iterator goes through names of columns."""

    def __iter__(self):
        return iter(["sku", "product"])

    def __len__(self):
        return 0

    def __dataframe__(self): ...


@pytest.mark.parametrize(
    ("attribute", "way"),
    [
        ("to_dict", 'Pass its rows: `df.to_dict("records")`.'),
        ("to_dicts", "Pass its rows: `frame.to_dicts()`."),
        ("to_pylist", "Pass its rows: `table.to_pylist()`."),
        ("collect", "Pass its result: `frame.collect()`."),
        ("to_list", "Pass `list(...)` of it."),
        ("tolist", "Pass `list(...)` of it."),
    ],
)
def test_a_data_frame_without_an_arrow_stream_is_refused_with_how_to_get_its_rows(attribute, way):
    frame = type("DataFrame", (Frame,), {attribute: getattr(Frame, attribute, lambda *_: {})})()
    with pytest.raises(RequestInvalid) as caught:
        table_path(frame)
    assert caught.value.message.startswith("requests is of type DataFrame: ")
    assert caught.value.message.endswith(way)


def test_an_object_with_an_arrow_stream_is_a_data_frame():
    frame = type("DataFrame", (Frame,), {"__arrow_c_stream__": lambda *_: None})()
    assert table_path(frame) is None
    assert is_frame(frame)
    assert not is_frame(["A lamp"])


class Product(NamedTuple):
    sku: str
    product: str


@pytest.mark.parametrize(
    ("requests", "way"),
    [
        ({"sku": 1}.keys(), "`list(...)` of it"),
        ({"a": "A lamp"}.values(), "`list(...)` of it"),
        ({"A lamp", "A mug"}, "`sorted(...)` of a set"),
        (frozenset(["A lamp"]), "`sorted(...)` of a set"),
        (iter(["A lamp"]), "`list(...)` of it"),
        (iter(Frame()), "`list(...)` of it"),
        (csv.reader(["a,b"]), "`list(...)` of it"),
        (io.StringIO("A lamp\n"), "Pass the path of the file"),
        (io.BytesIO(b"A lamp\n"), "Pass the path of the file"),
        (Path("/d/a.csv"), "Pass the path as a string: `str(path)`."),
        ({"sku": [1, 2]}, 'for a DataFrame, pass `df.to_dict("records")`'),
        (Product("00120", "A mug"), "For one row, pass a list of one dict."),
        (bytearray(b"a.csv"), ""),
        (memoryview(b"a.csv"), ""),
        (None, "requests is None: the upstream task returned nothing."),
        ("None", "requests rendered to 'None': its template found nothing."),
        (" ", "requests rendered to ' ': its template found nothing."),
    ],
)
def test_what_has_no_rows_in_an_order_is_refused_with_what_to_pass(requests, way):
    with pytest.raises(RequestInvalid) as caught:
        table_path(requests)
    assert way in caught.value.message
    assert "Nothing was sent and nothing was spent. Pass a list of prompts or of dicts" in caught.value.message


@pytest.mark.parametrize(
    "requests",
    [
        ["A lamp"],
        ("A lamp",),
        deque(["A lamp"]),
        UserList(["A lamp"]),
        map(str, ["A lamp"]),
        filter(None, ["A lamp"]),
        csv.DictReader(["prompt", "A lamp"]),
    ],
    ids=lambda requests: type(requests).__name__,
)
def test_what_gives_rows_in_an_order_is_a_table(requests):
    assert table_path(requests) is None
    assert [record.values for record in records_of(requests)] == [{"prompt": "A lamp"}]


@pytest.mark.parametrize(
    ("path", "reported"),
    [
        ("s3://b/P.XLS", "is a .xls file, which is not read. Nothing was sent.*Save the sheet as .xlsx"),
        ("/d/p.ods", "Save the sheet as .xlsx"),
        ("/d/p.feather", "pass the table or the data frame itself"),
        ("/d/p.txt", "give it a name that ends in .tsv"),
        ("/d/p.ndjson", "Give it a name that ends in .jsonl"),
        ("/d/p.json", "Write one object per line"),
        ("/d/p.xlsx.gz", "is a .gz file, which is not read.*unpack it first"),
        ("/d/p.csv.zip", "Unpack it first, or compress it as .gz"),
    ],
)
def test_a_file_of_another_kind_is_refused_with_how_to_get_rows_out_of_it(path, reported):
    with pytest.raises(RequestInvalid, match=reported) as caught:
        table_path(path)
    assert "template" not in caught.value.message


@pytest.mark.parametrize(
    ("value", "is_nothing"),
    [
        ("", True),
        (" \t", True),
        (None, True),
        (float("nan"), True),
        ("x", False),
        (0, False),
        (0.0, False),
        (False, False),
        ([], False),
    ],
)
def test_a_cell_is_empty_that_holds_blanks_null_or_nan_and_no_other(value, is_nothing):
    assert is_empty(value) is is_nothing
    assert is_nan(value) is (value != value)


def test_the_format_of_a_table_depends_on_its_suffix():
    assert values("a\n1\n", "t.CSV") == [{"a": "1"}]
    assert values('{"a": 1}', "t.JSONL") == [{"a": 1}]


# CSV -----------------------------------------------------------------------------------------------------


def test_every_cell_of_a_csv_file_stays_the_string_that_it_is():
    assert values("sku,n,when\n00120,1.50,2026-01-01\n") == [{"sku": "00120", "n": "1.50", "when": "2026-01-01"}]


def test_quotes_commas_line_breaks_umlauts_and_a_byte_order_mark_are_read():
    text = '\ufeffname,text\n"Groß, ""rot""","zwei\nZeilen"\n'
    assert values(text.encode()) == [{"name": 'Groß, "rot"', "text": "zwei\nZeilen"}]
    assert values(text) == values(text.encode())


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_kind_of_line_end_is_one(end):
    assert values(end.join(["a,b", "1,2", "3,4"])) == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]


def test_blank_lines_are_not_rows_and_rows_know_their_lines():
    records = read_table("t.csv", '\na,b\n\n1,"x\ny"\n , \n,\n2,3\n\n')
    assert [(record.line, record.values["a"]) for record in records] == [(4, "1"), (8, "2")]


def test_where_the_first_line_has_no_comma_a_semicolon_or_a_tab_parts_the_cells():
    assert values("a;b\n1,5;2\n") == [{"a": "1,5", "b": "2"}]
    assert values("a\tb\n1;\t2\n") == [{"a": "1;", "b": "2"}]
    assert values("a;b,c\n1,2\n") == [{"a;b": "1", "c": "2"}]


def test_a_ragged_row_is_bad_and_the_others_are_not():
    records = read_table("t.csv", "a,b\n1\n1,2,3\n1,2,\n1,2\n")
    assert ["2 columns" in (record.problem or "") for record in records] == [True, True, False, False]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("a,b,a\n1,2,3\n", "two columns named 'a'"),
        ("a, a\n1,2\n", "two columns named 'a'"),
        ("a,,b\n1,2,3\n", "a column without a name"),
        ("a,,b,\n1,2,3\n", "a column without a name"),
        ('a,b\n1,2\n1,"2\n', "begins in line 3"),
        ('a,b\n1,"2"x\n', "begins in line 2"),
    ],
)
def test_a_csv_file_that_cannot_be_trusted_is_refused_as_a_whole(text, why):
    with pytest.raises(RequestInvalid, match=why) as caught:
        read_table("t.csv", text)
    assert caught.value.message.startswith("t.csv ")


def test_a_file_that_is_not_utf_8_is_refused_with_its_line():
    with pytest.raises(RequestInvalid, match="line 2 contains the byte 0xfc"):
        read_table("t.csv", "a\nGr\xfcn\n".encode("latin-1"))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_read_if_a_byte_order_mark_says_so(encoding):
    mark = "" if encoding == "utf-16" else "\ufeff"
    table = read_text("t.csv", f"{mark}sku\tfarbe\n00120\tgr\xfcn\n".encode(encoding))
    assert [row.values for row in table.rows] == [{"sku": "00120", "farbe": "gr\xfcn"}]
    assert table.about == "t.csv (tabs between the cells, UTF-16)"


def test_half_a_character_of_utf_16_is_refused():
    with pytest.raises(RequestInvalid, match="begins like UTF-16, and is not"):
        read_table("t.csv", "a\nb\n".encode("utf-16")[:-1])


@pytest.mark.parametrize(
    ("content", "line"),
    [(b"\xfc", 1), (b"\n\xfc", 2), (b"a\nb\n\xfc", 3), (b"\n\xfc\n", 2)],
)
def test_a_byte_that_is_not_utf_8_is_named_with_the_line_that_it_is_in(content, line):
    with pytest.raises(
        RequestInvalid, match=rf"^t\.csv is not UTF-8: line {line} contains the byte 0xfc\."
    ) as caught:
        read_table("t.csv", content)
    assert caught.value.fields == ("requests",)


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ("", "t.csv is empty: it has no line with column names."),
        ("a,b,a\n", "t.csv has two columns named 'a': its first line names 'a', 'b', 'a'."),
        ("b,b,a,a\n", "t.csv has two columns named 'a': its first line names"),
        ("a,,,b\n", "t.csv has a column without a name: its first line names 'a', '', '', 'b'."),
        ("a,,b\n", "t.csv has a column without a name: its first line names 'a', '', 'b'."),
        ('"a\n', "t.csv cannot be read as CSV in the row that begins in line 1: "),
        ('a\n"x\ny"\n"z', "t.csv cannot be read as CSV in the row that begins in line 4: "),
    ],
)
def test_a_csv_file_that_is_refused_says_why_and_that_nothing_was_spent(text, reported):
    with pytest.raises(RequestInvalid) as caught:
        read_table("t.csv", text)
    assert caught.value.message.startswith(reported)
    assert "Nothing was sent and nothing was spent." in caught.value.message
    assert caught.value.fields == ("requests",)


def test_columns_without_a_name_at_the_end_are_none_and_names_have_no_blanks_around_them():
    assert values(" a ,b,,\n1,2,,\n") == [{"a": "1", "b": "2"}]


def test_rows_of_a_csv_file_know_the_line_in_which_they_begin():
    assert [record.line for record in read_table("t.csv", 'a,b\n1,2\n"x\ny",3\n4,5\n')] == [2, 3, 5]


def test_a_ragged_row_says_how_many_cells_it_has():
    short, long, blank = read_table("t.csv", "a,b\n1\n1,2,3\n1,2, \n")
    assert short.problem == (
        "has 1 cell, and the table has 2 columns: '1' (commas separate the cells of its first line; a cell that contains "
        "one of the commas, or a line break, has to be in quotes)"
    )
    assert long.problem == "has 3 cells, and the table has 2 columns"
    assert (short.line, short.values, long.line) == (2, {}, 3)
    assert blank == InputRow({"a": "1", "b": "2"}, 4)


@pytest.mark.parametrize(
    ("text", "cells"),
    [
        ("a;b\n1;2\n", {"a": "1", "b": "2"}),
        ("\n\na;b\n1;2\n", {"a": "1", "b": "2"}),
        ("a;b\tc\n1;2\n", {"a": "1", "b\tc": "2"}),
        ("a\n1;2\n", {"a": "1;2"}),
        ("a,b\n1;2,3\n", {"a": "1;2", "b": "3"}),
    ],
)
def test_the_first_line_with_anything_in_it_says_what_parts_the_cells(text, cells):
    assert values(text) == [cells]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("sep=;\na;b,c\n1;2,3\n", [{"a": "1", "b,c": "2,3"}]),
        ('"sep=,"\r\na,b\r\n1,2\r\n', [{"a": "1", "b": "2"}]),
        ("SEP=\t\na\tb\n1\t2\n", [{"a": "1", "b": "2"}]),
        ("sep=#\na#b\n1#2\n", [{"a": "1", "b": "2"}]),
        ("sep=;\nprompt\nA mug; blue\n", None),
    ],
)
def test_a_first_line_may_say_what_parts_the_cells(text, rows):
    if rows is None:
        with pytest.raises(RequestInvalid, match="Its first line names semicolons as the delimiter"):
            values(text.encode("utf-8-sig"))
    else:
        assert values(text.encode("utf-8-sig")) == rows
        assert read_table("t.csv", text)[0].line == 3


@pytest.mark.parametrize("first", ["sep=", "sep=;;", 'sep="', "sep= "])
def test_a_first_line_that_names_no_delimiter_is_refused(first):
    with pytest.raises(RequestInvalid, match="which names no delimiter"):
        values(f"{first}\na;b\n1;2\n")


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("sku;name, blue\n1;mug\n", [{"sku": "1", "name, blue": "mug"}]),
        ("sku|name, blue\n1|a, b\n2|c\n", [{"sku": "1", "name, blue": "a, b"}, {"sku": "2", "name, blue": "c"}]),
        ("sku\tname; blue\n1\tmug\n", [{"sku": "1", "name; blue": "mug"}]),
        ('a,"b;c"\n1,2\n', [{"a": "1", "b;c": "2"}]),
        ("a|b\n1|2\n", [{"a": "1", "b": "2"}]),
    ],
)
def test_the_delimiter_is_the_one_by_which_all_rows_have_as_many_cells_as_the_header(text, rows):
    assert values(text) == rows


def test_a_table_that_can_be_read_in_two_ways_is_refused():
    with pytest.raises(RequestInvalid) as caught:
        values("price, EUR;name\n1,50;mug\n2,10;pot\n")
    assert caught.value.message == (
        "t.csv can be read in 2 ways: with commas or semicolons as the delimiter, all of its rows have as many cells "
        "as its first line. Nothing was sent and nothing was spent. Name the delimiter in an extra first line, such "
        "as `sep=;`."
    )


def test_a_line_that_differs_is_shown_with_what_parts_the_cells_and_the_next_ones_are_short():
    good, remark, short = read_table("t.csv", "sku,name\n1,mug\n2,pot,sold out\n3\n")
    assert good.problem is None
    assert remark.problem == (
        "has 3 cells, and the table has 2 columns: '2', 'pot', 'sold out'; beyond the last column it has 'sold out', "
        "which needs a column with a name (commas separate the cells of its first line; a cell that contains one of the "
        "commas, or a line break, has to be in quotes)"
    )
    assert short.problem == "has 1 cell, and the table has 2 columns"


@pytest.mark.parametrize("text", ["Products, 2026\nsku;name;n\n\n1;mug;2\n"])
def test_a_title_above_the_header_is_reported_with_the_first_line_that_differs(text):
    with pytest.raises(RequestInvalid) as caught:
        values(text)
    assert "no row has as many cells: line 2 has " in caught.value.message
    assert "sku" in caught.value.message
    assert "delete a title above it" in caught.value.message


def test_a_cell_that_is_too_large_is_reported_as_what_it_is():
    with pytest.raises(RequestInvalid) as caught:
        values("a,b\n1,2\n1," + "x" * 131_073 + "\n")
    assert caught.value.message == (
        "t.csv cannot be read as CSV in the row that begins in line 3: it has a cell of more than 131,072 characters. "
        "Nothing was sent and nothing was spent. Either a quote is opened there and never closed, or a column "
        "contains something other than text: leave that column out."
    )


@given(st.lists(st.lists(st.text(st.characters(codec="utf-8")), min_size=3, max_size=3), max_size=8))
def test_whatever_the_csv_module_has_written_is_read_as_it_was(rows):
    written = io.StringIO(newline="")
    csv.writer(written).writerows([["a", "b", "c"], *rows])
    kept = [row for row in rows if any(cell.strip() for cell in row)]
    assert [list(row.values()) for row in values(written.getvalue().encode())] == kept


# JSONL ---------------------------------------------------------------------------------------------------


def test_a_number_in_jsonl_keeps_its_own_text_for_patterns_and_its_value_for_the_manifest():
    records = read_table("t.jsonl", '{"p": 1.50, "n": 1e3, "sku": "00120", "y": true, "z": null}\n')
    assert records[0].values == {"p": 1.5, "n": 1000.0, "sku": "00120", "y": True, "z": None}
    table = InputTable(records, None, "a file", [])
    maker = RowBuilder(conn_id="c", prompt="It costs {p} and {n}", file_name="{sku}.png")
    assert maker.build(table).rows[0].request.prompt == "It costs 1.50 and 1e3"


def test_a_line_separator_within_a_json_string_does_not_end_the_line():
    assert values('{"a": "x\u2028y\x85z"}\r\n\r\n"A lamp"\n', "t.jsonl") == [
        {"a": "x\u2028y\x85z"},
        {"prompt": "A lamp"},
    ]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"a": 1', "is not JSON"),
        ('{"a": 00120}', "is not JSON"),
        ('{"a": 1, "a": 2}', "has 'a' twice"),
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": 1e400}', "cannot represent"),
        ('{"a": "\\ud800"}', "half a character"),
        ('{"": 1}', "a column named ''"),
        ("[1]", "is of type list"),
        ("7", "is of type int"),
        ("null", "is None"),
        ("1" * 5000, "is not JSON"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_bad_line_of_jsonl_is_a_bad_row_and_the_others_are_not(line, why):
    bad, good = read_table("t.jsonl", line + '\n{"a": 2}\n')
    assert why in bad.problem
    assert (good.problem, good.values) == (None, {"a": 2})


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"a": 1', "is not JSON (Expecting ',' delimiter, character 8)"),
        ('{"a": 1, "b": 2, "b": 3, "a": 4}', "is not JSON (it has 'a' twice)"),
        ('{"b": 1, "a": 2, "a": 3}', "is not JSON (it has 'a' twice)"),
        ('{"a": Infinity}', "is not JSON (Infinity is not JSON)"),
        ('{"a": {"b": 1, "b": 2}}', "is not JSON (it has 'b' twice)"),
        ("[1]", "is of type list, neither a prompt nor a dict: [1]"),
        ('{" ": 1}', "has a column named ' '; a name is a string that is not empty"),
        (
            '{"a": "\\ud800"}',
            "column 'a' contains half a character (a lone surrogate), which cannot be written to a file",
        ),
        (
            '{"\\ud800": 1}',
            "column '\\ud800' contains half a character (a lone surrogate), which cannot be written to a file",
        ),
        ('{"a": 1e400}', "column 'a' contains inf, of type float, which JSON cannot represent: make it a string"),
        ("[" * 100_000, "is nested too deeply"),
    ],
)
def test_what_is_wrong_with_a_line_of_jsonl_is_said(line, problem):
    good, bad = read_table("t.jsonl", f'{{"a": 1}}\n{line}\n')
    assert (good.line, bad.line, bad.values) == (1, 2, {})
    assert bad.problem == problem


def test_only_numbers_have_a_text_of_their_own():
    line = '{"a": 1.50, "b": true, "c": "1.50", "d": [2.50], "e": 3, "f": 7e0}'
    one, other = read_table("t.jsonl", f'{line}\n{{"b": "x"}}\n')
    assert one.texts == {"a": "1.50", "e": "3", "f": "7e0"}
    assert one.values == {"a": 1.5, "b": True, "c": "1.50", "d": [2.5], "e": 3, "f": 7.0}
    assert other.texts is None


# Lists ---------------------------------------------------------------------------------------------------


def test_a_list_of_prompts_and_dicts_becomes_numbered_pictures():
    rows = made(["A lamp at dawn", {"prompt": "A lamp at noon", "model": "flux-schnell", "note": 1}])
    assert [row.file_name for row in rows] == ["00000.png", "00001.png"]
    assert [row.request.credits for row in rows] == [2, 0.6]
    assert rows[1].columns == {"note": 1}


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"prompt": "A lamp", 7: 1}, "a column named 7"),
        ({"prompt": "A lamp", "a": {1, 2}}, "of type set, which JSON"),
        ({"prompt": "A lamp", "a": [float("nan")]}, "of type list, which JSON"),
        (7, "is of type int"),
        (None, "is None"),
    ],
)
def test_what_no_manifest_can_keep_is_refused_before_anything_is_bought(row, why):
    assert why in refusal([row])


def test_what_pandas_writes_for_a_missing_value_is_an_empty_cell():
    rows = made([{"prompt": "A lamp", "style": float("nan"), "n": float("nan")}], style="vintage")
    assert rows[0].request.style == "vintage"
    assert rows[0].columns == {"n": None}


def test_an_empty_table_is_not_an_error():
    assert made([]) == []


# Patterns ------------------------------------------------------------------------------------------------


def test_a_pattern_takes_columns_and_the_index_and_doubled_braces_are_braces():
    pattern = RowTemplate("prompt", "{{{a}}} {Größe in cm} {index} {index:03d} {index:4}")
    assert pattern.render(InputRow({"a": "x", "Größe in cm": 7}), 5) == "{x} 7 5 005    5"


def test_what_a_cell_holds_is_never_read_as_a_pattern():
    assert RowTemplate("prompt", "{a}").render(InputRow({"a": "{b} {index}", "b": "secret"}), 0) == "{b} {index}"


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "}",
        "{}",
        "{a.b}",
        "{a[0]}",
        "{a!r}",
        "{a:5}",
        "{index:{a}}",
        "{index:x}",
        "{index:999d}",
        "{ }",
        "{a{b}}",
    ],
)
def test_anything_but_plain_columns_is_not_a_pattern(text):
    with pytest.raises(RequestInvalid, match="is not a valid pattern") as caught:
        RowBuilder(conn_id="c", file_name=text)
    assert caught.value.fields == ("file_name",)


@pytest.mark.parametrize("field", ["prompt", "file_name", "reference_image_url"])
def test_a_pattern_that_a_rows_own_value_would_always_replace_is_refused(field):
    with pytest.raises(RequestInvalid, match="replaces the whole pattern"):
        RowBuilder(conn_id="c", **{field: f"a {{{field}}}"})


def test_an_unknown_column_an_empty_cell_and_what_is_not_text_are_bad_rows():
    table = [{"a": ""}, {"b": "x"}, {"a": True}, {"a": [1]}, {"a": "ok for a lamp"}]
    text = refusal(table, prompt="{a}")
    assert "4 of 5 rows" in text
    assert "row 0: prompt='{a}' uses {a}, which is empty here" in text
    assert "row 1: prompt='{a}' uses {a}, and there is no such column; the columns are: 'b'" in text
    assert "row 2: prompt='{a}' uses {a}, which is of type bool here, and neither" in text


def test_a_table_with_a_column_index_cannot_be_meant_by_a_pattern_with_index():
    rows = [{"index": 7, "prompt": "A lamp"}]
    assert made(rows)[0].file_name == "00000.png"
    assert "has a column 'index', and file_name uses {index}" in refusal(rows, file_name="{index}.png")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (7, "prompt 7 is not a valid pattern: it is not a string."),
        ("{", "write a literal brace twice."),
        ("{}", "a pair of braces has no column name."),
        ("{a.b}", "{a.b} is not a plain column name; write {row[...]} around the column's name."),
        ("{a!s}", "{a} is not a plain column name; write {row[...]} around the column's name."),
        (
            "{a:5}",
            "{a:5} has a format, and only {index} takes one; a column with a colon in its name is {row[a:5]}.",
        ),
        ("{index:x}", "the format in {index:x} is not of the form 05d."),
    ],
)
def test_why_a_text_is_not_a_pattern_is_said(text, why):
    with pytest.raises(RequestInvalid) as caught:
        RowTemplate("prompt", text)
    assert why in caught.value.message
    assert "Nothing was sent and nothing was spent." in caught.value.message
    assert caught.value.fields == ("prompt",)


@pytest.mark.parametrize("form", ["", ":d", ":5", ":5d", ":05", ":05d", ":99d", ":12"])
def test_an_index_takes_a_width_of_up_to_two_digits(form):
    assert int(RowTemplate("file_name", f"{{index{form}}}").render(InputRow({}), 7)) == 7
    with pytest.raises(RequestInvalid):
        RowTemplate("file_name", "{index:100}")


def test_a_pattern_knows_its_columns_once_each():
    assert RowTemplate("prompt", "{b} {a} {index} {b} {row[index]}").columns == ["b", "a", "index"]
    assert RowTemplate("prompt", "{b} {a} {index} {b}").columns == ["b", "a"]
    assert RowTemplate("prompt", "no column").columns == []


@pytest.mark.parametrize(("number", "more"), [(12, ""), (13, ", 1 more"), (20, ", 8 more")])
def test_a_column_that_is_not_there_is_reported_with_twelve_that_are(number, more):
    record = InputRow({f"c{n}": 1 for n in range(number)})
    with pytest.raises(ValueError, match="no such column") as caught:
        RowTemplate("prompt", "{x}").render(record, 0)
    listed = ", ".join(repr(f"c{n}") for n in range(12))
    assert str(caught.value) == (
        f"prompt='{{x}}' uses {{x}}, and there is no such column; the columns are: {listed}{more}"
    )
    with pytest.raises(ValueError, match=r"the columns are: none$"):
        RowTemplate("prompt", "{x}").render(InputRow({}), 0)


def test_a_text_of_its_own_is_taken_only_for_the_column_that_has_it():
    record = InputRow({"a": 1.5, "b": 2.5, "c": 3}, texts={"a": "1.50"})
    assert RowTemplate("prompt", "{a} {b} {c}").render(record, 0) == "1.50 2.5 3"


# A row's own ---------------------------------------------------------------------------------------------


def test_a_rows_own_values_win_where_they_are_not_empty_and_are_taken_as_they_are():
    own = {
        "prompt": "A {lamp} as it is",
        "file_name": "x/y.png",
        "model": "flux-schnell",
        "aspect_ratio": "16:9",
        "style": "vintage",
        "reference_image_url": "https://h/a.png",
    }
    operator = {
        "prompt": "The operator's",
        "file_name": "{index}.png",
        "model": "nanobanana",
        "aspect_ratio": "1:1",
        "style": "cartoon",
        "reference_image_url": "https://h/{index}.png",
    }
    first, second = made([own, dict.fromkeys(own, " ")], **operator)
    assert {**first.canonical_request, "file_name": first.file_name} == {
        "prompt": "A {lamp} as it is",
        "model": "flux-schnell",
        "aspectRatio": "16:9",
        "style": "vintage",
        "referenceImageUrl": "https://h/a.png",
        "file_name": "x/y.png",
    }
    assert second.canonical_request == {
        "prompt": "The operator's",
        "model": "nanobanana",
        "aspectRatio": "1:1",
        "style": "cartoon",
        "referenceImageUrl": "https://h/1.png",
    }
    assert second.file_name == "1.png"
    assert first.columns == second.columns == {}


@pytest.mark.parametrize("column", ["aspectRatio", "Aspect Ratio", "Prompt", "filename", "File-Name", "Style"])
def test_a_column_whose_name_is_almost_a_fields_is_data_and_a_warning_says_so_once(column):
    table = built([{"what": "lamp", column: "x"}, {"what": "mug", column: "y"}], prompt="A {what}")
    assert [row.columns for row in table.rows] == [{"what": "lamp", column: "x"}, {"what": "mug", column: "y"}]
    (warning,) = table.warnings
    assert warning.startswith(f"The column {column!r} is only data: it does not set ")


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"a": 1}, "has no prompt, and the operator has none either"),
        ({"prompt": "abc"}, "prompt has 3 characters"),
        ({"prompt": 12345}, "prompt is of type int, not a string"),
        ({"prompt": "A lamp", "model": "dall-e"}, "model 'dall-e' is not among"),
        ({"prompt": "A lamp", "aspect_ratio": "16:09:00"}, "aspect_ratio '16:09:00' is not among"),
        (
            {"prompt": "A lamp", "reference_image_url": "a.png"},
            "reference_image_url 'a.png' is neither an absolute URL",
        ),
        ({"prompt": "A lamp", "reference_image_url": "file:///a.png"}, "'file:///a.png' is a local file"),
        ({"prompt": "A lamp", "reference_image_url": "s3://key:secret@b/a.png"}, "has a password"),
        ({"prompt": "A lamp", "file_name": 0}, "file_name 0 is of type int"),
    ],
)
def test_a_request_that_pictory_would_refuse_is_a_bad_row(row, why):
    text = refusal([row])
    assert why in text
    assert "secret" not in text
    assert text.count("Nothing was sent") == 1


def test_a_private_reference_image_is_kept_unsigned():
    row = made([{"sku": "a b#1"}], prompt="A lamp", reference_image_url="s3://b/{sku}.png")[0]
    assert row.request.reference_image_url == "s3://b/a b#1.png"
    assert row.canonical_request["referenceImageUrl"] == "s3://b/a b#1.png"
    assert request_of(json.loads(json.dumps(row.canonical_request))).reference_image_url == "s3://b/a b#1.png"


def test_a_price_is_that_of_the_rows_own_model():
    rows = made(["A lamp", {"prompt": "A lamp", "model": "new"}], allow_unlisted=True)
    assert [row.request.credits for row in rows] == [2, None]


# File names ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "/a.png",
        "../a.png",
        "a/../b.png",
        "./a.png",
        "..",
        ".",
        "a/",
        "a//b.png",
        "a\\b.png",
        "a\n.png",
        "a\x00.png",
        "a\u2028.png",
        "\ud800.png",
        " a.png",
        "a /b.png",
        "a.png ",
        ".pictory/a.png",
        ".Pictory/1-00000.json",
        "x/.pictory-1.part",
        "metadata.jsonl",
        "Metadata.JSONL",
        "failed.jsonl",
        "metadata.csv",
        "s3://b/a.png",
        "x" * 201,
        "ü" * 101,
        "/".join(["x" * 100] * 10),
        None,
        7,
    ],
)
def test_a_name_that_leads_astray_is_refused(name):
    assert problem_of_name(name)


@pytest.mark.parametrize(
    "name",
    ["a.png", "a", "x/y/z.png", "a..png", "...png", "Grün, 100 % #1?.png", ".hidden.png", "日本.png", "x" * 200],
)
def test_an_odd_name_that_leads_nowhere_else_is_fine(name):
    assert problem_of_name(name) is None


@pytest.mark.parametrize(
    ("names", "bad"),
    [
        (["a.png", "b.png"], []),
        (["a.png", "b.png", "a.png", "a.png"], [2, 3]),
        (["a.png", "A.PNG"], [1]),
        (["ü.png", "u\u0308.png"], [1]),
        (["a.png", "a.png.json"], [1]),
        (["a.png.json", "a.png"], [0]),
        (["a", "a/b.png"], [1]),
        (["A", "a/b/c.png"], [1]),
        (["x/a.png", "x/a.png.json/b.png"], [1]),
        (["x/a.png", "y/a.png"], []),
    ],
)
def test_no_two_files_are_in_each_others_way(names, bad):
    assert sorted({index for index, _ in collisions(enumerate(names))}) == bad


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (7, "is of type int, not a string"),
        (" ", "is empty"),
        ("/a", "is absolute; it has to be relative to the folder"),
        ("a\\b", "has a backslash; separate folders with /"),
        ("a\tb", "has control characters"),
        ("a\u2029b", "has control characters"),
        ("a/", "ends in / and names no file"),
        ("a//b", "has an empty part"),
        ("a/./b", "has a part `.` or `..`"),
        ("a /b", "has a part that begins or ends with a space"),
        (".PICTORY", "is reserved for the batch's record"),
        ("x/.pictoryx/a", "is reserved for the batch's record"),
        ("metadata.jsonl/a.png", "has the name of a file that the batch itself writes"),
        ("x/metadata.PARQUET", "has the name of a file that the batch itself writes"),
        ("ü" * 100 + "x", "has a part of more than 200 bytes"),
        ("/".join([*["x" * 180] * 4, "x" * 177]), "has more than 900 bytes"),
    ],
)
def test_why_a_name_leads_astray_is_said(name, problem):
    assert problem_of_name(name) == problem


@pytest.mark.parametrize(
    "name", ["ü" * 100, "/".join([*["x" * 180] * 4, "x" * 176]), "metadata.jsonl.d/a.png", "a\u200bb"]
)
def test_a_name_may_be_as_long_as_disks_and_storages_take_it(name):
    assert problem_of_name(name) is None


@pytest.mark.parametrize(
    ("names", "reported"),
    [
        (["a.png", "A.png"], (1, "'A.png' is also the file name of row 0 (case may not matter on the disk)")),
        (["a.png", "a.png.json"], (1, "'a.png.json' is the name of the sidecar of row 0")),
        (["a", "b", "a/c.png"], (2, "'a/c.png' needs the folder 'a', but row 0 saves a file of that name")),
        (
            ["x", "a", "a.json/c.png"],
            (2, "'a.json/c.png' needs the folder 'a.json', but row 1 saves a file of that name"),
        ),
    ],
)
def test_whose_file_is_in_the_way_of_anothers_is_said(names, reported):
    assert list(collisions(enumerate(names))) == [reported]


def test_a_table_that_writes_one_file_twice_is_refused():
    text = refusal([{"sku": "a"}, {"sku": "b"}, {"sku": "A"}], prompt="A lamp", file_name="{sku}.png")
    assert "1 of 3 rows" in text
    assert "row 2: file_name 'A.png' is also the file name of row 0" in text


@pytest.mark.parametrize(
    ("name", "spare"),
    [("a.png", "a.j-1.png"), ("x/a.b.png", "x/a.b.j-1.png"), ("x.y/a", "x.y/a.j-1"), (".a", ".a.j-1")],
)
def test_a_paid_picture_whose_place_is_taken_gets_its_jobs_name(name, spare):
    assert spare_name(name, "j/1") == spare
    assert problem_of_name(spare) is None


@given(name=st.text(min_size=1, max_size=250).filter(lambda name: problem_of_name(name) is None))
def test_a_spare_name_fits_wherever_the_picture_s_own_does(name):
    file = name.rpartition("/")[2]
    spare = spare_name(name, "4d82d040-4394-4371-867d-72ae1dd62b6d")
    assert len(spare.rpartition("/")[2].encode()) <= max(100, len(file.encode()))
    assert spare.rpartition("/")[0] == name.rpartition("/")[0]
    assert "4d82d040-4394-4371-867d-72ae1dd62b6d" in spare
    assert problem_of_name(spare) is None
    assert len(longest_name(name)) == len(spare) + len(".json")


@pytest.mark.parametrize("name", ["a.png", "Mug_red-2.tar.png", "_", "x" * 100, "console.png"])
def test_a_portable_name_need_not_be_tried(name):
    assert is_portable(name)


@pytest.mark.parametrize(
    "name", ["a:b.png", "é.png", "a b.png", "CON", "con.png", "nul.x.png", "LPT1.png", "a.", ".a", "x" * 101, "a*"]
)
def test_a_name_that_some_disk_may_refuse_is_tried(name):
    assert not is_portable(name)


@pytest.mark.parametrize(
    ("name", "is_one"), [("a.json", True), ("a.JSON", True), ("a.jsonl", False), ("json", False)]
)
def test_a_picture_is_not_called_as_sidecars_are(name, is_one):
    assert is_sidecar_name(name) is is_one


def test_what_the_storage_would_refuse_is_said_with_all_else_that_is_wrong():
    table = [{"sku": "a"}, {"sku": "b:c"}, {"sku": ""}]
    with pytest.raises(RequestInvalid) as caught:
        rows_of(
            table,
            lambda names: {name: "is refused by the disk" for name in names if ":" in name},
            prompt="A lamp",
            file_name="{sku}.png",
        )
    assert "2 of 3 rows" in caught.value.message
    assert "row 1: file_name 'b:c.png' is refused by the disk." in caught.value.message


# The error -----------------------------------------------------------------------------------------------


def test_one_error_names_every_bad_row_and_shows_twenty():
    table = [{"prompt": "A lamp", "model": f"m{number}"} for number in range(100)] + ["A lamp"]
    text = refusal(table)
    assert text.startswith("100 of 101 rows cannot be bought as they are.")
    assert "    row 19: model 'm19'" in text
    assert "row 20" not in text
    assert text.endswith("    and 80 more bad rows.")


def test_the_same_fault_is_reported_once_for_all_its_rows():
    text = refusal(["A lamp"] * 1000, style="x")
    assert text.count("style 'x'") == 1
    assert "row 19 and 980 more: style 'x' is not among" in text
    assert "more bad rows" not in text


def test_a_row_of_a_file_is_named_with_its_line():
    with pytest.raises(RequestInvalid, match=r"row 1 \(line 4\): prompt has 3 characters"):
        RowBuilder(conn_id="c").build(read_text("t.csv", "prompt\nA lamp\n\nabc\n"))


def test_an_error_says_which_fields_are_at_fault():
    with pytest.raises(RequestInvalid) as caught:
        made([{"prompt": "abc"}, {"prompt": "A lamp", "file_name": "/x"}])
    assert caught.value.fields == ("requests", "file_name", "prompt")


@pytest.mark.parametrize(
    ("rows", "fields"),
    [
        ([{"prompt": "abc"}], ("requests", "prompt")),
        ([{"a": 1}], ("requests", "prompt")),
        ([{"prompt": "A lamp", "file_name": "/x"}], ("requests", "file_name")),
        (["A lamp", {"prompt": "A lamp", "file_name": "00000.png"}], ("requests", "file_name")),
        ([{"prompt": "A lamp", "reference_image_url": "s3://k:s@b/a.png"}], ("requests", "reference_image_url")),
        ([{"prompt": "A lamp", "reference_image_url": "s3://b:1/a.png"}], ("requests", "reference_image_url")),
        ([7], ("requests",)),
    ],
)
def test_each_kind_of_bad_row_names_its_field(rows, fields):
    with pytest.raises(RequestInvalid) as caught:
        made(rows)
    assert caught.value.fields == fields


def test_what_the_storage_refuses_is_a_fault_of_the_file_name():
    with pytest.raises(RequestInvalid) as caught:
        rows_of(["A lamp"], lambda names: dict.fromkeys(names, "is refused"))
    assert caught.value.fields == ("requests", "file_name")
    assert len(rows_of(["A lamp"], lambda _: {})) == 1


@pytest.mark.parametrize(
    ("number", "last"), [(20, "row 19: model 'm19' is not among"), (21, "    and 1 more bad row.")]
)
def test_twenty_bad_rows_are_shown_and_the_others_counted(number, last):
    text = refusal([{"prompt": "A lamp", "model": f"m{n}"} for n in range(number)])
    assert last in text.splitlines()[-1]


def test_a_fault_of_many_rows_is_reported_with_as_many_as_there_is_space_for():
    text = refusal([{"prompt": "A lamp", "model": f"m{n}"} for n in range(15)] + [{"prompt": "abc"}] * 6)
    assert "row 15, row 16, row 17, row 18, row 19 and 1 more: prompt has 3 characters" in text
    assert "more bad rows" not in text
    assert text.startswith("21 of 21 rows cannot be bought as they are. Nothing was sent and nothing was spent.")


def test_a_row_with_two_faults_is_one_bad_row():
    with pytest.raises(RequestInvalid) as caught:
        rows_of(
            [{"prompt": "A lamp", "file_name": "a.png"}, {"prompt": "A lamp", "file_name": "A.png"}],
            lambda names: {name: "is refused" for name in names if name == "A.png"},
        )
    assert caught.value.message.startswith("1 of 2 rows cannot be bought")
    assert caught.value.message.count("row 1: ") == 2


def test_a_row_calls_itself_by_its_number_and_by_its_line_if_it_has_one():
    (row,) = made(["A lamp"])
    assert (row.label, row.line) == ("row 0", None)
    (row,) = RowBuilder(conn_id="c").build(read_text("t.csv", "prompt\nA lamp\n")).rows
    assert (row.label, row.line) == ("row 0 (line 2)", 2)


@pytest.mark.parametrize(
    "reference",
    [
        "s3://b/a.png",
        "gs://conn@b/a/b.png",
        "abfs+x.y-z://b/a",
        "https://h/a.png",
        "HTTP://h/a.png",
    ],
)
def test_a_reference_image_is_on_record_as_it_is_read(reference):
    (row,) = made([{"prompt": "A lamp", "reference_image_url": reference}])
    assert row.canonical_request["referenceImageUrl"] == row.request.reference_image_url == reference
    assert request_of(row.canonical_request).reference_image_url == reference


@pytest.mark.parametrize(
    ("reference", "key"),
    [
        ("s3://conn@b/a.png", "33ea616ffc8ae3d4ddbf7b2d85efb664"),
        ("https://h/a.png?signature=1", "1d4090b13d0d2597a74177d1318f13cb"),
    ],
)
def test_the_key_of_a_row_is_that_of_the_first_release(reference, key):
    (row,) = made([{"prompt": "A lamp", "reference_image_url": reference, "file_name": "a.png"}])
    assert row.key == key


def test_what_is_on_record_of_a_row_becomes_its_request_again():
    (row,) = made(
        [{"prompt": "A lamp", "model": "newer", "aspect_ratio": "1:2", "style": "odd"}], allow_unlisted=True
    )
    assert request_of(row.canonical_request).body() == row.request.body()


def test_what_this_release_does_not_understand_of_a_request_on_record_hides_nothing_of_the_rest():
    request = request_of({"prompt": "A lamp", "model": "newer", "aspectRatio": 7, "style": "odd", "seed": [1]})
    assert request.body() == {"prompt": "A lamp", "model": "newer", "style": "odd"}


@pytest.mark.parametrize("file_name", [None, "{index}.png", "{index:05d}.png", "{sku}.png"])
def test_a_column_index_is_refused_only_where_a_pattern_of_ones_own_uses_it(file_name):
    rows = [{"index": 7, "prompt": "A lamp", "sku": "a"}]
    operator = {} if file_name is None else {"file_name": file_name}
    if file_name == "{index}.png":
        assert "rename the column" in refusal(rows, **operator)
    else:
        assert made(rows, **operator)[0].columns == {"index": 7, "sku": "a"}


# What a row is known by ----------------------------------------------------------------------------------


def key(conn_id="c", columns=(), **row):
    return RowBuilder(conn_id=conn_id).build(table_of([{"prompt": "A lamp", **row, **dict(columns)}])).rows[0].key


def test_a_row_is_known_by_what_it_asks_for_and_where_it_goes_and_by_nothing_else():
    assert key() == key(columns={"price": 7}) == "b5dd0d9ac2960647a01cfe6c2dabe959"
    others = [{"prompt": "A lamp!"}, {"file_name": "b.png"}, {"style": "vintage"}, {"model": "nanobanana"}]
    assert len({key(), key(conn_id="d"), *(key(**other) for other in others)}) == 6


def test_a_table_is_distinguished_from_another_by_its_requests_and_their_order():
    rows = made(["A lamp", "A desk"], file_name="{index}.png")
    assert digest_of(rows) != digest_of(reversed(rows))
    assert digest_of(rows) == digest_of(made([{"prompt": "A lamp", "x": 1}, "A desk"], file_name="{index}.png"))


def test_a_digest_of_a_table_is_the_same_in_every_release():
    assert digest_of(made(["A lamp", "A desk"])) == "9354e6300ad866e05247037a9e6b9804"
    assert len(digest_of([])) == 32


# Names of files around a picture -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "job_id", "spare"),
    [
        ("a.png", "j", "a.j.png"),
        ("x/y/a.png", "a b/c:d", "x/y/a.a-b-c-d.png"),
        ("a.png", "j" * 65, f"a.{'j' * 64}.png"),
        ("a", "j", "a.j"),
        (".png", "j", ".png.j"),
        ("a.", "j", "a.j"),
        ("a..png", "j", "a.j.png"),
        ("a .png", "j", "a.j.png"),
        ("x" * 93 + ".png", "j", "x" * 93 + ".j.png"),
        ("x" * 94 + ".png", "j", "x" * 94 + ".j.png"),
        ("x" * 95 + ".png", "j", "x" * 94 + ".j.png"),
        ("x" * 150 + ".png", "j", "x" * 148 + ".j.png"),
        ("ü" * 75 + ".png", "j", "ü" * 74 + ".j.png"),
        ("a." + "x" * 98, "j", "a.j"),
        ("a." + "x" * 96, "j", f"a.j.{'x' * 96}"),
    ],
)
def test_a_spare_name_is_the_pictures_own_with_its_job_cut_to_what_a_disk_takes(name, job_id, spare):
    assert spare_name(name, job_id) == spare


def test_the_longest_name_around_a_picture_is_that_of_a_spare_pictures_sidecar():
    assert longest_name("x/a.png") == f"x/a.{'0' * 36}.png.json"
    assert (LONGEST_KEY, LONGEST_PATH, SIDECAR_SUFFIX) == (1_024, 4_095, ".json")


@pytest.mark.parametrize("device", ["con", "PRN", "aux", "nul", "com0", "com9", "lpt0", "LPT9"])
def test_the_name_of_a_device_is_portable_nowhere_whatever_follows_a_dot(device):
    assert not is_portable(device)
    assert not is_portable(f"{device}.png")
    assert is_portable(f"{device}x.png")
    assert is_portable(f"x{device}")


@pytest.mark.parametrize(
    ("name", "is_so"),
    [("x" * 100, True), ("-a", True), ("a..b", True), ("a.", False), ("", False), ("a/b", False)],
)
def test_a_portable_name_has_up_to_a_hundred_plain_characters(name, is_so):
    assert is_portable(name) is is_so


# A pattern without effect --------------------------------------------------------------------------------

OWN = {"prompt": "A lamp", "file_name": "lamp.png", "reference_image_url": "https://h/lamp.png"}


@pytest.mark.parametrize(
    ("requests", "operator", "reported"),
    [
        (["an enamel mug"], {"prompt": "{name} on a table"}, "the only row has its own `prompt`"),
        (["A mug", {"prompt": "A pot"}], {"prompt": "A cup"}, "each of the 2 rows has its own `prompt`"),
        ([OWN], {"file_name": "{sku}.png"}, "the only row has its own `file_name`"),
        ([OWN], {"reference_image_url": "s3://b/{sku}.png"}, "its own `reference_image_url`"),
    ],
)
def test_a_pattern_that_no_row_uses_is_refused(requests, operator, reported):
    assert reported in refusal(requests, **operator)
    ((field, text),) = operator.items()
    assert refusal(requests, **operator).startswith(f"{field}={text!r} has no effect: ")


@pytest.mark.parametrize(
    ("requests", "operator"),
    [
        ([OWN, {"sku": "1", "prompt": "A mug"}], {"file_name": "{sku}.png"}),
        ([OWN, {"name": "A mug", "prompt": " "}], {"prompt": "{name} on a table"}),
        ([{**OWN, "style": "vintage", "model": "flux-schnell"}], {"style": "cartoon", "model": "nanobanana"}),
        ([OWN], {}),
        ([], {"prompt": "{name} on a table"}),
    ],
)
def test_a_pattern_that_one_row_uses_and_a_default_stay(requests, operator):
    assert len(made(requests, **operator)) == len(requests)


@pytest.mark.parametrize(
    "text",
    [
        "Catalogue of autumn;;;\nsku;name;price;stock\n00120;mug;19,90;3\n00121;pot;5,00;1\n",
        "List;\nsku;name\n1;mug\n2;pot\n",
        "Products 2026,,\nLamps,,\nsku,title,price\n1,a lamp,5\n2,a mug,7\n",
        "List\nsku;name\n1;mug\n",
    ],
)
def test_a_title_above_a_csv_table_is_reported_as_a_title(text):
    with pytest.raises(RequestInvalid, match="the first line looks like a title"):
        read_table("t.csv", text)


@pytest.mark.parametrize("text", ["prompt\nA lamp, red\nA mug\n", "prompt\n", "prompt\nA lamp\n", "a\n1;2\n"])
def test_one_column_is_no_title(text):
    read_text("t.csv", text)


def test_a_value_of_a_column_that_pictory_does_not_know_is_refused_with_how_to_make_it_data():
    text = refusal([{"prompt": "A lamp", "model": "T-120"}])
    assert (
        "It is the value of the column 'model'. If that column is only data, set request_columns={'model': None}."
        in text
    )
