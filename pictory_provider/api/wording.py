# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""How a text is laid out for whoever reads it in a log: a sentence a line, and no line runs off the page."""

from __future__ import annotations

import re
import textwrap

WIDTH = 92
"""Characters that Airflow's log shows of a line on a common screen."""
_INDENT = " " * 4
_BETWEEN_SENTENCES = re.compile(r"(?<=[.?!])\s+(?=[A-Z`\"'])")
_URL = re.compile(r"https?://[^\s`\"'<>]+")


def laid_out(text: str, *, after: str = "") -> str:
    """Return a text with each sentence on a line of its own, and what is longer wrapped and indented.

    A line that begins with four blanks is something to copy, and stays as it is.

    :param after: what stands before the text in its first line, such as the name of an error's class.
    """
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith(_INDENT):
            lines.append(line)
            continue
        for sentence in _BETWEEN_SENTENCES.split(line):
            lines += textwrap.wrap(
                sentence,
                WIDTH,
                initial_indent="" if lines else " " * len(after),
                subsequent_indent=_INDENT,
                break_long_words=False,
                break_on_hyphens=False,
            )
    return "\n".join(lines).lstrip()


def urls(text: str) -> list[str]:
    """Return the URLs in a text, each once."""
    return list(dict.fromkeys(_URL.findall(text)))
