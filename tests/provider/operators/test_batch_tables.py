# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The rows that a batch accepts, and those that it refuses before anything is sent."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pyarrow as pa
import pytest
import xlsxwriter
from airflow.sdk import DAG, task
from airflow.sdk.execution_time import comms, task_runner
from pyarrow import parquet

from pictory_provider.exceptions import (
    PictoryRequestInvalid,
    PictorySubmitOutcomeUnknown,
    PictoryUnavailable,
    PictoryWaitTimeout,
)
from pictory_provider.operators.pictory import GenerateImageOperator
from pictory_provider.storage.folder import Folder
from tests.provider.batches import Tries, billed, lines
from tests.stand_ins import TaskInstance, says


class DataFrame:
    """What a data frame is to Python: iterating it gives the names of its columns."""

    columns = ("sku", "product")

    def __init__(self, *rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.columns)

    def __len__(self):
        return len(self.rows)

    def __dataframe__(self): ...

    def to_dict(self, orient):
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


@pytest.mark.parametrize(
    "requests",
    [
        DataFrame(("00120", "An enamel mug")),
        DataFrame(),
        {"A lamp at dawn": 1}.keys(),
        {"A lamp at dawn"},
    ],
    ids=["frame", "empty frame", "keys", "set"],
)
def test_a_value_that_iterates_over_something_other_than_rows_buys_nothing(fast, one_try, requests):
    with pytest.raises(PictoryRequestInvalid, match="Pass a list of prompts or of dicts"):
        one_try(requests)
    assert fast.submissions == []


def test_an_open_file_buys_nothing(fast, one_try, tmp_path):
    (tmp_path / "table.csv").write_text("sku,product\n00120,An enamel mug\n")
    with (tmp_path / "table.csv").open() as file, pytest.raises(PictoryRequestInvalid, match="Pass the path"):
        one_try(file)
    assert fast.submissions == []


def test_the_rows_of_a_frame_are_bought_as_its_error_says(fast, one_try):
    frame = DataFrame(("00120", "An enamel mug"), ("00121", "A pot"))
    result = one_try(frame.to_dict("records"), prompt="{product} on a table", file_name="{sku}.png")
    assert result["saved"] == 2
    assert billed(fast) == {"An enamel mug on a table": 1, "A pot on a table": 1}


def test_a_pattern_without_effect_buys_nothing(fast, one_try):
    with pytest.raises(PictoryRequestInvalid, match="has no effect: the only row has its own"):
        one_try(["an enamel mug"], prompt="{name} on a table")
    assert fast.submissions == []


ROWS = [{"sku": "a", "prompt": "A blue lamp"}, {"sku": "b", "prompt": "A red lamp"}]


class Supervisor:
    """What answers a task's questions about the XComs of a mapped task."""

    def send(self, message):
        if isinstance(message, comms.GetXComCount):
            return comms.XComCountResponse(len=len(ROWS))
        assert isinstance(message, comms.GetXComSequenceItem)
        if message.offset >= len(ROWS):
            return comms.ErrorResponse(error=comms.ErrorType.XCOM_NOT_FOUND)
        return comms.XComSequenceIndexResult(root=ROWS[message.offset])


@pytest.mark.parametrize("through", ["itself", "map", "zip", "concat"])
def test_the_results_of_a_mapped_task_are_rows(fast, folder, monkeypatch, through):
    """Airflow gives them one by one, as a sequence that asks for each, and its ``map`` and ``concat`` are ones too."""
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", Supervisor(), raising=False)
    with DAG(dag_id="mapped", schedule=None):
        mapped = task(task_id="rows")(lambda n: n).expand(n=[0, 1])
    output = {
        "itself": lambda: mapped,
        "map": lambda: mapped.map(lambda row: row["prompt"]),
        "zip": lambda: mapped.zip(mapped).map(lambda pair: pair[0]),
        "concat": lambda: mapped.concat(mapped),
    }[through]()
    ti = TaskInstance()
    ti.task = mapped.operator
    ti.get_relevant_upstream_map_indexes = lambda **_: None
    requests = output.resolve({"ti": ti, "expanded_ti_count": None})
    assert not isinstance(requests, (list, tuple))
    assert Tries(folder)(requests)["saved"] == (4 if through == "concat" else 2)
    assert set(billed(fast)) == {"A blue lamp", "A red lamp"}


# A row that asks for something else ----------------------------------------------------------------------


