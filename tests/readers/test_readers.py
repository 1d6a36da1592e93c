# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests that other programs can read the folder of a batch, and that a batch can read their tables.

They read it as the docs show (``programs.py``), also with 25,000 rows: most readers take the type of a column from
its first rows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pictory_provider.core.batch.manifest import metadata_lines
from pictory_provider.core.batch.plan import Plan
from pictory_provider.core.batch.resume import open_batch
from pictory_provider.core.batch.rows import RowBuilder
from pictory_provider.core.batch.templates import RowTemplate
from pictory_provider.core.tables.inputs import InputRow, table_of
from pictory_provider.core.tables.values import is_empty
from pictory_provider.operators.batch import GenerateImageBatchOperator
from pictory_provider.operators.pictory import GenerateImageOperator
from pictory_provider.simulator import Simulator
from pictory_provider.storage.tables import read_table
from tests.pure.core.batch.existing import SIZE, existing
from tests.stand_ins import StateStore, TaskInstance

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(__file__).with_name("programs.py")
WRITERS = Path(__file__).with_name("writers.py")
READERS = ("datasets", "pandas", "duckdb", "openpyxl", "pillow", "polars", "webdataset", "xlsxwriter")
CSV = (
    "sku,product,colour,image,old_file_name,note\n"
    '00120,Müsli bowl,blue,Photo 7,bowl-7.jpg,"round, with a ""lip"""\n'
    "00121,lamp,red,,lamp.jpg,\n"
    "00122,chair simulate:failed,green,,,\n"
    '00123,table,black,,,"two\nlines"\n'
)
SAVED = ["00120.png", "00121.png", "00123.png"]
ROWS, ALIKE = 25_000, 24_000
"""Rows of a long table, and how many of its first ones are alike. DuckDB looks at 20,480 unless told otherwise."""


@pytest.fixture(scope="module")
def python(tmp_path_factory, installing):
    """Return the Python of an environment with other programs, but without this project."""
    folder = tmp_path_factory.mktemp("readers")
    uv, python = Path(sys.executable).with_name("uv"), folder / "venv" / "bin" / "python"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder / "venv"], check=True)
    pinned = ("--constraint", ROOT / "constraints.txt")
    install = [uv, "pip", "install", "--quiet", "--python", python, *pinned, *READERS]
    subprocess.run(install, env=installing, check=True)
    return python


@pytest.fixture(scope="module")
def read(python):
    """Return a function that runs a program in a folder, in that environment."""
    folder = python.parents[2]
    env = os.environ | {"HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(
        [python, PROGRAMS], cwd=folder, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    ) as reader:

        def read(program, pictures):
            print(json.dumps([program, str(pictures)]), file=reader.stdin, flush=True)
            return json.loads(reader.stdout.readline())

        yield read
        reader.stdin.close()


@pytest.fixture(scope="module")
def pictory():
    with Simulator(seconds=0) as pictory, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", pictory.connection_json())
        yield pictory


@pytest.fixture(scope="module")
def pictures(pictory, tmp_path_factory):
    """Return the folder of a batch with three pictures, their copies, and one failed row."""
    folder = tmp_path_factory.mktemp("pictures")
    table = folder / "products.csv"
    table.write_text(CSV, encoding="utf-8")
    GenerateImageBatchOperator(
        task_id="pictures",
        requests=str(table),
        prompt="{product} in {colour}, studio light",
        file_name="{sku}.png",
        path=str(folder / "out"),
        copies=[{"format": "webp", "width": 64}, {"format": "png", "width": 32}],
        model="flux-schnell",
        fail_on_partial_error=False,
        deferrable=False,
    ).execute({"ti": TaskInstance(), "task_state_store": StateStore()})
    return folder / "out"


@pytest.fixture(scope="module")
def singles(pictory, tmp_path_factory):
    """Return a folder with two pictures of single tasks, whose names have a dot."""
    folder = tmp_path_factory.mktemp("singles") / "out"
    for name in ("v1.2.png", "v1.3.png"):
        GenerateImageOperator(
            task_id="single",
            prompt=f"A lighthouse at dawn, {name}",
            path=str(folder / name),
            model="flux-schnell",
            deferrable=False,
        ).execute({"ti": TaskInstance(), "task_state_store": StateStore()})
    return folder


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """Return a folder with the manifest of a long table, without its pictures.

    At first all rows are alike: Pictory reports whole numbers, a price is one, and nobody has written a note.
    """

    def row(number):
        own = {"sku": f"{number:05d}", "price": 1}
        return own if number < ALIKE else {**own, "price": 0.6, "note": f"{number:06d}"}

    listed = [row(number) for number in range(ROWS)]
    prompt = f"The product on a wooden table{', in the light of a studio' * 10}, number {{sku}}"
    table = RowBuilder(conn_id="c", prompt=prompt, file_name="{sku}.png").build(table_of(listed))
    found = {
        row.file_name: existing(
            state="saved",
            request=row.canonical_request,
            job_id=f"job-{row.index}",
            size=SIZE,
            ai_credits_used=1 if row.index < ALIKE else 0.6,
        )
        for row in table.rows
    }
    plan = Plan(open_batch(None, {}, table, folder="/f", made_by={}, max_tries=2, retries=2), found)
    folder = tmp_path_factory.mktemp("long")
    (folder / "metadata.jsonl").write_text("".join(metadata_lines(plan)), encoding="utf-8")
    return folder


