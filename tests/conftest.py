# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What every tier needs: a private AIRFLOW_HOME, set before anything can import Airflow."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile

import hypothesis
import pytest

hypothesis.settings.register_profile("pictory", deadline=None)  # a machine may be busy
hypothesis.settings.load_profile("pictory")

if os.environ.get("PICTORY_WITHOUT_AIRFLOW"):
    sys.modules["airflow"] = None  # importing it fails, as if it were not installed

for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
    del os.environ[name]
# Each connection reads the file that they name, in 20 ms.
for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
    if found := os.environ.pop(name, None):
        os.environ.setdefault("PIP_CERT", found)  # for the tests that install something
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="airflow-home-")
atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"], ignore_errors=True)
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,localhost"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Let one process run all tests of a tier that starts a real Airflow, where several processes run tests.

    A mark would not do: the groups of pytest-xdist 3.8 are none under pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class OneAirflow(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            tier = nodeid.removeprefix("tests/").partition("/")[0]
            return tier if tier in ("browser", "demo", "faults", "system", "versions") else nodeid

    return OneAirflow(config, log)


@pytest.fixture
def timing(monkeypatch):
    """Return what changes the provider's times: ``timing(read_budget=0)``."""
    from pictory_provider.api.timing import TIMING

    def change(**times):
        for name, value in times.items():
            monkeypatch.setattr(TIMING, name, value)

    return change


@pytest.fixture(scope="session")
def fresh_simulator():
    """Return what empties and returns a local Pictory, for the fixtures of the tiers. Jobs are done at once."""
    from pictory_provider.simulator import Simulator

    with Simulator(seconds=0) as pictory:

        def fresh():
            pictory.reset()
            pictory.account.seconds = 0
            pictory.account.credits_limit = 22_000
            return pictory

        yield fresh
