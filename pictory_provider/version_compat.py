# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Differences between releases of Airflow. No other module checks Airflow's version.

Names that only moved between modules come from ``airflow.providers.common.compat.sdk``.
"""

from __future__ import annotations

import re
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow import __version__ as _airflow_version

if TYPE_CHECKING:
    from uuid import UUID

    from airflow.providers.common.compat.sdk import Context
    from airflow.sdk.exceptions import AirflowRescheduleException, TaskDeferralError, TaskDeferralTimeout
else:
    try:
        from airflow.sdk.exceptions import AirflowRescheduleException, TaskDeferralError, TaskDeferralTimeout
    except ImportError:  # Airflow 3.1
        from airflow.exceptions import AirflowRescheduleException, TaskDeferralError, TaskDeferralTimeout

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import SET_DURING_EXECUTION, determine_kwargs
else:

    def __getattr__(name: str) -> Any:
        """Import a name that only the decorators use, on first use: every DAG file imports the operators."""
        modules = {
            "SET_DURING_EXECUTION": ("airflow.sdk.definitions._internal.types",),
            "determine_kwargs": ("airflow.sdk.bases.decorator", "airflow.utils.operator_helpers"),
        }
        if name not in modules:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        # common.compat.sdk does not have them in release 1.14, nor on Airflow 3.1.
        for module in ("airflow.providers.common.compat.sdk", *modules[name]):
            with suppress(ImportError, AttributeError):
                return getattr(import_module(module), name)
        raise ImportError(f"This Airflow has no {name}")


__all__ = [
    "SET_DURING_EXECUTION",
    "AirflowRescheduleException",
    "TaskDeferralError",
    "TaskDeferralTimeout",
    "airflow_minor",
    "determine_kwargs",
    "has_mapped_dependants",
    "is_deferred",
    "min_deferral",
    "starts_from_trigger",
    "task_state_store",
]

AIRFLOW_VERSION: tuple[int, int] = tuple(int(part) for part in _airflow_version.split(".")[:2])  # type: ignore[assignment]
_AIRFLOW_PATCH = int("0" + re.findall(r"\d*", _airflow_version.split(".")[2])[0])
_CELERY = ("CeleryExecutor", "airflow.providers.celery.executors.celery_executor.CeleryExecutor")


def airflow_minor() -> str:
    """Return Airflow's major and minor version, such as ``3.2``."""
    return ".".join(str(part) for part in AIRFLOW_VERSION)


def min_deferral(seconds: float, *, is_rescheduled: bool = False) -> float:
    """Return the shortest time, in seconds, for which a task may defer or reschedule itself.

    If a task is queued again, by its trigger's event or by its reschedule date, while the worker process that it
    left is still ending, the scheduler often marks it failed. The process takes up to
    ``[workers] min_heartbeat_interval`` to end, 5 s by default (apache/airflow#66374, #72716; measured with
    deferral on the LocalExecutor of 3.3.2: 8 of 20 tasks lost at 3 s, 1 of 20 at 5 s, none of 20 at 7 s).

    A deferred task is safe on 3.4.0b2 (300 of 300 at 0 s on the LocalExecutor, with SQLite and PostgreSQL, and on
    the CeleryExecutor), and on the CeleryExecutor of 3.3.2 (300 of 300 at 0 s): that executor keeps one result per
    task, so a task that is sent again takes the place of the process that still ends. A rescheduled task is not
    safe: at 0 s 10 of 40 were lost on the LocalExecutor of 3.4.0b2 with SQLite (2 of 40 at 2 s, 8 at 5 s, none at
    8 s) and 13 of 40 with PostgreSQL; on the CeleryExecutor 48 of 100 with 3.3.2, and 4 of 20 with 3.4.0b2.

    :param seconds: the time after which a task returns safely, used if this Airflow may lose it sooner.
    :param is_rescheduled: whether the task is rescheduled, not deferred.
    """
    is_safe = AIRFLOW_VERSION >= (3, 4) or ((*AIRFLOW_VERSION, _AIRFLOW_PATCH) >= (3, 3, 2) and _is_on_celery())
    return 0.0 if is_safe and not is_rescheduled else seconds


