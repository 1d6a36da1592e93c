# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Fixtures to run ``make live`` against the simulator, with every possible behaviour of Pictory."""

from __future__ import annotations

import pytest

from pictory_provider.api.connection import ConnectionSettings
from tests.live.gathering import Options, gather
from tests.live.questions import Found, answers
from tests.live.report import write


@pytest.fixture
def pictory(fresh_simulator):
    """Return a simulator without jobs. Its jobs end immediately."""
    return fresh_simulator()


class Result:
    """The result of one run of the tool."""

    def __init__(self, facts, folder):
        self.facts, self.folder = facts, folder
        self.report = write(facts, folder).read_text()
        self.found = {answer.question: answer.found for answer in answers(facts)}

    def says(self, *words):
        """Return the answer to the question with these words, with a dash before it if it is open."""
        (found,) = [found for title, found in self.found.items() if all(word in title for word in words)]
        return found.text if isinstance(found, Found) else f"- {found}"

    def samples(self):
        return sorted(
            str(p.relative_to(self.folder / "samples"))[:-5] for p in self.folder.glob("samples/*/*.json")
        )


@pytest.fixture
def settings(pictory):
    return ConnectionSettings(api_key=pictory.api_key, base_url=pictory.base_url)


@pytest.fixture
def run_tool(settings, tmp_path):
    """Return a function that runs the tool with short times, and returns its result."""

    def run_tool(folder=tmp_path, **options):
        quick = {"every": 0.02, "patience": 5.0, "most": 10.0}
        facts = gather(Options(settings=settings, folder=folder, **(quick | options)), [].append)
        return Result(facts, folder)

    return run_tool
