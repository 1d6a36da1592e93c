# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The names of a table's columns are the user's: which are fields of the request, and which rows are left out."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pictory_provider.api.errors import RequestInvalid
from pictory_provider.core.batch.rows import RowBuilder
from pictory_provider.core.batch.templates import RowTemplate
from pictory_provider.core.tables.inputs import InputRow
from pictory_provider.core.tables.text import read_text
from tests.pure.core.batch.tables import built, records_of


def refusal(requests, **operator):
    with pytest.raises(RequestInvalid) as caught:
        built(requests, **operator)
    assert "Nothing was sent and nothing was spent." in caught.value.message
    return caught.value.message


# Columns ------------------------------------------------------------------------------------------------


def test_a_field_may_come_from_any_column():
    columns = {"prompt": "Beschreibung", "file_name": "Art.-Nr."}
    (row,) = built([{"Art.-Nr.": "1.png", "Beschreibung": "Eine Lampe", "n": 1}], request_columns=columns).rows
    assert (row.file_name, row.request.prompt, row.columns) == ("1.png", "Eine Lampe", {"n": 1})


def test_a_column_that_is_named_like_a_field_may_be_data():
    table = built(
        [{"what": "lamp", "style": "Bauhaus", "model": "T-120"}],
        prompt="A {what} in the style {style}",
        request_columns={"style": None, "model": None},
    )
    (row,) = table.rows
    assert (row.request.style, row.request.model) == (None, "seedream3.0")
    assert row.request.prompt == "A lamp in the style Bauhaus"
    assert row.columns == {"what": "lamp", "style": "Bauhaus", "model": "T-120"}
    assert table.warnings == ()


def test_a_table_sets_nothing_but_the_prompt_if_request_columns_says_so():
    others = {
        "file_name": "another.png",
        "model": "nanobanana-pro",
        "aspect_ratio": "16:9",
        "style": "photorealistic",
        "reference_image_url": "s3://secrets@vault/passport.png",
    }
    (row,) = built([{"prompt": "A lamp", **others}], request_columns=dict.fromkeys(others)).rows
    (plain,) = built([{"prompt": "A lamp"}]).rows
    assert (row.request, row.file_name) == (plain.request, plain.file_name)
    assert row.columns == others


def test_a_pattern_may_use_a_column_of_its_own_name_that_is_only_data():
    (row,) = built([{"prompt": "A lamp"}], prompt="{prompt}, soft light", request_columns={"prompt": None}).rows
    assert row.request.prompt == "A lamp, soft light"
    with pytest.raises(
        RequestInvalid, match="replaces the whole pattern: rename that column, or set request_columns="
    ):
        RowBuilder(conn_id="c", prompt="{prompt}, soft light")


def test_a_column_gives_one_field_only():
    (row,) = built([{"prompt": "A lamp", "style": "Second lamp"}], request_columns={"prompt": "style"}).rows
    assert (row.request.prompt, row.request.style) == ("Second lamp", None)
    assert row.columns == {"prompt": "A lamp"}


@pytest.mark.parametrize(
    ("argument", "reported"),
    [
        ({"request_columns": ["prompt"]}, "request_columns is ['prompt']"),
        (
            {"request_columns": {"title": "Title"}},
            "names the field 'title'; the fields are: prompt, file_name, model",
        ),
        ({"request_columns": {"prompt": 7}}, "request_columns['prompt'] is 7: pass the name of a column"),
        ({"request_columns": {"prompt": " "}}, "request_columns['prompt'] is ' ': pass the name of a column"),
        (
            {"request_columns": {"prompt": "Titel"}},
            "request_columns['prompt'] is 'Titel', and the table has no such column; its columns are: 'prompt', 'n'",
        ),
        ({"skip_blank": "Titel"}, "skip_blank is 'Titel', and the table has no such column"),
        ({"skip_blank": 7}, "skip_blank is 7: pass the name of a column"),
        ({"on_bad_row": "warn"}, "on_bad_row is 'warn', and may be 'fail' or 'skip'"),
    ],
)
def test_an_argument_that_fits_no_column_is_refused(argument, reported):
    assert reported in refusal([{"prompt": "A lamp", "n": 1}], **argument)


