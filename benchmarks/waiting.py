# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Measure the cost of a poll and of a waiting job in the triggerer, in four styles, with 10 to 10,000 jobs.

``python -m benchmarks.waiting``
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.pictory import Running, running
from benchmarks.styles import STYLES

POLLS_PER_SECOND = 50
JOBS = (10, 100, 1_000, 10_000)
WINDOW = 10.0
"""Seconds of the measurement."""
SETTLE = 6.0
"""Seconds before the measurement, for opening connections."""
PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "waiting.svg"


def run(server: Running, style: str, **task: Any) -> dict[str, Any]:
    """Run one style in a separate process, and return its cost and the server's counters."""
    arguments = {"style": style, "url": server.url, "ca": server.ca, "window": WINDOW, "settle": SETTLE, **task}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "WARNING"
    server.get("/reset")
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.styles"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(arguments) + "\n")
        process.stdin.flush()
        counted = {}
        for line in process.stdout:
            if line.strip() in ("begin", "end"):
                counted[line.strip()] = server.get("/stats")
                process.stdin.write("\n")
                process.stdin.flush()
            elif line.startswith("{"):
                cost = json.loads(line)
    last = server.get("/stats")
    polls = counted["end"]["polls"] - counted["begin"]["polls"] if counted else last["polls"]
    return {**last, **cost, "polls": polls}


def steady(server: Running) -> dict[str, dict[int, dict[str, Any]]]:
    """Measure waiting jobs, with 50 polls a second for any number of jobs."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    print(f"\n{POLLS_PER_SECOND} polls a second over TLS, none of the jobs ends; {WINDOW:.0f} s each")
    head = f"{'':<30}{'jobs':>7}{'CPU/poll':>11}{'memory/job':>12}   {'loop lag: median, 99 %, worst':<32}"
    print(f"{head}connections")
    for style in STYLES:
        found[style] = {}
        for number in JOBS:
            interval = number / POLLS_PER_SECOND
            jobs = [(interval * n / number, 100_000) for n in range(number)]
            cost = run(server, style, jobs=jobs, interval=interval, first=0, rate=4 * POLLS_PER_SECOND)
            found[style][number] = cost
            median, most, worst = cost["lag"]
            print(
                f"{style:<30}{number:>7,}{1e6 * cost['cpu'] / cost['polls']:>8.0f} us"
                f"{cost['memory'] / number / 1024:>9.1f} KiB   {median:6.1f} ms {most:6.1f} ms {worst:6.1f} ms"
                f"{cost['most connections at once']:>13}",
                flush=True,
            )
    return found


def rate_limit(server: Running) -> None:
    """Measure more jobs than the rate limit allows: the server's counters, and the loop's lag."""
    print("\nThis provider, 15 s between polls, if the rate limit does not allow that")
    print(f"{'jobs':>7}{'set':>7}{'polls/s':>9}{'most in any second':>20}{'connections':>13}{'lag, 99 %':>12}")
    for number, rate in ((1_000, 10), (10_000, 10), (10_000, 100), (10_000, 400)):
        jobs = [(0.0, 100_000)] * number
        cost = run(server, "this provider", jobs=jobs, interval=15, first=0, rate=rate)
        print(
            f"{number:>7,}{rate:>7}{cost['polls'] / WINDOW:>9.1f}{cost['most polls in any second']:>20}"
            f"{cost['most connections at once']:>13}{cost['lag'][1]:>9.1f} ms",
            flush=True,
        )


def finished(server: Running) -> None:
    """Measure complete waits: 300 pictures of 5 to 40 s, 10 s between polls."""
    chance = random.Random(1)
    jobs = [(n / 30, n / 30 + chance.uniform(5, 40)) for n in range(300)]
    print("\n300 pictures of 5 to 40 s, begun within 10 s, 10 s between polls")
    for style in STYLES:
        cost = run(server, style, jobs=jobs, interval=10, first=10, rate=100, window=None)
        print(
            f"{style:<30}{cost['polls'] / 300:5.2f} polls a picture, {1e6 * cost['cpu'] / 300:6.0f} us a picture",
            flush=True,
        )


def draw(found: dict[str, dict[int, dict[str, Any]]]) -> None:
    """Plot the cost of each style over the number of jobs."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "pictory", "svg.fonttype": "none"})
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(10, 4))
    curves = {
        "CPU for each poll, microseconds": lambda cost: 1e6 * cost["cpu"] / cost["polls"],
        "loop lag, 99th percentile, ms": lambda cost: cost["lag"][1],
    }
    for panel, (title, value) in zip(panels, curves.items(), strict=True):
        for style, costs in found.items():
            panel.plot(list(costs), [value(cost) for cost in costs.values()], marker="o", label=style)
        panel.set(xscale="log", yscale="log", title=title, xlabel="waiting jobs")
        panel.grid(alpha=0.3)
    panels[0].legend(fontsize="small")
    figure.tight_layout()
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, metadata={"Date": None})
    print(f"\nThe plot is in {PICTURE.name}.")


def main() -> None:
    """Measure everything, and plot it."""
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as server:
        found = steady(server)
        rate_limit(server)
        finished(server)
    draw(found)


if __name__ == "__main__":
    main()
