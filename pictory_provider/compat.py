# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The only module that knows Airflow versions.

Names that merely moved come from ``airflow.providers.common.compat.sdk``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow import __version__ as _airflow_version

from pictory_provider.api.timing import TIMING

if TYPE_CHECKING:
    from uuid import UUID

    from airflow.providers.common.compat.sdk import Context
    from airflow.sdk.exceptions import (
        AirflowRescheduleException,
        TaskDeferralError,
        TaskDeferralTimeout,
    )
else:
    try:
        from airflow.sdk.exceptions import (
            AirflowRescheduleException,
            TaskDeferralError,
            TaskDeferralTimeout,
        )
    except ImportError:  # Airflow 3.1
        from airflow.exceptions import AirflowRescheduleException, TaskDeferralError, TaskDeferralTimeout

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import SET_DURING_EXECUTION, determine_kwargs
else:
    try:
        from airflow.providers.common.compat.sdk import SET_DURING_EXECUTION, determine_kwargs
    except ImportError:  # common.compat 1.14, or Airflow 3.1
        from airflow.sdk.definitions._internal.types import SET_DURING_EXECUTION

        try:
            from airflow.sdk.bases.decorator import determine_kwargs
        except ImportError:
            from airflow.utils.operator_helpers import determine_kwargs

__all__ = [
    "SET_DURING_EXECUTION",
    "AirflowRescheduleException",
    "TaskDeferralError",
    "TaskDeferralTimeout",
    "airflow_line",
    "determine_kwargs",
    "has_mapped_dependants",
    "is_deferred",
    "shortest_absence",
    "starts_from_trigger",
    "task_state_store",
]

AIRFLOW_VERSION: tuple[int, int] = tuple(int(part) for part in _airflow_version.split(".")[:2])  # type: ignore[assignment]


def airflow_line() -> str:
    """Return the line of releases that this Airflow belongs to, such as ``3.2``."""
    return ".".join(str(part) for part in AIRFLOW_VERSION)


def shortest_absence(*, is_rescheduled: bool = False) -> float:
    """Return the seconds that a task must stay away once it has let go of its worker.

    The scheduler often marks a task failed that is queued again, by its trigger's event or by its reschedule
    date, while the worker that it left is still being wound up. That takes up to
    ``[workers] min_heartbeat_interval``, 5 s by default (apache/airflow#66374, #72716; measured with deferral on
    3.3.2: 8 of 20 tasks lost at 3 s, 1 of 20 at 5 s, none of 20 at 7 s). On 3.4.0b2 a deferred task is safe (300
    of 300 at 0 s), and a rescheduled one is not: of 40 each 10 were lost at 0 s, 2 at 2 s, 8 at 5 s, none at 8 s
    (LocalExecutor of 12 slots, SQLite).

    :param is_rescheduled: whether the task is rescheduled, and not deferred.
    """
    return TIMING.absence if is_rescheduled or AIRFLOW_VERSION < (3, 4) else 0.0


def starts_from_trigger() -> bool:
    """Return whether a task can begin in the triggerer. Airflow 3.1 and 3.2 ignore the request."""
    return AIRFLOW_VERSION >= (3, 3)


def has_mapped_dependants(task: Any) -> bool:
    """Return whether other tasks are mapped over a task's result: only a worker pushes how long that is."""
    return task is not None and task.has_dag() and next(task.iter_mapped_dependants(), None) is not None


def is_deferred(ti: Any) -> bool:
    """Return whether a task instance still waits in the triggerer, asked from there. It blocks.

    A triggerer that was away for long finds its triggers as it left them, and the task may have gone on without
    them: another triggerer has ended it, or a user has cleared it.
    """
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    map_index = ti.map_index if ti.map_index is not None and ti.map_index >= 0 else None
    runs = RuntimeTaskInstance.get_task_states(
        dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=map_index
    )
    states = [getattr(state, "value", state) for of_run in runs.values() for state in of_run.values()]
    return bool(states) and all(state == "deferred" for state in states)


def task_state_store(context: Context) -> Any | None:
    """Return the store of this task instance that survives its retries; ``None`` before Airflow 3.3."""
    return context.get("task_state_store")


def keeps_state() -> bool:
    """Return whether this Airflow has a task state store."""
    return AIRFLOW_VERSION >= (3, 3)


def loop_index(context: Context) -> int | None:
    """Return the iteration of a task in a loop; ``None`` outside any, and before Airflow 3.4."""
    index = getattr(context.get("loop"), "index", None)
    return index if isinstance(index, int) else None


def clear_discards_state() -> bool:
    """Return whether *Clear* on a task's page throws its state away, unless told to keep it (seen on 3.4.0b2)."""
    return AIRFLOW_VERSION >= (3, 4)


