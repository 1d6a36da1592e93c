# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests of the commands, called as a user calls them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import time
import uuid
from dataclasses import replace

import fsspec
import pytest

from pictory_provider import version_compat
from pictory_provider.__main__ import main
from pictory_provider.cli import access
from pictory_provider.cli.spending import by_day, by_kind, by_model, rows
from pictory_provider.core.attempt import MadeBy
from pictory_provider.core.sidecar import SavedFile, Sidecar
from pictory_provider.core.submission import Submission
from pictory_provider.exceptions import PictorySubmitOutcomeUnknown
from pictory_provider.operators.pictory import GenerateImageOperator
from pictory_provider.provider_info import get_provider_info
from pictory_provider.simulator import Simulator
from pictory_provider.storage.pictures import PictureTarget
from tests.driver import Attempts
from tests.provider.batches import painted
from tests.provider.waits import buy

ENTRIES = [
    {"type": "debit", "amount": 0.6, "description": "flux-schnell", "transactionDate": "2026-04-04T06:03:38Z"},
    {"type": "debit", "amount": 2, "description": "seedream3.0", "transactionDate": "2026-04-04T23:00:00Z"},
    {"type": "credit", "amount": 100, "source": "Monthly Reset", "transactionDate": "2026-04-01T00:00:00Z"},
    {"type": "debit", "amount": "many"},
]


@pytest.fixture
def run(monkeypatch, capsys):
    """Return a function that runs a command and returns its exit code, stdout and stderr."""

    def run(*line):
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["pictory_provider", *line])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        text = ended.value.code if isinstance(ended.value.code, str) else printed.err
        code = 1 if isinstance(ended.value.code, str) else ended.value.code
        return code, printed.out, text

    return run


def findings(out):
    return {row["check"]: (row["is"], row["found"]) for row in json.loads(out)}


def test_the_check_finds_connection_key_credits_and_records(pictory, run, monkeypatch, on_airflow):
    on_airflow((3, 3))
    monkeypatch.setattr(version_compat, "is_triggerer_alive", lambda: True)
    code, out, _ = run("check", "-o", "json")
    found = findings(out)
    assert code == 0
    assert {each for each, _ in found.values()} == {"ok"}
    assert found["connection"][1] == f"pictory_default points to {pictory.base_url}"
    assert found["credits"][1] == "22,000 AI credits left of 22,000"
    assert "a retry buys nothing twice" in found["records"][1]


def test_a_check_that_finds_a_problem_reports_it_and_exits_with_1(pictory, run, monkeypatch):
    monkeypatch.setattr(version_compat, "is_triggerer_alive", lambda: False)
    monkeypatch.setattr(pictory, "api_key", "another")
    code, out, _ = run("check", "-o", "json")
    found = findings(out)
    assert code == 1
    assert found["key"][0] == found["triggerer"][0] == "WRONG"
    assert "Pictory refused the API key (401)" in found["key"][1]


def test_a_check_that_cannot_be_decided_is_not_a_failure(pictory, run, monkeypatch, on_airflow):
    def away():
        raise OSError("no database")

    monkeypatch.setattr(version_compat, "is_triggerer_alive", away)
    on_airflow((3, 1))
    code, out, _ = run("check", "-o", "json")
    found = findings(out)
    assert (code, found["triggerer"][0], found["records"][0]) == (0, "?", "?")
    assert "retries=0" in found["records"][1]


@pytest.mark.parametrize(("ahead", "skew"), [(7_200, "120 minutes behind"), (-90, "ahead of")])
def test_the_check_reports_a_wrong_clock(run, monkeypatch, ahead, skew):
    with Simulator(seconds=0, clock=lambda: time.time() + ahead) as pictory:
        monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", pictory.connection_json())
        code, out, _ = run("check", "-o", "json")
    is_, found = findings(out)["clock"]
    assert (code, is_) == (1, "WRONG")
    assert skew in found


