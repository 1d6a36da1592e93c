# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Mutation testing: change the pure modules in one place at a time, and print changes that the pure tests miss.

``python -m tests.tools.mutate --seed 1 --changes 200`` tries a sample of all single changes: an operator, a
constant, a branch, a return value, a dropped call. Each is tried in a copy of the tree, with the tests that import
the module first. A survivor is printed with its line: a test is missing, or the change makes no difference.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "pictory_provider"
PURE = ("api", "core", "media")
NOT_RUN = "tests/pure/test_layers.py"
"""It reads the source, so it fails for every change."""
PATIENCE = 300
"""Seconds after which a change counts as noticed, because it has created an endless loop."""

COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}


class Change(NamedTuple):
    """One change of one module.

    :param module: below the package.
    :param number: of the node, in the order of :func:`ast.walk`.
    :param kind: a key of :data:`_do`.
    """

    module: str
    number: int
    kind: str
    line: int


def changes_of(module: str) -> list[Change]:
    """Return every single change of a module."""
    tree = ast.parse((ROOT / PACKAGE / module).read_text())
    skipped = set(_skipped(tree))
    return [
        Change(module, number, kind, node.lineno)
        for number, node in enumerate(ast.walk(tree))
        if id(node) not in skipped
        for kind in _kinds(node)
    ]


def _skipped(tree: ast.AST) -> Iterator[int]:
    """Yield the ids of nodes without effect at run time, or with an effect on the wording of a text only."""
    for node in ast.walk(tree):
        parts: list[ast.AST | None] = []
        if isinstance(node, ast.FunctionDef):
            parts += [node.returns, *(each.annotation for each in _arguments(node))]
        elif isinstance(node, ast.AnnAssign):
            parts.append(node.annotation)
        elif isinstance(node, ast.JoinedStr):
            parts += [each for each in node.values if isinstance(each, ast.Constant)]
        elif isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            parts.append(node)
        for part in parts:
            if part is not None:
                yield from (id(each) for each in ast.walk(part))


def _arguments(node: ast.FunctionDef) -> list[ast.arg]:
    of = node.args
    return [each for each in (*of.posonlyargs, *of.args, *of.kwonlyargs, of.vararg, of.kwarg) if each]


def _kinds(node: ast.AST) -> Iterator[str]:
    """Yield the kinds of changes that are possible for a node."""
    by_type: dict[type[ast.AST], tuple[bool, tuple[str, ...]]] = {
        ast.Compare: (True, ("comparison",)),
        ast.BinOp: (type(getattr(node, "op", None)) in COMPUTED, ("operator",)),
        ast.BoolOp: (True, ("and for or",)),
        ast.UnaryOp: (isinstance(getattr(node, "op", None), ast.Not), ("not dropped",)),
        ast.Constant: (_is_changed(getattr(node, "value", None)), ("constant",)),
        ast.If: (True, ("always", "never")),
        ast.IfExp: (True, ("always", "never")),
        ast.Return: (not _is_none(getattr(node, "value", None)), ("returns nothing",)),
        ast.Expr: (isinstance(getattr(node, "value", None), ast.Call), ("call dropped",)),
    }
    is_one, kinds = by_type.get(type(node), (False, ()))
    if is_one:
        yield from kinds


def _is_changed(value: object) -> bool:
    """Whether to change a constant: texts with blanks are for readers, and are not changed."""
    if isinstance(value, str):
        return re.fullmatch(r"[\w.:/-]+", value) is not None
    return isinstance(value, (bool, int, float))


def _is_none(node: object) -> bool:
    return node is None or (isinstance(node, ast.Constant) and node.value is None)


def applied(change: Change) -> str:
    """Return the source of the module with the change."""
    tree = ast.parse((ROOT / PACKAGE / change.module).read_text())
    node = list(ast.walk(tree))[change.number]
    _do[change.kind](node)
    if change.kind == "call dropped":
        node.value = ast.Constant(None)
    return ast.unparse(ast.fix_missing_locations(tree))


def _compare(node: ast.Compare) -> None:
    node.ops[0] = COMPARED[type(node.ops[0])]()


def _compute(node: ast.BinOp) -> None:
    node.op = COMPUTED[type(node.op)]()


def _swap(node: ast.BoolOp) -> None:
    node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()


def _drop_not(node: ast.UnaryOp) -> None:
    node.op, node.operand = ast.Not(), ast.UnaryOp(ast.Not(), node.operand)


