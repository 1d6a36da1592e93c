# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Find out which users of Airflow see the tabs *Pictures*."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import conf

if TYPE_CHECKING:
    from collections.abc import Iterable

FAB = "airflow.providers.fab."
SIMPLE = "airflow.api_fastapi.auth.managers.simple."
MAY_READ, PLUGINS, DAGS = "can_read", "Plugins", ("DAGs", "DAG:")
"""The names that FAB's auth manager stores; ``DAG:`` begins the name of a single DAG."""


def who_sees_tabs() -> tuple[bool | None, str]:
    """Return whether Airflow shows the tabs and the page *Pictures* to every user who reads DAGs.

    Airflow's UI gets the tabs from ``GET /api/v2/plugins``, which needs the right to read plugins.

    :return: the answer, ``None`` if this code cannot decide it; and a sentence that explains it.
    :raises Exception: anything, if FAB's tables cannot be read from here.
    """
    manager: type = conf.getimport("core", "auth_manager")
    modules = [base.__module__ for base in manager.__mro__]
    if any(module.startswith(FAB) for module in modules):
        return check_roles(stored_roles())
    if any(module.startswith(SIMPLE) for module in modules):
        return True, "Airflow shows the tabs to every user"
    return None, f"{manager.__name__} decides: Airflow shows the tabs to users who may read plugins"


def check_roles(roles: Iterable[tuple[str, set[tuple[str, str]]]]) -> tuple[bool | None, str]:
    """Return the same as :func:`who_sees_tabs` for FAB's roles.

    :param roles: each role's name, and its pairs of action and resource.
    """
    blind = sorted(
        name
        for name, permissions in roles
        if any(action == MAY_READ and resource.startswith(DAGS) for action, resource in permissions)
        and (MAY_READ, PLUGINS) not in permissions
    )
    if not blind:
        return True, "Airflow shows the tabs to every role that reads DAGs"
    return None, (
        f"Airflow shows no tabs to the roles {', '.join(blind)}: they lack `can read` on Plugins. Task links "
        "still work for them"
    )


def stored_roles() -> list[tuple[str, set[tuple[str, str]]]]:
    """Read FAB's roles from Airflow's database."""
    from airflow.providers.fab.auth_manager.models import Role
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        return [
            (role.name, {(pair.action.name, pair.resource.name) for pair in role.permissions})
            for role in session.scalars(select(Role)).unique()
        ]
