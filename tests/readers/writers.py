# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Write a table into the current folder as other programs do, and print the rows of their data frames as JSON.

This runs in an environment without Airflow. Of this project it needs the module that reads tables.
"""

from __future__ import annotations

import json
from datetime import date

import duckdb
import openpyxl
import pandas as pd
import polars as pl
import pyarrow as pa

from pictory_provider.storage.tables import read_frame

ROWS = {
    "sku": ["00120", "00121"],
    "title": ['Müslischale "groß"; blau, matt', "Käsebrett"],
    "price": [19.9, 5.0],
    "pieces": [3, None],
    "since": [date(2026, 11, 29), None],
}


def write():
    """Return the data frames, and write them as files."""
    frame, polars, table = pd.DataFrame(ROWS), pl.DataFrame(ROWS), pa.table(ROWS)
    relation = duckdb.sql("SELECT * FROM frame")
    frame.to_csv("pandas.csv", index=False)
    frame.to_csv("pandas-german.csv", index=False, sep=";", decimal=",", encoding="utf-8-sig")
    frame.to_csv("pandas-utf-16.csv", index=False, sep="\t", encoding="utf-16")
    frame.to_csv("pandas.tsv", index=False, sep="\t")
    frame.to_csv("pandas.csv.gz", index=False)
    frame.to_json("pandas.jsonl", orient="records", lines=True, force_ascii=False, date_format="iso")
    frame.to_excel("pandas-openpyxl.xlsx", index=False, engine="openpyxl")
    frame.to_excel("pandas-xlsxwriter.xlsx", index=False, engine="xlsxwriter")
    frame.to_parquet("pandas.parquet")
    polars.write_csv("polars.csv")
    polars.write_csv("polars.tsv", separator="\t")
    polars.write_ndjson("polars.jsonl")
    polars.write_excel("polars.xlsx")
    polars.write_parquet("polars.parquet")
    duckdb.sql("COPY relation TO 'duckdb.csv' (DELIMITER '|')")
    duckdb.sql("COPY relation TO 'duckdb.csv.gz'")
    duckdb.sql("COPY relation TO 'duckdb.jsonl' (FORMAT JSON)")
    duckdb.sql("COPY relation TO 'duckdb.parquet' (FORMAT PARQUET, COMPRESSION ZSTD)")
    book = openpyxl.Workbook()
    book.active.append(list(ROWS))
    for cells in zip(*ROWS.values(), strict=True):
        book.active.append(cells)
    book.save("openpyxl.xlsx")
    decimals = duckdb.sql("SELECT * REPLACE (price::DECIMAL(10, 2) AS price) FROM frame")
    small = duckdb.sql("SELECT * REPLACE (price::FLOAT AS price) FROM frame")
    named = frame.set_index("sku")
    return {
        "pandas": frame,
        "pandas with an index": named,
        "pandas with types of arrow": frame.convert_dtypes(dtype_backend="pyarrow"),
        "polars": polars,
        "polars with categories": polars.with_columns(pl.col("title").cast(pl.Categorical)),
        "pyarrow": table,
        "pyarrow batch": table.to_batches()[0],
        "DuckDB": relation,
        "DuckDB with decimals": decimals,
        "DuckDB with small numbers": small,
    }


if __name__ == "__main__":
    frames = {name: list(read_frame(frame, is_read_again=True).rows) for name, frame in write().items()}
    print(json.dumps({name: [row._asdict() for row in rows] for name, rows in frames.items()}))
