# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Fixtures for tests of the simulator, over real sockets, without Airflow."""

from __future__ import annotations

import pytest


@pytest.fixture
def pictory(fresh_simulator):
    """Return a simulator without jobs. Its jobs end immediately."""
    return fresh_simulator()
