# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Read and write the sidecar: the file next to a picture that records its request, its task, and its state.

``cover.png`` has the sidecar ``cover.png.json``, which every worker and every run can read that can read the
picture. It is JSON, in one of four states:

==========  =========================================================================================
``intent``  the paid request is about to be sent, and its outcome is unknown
``bought``  Pictory has returned the jobId
``saved``   the picture is saved next to it, with this size and this SHA-256
``redo``    ``airflow pictory redo`` has moved the picture away, and another one is to be bought here
==========  =========================================================================================

Version 0.1.0 cannot read a sidecar in state ``redo``, and buys nothing. Later sidecars of the same path name the
jobs whose pictures were moved away: every other record of these jobs counts as absent.

The first two are the record of a submission (:mod:`pictory_provider.core.submission`), with field names that a
user who reads the folder understands. Times are ISO 8601, in UTC.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from pictory_provider.api.decoding import parse_json
from pictory_provider.core.attempt import MadeBy
from pictory_provider.core.picture_names import SIDECAR_SUFFIX, is_version_name
from pictory_provider.core.submission import Submission, canonicalize
from pictory_provider.media.copies import Copy
from pictory_provider.media.xmp import TRAINED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pictory_provider.media.copies import CopySpec

VERSION = 1
INTENT, BOUGHT, SAVED, REDO = "intent", "bought", "saved", "redo"


