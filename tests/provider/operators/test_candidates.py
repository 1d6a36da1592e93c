# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""``candidates``: several pictures of one request, each bought once, and all of them saved."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException, TaskDeferred
from airflow.sdk import Asset

from pictory_provider.decorators.pictory import DecoratedImageOperator
from pictory_provider.exceptions import (
    PictoryBudgetExceeded,
    PictoryJobFailed,
    PictoryRequestInvalid,
    PictorySubmitOutcomeUnknown,
    PictoryUnavailable,
)
from pictory_provider.operators.pictory import GenerateImageOperator
from pictory_provider.services.redo import redo
from tests.driver import Attempts, event_of
from tests.provider.batches import files
from tests.stand_ins import says

PROMPT = "A lighthouse at dawn"


@pytest.fixture(autouse=True)
def _impatient(impatient, timing):
    timing(read_budget=0.05)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "covers" / "a.png"


@pytest.fixture
def make(pictory, path):
    def operator(**kwargs):
        arguments = {"task_id": "cover", "prompt": PROMPT, "path": str(path), "candidates": 3, **kwargs}
        return GenerateImageOperator(**{"deferrable": False, "poll_interval": 0.01, **arguments})

    return operator


@pytest.fixture(params=["with a store", "without"])
def attempts(request, make):
    return Attempts(make, has_store=request.param == "with a store")


def bills(pictory):
    return len(pictory.account.jobs)


def end_all(pictory):
    """Let all jobs end."""
    for job in pictory.account.jobs.values():
        job.seconds = 0


def images(attempts):
    return attempts.ti.xcoms["images"]


def names(attempts):
    return [Path(image["path"]).name for image in images(attempts)]


# Three pictures of one request -------------------------------------------------------------------------


@pytest.mark.parametrize("deferrable", [True, False])
def test_each_candidate_is_bought_once_saved_and_reported(pictory, attempts, path, deferrable):
    covers = Asset("covers")
    result = attempts(deferrable=deferrable, outlets=[covers], model="flux-schnell")
    assert files(path.parent) == [f"a.{n}.png{suffix}" for n in (1, 2, 3) for suffix in ("", ".json")]
    assert result == attempts.ti.xcoms["jobId"] == attempts.ti.xcoms["return_value"] == list(pictory.account.jobs)
    assert [image["job_id"] for image in images(attempts)] == result
    for number, image in enumerate(images(attempts), start=1):
        saved = path.with_name(f"a.{number}.png")
        assert {**image, "url": None} == {
            "job_id": result[number - 1],
            "status": "completed",
            "url": None,
            "width": 1024,
            "height": 1024,
            "ai_credits_used": 0.6,
            "path": str(saved),
            "size": saved.stat().st_size,
            "sha256": hashlib.sha256(saved.read_bytes()).hexdigest(),
            "reused": False,
            "prompt": PROMPT,
            "model": "flux-schnell",
            "candidate": number,
        }
    extra = attempts.context["outlet_events"][covers].extra
    assert [image["path"] for image in extra["images"]] == [image["path"] for image in images(attempts)]
    assert not any("?" in image["url"] for image in extra["images"])
    assert attempts.task._lineage == (None, [image["path"] for image in images(attempts)])


def test_a_retry_a_clear_and_another_run_reuse_all(pictory, attempts):
    attempts()
    attempts()
    assert [image["reused"] for image in images(attempts)] == [False] * 3
    attempts.clear()
    attempts()
    other = attempts.of_another_run("second")
    other()
    assert [image["reused"] for image in images(other)] == [True] * 3
    assert bills(pictory) == 3


def test_more_candidates_buy_what_is_missing_and_fewer_remove_nothing(pictory, attempts, path):
    attempts(candidates=2)
    attempts.clear()
    attempts(candidates=4)
    assert (bills(pictory), [image["reused"] for image in images(attempts)]) == (4, [True, True, False, False])
    attempts.clear()
    attempts(candidates=2)
    assert (bills(pictory), len(images(attempts)), len(files(path.parent))) == (4, 2, 8)


