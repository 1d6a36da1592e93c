# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What users, DAGs and other releases rely on.

``releases/<version>/interface.json`` keeps it for each release. The code of that release writes it, so this module
imports nothing but public names: in a folder with the release's ``pictory_provider`` and ``docs``,
``PYTHONPATH=.:<this repository> python -P -m tests.provider.interface docs/api.md interface.json``.
Release 0.1.0 is commit 2eceaa2.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import sys
import tempfile
from contextlib import suppress
from enum import EnumType
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.stand_ins import StateStore, TaskInstance

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

PROMPT = "A lighthouse at dawn"


def settings() -> dict[str, Any]:
    """Return the options, the fields of the connection, and the commands."""
    from pictory_provider.provider_info import get_provider_info

    info = get_provider_info()
    (connection,) = info["connection-types"]
    return {
        "options": {name: option["default"] for name, option in info["config"]["pictory"]["options"].items()},
        "connection": {name: field["schema"]["type"] for name, field in connection["conn-fields"].items()},
        "commands": commands(),
    }


def names(page: str) -> Iterator[tuple[str, Any]]:
    """Yield each name of the page on the Python API with what :func:`described` returns."""
    for kind, path, text in re.findall(r"\.\. auto(\w+):: (\S+)\n((?:   :.*\n)*)", page):
        options = dict(re.findall(r":([\w-]+): ?(.*)", text))
        excluded = set(options.get("exclude-members", "").split(", "))
        if kind != "module":
            yield path, described(resolve(path), None if "no-members" in options else excluded)
        elif "no-members" not in options:
            for name, value in vars(import_module(path)).items():
                is_own = getattr(value, "__module__", None) == path and value.__doc__
                if is_own and not name.startswith("_") and name not in excluded:
                    yield f"{path}.{name}", described(value, excluded)


def resolve(path: str) -> Any:
    """Import what a dotted path names."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def described(value: Any, excluded: Collection[str] | None = ()) -> Any:
    """Return the members of an enumeration, the fields of a typed dict, or the arguments of the rest.

    :param excluded: the members of a class that are not public; ``None`` for all.
    """
    if isinstance(value, EnumType):
        return list(value.__members__)
    if not isinstance(value, type):
        return {"arguments": arguments(value)}
    if hasattr(value, "__total__"):  # a typed dict
        return list(value.__annotations__)
    found: dict[str, Any] = {"arguments": arguments(value.__init__)}
    if issubclass(value, BaseException):
        found["is"] = [each.__name__ for each in value.__mro__[1:-1]]
    if hasattr(value, "template_fields"):
        found["template_fields"] = list(value.template_fields)
    if excluded is not None:
        found["members"] = {
            name: arguments(each) if inspect.isroutine(each := inspect.getattr_static(value, name)) else None
            for name in dict.fromkeys(name for each in value.__mro__ if is_own(each) for name in vars(each))
            if not name.startswith("_") and name not in excluded
        }
    return found


def is_own(value: Any) -> bool:
    """Whether a class is of this package."""
    return value.__module__.startswith("pictory_provider.")


def arguments(function: Any) -> dict[str, str]:
    """Return each argument with its kind and its default."""
    function = getattr(function, "__func__", function)
    with suppress(TypeError, ValueError):
        return {
            each.name: f"{each.kind.name.lower()}{'' if each.default is each.empty else f' = {each.default!r}'}"
            for each in inspect.signature(function).parameters.values()
            if each.name not in ("self", "cls")
        }
    return {}


def commands() -> dict[str, list[str]]:
    """Return the options of each command."""
    from pictory_provider.cli.definitions import get_pictory_cli_commands

    (group,) = get_pictory_cli_commands()
    return {each.name: sorted(flag for arg in each.args for flag in arg.flags) for each in group.subcommands}


def stored() -> dict[str, Any]:
    """Buy three pictures of a simulator, and return the shape of all XComs, states and files."""
    from pictory_provider.operators.batch import GenerateImageBatchOperator
    from pictory_provider.operators.pictory import DownloadImageOperator, GenerateImageOperator
    from pictory_provider.sensors.pictory import PictoryJobSensor
    from pictory_provider.simulator import Simulator

    found: dict[str, Any] = {}
    waits = {"poll_interval": 1.0, "deferrable": False}
    with tempfile.TemporaryDirectory() as name, Simulator(seconds=0) as pictory:
        folder = Path(name)
        os.environ["AIRFLOW_CONN_PICTORY_DEFAULT"] = pictory.connection_json()

        def run(task: Any, *fails: type[Exception]) -> Any:
            ti, store = TaskInstance(), StateStore()
            ti.task_id, result = task.task_id, None
            with suppress(*fails):
                result = task.execute({"ti": ti, "task_state_store": store})
            xcoms = ti.xcoms if result is None else {**ti.xcoms, "return_value": result}
            found[task.task_id] = {"xcoms": shape(xcoms)}
            if rows := {key: shape(json.loads(value)) for key, value in store.rows.items()}:
                found[task.task_id]["state"] = rows
            return result

        path = str(folder / "cover.png")
        job_id = run(GenerateImageOperator(task_id="generate", prompt=PROMPT, path=path, **waits))
        run(PictoryJobSensor(task_id="wait", job_id=job_id, poke_interval=1, deferrable=False))
        run(DownloadImageOperator(task_id="save", job_id=job_id, path=str(folder / "saved.png")))
        found["sidecar"] = shape(json.loads((folder / "cover.png.json").read_text()))
        pictory.plan("failed")
        batch = str(folder / "batch")
        rows = [{"prompt": f"{PROMPT}, {n}", "sku": n} for n in range(3)]
        run(GenerateImageBatchOperator(task_id="batch", requests=rows, path=batch, **waits), Exception)
        (page,) = Path(batch, ".pictory").glob("*-*.json")
        record = json.loads(page.read_text())
        found["batch.json"] = shape(json.loads(Path(batch, ".pictory", "batch.json").read_text()))
        found["page"] = shape(record | {"rows": list(record["rows"].values())})
        for file in ("metadata.jsonl", "failed.jsonl"):
            found[file] = shape([json.loads(line) for line in Path(batch, file).read_text().splitlines()])
    return found


def shape(value: Any) -> Any:
    """Return a value with the names of types in place of what it holds; a list becomes the shape of its items."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in sorted(value.items())}
    if isinstance(value, list):
        items = [shape(each) for each in value]
        merged: dict[str, Any] = {}
        for each in items:
            if not isinstance(each, dict):
                return items[:1]
            merged |= {name: kind for name, kind in each.items() if kind != "null" or name not in merged}
        return [merged] if items else []
    names = {bool: "boolean", int: "number", float: "number", str: "string"}
    return names.get(type(value), "null")


if __name__ == "__main__":
    page, out = map(Path, sys.argv[1:])
    found = {"names": dict(names(page.read_text())), **settings(), "stored": stored()}
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n")
