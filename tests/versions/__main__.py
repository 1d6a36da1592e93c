# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""``make matrix``: install the built wheel in a separate environment for each supported Airflow, and run tests there."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
UV = Path(sys.executable).with_name("uv")

RELEASES = {"3.1.8": "2026-03-20", "3.2.2": "2026-06-05", "3.3.2": "2026-09-24", "3.4.0b2": "2026-11-28"}
"""The newest release of each supported line in the package index, and the latest date of its dependencies: older
releases break with newer dependencies."""
OF_MAKE_TEST = "3.3.2"
"""The release for ``make test``, which tests all components."""
RUNNING = "{}.{}".format(*sys.version_info)
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
NEVER_RUN = ("3.14",)
"""Those of them for which only wheels were found, so the package has no classifier for them."""
PRE_RELEASES = {"3.4.0b2": ("apache-airflow-core==3.4.0b2", "apache-airflow-task-sdk==1.4.0b2")}
"""Further requirements of a pre-release, because pre-releases are installed only if they are named."""
TOOLS = ("pytest", "pytest-mock", "pytest-xdist", "hypothesis", "psutil", "playwright", "xlsxwriter")

TESTED = ("tests", "dags", "demo", "docs/costs.md", "pyproject.toml")
FOLDERS = ("tests/pure", "tests/provider", "tests/versions")
OF_THE_OLDEST = ("tests/tools", "tests/faults/test_kills_while_saving.py")
"""A real Airflow without task state, where the sidecar is the only record."""
IN_A_BROWSER = ("tests/browser/test_choices.py",)
OF_THE_NEWEST = ("tests/browser/test_loops.py",)
"""Only the newest Airflow has loops."""
WITH_COMPONENTS = ("tests/faults/test_adoption.py",)
"""These run with a real Airflow in each environment."""
OF_LIBRARIES = ("client/test_client.py", "client/test_faults_of_libraries.py", "client/test_shared.py")
"""These depend on HTTP libraries and not on Airflow, and run only with the oldest dependencies."""
OF_PYTHON = "tests/pure"
"""These need only the standard library. With ``--quick`` they run only with another Python than this one."""
OF_DECISIONS = (
    "tests/provider/services",
    "tests/provider/operators/test_batch_candidates.py",
    "tests/provider/operators/test_batch_copies.py",
    "tests/provider/operators/test_batch_money.py",
    "tests/provider/operators/test_batch_struck.py",
    "tests/provider/operators/test_changed.py",
    "tests/provider/operators/test_damaged_pictures.py",
    "tests/provider/operators/test_marking.py",
    "tests/provider/operators/test_names_of_other_kinds.py",
    "tests/provider/operators/test_paid_and_saved.py",
    "tests/provider/operators/test_redo.py",
    "tests/provider/operators/test_redo_in_batches.py",
    "tests/provider/operators/test_uploads.py",
    "tests/provider/storage/test_copies.py",
    "tests/provider/storage/test_tables.py",
    "tests/provider/triggers/test_parity.py",
)
"""These take long and depend little on Airflow. With ``--quick`` they run only with the oldest dependencies."""
OF_THE_SOURCE = shutil.ignore_patterns("test_layers.py", "test_benchmarks.py", "test_release.py", "__pycache__")


@dataclass(frozen=True)
class Environment:
    """One environment.

    :param airflow: a release.
    :param floors: whether it has the oldest dependencies that the wheel allows.
    """

    airflow: str
    python: str
    floors: bool = False

    @property
    def name(self) -> str:
        """Its name in the table."""
        return f"Airflow {self.airflow}, Python {self.python}{', oldest dependencies' * self.floors}"

    @property
    def as_of(self) -> list[str]:
        """The options that exclude dependencies newer than its Airflow."""
        return ["--exclude-newer", RELEASES[self.airflow]]

    @property
    def requirements(self) -> tuple[str, ...]:
        """The requirements for its Airflow."""
        return (f"apache-airflow=={self.airflow}", *PRE_RELEASES.get(self.airflow, ()))


SOME = (
    Environment("3.1.8", "3.11", floors=True),
    Environment("3.2.2", "3.12"),
    Environment("3.3.2", "3.13"),
    Environment("3.4.0b2", "3.14"),
)
ALL = (SOME[0], *(Environment(airflow, python) for airflow in RELEASES for python in PYTHONS))


def main() -> int:
    """Run the matrix, and print the result of every environment."""
    parser = argparse.ArgumentParser(prog="python -m tests.versions", description=__doc__)
    parser.add_argument(
        "--all", action="store_true", help="every Airflow with every Python, instead of a selection"
    )
    parser.add_argument(
        "--quick", action="store_true", help=f"leave Airflow {OF_MAKE_TEST} to `make test`, which runs on it"
    )
    parser.add_argument("--keep", type=Path, help="create the environments in this folder, and keep them")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="pictory-matrix-")) if options.keep is None else options.keep.resolve()
    try:
        uv("build", "--wheel", "--out-dir", folder / "dist", ROOT)
        (wheel,) = (folder / "dist").glob("*.whl")
        chosen = [
            each for each in (ALL if options.all else SOME) if not (options.quick and each.airflow == OF_MAKE_TEST)
        ]
        found = list(dict.fromkeys(available(each, wheel, folder) for each in chosen))
        print(f"{wheel.name} in {len(found)} environments:", flush=True)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return max(pool.map(lambda each: run(each, wheel, folder, is_quick=options.quick), found))
    finally:
        if options.keep is None:
            shutil.rmtree(folder, ignore_errors=True)


