# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Run the task of a ``GenerateImageOperator``, with one picture or with candidates."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pictory_provider.api.checks import MOST_CANDIDATES, check_seconds
from pictory_provider.api.errors import PictoryError, RequestInvalid, StorageFailed
from pictory_provider.api.models import first_poll_of
from pictory_provider.core import events
from pictory_provider.core.picture_names import candidate_name
from pictory_provider.hooks.pictory import PictoryHook
from pictory_provider.services.candidates import Candidates, check_left_over
from pictory_provider.services.generate import Generation, guarded
from pictory_provider.services.polling import finished_job
from pictory_provider.services.state import publish
from pictory_provider.telemetry import push_request_xcom, report_assets, report_lineage
from pictory_provider.triggers.deferral import (
    JobWait,
    conclude,
    last_poll_after,
    wait_for_all,
    warn_of_short_interval,
)
from pictory_provider.version_compat import airflow_minor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from airflow.providers.common.compat.sdk import Context

    from pictory_provider.api.models import Job
    from pictory_provider.core.submission import Adopt
    from pictory_provider.operators.pictory import GenerateImageOperator
    from pictory_provider.services.generate import LazyRequest

IMAGE_KEY, IMAGES_KEY = "image", "images"
"""The XComs with the image record, and with those of candidates."""


class PictureTask:
    """A running task with one picture.

    :param path: of the picture, as it was rendered when the attempt began; ``None`` if it is not saved.
    :ivar generations: the picture.
    :raises RequestInvalid: if no picture can be saved at the path.
    """

    def __init__(self, operator: GenerateImageOperator, context: Context, path: str | None) -> None:
        self._operator = operator
        self._context = context
        self._picture = Generation.from_operator(operator, context, path)
        self.generations = [self._picture]

    def execute(self, lazy_request: LazyRequest, choices: Mapping[str, Any]) -> str:
        """Reuse, adopt or submit the picture; wait for it and save it, if the task does so.

        :param choices: arguments of :meth:`Generation.obtain`.
        :return: the jobId.
        """
        operator, picture = self._operator, self._picture
        if operator.durable and not picture.record.is_possible:
            operator.log.warning(
                "Airflow %s has no task state store (3.3 and later have). So a retry after a crash does not find "
                "this submission and buys the picture again: keep retries=0 on this task, or give it a path. This "
                "Airflow does not notify a trigger either when a user ends its task, so no log says then that the "
                "job keeps running.",
                airflow_minor(),
            )
        with picture.guarded(), PictoryHook(operator.pictory_conn_id) as hook:
            if picture.target:
                others = range(1, MOST_CANDIDATES + 1)
                _check_left_over(operator, self._context, hook, picture.target.path, others)
            job = picture.obtain(hook.get_conn(), lazy_request, **choices)
            publish(self._context["ti"], str(picture.job_id), as_result=operator.do_xcom_push)
            waits = bool(operator.wait_for_completion or picture.target)
            push_request_xcom(self._context, picture.record.latest, is_waited_for=waits)
            if job is None:
                reused = picture.reuse(
                    hook.get_conn(),
                    overwrite=operator.overwrite is True,
                    mark_ai_generated=operator.mark_ai_generated,
                )
                return self._publish(reused)
            if not waits:
                return self._end()
            wait = _wait_for(operator, picture, job.submitted_at)
            warn_of_short_interval(operator, "poll_interval", wait.poll_interval)
            carried = None
            if picture.target:
                carried = {"path": picture.target.path, "bought": picture.record.latest.to_dict()}
            return self._finish(hook, wait.run(operator, hook, job.answer, carried))

    def resume(self, event: dict[str, Any], bought: dict[str, Any] | None) -> str:
        """Continue after the trigger's event.

        :param bought: the record of the submission before the deferral.
        :return: the jobId.
        """
        operator, picture = self._operator, self._picture
        with picture.guarded(is_bought=True), PictoryHook(operator.pictory_conn_id) as hook:
            ended = events.read(event)
            picture.job_id = ended.job_id
            poll_interval = check_seconds("poll_interval", operator.poll_interval)
            job = conclude(ended, pictory_conn_id=operator.pictory_conn_id, poll_interval=poll_interval)
            if picture.target is None:
                return self._finish(hook, job)
            picture.restore_record(job.job_id, bought)
            if events.is_fresh(ended.at, time.time()):
                try:
                    return self._finish(hook, job)
                except StorageFailed:
                    raise
                except PictoryError as error:
                    operator.log.warning(
                        "Could not download the picture from the URL that the trigger received. The job is polled "
                        "again for a new URL, which is free. %s",
                        error.message,
                    )
            return self._finish(hook, finished_job(job.job_id, hook, log=operator.log))

    def resume_after(self, error: Exception) -> str:
        """Continue after Airflow itself has ended the deferral: poll the job once more.

        :return: the jobId.
        """
        conn_id, picture = self._operator.pictory_conn_id, self._picture
        with picture.guarded(is_bought=True), PictoryHook(conn_id) as hook:
            return self._finish(hook, last_poll_after(error, conn_id, picture.find_job_id()))

    def _finish(self, hook: PictoryHook, job: Job) -> str:
        operator, picture = self._operator, self._picture
        operator.image_url = job.url
        if picture.target is None:
            return self._publish(job.record())
        saved = picture.save(
            hook.get_conn(),
            job,
            overwrite=operator.overwrite is True,
            mark_ai_generated=operator.mark_ai_generated,
        )
        report_lineage(hook, job, picture.target.uri)
        return self._publish({**saved, "reused": False})

    def _publish(self, image: dict[str, Any]) -> str:
        """Push the image record to XCom and to the outlets' events, and return the task's result."""
        operator, picture = self._operator, self._picture
        if picture.target:
            request = picture.record.latest.request or {}
            image |= {name: request.get(name) for name in ("prompt", "model")}
            operator.set_lineage(request.get("referenceImageUrl"), _files_of(image))
        self._context["ti"].xcom_push(key=IMAGE_KEY, value=image)
        if picture.copy_error:
            raise picture.copy_error
        report_assets(self._context, operator.outlets, image)
        return self._end()

    def _end(self) -> str:
        """Record that the attempt has ended, and return the task's result."""
        picture = self._picture
        picture.record.end()
        if not picture.record.is_possible:
            # Airflow would push the result again. If that failed, the task would be retried and, without a record,
            # would buy another picture. The result was already pushed when the jobId became known.
            self._operator.do_xcom_push = False
        return str(picture.job_id)


