# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests that the key, a canary, is in no file that the other tests of this tier have written.

``conftest`` makes this file run last.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from tests.faults.conftest import CANARY

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def files(searched, airflow):
    """Return every file that an Airflow of this tier has written: logs, databases, and dumps of the databases."""
    databases = [home / "airflow.db" for home in searched if (home / "airflow.db").exists()]
    for database in databases:
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
            database.with_name("database.sql").write_text("\n".join(connection.iterdump()))
    found = [file for home in searched for file in home.rglob("*") if file.is_file()]
    assert airflow.home / "airflow.db" in databases
    return found


def containing(files: list[Path], text: str) -> list[Path]:
    return [file for file in files if text.encode() in file.read_bytes()]


def test_the_search_finds_known_texts(files, searched):
    """Each kind of searched file contains a text that is known to be in it."""
    jobs_named = containing(files, "Pictory accepted job ")
    assert any(file.suffix == ".log" for file in jobs_named), "task logs"
    assert any(".log.trigger." in file.name for file in containing(files, "PictoryJobTrigger")), "trigger logs"
    rows = [file for file in containing(files, "pictory_submission") if file.name == "database.sql"]
    assert len(rows) == len(searched), "the rows of every database"
    assert containing(files, "PictorySubmitOutcomeUnknown"), "texts of exceptions"


def test_the_key_is_in_no_log_no_database_no_xcom_and_no_text_of_an_exception(files):
    assert containing(files, CANARY) == []


def test_the_key_was_sent_only_to_the_api(simulator, quiet):
    requests = [*simulator.requests, *quiet.requests]
    assert {request.host for request in requests if CANARY in str(request.headers)} == {"api"}
    assert not any(CANARY in str((request.path, request.query, request.body)) for request in requests)