def _is_on_celery() -> bool:
    """Return whether this task runs on the CeleryExecutor; ``False`` if several executors are configured.

    A task of the LocalExecutor runs next to its scheduler and has its configuration, so the answer is never wrong
    for that one.
    """
    from airflow.providers.common.compat.sdk import conf

    return conf.get("core", "executor", fallback="") in _CELERY


def starts_from_trigger() -> bool:
    """Return whether a task can begin in the triggerer. Airflow 3.1 and 3.2 ignore the setting."""
    return AIRFLOW_VERSION >= (3, 3)


def has_mapped_dependants(task: Any) -> bool:
    """Return whether other tasks are mapped over a task's result. Only a worker pushes that result's length."""
    return task is not None and task.has_dag() and next(task.iter_mapped_dependants(), None) is not None


def is_deferred(ti: Any) -> bool:
    """Return whether a task instance is still deferred. Called in the triggerer; it blocks.

    A triggerer that was disconnected for long still has its triggers, although another triggerer may have ended
    the wait, or a user may have cleared the task.
    """
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    map_index = ti.map_index if ti.map_index is not None and ti.map_index >= 0 else None
    runs = RuntimeTaskInstance.get_task_states(
        dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=map_index
    )
    states = [getattr(state, "value", state) for of_run in runs.values() for state in of_run.values()]
    return bool(states) and all(state == "deferred" for state in states)


def push_xcom_to_database(key: str, value: Any, **kwargs: Any) -> None:
    """Push an XCom into Airflow's database and bypass a custom XCom backend.

    Airflow's worker pushes a task's links in this way, since the API server reads them without a backend.

    :param value: plain JSON.
    :param kwargs: ``dag_id``, ``task_id``, ``run_id`` and ``map_index``.
    """
    from airflow.providers.common.compat.sdk import XCom

    XCom._set_xcom_in_db(key, value, **kwargs)  # noqa: SLF001  as Airflow's worker does on 3.1 to 3.4


def task_state_store(context: Context) -> Any | None:
    """Return the state store of this task instance, which survives retries; ``None`` before Airflow 3.3."""
    return context.get("task_state_store")


def has_task_state_store() -> bool:
    """Return whether this Airflow has a task state store."""
    return AIRFLOW_VERSION >= (3, 3)


def loop_index(context: Context) -> int | None:
    """Return a task's loop iteration; ``None`` outside loops, and before Airflow 3.4."""
    index = getattr(context.get("loop"), "index", None)
    return index if isinstance(index, int) else None


def clear_discards_state() -> bool:
    """Return whether *Clear* on a task's page discards its state by default (seen on 3.4.0b2)."""
    return AIRFLOW_VERSION >= (3, 4)


class Instance(NamedTuple):
    """A task instance in Airflow's database.

    :param key: the id of its row.
    :param map_index: -1 if it is not mapped.
    :param loop_index: its iteration; ``None`` outside loops.
    :param region_id: identifies, with ``region_index``, its iteration among those of the same task; ``None``
        before Airflow 3.4, and zero for a task that is neither mapped nor in a loop.
    :param path: the operator's rendered field ``path``; ``None`` if it has none, or if Airflow truncated it.
    :param is_paused: whether its DAG is paused, so that it does not run after a clear either.
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
    is_paused: bool = False

    def __str__(self) -> str:
        index = "" if self.map_index < 0 else f", map index {self.map_index}"
        iteration = "" if self.loop_index is None else f", iteration {self.loop_index}"
        return f"task {self.task_id} of DAG {self.dag_id}, run {self.run_id}{index}{iteration}"


def find_instances(dag_id: str, run_id: str, task_id: str) -> list[Instance]:
    """Return all instances of a task in a run. Needs Airflow's database, so it is for commands only."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        query = select(TaskInstance).filter_by(dag_id=dag_id, run_id=run_id, task_id=task_id)
        resolver = None
        if hasattr(TaskInstance, "region_id"):
            from airflow.models.dagbag import DBDagBag

            coordinates = import_module("airflow.models.task_coordinates")
            resolver = coordinates.TaskCoordinateResolver(DBDagBag(load_op_links=False), session)
        found = session.scalars(query.order_by(TaskInstance.map_index)).all()
        return [_instance(ti, session, resolver) for ti in found]


