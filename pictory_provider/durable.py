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


class SubmissionRecord:
    """The record of one task instance: one purchase, as far as it got.

    :param durable: whether to keep one. Without it, and on an Airflow without a store, nothing is kept and
        nothing is ever found.
    """

    def __init__(self, context: Context, *, durable: bool) -> None:
        self._store: Any = task_state_store(context) if durable else None
        self._ti: Any = context["ti"]
        self.latest = Submission()
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
        value = None if self._store is None else self._store.get(KEY)
        self.latest = Submission.read(value) or Submission()
        return value

    def draft(self, fingerprint: str, credits_before: float | None = None) -> None:
        """Say what the next intent is for."""
        self.latest = Submission(fingerprint=fingerprint, max_tries=self.max_tries, credits_before=credits_before)

    def intend(self) -> None:
        """Put the intent on record. Where that fails, nothing may be sent."""
        self.latest = replace(self.latest, intended_at=time.time())
        try:
            self._write()
        except BaseException:
            # It may have arrived all the same, and nothing is going to be sent.
            with suppress(Exception):
                self.withdraw()
            raise

    def withdraw(self) -> None:
        """Take the intent away: the request certainly bought nothing."""
        if self._store is not None:
            self._store.delete(KEY)

    def keep(self, job_id: str, submitted_at: float | None = None) -> None:
        """Put the jobId on record.

        :param submitted_at: epoch seconds; now, where it is ``None``.
        """
        at = time.time() if submitted_at is None else submitted_at
        self.latest = replace(self.latest, job_id=job_id, submitted_at=at)
        self._write()
        self._kept = job_id

    def holds(self, job_id: str) -> bool:
        """Whether a retry of this task would find this job; ``False`` where that cannot be told."""
        if self._store is None or self._kept == job_id:
            return self._store is not None
        with suppress(Exception):
            self.find()
            return self.latest.job_id == job_id
        return False

    def _write(self) -> None:
        if self._store is not None:
            self._store.set(KEY, self.latest.plain())
