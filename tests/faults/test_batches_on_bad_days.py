# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests of batches of two hundred rows with faults, in a real Airflow: bills, saved pictures, manifests and logs."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from demo.stack import AirflowStack
from pictory_provider.simulator import Simulator, painting
from tests.faults.conftest import CANARY, DAGS, load

days = load("faults_batch_bad_days")
MINUTE = 65.0


@pytest.fixture(scope="module")
def crowd():
    """Return a separate account with a single picture for all jobs, because drawing takes most of the time."""
    picture = painting.paint({"prompt": "One of many", "model": "m", "aspectRatio": "1:1"}, (1024, 1024))
    paint, painting.paint = painting.paint, lambda *_: picture
    with Simulator(seconds=1, api_key=CANARY) as pictory:
        yield pictory
    painting.paint = paint


@pytest.fixture(scope="module")
def markers(tmp_path_factory):
    return tmp_path_factory.mktemp("markers")


@pytest.fixture(scope="module")
def stack(crowd, markers, tmp_path_factory):
    env = {
        "AIRFLOW_CONN_PICTORY_CROWD": crowd.connection_json(requests_per_second=40),
        "FAULTS_MARKERS": str(markers),
    }
    with AirflowStack(tmp_path_factory.mktemp("bad_days") / "home", DAGS, env=env) as stack:
        yield stack


def begin(stack, day):
    return f"faults_{day}", stack.trigger(f"faults_{day}")


def bills(crowd, day):
    """Return how often each row was billed."""
    prompts = Counter(job.body["prompt"] for job in crowd.account.jobs.values())
    return [prompts[days.prompt(day, number)] for number in range(days.ROWS)]


def listed(folder, name):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def check_whole(folder, number):
    """Check that the manifest names this number of pictures, and that each file has its digest."""
    lines = listed(folder, "metadata.jsonl")
    assert len(lines) == len({line["file_name"] for line in lines}) == len(list(folder.glob("*.png"))) == number
    for line in lines:
        assert hashlib.sha256((folder / line["file_name"]).read_bytes()).hexdigest() == line["sha256"]


def until(stack, happens, timeout=240):
    for _ in stack.until(timeout):
        if happens():
            return
    raise AssertionError("not within the timeout")


def saved(folder):
    return len(list(folder.glob("*.png")))


def log_of(stack, run):
    """Return the log lines of the first attempt."""
    folder = f"dag_id={run[0]}"
    (file,) = (stack.home / "logs" / folder).rglob("attempt=1.log")
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_if_every_tenth_job_fails_the_others_are_saved_and_the_short_log_names_the_failed_ones(
    stack, crowd, markers
):
    run = begin(stack, "every_tenth_fails")
    assert stack.finish(*run, timeout=300) == {"pictures": "failed"}
    folder = markers / "bad_days/every_tenth_fails"
    assert stack.tasks(*run)[0]["try_number"] == 1, "a failed row is no reason for a retry"
    assert bills(crowd, "every_tenth_fails") == [1] * days.ROWS
    check_whole(folder, days.ROWS * 9 // 10)
    failed = listed(folder, "failed.jsonl")
    assert [line["index"] for line in failed] == list(range(3, days.ROWS, 10))
    assert {line["code"] for line in failed} == {"IMAGE_GENERATION_FAILED"}
    progress = stack.xcom(*run, "pictures", "progress")
    assert (progress["saved"], progress["failed"]) == (180, 20)
    log = log_of(stack, run)
    assert sum("IMAGE_GENERATION_FAILED" in line["event"] for line in log) == 20
    assert len(log) < 60
    assert "20 of 200 rows have no picture" in json.dumps(log[-3:])


def test_a_minute_of_refusals_loses_no_picture_and_a_retry_buys_the_rest(stack, crowd, markers):
    run = begin(stack, "refused")
    until(stack, lambda: sum(bills(crowd, "refused")) >= 40)
    crowd.script("submit", "rate-limited", times=-1)
    begun = time.monotonic()
    until(stack, lambda: time.monotonic() - begun > MINUTE)
    crowd.clear_faults()
    assert stack.finish(*run, timeout=300) == {"pictures": "success"}
    assert bills(crowd, "refused") == [1] * days.ROWS
    check_whole(markers / "bad_days/refused", days.ROWS)


def test_a_folder_that_is_unavailable_for_a_while_loses_no_picture(stack, crowd, markers):
    folder = markers / "bad_days/gone"
    folder.parent.mkdir(exist_ok=True)
    (markers / "disk").mkdir()
    (markers / "nothing").touch()
    point_link(folder, markers / "disk")
    run = begin(stack, "gone")
    until(stack, lambda: saved(folder) >= 20)
    point_link(folder, markers / "nothing")
    begun = time.monotonic()
    # Shorter than the time for which jobIds are kept in memory when the record cannot be written.
    until(stack, lambda: time.monotonic() - begun > 4)
    point_link(folder, markers / "disk")
    assert stack.finish(*run, timeout=300) == {"pictures": "success"}
    assert bills(crowd, "gone") == [1] * days.ROWS
    check_whole(markers / "disk", days.ROWS)


def point_link(link, to):
    """Make a symbolic link point to another target, atomically."""
    other = Path(f"{link}.new")
    other.symlink_to(to)
    os.replace(other, link)


@pytest.fixture
def small_disk(markers):
    """Mount a disk of a few megabytes, and return a function that makes it larger."""
    folder = markers / "bad_days/full"
    folder.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], check=False)
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    yield lambda: subprocess.run(["mount", "-o", "remount,size=500m", str(folder)], check=True)
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_loses_no_picture_and_the_error_says_what_a_retry_does(stack, crowd, markers, small_disk):
    folder = markers / "bad_days/full"
    run = begin(stack, "full")
    until(stack, lambda: stack.tasks(*run)[0]["state"] in ("up_for_retry", "failed"))
    log = json.dumps(log_of(stack, run))
    assert "No space left on device" in log
    small_disk()
    states = stack.finish(*run, timeout=300)
    billed = bills(crowd, "full")
    assert max(billed) == 1
    assert states == {"pictures": "success"}
    assert billed == [1] * days.ROWS
    check_whole(folder, days.ROWS)
    assert "paid for" in log
