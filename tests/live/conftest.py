# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""``make live`` against the simulator, which plays each Pictory that there may be."""

from __future__ import annotations

import pytest

from pictory_provider.api.connection import ConnectionSettings
from tests.live.gathering import Options, gather
from tests.live.questions import Found, answers
from tests.live.report import write


@pytest.fixture
def pictory(fresh_simulator):
    """Return a fresh account at a local Pictory. Jobs are done at once."""
    return fresh_simulator()


class Visit:
    """What one run of the tool brought home."""

    def __init__(self, facts, folder):
        self.facts, self.folder = facts, folder
        self.report = write(facts, folder).read_text()
        self.found = {answer.question: answer.found for answer in answers(facts)}

    def says(self, *words):
        """Return the one answer whose question has these words, an open one with a dash before it."""
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
def visit(settings, tmp_path):
    """Return what runs the tool, quickly, and returns what it brought home."""

    def visit(folder=tmp_path, **options):
        told = []
        quick = {"every": 0.02, "patience": 5.0, "most": 10.0}
        facts = gather(Options(settings=settings, folder=folder, **(quick | options)), told.append)
        return Visit(facts, folder)

    return visit
