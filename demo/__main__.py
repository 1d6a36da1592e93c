# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""``make demo`` and ``make ui``: a real Airflow, a local Pictory, and pictures on disk."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote

from demo.stack import AirflowStack, StackError, free_port, is_free
from pictory_provider.api.models import MODELS
from pictory_provider.simulator import Simulator

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / ".demo" / "pictures"
CHEAPEST = min(MODELS.values(), key=lambda model: model.credits)
UI_PORT = 8080
TABLE = [f"A {colour} bicycle against a white wall, studio light" for colour in ("red", "green", "blue", "black")]
"""Prompts of the batch, which the demo runs with the simulator only."""
UI_DAG = "pictures_of_every_kind"
"""The DAG that ``make ui`` runs, so that the pages have pictures."""

MEANING = {
    "running": "a worker runs it",
    "deferred": "Pictory generates; the triggerer waits, and no worker slot is used",
    "success": "done",
}


def main() -> int:
    """Run the command, and leave no process behind."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("command", choices=("pictures", "ui"))
    command = parser.parse_args().command
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it otherwise
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    try:
        return _show_ui() if command == "ui" else _run_demo()
    except (KeyboardInterrupt, Terminated) as end:
        print("\nStopped. Nothing is left running.")
        return 128 + (end.number if isinstance(end, Terminated) else signal.SIGINT)
    except StackError as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1


def _run_demo() -> int:
    clock = Clock()
    key = os.environ.get("PICTORY_API_KEY")
    if key and not _agrees_to_pay():
        print("Nothing was sent and nothing was spent.")
        return 0 if sys.stdin.isatty() else 1
    with _pictory(key) as (where, env):
        print(f"Pictures from {where}, made by DAGs in a real Airflow.\n")
        with AirflowStack(_home("demo"), ROOT / "dags", env=env, say=clock.say) as airflow:
            clock.say("Airflow is healthy")
            conf: dict[str, Any] = {"model": CHEAPEST.name}
            of_text = airflow.trigger("pictory_text_to_image", **conf)
            of_table = None if key else airflow.trigger("pictory_batch", prompts=TABLE)
            print("\nText to image (dags/pictory_text_to_image.py)")
            first = _follow(airflow, clock, "pictory_text_to_image", of_text, ("save", "return_value"))
            print("\nIts file guides another picture, in one task (dags/pictory_reference_image.py)")
            conf |= {"reference_image_url": first["path"], "reference_upload": True}
            of_reference = airflow.trigger("pictory_reference_image", **conf)
            second = _follow(airflow, clock, "pictory_reference_image", of_reference, ("generate", "image"))
            batch = None
            if of_table:
                print(f"\nMeanwhile a table of {len(TABLE)} in one task, and a folder out (dags/pictory_batch.py)")
                batch = _follow(airflow, clock, "pictory_batch", of_table, ("pictures", "return_value"))
            print()
            clock.say("stopping Airflow")
    print(f"\nDone in {clock.seconds:.0f} s. The pictures:")
    for picture in (first, second):
        path = Path(picture["path"])
        size = f"{picture['width']}x{picture['height']}"
        print(f"  {path.relative_to(ROOT)}  {size}, {_credits(picture):g} AI credits")
    total = _credits(first) + _credits(second)
    if batch:
        total += batch["ai_credits_used"]
        manifest = Path(batch["manifest"]).relative_to(ROOT)
        made = f"{batch['saved']} pictures, {batch['ai_credits_used']:g} AI credits"
        print(f"  {manifest.parent}/  {made}, and {manifest.name}")
    print(f"They {'cost' if key else 'would have cost'} {total:.10g} AI credits.")
    return 0


def _show_ui() -> int:
    clock = Clock()
    port = UI_PORT if is_free(UI_PORT) else free_port()
    with _pictory(None) as (where, env):
        print(f"Airflow with the example DAGs, beside {where}.\n")
        env |= {"AIRFLOW__PICTORY__GALLERY_PATHS": str(PICTURES)}
        dags = _dags_of_ui()
        with AirflowStack(_home("ui"), dags, env=env, port=port, say=clock.say) as airflow:
            clock.say(f"ready: {airflow.url}/dags")
            run_id = airflow.trigger(UI_DAG)
            print(f"\nPictures: {airflow.url}/dags/{UI_DAG}/runs/{quote(run_id, safe='')}/plugin/pictory-run")
            print("\nUnpause a DAG and trigger it. Pictures go to .demo/pictures. Ctrl-C ends everything.")
            while True:
                airflow.check_alive()
                time.sleep(1)


def _follow(
    airflow: AirflowStack, clock: Clock, dag_id: str, run_id: str, where: tuple[str, str]
) -> dict[str, Any]:
    """Print the states of a run's tasks until it ends, and return its result.

    :param where: the task and the key of the XCom with the result.
    """
    seen: dict[str, str] = {}
    for states in airflow.watch(dag_id, run_id):
        for task, state in states.items():
            if seen.get(task) != state and state in (*MEANING, "failed", "upstream_failed"):
                clock.say(f"{task:<9} {state:<9} {MEANING.get(state, 'see its log')}")
                seen[task] = state
        if "deferred" in states.values():
            clock.tick()
    if airflow.run_state(dag_id, run_id) != "success":
        raise StackError(f"{dag_id} failed; its logs are in {airflow.home / 'logs'}")
    saved: dict[str, Any] = airflow.xcom(dag_id, run_id, *where)
    return saved


@contextmanager
def _pictory(key: str | None) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield a description of the Pictory in use, and Airflow's environment for it."""
    env = {"AIRFLOW_VAR_PICTORY_PICTURES": str(PICTURES)}
    if key:
        connection = {"conn_type": "pictory", "password": key, "host": os.environ.get("PICTORY_BASE_URL")}
        yield "Pictory AI Studio", env | {"AIRFLOW_CONN_PICTORY_DEFAULT": json.dumps(connection)}
        return
    with Simulator(seconds=8) as pictory:
        env |= {
            "AIRFLOW_CONN_PICTORY_DEFAULT": pictory.connection_json(),
            "AIRFLOW_VAR_PICTORY_REFERENCE_IMAGE": pictory.reference_image_url,
        }
        yield f"a simulated Pictory at {pictory.base_url} (no account needed)", env


