# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""``plan_only``: what is planned is what is then bought, to the credit, and a plan changes nothing anywhere."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
from contextlib import suppress
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowSkipException
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pictory_provider.core.picture_names import candidate_name
from pictory_provider.decorators.pictory import DecoratedImageOperator
from pictory_provider.exceptions import (
    PictoryBudgetExceeded,
    PictoryRequestInvalid,
    PictorySubmitOutcomeUnknown,
)
from pictory_provider.operators.pictory import GenerateImageOperator
from tests.driver import Attempts, Runs
from tests.provider.batches import Tries, billed

PROMPT = "A lighthouse at dawn"


@pytest.fixture(autouse=True)
def _impatient(impatient, timing):
    timing(read_budget=0.05)


def state_of(folder, attempts, pictory):
    """Return all that a plan might change: files with their times, the task state store, and the account."""
    found = {}
    for at, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(at) / name
            content = path.read_bytes() if path.is_file() else b""
            found[str(path)] = (path.lstat().st_mtime_ns, hashlib.sha256(content).hexdigest())
    store = json.dumps(attempts.store.rows, sort_keys=True, default=str) if attempts.store else None
    writes = [(request.method, request.path) for request in pictory.requests if request.method != "GET"]
    return found, store, writes, pictory.account.credits_used


def plan(attempts, *args, **kwargs):
    """Return the plan of the next attempt, and the error that it ended with; ``None`` if it was skipped."""
    error = None
    try:
        attempts(*args, **kwargs, plan_only=True)
    except AirflowSkipException:
        pass
    except Exception as found:
        error = found
    else:
        raise AssertionError("a plan was carried out")
    attempts.try_number -= 1  # the same attempt is to follow
    return attempts.ti.xcoms.get("plan"), error


# One picture --------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    return tmp_path / "covers" / "a.png"


@pytest.fixture
def runs(path):
    def make(**kwargs):
        arguments = {"task_id": "cover", "prompt": PROMPT, "path": str(path), "deferrable": False, **kwargs}
        return GenerateImageOperator(**arguments)

    return make


def test_a_plan_of_one_picture_says_what_happens_then(fast, runs, path):
    attempts = Attempts(runs)
    before = state_of(path.parent.parent, attempts, fast)
    found, error = plan(attempts, model="flux-schnell")
    assert (found["to_buy"], found["price"], error) == (1, 0.6, None)
    assert found["is_writing_tried"] is False
    assert state_of(path.parent.parent, attempts, fast) == before
    attempts(model="flux-schnell")
    again = Attempts(runs, run_id="second")
    found, error = plan(again, model="flux-schnell")
    assert (found["to_buy"], found["reused"], found["price"], error) == (0, 1, 0.0, None)
    found, error = plan(again, model="flux-schnell", prompt="Another lighthouse")
    assert found["refused"] == 1
    assert isinstance(error, PictoryRequestInvalid)
    found, error = plan(again, model="flux-schnell", prompt="Another lighthouse", overwrite="changed")
    assert (found["to_buy"], error) == (1, None)
    assert fast.account.credits_used == 0.6


def test_a_plan_over_a_limit_ends_as_the_task_would(fast, runs):
    attempts = Attempts(runs)
    found, error = plan(attempts, max_credits=1)
    assert (found["to_buy"], found["not_bought"]) == (0, 1)
    assert found["limits"] == [{"limit": "max_credits", "left": 1.0}]
    assert isinstance(error, PictoryBudgetExceeded)
    found, error = plan(attempts, max_credits=1, on_budget="skip")
    assert error is None


def test_a_plan_of_a_job_on_record_adopts_and_of_an_unknown_outcome_fails(fast, runs, tmp_path):
    attempts = Attempts(runs)
    fast.script("submit", "drop-after")
    with pytest.raises(PictorySubmitOutcomeUnknown):
        attempts()
    before = state_of(tmp_path, attempts, fast)
    found, error = plan(attempts)
    assert found["unknown"] == 1
    assert isinstance(error, PictorySubmitOutcomeUnknown)
    assert state_of(tmp_path, attempts, fast) == before
    other = Attempts(runs, run_id="other")
    fast.script("picture", "server-error", times=-1)
    with pytest.raises(Exception, match="could not be"):
        other(path=str(tmp_path / "b.png"))
    before = state_of(tmp_path, other, fast)
    found, error = plan(other, path=str(tmp_path / "b.png"))
    assert (found["adopted"], error) == (1, None)
    assert state_of(tmp_path, other, fast) == before


