# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The docs run, quote what is there, and name the errors that occur."""

from __future__ import annotations

import dataclasses
import fcntl
import gzip
import inspect
import itertools
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import threading
import tomllib
import zipfile
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import openpyxl
import pyarrow as pa
import pytest
from airflow.cli.cli_parser import get_parser
from airflow.providers.common.compat.sdk import AirflowTaskTimeout
from airflow.sdk import DAG, ObjectStoragePath
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from pictory_provider import exceptions
from pictory_provider.api.errors import StorageFailed
from pictory_provider.api.extra import FIELDS
from pictory_provider.api.models import MODELS, STYLES, ImageOptions, ImageRequest
from pictory_provider.api.timing import Timing
from pictory_provider.client.sync import SyncClient
from pictory_provider.core.batch.journal import Header, Journal, budget_of
from pictory_provider.core.budget import Limits
from pictory_provider.core.sidecar import Sidecar
from pictory_provider.decorators.pictory import pictory_image
from pictory_provider.hooks.pictory import PictoryHook
from pictory_provider.operators.pictory import DownloadImageOperator, GenerateImageOperator
from pictory_provider.provider_info import CONNECTION_FIELDS
from pictory_provider.sensors.pictory import PictoryJobSensor
from pictory_provider.services import evidence
from pictory_provider.services.batch.runner import Batch
from pictory_provider.services.batch.state import BatchRecord
from pictory_provider.services.redo import redo
from pictory_provider.simulator import Simulator
from pictory_provider.storage import folder, preflight, tables
from pictory_provider.storage.files import LocalFiles
from pictory_provider.storage.target import Target
from tests.certificates import self_signed
from tests.docs import configuration
from tests.docs.snippets import PAGES, QUOTATION, ROOT, quoted
from tests.driver import Attempts
from tests.provider.batches import Tries
from tests.stand_ins import StateStore, TaskInstance
from tests.versions import __main__ as matrix

PROMPT = "A lighthouse at dawn"
HEADINGS = re.findall(r"^### (.+)$", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)


@pytest.fixture
def pictory(monkeypatch):
    with Simulator(seconds=0) as pictory:
        monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", pictory.connection_json())
        yield pictory


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_of_every_page_runs(page, pictory):
    """What is quoted of the example DAGs runs with them, in the system tests."""
    own = QUOTATION.sub("", page.read_text())
    blocks = re.findall(r"^```python\n(.*?)^```", own, re.DOTALL | re.MULTILINE)
    names: dict = {}
    with DAG(dag_id="docs", schedule=None):
        for block in blocks:
            exec(compile(block, f"{page.name}", "exec"), names)


SHELL = {
    f"{page.name}:{number}": block
    for page in PAGES
    for number, block in enumerate(
        re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE), 1
    )
}


class AirflowsApi(BaseHTTPRequestHandler):
    """What takes the place of an Airflow's REST API: it takes whatever is put into a task's state store."""

    def do_PUT(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        is_known = re.fullmatch(r"/api/v2/dags/x/dagRuns/x/taskInstances/x/state-store/\w+", self.path)
        self.send_response(200 if is_known else 404)
        self.end_headers()
        self.wfile.write(b"{}" if is_known else b'{"message": "unknown"}')


@pytest.fixture
def airflows_api():
    server = ThreadingHTTPServer(("127.0.0.1", 0), AirflowsApi)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("block", SHELL.values(), ids=SHELL)
def test_every_shell_block_runs(block, tmp_path, airflows_api):
    """In a folder of its own, where ``make``, ``pip`` and ``airflow`` check what they are told, and do nothing.

    ``make demo`` and ``make test`` run for themselves in CI. Everything else is the real program.
    """
    programs, told = tmp_path / "bin", tmp_path / "airflow.jsonl"
    programs.mkdir()
    for name, program in STAND_INS.items():
        (programs / name).write_text(f"#!/bin/sh\n{program}\n")
        (programs / name).chmod(0o755)
    with Simulator(seconds=0) as pictory:
        env = os.environ | {
            "PATH": os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]),
            "AIRFLOW": airflows_api,
            "TOLD_TO_AIRFLOW": str(told),
            "AIRFLOW_CONN_PICTORY_DEFAULT": pictory.connection_json(),
            **dict.fromkeys(("DAG", "RUN", "TASK", "TOKEN"), "x"),
        }
        block = block.replace("127.0.0.1:41797", pictory.base_url.split("/")[2])
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=tmp_path,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    assert '"message"' not in done.stdout, "Pictory refused it"
    for line in told.read_text().splitlines() if told.exists() else ():
        get_parser().parse_args(json.loads(line))


WRITE_DOWN = "import json, os, sys; print(json.dumps(sys.argv[1:]), file=open(os.environ['TOLD_TO_AIRFLOW'], 'a'))"
"""What ``airflow`` does instead: the test parses the arguments, because each Airflow process takes seconds to start."""

