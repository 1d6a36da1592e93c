# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Check open questions at the real Pictory: ``make live``. It buys one picture.

    PICTORY_API_KEY=... make live
    PICTORY_API_KEY=... python -m tests.live again FOLDER    request the picture's URL again: free

LIVE_OUT=folder       folder for report and samples; default: live-<date>
LIVE=yes              agree, if there is no terminal
LIVE_INVALID=no       do not send the invalid request
LIVE_JOB=jobId        continue with a job that is already bought, and buy nothing
LIVE_USER_AGENT=...   send another user agent
PICTORY_BASE_URL=...  use another server than Pictory, such as a simulator
"""

from __future__ import annotations

import os
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pictory_provider.api.connection import ConnectionSettings


def main(arguments: list[str], environment: Mapping[str, str] = os.environ) -> int:
    """Run the command, and return the exit code."""
    if "AIRFLOW_HOME" not in os.environ:  # the hook imports Airflow, which creates its home
        os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="airflow-live-")
    if arguments[:1] == ["again"] and len(arguments) == 2:
        return again(Path(arguments[1]), environment)
    if arguments:
        print(__doc__)
        return 2
    return live(environment)


def live(environment: Mapping[str, str]) -> int:
    """Buy one picture, run all checks, and write the report."""
    from pictory_provider.api.errors import PictoryError
    from tests.live.buying import CannotBuy
    from tests.live.gathering import Options, gather
    from tests.live.report import write

    try:
        settings = _settings(environment)
    except PictoryError as error:
        print(f"Nothing was sent and nothing was spent. {error}")
        return 1
    folder = Path(environment.get("LIVE_OUT") or f"live-{datetime.now(UTC):%Y-%m-%d}")
    job_id = environment.get("LIVE_JOB") or None
    with_invalid = _agrees(settings, folder, job_id, environment)
    if with_invalid is None:
        print("Nothing was sent and nothing was spent.")
        return 0 if sys.stdin.isatty() else 1
    folder.mkdir(parents=True, exist_ok=True)
    try:
        facts = gather(Options(settings=settings, folder=folder, with_invalid=with_invalid, job_id=job_id))
    except CannotBuy as error:
        print(f"Nothing was bought. {error}")
        return 1
    print(f"The report is {write(facts, folder)}; the samples are next to it.")
    if facts.stopped:
        print(f"It stopped: {facts.stopped}")
    return 1 if facts.stopped else 0


def again(where: Path, environment: Mapping[str, str]) -> int:
    """Request the picture's URL again, and its job if there is a key; add a line to the report."""
    from pictory_provider.api.checks import without_query
    from pictory_provider.api.endpoints import get_job
    from pictory_provider.api.errors import PictoryError
    from pictory_provider.api.responses import parse_job
    from tests.live.buying import Private
    from tests.live.probe import Probe, fetch
    from tests.live.report import REPORT

    folder = where if where.is_dir() else where.parent
    known = Private(folder).known
    if "url" not in known:
        print(f"{folder} names no picture.")
        return 1
    probe = Probe(_settings({**environment, "PICTORY_API_KEY": environment.get("PICTORY_API_KEY") or "unknown"}))
    now = fetch(probe, known["url"])
    answer = str(now.status or now.problem)
    if now.status == 200:
        answer += ", the same bytes" if now.sha256 == known["sha256"] else ", other bytes"
    if environment.get("PICTORY_API_KEY"):
        try:
            job = parse_job(probe.send(get_job(known["job_id"])), known["job_id"])
            same = (
                "none"
                if not job.url
                else "the same URL"
                if job.url == known["url"]
                else "the same URL, signed anew"
            )
            if job.url and without_query(job.url) != without_query(known["url"]):
                same = "another URL"
            answer += f"; the job is {job.status}, with {same}"
        except PictoryError as error:
            answer += f"; the job: {type(error).__name__}"
    probe.close()
    after = timedelta(seconds=round(now.at - known["fetched_at"]))
    line = f"| {datetime.fromtimestamp(now.at, UTC):%Y-%m-%d %H:%M:%S} UTC | {after} | {answer} |"
    with (folder / REPORT).open("a") as report:
        report.write(line + "\n")
    print(line)
    return 0


def _settings(environment: Mapping[str, str]) -> ConnectionSettings:
    from pictory_provider.api.connection import ConnectionSettings
    from pictory_provider.api.errors import AuthenticationError

    key = environment.get("PICTORY_API_KEY")
    if not key:
        raise AuthenticationError("Set PICTORY_API_KEY to a key from https://app.pictory.ai/api-access.")
    agent = environment.get("LIVE_USER_AGENT")
    return ConnectionSettings.from_fields(
        "live",
        password=key,
        host=environment.get("PICTORY_BASE_URL"),
        extra={"user_agent": agent} if agent else {},
    )


def _agrees(
    settings: ConnectionSettings, folder: Path, job_id: str | None, environment: Mapping[str, str]
) -> bool | None:
    """Print the cost and the requests, and ask for consent.

    :return: whether to send the invalid request too; ``None`` without consent.
    """
    from tests.live.buying import MODEL, PRICE, RATIO, Private

    known = job_id or Private(folder).known.get("job_id")
    costs = f"buys one {MODEL} picture ({RATIO}) for {PRICE} AI credits"
    print(
        f"This {'polls a job that was bought before, and buys nothing' if known else costs}, at {settings.base_url}."
    )
    print(
        "It also sends, free of charge: the quota from both HTTP libraries and under four other user agents, once with an unknown header and once with a "
        "wrong key; an unknown job; the ledger, the lists of jobs and of images; and polls every 2 s until the job has "
        "ended and been billed.\nOf the lists, only the items of this picture are stored. All results "
        f"go to {folder}/."
    )
    invalid = (
        "One request is sent that Pictory should refuse with 400: a prompt of 2 characters. By its documentation that "
        f"costs nothing; if Pictory accepts it nevertheless, it costs one more {MODEL} picture."
    )
    print(invalid)
    refused = environment.get("LIVE_INVALID", "").lower() in ("no", "0")
    if environment.get("LIVE") == "yes":
        return not refused
    if not sys.stdin.isatty():
        print("Set LIVE=yes to agree, and LIVE_INVALID=no to skip the invalid request.")
        return None
    if input("Go on? [y/N] ").strip().lower() not in ("y", "yes"):
        return None
    return not refused and input("With the invalid request? [Y/n] ").strip().lower() in ("", "y", "yes")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
