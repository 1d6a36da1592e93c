# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What was open, and what the facts say of it: each question a function that returns an answer with its evidence."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from pictory_provider.api.models import JobState
from pictory_provider.images.mark import why_not
from tests.live.buying import PRICE
from tests.live.scrubbing import LIMITS
from tests.samples import NAMES, load, shape_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.live.gathering import Facts
    from tests.live.probe import Exchange

SIMULATED = {"job-missing-": "missing", "submit-invalid-": "invalid", "job-failed-": "failed"}
"""How the simulator calls the choice between the samples whose names begin so."""
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
    """What is known now of a question; ``found`` is a text where it is not enough."""

    question: str
    found: Found | str


@dataclass(frozen=True, slots=True)
class Found:
    """What the facts say.

    :param evidence: names of replies in the facts.
    :param samples: names of replies, each with how the names of the samples begin that it may be one of.
    """

    text: str
    evidence: tuple[str, ...] = ()
    samples: tuple[tuple[str, str], ...] = ()


QUESTIONS: list[tuple[str, Callable[[Facts], Found | str]]] = []


def question(title: str) -> Any:
    """Register what answers a question, in the order of the report: a text where nothing was learnt."""

    def register(function: Callable[[Facts], Found | str]) -> Callable[[Facts], Found | str]:
        QUESTIONS.append((title, function))
        return function

    return register


def answers(facts: Facts) -> list[Answer]:
    return [Answer(title, ask(facts)) for title, ask in QUESTIONS]


# Shapes ------------------------------------------------------------------------------------------------


