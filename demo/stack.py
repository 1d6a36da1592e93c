# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A private Airflow with all components, on SQLite and loopback, whose processes all end with it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

import psutil
import requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")
# Log servers listen on every address, and are not needed on one machine.
_SERVE_LOGS = ("scheduler", "triggerer", "celery worker")
HOST = "127.0.0.1"
_HEALTHY_WITHIN = 180.0
_ENDED = "success", "failed"
_GRACE = 3.0
_SQLITE = "config/pictory_sqlite.py", "ARGUMENTS = {'timeout': 120}  # seconds to wait for a lock\n"
"""A module that the private Airflow imports from its folder ``config``."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StackError(RuntimeError):
    """The private Airflow did not start, or a call failed."""


class AirflowStack:
    """Scheduler, triggerer, DAG processor and API server of one private Airflow.

    As a context manager it starts them, waits until they are healthy, and finally stops all their processes.

    :param home: the AIRFLOW_HOME, which is created anew.
    :param dags: the folder of DAG files.
    :param env: more environment variables, such as connections.
    :param say: receives short progress messages.
    """

    def __init__(
        self,
        home: Path,
        dags: Path,
        *,
        env: Mapping[str, str] | None = None,
        port: int | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.home = home
        self.port = port or free_port()
        self.url = f"http://{HOST}:{self.port}"
        self.env = airflow_env(home, dags, self.port) | dict(env or {})
        self._say = say
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._session = requests.Session()
        self._session.trust_env = False

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self) -> None:
        make_database(self.home, self.env, self._say)
        self._say("starting its scheduler, triggerer, DAG processor and API server")
        for component in COMPONENTS:
            self.start_component(component)
        self._wait_until_healthy()
        self.log_in()

    def log_in(self) -> None:
        """Get the token for calls of the API."""
        token = self._session.get(f"{self.url}/auth/token", timeout=10).json()["access_token"]
        self._session.headers["Authorization"] = f"Bearer {token}"

    def start_component(self, component: str, name: str | None = None, *arguments: str) -> subprocess.Popen[bytes]:
        """Start one component in a new session, with its output in ``<name>.log``.

        :param component: the command of ``airflow``, such as ``scheduler`` or ``celery worker``.
        :param name: a unique name, by default that of the component.
        :param arguments: more command-line arguments.
        """
        name = name or component
        if component in _SERVE_LOGS:
            arguments = ("--skip-serve-logs", *arguments)
        env = dict(self.env)
        # The API server writes over two connections, and one may wait for the other. It keeps a short timeout, and
        # `call` repeats the request. This may happen several times in a row, so the others wait for long: the
        # scheduler dies if it cannot write.
        if component != "api-server" and "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN" not in env:
            env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS"] = "pictory_sqlite.ARGUMENTS"
        with (self.home / f"{name}.log").open("ab") as log, _uninterrupted(afterwards=True):
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", "airflow", *component.split(), *arguments],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self._processes[name]

    def kill_component(self, name: str) -> None:
        """Kill one component and every process of its session, as a power failure would."""
        leader = self._processes.pop(name)
        for process in _members([leader.pid]):
            process.kill()
        leader.wait()

    def processes(self, name: str | None = None) -> list[psutil.Process]:
        """Return every living process of the sessions of all components, or of one."""
        leaders = [self._processes[name]] if name else self._processes.values()
        return list(_members([process.pid for process in leaders]))

    def stop(self) -> None:
        """Stop all components and all processes of their sessions; signals are ignored meanwhile."""
        with _uninterrupted():
            self._stop()

    def _stop(self) -> None:
        for leader in self._processes.values():
            with suppress(ProcessLookupError):
                os.killpg(leader.pid, signal.SIGTERM)
        ended = time.monotonic() + _GRACE
        while time.monotonic() < ended and self.processes():
            self._reap()
            time.sleep(0.05)
        while found := self.processes():
            for process in found:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            self._reap()
            time.sleep(0.02)
        for process in self._processes.values():
            process.wait()
        self._processes.clear()
        self._session.close()

    def call(self, method: str, path: str, **json_body: Any) -> Any:
        """Call Airflow's REST API and return its JSON.

        A 500 means that SQLite was locked for too long. The call is repeated if it is idempotent, or if Airflow
        reports an error of its database. A GET is also repeated if a busy machine answers too late.
        """
        for _ in self.until(120):
            try:
                reply = self._session.request(
                    method, f"{self.url}/api/v2{path}", json=json_body or None, timeout=30
                )
            except requests.RequestException as error:
                if method == "GET" and isinstance(error, requests.Timeout):
                    continue
                raise StackError(f"{method} {path}: {error}") from error
            if reply.status_code != 500 or not (method in ("GET", "PATCH") or "Database error" in reply.text):
                break
        else:
            raise StackError(f"{method} {path}: no answer without an error of the server in two minutes")
        if reply.status_code >= 400:
            raise StackError(f"{method} {path}: {reply.status_code} {reply.text[:500]}")
        return reply.json() if reply.content else None

    def unpause(self, dag_id: str) -> None:
        """Wait until a DAG is known, and unpause it."""
        for _ in self.until(90):
            with suppress(StackError):
                self.call("PATCH", f"/dags/{dag_id}", is_paused=False)
                return
        raise StackError(f"Airflow does not know {dag_id}: {self.import_errors()}")

    def trigger(self, dag_id: str, **conf: Any) -> str:
        """Wait until a DAG is known, start a run of it, and return the run's id."""
        self.unpause(dag_id)
        # With a fixed name, a repeated call cannot create a second run, which might buy pictures.
        run_id = f"manual__{datetime.now(UTC).isoformat()}"
        self.call("POST", f"/dags/{dag_id}/dagRuns", dag_run_id=run_id, logical_date=None, conf=conf)
        return run_id

    def import_errors(self) -> list[str]:
        """Return the import errors of DAG files."""
        return [error["stack_trace"] for error in self.call("GET", "/importErrors")["import_errors"]]

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the task instances of a run; Airflow returns at most a hundred at a time."""
        path, found, total = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances?limit=100", [], 1
        while len(found) < total:
            page = self.call("GET", f"{path}&order_by=id&offset={len(found)}")
            found += page["task_instances"]
            total = page["total_entries"] if page["task_instances"] else 0
        return found

    def _states(self, dag_id: str, run_id: str) -> dict[str, str]:
        """Return the states of a run's tasks, by task id and map index."""
        return {_name(task): task["state"] or "waiting" for task in self.tasks(dag_id, run_id)}

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return the state of a run."""
        return str(self.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}")["state"])

    def watch(self, dag_id: str, run_id: str, *, timeout: float = 300) -> Iterator[dict[str, str]]:
        """Yield the states of a run's tasks, about twice a second, until the run has ended."""
        for _ in self.until(timeout):
            state = self.run_state(dag_id, run_id)
            yield self._states(dag_id, run_id)
            if state in _ENDED:
                return
        raise StackError(f"{dag_id} {run_id} did not end in {timeout:.0f} s")

    def finish(self, dag_id: str, run_id: str, *, timeout: float = 300) -> dict[str, str]:
        """Wait until a run has ended and return the states of its tasks."""
        for _ in self.until(timeout):
            if self.run_state(dag_id, run_id) in _ENDED:
                return self._states(dag_id, run_id)
        raise StackError(f"{dag_id} {run_id} did not end in {timeout:.0f} s")

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """Return one XCom value."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}"
        return self.call("GET", f"{path}?map_index={map_index}&deserialize=true")["value"]

    def task_log(self, dag_id: str, run_id: str, task_id: str, *, try_number: int = 1, map_index: int = -1) -> str:
        """Return the log of one attempt of a task as a single line, without line breaks."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}?map_index={map_index}"
        return re.sub(r"(\\n|\s)+", " ", json.dumps(self.call("GET", path)["content"]))

    def until(self, timeout: float) -> Iterator[None]:
        """Yield about twice a second until the timeout, in seconds; raise if a component has died."""
        ended = time.monotonic() + timeout
        while time.monotonic() < ended:
            yield
            self.check_alive()
            time.sleep(0.5)

    def check_alive(self) -> None:
        """Raise with the end of its log if a component has died."""
        for component, process in self._processes.items():
            if process.poll() is not None:
                raise StackError(f"{component} died ({process.returncode}): {self._tail(component)}")

    def _wait_until_healthy(self) -> None:
        for _ in self.until(_HEALTHY_WITHIN):
            with suppress(requests.RequestException, ValueError):
                health = self._session.get(f"{self.url}/api/v2/monitor/health", timeout=5).json()
                parts = ("metadatabase", "scheduler", "triggerer", "dag_processor")
                if all((health.get(part) or {}).get("status") == "healthy" for part in parts):
                    return
        raise StackError(f"Airflow was not healthy within {_HEALTHY_WITHIN:.0f} s; see {self.home}/*.log")

    def _tail(self, component: str) -> str:
        return (self.home / f"{component}.log").read_text(errors="replace")[-2000:]

    def _reap(self) -> None:
        for process in self._processes.values():
            process.poll()