STAND_INS = {
    "make": f'exec {shutil.which("make")} --dry-run --directory {ROOT} "$@" >/dev/null',
    "pip": f'exec {sys.executable} {ROOT}/tests/docs/stand_in_for_pip.py "$@"',
    "airflow": f'exec {sys.executable} -c "{WRITE_DOWN}" "$@"',
    # It serves until it is stopped.
    "python": f'[ "$*" = "-m pictory_provider.simulator" ] || exec {sys.executable} "$@"\n'
    f'timeout 5 {sys.executable} "$@" | grep -q export',
}


def test_the_recipe_for_testing_is_a_test_that_passes(tmp_path):
    shutil.copy(ROOT / "tests" / "docs" / "recipe_for_testing.py", tmp_path / "test_my_dag.py")
    dags = str(ROOT / "dags" / "recipes")
    env = os.environ | {"AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__DAGS_FOLDER": dags}
    for command in (
        ["airflow", "db", "migrate"],
        ["pytest", "-q", "-p", "no:cacheprovider", "-o", f"pythonpath={dags}"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_a_batch_with_max_credits_0_names_its_price_and_sends_nothing(pictory, tmp_path):
    with pytest.raises(exceptions.PictoryBudgetExceeded, match=r"The 3 pictures cost 1\.8 AI credits as listed"):
        Tries(tmp_path)([f"{PROMPT} {n}" for n in range(3)], model="flux-schnell", max_credits=0)
    assert pictory.submissions == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_quotation_is_what_the_file_says(page):
    assert page.read_text() == quoted(page.read_text()), "run `make docs-update`"


def test_the_configuration_reference_is_that_of_the_code():
    assert configuration.PAGE.read_text() == configuration.page(), "run `make docs-update`"
    assert tuple(CONNECTION_FIELDS) == FIELDS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if not target.startswith("http"):
            file, _, anchor = target.partition("#")
            found = page.parent / file if file else page
            assert found.exists(), target
            headings = re.findall(r"^#+ (.+)$", found.read_text(), re.MULTILINE) if anchor else []
            assert not anchor or anchor in [anchor_of(heading) for heading in headings], target


def anchor_of(heading: str) -> str:
    """Return the anchor that MyST and GitHub give a heading: lower case, without punctuation, hyphens for blanks."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


SEARCHED = (
    "approve",
    "choose",
    "cost",
    "csv",
    "daily budget",
    "do not like",
    "duckdb",
    "duplicate",
    "excel",
    "hugging face",
    "new version",
    "pandas",
    "polars",
    "preview",
    "redo",
    "regenerate",
    "resize",
    "retry",
    "semicolon",
    "slack",
    "staging",
    "thumbnail",
    "webdataset",
    "webp",
)
"""What users type into the search box of the website."""


@pytest.mark.parametrize("words", SEARCHED)
def test_a_search_for_a_common_word_finds_a_page(words):
    """In the text of a page: code blocks do not count, and a part of a longer word does not either."""
    pages = [page.read_text() for page in (ROOT / "docs").glob("*.md")]
    texts = [re.sub(r"^```.*?^```", "", page, flags=re.DOTALL | re.MULTILINE) for page in pages]
    assert any(re.search(rf"\b{words}\b", text, re.IGNORECASE) for text in texts)


def test_every_example_and_every_recipe_can_be_had_from_its_page():
    pages = (ROOT / "docs" / "examples.md").read_text() + (ROOT / "docs" / "recipes.md").read_text()
    for file in (ROOT / "dags").rglob("*.py"):
        assert f"]({Path('..') / file.relative_to(ROOT)})" in pages, file


def test_the_readme_lists_every_model_with_its_credits_every_ratio_and_every_style():
    readme = (ROOT / "README.md").read_text()
    for model in MODELS.values():
        assert f"| `{model.name}` | {model.credits:g} |" in readme
        assert all(f"`{ratio}`" in readme for ratio in model.aspect_ratios)
    assert ", ".join(f"`{style}`" for style in STYLES) in readme


def test_the_page_on_the_connection_lists_every_field_of_the_form():
    page = (ROOT / "docs" / "connection.md").read_text()
    for name, field in CONNECTION_FIELDS.items():
        assert f"| extra `{name}` | {field['label']} |" in page


@pytest.mark.parametrize("cls", [GenerateImageOperator, PictoryJobSensor, DownloadImageOperator])
def test_the_page_on_the_operators_names_every_argument(cls):
    page = (ROOT / "docs" / "operators.md").read_text()
    section = page.split(f"## {cls.__name__}\n")[1].split("\n## ")[0]
    own = cls.__init__.__wrapped__ if hasattr(cls.__init__, "__wrapped__") else cls.__init__
    for name in own.__code__.co_varnames[1 : own.__code__.co_argcount + own.__code__.co_kwonlyargcount]:
        assert f"`{name}`" in section, name


def test_the_metadata_claims_what_the_matrix_tries_and_no_more():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    releases, pythons = list(matrix.RELEASES), list(matrix.PYTHONS)
    assert f"apache-airflow>={releases[0]},<4" in project["dependencies"]
    minor = int(pythons[-1].split(".")[1])
    assert project["requires-python"] == f">={pythons[0]},<3.{minor + 1}"
    named = [c.rpartition(" ")[2] for c in project["classifiers"] if "Python :: 3." in c]
    assert named == [python for python in pythons if python not in matrix.NEVER_RUN]
    page = (ROOT / "docs" / "versions.md").read_text()
    assert [r for r in releases if f"| {r} | {', '.join(pythons)} |" not in page] == []
    tried = {(place.airflow, place.python) for place in matrix.ALL}
    assert tried >= {(release, python) for release in releases for python in pythons}
    assert {place.airflow for place in matrix.SOME} == set(releases)
    assert {place.airflow for place in matrix.ALL} == set(releases)
    assert {place.python for place in matrix.SOME} == set(pythons)


@pytest.mark.parametrize(
    ("page", "title"), [("reliability", "Guarantees and their tests"), ("security", "Threats and their tests")]
)
def test_every_promise_stands_beside_a_test_that_exists(page, title):
    page = (ROOT / "docs" / f"{page}.md").read_text()
    named = re.findall(r"`(tests/\S+\.py)::(\w+)`", page)
    assert len(named) > 20
    assert [(file, test) for file, test in named if f"def {test}(" not in (ROOT / file).read_text()] == []
    promises = [line for line in page.splitlines() if line.startswith("| ") and "`tests/" in line]
    section = page.split(f"\n## {title}\n")[1].split("\n## ")[0]
    without = section.count("| tested by |") + section.count(" | [the guarantees about money](")
    assert len(promises) == section.count("\n| ") - without


def test_every_finding_is_listed_with_its_versions_and_a_test_that_exists():
    page = (ROOT / "findings" / "README.md").read_text()
    rows = re.findall(
        r"^\| \[`(\S+)`\]\(\1\) \| (.+?) \| .+ \| `(tests/\S+\.py)::(?:\w+::)?(\w+)` \|$", page, re.MULTILINE
    )
    assert [script for script, *_ in rows] == sorted(file.name for file in (ROOT / "findings").glob("*.sh"))
    for script, versions, file, test in rows:
        text = (ROOT / "findings" / script).read_text()
        assert [version for version in re.findall(r"\d[\w.]+", versions) if version not in text] == [], script
        assert f"def {test}(" in (ROOT / file).read_text(), script


def heading_of(text: str) -> str:
    """Return the heading of an error text; there must be exactly one."""
    fitting = [h for h in HEADINGS if re.match(".*?".join(re.escape(part) for part in h.split("…")), text)]
    assert len(fitting) == 1, (text, fitting)
    return fitting[0]


def left_behind(pictory, path):
    """Change the number of candidates while two are paid for and not saved."""
    arguments = {"task_id": "g", "prompt": PROMPT, "path": str(path), "deferrable": False}
    attempts = Attempts(lambda **more: GenerateImageOperator(**arguments, **more))
    pictory.script("picture", "server-error", times=-1)
    with pytest.raises(exceptions.PictoryUnavailable):
        attempts(candidates=2)
    pictory.clear_faults()
    attempts()


def buy_within(pictory, monkeypatch, limits=None, **arguments):
    monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", pictory.connection_json(**(limits or {})))
    task = GenerateImageOperator(task_id="g", prompt=PROMPT, **arguments)
    task.execute({"ti": TaskInstance(), "task_state_store": StateStore()})


def spent_so_far(kept):
    header = Header(digest="", parts=(), of=0, folder="", made_by={}, max_tries=0, retries=0, spending=kept)
    with exceptions.airflow_errors():
        budget_of(Journal(header=header), Limits())


def submit(pictory, fault):
    pictory.script("submit", fault, times=-1)
    with PictoryHook() as hook:
        hook.generate_image(PROMPT)


def buy(pictory, fate):
    pictory.plan(fate)
    with PictoryHook() as hook:
        return hook.generate_image(PROMPT)


def look(pictory, fate):
    with PictoryHook() as hook:
        hook.wait_for_job(buy(pictory, fate), poll_interval=0.01, timeout=0.03)


def save(pictory, fault=None, **more):
    if fault:
        pictory.script("picture", fault)
    with PictoryHook() as hook:
        more = {"path": "/tmp/never.png", "job_id": hook.generate_image(PROMPT), **more}
        hook.download_image(more.pop("path"), **more)


def connect(pictory, monkeypatch, **changes):
    monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", json.dumps(pictory.connection() | changes))
    with PictoryHook() as hook:
        hook.generate_image(PROMPT)


def behind_tls(folder, monkeypatch):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(folder / "both.pem"))
    with Simulator(ssl_context=context) as pictory:
        connect(pictory, monkeypatch)


def paint(path, prompt=PROMPT, *, run_id="first", store=None, **more):
    """Run one try of a task with a path, whole."""
    ti = TaskInstance()
    ti.run_id = run_id
    cover = GenerateImageOperator(
        task_id="cover", prompt=prompt, path=str(path), deferrable=False, timeout=0.03, poll_interval=0.01, **more
    )
    cover.execute({"ti": ti} if store is False else {"ti": ti, "task_state_store": store or StateStore()})


def moved(path, change):
    """Move a picture aside, let a user change something, and run the task again."""
    paint(path)
    change(path, Path(redo(str(path)).version))
    paint(path)


def lose(call):
    """Let a try fail, and leave behind what it leaves."""
    with pytest.raises(Exception, match=r"unknown|deadline"):
        call()


def forbidden(*_, **__):
    raise PermissionError("the role may not read this object")


def with_failing(owner, name, fails, call):
    """Make a call while a method is forbidden, of which the arguments tell when."""
    method = getattr(owner, name)

    def failing(self, *arguments, **more):
        if fails(self, *arguments):
            raise StorageFailed("It says no.") if name == "swap" else PermissionError("Access Denied")
        return method(self, *arguments, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, failing)
        call()


def as_somebody_else(folder):
    """Replace a picture of another user in a folder such as /tmp."""
    paint(folder / "a.png")
    folder.chmod(0o1777)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 65_534)
        paint(folder / "a.png", run_id="second", overwrite=True)


def both_look_at_once(monkeypatch, path):
    """Let another run begin between a try's look and its purchase."""
    asks = evidence.credits_used
    others = iter([lambda: paint(path, run_id="second")])

    def credits_used(settings, **more):
        next(others, lambda: None)()
        return asks(settings, **more)

    monkeypatch.setattr(evidence, "credits_used", credits_used)
    paint(path)


def in_the_folder_of_a_batch(folder):
    """Let a task begin in the folder of a batch whose record cannot be read."""
    (folder / ".pictory").mkdir(parents=True)
    (folder / ".pictory" / "batch.json").write_text("{}")
    paint(folder / "lamp.png")


def while_a_batch_begins(monkeypatch, folder):
    """Let another task buy a picture between a batch's look at its folder and its header."""
    write = BatchRecord.write
    others = iter([lambda: paint(folder / "lamp.png", run_id="second")])

    def written(record, *arguments, **more):
        next(others, lambda: None)()
        return write(record, *arguments, **more)

    monkeypatch.setattr(BatchRecord, "write", written)
    Tries(folder)([PROMPT], file_name="lamp.png")


def damaged_and_gone(pictory, path):
    """Have a picture marked that was damaged on its disk, after its job was forgotten."""
    paint(path)
    content = path.read_bytes()
    path.write_bytes(content[:-30] + bytes(10) + content[-20:])
    pictory.account.jobs.clear()
    paint(path, run_id="second", mark_ai_generated=True)


class NoApiServer(TaskInstance):
    def xcom_push(self, *_, **__):
        raise RuntimeError("the API server is away")


COPY = [{"format": "webp", "width": 64}]


def occurrences(pictory, monkeypatch, tmp_path, timing):
    """Yield a call for each error that a user can meet."""
    hook = PictoryHook()
    there = tmp_path / "there.png"
    there.write_text("precious")

    spoilt, loop, taken = (tmp_path / name for name in ("spoilt.png", "loop.png", "taken.png"))
    Path(f"{spoilt}.json").write_text("no JSON")
    loop.symlink_to(loop)
    too_long = tmp_path / f"{'a' * 300}.png"
    attach("memory", fs=fsspec.filesystem("memory"))
    with ObjectStoragePath("memory://bucket/private.png").open("wb") as file:
        file.write(b"a picture")

    def sensor(job_id="j"):
        return PictoryJobSensor(task_id="wait", job_id=job_id)

    yield lambda: hook.generate_image("four")
    yield lambda: hook.generate_image(PROMPT, model="dall-e")
    yield lambda: hook.generate_image(PROMPT, reference_image_url="a.png")
    yield lambda: hook.generate_image(PROMPT, reference_image_url="ftp://host/a.png")
    yield lambda: hook.generate_image(PROMPT, reference_image_url="/srv/a.png")
    yield lambda: hook.upload_reference(str(there))

    def upload(*, is_changed=False):
        Image.new("RGB", (8, 8)).save(tmp_path / "reference.png")

        @pictory_image(reference_image_url=str(tmp_path / "reference.png"), reference_upload=True)
        def changes_it():
            Image.new("RGB", (9, 9)).save(tmp_path / "reference.png")
            return PROMPT

        if is_changed:
            return Attempts(lambda: changes_it().operator)()
        pictory.script("upload-url", "unavailable")
        return hook.upload_reference(str(tmp_path / "reference.png"))

    yield upload
    yield lambda: upload(is_changed=True)
    yield lambda: hook.get_job("None")
    yield lambda: hook.get_job(["a", "b"])
    yield lambda: save(pictory, path="a.png")
    yield lambda: save(pictory, path=str(there))
    yield lambda: save(pictory, path="file://host/a.png")
    yield lambda: save(pictory, path="gs://bucket/a.png")
    yield lambda: paint(None)
    yield lambda: paint(tmp_path / "copied.png", copies=[{"format": "gif"}])

    def without_pillow():
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "PIL", None)
            paint(tmp_path / "copied.png", copies=COPY)

    yield without_pillow
    (tmp_path / "copied.64.webp").write_bytes(b"mine")
    yield lambda: paint(tmp_path / "copied.png", copies=COPY)
    yield lambda: (paint(tmp_path / "copied.png"), paint(tmp_path / "copied.png", copies=COPY))
    yield lambda: paint(tmp_path / "many.png", candidates=9)
    yield lambda: (pictory.plan("failed"), paint(tmp_path / "several.png", candidates=2))
    yield lambda: left_behind(pictory, tmp_path / "left.png")
    yield lambda: paint(tmp_path)
    yield lambda: paint(loop)
    yield lambda: paint(too_long)
    yield lambda: paint(tmp_path / "a.png.json")
    yield lambda: moved(tmp_path / "moved.png", lambda old, _: old.write_bytes(b"mine"))
    yield lambda: moved(tmp_path / "moved back.png", lambda old, version: version.rename(old))
    yield lambda: paint(f"{tmp_path}/new/.")
    yield lambda: paint("/proc/a.png")
    yield lambda: paint("memory://bucket/a\tb.png")
    yield lambda: paint(f"memory://bucket/{'k' * 1_100}.png")
    yield lambda: paint(there / "a.png")
    yield lambda: as_somebody_else(tmp_path / "sticky")
    yield lambda: with_failing(
        MemoryFileSystem, "info", lambda *_: True, lambda: paint("memory://bucket/unreadable.png")
    )
    yield lambda: with_failing(LocalFiles, "put", lambda *_: True, lambda: paint(tmp_path / "unwritable.png"))
    yield lambda: with_failing(
        MemoryFileSystem,
        "pipe_file",
        lambda fs, path, *_: fs.exists(path),
        lambda: paint("memory://bucket/once.png"),
    )
    yield lambda: with_failing(
        Target, "swap", lambda _, seen, data: b'"saved"' in (data or b""), lambda: paint(tmp_path / "half.png")
    )
    yield lambda: (
        pictory.set(images_away=1),
        Tries(tmp_path / "away")([f"{PROMPT} {n}" for n in range(40)], max_in_flight=8),
    )
    yield lambda: paint(there)
    yield lambda: paint(spoilt, overwrite=True)
    yield lambda: (paint(taken), paint(taken, "A lighthouse at dusk", run_id="second"))
    yield lambda: (taken.write_text("changed"), paint(taken, run_id="second"))
    yield lambda: both_look_at_once(monkeypatch, tmp_path / "both.png")
    yield lambda: in_the_folder_of_a_batch(tmp_path / "folder")
    yield lambda: while_a_batch_begins(monkeypatch, tmp_path / "beginning")
    yield lambda: damaged_and_gone(pictory, tmp_path / "damaged.png")
    yield lambda: Tries("/proc/a")([])
    yield lambda: ((tmp_path / "lamps/metadata.jsonl").mkdir(parents=True), Tries(tmp_path / "lamps")([]))
    yield lambda: with_failing(
        LocalFiles, "put", lambda _, name, *more: name.endswith(".jsonl"), lambda: Tries(tmp_path / "full")([])
    )

    bought, unseen, unknown = (tmp_path / name for name in ("bought.png", "unseen.png", "unknown.png"))
    timing(unknown_job=0)
    pictory.plan("stuck")
    lose(lambda: paint(bought))
    yield lambda: paint(bought, run_id="second")
    yield lambda: paint(bought, "A lighthouse at dusk", run_id="third", overwrite=True, store=False)
    store = StateStore()
    paint(unseen, store=store)
    for file in (unseen, Path(f"{unseen}.json")):
        file.unlink()
    yield lambda: paint(unseen, store=store)
    pictory.script("submit", "drop-after", times=-1)
    lose(lambda: paint(unknown))
    yield lambda: paint(unknown, run_id="second")
    timing(unknown_job=Timing().unknown_job)

    def like(name):
        return paint(tmp_path / "like.png", reference_image_url=f"memory://bucket/{name}.png")

    yield lambda: like("nowhere")
    yield lambda: like("private")
    yield lambda: (monkeypatch.setattr(MemoryFileSystem, "sign", forbidden), like("private"))
    yield lambda: PictoryHook("nowhere").get_quota()
    yield lambda: connect(pictory, monkeypatch, port="84a")
    yield lambda: connect(pictory, monkeypatch, password="")
    yield lambda: connect(pictory, monkeypatch, password="Bearer x")
    yield lambda: connect(pictory, monkeypatch, host="api.pictory.ai")
    yield lambda: connect(pictory, monkeypatch, host="http://user@127.0.0.1")
    yield lambda: connect(pictory, monkeypatch, extra={"proxy": "socks5://127.0.0.1:1"})
    yield lambda: connect(pictory, monkeypatch, extra={"ca_bundle": "/"})
    yield lambda: connect(pictory, monkeypatch, extra={"credits_per_day": "many"})
    yield lambda: buy_within(pictory, monkeypatch, max_credits="2")
    yield lambda: buy_within(pictory, monkeypatch, max_credits=9, model="newer", allow_unlisted=True)
    yield lambda: buy_within(pictory, monkeypatch, {"credits_per_day": 1})
    yield lambda: (pictory.enter(amount="much"), buy_within(pictory, monkeypatch, {"credits_per_day": 1}))
    yield lambda: connect(pictory, monkeypatch, extra='{"credits_per_day": 50,}')
    yield lambda: connect(pictory, monkeypatch, extra={"credit_per_day": 50})
    yield lambda: connect(pictory, monkeypatch, extra={"timeout": 5, "extra__pictory__timeout": 50})
    yield lambda: spent_so_far({"dropped": "much"})
    yield lambda: connect(pictory, monkeypatch, host="http://127.0.0.1:1")
    yield lambda: submit(pictory, "unauthorized")
    yield lambda: submit(pictory, "forbidden")
    yield lambda: submit(pictory, "edge-block")
    yield lambda: hook.generate_image(PROMPT, style="baroque", allow_unlisted=True)
    yield lambda: submit(pictory, "rate-limited")
    yield lambda: (pictory.script("quota", "server-error", times=-1), PictoryHook().get_quota())
    yield lambda: (pictory.script("quota", "drop-before", times=-1), PictoryHook().get_quota())
    yield lambda: (pictory.set(reply_bytes=300_000), PictoryHook().get_quota())
    yield lambda: behind_tls(tmp_path, monkeypatch)
    yield lambda: submit(pictory, "drop-after")
    yield lambda: look(pictory, "failed")
    yield lambda: look(pictory, "cleaned")
    yield lambda: look(pictory, "stuck")
    yield lambda: sensor(buy(pictory, "stuck")).resume_execution("__fail__", {"error": "Trigger timeout"}, {})
    yield lambda: hook.get_job("no-such-job")
    yield lambda: look(pictory, "no-url")
    yield lambda: GenerateImageOperator(task_id="g", prompt=PROMPT).execute({"ti": NoApiServer()})
    yield lambda: (pictory.plan("stuck"), save(pictory))
    yield lambda: sensor().execute_complete({}, {"what": "is this"})
    yield lambda: save(pictory, "truncated")
    yield lambda: save(pictory, max_bytes=10)
    yield lambda: save(pictory, job_id=None, url=f"{pictory.images_url}/images/user/a/gone.png")
    yield lambda: save(pictory, path="/proc/a.png")
    yield lambda: (pictory.set(images_away=1), save(pictory))
    (tmp_path / "locked").mkdir()
    home = os.open(tmp_path / "locked", os.O_RDONLY)
    fcntl.flock(home, fcntl.LOCK_EX)
    timing(lock=0.0)
    yield lambda: paint(tmp_path / "locked" / "a.png")
    os.close(home)


def change_header(folder, **fields):
    file = folder / ".pictory" / "batch.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def meet_another_try(folder, when):
    """Run a batch that another try takes up, before the first word on its record or after it."""
    batch, write = Tries(folder), BatchRecord.write
    batch([PROMPT])

    def taken(self, journal, **more):
        if when == "before" or self._is_taken_over:
            change_header(folder, tries=7)
        write(self, journal, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BatchRecord, "write", taken)
        batch([PROMPT, f"{PROMPT} again"])


def batches(pictory, tmp_path):
    """Yield a call for each error that a batch can end with, and a single task cannot."""
    numbers = itertools.count()

    def batch(requests, **more):
        return Tries(tmp_path / f"batch-{next(numbers)}")(requests, **more)

    def table(text, name="table.csv"):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(tmp_path / name)

    def spreadsheet(*rows):
        book = openpyxl.Workbook()
        book.active.title = "First"
        for cells in rows:
            book.active.append(cells)
        book.save(tmp_path / "s.xlsx")
        return str(tmp_path / "s.xlsx")

    def hidden(what=b'state="visible"', by=b'state="hidden"'):
        """Return a file whose only sheet is hidden, or missing, which no library writes."""
        with zipfile.ZipFile(spreadsheet(["prompt"])) as old, zipfile.ZipFile(tmp_path / "h.xlsx", "w") as new:
            for part in old.infolist():
                new.writestr(part, re.sub(what, by, old.read(part)))
        return str(tmp_path / "h.xlsx")

    def without(module):
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    def stop():
        batch([PROMPT])

    yield lambda: batch(None)
    yield lambda: batch("None")
    yield lambda: batch("/srv/products.ods")
    yield lambda: batch("/srv/nowhere.csv")
    yield lambda: with_attribute(folder, "LARGEST_TABLE", 3, lambda: batch(table("prompt\n")))
    yield lambda: batch(table(b"prompt\n\xff\n"))
    yield lambda: batch(table(""))
    yield lambda: batch(table("a,a\n1,2\n"))
    yield lambda: batch(table("price, EUR;name\n1,50;mug\n"))
    yield lambda: batch(table("sep=\na\n1\n"))
    yield lambda: batch(table("Products of May\nsku,name\n1,mug\n"))
    yield lambda: batch(table("Products, 2026\nsku;name;n\n1;mug;2\n"))
    yield lambda: batch(hidden(rb"<sheets>.*</sheets>", b"<sheets/>"))
    yield lambda: batch(table('a,b\n1,"2\n'))
    yield lambda: with_attribute(tables, "import_module", without, lambda: batch("/srv/products.xlsx"))
    yield lambda: batch(table("prompt\n", "t.xlsx"))
    yield lambda: batch(table(b"\x1f\x8b", "t.csv.gz"))
    yield lambda: with_attribute(
        tables, "LARGEST_TABLE", 3, lambda: batch(table(gzip.compress(b"1234"), "t.csv.gz"))
    )
    yield lambda: batch(table(b"\xd0\xcf\x11\xe0", "t.xlsx"))
    yield lambda: batch(spreadsheet(["prompt"]), sheet="Second")
    yield lambda: batch(hidden())
    yield lambda: batch(spreadsheet([]))
    yield lambda: batch(spreadsheet(["a", "a"]))
    yield lambda: batch(spreadsheet(["Products"], ["sku", "title"]))
    yield lambda: batch(pa.table([["1"], ["2"]], names=["a", "a"]))
    yield lambda: batch(pa.table({"prompt": [PROMPT]}), sheet="First")
    yield lambda: batch([(PROMPT,)], column_names="prompt")
    yield lambda: batch([PROMPT], request_columns={"title": "prompt"})
    yield lambda: batch([PROMPT], skip_blank="title")
    yield lambda: batch([PROMPT], on_bad_row="warn")
    yield lambda: (
        Tries(tmp_path / "kept")([PROMPT]),
        with_attribute(
            preflight._Check,
            "_why_not_replaceable",
            lambda *_: "it is immutable",
            lambda: Tries(tmp_path / "kept").of_another_run("b")([f"{PROMPT} again"], overwrite="changed"),
        ),
    )
    yield lambda: batch([PROMPT], overwrite="yes")
    yield lambda: batch([PROMPT], plan_only="")
    yield lambda: batch([PROMPT, "four"], on_bad_row="skip", plan_only=True)
    yield lambda: batch(["four", PROMPT])
    yield lambda: batch([PROMPT], file_name="{a.b}.png")
    yield lambda: batch([PROMPT], prompt="{name} on a table")
    yield lambda: batch([PROMPT], max_in_flight=0)
    yield lambda: (
        Path(tmp_path / "taken").mkdir(),
        (tmp_path / "taken" / "00000.png").write_text("mine"),
        Tries(tmp_path / "taken")([PROMPT]),
    )
    used, unseen, other = (Tries(tmp_path / name) for name in ("used", "unseen", "other"))
    yield lambda: (
        used([PROMPT]),
        change_header(tmp_path / "used", has_ended=False),
        used.of_another_run("b")([PROMPT]),
    )
    yield lambda: (unseen([PROMPT]), shutil.rmtree(tmp_path / "unseen"), unseen([PROMPT]))
    yield lambda: (other([PROMPT]), other([PROMPT, f"{PROMPT} again"]))
    yield lambda: meet_another_try(tmp_path / "before", "before")
    yield lambda: meet_another_try(tmp_path / "after", "after")
    yield lambda: lose_the_record(tmp_path / "lost")
    yield lambda: with_attribute(Batch, "_between", lambda self, *_: (self.kill(), self._check_time()), stop)
    yield lambda: batch([PROMPT], execution_timeout=timedelta(0))
    yield lambda: (pictory.plan("failed"), batch([PROMPT, f"{PROMPT} again"]))
    yield lambda: (pictory.plan("failed"), batch([PROMPT], candidates=2))
    yield lambda: (setattr(pictory.account, "credits_limit", 1), batch([PROMPT]))
    yield lambda: (pictory.script("submit", "drop-after", times=-1), batch([PROMPT]))


def lose_the_record(folder):
    """Let another try take a batch up while a wave is on its way."""
    send = SyncClient.send

    def sending(self, request):
        answer = send(self, request)
        if request.method == "POST":
            change_header(folder, tries=7)
        return answer

    with_attribute(SyncClient, "send", sending, lambda: Tries(folder)([PROMPT]))


def with_attribute(owner, name, value, call):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, value)
        call()