class SavedFile(NamedTuple):
    """A saved picture.

    :param size: bytes.
    :param sha256: hexadecimal, of the whole file.
    :param ai_credits_used: as reported by Pictory; ``None`` if it did not say.
    :param marks: what the file says about its origin: ``c2pa``, ``xmp``, ``aigc``.
    :param saved_at: epoch seconds.
    :param digital_source_type: IPTC's, from the file's XMP; ``None`` if it has none that can be read.
    :param is_examined: whether the file was read for that; not recorded for a PNG without marks. Version 0.1.0
        never read it.
    :param copies: of the picture, and of pictures that were at its path before it.
    """

    size: int
    sha256: str
    width: int | None
    height: int | None
    ai_credits_used: float | None
    marks: tuple[str, ...]
    saved_at: float | None
    digital_source_type: str | None = None
    is_examined: bool = False
    copies: tuple[Copy, ...] = ()

    def source_type_of_copies(self, *, mark_ai_generated: bool) -> str | None:
        """Return the Digital Source Type that copies have in their XMP; ``None`` if they have no XMP.

        They say what the picture says. A C2PA manifest and China's label, which copies lose, say that AI made it.

        :param mark_ai_generated: of the task.
        """
        is_said = mark_ai_generated or "c2pa" in self.marks or "aigc" in self.marks
        return self.digital_source_type or (TRAINED if is_said else None)

    def copy_of(self, spec: CopySpec, *, mark_ai_generated: bool) -> Copy | None:
        """Return the copy that was made of this very picture as it would be made now; ``None`` if it was not."""
        source_type = self.source_type_of_copies(mark_ai_generated=mark_ai_generated)
        return next((each for each in self.copies if each.is_current(spec, self.sha256, source_type)), None)

    def copies_to_make(
        self,
        specs: Sequence[CopySpec],
        *,
        mark_ai_generated: bool,
        size_of: Callable[[CopySpec], int | None],
    ) -> list[CopySpec]:
        """Return the copies that were not made of this picture, or whose files are missing or have another size.

        :param size_of: returns the size of the existing file of a copy, in bytes; ``None`` for no file.
        """
        made = {spec: self.copy_of(spec, mark_ai_generated=mark_ai_generated) for spec in specs}
        return [spec for spec, copy in made.items() if copy is None or size_of(spec) != copy.size]

    def with_copies(self, made: Sequence[Copy]) -> SavedFile:
        """Return it with these copies, in place of those on record that have the same file names."""
        copies = {each.spec.suffix: each for each in (*self.copies, *made)}
        return self._replace(copies=tuple(copies.values()))

    @property
    def may_lack_mark(self) -> bool:
        """Whether the file may not say that a model made it, and could be marked.

        A file that version 0.1.0 recorded as ``xmp`` may or may not say so.
        """
        if self.digital_source_type is not None:
            return False
        if "c2pa" in self.marks or "aigc" in self.marks:  # such a file is never changed, but its XMP may say so
            return "xmp" in self.marks and not self.is_examined
        return bool(self.marks) or not self.is_examined

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        names = ("sha256", "size", "width", "height", "ai_credits_used")
        source_type = {"digital_source_type": self.digital_source_type} if self.is_examined else {}
        return {
            **{name: getattr(self, name) for name in names},
            "marks": list(self.marks),
            **source_type,
            "saved_at": _written(self.saved_at),
            **({"copies": [each.to_dict() for each in self.copies]} if self.copies else {}),
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> SavedFile:
        """Read it.

        :raises Unreadable: if its size or digest is missing.
        """
        size, sha256, marks = value.get("size"), value.get("sha256"), value.get("marks")
        source_type, copies = value.get("digital_source_type"), value.get("copies")
        if not isinstance(size, int) or not isinstance(sha256, str):
            raise Unreadable("its state is `saved`, but its size or sha256 is missing")
        return cls(
            size=size,
            sha256=sha256,
            width=value.get("width"),
            height=value.get("height"),
            ai_credits_used=value.get("ai_credits_used"),
            marks=tuple(str(mark) for mark in marks) if isinstance(marks, list) else (),
            saved_at=_read(value.get("saved_at")),
            digital_source_type=source_type if isinstance(source_type, str) else None,
            is_examined="digital_source_type" in value,
            copies=tuple(filter(None, map(Copy.from_dict, copies if isinstance(copies, list) else ()))),
        )


_OF_SPENDING = ("shown_before", "used_before", "earlier", "earlier_before", "before_clear")
"""Fields of a submission with its task's charges, and what the account showed before them."""


class Unreadable(ValueError):
    """A sidecar has content that this release does not understand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecar:
    """The record of one picture, next to it.

    :param file: the picture's name, without its folder.
    :param submission: its record.
    :param saved: ``None`` until the picture is saved.
    :param keeps_spending: whether it keeps the task's charges after the picture is saved, because they have no
        other record.
    :param may_be: while it is not ``saved``, what the existing file may be: the picture as it was, or as it was to
        become when it was marked. Its digest shows which.
    :param replaces: while it is not ``saved``, the sidecar of the saved picture of another request that is still
        at its path, and that its picture replaces (``overwrite="changed"``). Version 0.1.0 does not know it, and
        saves the picture under another name.
    :param moved_to: in state ``redo``: the name of the file to which its picture was moved. While the picture is
        still at its path too, that is one of :attr:`may_be`.
    :param redone: the jobs whose pictures were moved away from this path.
    """

    file: str
    submission: Submission
    made_by: MadeBy
    saved: SavedFile | None = None
    keeps_spending: bool = False
    may_be: tuple[SavedFile, ...] = ()
    replaces: Sidecar | None = None
    moved_to: str | None = None
    redone: tuple[str, ...] = ()

    def as_saved(self, size: int | None, digest: Callable[[], str]) -> Sidecar:
        """Return it with the existing picture, if that is one of :attr:`may_be`, which stays.

        :param size: of the existing file; ``None`` if there is none.
        :param digest: returns the file's SHA-256. It is called if the size matches.
        """
        if self.saved or size not in [each.size for each in self.may_be]:
            return self
        file = (size, digest())
        saved = next((each for each in self.may_be if (each.size, each.sha256) == file), None)
        return self if saved is None else replace(self, saved=saved)

    @property
    def state(self) -> str:
        """Its state: ``intent``, ``bought``, ``saved`` or ``redo``."""
        if self.moved_to:
            return REDO
        if self.saved:
            return SAVED
        return BOUGHT if self.submission.job_id else INTENT

    def as_moved(self, to: str) -> Sidecar:
        """Return it in state ``redo``.

        :param to: the name of the file to which its saved picture is moved.
        """
        assert self.saved is not None
        redone = (*self.redone, str(self.submission.job_id))
        return replace(self, saved=None, may_be=(self.saved,), moved_to=to, redone=redone)

    def overrides(self, job_id: str | None) -> bool:
        """Whether other records of this job count as absent, since its picture was moved away."""
        return job_id in self.redone

    @property
    def may_lack_mark(self) -> bool:
        """Whether its saved picture may not say that a model made it, and could be marked."""
        return self.saved is not None and (self.saved.may_lack_mark or bool(self.may_be))

    @property
    def copies(self) -> tuple[Copy, ...]:
        """The copies on record: of its picture, and of the one that its picture is to replace."""
        old = self.replaces.saved if self.replaces else None
        files = (self.saved, old, *self.may_be)
        return tuple(dict.fromkeys(copy for file in files if file for copy in file.copies))

    @property
    def request_sha256(self) -> str:
        """The digest of the request."""
        return request_sha256(canonicalize(self.submission.request or {}))

    def how_to_drop(self, path: str) -> str:
        """Return what a user does to drop this record of a submission, so that its picture can be bought again.

        :param path: of the picture.
        """
        beside = f"{path}{SIDECAR_SUFFIX}"
        if self.replaces is None:
            return f"delete {beside}"
        return f"replace the content of {beside} by its field `replaces` (the picture that is there)"

    def to_json(self) -> bytes:
        """Return the file: JSON in UTF-8."""
        # Half a surrogate pair, which UTF-8 cannot encode, stays a JSON escape.
        return (json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n").encode(
            "utf-8", "backslashreplace"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        bought, saved = self.submission, self.saved
        fields: dict[str, Any] = {
            "version": VERSION,
            "state": self.state,
            "file": self.file,
            "job_id": bought.job_id,
            "request": canonicalize(bought.request or {}),
            "request_sha256": self.request_sha256,
            "made_by": self.made_by.to_dict(),
            "fingerprint": bought.fingerprint,
            "max_tries": bought.max_tries,
            "retries": bought.retries,
            "intended_at": _written(bought.intended_at),
            "submitted_at": _written(bought.submitted_at),
        }
        spending = {name: value for name, value in bought.to_dict().items() if name in _OF_SPENDING}
        if saved is None:
            # Only until the picture is saved, since the folder may be public.
            fields |= {"credits_before": bought.credits_before, **spending}
            if self.may_be:
                fields["may_be"] = [each.to_dict() for each in self.may_be]
            if self.replaces:
                fields["replaces"] = self.replaces.to_dict()
            if self.moved_to:
                fields["moved_to"] = self.moved_to
        else:
            fields |= saved.to_dict() | (spending if self.keeps_spending else {})
        return fields | ({"redone": list(self.redone)} if self.redone else {})

    @classmethod
    def from_json(cls, content: str | bytes) -> Sidecar:
        """Read the file. A user may write a ``job_id`` into one in state ``intent``.

        :raises Unreadable: says why.
        """
        try:
            value = parse_json(content)
        except ValueError as error:
            raise Unreadable(f"it is not JSON ({error})") from None
        return cls.from_dict(value)

    @classmethod
    def from_dict(cls, value: Any) -> Sidecar:
        """Read the JSON of the file.

        :raises Unreadable: says why.
        """
        if not isinstance(value, dict):
            raise Unreadable(f"it contains {type(value).__name__}, not an object")
        if type(value.get("version")) is not int or value["version"] != VERSION:
            raise Unreadable(f"its version is {value.get('version')!r}, and this release reads {VERSION}")
        request, made_by = value.get("request"), value.get("made_by")
        if not isinstance(request, dict) or not isinstance(made_by, dict):
            raise Unreadable("its request or made_by is missing")
        if value.get("request_sha256") != request_sha256(request):
            raise Unreadable("its request_sha256 is not that of its request")
        state = value.get("state")
        names = ("request", "fingerprint", "max_tries", "retries", "credits_before", *_OF_SPENDING)
        fields = {"jobId": value.get("job_id")} | {name: value.get(name) for name in names}
        fields |= {name: _read(value.get(name)) for name in ("intended_at", "submitted_at")}
        submission = Submission.from_dict(fields)
        is_valid = state == INTENT or (state in (BOUGHT, SAVED, REDO) and submission and submission.job_id)
        if submission is None or not is_valid:
            raise Unreadable(f"its state is {state!r} and its job_id {value.get('job_id')!r}")
        moved_to = value.get("moved_to") if state == REDO else None
        if state == REDO and not (isinstance(moved_to, str) and is_version_name(moved_to, str(value.get("file")))):
            raise Unreadable("its state is `redo`, but its moved_to is not the name of a version of its file")
        return cls(
            file=str(value.get("file")),
            submission=submission,
            made_by=MadeBy.from_dict(made_by),
            saved=SavedFile.from_dict(value) if state == SAVED else None,
            keeps_spending=state == SAVED and any(name in value for name in _OF_SPENDING),
            may_be=_may_be(value.get("may_be")) if state in (BOUGHT, REDO) else (),
            replaces=_replaced(value.get("replaces")) if state in (INTENT, BOUGHT) else None,
            moved_to=moved_to,
            redone=_redone(value.get("redone"), submission.job_id if state == REDO else None),
        )


def request_sha256(request: dict[str, Any]) -> str:
    """Return the digest of a request.

    It is the SHA-256 of ``{"request": ..., "version": 1}`` as JSON in UTF-8, with sorted keys and without spaces.

    :param request: of :func:`~pictory_provider.core.submission.canonical_request`.
    """
    value = {"version": VERSION, "request": request}
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _may_be(value: Any) -> tuple[SavedFile, ...]:
    """Read what the existing file may be. What cannot be read is left out: then Pictory is polled instead."""
    found = []
    for each in value if isinstance(value, list) else []:
        with suppress(Unreadable):
            found.append(SavedFile.from_dict(each if isinstance(each, dict) else {}))
    return tuple(found)


def _redone(value: Any, own: str | None) -> tuple[str, ...]:
    """Read the jobs whose pictures were moved away.

    :param own: of a sidecar in state ``redo``.
    """
    jobs = [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
    return tuple(jobs if own is None or own in jobs else [*jobs, own])


def _replaced(value: Any) -> Sidecar | None:
    """Read the sidecar of the picture that is to be replaced. What cannot be read replaces nothing."""
    if not isinstance(value, dict) or value.get("state") != SAVED:
        return None
    with suppress(Unreadable):
        return Sidecar.from_dict(value)
    return None


def _written(at: float | None) -> str | None:
    try:
        return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return None  # out of range: a user recorded it


def _read(at: Any) -> float | None:
    try:
        return datetime.fromisoformat(at).timestamp()
    except (TypeError, ValueError):
        return None