def alike(exchange: Exchange, prefix: str) -> list[str]:
    """Return the samples whose names begin so and that have a reply's status and shape."""
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
    found = alike(exchange, prefix)
    text = (
        f"{exchange.status}, in a shape that no sample has: it is new to the parser's tests and to the simulator."
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
    return _shape(facts, "missing", "job-missing-", never="It was not asked.")


@question("What does a refused request look like (400)?")
def invalid(facts: Facts) -> Found | str:
    exchange = facts.replies.get("invalid")
    if exchange and exchange.status == 200:
        return Found(
            "Pictory took a prompt of 2 characters, where its documentation asks for 5. **It may have been billed "
            f"({PRICE} AI credits)**; the ledger tells.",
            ("invalid",),
        )
    return _shape(facts, "invalid", "submit-invalid-", never="The invalid request was left out.")


@question("What does a wrong key look like (401)?")
def unauthorized(facts: Facts) -> Found | str:
    return _shape(facts, "unauthorized", "unauthorized", never="It was not asked.")


@question("What does the quota look like?")
def quota(facts: Facts) -> Found | str:
    return _shape(facts, "quota", "quota", never="It was not asked.")


@question("What does an accepted request look like?")
def submitted(facts: Facts) -> Found | str:
    return _shape(facts, "submitted", "submit-accepted", never="No request was sent in this run.")


@question("What does a job in progress look like?")
def in_progress(facts: Facts) -> Found | str:
    return _shape(facts, "in progress", "job-in-progress", never="No look found it running.")


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
        + _told(" Fields beyond those documented: ", map(facts.shown, more))
        + _told(" Documented, and not there: ", less)
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
    text = f"{answer.text} {charge}, in {facts.looked_for:.0f} s. A refund may come later: see the ledger again."
    return Found(text, answer.evidence, samples=answer.samples)


# Times -------------------------------------------------------------------------------------------------


@question("How long after its submission is a job visible at `GET /v1/jobs/{jobid}`?")
def visible(facts: Facts) -> Found | str:
    after = facts.after.get("visible")
    if after is None:
        return "Not measured: the job was not submitted in this run, or was never seen."
    if "not yet visible" not in facts.replies:
        return Found(f"The first look, {after:.1f} s after Pictory's reply, found it.", ("job",))
    return Found(
        f"After {after:.1f} s at most: it was unknown before, in {_looks(facts)}.",
        ("not yet visible",),
        samples=(("not yet visible", "job-missing-"),),
    )


@question("How long does a job run?")
def duration(facts: Facts) -> Found | str:
    after = facts.after.get("ended")
    if after is None:
        return "Not measured: the job was not submitted in this run, or did not end."
    return Found(f"It had ended {after:.1f} s after Pictory's reply, in {_looks(facts)}.")


@question("What does the ledger's row look like, and when does it appear?")
def ledger(facts: Facts) -> Found | str:
    if not facts.new_rows:
        return f"No new row was seen, in {facts.looked_for:.0f} s; or an earlier run did not note the rows before."
    row = facts.new_rows[0]
    when = "It was there"
    if "ledger" in facts.after:
        when = f"It appeared {facts.after['ledger']:.1f} s after Pictory's reply, in {_looks(facts)}"
    names_job = "names the job" if facts.job_id and facts.job_id in str(row) else "does not name the job"
    text = (
        f"{when}. Type `{facts.shown(row.get('type'))}`, amount {facts.shown(row.get('amount'))}, source `{facts.shown(row.get('source'))}`; it {names_job}."
        + _told(" Fields beyond those documented: ", map(facts.shown, sorted(set(row) - DOCUMENTED["row"])))
        + _told(" Documented, and not there: ", sorted(DOCUMENTED["row"] - set(row)))
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
        return f"No change was seen, in {facts.looked_for:.0f} s; or an earlier run did not note the quota before."
    when = (
        f" {facts.after['quota']:.1f} s after Pictory's reply, in {_looks(facts)}"
        if "quota" in facts.after
        else ""
    )
    said = facts.job.ai_credits_used if facts.job else None
    return Found(
        f"`aiCredits.used` rose by {_spent(facts):g}{when}. The listed price is {PRICE}, and the job says {said}.",
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
        return "No URL came."
    status = facts.fetched.status
    who = "Anybody: it was read without a key" if status == 200 else f"Without a key its host answered {status}"
    life = "It is not signed, and says nothing of its life"
    if urlsplit(facts.job.url).query:
        until = expiry(facts.job.url)
        seconds = (until - datetime.fromtimestamp(facts.fetched.at, UTC)).total_seconds() if until else 0
        life = "It has a query, in which no expiry was recognised"
        if until:
            life = f"It is signed, and says that it expires {timedelta(seconds=round(seconds))} after this look"
    return Found(f"{who}. {life}. The end of this report tells of later looks.", ("picture",))


def expiry(url: str) -> datetime | None:
    """Return when a signed URL says that it expires: as CloudFront writes it, S3, Google, or Azure."""
    asked = {name.lower(): values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    try:
        if "expires" in asked:
            return datetime.fromtimestamp(float(asked["expires"]), UTC)
        for maker in ("x-amz", "x-goog"):
            if f"{maker}-expires" in asked:
                begun = datetime.strptime(asked[f"{maker}-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
                return begun + timedelta(seconds=float(asked[f"{maker}-expires"]))
        return datetime.fromisoformat(asked["se"]) if "se" in asked else None
    except (KeyError, ValueError, OverflowError):
        return None


@question("Is the file what the job said, and what does it say of its origin?")
def file(facts: Facts) -> Found | str:
    fetched, job = facts.fetched, facts.job
    if fetched is None or job is None:
        return "No picture was read."
    if fetched.picture is None:
        return Found(f"It is no whole picture: {facts.shown(fetched.problem or fetched.status)}", ("picture",))
    picture = fetched.picture
    surprises = picture.surprises(job)
    marks = (
        f"It says of its origin: {', '.join(picture.marks)}" if picture.marks else "It says nothing of its origin"
    )
    kept = why_not(picture)
    return Found(
        f"{picture.kind}, {picture.width}x{picture.height}, {fetched.size:,} bytes. "
        + (
            "It is what the job said. "
            if not surprises
            else f"Not quite what the job said: {'; '.join(surprises)}. "
        )
        + f"{marks}. `mark_ai_generated` would {f'leave it as it is: {kept}' if kept else 'mark it'}."
        + _told(" Chunks: ", map(facts.shown, fetched.chunks)),
    )


# The way there -----------------------------------------------------------------------------------------


@question("Which user agents does the firewall let pass?")
def agents(facts: Facts) -> Found | str:
    if not facts.agents:
        return "It was not asked."
    passed = [who for who, _, exchange in facts.agents if exchange.status == 200]
    others = [
        f"{who} ({exchange.status or facts.shown(exchange.problem)})"
        for who, _, exchange in facts.agents
        if exchange.status != 200
    ]
    text = (_told("Let pass: ", passed) + _told(" Not let pass: ", others)).strip()
    text += (
        " Only the header differs: all but the triggerer's were sent by the worker's library, from this address."
    )
    is_blocked = "blocked" in facts.replies
    return Found(
        text, ("blocked",) if is_blocked else (), samples=(("blocked", "edge-block"),) if is_blocked else ()
    )


@question("Is an unknown header tolerated?")
def header(facts: Facts) -> Found | str:
    exchange, plain = facts.replies.get("strange header"), facts.replies.get("quota")
    if exchange is None or plain is None or plain.status != 200:
        return "Not told: without the header the quota was not read either."
    if exchange.status == 200:
        return Found("Yes, on a `GET` of the quota.")
    return Found(f"No: {exchange.status or facts.shown(exchange.problem)}.", ("strange header",))


@question("Do replies tell of rate limits?")
def limits(facts: Facts) -> Found | str:
    came = [exchange for exchange in facts.exchanges if exchange.response]
    if not came:
        return "No reply came."
    seen: dict[str, list[str]] = {}
    for exchange in came:
        for name, value in exchange.headers().items():
            if LIMITS.search(name):
                seen.setdefault(name, []).append(value)
    refused = [exchange for exchange in came if exchange.status == 429]
    first, last = came[0].at, came[-1].answered_at
    text = f"{len(came)} replies in {last - first:.0f} s. "
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
    ("The shape of a 429", "waiting until one comes by itself: no flood is sent. The report shows any that came"),
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
        "one picture of a reference image with a prompt that does not describe it, and a look at it: 0.6 AI credits",
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
"""What one picture cannot settle, and what would."""


def _paths(value: Any, above: str = "") -> list[str]:
    found = []
    if isinstance(value, dict):
        for name, inner in value.items():
            found += [f"{above}{name}", *_paths(inner, f"{above}{name}.")]
    return found


def _told(head: str, names: Iterable[str]) -> str:
    told = ", ".join(names)
    return f"{head}{told}." if told else ""


def _looks(facts: Facts) -> str:
    return f"looks every {facts.every:g} s"


def _spent(facts: Facts) -> float:
    if facts.used_after is None or facts.used_before is None:
        return 0.0
    return round(facts.used_after - facts.used_before, 2)
