# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests that kill a task at every line that it runs in this package, and then retry it.

Each attempt is a separate process, and is killed with SIGKILL: no handler runs, and nothing in memory survives. Only
Airflow's state survives, here in files: the state store, and the arguments of a trigger.
"""

from __future__ import annotations

import gc
import hashlib
import inspect
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from functools import partial
from http.client import HTTPConnection
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import requests
from airflow.providers.common.compat.sdk import AirflowFailException, get_hook_lineage_collector
from PIL import Image

import pictory_provider
from pictory_provider.core.submission import KEY
from pictory_provider.exceptions import PictorySubmitOutcomeUnknown
from pictory_provider.operators.pictory import GenerateImageOperator
from pictory_provider.operators.tasks import PictureTask
from pictory_provider.services.redo import redo
from tests.driver import to_its_end

if TYPE_CHECKING:
    from collections.abc import Callable

PACKAGE = str(Path(pictory_provider.__file__).parent)
KINDS = {
    "submit": {},
    "wait": {"wait_for_completion": True, "deferrable": False, "poll_interval": 0.01},
    "defer": {"wait_for_completion": True, "poll_interval": 0.01},
}
SAVING = {
    # kind: whether there is a task state store, and arguments of the operator
    "save": (True, {}),
    "save where there is no store": (False, {}),
    "save and replace": (True, {"overwrite": True}),
    "save and replace where there is no store": (False, {"overwrite": True}),
    "save with a mark": (False, {"mark_ai_generated": True}),
    "save what is made from an upload": (False, {"reference_upload": True}),
}
KILLED = -signal.SIGKILL
IS_QUICK = bool(os.environ.get("PICTORY_QUICK"))
"""Whether to kill at one line of those that leave the same behind. Otherwise tasks that save nothing are killed
at all of 900 lines, the others at two lines of each such group."""


class Files:
    """Airflow's state store and XComs, as far as a task uses them, in a folder, with atomic writes."""

    dag_id, run_id, task_id, map_index, max_tries, try_number = "d", "r", "generate", -1, 2, 1

    def __init__(self, folder: Path, *, run_id: str = "r", clears: int = 0) -> None:
        self.folder = folder
        self.run_id = run_id
        self.max_tries += clears

    def get(self, key: str, default: Any = None) -> Any:
        file = self.folder / key
        return json.loads(file.read_text()) if file.exists() else default

    def set(self, key: str, value: Any) -> None:
        part = self.folder / f"{key}.part"
        part.write_text(json.dumps(value))
        part.replace(self.folder / key)

    def delete(self, key: str) -> None:
        (self.folder / key).unlink(missing_ok=True)

    def xcom_push(self, key: str, value: Any) -> None:
        self.set(f"xcom_{key}", value)

    def xcom_pull(self, *, task_ids: str, key: str, map_indexes: int) -> Any:
        return self.get(f"xcom_{key}")


@pytest.fixture(scope="module")
def pictory():
    """Start the simulator as a program, because this process must be single-threaded to be forked."""
    command = [sys.executable, "-m", "pictory_provider.simulator", "--seconds", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        address = process.stdout.readline().split(" listens at ")[1].split(";")[0]
        process.stdout.readline()
        os.environ["AIRFLOW_CONN_PICTORY_DEFAULT"] = process.stdout.readline().split("=", 1)[1].strip().strip("'")
        yield address.removesuffix("/pictoryapis")
        process.terminate()
    del os.environ["AIRFLOW_CONN_PICTORY_DEFAULT"]


def in_a_child(work: Any) -> int:
    """Run a function in a child process, and return its exit code."""
    gc.freeze()  # a collection in the child would copy all memory of this process
    child = os.fork()
    if child == 0:
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 1)
        os.dup2(devnull, 2)
        try:
            work()
        except PictorySubmitOutcomeUnknown:
            os._exit(3)
        except AirflowFailException:
            os._exit(4)
        except BaseException:
            os._exit(5)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def kill_at(line: int) -> None:
    """Kill this process right before it runs the line with this number, counted over this package."""
    count = 0

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal count
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            count += 1
            if count == line:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)


def run_attempt(files: Files, kind: str) -> None:
    """Run one attempt of a task, to its end."""

    def task() -> GenerateImageOperator:
        return GenerateImageOperator(task_id="generate", prompt="A lighthouse at dawn", **KINDS[kind])

    context = {"ti": files, "task_state_store": files}
    files.set("returned", to_its_end(task(), context, task))


def published(lines: list[tuple[int, str]]) -> int:
    """Return the number of the line that publishes the jobId."""
    source, first = inspect.getsourcelines(PictureTask._publish)
    own = {f"{inspect.getsourcefile(PictureTask)}:{first + n}" for n in range(len(source))}
    return next(number for number, line in lines if line in own)


