# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The command definitions. Every ``airflow`` command imports this module, so it imports nothing slow."""

from __future__ import annotations

from typing import Any

from airflow.cli.cli_config import ARG_OUTPUT, ActionCommand, Arg, GroupCommand, lazy_load_command

from pictory_provider.provider_info import DEFAULT_CONN_ID


def _argument(*flags: str, **kwargs: Any) -> Arg:
    return Arg(flags, **kwargs)  # type: ignore[no-untyped-call]


def _command(name: str, text: str, *args: Arg) -> ActionCommand:
    connection = _argument(
        "--conn-id", default=DEFAULT_CONN_ID, help=f"the Airflow connection; default: {DEFAULT_CONN_ID}"
    )
    return ActionCommand(
        name=name,
        help=text,
        args=(*args, connection, ARG_OUTPUT),
        func=lazy_load_command(f"pictory_provider.cli.commands.{name}"),
    )


COMMANDS = (
    _command("check", "Check the set-up: connection, key, credits, limits, records, triggerer, pages"),
    _command(
        "gallery",
        "List the account's pictures, or save them",
        _argument("--limit", type=int, default=20, help="how many, newest first; 0 for all; default: 20"),
        _argument("--download", metavar="FOLDER", help="save the pictures that are not in this folder yet"),
    ),
    _command(
        "ledger",
        "Show what the account has spent",
        _argument("--year", type=int, help="only this year; needs --month"),
        _argument("--month", type=int, help="1 to 12; of the current year without --year"),
        _argument(
            "--by",
            choices=("entry", "day", "model", "kind"),
            default="entry",
            help="one line for each of these; default: entry",
        ),
    ),
    _command(
        "adopt",
        "Let a task use a job that is already paid for instead of buying another picture",
        _argument("dag_id", help="the task's DAG"),
        _argument("run_id", help="the task's run"),
        _argument("task_id", help="the task"),
        _argument("job_id", help="the job; the command checks it at Pictory first"),
        _argument("--map-index", type=int, help="the map index of a mapped task"),
        _argument("--loop-index", type=int, help="the iteration of a task in a loop"),
        _argument("--candidate", type=int, help="the number of the picture, if the task has candidates"),
        _argument("--clear", action="store_true", help="also clear the task, so that it uses the job now"),
    ),
)


def get_pictory_cli_commands() -> list[GroupCommand]:
    """Return the command group that Airflow adds to its own commands."""
    return [
        GroupCommand(name="pictory", help="Pictory AI Studio: set-up, pictures, spending", subcommands=COMMANDS)
    ]
