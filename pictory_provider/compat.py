# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The only module that knows Airflow versions.

Names that merely moved come from ``airflow.providers.common.compat.sdk``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow import __version__ as _airflow_version

if TYPE_CHECKING:
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

_RACE_WINDOW = 8.0


def airflow_line() -> str:
    """Return the line of releases that this Airflow belongs to, such as ``3.2``."""
    return ".".join(str(part) for part in AIRFLOW_VERSION)


def shortest_absence() -> float:
    """Return the seconds that a task must stay away once it has let go of its worker.

    Before 3.4 the scheduler often marks a task failed that is queued again, by its trigger's event or by its
    reschedule date, while the worker that it left is still being wound up. That takes up to
    ``[workers] min_heartbeat_interval``, 5 s by default (apache/airflow#66374, #72716; measured with
    deferral: 8 of 20 tasks lost at 3 s, 1 of 20 at 5 s, none of 20 at 7 s; rescheduling loses them too).
    """
    return _RACE_WINDOW if AIRFLOW_VERSION < (3, 4) else 0.0


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


def keep_state_of(dag_id: str, run_id: str, task_id: str, map_index: int, *, key: str, value: str) -> str | None:
    """Put something into the state store of a task instance, from a command with Airflow's database.

    :param value: JSON.
    :return: why it could not be put there.
    """
    if not keeps_state():
        return f"Airflow {airflow_line()} keeps no state of a task; 3.3 and later do."
    from airflow._shared.state import TaskScope
    from airflow.state.metastore import MetastoreBackend

    scope = TaskScope(dag_id=dag_id, run_id=run_id, task_id=task_id, map_index=map_index)
    try:
        MetastoreBackend().set(scope, key, value)
    except Exception as error:
        return f"The job could not be put on the record of {dag_id} {run_id} {task_id} {map_index}: {error}."
    return None


def living_triggerers() -> bool:
    """Return whether a triggerer has given a sign of life lately, from a command with Airflow's database."""
    from airflow.jobs.job import most_recent_job

    newest = most_recent_job("TriggererJob")
    return newest is not None and newest.is_alive()
