# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Build the requests of a batch from its table, or one error that names every bad row.

The columns ``prompt``, ``file_name``, ``model``, ``aspect_ratio``, ``style`` and ``reference_image_url``, exactly
as written, are used as they are, unless empty; ``request_columns`` names other columns, or none. Otherwise the
operator's argument applies; its ``prompt``, ``file_name`` and ``reference_image_url`` are patterns
(:mod:`pictory_provider.core.batch.templates`). Other columns go into the manifest. A pattern that no row uses is
refused, since it would have no effect. The other arguments are defaults, which a table need not use.

A column whose name is almost one of these, such as ``Style``, is only data, and a warning says so.

The index of a row is its number in the table, from 0, including rows that are skipped or bad: they change no other
row's default file name.

With ``candidates``, each row of the table becomes that many rows with the same request and index, whose file names
are numbered (:func:`~pictory_provider.core.picture_names.candidate_name`).
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pictory_provider.api.errors import RequestInvalid
from pictory_provider.api.models import DEFAULT_MODEL, ImageRequest
from pictory_provider.api.text import counted, listed
from pictory_provider.core.batch.file_names import collisions, problem_of_name
from pictory_provider.core.batch.templates import INDEX, RowTemplate
from pictory_provider.core.picture_names import candidate_name
from pictory_provider.core.submission import canonical_request, fingerprint
from pictory_provider.core.tables.inputs import refused
from pictory_provider.core.tables.values import is_empty

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pictory_provider.core.tables.inputs import InputRow, InputTable
    from pictory_provider.media.copies import CopySpec

DEFAULT_FILE_NAME = "{index:05d}.png"
FIELDS = ("prompt", "file_name", "model", "aspect_ratio", "style", "reference_image_url")
"""What the columns of a table may give: the fields of the request, and the file name."""
SHOWN_ROWS = 20
"""How many bad rows an error shows in full."""
_PRIVATE = re.compile(r"(?!https?:|file:|data:|ftp:)[a-z][a-z0-9+.-]*://[^/?#]+/.+", re.IGNORECASE)
"""A reference image that Pictory cannot read directly: an object whose URL is signed right before the request."""
_PLAIN = {name.replace("_", ""): name for name in FIELDS}
_SHOWN_COLUMNS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One picture to generate, and its file name.

    :param index: in the table, from 0.
    :param line: of the file, from 1; ``None`` for a list.
    :param file_name: relative to the folder.
    :param request: complete; a private reference image is unsigned in it, such as ``s3://conn@bucket/key.png``.
    :param key: the row's identity: a fingerprint of the connection, the request and the file name.
    :param columns: the row's other columns.
    :param candidate: its number among the candidates of the table's row, from 1; ``None`` if there is only one.
    """

    index: int
    line: int | None = None
    file_name: str
    request: ImageRequest
    key: str
    columns: dict[str, Any]
    candidate: int | None = None

    @property
    def canonical_request(self) -> dict[str, Any]:
        """The fields that decide the picture, by Pictory's names, as the journal keeps them."""
        return _canonical(self.request)

    @property
    def label(self) -> str:
        """The row's name in texts."""
        return label_of(self.index, self.line, self.candidate)

    @property
    def prompt(self) -> str | None:
        """The prompt."""
        return self.request.prompt

    @property
    def model(self) -> str | None:
        """The model."""
        return self.request.model


def label_of(index: int, line: int | None, candidate: int | None = None) -> str:
    """Return a row's name in texts."""
    label = f"row {index}" if line is None else f"row {index} (line {line})"
    return label if candidate is None else f"{label}, candidate {candidate}"


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


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be bought as it is; without an index, the table as a whole.

    :param file_name: relative to the folder; ``None`` if it has none.
    :param problem: what is wrong with it.
    :param columns: as in :class:`Row`; empty if the row cannot be read.
    """

    index: int | None
    line: int | None
    file_name: str | None
    problem: str
    columns: dict[str, Any]
    prompt: str | None = None
    model: str | None = None
    candidate: int | None = None

    @property
    def label(self) -> str:
        """The row's name in texts."""
        return "the table" if self.index is None else label_of(self.index, self.line, self.candidate)


