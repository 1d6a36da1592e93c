# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The record of a submission in Airflow's task state store, where it survives a crash and a retry.

The store is Airflow 3.3's (AIP-103). XComs will not do: Airflow wipes a task's at the start of every retry.
What the record says is decided in :mod:`pictory_provider.jobs.submission`.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pictory_provider.compat import task_state_store
from pictory_provider.jobs.evidence import by_hand, by_sensor
from pictory_provider.jobs.submission import KEY, Submission

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

JOB_ID_KEY = "jobId"
"""The key of the XCom that a jobId lies under as soon as it is on record."""


class SubmissionRecord:
    """The record of one task instance: one purchase, as far as it got.

    :param durable: whether to keep one. Without it, and on an Airflow without a store, nothing is kept and
        nothing is ever found.
    :ivar retries: of the task.
    """

    def __init__(self, context: Context, *, durable: bool, retries: int | None = None) -> None:
        self._store: Any = task_state_store(context) if durable else None
        self._ti: Any = context["ti"]
        self.retries = retries
        self.latest = Submission()
        self._there: Any = None
        self._replaced: Any = None
        self._kept: str | None = None

    @property
    def is_possible(self) -> bool:
        """Whether there is a store to keep it in."""
        return self._store is not None

    @property
    def max_tries(self) -> int:
        """Airflow's ``ti.max_tries``: a retry leaves it alone, and a user's clear moves it."""
        return 0 if self._store is None else int(self._ti.max_tries)

    @property
    def is_mapped(self) -> bool:
        """Whether this is one instance of a mapped task."""
        return self._store is not None and self._ti.map_index is not None and self._ti.map_index >= 0

    def how_to_adopt(self) -> str:
        """Say how a user gets at a job that this task submitted and whose jobId was lost."""
        if self._store is None:
            return by_sensor()
        ti = self._ti
        return by_hand(
            dag_id=ti.dag_id,
            run_id=ti.run_id,
            task_id=ti.task_id,
            map_index=ti.map_index if self.is_mapped else None,
        )

    def find(self) -> Any:
        """Return what is on record, as the store gives it; ``None`` for nothing."""
        self._there = None if self._store is None else self._store.get(KEY)
        self.latest = Submission.read(self._there) or Submission()
        return self._there

    def prepare_intent(self, fingerprint: str | None, request: dict[str, Any]) -> None:
        """Say what the next intent is for. What was found is left behind."""
        self.latest = Submission(
            fingerprint=fingerprint, request=request, max_tries=self.max_tries, retries=self.retries
        )

    def note_credits(self, used: float | None) -> None:
        """Say how many credits were used right before the request."""
        self.latest = replace(self.latest, credits_before=used)

    def intend(self) -> None:
        """Put the intent on record. Where that fails, nothing may be sent."""
        self._replaced = self._there
        self.latest = replace(self.latest, intended_at=time.time())
        try:
            self._write(self.latest.plain())
        except BaseException:
            # It may have arrived all the same, and nothing is going to be sent.
            with suppress(Exception):
                self.withdraw()
            raise

    def withdraw(self) -> None:
        """Take the intent away, and put back what it replaced: the request certainly bought nothing.

        What it replaced may be an earlier intent whose outcome nobody knows.
        """
        if self._replaced is not None:
            self._write(self._replaced)
        elif self._store is not None:
            self._store.delete(KEY)
            self._there = None

    def keep(self, job_id: str, submitted_at: float | None = None) -> None:
        """Put the jobId on record.

        :param submitted_at: epoch seconds; now, where it is ``None``.
        """
        at = time.time() if submitted_at is None else submitted_at
        self.latest = replace(self.latest, job_id=job_id, submitted_at=at)
        self._write(self.latest.plain())
        self._kept = job_id

    def end(self) -> None:
        """Note that this try has ended for good, so that a clear can be told from a retry.

        It is needed only where a retry is left: else a clear always moves ``ti.max_tries``. Where it cannot be
        noted nothing is lost: a clear is then taken for a retry, and adopts.
        """
        if self._store is None:
            return
        with suppress(Exception):
            if self._ti.try_number <= self._ti.max_tries:
                found = Submission.read(self._store.get(KEY))
                if found is not None and found.max_tries == self._ti.max_tries and not found.is_by_hand:
                    self._write(replace(found, has_ended=True).plain())

    def holds(self, job_id: str) -> bool:
        """Whether a retry of this task would find this job; ``False`` where that cannot be told."""
        if self._store is None or self._kept == job_id:
            return self._store is not None
        with suppress(Exception):
            self.find()
            return self.latest.job_id == job_id
        return False

    def recall(self) -> tuple[str | None, Exception | None]:
        """Return the jobId that this try has bought: from the record, else from the XCom that it pushed.

        :return: with what kept the XCom from being read.
        """
        with suppress(Exception):
            self.find()
        if self.latest.job_id:
            return self.latest.job_id, None
        ti = self._ti
        try:
            job_id = ti.xcom_pull(task_ids=ti.task_id, key=JOB_ID_KEY, map_indexes=ti.map_index)
        except Exception as error:
            return None, error
        return (job_id if isinstance(job_id, str) else None), None

    def _write(self, value: Any) -> None:
        if self._store is not None:
            self._store.set(KEY, value)
            self._there = value
