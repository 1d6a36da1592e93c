# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests with two hundred pictures on Celery workers, while a worker and a triggerer are killed and Pictory refuses."""

from __future__ import annotations

import io
import time
from collections import Counter

import psycopg2
import pytest
from PIL import Image

from pictory_provider.core.submission import KEY
from tests.distributed.conftest import ACCESS_KEY, load

DAG_ID = "distributed_pictures"
SLOW_FOR = 60.0


ROWS = load(DAG_ID).ROWS


def wait_until(airflow, condition, timeout=600):
    for _ in airflow.until(timeout):
        if condition():
            return
    raise AssertionError("not within the timeout")


def states(airflow, run, task_id) -> Counter:
    return Counter(task["state"] for task in airflow.tasks(*run) if task["task_id"] == task_id)


def holdings(database: str) -> dict[str, int]:
    """Return the number of triggers of each triggerer; the one that was started first has the lower id."""
    with psycopg2.connect(database) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id FROM job WHERE job_type = 'TriggererJob' ORDER BY id")
        names = dict(zip((row[0] for row in cursor.fetchall()), ("triggerer", "triggerer-2"), strict=True))
        cursor.execute("SELECT triggerer_id, count(*) FROM trigger GROUP BY triggerer_id")
        held = dict(cursor.fetchall())
    return {name: held.get(triggerer, 0) for triggerer, name in names.items()}


def adopt_unknown(airflow, pictory, run) -> int:
    """Adopt each job with an unknown outcome as its error says, and return how many there were.

    A worker that is killed between the POST and the reply sometimes leaves one.
    """
    lost = [task for task in airflow.tasks(*run) if task["task_id"] == "generate" and task["state"] == "failed"]
    bought = {job.body["prompt"]: job.job_id for job in pictory.account.jobs.values()}
    dag_id, run_id = run
    for task in lost:
        log = airflow.task_log(*run, "generate", try_number=task["try_number"], map_index=task["map_index"])
        assert "PictorySubmitOutcomeUnknown" in log
        if job_id := bought.get(ROWS[task["map_index"]]):
            store = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/generate/state-store/{KEY}"
            airflow.call("PUT", f"{store}?map_index={task['map_index']}", value={"jobId": job_id})
    if lost:
        airflow.call(
            "POST",
            f"/dags/{dag_id}/clearTaskInstances",
            dry_run=False,
            dag_run_id=run_id,
            task_ids=[["generate", task["map_index"]] for task in lost],
            include_downstream=True,
            only_failed=True,
            reset_dag_runs=True,
        )
    return len(lost)


@pytest.fixture(scope="module")
def run(airflow, pictory, storage, request):
    """Run the DAG, kill a worker and a triggerer, and let Pictory refuse requests for a while."""
    pictory.account.seconds = 3600  # until every job has a trigger
    run = DAG_ID, airflow.trigger(DAG_ID)
    begun = time.monotonic()

    captured = request.config.pluginmanager.getplugin("capturemanager")

    def report(text: str) -> None:
        with captured.global_and_fixture_disabled():
            print(f"\n  {time.monotonic() - begun:4.0f} s  {text}", end="", flush=True)

    wait_until(airflow, lambda: len(pictory.account.jobs) >= len(ROWS) / 2)
    airflow.kill_component("worker-1")
    report(f"{len(pictory.account.jobs)} pictures are submitted; a worker is killed")

    wait_until(airflow, lambda: len(pictory.account.jobs) >= len(ROWS) * 3 / 4)
    pictory.script("any", "rate-limited", times=-1, retry_after=10)
    report(f"{len(pictory.account.jobs)} pictures are submitted; Pictory answers 429")
    slow_until = time.monotonic() + SLOW_FOR
    wait_until(airflow, lambda: time.monotonic() > slow_until)
    pictory.clear_faults()
    refused = sum(request.status == 429 for request in pictory.requests)
    report(f"Pictory works again, after {refused} refusals")

    def all_are_waited_for() -> bool:
        return states(airflow, run, "wait")["deferred"] == len(ROWS)

    # No task waits before every row is submitted, so an unknown outcome ends the run here.
    wait_until(airflow, lambda: all_are_waited_for() or airflow.run_state(*run) == "failed", timeout=1200)
    if unknown := adopt_unknown(airflow, pictory, run):
        report(f"{unknown} submissions of the killed worker have an unknown outcome; their jobs are adopted")
    wait_until(airflow, all_are_waited_for, timeout=1200)
    held = holdings(airflow.database)
    airflow.kill_component(max(held, key=held.get))
    report(f"{len(ROWS)} jobs have triggers: {held}; the busier triggerer is killed")
    for job in pictory.account.jobs.values():
        job.seconds = 0

    airflow.finish(*run, timeout=1800)
    report(f"{len(storage.objects)} pictures are saved")
    return run, refused, held


def test_every_task_succeeds(airflow, run):
    (dag_id, run_id), *_ = run
    assert airflow.run_state(dag_id, run_id) == "success"
    for task_id in ("generate", "wait", "save"):
        assert states(airflow, (dag_id, run_id), task_id) == {"success": len(ROWS)}


def test_every_picture_is_billed_once(pictory, run):
    billed = Counter(job.body["prompt"] for job in pictory.account.jobs.values())
    assert billed == dict.fromkeys(ROWS, 1)
    assert pictory.account.credits_used == pytest.approx(0.6 * len(ROWS))


def test_every_picture_is_saved_under_its_row(storage, run):
    assert set(storage.objects) == {f"rows/{number}.png" for number in range(len(ROWS))}
    assert len(set(storage.objects.values())) == len(ROWS)
    for content in storage.objects.values():
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
            assert picture.format == "PNG"


def test_the_storage_was_used_with_the_access_key_of_the_connection(storage, run):
    assert storage.access_keys == {"a-reader", ACCESS_KEY}


def test_pictory_has_refused_requests(run):
    _, refused, _ = run
    assert refused > 0


def test_the_killed_triggerer_had_triggers_and_the_killed_worker_ran_tasks(airflow, run):
    _, _, held = run
    assert max(held.values()) > 0
    assert "distributed_pictures" in (airflow.home / "worker-1.log").read_text(errors="replace")
