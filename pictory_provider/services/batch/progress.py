# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Report the progress of a batch, in XComs and in a short log.

``progress`` and ``pictures_<page>`` are pushed when they change, at most every five seconds. A page has 50 rows of
the table, in its order, with an image record for each row that has its picture. Airflow keeps XComs over a
deferral and deletes them at a retry, which pushes them again. At the end, for Airflow's pages, ``failures_<page>``
says why rows have no picture, fifty to a page without gaps, and ``pictory_pages`` how many such rows there are and
how many pictures each page has. ``failed.jsonl`` has more details.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pictory_provider.api.models import Job
from pictory_provider.api.text import counted
from pictory_provider.api.timing import TIMING
from pictory_provider.core.batch.decision import RowState
from pictory_provider.core.batch.plan import PROGRESS_KEY, line, progress, should_report, without_picture
from pictory_provider.core.batch.resume import StartKind
from pictory_provider.core.budget import CostEstimate
from pictory_provider.core.picture_names import warning_of_kind
from pictory_provider.storage.download import image_record
from pictory_provider.telemetry import count

if TYPE_CHECKING:
    from pictory_provider.client.retrying import Log
    from pictory_provider.core.batch.plan import Plan
    from pictory_provider.core.batch.rows import Row
    from pictory_provider.services.batch.spec import BatchSpec
    from pictory_provider.storage.download import SavedImage
    from pictory_provider.storage.folder import Folder

PICTURES_KEY = "pictures_{page}"
FAILURES_KEY = "failures_{page}"
PAGES_KEY = "pictory_pages"
PICTURES = 50
"""Rows of the table that share an XCom of image records."""
_LONGEST = 500
_STARTS = {
    StartKind.FIRST: "A new batch",
    StartKind.RETRY: "A retry, which submits what was never sent",
    StartKind.CLEAR: "The task was cleared: what has failed or is unknown is submitted again",
    StartKind.OTHER: "The folder has a record of another run: what exists there is reused",
}
LOG_EVERY = 30.0
"""The least number of seconds between two lines of progress in the log."""