def test_a_candidate_that_is_moved_aside_is_bought_alone_by_a_retry_a_clear_and_another_run(
    pictory, attempts, path
):
    attempts()
    for number, run in enumerate((attempts, attempts, attempts.of_another_run("second")), start=1):
        redo(str(path.with_name("a.2.png")))
        if number == 2:
            attempts.clear()
        run()
        assert bills(pictory) == 3 + number
        assert path.with_name(f"a.2.v{number}.png").exists()
    assert [image["reused"] for image in images(run)] == [True, False, True]


def test_what_was_reused_before_a_deferral_is_described_after_it(pictory, attempts):
    attempts(candidates=1)
    attempts.clear()
    attempts(candidates=2)
    attempts.clear()
    pictory.account.seconds = 3600
    attempts.begin(deferrable=True)
    with pytest.raises(TaskDeferred) as deferral:
        attempts.task.execute(attempts.context)
    end_all(pictory)
    kwargs = {"event": event_of(deferral.value), **json.loads(json.dumps(deferral.value.kwargs))}
    attempts.make().execute_complete(attempts.context, **kwargs)
    assert [(image["reused"], image["prompt"]) for image in images(attempts)] == [
        (True, PROMPT),
        (True, PROMPT),
        (False, PROMPT),
    ]


def test_a_single_picture_counts_as_none_of_the_candidates(pictory, attempts, path):
    attempts(candidates=1)
    assert attempts.ti.xcoms["image"]["path"] == str(path)
    attempts.clear()
    attempts(candidates=2)
    assert (bills(pictory), names(attempts)) == (3, ["a.1.png", "a.2.png"])
    attempts.clear()
    attempts(candidates=1)
    assert (bills(pictory), attempts.ti.xcoms["image"]["reused"]) == (3, True)


@pytest.mark.parametrize("overwrite", [True, "changed"])
def test_overwrite_replaces_all_candidates_as_it_does_a_single_picture(pictory, attempts, overwrite):
    attempts()
    attempts.clear()
    attempts(overwrite=overwrite, prompt="A lighthouse at night")
    assert bills(pictory) == 6
    attempts(overwrite=overwrite, prompt="A lighthouse at night")
    assert (bills(pictory), {image["prompt"] for image in images(attempts)}) == (6, {"A lighthouse at night"})
    attempts.clear()
    attempts(overwrite=overwrite, prompt="A lighthouse at night")
    assert bills(pictory) == (9 if overwrite is True else 6)


def test_the_decorated_function_is_called_once_for_all_candidates(pictory, path):
    calls = []

    def prompt():
        calls.append(1)
        return f"{PROMPT}, number {len(calls)}"

    arguments = {"task_id": "cover", "python_callable": prompt, "path": str(path), "candidates": 3}
    attempts = Attempts(lambda: DecoratedImageOperator(**arguments, deferrable=False))
    attempts()
    attempts()
    assert (calls, {job.body["prompt"] for job in pictory.account.jobs.values()}) == ([1], {f"{PROMPT}, number 1"})


# What is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, -1, 9, 2.0, True, "3", None])
def test_other_numbers_are_refused(pictory, attempts, number):
    with pytest.raises(PictoryRequestInvalid, match=says("candidates is")):
        attempts(candidates=number)
    assert pictory.requests == []


def test_candidates_without_a_path_are_refused(pictory, attempts):
    with pytest.raises(PictoryRequestInvalid, match=says("there is no path")):
        attempts(path=None)
    assert pictory.requests == []


def test_one_place_that_is_taken_prevents_all_purchases(pictory, attempts, path):
    path.parent.mkdir()
    path.with_name("a.3.png").write_bytes(b"mine")
    with pytest.raises(PictoryRequestInvalid, match=says("3 of 3 candidates have no picture")):
        attempts()
    assert (bills(pictory), files(path.parent)) == (0, ["a.3.png"])