def test_every_error_that_a_user_can_meet_has_its_heading_and_every_heading_its_error(
    pictory, monkeypatch, tmp_path, timing
):
    timing(resend_budget=0.0, read_budget=0.0, missing_url=0.0, poll_interval_min=0.0)
    met = set()
    calls = occurrences(pictory, monkeypatch, tmp_path, timing)
    for call in itertools.chain(calls, batches(pictory, tmp_path)):
        pictory.reset()
        monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", pictory.connection_json())
        with pytest.raises((Exception, AirflowTaskTimeout)) as caught:
            call()
        lines = [line for line in str(caught.value).splitlines() if not line.startswith("    row ")]
        long = [line for line in lines if len(line) > 100 and " " in line.strip()]
        assert long == []
        met.add(heading_of(getattr(caught.value, "message", " ".join(str(caught.value).split()))))
    assert met == set(HEADINGS)


def test_what_a_page_says_in_place_of_pictures_is_in_the_docs():
    script = (ROOT / "pictory_provider" / "plugins" / "static" / "frame.js").read_text()
    told = set(re.findall(r'message\("([^"]+)"', script))
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    assert told
    assert {title for title in told if f"*{title}*" not in page} == set()


def test_the_sidecar_of_the_docs_can_be_read_and_its_digest_made_by_hand():
    page = (ROOT / "docs" / "saving.md").read_text()
    (text,) = re.findall(r"^```json\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    sidecar = Sidecar.from_json(text)
    assert json.loads(sidecar.to_json()) == json.loads(text)
    (block,) = (
        block
        for block in re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
        if "def request_sha256" in block
    )
    names: dict = {}
    exec(block, names)
    assert names["request_sha256"](json.loads(text)) == sidecar.request_sha256
    table = page.split("| field | what it says |")[1].split("\n\n")[0]
    cells = [line.split("|")[1] for line in table.splitlines()[2:]]
    assert {name for cell in cells for name in re.findall(r"`(\w+)`", cell)} == {
        *json.loads(text),
        "credits_before",
        "earlier",
        "earlier_before",
        "before_clear",
        "shown_before",
        "used_before",  # which are there until the picture is saved
        "copies",  # if the task makes some
        "may_be",  # while it is replaced
        "moved_to",  # until another one is bought
        "redone",  # if there was another one
        "replaces",  # until it is
        "digital_source_type",  # of a file that says something of its origin
    }


def test_every_picture_of_the_docs_is_shown():
    shown = {target for page in PAGES for target in re.findall(r"images/([\w/.-]+)", page.read_text())}
    images = ROOT / "docs" / "images"
    assert {str(file.relative_to(images)) for file in images.rglob("*.*")} == shown


def test_the_pages_agree_on_how_long_a_command_takes():
    told: dict[str, list[str]] = {}
    for page in PAGES:
        for text in re.split(r"\bmake (?=[a-z])", page.read_text())[1:]:
            if found := re.search(r"\bin ((?:[\w-]+ ){1,3}(?:minute|hour)s?)\b", text):
                told.setdefault(re.match(r"[\w-]+", text)[0], []).append(found[1])
    assert {command for command, times in told.items() if len(times) > 1} == {"demo", "test"}
    assert {command: set(times) for command, times in told.items() if len(set(times)) > 1} == {}
    assert int(re.search(r"^Done in (\d+) s", (ROOT / "README.md").read_text(), re.MULTILINE)[1]) <= 60


def test_make_help_names_every_target():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)[1].split()) - {"help"}
    told = re.findall(r"[\w-]+", " ".join(re.findall(r"^# make (.+)$", makefile, re.MULTILINE)))
    assert targets - set(told) == set()


