# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Replacements for Airflow's objects, as far as a task uses them, for tests without a running Airflow."""

from __future__ import annotations

import json
from typing import Any


class TaskInstance:
    """A task instance: its ids, its XComs, and when it was first rescheduled."""

    dag_id = "covers"
    run_id = "manual__2026-11-21T04:15:34+00:00"
    task_id = "generate"
    map_index = -1
    max_tries = 2
    try_number = 1

    def __init__(self) -> None:
        self.xcoms: dict[str, Any] = {}
        self.order: list[str] = []
        self.first_reschedule_date: Any = None

    def clear(self) -> None:
        """Clear the task as a user does after it has run."""
        self.max_tries += 1

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = value
        self.order.append(key)

    def xcom_pull(self, *, task_ids: str, key: str, map_indexes: int) -> Any:
        return self.xcoms.get(key)

    def get_first_reschedule_date(self, context: Any) -> Any:
        return self.first_reschedule_date


class StateStore:
    """A task state store, which survives the attempts of a task. Its values pass through JSON, as in a database."""

    def __init__(self) -> None:
        self.rows: dict[str, str] = {}

    def get(self, key: str, default: Any = None) -> Any:
        return json.loads(self.rows[key]) if key in self.rows else default

    def set(self, key: str, value: Any) -> None:
        assert value is not None
        self.rows[key] = json.dumps(value)

    def delete(self, key: str) -> None:
        self.rows.pop(key, None)


def says(pattern: str) -> str:
    """Return a regular expression for a part of an error text, however its lines are broken."""
    return "(?s)" + pattern.replace(" ", r"\s+")
