# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Decide whether to reuse, adopt, submit or refuse, given what already exists at the output path.

The task's own submission comes first. Its record (:mod:`pictory_provider.core.submission`) is in the task state
store, in the sidecar next to the picture, or in both:

================================================  =====================================================
on record of this task                            the attempt
================================================  =====================================================
a job whose picture exists at the path            reuses the picture, without polling
a job, on a retry                                 continues as that record says
a job of the same request, after a clear          adopts it; with ``overwrite`` it submits
a job of another request, after a clear           decides as below, as if another task had submitted it
an intent, on a retry                             :class:`SubmitOutcomeUnknown`
an intent, after a clear                          submits: a user was told, and has decided
a job whose picture ``redo`` has moved away       decides as below: that record no longer counts
================================================  =====================================================

Then whatever else exists at the path:

================================================  =====================================================
sidecar and picture                               the attempt
================================================  =====================================================
neither                                           submits
a picture without a sidecar                       refuses
a sidecar that cannot be read                     refuses, with ``overwrite`` too
``redo``, of any request                          submits; with another file there refuses
a version of another picture                      refuses, with ``overwrite`` too
``saved``, the same request, its picture          reuses the picture
``saved``, the picture missing or another         refuses
``bought``, the same request                      polls that job, and adopts it
``intent`` of another task                        fails, and may be retried; with ``overwrite`` too
any other request, ``bought``                     polls that job: submits if it failed, else refuses
any other request, ``saved``                      refuses, and shows both requests
================================================  =====================================================

With ``overwrite``, whatever is refused because of the picture or the request is submitted and replaced. With
``overwrite="changed"``, only the picture of another request whose sidecar is ``saved`` is. The sidecar of the new
submission contains that sidecar: if its job gives no picture, the old one is what exists at the path.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from pictory_provider.api.errors import NOTHING_SPENT, RequestInvalid, SubmitOutcomeUnknown, Unavailable
from pictory_provider.api.models import MODELS
from pictory_provider.api.text import counted
from pictory_provider.core.budget import format_credits
from pictory_provider.core.picture_names import SIDECAR_SUFFIX, copy_name, is_version_name
from pictory_provider.core.sidecar import BOUGHT, INTENT, REDO, SAVED
from pictory_provider.core.submission import (
    PollFirst,
    Submission,
    Submit,
    describe_request,
    first_step,
    is_same_request,
)
from pictory_provider.media.mark import MARKS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from pictory_provider.core.attempt import MadeBy
    from pictory_provider.core.sidecar import Sidecar
    from pictory_provider.media.copies import CopySpec

_COMES_BACK_WITHIN = 86_400.0
"""Seconds within which a task that has submitted and not saved may be retried."""
_OTHER_WAYS = (
    "Choose another path, for example one with the run in it, or set overwrite=True to buy and replace it."
)
_CHANGED_WAYS = (
    'Choose another path, for example one with the run in it; or set overwrite="changed", which buys and replaces '
    "pictures of other requests, or overwrite=True, which buys and replaces any."
)
_REDO_WAYS = (
    "Move that file away to buy a new picture, or set overwrite=True to buy and replace it. To keep it, move the "
    "sidecar away too."
)
NOT_MOVED = "Nothing was moved, and nothing was bought."
_OTHER_PICTURE = "the picture there is not the one that its sidecar describes"


