# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Build the requests of a batch from its table, or one error that names every bad row.

A row's own ``prompt``, ``file_name``, ``model``, ``aspect_ratio``, ``style`` and ``reference_image_url`` are used
as they are, unless empty. Otherwise the operator's argument applies; its ``prompt``, ``file_name`` and
``reference_image_url`` are patterns (:mod:`pictory_provider.core.batch.templates`). Other columns go into the
manifest. A pattern that no row uses is refused, since it would have no effect. The other arguments are defaults,
which a table need not use.

A column whose name is almost one of these, such as ``aspectRatio``, is refused: otherwise it would be an ordinary
column, and the wrong pictures would be bought.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pictory_provider.api.errors import RequestInvalid
from pictory_provider.api.models import DEFAULT_MODEL, ImageRequest
from pictory_provider.api.text import counted
from pictory_provider.core.batch.file_names import collisions, problem_of_name
from pictory_provider.core.batch.tables import is_empty
from pictory_provider.core.batch.templates import INDEX, RowTemplate
from pictory_provider.core.submission import canonical_request, fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pictory_provider.core.batch.tables import InputRow

DEFAULT_FILE_NAME = "{index:05d}.png"
OWN_COLUMNS = ("prompt", "file_name", "model", "aspect_ratio", "style", "reference_image_url")
"""The columns that make up the request and the file name."""
SHOWN_ROWS = 20
"""How many bad rows an error shows in full."""
_PRIVATE = re.compile(r"(?!https?:|file:|data:|ftp:)[a-z][a-z0-9+.-]*://[^/?#]+/.+", re.IGNORECASE)
"""A reference image that Pictory cannot read directly: an object whose URL is signed right before the request."""
_PLAIN = {name.replace("_", ""): name for name in OWN_COLUMNS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One picture to generate, and its file name.

    :param index: in the table, from 0.
    :param line: of the file, from 1; ``None`` for a list.
    :param file_name: relative to the folder.
    :param request: complete; a private reference image is unsigned in it, such as ``s3://conn@bucket/key.png``.
    :param key: the row's identity: a fingerprint of the connection, the request and the file name.
    :param columns: the row's other columns.
    """

    index: int
    line: int | None = None
    file_name: str
    request: ImageRequest
    key: str
    columns: dict[str, Any]

    @property
    def canonical_request(self) -> dict[str, Any]:
        """The fields that decide the picture, by Pictory's names, as the journal keeps them."""
        return _canonical(self.request)

    @property
    def label(self) -> str:
        """The row's name in texts."""
        return label_of(self.index, self.line)


def label_of(index: int, line: int | None) -> str:
    """Return a row's name in texts."""
    return f"row {index}" if line is None else f"row {index} (line {line})"


def key_of(conn_id: str, request: Mapping[str, Any], file_name: str) -> str:
    """Return the identity of a row.

    :param request: of :attr:`Row.canonical_request`.
    """
    return fingerprint(conn_id, {**request, "file_name": file_name})


def digest_of(rows: Iterable[Row]) -> str:
    """Return a digest of a table: of the requests, their file names, and their order.

    Other columns may change between two attempts.
    """
    digest = hashlib.sha256()
    for row in rows:
        digest.update(row.key.encode())
    return digest.hexdigest()[:32]


def request_of(canonical: Mapping[str, Any]) -> ImageRequest:
    """Return the request of a :attr:`Row.canonical_request`, as far as this release understands it.

    It is not submitted: its row is paid for.

    :raises RequestInvalid: if prompt or model are not valid.
    """
    options: dict[str, Any] = {
        "aspect_ratio": canonical.get("aspectRatio"),
        "style": canonical.get("style"),
        "reference_image_url": canonical.get("referenceImageUrl"),
    }
    request = ImageRequest(prompt=canonical["prompt"], model=canonical["model"], allow_unlisted=True)
    for name, value in options.items():
        with suppress(RequestInvalid):
            request = replace(request, **{name: value})
    return request


@dataclass(frozen=True, slots=True, kw_only=True)
class RowBuilder:
    """Build rows with the operator's arguments. Patterns and defaults are checked in the constructor.

    :param conn_id: of the Airflow connection.
    :param prompt: a pattern, or ``None`` if every row has its own.
    :param file_name: a pattern.
    :param reference_image_url: a pattern, or ``None``.
    :param allow_unlisted: accept a model, style or ratio that this release does not know.
    :raises RequestInvalid: for a pattern that is not valid.
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
        self, records: Sequence[InputRow], refused: Callable[[Iterable[str]], Mapping[str, str]] | None = None
    ) -> list[Row]:
        """Return the rows of a table, in its order.

        :param refused: returns, of the rows' file names, those that cannot be saved, and why: a text that follows
            the name.
        :raises RequestInvalid: names every bad row; :data:`SHOWN_ROWS` of them in full.
        """
        patterns = self._patterns()
        rows: list[Row] = []
        problems: defaultdict[str, list[int]] = defaultdict(list)
        fields: set[str] = set()
        for index, record in enumerate(records):
            try:
                if found := record.problem or self._misleading_column(record, patterns):
                    raise ValueError(found)
                rows.append(self._row(index, record, patterns))
            except RequestInvalid as error:
                fields.update(error.fields)
                problems[error.with_money("").message].append(index)
            except ValueError as error:
                problems[str(error)].append(index)
        bad_names = list(collisions((row.index, row.file_name) for row in rows))
        if refused and (not_saved := refused(row.file_name for row in rows)):
            refused_rows = (row for row in rows if row.file_name in not_saved)
            bad_names += [(row.index, f"{row.file_name!r} {not_saved[row.file_name]}") for row in refused_rows]
        for index, problem in bad_names:
            fields.add("file_name")
            problems[f"file_name {problem}"].append(index)
        if problems:
            raise _bad_rows(records, problems, sorted(fields))
        self._check_used(records, patterns)
        return rows

    def _check_used(self, records: Sequence[InputRow], patterns: Mapping[str, RowTemplate]) -> None:
        """Raise if a pattern is not used by any row."""
        for field, pattern in patterns.items():
            if pattern.text == DEFAULT_FILE_NAME or not records:
                continue
            if all(not is_empty(record.values.get(field)) for record in records):
                rows = "the only row" if len(records) == 1 else f"each of the {len(records):,} rows"
                raise RequestInvalid.unsent(
                    f"{field}={pattern.text!r} has no effect: {rows} has its own `{field}`",
                    f"A row that is a string is its prompt. Leave {field} out; or, to use it, give rows as dicts "
                    f"with the columns that it names, and without `{field}`.",
                    fields=[field],
                )

    def _patterns(self) -> dict[str, RowTemplate]:
        fields = ("prompt", "file_name", "reference_image_url")
        texts = {field: getattr(self, field) for field in fields}
        return {field: RowTemplate(field, text) for field, text in texts.items() if text is not None}

    def _misleading_column(self, record: InputRow, patterns: dict[str, RowTemplate]) -> str | None:
        """Return the problem of a column whose name would be misread, else ``None``."""
        for column in record.values:
            meant = _PLAIN.get(re.sub(r"[\W_]", "", column).lower())
            if meant and column != meant:
                return f"has a column {column!r}, which would have no effect: rename it to {meant!r}"
        if INDEX not in record.values:
            return None
        using = [p.field for p in patterns.values() if INDEX in p.columns and p.text != DEFAULT_FILE_NAME]
        if not using:
            return None
        return f"has a column 'index', and {using[0]} uses {{index}}, which is the row's number: rename the column"

    def _row(self, index: int, record: InputRow, patterns: dict[str, RowTemplate]) -> Row:
        own = {name: record.values[name] for name in OWN_COLUMNS if not is_empty(record.values.get(name))}
        file_name = own["file_name"] if "file_name" in own else patterns["file_name"].render(record, index)
        if problem := problem_of_name(file_name):
            raise RequestInvalid(f"file_name {file_name!r} {problem}", fields=["file_name"])
        if "prompt" not in own and "prompt" not in patterns:
            raise RequestInvalid("has no prompt, and the operator has none either", fields=["prompt"])
        for field in ("prompt", "reference_image_url"):
            if field not in own and field in patterns:
                own[field] = patterns[field].render(record, index)
        reference = own.get("reference_image_url")
        if _is_private(reference) and ":" in str(reference).partition("://")[2].partition("/")[0]:
            raise RequestInvalid(
                "reference_image_url has a password, or a port, before its path: name an Airflow connection",
                fields=["reference_image_url"],
            )
        request = ImageRequest(
            prompt=own["prompt"],
            model=own.get("model", self.model),
            aspect_ratio=own.get("aspect_ratio", self.aspect_ratio),
            style=own.get("style", self.style),
            reference_image_url=reference,
            allow_unlisted=self.allow_unlisted,
        )
        return Row(
            index=index,
            line=record.line,
            file_name=file_name,
            request=request,
            key=key_of(self.conn_id, _canonical(request), file_name),
            columns={name: value for name, value in record.values.items() if name not in OWN_COLUMNS},
        )


def _bad_rows(
    records: Sequence[InputRow], problems: Mapping[str, list[int]], fields: Sequence[str]
) -> RequestInvalid:
    """Return the error of a table.

    :param problems: the indexes of the bad rows by problem, so that rows with the same problem are listed
        together.
    """
    bad = {index for rows in problems.values() for index in rows}
    lines, shown, listed = [], 0, set()
    for problem, rows in problems.items():
        if shown == SHOWN_ROWS:
            break
        named = rows[: SHOWN_ROWS - shown]
        shown += len(named)
        listed.update(rows)
        more = f" and {len(rows) - len(named):,} more" if len(rows) > len(named) else ""
        labels = ", ".join(label_of(index, records[index].line) for index in named)
        lines.append(f"    {labels}{more}: {problem.rstrip('.')}.")
    if left := len(bad - listed):
        lines.append(f"    and {counted(left, 'more bad row')}.")
    error = RequestInvalid.unsent(
        f"{len(bad):,} of {counted(len(records), 'row')} cannot be bought as "
        f"{'it is' if len(bad) == 1 else 'they are'}",
        "Correct the table and clear the task; rows are counted from 0.\n" + "\n".join(lines),
        fields=["requests", *fields],
    )
    in_order = sorted((index, problem) for problem, rows in problems.items() for index in rows)
    error.bad_rows = [(index, records[index].line, problem) for index, problem in in_order]
    return error


def _canonical(request: ImageRequest) -> dict[str, Any]:
    """Return the fields that decide the picture, with the Airflow connection of a private reference image.

    The key of a row is made of it, so it stays as in version 0.1.0. Other comparisons of requests ignore the
    connection (:func:`pictory_provider.core.submission.is_same_request`).
    """
    canonical, reference = canonical_request(request), request.reference_image_url
    return {**canonical, "referenceImageUrl": reference} if _is_private(reference) else canonical


def _is_private(reference: object) -> bool:
    return isinstance(reference, str) and _PRIVATE.fullmatch(reference) is not None