AnyRow = TypeVar("AnyRow", Row, BadRow)


class CheckedTable(NamedTuple):
    """The rows of a table, each with a valid request; one for each candidate.

    :param rows: that can be bought.
    :param bad: rows that are left out because they cannot be bought.
    :param skipped: how many rows of the table are left out because a cell is blank.
    :param size: how many rows the table has in all.
    :param candidates: how many rows each row of the table has become.
    :param notes: what was read, and how, for the log.
    :param warnings: for the log.
    """

    rows: list[Row]
    bad: tuple[BadRow, ...] = ()
    skipped: int = 0
    size: int = 0
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    candidates: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RowBuilder:
    """Build rows with the operator's arguments. Patterns and defaults are checked in the constructor.

    :param conn_id: of the Airflow connection.
    :param prompt: a pattern, or ``None`` if every row has its own.
    :param file_name: a pattern.
    :param reference_image_url: a pattern, or ``None``.
    :param allow_unlisted: accept a model, style or ratio that this release does not know.
    :param request_columns: the column of each field, or ``None`` for no column; by default, that of its name.
    :param skip_blank: a column; rows with a blank cell in it are left out.
    :param on_bad_row: ``"fail"``, or ``"skip"`` to leave bad rows out.
    :param candidates: pictures of each row of the table.
    :param copies: of each picture.
    :raises RequestInvalid: for an argument that is not valid.
    """

    conn_id: str
    prompt: str | None = None
    file_name: str = DEFAULT_FILE_NAME
    reference_image_url: str | None = None
    model: str = DEFAULT_MODEL
    aspect_ratio: str | None = None
    style: str | None = None
    allow_unlisted: bool = False
    request_columns: Mapping[str, str | None] | None = None
    skip_blank: str | None = None
    on_bad_row: str = "fail"
    candidates: int = 1
    copies: tuple[CopySpec, ...] = ()

    def __post_init__(self) -> None:
        if self.on_bad_row not in ("fail", "skip"):
            raise refused(f"on_bad_row is {self.on_bad_row!r}, and may be 'fail' or 'skip'", field="on_bad_row")
        if self.skip_blank is not None and not isinstance(self.skip_blank, str):
            raise refused(f"skip_blank is {self.skip_blank!r}: pass the name of a column", field="skip_blank")
        _check_request_columns(self.request_columns)
        self.patterns()

    @property
    def own_columns(self) -> dict[str, str]:
        """The column that gives each field, if the table has it."""
        named = {field: column for field, column in (self.request_columns or {}).items() if column is not None}
        taken = {*(self.request_columns or {}), *named.values()}
        return named | {field: field for field in FIELDS if field not in taken}

    def build(
        self,
        table: InputTable,
        refused_names: Callable[[Iterable[str]], Mapping[str, str]] | None = None,
        identify: Callable[[Any], Any] = lambda reference: reference,
    ) -> CheckedTable:
        """Return the rows of a table, in its order.

        :param refused_names: returns, of the rows' file names, those that cannot be saved, and why: a text that
            follows the name.
        :param identify: returns the name in records of a reference image that is to be uploaded, and any other
            unchanged; raises :class:`RequestInvalid` if it cannot be uploaded.
        :raises RequestInvalid: names every bad row; :data:`SHOWN_ROWS` of them in full.
        """
        reading = _Reading(self, table, identify)
        reading.check_columns()
        reading.check_names(refused_names)
        if reading.problems and (self.on_bad_row == "fail" or not reading.rows):
            raise reading.bad_rows()
        if not reading.problems:
            reading.check_used()
        return reading.result()

    def patterns(self) -> dict[str, RowTemplate]:
        """Return the operator's patterns, by argument."""
        fields, own = ("prompt", "file_name", "reference_image_url"), self.own_columns
        texts = {field: getattr(self, field) for field in fields}
        return {
            field: RowTemplate(field, text, own.get(field)) for field, text in texts.items() if text is not None
        }


