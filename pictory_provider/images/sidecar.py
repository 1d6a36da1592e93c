# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What the file beside a picture says: what was asked for, by whom, and how far that has got.

``cover.png`` has the sidecar ``cover.png.json``, which every worker and every run can read that sees the picture.
It is JSON, and passes through three states:

==========  =========================================================================================
``intent``  the paid request is about to be sent, and nobody knows yet what becomes of it
``bought``  Pictory has named the job
``saved``   the picture lies beside it, with this size and this SHA-256
==========  =========================================================================================

The first two are the record of a purchase (:mod:`pictory_provider.jobs.submission`), under names that a reader of
the folder understands. Times are ISO 8601, in UTC.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pictory_provider.jobs.submission import Submission

VERSION = 1
INTENT, BOUGHT, SAVED = "intent", "bought", "saved"


class MadeBy(NamedTuple):
    """The task instance that has bought a picture.

    :param map_index: -1 where it is not mapped.
    :param region_id: what tells the iterations of a loop apart, which have all else in common (Airflow 3.4 and
        later; a UUID as text); ``None`` where there is none.
    :param region_index: its place in that region: the iteration, of a task that is itself in a loop.
    """

    dag_id: str | None
    run_id: str | None
    task_id: str | None
    map_index: int
    region_id: str | None = None
    region_index: int | None = None

    @classmethod
    def of(cls, ti: Any) -> MadeBy:
        """Return that of a task instance: Airflow's ``context["ti"]``, or one of its database."""
        map_index = -1 if ti.map_index is None else ti.map_index
        return cls(ti.dag_id, ti.run_id, ti.task_id, map_index, *(region_of(ti) or ()))

    @classmethod
    def read(cls, value: dict[str, Any]) -> MadeBy:
        """Read what :meth:`plain` has written, in this release or in one before."""
        map_index, region_id, region_index = (value.get(name) for name in cls._fields[3:])
        has_region = isinstance(region_id, str) and isinstance(region_index, int)
        return cls(
            value.get("dag_id"),
            value.get("run_id"),
            value.get("task_id"),
            map_index if isinstance(map_index, int) else -1,
            *((region_id, region_index) if has_region else ()),
        )

    def plain(self) -> dict[str, Any]:
        """Return the JSON that is kept; of a task outside any region what the first release wrote."""
        return {name: value for name, value in self._asdict().items() if value is not None or "region" not in name}

    def is_replaced_by(self, other: MadeBy) -> bool:
        """Whether a clear has put another one into the place of this iteration of a loop.

        Of a mapped task in a loop it cannot be told: all iterations have the same index in regions of their own.
        """
        has_regions = None not in (self.region_id, other.region_id) and self.region_id != other.region_id
        return has_regions and self.map_index < 0 and self._replace(region_id=other.region_id) == other

    def __str__(self) -> str:
        of_index = "" if self.map_index < 0 else f", map index {self.map_index}"
        if self.map_index < 0 and self.region_index is not None:
            of_index = f", iteration {self.region_index}"
        return f"task {self.task_id} of DAG {self.dag_id}, run {self.run_id}{of_index}"


def region_of(ti: Any) -> tuple[str, int] | None:
    """Return the region of a task instance and its place there.

    It is ``None`` for a task that is neither mapped nor in a loop, and before Airflow 3.4.

    Every iteration of a loop has the same DAG, run, task and map index. A clear keeps a task instance's region,
    unless it replaces the iterations after a cleared one: those are new (seen on 3.4.0b2).
    """
    region_id, region_index = getattr(ti, "region_id", None), getattr(ti, "region_index", None)
    if region_id is None or region_index is None or not getattr(region_id, "int", 0):
        return None
    return str(region_id), int(region_index)


class SavedFile(NamedTuple):
    """The picture as it lies there.

    :param size: bytes.
    :param sha256: hexadecimal, of the whole file.
    :param ai_credits_used: as Pictory said; ``None`` where it did not.
    :param marks: what the file says of its origin: ``c2pa``, ``xmp``, ``aigc``.
    :param saved_at: epoch seconds.
    """

    size: int
    sha256: str
    width: int | None
    height: int | None
    ai_credits_used: float | None
    marks: tuple[str, ...]
    saved_at: float | None


_OF_SPENDING = ("shown_before", "used_before", "earlier", "earlier_before", "before_clear")
"""Fields of a submission that tell what its task has bought, and what the account showed before that."""


