# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What the docs quote of the example DAGs: ``python -m tests.docs.snippets`` quotes it anew.

A quotation is a comment, ``<!-- include FILE NAME -->``, and the code block after it. It shows what lies
between ``# [START NAME]`` and ``# [END NAME]`` of the file.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), ROOT / "findings" / "README.md"]
QUOTATION = re.compile(r"(<!-- include (\S+) (\S+) -->\n```python\n)(.*?)(```)", re.DOTALL)


def marked(file: str, name: str) -> str:
    """Return the part of a file between its markers."""
    text = (ROOT / file).read_text()
    found = re.search(rf"\n *# \[START {name}\]\n(.*?)\n *# \[END {name}\]", text, re.DOTALL)
    assert found, f"{file} has no markers for {name}"
    return textwrap.dedent(found[1]) + "\n"


def quoted(page: str) -> str:
    """Return a page with every quotation as it should be."""
    return QUOTATION.sub(lambda found: found[1] + marked(found[2], found[3]) + found[5], page)


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(quoted(path.read_text()))