def test_the_columns_of_a_file_are_known_even_if_it_has_no_rows():
    with pytest.raises(RequestInvalid, match="has no such column; its columns are: 'prompt'"):
        RowBuilder(conn_id="c", skip_blank="sku").build(read_text("t.csv", "prompt\n"))
    assert built([], skip_blank="sku").rows == []


def test_an_error_about_a_missing_prompt_names_a_column_that_was_meant():
    assert "the column 'Prompt' is not used, because its name is not exactly 'prompt'" in refusal(
        [{"Prompt": "A lamp"}]
    )


@pytest.mark.parametrize("silent", [{"style": None}, {"style": "Style"}])
def test_a_warning_about_a_column_ends_when_request_columns_answers_it(silent):
    rows = [{"prompt": "A lamp", "Style": "vintage"}]
    assert len(built(rows).warnings) == 1
    assert built(rows, request_columns=silent).warnings == ()


def test_what_was_read_is_said():
    table = RowBuilder(conn_id="c", prompt="A {name}").build(read_text("t.csv", "name;style\nlamp;vintage\n"))
    assert table.notes == (
        "Read 1 row with 2 columns from t.csv (semicolons between the cells, text).",
        "Columns used as request fields: style. To change that, set request_columns.",
    )
    assert built(["A lamp"]).notes == ("Read 1 row with 1 column from a list.",)


# Patterns -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("{row[g:id]}.png", "7.png"),
        ("{row[a.b]}{row[{x}]}", "xy"),
        ("{{row[g:id]}} {row[g:id]}", "{row[g:id]} 7"),
        ("{row[g:id]}}}", "7}"),
        ("{index}-{row[index]}", "3-i"),
        ("{row}", "r"),
        ("{row[Color (product.metafields.custom.color)]}", "red"),
    ],
)
def test_any_column_can_be_named_in_a_pattern(pattern, text):
    values = {"g:id": 7, "a.b": "x", "{x}": "y", "index": "i", "row": "r"}
    record = InputRow(values | {"Color (product.metafields.custom.color)": "red"})
    assert RowTemplate("prompt", pattern).render(record, 3) == text


@pytest.mark.parametrize("pattern", ["{row[]}", "{row[a]", "{row[a}", "{row.a}", "{row[a]:5}"])
def test_half_a_name_in_a_pattern_is_refused(pattern):
    with pytest.raises(RequestInvalid, match="is not a valid pattern"):
        RowTemplate("prompt", pattern)


@given(name=st.text(min_size=1).filter(lambda name: "]}" not in name and not name.endswith("]")), before=st.text())
def test_a_column_of_any_name_is_found_after_any_text(name, before):
    literal = before.replace("{", "{{").replace("}", "}}")
    template = RowTemplate("prompt", f"{literal}{{row[{name}]}}")
    assert template.columns == [name]
    assert template.render(InputRow({name: "x"}), 0) == f"{before}x"


# Rows of a database -------------------------------------------------------------------------------------


class Product(NamedTuple):
    sku: str
    title: str


def test_rows_of_a_database_take_their_names_from_column_names():
    assert [row.values for row in records_of([("1", 2.0), ["2", None]], ["sku", "price"])] == [
        {"sku": "1", "price": 2.0},
        {"sku": "2", "price": None},
    ]
    assert records_of([("1", 120.0)], ["sku", "price"])[0].texts == {"price": "120"}


def test_named_tuples_name_their_columns_themselves():
    assert records_of([Product("1", "A lamp")])[0].values == {"sku": "1", "title": "A lamp"}
    assert records_of([Product("1", "A lamp")], ["a", "b"])[0].values == {"a": "1", "b": "A lamp"}


