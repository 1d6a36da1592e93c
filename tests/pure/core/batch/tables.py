# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Rows and tables for tests."""

from __future__ import annotations

from pictory_provider.core.batch.rows import CheckedTable, RowBuilder
from pictory_provider.core.tables.inputs import table_of
from pictory_provider.core.tables.text import read_text


def records_of(requests, column_names=None):
    """Return the rows of a list, as they were read."""
    return list(table_of(requests, column_names).rows)


def read_table(path, content):
    """Return the rows of a text file, as they were read."""
    return list(read_text(path, content).rows)


def built(requests, refused=None, **operator):
    """Return the checked table of a list."""
    return RowBuilder(conn_id="c", **operator).build(table_of(requests), refused)


def rows_of(requests, refused=None, **operator):
    """Return the rows of a list."""
    return built(requests, refused, **operator).rows


def checked(rows):
    """Return a table of these rows."""
    return CheckedTable(list(rows), size=len(rows))
