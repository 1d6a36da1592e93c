# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Compare the run times of the tests and the demo with those of an earlier commit.

``python -m benchmarks.suites 92180a6 --rounds 3`` clones both commits and runs each command alternately in both
clones. Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = {
    "make test": ["make test"],
    "tests/pure": ["make test-pure", ".venv/bin/python -m pytest tests/pure"],
    "make demo": ["make demo"],
    ".ci/run": [".ci/run"],
}
"""The commands to time. Of several, the first one whose target is in the commit's Makefile is used."""


def main() -> int:
    """Print a table of medians, and the ratio of this commit to the earlier one."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.suites", description=__doc__)
    parser.add_argument("commit", help="the earlier commit")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--only", action="append", choices=COMMANDS, help="default: all except .ci/run, which takes very long"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        trees = [
            clone(commit, Path(folder) / name) for name, commit in (("then", options.commit), ("now", "HEAD"))
        ]
        for tree in trees:
            subprocess.run(["make", ".venv/.installed"], cwd=tree, check=True, capture_output=True)
        print("| command | then, s | now, s | ratio of the medians |\n|---|---|---|---|", flush=True)
        for name in options.only or [each for each in COMMANDS if each != ".ci/run"]:
            seconds: list[list[float]] = [[], []]
            for _ in range(options.rounds):
                for tree, taken in zip(trees, seconds, strict=True):
                    taken.append(timed(tree, name))
                    print(f"{name} of {tree.name}: {taken[-1]:.0f} s", file=sys.stderr, flush=True)
            then, now = map(statistics.median, seconds)
            each = [", ".join(f"{taken:.0f}" for taken in tree) for tree in seconds]
            print(f"| `{name}` | {each[0]} | {each[1]} | {now / then:.2f} |", flush=True)
    return 0


def clone(commit: str, folder: Path) -> Path:
    """Clone a commit of this project into a folder, and return the folder."""
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
    subprocess.run(["git", "checkout", "--quiet", commit], cwd=folder, check=True)
    return folder


def timed(tree: Path, name: str) -> float:
    """Return the run time of a command in a tree, in seconds.

    Tests of the earlier commit may fail, because some depend on the date, but all of them have to run.

    :raises CalledProcessError: if it fails.
    """
    targets = (tree / "Makefile").read_text()
    command = next(
        each
        for each in COMMANDS[name]
        if not each.startswith("make ") or f"\n{each.removeprefix('make ')}:" in targets
    )
    env = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONPATH")}
    begun = time.monotonic()
    done = subprocess.run(command.split(), cwd=tree, env=env, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - begun
    if done.returncode:
        print(done.stdout[-5_000:], done.stderr[-5_000:], file=sys.stderr)
        if tree.name == "now" or not re.search(r"\d+ passed.* in [\d.]+s", done.stdout):
            done.check_returncode()
    return seconds


if __name__ == "__main__":
    sys.exit(main())