@pytest.mark.parametrize("cls", [GenerateImageOperator, PictoryJobSensor, DownloadImageOperator])
def test_every_argument_is_documented_with_its_class(cls):
    own = {name for name in inspect.signature(cls.__init__).parameters if name not in ("self", "kwargs")}
    assert own - set(re.findall(r":param (\w+):", cls.__doc__)) == set()


def test_every_field_of_a_request_can_be_given_to_operator_and_hook():
    fields = {field.name for field in dataclasses.fields(ImageRequest)}
    assert fields <= set(inspect.signature(GenerateImageOperator.__init__).parameters)
    assert fields - {"prompt"} == set(ImageOptions.__annotations__)
    assert all(f"``{name}``" in PictoryHook.generate_image.__doc__ for name in ImageOptions.__annotations__)
    assert fields - {"allow_unlisted"} <= set(GenerateImageOperator.template_fields)
    readme = (ROOT / "README.md").read_text()
    assert [name for name in fields - {"allow_unlisted"} if f"\n| `{name}` | `" not in readme] == []


def test_the_page_on_the_operators_says_what_a_retry_does_after_each_error():
    page = (ROOT / "docs" / "operators.md").read_text()
    kinds = [kind for name, kind in vars(exceptions).items() if name.startswith("Pictory")]
    assert re.findall(r"^\| `(Pictory\w+)` \| (.*) \|$", page, re.MULTILINE) == [
        (kind.__name__, kind.retry_note) for kind in kinds
    ]
