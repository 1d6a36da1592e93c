# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Identify a task instance, and tell the first attempt, a retry and a clear apart.

A retry does not change ``ti.max_tries``. A user's clear sets it to the number of attempts made so far plus the
task's current ``retries``. So the value changes with a clear, unless ``retries`` was lowered by exactly as much.
For that case an attempt that has ended for good records that it has ended: if ``retries`` is different now, the
next attempt follows a clear. If ``retries`` is the same, it does not, whatever the record says: a worker may die
after it wrote the record and before Airflow heard of it, and Airflow then retries the task. Both a retry and a
clear change the try number and the task instance's id, so these cannot tell the two apart.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Attempt(NamedTuple):
    """What Airflow says of an attempt.

    :param max_tries: Airflow's ``ti.max_tries``.
    :param retries: of the task; ``None`` if unknown.
    """

    max_tries: int | None
    retries: int | None

    def is_clear_after(self, earlier: Attempt, *, has_ended: bool) -> bool:
        """Whether a user has cleared the task between an earlier attempt and this one.

        :param has_ended: whether the earlier one has recorded that it ended for good.
        """
        was_lowered = has_ended and None not in (self.retries, earlier.retries) and self.retries != earlier.retries
        return self.max_tries != earlier.max_tries or was_lowered


class MadeBy(NamedTuple):
    """The task instance that has bought a picture.

    :param map_index: -1 if it is not mapped.
    :param region_id: distinguishes the iterations of a loop, which have all else in common (Airflow 3.4 and
        later; a UUID as text); ``None`` if there is none.
    :param region_index: its index in that region: the iteration, for a task that is itself in a loop.
    """

    dag_id: str | None
    run_id: str | None
    task_id: str | None
    map_index: int
    region_id: str | None = None
    region_index: int | None = None

    @classmethod
    def from_task_instance(cls, ti: Any) -> MadeBy:
        """Create it from a task instance: Airflow's ``context["ti"]``, or one of its database."""
        map_index = -1 if ti.map_index is None else ti.map_index
        return cls(ti.dag_id, ti.run_id, ti.task_id, map_index, *(region_of(ti) or ()))

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> MadeBy:
        """Read the JSON of :meth:`to_dict`, from this release or an earlier one."""
        map_index, region_id, region_index = (value.get(name) for name in cls._fields[3:])
        has_region = isinstance(region_id, str) and isinstance(region_index, int)
        return cls(
            value.get("dag_id"),
            value.get("run_id"),
            value.get("task_id"),
            map_index if isinstance(map_index, int) else -1,
            *((region_id, region_index) if has_region else ()),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON; for a task outside any region, in the format of version 0.1.0."""
        return {name: value for name, value in self._asdict().items() if value is not None or "region" not in name}

    def is_replaced_by(self, other: MadeBy) -> bool:
        """Whether a clear has replaced this loop iteration with another.

        For a mapped task in a loop the answer is unknown: its iterations have the same indexes, each in its own
        region.
        """
        has_regions = None not in (self.region_id, other.region_id) and self.region_id != other.region_id
        return has_regions and self.map_index < 0 and self._replace(region_id=other.region_id) == other

    def __str__(self) -> str:
        of_index = "" if self.map_index < 0 else f", map index {self.map_index}"
        if self.map_index < 0 and self.region_index is not None:
            of_index = f", iteration {self.region_index}"
        return f"task {self.task_id} of DAG {self.dag_id}, run {self.run_id}{of_index}"


def region_of(ti: Any) -> tuple[str, int] | None:
    """Return the region of a task instance and its index there.

    It is ``None`` for a task that is neither mapped nor in a loop, and before Airflow 3.4.

    Every iteration of a loop has the same DAG, run, task and map index. A clear keeps a task instance's region,
    unless it replaces the iterations after a cleared one: those are new (seen on 3.4.0b2).
    """
    region_id, region_index = getattr(ti, "region_id", None), getattr(ti, "region_index", None)
    if region_id is None or region_index is None or not getattr(region_id, "int", 0):
        return None
    return str(region_id), int(region_index)
