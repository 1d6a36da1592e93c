# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The simulator as a program: ``python -m pictory_provider.simulator``."""

from __future__ import annotations

import argparse
import signal
import sys
import threading

from pictory_provider.simulator import FAULTS, PLACES, SETTINGS, SHAPES, Simulator
from pictory_provider.simulator.faults import parse
from pictory_provider.simulator.server import DEFAULT_KEY


def _arguments() -> argparse.Namespace:
    listed = [
        "faults (each takes every=3, and then affects only every third request):",
        *(f"  {name:<14} {text}" for name, text in FAULTS.items()),
        "",
        "places:",
        *(f"  {name:<14} {text}" for name, text in PLACES.items()),
        "",
        "shapes of replies that the documentation leaves open:",
        *(f"  {name:<14} {', '.join(choices)}" for name, choices in SHAPES.items()),
        "",
        "settings, all 0 by default:",
        *(f"  {name:<14} {text}" for name, text in SETTINGS.items()),
        "",
        "words in a prompt that decide the outcome of its job:",
        "  simulate:failed  simulate:stuck  simulate:cleaned  simulate:no-url  simulate:unknown-status",
        "  simulate:seconds=30",
        "",
        "while it runs, below its base address:",
        "  GET  /_simulator/state      jobs and credits",
        "  GET  /_simulator/requests   every request it received",
        '  POST /_simulator/faults     {"place": "submit", "fault": "drop-after", "times": 1}',
        '  POST /_simulator/jobs       {"fate": "failed", "seconds": 3}: the next job',
        '  POST /_simulator/shapes     {"missing": "error-404"}',
        '  POST /_simulator/settings   {"ledger_lag": 4}',
        '  POST /_simulator/ledger     {"type": "credit", "amount": 22000, "source": "Monthly Reset"}: a row',
        "  POST /_simulator/reset",
    ]
    parser = argparse.ArgumentParser(
        prog="python -m pictory_provider.simulator",
        description="A local Pictory AI Studio on loopback: real pictures, no account.",
        epilog="\n".join(listed),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=int, default=0, help="of the API; default: a free port")
    parser.add_argument("--images-port", type=int, default=0, help="of the pictures; default: a free port")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long a job runs (default: 5)")
    parser.add_argument("--credits", type=float, default=22_000, help="AI credits of the account")
    parser.add_argument(
        "--api-key", default=DEFAULT_KEY, help="the only key that is accepted (default: %(default)s)"
    )
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        type=parse,
        metavar="PLACE:FAULT[:TIMES][:OPTION=VALUE]",
        help="a fault to play, such as submit:rate-limited:2:retry_after=1.5; can be repeated",
    )
    parser.add_argument("--shape", action="append", default=[], metavar="NAME=CHOICE", help="a shape of replies")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=NUMBER", help="a setting")
    return parser.parse_args()


def main() -> int:
    """Serve until SIGINT or SIGTERM."""
    options = _arguments()
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    try:
        simulator = Simulator(
            seconds=options.seconds,
            credits_limit=options.credits,
            api_key=options.api_key,
            port=options.port,
            images_port=options.images_port,
        )
        for shape in options.shape:
            simulator.shape(*shape.split("=", 1))
        for setting in options.set:
            name, _, value = setting.partition("=")
            simulator.set(**{name: value})
        with simulator:
            for fault in options.fault:
                simulator.script(fault.place, fault.name, times=fault.times, **fault.options)
            print(f"A local Pictory listens at {simulator.base_url}; its pictures are at {simulator.images_url}.")
            print(f"A sample reference image: {simulator.reference_image_url}")
            print(f"export AIRFLOW_CONN_PICTORY_DEFAULT='{simulator.connection_json()}'", flush=True)
            ended.wait()
    except (ModuleNotFoundError, OSError, TypeError, ValueError) as error:
        print(f"The simulator cannot start: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