def _instance(ti: Any, session: Any, resolver: Any) -> Instance:
    from airflow.models.dag import DagModel

    map_index, iteration = ti.map_index, None
    if resolver is not None:
        map_index = resolver.public_map_index(ti)
        iteration = resolver.get_loop_iteration(ti)
    path = _rendered_fields(ti, session).get("path")
    dag = session.get(DagModel, ti.dag_id)
    return Instance(
        key=ti.id,
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        map_index=map_index,
        loop_index=iteration[1] if iteration else None,
        region_id=getattr(ti, "region_id", None),
        region_index=getattr(ti, "region_index", None),
        state=ti.state,
        path=path if isinstance(path, str) and not path.startswith("Truncated.") and path != "None" else None,
        is_paused=bool(dag and dag.is_paused),
    )


def _rendered_fields(ti: Any, session: Any) -> dict[str, Any]:
    """Return the rendered fields of a task instance, from its last attempt that rendered any.

    From Airflow 3.4 on each attempt has its own fields, and while a task waits for a retry its row is already the
    next attempt's.
    """
    from airflow.models.renderedtifields import RenderedTaskInstanceFields as Fields

    found: dict[str, Any] | None = Fields.get_templated_fields(ti, session=session)
    if found or not hasattr(ti, "region_id"):
        return found or {}
    from sqlalchemy import select

    row = type(ti)
    keys = ("dag_id", "run_id", "task_id", "region_id", "region_index")
    attempts = select(row.id).where(*(getattr(row, key) == getattr(ti, key) for key in keys))
    newest_first = attempts.order_by(row.try_number.desc()).execution_options(include_all_attempts=True)
    for attempt in session.scalars(newest_first).all():
        if fields := Fields.get_for_attempt(attempt, session=session):
            return dict(fields.rendered_fields or {})
    return {}


def read_state(instance: Instance, key: str) -> str | None:
    """Return a value from the state store of a task instance. For commands only, as :func:`find_instances`.

    :return: JSON; ``None`` if there is no value.
    """
    from airflow.state import get_state_backend

    return get_state_backend().get(_scope(instance), key)


def write_state(instance: Instance, key: str, value: str) -> None:
    """Write a value to the state store of a task instance. For commands only, as :func:`find_instances`.

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
    """Clear a task instance, and the downstream tasks that did not run because it failed, and keep its state.

    From Airflow 3.4 on, *Clear* on a task's page discards its state by default.

    :return: the number of downstream tasks that were cleared.
    """
    from airflow.models import taskinstance
    from airflow.models.dagbag import DBDagBag
    from airflow.utils.session import create_session
    from sqlalchemy import select

    row = taskinstance.TaskInstance
    with create_session() as session:
        ti = session.scalars(select(row).where(row.id == instance.key)).one()
        dag = DBDagBag(load_op_links=False).get_latest_version_of_dag(ti.dag_id, session=session)
        downstream: set[str] = set()
        if dag is not None and dag.has_task(ti.task_id):
            downstream = dag.get_task(ti.task_id).get_flat_relative_ids(upstream=False)
        same_run = (row.dag_id == ti.dag_id, row.run_id == ti.run_id)
        failed = (row.task_id.in_(downstream), row.state == "upstream_failed")
        waiting = session.scalars(select(row).where(*same_run, *failed)).all()
        taskinstance.clear_task_instances([ti, *waiting], session)
        return len(waiting)


def is_triggerer_alive() -> bool:
    """Return whether a triggerer has sent a heartbeat recently. For commands only, as :func:`find_instances`."""
    from airflow.jobs.job import most_recent_job

    newest = most_recent_job("TriggererJob")
    return newest is not None and newest.is_alive()
