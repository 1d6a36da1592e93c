# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""``make matrix``: the built wheel in an environment of its own for each supported Airflow, and its tests there."""

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
"""The newest of each supported line that the package index has, and a day on which its dependencies were those it was
released with: older ones break on what came later."""
OF_MAKE_TEST = "3.3.2"
"""What ``make test`` runs on, with all components."""
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PRE_RELEASES = {"3.4.0b2": ("apache-airflow-core==3.4.0b2", "apache-airflow-task-sdk==1.4.0b2")}
"""What has to be named with a pre-release, which is installed only where it is asked for."""
TOOLS = ("pytest", "pytest-mock", "pytest-xdist", "hypothesis", "psutil", "playwright")

TESTED = ("tests", "dags", "demo", "docs/costs.md", "pyproject.toml")
QUICK = ("tests/pure", "tests/provider", "tests/versions")
OF_THE_OLDEST = ("tests/tools", "tests/faults/test_kills_while_saving.py")
"""With a real Airflow that keeps no state of a task, the record beside the picture is the only one."""
OF_THE_NEWEST = ("tests/browser/test_loops.py",)
"""What no other Airflow has: loops."""
WITH_COMPONENTS = ("tests/faults/test_adoption.py",)
"""With a real Airflow in each environment."""
OF_LIBRARIES = ("test_client.py", "test_faults_of_libraries.py", "test_pool.py")
"""What is another with other HTTP libraries, not with another Airflow: for the oldest dependencies alone."""
OF_THE_SOURCE = shutil.ignore_patterns("test_rooms.py", "test_benchmarks.py", "__pycache__")


@dataclass(frozen=True)
class Place:
    """One environment.

    :param airflow: a release.
    :param floors: whether it has the oldest of everything that the wheel says is enough.
    """

    airflow: str
    python: str
    floors: bool = False

    @property
    def name(self) -> str:
        """What it is called in the table."""
        return f"Airflow {self.airflow}, Python {self.python}{', oldest dependencies' * self.floors}"

    @property
    def as_of(self) -> list[str]:
        """Return the options that keep out what its Airflow never met."""
        return ["--exclude-newer", RELEASES[self.airflow]]

    @property
    def requirements(self) -> tuple[str, ...]:
        """What names its Airflow."""
        return (f"apache-airflow=={self.airflow}", *PRE_RELEASES.get(self.airflow, ()))


SOME = (
    Place("3.1.8", "3.11", floors=True),
    Place("3.2.2", "3.12"),
    Place("3.3.2", "3.13"),
    Place("3.4.0b2", "3.14"),
)
ALL = (SOME[0], *(Place(airflow, python) for airflow in RELEASES for python in PYTHONS))


def main() -> int:
    """Run the matrix and print how every environment did."""
    parser = argparse.ArgumentParser(prog="python -m tests.versions", description=__doc__)
    parser.add_argument(
        "--all", action="store_true", help="every Airflow with every Python, not a choice of pairs"
    )
    parser.add_argument(
        "--quick", action="store_true", help=f"leave Airflow {OF_MAKE_TEST} to `make test`, which runs on it"
    )
    parser.add_argument("--keep", type=Path, help="make the environments here, and leave them")
    options = parser.parse_args()
    here = Path(tempfile.mkdtemp(prefix="pictory-matrix-")) if options.keep is None else options.keep.resolve()
    try:
        uv("build", "--wheel", "--out-dir", here / "dist", ROOT)
        (wheel,) = (here / "dist").glob("*.whl")
        chosen = [
            place
            for place in (ALL if options.all else SOME)
            if not (options.quick and place.airflow == OF_MAKE_TEST)
        ]
        places = list(dict.fromkeys(at_hand(place, wheel, here) for place in chosen))
        print(f"{wheel.name} in {len(places)} environments:", flush=True)
        with ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as lanes:  # they sleep now and then
            return max(lanes.map(lambda place: told(place, wheel, here), places))
    finally:
        if options.keep is None:
            shutil.rmtree(here, ignore_errors=True)


def at_hand(place: Place, wheel: Path, here: Path) -> Place:
    """Return the place with a Python that this machine has.

    For one that it has not, every dependency has to have a wheel at least.
    """
    try:
        uv("python", "find", place.python)
    except subprocess.CalledProcessError:
        wanted = here / f"{place.airflow}-{place.python}.in"
        wanted.write_text("\n".join((*place.requirements, f"{wheel}[simulator]")))
        only_wheels = ("--only-binary", ":all:", "--python-version", place.python)
        try:
            uv("pip", "compile", *place.as_of, *only_wheels, "--output-file", wanted.with_suffix(".txt"), wanted)
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"{place.name} cannot be installed:\n{error.stderr}") from None
        running = "{}.{}".format(*sys.version_info)
        print(
            f"Python {place.python} is not on this machine: all that Airflow {place.airflow} needs has wheels for it, "
            f"and Python {running} runs in its place."
        )
        return Place(place.airflow, running, place.floors)
    return place


def told(place: Place, wheel: Path, here: Path) -> int:
    """Make one environment, run the tests in it, and print a line; where it failed, all that was printed."""
    begun = time.monotonic()
    folder = here / place.name.lower().replace(",", "").replace(" ", "-")
    output, code = "", 1
    try:
        python = environment(place, wheel, folder / "venv")
        output, code = tests(place, python, folder)
        summaries = [line for line in output.splitlines() if re.search(r"\d+ (passed|failed|error).* in ", line)]
        result = "; ".join(line.strip("= ") for line in summaries) or "it printed no result"
    except subprocess.CalledProcessError as error:
        result, output = "could not be installed", error.stderr
    passed = f"{result} ({time.monotonic() - begun:.0f} s in all)"
    print(f"  {place.name}: {passed}", flush=True)
    if code:
        print(output, file=sys.stderr, flush=True)
    return code


def environment(place: Place, wheel: Path, folder: Path) -> Path:
    """Make the environment and return its Python."""
    uv("venv", "--clear", "--python", place.python, folder)
    install = ("pip", "install", "--python", folder / "bin" / "python", *place.as_of)
    if place.floors:
        uv(
            *install,
            "--resolution",
            "lowest-direct",
            "--requirements",
            ROOT / "pyproject.toml",
            "--extra",
            "simulator",
        )
    uv(*install, *place.requirements, f"{wheel}[simulator]", *TOOLS)
    return folder / "bin" / "python"


def tests(place: Place, python: Path, folder: Path) -> tuple[str, int]:
    """Run the quick tests beside the wheel, out of reach of the source of the package."""
    for name in TESTED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=OF_THE_SOURCE)
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    left_out = [f"--ignore=tests/provider/{name}" for name in OF_LIBRARIES if not place.floors]
    chosen = [
        ["--numprocesses", "2", *QUICK, *WITH_COMPONENTS, *(OF_THE_OLDEST if place.floors else ()), *left_out]
    ]
    if place.airflow == list(RELEASES)[-1]:
        chosen.append([*OF_THE_NEWEST])  # by itself: the browser leaves an event loop running in its process
    output, code = "", 0
    for arguments in chosen:
        done = subprocess.run(
            [python, "-m", "pytest", "-q", *arguments],
            cwd=folder,
            env=os.environ | {"PICTORY_MATRIX": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        output, code = output + done.stdout, code or done.returncode
    return output, code


def uv(*arguments: str | Path) -> None:
    """Run uv; it finds the Pythons of pyenv too."""
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