def airflow_env(home: Path, dags: Path, port: int) -> dict[str, str]:
    """Return the environment of a private Airflow, without the caller's Airflow settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    url = f"http://{HOST}:{port}"
    return inherited | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": "4",
        # On a busy machine Airflow may lose a task that resumes from its deferral; the retry adopts its job. It
        # comes when the process of the first try has ended (after 5 s), or it could be lost in the same way.
        "AIRFLOW__CORE__DEFAULT_TASK_RETRIES": "1",
        "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "6",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        "AIRFLOW__API__HOST": HOST,
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
        "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "False",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",  # sooner if a file has changed
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "no_proxy": "127.0.0.1,localhost",
        "NO_PROXY": "127.0.0.1,localhost",
    }


def make_database(home: Path, env: Mapping[str, str], say: Callable[[str], None] = lambda _: None) -> None:
    """Create an empty AIRFLOW_HOME with a migrated database."""
    shutil.rmtree(home, ignore_errors=True)
    name, content = _SQLITE
    (home / name).parent.mkdir(parents=True)
    (home / name).write_text(content)
    say("making the database of a private Airflow")
    migration: subprocess.Popen[bytes] | None = None
    try:
        with (home / "migrate.log").open("wb") as log, _uninterrupted(afterwards=True):
            migration = subprocess.Popen(
                [sys.executable, "-m", "airflow", "db", "migrate"],
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        migration.wait()
    finally:
        # The migration must have ended before this function returns, whatever interrupts it.
        with _uninterrupted():
            if migration and migration.poll() is None:
                migration.kill()
                migration.wait()
    if migration.returncode:
        raise StackError(f"airflow db migrate failed: {(home / 'migrate.log').read_text()[-2000:]}")
    if (database := home / "airflow.db").exists():
        # All components share this file. With WAL, readers do not block writers.
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")


def free_port() -> int:
    """Return a port of the loopback address that is free now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether nothing listens on a port of the loopback address."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) != 0


@contextmanager
def _uninterrupted(*, afterwards: bool = False) -> Iterator[None]:
    """Block signals, so that none arrives between the start of a process and its registration.

    :param afterwards: raise the blocked signals after the block; otherwise they are dropped.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    # Not SIG_IGN, because a program that is started in the block would inherit it.
    before = {number: signal.signal(number, lambda n, _: received.append(n)) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for number in received if afterwards else ():
        signal.raise_signal(number)


def _name(task: dict[str, Any]) -> str:
    return task["task_id"] if task["map_index"] < 0 else f"{task['task_id']}[{task['map_index']}]"


def _members(leaders: list[int]) -> Iterator[psutil.Process]:
    """Yield every living process of the sessions that these processes lead."""
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, ProcessLookupError, PermissionError):
            if os.getsid(process.pid) in leaders and process.status() != psutil.STATUS_ZOMBIE:
                yield process
