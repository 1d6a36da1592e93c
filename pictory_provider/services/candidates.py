# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Reuse, adopt or submit the candidates of one task: several pictures of one request, to choose from.

Each is a :class:`~pictory_provider.services.generate.Generation` of its own, with its own record. All are checked,
and their price is compared with the limits, before the first one is bought. The first error stops submissions.
Then the task waits for what is paid for, saves it, and fails with the error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pictory_provider.api.errors import (
    NOTHING_SPENT,
    BudgetExceeded,
    JobNotFound,
    PictoryError,
    RequestInvalid,
    SubmitOutcomeUnknown,
    Unavailable,
)
from pictory_provider.api.models import JobState
from pictory_provider.api.text import counted, listed
from pictory_provider.client.retrying import get_job
from pictory_provider.core.batch import breaker
from pictory_provider.core.budget import CostEstimate, format_credits
from pictory_provider.core.picture_names import SIDECAR_SUFFIX, candidate_name
from pictory_provider.core.sidecar import BOUGHT
from pictory_provider.core.submission import Submit
from pictory_provider.exceptions import is_final
from pictory_provider.services.generate import budget_of
from pictory_provider.services.submit import check_submission

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

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
    :ivar copy_errors: why copies of saved pictures could not be made.
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
        self.copy_errors: dict[int, PictoryError] = {}
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
        self._check(client, decided, budget, may_resubmit=on_unknown_submit == "resubmit")
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
                self._check_own(number)
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
                self._keep(number, state["image"])
                if "copy_error" in state:
                    self.copy_errors[number] = breaker.from_dict(state["copy_error"])
            elif "error" in state:
                self.errors[number] = breaker.from_dict(state["error"])
            elif "bought" in state:
                generation.job_id = str(state["bought"]["jobId"])
                generation.restore_record(generation.job_id, state["bought"])
                self.pending[number] = generation.record.latest

    def _keep(self, number: int, image: dict[str, Any]) -> None:
        """Keep the image record of a picture that was saved before a deferral, if it is still there."""
        generation = self.generations[number]
        generation.job_id = image["job_id"]
        try:
            if not generation.is_saved(image["job_id"]):
                raise Unavailable(
                    f"The picture {image['path']} was moved or replaced while the task waited. Nothing more was "
                    "bought. A retry decides again what to do at its path."
                )
            self.images[number] = image
        except PictoryError as error:
            self.errors[number] = error

    def _find(self, client: SyncClient, number: int) -> None:
        generation = self.generations[number]
        try:
            if generation.find_on_record(client):
                self._reuse(client, number)
            elif generation.job_id:
                self.pending[number] = generation.record.latest
            else:
                raise Unavailable("It was not submitted before the deferral. A retry submits it.")
        except PictoryError as error:
            self.errors[number] = error

    def _check_own(self, number: int) -> None:
        """Check that no other candidate has the same job, which a user may have recorded for both.

        :raises RequestInvalid: names the other one.
        """
        job_id = self.generations[number].job_id
        for other, generation in self.generations.items():
            if other != number and job_id is not None and generation.job_id == job_id:
                raise RequestInvalid(
                    f"Job {job_id} is on record for candidate {other}, too, and has one picture. Correct the "
                    "sidecar, or adopt another job, and clear the task. Nothing was bought for this candidate."
                )

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
            self._note_copies(number)
        except PictoryError as error:
            self.errors[number] = error
            return None
        return result

    def to_dict(self) -> dict[str, Any]:
        """Return what :meth:`restore` needs, as JSON."""
        return {
            **{str(number): {} for number in self.generations},
            **{str(number): {"image": image, **self._copy_error(number)} for number, image in self.images.items()},
            **{str(number): {"bought": latest.to_dict()} for number, latest in self.pending.items()},
            **{str(number): {"error": breaker.to_dict(error)} for number, error in self.errors.items()},
        }

    def error(self) -> PictoryError | None:
        """Return the error that the task fails with; ``None`` if every candidate has its picture and its copies.

        It is one that Airflow retries, if a retry may save a picture, submit what is missing or make a copy.
        """
        if not self.errors:
            return self._error_of_copies()
        number = min(self.errors, key=lambda each: (_rank(self.errors[each]), each))
        error, of = self.errors[number], len(self.generations)
        missing = of - len(self.images)
        if isinstance(error, BudgetExceeded) and missing == of:
            return error
        have = "has" if missing == 1 else "have"
        more = [f"{missing} of {of} candidates {have} no picture of this request"]
        more += [
            f"candidate {other}: {each.message.partition('. ')[0].rstrip('.')}"
            for other, each in sorted(self.errors.items())
            if other != number
        ]
        if not_submitted := missing - len(self.errors):
            more.append(f"{counted(not_submitted, 'was', 'were')} not submitted because of that")
        text = f"Candidate {number} of {of}: {error.message} {'; '.join(more)}."
        if isinstance(error, SubmitOutcomeUnknown):
            text += " The gallery shows the pictures of the other candidates as well: they have the same request."
        if self.images:
            saved = listed([image["path"] for _, image in sorted(self.images.items())], of)
            text += f" Saved: {saved}."
            if not self._overwrite:
                text += " A retry or a clear of the task with the same request keeps these."
        return error.with_message(text)

    def _error_of_copies(self) -> PictoryError | None:
        """Return the error of copies that could not be made; ``None`` if all exist."""
        errors = sorted(self.copy_errors.items(), key=lambda each: (_rank(each[1]), each[0]))
        if not errors:
            return None
        text = " ".join(
            f"Candidate {number} of {len(self.generations)}: {each.message}" for number, each in errors
        )
        return errors[0][1].with_message(text)

    def _copy_error(self, number: int) -> dict[str, Any]:
        error = self.copy_errors.get(number)
        return {} if error is None else {"copy_error": breaker.to_dict(error)}

    def _note_copies(self, number: int) -> None:
        if error := self.generations[number].copy_error:
            self.copy_errors[number] = error

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
        self.images[number] = generation.reuse(
            client, overwrite=self._overwrite, mark_ai_generated=self._mark_ai_generated
        )
        self._note_copies(number)

    def _check(
        self, client: SyncClient, decided: Mapping[int, Decided], budget: Budget, *, may_resubmit: bool
    ) -> None:
        """Note what prevents submissions, before the first one is made.

        :param may_resubmit: whether those of unknown outcome are to be submitted, too.
        """
        to_submit = []
        for number, (step, spec, *_) in decided.items():
            try:
                if isinstance(step, Submit):
                    self.generations[number].check_place(spec, step)
                    to_submit.append(number)
                elif isinstance(step, SubmitOutcomeUnknown):
                    to_submit += [number] if may_resubmit else []
                elif isinstance(step, PictoryError):
                    raise step
            except PictoryError as error:
                self.errors[number] = error
        if self.errors or not to_submit:
            return
        _, _, get_request, uploads = decided[to_submit[0]]
        number = len(to_submit)
        try:
            request = get_request()
            price = format_credits(CostEstimate((request,) * number).price)
            self._log.info("%s to submit, %s AI credits as listed.", counted(number, "candidate"), price)
            if exceeded := check_submission(client, request, budget, uploads, number=number, log=self._log):
                raise exceeded.with_message(f"{exceeded.message} None of these was bought.")
        except PictoryError as error:
            self.errors[to_submit[0]] = error


