# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The commands, as thin layers over the hook. Results go to stdout, everything else to stderr.

Exit codes: 0 for success, 1 for a problem, 2 for a wrong command line.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pictory_provider.api.checks import without_query
from pictory_provider.api.errors import PictoryError
from pictory_provider.api.models import MODELS
from pictory_provider.api.text import counted, wrap_sentences
from pictory_provider.cli.spending import by_day, by_kind, by_model, rows
from pictory_provider.core.budget import format_credits
from pictory_provider.core.picture_names import SIDECAR_SUFFIX

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Iterator

    from pictory_provider.hooks.pictory import PictoryHook


class Outcome(NamedTuple):
    """The result of a command.

    :param is_well: whether the exit code is 0.
    :param table: the rows for stdout.
    """

    is_well: bool
    table: list[dict[str, Any]]


def command(do: Callable[[Namespace], Outcome]) -> Callable[[Namespace], None]:
    """Turn a function into a command: set the exit code, and print Pictory errors without a traceback."""

    @functools.wraps(do)
    def run(args: Namespace) -> None:
        # Without this Airflow does not search its database for connections, as its own commands do.
        os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"
        try:
            with redirect_stdout(sys.stderr):  # Airflow's logs do not belong on stdout
                outcome = do(args)
        except PictoryError as error:
            sys.exit(wrap_sentences(error.message))
        _print_table(args, outcome.table)
        sys.exit(0 if outcome.is_well else 1)

    return run


class Finding(NamedTuple):
    """One line of the check.

    :param is_well: ``None`` if this command cannot decide it.
    """

    what: str
    is_well: bool | None
    found: str


@command
def check(args: Namespace) -> Outcome:
    """Check the set-up."""
    findings = list(_findings(args.conn_id))
    words = {True: "ok", False: "WRONG", None: "?"}
    table = [{"check": each.what, "is": words[each.is_well], "found": each.found} for each in findings]
    return Outcome(all(each.is_well is not False for each in findings), table)


@command
def gallery(args: Namespace) -> Outcome:
    """List the account's pictures, newest first, or save them."""
    table = []
    with _hook(args) as hook:
        for number, image in enumerate(hook.list_images(), start=1):
            row = {
                "made": image.created_date,
                "model": image.model,
                "size": f"{image.width}x{image.height}" if image.width and image.height else None,
                "prompt": image.prompt,
                "url": without_query(image.url),
            }
            if args.download:
                row["saved"] = _save(hook, Path(args.download).absolute(), image.id or str(number), image.url)
            table.append(row)
            if number == args.limit:
                break
    return Outcome(all(row.get("saved", "") is not None for row in table), table)


@command
def ledger(args: Namespace) -> Outcome:
    """Show what the account has spent and received."""
    import pendulum

    year = args.year or (pendulum.now("UTC").year if args.month else None)
    with _hook(args) as hook:
        entries = hook.get_credit_usage(year, args.month)
    table = {"entry": rows, "day": by_day, "model": by_model, "kind": by_kind}[args.by]
    return Outcome(True, table(entries))


@command
def adopt(args: Namespace) -> Outcome:
    """Record a jobId for a task, which then uses that job."""
    from pictory_provider.cli import adopting
    from pictory_provider.version_compat import clear_discards_state

    with _hook(args) as hook:
        job = hook.get_job(args.job_id)
    instance = adopting.find_instance(args.dag_id, args.run_id, args.task_id, args.map_index, args.loop_index)
    adoption = adopting.record_job(instance, job, args.candidate)
    if adoption.problem:
        _note(f"The sidecar of the picture was not changed: {adoption.problem}.")
    if adoption.replaces:
        _note(f"The record named job {adoption.replaces} before. That job is left behind, and may be paid for.")
    if args.clear:
        below = adopting.clear(instance)
        cleared = (
            f"The task and {counted(below, 'downstream task')} are cleared" if below else "The task is cleared"
        )
        _note(f"{cleared}; the task uses this job, unless the job fails at Pictory.")
    elif clear_discards_state():
        otherwise = "buys another picture"
        if adoption.sidecar:
            otherwise = f"finds the job in {adoption.sidecar} if its path is still the same, and else {otherwise}"
        _note(
            "Run this again with --clear, and the task uses this job. To clear it on its page in Airflow, choose "
            f"*Keep task state and resume*: a plain Clear deletes the task's state, and the task {otherwise}."
        )
    else:
        _note("Clear the task, on its page in Airflow or here with --clear; then it uses this job.")
    if instance.is_paused:
        _note(
            f"The DAG {instance.dag_id!r} is paused, so the task does not run until you unpause it, on its page "
            f"in Airflow or with `airflow dags unpause {shlex.quote(instance.dag_id)}`."
        )
    return Outcome(True, [{"task": str(instance), "adopts": job.job_id, "which is": job.status}])


