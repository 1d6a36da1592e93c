# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests every fault of the simulator with every kind of request: the task's outcome, and what was billed.

The results are a table in docs/reliability.md, which ``python -m tests.faults.test_every_fault`` updates.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pictory_provider.api.timing import TIMING
from pictory_provider.hooks.pictory import PictoryHook
from pictory_provider.operators.pictory import DownloadImageOperator, GenerateImageOperator
from pictory_provider.sensors.pictory import PictoryJobSensor
from pictory_provider.simulator import FAULTS, Simulator
from tests.faults.conftest import CANARY
from tests.stand_ins import StateStore, TaskInstance

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- begin every fault -->\n", "<!-- end every fault -->"
PROMPT = "A lighthouse at dawn"


@dataclass(frozen=True)
class Case:
    """One fault at one moment: before the work, during the reply, or after the work."""

    what: str
    moment: str
    fault: str
    options: dict[str, Any]


AWAY = "images_away"
"""A setting of the simulator instead of a fault: the API still answers."""
STATUSES = {
    "unavailable": (503,),
    "server-error": (408, 409, 410, 425, 451, 499, 500, 501, 502, 504, 508, 511, 520, 524, 599),
    "redirect": (300, 301, 302, 303, 304, 307, 308),
}
CASES = [
    Case("connection closed", "before", "drop-before", {}),
    Case("connection closed", "during", "drop-during", {}),
    Case("connection closed", "after", "drop-after", {}),
    Case("connection reset", "before", "drop-before", {"reset": "yes"}),
    Case("connection reset", "after", "drop-after", {"reset": "yes"}),
    Case("reply too late", "before", "slow", {"seconds": 1.2}),
    Case("reply too late", "during", "drip", {"seconds": 0.2}),
    Case("reply too late", "after", "slow-reply", {"seconds": 1.2}),
    Case("429", "before", "rate-limited", {}),
    Case("429 with a date", "before", "rate-limited", {"retry_after": "Wed, 21 Oct 2015 07:28:00 GMT"}),
    *(
        Case(str(status), moment, fault, {"status": status, "accepted": accepted})
        for fault, statuses in STATUSES.items()
        for status in statuses
        for moment, accepted in (("before", "no"), ("after", "yes"))
    ),
    Case("401", "before", "unauthorized", {}),
    Case("403 with JSON", "before", "forbidden", {}),
    Case("403 with a page", "before", "edge-block", {}),
    Case("200 with a page", "after", "garbage", {}),
    Case("200 with {}", "after", "empty", {}),
    Case("picture cut short", "after", "truncated", {}),
    Case("picture is a page", "after", "not-a-png", {}),
    Case("picture of another size", "after", "wrong-size", {}),
    Case("picture is a JPEG", "after", "jpeg", {}),
    Case("picture is a WebP", "after", "webp", {}),
    Case("picture and a line break", "after", "trailing", {}),
    Case("picture damaged", "after", "damaged", {}),
    Case("pictures' host away", "before", AWAY, {}),
]
LATE = ("slow", "slow-reply", "drip")
OF_A_PICTURE = (AWAY, "truncated", "not-a-png", "wrong-size", "jpeg", "webp", "trailing", "damaged")


@contextmanager
def impatient() -> Iterator[None]:
    """Disable repeated requests, so that each fault has its direct effect, and shorten downloads."""
    patched = pytest.MonkeyPatch()
    patched.setattr(TIMING, "download", 0.8)
    patched.setattr(TIMING, "resend_budget", 0.0)
    patched.setattr(TIMING, "read_budget", 0.0)
    patched.setattr(TIMING, "poll_interval_min", 0.0)
    yield
    patched.undo()


