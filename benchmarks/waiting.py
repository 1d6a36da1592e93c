# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What a poll and a waiting job cost in the triggerer, in four styles, with 10 to 10,000 jobs.

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
"""Seconds that are measured."""
SETTLE = 6.0
"""Seconds before that, in which connections open."""
PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "waiting.svg"


def run(server: Running, style: str, **task: Any) -> dict[str, Any]:
    """Run one style in a process of its own, and return its cost with what the server counted meanwhile."""
    order = {"style": style, "url": server.url, "ca": server.ca, "window": WINDOW, "settle": SETTLE, **task}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "WARNING"
    server.ask("/reset")
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
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
        seen = {}
        for line in process.stdout:
            if line.strip() in ("begin", "end"):
                seen[line.strip()] = server.ask("/stats")
                process.stdin.write("\n")
                process.stdin.flush()
            elif line.startswith("{"):
                cost = json.loads(line)
    last = server.ask("/stats")
    looks = seen["end"]["looks"] - seen["begin"]["looks"] if seen else last["looks"]
    return {**last, **cost, "looks": looks}


def steady(server: Running) -> dict[str, dict[int, dict[str, Any]]]:
    """Measure jobs that wait, 50 polls a second however many they are."""
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
                f"{style:<30}{number:>7,}{1e6 * cost['cpu'] / cost['looks']:>8.0f} us"
                f"{cost['memory'] / number / 1024:>9.1f} KiB   {median:6.1f} ms {most:6.1f} ms {worst:6.1f} ms"
                f"{cost['most connections at once']:>13}",
                flush=True,
            )
    return found


def pace(server: Running) -> None:
    """Measure a crowd that asks for more than its pace: what the server saw, and the loop's lag."""
    print("\nThis provider, 15 s between looks, where the pace cannot serve that")
    print(f"{'jobs':>7}{'set':>7}{'looks/s':>9}{'most in any second':>20}{'connections':>13}{'lag, 99 %':>12}")
    for number, rate in ((1_000, 10), (10_000, 10), (10_000, 100), (10_000, 400)):
        jobs = [(0.0, 100_000)] * number
        cost = run(server, "this provider", jobs=jobs, interval=15, first=0, rate=rate)
        print(
            f"{number:>7,}{rate:>7}{cost['looks'] / WINDOW:>9.1f}{cost['most looks in any second']:>20}"
            f"{cost['most connections at once']:>13}{cost['lag'][1]:>9.1f} ms",
            flush=True,
        )


def finished(server: Running) -> None:
    """Measure whole waits: 300 pictures of 5 to 40 s, 10 s between looks."""
    chance = random.Random(1)
    jobs = [(n / 30, n / 30 + chance.uniform(5, 40)) for n in range(300)]
    print("\n300 pictures of 5 to 40 s, begun within 10 s, 10 s between looks")
    for style in STYLES:
        cost = run(server, style, jobs=jobs, interval=10, first=10, rate=100, window=None)
        print(
            f"{style:<30}{cost['looks'] / 300:5.2f} looks a picture, {1e6 * cost['cpu'] / 300:6.0f} us a picture",
            flush=True,
        )


def draw(found: dict[str, dict[int, dict[str, Any]]]) -> None:
    """Draw how each style grows."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "pictory", "svg.fonttype": "none"})
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(10, 4))
    curves = {
        "CPU for each poll, microseconds": lambda cost: 1e6 * cost["cpu"] / cost["looks"],
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
    print(f"\nThe curves are drawn in {PICTURE.name}.")


def main() -> None:
    """Measure all, and draw."""
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as server:
        found = steady(server)
        pace(server)
        finished(server)
    draw(found)


if __name__ == "__main__":
    main()