class Instance(NamedTuple):
    """A task instance as Airflow's database has it.

    :param key: the id of its row.
    :param map_index: -1 where it is not mapped.
    :param loop_index: its iteration; ``None`` outside any loop.
    :param region_id: with ``region_index`` what tells its iteration from the others of the same task; ``None``
        before Airflow 3.4, and zero for a task that is neither mapped nor in a loop.
    :param path: the operator's field ``path`` as it was rendered; ``None`` where it has none, or was cut off.
    """

    key: Any
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    loop_index: int | None
    region_id: UUID | None
    region_index: int | None
    state: str | None
    path: str | None

    def __str__(self) -> str:
        of_index = "" if self.map_index < 0 else f", map index {self.map_index}"
        of_loop = "" if self.loop_index is None else f", iteration {self.loop_index}"
        return f"task {self.task_id} of DAG {self.dag_id}, run {self.run_id}{of_index}{of_loop}"


def instances_of(dag_id: str, run_id: str, task_id: str) -> list[Instance]:
    """Return every instance of a task in a run, from a command with Airflow's database."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        query = select(TaskInstance).where(
            TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id, TaskInstance.task_id == task_id
        )
        resolver = None
        if hasattr(TaskInstance, "region_id"):
            from airflow.models.dagbag import DBDagBag

            coordinates = import_module("airflow.models.task_coordinates")
            resolver = coordinates.TaskCoordinateResolver(DBDagBag(load_op_links=False), session)
        found = session.scalars(query.order_by(TaskInstance.map_index)).all()
        return [_instance(ti, session, resolver) for ti in found]


def _instance(ti: Any, session: Any, resolver: Any) -> Instance:
    map_index, of_loop = ti.map_index, None
    if resolver is not None:
        map_index = resolver.public_map_index(ti)
        of_loop = resolver.get_loop_iteration(ti)
    path = _rendered(ti, session).get("path")
    return Instance(
        key=ti.id,
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        map_index=map_index,
        loop_index=of_loop[1] if of_loop else None,
        region_id=getattr(ti, "region_id", None),
        region_index=getattr(ti, "region_index", None),
        state=ti.state,
        path=path if isinstance(path, str) and not path.startswith("Truncated.") and path != "None" else None,
    )


def _rendered(ti: Any, session: Any) -> dict[str, Any]:
    """Return the rendered fields of a task instance, as its last attempt has left them that rendered any.

    From Airflow 3.4 on each attempt has its own, and the row of one that waits for a retry is the next attempt's.
    """
    from airflow.models.renderedtifields import RenderedTaskInstanceFields as Fields

    found: dict[str, Any] | None = Fields.get_templated_fields(ti, session=session)
    if found or not hasattr(ti, "region_id"):
        return found or {}
    from sqlalchemy import select

    row = type(ti)
    attempts = (
        select(row.id)
        .where(
            row.dag_id == ti.dag_id,
            row.run_id == ti.run_id,
            row.task_id == ti.task_id,
            row.region_id == ti.region_id,
            row.region_index == ti.region_index,
        )
        .order_by(row.try_number.desc())
        .execution_options(include_all_attempts=True)
    )
    for attempt in session.scalars(attempts).all():
        if of_attempt := Fields.get_for_attempt(attempt, session=session):
            return dict(of_attempt.rendered_fields or {})
    return {}


def state_of(instance: Instance, key: str) -> str | None:
    """Return what the state store has of a task instance, from a command with Airflow's database.

    :return: JSON; ``None`` for nothing.
    """
    from airflow.state import get_state_backend

    return get_state_backend().get(_scope(instance), key)


def keep_state_of(instance: Instance, key: str, value: str) -> None:
    """Put something into the state store of a task instance, from a command with Airflow's database.

    :param value: JSON.
    """
    from airflow.state import get_state_backend

    get_state_backend().set(_scope(instance), key, value)


def _scope(instance: Instance) -> Any:
    from airflow._shared.state import TaskScope

    where: dict[str, Any] = {"map_index": instance.map_index}
    if instance.region_id is not None:
        where = {"region_id": instance.region_id, "region_index": instance.region_index}
    return TaskScope(instance.dag_id, instance.run_id, instance.task_id, **where)


def clear_keeping_state(instance: Instance) -> int:
    """Clear a task instance and the tasks below it that did not run for its sake; its state is kept.

    From Airflow 3.4 on the page's *Clear* throws the state of a task away, unless it is told to keep it.

    :return: how many tasks below it were cleared.
    """
    from airflow.models import taskinstance
    from airflow.models.dagbag import DBDagBag
    from airflow.utils.session import create_session
    from sqlalchemy import select

    row = taskinstance.TaskInstance
    with create_session() as session:
        ti = session.scalars(select(row).where(row.id == instance.key)).one()
        dag = DBDagBag(load_op_links=False).get_latest_version_of_dag(ti.dag_id, session=session)
        below: set[str] = set()
        if dag is not None and dag.has_task(ti.task_id):
            below = dag.get_task(ti.task_id).get_flat_relative_ids(upstream=False)
        waiting = session.scalars(
            select(row).where(
                row.dag_id == ti.dag_id,
                row.run_id == ti.run_id,
                row.task_id.in_(below),
                row.state == "upstream_failed",
            )
        ).all()
        taskinstance.clear_task_instances([ti, *waiting], session)
        return len(waiting)


def living_triggerers() -> bool:
    """Return whether a triggerer has given a sign of life lately, from a command with Airflow's database."""
    from airflow.jobs.job import most_recent_job

    newest = most_recent_job("TriggererJob")
    return newest is not None and newest.is_alive()
