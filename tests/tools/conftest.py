# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The simulator itself, over real sockets, without Airflow."""

from __future__ import annotations

import pytest


@pytest.fixture
def pictory(fresh_simulator):
    """Return a fresh account at a local Pictory. Jobs are done at once."""
    return fresh_simulator()