class ExistingImage(NamedTuple):
    """What exists at a path.

    :param sidecar: ``None`` if there is none, or it cannot be read.
    :param problem: why an existing sidecar cannot be read.
    :param size: of the picture, in bytes; ``None`` if there is none.
    :param folder: a folder with the name of the picture or its sidecar; ``None`` if there is none.
    :param sidecar_version: the version of the sidecar in object storage; ``None`` if it is unknown.
    :param copies: sizes in bytes of the files that have the names of the picture's copies, by these names;
        ``None`` for a folder or a broken link.
    """

    path: str
    sidecar: Sidecar | None = None
    problem: str | None = None
    size: int | None = None
    folder: str | None = None
    sidecar_version: str | None = None
    copies: Mapping[str, int | None] = MappingProxyType({})

    def is_incomplete(self, *, mark_ai_generated: bool, copies: Sequence[CopySpec]) -> bool:
        """Whether its picture is to be marked, its sidecar to be corrected, or copies of it to be made."""
        sidecar = self.sidecar
        saved = sidecar.saved if sidecar and self.has_its_picture else None
        if sidecar is None or saved is None:
            return False
        todo = saved.copies_to_make(
            copies,
            mark_ai_generated=mark_ai_generated,
            size_of=lambda spec: self.copies.get(copy_name(self.name, spec)),
        )
        return bool(todo or sidecar.may_be) or (mark_ai_generated and self.may_lack_mark)

    def in_the_way(self, specs: Sequence[CopySpec], *, overwrite: bool) -> str | None:
        """Return the name of an existing file that has a copy's name, and is not a copy on record by its size.

        :param overwrite: whether any file may be replaced. Then only what is no file is in the way.
        """
        on_record = {(copy.spec.suffix, copy.size) for copy in self.sidecar.copies} if self.sidecar else set()
        for spec in specs:
            name = copy_name(self.name, spec)
            size = self.copies.get(name)
            may_be_replaced = size is not None and (overwrite or (spec.suffix, size) in on_record)
            if name in self.copies and not may_be_replaced:
                return name
        return None

    @property
    def name(self) -> str:
        """The picture's name, without its folder."""
        return self.path.rpartition("/")[2]

    @property
    def may_lack_mark(self) -> bool:
        """Whether its picture may not say that a model made it, and could be marked."""
        return self.sidecar is not None and self.has_its_picture and self.sidecar.may_lack_mark

    @property
    def has_its_picture(self) -> bool:
        """Whether the picture exists that the sidecar describes."""
        return self.sidecar is not None and self.sidecar.saved is not None and self.sidecar.saved.size == self.size

    @property
    def replaced(self) -> ExistingImage | None:
        """What existed before a submission that has not replaced it yet; ``None`` if that is not there."""
        old = self.sidecar.replaces if self.sidecar else None
        before = None if old is None else self._replace(sidecar=old, sidecar_version=None)
        return before if before and before.has_its_picture else None

    @property
    def is_to_redo(self) -> bool:
        """Whether another picture is to be bought in place of one that was moved, or is just being moved."""
        is_empty = self.size is None or self.has_its_picture
        return self.sidecar is not None and self.sidecar.state == REDO and is_empty

    @property
    def is_version(self) -> bool:
        """Whether it is an earlier version of another picture, which ``redo`` has moved here."""
        file = self.sidecar.file if self.sidecar else ""
        return file not in ("", self.name) and is_version_name(self.name, file)

    @property
    def may_be_replaced(self) -> bool:
        """Whether ``overwrite="changed"`` may replace its picture with that of another request."""
        is_saved = self.sidecar is not None and self.sidecar.state == SAVED
        return is_saved and self.has_its_picture and not self.is_version

    @property
    def is_free(self) -> bool:
        """Whether there is no picture, or only one that the sidecar's submission is to replace."""
        return self.size is None or self.replaced is not None

    @property
    def described(self) -> str:
        """A description that follows a colon."""
        size = None if self.size is None else counted(self.size, "byte")
        if self.sidecar is None:
            return "no picture" if size is None else f"a file of {size}"
        saved, submission = self.sidecar.saved, self.sidecar.submission
        if saved is None:
            picture = "and no picture" if size is None else f"next to a file of {size}"
        elif self.has_its_picture:
            picture = "with its picture"
        else:
            picture = (
                f"and the picture has {size} instead of {saved.size:,}" if size else "and the picture is gone"
            )
        return (
            f"a sidecar in state `{self.sidecar.state}` {picture}, job {submission.job_id or 'not known'}, of "
            f"{self.sidecar.made_by}, for {describe_request(submission.request)}"
        )