@pytest.mark.parametrize("on_budget", ["fail", "skip"])
def test_the_price_of_all_is_compared_with_the_limit_before_the_first_purchase(pictory, attempts, on_budget):
    error = {"fail": PictoryBudgetExceeded, "skip": AirflowSkipException}[on_budget]
    with pytest.raises(error, match=says("The 3 pictures cost 6")):
        attempts(max_credits=5.9, on_budget=on_budget)
    assert bills(pictory) == 0
    attempts(max_credits=6)
    assert bills(pictory) == 3


def test_over_a_clear_only_what_is_missing_has_to_fit(pictory, attempts):
    attempts(max_credits=4, candidates=2)
    attempts.clear()
    attempts(max_credits=2)
    assert bills(pictory) == 3


def test_what_the_task_has_spent_on_each_candidate_counts_until_a_clear(pictory, attempts):
    attempts(max_credits=4, candidates=2)
    with pytest.raises(PictoryBudgetExceeded, match=says("this task has spent 4")):
        attempts(max_credits=5)
    assert bills(pictory) == 2


def test_a_plan_says_what_all_candidates_cost_and_changes_nothing(pictory, attempts, path):
    attempts(candidates=1)
    attempts.clear()
    attempts(candidates=2)
    before = files(path.parent)
    with pytest.raises(AirflowSkipException):
        attempts(plan_only=True, max_credits=100)
    found = attempts.ti.xcoms["plan"]
    assert (found["of"], found["to_buy"], found["reused"], found["price"]) == (3, 1, 2, 2)
    with pytest.raises(PictoryBudgetExceeded):
        attempts(plan_only=True, max_credits=1, candidates=8)
    found = attempts.ti.xcoms["plan"]
    assert (found["of"], found["to_buy"], found["not_bought"], found["reused"]) == (8, 0, 6, 2)
    assert (bills(pictory), files(path.parent)) == (3, before)


# What goes wrong ---------------------------------------------------------------------------------------


def test_an_unknown_outcome_stops_submissions_and_what_was_bought_is_saved(pictory, attempts, path):
    pictory.script("submit", "drop-after", every=2)
    with pytest.raises(PictorySubmitOutcomeUnknown) as failed:
        attempts()
    text = str(failed.value)
    assert "2 of 3 candidates have no picture" in text
    assert "Candidate 2 of 3: " in text
    assert "--candidate 2" in text
    assert "1 was not submitted" in text
    assert files(path.parent) == ["a.1.png", "a.1.png.json", "a.2.png.json"]
    assert bills(pictory) == 2
    with pytest.raises(PictorySubmitOutcomeUnknown):
        attempts()
    assert bills(pictory) == 2
    attempts.clear()
    attempts()
    assert (bills(pictory), len(images(attempts))) == (4, 3)


def test_resubmit_submits_an_unknown_candidate_once_more_in_an_attempt(pictory, attempts):
    pictory.script("submit", "drop-after", every=2)
    attempts(on_unknown_submit="resubmit")
    assert (bills(pictory), len(images(attempts))) == (4, 3)


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_job_that_fails_leaves_the_others_saved_and_a_clear_buys_it_alone(pictory, attempts, path, deferrable):
    pictory.plan("completed")
    pictory.plan("failed")
    with pytest.raises(PictoryJobFailed, match=says("1 of 3 candidates has no picture")):
        attempts(deferrable=deferrable)
    saved = [name for name in files(path.parent) if name.endswith(".png")]
    assert (bills(pictory), saved) == (3, ["a.1.png", "a.3.png"])
    attempts.clear()
    attempts(deferrable=deferrable)
    assert (bills(pictory), [image["reused"] for image in images(attempts)]) == (4, [True, False, True])


def test_an_error_before_the_deferral_is_raised_after_it(pictory, attempts, path):
    pictory.account.seconds = 3600
    pictory.script("submit", "server-error", status=422, every=3)
    attempts.begin(deferrable=True)
    with pytest.raises(TaskDeferred) as deferral:
        attempts.task.execute(attempts.context)
    end_all(pictory)
    kwargs = {"event": event_of(deferral.value), **json.loads(json.dumps(deferral.value.kwargs))}
    task = attempts.make(deferrable=True, path="/elsewhere/b.png")
    with pytest.raises(PictoryRequestInvalid, match=says("Candidate 3 of 3:")):
        task.execute_complete(attempts.context, **kwargs)
    assert files(path.parent) == ["a.1.png", "a.1.png.json", "a.2.png", "a.2.png.json"]


