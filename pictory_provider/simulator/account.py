# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A simulated Pictory account: jobs, credits, gallery. No I/O; the clock is an argument."""

from __future__ import annotations

import base64
import json
import re
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pictory_provider.simulator import settings
from pictory_provider.simulator.ledger import Ledger
from pictory_provider.simulator.rules import DEFAULTS, FIELDS, PRICES

if TYPE_CHECKING:
    from collections.abc import Callable

FATES = {
    "completed": "completes with a picture",
    "failed": "ends with an error code and a message",
    "stuck": "stays in-progress forever",
    "cleaned": "ends as cleaned, without a picture",
    "no-url": "ends as completed, without a URL",
    "unknown-status": "has a status that the documentation does not name",
}
SIZES = {"1:1": (1024, 1024), "16:9": (1280, 720), "9:16": (720, 1280)}
PAGE_SIZE = 100
PLAN_OPTIONS = ("seconds", "missing_seconds", "error_code", "error_message")
INSUFFICIENT = {"error_code": "INSUFFICIENT_CREDITS", "error_message": "Not enough AI credits"}
_DIRECTIVE = re.compile(r"\bsimulate:([a-z-]+)(?:=([0-9.]+))?")


@dataclass
class SimulatedJob:
    """One submitted job.

    :param body: the documented fields of its request.
    :param fate: one of :data:`FATES`.
    :param seconds: how long it runs.
    :param missing_seconds: how long after its submission the API reports it as unknown.
    :param take: its number among the jobs of the same request, each of which has another picture.
    """

    job_id: str
    image_id: str
    body: dict[str, Any]
    created: float
    seconds: float
    credits: float
    take: int = 1
    fate: str = "completed"
    missing_seconds: float = 0.0
    error_code: str = "IMAGE_GENERATION_FAILED"
    error_message: str = "The image could not be generated."
    is_cleaned: bool = False
    reference: bytes | None = field(default=None, repr=False)
    waits_for_reference: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return SIZES[self.body["aspectRatio"]]

    def status(self, now: float) -> str:
        """Return the status at a time, in epoch seconds."""
        if self.is_cleaned:
            return "cleaned"
        if self.fate == "stuck" or not self.has_ended(now):
            return "in-progress"
        return {"no-url": "completed", "unknown-status": "hibernating"}.get(self.fate, self.fate)

    def has_ended(self, now: float) -> bool:
        """Whether the job's time is over and its reference image, if any, was fetched."""
        return now >= self.created + self.seconds and not self.waits_for_reference

    def is_missing(self, now: float) -> bool:
        """Whether the API still reports the job as unknown."""
        return now < self.created + self.missing_seconds


class Account:
    """The account of one API key.

    :param seconds: how long a job runs.
    :param credits_limit: AI credits of the subscription.
    """

    def __init__(
        self, *, seconds: float = 5.0, credits_limit: float = 22_000, clock: Callable[[], float] = time.time
    ) -> None:
        self.seconds = seconds
        self.credits_limit = credits_limit
        self.clock = clock
        self.jobs: dict[str, SimulatedJob] = {}
        self.settings = settings.fresh()
        self.ledger = Ledger(self.settings)
        self.planned: list[dict[str, Any]] = []
        self._takes: Counter[str] = Counter()

    @property
    def credits_used(self) -> float:
        """AI credits used, by others too, by all rows of the ledger, without any lag."""
        self.ledger.catch_up(self.clock())
        return self.ledger.used()

    @property
    def credits_by_others(self) -> float:
        """AI credits that other users of the account have spent (``others_every``)."""
        self.ledger.catch_up(self.clock())
        return self.ledger.by_others

    @property
    def credits_billed(self) -> float:
        """The price of all jobs, without other rows of the ledger."""
        return round(sum(job.credits for job in self.jobs.values()), 2)

    def reset(self) -> None:
        """Forget every job, every charge and every setting."""
        self.jobs.clear()
        self._takes.clear()
        self.ledger.clear()
        self.planned.clear()
        self.settings.update(settings.fresh())

    def plan(self, fate: str = "completed", **options: Any) -> None:
        """Set the outcome of the next submitted job that has no plan yet.

        :param fate: one of :data:`FATES`.
        :param options: of :data:`PLAN_OPTIONS`.
        """
        if fate not in FATES:
            raise ValueError(f"no such fate: {fate!r}; one of {', '.join(FATES)}")
        if unknown := set(options) - set(PLAN_OPTIONS):
            raise ValueError(f"no such option: {', '.join(sorted(unknown))}; there are {', '.join(PLAN_OPTIONS)}")
        self.planned.append({"fate": fate, **options})

    def price(self, body: dict[str, Any]) -> float:
        """Return the price of a request in AI credits."""
        return PRICES[body.get("model", DEFAULTS["model"])]

    def can_pay(self, body: dict[str, Any]) -> bool:
        """Whether enough credits are left for a request."""
        return self.credits_used + self.price(body) <= self.credits_limit

    def accept(self, body: dict[str, Any]) -> SimulatedJob:
        """Create a job for a valid request and bill its price; without enough credits the job fails.

        If nothing is planned, words in the prompt decide its fate: ``simulate:failed``, ``simulate:stuck``,
        ``simulate:seconds=30`` and so on.
        """
        known = {**DEFAULTS, **{name: body[name] for name in FIELDS if name in body}}
        options: dict[str, Any] = {"seconds": self.seconds}
        for word, value in _DIRECTIVE.findall(known["prompt"]):
            if word in FATES:
                options["fate"] = word
            elif word == "seconds" and value:
                options["seconds"] = float(value)
        options |= self.planned.pop(0) if self.planned else {}
        is_paid = self.can_pay(known)
        if not is_paid:
            options |= {"fate": "failed", **INSUFFICIENT}
        request = json.dumps(known, sort_keys=True)
        self._takes[request] += 1
        job = SimulatedJob(
            job_id=str(uuid.uuid4()),
            image_id=str(uuid.uuid4()),
            body=known,
            created=self.clock(),
            credits=self.price(known) if is_paid else 0.0,
            take=self._takes[request],
            **options,
        )
        self.jobs[job.job_id] = job
        if is_paid:
            self.ledger.bill(job)
        return job

    def find(self, job_id: str) -> SimulatedJob | None:
        """Return a job, or ``None`` if the API reports it as unknown."""
        job = self.jobs.get(job_id)
        return None if job is None or job.is_missing(self.clock()) else job

    def expiry(self, job: SimulatedJob) -> int:
        """Return when a signed URL of a picture expires, in epoch seconds; the same until that time is over."""
        life = self.settings["url_seconds"] or 3600.0
        end = job.created + job.seconds
        return int(end + life * (1 + max(0, (self.clock() - end) // life)))

    def gallery(self) -> list[SimulatedJob]:
        """Return the jobs that have a picture, newest first."""
        now = self.clock()
        pictured = [job for job in self.jobs.values() if job.fate == "completed" and job.has_ended(now)]
        return sorted(pictured, key=lambda job: job.created, reverse=True)


def page(items: list[Any], key: str | None) -> tuple[list[Any], str | None]:
    """Return one page of a list and the key of the next.

    :raises ValueError: for a key that this function did not return.
    """
    start = 0
    if key is not None:
        start = int(base64.urlsafe_b64decode(key.encode()).decode().removeprefix("from:"))
    end = start + PAGE_SIZE
    following = base64.urlsafe_b64encode(f"from:{end}".encode()).decode() if end < len(items) else None
    return items[start:end], following