class GenerationSpec(NamedTuple):
    """What a task requests, as far as it is known before anything is bought.

    :param made_by: this task.
    :param fingerprint: of the task's arguments, the same in every attempt.
    :param identity: the request that the fingerprint was made of.
    :param request: returns the request that decides the picture
        (:func:`~pictory_provider.core.submission.canonical_request`). It is called only if another picture has to
        be compared with it.
    :param overwrite: submit again what exists, once, and once more after each clear.
    :param replaces_changed: submit if the existing picture is of another request.
    :param now: epoch seconds.
    :param has_only_sidecar: whether the sidecar is a task's only record, as before Airflow 3.3.
    """

    made_by: MadeBy
    fingerprint: str
    identity: dict[str, Any]
    request: Callable[[], dict[str, Any]]
    max_tries: int
    retries: int | None
    overwrite: bool = False
    replaces_changed: bool = False
    now: float = 0.0
    has_only_sidecar: bool = False

    @property
    def is_mapped(self) -> bool:
        """Whether it is one instance of a mapped task."""
        return self.made_by.map_index >= 0


class Reuse(NamedTuple):
    """Reuse the existing picture.

    :param is_own: whether this task has bought it, and was not cleared since.
    """

    sidecar: Sidecar
    is_own: bool
    warning: str | None = None


Step = Submit | PollFirst | Reuse | SubmitOutcomeUnknown | RequestInvalid | Unavailable


def decide_by_record(
    value: Any, spec: GenerationSpec, *, to_buy: str
) -> Submit | PollFirst | SubmitOutcomeUnknown | RequestInvalid:
    """Decide by this task's record alone what an attempt does first (:mod:`pictory_provider.core.submission`).

    :param value: the record as the store returned it; ``None`` for nothing.
    :param to_buy: what the user has to do to buy the picture, for the text of a refusal or a warning.
    """
    return first_step(
        value,
        wanted=spec.fingerprint,
        max_tries=spec.max_tries,
        is_mapped=spec.is_mapped,
        retries=spec.retries,
        request=spec.identity,
        to_buy=to_buy,
    )


def decide_at_path(existing: ExistingImage, on_record: Any, spec: GenerationSpec) -> Step:
    """Decide what an attempt with an output path does first. The tables are at the top of this module.

    :param on_record: this task's record in the task state store; ``None`` for nothing.
    """
    if existing.problem:
        return _unreadable(existing, Submission.from_dict(on_record) if on_record is not None else None)
    if existing.is_version:
        return _refused("an earlier version of another picture is there", existing, "Choose another path.")
    own = _own(existing, spec)
    value = latest(on_record, own)
    found = None if value is None else Submission.from_dict(value)
    if value is None:
        return _as_another(existing, spec)
    was_cleared = found is not None and found.is_before_a_clear(max_tries=spec.max_tries, retries=spec.retries)
    if found and existing.sidecar and existing.sidecar.overrides(found.job_id):
        is_bought_again = not was_cleared and existing.sidecar.state != REDO
        return _as_another(existing, spec._replace(overwrite=False) if is_bought_again else spec)
    to_buy = "choose another path or set overwrite=True, and clear the task"
    step = decide_by_record(value, spec, to_buy=to_buy)
    picture_of = own.submission.job_id if own and existing.has_its_picture else None
    if not was_cleared:
        may_reuse = found and (found.fingerprint == spec.fingerprint or not spec.is_mapped)
        if own and found and may_reuse and picture_of == found.job_id is not None:
            return Reuse(own, is_own=True, warning=step.warning if isinstance(step, PollFirst) else None)
        return _check_existing(step, existing, spec)
    if found and found.job_id and not spec.overwrite and _is_same(found, spec):
        if own and picture_of == found.job_id:
            return Reuse(own, is_own=False)
        return _check_existing(PollFirst(found, found.job_id, begins_anew=True), existing, spec)
    otherwise = _as_another(existing, spec)
    if isinstance(otherwise, Submit) and isinstance(step, Submit):
        return step._replace(replaces=otherwise.replaces)
    return otherwise