def test_a_resumed_task_that_is_given_the_event_alone_saves_all(pictory, attempts, path):
    """``dag.test()`` passes nothing else on."""
    pictory.account.seconds = 3600
    attempts.begin(deferrable=True)
    with pytest.raises(TaskDeferred) as deferral:
        attempts.task.execute(attempts.context)
    end_all(pictory)
    assert len(attempts.make().execute_complete(attempts.context, event=event_of(deferral.value))) == 3
    assert (bills(pictory), names(attempts)) == (3, ["a.1.png", "a.2.png", "a.3.png"])


def test_a_deferral_that_airflow_ended_polls_all_jobs_once_more(pictory, attempts):
    pictory.account.seconds = 3600
    attempts.begin(deferrable=True)
    with pytest.raises(TaskDeferred):
        attempts.task.execute(attempts.context)
    end_all(pictory)
    attempts.make().resume_execution("__fail__", {"error": "Trigger timeout"}, attempts.context)
    assert (bills(pictory), len(images(attempts))) == (3, 3)


def test_a_picture_that_cannot_be_fetched_is_fetched_by_a_retry_and_bought_by_none(pictory, attempts):
    pictory.script("picture", "server-error", times=-1)
    with pytest.raises(PictoryUnavailable, match=says("3 of 3 candidates have no picture")):
        attempts()
    pictory.clear_faults()
    attempts()
    assert (bills(pictory), len(images(attempts))) == (3, 3)


def test_a_kill_is_reported_for_each_job(pictory, attempts, capsys):
    pictory.account.seconds = 3600
    attempts.begin(deferrable=True)
    with pytest.raises(TaskDeferred):
        attempts.task.execute(attempts.context)
    capsys.readouterr()
    attempts.task.on_kill()
    said = capsys.readouterr().out
    assert [said.count(f"Job {job_id} keeps running") for job_id in pictory.account.jobs] == [1] * 3


# Edits, other runs and files that move meanwhile ----------------------------------------------------------


def defer(attempts, pictory, **kwargs):
    """Run an attempt until it defers, let its jobs end, and return the arguments of its resumption."""
    pictory.account.seconds = 3600
    attempts.begin(deferrable=True, **kwargs)
    with pytest.raises(TaskDeferred) as deferral:
        attempts.task.execute(attempts.context)
    end_all(pictory)
    pictory.account.seconds = 0
    return {"event": event_of(deferral.value), **json.loads(json.dumps(deferral.value.kwargs))}


def pngs(path):
    return [name for name in files(path.parent) if name.endswith(".png")]


@pytest.mark.parametrize(("before", "after"), [(1, 3), (2, 3), (3, 2), (3, 1)])
def test_a_deferred_task_saves_what_it_has_bought_although_the_number_is_edited(
    pictory, attempts, path, before, after
):
    kwargs = defer(attempts, pictory, candidates=before)
    attempts.make(candidates=after).execute_complete(attempts.context, **kwargs)
    expected = ["a.png"] if before == 1 else [f"a.{number}.png" for number in range(1, before + 1)]
    assert pngs(path) == expected


@pytest.mark.parametrize(("before", "after"), [(1, 2), (3, 2), (3, 1)])
@pytest.mark.parametrize("is_cleared", [False, True])
def test_paid_pictures_of_another_number_are_not_left_behind(pictory, attempts, path, before, after, is_cleared):
    pictory.script("picture", "server-error", times=-1)
    with pytest.raises(PictoryUnavailable):
        attempts(candidates=before)
    pictory.clear_faults()
    if is_cleared:
        attempts.max_tries += 1
    with pytest.raises(PictoryRequestInvalid, match=says("is paid for, and its picture is not saved yet")):
        attempts(candidates=after)
    assert bills(pictory) == before
    attempts.max_tries += 1
    attempts(candidates=before)
    attempts.max_tries += 1
    attempts(candidates=after)
    assert bills(pictory) == len(pngs(path))


