# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The links on a task's page."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow.providers.common.compat.sdk import BaseOperatorLink, conf

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, TaskInstanceKey

GALLERY = "https://app.pictory.ai"
"""Pictory's own site. It documents no page of a single job."""
TASK_ROUTE = "pictory-task"
"""The tab *Pictures* of a task instance, in Airflow's addresses."""


def has_gallery() -> bool:
    """Whether Airflow has the tabs and the page *Pictures*: ``[pictory] gallery``, on by default."""
    return bool(conf.getboolean("pictory", "gallery", fallback=True))


class PictoryJobLink(BaseOperatorLink):
    """The finished image, at the URL that Pictory gave; until then its place in the task's tab *Pictures*.

    Airflow asks for the link on the worker, at the end of every leg of a task, and keeps the answer. So the
    task's own ``image_url`` tells it, which the leg that finishes has set.
    """

    name = "Pictory image"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the image's URL; while there is none, that of the tab, or of the account's pictures."""
        url: str | None = getattr(operator, "image_url", None)
        return url or pictures_of(ti_key)


class PictoryBatchLink(BaseOperatorLink):
    """The pictures of a batch: its task's tab *Pictures*."""

    name = "Pictory images"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        """Return the tab's URL, or that of the account's pictures."""
        return pictures_of(ti_key)


def pictures_of(ti_key: TaskInstanceKey | None) -> str:
    """Return where to look for a task's pictures: its tab, where Airflow has it, or Pictory's own site."""
    return place_in_airflow(ti_key) if ti_key and has_gallery() else GALLERY


def place_in_airflow(ti_key: TaskInstanceKey) -> str:
    """Return the address of a task's tab *Pictures*.

    A worker may not know where the API server is. Airflow's page has a ``<base>``, so a relative one works too.
    """
    base = str(conf.get("api", "base_url", fallback="") or "").rstrip("/")
    dag_id, run_id, task_id = (quote(part, safe="") for part in (ti_key.dag_id, ti_key.run_id, ti_key.task_id))
    mapped = f"/mapped/{ti_key.map_index}" if ti_key.map_index is not None and ti_key.map_index >= 0 else ""
    return f"{base}{'/' * bool(base)}dags/{dag_id}/runs/{run_id}/tasks/{task_id}{mapped}/plugin/{TASK_ROUTE}"
