# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Set up an Airflow with FAB's auth manager: users, roles, and the runs of two DAGs."""

from __future__ import annotations

import json
import os
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder

SHOWN, HIDDEN = "browser_shown", "browser_hidden"
TABS = ("can_read", "Plugins")


def make_users(users: dict[str, str], passwords: dict[str, str]) -> None:
    with get_application_builder() as appbuilder:
        manager = appbuilder.sm
        manager.sync_roles()
        viewer = [(each.action.name, each.resource.name) for each in manager.find_role("Viewer").permissions]
        one_dag = [pair for pair in viewer if pair != ("can_read", "DAGs")]
        roles = {
            "Curator": [*viewer, TABS],  # the permission that the docs tell users to add
            "Painter": [*one_dag, ("can_read", f"DAG:{SHOWN}"), TABS],
            "Clerk": [pair for pair in viewer if pair[1] != "XComs"] + [TABS],
        }
        for name, pairs in roles.items():
            role = manager.add_role(name)
            for pair in pairs:
                manager.add_permission_to_role(role, manager.create_permission(*pair))
        for name, role in users.items():
            email = f"{name}@example.org"
            assert manager.add_user(name, name, name, email, manager.find_role(role), passwords[name])


def make_runs(dags: Path) -> None:
    for file in sorted(dags.glob("*.py")):
        spec = spec_from_file_location(file.stem, file)
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        for dag in (module.shown, module.hidden):
            dag.test()


if __name__ == "__main__":
    accounts = json.loads(sys.argv[1])
    make_users(accounts["users"], accounts["passwords"])
    make_runs(Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"]))