def check_left_over(others: Iterable[Generation], client: SyncClient) -> None:
    """Raise if this task has paid for pictures that this attempt would not save, since ``candidates`` has changed.

    :param others: pictures that the attempt does not have; the first one without a sidecar of this task ends them.
    :raises RequestInvalid: names the job, which Pictory may still have the picture of.
    :raises PictoryError: if that cannot be found out.
    """
    for other in others:
        sidecar = other.record.existing_image().sidecar
        if sidecar is None or sidecar.made_by != other.record.made_by:
            return
        job_id = sidecar.submission.job_id
        if sidecar.state != BOUGHT or job_id is None or _has_failed(client, job_id):
            continue
        path = sidecar.file
        raise RequestInvalid(
            f"Job {job_id} for {path} is paid for, and its picture is not saved yet. It was submitted by an "
            f"attempt with another number of candidates. {NOTHING_SPENT} Set `candidates` back and clear the "
            f"task: that saves the picture, for free. To give it up, delete {path}{SIDECAR_SUFFIX} and clear the "
            "task.",
            fields=["candidates"],
        )


def _has_failed(client: SyncClient, job_id: str) -> bool:
    """Whether a job certainly has no picture. One that Pictory does not know may have one in another account."""
    try:
        return get_job(client, job_id).state in (JobState.FAILED, JobState.CLEANED)
    except JobNotFound:
        return False


def _rank(error: PictoryError) -> int:
    """Return what orders errors: an unknown outcome first, then those that a retry may end."""
    if isinstance(error, SubmitOutcomeUnknown):
        return 0
    return 2 if is_final(error) else 1