def next_step_at(
    existing: ExistingImage, spec: GenerationSpec, submit: Submit, settled: Collection[str] = ()
) -> Step:
    """Decide again right before a submission, since another task may have submitted meanwhile.

    :param submit: the submission that is about to be made.
    :param settled: jobs that have failed or were cleaned.
    """
    if existing.problem:
        return _unreadable(existing, None)
    if existing.sidecar and existing.sidecar.submission.job_id in settled:
        if existing.replaced and not spec.overwrite:
            step = _as_another(existing.replaced, spec)
            return submit._replace(replaces=step.replaces) if isinstance(step, Submit) else step
        if existing.size is None or spec.overwrite:
            return submit
        return _refused("its job gave no picture, and another file is there", existing, _OTHER_WAYS)
    step = _as_another(existing, spec)
    return submit._replace(replaces=step.replaces) if isinstance(step, Submit) else step


def refused_redo(existing: ExistingImage) -> RequestInvalid | None:
    """Return why ``airflow pictory redo`` moves nothing aside; ``None`` if it can move it, or has moved it.

    ==========================================  ====================================================
    at the path                                 ``airflow pictory redo``
    ==========================================  ====================================================
    ``saved``, with its picture                 moves it, unless a batch is running in the folder
    ``redo``, no picture                        changes nothing
    ``redo``, with the picture that was moved   removes it: an earlier command was interrupted
    ``redo``, with another file                 refuses
    ``intent``, ``bought``                      refuses: a job is in flight
    ``saved``, the picture missing or another   refuses
    no sidecar, or one that cannot be read      refuses
    a version of another picture                refuses, and names that picture
    ==========================================  ====================================================
    """
    sidecar, beside = existing.sidecar, f"{existing.path}{SIDECAR_SUFFIX}"
    if existing.problem:
        return _not_moved(existing, f"its sidecar cannot be read: {existing.problem}", "Find out what wrote it.")
    if sidecar is None:
        what = "there is no picture" if existing.size is None else f"the file there has no sidecar {beside}"
        return _not_moved(
            existing,
            what,
            "Check the path. The command takes pictures that a task with `path`, or a batch, has saved; of "
            "candidates it takes one, such as cover.2.png.",
        )
    if existing.is_version:
        return _not_moved(
            existing,
            "it is an earlier version of another picture",
            f"Run the command for {existing.path.rpartition('/')[0]}/{sidecar.file}.",
        )
    if existing.is_to_redo:
        return None
    if sidecar.state == REDO:
        return _not_moved(
            existing,
            "its picture was moved, and another file is there now",
            "Move that file away; then the next run buys a picture.",
        )
    if sidecar.state != SAVED or sidecar.may_be:
        return _not_moved(
            existing,
            f"{sidecar.made_by} has not finished with it (job {sidecar.submission.job_id or 'not known'})",
            "Let that task end. If it has ended, clear it: that saves the picture, or buys another one if the job "
            "has failed.",
        )
    if not existing.has_its_picture:
        return _not_moved(
            existing,
            "the picture there is not the one that its sidecar describes",
            f"To buy another picture, move {beside} away"
            + (", and the file." if existing.size is not None else "."),
        )
    return None


def _not_moved(existing: ExistingImage, why: str, what_now: str) -> RequestInvalid:
    return RequestInvalid(
        f"{existing.path} cannot be moved: {why}. Found: {existing.described}. {NOT_MOVED} {what_now}",
        fields=["path"],
    )


def _own(existing: ExistingImage, spec: GenerationSpec) -> Sidecar | None:
    return existing.sidecar if existing.sidecar and existing.sidecar.made_by == spec.made_by else None


def _is_same(found: Submission, spec: GenerationSpec) -> bool:
    """Whether a submission of this task is for the current request, maybe over another connection."""
    if found.fingerprint == spec.fingerprint:
        return True
    return found.request is not None and is_same_request(found.request, spec.request())


