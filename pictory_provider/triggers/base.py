# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What the triggers of one job and of a batch share: plain arguments, XComs, and events that may be logged."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

from airflow.providers.common.compat.sdk import XCom
from airflow.triggers.base import BaseTrigger, TriggerEvent


class LoggableEvent(TriggerEvent):
    """An event whose ``repr``, which the triggerer logs, leaves out the queries of the results' URLs."""

    def __init__(self, payload: Any) -> None:
        super().__init__(payload)  # type: ignore[no-untyped-call]

    def for_log(self) -> Any:
        """Return what to log of the payload."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"TriggerEvent<{self.for_log()!r}>"

    __str__ = __repr__


class PictoryTrigger(BaseTrigger):
    """A trigger whose attributes are the arguments of its ``__init__``, all of them plain JSON.

    Airflow stores the arguments in its database in clear text, so none of them may be secret.

    :cvar arguments: their names.
    """

    arguments: ClassVar[tuple[str, ...]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls) and not hasattr(cls, "arguments"):  # a user's subclass keeps those of its base
            cls.arguments = tuple(inspect.signature(cls.__init__).parameters)[1:]

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path, and the arguments as plain JSON."""
        path = f"{type(self).__module__}.{type(self).__qualname__}"
        return path, {name: getattr(self, name) for name in self.arguments}

    @property
    def _instance(self) -> dict[str, Any]:
        """The task instance, as Airflow's XCom methods take it."""
        ti: Any = self.task_instance
        map_index = -1 if ti.map_index is None else ti.map_index
        return {"dag_id": ti.dag_id, "task_id": ti.task_id, "run_id": ti.run_id, "map_index": map_index}

    def _push(self, key: str, value: Any) -> None:
        """Push an XCom of the task instance; blocks."""
        XCom.set(key, value, **self._instance)
