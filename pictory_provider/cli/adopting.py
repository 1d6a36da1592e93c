# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Put a job on the record of a task, wherever that task will look for it."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from pictory_provider import compat
from pictory_provider.api.errors import PictoryError, RequestInvalid
from pictory_provider.api.models import JobState
from pictory_provider.images.sidecar import INTENT, MadeBy
from pictory_provider.jobs.files import SIDECAR_SUFFIX
from pictory_provider.jobs.submission import KEY, Submission

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pictory_provider.api.models import Job
    from pictory_provider.compat import Instance
    from pictory_provider.images.shelf import Shelf
    from pictory_provider.images.sidecar import Sidecar

_NOT_ON_RECORD = "Nothing was put on record."
_SHOWN = 20
_BUSY = ("running", "restarting", "queued", "deferred", "awaiting_input")


def find(dag_id: str, run_id: str, task_id: str, map_index: int | None, loop_index: int | None) -> Instance:
    """Return the one task instance that is meant.

    :param map_index: ``None`` where it was not said; the same for ``loop_index``.
    :raises RequestInvalid: where there is none, or more than one; it says which there are.
    """
    with _database():
        there = compat.instances_of(dag_id, run_id, task_id)
    if not there:
        raise RequestInvalid(
            f"Airflow has no task {task_id!r} in run {run_id!r} of DAG {dag_id!r}. {_NOT_ON_RECORD} Copy the line "
            "from the error of that task.",
            fields=["task_id"],
        )
    found = [
        each for each in there if map_index in (None, each.map_index) and loop_index in (None, each.loop_index)
    ]
    if len(found) == 1:
        return found[0]
    which = "more than one such task" if found else "no such task"
    known = "\n".join(f"    {_options(each)}  ({each.state or 'no state yet'})" for each in there[:_SHOWN])
    more = f"\n    and {len(there) - _SHOWN} more" if len(there) > _SHOWN else ""
    raise RequestInvalid(
        f"Run {run_id!r} has {which}. {_NOT_ON_RECORD} These instances of {task_id} are there; say which is "
        f"meant:\n{known}{more}",
        fields=["map_index", "loop_index"],
    )


def _options(instance: Instance) -> str:
    index = "" if instance.map_index < 0 else f"--map-index {instance.map_index}"
    loop = "" if instance.loop_index is None else f"--loop-index {instance.loop_index}"
    return f"{index} {loop}".strip() or "neither mapped nor in a loop"


class Kept(NamedTuple):
    """Where the job is on record now.

    :param in_store: whether the task state store has it.
    :param beside: the sidecar that has it; ``None`` for none.
    :param problem: why the sidecar of a task with a path has it not; ``None`` where there is nothing to say.
    :param replaces: another job that was on record.
    """

    in_store: bool
    beside: str | None
    problem: str | None
    replaces: str | None


def keep(instance: Instance, job: Job) -> Kept:
    """Put a job on record: in the state store, and in the sidecar, wherever the task has a record already.

    Only a task that looks there has one: an intent, of before its request. What is on record of the purchase
    stays; that there is no time of submission says that a user has put the job there.

    :raises RequestInvalid: where the task would not take it.
    """
    _check(instance, job)
    stored: Submission | None = None
    if compat.keeps_state():
        with _database():
            value = json.loads(compat.state_of(instance, KEY) or "null")
            stored = None if value is None else Submission.read(value) or Submission()
    path = (stored.path if stored else None) or instance.path
    problem, found = _seen_beside(path, instance) if path else (None, None)
    if stored is None and found is None:
        raise RequestInvalid(
            f"The {instance} has no record of a submission that this command sees{_because(problem)}. "
            f"{_NOT_ON_RECORD} Only a GenerateImageOperator whose reply was lost has one, with durable on "
            "(Airflow 3.3 and later) or with a path; the error of a batch says how its rows are adopted. "
            f"PictoryJobSensor(job_id={job.job_id!r}) waits for the job, and DownloadImageOperator saves its "
            "picture.",
            fields=["task_id"],
        )
    if stored is not None:
        by_hand = replace(stored, job_id=job.job_id, submitted_at=None)
        with _database():
            compat.keep_state_of(instance, KEY, json.dumps(by_hand.plain()))
    beside = None
    if found is not None:
        shelf, sidecar = found
        problem = _noted(shelf, sidecar, instance, job.job_id)
        beside = None if problem else f"{path}{SIDECAR_SUFFIX}"
    if stored is None and beside is None:
        raise RequestInvalid(f"The job could not be put beside the picture: {problem}. {_NOT_ON_RECORD}")
    on_record = (stored, found[1].submission if found else None)
    before = {each.job_id for each in on_record if each and each.job_id} - {job.job_id}
    return Kept(stored is not None, beside, problem, min(before, default=None))


