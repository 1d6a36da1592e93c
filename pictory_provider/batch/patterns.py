# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What does this pattern make of a row? ``"{product} in {colour}"``.

A pattern knows plain names of columns, and ``index``, which is the row's number from 0. Only ``index`` takes a
format: ``{index:05d}``. ``{{`` and ``}}`` stand for braces. There are no attributes, no indexing and no
conversions, so that a pattern reaches nothing but the row; what a cell holds is never read as a pattern.
"""

from __future__ import annotations

import re
import string
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from pictory_provider.api.errors import RequestInvalid
from pictory_provider.batch.tables import is_empty

if TYPE_CHECKING:
    from pictory_provider.batch.tables import Record

INDEX = "index"
_FORMAT = re.compile(r"(0?[1-9][0-9]?)?d?")
_SHOWN = 12
"""How many columns an error names."""


class _Piece(NamedTuple):
    literal: str
    column: str | None
    format: str


class Pattern:
    """One of the operator's arguments that are made anew for each row.

    :param field: the argument's name: ``prompt``, ``file_name`` or ``reference_image_url``.
    :raises RequestInvalid: for a pattern that nothing could be made of, whatever the row.
    """

    def __init__(self, field: str, text: str) -> None:
        self.field = field
        self.text = text
        self._pieces = self._parsed() if isinstance(text, str) else self._refuse("it is no string")
        if field in self.columns:
            self._refuse(
                f"it uses {{{field}}}, and a row's own `{field}` takes the place of the whole pattern; give that "
                "column another name"
            )

    @property
    def columns(self) -> list[str]:
        """The names that it uses, each once."""
        return list(dict.fromkeys(piece.column for piece in self._pieces if piece.column is not None))

    def of(self, record: Record, index: int) -> str:
        """Return what it makes of a row.

        :raises ValueError: says what is wrong with the row.
        """
        made = []
        for literal, column, form in self._pieces:
            made.append(literal)
            if column == INDEX:
                made.append(format(index, form))
            elif column is not None:
                made.append(self._cell(record, column))
        return "".join(made)

    def _cell(self, record: Record, column: str) -> str:
        if column not in record.values:
            there = [repr(name) for name in record.values]
            more = [f"{len(there) - _SHOWN} more"] if len(there) > _SHOWN else []
            raise ValueError(
                f"{self.field}={self.text!r} uses {{{column}}}, and there is no such column: there is "
                f"{', '.join(there[:_SHOWN] + more) or 'none'}"
            )
        value = record.values[column]
        if is_empty(value):
            raise ValueError(f"{self.field}={self.text!r} uses {{{column}}}, which is empty here")
        if record.texts and column in record.texts:
            return record.texts[column]
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise ValueError(  # noqa: TRY004
                f"{self.field}={self.text!r} uses {{{column}}}, which holds {type(value).__name__} here and not a "
                "text or a number"
            )
        return str(value)

    def _parsed(self) -> list[_Piece]:
        try:
            parts = list(string.Formatter().parse(self.text))
        except ValueError as error:
            self._refuse(f"{error}; a brace that stands for itself is written twice")
        pieces = []
        for literal, column, form, conversion in parts:
            if column is not None:
                self._check(column, form or "", conversion)
            pieces.append(_Piece(literal, column, form or ""))
        return pieces

    def _check(self, column: str, form: str, conversion: str | None) -> None:
        if not column.strip():
            self._refuse("a pair of braces names no column")
        if conversion is not None or any(character in column for character in ".[]{}"):
            self._refuse(f"{{{column}}} is more than the plain name of a column")
        if form and column != INDEX:
            self._refuse(f"{{{column}:{form}}} has a format, and only {{index}} takes one")
        if not _FORMAT.fullmatch(form):
            self._refuse(f"the format in {{index:{form}}} is none like 05d")

    def _refuse(self, why: str) -> NoReturn:
        raise RequestInvalid(
            f"{self.field} {self.text!r} is no pattern over columns: {why}. Nothing was sent and nothing was "
            'spent. Use plain column names and index, such as "{sku}.png" or "{index:05d}.png".',
            fields=[self.field],
        )