def available(wanted: Environment, wheel: Path, folder: Path) -> Environment:
    """Return the environment with a Python that this machine has.

    For a Python that it does not have, this checks that every dependency has a wheel.
    """
    try:
        uv("python", "find", wanted.python)
    except subprocess.CalledProcessError:
        file = folder / f"{wanted.airflow}-{wanted.python}.in"
        file.write_text("\n".join((*wanted.requirements, f"{wheel}[simulator,tables,images]")))
        only_wheels = ("--only-binary", ":all:", "--python-version", wanted.python)
        try:
            uv("pip", "compile", *wanted.as_of, *only_wheels, "--output-file", file.with_suffix(".txt"), file)
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"{wanted.name} cannot be installed:\n{error.stderr}") from None
        print(
            f"Python {wanted.python} is not on this machine: all dependencies of Airflow {wanted.airflow} have wheels "
            f"for it, and Python {RUNNING} is used instead."
        )
        return Environment(wanted.airflow, RUNNING, wanted.floors)
    return wanted


def run(environment: Environment, wheel: Path, folder: Path, *, is_quick: bool) -> int:
    """Create one environment, run the tests in it, and print a line; after a failure, also the tests' output."""
    begun = time.monotonic()
    folder = folder / environment.name.lower().replace(",", "").replace(" ", "-")
    output, code = "", 1
    try:
        python = create(environment, wheel, folder / "venv")
        output, code = tests(environment, python, folder, is_quick=is_quick)
        summaries = [line for line in output.splitlines() if re.search(r"\d+ (passed|failed|error).* in ", line)]
        result = "; ".join(line.strip("= ") for line in summaries) or "it printed no result"
    except subprocess.CalledProcessError as error:
        result, output = "could not be installed", error.stderr
    passed = f"{result} ({time.monotonic() - begun:.0f} s in all)"
    print(f"  {environment.name}: {passed}", flush=True)
    if code:
        print(output, file=sys.stderr, flush=True)
    return code


def create(environment: Environment, wheel: Path, folder: Path) -> Path:
    """Create the environment, and return its Python."""
    uv("venv", "--clear", "--python", environment.python, folder)
    install = ("pip", "install", "--python", folder / "bin" / "python", *environment.as_of)
    if environment.floors:
        uv(
            *install,
            "--resolution",
            "lowest-direct",
            "--requirements",
            ROOT / "pyproject.toml",
            "--extra",
            "simulator",
            "--extra",
            "tables",
            "--extra",
            "images",
        )
    uv(*install, *environment.requirements, f"{wheel}[simulator,tables,images]", *TOOLS)
    return folder / "bin" / "python"


def tests(environment: Environment, python: Path, folder: Path, *, is_quick: bool) -> tuple[str, int]:
    """Run the tests with the installed wheel, in a folder without the source of the package."""
    for name in TESTED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=OF_THE_SOURCE)
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    left_out = [] if environment.floors else [f"tests/provider/{name}" for name in OF_LIBRARIES]
    if is_quick and not environment.floors:
        left_out += OF_DECISIONS
    if is_quick and environment.python == RUNNING:
        left_out.append(OF_PYTHON)
    is_newest = environment.airflow == list(RELEASES)[-1]
    is_between = not environment.floors and not is_newest
    chosen = [
        [
            "--numprocesses",
            "2",
            *(folder for folder in FOLDERS if folder not in left_out),
            *WITH_COMPONENTS,
            *(OF_THE_OLDEST if environment.floors else ()),
            *(f"--ignore={path}" for path in left_out),
        ],
        # By themselves: the browser leaves an event loop running in its process.
        [*IN_A_BROWSER, *(OF_THE_NEWEST if is_newest else ())],
    ][: 1 if is_quick and is_between else 2]
    # With this variable every process would compile all modules that it imports.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    output, code = "", 0
    for number, arguments in enumerate(chosen, start=1):
        done = subprocess.run(
            [python, "-m", "pytest", "-q", "--junitxml", f"{folder}.{number}.xml", *arguments],
            cwd=folder,
            env=env | {"PICTORY_MATRIX": "1"} | ({"PICTORY_EXAMPLES": "20"} if is_quick else {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        output, code = output + done.stdout, code or done.returncode
    return output, code


def uv(*arguments: str | Path) -> None:
    """Run uv, which also finds the Pythons of pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    path = os.pathsep.join([*map(str, sorted(pyenv.glob("versions/3.*/bin"))), os.environ["PATH"]])
    env = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    subprocess.run(
        [UV, *arguments],
        env=env | {"PATH": path, "UV_PYTHON_DOWNLOADS": "never"},
        capture_output=True,
        text=True,
        check=True,
    )


if __name__ == "__main__":
    sys.exit(main())
