# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Draw the layers of the package from its code: ``python -m tests.tools.layers`` updates the picture in the docs.

The layers are those of ``pyproject.toml``. The text of a box is the first line of the folder's docstring. An arrow is
an import, including those within functions and for types.
"""

from __future__ import annotations

import ast
import re
import sys
import textwrap
import tomllib
from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "pictory_provider"
PICTURE = ROOT / "docs" / "images" / "layers.svg"
FILES = sorted(PACKAGE.rglob("*.py"))
WITH_MANY = ("core", "services")
"""Folders that contain a folder ``batch``."""
_WIDTH, _HEIGHT, _BETWEEN, _CHARACTER = 920, 54, 26, 6.4


def module_of(file: Path) -> str:
    """Return a module's name below the package; empty for the package itself."""
    return ".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip(".")


MODULES = {module_of(file): file for file in FILES}


@cache
def nodes(file: Path) -> tuple[ast.AST, ...]:
    """Return the nodes of a file's syntax tree, the module itself first."""
    return tuple(ast.walk(ast.parse(file.read_text())))


def imports(file: Path) -> Iterator[str]:
    """Yield the modules of this package that a module imports."""
    for node in nodes(file):
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("pictory_provider."):
            assert node.level == 0, f"{file}: a relative import"
            base = str(node.module).removeprefix("pictory_provider").removeprefix(".")
            names = (f"{base}.{alias.name}".removeprefix(".") for alias in node.names)
            yield from (name if name in MODULES else base for name in names)


def folder_of(module: str) -> str:
    """Return the folder of a module; for a module at the top, the module itself."""
    parts = module.split(".")
    return ".".join(parts[: 2 if parts[0] in WITH_MANY and parts[1:2] == ["batch"] else 1])


def folders() -> set[str]:
    """Return all folders with code, and the modules at the top."""
    return {folder_of(module) for module in MODULES if module}


def arrows() -> set[tuple[str, str]]:
    """Return the pairs of a folder and another one that it imports."""
    pairs = {(folder_of(module), folder_of(other)) for module, file in MODULES.items() for other in imports(file)}
    return {(one, other) for one, other in pairs if one and other and one != other}


def layers() -> list[list[str]]:
    """Return the folders by layer, from top to bottom."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    found = []
    for layer in settings["contracts"][0]["layers"]:
        names = [name for name in re.split(r"[ |:]+", layer) if name != "__main__"]
        found += [[f"{name}.batch"] for name in names if name in WITH_MANY]
        if names:
            found.append(names)
    return found


def summary_of(folder: str) -> str:
    """Return the first line of a folder's docstring, without the names of modules in it."""
    path = PACKAGE / folder.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    module = nodes(file)[0]
    assert isinstance(module, ast.Module)
    line = (ast.get_docstring(module) or "").splitlines()[0]
    return re.sub(r":\w+:`~?pictory_provider\.([\w.]+)`", r"\1", line).replace("``", "")


def svg() -> str:
    """Return the picture as SVG."""
    boxes: dict[str, tuple[float, float, float]] = {}
    drawn, texts = [], []
    every = layers()
    for row, names in enumerate(every):
        width = (_WIDTH - _BETWEEN * (len(names) - 1)) / len(names)
        for column, name in enumerate(names):
            x, y = column * (width + _BETWEEN), row * (_HEIGHT + _BETWEEN)
            boxes[name] = x, y, width
            drawn.append(f'<rect x="{x:.0f}" y="{y}" width="{width:.0f}" height="{_HEIGHT}" rx="5"/>')
            lines = textwrap.wrap(summary_of(name), int(width / _CHARACTER))[:2]
            texts.append(f'<text class="name" x="{x + 10:.0f}" y="{y + 18}">{escape(name)}</text>')
            texts += [
                f'<text x="{x + 10:.0f}" y="{y + 33 + 14 * number}">{escape(line)}</text>'
                for number, line in enumerate(lines)
            ]
    lines = []
    for one, other in sorted(arrows()):
        if one in boxes and other in boxes:
            (x1, y1, w1), (x2, y2, w2) = boxes[one], boxes[other]
            middle = y1 + _HEIGHT
            lines.append(
                f'<path d="M{x1 + w1 / 2:.0f} {middle} C{x1 + w1 / 2:.0f} {middle + 20}, '
                f'{x2 + w2 / 2:.0f} {y2 - 20}, {x2 + w2 / 2:.0f} {y2}"/>'
            )
    height = len(every) * (_HEIGHT + _BETWEEN) - _BETWEEN
    style = (
        "rect{fill:#f4f1fb;stroke:#7a5cc0}path{fill:none;stroke:#7a5cc0;stroke-opacity:.22}"
        "text{font:12px sans-serif;fill:#222}.name{font:bold 13px monospace}"
    )
    parts = [f"<style>{style}</style>", *lines, *drawn, *texts]
    body = "\n".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-2 -2 {_WIDTH + 4} {height + 4}">\n{body}\n</svg>\n'


def main() -> int:
    """Write the picture."""
    PICTURE.write_text(svg())
    return 0


if __name__ == "__main__":
    sys.exit(main())