def billed(pictory: str) -> list[str]:
    return [job["jobId"] for job in requests.get(f"{pictory}/_simulator/state", timeout=10).json()["jobs"]]


def uploaded(pictory: str) -> int:
    sent = requests.get(f"{pictory}/_simulator/requests", timeout=10).json()
    return sum(request["method"] == "PUT" for request in sent)


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_killed_at_any_line_is_billed_once_or_reports_an_unknown_outcome(pictory, tmp_path, kind):
    """All kinds run the same lines before the jobId is published; only the first kind is killed there."""
    lines = lines_of(pictory, tmp_path / "counting", lambda folder: run_attempt(Files(folder), kind))
    points = [(number, line) for number, line, _ in lines]
    common = 0 if kind == "submit" else published(points)
    assert len(lines) - common > 100
    if IS_QUICK:
        points = turning_points(lines)
    reported = []
    for number, line in points:
        if number < common:
            continue
        requests.post(f"{pictory}/_simulator/reset", timeout=10)
        folder = tmp_path / str(number)
        folder.mkdir()

        def work(folder: Path = folder, number: int = number) -> None:
            kill_at(number)
            run_attempt(Files(folder), kind)

        assert in_a_child(work) == KILLED, line
        before = Files(folder).get(KEY)
        ended = in_a_child(lambda folder=folder: run_attempt(Files(folder), kind))
        jobs = billed(pictory)
        assert len(jobs) <= 1, line
        if ended == 0:
            assert [Files(folder).get("returned")] == jobs == [Files(folder).get("xcom_jobId")], line
        else:
            assert ended == 3, line
            assert before is not None, line
            assert "jobId" not in before, line
            reported.append(line)
    files = {line.removeprefix(PACKAGE).split(":")[0] for line in reported}
    window = WINDOW if kind == "submit" else set()
    assert files <= window if IS_QUICK else files == window


WINDOW = {
    # Files whose code runs between the intent and the record: send, parse the reply, store it.
    "/client/clocks.py",
    "/api/connection.py",
    "/api/decoding.py",
    "/api/endpoints.py",
    "/client/masking.py",
    "/api/models.py",
    "/api/network.py",
    "/api/responses.py",
    "/client/faults.py",
    "/client/sync.py",
    "/services/state.py",
    "/core/submission.py",
    "/services/submit.py",
}


# A task that saves its picture ---------------------------------------------------------------------------


def saving_attempt(folder: Path, kind: str, *, run_id: str = "r", clears: int = 0) -> None:
    """Run one attempt of a task that saves its picture. Each run has its own state store."""
    has_store, options = SAVING[kind]
    ours = folder / run_id
    ours.mkdir(exist_ok=True)
    files = Files(ours, run_id=run_id, clears=clears)
    context = {"ti": files, "task_state_store": files} if has_store else {"ti": files}
    if "reference_upload" in options:
        reference = folder / "reference.png"
        if not reference.exists():
            Image.new("RGB", (8, 8)).save(reference)
        options = {**options, "reference_image_url": str(reference)}
    task = GenerateImageOperator(
        task_id="generate",
        prompt="A lighthouse at dawn",
        path=str(folder / "pictures" / "a.png"),
        deferrable=False,
        poll_interval=0.01,
        **options,
    )
    files.set("returned", task.execute(context))


def import_what_is_used(pictory: str, folder: Path, run: Callable[[Path], None]) -> None:
    """Import into this process what an attempt imports.

    Otherwise each child would import it again, which takes longer than the attempt, and runs more lines of this
    package.
    """
    folder.mkdir()
    names = folder / "modules"

    def work() -> None:
        run(folder)
        names.write_text("\n".join(sys.modules))

    requests.post(f"{pictory}/_simulator/reset", timeout=10)
    assert in_a_child(work) == 0
    get_hook_lineage_collector()  # loads Airflow's plugins
    for name in names.read_text().splitlines():
        with suppress(ImportError):  # some are no files, such as __mp_main__
            import_module(name)