class Verdicts:
    """Run requests against a fault, and describe the outcome in a few words."""

    def __init__(self, pictory: Simulator) -> None:
        self.pictory = pictory
        self.texts: list[str] = []

    def ending(self, call: Any) -> str:
        try:
            call()
        except Exception as error:
            self.texts += [str(error), repr(error), repr(error.__cause__)]
            return type(error).__name__
        return "success"

    def submit(self, case: Case) -> str:
        """Return how the first attempt ends, what was billed, and what the next attempt does."""
        self.pictory.reset()
        self.pictory.script("submit", case.fault, **case.options)
        context = {"ti": TaskInstance(), "task_state_store": StateStore()}
        operator = GenerateImageOperator(task_id="generate", prompt=PROMPT)
        first = self.ending(lambda: operator.execute(context))
        self._settle(case)
        billed = len(self.pictory.account.jobs)
        second = self.ending(lambda: operator.execute(context))
        again = len(self.pictory.account.jobs) - billed
        then = f"the next attempt submits {'it' if again else 'nothing'}"
        if second != "success":
            then += ", and reports it again"
        return f"{first}; {billed or 'none'} billed; {then}"

    def poll(self, case: Case) -> str:
        self.pictory.reset()
        with PictoryHook() as hook:
            job_id = hook.generate_image(PROMPT)
        self.pictory.script("job", case.fault, **case.options)
        sensor = PictoryJobSensor(task_id="wait", job_id=job_id, deferrable=False, poke_interval=0.01, timeout=30)
        ended = self.ending(lambda: sensor.execute({"ti": TaskInstance()}))
        return "waits on, success" if ended == "success" else ended

    def download(self, case: Case) -> str:
        self.pictory.reset()
        with PictoryHook() as hook:
            job_id = hook.generate_image(PROMPT)
        if case.fault == AWAY:
            self.pictory.set(images_away=1)
        else:
            self.pictory.script("picture", case.fault, **case.options)
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "a.png"
            operator = DownloadImageOperator(task_id="save", job_id=job_id, path=str(target))
            ended = self.ending(lambda: operator.execute({}))
            saved = "saved" if target.exists() else "nothing saved"
            assert sorted(Path(folder).iterdir()) in ([], [target])
        return f"{ended}; {saved}"

    def row(self, case: Case) -> str:
        of_a_picture = case.fault in OF_A_PICTURE
        cells = (
            case.what,
            case.moment,
            "" if of_a_picture else self.submit(case),
            "" if of_a_picture else self.poll(case),
            self.download(case),
        )
        return f"| {' | '.join(cells)} |"

    def _settle(self, case: Case) -> None:
        """Wait until the simulator has carried out a request whose client has given up."""
        ended = time.monotonic() + 10
        while case.fault in LATE and not self.pictory.account.jobs and time.monotonic() < ended:
            time.sleep(0.01)


@contextmanager
def verdicts() -> Iterator[Verdicts]:
    with Simulator(seconds=0, api_key=CANARY) as pictory, impatient():
        os.environ["AIRFLOW_CONN_PICTORY_DEFAULT"] = pictory.connection_json(timeout=0.8)
        yield Verdicts(pictory)
        del os.environ["AIRFLOW_CONN_PICTORY_DEFAULT"]


def table(found: Verdicts) -> str:
    head = ["| fault | when | submission | poll | download |", "|---|---|---|---|---|"]
    return "\n".join([*head, *(found.row(case) for case in CASES)]) + "\n"


@pytest.fixture(scope="module")
def found():
    with verdicts() as found:
        found.table = table(found)
        yield found


def test_every_fault_of_the_simulator_is_in_the_table():
    assert {case.fault for case in CASES} == {*FAULTS, AWAY}


def test_the_table_in_the_docs_is_up_to_date(found):
    written = PAGE.read_text().split(BEGIN)[1].split(END)[0]
    assert written == found.table, "run `python -m tests.faults.test_every_fault`"


def test_no_fault_makes_a_task_pay_twice(found):
    for row in found.table.splitlines()[2:]:
        submission = row.split(" | ")[2]
        assert "2 billed" not in submission
        assert not ("1 billed" in submission and "the next attempt submits it" in submission), row


def test_the_key_is_in_no_text_of_any_error(found):
    assert len(found.texts) > 50
    assert [text for text in found.texts if CANARY in text] == []


if __name__ == "__main__":
    with verdicts() as results:
        updated = table(results)
    before, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(before + BEGIN + updated + END + rest.split(END)[1])
    sys.stdout.write(updated)