class ProgressReporter:
    """Reports the progress of a batch on this worker.

    :param ti: Airflow's task instance.
    :param is_resumed: whether this attempt has pushed the XComs of existing pictures before a deferral.
    """

    def __init__(
        self, ti: Any, plan: Plan, folder: Folder, spec: BatchSpec, log: Log, *, is_resumed: bool
    ) -> None:
        self._ti = ti
        self._plan = plan
        self._folder = folder
        self._spec = spec
        self._log = log
        self._is_resumed = is_resumed
        self._pushed: dict[str, Any] | None = None
        self._pushed_at = self._logged_at = time.monotonic()
        self._logged: dict[str, Any] | None = None
        self._urls: dict[int, dict[str, str]] = {}
        self._numbers = {row.key: number for number, row in enumerate(plan.rows)}
        self._changed: set[int] = set()
        if not is_resumed:
            self._changed = {
                number // PICTURES for number, row in enumerate(plan.rows) if plan.end_of(row).picture is not None
            }

    def log_start(self, start: StartKind, warning: str | None) -> None:
        """Log what exists and what is missing, with its price; count pictures that are reused or adopted.

        :param warning: about the record.
        """
        log, plan, counts = self._log, self._plan, self._plan.counts
        if warning:
            log.warning("%s", warning)
        if start is StartKind.RESUMED:
            return
        log.info("%s, in %s: %s.", _STARTS[start], self._folder.path, counted(plan.of, "picture"))
        price = CostEstimate(tuple(row.request for row in plan.missing)).price
        log.info(
            "%s to submit, %s; %s already; %s adopted.",
            counted(counts[RowState.TO_DO], "picture"),
            "at a price that is not listed" if price is None else f"for {price:,.10g} AI credits as listed",
            counted(counts[RowState.REUSED] + counts[RowState.SAVED], "exists", "exist"),
            counted(counts[RowState.WAITING], "job on record is", "jobs on record are"),
        )
        if of_kind := warning_of_kind([row.file_name for row in plan.missing]):
            log.warning("%s", of_kind)
        for name, state in (("pictory.reused", RowState.REUSED), ("pictory.adopted", RowState.WAITING)):
            if counts[state]:
                count(name, count=counts[state])

    def saved(self, row: Row, image: SavedImage) -> None:
        """Note that a picture is saved."""
        number = self._numbers.get(row.key)
        if number is None:
            self._log.info("Saved %s of an earlier table as %s.", row.file_name, image["path"])
            return
        page = number // PICTURES
        self._changed.add(page)
        if image["url"]:
            self._of_page(page)[str(image["job_id"])] = image["url"]

    def tick(self) -> None:
        """Push and log the progress, if it has changed and is due."""
        seconds, since_logged = (time.monotonic() - at for at in (self._pushed_at, self._logged_at))
        if self._pushed is not None and max(seconds - TIMING.progress_interval, since_logged - LOG_EVERY) < 0:
            return  # counting takes a while if there are many rows
        now = progress(self._plan)
        if should_report(self._pushed, now, seconds=seconds):
            try:
                self._push(now)
            except Exception as error:
                # This must not delay a picture. It is pushed again later, and at the end an error is raised.
                self._pushed_at = time.monotonic()
                self._log.warning("Could not push the progress of the batch to XCom: %r", error)
        if since_logged >= LOG_EVERY and now != self._logged:
            self._log.info("%s.", line(now))
            self._logged, self._logged_at = now, time.monotonic()

    def report(self) -> dict[str, Any]:
        """Push what has changed; return the progress."""
        now = progress(self._plan)
        if now != self._pushed or self._changed:
            self._push(now)
        return now

    def report_failures(self) -> None:
        """Push why rows have no picture at the end, for Airflow's pages. If this fails, the task does not."""
        try:
            failures = self._failures()
            for first in range(0, len(failures), PICTURES):
                page = FAILURES_KEY.format(page=first // PICTURES)
                self._ti.xcom_push(key=page, value=failures[first : first + PICTURES])
            if failures:
                self._ti.xcom_push(key=PAGES_KEY, value={"failures": len(failures), "pictures": self._counts()})
        except Exception as error:
            self._log.warning("Could not push to XCom why pictures are missing: %r", error)

    def _counts(self) -> list[int]:
        """Return how many pictures each page has."""
        has = [self._plan.end_of(row).state in (RowState.SAVED, RowState.REUSED) for row in self._plan.rows]
        return [sum(has[first : first + PICTURES]) for first in range(0, len(has), PICTURES)]

    def _failures(self) -> list[dict[str, Any]]:
        return [
            {
                "job_id": end.job_id,
                "status": end.state.value,
                "file_name": row.file_name,
                "prompt": row.prompt,
                "model": row.model,
                "error": end.code,
                "message": end.message and str(end.message)[:_LONGEST],
            }
            for row, end in without_picture(self._plan)
        ]

    def _push(self, now: dict[str, Any]) -> None:
        for page in sorted(self._changed):
            self._ti.xcom_push(key=PICTURES_KEY.format(page=page), value=self._records(page))
            self._changed.discard(page)
        self._ti.xcom_push(key=PROGRESS_KEY, value=now)
        self._pushed, self._pushed_at = now, time.monotonic()

    def _records(self, page: int) -> list[dict[str, Any]]:
        """Return the image records of a page."""
        urls, records = self._of_page(page), []
        for row in self._plan.rows[page * PICTURES : (page + 1) * PICTURES]:
            end = self._plan.end_of(row)
            picture = end.picture
            if picture is None or end.state not in (RowState.SAVED, RowState.REUSED):
                continue
            job = Job(job_id=picture.job_id, status="completed", url=urls.get(picture.job_id))
            path = self._folder.at(picture.file_name or row.file_name)
            record = image_record(
                job,
                path,
                picture.file,
                mark_ai_generated=self._spec.mark_ai_generated,
                copies=self._spec.save_options.copies,
            )
            reused, request = end.state is RowState.REUSED, row.request
            candidate = {} if row.candidate is None else {"candidate": row.candidate}
            records.append(
                {**record, "reused": reused, "prompt": request.prompt, "model": request.model, **candidate}
            )
        return records

    def _of_page(self, page: int) -> dict[str, str]:
        """Return the URLs of a page's pictures, including those that were pushed before a deferral."""
        if page not in self._urls:
            self._urls[page] = self._pushed_urls(page) if self._is_resumed else {}
        return self._urls[page]

    def _pushed_urls(self, page: int) -> dict[str, str]:
        ti = self._ti
        with suppress(Exception):  # the URLs are optional
            pushed = ti.xcom_pull(
                task_ids=ti.task_id, key=PICTURES_KEY.format(page=page), map_indexes=ti.map_index
            )
            return {one["job_id"]: one["url"] for one in pushed or [] if one.get("url")}
        return {}
