# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The open questions, each as a function that returns an answer with its evidence."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from pictory_provider.api.models import JobState
from pictory_provider.media.mark import why_not
from pictory_provider.media.xmp import says_ai
from tests.live.buying import PRICE
from tests.live.scrubbing import LIMITS
from tests.samples import NAMES, load, shape_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.live.gathering import Facts
    from tests.live.probe import Exchange

SIMULATED = {"job-missing-": "missing", "submit-invalid-": "invalid", "job-failed-": "failed"}
"""By the prefix of samples' names: the simulator's name for the choice between them."""
DOCUMENTED = {
    "job": {
        "job_id",
        "success",
        "data",
        "data.status",
        "data.url",
        "data.width",
        "data.height",
        "data.aiCreditsUsed",
    },
    "row": {"transactionId", "type", "amount", "source", "description", "plan", "transactionDate"},
}


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a question; ``found`` is a text if the question is still open."""

    question: str
    found: Found | str


@dataclass(frozen=True, slots=True)
class Found:
    """An answer from the facts.

    :param evidence: names of replies in the facts.
    :param samples: names of replies, each with the prefix of the samples that it may match.
    """

    text: str
    evidence: tuple[str, ...] = ()
    samples: tuple[tuple[str, str], ...] = ()


QUESTIONS: list[tuple[str, Callable[[Facts], Found | str]]] = []


def question(title: str) -> Any:
    """Register the function that answers a question, in the order of the report. It returns a text if it cannot."""

    def register(function: Callable[[Facts], Found | str]) -> Callable[[Facts], Found | str]:
        QUESTIONS.append((title, function))
        return function

    return register


def answers(facts: Facts) -> list[Answer]:
    return [Answer(title, ask(facts)) for title, ask in QUESTIONS]


# Shapes ------------------------------------------------------------------------------------------------


def matching_samples(exchange: Exchange, prefix: str) -> list[str]:
    """Return the samples with this prefix and the status and shape of a reply."""
    return [
        name
        for name in NAMES
        if name.startswith(prefix)
        and load(name).status == exchange.status
        and shape_of(load(name).body) == shape_of(exchange.body)
    ]


def _shape(facts: Facts, name: str, prefix: str, *, never: str) -> Found | str:
    exchange = facts.replies.get(name)
    if exchange is None:
        return never
    if exchange.response is None:
        return f"No reply came: {facts.shown(exchange.problem)}"
    found = matching_samples(exchange, prefix)
    text = (
        f"{exchange.status}, in a shape that no sample has: the parser's tests and the simulator do not know it."
    )
    if found:
        text = f"{exchange.status}, in the shape of the sample `{found[0]}`"
        choice = found[0].removeprefix(prefix).replace("/", "-") if prefix in SIMULATED else ""
        if choice:
            choice = choice.rpartition("-")[0] if SIMULATED[prefix] != "missing" else choice
            text += f", which the simulator calls `{SIMULATED[prefix]}={choice}`"
        text += "."
    return Found(text, (name,), samples=((name, prefix),))


@question("What does an unknown job look like (404)?")
def missing(facts: Facts) -> Found | str:
    return _shape(facts, "missing", "job-missing-", never="The request was not sent.")


@question("What does a refused request look like (400)?")
def invalid(facts: Facts) -> Found | str:
    exchange = facts.replies.get("invalid")
    if exchange and exchange.status == 200:
        return Found(
            "Pictory accepted a prompt of 2 characters, although its documentation requires 5. **It may have been "
            f"billed ({PRICE} AI credits)**; check the ledger.",
            ("invalid",),
        )
    return _shape(facts, "invalid", "submit-invalid-", never="The invalid request was not sent.")


@question("What does a wrong key look like (401)?")
def unauthorized(facts: Facts) -> Found | str:
    return _shape(facts, "unauthorized", "unauthorized", never="The request was not sent.")


@question("What does the quota look like?")
def quota(facts: Facts) -> Found | str:
    return _shape(facts, "quota", "quota", never="The request was not sent.")


@question("What does an accepted request look like?")
def submitted(facts: Facts) -> Found | str:
    return _shape(facts, "submitted", "submit-accepted", never="No request was sent in this run.")


@question("What does a job in progress look like?")
def in_progress(facts: Facts) -> Found | str:
    return _shape(facts, "in progress", "job-in-progress", never="No poll found it running.")


@question("What does a completed job look like?")
def completed(facts: Facts) -> Found | str:
    if facts.job is None or facts.job.state is not JobState.COMPLETED:
        status = facts.job.status if facts.job else None
        return f"The job was not seen completed; the last status was `{facts.shown(status)}`."
    prefix = "job-completed" if facts.job.url else "job-no-url"
    answer = _shape(facts, "job", prefix, never="")
    assert isinstance(answer, Found)
    more = sorted(set(_paths(facts.replies["job"].body)) - DOCUMENTED["job"])
    less = sorted(DOCUMENTED["job"] - set(_paths(facts.replies["job"].body)))
    text = (
        answer.text
        + _listed(" Fields beyond those documented: ", map(facts.shown, more))
        + _listed(" Documented, but missing: ", less)
    )
    return Found(text, answer.evidence, samples=answer.samples)


@question("What does a failed job look like, and is it charged?")
def failed(facts: Facts) -> Found | str:
    if facts.job is None or facts.job.state is not JobState.FAILED:
        return "The job did not fail. A prompt that Pictory's content policy refuses would show it, for 0.6 AI credits."
    answer = _shape(facts, "job", "job-failed-", never="")
    assert isinstance(answer, Found)
    charge = "No row in the ledger and no change of the quota was seen"
    if facts.new_rows or _spent(facts):
        charge = f"It was charged: {len(facts.new_rows)} new rows in the ledger, {_spent(facts):g} AI credits in the quota"
    text = f"{answer.text} {charge}, in {facts.polled_for:.0f} s. A refund may come later: see the ledger again."
    return Found(text, answer.evidence, samples=answer.samples)


# Times -------------------------------------------------------------------------------------------------


@question("How long after its submission is a job visible at `GET /v1/jobs/{jobid}`?")
def visible(facts: Facts) -> Found | str:
    after = facts.after.get("visible")
    if after is None:
        return "Not measured: the job was not submitted in this run, or was never seen."
    if "not yet visible" not in facts.replies:
        return Found(f"The first poll, {after:.1f} s after Pictory's reply, found it.", ("job",))
    return Found(
        f"After {after:.1f} s at most: it was unknown before, with {_schedule(facts)}.",
        ("not yet visible",),
        samples=(("not yet visible", "job-missing-"),),
    )


@question("How long does a job run?")
def duration(facts: Facts) -> Found | str:
    after = facts.after.get("ended")
    if after is None:
        return "Not measured: the job was not submitted in this run, or did not end."
    return Found(f"It had ended {after:.1f} s after Pictory's reply, with {_schedule(facts)}.")


@question("What does the ledger's row look like, and when does it appear?")
def ledger(facts: Facts) -> Found | str:
    if not facts.new_rows:
        return (
            f"No new row was seen, in {facts.polled_for:.0f} s; or an earlier run did not record the rows before."
        )
    row = facts.new_rows[0]
    when = "It was there"
    if "ledger" in facts.after:
        when = f"It appeared {facts.after['ledger']:.1f} s after Pictory's reply, with {_schedule(facts)}"
    names_job = "names the job" if facts.job_id and facts.job_id in str(row) else "does not name the job"
    text = (
        f"{when}. Type `{facts.shown(row.get('type'))}`, amount {facts.shown(row.get('amount'))}, source `{facts.shown(row.get('source'))}`; it {names_job}."
        + _listed(" Fields beyond those documented: ", map(facts.shown, sorted(set(row) - DOCUMENTED["row"])))
        + _listed(" Documented, but missing: ", sorted(DOCUMENTED["row"] - set(row)))
        + (
            f" {len(facts.new_rows)} rows were new: others spend from this account."
            if len(facts.new_rows) > 1
            else ""
        )
    )
    return Found(text, ("usage",), samples=(("usage", "usage"),))


@question("What does the purchase do to the quota, and when?")
def spent(facts: Facts) -> Found | str:
    if not _spent(facts):
        return (
            f"No change was seen, in {facts.polled_for:.0f} s; or an earlier run did not record the quota before."
        )
    when = (
        f" {facts.after['quota']:.1f} s after Pictory's reply, with {_schedule(facts)}"
        if "quota" in facts.after
        else ""
    )
    reported = facts.job.ai_credits_used if facts.job else None
    return Found(
        f"`aiCredits.used` rose by {_spent(facts):g}{when}. The listed price is {PRICE}, and the job says {reported}.",
        ("quota after",),
    )


# Lists -------------------------------------------------------------------------------------------------


@question("Are jobs of AI Studio in `GET /v1/jobs`?")
def listed(facts: Facts) -> Found | str:
    exchange = facts.replies.get("jobs")
    if exchange is None or exchange.status != 200:
        return "The list could not be read."
    if facts.listed_job is None:
        return Found("No: the job is not on the first page.", ("jobs",))
    return Found("Yes.", ("jobs",), samples=(("jobs", "jobs"),))


@question("Is the picture in `GET /v1/aistudio/images`, and does its item name the job?")
def image(facts: Facts) -> Found | str:
    exchange = facts.replies.get("images")
    if exchange is None or exchange.status != 200:
        return "The gallery could not be read."
    if facts.image is None:
        return Found("It is not on the first page, by its prompt or its URL.", ("images",))
    fields = sorted(name for name, value in facts.image.items() if facts.job_id and facts.job_id == value)
    text = f"It names the job, in `{'`, `'.join(fields)}`." if fields else "Its item does not name the job."
    return Found(f"It is. {text}", ("images",), samples=(("images", "images"),))


# The picture -------------------------------------------------------------------------------------------


@question("Who can read the picture's URL, and for how long?")
def url(facts: Facts) -> Found | str:
    if facts.job is None or not facts.job.url or facts.fetched is None:
        return "There was no URL."
    status = facts.fetched.status
    who = "Anybody: it was read without a key" if status == 200 else f"Without a key its host answered {status}"
    life = "It is not signed, and has no expiry"
    if urlsplit(facts.job.url).query:
        until = expiry(facts.job.url)
        seconds = (until - datetime.fromtimestamp(facts.fetched.at, UTC)).total_seconds() if until else 0
        life = "It has a query without a known expiry"
        if until:
            life = f"It is signed, and expires {timedelta(seconds=round(seconds))} after this request by its query"
    return Found(f"{who}. {life}. The end of this report has later requests.", ("picture",))


def expiry(url: str) -> datetime | None:
    """Return the expiry in a signed URL of CloudFront, S3, Google or Azure; ``None`` if there is none."""
    parameters = {name.lower(): values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    try:
        if "expires" in parameters:
            return datetime.fromtimestamp(float(parameters["expires"]), UTC)
        for maker in ("x-amz", "x-goog"):
            if f"{maker}-expires" in parameters:
                begun = datetime.strptime(parameters[f"{maker}-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
                return begun + timedelta(seconds=float(parameters[f"{maker}-expires"]))
        return datetime.fromisoformat(parameters["se"]) if "se" in parameters else None
    except (KeyError, ValueError, OverflowError):
        return None


@question("Is the file what the job said, and what does it say of its origin?")
def file(facts: Facts) -> Found | str:
    fetched, job = facts.fetched, facts.job
    if fetched is None or job is None:
        return "No picture was read."
    if fetched.picture is None:
        return Found(
            f"It is not a complete picture: {facts.shown(fetched.problem or fetched.status)}", ("picture",)
        )
    picture = fetched.picture
    surprises = picture.surprises(job)
    marks = f"Marks of its origin: {', '.join(picture.marks)}" if picture.marks else "It has no mark of its origin"
    unchanged = why_not(picture) or (says_ai(picture.digital_source_type) and "it says so already")
    if picture.digital_source_type:
        marks += f" (its source is {facts.shown(picture.digital_source_type)})"
    return Found(
        f"{picture.kind}, {picture.width}x{picture.height}, {fetched.size:,} bytes. "
        + ("It matches the job. " if not surprises else f"It differs from the job: {'; '.join(surprises)}. ")
        + f"{marks}. `mark_ai_generated` would {f'leave it unchanged: {unchanged}' if unchanged else 'mark it'}."
        + _listed(" Chunks: ", map(facts.shown, fetched.chunks)),
    )


# The way there -----------------------------------------------------------------------------------------


@question("Which user agents does the firewall let pass?")
def agents(facts: Facts) -> Found | str:
    if not facts.agents:
        return "The requests were not sent."
    passed = [who for who, _, exchange in facts.agents if exchange.status == 200]
    others = [
        f"{who} ({exchange.status or facts.shown(exchange.problem)})"
        for who, _, exchange in facts.agents
        if exchange.status != 200
    ]
    text = (_listed("Accepted: ", passed) + _listed(" Refused: ", others)).strip()
    text += (
        " Only the header differs: all but the triggerer's were sent by the worker's library, from this address."
    )
    is_blocked = "blocked" in facts.replies
    return Found(
        text, ("blocked",) if is_blocked else (), samples=(("blocked", "edge-block"),) if is_blocked else ()
    )


@question("Is an unknown header tolerated?")
def header(facts: Facts) -> Found | str:
    exchange, plain = facts.replies.get("unknown header"), facts.replies.get("quota")
    if exchange is None or plain is None or plain.status != 200:
        return "Unknown: without the header the quota could not be read either."
    if exchange.status == 200:
        return Found("Yes, on a `GET` of the quota.")
    return Found(f"No: {exchange.status or facts.shown(exchange.problem)}.", ("unknown header",))


@question("Do replies tell of rate limits?")
def limits(facts: Facts) -> Found | str:
    replies = [exchange for exchange in facts.exchanges if exchange.response]
    if not replies:
        return "There was no reply."
    seen: dict[str, list[str]] = {}
    for exchange in replies:
        for name, value in exchange.headers().items():
            if LIMITS.search(name):
                seen.setdefault(name, []).append(value)
    refused = [exchange for exchange in replies if exchange.status == 429]
    first, last = replies[0].at, replies[-1].answered_at
    text = f"{len(replies)} replies in {last - first:.0f} s. "
    if seen:
        text += "They carried " + ", ".join(
            f"`{name}` ({facts.shown(v[0])}{f' to {facts.shown(v[-1])}' if v[-1] != v[0] else ''})"
            for name, v in sorted(seen.items())
        )
    else:
        text += "None carried a header of that kind"
    text += f"; {len(refused)} were 429." if refused else "; none was 429, and none was provoked."
    if refused:
        return Found(text, ("rate limited",), samples=(("rate limited", "rate-limited"),))
    return Found(text)


OPEN = (
    (
        "The status of a request for which credits are short",
        "an account with less than a picture's price left, and one request: free if it is refused",
    ),
    (
        "The shape of a 429",
        "a 429 that occurs by chance, since the tool does not provoke one; the report shows it",
    ),
    (
        "Whether failed jobs are charged, and their error codes",
        "a prompt that the content policy refuses, and the ledger a day later: 0.6 AI credits",
    ),
    (
        "A webhook's body, headers and retries, and whether a failure calls it",
        "a receiver that the internet can reach, and one picture with `webhook`, one of them failing: 1.2 AI credits",
    ),
    (
        "Whether `flux-schnell` heeds `referenceImageUrl`",
        "one picture of a reference image with a prompt that does not describe it: 0.6 AI credits",
    ),
    (
        "Whether `nanobanana` heeds 16:9",
        "one picture, and its width and height: 4 AI credits",
    ),
    (
        "How long jobs and pictures are kept",
        "`python -m tests.live again` after days and weeks: free",
    ),
)
"""Questions that one picture cannot answer, and what would answer them."""


def _paths(value: Any, above: str = "") -> list[str]:
    found = []
    if isinstance(value, dict):
        for name, inner in value.items():
            found += [f"{above}{name}", *_paths(inner, f"{above}{name}.")]
    return found


def _listed(head: str, names: Iterable[str]) -> str:
    text = ", ".join(names)
    return f"{head}{text}." if text else ""


def _schedule(facts: Facts) -> str:
    return f"polls every {facts.every:g} s"


def _spent(facts: Facts) -> float:
    if facts.used_after is None or facts.used_before is None:
        return 0.0
    return round(facts.used_after - facts.used_before, 2)
