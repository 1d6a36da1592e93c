# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Test that the demo leaves no process of a real Airflow behind: ``make test-faults`` runs it."""

from __future__ import annotations

import signal

import pytest

from tests.demo.conftest import stop


@pytest.mark.parametrize("demo", [None], indirect=True)
def test_a_demo_that_is_stopped_while_tasks_wait_leaves_no_process(demo):
    stop(demo, "deferred", signal.SIGINT)
