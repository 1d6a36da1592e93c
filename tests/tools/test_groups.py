# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""How the tests are spread over processes."""

from __future__ import annotations

from types import SimpleNamespace

from tests.conftest import pytest_xdist_make_scheduler


def test_the_tests_of_a_real_airflow_run_in_one_process():
    scheduler = pytest_xdist_make_scheduler(SimpleNamespace(getvalue=lambda _: ["popen"]), None)
    tests = ["tests/system/test_a.py::test_one", "tests/system/test_b.py::test_two", "tests/pure/test_c.py::test"]
    assert len({scheduler._split_scope(test) for test in tests}) == 2