class CandidatesTask:
    """A running task with candidates.

    :param path: of the picture, without a number, as it was rendered when the attempt began.
    :param number: how many candidates the attempt has.
    :ivar generations: the candidates.
    :raises RequestInvalid: if there is no path, or no picture can be saved at it.
    """

    def __init__(self, operator: GenerateImageOperator, context: Context, path: str | None, number: int) -> None:
        if path is None:
            raise RequestInvalid.unsent(
                f"candidates is {number}, and there is no path: candidates are saved next to each other",
                'Pass a path such as "/srv/covers/cover.png": it becomes cover.1.png, cover.2.png and so on.',
                fields=["path"],
            )
        self._operator = operator
        self._context = context
        self._candidates = Candidates(
            lambda candidate, its_path: Generation.from_operator(operator, context, its_path, candidate),
            path=path,
            number=number,
            overwrite=operator.overwrite is True,
            mark_ai_generated=operator.mark_ai_generated,
            log=operator.log,
        )
        self.generations = list(self._candidates.generations.values())

    def execute(self, lazy_request: LazyRequest, choices: Mapping[str, Any]) -> list[str]:
        """Reuse, adopt or submit each candidate; wait, and save.

        :param choices: arguments of :meth:`Candidates.obtain`.
        :return: the jobIds.
        """
        operator, candidates = self._operator, self._candidates
        with self._guarded() as hook:
            for others in ([None], range(len(self.generations) + 1, MOST_CANDIDATES + 1)):
                _check_left_over(operator, self._context, hook, candidates.path, others)
            jobs = candidates.obtain(hook.get_conn(), lazy_request, **choices)
            publish(self._context["ti"], candidates.job_ids, as_result=operator.do_xcom_push)
            if candidates.latest:
                push_request_xcom(
                    self._context, candidates.latest, is_waited_for=True, candidates=len(self.generations)
                )
            return self._wait_and_save(hook, jobs)

    def resume(self, event: Any, carried: Mapping[str, Any] | None) -> list[str]:  # noqa: ARG002
        """Continue after the trigger's event: poll each job that is not known to have ended.

        :param carried: of :meth:`Candidates.to_dict`; ``None`` if Airflow did not pass it on.
        :return: the jobIds.
        """
        with self._guarded() as hook:
            self._candidates.restore(hook.get_conn(), carried)
            return self._wait_and_save(hook, {})

    def resume_after(self, error: Exception) -> list[str]:  # noqa: ARG002
        """Continue after Airflow itself has ended the deferral.

        :return: the jobIds.
        """
        return self.resume(None, None)

    @contextmanager
    def _guarded(self) -> Iterator[PictoryHook]:
        conn_id, log = self._operator.pictory_conn_id, self._operator.log
        with guarded(self.generations, conn_id=conn_id, log=log), PictoryHook(conn_id) as hook:
            yield hook

    def _wait_and_save(self, hook: PictoryHook, jobs: Mapping[int, Adopt]) -> list[str]:
        """Wait for the pending jobs, and save their pictures; then publish all pictures, or raise the error.

        :param jobs: that were obtained just now.
        """
        operator, candidates = self._operator, self._candidates
        waits = {
            number: _wait_for(
                operator,
                candidates.generations[number],
                jobs[number].submitted_at if number in jobs else latest.submitted_at or 0.0,
            )
            for number, latest in candidates.pending.items()
        }
        if jobs:
            warn_of_short_interval(operator, "poll_interval", next(iter(waits.values())).poll_interval)

        def carried() -> dict[str, Any]:
            return {"path": candidates.path, "candidates": candidates.to_dict()}

        answers = {number: job.answer for number, job in jobs.items()}
        for number, result in wait_for_all(operator, hook, waits, answers, carried):
            target = candidates.generations[number].target
            saved = candidates.ended(hook.get_conn(), number, result)
            if saved and target:
                report_lineage(hook, saved, target.uri)
        images = candidates.records()
        if images:
            self._context["ti"].xcom_push(key=IMAGES_KEY, value=images)
        if error := candidates.error():
            raise error
        self._publish(images)
        return [str(job_id) for job_id in candidates.job_ids]

    def _publish(self, images: list[dict[str, Any]]) -> None:
        """Report the pictures to the outlets' events and to OpenLineage, and record that the attempt has ended."""
        operator = self._operator
        operator.image_url = next((image["url"] for image in images if image.get("url")), None)
        paths = [path for image in images for path in _files_of(image)]
        operator.set_lineage(self._candidates.reference, paths)
        report_assets(self._context, operator.outlets, {"images": images})
        for generation in self.generations:
            generation.record.end()