def _other(node: ast.Constant) -> None:
    value = node.value
    if isinstance(value, bool):
        node.value = not value
    elif isinstance(value, str):
        node.value = f"{value}_"
    else:
        node.value = value + 1


def _test(value: bool) -> Callable[[ast.If | ast.IfExp], None]:
    def change(node: ast.If | ast.IfExp) -> None:
        node.test = ast.Constant(value)

    return change


def _return_nothing(node: ast.Return) -> None:
    node.value = ast.Constant(None)


_do: dict[str, Callable[..., None]] = {
    "comparison": _compare,
    "operator": _compute,
    "and for or": _swap,
    "not dropped": _drop_not,
    "constant": _other,
    "always": _test(True),
    "never": _test(False),
    "returns nothing": _return_nothing,
    "call dropped": lambda _: None,
}


def tests_of(module: str) -> list[str]:
    """Return the test files of the pure tests, first those that import the module."""
    name = f"{PACKAGE}." + module.removesuffix(".py").replace("/", ".")
    files = sorted(
        path for path in (ROOT / "tests" / "pure").rglob("test_*.py") if str(path.relative_to(ROOT)) != NOT_RUN
    )
    texts = {path: path.read_text() for path in files}
    parent, _, last = name.rpartition(".")
    own = [
        path
        for path in files
        if name in texts[path] or re.search(rf"from {re.escape(parent)} import .*\b{last}\b", texts[path])
    ]
    return [str(path.relative_to(ROOT)) for path in [*own, *(path for path in files if path not in own)]]


def is_noticed(change: Change, tree: Path) -> bool:
    """Try a change in a copy of the tree, and return whether a test fails."""
    file = tree / PACKAGE / change.module
    before = file.read_text()
    file.write_text(applied(change))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:randomly",
        *tests_of(change.module),
    ]
    env = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "PICTORY_EXAMPLES": "100"}
    try:
        done = subprocess.run(command, cwd=tree, env=env, capture_output=True, check=False, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return True
    finally:
        file.write_text(before)
    return done.returncode != 0


def main() -> int:
    """Try a sample, and print the changes that no test notices."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.mutate", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--changes", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default="", help="modules whose path has this in it")
    chosen = parser.parse_args()
    modules = [
        str(path.relative_to(ROOT / PACKAGE))
        for each in PURE
        for path in sorted(
            (ROOT / PACKAGE / each).rglob("*.py") if not each.endswith(".py") else [ROOT / PACKAGE / each]
        )
        if chosen.only in str(path)
    ]
    every = [change for module in modules for change in changes_of(module)]
    sample = random.Random(chosen.seed).sample(every, min(chosen.changes, len(every)))
    print(
        f"{len(every):,} single changes of {len(modules)} modules; {len(sample)} of them, seed {chosen.seed}",
        flush=True,
    )
    begun, survivors = time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder:
        trees: SimpleQueue[Path] = SimpleQueue()
        for number in range(chosen.at_once):
            tree = Path(folder) / str(number)
            for name in (PACKAGE, "tests", "docs", "dags", "pyproject.toml", "README.md", "CHANGELOG.md"):
                source = ROOT / name
                if source.is_dir():
                    shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__", "_build"))
                elif source.exists():
                    tree.mkdir(exist_ok=True)
                    shutil.copy(source, tree / name)
            trees.put(tree)

        def attempt(change: Change) -> tuple[Change, bool]:
            tree = trees.get()
            try:
                return change, is_noticed(change, tree)
            finally:
                trees.put(tree)

        with ThreadPoolExecutor(chosen.at_once) as pool:
            for change, noticed in pool.map(attempt, sample):
                if not noticed:
                    survivors.append(change)
                    print(description_of(change), flush=True)
    noticed = len(sample) - len(survivors)
    print(f"{noticed} of {len(sample)} were noticed, in {time.monotonic() - begun:.0f} s")
    return 0


def description_of(change: Change) -> str:
    """Return the changed line, before and after."""
    before = ast.unparse(ast.parse((ROOT / PACKAGE / change.module).read_text())).splitlines()
    after = applied(change).splitlines()
    pairs = [(one, other) for one, other in zip(before, after, strict=False) if one != other]
    one, other = pairs[0] if pairs else ("", "")
    return f"{change.module}:{change.line}: {change.kind}\n    {one.strip()[:160]}\n    {other.strip()[:160]}"


if __name__ == "__main__":
    sys.exit(main())