@pytest.mark.parametrize(
    ("rows", "names", "reported"),
    [
        ([("1",)], ["a", "b"], "row 0: has 1 value, and column_names has 2 names"),
        ([("1", "2")], None, "row 0: is of type tuple, and needs column_names to be a row: ('1', '2')"),
        ([{"prompt": "A lamp"}], ["prompt"], "column_names=['prompt'] has no effect: no row is a tuple or a list"),
        ([("1",)], "sku", "column_names is of type str: 'sku'"),
        ([("1",)], 7, "column_names is of type int: 7"),
        ([("1", "2")], ["a", "a"], "column_names has two columns named 'a': ['a', 'a']"),
        ([("1", "2")], ["a", ""], "column_names has a column without a name: ['a', '']"),
        ([("1", "2")], ["a", 7], "column_names has 7, of type int: ['a', 7]"),
        ([(b"x",)], ["a"], "row 0: column 'a' contains b'x', of type bytes, which JSON cannot represent"),
    ],
)
def test_rows_and_names_that_do_not_fit_are_refused(rows, names, reported):
    from pictory_provider.core.tables.inputs import table_of

    with pytest.raises(RequestInvalid) as caught:
        RowBuilder(conn_id="c", prompt="A lamp").build(table_of(rows, names))
    assert reported in caught.value.message


# Rows that are left out ---------------------------------------------------------------------------------

TABLE = [{"title": "A lamp"}, {"title": " "}, {"title": "abc"}, {"title": None}, {"title": "A mug"}]


def test_rows_with_a_blank_cell_are_left_out_and_change_no_other_rows_number():
    table = built([row for row in TABLE if row["title"] != "abc"], prompt="{title}", skip_blank="title")
    assert [(row.index, row.file_name) for row in table.rows] == [(0, "00000.png"), (3, "00003.png")]
    assert (table.skipped, table.bad, table.size) == (2, (), 4)
    assert "2 rows are skipped, because 'title' is blank." in table.notes


def test_bad_rows_are_left_out_and_change_no_other_rows_number():
    table = built(TABLE, prompt="{title}", skip_blank="title", on_bad_row="skip")
    assert [(row.index, row.file_name) for row in table.rows] == [(0, "00000.png"), (4, "00004.png")]
    (bad,) = table.bad
    assert (bad.index, bad.file_name, bad.columns) == (2, "00002.png", {"title": "abc"})
    assert "prompt has 3 characters" in bad.problem
    assert table.warnings[-1].startswith("1 bad row is left out: row 2: prompt has 3 characters")


def test_a_table_with_no_good_row_is_refused_all_the_same():
    assert "1 of 1 row cannot be bought as it is" in refusal(["abc"], on_bad_row="skip")


def test_of_two_rows_with_one_file_name_the_later_is_left_out():
    rows = [{"prompt": "A lamp", "file_name": "a.png"}, {"prompt": "A mug", "file_name": "A.png"}]
    table = built(rows, on_bad_row="skip")
    assert [row.index for row in table.rows] == [0]
    assert "is also the file name of row 0" in table.bad[0].problem


def test_a_row_whose_name_the_storage_refuses_is_left_out():
    rows = [{"prompt": "A lamp", "file_name": name} for name in ("a.png", "b.png")]
    table = built(rows, lambda names: {name: "is refused" for name in names if name == "b.png"}, on_bad_row="skip")
    assert [(row.file_name, row.problem) for row in table.bad] == [("b.png", "file_name 'b.png' is refused")]


def test_a_line_that_cannot_be_read_is_left_out_with_its_number():
    table = RowBuilder(conn_id="c", on_bad_row="skip").build(read_text("t.csv", "prompt,n\nA lamp,1\nA mug\n"))
    assert [(row.index, row.line) for row in table.bad] == [(1, 3)]


@given(st.lists(st.sampled_from(["A lamp", "A mug", "", "ab"]), max_size=12))
def test_good_bad_and_skipped_rows_are_the_whole_table(titles):
    rows = [{"title": title} for title in titles]
    try:
        table = built(rows, prompt="{title}", skip_blank="title", on_bad_row="skip")
    except RequestInvalid:
        assert not {"A lamp", "A mug"} & set(titles)
        return
    assert len(table.rows) + len(table.bad) + table.skipped == table.size == len(rows)
    assert sorted([row.index for row in table.rows] + [row.index for row in table.bad]) == [
        index for index, title in enumerate(titles) if title
    ]
