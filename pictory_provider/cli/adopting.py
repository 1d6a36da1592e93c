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
from pictory_provider.images.sidecar import MadeBy
from pictory_provider.jobs.files import SIDECAR_SUFFIX
from pictory_provider.jobs.submission import KEY, Submission

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pictory_provider.compat import Instance

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
    """

    in_store: bool
    beside: str | None
    problem: str | None


def keep(instance: Instance, job_id: str) -> Kept:
    """Put a job on record: in the state store where Airflow has one, and in the sidecar where there is a path.

    What is on record of the purchase stays; that there is no time of submission says that a user has put it there.

    :raises RequestInvalid: where the task goes on by itself.
    """
    if instance.state in _BUSY:
        raise RequestInvalid(
            f"The {instance} is {instance.state}: it may be about to put a job on record by itself. "
            f"{_NOT_ON_RECORD} Let it end, and run this again.",
            fields=["task_id"],
        )
    found = Submission()
    if compat.keeps_state():
        with _database():
            found = Submission.read(json.loads(compat.state_of(instance, KEY) or "null")) or found
            by_hand = replace(found, job_id=job_id, submitted_at=None)
            compat.keep_state_of(instance, KEY, json.dumps(by_hand.plain()))
    path = found.path or instance.path
    if path is None:
        return Kept(compat.keeps_state(), None, None)
    try:
        problem = _keep_beside(path, instance, job_id)
    except PictoryError as error:
        problem = error.message
    return Kept(compat.keeps_state(), None if problem else path + SIDECAR_SUFFIX, problem)


def _keep_beside(path: str, instance: Instance, job_id: str) -> str | None:
    """Put the job into the sidecar beside a picture's place.

    :return: why that was not done.
    """
    from pictory_provider.images.shelf import Shelf

    shelf = Shelf(path)
    there = shelf.look()
    if there.sidecar is None:
        return f"{path}{SIDECAR_SUFFIX} {there.problem or 'is not seen from this machine'}"
    if there.sidecar.made_by != made_by(instance):
        return f"{path}{SIDECAR_SUFFIX} is of {there.sidecar.made_by}"
    if there.sidecar.saved is not None:
        job = there.sidecar.submission.job_id
        return f"{path}{SIDECAR_SUFFIX} tells of the picture of job {job}, which is saved"
    bought = replace(there.sidecar.submission, job_id=job_id, submitted_at=None)
    if not shelf.note(replace(there.sidecar, submission=bought)):
        return f"{path}{SIDECAR_SUFFIX} has been changed this very moment"
    return None


@contextmanager
def _database() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise RequestInvalid(
            f"Airflow's database could not be used from here: {type(error).__name__}: {error}. {_NOT_ON_RECORD} "
            "Run this where Airflow's scheduler or API server runs."
        ) from error


def made_by(instance: Instance) -> MadeBy:
    """Return who a sidecar says to have bought the picture of a task instance."""
    region = (str(instance.region[0]), instance.region[1]) if instance.is_regional and instance.region else ()
    return MadeBy(instance.dag_id, instance.run_id, instance.task_id, instance.map_index, *region)