def test_the_check_names_the_field_that_makes_airflow_ignore_a_variable(pictory, run, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_MINE", json.dumps(pictory.connection() | {"port": "84a"}))
    code, out, _ = run("check", "--conn-id", "mine", "-o", "json")
    is_, found = findings(out)["connection"]
    assert (code, is_) == (1, "WRONG")
    assert "AIRFLOW_CONN_MINE is set on this machine, but it has a 'port' that is not a whole number" in found
    assert "84a" not in out


def test_the_check_reports_an_unknown_field_of_the_extra_without_failing(pictory, run, monkeypatch):
    monkeypatch.setattr(version_compat, "is_triggerer_alive", lambda: True)
    monkeypatch.setenv("AIRFLOW_CONN_MINE", json.dumps(pictory.connection() | {"extra": {"Timeout": 5}}))
    code, out, _ = run("check", "--conn-id", "mine", "-o", "json")
    assert code == 0
    assert findings(out)["extra"][0] == "?"
    assert "has 'Timeout' in its extra, which is not read" in findings(out)["extra"][1]


# Who sees the tabs

READS = {("can_read", "DAGs"), ("can_read", "XComs")}
ROLES = [
    ("Public", set()),
    ("Viewer", READS),
    ("Op", READS | {("can_read", "Plugins")}),
    ("Painters", {("can_read", "DAG:covers")}),
    ("Editors", {("can_edit", "DAG:covers"), ("can_read", "DAG Runs")}),
]


@pytest.mark.parametrize(
    ("roles", "is_well", "found"),
    [
        (ROLES, None, "Airflow shows no tabs to the roles Painters, Viewer: they lack `can read` on Plugins."),
        (ROLES[2:3], True, "Airflow shows the tabs to every role that reads DAGs"),
    ],
)
def test_the_check_names_the_roles_that_see_no_tabs(roles, is_well, found):
    answer, text = access.check_roles(roles)
    assert (answer, text[: len(found)]) == (is_well, found)


def test_the_check_knows_airflows_simple_auth_manager_and_does_not_judge_a_custom_one(pictory, run, monkeypatch):
    monkeypatch.setattr(version_compat, "is_triggerer_alive", lambda: True)
    _, out, _ = run("check", "-o", "json")
    assert findings(out)["pages"] == ("ok", "Airflow shows the tabs to every user")
    monkeypatch.setenv("AIRFLOW__CORE__AUTH_MANAGER", "tests.browser.managers.Gate")
    _, out, _ = run("check", "-o", "json")
    assert findings(out)["pages"][0] == "?"
    assert findings(out)["pages"][1].startswith("Gate decides")
    monkeypatch.setenv("AIRFLOW__PICTORY__GALLERY", "False")
    _, out, _ = run("check", "-o", "json")
    assert findings(out)["pages"] == ("ok", "switched off by [pictory] gallery")


def test_roles_that_cannot_be_read_are_not_a_failure(pictory, run, monkeypatch):
    monkeypatch.setattr(version_compat, "is_triggerer_alive", lambda: True)
    monkeypatch.setattr(access, "who_sees_tabs", lambda: 1 / 0)
    code, out, _ = run("check", "-o", "json")
    assert (code, findings(out)["pages"][0]) == (0, "?")


def test_a_missing_connection_is_reported_without_a_traceback(pictory, run):
    code, _, text = run("ledger", "--conn-id", "nowhere")
    assert code == 1
    assert text.startswith("Airflow has no connection 'nowhere'")
    assert "Traceback" not in text


def test_the_gallery_lists_pictures_without_the_signatures_of_their_urls(pictory, run):
    pictory.shape("url", "signed")
    for _ in range(3):
        buy(pictory)
    code, out, _ = run("gallery", "-o", "json", "--limit", "2")
    listed = json.loads(out)
    assert (code, len(listed)) == (0, 2)
    assert listed[0]["prompt"] == "A lighthouse at dawn"
    assert "?" not in out


def test_a_saved_picture_of_the_gallery_is_not_downloaded_again(pictory, run, tmp_path):
    for _ in range(2):
        buy(pictory)
    for _ in range(2):
        code, out, _ = run("gallery", "-o", "json", "--download", str(tmp_path))
        assert code == 0
        assert sorted(row["saved"] for row in json.loads(out)) == sorted(map(str, tmp_path.glob("*.png")))
    assert len([each for each in pictory.requests if each.host == "images"]) == 2


def test_a_picture_that_cannot_be_saved_does_not_stop_the_others(pictory, run, tmp_path):
    for _ in range(2):
        buy(pictory)
    pictory.script("picture", "truncated")
    code, out, text = run("gallery", "-o", "json", "--download", str(tmp_path))
    assert code == 1
    assert [row["saved"] is None for row in json.loads(out)] == [True, False]
    assert "cut short" in text


def test_the_ledger_shows_each_entry(pictory, run):
    buy(pictory)
    code, out, _ = run("ledger", "-o", "json")
    assert code == 0
    assert [(row["type"], row["credits"]) for row in json.loads(out)] == [("debit", 2)]


def test_the_ledger_is_summed_by_day_and_by_kind():
    assert by_day(ENTRIES)[1:] == [
        {"day": "2026-04-04", "spent": 2.6, "came in": 0, "entries": 2},
        {"day": "2026-04-01", "spent": 0, "came in": 100, "entries": 1},
    ]
    assert [(row["kind"], row["spent"]) for row in by_kind(ENTRIES)][:2] == [
        ("seedream3.0", 2),
        ("flux-schnell", 0.6),
    ]
    assert len(rows(ENTRIES)) == sum(row["entries"] for row in by_day(ENTRIES)) == 4


def test_the_ledger_is_summed_by_model():
    entries = [
        {"type": "debit", "amount": 14, "description": "nanobanana-pro image"},
        {"type": "debit", "amount": 4, "description": "Image by NanoBanana"},
        *ENTRIES,
    ]
    assert [(row["model"], row["spent"]) for row in by_model(entries)] == [
        ("nanobanana-pro", 14),
        ("nanobanana", 4),
        ("seedream3.0", 2),
        ("flux-schnell", 0.6),
        ("(no model named)", 0),
    ]


def test_the_check_shows_what_each_limit_leaves(pictory, run, monkeypatch):
    buy(pictory)
    limits = {"credits_per_day": 2, "credits_per_month": 100, "credits_reserve": 500}
    monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", pictory.connection_json(**limits))
    code, out, _ = run("check", "-o", "json")
    found = findings(out)
    assert code == 1
    assert found["credits_per_day"] == ("WRONG", "0 of 2, since the account has spent 2 today")
    assert found["credits_per_month"] == ("ok", "98 of 100, since the account has spent 2 this month")
    assert found["credits_reserve"] == (
        "ok",
        "21,498 above it: the account has 21,998 left, of which 500 are reserved",
    )


def test_the_check_reports_limits_that_cannot_be_compared(pictory, run, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", pictory.connection_json(credits_per_day=2))
    pictory.enter(amount="much")
    code, out, _ = run("check", "-o", "json")
    assert code == 1
    assert "Could not check whether credits_per_day" in findings(out)["limits"][1]


def test_a_job_that_pictory_does_not_know_is_not_recorded(pictory, run, monkeypatch):
    monkeypatch.setattr(version_compat, "find_instances", lambda *_: pytest.fail("it was to be recorded"))
    code, _, text = run("adopt", "d", "r", "t", "no-such-job")
    assert code == 1
    assert text.startswith("Pictory does not know job")


def instance(map_index=-1, loop_index=None, **fields):
    of = {
        "key": 1,
        "dag_id": "d",
        "run_id": "r",
        "task_id": "t",
        "region_id": None,
        "region_index": None,
        "state": "failed",
        "path": None,
    }
    return version_compat.Instance(map_index=map_index, loop_index=loop_index, **of | fields)


@pytest.fixture
def database(monkeypatch, on_airflow):
    """Return the database of an Airflow 3.3: its task instances, its state store, and the instances cleared."""
    on_airflow((3, 3))

    class Database:
        def __init__(self):
            self.instances, self.state, self.cleared = (instance(),), {}, []

        def lost_a_reply(self):
            """Store the intent of a task that lost Pictory's reply."""
            self.state[self.instances[0], "pictory_submission"] = json.dumps(INTENT)

    database = Database()
    monkeypatch.setattr(version_compat, "find_instances", lambda *_: list(database.instances))
    monkeypatch.setattr(version_compat, "read_state", lambda each, key: database.state.get((each, key)))
    monkeypatch.setattr(
        version_compat, "write_state", lambda each, key, value: database.state.update({(each, key): value})
    )
    monkeypatch.setattr(version_compat, "clear_keeping_state", lambda each: database.cleared.append(each) or 2)
    return database


INTENT = {
    "version": 1,
    "fingerprint": "f",
    "request": {"prompt": "A vase"},
    "max_tries": 1,
    "retries": 1,
    "intended_at": 1.0,
}


def test_a_job_is_recorded_where_the_operator_reads_it(pictory, run, database):
    each = instance(3)
    database.instances = (instance(2), each)
    database.state[each, "pictory_submission"] = json.dumps(INTENT)
    job_id = buy(pictory)
    code, out, text = run("adopt", "d", "r", "t", job_id, "--map-index", "3", "-o", "json")
    assert code == 0
    assert json.loads(out)[0]["task"] == "task t of DAG d, run r, map index 3"
    stored = json.loads(database.state[each, "pictory_submission"])
    assert stored == INTENT | {"jobId": job_id}  # a limit of the task still counts what it has bought
    assert Submission.from_dict(stored).is_from_user
    assert not database.cleared
    assert "Clear the task, on its page in Airflow or here with --clear; then it uses this job." in text


@pytest.mark.parametrize("has_store", [True, False])
def test_the_command_of_an_error_lets_one_candidate_adopt_its_job(
    pictory, run, database, on_airflow, tmp_path, timing, has_store
):
    timing(read_budget=0.05)
    path = str(tmp_path / "a.png")
    arguments = {"task_id": "generate", "prompt": "A vase", "path": path, "candidates": 2, "deferrable": False}
    attempts = Attempts(lambda: GenerateImageOperator(**arguments), has_store=has_store)
    pictory.script("submit", "drop-after", every=2)
    with pytest.raises(PictorySubmitOutcomeUnknown) as failed:
        attempts()
    command = re.search(r"adopt (covers .+? --clear)", " ".join(str(failed.value).split()))[1]
    each = instance(dag_id="covers", run_id="first", task_id="generate", path=path)
    database.instances = (each,)
    if has_store:
        database.state = {(each, key): value for key, value in attempts.store.rows.items()}
    else:
        on_airflow((3, 2))
    job_id = list(pictory.account.jobs)[1]  # that a user has found
    code, _, text = run("adopt", *command.replace("JOBID", job_id).split())
    assert code == 0, text
    if has_store:
        attempts.store.rows = {key: value for (_, key), value in database.state.items()}
    attempts.clear()
    assert attempts() == list(pictory.account.jobs)
    assert (len(pictory.account.jobs), sorted(file.name for file in tmp_path.glob("*.png"))) == (
        2,
        ["a.1.png", "a.2.png"],
    )


def test_a_task_without_a_record_is_refused_since_it_would_not_read_one(pictory, run, database):
    job_id = buy(pictory)
    code, _, text = run("adopt", "d", "r", "t", job_id, "--clear")
    assert code == 1
    assert (database.state, database.cleared) == ({}, [])
    assert "finds no record of a submission by task t of DAG d, run r. Nothing was recorded." in " ".join(
        text.split()
    )
    assert "To adopt rows of a batch, follow the batch's error." in " ".join(text.split())
    assert f"PictoryJobSensor(job_id='{job_id}')" in text


def test_a_record_that_cannot_be_read_is_replaced(pictory, run, database):
    database.state[database.instances[0], "pictory_submission"] = '{"version": 9}'
    job_id = buy(pictory)
    assert run("adopt", "d", "r", "t", job_id)[0] == 0
    assert Submission.from_dict(json.loads(*database.state.values())) == Submission(job_id=job_id)


@pytest.mark.parametrize("fate", ["failed", "cleaned"])
def test_a_job_without_a_picture_is_not_adopted_since_the_task_would_buy_another(pictory, run, database, fate):
    database.lost_a_reply()
    before = dict(database.state)
    code, _, text = run("adopt", "d", "r", "t", buy(pictory, fate), "--clear")
    assert code == 1
    assert f"is {fate}: it has no picture" in " ".join(text.split())
    assert (database.state, database.cleared) == (before, [])


def test_a_task_that_has_succeeded_is_refused(pictory, run, database):
    database.instances = (instance(state="success"),)
    code, _, text = run("adopt", "d", "r", "t", buy(pictory), "--clear")
    assert code == 1
    assert "has succeeded, and has its picture. Nothing was recorded." in " ".join(text.split())
    assert (database.state, database.cleared) == ({}, [])


def test_another_job_that_was_recorded_is_named(pictory, run, database):
    database.lost_a_reply()
    one, other = buy(pictory), buy(pictory)
    assert "The record named" not in run("adopt", "d", "r", "t", one)[2]
    assert f"The record named job {one} before. That job is left behind, and may be paid for." in " ".join(
        run("adopt", "d", "r", "t", other)[2].split()
    )


def test_the_option_clear_clears_the_task(pictory, run, database, monkeypatch):
    database.lost_a_reply()
    job_id = buy(pictory)
    code, _, text = run("adopt", "d", "r", "t", job_id, "--clear")
    assert code == 0
    assert database.cleared == [database.instances[0]]
    assert (
        "The task and 2 downstream tasks are cleared; the task uses this job, unless the job fails at Pictory."
        in text
    )
    monkeypatch.setattr(version_compat, "clear_keeping_state", lambda _: 1 / 0)
    code, _, text = run("adopt", "d", "r", "t", job_id, "--clear")
    assert code == 1
    assert "The job is recorded, but the task could not be cleared: ZeroDivisionError" in " ".join(text.split())


@pytest.mark.parametrize("options", [(), ("--clear",)])
def test_a_paused_dag_has_to_be_unpaused_before_its_task_uses_the_job(pictory, run, database, options):
    database.instances = (database.instances[0]._replace(is_paused=True),)
    database.lost_a_reply()
    code, _, text = run("adopt", "d", "r", "t", buy(pictory), *options)
    assert code == 0
    assert "The DAG 'd' is paused, so the task does not run until you unpause it" in " ".join(text.split())
    assert "`airflow dags unpause d`" in text


def test_if_a_clear_deletes_the_record_the_command_says_what_to_do(pictory, run, database, on_airflow):
    on_airflow((3, 4))
    database.lost_a_reply()
    code, _, text = run("adopt", "d", "r", "t", buy(pictory))
    assert code == 0
    assert "Run this again with --clear" in text
    assert "*Keep task state and resume*" in " ".join(text.split())


@pytest.mark.parametrize("version", [(3, 1), (3, 3), (3, 4)])
def test_a_job_is_written_to_the_sidecar_which_a_clear_does_not_delete(
    pictory, run, database, on_airflow, tmp_path, version
):
    on_airflow(version)
    region = uuid.UUID(int=7)
    database.instances = (instance(-1, 1, region_id=region, region_index=1, path=str(tmp_path / "a.png")),)
    made_by = MadeBy("d", "r", "t", -1, str(region), 1)
    target = PictureTarget(str(tmp_path / "a.png"))
    target.write_sidecar(Sidecar(file="a.png", submission=Submission.from_dict(INTENT), made_by=made_by))
    job_id = buy(pictory)
    code, _, text = run("adopt", "d", "r", "t", job_id, "--loop-index", "1")
    assert code == 0
    advice = "finds the job in" if version == (3, 4) else "Clear the task, on its page in Airflow or here"
    assert advice in " ".join(text.split())
    found = target.inspect().sidecar
    assert (found.submission.job_id, found.submission.is_from_user, found.made_by) == (job_id, True, made_by)
    assert not database.state  # this task has no record there


@pytest.mark.parametrize(("iteration", "is_taken"), [(1, True), (0, False)])
def test_an_iteration_takes_over_only_the_intent_of_the_iteration_that_it_replaces(
    pictory, run, database, on_airflow, tmp_path, iteration, is_taken
):
    on_airflow((3, 4))
    path = str(tmp_path / "a.png")
    database.instances = (instance(-1, 1, region_id=uuid.UUID(int=8), region_index=1, path=path),)
    target, earlier = PictureTarget(path), MadeBy("d", "r", "t", -1, str(uuid.UUID(int=7)), iteration)
    target.write_sidecar(Sidecar(file="a.png", submission=Submission.from_dict(INTENT), made_by=earlier))
    job_id = buy(pictory)
    code, _, text = run("adopt", "d", "r", "t", job_id)
    assert code == (0 if is_taken else 1)
    found = target.inspect().sidecar
    if is_taken:
        assert found.made_by == MadeBy("d", "r", "t", -1, str(uuid.UUID(int=8)), 1)
        assert found.submission.job_id == job_id
    else:
        assert found.made_by == earlier
        assert "belongs to task t of DAG d, run r, iteration 0" in " ".join(text.split())


@pytest.mark.parametrize(
    ("existing", "problem"),
    [
        (None, ": not found from this machine"),
        ("another", " belongs to task other of DAG d, run r"),
        ("saved", " describes the saved picture of job j"),
        ("rubbish", ": it is no"),
    ],
)
def test_a_sidecar_of_another_task_is_not_changed_and_the_command_says_so(
    pictory, run, database, on_airflow, tmp_path, existing, problem
):
    on_airflow((3, 1))
    path = str(tmp_path / "a.png")
    database.instances = (instance(path=path),)
    target, submission = PictureTarget(path), Submission.from_dict(INTENT)
    if existing == "another":
        target.write_sidecar(Sidecar(file="a.png", submission=submission, made_by=MadeBy("d", "r", "other", -1)))
    elif existing == "saved":
        saved = SavedFile(1, "0", 1, 1, 2, (), 1.0)
        bought = replace(submission, job_id="j", submitted_at=2.0)
        target.write_sidecar(
            Sidecar(file="a.png", submission=bought, made_by=MadeBy("d", "r", "t", -1), saved=saved)
        )
    elif existing:
        (tmp_path / "a.png.json").write_text("rubbish")
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    code, _, text = run("adopt", "d", "r", "t", buy(pictory))
    assert code == 1
    assert f"by task t of DAG d, run r ({path}.json{problem}" in " ".join(text.split())
    assert "PictoryJobSensor(job_id=" in text
    on_airflow((3, 3))
    database.lost_a_reply()
    code, _, text = run("adopt", "d", "r", "t", buy(pictory))
    assert code == 0
    assert f"The sidecar of the picture was not changed: {path}.json{problem}" in " ".join(text.split())
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_job_that_is_adopted_takes_the_place_of_a_picture_that_was_moved(
    pictory, run, database, on_airflow, tmp_path
):
    on_airflow((3, 1))
    path = str(tmp_path / "a.png")
    database.instances = (instance(path=path),)
    target, bought = PictureTarget(path), replace(Submission.from_dict(INTENT), job_id="j", submitted_at=2.0)
    made_by, saved = MadeBy("d", "r", "t", -1), SavedFile(1, "0", 1, 1, 2, (), 1.0)
    target.write_sidecar(
        Sidecar(file="a.png", submission=bought, made_by=made_by, saved=saved).as_moved("a.v1.png")
    )
    job_id = buy(pictory)
    code, _, _ = run("adopt", "d", "r", "t", job_id)
    found = target.inspect().sidecar
    assert (code, found.state, found.submission.job_id, found.redone) == (0, "bought", job_id, ("j",))


@pytest.mark.parametrize("state", ["running", "restarting", "queued", "deferred", "awaiting_input"])
def test_a_task_that_has_not_ended_is_refused(pictory, run, database, state):
    database.instances = (instance(state=state),)
    code, _, text = run("adopt", "d", "r", "t", buy(pictory), "--clear")
    assert code == 1
    assert f"is {state}: it may be about to record a job itself." in " ".join(text.split())
    assert (database.state, database.cleared) == ({}, [])


def test_if_several_instances_match_they_are_listed(pictory, run, database):
    database.instances = tuple(instance(index, loop) for index in range(12) for loop in range(2))
    job_id = buy(pictory)
    code, _, text = run("adopt", "d", "r", "t", job_id, "--map-index", "1")
    assert code == 1
    assert "has more than one such task. Nothing was recorded." in " ".join(text.split())
    assert "--map-index 0 --loop-index 1  (failed)" in text
    assert "and 4 more" in text
    assert "has no such task" in run("adopt", "d", "r", "t", job_id, "--map-index", "12")[2]
    database.state[instance(1, 0), "pictory_submission"] = json.dumps(INTENT)
    assert run("adopt", "d", "r", "t", job_id, "--map-index", "1", "--loop-index", "0")[0] == 0
    database.instances = ()
    assert "Airflow has no task 't' in run 'r' of DAG 'd'." in run("adopt", "d", "r", "t", job_id)[2]


def test_a_command_without_airflows_database_says_where_to_run_it(pictory, run):
    code, _, text = run("adopt", "d", "r", "t", buy(pictory))
    assert code == 1
    assert "Airflow's database could not be used from here: OperationalError" in text
    assert "Run this where Airflow's scheduler or API server runs." in text


@pytest.fixture
def cover(tmp_path, monkeypatch):
    """Return the path of a saved picture, whose name a shell has to be told in quotes, and its folder is current."""
    monkeypatch.chdir(tmp_path)
    path, content = tmp_path / "it's a cover.png", painted((64, 64))
    saved = SavedFile(len(content), hashlib.sha256(content).hexdigest(), 1, 1, 0.6, (), 1.0)
    request = {"prompt": "A lighthouse", "model": "flux-schnell"}
    submission = replace(Submission.from_dict(INTENT), job_id="j", request=request, submitted_at=2.0)
    made_by = MadeBy("covers", "r1", "cover", 3)
    path.write_bytes(content)
    target = PictureTarget(str(path))
    target.write_sidecar(Sidecar(file=path.name, submission=submission, made_by=made_by, saved=saved))
    return path


@pytest.mark.parametrize("is_relative", [False, True])
def test_a_redo_says_what_was_moved_what_the_next_run_costs_and_how_to_undo_it(run, cover, is_relative):
    before = {file.name: file.read_bytes() for file in cover.parent.iterdir()}
    code, out, text = run("redo", cover.name if is_relative else str(cover), "-o", "json")
    version = cover.with_name("it's a cover.v1.png")
    who = "task cover of DAG covers, run r1, map index 3"
    assert (code, json.loads(out)) == (0, [{"picture": str(cover), "moved to": str(version), "made by": who}])
    assert "buys a new one, at 0.6 AI credits as listed for flux-schnell" in text
    assert f"clear the {who}, on its page in Airflow" in text
    assert not cover.exists()
    code, _, again = run("redo", str(cover))
    assert (code, "Nothing was changed" in again) == (0, True)
    for line in again.splitlines():
        if line.startswith("    mv "):
            subprocess.run(line, shell=True, check=True)
    assert {file.name: file.read_bytes() for file in cover.parent.iterdir()} == before


def test_a_redo_of_an_object_names_the_objects_to_move_back(run, cover, memory):
    for end in ("", ".json"):
        fsspec.filesystem("memory").pipe(
            f"/{cover.parent.name}/a.png{end}", cover.with_name(cover.name + end).read_bytes()
        )
    where = f"memory://{cover.parent.name}/a"
    code, _, text = run("redo", f"{where}.png")
    assert code == 0
    assert f"    {where}.v1.png -> {where}.png\n    {where}.v1.png.json -> {where}.png.json" in text


def test_a_redo_says_how_to_move_copies_back_too(run, pictory, tmp_path):
    path = tmp_path / "with copies.png"
    arguments = {"task_id": "cover", "prompt": "A lighthouse at dawn", "path": str(path), "deferrable": False}
    Attempts(lambda: GenerateImageOperator(copies=[{"format": "webp", "width": 64}], **arguments))()
    _, _, text = run("redo", str(path))
    moves = [line.strip() for line in text.splitlines() if line.strip().startswith("mv ")]
    assert [shlex.split(line)[2] for line in moves] == [
        str(path.with_name("with copies.64.webp")),
        str(path),
        f"{path}.json",
    ]
    for line in moves:
        subprocess.run(line, shell=True, check=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        *("with copies.64.webp", "with copies.png", "with copies.png.json"),
    ]


def test_a_redo_that_is_refused_changes_nothing_and_exits_with_1(run, cover):
    code, out, text = run("redo", str(cover.with_name("b.png")))
    assert (code, out) == (1, "")
    assert "there is no picture" in " ".join(text.split())


def test_a_redo_has_no_option_for_a_connection_to_pictory(run):
    code, _, text = run("redo", "a.png", "--conn-id", "mine")
    assert code == 2
    assert "--conn-id" in text


def test_a_wrong_command_line_ends_with_2(run):
    assert run("chekc")[0] == 2


RUN_ALL = """
import contextlib, sys
from pictory_provider.__main__ import main
for command in sys.argv[1:]:
    sys.argv = ["pictory_provider", command]
    with contextlib.suppress(SystemExit):
        main()
    print(command, "has ended")
"""


def test_no_command_prints_the_key(pictory):
    commands = ("check", "gallery", "ledger")
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL, *commands],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"AIRFLOW_CONN_PICTORY_DEFAULT": pictory.connection_json()},
    )
    assert all(f"{command} has ended" in done.stdout for command in commands)
    assert {"/v1/quota", "/v1/aistudio/images", "/v1/aicredits/usage"} <= {r.path for r in pictory.requests}
    assert pictory.api_key not in done.stdout + done.stderr


def test_airflow_finds_the_commands_by_their_name():
    (name,) = get_provider_info()["cli"]
    module, _, function = name.rpartition(".")
    (group,) = getattr(__import__(module, fromlist=[function]), function)()
    assert [each.name for each in group.subcommands] == ["check", "gallery", "ledger", "adopt", "redo"]
