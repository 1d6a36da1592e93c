# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Run attempts of one batch, and read its files."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

from pictory_provider.operators.batch import GenerateImageBatchOperator
from pictory_provider.simulator import painting
from tests.driver import Attempts


@cache
def painted(size):
    return _paint({"prompt": "One of many", "model": "m", "aspectRatio": "1:1"}, size, None)


_paint = painting.paint


class Tries(Attempts):
    """The attempts of one batch task.

    :param folder: its ``path``.
    """

    def __init__(self, folder, **kwargs):
        super().__init__(self.task_of, **kwargs)
        self.folder = folder

    def task_of(self, requests, **kwargs):
        arguments = {"path": str(self.folder), "deferrable": False, "poll_interval": 0.02, **kwargs}
        return GenerateImageBatchOperator(task_id="draw", requests=requests, **arguments)


def lines(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def files(folder):
    """Return the files of a folder, without its record."""
    found = []
    for at, _, names in os.walk(folder):
        found += [str((Path(at) / name).relative_to(folder)) for name in names]
    return sorted(name for name in found if not name.startswith(".pictory"))


def entries(folder):
    """Return the record of each row, by file name."""
    pages = sorted(Path(folder, ".pictory").glob("*-*.json"))
    rows = [row for page in pages for row in json.loads(page.read_text())["rows"].values()]
    return {row["file_name"]: row for row in rows}


def billed(pictory):
    """Return how often each prompt was billed."""
    prompts = [job.body["prompt"] for job in pictory.account.jobs.values()]
    return {prompt: prompts.count(prompt) for prompt in prompts}


def lamps(number):
    return [f"A lamp, number {n}" for n in range(number)]
