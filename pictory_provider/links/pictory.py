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
PREFIX = "pictory"
"""Where the API server mounts the pages."""
TASK_ROUTE = "pictory-task"
"""The tab *Pictures* of a task instance, in Airflow's URLs."""


def has_gallery() -> bool:
    """Whether Airflow has the tabs and the page *Pictures*: ``[pictory] gallery``, on by default."""
    return bool(conf.getboolean("pictory", "gallery", fallback=True))


class PictoryJobLink(BaseOperatorLink):
    """The generated image at Pictory's URL; before that, the task's page *Pictures*.

    Airflow calls :meth:`get_link` on the worker, whenever a task ends or defers, and stores the result. The
    operator sets ``image_url`` when it has the picture.
    """

    name = "Pictory image"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the image's URL; if there is none yet, the URL of the page, or of the account's pictures."""
        url: str | None = getattr(operator, "image_url", None)
        return url or pictures_of(ti_key)


class PictoryBatchLink(BaseOperatorLink):
    """The pictures of a batch, on its task's page *Pictures*."""

    name = "Pictory images"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        """Return the page's URL, or the URL of the account's pictures."""
        return pictures_of(ti_key)


def pictures_of(ti_key: TaskInstanceKey | None) -> str:
    """Return the URL of a task's pictures: in Airflow, if it has the pages, or on Pictory's own site."""
    return airflow_url(ti_key) if ti_key and has_gallery() else GALLERY


def airflow_url(ti_key: TaskInstanceKey) -> str:
    """Return the URL in Airflow that leads a user to a task's pictures.

    Airflow shows plugins, and so the tabs, only to users who may read plugins. So the API server decides when a
    user follows the link: it redirects to the tab, or to the page that the tab shows.
    A worker may not know the API server's URL. Airflow's page has a ``<base>``, so a relative URL works too.
    """
    base = str(conf.get("api", "base_url", fallback="") or "").rstrip("/")
    map_index = -1 if ti_key.map_index is None else ti_key.map_index
    page = page_of("open", ti_key.dag_id, ti_key.run_id, ti_key.task_id, map_index)
    return f"{base}{'/' * bool(base)}{PREFIX}/{page}"


def page_of(kind: str, dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    """Return the path of a task's page below the mounted application."""
    return "/".join((kind, *_quoted(dag_id, run_id, task_id), str(map_index)))


def tab_of(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    """Return the path of a task's tab *Pictures* below Airflow's own URL."""
    dag_id, run_id, task_id = _quoted(dag_id, run_id, task_id)
    mapped = f"/mapped/{map_index}" if map_index >= 0 else ""
    return f"dags/{dag_id}/runs/{run_id}/tasks/{task_id}{mapped}/plugin/{TASK_ROUTE}"


def _quoted(*parts: str) -> tuple[str, ...]:
    return tuple(quote(part, safe="") for part in parts)
