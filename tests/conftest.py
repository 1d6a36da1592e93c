# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Fixtures of all tests, and a private AIRFLOW_HOME that is set before any module imports Airflow."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from contextlib import suppress

import hypothesis
import pytest

EXAMPLES = int(os.environ.get("PICTORY_EXAMPLES", "25"))
hypothesis.settings.register_profile("pictory", deadline=None, max_examples=EXAMPLES)  # the machine may be busy
hypothesis.settings.load_profile("pictory")

if os.environ.get("PICTORY_WITHOUT_AIRFLOW"):
    sys.modules["airflow"] = None  # importing it fails, as if it were not installed

for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
    del os.environ[name]
# With these variables every process and many a connection reads a certificate file, which takes 20 ms.
CERTIFICATES = {
    name: os.environ.pop(name)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
    if name in os.environ
}
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="airflow-home-")
atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"], ignore_errors=True)
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,localhost"


WITH_AIRFLOW = ("browser", "faults", "system", "versions")
"""The tiers that start a real Airflow."""


def tier_of(nodeid):
    return nodeid.removeprefix("tests/").partition("/")[0]


def pytest_runtest_setup(item):
    """Leave the CPU to the tiers with a real Airflow, which loses tasks if its scheduler has to wait for long."""
    if "PYTEST_XDIST_WORKER" in os.environ and tier_of(item.nodeid) not in WITH_AIRFLOW:
        os.nice(max(0, 10 - os.nice(0)))


def pytest_make_parametrize_id(val, argname):
    """Name long values after their argument.

    Nobody reads a picture in a test's name, and a picture or a colour profile may hold the time at which it was
    made: pytest-xdist refuses tests that have other names in another process.
    """
    return argname if isinstance(val, (bytes, str)) and len(val) > 80 else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Run all tests of a tier that starts a real Airflow in one process, if several processes run tests.

    Those of the browser are split by their files, most of which have an Airflow of their own. The groups of
    pytest-xdist 3.8 do not work with pytest 9.2, so a mark is not enough.
    """
    from xdist.scheduler import LoadScopeScheduling

    class OneAirflow(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            tier = tier_of(nodeid)
            if tier == "browser":
                return nodeid.partition("::")[0]
            return tier if tier in WITH_AIRFLOW else nodeid

    return OneAirflow(config, log)


@pytest.fixture(scope="session")
def installing():
    """Return the environment for programs that install packages."""
    return os.environ | CERTIFICATES


@pytest.fixture
def timing(monkeypatch):
    """Return a function that changes the provider's times: ``timing(read_budget=0)``."""
    from pictory_provider.api.timing import TIMING

    def change(**times):
        for name, value in times.items():
            monkeypatch.setattr(TIMING, name, value)

    return change


@pytest.fixture(scope="session")
def fresh_simulator():
    """Return a function that resets and returns a simulator whose jobs end immediately."""
    from pictory_provider.simulator import Simulator

    with Simulator(seconds=0) as pictory:

        def fresh():
            pictory.reset()
            pictory.account.seconds = 0
            pictory.account.credits_limit = 22_000
            return pictory

        yield fresh


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """Add the logs of failed tasks to the report of a failed test, because Airflow's home is deleted afterwards."""
    report = yield
    airflow = item.funcargs.get("airflow") if hasattr(item, "funcargs") else None
    if report.failed and hasattr(airflow, "task_log"):
        with suppress(Exception):
            report.sections.append(("failed tasks", failed_tasks_of(airflow)))
    return report


def failed_tasks_of(airflow):
    """Return the end of each failed task's log, and the scheduler's lines about it."""
    scheduler = (airflow.home / "scheduler.log").read_text(errors="replace").splitlines()
    found = airflow.call("GET", "/dags/~/dagRuns/~/taskInstances?state=failed&limit=20")["task_instances"]
    lines = []
    for task in found:
        ids = task["dag_id"], task["dag_run_id"], task["task_id"]
        lines.append(f"{' '.join(ids)} [{task['map_index']}], try {task['try_number']}")
        with suppress(Exception):
            log = airflow.task_log(*ids, try_number=task["try_number"], map_index=task["map_index"])
            lines.append(log[-3_000:])
        lines += [line for line in scheduler if ids[1] in line and ids[2] in line and "finished with" in line]
    return "\n".join(lines)
