# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Airflow installations with users of different permissions."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import jwt
import requests

from demo.stack import HOST, AirflowStack, StackError, make_database

ROOT = Path(__file__).resolve().parents[2]
SECRET = "the secret of a private Airflow, with which its tokens are signed: " + 64 * "x"


def env_of_gallery(simulator, pictures):
    """Return the environment of an Airflow that saves pictures in one folder, and shows them."""
    return {
        "AIRFLOW_CONN_PICTORY_DEFAULT": simulator.connection_json(),
        "AIRFLOW_VAR_PICTORY_PICTURES": str(pictures),
        "AIRFLOW__PICTORY__GALLERY_PATHS": str(pictures),
    }


class AirflowOfMany(AirflowStack):
    """An Airflow with a prefix in its ``base_url`` and users of different permissions. Its calls are the admin's."""

    USERS: ClassVar = {"boss": "admin", "reader": "viewer", "stranger": "viewer"}

    def __init__(self, home, dags, *, env):
        super().__init__(home, dags, env=env)
        self.url = f"http://{HOST}:{self.port}/airflow"
        self.passwords = {name: f"{name}-secret" for name in self.USERS}
        file = home.parent / "passwords.json"
        file.write_text(json.dumps(self.passwords))
        self.env |= {
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{n}:{role}" for n, role in self.USERS.items()),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(file),
            "AIRFLOW__CORE__AUTH_MANAGER": "tests.browser.managers.PerDag",
            "AIRFLOW__SCHEDULER__ALLOWED_RUN_ID_PATTERN": ".*",
            "AIRFLOW__API_AUTH__JWT_SECRET": SECRET,
            "PYTHONPATH": str(ROOT),
        } | dict(env)

    def log_in(self):
        self._session.headers["Authorization"] = f"Bearer {self.token('boss')}"

    def token(self, name):
        login = {"username": name, "password": self.passwords[name]}
        reply = requests.post(f"{self.url}/auth/token", json=login, timeout=30)
        assert reply.status_code == 201, reply.text
        return reply.json()["access_token"]

    def expired_token(self, name):
        """Return a user's token as it is after it has expired."""
        valid = self.token(name)
        claims = jwt.decode(valid, options={"verify_signature": False})
        header = jwt.get_unverified_header(valid)
        times = {claim: claims[claim] - 1_000_000 for claim in ("iat", "nbf", "exp") if claim in claims}
        return jwt.encode(claims | times, SECRET, algorithm=header["alg"], headers=header)

    def ask(self, path, name=None, **options):
        """Send a request to the pages' application, as a user or without a login."""
        headers = {"Authorization": f"Bearer {self.token(name)}"} if name else {}
        return requests.get(f"{self.url}/pictory/{path}", headers=headers, timeout=60, **options)


class AirflowWithFab(AirflowOfMany):
    """An Airflow with FAB's auth manager: an API server, and a database that ``roles.py`` fills."""

    USERS: ClassVar = {
        "boss": "Admin",
        "operator": "Op",
        "writer": "User",
        "reader": "Viewer",
        "curator": "Curator",
        "painter": "Painter",
        "clerk": "Clerk",
        "outsider": "Public",
    }

    def __init__(self, home, dags, *, env):
        fab = {"AIRFLOW__CORE__AUTH_MANAGER": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"}
        super().__init__(home, dags, env=fab | dict(env))
        self._tokens = {}

    def _start(self):
        make_database(self.home, self.env)
        log = self.home / "roles.log"
        accounts = json.dumps({"users": self.USERS, "passwords": self.passwords})
        with log.open("wb") as file:
            program = [sys.executable, "-m", "tests.browser.roles", accounts]
            done = subprocess.run(
                program, check=False, cwd=ROOT, env=self.env, stdout=file, stderr=file, timeout=300
            )
        if done.returncode:
            raise StackError(log.read_text()[-4000:])
        self.start_component("api-server")
        for _ in self.until(120):
            with suppress(requests.RequestException):
                if self._session.get(f"{self.url}/api/v2/version", timeout=5).ok:
                    return self.log_in()
        raise StackError(f"The API server does not answer: {self._tail('api-server')}")

    def token(self, name):
        if name not in self._tokens:
            self._tokens[name] = super().token(name)
        return self._tokens[name]
