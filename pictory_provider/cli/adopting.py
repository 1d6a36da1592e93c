# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Record a job for a task, in the places where the task reads its record."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from pictory_provider import version_compat
from pictory_provider.api.decoding import parse_json
from pictory_provider.api.errors import PictoryError, RequestInvalid
from pictory_provider.api.models import JobState
from pictory_provider.core.attempt import MadeBy
from pictory_provider.core.picture_names import SIDECAR_SUFFIX, candidate_name
from pictory_provider.core.sidecar import INTENT
from pictory_provider.core.submission import Submission, key_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pictory_provider.api.models import Job
    from pictory_provider.core.sidecar import Sidecar
    from pictory_provider.storage.pictures import PictureTarget
    from pictory_provider.version_compat import Instance

_NOT_RECORDED = "Nothing was recorded."
_MOST_LISTED = 20
_BUSY = ("running", "restarting", "queued", "deferred", "awaiting_input")


def find_instance(
    dag_id: str, run_id: str, task_id: str, map_index: int | None, loop_index: int | None
) -> Instance:
    """Return the one task instance that the command line names.

    :param map_index: ``None`` if the command line does not give it; the same for ``loop_index``.
    :raises RequestInvalid: if no instance or more than one matches; the text lists those that exist.
    """
    with _database():
        instances = version_compat.find_instances(dag_id, run_id, task_id)
    if not instances:
        raise RequestInvalid(
            f"Airflow has no task {task_id!r} in run {run_id!r} of DAG {dag_id!r}. {_NOT_RECORDED} Copy the "
            "command from the error of that task.",
            fields=["task_id"],
        )
    found = [
        each for each in instances if map_index in (None, each.map_index) and loop_index in (None, each.loop_index)
    ]
    if len(found) == 1:
        return found[0]
    which = "more than one such task" if found else "no such task"
    known = "\n".join(
        f"    {_options(each)}  ({each.state or 'no state yet'})" for each in instances[:_MOST_LISTED]
    )
    rest = f"\n    and {len(instances) - _MOST_LISTED} more" if len(instances) > _MOST_LISTED else ""
    raise RequestInvalid(
        f"Run {run_id!r} has {which}. {_NOT_RECORDED} Name one of these instances of {task_id}:\n{known}{rest}",
        fields=["map_index", "loop_index"],
    )


def _options(instance: Instance) -> str:
    index = "" if instance.map_index < 0 else f"--map-index {instance.map_index}"
    loop = "" if instance.loop_index is None else f"--loop-index {instance.loop_index}"
    return f"{index} {loop}".strip() or "neither mapped nor in a loop"


class Adoption(NamedTuple):
    """Where the job is recorded now.

    :param sidecar: path of the sidecar that names the job; ``None`` if none does.
    :param problem: why the sidecar of a task with a path does not name it; ``None`` if there is no such problem.
    :param replaces: another job that was recorded before.
    """

    sidecar: str | None
    problem: str | None
    replaces: str | None


def record_job(instance: Instance, job: Job, candidate: int | None = None) -> Adoption:
    """Record a job in the state store and in the sidecar, in each of them that has a record of the task.

    A task without any record is refused, because it would not read the new one: a task that reads its record has
    written an intent before its request. The intent's other fields are kept. An empty ``submitted_at`` marks that
    a user has recorded the job.

    :param candidate: the number of the picture among the candidates of the task; ``None`` if there is only one.
    :raises RequestInvalid: if the task would not use the job.
    """
    _check(instance, job)
    key = key_of(candidate)
    stored: Submission | None = None
    if version_compat.has_task_state_store():
        with _database():
            value = parse_json(version_compat.read_state(instance, key) or "null")
            stored = None if value is None else Submission.from_dict(value) or Submission()
    path = stored.path if stored else None
    if path is None and instance.path:
        path = instance.path if candidate is None else candidate_name(instance.path, candidate)
    problem, found = _find_sidecar(path, instance) if path else (None, None)
    if stored is None and found is None:
        reason = f" ({problem})" if problem else ""
        raise RequestInvalid(
            f"This command finds no record of a submission by {instance}{reason}. {_NOT_RECORDED} Only a "
            "GenerateImageOperator that lost Pictory's reply has such a record, and only with durable on (Airflow "
            "3.3 and later) or with a path. If the task has candidates, name one by --candidate. To adopt rows of "
            f"a batch, follow the batch's error. PictoryJobSensor(job_id={job.job_id!r}) waits for this job, and "
            "DownloadImageOperator saves its picture.",
            fields=["task_id"],
        )
    if stored is not None:
        adopted = replace(stored, job_id=job.job_id, submitted_at=None)
        with _database():
            version_compat.write_state(instance, key, json.dumps(adopted.to_dict()))
    sidecar_path = None
    if found is not None:
        problem = _update_sidecar(*found, instance, job.job_id)
        sidecar_path = None if problem else f"{path}{SIDECAR_SUFFIX}"
    if stored is None and sidecar_path is None:
        raise RequestInvalid(f"The job could not be written to the sidecar: {problem}. {_NOT_RECORDED}")
    recorded = (stored, found[1].submission if found else None)
    before = {each.job_id for each in recorded if each and each.job_id} - {job.job_id}
    return Adoption(sidecar_path, problem, min(before, default=None))


