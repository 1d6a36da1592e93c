# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Write what was learnt: a report for people, and samples for the tests. Everything secret is replaced in both."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tests.live.buying import MODEL, PRICE, PRIVATE
from tests.live.questions import OPEN, Found, alike, answers
from tests.live.scrubbing import Scrubber

if TYPE_CHECKING:
    from pathlib import Path

    from tests.live.gathering import Facts
    from tests.live.probe import Exchange

REPORT = "report.md"
MOST = 600
"""How many characters of a page are shown."""
LISTS = {"images": "image", "jobs": "listed_job"}
"""Which fact is our own item of a list: the others are nobody's business."""


def write(facts: Facts, folder: Path) -> Path:
    """Write report and samples, and return where the report lies."""
    scrubber = scrubber_for(facts)
    for sample, text in samples(facts, scrubber).items():
        path = folder / "samples" / f"{sample}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    path = folder / REPORT
    path.write_text(render(facts, scrubber))
    return path


def scrubber_for(facts: Facts) -> Scrubber:
    """Return a scrubber that has seen all replies."""
    public = tuple(text for text in (facts.prompt,) if text)
    scrubber = Scrubber(facts.settings.api_key, facts.job_id, public)
    for name, exchange in facts.replies.items():
        scrubber.learn(_ours(facts, name, exchange))
    if facts.job and facts.job.url:
        scrubber.url(facts.job.url)
    facts.shown = lambda said: scrubber.text(str(said))
    return scrubber


def render(facts: Facts, scrubber: Scrubber) -> str:
    """Return the report."""
    given = answers(facts)
    known = [answer for answer in given if isinstance(answer.found, Found)]
    day = datetime.fromtimestamp(facts.at, UTC).strftime("%Y-%m-%d")
    bought = f"One `{MODEL}` picture was bought, for {PRICE} AI credits."
    if "submitted" not in facts.replies:
        bought = (
            "A picture that had been bought before was looked at." if facts.job_id else "No picture was bought."
        )
    lines = [
        f"# What Pictory answered on {day}",
        "",
        bought,
        f"{len(known)} of {len(given)} questions have an answer.",
        "Keys, ids, addresses, hosts, queries and names are replaced by inventions; read it before you show it around.",
        "",
    ]
    if facts.stopped:
        what = facts.stopped if facts.replies.get("submitted") else f"Nothing was bought: {facts.stopped}"
        lines += ["## It stopped", "", *scrubber.text(what).splitlines(), ""]
    lines += ["## Answers", ""]
    for answer in known:
        assert isinstance(answer.found, Found)
        lines += [f"### {answer.question}", "", answer.found.text, ""]
        for name in answer.found.evidence:
            lines += [*_evidence(facts, name, scrubber), ""]
    if facts.agents:
        lines += ["### The user agents, one by one", "", "| asked as | user agent | answer |", "|---|---|---|"]
        lines += [
            f"| {who} | `{agent}` | {exchange.status or scrubber.text(exchange.problem)} |"
            for who, agent, exchange in facts.agents
        ]
        lines.append("")
    lines += ["## Still open", "", "| what | what would settle it |", "|---|---|"]
    lines += [f"| {answer.question} | {answer.found} |" for answer in given if isinstance(answer.found, str)]
    lines += [f"| {what} | {how} |" for what, how in OPEN]
    lines += ["", *_how_to_bring_home(facts), ""]
    lines += ["## The picture's URL, asked again", ""]
    lines += [f"`python -m tests.live again {'FOLDER'}` adds a line; it is free.", "", "| when | after | answer |"]
    lines += ["|---|---|---|"]
    if facts.fetched:
        at = datetime.fromtimestamp(facts.fetched.at, UTC)
        lines += [
            f"| {at:%Y-%m-%d %H:%M:%S} UTC | 0:00:00 | {facts.fetched.status}, {facts.fetched.size:,} bytes |"
        ]
    return scrubber.last_look("\n".join(lines) + "\n")


def samples(facts: Facts, scrubber: Scrubber) -> dict[str, str]:
    """Return the samples that were observed, by ``case/status``, in the layout of ``tests/samples``."""
    day = datetime.fromtimestamp(facts.at, UTC).strftime("%Y-%m-%d")
    found = {}
    for answer in answers(facts):
        for name, prefix in answer.found.samples if isinstance(answer.found, Found) else ():
            exchange = facts.replies[name]
            known = alike(exchange, prefix)
            sample = known[0] if known else f"{prefix.rstrip('-')}-observed/{exchange.status}"
            body = _shown_body(scrubber, _ours(facts, name, exchange))
            content = {"mark": "observed", "source": f"make live, {day}", "body": body}
            found[sample] = scrubber.last_look(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return found


def _ours(facts: Facts, name: str, exchange: Exchange) -> Any:
    """Return a reply's body, of a list only what is ours."""
    body = exchange.body
    if name in LISTS and isinstance(body, dict) and "items" in body:
        own = getattr(facts, LISTS[name])
        key = {"nextPageKey": "ZnJvbToxMDA=" if body["nextPageKey"] else None} if "nextPageKey" in body else {}
        return {"items": [own] if own else [], **key}
    if name == "usage" and isinstance(body, list):
        return facts.new_rows[:1]
    return body


def _shown_body(scrubber: Scrubber, body: Any) -> Any:
    if isinstance(body, str):  # a page: its words, without what is made for a browser
        return scrubber.text(re.sub(r"(?s)<(script|style).*?</\1>", "", body)[: MOST * 4])[:MOST]
    return scrubber.value(body)


def _evidence(facts: Facts, name: str, scrubber: Scrubber) -> list[str]:
    if name == "picture":
        assert facts.fetched
        assert facts.job
        assert facts.job.url
        asked, status, headers, body = f"GET {facts.job.url}", facts.fetched.status, facts.fetched.headers, None
    else:
        exchange = facts.replies[name]
        request = exchange.request
        query = "&".join(f"{key}={value}" for key, value in request.query.items())
        asked = f"{request.method} {request.path}{f'?{query}' if query else ''}"
        status, headers, body = exchange.status, exchange.headers(), _ours(facts, name, exchange)
        if request.json is not None:
            asked += f" {json.dumps(request.json)}"
    shown, others = scrubber.headers(headers)
    lines = ["```text", scrubber.text(asked), "", str(status), *(f"{n}: {v}" for n, v in sorted(shown.items()))]
    lines += [f"(also {', '.join(others)})"] if others else []
    if body is not None:
        text = _shown_body(scrubber, body)
        lines += ["", text if isinstance(text, str) else json.dumps(text, indent=2, ensure_ascii=False)]
    return [*lines, "```"]


def _how_to_bring_home(facts: Facts) -> list[str]:
    return [
        "## Bring the samples home",
        "",
        "`samples/` has the layout of `tests/samples/`; each is marked `observed`.",
        "Read them, copy them over with `cp -r FOLDER/samples/* tests/samples/`, and run",
        "`pytest tests/pure/test_responses.py tests/tools/test_simulator.py`.",
        "One that lies there already keeps its name, and is now known for sure.",
        "One in a shape of its own ends in `-observed`: give it a name, add it to the table at the top of",
        "`tests/pure/test_responses.py`, and teach the simulator its shape (`pictory_provider/simulator/shapes.py`).",
        f"`{PRIVATE}` and the picture stay here: they are not for others.",
    ]