@command
def redo(args: Namespace) -> Outcome:
    """Move a saved picture aside, so that the next run buys another one."""
    from pictory_provider.services.redo import redo

    moved = redo(args.path if "://" in args.path else os.path.abspath(args.path))
    made_by, request = moved.sidecar.made_by, moved.sidecar.submission.request or {}
    if moved.is_repeated:
        _note(f"Nothing was changed: an earlier command has moved {moved.path}, and no new picture is bought yet.")
    _note(
        f"The next run that saves a picture to {moved.path} buys a new one, at {_price(request.get('model'))}. To "
        f"run it now, clear the {made_by}, on its page in Airflow."
    )
    tool = "Move these objects back" if "://" in moved.path else "Run"
    pairs = [
        *moved.find_copies(),
        *((f"{moved.version}{end}", f"{moved.path}{end}") for end in ("", SIDECAR_SUFFIX)),
    ]
    back = [f"    {_move(source, to)}" for source, to in pairs]
    _note("\n".join([f"{tool} to keep the old picture instead, in this order:", *back]))
    return Outcome(True, [{"picture": moved.path, "moved to": moved.version, "made by": str(made_by)}])


def _price(model: Any) -> str:
    known = MODELS.get(str(model))
    return f"{format_credits(known.credits)} AI credits as listed for {model}" if known else "an unknown price"


def _move(source: str, to: str) -> str:
    return f"{source} -> {to}" if "://" in to else f"mv {shlex.quote(source)} {shlex.quote(to)}"


def _findings(conn_id: str) -> Iterator[Finding]:
    from pictory_provider.hooks.pictory import PictoryHook
    from pictory_provider.version_compat import airflow_minor, has_task_state_store, is_triggerer_alive

    with PictoryHook(conn_id) as hook:
        try:
            settings = hook.get_conn().settings
        except PictoryError as error:
            yield Finding("connection", False, error.message)
        else:
            yield Finding("connection", True, f"{conn_id} points to {settings.base_url}")
            for note in settings.notes:
                yield Finding("extra", None, note)
            try:
                quota = hook.get_quota()
            except PictoryError as error:
                yield Finding("key", False, error.message)
            else:
                left, limit = quota.ai_credits_left, quota.ai_credits_limit
                yield Finding("key", True, "Pictory accepts it")
                yield Finding("credits", left > 0, f"{left:,.10g} AI credits left of {limit:,.10g}")
                yield from _limits(hook)
    if has_task_state_store():
        yield Finding("records", True, f"Airflow {airflow_minor()} keeps them: a retry buys nothing twice")
    else:
        found = f"Airflow {airflow_minor()} keeps none, 3.3 and later do: set retries=0 on tasks that buy"
        yield Finding("records", None, found)
    try:
        alive = is_triggerer_alive()
    except Exception as error:
        yield Finding("triggerer", None, f"Airflow's database cannot be read from here: {type(error).__name__}")
    else:
        found = "running" if alive else "none is running: start `airflow triggerer`, or set deferrable=False"
        yield Finding("triggerer", alive, found)
    yield _pages()


def _pages() -> Finding:
    """Report who sees the pages in Airflow."""
    from pictory_provider.cli.access import who_sees_tabs
    from pictory_provider.links.pictory import has_gallery

    if not has_gallery():
        return Finding("pages", True, "switched off by [pictory] gallery")
    try:
        return Finding("pages", *who_sees_tabs())
    except Exception as error:
        return Finding("pages", None, f"Airflow's roles cannot be read from here: {type(error).__name__}")


def _limits(hook: PictoryHook) -> Iterator[Finding]:
    """Report what each limit of the connection leaves."""
    from pictory_provider.core.budget import Budget, Limits
    from pictory_provider.core.ledger import CLOCKS_DIFFER
    from pictory_provider.services.spending import ask_account, describe_skew

    client = hook.get_conn()
    if abs(client.skew) > CLOCKS_DIFFER:
        skew = describe_skew(client.skew)
        yield Finding("clock", False, f"this machine's clock is {skew} Pictory's: set it (NTP)")
    budget = Budget(Limits.from_settings(client.settings))
    try:
        ask_account(client, budget, log=hook.log)
    except PictoryError as error:
        yield Finding("limits", False, error.message)
    else:
        for headroom in budget.headroom(time.time()):
            yield Finding(headroom.limit, headroom.left > 0, f"{headroom}")


def _note(text: str) -> None:
    print(text, file=sys.stderr)


def _hook(args: Namespace) -> PictoryHook:
    from pictory_provider.hooks.pictory import PictoryHook

    return PictoryHook(args.conn_id)


def _save(hook: PictoryHook, folder: Path, name: str, url: str | None) -> str | None:
    """Save one picture of the gallery under its id, unless that file exists."""
    target = folder / f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)}.png"
    if target.exists():
        return str(target)
    try:
        return hook.download_image(str(target), url=url)["path"]
    except PictoryError as error:
        _note(wrap_sentences(error.message))
        return None


def _print_table(args: Namespace, table: list[dict[str, Any]]) -> None:
    from airflow.cli.simple_table import AirflowConsole

    if args.output == "json":  # Airflow's JSON output is coloured and wrapped
        print(json.dumps(table, indent=2))
    else:
        AirflowConsole().print_as(data=table, output=args.output)
