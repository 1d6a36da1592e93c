# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Say how far a batch is: in XComs, and in the log, which stays a page.

``progress`` and ``pictures_<page>`` are pushed on change, and at most every five seconds. A page is of 50 rows of
the table, in its order, with a record for each that has its picture. Airflow keeps XComs over a deferral, and
clears them at a retry, which pushes them anew. At the end ``failures_<page>`` says of each row that has no picture
why, for Airflow's pages; ``failed.jsonl`` says more.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pictory_provider.api.timing import TIMING
from pictory_provider.batch.decision import Place
from pictory_provider.batch.progress import is_worth_telling, line, progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pictory_provider.batch.plan import Plan
    from pictory_provider.batch.rows import Row
    from pictory_provider.batching.folder import Folder
    from pictory_provider.client.asking import Log
    from pictory_provider.images.download import SavedImage

PROGRESS_KEY = "progress"
PICTURES_KEY = "pictures_{page}"
FAILURES_KEY = "failures_{page}"
PICTURES = 50
"""Rows of the table that share an XCom of image records."""
_LONGEST = 500
LOG_EVERY = 30.0
"""Seconds between two lines of progress in the log, at least."""


class Teller:
    """What a leg of a batch has to tell.

    :param ti: Airflow's task instance.
    :param is_leg: whether earlier legs of this try have pushed what lies there already.
    """

    def __init__(self, ti: Any, plan: Plan, folder: Folder, log: Log, *, is_leg: bool) -> None:
        self._ti = ti
        self._plan = plan
        self._folder = folder
        self._log = log
        self._is_leg = is_leg
        self._told: dict[str, Any] | None = None
        self._told_at = self._logged_at = time.monotonic()
        self._logged: dict[str, Any] | None = None
        self._urls: dict[int, dict[str, str]] = {}
        self._numbers = {row.key: number for number, row in enumerate(plan.rows)}
        self._changed: set[int] = set()
        if not is_leg:
            self._changed = {
                number // PICTURES for number, row in enumerate(plan.rows) if plan.end_of(row).picture is not None
            }

    def saved(self, row: Row, image: SavedImage) -> None:
        """Note that a picture is in its place."""
        number = self._numbers.get(row.key)
        if number is None:
            self._log.info("%s of an earlier table is saved, as %s.", row.file_name, image["path"])
            return
        page = number // PICTURES
        self._changed.add(page)
        if image["url"]:
            self._of_page(page)[str(image["job_id"])] = image["url"]

    def tick(self) -> None:
        """Tell what has changed, where it is time."""
        seconds, since_logged = (time.monotonic() - at for at in (self._told_at, self._logged_at))
        if self._told is not None and max(seconds - TIMING.progress_interval, since_logged - LOG_EVERY) < 0:
            return  # counting takes a while where there are many
        now = progress(self._plan)
        if is_worth_telling(self._told, now, seconds=seconds):
            try:
                self._push(now)
            except Exception as error:
                # No picture waits for that. It is told again in a while, and at the end it has to be.
                self._told_at = time.monotonic()
                self._log.warning("How far the batch is could not be told to Airflow: %r", error)
        if since_logged >= LOG_EVERY and now != self._logged:
            self._log.info("%s.", line(now))
            self._logged, self._logged_at = now, time.monotonic()

    def all(self) -> dict[str, Any]:
        """Tell whatever has changed; return the progress."""
        now = progress(self._plan)
        if now != self._told or self._changed:
            self._push(now)
        return now

    def lost(self) -> None:
        """Tell of each row that has no picture in the end why. It is a comfort, and fails nothing."""
        try:
            for first in range(0, len(self._plan.rows), PICTURES):
                if failures := self._failures(self._plan.rows[first : first + PICTURES]):
                    self._ti.xcom_push(key=FAILURES_KEY.format(page=first // PICTURES), value=failures)
        except Exception as error:
            self._log.warning("Why pictures are missing could not be told to Airflow's pages: %r", error)

    def _failures(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        ends = ((row, self._plan.end_of(row)) for row in rows)
        return [
            {
                "job_id": end.job_id,
                "status": end.place.value,
                "file_name": row.file_name,
                "prompt": row.request.prompt,
                "model": row.request.model,
                "error": end.code,
                "message": end.message and str(end.message)[:_LONGEST],
            }
            for row, end in ends
            if end.place not in (Place.SAVED, Place.REUSED)
        ]

    def _push(self, now: dict[str, Any]) -> None:
        for page in sorted(self._changed):
            self._ti.xcom_push(key=PICTURES_KEY.format(page=page), value=self._records(page))
            self._changed.discard(page)
        self._ti.xcom_push(key=PROGRESS_KEY, value=now)
        self._told, self._told_at = now, time.monotonic()

    def _records(self, page: int) -> list[dict[str, Any]]:
        """Return the image records of a page."""
        urls, records = self._of_page(page), []
        for row in self._plan.rows[page * PICTURES : (page + 1) * PICTURES]:
            end = self._plan.end_of(row)
            picture = end.picture
            if picture is None or end.place not in (Place.SAVED, Place.REUSED):
                continue
            records.append(
                {
                    "job_id": picture.job_id,
                    "status": "completed",
                    "url": urls.get(picture.job_id),
                    "width": picture.width,
                    "height": picture.height,
                    "ai_credits_used": picture.ai_credits_used,
                    "path": self._folder.at(picture.file_name or row.file_name),
                    "size": picture.size,
                    "sha256": picture.sha256,
                    "reused": end.place is Place.REUSED,
                    "prompt": row.request.prompt,
                    "model": row.request.model,
                }
            )
        return records

    def _of_page(self, page: int) -> dict[str, str]:
        """Return the URLs of a page's pictures, those that an earlier leg has told among them."""
        if page not in self._urls:
            self._urls[page] = self._told_before(page) if self._is_leg else {}
        return self._urls[page]

    def _told_before(self, page: int) -> dict[str, str]:
        ti = self._ti
        with suppress(Exception):  # a URL is a comfort, and the record is whole without it
            told = ti.xcom_pull(task_ids=ti.task_id, key=PICTURES_KEY.format(page=page), map_indexes=ti.map_index)
            return {one["job_id"]: one["url"] for one in told or [] if one.get("url")}
        return {}