def lines_of(pictory: str, folder: Path, run: Callable[[Path], None]) -> list[tuple[int, str, str]]:
    """Return each line of this package that an attempt runs: number, location, and a digest of files, bills and uploads."""
    import_what_is_used(pictory, folder.with_name("imports"), run)
    folder.mkdir()
    lines = folder.with_name("lines")
    simulator = HTTPConnection(urlsplit(pictory).netloc, timeout=10)  # one connection for thousands of questions

    def ask(what: str) -> Any:
        simulator.request("GET", f"/_simulator/{what}")
        return json.load(simulator.getresponse())

    def digest_of_state() -> str:
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        digest = hashlib.sha256(repr([(str(file), file.read_bytes()) for file in files]).encode())
        sent = sum(request["method"] == "PUT" for request in ask("requests"))
        return f"{digest.hexdigest()} {len(ask('state')['jobs'])} {sent}"

    def note(frame: Any, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            with lines.open("a") as file:
                file.write(f"{frame.f_code.co_filename}:{frame.f_lineno} {digest_of_state()}\n")
        return note

    def work() -> None:
        sys.settrace(note)
        run(folder)

    requests.post(f"{pictory}/_simulator/reset", timeout=10)
    assert in_a_child(work) == 0
    rows = enumerate(lines.read_text().splitlines(), start=1)
    return [(number, *row.split(" ", 1)) for number, row in rows]


def turning_points(lines: list[tuple[int, str, str]]) -> list[tuple[int, str]]:
    """Return the first and the last line of each group of lines with the same digest; if quick, only the last.

    A kill at any line of a group has the same effect, because nothing but files, bills and uploads survives it.
    """
    alike = [list(group) for _, group in groupby(lines, key=lambda line: line[2])]
    ends = [group[-1:] if IS_QUICK else (group[0], group[-1]) for group in alike]
    return sorted({number: line for group in ends for number, line, _ in group}.items())


def points_of_saving(pictory: str, folder: Path, kind: str) -> list[tuple[int, str]]:
    return turning_points(lines_of(pictory, folder, lambda folder: saving_attempt(folder, kind)))


def killed(pictory: str, folder: Path, kind: str, number: int) -> None:
    requests.post(f"{pictory}/_simulator/reset", timeout=10)
    folder.mkdir()

    def work() -> None:
        kill_at(number)
        saving_attempt(folder, kind)

    assert in_a_child(work) == KILLED


def is_whole(folder: Path, job_id: str) -> bool:
    """Whether picture and sidecar match, and the folder has no other file."""
    picture = folder / "pictures" / "a.png"
    sidecar = json.loads(picture.with_name("a.png.json").read_text())
    with Image.open(picture) as image:
        image.load()
    return (
        (sidecar["state"], sidecar["job_id"], sidecar["size"]) == ("saved", job_id, picture.stat().st_size)
        and sidecar["sha256"] == hashlib.sha256(picture.read_bytes()).hexdigest()
        and {file.name for file in picture.parent.iterdir() if file.suffix != ".part"} - {".pictory"}
        == {"a.png", "a.png.json"}
    )


@pytest.mark.parametrize("kind", SAVING)
def test_after_a_kill_at_any_point_a_picture_is_billed_once_and_saved_once(pictory, tmp_path, kind):
    """After the kill: a retry, a clear if the picture may not be replaced, and another run."""
    options = SAVING[kind][1]
    points = points_of_saving(pictory, tmp_path / "counting", kind)
    assert len(points) > 15
    reported = []
    for number, line in points:
        folder = tmp_path / str(number)
        killed(pictory, folder, kind, number)
        uploads = uploaded(pictory)
        is_kept = any((folder / "pictures" / ".pictory" / "uploads").glob("*.json"))
        ended = in_a_child(lambda folder=folder: saving_attempt(folder, kind))
        jobs = billed(pictory)
        assert len(jobs) <= 1, line
        assert not is_kept or uploaded(pictory) == uploads == 1, line
        if ended:
            assert ended == 3, line
            reported.append(line)
            continue
        assert is_whole(folder, jobs[0]), line
        if "overwrite" not in options:
            assert in_a_child(lambda folder=folder: saving_attempt(folder, kind, clears=3)) == 0, line
            assert in_a_child(lambda folder=folder: saving_attempt(folder, kind, run_id="next")) == 0, line
            assert billed(pictory) == jobs, line
            assert is_whole(folder, jobs[0]), line
    assert {line.removeprefix(PACKAGE).split(":")[0] for line in reported} <= SAVING_WINDOW


def saved_and_redone(folder: Path, number: int = 0) -> None:
    """Save a picture, and move it aside in a process that is killed at a line; only that is traced."""
    trace = sys.gettrace()
    sys.settrace(None)
    saving_attempt(folder, "save")
    sys.settrace(trace)
    if number:
        kill_at(number)
    redo(str(folder / "pictures" / "a.png"))


def test_a_redo_that_is_killed_at_any_point_can_be_repeated_and_one_picture_is_bought(pictory, tmp_path):
    points = turning_points(lines_of(pictory, tmp_path / "counting", saved_and_redone))
    assert len(points) > 10
    for number, line in points:
        requests.post(f"{pictory}/_simulator/reset", timeout=10)
        folder = tmp_path / str(number)
        folder.mkdir()
        picture = folder / "pictures" / "a.png"
        assert in_a_child(lambda folder=folder, number=number: saved_and_redone(folder, number)) == KILLED, line
        assert in_a_child(lambda picture=picture: redo(str(picture))) == 0, line
        assert in_a_child(lambda folder=folder: saving_attempt(folder, "save", run_id="next")) == 0, line
        names = {name: picture.with_name(f"{name}.png") for name in ("a.v1", "a")}
        sidecars = [json.loads(Path(f"{file}.json").read_text()) for file in names.values()]
        assert [sidecar["job_id"] for sidecar in sidecars] == billed(pictory), line
        digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in names.values()]
        assert [sidecar["sha256"] for sidecar in sidecars] == digests, line


