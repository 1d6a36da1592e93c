# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The rooms of the house: who may import whom, inside functions too."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "pictory_provider"

ROOMS: dict[str, tuple[set[str], set[str]]] = {
    # room: (rooms of ours, libraries beside the standard one)
    "__init__": (set(), set()),
    "__main__": ({"cli"}, set()),
    "cli": (
        {"api", "jobs", "compat", "hooks", "images.shelf", "images.sidecar", "provider_info", "spending"},
        {"airflow", "pendulum"},
    ),
    "provider_info": (set(), set()),
    "simulator": (set(), {"aiohttp", "PIL"}),
    "api": (set(), set()),
    "jobs": ({"api"}, set()),
    "batch": ({"api", "jobs"}, set()),
    "images.png": ({"api"}, set()),
    "images.formats": ({"api", "images.png"}, set()),
    "images.mark": ({"images.formats"}, set()),
    "images.sidecar": ({"jobs"}, set()),
    "images.reuse": ({"api", "jobs", "images.mark", "images.sidecar"}, set()),
    "images.__init__": (set(), set()),
    "client": ({"api"}, {"requests", "aiohttp", "certifi"}),
    "pool": ({"api", "jobs", "client"}, set()),
    "compat": ({"api"}, {"airflow", "sqlalchemy"}),
    "exceptions": ({"api", "client"}, {"airflow"}),
    "telemetry": ({"api"}, {"airflow"}),
    "durable": (
        {"api", "jobs", "compat", "images.sidecar", "images.reuse", "images.shelf", "provider_info"},
        {"airflow"},
    ),
    "links": (set(), {"airflow"}),
    "images.paths": ({"api", "jobs"}, {"airflow"}),
    "images.store": ({"api", "images.formats", "images.paths"}, set()),
    "images.placing": ({"api", "jobs", "images.paths", "images.store"}, set()),
    "images.download": ({"api", "client", "images.paths", "images.store", "images.mark"}, set()),
    "images.reference": ({"api", "images.paths"}, set()),
    "images.shelf": (
        {
            "api",
            "client",
            "jobs",
            "images.paths",
            "images.placing",
            "images.download",
            "images.reuse",
            "images.sidecar",
            "images.store",
        },
        set(),
    ),
    "looking": ({"api", "jobs", "client", "pool", "telemetry"}, set()),
    "inquiry": ({"api", "jobs", "client"}, {"airflow"}),
    "spending": ({"api", "jobs", "client", "telemetry"}, {"airflow"}),
    "purchase": (
        {"api", "jobs", "client", "exceptions", "images.reference", "spending", "telemetry"},
        {"airflow"},
    ),
    "order": (
        {
            "api",
            "jobs",
            "client",
            "durable",
            "exceptions",
            "images.reuse",
            "images.shelf",
            "inquiry",
            "purchase",
            "telemetry",
        },
        {"airflow"},
    ),
    "hooks": (
        {
            "api",
            "jobs",
            "images.store",
            "images.shelf",
            "images.download",
            "client",
            "pool",
            "exceptions",
            "telemetry",
            "looking",
            "purchase",
            "provider_info",
        },
        {"airflow", "asgiref", "wtforms"},
    ),
    "batching": (
        {
            "api",
            "jobs",
            "batch",
            "client",
            "compat",
            "exceptions",
            "hooks",
            "images.download",
            "images.paths",
            "images.placing",
            "images.reuse",
            "images.shelf",
            "images.sidecar",
            "images.store",
            "purchase",
            "spending",
            "telemetry",
        },
        {"airflow"},
    ),
    "triggers": (
        {"api", "jobs", "batch", "compat", "exceptions", "hooks", "links", "looking", "pool"},
        {"airflow", "asgiref"},
    ),
    "waiting": ({"api", "jobs", "compat", "exceptions", "hooks", "looking", "triggers"}, {"airflow"}),
    "operators": (
        {
            "api",
            "jobs",
            "batch",
            "batching",
            "images.paths",
            "images.store",
            "images.download",
            "images.reuse",
            "images.shelf",
            "compat",
            "durable",
            "exceptions",
            "hooks",
            "links",
            "looking",
            "order",
            "spending",
            "telemetry",
            "triggers",
            "waiting",
            "provider_info",
        },
        {"airflow"},
    ),
    "decorators": ({"api", "compat", "jobs", "operators", "order"}, {"airflow"}),
    "sensors": (
        {
            "api",
            "jobs",
            "compat",
            "exceptions",
            "hooks",
            "links",
            "looking",
            "telemetry",
            "waiting",
            "provider_info",
        },
        {"airflow", "pendulum"},
    ),
    "plugins": (
        {"api", "client", "hooks", "images.paths", "jobs", "links", "provider_info"},
        {"airflow", "fastapi"},
    ),
}


def room_of(module: str) -> str:
    parts = module.split(".")
    return next(
        (name for name in (".".join(parts[:2]), parts[0]) if name in ROOMS),
        parts[0],
    )


def imports(file: Path):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            base = node.module or ""
            for alias in node.names:
                deeper = f"{base}.{alias.name}"
                path = ROOT / deeper.replace(".", "/")
                yield deeper if path.is_dir() or path.with_suffix(".py").exists() else base


FILES = sorted(PACKAGE.rglob("*.py"))


def trespasses(file: Path):
    """Yield what a module imports and its room may not."""
    module = ".".join(file.relative_to(PACKAGE).with_suffix("").parts)
    room = room_of(module)
    ours, libraries = ROOMS[room]
    for name in imports(file):
        top, _, rest = name.partition(".")
        if top == "pictory_provider":
            if rest and room_of(rest) != room and room_of(rest) not in ours:
                yield f"{module} imports {name}"
        elif top not in sys.stdlib_module_names and top not in libraries:
            yield f"{module} imports {name}"


def test_every_module_imports_only_what_its_room_may():
    assert [trespass for file in FILES for trespass in trespasses(file)] == []


def test_only_compat_knows_airflow_versions():
    knowing = [
        f.name
        for f in FILES
        if "airflow import __version__" in f.read_text() or "except ImportError:" in f.read_text()
    ]
    assert knowing == ["compat.py"]


def test_every_python_file_names_its_licence():
    folders = ("pictory_provider", "tests", "dags", "demo", "benchmarks")
    for file in (f for folder in folders for f in (ROOT / folder).rglob("*.py")):
        assert file.read_text().startswith("# SPDX-License-Identifier: Apache-2.0\n"), file
