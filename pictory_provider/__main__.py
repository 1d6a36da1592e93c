# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""``python -m pictory_provider``: the commands of ``airflow pictory``, on every Airflow."""

from __future__ import annotations

import argparse


def main() -> None:
    """Run the given command."""
    from pictory_provider.cli.definitions import COMMANDS

    parser = argparse.ArgumentParser(prog="python -m pictory_provider", description="Pictory AI Studio")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for each in COMMANDS:
        command = commands.add_parser(each.name, help=each.help, description=each.help)
        for argument in each.args:
            argument.add_to_parser(command)
        command.set_defaults(func=each.func)
    args = parser.parse_args()
    args.func(args)


if __name__ == "__main__":
    main()