def latest(on_record: Any, own: Sidecar | None) -> Any:
    """Return a task's record: from the store, or from the sidecar if that knows the jobId and the store does not.

    A worker may die after writing one of them, or one may have refused the write.
    """
    if own is None:
        return on_record
    in_sidecar = own.submission
    if on_record is None:
        return in_sidecar.to_dict()
    stored = Submission.from_dict(on_record)
    if stored is None or stored.job_id is not None or in_sidecar.job_id is None:
        return on_record
    is_same = (stored.fingerprint, stored.max_tries) == (in_sidecar.fingerprint, in_sidecar.max_tries)
    return in_sidecar.to_dict() if is_same else on_record


def _check_existing(step: Step, existing: ExistingImage, spec: GenerationSpec) -> Step:
    """Prevent a job on record from being bought again if its picture, or another file, may exist."""
    if not isinstance(step, PollFirst):
        return step
    own = _own(existing, spec)
    may_replace = existing.is_free or spec.overwrite
    if own and own.saved and not may_replace and not existing.has_its_picture:
        return _refused(_OTHER_PICTURE, existing, _ways(own))
    if existing.sidecar is not None:
        if own and own.submission.job_id == step.job_id and not may_replace:
            gone = "Pictory no longer has this task's job, and another file is there"
            return step._replace(if_gone=_refused(gone, existing, _OTHER_WAYS))
        return step
    unseen = (
        f"Job {step.job_id} is on record for this task, and this worker does not see its sidecar "
        f"{existing.path}{SIDECAR_SUFFIX}"
    )
    return step._replace(
        warning=f"{step.warning or ''} {unseen}: do the workers share this storage?".strip(),
        if_gone=RequestInvalid(
            f"{unseen}; Pictory no longer has the job either. If the workers do not share this storage, the "
            f"picture may be on another worker. {NOTHING_SPENT} To buy it anyway, set overwrite=True and clear "
            "the task.",
            fields=["path"],
        ),
    )


def _as_another(existing: ExistingImage, spec: GenerationSpec) -> Step:
    """Decide by what exists at the path, if this task has no record that it continues from."""
    sidecar = existing.sidecar
    if sidecar is None:
        if existing.size is None or spec.overwrite:
            return Submit()
        return _refused("a file is there, without a sidecar that says what it is", existing, _OTHER_WAYS)
    if sidecar.state == REDO:
        return _at_redo(existing, spec)
    is_own = _own(existing, spec) is not None
    if sidecar.state == INTENT:
        return _at_intent(sidecar, existing, spec)
    is_bought = sidecar.state == BOUGHT
    if spec.overwrite and (is_own or not is_bought):
        return Submit()
    is_same = is_same_request(sidecar.submission.request, spec.request())
    poll = PollFirst(
        replace(sidecar.submission, fingerprint=spec.fingerprint),
        str(sidecar.submission.job_id),
        f"Job {sidecar.submission.job_id} was bought for this picture by {sidecar.made_by}.",
        begins_anew=True,
        is_ours=False,
    )
    if is_bought and is_same:
        return poll._replace(if_gone=_gone(sidecar, existing))
    if is_bought and spec.overwrite:
        return _left_behind(poll, sidecar, existing, spec)
    if is_same:
        is_there = existing.has_its_picture
        return Reuse(sidecar, is_own=False) if is_there else _refused(_OTHER_PICTURE, existing, _ways(sidecar))
    if spec.replaces_changed and existing.may_be_replaced:
        return Submit(replaces=sidecar)
    why = f"it is taken by another request. This task requests {describe_request(spec.request())}"
    known = MODELS.get(str(spec.request().get("model")))
    price = f" Either of these costs {format_credits(known.credits)} AI credits as listed." if known else ""
    taken = _refused(why, existing, f"{_CHANGED_WAYS if existing.may_be_replaced else _OTHER_WAYS}{price}")
    return poll._replace(if_alive=taken) if is_bought and existing.is_free else taken