def _check(instance: Instance, job: Job) -> None:
    if job.state in (JobState.FAILED, JobState.CLEANED):
        raise RequestInvalid(
            f"Job {job.job_id} is {job.state.value}: it has no picture, so the task would buy another one. "
            f"{_NOT_RECORDED} To buy the picture again, clear the task.",
            fields=["job_id"],
        )
    if instance.state in _BUSY:
        raise RequestInvalid(
            f"The {instance} is {instance.state}: it may be about to record a job itself. {_NOT_RECORDED} Wait "
            "until it ends, and run this again.",
            fields=["task_id"],
        )
    if instance.state == "success":
        raise RequestInvalid(
            f"The {instance} has succeeded, and has its picture. {_NOT_RECORDED} "
            f"DownloadImageOperator(job_id={job.job_id!r}, path=...) saves the picture of this job.",
            fields=["task_id"],
        )


def _find_sidecar(path: str, instance: Instance) -> tuple[str | None, tuple[PictureTarget, Sidecar] | None]:
    """Return the task's own sidecar, or why this command may not write to the one next to the picture."""
    from pictory_provider.storage.pictures import PictureTarget

    try:
        target = PictureTarget(path)
        existing = target.inspect()
    except PictoryError as error:
        return error.message.rstrip("."), None
    sidecar, name = existing.sidecar, f"{path}{SIDECAR_SUFFIX}"
    if sidecar is None:
        return f"{name}: {existing.problem or 'not found from this machine'}", None
    me = MadeBy.from_task_instance(instance)
    is_left_behind = sidecar.state == INTENT and sidecar.made_by.is_replaced_by(me)
    if sidecar.made_by != me and not is_left_behind:
        return f"{name} belongs to {sidecar.made_by}", None
    if sidecar.saved is not None:
        return f"{name} describes the saved picture of job {sidecar.submission.job_id}", None
    return None, (target, sidecar)


def _update_sidecar(target: PictureTarget, sidecar: Sidecar, instance: Instance, job_id: str) -> str | None:
    """Write the job into a sidecar.

    :return: why that failed; ``None`` if it did not.
    """
    adopted = replace(sidecar.submission, job_id=job_id, submitted_at=None)
    try:
        if target.write_sidecar(replace(sidecar, submission=adopted, made_by=MadeBy.from_task_instance(instance))):
            return None
    except PictoryError as error:
        return error.message.rstrip(".")
    return f"another process has just changed {target.path}{SIDECAR_SUFFIX}"


def clear(instance: Instance) -> int:
    """Clear the task but keep its state, and clear the downstream tasks that did not run because of it.

    :return: how many downstream tasks were cleared.
    :raises RequestInvalid: if that failed.
    """
    try:
        return version_compat.clear_keeping_state(instance)
    except Exception as error:
        way = ", with *Keep task state and resume*" if version_compat.clear_discards_state() else ""
        raise RequestInvalid(
            f"The job is recorded, but the task could not be cleared: {type(error).__name__}: {error}. Run this "
            f"again, or clear the task on its page in Airflow{way}."
        ) from error


@contextmanager
def _database() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise RequestInvalid(
            f"Airflow's database could not be used from here: {type(error).__name__}: {error}. {_NOT_RECORDED} "
            "Run this where Airflow's scheduler or API server runs."
        ) from error