def corrected_catalogue(one_try):
    """Run a catalogue, then the next night with one prompt corrected and one more row; return the error's text."""
    rows = [{"sku": f"{n}", "prompt": f"A lamp, number {n}"} for n in range(4)]
    arguments = {"file_name": "{sku}.png", "model": "flux-schnell"}
    one_try(rows, **arguments)
    rows[2]["prompt"] = "A lamp, number two"
    rows.append({"sku": "4", "prompt": "A lamp, number 4"})
    next_night = one_try.of_another_run("next night")
    with pytest.raises(PictoryRequestInvalid) as caught:
        next_night(rows, **arguments)
    next_night.clear()
    return next_night, rows, arguments, " ".join(str(caught.value).split())


def test_a_changed_row_is_reported_with_the_cost_of_each_solution(fast, one_try):
    *_, text = corrected_catalogue(one_try)
    assert text.startswith(
        "The file name of 1 of 5 rows is taken by something else, such as the picture of another request."
    )
    few = "which buys 2 rows for 1.2 AI credits, 1 of them without a picture so far"
    assert f'(1) set overwrite="changed" and clear the task, {few}, and replaces the pictures;' in text
    assert (
        f"(2) move the existing files away, each picture with its .json, or rename these pictures, and clear, {few};"
        in text
    )
    assert (
        "set overwrite=True and clear the task, which buys 5 rows for 3 AI credits, to replace them all." in text
    )
    assert "row 2, 2.png: the picture of another request exists there ('A lamp, number 2')." in text
    assert len(fast.submissions) == 4


@pytest.mark.parametrize("way", ["changed", "the file is moved away", "overwrite"])
def test_each_solution_for_a_changed_row_costs_what_its_text_says(fast, one_try, folder, way):
    night, rows, arguments, text = corrected_catalogue(one_try)
    costs = re.findall(r"which buys (\d) rows for (\S+) AI credits", text)
    if way != "the file is moved away":
        result = night(rows, **arguments, overwrite=True if way == "overwrite" else "changed")
    else:
        for path in Path(folder).glob("2.png*"):
            path.unlink()
        result = night(rows, **arguments)
    assert (str(result["saved"]), f"{result['ai_credits_used']:g}") == costs[2 if way == "overwrite" else 0]
    assert len(fast.submissions) == 4 + result["saved"]


def test_a_picture_of_another_request_is_reported_with_its_price(fast, folder, context):
    def cover(prompt, ti):
        arguments = {"path": f"{folder}/a.png", "deferrable": False, "model": "flux-schnell"}
        return GenerateImageOperator(task_id="cover", prompt=prompt, **arguments).execute({**context, "ti": ti})

    cover("A lamp, number 1", TaskInstance())
    context["task_state_store"].rows.clear()
    other = TaskInstance()
    other.run_id = "other"
    with pytest.raises(PictoryRequestInvalid, match=says("Either of these costs 0.6 AI credits as listed.")):
        cover("A lamp, number 2", other)


@pytest.mark.parametrize(
    "wrong",
    ["rows.csv", "/nowhere/rows.csv", "file://host/rows.csv", "gopher://b/rows.csv", ["four"], None],
    ids=str,
)
def test_a_retry_whose_table_is_wrong_says_that_what_is_paid_for_is_saved(fast, one_try, wrong):
    fast.plan("stuck")
    with pytest.raises(PictoryWaitTimeout):
        one_try(["A lamp, number 0"], timeout=0.05)
    (job,) = fast.account.jobs.values()
    job.fate, job.seconds = "completed", 0
    with pytest.raises(PictoryRequestInvalid) as caught:
        one_try(wrong)
    text = " ".join(str(caught.value).split())
    assert "Nothing more was sent, and what is paid for is saved." in text
    assert "Nothing was sent" not in text
    assert one_try.ti.xcoms["progress"]["saved"] == 1
    assert len(fast.submissions) == 1


# Tables of other programs -------------------------------------------------------------------------------