def _credits(picture: dict[str, Any]) -> float:
    """Return the AI credits that Pictory reports for a picture, or its listed price."""
    used: float | None = picture["ai_credits_used"]
    return CHEAPEST.credits if used is None else used


def _agrees_to_pay() -> bool:
    print(
        f"PICTORY_API_KEY is set: this buys two pictures from the real Pictory with {CHEAPEST.name}, "
        f"for {2 * CHEAPEST.credits:g} AI credits, and uploads the first one, which Pictory makes public."
    )
    if os.environ.get("YES") == "1":
        return True
    if not sys.stdin.isatty():
        print("Set YES=1 to agree, or unset PICTORY_API_KEY for the simulator.")
        return False
    return input("Go on? [y/N] ").strip().lower() in ("y", "yes")


def _dags_of_ui() -> Path:
    """Return a folder with the example DAGs and the DAG with all kinds of pictures."""
    folder = ROOT / ".demo" / "dags-ui"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in (*(ROOT / "dags").iterdir(), ROOT / "demo" / "dags" / f"{UI_DAG}.py"):
        (folder / file.name).symlink_to(file)
    return folder


def _home(name: str) -> Path:
    return ROOT / ".demo" / f"airflow-{name}"


class Terminated(BaseException):
    """The demo received SIGTERM or SIGHUP."""

    def __init__(self, number: int) -> None:
        self.number = number


def _end(number: int, _: Any) -> NoReturn:
    raise Terminated(number)


class Clock:
    """Prints lines with the time since the start, and dots between them."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._ticks = 0

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._begun

    def say(self, text: str) -> None:
        """Print a line."""
        if self._ticks:
            print()
        self._ticks = 0
        print(f"  {int(self.seconds) // 60}:{int(self.seconds) % 60:02}  {text}", flush=True)

    def tick(self) -> None:
        """Print a dot."""
        print("." if self._ticks else "        .", end="", flush=True)
        self._ticks += 1


if __name__ == "__main__":
    sys.exit(main())
