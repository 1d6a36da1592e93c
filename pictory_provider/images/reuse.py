# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Take, adopt, buy, or refuse: what a task does about what lies where its picture is to go.

The task's own purchase comes first. Its record (:mod:`pictory_provider.jobs.submission`) lies in the task state
store, in the sidecar beside the picture, or in both:

================================================  =====================================================
of this task is on record                         the try
================================================  =====================================================
a job whose picture lies there                    takes the picture, without asking Pictory
a job, on a retry                                 goes on as that record says
a job of the same request, after a clear          adopts it; with ``overwrite`` it buys
a job of another request, after a clear           does as below, as though another task had bought it
an intent, on a retry                             :class:`SubmitOutcomeUnknown`
an intent, after a clear                          buys: a person was told, and has decided
================================================  =====================================================

Then what lies there, by whomever:

================================================  =====================================================
beside the picture                                the try
================================================  =====================================================
nothing, and no picture                           buys
nothing, and a picture                            is refused
a sidecar that cannot be read                     is refused, with ``overwrite`` too
``saved``, the same request, the picture there    takes the picture
``saved``, but the picture is gone or another     is refused
``bought``, the same request                      looks at that job, and adopts it
``intent`` of another task                        fails, and may be retried; with ``overwrite`` too
any other request, ``bought``                     looks at that job: buys where it failed, else is refused
any other request, ``saved``                      is refused, and both are shown
================================================  =====================================================

With ``overwrite`` what is refused for the picture or the request is bought and replaced.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from pictory_provider.api.errors import RequestInvalid, SubmitOutcomeUnknown, Unavailable
from pictory_provider.images.mark import MARKS
from pictory_provider.images.sidecar import BOUGHT, INTENT, request_sha256
from pictory_provider.jobs.files import SIDECAR_SUFFIX
from pictory_provider.jobs.submission import LookFirst, Submission, Submit, first_step, told

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from pictory_provider.images.sidecar import MadeBy, Sidecar

_NOTHING = "Nothing was sent and nothing was spent."
_COMES_BACK_WITHIN = 86_400.0
"""Seconds within which a task may be tried again that has bought and not saved."""
_OTHER_WAYS = (
    "Choose another path, one with the run in it for example, or set overwrite=True to buy and replace it."
)


class Lying(NamedTuple):
    """What lies at a path.

    :param sidecar: ``None`` for none, and for one that cannot be read.
    :param problem: why a sidecar that is there cannot be read.
    :param size: of the picture, in bytes; ``None`` for none.
    """

    path: str
    sidecar: Sidecar | None = None
    problem: str | None = None
    size: int | None = None

    @property
    def has_its_picture(self) -> bool:
        """Whether the picture is there that the sidecar tells of."""
        return self.sidecar is not None and self.sidecar.saved is not None and self.sidecar.saved.size == self.size

    @property
    def described(self) -> str:
        """What is there, in words that follow a colon."""
        if self.sidecar is None:
            return "no picture" if self.size is None else f"a file of {self.size:,} bytes"
        there = self.sidecar
        picture = "and the picture is gone"
        if there.saved is None:
            picture = "and no picture" if self.size is None else f"beside a file of {self.size:,} bytes"
        elif self.has_its_picture:
            picture = "with its picture"
        elif self.size is not None:
            picture = f"and the picture has {self.size:,} bytes in place of {there.saved.size:,}"
        return (
            f"a sidecar in state `{there.state}` {picture}, job {there.submission.job_id or 'not known'}, of "
            f"{there.made_by}, for {told(there.submission.request)}"
        )


class Wish(NamedTuple):
    """What a task asks for, as far as it is known before anything is bought.

    :param fingerprint: of the task's order, the same at every try.
    :param order: what the fingerprint was made of.
    :param request: gives what decides the picture (:func:`~pictory_provider.jobs.submission.asked_for`). It is
        called only where another picture has to be compared with it.
    :param now: epoch seconds.
    :param is_only_here: whether nothing but the sidecar is on record of a task, as before Airflow 3.3.
    """

    me: MadeBy
    fingerprint: str
    order: dict[str, Any]
    request: Callable[[], dict[str, Any]]
    max_tries: int
    retries: int | None
    overwrite: bool = False
    now: float = 0.0
    is_only_here: bool = False

    @property
    def is_mapped(self) -> bool:
        """Whether it is one instance of a mapped task."""
        return self.me.map_index >= 0


class Reuse(NamedTuple):
    """Take the picture that lies there.

    :param is_own: whether this task has bought it, and was not cleared since.
    """

    sidecar: Sidecar
    is_own: bool
    warning: str | None = None


Step = Submit | LookFirst | Reuse | SubmitOutcomeUnknown | RequestInvalid | Unavailable


