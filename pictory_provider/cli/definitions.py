# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Which commands there are. Every ``airflow`` command reads this, so it imports nothing that is slow."""

from __future__ import annotations

from typing import Any

from airflow.cli.cli_config import ARG_OUTPUT, ActionCommand, Arg, GroupCommand, lazy_load_command

from pictory_provider.provider_info import DEFAULT_CONN_ID


def _argument(flags: tuple[str, ...], **more: Any) -> Arg:
    return Arg(flags, **more)  # type: ignore[no-untyped-call]


_CONNECTION = _argument(
    ("--conn-id",), default=DEFAULT_CONN_ID, help=f"the Airflow connection; {DEFAULT_CONN_ID} where it is left out"
)
_YEAR = _argument(("--year",), type=int, help="only this year; needs --month")
_MONTH = _argument(("--month",), type=int, help="1 to 12; of this year, unless --year says another")
_BY = _argument(
    ("--by",), choices=("entry", "day", "model", "kind"), default="entry", help="a line for each; entry"
)
_LIMIT = _argument(("--limit",), type=int, default=20, help="how many, newest first; 0 for all; default: 20")
_DOWNLOAD = _argument(("--download",), metavar="FOLDER", help="save there what is not there yet")


def _command(name: str, says: str, *args: Arg) -> ActionCommand:
    return ActionCommand(
        name=name,
        help=says,
        args=(*args, _CONNECTION, ARG_OUTPUT),
        func=lazy_load_command(f"pictory_provider.cli.commands.{name}"),
    )


COMMANDS = (
    _command("check", "Tell whether the set-up is right: connection, key, credits, limits, records, triggerer"),
    _command("gallery", "List the account's pictures, or save them", _LIMIT, _DOWNLOAD),
    _command("ledger", "Show what was spent", _YEAR, _MONTH, _BY),
    _command(
        "adopt",
        "Let a task take a job that is paid for, in place of buying another",
        _argument(("dag_id",), help="of the task"),
        _argument(("run_id",), help="of its run"),
        _argument(("task_id",), help="of the task"),
        _argument(("job_id",), help="the job; Pictory is asked for it first"),
        _argument(("--map-index",), type=int, help="of a mapped task"),
        _argument(("--loop-index",), type=int, help="the iteration, of a task in a loop"),
        _argument(("--clear",), action="store_true", help="clear the task too, so that it takes the job now"),
    ),
)


def get_pictory_cli_commands() -> list[GroupCommand]:
    """Return what Airflow adds to its own commands."""
    return [
        GroupCommand(name="pictory", help="Pictory AI Studio: set-up, pictures, spending", subcommands=COMMANDS)
    ]
