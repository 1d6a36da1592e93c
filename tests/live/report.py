# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Write the results: a report for people, and samples for the tests. Secrets are replaced in both."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tests.live.buying import MODEL, PRICE, PRIVATE
from tests.live.questions import OPEN, Found, answers, matching_samples
from tests.live.scrubbing import Scrubber

if TYPE_CHECKING:
    from pathlib import Path

    from tests.live.gathering import Facts
    from tests.live.probe import Exchange

REPORT = "report.md"
MOST = 600
"""Characters of a page that are shown."""
LISTS = {"images": "image", "jobs": "listed_job"}
"""The fact with our own item of a list; the other items are private."""


def write(facts: Facts, folder: Path) -> Path:
    """Write report and samples, and return the path of the report."""
    scrubber = scrubber_for(facts)
    for sample, text in samples(facts, scrubber).items():
        path = folder / "samples" / f"{sample}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    path = folder / REPORT
    path.write_text(render(facts, scrubber))
    return path


def scrubber_for(facts: Facts) -> Scrubber:
    """Return a scrubber that knows the secrets of all replies."""
    public = tuple(text for text in (facts.prompt,) if text)
    scrubber = Scrubber(facts.settings.api_key, facts.job_id, public)
    for name, exchange in facts.replies.items():
        scrubber.learn(_ours(facts, name, exchange))
    if facts.job and facts.job.url:
        scrubber.url(facts.job.url)
    facts.shown = lambda value: scrubber.text(str(value))
    return scrubber


def render(facts: Facts, scrubber: Scrubber) -> str:
    """Return the report."""
    given = answers(facts)
    known = [answer for answer in given if isinstance(answer.found, Found)]
    day = datetime.fromtimestamp(facts.at, UTC).strftime("%Y-%m-%d")
    bought = f"One `{MODEL}` picture was bought, for {PRICE} AI credits."
    if "submitted" not in facts.replies:
        bought = "The picture had been bought before this run." if facts.job_id else "No picture was bought."
    lines = [
        f"# What Pictory answered on {day}",
        "",
        bought,
        f"{len(known)} of {len(given)} questions have an answer.",
        "Keys, ids, addresses, hosts, queries and names are replaced; read the report before you publish it.",
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
        lines += ["### The user agents, one by one", "", "| client | user agent | answer |", "|---|---|---|"]
        lines += [
            f"| {who} | `{agent}` | {exchange.status or scrubber.text(exchange.problem)} |"
            for who, agent, exchange in facts.agents
        ]
        lines.append("")
    lines += ["## Still open", "", "| question | what would answer it |", "|---|---|"]
    lines += [f"| {answer.question} | {answer.found} |" for answer in given if isinstance(answer.found, str)]
    lines += [f"| {what} | {how} |" for what, how in OPEN]
    lines += ["", *_how_to_add_samples(), ""]
    lines += ["## The picture's URL, requested again", ""]
    lines += [f"`python -m tests.live again {'FOLDER'}` adds a line; it is free.", "", "| when | after | answer |"]
    lines += ["|---|---|---|"]
    if facts.fetched:
        at = datetime.fromtimestamp(facts.fetched.at, UTC)
        lines += [
            f"| {at:%Y-%m-%d %H:%M:%S} UTC | 0:00:00 | {facts.fetched.status}, {facts.fetched.size:,} bytes |"
        ]
    return scrubber.final_check("\n".join(lines) + "\n")


def samples(facts: Facts, scrubber: Scrubber) -> dict[str, str]:
    """Return the observed samples by ``case/status``, in the layout of ``tests/samples``."""
    day = datetime.fromtimestamp(facts.at, UTC).strftime("%Y-%m-%d")
    found = {}
    for answer in answers(facts):
        for name, prefix in answer.found.samples if isinstance(answer.found, Found) else ():
            exchange = facts.replies[name]
            known = matching_samples(exchange, prefix)
            sample = known[0] if known else f"{prefix.rstrip('-')}-observed/{exchange.status}"
            body = _shown_body(scrubber, _ours(facts, name, exchange))
            content = {"mark": "observed", "source": f"make live, {day}", "body": body}
            found[sample] = scrubber.final_check(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return found


def _ours(facts: Facts, name: str, exchange: Exchange) -> Any:
    """Return a reply's body; of a list only our own items."""
    body = exchange.body
    if name in LISTS and isinstance(body, dict) and "items" in body:
        own = getattr(facts, LISTS[name])
        key = {"nextPageKey": "ZnJvbToxMDA=" if body["nextPageKey"] else None} if "nextPageKey" in body else {}
        return {"items": [own] if own else [], **key}
    if name == "usage" and isinstance(body, list):
        return facts.new_rows[:1]
    return body


def _shown_body(scrubber: Scrubber, body: Any) -> Any:
    if isinstance(body, str):  # an HTML page, without scripts and styles
        return scrubber.text(re.sub(r"(?s)<(script|style).*?</\1>", "", body)[: MOST * 4])[:MOST]
    return scrubber.value(body)


def _evidence(facts: Facts, name: str, scrubber: Scrubber) -> list[str]:
    if name == "picture":
        assert facts.fetched
        assert facts.job
        assert facts.job.url
        line, status, headers, body = f"GET {facts.job.url}", facts.fetched.status, facts.fetched.headers, None
    else:
        exchange = facts.replies[name]
        request = exchange.request
        query = "&".join(f"{key}={value}" for key, value in request.query.items())
        line = f"{request.method} {request.path}{f'?{query}' if query else ''}"
        status, headers, body = exchange.status, exchange.headers(), _ours(facts, name, exchange)
        if request.json is not None:
            line += f" {json.dumps(request.json)}"
    shown, others = scrubber.headers(headers)
    lines = ["```text", scrubber.text(line), "", str(status), *(f"{n}: {v}" for n, v in sorted(shown.items()))]
    lines += [f"(also {', '.join(others)})"] if others else []
    if body is not None:
        text = _shown_body(scrubber, body)
        lines += ["", text if isinstance(text, str) else json.dumps(text, indent=2, ensure_ascii=False)]
    return [*lines, "```"]


def _how_to_add_samples() -> list[str]:
    return [
        "## Add the samples to the tests",
        "",
        "`samples/` has the layout of `tests/samples/`; each is marked `observed`.",
        "Read them, copy them over with `cp -r FOLDER/samples/* tests/samples/`, and run",
        "`pytest tests/pure/api/test_responses.py tests/tools/test_simulator.py`.",
        "A sample that exists already keeps its name, and is now marked as observed.",
        "The name of a new shape ends in `-observed`: rename it, add it to the table at the top of",
        "`tests/pure/api/test_responses.py`, and add the shape to the simulator (`pictory_provider/simulator/shapes.py`).",
        f"`{PRIVATE}` and the picture are private: do not copy them.",
    ]