def first_step_at(there: Lying, on_record: Any, wish: Wish) -> Step:
    """Decide what a try does first whose picture goes to a path. The tables are at the top of this module.

    :param on_record: of this task, in the task state store; ``None`` for nothing.
    """
    if there.problem:
        return _unreadable(there, Submission.read(on_record) if on_record is not None else None)
    own = _own(there, wish)
    value = latest(on_record, own)
    if value is None:
        return _as_another(there, wish)
    found = Submission.read(value)
    was_cleared = found is not None and found.is_before_a_clear(max_tries=wish.max_tries, retries=wish.retries)
    record = _on_record(value, wish)
    if not was_cleared and own and found and own.submission.job_id == found.job_id and there.has_its_picture:
        is_same = found.fingerprint == wish.fingerprint
        if is_same or not wish.is_mapped:
            return Reuse(own, is_own=True, warning=None if is_same else _warning_of(record))
    if not was_cleared:
        return _as_seen(record, there, wish)
    if found and found.job_id and not wish.overwrite and _is_same(found, wish):
        if own and there.has_its_picture and own.submission.job_id == found.job_id:
            return Reuse(own, is_own=False)
        return _as_seen(LookFirst(found, found.job_id, begins_anew=True), there, wish)
    otherwise = _as_another(there, wish)
    return record if isinstance(otherwise, Submit) and isinstance(record, Submit) else otherwise


def next_step_at(there: Lying, wish: Wish, bought: Submit, settled: Collection[str] = ()) -> Step:
    """Decide once more right before a purchase, since meanwhile another task may have come.

    :param bought: the purchase that is about to be made.
    :param settled: jobs that have come to nothing.
    """
    if there.problem:
        return _unreadable(there, None)
    if there.sidecar and there.sidecar.submission.job_id in settled:
        if there.size is None or wish.overwrite:
            return bought
        return _refused("its job has come to nothing, and something else lies there", there, _OTHER_WAYS)
    step = _as_another(there, wish)
    return bought if isinstance(step, Submit) else step


def _own(there: Lying, wish: Wish) -> Sidecar | None:
    return there.sidecar if there.sidecar and there.sidecar.made_by == wish.me else None


def _is_same(found: Submission, wish: Wish) -> bool:
    """Whether a purchase of this task is of what it asks for now, maybe over another connection."""
    if found.fingerprint == wish.fingerprint:
        return True
    return found.request is not None and request_sha256(found.request) == request_sha256(wish.request())


def _warning_of(step: Step) -> str | None:
    return step.warning if isinstance(step, LookFirst) else None


def latest(on_record: Any, own: Sidecar | None) -> Any:
    """Return what is on record of a task: in the store, or beside the picture where that knows more.

    A worker may die between the two, or one of them may not take what the other has taken.
    """
    if own is None:
        return on_record
    beside = own.submission.plain()
    if on_record is None:
        return beside
    stored = Submission.read(on_record)
    knows_more = stored is not None and stored.job_id is None and own.submission.job_id is not None
    is_same = stored is not None and (stored.fingerprint, stored.max_tries) == (
        own.submission.fingerprint,
        own.submission.max_tries,
    )
    return beside if knows_more and is_same else on_record


def _on_record(value: Any, wish: Wish) -> Submit | LookFirst | SubmitOutcomeUnknown | RequestInvalid:
    return first_step(
        value,
        wanted=wish.fingerprint,
        max_tries=wish.max_tries,
        is_mapped=wish.is_mapped,
        retries=wish.retries,
        request=wish.order,
        to_buy="choose another path or set overwrite=True, and clear the task",
    )


def _as_seen(step: Step, there: Lying, wish: Wish) -> Step:
    """Keep a job on record from being bought again where its picture may lie, or something else does."""
    if not isinstance(step, LookFirst):
        return step
    own = _own(there, wish)
    if own and own.saved and there.size is not None and not there.has_its_picture and not wish.overwrite:
        return _refused("the picture there is not the one that its sidecar tells of", there, _ways(own))
    if there.sidecar is not None:
        if own and own.submission.job_id == step.job_id and there.size is not None and not wish.overwrite:
            gone = "Pictory does not have this task's job any more, and something lies there"
            return step._replace(if_gone=_refused(gone, there, _OTHER_WAYS))
        return step
    unseen = (
        f"Job {step.job_id} is on record for this task, and this worker does not see its sidecar "
        f"{there.path}{SIDECAR_SUFFIX}"
    )
    return step._replace(
        warning=f"{step.warning or ''} {unseen}: do the workers share this storage?".strip(),
        if_gone=RequestInvalid(
            f"{unseen}, nor does Pictory have the job any more. If the workers do not share this storage, its "
            f"picture may lie on another one. {_NOTHING} To buy it all the same, set overwrite=True and clear the "
            "task.",
            fields=["path"],
        ),
    )


