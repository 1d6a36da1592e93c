# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Render the patterns of a batch's arguments for one row: ``"{product} in {colour}"``.

A pattern may use plain names of columns, and ``index``, which is the row's number from 0. Only ``index`` takes a
format: ``{index:05d}``. ``{{`` and ``}}`` are literal braces. There are no attributes, no indexing and no
conversions, so a pattern can read nothing but the row; the value of a cell is never treated as a pattern.
"""

from __future__ import annotations

import re
import string
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from pictory_provider.api.errors import RequestInvalid
from pictory_provider.api.text import type_of
from pictory_provider.core.batch.tables import is_empty

if TYPE_CHECKING:
    from pictory_provider.core.batch.tables import InputRow

INDEX = "index"
_FORMAT = re.compile(r"(0?[1-9][0-9]?)?d?")
_SHOWN = 12
"""How many columns an error names."""


class _Piece(NamedTuple):
    literal: str
    column: str | None
    format: str


class RowTemplate:
    """An argument of the operator that is rendered for each row.

    :param field: the argument's name: ``prompt``, ``file_name`` or ``reference_image_url``.
    :raises RequestInvalid: for a pattern that no row can make valid.
    """

    def __init__(self, field: str, text: str) -> None:
        self.field = field
        self.text = text
        self._pieces = self._parsed() if isinstance(text, str) else self._refuse("it is not a string")
        if field in self.columns:
            self._refuse(
                f"it uses {{{field}}}, and a row's own `{field}` replaces the whole pattern; rename that column"
            )

    @property
    def columns(self) -> list[str]:
        """The columns that it uses, each once."""
        return list(dict.fromkeys(piece.column for piece in self._pieces if piece.column is not None))

    def render(self, record: InputRow, index: int) -> str:
        """Return the text for a row.

        :raises ValueError: says what is wrong with the row.
        """
        texts = []
        for literal, column, form in self._pieces:
            texts.append(literal)
            if column is not None:
                texts.append(format(index, form) if column == INDEX else self._cell(record, column))
        return "".join(texts)

    def _cell(self, record: InputRow, column: str) -> str:
        uses = f"{self.field}={self.text!r} uses {{{column}}}"
        if column not in record.values:
            names = [repr(name) for name in record.values]
            more = [f"{len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
            columns = ", ".join(names[:_SHOWN] + more) or "none"
            raise ValueError(f"{uses}, and there is no such column; the columns are: {columns}")
        value = record.values[column]
        if is_empty(value):
            raise ValueError(f"{uses}, which is empty here")
        if record.texts and column in record.texts:
            return record.texts[column]
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            what = type_of(value)
            raise ValueError(f"{uses}, which is {what} here, and neither a text nor a number")  # noqa: TRY004
        return str(value)

    def _parsed(self) -> list[_Piece]:
        try:
            parts = list(string.Formatter().parse(self.text))
        except ValueError as error:
            self._refuse(f"{error}; write a literal brace twice")
        pieces = []
        for literal, column, form, conversion in parts:
            if column is not None:
                self._check(column, form or "", conversion)
            pieces.append(_Piece(literal, column, form or ""))
        return pieces

    def _check(self, column: str, form: str, conversion: str | None) -> None:
        if not column.strip():
            self._refuse("a pair of braces has no column name")
        if conversion is not None or any(character in column for character in ".[]{}"):
            self._refuse(f"{{{column}}} is not a plain column name")
        if form and column != INDEX:
            self._refuse(f"{{{column}:{form}}} has a format, and only {{index}} takes one")
        if not _FORMAT.fullmatch(form):
            self._refuse(f"the format in {{index:{form}}} is not of the form 05d")

    def _refuse(self, why: str) -> NoReturn:
        raise RequestInvalid.unsent(
            f"{self.field} {self.text!r} is not a valid pattern: {why}",
            'Use plain column names and index, such as "{sku}.png" or "{index:05d}.png".',
            fields=[self.field],
        )
