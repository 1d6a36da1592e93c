# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Collect the facts: free requests first, then the purchase, then the states of its job."""

from __future__ import annotations

import json
import random
import string
import time
import traceback
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from aiohttp.http import SERVER_SOFTWARE
from requests.utils import default_user_agent

from pictory_provider.api import endpoints, responses
from pictory_provider.api.checks import without_query
from pictory_provider.api.endpoints import Request
from pictory_provider.api.errors import JobNotFound, PictoryError, Unavailable
from pictory_provider.api.models import JobState
from tests.live.buying import PRICE, CannotBuy, Private, buy, check_not_in_doubt
from tests.live.probe import Exchange, Fetched, Probe, fetch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pictory_provider.api.connection import ConnectionSettings
    from pictory_provider.api.models import Job

BROWSER = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"
WRONG_KEY = "pictai_this_key_is_wrong_on_purpose"
UNKNOWN_HEADER = {"X-Request-Source": "airflow-provider-pictory"}
INVALID_BODY = {"prompt": "ab", "model": "flux-schnell"}
"""Two characters instead of at least five; with the cheapest model, in case Pictory accepts it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The user's options.

    :param with_invalid: whether to send the request that Pictory should refuse.
    :param job_id: continue with this job, and buy nothing.
    :param every: seconds between two polls.
    :param patience: seconds to wait for an unknown job, and for ledger and quota after the job has ended.
    :param most: seconds to wait for the job.
    """

    settings: ConnectionSettings
    folder: Path
    with_invalid: bool = True
    job_id: str | None = None
    every: float = 2.0
    patience: float = 120.0
    most: float = 900.0


@dataclass(slots=True)
class Facts:
    """All results.

    :param replies: the exchanges that answer a question, by name.
    :param agents: for each request of the quota: a description of the client, its user agent, and the exchange.
    :param after: seconds from the reply to the purchase until each event, if the purchase was in this run.
    :param stopped: why nothing was bought, or why the run ended early.
    """

    at: float
    settings: ConnectionSettings
    exchanges: list[Exchange]
    replies: dict[str, Exchange] = field(default_factory=dict)
    agents: list[tuple[str, str, Exchange]] = field(default_factory=list)
    after: dict[str, float] = field(default_factory=dict)
    every: float = 0.0
    polled_for: float = 0.0
    job_id: str | None = None
    prompt: str | None = None
    job: Job | None = None
    used_before: float | None = None
    used_after: float | None = None
    new_rows: list[dict[str, Any]] = field(default_factory=list)
    image: dict[str, Any] | None = None
    listed_job: dict[str, Any] | None = None
    fetched: Fetched | None = None
    stopped: str = ""
    shown: Callable[[Any], str] = str
    """Converts a text of Pictory for output; the report sets its scrubber here."""


def gather(options: Options, say: Callable[[str], None] = print) -> Facts:
    """Run all checks, and return the results, also those before an interruption."""
    private = Private(options.folder)
    known_job = options.job_id or private.known.get("job_id")
    check_not_in_doubt(private, options.job_id)
    probe = Probe(options.settings)
    facts = Facts(time.time(), options.settings, probe.exchanges, every=options.every)
    try:
        _send_free_requests(probe, facts, say)
        if options.with_invalid:
            say("Sending a prompt of 2 characters, which Pictory should refuse")
            facts.replies["invalid"] = probe.ask(Request("POST", "/v1/aistudio/images", json=INVALID_BODY))
        if known_job:
            say("Continuing with a job that was bought before; nothing is bought now")
            facts.job_id, facts.prompt = known_job, private.known.get("prompt")
            private.note(state="bought", job_id=known_job)
        else:
            _buy(probe, private, facts, say)
        if facts.job_id:
            _follow(probe, private, facts, options, say)
            _read_lists(probe, private, facts, options, say)
    except (Exception, KeyboardInterrupt) as error:  # the results so far are reported
        facts.stopped = f"{type(error).__name__}: {error}. What was bought is in {private.path}: run the same command to continue."
        traceback.print_exc()
    finally:
        probe.close()
    for name, status in (("blocked", 403), ("rate limited", 429)):
        if seen := [exchange for exchange in facts.exchanges if exchange.status == status]:
            facts.replies[name] = seen[0]
    return facts


def _send_free_requests(probe: Probe, facts: Facts, say: Callable[[str], None]) -> None:
    say("Sending free requests: the quota with several clients, the ledger, a wrong key, an unknown job")
    quota = endpoints.get_quota()
    ours = probe.settings.user_agent
    facts.replies["quota"] = probe.ask(quota)
    facts.agents.append(("this provider, on a worker (requests)", ours, facts.replies["quota"]))
    facts.agents.append(("this provider, in the triggerer (aiohttp)", ours, probe.ask_as_triggerer(quota)))
    for name, agent in (
        ("urllib's", "Python-urllib/3.11"),
        ("requests'", default_user_agent()),
        ("aiohttp's", SERVER_SOFTWARE),
        ("a browser's", BROWSER),
    ):
        with probe.as_other(user_agent=agent) as other:
            facts.agents.append((name, agent, other.ask(quota)))
    with probe.as_other(UNKNOWN_HEADER) as other:
        facts.replies["unknown header"] = other.ask(quota)
    with probe.as_other(api_key=WRONG_KEY) as other:
        facts.replies["unauthorized"] = other.ask(quota)
    facts.replies["missing"] = probe.ask(endpoints.get_job(str(uuid.uuid4())))


