# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What to tell whoever has to decide about a job that is, or may be, paid for."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pictory_provider.api.errors import SubmitOutcomeUnknown
from pictory_provider.jobs.submission import KEY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pictory_provider.api.models import GeneratedImage, ImageRequest

PAID_AND_LOST = (
    "A job was submitted by this try and is paid for, and neither the record nor the XCom jobId of this task can "
    "be read now, so it is not known which. The task is not retried, because a retry could buy the picture again. "
    "The log of this task names the jobId: PictoryJobSensor(job_id=...) waits for it."
)
"""What to say where Airflow itself has ended a deferral, and nothing tells the jobId."""
CLOCK_SLACK = 300.0
"""Seconds by which Pictory's clock may differ from the worker's."""
MATCHES_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What could be found out about a submission whose outcome is unknown.

    :param since: epoch seconds of the intent; ``None`` where it is not known.
    :param credits_before: AI credits used right before the request; ``None`` where Pictory did not say.
    :param credits_now: AI credits used now; the same.
    :param price: AI credits that this picture costs, as listed; ``None`` where that is not known.
    :param matches: pictures of this request on the first page of the gallery; ``None`` where it could not
        be read.
    """

    since: float | None
    credits_before: float | None
    credits_now: float | None
    price: float | None = None
    matches: tuple[GeneratedImage, ...] | None

    def text(self) -> str:
        """Return the evidence in plain words."""
        return f"{self._credits()} {self.gallery()}"

    def _credits(self) -> str:
        if self.credits_before is None or self.credits_now is None:
            before, now = (_plain(value) for value in (self.credits_before, self.credits_now))
            return f"AI credits used, by all of the account: {before} before the request, {now} now."
        used = f"{_plain(self.credits_before)} before, {_plain(self.credits_now)} now"
        more = round(self.credits_now - self.credits_before, 2)
        costs = "" if self.price is None else f"; this picture costs {_plain(self.price)}"
        if more == 0:
            return f"No AI credits were used since, by all of the account ({used}){costs}."
        if more == self.price:
            costs = ": exactly the price of this picture"
        return f"The account has used {_plain(more)} AI credits more ({used}){costs}."

    def gallery(self) -> str:
        """Return what the gallery shows, in plain words."""
        if self.matches is None:
            return "The gallery could not be searched."
        when = (
            "" if self.since is None else f" since {datetime.fromtimestamp(self.since, UTC):%Y-%m-%d %H:%M:%S} UTC"
        )
        if not self.matches:
            return (
                f"The gallery shows no picture of this request{when}. One that is still being drawn is not there "
                "yet."
            )
        made = ", ".join(str(match.created_date) for match in self.matches[:MATCHES_SHOWN])
        return f"Pictures of this request in the gallery{when}: {len(self.matches)}, made {made}."

    def how_to_save(self) -> str:
        """Say how to get at a picture that the gallery shows; nothing where it shows none."""
        if not self.matches:
            return ""
        urls = [match.url or "" for match in self.matches[:MATCHES_SHOWN]]
        if any("?" in url for url in urls):  # which is a key to the picture
            urls = ["<its url in PictoryHook().list_images()>"]
        ways = "\n".join(f'    DownloadImageOperator(url="{url}", path=...)' for url in urls)
        return f"To take a picture of the gallery for this one, which buys nothing:\n{ways}"


def matching(
    images: Iterable[GeneratedImage], request: ImageRequest, since: float | None
) -> tuple[GeneratedImage, ...]:
    """Return the pictures of the gallery that may have come of a request.

    The gallery carries no jobId, so this is evidence and no proof.

    :param since: epoch seconds; pictures made more than :data:`CLOCK_SLACK` earlier are of another request.
    """
    return tuple(
        image
        for image in images
        if image.prompt == request.prompt
        and image.model in (None, request.model)
        and (since is None or is_since(image, since))
    )


def is_since(image: GeneratedImage, since: float) -> bool:
    """Whether a picture of the gallery may have been made since a moment in epoch seconds."""
    return _made_at(image, since) >= since - CLOCK_SLACK


def report(unknown: SubmitOutcomeUnknown, evidence: Evidence, adoption: str) -> SubmitOutcomeUnknown:
    """Return an unknown outcome with its evidence and its ways on.

    :param adoption: how to adopt a job whose jobId was found (:func:`by_hand` or :func:`by_sensor`).
    """
    lines = [evidence.text(), "To buy the picture again, clear the task.", adoption, evidence.how_to_save()]
    return SubmitOutcomeUnknown.because(
        unknown.why,
        evidence=evidence,
        what_now="\n".join(line for line in lines if line),
    )


def by_hand(
    *,
    dag_id: str,
    run_id: str,
    task_id: str,
    map_index: int | None = None,
    loop_index: int | None = None,
    conn_id: str | None = None,
    has_store: bool = True,
    sidecar: str | None = None,
) -> str:
    """Say how a user makes a task with a record adopt a job.

    :param loop_index: the iteration of a task in a loop.
    :param conn_id: of its connection, where that is not the default one.
    :param has_store: whether the task state store has its record.
    :param sidecar: the path of its record beside its picture, where there is one.
    """
    more = {"--map-index": map_index, "--loop-index": loop_index, "--conn-id": conn_id}
    words = [dag_id, run_id, task_id, "JOBID"]
    for option, value in more.items():
        words += [] if value is None else [option, str(value)]
    command = " ".join(shlex.quote(word) for word in words)
    lines = [
        "To adopt a job whose jobId you have found, and clear the task with that:",
        f"    python -m pictory_provider adopt {command} --clear",
    ]
    if sidecar is not None:
        lines.append(
            f'or put "job_id": "<its jobId>" into {sidecar}, in place of null, and clear the task '
            "(if its path stays the same)."
        )
    elif has_store:
        lines.append(
            f'or put {{"jobId": "<its jobId>"}} under {KEY} into its Task State Store, on the task\'s page, and '
            "clear the task (from Airflow 3.4 on with *Keep task state and resume*)."
        )
    return "\n".join(lines)


def by_sensor(job_id: str = "<its jobId>") -> str:
    """Say how a user gets at a job without a record."""
    return f'PictoryJobSensor(job_id="{job_id}") waits for a job whose jobId you have.'


def runs_on(job_id: str) -> str:
    """Say what becomes of a job whose wait was ended."""
    return (
        f"Job {job_id} runs on at Pictory, and what it costs is committed. A retry of the GenerateImageOperator "
        "that submitted it adopts it: with a path always, else on Airflow 3.3 and later unless durable is off. "
        "Clearing that task adopts it too if it has a path, and buys another if not. "
        f'PictoryJobSensor(job_id="{job_id}") waits for it.'
    )


def paid_and_then(job_id: str, error: BaseException) -> str:
    """Say what failed after a job was submitted, where a retry would not find it on record."""
    said = getattr(error, "message", str(error)).rstrip(".")
    return (
        f"Job {job_id} was submitted and is paid for, and then: {type(error).__name__}: {said}. "
        "The task is not retried: the job is not on record, so a retry would buy the picture again, or ask what "
        f'became of it. PictoryJobSensor(job_id="{job_id}") waits for it.'
    )


def _plain(number: float | None) -> str:
    return "unknown" if number is None else f"{number:,.10g}"


def _made_at(image: GeneratedImage, otherwise: float) -> float:
    try:
        made = datetime.fromisoformat(image.created_date or "")
    except ValueError:
        return otherwise
    return (made if made.tzinfo else made.replace(tzinfo=UTC)).timestamp()
