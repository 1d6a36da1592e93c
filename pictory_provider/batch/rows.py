# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A table becomes named requests, or one error that names every bad row.

A row's own ``prompt``, ``file_name``, ``model``, ``aspect_ratio``, ``style`` and ``reference_image_url`` win where
they are not empty, and are taken as they are; the operator's stand in for the rest, and its ``prompt``,
``file_name`` and ``reference_image_url`` are patterns (:mod:`pictory_provider.batch.patterns`). What else a row
holds goes into the manifest.

A column that all but has the name of one of these, such as ``aspectRatio``, is refused: it would be kept as a mere
column, and pictures bought that nobody asked for.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pictory_provider.api.errors import RequestInvalid
from pictory_provider.api.models import DEFAULT_MODEL, ImageRequest
from pictory_provider.batch.names import collisions, problem_of_name
from pictory_provider.batch.patterns import INDEX, Pattern
from pictory_provider.batch.tables import is_empty
from pictory_provider.jobs.submission import asked_for, fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pictory_provider.batch.tables import Record

DEFAULT_FILE_NAME = "{index:05d}.png"
OWN_COLUMNS = ("prompt", "file_name", "model", "aspect_ratio", "style", "reference_image_url")
"""The columns that say what to draw and where to put it."""
SHOWN_ROWS = 20
"""How many bad rows an error shows in full."""
NOTHING_SPENT = "Nothing was sent and nothing was spent."
_PRIVATE = re.compile(r"(?!https?:|file:|data:|ftp:)[a-z][a-z0-9+.-]*://[^/?#]+/.+", re.IGNORECASE)
"""A reference image that Pictory cannot read by itself: an object signed right before the request."""
_PLAIN = {name.replace("_", ""): name for name in OWN_COLUMNS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One picture to be made, and its place.

    :param index: in the table, from 0.
    :param line: of the file, from 1; ``None`` for a list.
    :param file_name: relative to the folder.
    :param request: complete, but for a private reference image.
    :param private_reference: the unsigned path of a private reference image, such as ``s3://bucket/key.png``.
    :param key: what the row is known by: a fingerprint of the connection, of what is asked for, and of where the
        picture goes.
    :param columns: what else the row holds.
    """

    index: int
    line: int | None = None
    file_name: str
    request: ImageRequest
    private_reference: str | None = None
    key: str
    columns: dict[str, Any]

    @property
    def asked(self) -> dict[str, Any]:
        """What decides the picture, by Pictory's names, as it is kept on record and in sidecars."""
        return _asked(self.request, self.private_reference)

    @property
    def label(self) -> str:
        """How a text calls it."""
        return f"row {self.index}" if self.line is None else f"row {self.index} (line {self.line})"


def key_of(conn_id: str, asked: Mapping[str, Any], file_name: str) -> str:
    """Return what a row is known by."""
    return fingerprint(conn_id, {**asked, "file_name": file_name})


def digest_of(rows: Iterable[Row]) -> str:
    """Return what tells one table from another: what is asked for, where it goes, and in which order.

    Columns that decide neither may change between two tries.
    """
    digest = hashlib.sha256()
    for row in rows:
        digest.update(row.key.encode())
    return digest.hexdigest()[:32]


def request_of(asked: Mapping[str, Any]) -> tuple[ImageRequest, str | None]:
    """Return the request, and its private reference image, that :attr:`Row.asked` was made of.

    :raises RequestInvalid: where it was made of none.
    """
    reference = asked.get("referenceImageUrl")
    is_private = _is_private(reference)
    request = ImageRequest(
        prompt=asked["prompt"],
        model=asked["model"],
        aspect_ratio=asked.get("aspectRatio"),
        style=asked.get("style"),
        reference_image_url=None if is_private else reference,
        allow_unlisted=True,
    )
    return request, reference if is_private else None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowMaker:
    """What the operator says of every row. Patterns and defaults are checked when it is made.

    :param conn_id: of the Airflow connection.
    :param prompt: a pattern, or ``None`` where every row has its own.
    :param file_name: a pattern.
    :param reference_image_url: a pattern, or ``None``.
    :param allow_unlisted: let a model, style or ratio pass that this release does not know.
    :raises RequestInvalid: for a pattern that cannot be one.
    """

    conn_id: str
    prompt: str | None = None
    file_name: str = DEFAULT_FILE_NAME
    reference_image_url: str | None = None
    model: str = DEFAULT_MODEL
    aspect_ratio: str | None = None
    style: str | None = None
    allow_unlisted: bool = False

    def __post_init__(self) -> None:
        self._patterns()

    def rows(
        self, records: Sequence[Record], refused: Callable[[Iterable[str]], Mapping[str, str]] | None = None
    ) -> list[Row]:
        """Return the rows of a table, in its order.

        :param refused: returns, of the rows' file names, those that cannot be saved, and why: a text that follows
            the name.
        :raises RequestInvalid: names every bad row; :data:`SHOWN_ROWS` of them in full.
        """
        patterns = self._patterns()
        rows, problems = [], _Problems(records)
        fields: set[str] = set()
        for index, record in enumerate(records):
            try:
                if found := record.problem or self._trap(record, patterns):
                    raise ValueError(found)
                rows.append(self._row(index, record, patterns))
            except RequestInvalid as error:
                fields.update(error.fields)
                problems.add(index, error.message.replace(f" {NOTHING_SPENT}", ""))
            except ValueError as error:
                problems.add(index, str(error))
        for index, problem in collisions((row.index, row.file_name) for row in rows):
            fields.add("file_name")
            problems.add(index, f"file_name {problem}")
        if refused and (not_saved := refused(row.file_name for row in rows)):
            fields.add("file_name")
            for row in rows:
                if row.file_name in not_saved:
                    problems.add(row.index, f"file_name {row.file_name!r} {not_saved[row.file_name]}")
        if problems:
            raise RequestInvalid(problems.text(), fields=["requests", *sorted(fields)])
        return rows

    def _patterns(self) -> dict[str, Pattern]:
        texts = {
            "prompt": self.prompt,
            "file_name": self.file_name,
            "reference_image_url": self.reference_image_url,
        }
        return {field: Pattern(field, text) for field, text in texts.items() if text is not None}

    def _trap(self, record: Record, patterns: dict[str, Pattern]) -> str | None:
        """Return what a row's columns would silently be taken for."""
        for column in record.values:
            meant = _PLAIN.get(re.sub(r"[\W_]", "", column).lower())
            if meant and column != meant:
                return f"has a column {column!r}, which would mean nothing: it is called {meant!r}"
        if INDEX not in record.values:
            return None
        using = [p.field for p in patterns.values() if INDEX in p.columns and p.text != DEFAULT_FILE_NAME]
        if not using:
            return None
        return f"has a column 'index', and {using[0]} uses {{index}}, which is the row's number: rename the column"

    def _row(self, index: int, record: Record, patterns: dict[str, Pattern]) -> Row:
        own = {name: record.values[name] for name in OWN_COLUMNS if not is_empty(record.values.get(name))}
        file_name = own["file_name"] if "file_name" in own else patterns["file_name"].of(record, index)
        if problem := problem_of_name(file_name):
            raise RequestInvalid(f"file_name {file_name!r} {problem}", fields=["file_name"])
        prompt = own.get("prompt")
        if prompt is None:
            if "prompt" not in patterns:
                raise RequestInvalid("has no prompt, nor has the operator", fields=["prompt"])
            prompt = patterns["prompt"].of(record, index)
        reference = own.get("reference_image_url")
        if reference is None and "reference_image_url" in patterns:
            reference = patterns["reference_image_url"].of(record, index)
        is_private = _is_private(reference)
        if is_private and ":" in str(reference).partition("://")[2].partition("/")[0]:
            raise RequestInvalid(
                "reference_image_url has a password, or a port, before its path: name an Airflow connection",
                fields=["reference_image_url"],
            )
        request = ImageRequest(
            prompt=prompt,
            model=own.get("model", self.model),
            aspect_ratio=own.get("aspect_ratio", self.aspect_ratio),
            style=own.get("style", self.style),
            reference_image_url=None if is_private else reference,
            allow_unlisted=self.allow_unlisted,
        )
        private = reference if is_private else None
        return Row(
            index=index,
            line=record.line,
            file_name=file_name,
            request=request,
            private_reference=private,
            key=key_of(self.conn_id, _asked(request, private), file_name),
            columns={name: value for name, value in record.values.items() if name not in OWN_COLUMNS},
        )


class _Problems:
    """What is wrong with a table, the same text once for all of its rows."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = records
        self._rows: dict[str, list[int]] = {}

    def __bool__(self) -> bool:
        return bool(self._rows)

    def add(self, index: int, problem: str) -> None:
        self._rows.setdefault(problem, []).append(index)

    def text(self) -> str:
        bad = {index for rows in self._rows.values() for index in rows}
        lines, shown, told = [], 0, set()
        for problem, rows in self._rows.items():
            if shown == SHOWN_ROWS:
                break
            named = rows[: SHOWN_ROWS - shown]
            shown += len(named)
            told.update(rows)
            more = f" and {len(rows) - len(named):,} more" if len(rows) > len(named) else ""
            lines.append(f"    {', '.join(self._label(index) for index in named)}{more}: {problem.rstrip('.')}.")
        left = len(bad - told)
        if left:
            lines.append(f"    and {left:,} more bad rows.")
        return (
            f"{len(bad):,} of {len(self._records):,} rows cannot be bought as they are. {NOTHING_SPENT} Correct "
            "them and clear the task; rows are counted from 0.\n" + "\n".join(lines)
        )

    def _label(self, index: int) -> str:
        line = self._records[index].line
        return f"row {index}" if line is None else f"row {index} (line {line})"


def _asked(request: ImageRequest, private_reference: str | None) -> dict[str, Any]:
    asked = asked_for(request)
    return asked if private_reference is None else {**asked, "referenceImageUrl": private_reference}


def _is_private(reference: object) -> bool:
    return isinstance(reference, str) and _PRIVATE.fullmatch(reference) is not None
