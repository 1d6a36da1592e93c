# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Render the patterns of a batch's arguments for one row: ``"{product} in {colour}"``.

A pattern may use plain names of columns, and ``index``, which is the row's number from 0. Only ``index`` takes a
format: ``{index:05d}``. Any column can be named as ``{row[g:id]}``, which ends at the first ``]}``. ``{{`` and
``}}`` are literal braces. There are no attributes and no conversions, so a pattern can read nothing but the row;
the value of a cell is never treated as a pattern.
"""

from __future__ import annotations

import re
import string
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from pictory_provider.api.errors import RequestInvalid
from pictory_provider.api.text import type_of
from pictory_provider.core.tables.values import is_empty

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pictory_provider.core.tables.inputs import InputRow

INDEX = "index"
_FORMAT = re.compile(r"(0?[1-9][0-9]?)?d?")
_SHOWN = 12
"""How many columns an error names."""


_ROW, _END = "{row[", "]}"
"""Around the name of any column."""


class _Piece(NamedTuple):
    """A part of a pattern.

    :param form: of the row's number; ``None`` if the column's cell is meant.
    """

    literal: str
    column: str | None = None
    form: str | None = None


class RowTemplate:
    """An argument of the operator that is rendered for each row.

    :param field: the argument's name: ``prompt``, ``file_name`` or ``reference_image_url``.
    :param own_column: the column whose value replaces the whole pattern; ``None`` for none.
    :raises RequestInvalid: for a pattern that no row can make valid.
    """

    def __init__(self, field: str, text: str, own_column: str | None = None) -> None:
        self.field = field
        self.text = text
        self._pieces = self._parsed() if isinstance(text, str) else self._refuse("it is not a string")
        if own_column in self.columns:
            self._refuse(
                f"it uses {{{own_column}}}, and the column {own_column!r} replaces the whole pattern: rename that "
                f"column, or set request_columns={{{field!r}: None}}, so that it is only data"
            )

    @property
    def columns(self) -> list[str]:
        """The columns whose cells it uses, each once."""
        named = (piece.column for piece in self._pieces if piece.form is None)
        return list(dict.fromkeys(column for column in named if column is not None))

    @property
    def uses_number(self) -> bool:
        """Whether it uses the number of the row."""
        return any(piece.form is not None for piece in self._pieces)

    def render(self, record: InputRow, index: int) -> str:
        """Return the text for a row.

        :raises ValueError: says what is wrong with the row.
        """
        texts = []
        for literal, column, form in self._pieces:
            texts.append(literal)
            if form is not None:
                texts.append(format(index, form))
            elif column is not None:
                texts.append(self._cell(record, column))
        return "".join(texts)

    def _cell(self, record: InputRow, column: str) -> str:
        in_brackets = _ROW + column + _END
        uses = f"{self.field}={self.text!r} uses {in_brackets if in_brackets in self.text else f'{{{column}}}'}"
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
        pieces = []
        for part, is_column in _parts(self.text):
            if is_column:
                pieces.append(_Piece("", part or self._refuse("a pair of brackets has no column name")))
                continue
            try:
                parts = list(string.Formatter().parse(part))
            except ValueError as error:
                self._refuse(f"{error}; write a literal brace twice")
            for literal, column, form, conversion in parts:
                if column is not None:
                    self._check(column, form or "", conversion)
                pieces.append(_Piece(literal, column, (form or "") if column == INDEX else None))
        return pieces

    def _check(self, column: str, form: str, conversion: str | None) -> None:
        if not column.strip():
            self._refuse("a pair of braces has no column name")
        if conversion is not None or any(character in column for character in ".[]{}"):
            self._refuse(f"{{{column}}} is not a plain column name; write {{row[...]}} around the column's name")
        if form and column != INDEX:
            self._refuse(
                f"{{{column}:{form}}} has a format, and only {{index}} takes one; a column with a colon in its "
                f"name is {{row[{column}:{form}]}}"
            )
        if not _FORMAT.fullmatch(form):
            self._refuse(f"the format in {{index:{form}}} is not of the form 05d")

    def _refuse(self, why: str) -> NoReturn:
        raise RequestInvalid.unsent(
            f"{self.field} {self.text!r} is not a valid pattern: {why}",
            'Use column names and index, such as "{sku}.png", "{row[g:id]}.png" or "{index:05d}.png".',
            fields=[self.field],
        )


def _parts(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the parts of a pattern: names of columns in ``{row[...]}``, and what stands between them."""
    start = at = 0
    while at < len(text):
        end = text.find(_END, at) if text.startswith(_ROW, at) else -1
        if text[at : at + 2] in ("{{", "}}"):
            at += 2
        elif end > 0:
            yield text[start:at], False
            yield text[at + len(_ROW) : end], True
            start = at = end + len(_END)
        elif text[at] == "{":
            at = text.find("}", at) + 1 or len(text)
        else:
            at += 1
    yield text[start:], False
