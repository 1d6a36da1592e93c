#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
#
# Guess, from memory: a formula that a Python library has written into an Excel file has no result until a spreadsheet
# program has saved the file, and readers give an empty cell for it. openpyxl tells by `fullCalcOnLoad` whether the file
# asks for a calculation.
#
# Seen with XlsxWriter 3.3.1, openpyxl 3.1.5, polars 2.1.0, pandas 3.1.1 and python-calamine 0.9.1, for the formula
# `=A2*2` beside a 7:
# - in a file of XlsxWriter, and of polars, which uses it, every reader gives 0;
# - in a file of openpyxl every reader gives an empty cell: None, NaN or "";
# - both files ask for a calculation (`fullCalcOnLoad="1"`); in a file that does not, openpyxl's
#   `workbook.calculation.fullCalcOnLoad` is True all the same.
#
# What this project does about it: it reads that attribute itself, and a formula of a file that asks for a calculation
# makes a bad row, which the error names by its cell (`storage/tables.py`; tests/provider/storage/test_tables.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet xlsxwriter==3.3.1 openpyxl==3.1.5 polars==2.1.0 pandas==3.1.1 python-calamine==0.9.1
cat >"$folder/look.py" <<'PYTHON'
import io
import zipfile

import openpyxl
import pandas as pd
import polars as pl
import python_calamine
import xlsxwriter


def by_xlsxwriter(file):
    with xlsxwriter.Workbook(file) as book:
        sheet = book.add_worksheet()
        sheet.write_row(0, 0, ["n", "double"])
        sheet.write_number(1, 0, 7)
        sheet.write_formula(1, 1, "=A2*2")


def by_openpyxl(file):
    book = openpyxl.Workbook()
    book.active.append(["n", "double"])
    book.active.append([7, "=A2*2"])
    book.save(file)


def by_polars(file):
    pl.DataFrame({"n": [7]}).write_excel(file, formulas={"double": "=[@n]*2"})


def results(file):
    book = python_calamine.load_workbook(io.BytesIO(file.getvalue()))
    return [
        openpyxl.load_workbook(file, data_only=True).active["B2"].value,
        book.get_sheet_by_index(0).to_python()[1][1],
        *(pd.read_excel(file, engine=engine)["double"].iloc[0] for engine in ("openpyxl", "calamine")),
    ]


seen = {}
for name, write in (("XlsxWriter", by_xlsxwriter), ("polars", by_polars), ("openpyxl", by_openpyxl)):
    file = io.BytesIO()
    write(file)
    asks = b'fullCalcOnLoad="1"' in zipfile.ZipFile(file).read("xl/workbook.xml")
    seen[name] = {"empty" if each in (None, "") or each != each else float(each) for each in results(file)}
    print(f"{name:<12}read as {seen[name]}, asks for a calculation: {asks}")
    assert asks
    quiet = io.BytesIO()
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(quiet, "w") as new:
        for part in old.infolist():
            new.writestr(part, old.read(part).replace(b' fullCalcOnLoad="1"', b""))
    told = openpyxl.load_workbook(quiet).calculation.fullCalcOnLoad
    print(f"{'':<12}a file that does not ask, by openpyxl: {told}")
    assert told is True
assert seen == {"XlsxWriter": {0.0}, "polars": {0.0}, "openpyxl": {"empty"}}, seen
PYTHON
"$folder/venv/bin/python" "$folder/look.py"
