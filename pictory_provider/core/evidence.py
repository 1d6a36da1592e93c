# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Texts and evidence for a user who has to decide about a job that is, or may be, paid for."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pictory_provider.api.errors import SubmitOutcomeUnknown
from pictory_provider.core.submission import key_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pictory_provider.api.models import GeneratedImage, ImageRequest

PAID_AND_LOST = (
    "This attempt submitted a job, which is paid for, but its jobId is unknown: neither the record nor the XCom "
    "jobId of this task can be read now. The task is not retried, because a retry could buy the picture again. "
    "The log of this task names the jobId: PictoryJobSensor(job_id=...) waits for it."
)
"""The error text when Airflow itself has ended a deferral and the jobId cannot be found."""
CLOCK_SLACK = 300.0
"""Seconds by which Pictory's clock may differ from the worker's."""
MATCHES_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Evidence about a submission whose outcome is unknown.

    :param since: epoch seconds of the intent; ``None`` if unknown.
    :param credits_before: AI credits used right before the request; ``None`` if Pictory did not say.
    :param credits_now: AI credits used now; ``None`` if Pictory did not say.
    :param price: listed price of this picture in AI credits; ``None`` if unknown.
    :param matches: pictures of this request on the first page of the gallery; ``None`` if it could not be read.
    """

    since: float | None
    credits_before: float | None
    credits_now: float | None
    price: float | None = None
    matches: tuple[GeneratedImage, ...] | None

    def text(self) -> str:
        """Return the evidence as text."""
        return f"{self._credits()} {self.gallery()}"

    def _credits(self) -> str:
        before, now = _plain(self.credits_before), _plain(self.credits_now)
        if self.credits_before is None or self.credits_now is None:
            return f"AI credits used by the whole account: {before} before the request, {now} now."
        more = round(self.credits_now - self.credits_before, 2)
        costs = "" if self.price is None else f"; this picture costs {_plain(self.price)}"
        if more == 0:
            return f"The whole account has used no AI credits since ({before} before, {now} now){costs}."
        if more == self.price:
            costs = ": exactly the price of this picture"
        return f"The account has used {_plain(more)} more AI credits ({before} before, {now} now){costs}."

    def gallery(self) -> str:
        """Return what the gallery shows, as text."""
        if self.matches is None:
            return "The gallery could not be searched."
        when = (
            "" if self.since is None else f" since {datetime.fromtimestamp(self.since, UTC):%Y-%m-%d %H:%M:%S} UTC"
        )
        if not self.matches:
            return (
                f"The gallery shows no picture of this request{when}. A picture that is still being generated is "
                "not there yet."
            )
        made = ", ".join(str(match.created_date) for match in self.matches[:MATCHES_SHOWN])
        return f"Pictures of this request in the gallery{when}: {len(self.matches)}, made {made}."

    def how_to_save(self) -> str:
        """Say how to save a picture that the gallery shows; empty if it shows none."""
        if not self.matches:
            return ""
        urls = [match.url or "" for match in self.matches[:MATCHES_SHOWN]]
        if any("?" in url for url in urls):  # the query is a key to the picture
            urls = ["<its url in PictoryHook().list_images()>"]
        ways = "\n".join(f'    DownloadImageOperator(url="{url}", path=...)' for url in urls)
        return f"To save a picture from the gallery, which buys nothing:\n{ways}"


def matching(
    images: Iterable[GeneratedImage], request: ImageRequest, since: float | None
) -> tuple[GeneratedImage, ...]:
    """Return the gallery's pictures that may be the result of a request.

    The gallery does not name jobIds, so this is evidence and not proof.

    :param since: epoch seconds; pictures made more than :data:`CLOCK_SLACK` earlier are not of this request.
    """
    return tuple(
        image
        for image in images
        if image.prompt == request.prompt
        and image.model in (None, request.model)
        and (since is None or is_since(image, since))
    )


def is_since(image: GeneratedImage, since: float) -> bool:
    """Whether a picture in the gallery may have been made since a time.

    :param since: epoch seconds.
    """
    return _made_at(image, since) >= since - CLOCK_SLACK


def report(
    unknown: SubmitOutcomeUnknown, evidence: Evidence, adoption: str, *, to_buy: str = "clear the task"
) -> SubmitOutcomeUnknown:
    """Return an unknown outcome with its evidence and what the user can do.

    :param adoption: how to adopt a job whose jobId was found (:func:`how_to_adopt` or :func:`how_to_wait`).
    :param to_buy: what the user has to do to buy the picture again.
    """
    lines = [evidence.text(), f"To buy the picture again, {to_buy}.", adoption, evidence.how_to_save()]
    return SubmitOutcomeUnknown.because(
        unknown.why,
        evidence=evidence,
        what_now="\n".join(line for line in lines if line),
    )


def how_to_adopt(
    *,
    dag_id: str,
    run_id: str,
    task_id: str,
    map_index: int | None = None,
    loop_index: int | None = None,
    candidate: int | None = None,
    conn_id: str | None = None,
    has_store: bool = True,
    sidecar: str | None = None,
) -> str:
    """Say how a user makes a task with a record adopt a job.

    :param loop_index: the iteration of a task in a loop.
    :param candidate: the number of the picture among the candidates of its task.
    :param conn_id: of its connection, if that is not the default one.
    :param has_store: whether the task state store has the task's record.
    :param sidecar: the path of the record next to the picture, if there is one.
    """
    more = {
        "--map-index": map_index,
        "--loop-index": loop_index,
        "--candidate": candidate,
        "--conn-id": conn_id,
    }
    words = [dag_id, run_id, task_id, "JOBID"]
    for option, value in more.items():
        words += [] if value is None else [option, str(value)]
    command = " ".join(shlex.quote(word) for word in words)
    lines = [
        "If you have found the jobId, adopt the job and clear the task with:",
        f"    python -m pictory_provider adopt {command} --clear",
    ]
    if sidecar is not None:
        lines.append(
            f'or set "job_id": "<its jobId>" in {sidecar}, in place of null, and clear the task (if its path '
            "stays the same)."
        )
    elif has_store:
        lines.append(
            f'or set {key_of(candidate)} to {{"jobId": "<its jobId>"}} in its Task State Store, on the task\'s '
            "page, and clear the task (from Airflow 3.4 on with *Keep task state and resume*)."
        )
    return "\n".join(lines)


def how_to_buy_again(sidecar: str, *, is_only_there: bool) -> str:
    """Say how to buy a picture again whose job the sidecar names and Pictory no longer has.

    :param sidecar: its path.
    :param is_only_there: whether the task has no other record.
    """
    first = f"delete {sidecar}" if is_only_there else "set overwrite=True"
    return f"{first} and clear the task: clearing it alone polls the job in {sidecar} again"


def how_to_wait(job_id: str = "<its jobId>") -> str:
    """Say how a user waits for a job that is not on record."""
    return f'PictoryJobSensor(job_id="{job_id}") waits for a job whose jobId you have.'


def job_keeps_running(job_id: str) -> str:
    """Say what becomes of a job after the task has stopped waiting for it."""
    return (
        f"Job {job_id} keeps running at Pictory, and its cost is committed. A retry of the GenerateImageOperator "
        "that submitted it adopts the job: always if it has a path, otherwise on Airflow 3.3 and later unless "
        "durable is off. Clearing that task adopts the job too if it has a path; without one it buys another "
        f'picture. PictoryJobSensor(job_id="{job_id}") waits for it.'
    )


def failed_after_submission(job_id: str, error: BaseException) -> str:
    """Say what failed after a job was submitted, if a retry would not find the job on record."""
    said = getattr(error, "message", str(error)).rstrip(".")
    return (
        f"Job {job_id} was submitted and is paid for, and then: {type(error).__name__}: {said}. The task is not "
        "retried: the job is not on record, so a retry or a clear would buy the picture again, or stop because "
        "its outcome is unknown. Before you clear the task, let it adopt the job: `airflow pictory adopt`. "
        f'PictoryJobSensor(job_id="{job_id}") waits for it.'
    )


def _plain(number: float | None) -> str:
    return "unknown" if number is None else f"{number:,.10g}"


def _made_at(image: GeneratedImage, otherwise: float) -> float:
    try:
        made = datetime.fromisoformat(image.created_date or "")
    except ValueError:
        return otherwise
    return (made if made.tzinfo else made.replace(tzinfo=UTC)).timestamp()
