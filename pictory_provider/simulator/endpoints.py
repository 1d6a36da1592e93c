# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The documented endpoints: each takes a request and returns the account's reply."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pictory_provider.simulator import rules, shapes, uploads
from pictory_provider.simulator.replies import paged, refused
from pictory_provider.simulator.uploads import Uploads

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    from pictory_provider.simulator.account import Account, SimulatedJob
    from pictory_provider.simulator.background import Background
    from pictory_provider.simulator.replies import LoggedRequest

    Answer = Callable[[web.Request, LoggedRequest], shapes.Reply]


class Endpoints:
    """The API, with one method per endpoint.

    :param chosen: the shapes, by their names.
    :param origin: returns the origin of the pictures' host.
    """

    def __init__(
        self, account: Account, chosen: dict[str, str], background: Background, origin: Callable[[], str]
    ) -> None:
        self.account = account
        self.uploads = Uploads(account.settings)
        self.shapes = chosen
        self._background = background
        self._origin = origin

    def url_of(self, job: SimulatedJob) -> str:
        """Return the URL of a job's picture."""
        signature = ""
        if self.shapes["url"] == "signed":
            signature = f"?Expires={self.account.expiry(job)}&Signature=simulated"
        return f"{self._origin()}/images/user/{job.job_id}/{job.image_id}.png{signature}"

    def serves(self, job: SimulatedJob, expires: str | None) -> bool:
        """Whether the URL of a job's picture still works.

        :param expires: the parameter ``Expires`` of the URL.
        """
        now, life = self.account.clock(), self.account.settings["url_seconds"]
        if job.status(now) != "completed":
            return False
        return not life or now < (float(expires) if expires else job.created + job.seconds + life)

    def submit(self, request: web.Request, entry: LoggedRequest) -> shapes.Reply:
        """Answer the submission of an image request."""
        if request.content_type != "application/json":
            return refused(400, "Content-Type must be application/json")
        body = entry.body
        if not isinstance(body, dict):
            return shapes.invalid({"body": "must be a JSON object"}, self.shapes["invalid"])
        entry.ignored = tuple(sorted(set(body) - set(rules.FIELDS)))
        found = rules.problems(body)
        if found:
            return shapes.invalid(found, self.shapes["invalid"])
        shape = self.shapes["insufficient"]
        if shape != "failed-job" and not self.account.can_pay(body):
            return shapes.insufficient(shape)
        job = self.account.accept(body)
        if "referenceImageUrl" in job.body:
            job.waits_for_reference = True
            self._background.start(self._background.fetch_reference(job))
        if "webhook" in job.body:
            self._background.start(self._background.call_webhook(job, lambda: self._state_of(job)[1]))
        return shapes.accepted(job)

    def upload_url(self, request: web.Request, entry: LoggedRequest) -> shapes.Reply:
        """Answer with a signed URL for an upload."""
        body = entry.body
        if request.content_type != "application/json" or not isinstance(body, dict):
            return refused(400, "the body must be a JSON object")
        entry.ignored = tuple(sorted(set(body) - set(uploads.FIELDS)))
        if found := uploads.problems(body):
            return shapes.invalid(found, self.shapes["invalid"])
        data = self.uploads.prepare(body, self._origin(), self.account.clock())
        return 200, {"success": True, "data": data}

    def job(self, request: web.Request, _: LoggedRequest) -> shapes.Reply:
        """Answer with the state of a job."""
        job = self.account.find(request.match_info["job_id"])
        return shapes.missing(self.shapes["missing"]) if job is None else self._state_of(job)

    def clean(self, request: web.Request, _: LoggedRequest) -> shapes.Reply:
        """Delete the output of a finished job."""
        job = self.account.find(request.match_info["job_id"])
        if job is None:
            return shapes.missing(self.shapes["missing"])
        if job.status(self.account.clock()) == "in-progress":
            return refused(400, "only a completed or failed job can be cleaned")
        job.is_cleaned = True
        return 200, {"success": True}

    def images(self, request: web.Request, _: LoggedRequest) -> shapes.Reply:
        """Answer with a page of the gallery."""
        items = [shapes.image(job, self.url_of(job), self.shapes["image-job"]) for job in self.account.gallery()]
        return paged(items, request, always=False)

    def jobs(self, request: web.Request, _: LoggedRequest) -> shapes.Reply:
        """Answer with a page of the list of jobs."""
        now = self.account.clock()
        listed = self.account.jobs.values() if self.shapes["listed"] == "yes" else ()
        found = sorted(listed, key=lambda job: job.created, reverse=True)
        return paged([shapes.listed_job(job, now) for job in found], request, always=True)

    def quota(self, *_: object) -> shapes.Reply:
        """Answer with the quota."""
        return shapes.quota(self.account)

    def usage(self, request: web.Request, _: LoggedRequest) -> shapes.Reply:
        """Answer with the ledger."""
        try:
            year, month = (int(v) if (v := request.query.get(n)) else None for n in ("year", "month"))
        except ValueError:
            return refused(400, "year and month must be numbers")
        if (year is not None and month is None) or (month is not None and not 1 <= month <= 12):
            return 400, {"code": "INVALID_REQUEST", "message": "month must be given, from 1 to 12"}
        return 200, self.account.ledger.rows(self.account.clock(), year, month)

    def _state_of(self, job: SimulatedJob) -> shapes.Reply:
        return shapes.job(job, self.account.clock(), self.url_of(job), self.shapes["failed"])