def test_a_plan_that_may_submit_an_unknown_request_again_counts_it(fast, runs, tmp_path):
    attempts = Attempts(runs)
    fast.script("submit", "drop-after")
    with pytest.raises(PictorySubmitOutcomeUnknown):
        attempts()
    before = state_of(tmp_path, attempts, fast)
    found, error = plan(attempts, on_unknown_submit="resubmit")
    assert (found["to_buy"], found["unknown"], error) == (1, 0, None)
    assert state_of(tmp_path, attempts, fast) == before
    attempts(on_unknown_submit="resubmit")
    assert billed(fast) == {PROMPT: 2}


def test_a_plan_of_a_decorated_task_calls_its_function(fast, tmp_path):
    called = []

    def prompt():
        called.append(1)
        return PROMPT

    def make(**kwargs):
        return DecoratedImageOperator(task_id="d", python_callable=prompt, path=str(tmp_path / "a.png"), **kwargs)

    found, error = plan(Attempts(make), model="flux-schnell")
    assert (found["to_buy"], found["price"], error, called) == (1, 0.6, None, [1])


@pytest.mark.parametrize("on", [True, "True", "true"])
def test_a_template_may_turn_it_on(fast, runs, on):
    with pytest.raises(AirflowSkipException, match="The plan for 1 picture: 1 to buy for 2 AI credits as listed"):
        Attempts(runs)(plan_only=on)
    assert fast.submissions == []


@pytest.mark.parametrize("unclear", ["", "None", "yes", 1, None])
def test_what_is_neither_true_nor_false_is_refused(fast, runs, unclear, folder):
    for attempts, args in ((Attempts(runs), ()), (Tries(folder), ([PROMPT],))):
        with pytest.raises(PictoryRequestInvalid, match="plan_only is "):
            attempts(*args, plan_only=unclear)
    assert fast.submissions == []


def test_off_is_off(fast, runs):
    assert Runs(runs)("first", plan_only="False")["reused"] is False


# A batch ------------------------------------------------------------------------------------------------


def test_a_plan_of_a_batch_names_each_kind(fast, folder, capsys):
    Tries(folder)([{"prompt": "A lamp", "file_name": "a.png"}])
    rows = [
        {"prompt": "A lamp", "file_name": "a.png"},
        {"prompt": "A mug", "file_name": "b.png"},
        {"prompt": "abc", "file_name": "c.png"},
        {"prompt": "", "file_name": "d.png"},
    ]
    second = Tries(folder).of_another_run("second")
    arguments = {"skip_blank": "prompt", "on_bad_row": "skip", "model": "flux-schnell"}
    before = state_of(folder, second, fast)
    found, error = plan(second, rows, **arguments | {"model": "seedream3.0"}, fail_on_partial_error=False)
    assert state_of(folder, second, fast) == before
    counts = {name: found[name] for name in ("of", "to_buy", "reused", "failed", "skipped", "price")}
    assert counts == {"of": 3, "to_buy": 1, "reused": 1, "failed": 1, "skipped": 1, "price": 2.0}
    assert error is None
    log = capsys.readouterr().out
    assert "To buy: b.png." in log
    assert "Reused: a.png." in log
    found, error = plan(second, rows, **arguments | {"model": "seedream3.0"})
    assert isinstance(error, PictoryRequestInvalid)
    assert "row 2: prompt has 3 characters" in str(error)


def test_a_plan_leaves_failed_jsonl_alone_and_makes_no_folder(fast, folder, tmp_path):
    found, error = plan(Tries(folder), [PROMPT])
    assert (found["to_buy"], error) == (1, None)
    assert not folder.exists()
    found, error = plan(Tries(folder), ["abc"])
    assert (found, type(error)) == (None, PictoryRequestInvalid)
    with pytest.raises(PictoryRequestInvalid):
        Tries(folder)([PROMPT], max_in_flight=0, plan_only=True)
    assert not folder.exists()