def _files_of(image: Mapping[str, Any]) -> list[str]:
    """Return the paths of a saved picture and of its copies."""
    return [image["path"], *(copy["path"] for copy in image.get("copies", ()))]


def _check_left_over(
    operator: GenerateImageOperator,
    context: Context,
    hook: PictoryHook,
    path: str,
    numbers: Iterable[int | None],
) -> None:
    """Check, in a retry or after a clear, that no paid picture of another number of candidates is left behind.

    :param numbers: of candidates that this attempt does not have; ``None`` for the only picture of a task.
    """
    if context["ti"].try_number > 1:
        others = (
            Generation.from_operator(operator, context, path if each is None else candidate_name(path, each), each)
            for each in numbers
        )
        check_left_over(others, hook.get_conn())


def _wait_for(operator: GenerateImageOperator, generation: Generation, started_at: float) -> JobWait:
    """Return the wait for the job of a picture.

    :param started_at: epoch seconds.
    """
    return JobWait(
        job_id=str(generation.job_id),
        pictory_conn_id=operator.pictory_conn_id,
        started_at=started_at,
        timeout=check_seconds("timeout", operator.timeout),
        poll_interval=check_seconds("poll_interval", operator.poll_interval),
        first_poll=first_poll_of((generation.record.latest.request or {}).get("model")),
    )
