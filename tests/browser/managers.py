# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""An auth manager with rights by DAG: to `stranger` no DAG exists whose name begins with `browser.pictures`."""

from __future__ import annotations

from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager


class PerDag(SimpleAuthManager):
    """Airflow's simple one, and one user who may not read some DAGs."""

    def is_authorized_dag(self, *, method, user, access_entity=None, details=None):
        dag_id = details.id if details else None
        if user.get_name() == "stranger" and str(dag_id).startswith("browser.pictures"):
            return False
        return super().is_authorized_dag(method=method, user=user, access_entity=access_entity, details=details)
