# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What a rule for the times of the looks costs: looks for each picture, against seconds of delay.

Jobs begin one after another, or 500 at once every hour. A rule that learns knows what has ended by then, and
nothing else. No look comes sooner than 10 s after the submission, and no two looks at a job are closer than the
interval. ``python -m benchmarks.schedule``
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from itertools import accumulate, count
from statistics import fmean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

JOBS = 4_000
EVERY = 5.0
"""Seconds between two jobs, where they begin one after another."""
BATCH = 500
HOUR = 3_600.0
SOONEST = 10.0
"""Seconds. Pictory recommends 10 to 30 between looks, the first one included."""
INTERVAL = 15.0

SPREADS: dict[str, Callable[[random.Random, int], float]] = {
    "flux, 3 to 9 s": lambda chance, _: chance.uniform(3, 9),
    "narrow, around 60 s": lambda chance, _: chance.gauss(60, 5),
    "wide, around 60 s": lambda chance, _: chance.lognormvariate(4.1, 0.7),
    "minutes, around 180 s": lambda chance, _: chance.lognormvariate(5.2, 0.4),
    "two humps, 6 s and 90 s": lambda chance, _: (
        chance.uniform(3, 9) if chance.random() < 0.5 else chance.gauss(90, 15)
    ),
    "180 s, and 30 s from the middle on": lambda chance, n: (
        chance.gauss(180, 10) if n < JOBS / 2 else chance.gauss(30, 5)
    ),
}
"""Seconds that a job takes. Pictory says "seconds" for flux and "a few minutes" for others, and no figures."""


class Rule:
    """Look every so many seconds, the first time after ``first``."""

    def __init__(self, interval: float = INTERVAL, first: float | None = None) -> None:
        self.interval = interval
        self.first = interval if first is None else first
        start = "" if first is None else f"at {first:.0f} s, then "
        self.name = f"{start}every {interval:.0f} s"

    def looks(self, now: float) -> Iterator[float]:  # noqa: ARG002  rules that learn forget with time
        """Yield the times of the looks, in seconds from the submission."""
        return count(self.first, self.interval)

    def learn(self, now: float, looks: list[float]) -> None:
        """Take note of the looks at a job that has just ended; the last one saw the end."""


class Stretching(Rule):
    """Let the interval grow with the time waited."""

    def __init__(self, factor: float) -> None:
        super().__init__(SOONEST)
        self.factor = factor
        self.name = f"from 10 s on, each x {factor:g}"

    def looks(self, now: float) -> Iterator[float]:  # noqa: ARG002, D102
        return accumulate(SOONEST * self.factor**n for n in count())


class Learned(Rule):
    """Place the first look by what this process has seen, and then look every so many seconds.

    Of a job it is known that it ran at one look and had ended at the next. A tenth of the way between the two
    counts as its end; where the first look saw the end already, the interval before that look.

    :param share: which share of the known jobs had ended by the first look; 0 for the shortest of all.
    :param jobs: how many are remembered, at most, and for an hour.
    """

    def __init__(self, name: str, share: float, jobs: int) -> None:
        super().__init__()
        self.share = share
        self.known: deque[tuple[float, float]] = deque(maxlen=jobs)
        self.name = f"first look learned: {name}"

    def looks(self, now: float) -> Iterator[float]:  # noqa: D102
        while self.known and self.known[0][0] < now - HOUR:
            self.known.popleft()
        first = INTERVAL
        if len(self.known) >= 5:
            ends = sorted(end for _, end in self.known)
            first = max(SOONEST, ends[int(self.share * len(ends))])
        return count(first, self.interval)

    def learn(self, now: float, looks: list[float]) -> None:  # noqa: D102
        before = looks[-2] if len(looks) > 1 else looks[0] - self.interval
        self.known.append((now, before + (looks[-1] - before) / 10))


class Best(Rule):
    """The best times for a spread that is known, found by dynamic programming over whole seconds.

    :param worth: seconds of delay that one look less is worth.
    """

    def __init__(self, durations: list[float], worth: float) -> None:
        super().__init__()
        self.name = "the best that knows the spread"
        end = int(max(durations)) + 2
        ended = [0] * (end + 1)
        for duration in durations:
            ended[int(duration) + 1] += 1
        by = list(accumulate(ended))
        seconds = list(accumulate(number * at for at, number in enumerate(ended)))
        cost, self.plan = [0.0] * (end + 1), [end] * (end + 1)
        for at in reversed(range(end)):

            def price(look: int, at: int = at) -> float:
                late = look * (by[look] - by[at]) - (seconds[look] - seconds[at])
                return worth * (len(durations) - by[at]) + late + cost[look]

            soonest = int(SOONEST if at == 0 else at + INTERVAL)
            self.plan[at] = min(range(min(end, soonest), end + 1), key=price)
            cost[at] = price(self.plan[at])

    def looks(self, now: float) -> Iterator[float]:  # noqa: ARG002, D102
        at = 0
        while True:
            at = self.plan[at] if at < len(self.plan) - 1 else at + int(INTERVAL)
            yield float(at)

    @classmethod
    def as_prompt_as(cls, delay: float, durations: list[float]) -> Rule:
        """Return the plan with the fewest looks whose mean delay is no longer than this."""
        low, high = 0.0, 400.0
        for _ in range(14):
            middle = (low + high) / 2
            _, late = play(cls(durations, middle), durations, begins=lambda n: n * EVERY)
            low, high = (middle, high) if late <= delay else (low, middle)
        return cls(durations, low)


def play(rule: Rule, durations: list[float], begins: Callable[[int], float]) -> tuple[float, float]:
    """Return looks and seconds of delay for each picture."""
    numbers, delays = [], []
    running: list[tuple[float, int, list[float]]] = []
    for number, duration in enumerate(durations):
        now = begins(number)
        while running and running[0][0] <= now:
            ended, _, looks = heapq.heappop(running)
            rule.learn(ended, looks)
        looks = []
        for at in rule.looks(now):
            looks.append(at)
            if at >= duration:
                break
        heapq.heappush(running, (now + looks[-1], number, looks))
        numbers.append(len(looks))
        delays.append(looks[-1] - duration)
    return fmean(numbers), fmean(delays)


def main() -> None:
    """Print a table for each spread."""
    for spread, duration in SPREADS.items():
        chance = random.Random(1)
        durations = [max(1.0, duration(chance, number)) for number in range(JOBS)]
        print(f"\n{spread:<52}one by one            500 at once, hourly")
        _, delay = play(Rule(), durations, begins=lambda n: n * EVERY)
        rules: list[Callable[[], Rule]] = [
            *(lambda interval=interval: Rule(interval) for interval in (10, 15, 20, 30)),
            lambda: Rule(first=SOONEST),
            *(lambda factor=factor: Stretching(factor) for factor in (1.5, 2)),
            lambda: Learned("a tenth of the last 50", 0.1, 50),
            lambda: Learned("a tenth of the last hour", 0.1, JOBS),
            lambda: Learned("the shortest of the last hour", 0.0, JOBS),
        ]
        best = Best.as_prompt_as(delay, durations)
        for make in (*rules, lambda best=best: best):
            steady = play(make(), durations, begins=lambda n: n * EVERY)
            batches = play(make(), durations, begins=lambda n: n // BATCH * HOUR)
            costs = "    ".join(f"{looks:5.2f} looks {late:6.1f} s" for looks, late in (steady, batches))
            print(f"  {make().name:<48} {costs}")


if __name__ == "__main__":
    main()
