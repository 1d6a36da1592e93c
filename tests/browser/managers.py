# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Auth managers: one that hides every DAG whose name begins with `browser.pictures` from the user `stranger`."""

from __future__ import annotations

from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager


class PerDag(SimpleAuthManager):
    """Airflow's simple auth manager, with one user who may not read some DAGs."""

    def is_authorized_dag(self, *, method, user, access_entity=None, details=None):
        dag_id = details.id if details else None
        if user.get_name() == "stranger" and str(dag_id).startswith("browser.pictures"):
            return False
        return super().is_authorized_dag(method=method, user=user, access_entity=access_entity, details=details)


class Gate:
    """An auth manager that the command `check` does not know."""