def _buy(probe: Probe, private: Private, facts: Facts, say: Callable[[str], None]) -> None:
    try:
        quota = responses.parse_quota(_response(facts.replies["quota"]))
        rows = responses.parse_credit_usage(_response(probe.ask(_this_month())))
        if quota.ai_credits_left < PRICE:
            raise CannotBuy(f"The account has {quota.ai_credits_left} AI credits left, and {PRICE} are needed.")
        private.note(used_before=quota.ai_credits_used, rows_before=[_identity(row) for row in rows])
        facts.prompt = f"A lighthouse at dawn, soft light, {''.join(random.choices(string.ascii_lowercase, k=8))}"
        say(f"Buying one picture, {PRICE} AI credits")
        facts.job_id = buy(probe, private, facts.prompt)
        say(f"Pictory accepted it; its jobId is in {private.path}")
    except (PictoryError, CannotBuy) as error:
        facts.stopped = str(error)
    if posts := [e for e in facts.exchanges if e.request.method == "POST" and e.request.json != INVALID_BODY]:
        facts.replies["submitted"] = posts[-1]


def _follow(probe: Probe, private: Private, facts: Facts, options: Options, say: Callable[[str], None]) -> None:
    """Poll job, ledger and quota until all have changed as expected, or until the time is over."""
    assert facts.job_id
    known = private.known
    since = (
        facts.replies["submitted"].answered_at if "submitted" in facts.replies else None
    )  # None if the purchase was in an earlier run
    facts.used_before = known.get("used_before")
    before = set(known.get("rows_before", ())) if "rows_before" in known else None
    begun, ended_at = time.time(), None
    say("Polling the job, the ledger and the quota")
    while True:
        if ended_at is None and _has_ended(probe, facts, since):
            ended_at = time.time()
            say(f"The job has ended: {facts.job.status if facts.job else '?'}")
        if before is not None and not facts.new_rows:
            _poll_ledger(probe, facts, before, since)
        if facts.used_before is not None and "quota" not in facts.after:
            _poll_quota(probe, facts, since)
        is_all_seen = (before is None or facts.new_rows) and (
            facts.used_before is None or facts.used_after != facts.used_before
        )
        now = time.time()
        facts.polled_for = now - begun
        if ended_at is None and now - begun > (options.most if facts.job else options.patience):
            return
        if ended_at is not None and (is_all_seen or now - ended_at > options.patience):
            return
        time.sleep(options.every)


def _has_ended(probe: Probe, facts: Facts, since: float | None) -> bool:
    assert facts.job_id
    poll = probe.ask(endpoints.get_job(facts.job_id))
    try:
        job = responses.parse_job(_response(poll), facts.job_id)
    except JobNotFound:
        facts.replies.setdefault("not yet visible", poll)
        return False
    except PictoryError:
        return False
    _first_seen(facts, "visible", poll, since)
    if job.state is JobState.IN_PROGRESS:
        facts.replies.setdefault("in progress", poll)
    facts.job = job
    facts.replies["job"] = poll
    if job.state in (JobState.FAILED, JobState.CLEANED) or (job.state is JobState.COMPLETED and job.url):
        _first_seen(facts, "ended", poll, since)
        return True
    return False


def _poll_ledger(probe: Probe, facts: Facts, before: set[str], since: float | None) -> None:
    poll = probe.ask(_this_month())
    try:
        rows = responses.parse_credit_usage(_response(poll))
    except PictoryError:
        return
    facts.new_rows = [row for row in rows if _identity(row) not in before]
    if facts.new_rows:
        facts.replies["usage"] = poll
        _first_seen(facts, "ledger", poll, since)


def _poll_quota(probe: Probe, facts: Facts, since: float | None) -> None:
    poll = probe.ask(endpoints.get_quota())
    try:
        facts.used_after = responses.parse_quota(_response(poll)).ai_credits_used
    except PictoryError:
        return
    facts.replies["quota after"] = poll
    if facts.used_after != facts.used_before:
        _first_seen(facts, "quota", poll, since)


def _read_lists(
    probe: Probe, private: Private, facts: Facts, options: Options, say: Callable[[str], None]
) -> None:
    """Read the lists once, and download the picture."""
    say("Reading the lists and downloading the picture")
    url = facts.job.url if facts.job else None
    facts.replies["images"] = probe.ask(endpoints.list_images())
    facts.replies["jobs"] = probe.ask(endpoints.list_jobs())
    facts.image = next(
        (i for i in _items(facts.replies["images"])
         if (facts.prompt and i.get("prompt") == facts.prompt) or (url and without_query(i.get("url")) == without_query(url))),
        None,
    )  # fmt: skip
    facts.listed_job = next((j for j in _items(facts.replies["jobs"]) if facts.job_id in json.dumps(j)), None)
    if url:
        facts.fetched = fetch(probe, url)
        private.note(url=url, sha256=facts.fetched.sha256, fetched_at=facts.fetched.at)
        if facts.fetched.picture:
            (options.folder / f"picture.{facts.fetched.picture.kind.lower()}").write_bytes(facts.fetched.content)


def _first_seen(facts: Facts, what: str, poll: Exchange, since: float | None) -> None:
    if since is not None:
        facts.after.setdefault(what, max(0.0, poll.answered_at - since))


def _items(exchange: Exchange) -> list[dict[str, Any]]:
    items = exchange.body.get("items") if isinstance(exchange.body, dict) else None
    return [item for item in items or () if isinstance(item, dict)]


def _this_month() -> Request:
    now = datetime.now(UTC)
    return endpoints.get_credit_usage(now.year, now.month)


def _identity(row: dict[str, Any]) -> str:
    return str(row.get("transactionId") or json.dumps(row, sort_keys=True))


def _response(exchange: Exchange) -> responses.Response:
    if exchange.response is None:
        raise Unavailable(exchange.problem)
    return exchange.response