FOLDERS = itertools.count()
KINDS = st.sampled_from(["same", "changed", "new", "bad", "blank", "foreign"])


def changed(kinds, before, models, folder):
    """Return the table of the next run.

    :param folder: where a file of another program may be; ``None`` for nowhere.
    """
    rows = {row["file_name"]: row for row in before}
    table = []
    for n, kind in enumerate(kinds):
        row = rows.get(f"{n}.png") or {
            "prompt": f"A mug, number {n}",
            "file_name": f"{n}.png",
            "model": models[n % 3],
        }
        if kind == "changed":
            row = {**row, "prompt": f"A corrected lamp {n}"}
        elif kind in ("bad", "blank"):
            row = {**row, "prompt": "ab" if kind == "bad" else ""}
        elif kind == "foreign" and folder:
            folder.mkdir(exist_ok=True)
            (folder / f"{n}.png").write_bytes(b"mine")
        table.append(row)
    return table


@settings(
    max_examples=25,
    phases=[Phase.explicit, Phase.generate],
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    kinds=st.lists(KINDS, min_size=1, max_size=14),
    seed=st.integers(0, 999),
    max_credits=st.sampled_from([None, 0, 1, 2.4, 7, 100]),
    on_budget=st.sampled_from(["fail", "skip", "partial"]),
    overwrite=st.sampled_from([False, True, "changed"]),
    on_bad_row=st.sampled_from(["fail", "skip"]),
    ended=st.booleans(),
    candidates=st.sampled_from([(1, 1), (1, 3), (2, 2), (2, 3), (3, 2)]),
    trouble=st.sampled_from([None, None, ("picture", "server-error", -1), ("submit", "drop-after", 1)]),
)
def test_what_is_planned_is_what_is_then_bought_to_the_credit(
    fast, tmp_path, kinds, seed, max_credits, on_budget, overwrite, on_bad_row, ended, candidates, trouble
):
    had, candidates = candidates
    chance = random.Random(seed)
    fast.reset()
    folder = tmp_path / str(next(FOLDERS))
    models = ["flux-schnell", "seedream3.0", "nanobanana"]
    before = [
        {"prompt": f"A lamp, number {n}", "file_name": f"{n}.png", "model": chance.choice(models)}
        for n, kind in enumerate(kinds)
        if kind in ("same", "changed")
    ]
    if before:
        if trouble:
            fast.script(*trouble[:2], times=trouble[2])
        first = Tries(folder)
        first.try_number = first.max_tries  # its last try
        with suppress(AirflowException):
            first(before, candidates=had)
        fast.clear_faults()
    table = changed(kinds, before, models, folder if ended else None)
    arguments = {
        "max_credits": max_credits,
        "on_budget": on_budget,
        "overwrite": overwrite,
        "on_bad_row": on_bad_row,
        "skip_blank": "prompt",
        "max_in_flight": 4,
        "candidates": candidates,
    }
    attempts = Tries(folder).of_another_run("second")
    was = state_of(folder, attempts, fast)
    found, planned_error = plan(attempts, table, **arguments)
    assert state_of(folder, attempts, fast) == was
    submitted, used = len(fast.submissions), fast.account.credits_used
    error = None
    try:
        attempts(table, **arguments)
    except AirflowSkipException:
        pass
    except Exception as failed:
        error = failed
    bought, spent = len(fast.submissions) - submitted, round(fast.account.credits_used - used, 6)
    if found is None:
        assert (bought, type(error)) == (0, type(planned_error))
        return
    assert (found["to_buy"], round(found["price"], 6)) == (bought, spent)
    assert (error is None) == (planned_error is None), (error, planned_error)
    if error is not None:
        assert type(error) is type(planned_error)
    elif candidates > 1 and bought:
        prompts = {submission.body["prompt"] for submission in fast.submissions[submitted:]}
        for row in (row for row in table if row["prompt"] in prompts):
            made = [folder / candidate_name(row["file_name"], n) for n in range(1, candidates + 1)]
            assert all(file.exists() for file in made)


