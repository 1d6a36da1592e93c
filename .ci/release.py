# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""``make release``: build a release of the last commit, check it, and say how to publish it. Nothing is uploaded.

``--rehearse`` only reports what stops a release, such as a missing address, and checks everything else.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "pictory_provider"
BIN = Path(sys.executable).parent
SHOWN = {"docs/images/gallery*.png": "plugins/static", "docs/images/connection*.png": "provider_info.py"}
"""What the screenshots show, in the package."""
PLACEHOLDER = re.compile(
    r"//(localhost|127\.|([\w.-]*\.)?example\.|[^/]*$)|/(owner|user|org|your-|placeholder)|[<>{}]"
)
IMPORTS = """
import importlib, importlib.metadata
modules = [
    ".".join(file.with_suffix("").parts).removesuffix(".__init__")
    for file in importlib.metadata.files("airflow-provider-pictory")
    if file.suffix == ".py" and "example_dags" not in file.parts
]
for module in modules:
    importlib.import_module(module)
print(len(modules), "modules can be imported with Airflow", importlib.metadata.version("apache-airflow"))
"""


def problems(project: dict[str, Any], version: str, *, readme: str, changelog: str, tags: list[str]) -> list[str]:
    """Return what stops a release.

    :param project: the table ``[project]`` of ``pyproject.toml``.
    :param tags: the tags of the repository.
    """
    found = []
    urls = project.get("urls", {})
    if not urls:
        found.append("pyproject.toml has no [project.urls]: add the address of the repository, as Source.")
    for name, url in urls.items():
        if not url.startswith("https://") or PLACEHOLDER.search(url.lower()):
            found.append(f"[project.urls] {name} = {url!r} is a placeholder: write the real address.")
    if "readme" in project and re.search(r"\]\((?!https://|#)", readme):
        found.append(
            "README.md has relative links, which are dead on the package index: "
            "let hatch-fancy-pypi-readme make them absolute."
        )
    (newest,) = re.findall(r"^## (.+)$", changelog, re.MULTILINE)[:1]
    if newest.split()[0] != version:
        found.append(
            f"CHANGELOG.md begins with {newest!r} and the version is {version}: both need the new version."
        )
    if f"v{version}" in tags:
        found.append(f"The tag v{version} exists: this version has been released.")
    return found


def run(*command: str | Path, **options: Any) -> str:
    """Run a program, and return what it prints; end with its errors if it fails."""
    done = subprocess.run([*map(str, command)], check=False, capture_output=True, text=True, **options)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command[:3]))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def last_change(path: str) -> int:
    """Return the time of the last commit that changed a path."""
    return int(run("git", "log", "-1", "--format=%ct", "--", path, cwd=ROOT))


def build(folder: Path, epoch: str) -> list[Path]:
    """Build the last commit in a new clone, and return the wheel and the source distribution."""
    run("git", "clone", "--quiet", ROOT, folder / "source")
    env = os.environ | {"SOURCE_DATE_EPOCH": epoch}
    pinned = ("--build-constraints", ROOT / "constraints.txt")
    run(BIN / "uv", "build", "--quiet", *pinned, "--out-dir", folder / "dist", folder / "source", env=env)
    return sorted(file for file in (folder / "dist").iterdir() if file.suffix in {".whl", ".gz"})


def digests(files: list[Path]) -> list[str]:
    """Return the SHA-256 and the name of each file, as ``sha256sum`` prints them."""
    return [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}" for file in files]


def install(wheel: Path, folder: Path, resolution: str) -> Path:
    """Install the wheel into an empty environment, import all its modules, and return the environment's Python."""
    python = folder / "bin" / "python"
    run(BIN / "uv", "venv", "--quiet", "--python", sys.executable, folder)
    # uv takes the lowest versions only of what is named: the wheel's dependencies are, in pyproject.toml.
    wanted = ("--resolution", resolution, "--requirements", ROOT / "pyproject.toml", wheel)
    run(BIN / "uv", "pip", "install", "--quiet", "--python", python, *wanted)
    env = os.environ | {"AIRFLOW_HOME": str(folder / "airflow")}
    imported = run(python, "-W", "ignore", "-c", IMPORTS, cwd=folder, env=env)
    print(f"{resolution}:", imported.splitlines()[-1])
    return python


def main() -> int:
    """Build and check a release."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rehearse", action="store_true", help="go on if something stops a release")
    rehearses = parser.parse_args().rehearse
    text = (ROOT / "pyproject.toml").read_text()
    (version,) = re.findall(r'__version__ = "(.+)"', (ROOT / PACKAGE / "__init__.py").read_text())
    found = problems(
        tomllib.loads(text)["project"],
        version,
        readme=(ROOT / "README.md").read_text(),
        changelog=(ROOT / "CHANGELOG.md").read_text(),
        tags=run("git", "tag", cwd=ROOT).split(),
    )
    if run("git", "status", "--porcelain", cwd=ROOT):
        found.append("The work tree has changes that are not committed: they would not be in the release.")
    found += [
        f"{pictures} are older than {PACKAGE}/{source}: run `make screenshots`, and look at them."
        for pictures, source in SHOWN.items()
        if last_change(pictures) < last_change(f"{PACKAGE}/{source}")
    ]
    if found:
        print("This cannot be released:", *found, sep="\n- ")
        if not rehearses:
            return 1
    with tempfile.TemporaryDirectory(prefix="pictory-release-") as name:
        folder = Path(name)
        epoch, commit = run("git", "log", "-1", "--format=%ct %H", cwd=ROOT).split()
        once, again = (build(folder / number, epoch) for number in ("1", "a-longer-name"))
        if digests(once) != digests(again):
            print("Two builds of one commit differ:", *digests(once), *digests(again), sep="\n  ")
            return 1
        print("Two builds of", commit, "in different folders are the same, byte for byte.")
        run(BIN / "twine", "check", "--strict", *once)
        (wheel,) = (file for file in once if file.suffix == ".whl")
        install(wheel, folder / "oldest", "lowest-direct")
        python = install(wheel, folder / "newest", "highest")
        named = folder / "pyproject.toml"
        named.write_text(text.replace('dynamic = ["version"]', f'version = "{version}"'))
        sbom = folder / f"{wheel.name.partition('-py3')[0]}.cdx.json"
        options = ("--pyproject", named, "--mc-type", "library", "--output-reproducible", "--output-file", sbom)
        env = os.environ | {"SOURCE_DATE_EPOCH": epoch}
        run(BIN / "cyclonedx-py", "environment", *options, python, env=env)
        out = ROOT / "dist" / ("rehearsal" if rehearses else version)
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        for file in (*once, sbom):
            shutil.copy(file, out)
        print(f"{out.relative_to(ROOT)} has:", *digests([*once, sbom]), sep="\n  ")
    if rehearses:
        print("This was a rehearsal: do not publish these files.")
    else:
        print("Nothing was uploaded. Next, as CONTRIBUTING.md describes:")
        print(f"  git tag v{version} {commit} && git push origin v{version}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