def _as_another(there: Lying, wish: Wish) -> Step:
    """Decide about what lies there, of which this task has nothing on record that it goes on with."""
    sidecar = there.sidecar
    if sidecar is None:
        if there.size is None or wish.overwrite:
            return Submit()
        return _refused("something is there, without the sidecar that would tell what it is", there, _OTHER_WAYS)
    is_mine = _own(there, wish) is not None
    if sidecar.state == INTENT:
        return Submit() if is_mine else _somebody(sidecar, there, wish.me)
    is_bought = sidecar.state == BOUGHT
    if wish.overwrite and (is_mine or not is_bought):
        return Submit()
    is_same = sidecar.request_sha256 == request_sha256(wish.request())
    look = LookFirst(
        replace(sidecar.submission, fingerprint=wish.fingerprint),
        str(sidecar.submission.job_id),
        f"Job {sidecar.submission.job_id} was bought for this picture by {sidecar.made_by}.",
        begins_anew=True,
        is_ours=False,
    )
    if is_bought and is_same:
        return look._replace(if_gone=_gone(sidecar, there))
    if is_bought and wish.overwrite:
        return _left_behind(look, there, wish)
    if is_same and there.has_its_picture:
        return Reuse(sidecar, is_own=False)
    if is_same:
        return _refused("the picture there is not the one that its sidecar tells of", there, _ways(sidecar))
    asks = f"it is taken by another request. This task asks for {told(wish.request())}"
    taken = _refused(asks, there, _OTHER_WAYS)
    return look._replace(if_alive=taken) if is_bought and there.size is None else taken


def _left_behind(look: LookFirst, there: Lying, wish: Wish) -> Step:
    """Decide about a paid picture of another request that is not saved, where it may be replaced.

    Where nothing but the sidecar tells that task of its purchase, it is not taken away while it may come back.
    """
    sidecar = there.sidecar
    assert sidecar is not None
    bought_at = sidecar.submission.submitted_at
    if wish.is_only_here and bought_at is not None and wish.now - bought_at < _COMES_BACK_WITHIN:
        return look._replace(
            if_alive=Unavailable(
                f"The picture of {sidecar.made_by} is on its way to {there.path!r}, and its sidecar is the only "
                f"record of that purchase. {_NOTHING} A retry replaces it when it is there. If that task is gone, "
                f"delete {there.path}{SIDECAR_SUFFIX} and clear this task."
            )
        )
    return Submit(f"Job {look.job_id} of {sidecar.made_by} is left behind: its picture was not saved.")


def _gone(sidecar: Sidecar, there: Lying) -> RequestInvalid:
    return RequestInvalid(
        f"The sidecar {there.path}{SIDECAR_SUFFIX} tells of job {sidecar.submission.job_id}, bought by "
        f"{sidecar.made_by}. Pictory has no such job any more, or it is another account's. {_NOTHING} To buy the "
        "picture, delete the sidecar.",
        fields=["path"],
    )


def _ways(sidecar: Sidecar) -> str:
    marked = ", mark_ai_generated=True" if sidecar.saved and sidecar.saved.marks == MARKS else ""
    return (
        f'DownloadImageOperator(job_id="{sidecar.submission.job_id}", path=..., overwrite=True{marked}) saves '
        f"that one again, for free. {_OTHER_WAYS}"
    )


def _unreadable(there: Lying, on_record: Submission | None) -> RequestInvalid:
    what_now = "Who wrote it? Move it away, with the picture, to have another one bought."
    if on_record and on_record.job_id:
        what_now = (
            f"Job {on_record.job_id} is on record for this task, and paid for: move the sidecar away and clear "
            "the task to have it saved."
        )
    return _refused(f"its sidecar {there.path}{SIDECAR_SUFFIX} cannot be read: {there.problem}", there, what_now)


def _of_replaced(sidecar: Sidecar, me: MadeBy) -> str:
    """Say that an intent is of the iteration in whose place a clear has put this one."""
    is_replaced = sidecar.made_by.is_replaced_by(me)
    return " (the iteration in whose place this one was put by a clear)" if is_replaced else ""


def _somebody(sidecar: Sidecar, there: Lying, me: MadeBy) -> Unavailable:
    return Unavailable(
        f"A picture for {there.path!r} is being bought by another task, or its outcome is not known: "
        f"{sidecar.made_by}{_of_replaced(sidecar, me)} has put its intent beside it, and no jobId yet. "
        f"{_NOTHING} A retry takes that picture when it is there. If that task has ended, look at its log; to "
        f"have this task buy it, delete {there.path}{SIDECAR_SUFFIX} and clear this task."
    )


def _refused(why: str, there: Lying, what_now: str) -> RequestInvalid:
    return RequestInvalid(
        f"path {there.path!r} cannot be used: {why}. There is: {there.described}. {_NOTHING} {what_now}",
        fields=["path"],
    )