def _check(instance: Instance, job: Job) -> None:
    if job.state in (JobState.FAILED, JobState.CLEANED):
        raise RequestInvalid(
            f"Job {job.job_id} is {job.state.value}: there is no picture to take, and the task would buy another "
            f"one. {_NOT_ON_RECORD} To buy the picture again, clear the task.",
            fields=["job_id"],
        )
    if instance.state in _BUSY:
        raise RequestInvalid(
            f"The {instance} is {instance.state}: it may be about to put a job on record by itself. "
            f"{_NOT_ON_RECORD} Let it end, and run this again.",
            fields=["task_id"],
        )
    if instance.state == "success":
        raise RequestInvalid(
            f"The {instance} has ended well, and has its picture. {_NOT_ON_RECORD} "
            f"DownloadImageOperator(job_id={job.job_id!r}, path=...) saves that of this job.",
            fields=["task_id"],
        )


def _because(problem: str | None) -> str:
    return f" ({problem})" if problem else ""


def _seen_beside(path: str, instance: Instance) -> tuple[str | None, tuple[Shelf, Sidecar] | None]:
    """Return the task's own sidecar beside a picture's place, or why there is none to be written into."""
    from pictory_provider.images.shelf import Shelf

    try:
        shelf = Shelf(path)
        there = shelf.look()
    except PictoryError as error:
        return error.message.rstrip("."), None
    sidecar, name = there.sidecar, f"{path}{SIDECAR_SUFFIX}"
    if sidecar is None:
        return f"{name} {there.problem or 'is not seen from this machine'}", None
    me = MadeBy.of(instance)
    is_left_behind = sidecar.state == INTENT and sidecar.made_by.is_replaced_by(me)
    if sidecar.made_by != me and not is_left_behind:
        return f"{name} is of {sidecar.made_by}", None
    if sidecar.saved is not None:
        return f"{name} tells of the picture of job {sidecar.submission.job_id}, which is saved", None
    return None, (shelf, sidecar)


def _noted(shelf: Shelf, sidecar: Sidecar, instance: Instance, job_id: str) -> str | None:
    """Put the job into a sidecar.

    :return: why that was not done.
    """
    bought = replace(sidecar.submission, job_id=job_id, submitted_at=None)
    try:
        if shelf.note(replace(sidecar, submission=bought, made_by=MadeBy.of(instance))):
            return None
    except PictoryError as error:
        return error.message.rstrip(".")
    return f"{shelf.path}{SIDECAR_SUFFIX} has been changed this very moment"


def clear(instance: Instance) -> int:
    """Clear the task with its state kept, and the tasks below it that did not run for its sake.

    :return: how many of these there are.
    :raises RequestInvalid: where that was not possible.
    """
    try:
        return compat.clear_keeping_state(instance)
    except Exception as error:
        way = ", with *Keep task state and resume*" if compat.clear_discards_state() else ""
        raise RequestInvalid(
            f"The job is on record, and the task could not be cleared: {type(error).__name__}: {error}. Run this "
            f"again, or clear it in its page{way}."
        ) from error


@contextmanager
def _database() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise RequestInvalid(
            f"Airflow's database could not be used from here: {type(error).__name__}: {error}. {_NOT_ON_RECORD} "
            "Run this where Airflow's scheduler or API server runs."
        ) from error
