# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Installs nothing: checks that what the docs tell pip to install is this package, and its extras exist."""

from __future__ import annotations

import sys
from importlib.metadata import metadata

from packaging.requirements import Requirement

command, *requirements = sys.argv[1:]
assert command == "install", command
for wanted in map(Requirement, requirements):
    known = metadata(wanted.name)
    assert wanted.name == "airflow-provider-pictory", wanted
    assert wanted.extras <= set(known.get_all("Provides-Extra")), wanted