@pytest.mark.parametrize("kind", ["save", "save where there is no store"])
def test_after_a_kill_and_a_clear_only_an_unknown_outcome_is_bought_again(pictory, tmp_path, kind):
    for number, line in points_of_saving(pictory, tmp_path / "counting", kind):
        folder = tmp_path / str(number)
        killed(pictory, folder, kind, number)
        sidecar = folder / "pictures" / "a.png.json"
        state = json.loads(sidecar.read_text())["state"] if sidecar.exists() else None
        assert in_a_child(lambda folder=folder: saving_attempt(folder, kind, clears=3)) == 0, line
        jobs = billed(pictory)
        assert len(jobs) == 1 or state == "intent", line
        assert is_whole(folder, jobs[-1]), line


SAVING_WINDOW = {*WINDOW, "/storage/pictures.py", "/core/sidecar.py", "/storage/files.py", "/storage/target.py"}


# A task with candidates ----------------------------------------------------------------------------------


def candidates_attempt(folder: Path, *, has_store: bool, clears: int = 0) -> None:
    """Run one attempt of a task that saves two candidates, with a copy of each."""
    files = Files(folder, clears=clears)
    task = GenerateImageOperator(
        task_id="generate",
        prompt="A lighthouse at dawn",
        path=str(folder / "pictures" / "a.png"),
        candidates=2,
        copies=[{"format": "webp", "width": 64}],
        deferrable=False,
        poll_interval=0.01,
    )
    task.execute({"ti": files, "task_state_store": files} if has_store else {"ti": files})


def saved_jobs(folder: Path, *, have_copies: bool = False) -> set[str]:
    """Return the jobs of the pictures that are saved whole.

    :param have_copies: check that their copies are whole, and of these very pictures.
    """
    found = set()
    for sidecar in (folder / "pictures").glob("*.json"):
        said = json.loads(sidecar.read_text())
        if said["state"] == "saved":
            picture = sidecar.with_suffix("")
            assert said["sha256"] == hashlib.sha256(picture.read_bytes()).hexdigest()
            found.add(said["job_id"])
            if have_copies:
                (copy,) = said["copies"]
                content = picture.with_name(f"{picture.stem}.64.webp").read_bytes()
                assert (copy["of"], copy["sha256"]) == (said["sha256"], hashlib.sha256(content).hexdigest())
    return found


@pytest.mark.parametrize("has_store", [False] if IS_QUICK else [True, False])
def test_after_a_kill_at_any_point_each_candidate_is_billed_once_saved_and_copied(pictory, tmp_path, has_store):
    """After the kill: a retry, and if that reports an unknown outcome, a clear."""
    attempt = partial(candidates_attempt, has_store=has_store)
    points = turning_points(lines_of(pictory, tmp_path / "counting", attempt))
    assert len(points) > 30
    reported = 0
    for number, line in points:
        folder = tmp_path / str(number)
        folder.mkdir()
        requests.post(f"{pictory}/_simulator/reset", timeout=10)

        def work(folder: Path = folder, number: int = number) -> None:
            kill_at(number)
            attempt(folder)

        assert in_a_child(work) == KILLED
        ended = in_a_child(lambda folder=folder: attempt(folder))
        jobs = set(billed(pictory))
        assert len(jobs) <= 2, line
        if ended == 0:
            assert saved_jobs(folder, have_copies=True) == jobs, line
            continue
        reported += 1
        assert ended == 3, line
        saved = saved_jobs(folder)
        assert len(jobs - saved) <= 1, line  # the one whose outcome is reported as unknown
        assert in_a_child(lambda folder=folder: attempt(folder, clears=3)) == 0, line
        after = saved_jobs(folder, have_copies=True)
        assert len(after) == 2, line
        assert saved <= after, line
        assert len(set(billed(pictory)) - after) <= 1, line
    assert reported < len(points) / 2