def lines(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("program", ["with_duckdb", "with_polars", "with_pandas", "with_datasets_and_polars"])
def test_a_long_manifest_is_read_as_it_is_written(read, long, program):
    found, written = read(program, long), lines(long / "metadata.jsonl")
    assert (len(written), list(found[-1])) == (ROWS, list(written[0]))
    assert found == written


@pytest.mark.parametrize(
    "program", ["with_duckdb", "with_polars", "with_pandas", "with_datasets", "with_datasets_and_polars"]
)
def test_the_manifest_of_a_batch_is_read_as_it_is_written(read, pictures, program):
    found = read(program, pictures)
    assert [(row["file_name"], row["sku"]) for row in found] == [(name, name[:5]) for name in SAVED]
    assert found == lines(pictures / "metadata.jsonl")


def test_without_the_options_readers_guess_from_the_first_rows(read, long):
    found = read("by_default", long)
    duckdb, pandas = found["duckdb"], found["pandas"]
    assert (duckdb["note"], duckdb["price"], duckdb["ai_credits_used"]) == (None, 1, 0.6)
    assert (pandas["note"], pandas["sku"], pandas["price"]) == (ROWS - 1, ROWS - 1, 0.6000000000000001)
    assert "cannot parse '0.6'" in found["polars"]


def test_datasets_refuses_what_does_not_fit_the_first_10_mib(read, long):
    assert (long / "metadata.jsonl").stat().st_size > 10 << 20
    assert read("with_datasets", long)["error"].startswith("DatasetGenerationError: ")


def test_datasets_decodes_the_pictures_of_a_batch(read, pictures):
    assert read("sizes_with_datasets", pictures) == [[[1024, 1024]] * 3] * 2


def test_duckdb_reads_the_failed_rows(read, pictures):
    (failed,) = read("failures_with_duckdb", pictures)
    assert failed == lines(pictures / "failed.jsonl")[0]


def test_datasets_takes_the_sidecars_of_single_pictures_for_pictures_unless_told(read, singles):
    taken = sorted(row["file_name"] for row in read("with_datasets", singles))
    assert taken == ["v1.2.png", "v1.2.png.json", "v1.3.png", "v1.3.png.json"]
    assert read("singles_with_datasets", singles) == [[1024, 1024]] * 2


def test_webdataset_reads_each_picture_with_its_sidecar(read, pictures):
    samples = read("with_webdataset", pictures)
    assert [sample["__key__"] for sample in samples] == [name.partition(".")[0] for name in SAVED]
    for sample in samples:
        assert "size=1024x1024" in sample["png"]
        assert sample["png.json"] == json.loads((pictures / f"{sample['__key__']}.png.json").read_text())


def test_webdataset_takes_pictures_whose_names_are_alike_up_to_the_first_dot_for_one_sample(read, singles):
    (sample,) = read("with_webdataset", singles)
    assert sample["__key__"] == "v1"
    assert {"2.png", "2.png.json", "3.png", "3.png.json"} < set(sample)


# Tables that other programs write ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(python, tmp_path_factory):
    """Return a folder with one table in many formats, and the rows of the data frames of those who wrote it."""
    folder = tmp_path_factory.mktemp("written")
    done = subprocess.run(
        [python, WRITERS], cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, capture_output=True
    )
    return folder, json.loads(done.stdout)


FORMATS = (
    *("pandas.csv", "pandas-german.csv", "pandas-utf-16.csv", "pandas.tsv", "pandas.csv.gz", "pandas.jsonl"),
    *("pandas-openpyxl.xlsx", "pandas-xlsxwriter.xlsx", "pandas.parquet", "openpyxl.xlsx"),
    *("polars.csv", "polars.tsv", "polars.jsonl", "polars.xlsx", "polars.parquet"),
    *("duckdb.csv", "duckdb.csv.gz", "duckdb.jsonl", "duckdb.parquet"),
)


@pytest.mark.parametrize("name", FORMATS)
def test_a_table_that_another_program_has_written_is_read_as_people_read_it(written, name):
    first, second = read_table(str(written[0] / name)).rows
    check(first, second, has_types=name.endswith((".xlsx", ".parquet")), name=name)


def test_every_file_that_was_written_is_read(written):
    assert sorted(file.name for file in written[0].iterdir()) == sorted(FORMATS)


def test_data_frames_are_read_as_people_read_them(written):
    for name, rows in written[1].items():
        check(*(InputRow(**row) for row in rows), has_types=True, name=name)


def check(first, second, *, has_types, name):
    shown = RowTemplate("prompt", "{sku}: {title}, {price} euros, {pieces} pieces").render(first, 0)
    price = {"pandas-german.csv": "19,9", "DuckDB with decimals": "19.90"}.get(name, "19.9")
    # pandas makes floats of whole numbers if one is missing, and text formats have no other type to tell.
    in_text = {"pandas-german.csv": "3,0"}.get(name, "3" if name.startswith("polars") else "3.0")
    pieces = "3" if has_types else in_text
    assert shown == f'00120: Müslischale "groß"; blau, matt, {price} euros, {pieces} pieces', name
    since = RowTemplate("prompt", "{since}").render(first, 0)
    assert since.startswith("2026-11-29"), name
    assert is_empty(second.values["pieces"]), name
    assert is_empty(second.values["since"]), name
    if has_types:
        assert first.values["price"] == 19.9, name