class Unreadable(ValueError):
    """A sidecar says something that this release does not understand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecar:
    """What is on record of one picture, beside it.

    :param file: the picture's name, without its folder.
    :param submission: its purchase.
    :param saved: ``None`` until the picture lies there.
    :param keeps_spending: whether it goes on saying what the task has bought when the picture is saved, because
        nothing else does.
    """

    file: str
    submission: Submission
    made_by: MadeBy
    saved: SavedFile | None = None
    keeps_spending: bool = False

    @property
    def state(self) -> str:
        """How far it has got: ``intent``, ``bought`` or ``saved``."""
        if self.saved:
            return SAVED
        return BOUGHT if self.submission.job_id else INTENT

    @property
    def request_sha256(self) -> str:
        """The digest of what was asked for."""
        return request_sha256(self.submission.request or {})

    def content(self) -> bytes:
        """Return the file: JSON in UTF-8."""
        bought, saved = self.submission, self.saved
        fields: dict[str, Any] = {
            "version": VERSION,
            "state": self.state,
            "file": self.file,
            "job_id": bought.job_id,
            "request": bought.request or {},
            "request_sha256": self.request_sha256,
            "made_by": self.made_by.plain(),
            "fingerprint": bought.fingerprint,
            "max_tries": bought.max_tries,
            "retries": bought.retries,
            "intended_at": _written(bought.intended_at),
            "submitted_at": _written(bought.submitted_at),
        }
        spending = {name: kept for name, kept in bought.plain().items() if name in _OF_SPENDING}
        if saved is None:
            # Until it is saved; a folder may be public.
            fields |= {"credits_before": bought.credits_before, **spending}
        else:
            fields |= {
                "sha256": saved.sha256,
                "size": saved.size,
                "width": saved.width,
                "height": saved.height,
                "ai_credits_used": saved.ai_credits_used,
                "marks": list(saved.marks),
                "saved_at": _written(saved.saved_at),
                **(spending if self.keeps_spending else {}),
            }
        # Half a surrogate pair, which UTF-8 does not know, is left as JSON's escape.
        return (json.dumps(fields, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")

    @classmethod
    def read(cls, content: str | bytes) -> Sidecar:
        """Read the file. By hand, a ``job_id`` may be written into one in state ``intent``.

        :raises Unreadable: says why.
        """
        try:
            value = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise Unreadable(f"it is no JSON ({error})") from None
        if not isinstance(value, dict):
            raise Unreadable(f"it holds {type(value).__name__}, and not an object")
        if type(value.get("version")) is not int or value["version"] != VERSION:
            raise Unreadable(f"its version is {value.get('version')!r}, and this release reads {VERSION}")
        request, made_by = value.get("request"), value.get("made_by")
        if not isinstance(request, dict) or not isinstance(made_by, dict):
            raise Unreadable("it says no request, or not by whom it was made")
        if not all(isinstance(each, str) for each in request.values()):
            raise Unreadable("its request is none")
        if value.get("request_sha256") != request_sha256(request):
            raise Unreadable("its request_sha256 is not that of its request")
        state = value.get("state")
        submission = Submission.read(
            {
                "jobId": value.get("job_id"),
                "request": request,
                **{
                    name: value.get(name)
                    for name in ("fingerprint", "max_tries", "retries", "credits_before", *_OF_SPENDING)
                },
                **{name: _read(value.get(name)) for name in ("intended_at", "submitted_at")},
            }
        )
        if (
            submission is None
            or state not in (INTENT, BOUGHT, SAVED)
            or (state != INTENT) > bool(submission.job_id)
        ):
            raise Unreadable(f"its state is {state!r} and its job_id {value.get('job_id')!r}")
        return cls(
            file=str(value.get("file")),
            submission=submission,
            made_by=MadeBy.read(made_by),
            saved=_saved(value) if state == SAVED else None,
            keeps_spending=state == SAVED and any(name in value for name in _OF_SPENDING),
        )


def request_sha256(request: dict[str, Any]) -> str:
    """Return the digest of what was asked for.

    It is the SHA-256 of ``{"request": ..., "version": 1}`` as JSON in UTF-8, keys sorted, without blanks.

    :param request: of :func:`~pictory_provider.jobs.submission.asked_for`.
    """
    text = json.dumps(
        {"version": VERSION, "request": request}, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _saved(value: dict[str, Any]) -> SavedFile:
    size, sha256, marks = value.get("size"), value.get("sha256"), value.get("marks")
    if not isinstance(size, int) or not isinstance(sha256, str):
        raise Unreadable("it says `saved`, and neither size nor sha256")
    return SavedFile(
        size=size,
        sha256=sha256,
        width=value.get("width"),
        height=value.get("height"),
        ai_credits_used=value.get("ai_credits_used"),
        marks=tuple(str(mark) for mark in marks) if isinstance(marks, list) else (),
        saved_at=_read(value.get("saved_at")),
    )


def _written(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def _read(at: Any) -> float | None:
    try:
        return datetime.fromisoformat(at).timestamp()
    except (TypeError, ValueError):
        return None