@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize("kind", ["xlsx", "parquet", "tsv.gz", "frame", "rows of a database"])
def test_a_table_of_any_kind_becomes_pictures(fast, one_try, folder, tmp_path, kind, deferrable):
    columns, rows = ["sku", "title", "price"], [["00120", "A lamp", 19.9], ["00121", "A mug", 5.0]]
    frame = pa.table([pa.array(column) for column in zip(*rows, strict=True)], names=columns)
    requests, arguments = str(tmp_path / f"t.{kind}"), {}
    if kind == "xlsx":
        with xlsxwriter.Workbook(requests) as book:
            sheet = book.add_worksheet()
            for number, cells in enumerate((columns, *rows)):
                sheet.write_row(number, 0, cells)
    elif kind == "parquet":
        parquet.write_table(frame, requests)
    elif kind == "tsv.gz":
        text = "".join("\t".join(map(str, cells)) + "\n" for cells in (columns, *rows))
        Path(requests).write_bytes(gzip.compress(text.replace("5.0", "5").encode()))
    elif kind == "frame":
        requests = frame
    else:
        requests, arguments = [tuple(cells) for cells in rows], {"column_names": columns}
    result = one_try(
        requests, prompt="{title} for {price} euros", file_name="{sku}.png", deferrable=deferrable, **arguments
    )
    assert (result["of"], result["saved"]) == (2, 2)
    first, second = lines(folder / "metadata.jsonl")
    assert [first["file_name"], second["file_name"]] == ["00120.png", "00121.png"]
    assert [first["text"], second["text"]] == ["A lamp for 19.9 euros", "A mug for 5 euros"]
    assert [first["price"], second["price"]] == (["19.9", "5"] if kind == "tsv.gz" else [19.9, 5])
    assert len(fast.submissions) == 2


def test_a_stream_that_can_be_read_only_once_is_refused_if_the_task_defers(fast, one_try):
    def stream():
        table = pa.table({"prompt": ["A lamp", "A mug"]})
        return pa.RecordBatchReader.from_batches(table.schema, table.to_batches())

    with pytest.raises(PictoryRequestInvalid, match=says("gives its rows only once")):
        one_try(stream(), deferrable=True)
    assert fast.submissions == []
    assert one_try(stream(), deferrable=False)["saved"] == 2


@pytest.mark.parametrize("argument", [{"column_names": ["a"]}, {"sheet": "Products"}])
def test_an_argument_that_the_table_does_not_need_is_refused(fast, one_try, argument):
    (name,) = argument
    with pytest.raises(PictoryRequestInvalid, match=f"{name}=.* has no effect"):
        one_try(pa.table({"prompt": ["A lamp"]}), **argument)
    assert fast.submissions == []


CATALOGUE = (
    "sku,title,note\n"
    "1,A lamp,\n"
    "2,,a variant of the lamp\n"
    "3,No,too short for a prompt\n"
    "4,A mug,\n"
    "5,A bowl,cannot be,parsed\n"
)


@pytest.mark.parametrize("deferrable", [False, True])
def test_bad_rows_may_be_left_out_and_are_bought_once_they_are_corrected(fast, folder, tmp_path, deferrable):
    table = tmp_path / "t.csv"
    table.write_text(CATALOGUE)
    arguments = {"prompt": "{title}", "file_name": "{sku}.png", "skip_blank": "title", "on_bad_row": "skip"}
    one_try = Tries(folder)
    with pytest.raises(PictoryRequestInvalid, match=r"2 of 4 rows have no picture") as caught:
        one_try(str(table), deferrable=deferrable, **arguments)
    text = str(caught.value)
    assert "Correct the 2 bad rows first. To buy what has failed, clear the task." in " ".join(text.split())
    assert "row 2 (line 4), 3.png: RequestInvalid: prompt has 2 characters" in text
    assert "row 4 (line 6): RequestInvalid: has 4 cells, and the table has 3 columns" in text
    progress = one_try.ti.xcoms["progress"]
    assert {name: progress[name] for name in ("of", "saved", "failed", "skipped")} == {
        "of": 4,
        "saved": 2,
        "failed": 2,
        "skipped": 1,
    }
    failed = lines(folder / "failed.jsonl")
    assert [(line["index"], line["file_name"], line["state"]) for line in failed] == [
        (2, "3.png", "failed"),
        (4, None, "failed"),
    ]
    assert failed[0]["note"] == "too short for a prompt"
    assert failed[0]["what_to_do"] == "Nothing was spent on it. Correct the row, and clear the task: that buys it."
    assert [failure["file_name"] for failure in one_try.ti.xcoms["failures_0"]] == ["3.png", None]

    table.write_text(CATALOGUE.replace("3,No", "3,A nice vase").replace("cannot be,parsed", ""))
    one_try.clear()
    result = one_try(str(table), deferrable=deferrable, **arguments)
    assert (result["saved"], result["reused"], result["failed"], result["skipped"]) == (2, 2, 0, 1)
    assert billed(fast) == {"A lamp": 1, "A mug": 1, "A nice vase": 1, "A bowl": 1}


