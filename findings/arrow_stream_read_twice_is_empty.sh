#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
#
# Guess, from memory: an Arrow stream (`__arrow_c_stream__`) that was read to its end raises an error when it is read
# again, whatever library it is of. And a DuckDB relation can be exported while another one of its connection is read.
#
# Seen with pyarrow 26.0.1, nanoarrow 0.9.0, arro3-core 0.9.1, polars 2.1.0, pandas 3.1.1 and DuckDB 2.0.1:
# - a RecordBatchReader of pyarrow is an empty table the second time, without an error: for pyarrow, polars and pandas;
# - the streams of nanoarrow and arro3 raise RuntimeError and OSError;
# - a polars frame and a DuckDB relation give their rows again;
# - while the stream of one DuckDB relation is open, another relation of the same connection raises
#   ResourceInUseException; after the stream was read to its end, it works.
#
# What this project does about it: a task that may read its table again checks that the table gives its rows twice, and
# refuses one that is empty or raises (`storage/tables.py`; tests/provider/storage/test_tables.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pyarrow==26.0.1 nanoarrow==0.9.0 arro3-core==0.9.1 polars==2.1.0 pandas==3.1.1 duckdb==2.0.1
cat >"$folder/look.py" <<'PYTHON'
import arro3.core
import duckdb
import nanoarrow
import pandas as pd
import polars as pl
import pyarrow as pa

table = pa.table({"sku": ["1", "2"]})
makers = {
    "pyarrow": lambda: pa.RecordBatchReader.from_batches(table.schema, table.to_batches()),
    "nanoarrow": lambda: nanoarrow.ArrayStream(table),
    "arro3": lambda: arro3.core.RecordBatchReader.from_stream(table),
    "polars": lambda: pl.DataFrame({"sku": ["1", "2"]}),
    "DuckDB": lambda: duckdb.connect().sql("SELECT unnest(['1', '2']) AS sku"),
}
readers = {
    "pyarrow": lambda stream: pa.table(stream).num_rows,
    "polars": lambda stream: pl.DataFrame(stream).height,
    "pandas": lambda stream: len(pd.DataFrame.from_arrow(stream)),
}


def told(call):
    try:
        return call()
    except Exception as error:
        return type(error).__name__


seen = {}
for maker, make in makers.items():
    second = set()
    for read in readers.values():
        stream = make()
        assert read(stream) == 2
        second.add(told(lambda read=read, stream=stream: read(stream)))
    seen[maker] = second
    print(f"{maker:<12}read again: {second}")
connection = duckdb.connect()
one, two = connection.sql("SELECT 1 AS a"), connection.sql("SELECT 2 AS b")
reader = pa.RecordBatchReader.from_stream(one)
meanwhile = told(lambda: pa.table(two).num_rows)
reader.read_all()
print(f"DuckDB, another relation meanwhile: {meanwhile}, afterwards: {pa.table(two).num_rows} row")
assert seen == {
    "pyarrow": {0},
    "nanoarrow": {"RuntimeError"},
    "arro3": {"OSError"},
    "polars": {2},
    "DuckDB": {2},
}, seen
assert meanwhile == "ResourceInUseException", meanwhile
PYTHON
"$folder/venv/bin/python" "$folder/look.py"
