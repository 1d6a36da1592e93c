# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A local Pictory: real sockets, real pictures, no account.

It serves every documented image, job and account endpoint of https://docs.pictory.ai on loopback. It answers
undocumented requests with an error, silently drops unknown fields as Pictory does, counts credits, logs every
request, and plays faults on demand. It does not import the rest of this package, and is not imported by it.

As a program: ``python -m pictory_provider.simulator --help``. In a test::

    from pictory_provider.simulator import Simulator

    with Simulator(seconds=0) as pictory:
        os.environ["AIRFLOW_CONN_PICTORY_DEFAULT"] = pictory.connection_json()
        pictory.script("submit", "rate-limited", retry_after="2")
        ...
        assert len(pictory.submissions) == 1

It draws its pictures with Pillow: install ``airflow-provider-pictory[simulator]``.
"""

from __future__ import annotations

from pictory_provider.simulator.account import FATES, Account, SimulatedJob
from pictory_provider.simulator.faults import FAULTS, PLACES, ScriptedFault
from pictory_provider.simulator.replies import LoggedRequest
from pictory_provider.simulator.server import Simulator
from pictory_provider.simulator.settings import SETTINGS
from pictory_provider.simulator.shapes import SHAPES

__all__ = [
    "FATES",
    "FAULTS",
    "PLACES",
    "SETTINGS",
    "SHAPES",
    "Account",
    "LoggedRequest",
    "ScriptedFault",
    "SimulatedJob",
    "Simulator",
]