def test_a_task_may_succeed_without_its_bad_rows(fast, one_try):
    result = one_try(["A lamp", "No"], on_bad_row="skip", fail_on_partial_error=False)
    assert (result["of"], result["saved"], result["failed"]) == (2, 1, 1)
    assert len(fast.submissions) == 1


def test_a_name_that_the_disk_refuses_is_left_out_in_every_leg_of_the_task(fast, folder, monkeypatch):
    refused = Folder.refused

    def refusing(self, names, **kwargs):
        names = list(names)
        return refused(self, names, **kwargs) | {name: "is refused by the disk" for name in names if ":" in name}

    monkeypatch.setattr(Folder, "refused", refusing)
    rows = [{"prompt": "A lamp", "file_name": "a:b.png"}, {"prompt": "A mug", "file_name": "c.png"}]
    result = Tries(folder)(rows, on_bad_row="skip", fail_on_partial_error=False, deferrable=True)
    assert (result["saved"], result["failed"]) == (1, 1)
    assert billed(fast) == {"A mug": 1}


def test_the_log_says_what_was_read(fast, one_try, tmp_path, capsys):
    (tmp_path / "t.csv").write_text("sku;title;Style\n1;A lamp;vintage\n", encoding="utf-8-sig")
    one_try(str(tmp_path / "t.csv"), prompt="{title}")
    log = capsys.readouterr().out
    assert "Read 1 row with 3 columns from " in log
    assert "(semicolons between the cells, UTF-8 with a byte order mark)." in log
    assert "The column 'Style' is only data: it does not set style" in log
    assert len(fast.submissions) == 1


# Rows that are left out, and what is on record of them -----------------------------------------------------


@pytest.mark.parametrize("how", [{"on_bad_row": "skip"}, {"skip_blank": "t"}])
def test_a_row_that_may_be_paid_for_is_not_bought_again_because_it_was_left_out_in_between(fast, folder, how):
    arguments = {"prompt": "{t}", "file_name": "{s}.png", **how}
    fast.script("submit", "drop-after")
    with pytest.raises(PictorySubmitOutcomeUnknown):
        Tries(folder)([{"s": "a", "t": "A lamp"}], **arguments)
    second = Tries(folder).of_another_run("second")
    without = [{"s": "a", "t": ""}, {"s": "b", "t": "A mug"}]
    if "on_bad_row" in how:
        with pytest.raises(PictorySubmitOutcomeUnknown, match="correct the bad rows among them"):
            second(without, **arguments)
        (failed,) = lines(folder / "failed.jsonl")
        assert (failed["file_name"], failed["state"]) == ("a.png", "unknown")
        assert "Nothing was spent" not in failed["what_to_do"]
    else:
        assert second(without, **arguments)["skipped"] == 1
    second.clear()
    with pytest.raises(PictorySubmitOutcomeUnknown):
        second([{"s": "a", "t": "A lamp"}, {"s": "b", "t": "A mug"}], **arguments)
    assert billed(fast) == {"A lamp": 1, "A mug": 1}
    second.clear()  # after it was reported
    second([{"s": "a", "t": "A lamp"}, {"s": "b", "t": "A mug"}], **arguments)
    assert billed(fast) == {"A lamp": 2, "A mug": 1}


def test_a_row_that_is_paid_for_and_bad_now_is_owed(fast, folder, timing):
    timing(read_budget=0.05, backoff_first=0.01)
    arguments = {"prompt": "{t}", "file_name": "{s}.png", "on_bad_row": "skip", "fail_on_partial_error": False}
    one_try = Tries(folder)
    fast.script("picture", "server-error", times=-1)
    with pytest.raises(PictoryUnavailable):
        one_try([{"s": "a", "t": "A lamp"}], **arguments)
    one_try.clear()
    with pytest.raises(PictoryUnavailable):
        one_try([{"s": "a", "t": ""}, {"s": "b", "t": "A mug"}], **arguments)
    (first, *_) = lines(folder / "failed.jsonl")
    assert (first["file_name"], first["state"]) == ("a.png", "owed")
    assert "pays nothing for it" in first["what_to_do"]
    fast.clear_faults()
    one_try.clear()
    assert one_try([{"s": "a", "t": "A lamp"}, {"s": "b", "t": "A mug"}], **arguments)["saved"] == 2
    assert billed(fast) == {"A lamp": 1, "A mug": 1}
