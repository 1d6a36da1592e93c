# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The plugin as every component of Airflow loads it: only the names of the pages.

The web application is imported at its first request, which only an API server receives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowPlugin

from pictory_provider.links.pictory import PREFIX, TASK_ROUTE, has_gallery

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# The `href` of a view is relative, so that a path in `[api] base_url` applies to it.
# The ids are in the path: Airflow 3.1 does not encode them, and in a query `+` would become a blank.
PAGES = {
    "nav": ("pictory", "newest"),
    "dag": ("pictory-dag", "dag/{DAG_ID}"),
    "dag_run": ("pictory-run", "run/{DAG_ID}/{RUN_ID}"),
    "task_instance": (TASK_ROUTE, "task/{DAG_ID}/{RUN_ID}/{TASK_ID}/{MAP_INDEX}"),
}
"""By destination: the view's name in Airflow's URLs, which must be unique, and its page."""


class LazyApp:
    """An ASGI application that is imported at its first request."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request to the application."""
        from pictory_provider.plugins.web import app

        await app(scope, receive, send)


def apps() -> list[dict[str, Any]]:
    """Return the applications that Airflow mounts."""
    return [{"name": "Pictory", "app": LazyApp(), "url_prefix": f"/{PREFIX}"}]


def views() -> list[dict[str, Any]]:
    """Return the tabs, and the page in the navigation."""
    return [
        {
            "name": "Pictures",
            "destination": destination,
            "url_route": route,
            "href": f"{PREFIX}/{page}",
            "icon": f"{PREFIX}/static/icon.svg",
            "icon_dark_mode": f"{PREFIX}/static/icon-dark.svg",
            **({"nav_top_level": True} if destination == "nav" else {}),
        }
        for destination, (route, page) in PAGES.items()
    ]


class PictoryPlugin(AirflowPlugin):
    """The tabs and the page *Pictures*; empty if ``[pictory] gallery`` is off."""

    name = "pictory"
    fastapi_apps: list[Any] = apps() if has_gallery() else []
    external_views: list[Any] = views() if has_gallery() else []