# As much as the limits allow ----------------------------------------------------------------------------


def rows(number, **more):
    return [{"prompt": f"A lamp, number {n}", "file_name": f"{n:03d}.png", **more} for n in range(number)]


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_table_is_worked_off_from_the_top_with_a_limit_for_each_run(fast, folder, deferrable):
    arguments = {"max_credits": 7, "on_budget": "partial", "deferrable": deferrable}
    for night, (saved, reused) in enumerate([(3, 0), (3, 3), (2, 6), (0, 8)]):
        result = Tries(folder).of_another_run(f"night {night}")(rows(8), **arguments)
        assert (result["saved"], result["reused"], result["not_bought"]) == (saved, reused, 8 - saved - reused)
        names = sorted(file.name for file in folder.glob("*.png"))
        assert names == [f"{n:03d}.png" for n in range(saved + reused)]
    assert billed(fast) == {row["prompt"]: 1 for row in rows(8)}


def test_a_limit_of_the_connection_is_obeyed_in_the_same_way(fast, folder, monkeypatch):
    monkeypatch.setenv(
        "AIRFLOW_CONN_PICTORY_DEFAULT", fast.connection_json(credits_per_day=5, requests_per_second=500)
    )
    result = Tries(folder)(rows(4), on_budget="partial")
    assert (result["saved"], result["not_bought"]) == (2, 2)
    monkeypatch.setenv(
        "AIRFLOW_CONN_PICTORY_DEFAULT", fast.connection_json(credits_per_day=7, requests_per_second=500)
    )
    result = Tries(folder).of_another_run("later")(rows(4), on_budget="partial")
    assert (result["saved"], result["reused"], result["not_bought"]) == (1, 2, 1)


def test_nothing_at_all_is_a_good_end_too(fast, folder):
    result = Tries(folder)(rows(2), max_credits=1, on_budget="partial")
    assert (result["saved"], result["not_bought"]) == (0, 2)
    lines = [json.loads(line) for line in (folder / "failed.jsonl").read_text().splitlines()]
    assert {line["code"] for line in lines} == {"OVER_LIMIT"}
    assert lines[0]["what_to_do"].startswith(
        "Nothing was spent on it. The next run, or a clear of the task, buys it"
    )
    assert fast.submissions == []


def test_a_cheaper_row_below_one_that_is_too_dear_is_not_bought(fast, folder):
    table = [
        *rows(1),
        {"prompt": "A dear lamp", "model": "nanobanana-pro"},
        {"prompt": "A lamp", "model": "flux-schnell"},
    ]
    result = Tries(folder)(table, max_credits=3, on_budget="partial")
    assert (result["saved"], result["not_bought"]) == (1, 2)


def test_rows_that_have_failed_before_come_last(fast, folder):
    fast.plan("failed")
    one_try = Tries(folder)
    one_try(rows(3), max_credits=2, on_budget="partial", fail_on_partial_error=False)
    one_try.clear()
    result = one_try(rows(3), max_credits=4, on_budget="partial", fail_on_partial_error=False)
    assert (result["saved"], result["not_bought"]) == (2, 1)
    assert not (folder / "000.png").exists()


def test_a_clear_goes_on_and_a_retry_spends_no_more(fast, folder):
    one_try = Tries(folder)
    arguments = {"max_credits": 4, "on_budget": "partial"}
    assert one_try(rows(5), **arguments)["saved"] == 2
    assert one_try(rows(5), **arguments)["not_bought"] == 3
    one_try.clear()
    assert one_try(rows(5), **arguments)["not_bought"] == 1
    assert len(fast.submissions) == 4


def test_what_a_limit_cannot_decide_stays_an_error(fast, folder, runs):
    with pytest.raises(PictoryRequestInvalid, match="The price of 'new' is not known"):
        Tries(folder)(rows(1, model="new"), max_credits=5, on_budget="partial", allow_unlisted=True)
    with pytest.raises(PictoryRequestInvalid, match="on_budget is 'partial'; it takes one of fail, skip"):
        Attempts(runs)(on_budget="partial")
    assert fast.submissions == []