def _at_intent(sidecar: Sidecar, existing: ExistingImage, spec: GenerationSpec) -> Step:
    """Decide at the sidecar of an intent. This task's own is settled: a user was told."""
    if _own(existing, spec) is None:
        return _intent_of_another(sidecar, existing, spec.made_by)
    if existing.replaced and not spec.overwrite:
        return _as_another(existing.replaced, spec)
    return Submit()


def _at_redo(existing: ExistingImage, spec: GenerationSpec) -> Step:
    """Decide at the sidecar of a picture that was moved. A picture of any request may take its place."""
    if existing.is_to_redo or spec.overwrite:
        return Submit()
    return _refused("another file is there in place of the picture that was moved", existing, _REDO_WAYS)


def _left_behind(poll: PollFirst, sidecar: Sidecar, existing: ExistingImage, spec: GenerationSpec) -> Step:
    """Decide about a paid and unsaved picture of another request that this task may replace.

    If the sidecar is the other task's only record of it, it is not replaced while that task may be retried.
    """
    bought_at = sidecar.submission.submitted_at
    if spec.has_only_sidecar and bought_at is not None and spec.now - bought_at < _COMES_BACK_WITHIN:
        return poll._replace(
            if_alive=Unavailable.unsent(
                f"A picture for {existing.path!r} is bought and not saved yet, by {sidecar.made_by}, and its "
                "sidecar is the only record of that purchase",
                f"Once it is saved, a retry of this task buys and replaces it. If that task will not run again, "
                f"{sidecar.how_to_drop(existing.path)} and clear this task.",
            )
        )
    return Submit(f"Job {poll.job_id} of {sidecar.made_by} is left behind: its picture was not saved.")


def _gone(sidecar: Sidecar, existing: ExistingImage) -> RequestInvalid:
    return RequestInvalid(
        f"The sidecar {existing.path}{SIDECAR_SUFFIX} names job {sidecar.submission.job_id}, bought by "
        f"{sidecar.made_by}. Pictory no longer has that job, or it belongs to another account. {NOTHING_SPENT} To "
        f"buy the picture, {sidecar.how_to_drop(existing.path)} and clear the task.",
        fields=["path"],
    )


def _ways(sidecar: Sidecar) -> str:
    saved = sidecar.saved
    is_marked = saved and saved.marks == MARKS and (saved.digital_source_type or not saved.is_examined)
    marked = ", mark_ai_generated=True" if is_marked else ""
    return (
        f'DownloadImageOperator(job_id="{sidecar.submission.job_id}", path=..., overwrite=True{marked}) saves '
        f"the one in the sidecar again, for free. {_OTHER_WAYS}"
    )


def _unreadable(existing: ExistingImage, on_record: Submission | None) -> RequestInvalid:
    what_now = "Find out what wrote it. To buy another picture, move the sidecar and the picture away."
    if on_record and on_record.job_id:
        what_now = (
            f"Job {on_record.job_id} is on record for this task, and paid for: to save its picture, move the "
            "sidecar away and clear the task."
        )
    sidecar = f"{existing.path}{SIDECAR_SUFFIX}"
    return _refused(f"its sidecar {sidecar} cannot be read: {existing.problem}", existing, what_now)


def _intent_of_another(sidecar: Sidecar, existing: ExistingImage, made_by: MadeBy) -> Unavailable:
    is_replaced = sidecar.made_by.is_replaced_by(made_by)
    what_now = sidecar.how_to_drop(existing.path)
    note = " (the loop iteration that a clear replaced with this one)" if is_replaced else ""
    return Unavailable(
        f"A picture for {existing.path!r} is being bought by another task, or its outcome is not known: "
        f"{sidecar.made_by}{note} has recorded its intent in the sidecar, and no jobId yet. {NOTHING_SPENT} A "
        "retry uses that picture once it is saved. If that task has ended, check its log; to let this task buy "
        f"the picture, {what_now} and clear this task."
    )


def _refused(why: str, existing: ExistingImage, what_now: str) -> RequestInvalid:
    return RequestInvalid(
        f"path {existing.path!r} cannot be used: {why}. Found: {existing.described}. {NOTHING_SPENT} {what_now}",
        fields=["path"],
    )
