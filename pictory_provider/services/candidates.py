# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Reuse, adopt or submit the candidates of one task: several pictures of one request, to choose from.

Each is a :class:`~pictory_provider.services.generate.Generation` of its own, with its own record. All are checked,
and their price is compared with the limits, before the first one is bought. The first error stops submissions.
Then the task waits for what is paid for, saves it, and fails with the error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pictory_provider.api.errors import PictoryError, SubmitOutcomeUnknown, Unavailable
from pictory_provider.api.text import counted, listed
from pictory_provider.core.batch import breaker
from pictory_provider.core.picture_names import candidate_name
from pictory_provider.core.submission import Submit
from pictory_provider.exceptions import is_final
from pictory_provider.services.generate import budget_of
from pictory_provider.services.submit import check_submission

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pictory_provider.api.models import Job
    from pictory_provider.client.retrying import Log
    from pictory_provider.client.sync import SyncClient
    from pictory_provider.core.budget import Budget
    from pictory_provider.core.submission import Adopt, Submission
    from pictory_provider.services.generate import Decided, Generation, LazyRequest


class Candidates:
    """The candidates of a running task.

    :param make: returns the generation of a candidate, from its number and its path.
    :param path: of the picture, without a number, as this attempt rendered it.
    :param number: how many there are.
    :param mark_ai_generated: mark their files.
    :param overwrite: replace existing pictures.
    :ivar generations: by number, from 1.
    :ivar pending: the jobs that are not known to have ended.
    :ivar images: the image records of the pictures that exist.
    :ivar errors: why others have no picture.
    """

    def __init__(
        self,
        make: Callable[[int, str], Generation],
        *,
        path: str,
        number: int,
        overwrite: bool,
        mark_ai_generated: bool,
        log: Log,
    ) -> None:
        self.path = path
        self.generations = {each: make(each, candidate_name(path, each)) for each in range(1, number + 1)}
        self.pending: dict[int, Submission] = {}
        self.images: dict[int, dict[str, Any]] = {}
        self.errors: dict[int, PictoryError] = {}
        self._overwrite = overwrite
        self._mark_ai_generated = mark_ai_generated
        self._log = log

    @property
    def job_ids(self) -> list[str | None]:
        """The jobId of each; ``None`` if it has none."""
        return [each.job_id for each in self.generations.values()]

    @property
    def latest(self) -> Submission | None:
        """The record of the first one that has a jobId."""
        latest = (each.record.latest for each in self.generations.values())
        return next((each for each in latest if each.job_id), None)

    @property
    def reference(self) -> str | None:
        """The reference image of the request."""
        return ((self.latest and self.latest.request) or {}).get("referenceImageUrl")

    def obtain(
        self,
        client: SyncClient,
        lazy_request: LazyRequest,
        *,
        overwrite: bool,
        replaces_changed: bool,
        on_unknown_submit: str,
        max_credits: float | None,
        ends_at: float | None,
    ) -> dict[int, Adopt]:
        """Find or submit the job of each candidate whose picture does not exist.

        :return: the jobs, which are now :attr:`pending`.
        """
        request = lazy_request.once()
        decided = {
            number: each.decide(client, request, overwrite=overwrite, replaces_changed=replaces_changed)
            for number, each in self.generations.items()
        }
        budget = budget_of(self.generations.values(), client, max_credits)
        self._check(client, decided, budget)
        jobs = {}
        for number in sorted(decided, key=lambda each: isinstance(decided[each].step, Submit)):
            if self.errors and (number in self.errors or isinstance(decided[number].step, Submit)):
                continue
            may_submit = on_unknown_submit if not self.errors else "fail"
            generation = self.generations[number]
            try:
                job = generation.carry_out(
                    client, decided[number], budget, on_unknown_submit=may_submit, ends_at=ends_at
                )
                if job is None:
                    self._reuse(client, number)
                else:
                    jobs[number], self.pending[number] = job, generation.record.latest
            except PictoryError as error:
                self.errors[number] = error
        return jobs

    def restore(self, client: SyncClient, carried: Mapping[str, Any] | None) -> None:
        """Continue after a deferral.

        :param carried: of :meth:`to_dict`; ``None`` if Airflow did not pass it on, as in ``dag.test()``.
        """
        for number, generation in self.generations.items():
            state = {} if carried is None else carried.get(str(number), {})
            if carried is None:
                self._find(client, number)
            elif "image" in state:
                self.images[number] = state["image"]
                generation.job_id = state["image"]["job_id"]
            elif "error" in state:
                self.errors[number] = breaker.from_dict(state["error"])
            elif "bought" in state:
                generation.job_id = str(state["bought"]["jobId"])
                generation.restore_record(generation.job_id, state["bought"])
                self.pending[number] = generation.record.latest

    def _find(self, client: SyncClient, number: int) -> None:
        generation = self.generations[number]
        if generation.find_on_record():
            self._reuse(client, number)
        elif generation.job_id:
            self.pending[number] = generation.record.latest
        else:
            self.errors[number] = Unavailable("It was not submitted before the deferral. A retry submits it.")

    def ended(self, client: SyncClient, number: int, result: Job | PictoryError) -> Job | None:
        """Save the picture of a job that has ended, or note why there is none.

        :return: the job, if its picture is saved.
        """
        del self.pending[number]
        try:
            if isinstance(result, PictoryError):
                raise result
            image = self.generations[number].save(
                client, result, overwrite=self._overwrite, mark_ai_generated=self._mark_ai_generated
            )
            self.images[number] = {**image, "reused": False}
        except PictoryError as error:
            self.errors[number] = error
            return None
        return result

    def to_dict(self) -> dict[str, Any]:
        """Return what :meth:`restore` needs, as JSON."""
        return {
            **{str(number): {"image": image} for number, image in self.images.items()},
            **{str(number): {"bought": latest.to_dict()} for number, latest in self.pending.items()},
            **{str(number): {"error": breaker.to_dict(error)} for number, error in self.errors.items()},
        }

    def error(self) -> PictoryError | None:
        """Return the error that the task fails with; ``None`` if every candidate has its picture.

        It is one that Airflow retries, if a retry may save a picture or submit what is missing.
        """
        if not self.errors:
            return None
        number = min(self.errors, key=lambda each: (_rank(self.errors[each]), each))
        error, missing = self.errors[number], len(self.generations) - len(self.images)
        others = [
            f"candidate {other}: {each.message.partition('. ')[0]}"
            for other, each in sorted(self.errors.items())
            if other != number
        ]
        not_bought = missing - len(self.errors)
        more = f" Also: {'; '.join(others)}." if others else ""
        if not_bought:
            more += f" {counted(not_bought, 'more was', 'more were')} not submitted because of that."
        of = f"{missing} of {len(self.generations)} candidates {'has' if missing == 1 else 'have'} no picture"
        kept = f" The others are saved as {listed([each['path'] for each in self.images.values()], 8)}."
        return error.with_message(f"{of}. Candidate {number}: {error.message}{more}{kept if self.images else ''}")

    def records(self) -> list[dict[str, Any]]:
        """Return the image records, in the order of the candidates."""
        records = []
        shared = self.latest.request if self.latest else None
        for number, image in sorted(self.images.items()):
            request = self.generations[number].record.latest.request or shared or {}
            asked = {name: request.get(name) for name in ("prompt", "model")}
            records.append({**asked, **image, "candidate": number})
        return records

    def _reuse(self, client: SyncClient, number: int) -> None:
        generation = self.generations[number]
        self.images[number] = generation.reuse(client, mark_ai_generated=self._mark_ai_generated)

    def _check(self, client: SyncClient, decided: Mapping[int, Decided], budget: Budget) -> None:
        """Note what prevents submissions, before the first one is made."""
        to_submit = []
        for number, (step, spec, *_) in decided.items():
            try:
                if isinstance(step, Submit):
                    self.generations[number].check_place(spec, step)
                    to_submit.append(number)
                elif isinstance(step, PictoryError) and not isinstance(step, SubmitOutcomeUnknown):
                    raise step
            except PictoryError as error:
                self.errors[number] = error
        if self.errors or not to_submit:
            return
        _, _, get_request, uploads = decided[to_submit[0]]
        request, number = get_request(), len(to_submit)
        try:
            if exceeded := check_submission(client, request, budget, uploads, number=number, log=self._log):
                raise exceeded
        except PictoryError as error:
            self.errors[to_submit[0]] = error


def _rank(error: PictoryError) -> int:
    """Return what orders errors: an unknown outcome first, then those that a retry may end."""
    if isinstance(error, SubmitOutcomeUnknown):
        return 0
    return 2 if is_final(error) else 1