class _Reading:
    """One reading of a table.

    :ivar problems: the indexes of the bad rows by problem.
    :ivar rows: the good ones.
    """

    def __init__(self, builder: RowBuilder, table: InputTable, identify: Callable[[Any], Any]) -> None:
        self.rows: list[Row] = []
        self.problems: defaultdict[str, list[int]] = defaultdict(list)
        self._builder = builder
        self._table = table
        self._identify = identify
        self._patterns = builder.patterns()
        self._own = builder.own_columns
        self._fields: set[str] = set()
        self._columns: dict[str, None] = dict.fromkeys(table.columns or ())
        self._bad: dict[int, BadRow] = {}
        self._skipped = 0
        self._size = 0
        self._used = dict.fromkeys(self._patterns, False)
        for index, record in enumerate(table.rows):
            self._size += 1
            self._read(index, record)

    def check_columns(self) -> None:
        """Raise if an argument names a column that the table does not have."""
        named = {f"request_columns[{field!r}]": column for field, column in self._own.items() if column != field}
        named["skip_blank"] = self._builder.skip_blank or ""
        for argument, column in named.items():
            if column and column not in self._columns and (self._size or self._table.columns is not None):
                columns = listed([repr(each) for each in self._columns], _SHOWN_COLUMNS) or "none"
                raise refused(
                    f"{argument} is {column!r}, and the table has no such column; its columns are: {columns}",
                    field=argument.partition("[")[0],
                )

    def check_names(self, refused_names: Callable[[Iterable[str]], Mapping[str, str]] | None) -> None:
        """Find rows whose files would be in each other's way, or could not be saved."""
        names = [(row.index, row.file_name) for row in self._pictures()]
        bad = list(collisions(names, self._builder.copies))
        if refused_names and (not_saved := refused_names(name for _, name in names)):
            bad += [(index, f"{name!r} {not_saved[name]}") for index, name in names if name in not_saved]
        if self._builder.candidates > 1:  # the names of a row's candidates have the same problem
            bad = list({index: (index, problem) for index, problem in reversed(bad)}.values())
        if not bad:
            return
        by_index = {row.index: row for row in self.rows}
        for index, problem in bad:
            row = by_index[index]
            self._fields.add("file_name")
            self._is_bad(row.index, row.line, f"file_name {problem}", row.file_name, row.columns)
        self.rows = [row for row in self.rows if row.index not in self._bad]

    def check_used(self) -> None:
        """Raise if a pattern is not used by any row."""
        for field, pattern in self._patterns.items():
            if self._used[field] or pattern.text == DEFAULT_FILE_NAME or not self.rows:
                continue
            rows = "the only row" if len(self.rows) == 1 else f"each of the {counted(len(self.rows), 'row')}"
            raise RequestInvalid.unsent(
                f"{field}={pattern.text!r} has no effect: {rows} has its own `{self._own.get(field, field)}`",
                f"A row that is a string is its prompt. Leave {field} out; or, to use it, give rows as dicts "
                f"with the columns that it names, and without `{field}`.",
                fields=[field],
            )

    def bad_rows(self) -> RequestInvalid:
        """Return the error of the bad rows."""
        return _bad_rows(self._bad, self.problems, sorted(self._fields), self._size)

    def result(self) -> CheckedTable:
        """Return the table."""
        bad = tuple(self._bad[index] for index in sorted(self._bad))
        notes, warnings = self._notes(), self._warnings(bad)
        if (candidates := self._builder.candidates) > 1:
            bad = tuple(_candidate(row, number) for row in bad for number in range(1, candidates + 1))
        return CheckedTable(self._pictures(), bad, self._skipped, self._size, notes, warnings, candidates)

    def _pictures(self) -> list[Row]:
        """Return the good rows, one for each candidate."""
        conn_id, candidates = self._builder.conn_id, self._builder.candidates
        if candidates == 1:
            return self.rows
        return [
            replace(new, key=key_of(conn_id, new.canonical_request, new.file_name))
            for row in self.rows
            for new in (_candidate(row, number) for number in range(1, candidates + 1))
        ]

    def _notes(self) -> tuple[str, ...]:
        columns = f" with {counted(len(self._columns), 'column')}" if self._columns else ""
        notes = [f"Read {counted(self._size, 'row')}{columns} from {self._table.about}.", *self._table.notes]
        if (candidates := self._builder.candidates) > 1:
            notes.append(f"Each row has {candidates} candidates: pictures of the same request.")
        if self._skipped:
            is_skipped = counted(self._skipped, "row is skipped", "rows are skipped")
            notes.append(f"{is_skipped}, because {self._builder.skip_blank!r} is blank.")
        used = [
            field if field == column else f"{field} (from {column!r})"
            for field, column in self._own.items()
            if column in self._columns
        ]
        if used and self._columns.keys() - {"prompt"}:
            notes.append(
                f"Columns used as request fields: {', '.join(used)}. To change that, set request_columns."
            )
        return tuple(notes)

    def _warnings(self, bad: Sequence[BadRow]) -> tuple[str, ...]:
        warnings = []
        for column in self._columns:
            meant = _meant(column)
            if meant is None or meant in (self._builder.request_columns or {}) or meant in self._columns:
                continue
            if column in self._own.values():
                continue
            warnings.append(
                f"The column {column!r} is only data: it does not set {meant}, because its name is different. If "
                f"it should, set request_columns={{{meant!r}: {column!r}}}; if not, request_columns="
                f"{{{meant!r}: None}} ends this warning."
            )
        if bad:
            named = listed([f"{row.label}: {row.problem.rstrip('.')}" for row in bad], 3)
            warnings.append(f"{counted(len(bad), 'bad row is', 'bad rows are')} left out: {named}.")
        return tuple(warnings)

    def _read(self, index: int, record: InputRow) -> None:
        self._columns.update(dict.fromkeys(record.values))
        if (blank := self._builder.skip_blank) and not record.problem and is_empty(record.values.get(blank)):
            self._skipped += 1
            return
        file_name = None
        try:
            if record.problem and record.values:
                with suppress(RequestInvalid, ValueError):
                    file_name = self._file_name({}, record, index)
            if found := record.problem or self._ambiguous_index(record):
                raise ValueError(found)
            own = {f: record.values[c] for f, c in self._own.items() if not is_empty(record.values.get(c))}
            file_name = self._file_name(own, record, index)
            self.rows.append(self._row(own, file_name, record, index))
        except RequestInvalid as error:
            self._fields.update(error.fields)
            problem = error.with_money("").message
        except ValueError as error:
            problem = str(error)
        else:
            return
        self._is_bad(index, record.line, problem, file_name, self._data(record))

    def _is_bad(
        self, index: int, line: int | None, problem: str, file_name: str | None, columns: dict[str, Any]
    ) -> None:
        self.problems[problem].append(index)
        self._bad.setdefault(index, BadRow(index, line, file_name, problem, columns))

    def _ambiguous_index(self, record: InputRow) -> str | None:
        if INDEX not in record.values:
            return None
        using = [p.field for p in self._patterns.values() if p.uses_number and p.text != DEFAULT_FILE_NAME]
        if not using:
            return None
        return (
            f"has a column 'index', and {using[0]} uses {{index}}, which is the row's number: rename the column, "
            "or write {row[index]} for it"
        )

    def _file_name(self, own: Mapping[str, Any], record: InputRow, index: int) -> str:
        name = own["file_name"] if "file_name" in own else self._render("file_name", record, index)
        longest = name
        if isinstance(name, str) and self._builder.candidates > 1:
            longest = candidate_name(name, self._builder.candidates)
        if problem := problem_of_name(name) or problem_of_name(longest):
            raise RequestInvalid(f"file_name {name!r} {problem}", fields=["file_name"])
        return str(name)

    def _render(self, field: str, record: InputRow, index: int) -> str:
        self._used[field] = True
        return self._patterns[field].render(record, index)

    def _row(self, own: dict[str, Any], file_name: str, record: InputRow, index: int) -> Row:
        if "prompt" not in own and "prompt" not in self._patterns:
            near = next((column for column in record.values if _meant(column) == "prompt"), None)
            unused = f"; the column {near!r} is not used, because its name is not exactly 'prompt'" if near else ""
            raise RequestInvalid(f"has no prompt, and the operator has none either{unused}", fields=["prompt"])
        for field in ("prompt", "reference_image_url"):
            if field not in own and field in self._patterns:
                own[field] = self._render(field, record, index)
        reference = own.get("reference_image_url")
        if _is_private(reference) and ":" in str(reference).partition("://")[2].partition("/")[0]:
            raise RequestInvalid(
                "reference_image_url has a password, or a port, before its path: name an Airflow connection",
                fields=["reference_image_url"],
            )
        builder = self._builder
        request = self._request(own, reference)
        return Row(
            index=index,
            line=record.line,
            file_name=file_name,
            request=request,
            key=key_of(builder.conn_id, _canonical(request), file_name),
            columns=self._data(record),
        )

    def _request(self, own: Mapping[str, Any], reference: str | None) -> ImageRequest:
        builder = self._builder
        try:
            return ImageRequest(
                prompt=own["prompt"],
                model=own.get("model", builder.model),
                aspect_ratio=own.get("aspect_ratio", builder.aspect_ratio),
                style=own.get("style", builder.style),
                reference_image_url=self._identify(reference),
                allow_unlisted=builder.allow_unlisted,
            )
        except RequestInvalid as error:
            for field in ("model", "style", "aspect_ratio"):
                if field in own and field in error.fields:
                    raise error.with_message(
                        f"{error.with_money('').message} It is the value of the column {self._own[field]!r}. If "
                        f"that column is only data, set request_columns={{{field!r}: None}}."
                    ) from None
            raise

    def _data(self, record: InputRow) -> dict[str, Any]:
        """Return the columns that are not fields of the request."""
        taken = self._own.values()
        return {name: value for name, value in record.values.items() if name not in taken}


