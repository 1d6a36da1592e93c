# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A private PostgreSQL server on a free loopback port, run as an unprivileged user and deleted afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demo.stack import HOST, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

ORDINARY_USER = "nobody"


def programs() -> Path:
    """Return the folder of PostgreSQL's server programs, which Debian does not put on the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
    on_path = shutil.which("initdb")
    if not found and not on_path:
        raise RuntimeError("PostgreSQL's server is needed here: apt-get install postgresql, or run .ci/run")
    return found[0].parent if found else Path(on_path).parent


@contextmanager
def postgres() -> Iterator[str]:
    """Serve an empty database ``airflow``, and yield its URL without a driver: ``postgresql://...``."""
    folder = Path(tempfile.mkdtemp(prefix="pictory-postgres-"))
    user = {}
    if os.geteuid() == 0:  # the server refuses to be root
        account = pwd.getpwnam(ORDINARY_USER)
        os.chown(folder, account.pw_uid, account.pw_gid)
        user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    port, data = free_port(), folder / "data"
    try:
        call(
            "initdb", "--pgdata", data, "--auth", "trust", "--username", "airflow", "--no-sync", cwd=folder, **user
        )
        with (folder / "server.log").open("wb") as log:
            options = ["-D", data, "-h", HOST, "-p", str(port), "-k", folder, "-c", "fsync=off"]
            server = subprocess.Popen(
                [programs() / "postgres", *options],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **user,
            )
        try:
            _wait_until_ready(server, port, folder / "server.log")
            call("createdb", "-h", HOST, "-p", str(port), "-U", "airflow", "airflow")
            yield f"postgresql://airflow@{HOST}:{port}/airflow"
        finally:
            server.send_signal(signal.SIGINT)  # fast shutdown, which disconnects all clients
            server.wait(30)
    finally:
        shutil.rmtree(folder)


def call(program: str, *arguments: str | Path, **options: Any) -> str:
    """Run one of PostgreSQL's programs, and return what it prints."""
    done = subprocess.run(
        [programs() / program, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        **options,
    )
    if done.returncode:
        raise RuntimeError(f"{program}: {done.stderr}")
    return done.stdout


def _wait_until_ready(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    ended = time.monotonic() + 60
    while time.monotonic() < ended and server.poll() is None:
        with suppress(RuntimeError):
            call("pg_isready", "-h", HOST, "-p", str(port))
            return
        time.sleep(0.1)
    raise RuntimeError(log.read_text())
