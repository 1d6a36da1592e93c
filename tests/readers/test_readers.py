# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests that other programs can read the folder of a batch, in an environment without this project."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pictory_provider.operators.batch import GenerateImageBatchOperator
from pictory_provider.simulator import Simulator
from tests.stand_ins import StateStore, TaskInstance

READERS = ("datasets", "pandas", "duckdb", "pillow")
CSV = (
    "sku,product,colour,note\n"
    '00120,Müsli bowl,blue,"round, with a ""lip"""\n'
    "00121,lamp,red,\n"
    "00122,chair simulate:failed,green,\n"
    '00123,table,black,"two\nlines"\n'
)
SAVED = ["00120.png", "00121.png", "00123.png"]

DATASETS = """
import json, sys
from datasets import load_dataset
rows = load_dataset("imagefolder", data_dir=sys.argv[1], split="train")
print(json.dumps([[row["image"].size, row["text"], row["sku"], row["note"]] for row in rows]))
"""
PANDAS = """
import json, sys
import pandas
rows = pandas.read_json(sys.argv[1] + "/metadata.jsonl", lines=True, dtype=False)
print(json.dumps([rows["file_name"].tolist(), rows["sku"].tolist(), float(rows["ai_credits_used"].sum())]))
"""
DUCKDB = """
import json, sys
import duckdb
folder = sys.argv[1]
saved = duckdb.sql(f"SELECT file_name, sku, size FROM '{folder}/metadata.jsonl' ORDER BY file_name").fetchall()
failed = duckdb.sql(f"SELECT file_name, code, what_to_do IS NOT NULL FROM '{folder}/failed.jsonl'").fetchall()
print(json.dumps([saved, failed]))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Return the Python of an environment that has the readers, but not this project."""
    folder = tmp_path_factory.mktemp("readers")
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *READERS], check=True)
    return python


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Return the folder of a batch with three pictures and one failed row."""
    folder = tmp_path_factory.mktemp("pictures")
    table = folder / "products.csv"
    table.write_text(CSV, encoding="utf-8")
    with Simulator(seconds=0) as pictory, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", pictory.connection_json())
        GenerateImageBatchOperator(
            task_id="pictures",
            requests=str(table),
            prompt="{product} in {colour}, studio light",
            file_name="{sku}.png",
            path=str(folder / "out"),
            model="flux-schnell",
            fail_on_partial_error=False,
            deferrable=False,
        ).execute({"ti": TaskInstance(), "task_state_store": StateStore()})
    return folder / "out"


def read(python, program, folder):
    done = subprocess.run([python, "-c", program, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_datasets_loads_it_as_an_image_folder(python, pictures):
    assert read(python, DATASETS, pictures) == [
        [[1024, 1024], "Müsli bowl in blue, studio light", "00120", 'round, with a "lip"'],
        [[1024, 1024], "lamp in red, studio light", "00121", ""],
        [[1024, 1024], "table in black, studio light", "00123", "two\nlines"],
    ]


def test_pandas_reads_the_manifest(python, pictures):
    names, skus, credits = read(python, PANDAS, pictures)
    assert (names, skus, credits) == (SAVED, ["00120", "00121", "00123"], pytest.approx(1.8))


def test_duckdb_reads_both_lists_and_keeps_texts_that_resemble_numbers(python, pictures):
    saved, failed = read(python, DUCKDB, pictures)
    assert [(name, sku) for name, sku, _ in saved] == [(name, name.partition(".")[0]) for name in SAVED]
    assert [size for *_, size in saved] == [(pictures / name).stat().st_size for name in SAVED]
    assert [(name, has_advice) for name, _, has_advice in failed] == [("00122.png", True)]
