# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Format texts for logs: numbers with their nouns, and one sentence per line."""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH = 92
"""Characters of a line that Airflow's log shows on a common screen."""
_INDENT = " " * 4
_BETWEEN_SENTENCES = re.compile(r"(?<=[.?!])\s+(?=[A-Z`\"'])")
_URL = re.compile(r"https?://(?=[\w\[])[^\s`\"'<>]+")


def wrap_sentences(text: str, *, after: str = "") -> str:
    """Return a text with one sentence per line; longer sentences are wrapped and indented.

    A line that begins with four blanks is for copying, and stays as it is.

    :param after: what is printed before the first line, such as the name of an error's class.
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


def counted(number: int, noun: str, nouns: str | None = None) -> str:
    """Return a number with its noun: ``1 row``, ``0 rows``, ``1,200 rows``.

    :param noun: the singular.
    :param nouns: the plural; by default the noun with an *s*.
    """
    return f"{number:,} {noun if number == 1 else nouns or f'{noun}s'}"


def type_of(value: object) -> str:
    """Return the type of a value as a phrase that follows *is*: ``of type int``, or ``None``."""
    return "None" if value is None else f"of type {type(value).__name__}"


def urls(text: str) -> list[str]:
    """Return the URLs with a host in a text, each once."""
    return list(dict.fromkeys(_URL.findall(text)))


def shorten(text: str, most: int) -> str:
    """Return a text, cut to its first ``most`` characters and an ellipsis if it is longer."""
    return text if len(text) <= most else f"{text[:most]}…"


def listed(names: Sequence[str], most: int) -> str:
    """Return the first ``most`` names in one line, and how many more there are: ``a, b and 3 more``."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