@pytest.mark.parametrize("is_known", [True, False])
def test_a_job_that_was_left_behind_can_be_given_up(pictory, attempts, path, is_known):
    pictory.plan("failed")
    pictory.script("picture", "server-error", times=-1)
    with pytest.raises(PictoryUnavailable):
        attempts(candidates=2)
    pictory.clear_faults()
    if not is_known:
        pictory.account.jobs.clear()
    with pytest.raises(PictoryRequestInvalid, match=says("To give it up, delete a.(1|2).png.json")):
        attempts(candidates=1)
    for number in (1, 2):
        path.with_name(f"a.{number}.png.json").unlink()
    attempts(candidates=1)
    assert pngs(path) == ["a.png"]


def test_what_another_run_has_paid_does_not_count_against_the_limits_of_this_one(
    pictory, attempts, make, path, monkeypatch
):
    attempts()
    redo(str(path.with_name("a.2.png")))
    attempts.of_another_run("second")(max_credits=2)
    assert bills(pictory) == 4
    monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", pictory.connection_json(credits_per_day=10))
    attempts.of_another_run("third")(candidates=4)
    assert bills(pictory) == 5


def test_a_resubmission_is_in_the_price_that_is_checked_before_the_first_purchase(pictory, attempts):
    pictory.script("submit", "drop-after")
    with pytest.raises(PictorySubmitOutcomeUnknown):
        attempts()
    before = bills(pictory)
    with pytest.raises(PictoryBudgetExceeded, match=says("The 3 pictures cost 6")):
        attempts(on_unknown_submit="resubmit", max_credits=6)
    assert bills(pictory) == before


def test_one_job_is_not_the_picture_of_two_candidates(pictory, attempts, path):
    attempts(candidates=2)
    sidecar = path.with_name("a.2.png.json")  # a user has recorded the job of the first one
    said = json.loads(sidecar.read_text()) | {"job_id": next(iter(pictory.account.jobs))}
    sidecar.write_text(json.dumps(said))
    with pytest.raises(PictoryRequestInvalid, match=says("is on record for candidate 1, too")):
        attempts.of_another_run("second")(candidates=2)
    assert bills(pictory) == 2


def test_an_unknown_outcome_is_reported_as_such_if_airflow_has_ended_the_deferral(pictory, attempts):
    pictory.script("submit", "drop-after", every=2)
    defer(attempts, pictory)
    with pytest.raises(PictorySubmitOutcomeUnknown, match=says("Candidate 2 of 3:")):
        attempts.make().resume_execution("__fail__", {"error": "Trigger timeout"}, attempts.context)


def test_a_limit_skips_the_task_after_a_deferral_too(pictory, attempts):
    pictory.script("picture", "server-error", times=-1)
    with pytest.raises(PictoryUnavailable):
        attempts(candidates=2)
    pictory.clear_faults()
    attempts.clear()
    for job in pictory.account.jobs.values():
        job.seconds = 3600
    arguments = {"candidates": 3, "max_credits": 1, "on_budget": "skip"}
    kwargs = defer(attempts, pictory, **arguments)
    with pytest.raises(AirflowSkipException):
        attempts.make(**arguments).execute_complete(attempts.context, **kwargs)


def test_a_picture_that_is_moved_while_the_task_waits_is_bought_by_the_retry(pictory, attempts, path):
    attempts(candidates=2)
    attempts.clear()
    kwargs = defer(attempts, pictory)
    redo(str(path.with_name("a.1.png")))
    with pytest.raises(PictoryUnavailable, match=says("was moved or replaced while the task waited")):
        attempts.make().execute_complete(attempts.context, **kwargs)
    attempts()
    assert (bills(pictory), names(attempts)) == (4, ["a.1.png", "a.2.png", "a.3.png"])
