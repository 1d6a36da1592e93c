# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The package as a house: how many folders import how many others. Which may is in ``pyproject.toml`` (importlinter)."""

from __future__ import annotations

import ast
from collections import Counter

from tests.tools.layers import FILES, MODULES, PACKAGE, PICTURE, ROOT, arrows, folders, imports, nodes, svg


def test_no_module_imports_more_than_fifteen_others_of_the_package():
    numbers = {module: len(set(imports(file)) - {""}) for module, file in MODULES.items()}
    assert {module: number for module, number in numbers.items() if number > 15} == {}


def test_the_house_has_few_rooms_few_ways_between_them_and_no_crowded_folder():
    loose = {module for module, file in MODULES.items() if file.parent == PACKAGE and not module.startswith("_")}
    files = Counter(str(file.parent.relative_to(PACKAGE)) for file in FILES if file.name != "__init__.py")
    assert len(folders()) <= 24
    assert len(arrows()) <= 95
    assert len(loose - {""}) <= 4
    assert {folder: number for folder, number in files.items() if number > 12} == {"simulator": 16}


def test_the_picture_of_the_layers_is_that_of_the_code():
    assert PICTURE.read_text() == svg(), "run `make docs-update`"


def test_json_of_others_is_read_in_one_place():
    """Elsewhere deep nesting would raise a bare ``RecursionError``. The simulator has no code of the provider's."""
    readers = {
        str(file.relative_to(PACKAGE))
        for file in FILES
        for node in nodes(file)
        if isinstance(node, ast.Attribute)
        and (node.attr in ("JSONDecoder", "raw_decode") or ast.unparse(node) in ("json.loads", "json.load"))
    }
    assert {reader for reader in readers if not reader.startswith("simulator/")} == {"api/decoding.py"}


def test_only_version_compat_knows_airflow_versions():
    knowing = [
        f.name
        for f in FILES
        if "airflow import __version__" in f.read_text() or "except ImportError:" in f.read_text()
    ]
    assert knowing == ["version_compat.py"]


def test_every_python_file_names_its_licence():
    folders = ("pictory_provider", "tests", "dags", "demo", "benchmarks")
    for file in (f for folder in folders for f in (ROOT / folder).rglob("*.py")):
        assert file.read_text().startswith("# SPDX-License-Identifier: Apache-2.0\n"), file