def _candidate(row: AnyRow, number: int) -> AnyRow:
    """Return a row with the number and the file name of one candidate."""
    return replace(row, candidate=number, file_name=row.file_name and candidate_name(row.file_name, number))


def _meant(column: str) -> str | None:
    """Return the field whose name is almost that of a column."""
    return _PLAIN.get(re.sub(r"[\W_]", "", column).lower())


def _check_request_columns(columns: Any) -> None:
    if columns is None:
        return
    if not isinstance(columns, Mapping):
        raise refused(
            f"request_columns is {columns!r}",
            'Pass a dict: {"prompt": "Description", "model": None}.',
            field="request_columns",
        )
    for field, column in columns.items():
        if field not in FIELDS:
            raise refused(
                f"request_columns names the field {field!r}; the fields are: {', '.join(FIELDS)}",
                "The keys are fields of the request, and the values are columns of the table.",
                field="request_columns",
            )
        if column is not None and (not isinstance(column, str) or not column.strip()):
            raise refused(
                f"request_columns[{field!r}] is {column!r}: pass the name of a column, or None for no column",
                field="request_columns",
            )


def _bad_rows(
    bad: Mapping[int, BadRow], problems: Mapping[str, list[int]], fields: Sequence[str], size: int
) -> RequestInvalid:
    """Return the error of a table.

    :param problems: the indexes of the bad rows by problem, so that rows with the same problem are listed
        together.
    :param size: how many rows the table has.
    """
    lines, shown, listed_rows = [], 0, set()
    for problem, rows in problems.items():
        if shown == SHOWN_ROWS:
            break
        named = rows[: SHOWN_ROWS - shown]
        shown += len(named)
        listed_rows.update(rows)
        more = f" and {len(rows) - len(named):,} more" if len(rows) > len(named) else ""
        labels = ", ".join(bad[index].label for index in named)
        lines.append(f"    {labels}{more}: {problem.rstrip('.')}.")
    if left := len(bad.keys() - listed_rows):
        lines.append(f"    and {counted(left, 'more bad row')}.")
    error = RequestInvalid.unsent(
        f"{len(bad):,} of {counted(size, 'row')} cannot be bought as {'it is' if len(bad) == 1 else 'they are'}",
        'Correct the table and clear the task; rows are counted from 0. on_bad_row="skip" buys the other rows, '
        "and skip_blank leaves out rows with a blank cell.\n" + "\n".join(lines),
        fields=["requests", *fields],
    )
    in_order = sorted((index, problem) for problem, rows in problems.items() for index in rows)
    error.bad_rows = [replace(bad[index], problem=problem) for index, problem in in_order]
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
