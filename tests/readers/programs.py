# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Read folders as ``docs/batch.md`` shows, in an environment that does not have this project.

Each line of stdin is the JSON of a function's name and of the folder to call it in; each line of stdout is the JSON
of its result. One process reads all folders, because some readers take seconds to import.
"""

from __future__ import annotations

import json
import os
import sys


def with_duckdb():
    # [START duckdb]
    import duckdb

    rows = duckdb.sql("SELECT * FROM read_json('metadata.jsonl', format='newline_delimited', sample_size=-1)")
    # [END duckdb]
    return rows_of(rows)


def failures_with_duckdb():
    import duckdb

    return rows_of(duckdb.sql("SELECT * FROM read_json('failed.jsonl', format='newline_delimited')"))


def rows_of(relation):
    return [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]


def with_polars():
    # [START polars]
    import polars as pl

    rows = pl.read_ndjson("metadata.jsonl", infer_schema_length=None)
    # [END polars]
    return rows.to_dicts()


def with_pandas():
    # [START pandas]
    import pandas as pd

    rows = pd.read_json("metadata.jsonl", lines=True, dtype=False, precise_float=True)
    # [END pandas]
    return rows.astype(object).where(rows.notna(), None).to_dict("records")


def image_folder():
    # [START datasets]
    from datasets import load_dataset

    rows = load_dataset("imagefolder", data_dir=".", split="train")
    # [END datasets]
    return rows  # noqa: RET504  the docs show the line before


def long_image_folder():
    # [START long]
    import polars as pl
    from datasets import Dataset, Image

    rows = Dataset.from_polars(pl.read_ndjson("metadata.jsonl", infer_schema_length=None))
    rows = rows.rename_column("file_name", "image").cast_column("image", Image())
    # [END long]
    return rows  # noqa: RET504  the docs show the line before


def single_pictures():
    # [START single]
    from datasets import load_dataset

    rows = load_dataset("imagefolder", data_files="*.png", split="train")
    # [END single]
    return rows  # noqa: RET504  the docs show the line before


def with_datasets(load=image_folder):
    from datasets import Image

    rows = load().cast_column("image", Image(decode=False)).to_list()
    return [{"file_name": os.path.basename(row.pop("image")["path"]), **row} for row in rows]


def with_datasets_and_polars():
    return with_datasets(long_image_folder)


def sizes_with_datasets():
    return [[row["image"].size for row in load()] for load in (image_folder, long_image_folder)]


def singles_with_datasets():
    return [row["image"].size for row in single_pictures()]


def with_webdataset():
    # [START webdataset]
    import tarfile
    from pathlib import Path

    import webdataset

    with tarfile.open("../pictures.tar", "w") as tar:
        for file in sorted(Path().glob("*.png*")):  # each picture, then its sidecar
            tar.add(file)
    samples = webdataset.WebDataset("../pictures.tar", shardshuffle=False).decode("pil")
    # [END webdataset]
    return [
        {key: value if isinstance(value, dict) else str(value) for key, value in each.items()} for each in samples
    ]


def by_default():
    """Return what readers make of the last row without the options that the docs show."""
    import duckdb
    import pandas as pd
    import polars as pl

    found = {
        "duckdb": rows_of(duckdb.sql("SELECT * FROM 'metadata.jsonl'"))[-1],
        "pandas": pd.read_json("metadata.jsonl", lines=True).to_dict("records")[-1],
    }
    try:
        found["polars"] = pl.read_ndjson("metadata.jsonl").to_dicts()[-1]
    except pl.exceptions.PolarsError as error:
        found["polars"] = str(error)
    return found


if __name__ == "__main__":
    for line in sys.stdin:
        name, folder = json.loads(line)
        os.chdir(folder)
        try:
            answer = globals()[name]()
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error} {error.__cause__}"}
        print(json.dumps(answer, default=str), flush=True)
