# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What the commands do, thin over the hook. Results go to stdout, all else to stderr.

They end with 0 where all is well, with 1 where it is not, and with 2 for a wrong command line.
"""

from __future__ import annotations

import functools
import json
import os
import re
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pictory_provider.api.checks import without_query
from pictory_provider.api.errors import PictoryError
from pictory_provider.api.wording import laid_out
from pictory_provider.cli.spending import by_day, by_kind, by_model, rows

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Iterator

    from pictory_provider.hooks.pictory import PictoryHook


class Outcome(NamedTuple):
    """What a command has found.

    :param is_well: whether it ends with 0.
    :param table: what goes to stdout.
    """

    is_well: bool
    table: list[dict[str, Any]]


def command(do: Callable[[Namespace], Outcome]) -> Callable[[Namespace], None]:
    """Make a command of a function: with an exit code, and without a traceback for what is foreseen."""

    @functools.wraps(do)
    def run(args: Namespace) -> None:
        # Without it Airflow does not look into its own database for a connection, as its own commands do.
        os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"
        try:
            with redirect_stdout(sys.stderr):  # where Airflow's logs belong
                outcome = do(args)
        except PictoryError as error:
            sys.exit(laid_out(error.message))
        _show(args, outcome.table)
        sys.exit(0 if outcome.is_well else 1)

    return run


class Finding(NamedTuple):
    """One line of the check.

    :param is_well: ``None`` where it cannot be told from here.
    """

    what: str
    is_well: bool | None
    found: str


@command
def check(args: Namespace) -> Outcome:
    """Tell whether the set-up is right."""
    findings = list(_findings(args.conn_id))
    words = {True: "ok", False: "WRONG", None: "?"}
    table = [{"check": each.what, "is": words[each.is_well], "found": each.found} for each in findings]
    return Outcome(all(each.is_well is not False for each in findings), table)


@command
def gallery(args: Namespace) -> Outcome:
    """List the account's pictures, newest first, or save them."""
    shown = []
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
            shown.append(row)
            if number == args.limit:
                break
    return Outcome(all(row.get("saved", "") is not None for row in shown), shown)


@command
def ledger(args: Namespace) -> Outcome:
    """Show what was spent, and what came in."""
    import pendulum

    year = args.year or (pendulum.now("UTC").year if args.month else None)
    with _hook(args) as hook:
        entries = hook.get_credit_usage(year, args.month)
    table = {"entry": rows, "day": by_day, "model": by_model, "kind": by_kind}[args.by]
    return Outcome(True, table(entries))


@command
def adopt(args: Namespace) -> Outcome:
    """Put a jobId on the record of a task, which then adopts it."""
    from pictory_provider.cli import adopting
    from pictory_provider.compat import clear_discards_state

    with _hook(args) as hook:
        job = hook.get_job(args.job_id)
    instance = adopting.find(args.dag_id, args.run_id, args.task_id, args.map_index, args.loop_index)
    kept = adopting.keep(instance, job)
    if kept.problem:
        print(f"The record beside its picture stays as it is: {kept.problem}.", file=sys.stderr)
    if kept.replaces:
        print(f"Job {kept.replaces} was on record before, and is left behind.", file=sys.stderr)
    if args.clear:
        below = adopting.clear(instance)
        told = f"The task and {below} below it are cleared" if below else "The task is cleared"
        print(f"{told}; it takes this job, unless that fails at Pictory.", file=sys.stderr)
    elif clear_discards_state():
        else_ = "buys another picture"
        if kept.beside:
            else_ = f"takes the job out of {kept.beside} if its path is the same then, else {else_}"
        print(
            "Run this again with --clear, and the task takes this job. In its page, choose *Keep task state and "
            f"resume*: without that, Clear throws the state of the task away, and it {else_}.",
            file=sys.stderr,
        )
    else:
        print("Clear the task, and it takes this job: in its page, or here with --clear.", file=sys.stderr)
    return Outcome(True, [{"task": str(instance), "adopts": job.job_id, "which is": job.status}])


def _findings(conn_id: str) -> Iterator[Finding]:
    from pictory_provider.compat import airflow_line, keeps_state, living_triggerers
    from pictory_provider.hooks.pictory import PictoryHook

    with PictoryHook(conn_id) as hook:
        try:
            base_url = hook.get_conn().settings.base_url
        except PictoryError as error:
            yield Finding("connection", False, error.message)
        else:
            yield Finding("connection", True, f"{conn_id} leads to {base_url}")
            try:
                quota = hook.get_quota()
            except PictoryError as error:
                yield Finding("key", False, error.message)
            else:
                left, limit = quota.ai_credits_left, quota.ai_credits_limit
                yield Finding("key", True, "Pictory accepts it")
                yield Finding("credits", left > 0, f"{left:,.10g} AI credits left of {limit:,.10g}")
                yield from _limits(hook)
    if keeps_state():
        yield Finding("records", True, f"Airflow {airflow_line()} keeps them: a retry buys nothing twice")
    else:
        yield Finding(
            "records",
            None,
            f"Airflow {airflow_line()} keeps none, 3.3 and later do: buy with retries=0",
        )
    try:
        alive = living_triggerers()
    except Exception as error:
        yield Finding("triggerer", None, f"Airflow's database cannot be read from here: {type(error).__name__}")
    else:
        told = "it answers" if alive else "none answers: start `airflow triggerer`, or set deferrable=False"
        yield Finding("triggerer", alive, told)


def _limits(hook: PictoryHook) -> Iterator[Finding]:
    """Say what the limits of the connection leave; nothing where it has none."""
    from pictory_provider.jobs.budget import Budget, Limits
    from pictory_provider.spending import look

    client = hook.get_conn()
    budget = Budget(Limits.of(client.settings))
    try:
        look(client, budget, log=hook.log)
    except PictoryError as error:
        yield Finding("limits", False, error.message)
    else:
        for room in budget.rooms(time.time()):
            yield Finding(room.limit, room.left > 0, f"{room}")


def _hook(args: Namespace) -> PictoryHook:
    from pictory_provider.hooks.pictory import PictoryHook

    return PictoryHook(args.conn_id)


def _save(hook: PictoryHook, folder: Path, name: str, url: str | None) -> str | None:
    """Save one picture of the gallery under its id, unless it is there."""
    target = folder / f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)}.png"
    if target.exists():
        return str(target)
    try:
        return hook.download_image(str(target), url=url)["path"]
    except PictoryError as error:
        print(laid_out(error.message), file=sys.stderr)
        return None


def _show(args: Namespace, table: list[dict[str, Any]]) -> None:
    from airflow.cli.simple_table import AirflowConsole

    if args.output == "json":  # Airflow's own is coloured and wrapped
        print(json.dumps(table, indent=2))
    else:
        AirflowConsole().print_as(data=table, output=args.output)
